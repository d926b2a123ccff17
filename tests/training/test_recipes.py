"""From a data set to a checkpoint in one call."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lava_casc import cli
from lava_casc.errors import CheckpointError, DataError, MissingDependencyError, UnsupportedModelError
from lava_casc.frontend import CQReLU, InputSpec, load_checkpoint, save_model
from lava_casc.training import Dataset, build, evaluate, load_dataset, partial_of, train, train_checkpoint
from lava_casc.training.recipes import RECIPES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


def test_checkpoint_holds_what_was_trained(data, tmp_path):
    path = tmp_path / "digits.pt"
    result = train_checkpoint(path, data, epochs=1, levels=4, rounding="floor", seed=2)
    checkpoint = load_checkpoint(path)
    assert len(result.history) == 1
    assert evaluate(checkpoint.model, data.test_images, data.test_labels, data.scale) == result.accuracy
    assert checkpoint.input == data.spec
    np.testing.assert_array_equal(checkpoint.examples, data.train_images[:64])
    activations = [module for module in checkpoint.model.modules() if isinstance(module, CQReLU)]
    assert {(module.levels, module.rounding, module.learnable) for module in activations} == {(4, "floor", True)}
    about = checkpoint.about
    assert (about["dataset"], about["architecture"], about["epochs"], about["batch_size"]) == (
        "digits",
        "digits",
        1,
        32,
    )
    assert (about["levels"], about["rounding"], about["seed"]) == (4, "floor", 2)
    assert about["test_accuracy"] == result.accuracy


def test_examples_are_as_many_as_one_likes(data, tmp_path):
    for examples in (0, 3):
        arguments = ["--epochs", "1", "--batch-size", "512", "--examples", str(examples)]
        cli.app(["train", "-o", str(tmp_path / "x.pt"), *arguments], standalone_mode=False)
        kept = load_checkpoint(tmp_path / "x.pt").examples
        assert (0 if kept is None else len(kept)) == examples


def test_same_seed_writes_the_same_network(data, tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_checkpoint(tmp_path / name, data, epochs=1, batch_size=256, seed=seed)
        weights.append(load_checkpoint(tmp_path / name).model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_seed_decides_the_initial_weights_too(data, tmp_path):
    train_checkpoint(tmp_path / "digits.pt", data, epochs=1, batch_size=512, learning_rate=0.0, seed=3)
    trained = load_checkpoint(tmp_path / "digits.pt").model.parameters()
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            trained,
            build("digits", channels=1, threshold=RECIPES["digits"].threshold, seed=3).parameters(),
            strict=True,
        )
    )


def test_diverged_training_leaves_no_checkpoint(data, tmp_path):
    with pytest.raises(UnsupportedModelError):
        train_checkpoint(tmp_path / "digits.pt", data, epochs=1, learning_rate=1e9)
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        train_checkpoint(tmp_path / "nowhere" / "digits.pt", data, epochs=1, batch_size=512)


def _tensors(path):
    return {(op.name, key): t for op in load_checkpoint(path).graph.operations for key, t in op.tensors.items()}


def _same(one, other):
    first, second = _tensors(one), _tensors(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_killed_training_resumes_bit_for_bit(data, tmp_path):
    """kill -9 after an epoch, then --resume: the network of a training that nobody disturbed."""
    settings = {"epochs": 3, "batch_size": 32, "seed": 7}
    train_checkpoint(tmp_path / "whole.pt", data, **settings)
    killed = tmp_path / "killed.pt"
    options = [text for key, value in settings.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "lava_casc.cli", "train", "--data", "digits", "-o", str(killed), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not partial_of(killed).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert len(torch.load(partial_of(killed), weights_only=True)["history"]) in range(1, 4)
    with pytest.raises(CheckpointError, match="killed.pt.partial: holds a training that was cut short"):
        train_checkpoint(killed, data, **settings, architecture="nothing")  # refused before anything else is looked at
    with pytest.raises(CheckpointError, match="with levels 8, which cannot go on with 4"):
        train_checkpoint(killed, data, **settings, levels=4, resume=True)
    cli.app(["train", "-o", str(killed), "--resume", *options], standalone_mode=False)
    assert _same(killed, tmp_path / "whole.pt")
    left = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".tmp")}  # a kill may leave one
    assert left == {"killed.pt", "whole.pt"}


def _cli_train(path):
    cli.app(["train", "-o", str(path), "--epochs", "2", "--batch-size", "512"], standalone_mode=False)


def test_an_interruption_says_how_to_go_on(data, tmp_path, monkeypatch, capsys):
    def interrupt(done, epochs, epoch):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.train, "print_epoch", interrupt)
    with pytest.raises(SystemExit) as caught:
        _cli_train(tmp_path / "x.pt")
    assert caught.value.code == 130
    assert "x.pt.partial holds the training up to its last whole epoch; --resume goes on" in capsys.readouterr().err


def test_an_epoch_is_one_line_with_the_time_left(data, tmp_path, capsys):
    _cli_train(tmp_path / "x.pt")
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2: loss ")
    for words in ("% of the training ", " right, learning rate 0.0500, ", " s, ", " min left"):
        assert words in lines[0]
    assert lines[1].endswith(" 0.0 min left")
    assert "of 360 test images right, in float with CQReLU of 8 levels" in said.out


def test_other_images_cannot_go_on(data, tmp_path):
    def stop(done, epochs, epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_checkpoint(tmp_path / "x.pt", data, epochs=2, batch_size=512, on_epoch=stop)
    changed = data.train_images.copy()
    changed[0, 0, 0, 0] += 1
    other = Dataset(
        data.name, data.classes, changed, data.train_labels, data.test_images, data.test_labels, 16, data.scale
    )
    with pytest.raises(CheckpointError, match="holds a training with images"):
        train_checkpoint(tmp_path / "x.pt", other, epochs=2, batch_size=512, resume=True)


def test_init_begins_with_the_weights_of_a_checkpoint(data, tmp_path):
    train_checkpoint(tmp_path / "a.pt", data, epochs=1, levels=16)
    start = load_checkpoint(tmp_path / "a.pt")
    train_checkpoint(
        tmp_path / "b.pt",
        data,
        epochs=1,
        levels=4,
        batch_size=len(data.train_images),
        learning_rate=0.0,
        init=tmp_path / "a.pt",
        augment="none",
    )
    begun = load_checkpoint(tmp_path / "b.pt")
    assert begun.about["init"] == "a.pt"
    for one, other in zip(start.graph.operations, begun.graph.operations, strict=True):
        assert one.name == other.name
        for key, tensor in one.tensors.items():
            if not key.startswith("running"):  # the one step has moved them
                assert torch.equal(tensor, other.tensors[key]), (one.name, key)
            else:
                assert torch.allclose(tensor, other.tensors[key], rtol=0.2, atol=0.2)
    levels = {module.levels for module in begun.model.modules() if isinstance(module, CQReLU)}
    assert levels == {4}


def test_init_of_another_network_is_refused(data, tmp_path):
    save_model(tmp_path / "a.pt", build("digits", channels=1, width=2), InputSpec((1, 8, 8)))
    with pytest.raises(DataError, match=r"a.pt: does not fit the network to train, at conv1.weight. Give --init a ch"):
        train_checkpoint(tmp_path / "b.pt", data, init=tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no such file"):
        train_checkpoint(tmp_path / "b.pt", data, init=tmp_path / "nothing.pt")


def _toy(channels, size, classes=3):
    """Two images of noise for each class, under the name of a data set that has a recipe."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * classes, channels, size, size), dtype=np.uint8)
    labels = np.arange(2 * classes) % classes
    return Dataset("folder", tuple("abcdef"[:classes]), images, labels, images, labels, 255, 1 / 255)


