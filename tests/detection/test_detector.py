"""The detector goes the whole way: traced, folded, quantized, written, read back, its spikes equal to its integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import lava_casc
from lava_casc.detection import BACKBONES, build_detector
from lava_casc.detection.model import PRIOR, stride_for
from lava_casc.errors import DataError
from lava_casc.frontend import CQReLU
from lava_casc.network import MaxPool, Neurons

SIZE, CLASSES = (24, 32), 2


def settled(model, size):
    """Return an untrained model whose batch norms know what comes in, so that neurons neither sleep nor saturate."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 3, *size, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def detector():
    return settled(build_detector("vgg-tiny", CLASSES, levels=16, seed=1), SIZE)


@pytest.fixture(scope="module")
def network(detector):
    return lava_casc.convert(detector, (3, *SIZE))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).integers(0, 256, (3, 3, *SIZE))


def test_a_detector_has_three_maps_and_no_relu(detector):
    maps = detector(torch.zeros(2, 3, *SIZE))
    assert [tuple(found.shape) for found in maps] == [(2, 1, 3, 4), (2, CLASSES, 3, 4), (2, 4, 3, 4)]
    activations = [module for module in detector.modules() if isinstance(module, CQReLU)]
    assert len(activations) == 4 + 2 + 2 + 4
    assert {activation.levels for activation in activations} == {16}
    assert not [module for module in detector.modules() if isinstance(module, nn.ReLU)]


def test_a_new_detector_believes_in_nothing():
    model = build_detector("vgg-tiny", CLASSES).eval()
    with torch.no_grad():
        objectness, classes, _ = model(torch.rand(1, 3, *SIZE))
    assert objectness.sigmoid().mean().item() == pytest.approx(PRIOR, rel=0.5)
    assert model.head.classes.bias.tolist() == pytest.approx([-math.log((1 - PRIOR) / PRIOR)] * CLASSES)
    again = build_detector("vgg-tiny", CLASSES).eval()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_integer_network_has_the_neck_and_the_head_of_the_paper(network):
    pools = [layer for layer in network if isinstance(layer, MaxPool) and layer.stride == (1, 1)]
    assert [layer.kernel for layer in pools] == [(5, 5), (9, 9), (13, 13)]
    assert {layer.source for layer in pools} == {"neck.narrow.0"}
    join = network["neck.join.0"]
    assert join.sources == ("neck.narrow.0", *(layer.name for layer in pools))
    for name, modules in (("classification", 2), ("regression", 4)):
        found = [layer for layer in network if isinstance(layer, Neurons) and f"head.{name}" in layer.name]
        assert [layer.synapses[0].weight.shape[2:] for layer in found] == [(3, 3)] * modules
    assert [readout.name for readout in network.readouts] == ["head.objectness", "head.classes", "head.boxes"]
    shapes = [network.shapes[readout.name] for readout in network.readouts]
    assert shapes == [(1, 3, 4), (CLASSES, 3, 4), (4, 3, 4)]


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_silent_spikes_give_the_maps_of_the_integers(network, images, mode):
    truth = lava_casc.forward(network, images).logits
    record = lava_casc.simulate(network, images, network.schedule(mode))
    assert record.all_certified
    assert (record.logits == truth).all()
    assert (truth != truth[:1]).any()


def test_the_integers_are_near_the_floats_in_every_map(detector, network, images):
    found = network.outputs(lava_casc.forward(network, images).logits)
    with torch.no_grad():
        real = detector(torch.tensor(images) / 255)
    for name, map_ in zip(("head.objectness", "head.classes", "head.boxes"), real, strict=True):
        spread = float(map_.std())
        assert np.abs(found[name] - map_.numpy()).mean() < 0.35 * spread, name


def test_a_detector_survives_checkpoint_and_file(detector, network, images, tmp_path):
    pytest.importorskip("h5py")
    spec = lava_casc.InputSpec((3, *SIZE))
    lava_casc.save_model(tmp_path / "detector.pt", detector, spec)
    loaded = lava_casc.load_model(tmp_path / "detector.pt")
    batch = torch.tensor(images) / 255
    assert all(torch.equal(a, b) for a, b in zip(loaded(batch), detector(batch), strict=True))
    lava_casc.write(tmp_path / "detector.net", network)
    assert lava_casc.read(tmp_path / "detector.net") == network


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_stride_is_what_the_backbone_does(name):
    if name == "vgg16":
        pytest.importorskip("torchvision")
    stride, make = BACKBONES[name]
    size = (stride, 2 * stride)
    assert stride_for(name, size) == stride
    model = make(3).eval()
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, *size))
    assert [tuple(found.shape[1:]) for found in maps] == [(1, 1, 2), (3, 1, 2), (4, 1, 2)]
    if name == "vgg16":
        with torch.device("meta"):
            features = pytest.importorskip("torchvision.models").vgg16_bn(weights=None).features
        shapes = [[p.shape for p in module.parameters()] for module in (model.backbone, features)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vgg-tiny", (24, 33), r"image size 24,33: the width \(33\) is no multiple of 8, .* vgg-tiny\. Use 32 or 40\."),
        ("vgg-small", (4, 32), r"image size 4,32: the height \(4\) is no multiple of 8, .* Use 8\."),
        ("vgg16", (24, 32), r"the height \(24\) is no multiple of 16, the stride of vgg16\. Use 16 or 32\."),
        ("vgg16", (0, 32), r"the height \(0\) is no multiple of 16"),
        ("yolo", (8, 8), r"backbone 'yolo' is not known\. Choose one of vgg-small, vgg-tiny, vgg16\."),
    ],
)
def test_a_size_or_name_that_cannot_be_is_refused(name, size, message):
    with pytest.raises(DataError, match=message):
        stride_for(name, size)


def test_an_unknown_backbone_is_refused_when_built():
    with pytest.raises(DataError, match="backbone 'nothing' is not known"):
        build_detector("nothing", 2)


@pytest.mark.lava
def test_lava_emits_the_spikes_of_the_reference():
    pytest.importorskip("lava.magma")
    small = (16, 24)
    model = settled(build_detector("vgg-tiny", CLASSES, levels=4, seed=1), small)
    network = lava_casc.convert(model, (3, *small))
    images = np.random.default_rng(2).integers(0, 256, (2, 3, *small))
    expected = lava_casc.simulate(network, images, record=("spikes",))
    found = lava_casc.loihi.run(network, images, record=("spikes",))
    assert found.all_certified
    assert (found.logits == expected.logits).all()
    assert list(found.spikes) == list(expected.spikes)
    assert all((found.spikes[name] == spikes).all() for name, spikes in expected.spikes.items())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_the_detector_with_the_backbone_of_torchvision_is_exact(mode):
    pytest.importorskip("torchvision")
    size = (32, 48)
    network = lava_casc.convert(settled(build_detector("vgg16", 20, seed=1), size), (3, *size))
    images = np.random.default_rng(2).integers(0, 256, (2, 3, *size))
    record = lava_casc.simulate(network, images, network.schedule(mode))
    assert record.all_certified
    assert (record.logits == lava_casc.forward(network, images).logits).all()
