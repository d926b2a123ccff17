"""`lava-casc evaluate` and `train --task detection`: what they refuse, and the classifiers that they score."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import lava_casc
from lava_casc import cli
from lava_casc.frontend import CQReLU

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with an untrained classifier of the digits, ``digits.pt`` and ``digits.net``."""
    pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), CQReLU(4), nn.Linear(12, 10))
    spec = lava_casc.InputSpec(SHAPE, 0, 16, 1 / 16)
    lava_casc.save_model(folder / "digits.pt", model, spec, about={"dataset": "digits"})
    network = lava_casc.convert(
        lava_casc.load_model(folder / "digits.pt"), SHAPE, input_range=(0, 16), input_scale=1 / 16
    )
    lava_casc.write(folder / "digits.net", network, network.schedule("graded"))
    return folder


def casc(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(*arguments):
    """Return the one line that a command says when it refuses."""
    found = casc(*arguments)
    assert found.exit_code == 2, found.output
    return [line for line in found.output.splitlines() if line.startswith("error: ")][-1]


@pytest.mark.parametrize("given", [False, True])
def test_a_classifier_is_scored_in_its_three_forms(home, given, tmp_path):
    pytest.importorskip("sklearn")
    from lava_casc.training import load_dataset

    network = ("--network", home / "digits.net") if given else ()
    found = casc("evaluate", home / "digits.pt", *network, "--samples", 70, "-o", tmp_path / "found.json")
    assert found.exit_code == 0, found.output
    result = json.loads((tmp_path / "found.json").read_text())
    data = load_dataset("digits")
    images, labels = data.test_images[:70], data.test_labels[:70]
    with torch.no_grad():
        real = lava_casc.load_model(home / "digits.pt")(torch.tensor(images) / 16).argmax(1).numpy()
    integer = lava_casc.forward(lava_casc.read(home / "digits.net"), images).logits.argmax(1)
    assert result["scores"] == {
        "float": {"accuracy": np.mean(real == labels)},
        "integer": {"accuracy": np.mean(integer == labels)},
        "spikes": {"accuracy": np.mean(integer == labels)},
    }
    assert (result["samples"], result["certified_samples"], result["mismatched_outputs"]) == (70, 70, 0)
    assert result["schedule"]["mode"] == ("graded" if given else "unary")
    assert len(result["last_spike"]) == len(result["certified"]) == 70
    assert "certified silent: 70 of 70 samples" in found.output
    assert "outputs that differ from the integer network: 0" in found.output


def test_samples_that_are_cut_short_are_said_to_prove_nothing(home):
    pytest.importorskip("sklearn")
    found = casc("evaluate", home / "digits.pt", "--samples", 5, "--sleep-steps", 0)
    assert found.exit_code == 0, found.output
    assert "NOT CERTIFIED: 5 samples were cut off before silence" in found.output


def test_a_network_of_another_model_is_refused(home, tmp_path):
    pytest.importorskip("sklearn")
    for name, shape, out, high in (("shape", (1, 4, 4), 10, 16), ("range", SHAPE, 10, 15), ("outputs", SHAPE, 9, 16)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), out))
        network = lava_casc.convert(model, shape, input_range=(0, high), input_scale=1 / 16)
        lava_casc.write(tmp_path / f"{name}.net", network)
    for name in ("shape", "range"):
        line = refused("evaluate", home / "digits.pt", "--network", tmp_path / f"{name}.net", "--samples", 2)
        assert f"{name}.net: its input is not that of the checkpoint. Export the checkpoint again." in line
    line = refused("evaluate", home / "digits.pt", "--network", tmp_path / "outputs.net", "--samples", 2)
    assert "the network's outputs [[9]] are not the model's [[10]]. Export the model again." in line


def test_images_that_do_not_fit_the_model_are_refused(home, tmp_path):
    pytest.importorskip("sklearn")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    lava_casc.save_model(tmp_path / "small.pt", model, lava_casc.InputSpec((1, 2, 2)), about={"dataset": "digits"})
    assert "small.pt: takes (1, 2, 2), but the images of digits are (1, 8, 8)." in refused(
        "evaluate", tmp_path / "small.pt"
    )


def test_data_that_are_not_known_or_not_there_are_refused(home, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    lava_casc.save_model(tmp_path / "plain.pt", model, lava_casc.InputSpec((1, 2, 2)))
    assert "data set 'nothing' is not known" in refused("evaluate", home / "digits.pt", "--data", "nothing")
    assert "plain.pt: does not say what it was trained on. Give --data" in refused("evaluate", tmp_path / "plain.pt")
    assert "no such file" in refused("evaluate", tmp_path / "nothing.pt")
    assert "its folder does not exist" in refused("evaluate", home / "digits.pt", "-o", tmp_path / "no" / "found.json")
    lava_casc.save_model(tmp_path / "det.pt", model, lava_casc.InputSpec((1, 2, 2)), about={"task": "detection"})
    line = "det.pt: a detector. Give --data-dir FOLDER in VOC layout, and no --data."
    assert line in refused("evaluate", tmp_path / "det.pt")
    assert line in refused("evaluate", tmp_path / "det.pt", "--data", "digits", "--data-dir", tmp_path)
    assert "the checkpoint is no detector" in refused("evaluate", tmp_path / "det.pt", "--data-dir", tmp_path)


def test_a_training_of_a_detector_refuses_what_it_has_no_use_for(tmp_path):
    train = ("train", "--task", "detection", "-o", tmp_path / "m.pt")
    for option, value in (("data", "digits"), ("width", 2), ("pool", "max"), ("augment", "none"), ("init", "a.pt")):
        line = refused(*train, f"--{option}", value)
        assert f"--{option} is no option of --task detection. Leave it out." in line
    assert "--download is no option of --task detection" in refused(*train, "--download")
    needs = "detection needs --data-dir FOLDER in VOC layout, and --image-size H,W."
    assert needs in refused(*train, "--data-dir", tmp_path)
    assert needs in refused(*train, "--image-size", "32,32")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("a", "--image-size 'a': give one number or two, as in 128,160."),
        ("8,8,8", "--image-size '8,8,8': give one number or two"),
        ("8,", "--image-size '8,': give one number or two"),
        ("0,8", "--image-size '0,8': a side must be at least 1."),
        ("-3", "--image-size '-3': a side must be at least 1."),
    ],
)
def test_a_size_that_is_none_is_refused(size, message, tmp_path):
    assert message in refused("train", "-o", tmp_path / "m.pt", f"--image-size={size}")


def test_a_classifier_takes_square_images(tmp_path):
    line = refused("train", "-o", tmp_path / "m.pt", "--data", "folder", "--image-size", "8,16")
    assert "--image-size 8,16: images of classes are square. Give one number." in line