@pytest.mark.parametrize("name", ["resnet20", "vgg9"])
def test_networks_are_trained_for_the_channels_and_classes_of_the_data(tmp_path, name):
    data = _toy(3, 16)
    train_checkpoint(tmp_path / "x.pt", data, architecture=name, width=0.25, epochs=1, examples=2)
    checkpoint = load_checkpoint(tmp_path / "x.pt")
    assert checkpoint.model(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    assert checkpoint.model.operations["op1"].mean.tolist() == pytest.approx(list(data.mean))
    assert len(checkpoint.examples) == 2
    assert checkpoint.about["width"] == 0.25


@pytest.mark.parametrize(("augment", "expected"), [("none", 0), ("standard", 4), ("autoaugment", 4)])
def test_augmentation_is_that_of_the_recipe(tmp_path, monkeypatch, augment, expected):
    if augment == "autoaugment":
        pytest.importorskip("torchvision")
    seen = []

    def spy(*arguments, augmentation, **options):
        seen.append(augmentation)
        return train(*arguments, augmentation=augmentation, **options)

    monkeypatch.setattr("lava_casc.training.recipes.train", spy)
    train_checkpoint(tmp_path / "x.pt", _toy(3, 16), width=0.25, epochs=1, augment=augment)
    found = seen[0]
    assert (found.shift, found.flip) == (expected, expected > 0)
    assert (found.autoaugment, found.cutout) == ((True, 8) if augment == "autoaugment" else (False, 0))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            _toy(3, 16),
            {"architecture": "digits"},
            r"architecture 'digits' for images of 3x16x16: readout: does not ru",
        ),
        (_toy(3, 7), {"architecture": "vgg9"}, r"'vgg9' for images of 3x7x7: .*does not run on an input"),
        (_toy(1, 16), {"augment": "autoaugment"}, "AutoAugment is for images of three channels. Train with --augment"),
        (_toy(3, 16), {"architecture": "nothing"}, "architecture 'nothing' is not known"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_the_training(tmp_path, data, options, message):
    with pytest.raises(DataError, match=message):
        train_checkpoint(tmp_path / "x.pt", data, **options)
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_converted_is_refused_before_the_training(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="'torchvision:mobilenet_v3_small' .*Hardswish is not supported"):
        train_checkpoint(tmp_path / "x.pt", _toy(3, 32), architecture="torchvision:mobilenet_v3_small")


def test_cuda_is_asked_for_where_it_is(data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(DataError, match="device cuda: torch finds no CUDA device. Train with --device cpu"):
        train_checkpoint(tmp_path / "x.pt", data, device="cuda")


def test_autoaugment_without_torchvision_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(MissingDependencyError, match="AutoAugment: torchvision is not installed"):
        train_checkpoint(tmp_path / "x.pt", _toy(3, 16), augment="autoaugment")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_recipe_reaches_98_percent(data, tmp_path, seed):
    assert train_checkpoint(tmp_path / "digits.pt", data, seed=seed).accuracy >= 0.98
