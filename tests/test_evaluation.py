"""Scoring a network in its three forms, all samples as spikes or some: which number comes from which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lava_casc
from lava_casc.evaluation import evaluate
from lava_casc.frontend import load_checkpoint
from lava_casc.frontend.outputs import BATCH
from lava_casc.pipeline import Options, convert_checkpoint

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/data/digits.pt"


@pytest.fixture(scope="module")
def digits():
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    images = np.random.default_rng(0).integers(0, network.input.high + 1, (50, *checkpoint.input.shape))
    return checkpoint.model, network, images


def _evaluate(digits, simulated=None, run=lava_casc.simulate, parts=(0, 20, 21, 50)):
    model, network, images = digits
    ran, told = [], []

    def counted(samples, progress):
        ran.extend(samples)
        progress(len(samples))
        return run(network, samples)

    found = evaluate(
        model,
        network,
        (images[a:b] for a, b in zip(parts, parts[1:], strict=False)),
        lambda outputs: outputs[0].argmax(1),
        lambda predictions, chosen: {"chosen": chosen.tolist(), "predictions": [int(p) for p in predictions]},
        counted,
        simulated=simulated,
        progress=told.append,
    )
    return found, np.array(ran), told


def test_all_samples_run_unless_some_are_chosen(digits):
    _, network, images = digits
    found, ran, told = _evaluate(digits)
    assert (ran == images).all()
    truth = lava_casc.forward(network, images).logits.argmax(1).tolist()
    for form in ("float", "integer", "spikes"):
        assert found.scores[form]["chosen"] == list(range(50))
    assert found.scores["integer"]["predictions"] == found.scores["spikes"]["predictions"] == truth
    assert len(set(truth)) > 1
    assert (found.simulated == np.arange(50)).all()
    assert found.certified.all()
    assert found.mismatched == 0
    assert told[-1] == 50
    assert told == sorted(told)


@pytest.mark.parametrize("chosen", [[3], [49, 0, 20, 21, 30], [22, 23]])
def test_the_chosen_samples_run_and_no_others(digits, chosen):
    _, network, images = digits
    found, ran, told = _evaluate(digits, np.array(chosen))
    places = sorted(chosen)
    assert (ran == images[places]).all()
    assert found.simulated.tolist() == places
    truth = lava_casc.forward(network, images).logits.argmax(1)
    assert found.scores["integer"] == {"chosen": list(range(50)), "predictions": truth.tolist()}
    assert found.scores["spikes"] == {"chosen": places, "predictions": truth[places].tolist()}
    assert len(found.certified) == len(found.last_spike) == len(chosen)
    assert told[-1] == 50


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_keeps_the_batches_that_are_complete(digits, at):
    calls = []

    def run(network, samples):
        calls.append(len(samples))
        if len(calls) == at:
            raise KeyboardInterrupt
        return lava_casc.simulate(network, samples)

    if at == 1:  # nothing is complete
        with pytest.raises(KeyboardInterrupt):
            _evaluate(digits, run=run)
        return
    found, _, _ = _evaluate(digits, run=run)
    whole, _, _ = _evaluate(digits)
    kept = {2: 20, 3: 21}[at]
    assert (found.samples, found.interrupted) == (kept, True)
    assert (whole.samples, whole.interrupted) == (50, False)
    for form in ("float", "integer", "spikes"):
        assert found.scores[form]["predictions"] == whole.scores[form]["predictions"][:kept]
    assert found.certified.shape == found.last_spike.shape == found.simulated.shape == (kept,)


def test_ctrl_c_prints_and_writes_what_was_evaluated_so_far(tmp_path, monkeypatch, capsys):
    """The real command in this process, interrupted in its second batch of spikes."""
    from lava_casc import dynamics
    from lava_casc.cli import engines, main

    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*arguments)

    run = engines.Runner.run
    monkeypatch.setattr(engines.Runner, "run", interrupted)
    monkeypatch.setattr(dynamics, "batches", lambda network, samples, size, most: [slice(0, 5)])
    arguments = ["evaluate", str(MODEL), "--data", "digits", "--samples", "90", "-o", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", ["lava-casc", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    shown = capsys.readouterr()
    assert "interrupted: this is of the first 40 of 90 samples" in shown.err
    assert "certified silent: 40 of 40 samples" in shown.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["samples"], found["interrupted"], len(found["certified"])) == (40, True, 40)


def test_outputs_that_differ_are_counted_among_the_chosen_alone(digits):
    def wrong(network, samples):
        record = lava_casc.simulate(network, samples)
        return replace(record, logits=record.logits + (np.arange(record.logits.shape[1]) == 1))

    assert _evaluate(digits, np.array([5, 40]), wrong)[0].mismatched == 2
    assert _evaluate(digits, None, wrong)[0].mismatched == 50


def test_the_float_model_takes_few_samples_at_a_time_with_the_same_result(digits):
    model, _, images = digits
    sizes = []
    handle = model.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    together = _evaluate(digits, np.array([0]), parts=(0, 50))[0]
    handle.remove()
    assert sizes == [BATCH, 50 - BATCH]
    single = _evaluate(digits, np.array([0]), parts=range(51))[0]
    assert together.scores["float"] == single.scores["float"]


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("trials", [7, 1000])
def test_the_certified_score_comes_from_one_pass_and_says_so(tmp_path, trials):
    pytest.importorskip("sklearn")
    found = _casc("evaluate", MODEL, "--certified", "--trials", trials, "--samples", 90, "-o", "out.json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    tried = min(trials, 90)
    assert (result["samples"], result["simulated_samples"], result["certified_samples"]) == (90, tried, tried)
    assert len(result["simulated"]) == len(set(result["simulated"])) == len(result["certified"]) == tried
    assert result["mismatched_outputs"] == 0
    assert ("one forward pass through all 90 samples" in " ".join(found.stdout.split())) == (tried < 90)


def test_the_seed_chooses_the_samples(tmp_path):
    pytest.importorskip("sklearn")
    chosen = []
    for seed in (0, 0, 1):
        options = ("--certified", "--trials", 9, "--seed", seed, "-o", "out.json")
        assert _casc("evaluate", MODEL, *options, cwd=tmp_path).returncode == 0
        chosen.append(json.loads((tmp_path / "out.json").read_text())["simulated"])
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("short", [0, 1])
def test_without_the_proof_there_is_no_shortcut(tmp_path, digits, short):
    pytest.importorskip("sklearn")
    _, network, _ = digits
    full = network.schedule()
    options = ("--certified", "--trials", 5, "--samples", 20, "--sleep-steps", full.sleep_steps - short)
    found = _casc("evaluate", MODEL, *options, cwd=tmp_path)
    if not short:
        assert found.returncode == 0, found.stderr
        return
    assert found.returncode == 2
    assert f"period ({full.period - 1} steps) is below the {full.period} in which silence is proven" in found.stderr
    assert "Use more --sleep-steps" in found.stderr
