"""Pictures of several sizes: every command scales them as the training did, or says that they differ."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")

import lava_casc  # noqa: E402
from lava_casc.cli import main  # noqa: E402
from lava_casc.training import load_dataset  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of pictures, and a network trained on them."""
    home = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (home / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (28 + i, 40 - i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / split / name / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        size = ("--image-size", "28", "--architecture", "fashion", "--epochs", "1", "--examples", "0")
        assert call(patch, "train", "--data", "folder", "--data-dir", home, *size, "-o", home / "m.pt") == 0
        relu = ("--activation", "relu", "-o", home / "relu.pt")
        assert call(patch, "train", "--data", "folder", "--data-dir", home, *size, *relu) == 0
        assert call(patch, "export", home / "m.pt", "--verify", "1") == 0
    return home


def call(patch, *arguments):
    patch.setattr(sys, "argv", ["lava-casc", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_a_checkpoint_says_it_and_evaluate_does_the_same(home, monkeypatch, capsys):
    assert call(monkeypatch, "evaluate", home / "m.pt", "--data-dir", home, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    data = load_dataset("folder", home, image_size=28)
    network = lava_casc.read(home / "m.net")
    right = lava_casc.forward(network, data.test_images).logits.argmax(1) == data.test_labels
    assert found["scores"]["integer"]["accuracy"] == right.mean()
    assert found["certified_samples"] == 8
    methods = ("--method", "qcfs", "--steps", "2", "--json")  # which are calibrated on training images
    assert call(monkeypatch, "evaluate", home / "m.pt", "--data-dir", home, *methods) == 0


def test_calibrate_does_the_same(home, monkeypatch, capsys):
    assert call(monkeypatch, "calibrate", home / "relu.pt", "--data-dir", home, "--levels", "4", "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_samples"] == 8


def test_a_network_file_does_not_say_it_and_run_and_submit_are_told(home, monkeypatch, capsys):
    run = ("run", home / "m.net", "--data", "folder", "--data-dir", home, "--engine", "reference", "--json")
    assert call(monkeypatch, *run) == 2
    assert "Give --image-size." in capsys.readouterr().err
    assert call(monkeypatch, *run, "--image-size", "28") == 0
    assert json.loads(capsys.readouterr().out)["certified_samples"] == 8
    submit = ("submit", home / "m.net", "--data", "folder", "--data-dir", home, "--image-size", "28", "--json")
    assert call(monkeypatch, *submit) == 0
    assert "command" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "m.net", "--images", "x.npy"), "--image-size 8: is for --data folder. Leave it out with --images."),
        (("run", "m.net", "--data", "digits"), "digits: its images have a size of their own. Leave --image-size out."),
        (("evaluate", "m.pt", "--data-dir", "."), "m.pt: takes (3, 28, 28), but the images of folder are (3, 8, 8)."),
    ],
)
def test_where_it_means_nothing_or_does_not_fit_it_is_refused(home, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(home)
    np.save(home / "x.npy", np.zeros((1, 3, 28, 28), np.uint8))
    assert call(monkeypatch, *arguments, "--image-size", "8") == 2
    assert message in capsys.readouterr().err


def test_a_detector_says_its_size_itself(home, monkeypatch, capsys):
    checkpoint = lava_casc.load_model(home / "m.pt")
    spec = lava_casc.InputSpec((3, 28, 28))
    lava_casc.save_model(home / "detector.pt", checkpoint, spec, about={"task": "detection"})
    assert call(monkeypatch, "evaluate", home / "detector.pt", "--data-dir", home, "--image-size", "8") == 2
    assert "says the size of what it takes. Leave --image-size out." in " ".join(capsys.readouterr().err.split())
