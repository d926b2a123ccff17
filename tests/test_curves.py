"""Accuracy after every step: the sums against single runs, their intervals, and what can be interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_recurrent
from torch import nn

import lava_casc
from lava_casc import curves
from lava_casc.curves import Curves, interval, measure, read_curves, save, write_csv
from lava_casc.dynamics import VARIANTS
from lava_casc.errors import DataError, RangeError
from lava_casc.frontend import load_checkpoint
from lava_casc.pipeline import Options, convert_checkpoint

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests/data/digits.pt"
STEPS = 24


@pytest.fixture(scope="module")
def digits():
    checkpoint = load_checkpoint(MODEL)
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    rng = np.random.default_rng(0)
    images = rng.integers(0, network.input.high + 1, (40, *checkpoint.input.shape))
    return checkpoint.model, network, images, rng.integers(0, 10, 40)


@pytest.fixture(scope="module")
def whole(digits):
    model, network, images, labels = digits
    return measure(model, network, network.schedule(), images, labels, steps=STEPS)


@pytest.mark.parametrize(
    ("right", "samples", "expected"),
    [(8, 10, (0.4902, 0.9433)), (0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0)), (500, 1000, (0.4691, 0.5309))],
)
def test_the_interval_is_wilsons(right, samples, expected):
    assert interval(right, samples) == pytest.approx(expected, abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(right, samples, 0.5)[0] >= interval(right, samples)[0]


def test_ranks_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(-3, 4, (30, 4, 8)), rng.integers(0, 8, 30)
    found = curves._right(logits, labels)
    for t in range(4):
        order = [sorted(range(8), key=lambda k, row=row: (-row[k], k)) for row in logits[:, t]]
        for rank, k in (("top1", 1), ("top5", 5)):
            assert found[rank][t] == sum(label in best[:k] for label, best in zip(labels, order, strict=True))
    assert found["top1"][0] == (logits[:, 0].argmax(1) == labels).sum()


def test_each_point_is_what_a_run_of_that_length_gives(digits, whole):
    _, network, images, labels = digits
    schedule = network.schedule()
    for name, variant in VARIANTS.items():
        seen = set()
        for step in (schedule.wake_steps, 11, STEPS):
            cut = dataclasses.replace(schedule, sleep_steps=step - schedule.wake_steps)
            logits = lava_casc.simulate(network, images, cut, variant=variant).logits
            assert whole.variants[name]["top1"][step - 1] == (logits.argmax(1) == labels).sum()
            seen.add(whole.variants[name]["top1"][step - 1])
        assert len(whole.variants[name]["top1"]) == STEPS
    truth = lava_casc.forward(network, images).logits.argmax(1)
    assert whole.reference["integer"]["top1"] == (truth == labels).sum() == whole.variants["cif+wsc"]["top1"][-1]
    assert whole.variants["if+wsc"] != whole.variants["cif+wsc"] != whole.variants["cif"] != whole.variants["if"]


def test_silence_is_that_of_the_networks_own_schedule(digits, whole):
    model, network, images, labels = digits
    record = lava_casc.simulate(network, images)
    assert whole.certified == 40
    assert whole.last_spike == record.last_spike.tolist()
    first = [i + 1 for i, n in enumerate(whole.silent) for _ in range(n)]
    assert first == sorted(max(int(t) + 1, network.last_event(network.schedule())) for t in record.last_spike)
    short = dataclasses.replace(network.schedule(), sleep_steps=int(np.median(record.last_spike)) - 7)
    cut = measure(model, network, short, images, labels, steps=10, variants=("cif+wsc",))
    assert 0 < cut.certified == lava_casc.simulate(network, images, short).certified.sum() < 40
    assert set(cut.variants) == {"cif+wsc"}


def test_what_was_interrupted_goes_on(digits, whole, tmp_path, monkeypatch):
    model, network, images, labels = digits
    monkeypatch.setattr(curves, "CHUNK", 9)
    monkeypatch.setattr(curves, "batches", lambda *args, **how: [slice(0, 9)])
    arguments = (model, network, network.schedule(), images, labels)

    def stop(done):
        if done == 18:
            raise KeyboardInterrupt

    path = tmp_path / "curves.json"
    with pytest.raises(KeyboardInterrupt):
        measure(*arguments, steps=STEPS, path=path, progress=stop)
    assert read_curves(path).samples == 18
    told: list[int] = []
    found = measure(*arguments, steps=STEPS, path=path, progress=told.append)
    assert told == [18, 27, 36, 40]
    assert found == whole == read_curves(path)
    for change in ({"steps": STEPS + 1}, {"variants": ("cif",)}):
        with pytest.raises(DataError, match="holds the curves of another network, schedule or data"):
            measure(*arguments, **{"steps": STEPS, "path": path, **change})
    other = (model, network, network.schedule(), images[::-1], labels)
    with pytest.raises(DataError, match="another network"):
        measure(*other, steps=STEPS, path=path)
    with pytest.raises(DataError, match="another network"):
        measure(model, network, network.schedule(), images, labels[::-1], steps=STEPS, path=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable JSON"),
        ("[1]", "holds no curves"),
        ('{"kind": "lava_casc curves", "version": 2}', r"its version \(2\) exceeds what is known \(1\). Update"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_curves(tmp_path / "x.json")


def test_what_has_no_curves_is_refused(digits):
    model, network, images, labels = digits
    with pytest.raises(RangeError, match=r"steps \(7\) is smaller than the wake \(8\)"):
        measure(model, network, network.schedule(), images, labels, steps=7)
    recurrent = random_recurrent(np.random.default_rng(0))
    with pytest.raises(DataError, match="one flat readout"):
        measure(nn.Identity(), recurrent, recurrent.schedule(), images, labels, steps=40)


def test_the_table_has_a_row_a_step(whole, tmp_path):
    write_csv(whole, tmp_path / "x.csv")
    rows = [line.split(",") for line in (tmp_path / "x.csv").read_text().splitlines()]
    assert len(rows) == 1 + STEPS
    column = rows[0].index("cif top5")
    for step in (1, STEPS):
        right = whole.variants["cif"]["top5"][step - 1]
        assert [float(v) for v in rows[step][column : column + 3]] == [right / 40, *interval(right, 40)]
    assert float(rows[-1][-1]) == sum(whole.silent[:STEPS]) / 40


def test_a_file_that_cannot_be_written_is_said_in_one_line(whole, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        save(whole, tmp_path / "nowhere" / "x.json")
    save(Curves(3, 2, 1), tmp_path / "empty.json")
    assert read_curves(tmp_path / "empty.json") == Curves(3, 2, 1)


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_the_command_leaves_json_csv_and_a_picture(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    found = _casc("evaluate", MODEL, "--curves", "out", "--steps", 40, "--samples", 60, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "certified silent: 60 of 60" in found.stdout
    data = json.loads((tmp_path / "out/curves.json").read_text())
    assert data["samples"] == 60
    assert data["summary"]["accuracy"]["cif+wsc"] == data["summary"]["accuracy"]["integer"]
    assert len((tmp_path / "out/curves.csv").read_text().splitlines()) == 41
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    for options, message in (
        (("--variants", "cif,lif"), "--variants: 'lif' is not known. Use any of if, if+wsc, cif, cif+wsc"),
        (("--steps", 3), "steps (3) is smaller than the wake (8)"),
        (("--certified",), "Leave --engine, --certified and --output out"),
        (("--samples", 59), "another network, schedule or data"),
    ):
        found = _casc("evaluate", MODEL, "--curves", "out", "--samples", 60, "--steps", 40, *options, cwd=tmp_path)
        assert found.returncode == 2
        assert message in found.stderr
