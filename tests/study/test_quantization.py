"""An accuracy loss has an address: the layer whose integers are wrong is the one that is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lava_casc
from lava_casc.errors import DataError
from lava_casc.frontend import CQRNN, Checkpoint, InputSpec, fold, load_checkpoint, trace
from lava_casc.frontend.fold import evaluate
from lava_casc.pipeline import Options, convert_checkpoint, with_levels
from lava_casc.study import quantization_errors

MODEL = Path(__file__).parents[1] / "data/digits.pt"


@pytest.fixture(scope="module")
def folded():
    return fold(load_checkpoint(MODEL).graph)


def test_changes_are_counted_against_the_float_levels(digits, folded):
    _, network, images, _ = digits
    found = quantization_errors(folded, network, images)
    real = evaluate(folded, torch.tensor(images).double() * network.input.scale)
    counts = lava_casc.forward(network, images).counts
    assert set(found) == {"conv1", "residual.conv", "conv2"}
    for layer in folded.layers:
        if layer.name in found:
            wanted = np.rint(real[layer.name].numpy() * layer.levels / layer.threshold)
            assert found[layer.name]["changed"] == (counts[layer.name] != wanted).mean()
            assert found[layer.name]["mean_change"] == np.abs(counts[layer.name] - wanted).mean()
    assert found["conv1"]["own"] == found["conv1"]["changed"] > 0
    assert found["conv2"]["own"] < found["conv2"]["changed"]


@pytest.mark.parametrize("damaged", ["conv1", "residual.conv", "conv2"])
def test_the_damaged_layer_is_the_one_whose_own_share_rises(digits, folded, damaged):
    _, network, images, _ = digits
    before = quantization_errors(folded, network, images)
    layers = []
    for layer in network:
        if layer.name == damaged:
            layer = dataclasses.replace(layer, bias=layer.bias + layer.threshold)  # a level too many
        layers.append(layer)
    after = quantization_errors(folded, dataclasses.replace(network, layers=tuple(layers)), images)
    for name, errors in after.items():
        if name == damaged:
            assert errors["own"] > 0.25
        else:
            assert errors["own"] < before[name]["own"] + 0.02


def test_phases_are_compared_one_by_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(12, 6), CQRNN(6, 9, levels=8))

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = model, nn.Linear(9, 3)

        def forward(self, x):
            return self.head(self.body(x).mean(1))

    checkpoint = Checkpoint(trace(Words().eval(), (5,)), InputSpec((5,), 0, 11, 1.0))
    network = convert_checkpoint(checkpoint, Options(verify=0)).network
    words = np.random.default_rng(0).integers(0, 12, (20, 5))
    (found,) = quantization_errors(fold(checkpoint.graph), network, words).values()
    assert 0 <= found["own"] <= found["changed"] < 0.2
    first = quantization_errors(fold(checkpoint.graph), network, words[:, :1])
    # With nothing remembered, all that differs is the layer's own.
    assert all(errors["own"] == errors["changed"] for errors in first.values())


def test_another_models_network_is_refused(digits):
    _, network, images, _ = digits
    other = fold(with_levels(load_checkpoint(MODEL).graph, 4))
    with pytest.raises(DataError, match="the network's layers are not those of the model. Export the model again"):
        quantization_errors(other, network, images)
