"""One test a rewrite: a tiny network before == after in float64, and the layers that it must become."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import Model, randomize
from torch import nn

from lava_casc.errors import UnsupportedModelError
from lava_casc.frontend import CQReLU, GraphModel, InputSpec, Normalize, fold, quantize, replace_relu, trace
from lava_casc.frontend.fold import FloatNeurons, FloatReadout, activate, evaluate, received
from lava_casc.hardware import read_hardware
from lava_casc.linear import max_pool
from lava_casc.network import Conv, Dense, MaxPool
from lava_casc.reference import forward, simulate

IMAGE = (3, 6, 8)


def unchanged(model, shape=IMAGE, samples=4):
    """Fold; every layer's sum must be the graph's value, and the integer network must take it from there."""
    torch.manual_seed(1)
    randomize(model)
    graph = trace(model, shape)
    network = fold(graph, check=0)
    x = torch.rand(samples, *shape, dtype=torch.float64) * 4 - 2
    with torch.no_grad():
        truth = GraphModel(graph).double().eval().values(x)
    values = {"input": x}
    for layer in network.layers:
        if isinstance(layer, MaxPool):
            values[layer.name] = max_pool(layer, values[layer.source])
            continue
        z = received(network, layer, values)
        part = slice(*layer.channels) if isinstance(layer, FloatNeurons) else slice(None)
        wanted = truth[layer.preactivation][:, part].reshape(z.shape)
        wanted = layer.sum_for(wanted) if isinstance(layer, FloatNeurons) else wanted
        assert z.numel() == wanted.numel() > 0
        assert float((z - wanted.reshape(z.shape)).abs().max()) < 1e-12 * max(1, float(wanted.abs().max()))
        assert z.shape[1:] == network.shapes[layer.name]
        if isinstance(layer, FloatNeurons):
            values[layer.name] = activate(layer, z)
            if layer.activation:
                values[layer.name] = layer.activation_for(truth[layer.activation][:, part].reshape(z.shape))
    assert wanted.abs().max() > 0
    names = [layer.name for layer in network.layers]
    assert len(set(names)) == len(names)
    integers, report = quantize(network, InputSpec(shape, -8, 7, 0.25), read_hardware())
    images = np.random.default_rng(0).integers(-8, 8, (2, *shape))
    record = simulate(integers, images)
    assert record.all_certified
    assert np.array_equal(record.logits, forward(integers, images).logits)
    return network


def layers(network):
    """Return name and kinds of synapses of each layer."""
    return [
        (
            layer.name,
            "pool" if isinstance(layer, MaxPool) else [type(s).__name__.lower() for s in layer.synapses],
        )
        for layer in network.layers
    ]


def act(levels=4):
    return CQReLU(levels, 0.9, "round")


def head(*body, width=None):
    """Return the model with a linear end."""
    return (
        nn.Sequential(*body, nn.Flatten(), nn.LazyLinear(2))
        if width is None
        else nn.Sequential(*body, nn.Linear(width, 2))
    )


def ready(model, shape=IMAGE):
    """Run lazy modules once."""
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return model


pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")

CONV = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}

#: Name, body, the synapses of its layers before the final Dense.
REWRITES = {
    "bn after conv": ([nn.Conv2d(3, 4, (3, 2), **CONV), nn.BatchNorm2d(4), act()], ["conv"]),
    "bn after grouped conv": (
        [nn.Conv2d(3, 6, (3, 2), **CONV, groups=3, bias=False), nn.BatchNorm2d(6), act()],
        ["conv"],
    ),
    "bn without affine": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, eps=0.1), act()], ["conv"]),
    "bn before padded conv": ([nn.BatchNorm2d(3), nn.Conv2d(3, 4, (3, 2), **CONV), act()], ["conv"]),
    "normalize before padded conv": (
        [Normalize([0.3, 0.5, 0.7], [0.2, 0.3, 2.0]), nn.Conv2d(3, 4, (3, 2), **CONV), act()],
        ["conv"],
    ),
    "conv, dilated conv": (
        [nn.Conv2d(3, 4, 2, dilation=(2, 1)), nn.Conv2d(4, 5, 2, stride=2, dilation=(1, 2)), act()],
        ["conv"],
    ),
    "depthwise dilated conv, conv": (
        [nn.Conv2d(3, 3, 2, dilation=(1, 2), groups=3), nn.Conv2d(3, 4, (2, 1)), act()],
        ["conv"],
    ),
    "normalize, bn, conv": (
        [Normalize(0.4, 0.3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1), act()],
        ["conv"],
    ),
    "two norms": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), act()], ["conv"]),
    "avg pool after act": (
        [act(), nn.AvgPool2d(2), nn.Conv2d(3, 4, (2, 3), padding=1), act()],
        ["conv", "conv"],
    ),
    "avg pool with remainder": ([act(), nn.AvgPool2d((2, 3)), nn.Conv2d(3, 4, 2), act()], ["conv", "conv"]),
    "remainder, padding": (
        [act(), nn.AvgPool2d((4, 3)), nn.Conv2d(3, 4, 2, padding=1), act()],
        ["conv", "dense"],
    ),
    "avg pool overlapping": (
        [act(), nn.AvgPool2d((3, 2), (2, 1)), nn.Conv2d(3, 4, 2, (1, 2)), act()],
        ["conv", "conv"],
    ),
    "avg pool padded": ([act(), nn.AvgPool2d(3, 2, (1, 0)), nn.Conv2d(3, 4, 2), act()], ["conv", "conv"]),
    "avg pool padded twice": (
        [act(), nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 4, 2, padding=1), act()],
        ["conv", "dense"],
    ),
    "count_include_pad": (
        [act(), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(3, 4, 2), act()],
        ["conv", "dense"],
    ),
    "divisor": (
        [act(), nn.AvgPool2d(3, 2, 1, divisor_override=5), nn.Conv2d(3, 4, 2), act()],
        ["conv", "conv"],
    ),
    "divisor, padding uncounted": ([nn.AvgPool2d(3, 2, 1, False, False, 5), act()], ["conv"]),
    "ceil_mode that tiles": (
        [act(), nn.AvgPool2d((3, 4), ceil_mode=True, count_include_pad=False), nn.Conv2d(3, 4, 2), act()],
        ["conv", "conv"],
    ),
    "ceil_mode": (
        [act(), nn.AvgPool2d((4, 3), ceil_mode=True), nn.Conv2d(3, 4, 2), act()],
        ["conv", "dense"],
    ),
    "avg pool before act": ([nn.Conv2d(3, 4, 3), nn.AvgPool2d((2, 3), (1, 2)), act()], ["conv"]),
    "avg pool of padded conv": (
        [nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d((2, 3), (1, 2)), act()],
        ["conv"],
    ),
    "uneven pool, then conv": (
        [nn.AvgPool2d(3, 2, 1, count_include_pad=False), act(), nn.Conv2d(3, 2, 2, padding=1), act()],
        ["dense", "dense"],
    ),
    "pool then pool": (
        [act(), nn.AvgPool2d((1, 2)), nn.AvgPool2d((3, 2)), nn.Conv2d(3, 4, (1, 2)), act()],
        ["conv"] * 2,
    ),
    "strides and oblong windows after pool": (
        [act(), nn.AvgPool2d((2, 3)), nn.Conv2d(3, 4, (2, 1), (1, 2)), act()],
        ["conv"] * 2,
    ),
    "dilation after pool": (
        [act(), nn.AvgPool2d((2, 1)), nn.Conv2d(3, 4, 3, 1, 2, dilation=(1, 3)), act()],
        ["conv"] * 2,
    ),
    "grouped conv after pool": ([act(), nn.AvgPool2d(2), nn.Conv2d(3, 6, 2, groups=3), act()], ["conv"] * 2),
    "depthwise after conv": ([nn.Conv2d(3, 6, 2), nn.Conv2d(6, 6, (2, 3), groups=6), act()], ["conv"]),
    "adaptive even": ([act(), nn.AdaptiveAvgPool2d((3, 2)), nn.Conv2d(3, 4, 2), act()], ["conv", "conv"]),
    "adaptive uneven": ([act(), nn.AdaptiveAvgPool2d((4, 3)), nn.Conv2d(3, 4, 2), act()], ["conv", "dense"]),
    "adaptive None": ([act(), nn.AdaptiveAvgPool2d((None, 2)), nn.Conv2d(3, 4, 2), act()], ["conv", "conv"]),
    "adaptive upwards": ([act(), nn.AdaptiveAvgPool2d((7, 9)), act()], ["conv", "dense"]),
    "max pool after act": ([nn.Conv2d(3, 4, 3), act(), nn.MaxPool2d(2, 1, (1, 0))], ["conv", "pool"]),
    "max pool before act": ([nn.Conv2d(3, 4, 3), nn.MaxPool2d((2, 3), (2, 1)), act()], ["conv", "pool"]),
    "padded max pool before act": ([nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), act()], ["conv", "pool"]),
    "max pool of bn before act": (
        [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(3, 2, 1), act()],
        ["conv", "pool"],
    ),
    "dilated max pool": ([nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 1, 0, (2, 3)), act()], ["conv", "pool"]),
    "max pool of max pool": (
        [act(), nn.MaxPool2d((1, 2)), nn.MaxPool2d((2, 1), 1)],
        ["conv", "pool", "pool"],
    ),
    "max pool of avg pool before act": (
        [act(), nn.AvgPool2d(2), nn.MaxPool2d(2, 1), act()],
        ["conv", "conv", "pool"],
    ),
    "max pool of input before act": ([nn.MaxPool2d(2), act()], ["conv", "pool"]),
    "max pool, act, conv": (
        [nn.Conv2d(3, 2, 2), nn.MaxPool2d(2), act(), nn.Conv2d(2, 2, 2), act()],
        ["conv", "pool", "conv"],
    ),
    "1x1 after conv": ([nn.Conv2d(3, 5, (2, 3), 2, 1), nn.Conv2d(5, 2, 1), act()], ["conv"]),
    "conv after 1x1": ([nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 3, padding=1), act()], ["conv"]),
    "conv after conv": ([nn.Conv2d(3, 2, 3, (2, 1), 1), nn.Conv2d(2, 4, (1, 2), dilation=2), act()], ["conv"]),
    "padded conv after conv": ([nn.Conv2d(3, 2, 3, (2, 1), 1), nn.Conv2d(2, 4, 2, padding=1), act()], ["dense"]),
    "grouped conv after grouped conv": (
        [nn.Conv2d(3, 6, (2, 3), (1, 2), (1, 0), groups=3), nn.Conv2d(6, 4, (3, 1), (2, 1), groups=2), act()],
        ["conv"],
    ),
    "flatten, act": ([nn.Conv2d(3, 4, 3), nn.Flatten(), act()], ["conv"]),
    "flatten, bn1d, act": ([nn.Conv2d(3, 2, 3), nn.Flatten(), nn.BatchNorm1d(48), act()], ["dense"]),
    "act, flatten, bn1d": ([act(), nn.Flatten(), nn.BatchNorm1d(144), act()], ["conv", "dense"]),
    "act of act": ([nn.Conv2d(3, 4, 3), act(2), act(8)], ["conv", "conv"]),
    "linear after linear": ([nn.Flatten(), nn.Linear(144, 5), nn.Linear(5, 7), act()], ["dense"]),
    "bn after linear": ([nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5), act()], ["dense"]),
    "gap, linear": ([nn.Conv2d(3, 4, 3), act(), nn.AdaptiveAvgPool2d(1)], ["conv"]),
    "act first": ([act()], ["conv"]),
    "no activation": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)], []),
}


@pytest.mark.parametrize("case", REWRITES)
def test_rewrite(case):
    body, wanted = REWRITES[case]
    network = unchanged(ready(head(*body)))
    assert [kinds if kinds == "pool" else kinds[0] for _, kinds in layers(network)] == [*wanted, "dense"]
    assert all(len(kinds) == 1 for _, kinds in layers(network) if kinds != "pool")


def test_a_shift_before_zero_padding_leaves_its_mark_at_the_border():
    network = unchanged(ready(head(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1), act())))
    bias = network.layers[0].bias
    assert bias.shape == network.shapes["1"] == (4, 6, 8)
    assert np.ptp(bias[:, 1:-1, 1:-1], axis=(1, 2)).max() < 1e-12
    assert not np.allclose(bias[:, 0, 1:-1], bias[:, 1, 1:-1])
    unpadded = unchanged(ready(head(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), act())))
    assert unpadded.layers[0].bias.shape == (4,)


BRANCHES = {
    "identity": lambda s, x: s.act2(s.conv(x) + x),
    "identity first": lambda s, x: s.act2(x + s.conv(x)),
    "1x1": lambda s, x: s.act2(s.conv(x) + s.one(x)),
    "twice": lambda s, x: s.act2(x + x),
    "three": lambda s, x: s.act2(s.conv(x) + s.one(x) + x),
    "three, nested": lambda s, x: s.act2(s.conv(x) + (s.one(s.act3(s.conv2(x))) + x)),
    "bn of a sum": lambda s, x: s.act2(s.bn(s.conv(x) + x)),
    "sum of sums": lambda s, x: s.act2((lambda y: s.bn(y) + y)(s.conv(x) + x)),
    "max pool of a sum": lambda s, x: s.act2(F.max_pool2d(s.conv(x) + x, 2)),
    "avg pool of a sum": lambda s, x: s.act2(F.avg_pool2d(s.conv(x) + x, 2)),
    "uneven pool of a sum": lambda s, x: s.act2(F.adaptive_avg_pool2d(s.conv(x) + x, (4, 5))),
    "conv of a sum": lambda s, x: s.act2(s.one(s.conv(x) + x)),
    "two activations": lambda s, x: (lambda y: s.act2(y) + s.act3(y))(s.conv(x)),
    "matrix and conv": lambda s, x: s.act2(s.conv2(s.conv(x)) + x),
    "pooled branches": lambda s, x: F.max_pool2d(s.act2(s.conv(x)), 3, 1, 1) + s.act3(s.one(x)),
    "flat and image": lambda s, x: s.act2(x.flatten(1) + s.bn1(s.conv(x).flatten(1))),
}


@pytest.mark.parametrize("of_input", [False, True])
@pytest.mark.parametrize("case", BRANCHES)
def test_branches(case, of_input):
    parts = {
        "act2": act(),
        "act3": act(2),
        "bn": nn.BatchNorm2d(3),
        "bn1": nn.BatchNorm1d(144),
        "act1": act(8),
    }
    parts |= {name: nn.Conv2d(3, 3, 3, padding=1) for name in ("conv", "conv2")} | {"one": nn.Conv2d(3, 3, 1)}
    run = BRANCHES[case]
    model = Model(lambda s, x: run(s, x if of_input else s.act1(x)), **parts)
    network = unchanged(ready(head(model)))
    sources = {s.source for layer in network.layers if not isinstance(layer, MaxPool) for s in layer.synapses}
    assert ("0.act1" in sources) is not of_input


def test_layers_are_named_after_the_module_that_has_the_weights():
    inner = Model(
        lambda s, x: s.act2(s.conv(s.act1(x)) + x), act1=act(), act2=act(), conv=nn.Conv2d(3, 3, 3, padding=1)
    )
    model = nn.Sequential(nn.Conv2d(3, 3, 1), act(), inner, inner, nn.Flatten(), nn.Linear(144, 2))
    names = [name for name, _ in layers(unchanged(model))]
    assert names == ["0", "2.act1", "2.conv", "2.act1_1", "2.conv_1", "5"]


@pytest.mark.parametrize("name", ["input", "readout"])
def test_a_module_may_be_called_like_our_own_layers(name):
    model = Model(lambda s, x: s.end(s.act(getattr(s, name)(x))), act=act(), end=nn.Linear(4, 2))
    setattr(model, name, nn.Linear(5, 4))
    assert len(unchanged(model, (5,)).layers) == 2


# Concatenations: never made, but read part by part


def cat(*values):
    return torch.cat(values, 1)


#: Modules by name, on images of 5 channels or as many as the name says. `p`, `q` and `r` make 3, 2 and 4 channels.
PARTS = {
    "p": lambda: nn.Conv2d(5, 3, 3, padding=1),
    "q": lambda: nn.Conv2d(5, 2, (1, 3), padding=(0, 1)),
    "r": lambda: nn.Conv2d(5, 4, 1),
    "same": lambda: nn.Conv2d(5, 5, 3, padding=1),
    "uneven": lambda: nn.Conv2d(5, 4, (3, 2), (2, 1), (1, 0), (1, 2)),
    "uneven8": lambda: nn.Conv2d(8, 3, (3, 2), (2, 1), (1, 0), (1, 2), bias=False),
    "uneven9": lambda: nn.Conv2d(9, 3, (3, 2), (2, 1), (1, 0), (1, 2)),
    "grouped": lambda: nn.Conv2d(5, 10, (2, 3), (1, 2), (1, 0), groups=5),
    "same_grouped": lambda: nn.Conv2d(5, 5, 3, padding=1, groups=5),
    "grouped8": lambda: nn.Conv2d(8, 6, (2, 1), 1, (1, 0), groups=2),
    "grouped9": lambda: nn.Conv2d(9, 6, (2, 1), 1, (1, 0), groups=3, bias=False),
    "bn": lambda: nn.BatchNorm2d(5),
    "bn9": lambda: nn.BatchNorm2d(9, affine=False),
    "bn240": lambda: nn.BatchNorm1d(240),
    "colours": lambda: Normalize([0.1, 0.2, 0.3, -0.1, 0.0], [1.0, 2.0, 0.5, 0.7, 1.5]),
    "grey": lambda: Normalize(0.3, 0.6),
    "wide": lambda: nn.Linear(240, 7),
    "wider": lambda: nn.Linear(240, 233),
    "narrow": lambda: nn.Linear(5, 3),
    "narrower": lambda: nn.Linear(5, 2),
} | {f"act{i}": lambda i=i: act(i) for i in range(2, 7)}
#: What is computed from x, an activation of 5 channels, and each layer's synapses: convolutions, dense, pools.
CONCATENATIONS = {
    "conv of acts": (lambda s, x: s.uneven(cat(s.act2(s.p(x)), s.act3(s.q(x)))), "c c cc"),
    "conv of linear parts": (lambda s, x: s.uneven9(cat(s.colours(x), s.act2(s.r(x)))), "c cc"),
    "padded conv of linear parts": (lambda s, x: s.uneven(cat(s.p(x), s.q(x))), "d"),
    "conv of one part": (lambda s, x: s.uneven(torch.cat([x], 1)), "c"),
    "conv of the same twice": (lambda s, x: s.uneven8(cat(y := s.act2(s.r(x)), y)), "c c"),
    "conv of a part and its input": (lambda s, x: s.uneven9(cat(x, s.act2(s.r(x)))), "c cc"),
    "conv of a nest": (lambda s, x: s.uneven9(cat(cat(s.act2(s.q(x)), s.act3(s.q(x))), x)), "c c ccc"),
    "depthwise": (lambda s, x: s.grouped(cat(s.act2(s.p(x)), s.act3(s.q(x)))), "c c c c"),
    "groups that align": (lambda s, x: s.grouped8(cat(s.act2(s.r(x)), s.act3(s.r(x)))), "c c c c"),
    "groups that do not": (lambda s, x: s.grouped9(cat(s.act2(s.r(x)), x)), "c cc"),
    "bn": (lambda s, x: s.bn(cat(s.act2(s.p(x)), s.q(x))), "c c c"),
    "bn, act, conv": (lambda s, x: s.uneven(s.act4(s.bn(cat(s.act2(s.p(x)), s.act3(s.q(x)))))), "c c c c cc"),
    "bn before a padded conv": (lambda s, x: s.uneven9(s.bn9(cat(x, s.act2(s.r(x))))), "c cc"),
    "normalize": (lambda s, x: s.colours(cat(s.act2(s.p(x)), s.act3(s.q(x)))), "c c c c"),
    "normalize by one number": (lambda s, x: s.grey(cat(s.act2(s.p(x)), s.act3(s.q(x)))), "c c c c"),
    "linear parts": (lambda s, x: cat(s.p(x), s.q(x)), "c c"),
    "linear": (lambda s, x: s.wide(cat(s.act2(s.p(x)), s.act3(s.q(x))).flatten(1)), "c c dd"),
    "linear of flat parts": (
        lambda s, x: s.wide(cat(s.act2(s.p(x)).flatten(1), s.act3(s.q(x)).flatten(1))),
        "c c dd",
    ),
    "linear of vectors": (lambda s, x: s.wide(cat(s.act2(s.p(x).flatten(1)), s.q(x).flatten(1))), "c dd"),
    "bn of flat parts": (lambda s, x: s.bn240(cat(s.act2(s.p(x)).flatten(1), s.q(x).flatten(1))), "c d d"),
    "flat": (lambda s, x: cat(s.act2(s.p(x)), s.q(x)).flatten(1), "c c c"),
    "average": (lambda s, x: s.uneven(F.avg_pool2d(cat(s.act2(s.p(x)), s.act3(s.q(x))), 3, 1, 1)), "c c dd"),
    "average of parts": (lambda s, x: F.avg_pool2d(cat(s.act2(s.p(x)), s.q(x)), (2, 3), 1), "c c c"),
    "uneven average": (lambda s, x: F.adaptive_avg_pool2d(cat(s.act2(s.p(x)), s.q(x)), (4, 5)), "c d d"),
    "average, then linear": (
        lambda s, x: s.narrow(F.adaptive_avg_pool2d(cat(s.act2(s.p(x)), s.act3(s.q(x))), 1).flatten(1)),
        "c c dd",
    ),
    "max pool of acts": (
        lambda s, x: s.uneven(F.max_pool2d(cat(s.act2(s.p(x)), s.act3(s.q(x))), (2, 3), 1)),
        "c c p p cc",
    ),
    "max pool before act": (lambda s, x: F.max_pool2d(cat(s.p(x), s.act3(s.q(x))), 2), "c p c p c"),
    "max pool before act, beside others": (
        lambda s, x: cat(F.max_pool2d(s.p(x), 2), F.avg_pool2d(s.act2(s.q(x)), 2), F.max_pool2d(cat(x, s.r(x)), 2)),
        "c p c p c c c p",
    ),
    "sum of equal splits": (lambda s, x: cat(s.p(x), s.q(x)) + cat(s.act2(s.p(x)), s.act3(s.q(x))), "c c cc cc"),
    "sum of other splits": (lambda s, x: cat(s.act2(s.p(x)), s.q(x)) + cat(s.act3(s.q(x)), s.p(x)), "c c cc cc cc"),
    "sum with an act": (lambda s, x: cat(s.act2(s.p(x)), s.q(x)) + x, "c cc cc"),
    "sum with a conv": (lambda s, x: s.same(x) + cat(s.act2(s.p(x)), s.act3(s.q(x))), "c c cc cc"),
    "sum with a grouped conv": (lambda s, x: cat(s.p(x), s.q(x)) + s.same_grouped(x), "c cc"),
    "sum with a matrix": (lambda s, x: cat(s.p(x), s.q(x)) + s.same(s.same(x)), "d d"),
    "sum of flat values": (
        lambda s, x: cat(s.act2(s.p(x)), s.q(x)).flatten(1) + s.act3(s.same(x)).flatten(1),
        "c c cc cc",
    ),
    "sum that cuts a channel": (lambda s, x: cat(s.wide(x.flatten(1)), s.wider(x.flatten(1))) + x.flatten(1), "d d"),
    "sum of vectors": (
        lambda s, x: (lambda v: cat(s.act2(s.narrow(v)), s.narrower(v)) + v)(x.mean((2, 3))),
        "d dd d",
    ),
    "conv of a sum": (lambda s, x: s.uneven(cat(s.act2(s.p(x)), s.act3(s.q(x))) + x), "c c ccc"),
    "concatenation of a sum": (lambda s, x: s.uneven9(cat(s.act2(s.same(x)) + x, s.act3(s.r(x)))), "c c ccc"),
    "inception": (
        lambda s, x: s.uneven9(
            cat(s.act2(s.p(s.act3(s.same(x)))), s.act4(s.q(F.max_pool2d(x, 3, 1, 1))), s.act5(s.r(x)))
        ),
        "c c p c c ccc",
    ),
    "spatial pyramid": (
        lambda s, x: s.uneven9(
            cat(y := s.act2(s.q(x)), *(F.max_pool2d(y, k, 1, k // 2) for k in (3, 5)), s.act3(s.p(x)))
        ),
        "c p p c cccc",
    ),
}


@pytest.mark.parametrize("case", CONCATENATIONS)
def test_concatenation(case):
    run, wanted = CONCATENATIONS[case]
    torch.manual_seed(0)
    model = Model(lambda s, x: s.act6(run(s, s.act1(x))), act1=act(8), **{name: make() for name, make in PARTS.items()})
    network = unchanged(ready(head(model), (5, 6, 8)), (5, 6, 8))
    found = ["p" if kinds == "pool" else "".join(kind[0] for kind in kinds) for _, kinds in layers(network)]
    assert " ".join(found[1:-1]) == wanted
    for layer in network.layers[1:]:
        if not isinstance(layer, MaxPool):
            keys = [(s.source, type(s), s.weight.shape, getattr(s, "stride", 0)) for s in layer.synapses]
            assert len(set(keys)) == len(keys)


# Ends of a model


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(5, 2), (5,)),
        (nn.Sequential(nn.Linear(5, 2), nn.Dropout()), (5,)),
        (nn.Sequential(nn.Linear(5, 4), act()), (5,)),
        (nn.Sequential(nn.Linear(5, 4, bias=False), act(), nn.BatchNorm1d(4)), (5,)),
        (nn.Identity(), (5,)),
        (nn.Sequential(nn.Conv2d(3, 2, 3), act(), nn.Flatten()), IMAGE),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), act()), IMAGE),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), IMAGE),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), act(), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            IMAGE,
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3), act(), nn.MaxPool2d(2), nn.Flatten()), IMAGE),
        (nn.Flatten(), IMAGE),
    ],
)
def test_ends(model, shape):
    network = unchanged(model, shape)
    assert [type(s) for s in network.layers[-1].synapses] == [Dense]


REFUSED = {
    "max pool of the input": (
        [nn.MaxPool2d(2), nn.Conv2d(3, 2, 2), act()],
        "^0: a max pool .* followed by Conv2d",
    ),
    "max of avg": (
        [act(), nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)],
        "^2: .* right before or right behind",
    ),
    "max of max of conv": (
        [nn.Conv2d(3, 2, 2), nn.MaxPool2d(2), nn.MaxPool2d(2), act()],
        "^1: .* MaxPool2d .2.",
    ),
    "bn between": ([nn.Conv2d(3, 2, 2), nn.MaxPool2d(2), nn.BatchNorm2d(2), act()], "^1: .*BatchNorm2d"),
    "max of a matrix": (
        [nn.AdaptiveAvgPool2d((4, 5)), act(), nn.MaxPool2d(2)],
        "^2: a max pool of 1, .* matrix",
    ),
    "max of a matrix before act": (
        [nn.AdaptiveAvgPool2d((4, 5)), nn.MaxPool2d(2), act()],
        "^1: a max pool .* matrix",
    ),
    "linear on an image": ([act(), nn.Linear(8, 4)], "^1: Linear on shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    body, message = REFUSED[case]
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        fold(trace(ready(head(*body)), IMAGE))
    assert "\n" not in str(caught.value)


def test_a_densenet_of_torchvision():
    models = pytest.importorskip("torchvision.models")
    net = models.DenseNet(growth_rate=4, block_config=(2, 3), num_init_features=6, bn_size=2, num_classes=3)
    body = nn.Sequential(net.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)
    network = unchanged(replace_relu(body, 4, rounding="round"), (3, 40, 48))
    reads = {layer.name: len(layer.synapses) for layer in network.layers if not isinstance(layer, MaxPool)}
    # As many synapses as the concatenation has parts. A linear value is no layer: each of its readers sums it up anew.
    assert [reads[f"0.denseblock1.denselayer{i}.conv1"] for i in (1, 2)] == [1, 2]
    assert [reads[f"0.denseblock2.denselayer{i}.conv1"] for i in (1, 2, 3)] == [1, 2, 3]
    assert [reads[f"0.transition1.conv{i}"] for i in ("", "_1", "_2", "_3")] == [3, 3, 3, 3]
    assert reads["4"] == 4


# Several outputs


def outputs_of(model, shape=(5, 6, 8)):
    """Fold; the readouts must come last, in order, with the model's outputs. Return the network."""
    network = unchanged(ready(model, shape), shape)
    x = torch.rand(3, *shape, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        found = model.double()(x)
    wanted = [found] if isinstance(found, torch.Tensor) else list(found.values() if isinstance(found, dict) else found)
    made = evaluate(network, x)
    readouts = network.layers[-len(wanted) :]
    assert all(isinstance(layer, FloatReadout) for layer in readouts)
    assert not any(isinstance(layer, FloatReadout) for layer in network.layers[: -len(wanted)])
    for layer, value in zip(readouts, wanted, strict=True):
        assert network.shapes[layer.name] == value.shape[1:]
        torch.testing.assert_close(made[layer.name], value, rtol=1e-9, atol=1e-9)
    if isinstance(found, dict):
        assert [layer.name for layer in readouts] == list(found)
    return network


#: What is returned, and each readout's synapses.
OUTPUTS = {
    "image": (lambda s, x: s.uneven(x), "c"),
    "image of an act": (lambda s, x: s.act2(s.uneven(x)), "c"),
    "image of a max pool": (lambda s, x: F.max_pool2d(x, 2), "c"),
    "two": (lambda s, x: (s.uneven(x), s.wide(x.flatten(1))), "c d"),
    "list": (lambda s, x: [s.uneven(x), s.act2(s.p(x))], "c c"),
    "one in a tuple": (lambda s, x: (s.uneven(x),), "c"),
    "three": (lambda s, x: (s.wide(x.flatten(1)), s.p(x), s.narrow(x.mean((2, 3)))), "d c d"),
    "the same twice": (lambda s, x: (y := s.p(x), y), "c c"),
    "the same act twice": (lambda s, x: (x, x), "c c"),
    "read on": (lambda s, x: (y := s.same(x), s.p(s.act2(y))), "c c"),
    "read on, and its act": (lambda s, x: (y := s.same(x), s.act2(y), s.p(s.act2(y))), "c c c"),
    "sum": (lambda s, x: (s.p(x), s.same(x) + x), "c cc"),
    "average": (lambda s, x: (x.mean((2, 3)), F.avg_pool2d(x, 2)), "d c"),
    "average and the linear behind it": (
        lambda s, x: (lambda y: (s.narrow(y.flatten(1)), y))(F.adaptive_avg_pool2d(x, 1)),
        "d c",
    ),
    "flat average and the linear behind it": (
        lambda s, x: (lambda y: (s.narrow(y), y))(F.adaptive_avg_pool2d(x, 1).flatten(1)),
        "d d",
    ),
    "concatenation": (lambda s, x: (cat(s.act2(s.p(x)), s.act3(s.q(x))), s.p(x)), "cc c"),
    "concatenation of linear parts": (lambda s, x: cat(s.same_grouped(x), s.r(x), x), "cc"),
    "flat concatenation": (lambda s, x: (cat(s.act2(s.p(x)), s.q(x)).flatten(1), s.p(x)), "dd c"),
    "vectors": (lambda s, x: (lambda v: cat(s.narrow(v), s.act2(s.narrower(v))))(x.mean((2, 3))), "dd"),
    "dictionary": (lambda s, x: {"boxes": s.p(x), "classes": s.wide(x.flatten(1))}, "c d"),
    "names of populations": (
        lambda s, x: {"same": s.narrow(s.act2(s.same(x)).mean((2, 3))), "act1": x, "p": s.p(x)},
        "d c c",
    ),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs(case):
    run, wanted = OUTPUTS[case]
    torch.manual_seed(0)
    parts = {name: make() for name, make in PARTS.items()}
    network = outputs_of(Model(lambda s, x: run(s, s.act1(x)), act1=act(8), **parts))
    found = [kinds for _, kinds in layers(network)][-len(wanted.split()) :]
    assert " ".join("".join(kind[0] for kind in kinds) for kinds in found) == wanted


def test_a_large_image_output_needs_no_matrix(monkeypatch):
    monkeypatch.setattr(sys.modules["lava_casc.frontend.fold"], "DENSE_LIMIT", 0)
    model = Model(
        lambda s, x: cat(s.act(s.conv(x)), x, s.conv(x)), act=act(), conv=nn.Conv2d(4, 4, 3, padding=1, groups=2)
    )
    (readout,) = [x for x in fold(trace(model, (4, 60, 70))).layers if isinstance(x, FloatReadout)]
    assert [s.weight.shape for s in readout.synapses] == [(12, 4, 1, 1), (12, 4, 1, 1), (12, 4, 3, 3)]


def test_readouts_are_named_after_the_module_that_has_the_weights():
    model = Model(
        lambda s, x: (s.a(s.act(x)), s.b(s.act(x)), s.act(x)), act=act(), a=nn.Linear(5, 2), b=nn.Linear(5, 3)
    )
    assert [name for name, _ in layers(unchanged(model, (5,)))] == ["act", "act_1", "act_2", "a", "b", "readout"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda s, x: {"input": s.conv(x)}, "^an output is called 'input', as the network's input is"),
        (lambda s, x: (x, F.max_pool2d(s.conv(x), 2)), "^max_pool2d: .*, followed by the output. Put a CQReLU"),
        (lambda s, x: F.adaptive_avg_pool2d(s.act(x), (4, 5)), "^adaptive_avg_pool2d: an output image .* Flatten this"),
    ],
)
def test_outputs_refused(run, message):
    with pytest.raises(UnsupportedModelError, match=message):
        fold(trace(Model(run, conv=nn.Conv2d(3, 3, 1), act=act()), IMAGE))


