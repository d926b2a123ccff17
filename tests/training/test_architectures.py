"""The networks: shapes, what they hold, that every option reaches the activations, and seeds."""

import pytest
import torch
from torch import nn

from lava_casc.errors import DataError
from lava_casc.frontend import CQReLU
from lava_casc.frontend.trace import trace
from lava_casc.training import ARCHITECTURES, RECIPES, build

SHAPES = {"digits": (1, 8, 8), "fashion": (1, 28, 28)}


def _kinds(model, shape):
    return [operation.kind for operation in trace(model, shape).operations]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_network_gives_ten_logits_and_holds_the_whole_mathematics(name):
    model = build(name)
    assert model.eval()(torch.zeros(3, *SHAPES[name])).shape == (3, 10)
    assert {"BatchNorm2d", "AvgPool2d", "MaxPool2d", "add", "CQReLU", "Linear"} <= set(_kinds(model, SHAPES[name]))


def test_normalization_comes_first_where_there_is_one():
    assert _kinds(build("fashion"), SHAPES["fashion"])[:2] == ["input", "Normalize"]


def test_options_reach_every_activation():
    model = build("digits", levels=5, rounding="floor", learnable=False, threshold=2.0)
    activations = [module for module in model.modules() if isinstance(module, CQReLU)]
    assert len(activations) == 3
    for activation in activations:
        assert (activation.levels, activation.rounding, activation.learnable) == (5, "floor", False)
        assert activation.threshold.item() == 2
        assert not isinstance(activation.threshold, nn.Parameter)


def test_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (build("digits", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_unknown_architecture_is_refused():
    with pytest.raises(DataError, match="architecture 'vgg' is not known. Choose one of digits, fashion"):
        build("vgg")


def test_every_recipe_names_an_architecture():
    assert {recipe.architecture for recipe in RECIPES.values()} == set(ARCHITECTURES)
