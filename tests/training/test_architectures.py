"""The networks: shapes, what they hold, that every option reaches the activations, and seeds."""

import sys
from collections import Counter

import pytest
import torch
from torch import nn

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.frontend import CQReLU
from lava_casc.frontend.trace import trace
from lava_casc.training import ARCHITECTURES, DATASETS, RECIPES, build

SHAPES = {
    "digits": (1, 8, 8),
    "fashion": (1, 28, 28),
    "resnet20": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "vgg9": (3, 32, 32),
}


def _build(name, **options):
    return build(name, channels=SHAPES[name][0], **options)


def _kinds(model, shape):
    return [operation.kind for operation in trace(model, shape).operations]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_network_gives_as_many_logits_as_there_are_classes(name):
    model = _build(name, classes=7, width=0.25)
    assert model.eval()(torch.zeros(3, *SHAPES[name])).shape == (3, 7)


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_the_small_networks_hold_the_whole_mathematics(name):
    kinds = set(_kinds(_build(name), SHAPES[name]))
    assert {"BatchNorm2d", "AvgPool2d", "MaxPool2d", "add", "CQReLU", "Linear"} <= kinds


def _convolutions(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_resnet20_is_the_one_of_he_et_al():
    """20 layers with weights beside the two shortcuts, and the 0.27 M parameters of arXiv 1512.03385, table 6."""
    model = _build("resnet20")
    convolutions = _convolutions(model)
    shortcuts = [conv for conv in convolutions if conv.kernel_size == (1, 1)]
    assert [(conv.in_channels, conv.out_channels, conv.stride) for conv in shortcuts] == [
        (16, 32, (2, 2)),
        (32, 64, (2, 2)),
    ]
    assert [conv.out_channels for conv in convolutions if conv not in shortcuts] == [16] * 7 + [32] * 6 + [64] * 6
    weights = sum(conv.weight.numel() for conv in convolutions if conv not in shortcuts) + model.readout.weight.numel()
    assert weights == 268_336
    kinds = Counter(_kinds(model, SHAPES["resnet20"]))
    assert (kinds["CQReLU"], kinds["add"], kinds["Linear"]) == (19, 9, 1)


@pytest.mark.parametrize(
    ("name", "layers", "channels"),
    [("vgg9", 8, [32, 64, 128, 256]), ("vgg16", 13, [64, 128, 256, 512])],
)
def test_vgg_has_the_layers_of_its_name(name, layers, channels):
    model = _build(name)
    found = [conv.out_channels for conv in _convolutions(model)]
    assert len(found) == layers
    assert list(dict.fromkeys(found)) == channels
    assert isinstance(model[-1], nn.Linear)


@pytest.mark.parametrize(("pool", "kind"), [("average", nn.AvgPool2d), ("max", nn.MaxPool2d)])
def test_vgg_has_the_pools_that_were_chosen(pool, kind):
    pools = [module for module in _build("vgg9", pool=pool) if isinstance(module, nn.AvgPool2d | nn.MaxPool2d)]
    assert [type(module) for module in pools] == [kind] * 3


def test_width_multiplies_channels():
    assert [conv.out_channels for conv in _convolutions(_build("resnet20", width=0.5))][-1] == 32
    assert [conv.out_channels for conv in _convolutions(_build("vgg9", width=2.0))][0] == 64
    assert [conv.out_channels for conv in _convolutions(_build("digits", width=0.01))] == [1, 1, 1]


def test_channels_and_normalization_are_those_of_the_images():
    model = build("vgg9", channels=2, mean=(0.25, 0.5), std=(0.5, 1.0), width=0.25)
    assert model(torch.zeros(2, 2, 32, 32)).shape == (2, 10)
    assert model.normalize.mean.tolist() == [0.25, 0.5]
    assert model.normalize.std.tolist() == [0.5, 1.0]


@pytest.mark.parametrize("name", ["resnet18", "regnet_x_400mf"])
def test_networks_of_torchvision_come_with_cqrelu_and_normalization(name):
    pytest.importorskip("torchvision")
    model = build(f"torchvision:{name}", classes=6, levels=4)
    kinds = _kinds(model, (3, 64, 64))
    assert kinds[:2] == ["input", "Normalize"]
    assert kinds.count("CQReLU") > 5
    assert kinds[-1] == "Linear"
    assert {module.levels for module in model.modules() if isinstance(module, CQReLU)} == {4}
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "architecture 'vgg' is not known. Choose one of digits, fashion, resnet20, vgg16, vgg9, or torchv"),
        ("resnet20", {"pool": "max"}, "'resnet20' has pools of its own. Choose max pools for vgg9 or vgg16"),
        ("vgg9", {"pool": "median"}, "pool 'median' is not known. Choose one of average, max"),
    ],
)
def test_what_there_is_not_is_refused(name, options, message):
    with pytest.raises(DataError, match=message):
        build(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet9", {}, "torchvision:resnet9: torchvision has no such classification network. Choose one such as"),
        ("fcn_resnet50", {}, "torchvision has no such classification network"),
        ("resnet18", {"channels": 1}, "is of three channels and its own width, not of 1 channels and width 1"),
        ("resnet18", {"width": 0.5}, "not of 3 channels and width 0.5. Choose another architecture"),
        ("resnet18", {"pool": "max"}, "has pools of its own"),
        ("vit_b_16", {}, "'torchvision:vit_b_16': the model holds no ReLU module"),
    ],
)
def test_what_torchvision_has_not_is_refused(name, options, message):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match=message):
        build(f"torchvision:{name}", **options)


def test_missing_torchvision_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingDependencyError, match="torchvision:resnet18: torchvision is not installed. Install it"):
        build("torchvision:resnet18")


def test_normalization_comes_first_where_there_is_one():
    assert _kinds(_build("fashion"), SHAPES["fashion"])[:2] == ["input", "Normalize"]


def test_options_reach_every_activation():
    model = _build("digits", levels=5, rounding="floor", learnable=False, threshold=2.0)
    activations = [module for module in model.modules() if isinstance(module, CQReLU)]
    assert len(activations) == 3
    for activation in activations:
        assert (activation.levels, activation.rounding, activation.learnable) == (5, "floor", False)
        assert activation.threshold.item() == 2
        assert not isinstance(activation.threshold, nn.Parameter)


def test_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (_build("digits", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_every_recipe_names_an_architecture():
    assert {recipe.architecture for recipe in RECIPES.values()} <= set(ARCHITECTURES)
    assert set(RECIPES) == {*DATASETS, "folder"}