def test_windows_of_padding_alone():
    with pytest.raises(UnsupportedModelError, match="nothing but padding"):
        fold(trace(nn.Sequential(act(), nn.MaxPool2d(2, 1, 1, 3), nn.Flatten()), (1, 2, 2)))


@pytest.mark.parametrize("channels", [3, 64])
def test_a_matrix_that_would_be_too_large_is_refused(channels):
    # 3 -> 8 -> 64 channels on 40 x 40: the second matrix is too large, though the first one is not.
    body = [nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 64, 3, padding=1), act()]
    with pytest.raises(UnsupportedModelError, match="^1: Conv2d follows input .* would be too large"):
        fold(trace(ready(head(*body), (3, 40, 40)), (3, 40, 40)))


def test_a_long_matrix_needs_little_memory():
    # 2 x 50,000: made from its 2 rows. From its columns it would take 20 GB.
    body = [nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = fold(trace(nn.Sequential(*body), (5, 100, 100)))
    assert network.layers[0].synapses[0].weight.shape == (2, 50_000)


def test_conv_is_kept_where_it_can_be():
    assert isinstance(unchanged(ready(head(*REWRITES["avg pool after act"][0]))).layers[1].synapses[0], Conv)


def test_fold_checks_itself(monkeypatch):
    """Sabotage: a rewrite that is wrong by a hundred millionth does not pass."""
    graph = trace(randomize(ready(head(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act()))), IMAGE)
    module = __import__("sys").modules["lava_casc.frontend.fold"]
    right = module._RULES["BatchNorm2d"]

    def wrong(folder, op, value, channels):
        found = right(folder, op, value, channels)
        return module.replace(found, bias=found.bias + 1e-8)

    monkeypatch.setitem(module._RULES, "BatchNorm2d", wrong)
    with pytest.raises(AssertionError, match="^0: folding changed the function"):
        fold(graph)
    assert fold(graph, check=0).layers


@pytest.mark.parametrize(
    ("size", "output"), [((7, 6), (7, 7)), ((2, 3), (7, 7)), ((5, 7), (3, 2)), ((8, 4), 2), ((6, 5), (None, 3))]
)
def test_an_average_before_flatten_and_linear_needs_no_matrix_of_its_own(size, output, monkeypatch):
    monkeypatch.setattr(sys.modules["lava_casc.frontend.fold"], "DENSE_LIMIT", 0)
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(output)
    features = pool(torch.zeros(1, 3, *size)).numel()
    model = nn.Sequential(nn.Conv2d(2, 3, 1), CQReLU(4), pool, nn.Dropout(), nn.Flatten(), nn.Linear(features, 5))
    folded = fold(trace(model, (2, *size)))
    assert [layer.name for layer in folded.layers] == ["0", "5"]
    x = torch.rand(4, 2, *size, dtype=torch.float64)
    expected = model.double().eval()(x)
    assert torch.allclose(evaluate(folded, x)["5"], expected, rtol=0, atol=1e-12)
    folded = fold(trace(model, (2, *size)))  # of doubles
    assert torch.allclose(evaluate(folded, x)["5"], expected, rtol=0, atol=1e-12)


class Wide(nn.Module):
    """Vectors that are normalized, added to what is computed of them, concatenated and added in parts."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.first, self.act = nn.Linear(inputs, hidden), CQReLU(4)
        self.norm, self.same, self.second = nn.BatchNorm1d(hidden), nn.Linear(hidden, hidden), CQReLU(4)
        self.head, self.other = nn.Linear(hidden, 3), nn.Linear(2 * hidden, 3)

    def forward(self, x):
        x = self.norm(self.act(self.first(x)))
        y = self.second(x + x + self.same(x))
        return self.head(x + y) + self.other(torch.cat([y, x], 1))


def test_vectors_are_folded_without_matrices_of_their_own(monkeypatch):
    torch.manual_seed(0)
    model = Wide(7, 5).double().eval()
    model.norm.running_mean.uniform_(-1, 1)
    model.norm.weight.data.copy_(torch.linspace(-2, 3, 5))
    with torch.no_grad():
        folded = fold(trace(model, (7,)))
        x = torch.rand(6, 7, dtype=torch.float64)
        assert torch.allclose(evaluate(folded, x)["head"], model(x), rtol=0, atol=1e-12)
    assert [len(layer.synapses) for layer in folded.layers] == [1, 1, 2]  # x + x + same(x) is one synapse
    monkeypatch.setattr(np, "diag", None)  # not one is made here
    chain = nn.Sequential(nn.Linear(7, 5), CQReLU(4), nn.BatchNorm1d(5), nn.Linear(5, 4), CQReLU(4), nn.Linear(4, 2))
    folded = fold(trace(chain.double().eval(), (7,)))
    assert torch.allclose(evaluate(folded, x)["5"], chain(x), rtol=0, atol=1e-12)


def test_a_vector_of_tens_of_thousands_is_folded():
    model = nn.Sequential(nn.Linear(60_000, 2), CQReLU(4), nn.Linear(2, 2))  # its diagonal matrix has 29 GB
    assert [layer.name for layer in fold(trace(model, (60_000,))).layers] == ["0", "2"]
    with pytest.raises(UnsupportedModelError, match="^0: CQReLU reads input value by value"):
        fold(trace(nn.Sequential(CQReLU(4), nn.Linear(60_000, 2)), (60_000,)))
    image = nn.Sequential(CQReLU(4), nn.Flatten(), nn.Linear(60_000, 2))  # as the error says
    assert [layer.name for layer in fold(trace(image, (60_000, 1, 1))).layers] == ["0", "2"]


def test_an_average_that_something_else_reads_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.pool = nn.Conv2d(1, 2, 1), CQReLU(4), nn.AdaptiveAvgPool2d((2, 3))
            self.a, self.b = nn.Linear(12, 3), nn.Linear(12, 3)

        def forward(self, x):
            x = self.pool(self.act(self.conv(x)))
            return self.a(torch.flatten(x, 1)) + self.b(torch.flatten(x, 1))

    torch.manual_seed(0)
    model = Twice().double().eval()
    x = torch.rand(3, 1, 5, 4, dtype=torch.float64)
    folded = fold(trace(model, (1, 5, 4)))
    assert torch.allclose(evaluate(folded, x)[folded.layers[-1].name], model(x), rtol=0, atol=1e-12)


# Thresholds and shifts of channels


def own(channels, shift=True, levels=4):
    """Return a CQReLU with thresholds of its channels, and shifts."""
    steps = torch.arange(channels)
    return CQReLU(levels, 0.3 + 0.25 * (steps % 5), "round", shift=0.3 * torch.cos(steps.float()) if shift else None)


#: Name, body, the layers before the final Dense.
CHANNELS = {
    "convolutions": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), own(4), nn.Conv2d(4, 5, 2), own(5)], [["conv"], ["conv"]]),
    "depthwise behind": ([own(3), nn.Conv2d(3, 6, 2, groups=3), own(6)], [["conv"], ["conv"]]),
    "max pool before": ([nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), own(4)], [["conv"], "pool"]),
    "max pool behind": ([nn.Conv2d(3, 4, 3), own(4), nn.MaxPool2d(2)], [["conv"], "pool"]),
    "max pools": ([own(3), nn.MaxPool2d(2), nn.MaxPool2d(2, 1), own(3)], [["conv"], "pool", "pool", ["conv"]]),
    "average behind": ([own(3), nn.AvgPool2d(2), nn.Conv2d(3, 4, 2), own(4)], [["conv"], ["conv"]]),
    "mean behind": ([own(3), nn.AdaptiveAvgPool2d(1)], [["conv"]]),
    "norm behind": ([own(3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2, padding=1), own(4)], [["conv"], ["conv"]]),
    "vectors": ([nn.Flatten(), nn.Linear(144, 6), own(6), nn.Linear(6, 5), own(5)], [["dense"], ["dense"]]),
    "features of a flattened image": ([nn.Conv2d(3, 2, 3), nn.Flatten(), own(48)], [["dense"]]),
    "shifts of a flattened image": (
        [nn.Conv2d(3, 2, 3), nn.Flatten(), CQReLU(4, 0.9, "round", shift=torch.arange(48) / 64)],
        [["conv"]],
    ),
    "equal thresholds of a flattened image": (
        [nn.Conv2d(3, 2, 3), nn.Flatten(), CQReLU(4, torch.full((48,), 0.9), "round")],
        [["conv"]],
    ),
    "flattened behind": ([nn.Conv2d(3, 2, 3), own(2), nn.Flatten(), nn.Linear(48, 4), own(4)], [["conv"], ["dense"]]),
    "an uneven average before": ([own(3), nn.AdaptiveAvgPool2d((4, 3)), own(3)], [["conv"], ["dense"]]),
    "thresholds alone": ([own(3, shift=False), nn.Conv2d(3, 4, 2), own(4, shift=False)], [["conv"], ["conv"]]),
}


@pytest.mark.parametrize("case", CHANNELS)
def test_channels(case):
    body, wanted = CHANNELS[case]
    network = unchanged(ready(head(*body)))
    assert [kinds for _, kinds in layers(network)][:-1] == wanted
    neurons = [layer for layer in network.layers if isinstance(layer, FloatNeurons)]
    assert all(layer.ratio.max() == 1 and layer.ratio.min() > 0 for layer in neurons)


def test_channels_of_branches():
    def run(s, x):
        y = s.a(s.c(x))
        return s.h(s.e(s.d(s.b(s.c(x) + y) + y)).flatten(1))

    parts = {"c": nn.Conv2d(3, 3, 3, padding=1), "a": own(3), "b": own(3), "d": own(3), "e": nn.MaxPool2d(2)}
    unchanged(Model(run, **parts, h=nn.Linear(36, 2)))


def test_channels_of_a_concatenation():
    """The channels of the CQReLU go to the parts in order; each part shares its own greatest threshold."""
    pools = {"p": nn.MaxPool2d(2), "q": nn.MaxPool2d(2)}
    parts = {"c": nn.Conv2d(3, 4, 1), "d": nn.Conv2d(3, 2, 1), "a": own(4), "b": own(6), **pools}
    model = Model(
        lambda s, x: s.h(s.p(s.b(torch.cat([s.a(s.c(x)), s.d(x)], 1))).flatten(1)), **parts, h=nn.Linear(72, 2)
    )
    network = unchanged(model)
    thresholds = [layer.threshold * layer.ratio for layer in network.layers if isinstance(layer, FloatNeurons)]
    np.testing.assert_allclose(np.concatenate(thresholds[1:]), parts["b"].threshold.numpy(), rtol=1e-7)
    assert [len(values) for values in thresholds] == [4, 4, 2]
    # Pools before the CQReLU, of a concatenation of one pooled part and one that is not.
    waiting = Model(
        lambda s, x: s.h(s.b(torch.cat([s.p(s.c(x)), s.q(s.d(x))], 1)).flatten(1)), **parts, h=nn.Linear(72, 2)
    )
    network = unchanged(waiting)
    assert [kind for _, kind in layers(network)] == [["conv"], "pool", ["conv"], "pool", ["dense", "dense"]]


def test_a_max_pool_of_a_scaled_activation_stays_one_layer():
    """A factor greater than 0 commutes with the maximum; of a negative one, it would be a minimum."""
    act, norm = CQReLU(4, [0.5, 0.9, 0.7], "round"), nn.Conv2d(3, 3, 1, groups=3, bias=False)
    norm.weight.data = torch.tensor([0.5, 2.0, 1.0]).reshape(3, 1, 1, 1)
    network = unchanged(ready(head(act, norm, nn.MaxPool2d(2))))
    assert [kind for _, kind in layers(network)][:-1] == [["conv"], "pool"]
    norm.weight.data[1] = -2.0
    with pytest.raises(UnsupportedModelError, match="a max pool of something that is no activation"):
        fold(trace(ready(head(act, norm, nn.MaxPool2d(2))), IMAGE))


def test_thresholds_of_a_flattened_image_too_large_for_a_matrix():
    body = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), own(8192), nn.Linear(8192, 2))
    with pytest.raises(UnsupportedModelError, match=r"^2: CQReLU follows input .* matrix of 8192 x 12288 would be too"):
        fold(trace(body, (3, 64, 64)))


@pytest.mark.parametrize("break_it", ["ratio", "shift", "threshold", "reader"])
def test_the_check_of_folding_sees_wrong_channels(break_it):
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), own(4), nn.Conv2d(4, 2, 3), own(2), nn.Flatten()), IMAGE)
    network = fold(graph)
    changed = list(network.layers)
    if break_it == "reader":
        weight = changed[1].synapses[0].weight / changed[0].ratio.reshape(1, -1, 1, 1)
        changed[1] = replace(changed[1], synapses=(replace(changed[1].synapses[0], weight=weight),))
    elif break_it == "threshold":
        changed[0] = replace(changed[0], ratio=changed[0].ratio[::-1].copy())
    else:
        changed[0] = replace(changed[0], **{break_it: getattr(changed[0], break_it) * 1.001})
    with pytest.raises(AssertionError, match="folding changed the function"):
        sys.modules["lava_casc.frontend.fold"]._check(replace(network, layers=tuple(changed)), graph, 2)


@pytest.mark.parametrize(
    ("act", "name"), [(nn.ReLU(), "ReLU"), (nn.ReLU6(), "Hardtanh"), (nn.Hardtanh(0, 2.0), "Hardtanh")]
)
def test_activations_without_levels_are_refused_by_name(act, name):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), CQReLU(4), nn.Sequential(nn.Conv2d(4, 4, 3), act), nn.Flatten())
    message = rf"^2\.1: {name} has no levels for spikes to count. Calibrate .* lava-casc calibrate, or .*replace_relu"
    with pytest.raises(UnsupportedModelError, match=message):
        fold(trace(model, IMAGE))
    functional = Model(lambda s, x: F.relu(s.c(x)), c=nn.Conv2d(3, 4, 3))
    with pytest.raises(UnsupportedModelError, match=r"^relu: ReLU has no levels"):
        fold(trace(functional, IMAGE))
