"""From a data set to a checkpoint in one call."""

import numpy as np
import pytest
import torch

from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import CQReLU, load_checkpoint
from lava_casc.training import build, evaluate, load_dataset, train_checkpoint


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    assert all(torch.equal(a, b) for a, b in zip(trained, build("digits", seed=3).parameters(), strict=True))


def test_diverged_training_leaves_no_checkpoint(data, tmp_path):
    with pytest.raises(UnsupportedModelError):
        train_checkpoint(tmp_path / "digits.pt", data, epochs=1, learning_rate=1e9)
    assert not list(tmp_path.iterdir())


def test_missing_folder_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        train_checkpoint(tmp_path / "nowhere" / "digits.pt", data, epochs=1, batch_size=512)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_recipe_reaches_98_percent(data, tmp_path, seed):
    assert train_checkpoint(tmp_path / "digits.pt", data, seed=seed).accuracy >= 0.98
