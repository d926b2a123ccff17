"""A detector learns to find what is drawn, and finds the same in integers and in spikes: in Python and as a user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from voc_folder import CLASSES, HEIGHT, WIDTH, annotate, make_voc

import lava_casc
from lava_casc import cli
from lava_casc.detection import detect, detector_of, mean_average_precision, read_voc, train_detector
from lava_casc.detection.train import batches
from lava_casc.errors import CheckpointError, DataError
from lava_casc.evaluation import FORMS, evaluate
from lava_casc.frontend import Checkpoint, load_checkpoint

for package in ("torchvision", "torchmetrics", "pycocotools"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
SIZE = (HEIGHT, WIDTH)
SETTINGS = {"backbone": "vgg-tiny", "batch_size": 8, "learning_rate": 0.005}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the data set in ``voc`` and a detector that was trained on it in ``detector.pt``."""
    folder = tmp_path_factory.mktemp("detection")
    make_voc(folder / "voc", {"trainval": 96, "test": 12})
    train_detector(folder / "detector.pt", folder / "voc", SIZE, epochs=15, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def checkpoint(home):
    return load_checkpoint(home / "detector.pt")


def casc(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_it_learns_to_find_what_is_drawn(checkpoint):
    about = checkpoint.about
    assert about["test mAP50"] > 0.85
    assert (about["task"], about["levels"], about["backbone"], about["stride"]) == ("detection", 8, "vgg-tiny", 8)
    assert detector_of(checkpoint) == (CLASSES, 8)
    assert checkpoint.examples is None


def test_the_spikes_find_what_the_integers_find(home, checkpoint):
    data = read_voc(home / "voc", "test", SIZE, CLASSES)
    network = lava_casc.convert(checkpoint)
    seen = []
    found = evaluate(
        checkpoint.model,
        network,
        (data.images(range(start, start + 4)) for start in (0, 4, 8)),
        lambda maps: detect(maps, 8),
        lambda predictions, chosen: mean_average_precision(predictions, data.objects, CLASSES),
        lambda images, progress: lava_casc.simulate(network, images, progress=progress),
        progress=seen.append,
    )
    assert found.certified.shape == (12,)
    assert found.certified.all()
    assert found.mismatched == 0
    assert found.scores["spikes"] == found.scores["integer"]
    assert found.scores["spikes"]["mAP50"] > 0.85
    assert found.scores["float"]["mAP50"] == pytest.approx(checkpoint.about["test mAP50"], abs=0.01)
    assert list(found.scores) == list(found.seconds) == list(FORMS)
    assert seen == sorted(seen)
    assert seen[-1] == 12


def test_spikes_that_are_cut_short_are_not_certified_and_find_something_else(home, checkpoint):
    data = read_voc(home / "voc", "test", SIZE, CLASSES).first(4)
    network = lava_casc.convert(checkpoint)
    short = network.schedule(sleep_steps=4)
    found = evaluate(
        checkpoint.model,
        network,
        [data.images(range(4))],
        lambda maps: detect(maps, 8),
        lambda predictions, chosen: mean_average_precision(predictions, data.objects, CLASSES),
        lambda images, progress: lava_casc.simulate(network, images, short),
    )
    assert not found.certified.any()
    assert found.mismatched > 0
    assert found.scores["spikes"] != found.scores["integer"]


def test_outputs_of_another_model_are_refused(home, checkpoint):
    network = lava_casc.convert(checkpoint)
    other = lava_casc.load_model(home / "detector.pt")
    with pytest.raises(DataError, match=r"the network's outputs .* are not the model's"):
        evaluate(
            lambda x: other(x)[:2],
            network,
            [np.zeros((1, 3, *SIZE), np.uint8)],
            list,
            dict,
            lambda images, progress: lava_casc.simulate(network, images),
        )


def test_a_training_that_was_killed_goes_on_to_the_same_network(home, tmp_path, monkeypatch):
    def stop(done, epochs, epoch):
        if done == 2:
            raise KeyboardInterrupt

    arguments = (home / "voc", SIZE)
    train_detector(tmp_path / "whole.pt", *arguments, epochs=3, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train_detector(tmp_path / "cut.pt", *arguments, epochs=3, on_epoch=stop, **SETTINGS)
    assert not (tmp_path / "cut.pt").exists()
    with pytest.raises(CheckpointError, match=r"cut\.pt\.partial: holds a training that was cut short"):
        train_detector(tmp_path / "cut.pt", *arguments, epochs=3, **SETTINGS)
    train_detector(tmp_path / "cut.pt", *arguments, epochs=3, resume=True, **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "whole.pt"]
    whole, cut = (lava_casc.load_model(tmp_path / name).state_dict() for name in ("whole.pt", "cut.pt"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_images_are_changed_together_with_their_objects(home):
    data = read_voc(home / "voc", "trainval", SIZE)
    torch.manual_seed(0)
    images, boxes, labels = zip(*batches(data, 8, torch.device("cpu")), strict=True)
    images = torch.cat(images)
    flat = [(box, label) for part in zip(boxes, labels, strict=True) for box, label in zip(*part, strict=True)]
    assert images.shape == (96, 3, *SIZE)
    assert images.dtype == torch.uint8
    right = total = 0
    for image, (box, label) in zip(images, flat, strict=True):
        assert box.shape == (len(label), 4)
        assert (box >= 0).all()
        assert (box <= torch.tensor([WIDTH, HEIGHT] * 2)).all()
        for (x0, y0, x1, y1), kind in zip(box.tolist(), label.tolist(), strict=True):
            # A disc is red and a square blue, in whatever light.
            red, _, blue = image[:, int((y0 + y1) / 2), int((x0 + x1) / 2)].tolist()
            right += (red > blue + 30) == (kind == 0) and (blue > red + 30) == (kind == 1)
            total += 1
    assert total > 96
    assert right / total > 0.97


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (
            {},
            r"the checkpoint is no detector \(KeyError: 'classes'\)\. Train one with lava-casc train --task detection",
        ),
        ({"classes": "disc, square", "stride": 8}, r"no detector \(JSONDecodeError"),
        ({"classes": '["disc", "square"]', "stride": 0}, r"no detector \(ZeroDivisionError"),
        ({"classes": '["disc", "square"]', "stride": "8"}, r"no detector \(TypeError"),
        ({"classes": '["disc"]', "stride": 8}, r"outputs .* are not the maps of 1 classes at stride 8"),
        ({"classes": '["disc", "square"]', "stride": 16}, r"outputs .* are not the maps of 2 classes at stride 16"),
    ],
)
def test_notes_that_do_not_fit_the_model_are_refused(checkpoint, notes, message):
    with pytest.raises(CheckpointError, match=message):
        detector_of(replace(checkpoint, about=notes))


def test_a_classifier_is_no_detector():
    from lava_casc.frontend import trace

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    plain = Checkpoint(trace(model, (3, 2, 2)), lava_casc.InputSpec((3, 2, 2)), about={"classes": "[1]", "stride": 1})
    with pytest.raises(CheckpointError, match=r"outputs .* are not the maps|is no detector"):
        detector_of(plain)


def test_what_cannot_be_trained_on_is_said_before_the_training(home, tmp_path):
    with pytest.raises(DataError, match=r"the width \(81\) is no multiple of 8"):
        train_detector(tmp_path / "m.pt", home / "voc", (48, 81))
    with pytest.raises(DataError, match=r"no such folder"):
        train_detector(tmp_path / "m.pt", tmp_path / "nothing", SIZE)
    broken = tmp_path / "voc"
    shutil.copytree(home / "voc", broken)
    annotate(broken, "test_3", [("blob", 1, 1, 9, 9)])
    with pytest.raises(DataError, match=r"test_3\.xml: class 'blob' is not known"):
        train_detector(tmp_path / "m.pt", broken, SIZE)
    assert not list(tmp_path.glob("m.pt*"))


def test_from_a_folder_to_the_precision_of_spikes_on_the_command_line(home, checkpoint, tmp_path):
    trained = casc(
        *("train", "--task", "detection", "--data-dir", home / "voc", "--image-size", "24,40", "--levels", 4),
        *("--architecture", "vgg-tiny", "--epochs", 1, "-o", "detector.pt"),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    assert "detector.pt: on 12 images of test: mAP " in trained.stdout
    assert "epoch 1/1: loss " in trained.stderr
    lava_casc.write(tmp_path / "detector.net", lava_casc.convert(checkpoint))
    arguments = ("evaluate", home / "detector.pt", "--data-dir", home / "voc", "--samples", 5, "--network")
    paths = (tmp_path / "detector.net", "-o", tmp_path / "found.json")
    found = CliRunner().invoke(cli.app, [str(argument) for argument in (*arguments, *paths)])
    assert found.exit_code == 0, found.output
    result = json.loads((tmp_path / "found.json").read_text())
    assert (result["samples"], result["certified_samples"], result["mismatched_outputs"]) == (5, 5, 0)
    assert result["scores"]["spikes"] == result["scores"]["integer"]
    assert result["scores"]["spikes"]["mAP50"] > 0.8
    assert set(result["scores"]["float"]) == {"mAP", "mAP50", "mAP75", "mAP disc", "mAP square"}
    assert result["certified"] == [True] * 5
    assert "mAP disc" in found.output
