"""Ctrl-C: what is finished is kept, what is not is never reported, and nothing is left behind."""

from __future__ import annotations

import importlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sessions import ctrl_c, session

import lava_casc
from lava_casc.evaluation import evaluate
from lava_casc.frontend import load_checkpoint
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.record import kept

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/data/digits.pt"
simulation = importlib.import_module("lava_casc.reference.simulate")  # the function has the same name
#: Engines, and what they need.
ENGINES = ["reference", *(pytest.param(name, marks=pytest.mark.lava) for name in ("fused", "graph", "staircase"))]

#: The command line, which says on stderr that something is finished, and then waits a little for what comes.
TOLD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
import torch
torch.set_num_threads(1)
from contextlib import contextmanager
from lava_casc import console
@contextmanager
def progress(task, total):
    yield lambda done: print(f"{task}: {done}", file=sys.stderr, flush=True)
console.progress = progress
from lava_casc.cli import main
main()
"""


@pytest.fixture(scope="module")
def digits():
    """A network that every engine takes, and samples."""
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0, levels=2, weight_bits=6)).network
    return network, np.random.default_rng(0).integers(0, network.input.high + 1, (60, *checkpoint.input.shape))


def _stop_at(least):
    def progress(done):
        if done >= least:
            raise KeyboardInterrupt

    return progress


def _same(cut, whole):
    n = len(cut)
    for field in ("logits", "certified", "last_spike"):
        assert (getattr(cut, field) == getattr(whole, field)[:n]).all()
    assert cut.schedule == whole.schedule


@pytest.mark.parametrize("threads", [1, 2])
def test_the_simulator_keeps_whole_batches_and_stops_its_threads(digits, threads):
    network, images = digits
    whole = lava_casc.simulate(network, images, record=("counts",))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            lava_casc.simulate(network, images, record=("counts",), batch_size=7, progress=_stop_at(14))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    cut = kept(caught.value)
    assert len(cut) == 14
    _same(cut, whole)
    for name, counts in whole.counts.items():
        assert (cut.counts[name] == counts[:14]).all()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_threads_do_not_go_on_with_what_nobody_waits_for(digits, monkeypatch):
    network, images = digits
    begun = []
    monkeypatch.setattr(simulation._Runner, "_layer", _counting(simulation._Runner._layer, begun))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    lava_casc.simulate(network, images, batch_size=60)
    layers = len(begun)
    begun.clear()
    with pytest.raises(KeyboardInterrupt):
        lava_casc.simulate(network, images, batch_size=10, progress=_stop_at(1))
    assert len(begun) < 3 * layers, "two threads take two batches through all layers, and give up the third"


def _counting(method, calls):
    def counted(*arguments):
        calls.append(1)
        time.sleep(0.05)  # so that the threads keep pace
        return method(*arguments)

    return counted


def test_nothing_finished_is_no_record(digits, monkeypatch):
    network, images = digits
    monkeypatch.setattr(simulation._Runner, "_layer", _interrupting)
    with pytest.raises(KeyboardInterrupt) as caught:
        lava_casc.simulate(network, images)
    assert kept(caught.value) is None


def _interrupting(*arguments):
    raise KeyboardInterrupt


@pytest.mark.lava
@pytest.mark.parametrize("engine", ["fused", "graph", "staircase"])
@pytest.mark.parametrize("record", [(), ("counts",)])
def test_lava_keeps_the_samples_that_are_finished(digits, engine, record):
    from lava_casc import loihi

    network, images = digits
    size = {"batch_size": 7} if engine == "fused" else {}
    with pytest.raises(KeyboardInterrupt) as caught:
        loihi.run(network, images, engine=engine, record=record, progress=_stop_at(14), **size)
    cut = kept(caught.value)
    assert 14 <= len(cut) < 60
    truth = lava_casc.forward(network, images)
    assert (cut.logits == truth.logits[: len(cut)]).all()
    assert cut.certified.all() == (engine != "staircase")
    assert cut.certified.any() == (engine != "staircase")
    assert set(cut.counts) == (set(truth.counts) if record else set())
    for name, counts in cut.counts.items():
        assert (counts == truth.counts[name][: len(cut)]).all()


@pytest.mark.parametrize(("chosen", "kept"), [(None, 14), ([40, 3, 20, 22], 22)])
def test_the_forms_of_a_cut_batch_are_of_the_same_samples(digits, chosen, kept):
    """Lava takes all samples in one batch; two of the chosen are finished, or 14 of all."""
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    images = digits[1]
    size = 14 if chosen is None else 2
    found = evaluate(
        checkpoint.model,
        network,
        [images],
        lambda outputs: outputs[0].argmax(1),
        lambda predictions, places: {"n": len(predictions), "places": places.tolist()},
        lambda samples, progress: lava_casc.simulate(network, samples, batch_size=size, progress=_stop_at(size)),
        simulated=None if chosen is None else np.array(chosen),
    )
    assert (found.samples, found.interrupted) == (kept, True)
    assert found.scores["float"] == found.scores["integer"] == {"n": kept, "places": list(range(kept))}
    assert (
        found.scores["spikes"]["places"] == found.simulated.tolist() == (list(range(14)) if chosen is None else [3, 20])
    )
    assert len(found.certified) == len(found.last_spike) == size
    assert found.mismatched == 0


def _interrupted(process, said):
    """Press Ctrl-C once a line begins with `said`."""
    for line in process.stderr:
        if line.startswith(said):
            break
    shown, errors = ctrl_c(process)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return shown, errors


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_keeps_what_a_run_has_finished(digits, tmp_path, engine):
    network, _ = digits
    lava_casc.write(tmp_path / "x.net", network)
    samples = 200_000 if engine in ("reference", "fused") else 20_000
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 17, (samples, 1, 8, 8), np.uint8))
    run = ("run", "x.net", "--images", "x.npy", "--engine", engine, "-o", "x.json", "--json", "--picture", "x.png")
    if engine == "staircase":
        run = run[:-2]
    with session(TOLD, *run, cwd=tmp_path) as process:
        name = engine if engine == "staircase" else f"{engine} unary"
        shown, errors = _interrupted(process, name)
    printed, written = json.loads(shown), json.loads((tmp_path / "x.json").read_text())
    n = printed["samples"]
    assert 0 < n < samples
    assert f"interrupted: this is of the first {n} of {samples} samples" in errors
    assert printed["interrupted"]
    assert printed.items() <= written.items()
    assert len(written["certified"]) == len(written["logits"]) == n
    truth = lava_casc.forward(network, np.load(tmp_path / "x.npy")[:n]).logits
    assert written["logits"] == truth.tolist()
    assert all(written["certified"]) == (engine != "staircase")
    assert printed["certified_samples"] == sum(written["certified"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.net", "x.npy"]


def test_ctrl_c_before_anything_is_finished_writes_nothing(digits, tmp_path):
    lava_casc.write(tmp_path / "x.net", digits[0])
    np.save(tmp_path / "x.npy", np.zeros((50_000, 1, 8, 8), np.uint8))
    run = ("run", "x.net", "--images", "x.npy", "--engine", "reference", "-o", "x.json")
    with session(TOLD, *run, cwd=tmp_path) as process:
        shown, errors = _interrupted(process, "integer network: ")
    assert shown == ""
    assert errors.endswith("interrupted\n")
    assert not (tmp_path / "x.json").exists()
