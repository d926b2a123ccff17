"""torchvision's own definitions go the whole way: trace, fold, quantize, file, spikes, certified and equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lava_casc

models = pytest.importorskip("torchvision.models")

SLOW = pytest.mark.slow
#: Name of the network, and the smallest image size on which every one of its windows still finds something.
NETWORKS = [
    ("resnet18", 48),
    pytest.param("vgg11_bn", 32, marks=SLOW),
    pytest.param("resnet34", 64, marks=SLOW),
    pytest.param("resnext50_32x4d", 64, marks=SLOW),
    pytest.param("regnet_x_400mf", 64, marks=SLOW),
]


def network(name: str, size: int) -> lava_casc.IntegerNetwork:
    """Return an untrained network of torchvision with lively batch norm statistics, as integers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=10)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    model = lava_casc.replace_relu(model, levels=4, rounding="round")
    normalize = lava_casc.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return lava_casc.convert(nn.Sequential(normalize, model), (3, size, size))


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_torchvision_networks_are_exact(name: str, size: int, tmp_path: Path) -> None:
    integers = network(name, size)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, size, size))
    truth = lava_casc.forward(integers, images)
    lively = [counts for counts in truth.counts.values() if 0 < (counts > 0).mean() < 1]
    assert len(lively) > len(truth.counts) / 2
    lava_casc.write(tmp_path / "x.net", integers)
    assert lava_casc.read(tmp_path / "x.net") == integers
    for mode in ("unary", "graded"):
        schedule = integers.schedule(mode)
        record = lava_casc.simulate(integers, images, schedule)
        assert record.certified.all()
        assert record.last_spike.max() <= integers.silence_bound(schedule)
        assert np.array_equal(record.logits, truth.logits)
        assert all(np.array_equal(record.counts[layer], counts) for layer, counts in truth.counts.items())


@pytest.mark.lava
@SLOW
def test_a_resnet_of_torchvision_is_exact_on_lava() -> None:
    integers = network("resnet18", 48)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 48, 48))
    truth = lava_casc.forward(integers, images)
    for mode in ("unary", "graded"):
        record = lava_casc.loihi.run(integers, images, integers.schedule(mode), record=("counts",))
        assert record.certified.all()
        assert np.array_equal(record.logits, truth.logits)
        assert all(np.array_equal(record.counts[layer], counts) for layer, counts in truth.counts.items())
