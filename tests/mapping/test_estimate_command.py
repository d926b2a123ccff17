"""`lava-casc estimate` as a command, and its picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("h5py")

import lava_casc
from lava_casc.frontend import load_checkpoint
from lava_casc.hardware import read_hardware, shipped_configs
from lava_casc.mapping import place
from lava_casc.pipeline import Options, convert_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the digits' network and a target of tiny cores."""
    folder = tmp_path_factory.mktemp("estimate")
    network = convert_checkpoint(load_checkpoint(ROOT / "tests/data/digits.pt"), Options(verify=0)).network
    lava_casc.write(folder / "digits.net", network)
    text = shipped_configs()["template"].read_text()
    text = text.replace('name = "template"', 'name = "tiny"').replace("assumed = 4096", "assumed = 60")
    (folder / "tiny.toml").write_text(text)
    return folder


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_what_fits_is_told_layer_by_layer(home):
    found = _casc("estimate", "digits.net", "--step-us", 10, "-o", "out.json", cwd=home)
    assert found.returncode == 0, found.stderr
    assert "Everything fits, by these limits." in found.stdout
    assert "1,024 of 4,096" in found.stdout
    assert "every sample certified by step 34, 340 microseconds" in found.stdout
    assert "Assumed, because nothing is public: synaptic memory, axons in, axons out of a core" in found.stdout
    assert "Nothing here was ever run on a chip." in found.stdout
    result = json.loads((home / "out.json").read_text())
    placement = place(lava_casc.read(home / "digits.net"), read_hardware())
    assert result["fits"] is True
    assert result["cores"] == [{k: list(v) for k, v in core.items()} for core in placement.utilization()]
    assert result["registers"]["limit"] == 24
    assert sum(result["staircase"]["neurons"].values()) > 8 * result["staircase"]["cif_neurons"] > 8000
    assert "--engine staircase: does not fit (1 layers, the first: conv2: the worst-case input" in found.stdout
    assert result["registers"]["bits"]["conv2"] == 18


def test_what_does_not_fit_is_told_with_reason_and_remedy(home):
    found = _casc("estimate", "digits.net", "--hw", "tiny.toml", cwd=home)
    assert found.returncode == 0, found.stderr
    for text in (
        "does not fit: conv2: the incoming axons of a single neuron (288) exceed those of a core of tiny (60, which is",
        "assumed: the real one is not public). Use fewer input channels, a smaller kernel or groups.",
    ):
        assert text in found.stdout
    assert "It fits on: lava_cpu, loihi2_kapoho_point, loihi2_oheo_gulch." in found.stdout
    found = _casc("estimate", "digits.net", "--hw", "tiny.toml", "--json", cwd=home)
    assert json.loads(found.stdout)["fits"] is False


def test_a_target_without_cores_has_registers_alone(home):
    found = _casc("estimate", "digits.net", "--hw", "lava_cpu", cwd=home)
    assert found.returncode == 0, found.stderr
    assert "not partitioned" in found.stdout
    assert "Everything fits." in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.net",), "nowhere.net"),
        (("digits.net", "--hw", "loihi2_kapoho"), "Did you mean loihi2_kapoho_point"),
        (("digits.net", "-o", "no/x.json"), "its folder does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(home, arguments, message):
    found = _casc("estimate", *arguments, cwd=home)
    assert found.returncode == 2
    assert len([line for line in found.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert message in found.stderr


def test_a_study_says_what_samples_really_took(home):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    model = ROOT / "tests/data/digits.pt"
    how = ("--study", "study", "--samples", 20, "--variants", "cif+wsc")
    assert _casc("evaluate", model, "--network", "digits.net", *how, cwd=home).returncode == 0
    found = _casc("estimate", "digits.net", "--study", "study", cwd=home)
    assert found.returncode == 0, found.stderr
    data = json.loads((home / "study/study.json").read_text())["summary"]["silence"]
    assert "measured: 20 of 20 samples certified, in step" in found.stdout
    assert f"{data['certificate_max']:g} (greatest)" in found.stdout
    other = json.loads((home / "study/study.json").read_text())
    other["network"]["layers"][1]["levels"] = 4
    (home / "other.json").write_text(json.dumps(other))
    found = _casc("estimate", "digits.net", "--study", "other.json", cwd=home)
    assert found.returncode == 2
    assert "other.json: is of another network" in found.stderr


def test_export_refuses_what_the_staircase_cannot_hold(home):
    model = ROOT / "tests/data/digits.pt"
    found = _casc("export", model, "-o", "stairs.net", "--staircase", "--verify", 0, cwd=home)
    assert found.returncode == 2
    assert "conv2: the worst-case input of a comparator" in found.stderr
    assert not (home / "stairs.net").exists()
    found = _casc("export", model, "-o", "stairs.net", "--staircase", "--verify", 0, "--weight-bits", 6, cwd=home)
    assert found.returncode == 0, found.stderr
    found = _casc("estimate", "stairs.net", cwd=home)
    assert "--engine staircase: fits, 13,386 neurons instead of 1,354" in found.stdout


def test_the_picture_has_a_bar_for_every_core_and_marks_what_is_over(home):
    pytest.importorskip("matplotlib")
    from matplotlib.colors import to_hex

    from lava_casc.report.cores import plot_cores
    from lava_casc.report.raster import NEGATIVE

    placement = place(lava_casc.read(home / "digits.net"), read_hardware(home / "tiny.toml"))
    layers = [(layer.name, layer.cores) for layer in placement.layers]
    figure = plot_cores(placement.utilization(), layers, 120, "title")
    assert len(figure.axes) == 4
    over = 0
    for axes, resource in zip(figure.axes, placement.limits, strict=True):
        blue, red = axes.patches
        assert to_hex(red.get_facecolor()) == NEGATIVE.lower() != to_hex(blue.get_facecolor())
        fills = zip(blue.get_data().values, red.get_data().values, placement.utilization(), strict=True)
        for within, beyond, core in fills:
            used, limit = core[resource]
            assert (within, beyond)[used > limit] == pytest.approx(100 * used / limit)
            assert (within, beyond)[used <= limit] == 0
            over += used > limit
        assert (blue.get_data().edges == range(placement.cores + 1)).all()
    assert over
    found = _casc("estimate", "digits.net", "--picture", "cores.png", cwd=home)
    assert found.returncode == 0, found.stderr
    assert (home / "cores.png").read_bytes().startswith(b"\x89PNG")
