"""The demo: what it says is what the files it leaves say, and it fails where an answer is not proven."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import lava_casc
from lava_casc import demo, loihi, netx, pipeline, training
from lava_casc.frontend import load_checkpoint
from lava_casc.reference import forward, simulate
from lava_casc.training import evaluate, load_dataset

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

SAMPLES = 12


def _run(*arguments, cwd=None):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=240)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the demo as a user does; return its folder, its summary and what it printed."""
    if importlib.util.find_spec("lava") is None:
        pytest.skip("Lava is not installed")
    folder = tmp_path_factory.mktemp("demo") / "made" / "here"
    done = _run("-m", "lava_casc.demo", "--output", folder, "--samples", SAMPLES, cwd=demo.ROOT)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "summary.json").read_text()), done


@pytest.mark.lava
def test_demo_leaves_its_files(finished):
    folder, _, done = finished
    assert sorted(path.name for path in folder.iterdir()) == ["digits.net", "digits.pt", "spikes.png", "summary.json"]
    assert (folder / "spikes.png").read_bytes().startswith(b"\x89PNG")
    assert f"python export/to_netx.py {folder / 'digits.pt'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.lava
def test_summary_says_what_the_files_say(finished):
    folder, summary, _ = finished
    data = load_dataset("digits")
    images, labels = data.test_images[:SAMPLES], data.test_labels[:SAMPLES]
    file = netx.read_file(folder / "digits.net")
    model = load_checkpoint(folder / "digits.pt").model
    truth = forward(file.network, images).logits
    spikes = simulate(file.network, images, file.schedule)
    assert spikes.certified.all()
    assert summary["samples"] == summary["certified_samples"] == SAMPLES
    assert summary["mismatched_logits"] == 0
    assert summary["logits"] == 10 * SAMPLES
    assert summary["float_accuracy"] == evaluate(model, images, labels, data.scale)
    assert summary["integer_accuracy"] == summary["lava_accuracy"] == (truth.argmax(1) == labels).mean()
    assert summary["mode"] == file.schedule.mode == "unary"
    assert summary["levels"] == file.network.levels == 8
    assert summary["last_spike_median"] == np.median(spikes.last_spike)
    assert summary["last_spike_max"] == spikes.last_spike.max()
    assert summary["silence_bound"] == file.network.silence_bound(file.schedule)
    # One batch: as many steps as its slowest sample takes to be certified.
    last_event = file.network.last_event(file.schedule)
    assert summary["lava_steps"] == max(last_event, spikes.last_spike.max() + 1)
    assert 0 < summary["lava_ms_per_sample"] * SAMPLES / 1000 < summary["seconds"]
    assert summary["versions"]["lava-casc"] == lava_casc.__version__


@pytest.mark.lava
def test_demo_network_is_good_and_survives_quantization(finished):
    folder, _, _ = finished
    data = load_dataset("digits")
    model = load_checkpoint(folder / "digits.pt").model
    logits = forward(netx.read(folder / "digits.net"), data.test_images).logits
    right = int((logits.argmax(1) == data.test_labels).sum())
    float_right = round(evaluate(model, data.test_images, data.test_labels, data.scale) * 360)
    assert float_right >= 353  # 98 %
    assert right >= float_right - 1


@pytest.mark.lava
def test_table_shows_the_summary(finished):
    _, summary, done = finished
    for words in (
        f"{summary['float_accuracy']:.2%}",
        f"{SAMPLES} of {SAMPLES}",
        f"0 of {10 * SAMPLES}",
        f"{summary['last_spike_median']:g}",
        f"{summary['lava_ms_per_sample']:.1f} ms",
        f"proven bound {summary['silence_bound']}",
    ):
        assert words in done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint and its network after a short training."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    training.train_checkpoint(folder / "digits.pt", load_dataset("digits"), epochs=1)
    pipeline.export(folder / "digits.pt", folder / "digits.net", pipeline.Options(verify=1))
    yield folder
    torch.set_num_threads(threads)


@pytest.fixture
def staged(trained, monkeypatch):
    """Let the demo take the reference for Lava; what it returns can be changed first."""

    def stage(change):
        def fake(network, images, schedule, *, record=(), progress=None):
            found = simulate(network, images, schedule, record=("counts", *record))
            return dataclasses.replace(change(found), steps=100, seconds=0.5)

        monkeypatch.setitem(vars(loihi), "run", fake)

    def train(path, dataset, *, resume, progress):
        Path(path).write_bytes((trained / "digits.pt").read_bytes())
        progress(1.0)

    def export(path):
        path.with_suffix(".net").write_bytes((trained / "digits.net").read_bytes())

    monkeypatch.setattr(loihi, "require_lava", lambda: None)
    monkeypatch.setattr(training, "train_checkpoint", train)
    monkeypatch.setattr(demo, "_export", export)
    return stage


def _wrong_logit(record):
    logits = record.logits.copy()
    logits[2:3, 3] += 1
    return dataclasses.replace(record, logits=logits)


def _uncertified(record):
    certified = record.certified.copy()
    certified[2:3] = False
    return dataclasses.replace(record, certified=certified)


def _picture_wrong(record):
    return dataclasses.replace(record, logits=record.logits + 1) if len(record) == 1 else record


def test_measured_numbers_come_from_the_record(staged, tmp_path):
    staged(lambda record: record)
    demo.demo(tmp_path, samples=4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["lava_steps"], summary["lava_ms_per_sample"]) == (100, 125)
    assert (summary["certified_samples"], summary["mismatched_logits"]) == (4, 0)


@pytest.mark.parametrize(
    ("change", "certified", "mismatched"),
    [(_wrong_logit, 4, 1), (_uncertified, 3, 0), (_picture_wrong, 4, 0)],
)
def test_demo_fails_unless_everything_is_exact(staged, tmp_path, capsys, change, certified, mismatched):
    staged(change)
    with pytest.raises(SystemExit) as caught:
        demo.demo(tmp_path, samples=4)
    assert caught.value.code == 1
    assert "did not give the integer network's answer" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["certified_samples"], summary["mismatched_logits"]) == (certified, mismatched)


def test_summary_of_the_past_does_not_outlive_a_failure(staged, tmp_path):
    def fail(record):
        raise RuntimeError("the simulator broke")

    staged(fail)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        demo.demo(tmp_path, samples=4)
    assert caught.value.code == 1
    assert not (tmp_path / "summary.json").exists()


def test_failed_export_ends_the_demo_with_its_exit_code(tmp_path):
    (tmp_path / "digits.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(SystemExit) as caught:
        demo._export(tmp_path / "digits.pt")
    assert caught.value.code == 2


def test_export_outside_of_the_repository_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    with pytest.raises(lava_casc.CascError, match="Run the demo in the repository of lava_casc, with make demo"):
        demo._export(tmp_path / "digits.pt")


def test_without_lava_one_line_says_so_before_any_work(tmp_path):
    hide = "import sys; sys.modules['lava'] = None; from lava_casc import demo; demo.main()"
    done = _run("-c", hide, "--output", tmp_path / "out", cwd=demo.ROOT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: This needs Lava, which is not installed.")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_made_is_refused(staged, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        demo.demo(tmp_path / "file" / "out")
    assert caught.value.code == 2
    assert "cannot be written (Not a directory). Choose another --output" in capsys.readouterr().err
