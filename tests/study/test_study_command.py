"""`lava-casc evaluate --study` and `lava-casc report` as commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests/data/digits.pt"


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two studies of 60 digits: ``out``, and ``graded``, with the spikes of chosen samples."""
    folder = tmp_path_factory.mktemp("study")
    found = _casc("evaluate", MODEL, "--study", "out", "--samples", 60, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "certified lossless: 60 of 60 samples silent by step" in found.stdout
    assert "lava-casc report out" in found.stdout
    found = _casc(
        "evaluate", MODEL, "--study", "graded", "--samples", 60, "--mode", "graded", "--steps", 12, "--draw", "7,2",
        "--variants", "if", "--json", cwd=folder,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["certified"] == 60
    return folder


def test_the_study_leaves_json_csv_and_pictures(home):
    data = json.loads((home / "out/study.json").read_text())
    assert data["samples"] == 60
    assert data["steps"] == 32
    assert data["summary"]["accuracy"]["cif+wsc"] == data["summary"]["accuracy"]["integer"]
    assert data["about"]["command"].startswith("lava-casc evaluate")
    rows = [line.split(",") for line in (home / "out/scores.csv").read_text().splitlines()]
    column = rows[0].index("cif top5")
    assert [float(v) for v in rows[20][column : column + 3]] == data["scores"]["cif"]["top5"][19]
    assert float(rows[-1][-1]) == 1.0
    layers = [line.split(",") for line in (home / "out/layers.csv").read_text().splitlines()]
    assert sum(row[:2] == ["cif+wsc", "conv2"] for row in layers) == data["runs"]["cif+wsc"]["steps"] == 34
    messages = [float(row[3]) for row in layers[1:] if row[:2] == ["if", "conv1"]]
    assert messages == data["runs"]["if"]["layers"]["conv1"]["messages"]
    assert (home / "out/scores.png").read_bytes().startswith(b"\x89PNG")
    slowest = data["runs"]["cif+wsc"]["last_spike"].index(max(data["runs"]["cif+wsc"]["last_spike"]))
    assert {path.name for path in (home / "out").glob("*.svg")} == {"spikes-0.svg", f"spikes-{slowest}.svg"}
    assert {path.name for path in (home / "graded").glob("*.svg")} == {"spikes-2.svg", "spikes-7.svg"}


def test_the_report_is_a_page_beside_the_study(home):
    found = _casc("report", "out", "--step-us", 2.5, cwd=home)
    assert found.returncode == 0, found.stderr
    page = (home / "out/report.html").read_text()
    assert "2.5 µs a step" in page
    assert page.count("<svg") == 10
    found = _casc("report", "graded/study.json", "-o", "x.html", "--energy", "loihi1", "--json", cwd=home)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["page"] == "x.html"
    page = (home / "x.html").read_text()
    assert "Loihi 1" in page
    assert "45 nm CMOS" not in page


def test_studies_are_compared(home):
    found = _casc("report", "out", "graded", cwd=home)
    assert found.returncode == 0, found.stderr
    assert "page: comparison.html" in found.stdout
    assert "2 networks compared" in (home / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("evaluate", MODEL, "--study", "new", "--variants", "cif,lif"),
            "--variants: 'lif' is not known. Use any of if",
        ),
        (("evaluate", MODEL, "--study", "new", "--steps", 3), "steps (3) is smaller than the wake (8)"),
        (("evaluate", MODEL, "--study", "new", "--certified"), "Leave --engine, --certified, --slurm and --output out"),
        (("evaluate", MODEL, "--study", "new", "--draw", "0,x"), "--draw: '0,x' is no list of samples"),
        (("evaluate", MODEL, "--study", "new", "--draw", "60", "--samples", 60), "sample 60 is not among the 60"),
        (("evaluate", MODEL, "--study", "out", "--samples", 59), "is of another network, schedule or data"),
        (("evaluate", MODEL, "--study", "out/study.json/x"), "cannot be made"),
        (("report", "nowhere"), "nowhere: no readable JSON"),
        (("report", "broken.json"), "broken.json: no readable JSON"),
        (("report", "other.json"), "other.json: holds no study"),
        (("report", "newer.json"), "its version (3) exceeds what is known (2). Update lava_casc"),
        (("report", "damaged.json"), "damaged.json: is damaged ('runs')"),
        (("report", "out", "samples.json"), "were run on different samples"),
        (("report", "out", "layers.json"), "are of different architectures"),
        (("report", "out", "--energy", "sun"), "sun: no such table of energy constants"),
        (("report", "out", "-o", "no/x.html"), "no/x.html: its folder does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(home, arguments, message):
    data = json.loads((home / "out/study.json").read_text())
    (home / "broken.json").write_text("{")
    (home / "other.json").write_text("[1]")
    (home / "newer.json").write_text(json.dumps({**data, "version": 3}))
    (home / "damaged.json").write_text(json.dumps({k: v for k, v in data.items() if k != "runs"}))
    (home / "samples.json").write_text(json.dumps({**data, "data": "0"}))
    layers = [{**layer, "shape": [1]} for layer in data["network"]["layers"]]
    (home / "layers.json").write_text(json.dumps({**data, "network": {**data["network"], "layers": layers}}))
    before = (home / "out/study.json").read_bytes()
    found = _casc(*arguments, cwd=home)
    assert found.returncode == 2, found.stderr
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert (home / "out/study.json").read_bytes() == before
    assert not (home / "new/study.json").exists()
