"""The page of a study and of several: what stands on it, that it needs nothing else, and how a browser lays it out."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import look

pytest.importorskip("matplotlib")

import lava_casc  # noqa: E402
from lava_casc.energy import read_energy  # noqa: E402
from lava_casc.frontend import fold, load_checkpoint  # noqa: E402
from lava_casc.pipeline import Options, convert_checkpoint  # noqa: E402
from lava_casc.report import as_svg, plot_spikes  # noqa: E402
from lava_casc.report.page import comparison_page, study_page  # noqa: E402
from lava_casc.study import Ranks, compare, measure, quantization_errors  # noqa: E402
from lava_casc.study.files import as_dict  # noqa: E402

MODEL = Path(__file__).parents[1] / "data/digits.pt"
TABLES = [read_energy(name) for name in ("cmos45-float32", "cmos45-int8", "loihi1")]
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def digits():
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    rng = np.random.default_rng(0)
    return checkpoint, network, rng.integers(0, 17, (12, 1, 8, 8)), rng.integers(0, 10, 12)


def _study(digits, schedule=None, name="digits"):
    checkpoint, network, images, labels = digits
    about = {
        "name": name, "mode": "unary", "data": "noise & <b>more</b>", "command": "lava-casc evaluate 'a b.pt'",
        "diagnosed": 5, "versions": {"torch": "2.3"},
    }  # fmt: skip
    found = measure(
        checkpoint.model,
        network,
        schedule or network.schedule(),
        images,
        Ranks(labels),
        steps=20,
        about=about,
        quantization=quantization_errors(fold(checkpoint.graph), network, images[:5]),
    )
    return json.loads(json.dumps(as_dict(found)))


@pytest.fixture(scope="module")
def study(digits):
    return _study(digits)


@pytest.fixture(scope="module")
def page(digits, study):
    _, network, images, _ = digits
    record = lava_casc.simulate(network, images[:1], record=("spikes",))
    return study_page(study, TABLES, 10.0, [("sample 0", as_svg(plot_spikes(network, record, image=images[0])))])


class _Nesting(HTMLParser):
    """Whether everything that opens is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_startendtag(self, tag, attrs):
        pass


def test_the_page_says_what_was_found(study, page):
    for text in (
        study["summary"]["verdict"],
        "certified lossless: 12 of 12 samples silent by step",
        "noise &amp; &lt;b&gt;more&lt;/b&gt;",
        "lava-casc evaluate &#39;a b.pt&#39;",
        "IF: integrate and fire",
        "residual.conv",
        "Davies et al. 2018",
        "Horowitz",
        study["data"][:16],
        study["identity"][:16],
    ):
        assert text in page, text
    assert 'class="verdict"' in page
    costs = {row["name"]: row for row in study["summary"]["costs"]}
    assert f"{costs['cif+wsc']['synops']:,.0f}" in page
    assert f"{study['network']['macs']:,}" in page


def test_the_page_is_html_that_needs_nothing_else(page):
    parser = _Nesting()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)
    assert not re.findall(r"url\((?!#)", page)
    links = {link for link in re.findall(r'https?://[^"\s<]+', page) if not link.startswith("http://www.w3.org/")}
    assert links == set()
    assert len(page) < 1_000_000


def test_the_same_study_gives_the_same_page(study):
    assert study_page(study, TABLES) == study_page(copy.deepcopy(study), TABLES)


def test_what_is_not_certified_is_said_first(digits):
    _, network, _, _ = digits
    short = _study(digits, network.schedule(sleep_steps=2))
    assert short["summary"]["verdict"].startswith("not certified: 12 of 12 samples were not silent when step 10 ended")
    found = study_page(short, TABLES)
    assert 'class="verdict open"' in found
    assert short["summary"]["verdict"] in found


def test_a_graded_study_has_a_page_too(digits):
    _, network, _, _ = digits
    found = _study(digits, network.schedule("graded"))
    assert found["summary"]["silence"]["certificate_max"] == 6
    assert "graded_synop" in found["summary"]["costs"][-1]["events"]
    assert "certified lossless" in study_page(found, TABLES)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_lays_the_page_out(page, tmp_path, width, dark):
    seen = look(page, tmp_path, width=width, dark=dark)
    assert seen["width"] <= width  # nothing sticks out to the side
    assert seen["fetched"] == seen["broken"] == []
    assert len(seen["ids"]) == len(set(seen["ids"]))
    assert len(seen["svgs"]) == 9
    assert min(seen["svgs"]) > 0.85 * min(width, 500)
    assert seen["smallest"] > 8  # pixels, on a telephone too
    light = _brightness(seen["paper"]) > 200
    assert light != dark
    # Nothing is written in the colour of the paper, or near it.
    assert all(abs(_brightness(colour) - _brightness(seen["paper"])) > 60 for colour in seen["letters"])


def _brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_studies_stand_side_by_side(digits, study, tmp_path):
    _, network, _, _ = digits
    graded = _study(digits, network.schedule("graded"), "graded digits")
    rows = compare([study, graded])
    assert [row["name"] for row in rows] == ["digits", "graded digits"]
    assert rows[0]["cost"]["steps"] > rows[1]["cost"]["steps"] == 6
    assert rows[0]["accuracy"]["cif+wsc"] == rows[1]["accuracy"]["cif+wsc"]
    found = comparison_page(rows, [study, graded], TABLES, 1.0)
    parser = _Nesting()
    parser.feed(found)
    assert parser.open == []
    assert found.count("graded digits") >= 1
    seen = look(found, tmp_path, width=360)
    assert seen["width"] <= 360
    assert len(seen["svgs"]) == 2
    assert seen["broken"] == []
