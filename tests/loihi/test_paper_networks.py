"""The networks of CASC (arXiv 2406.05371) from torch to Lava, at small sizes: as the reference, spike by spike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loihi_differences import ENGINES, agree

import lava_casc
from lava_casc import loihi
from lava_casc.detection import build_detector
from lava_casc.frontend import CQReLU
from lava_casc.reference import forward
from lava_casc.text.train import TextClassifier
from lava_casc.training.architectures import build


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _converted(model, shape, batch=6):
    """Return an untrained model as a network whose batch norms know what comes in, so that its layers are alive."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(batch, *shape, generator=generator))
    return lava_casc.convert(model.eval(), shape)


def _images(n, shape):
    return np.random.default_rng(2).integers(0, 256, (n, *shape))


def _alive(counts):
    """See that every layer has both neurons that spike and neurons that do not, or spike less."""
    for name, values in counts.items():
        assert len(np.unique(values)) > 2, name
        assert (values > 0).mean() > 0.2, name


def _agree(network, samples, mode):
    exact = forward(network, samples)
    _alive(exact.counts)
    found = agree(network, samples, network.schedule(mode))
    assert found.all_certified
    assert (found.logits == exact.logits).all()
    return found


@pytest.mark.parametrize("mode", ["unary", pytest.param("graded", marks=pytest.mark.slow)])
def test_resnet20(mode):
    shape = (3, 16, 16)
    network = _converted(build("resnet20", width=0.25, levels=4), shape)
    assert len(network.spiking) == 19
    assert sum(len(layer.synapses) == 2 for layer in network.spiking) == 9
    found = _agree(network, _images(2, shape), mode)
    assert (found.logits[0] != found.logits[1]).any()


@pytest.mark.parametrize("mode", ["graded", pytest.param("unary", marks=pytest.mark.slow)])
def test_the_detector(mode):
    shape = (3, 24, 32)
    network = _converted(build_detector("vgg-tiny", 2, levels=4, seed=1), shape)
    assert len(network.readouts) == 3
    assert [len(layer.sources) for layer in network.spiking if "neck.join" in layer.name] == [4]
    found = _agree(network, _images(2, shape), mode)
    assert [values.shape for values in network.outputs(found.logits).values()] == [
        (2, 1, 3, 4),
        (2, 2, 3, 4),
        (2, 4, 3, 4),
    ]


@pytest.mark.parametrize("mode", ["unary", pytest.param("graded", marks=pytest.mark.slow)])
def test_the_recurrent_classifier(mode):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = TextClassifier(40, 4, hidden=12, layers=2, levels=4).eval()
    for module in model.modules():
        if isinstance(module, CQReLU):
            module.threshold.data[...] = 0.3
    words = np.random.default_rng(4).integers(0, 40, (3, 5))
    network = lava_casc.convert(model, (5,))
    assert len(network.memories) == 2
    found = _agree(network, words, mode)
    assert found.phases_certified.shape == (3, 5)


@pytest.mark.slow
def test_vgg16_for_cifar():
    """15 million weights, 14 layers, one image: about as long as its conversion."""
    shape = (3, 32, 32)
    network = _converted(build("vgg16", levels=8), shape, batch=2)
    images = _images(1, shape)
    exact = forward(network, images)
    _alive(exact.counts)
    assert sum(s.weight.size for layer in network for s in getattr(layer, "synapses", ())) > 14e6
    for engine in ENGINES:
        found = loihi.run(network, images, network.schedule("graded"), record=("counts",), engine=engine)
        assert found.all_certified
        assert (found.logits == exact.logits).all()
        assert list(found.counts) == list(exact.counts)
        assert all((found.counts[name] == values).all() for name, values in exact.counts.items())
