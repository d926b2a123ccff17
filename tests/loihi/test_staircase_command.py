"""The staircase of the trained digits, and its command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lava_casc import loihi, pipeline
from lava_casc.cli.run import run
from lava_casc.errors import RangeError
from lava_casc.loihi.staircase import staircase_cost, staircase_refusals
from lava_casc.netx import read_file
from lava_casc.reference import forward

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "tests/data/digits.pt"


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The digits with weights of 6 and of 8 bits, and 64 training images that the checkpoint carries."""
    made = tmp_path_factory.mktemp("staircase")
    for bits in (6, 8):
        pipeline.export(DIGITS, made / f"digits{bits}.net", pipeline.Options(weight_bits=bits, verify=0))
    np.save(made / "images.npy", pipeline.load_checkpoint(DIGITS).examples[:5])
    return made


def test_the_digits_fit_with_weights_of_six_bits(folder):
    network, images = read_file(folder / "digits6.net").network, np.load(folder / "images.npy")
    assert staircase_refusals(network) == {}
    found = loihi.run(network, images, engine="staircase", record=("counts",))
    truth = forward(network, images)
    assert (found.logits == truth.logits).all()
    assert all((found.counts[name] == truth.counts[name]).all() for name in truth.counts)
    assert all(len(np.unique(counts)) == 9 for counts in truth.counts.values()), "every step of the staircases is seen"
    # Ten neurons a unit, for 8 levels, and nine of a pool.
    assert staircase_cost(network) == {
        "conv1": 5120,
        "residual.conv": 5120,
        "conv2": 2560,
        "pool": 576,
        "readout": 10,
    }


def test_the_digits_with_weights_of_eight_bits_do_not(folder):
    network = read_file(folder / "digits8.net").network
    match = (
        r"^conv2: the worst-case input of a comparator \(-66656\) exceeds the 16 signed bits of LIF's input "
        r"\(-32768\)\. Export with fewer --weight-bits, or use the engine fused or graph.$"
    )
    assert list(staircase_refusals(network)) == ["conv2"]
    with pytest.raises(RangeError, match=match):
        loihi.run(network, np.load(folder / "images.npy"), engine="staircase")


def test_the_command_says_that_nothing_is_certified(folder):
    arguments = ("run", "digits6.net", "--images", "images.npy", "--engine", "staircase", "-o", "result.json")
    found = _casc(*arguments, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "lava staircase fixed_pt, held, 12 + 0 steps" in found.stdout
    assert "0 of 5" in found.stdout
    assert (
        "NOT CERTIFIED: the staircase holds its input, and nothing falls silent. Tests hold its answers equal to th"
        in (found.stdout)
    )
    assert "last spike" not in found.stdout
    result = json.loads((folder / "result.json").read_text())
    truth = forward(read_file(folder / "digits6.net").network, np.load(folder / "images.npy"))
    assert result["logits"] == truth.logits.tolist()
    assert (result["mismatched_logits"], result["certified_samples"], result["certified"]) == (0, 0, [False] * 5)
    assert result["schedule"]["mode"] == "held"
    assert (result["last_spike_max"], result["silence_bound"], result["steps"]) == (None, None, 60)


def test_the_command_refuses_what_does_not_fit(folder):
    found = _casc("run", "digits8.net", "--images", "images.npy", "--engine", "staircase", cwd=folder)
    assert found.returncode == 2, found.stderr
    assert "error: conv2: the worst-case input of a comparator (-66656) exceeds the 16 signed bits" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mode": "graded"},
            "error: --mode: the staircase holds its input; it has no schedule, and no spikes to draw.",
        ),
        ({"wake_steps": 1}, "Leave --wake-steps out, or use another --engine."),
        ({"sleep_steps": 0}, "Leave --sleep-steps out, or use another --engine."),
        ({"fixed_period": True}, "Leave --fixed-period out, or use another --engine."),
        ({"picture": Path("a.png")}, "Leave --picture out, or use another --engine."),
        (
            {"precision": "float"},
            "error: --precision float: the staircase engine computes integers. Use --engine graph.",
        ),
    ],
)
def test_the_command_refuses_options_that_mean_nothing_here(folder, capsys, options, message):
    with pytest.raises(SystemExit, match="^2$"):
        run(folder / "digits6.net", images=folder / "images.npy", engine="staircase", **options)
    assert message in capsys.readouterr().err


def test_evaluate_has_no_staircase(folder):
    found = _casc("evaluate", "digits6.net", "--data", "digits", "--engine", "staircase", cwd=folder)
    assert found.returncode == 2
    assert "'staircase' is not one of 'fused', 'graph', 'reference'" in " ".join(found.stderr.split())


def test_limits_and_cost_need_no_lava():
    code = (
        "import sys; sys.modules['lava'] = None\n"
        f"sys.path[:0] = [{str(ROOT / 'tests/loihi')!r}]\n"
        "from lava_casc.loihi.staircase import settling_steps, staircase_cost, staircase_refusals\n"
        "from loihi_networks import small\n"
        "print(staircase_refusals(small()), staircase_cost(small())['readout'], settling_steps(small())['readout'])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (found.stdout, found.stderr) == ("{} 4 9\n", "")
