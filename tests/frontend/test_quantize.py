"""Quantization: what is exact, what rounding and the range proof cost, and a true report."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from models import Model, randomize
from torch import nn

from lava_casc.errors import RangeError
from lava_casc.frontend import CQReLU, InputSpec, fold, quantize, trace
from lava_casc.frontend.fold import FloatNetwork, FloatNeurons, FloatReadout, evaluate, received
from lava_casc.frontend.quantize import LEAST_WEIGHT_BITS, WEIGHT_BITS_BEFORE_INPUT, _aligned, _steps
from lava_casc.hardware import read_hardware
from lava_casc.integer import signed_range
from lava_casc.network import Conv, Dense, MaxPool, Neurons, Readout
from lava_casc.ranges import check_ranges, ranges
from lava_casc.reference import forward

LOIHI = read_hardware()
SMALL = read_hardware().with_registers(
    name="small", state_bits=16, weight_bits=8, weight_exponent_max=7, message_bits=16
)
pytestmark = pytest.mark.timeout(60)


def dense(weight, bias=0.0, *, levels=4, threshold=1.0, phase=0.0, readout=None):
    """Return the float network input -> Dense neurons -> readout."""
    weight = np.asarray(weight, float)
    n, fan_in = weight.shape
    bias = np.broadcast_to(np.asarray(bias, float), (n,))
    readout = np.ones((2, n)) if readout is None else np.asarray(readout, float)
    layers = (
        FloatNeurons("hidden", (Dense("input", weight),), bias, threshold, levels, phase, "z", "a"),
        FloatReadout("readout", (Dense("hidden", readout),), np.zeros(len(readout)), "logits"),
    )
    return FloatNetwork((fan_in,), layers, {"input": (fan_in,), "hidden": (n,), "readout": (len(readout),)})


def spec(n, low=0, high=255, scale=1 / 255):
    return InputSpec((n,), low, high, scale)


def true_values(float_layer, network):
    """Return the real weights a unit of source, and each row's true grid, from the layers alone."""
    layer = network[float_layer.name]
    units = {}
    for x in network:
        (units[x.name],) = {units[x.source]} if isinstance(x, MaxPool) else set(np.ravel(x.scale))
    units["input"] *= 2.0**network.input.shift
    grid = layer.scale / layer.threshold if isinstance(layer, Neurons) else np.full(len(layer.bias), layer.scale)
    return [s.weight * units[s.source] for s in float_layer.synapses], grid


def check_report(floats, network, report, hardware=LOIHI):
    """Recompute all that a report says."""
    proven = ranges(network)
    assert report.input_bits_given_up == network.input.shift
    for float_layer, said in zip([x for x in floats.layers if hasattr(x, "synapses")], report.layers, strict=True):
        layer = network[float_layer.name]
        values, grid = true_values(float_layer, network)
        rows = [v.reshape(len(grid), -1) / grid[:, None] for v in values]
        made = [s.weight.reshape(len(grid), -1) * 2.0**s.exponent for s in layer.synapses]
        power = math.sqrt(sum(float((r**2).sum()) for r in rows))
        error = math.sqrt(sum(float(((m - r) ** 2).sum()) for m, r in zip(made, rows, strict=True)))
        assert said.weight_error == pytest.approx(error / power if power else 0.0, abs=1e-12)
        assert [b.source for b in said.branches] == [s.source for s in layer.synapses]
        for branch, made_of, exact in zip(said.branches, made, rows, strict=True):
            power = np.linalg.norm(exact)
            wanted = np.linalg.norm(made_of - exact) / power if power else 0.0
            assert branch.weight_error == pytest.approx(wanted, abs=1e-12)
            assert len(rows) > 1 or branch.weight_error_alone == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert said.range_bits == proven[layer.name].bits <= hardware.state_bits
        peak = max(np.abs(s.weight).max() for s in layer.synapses)
        assert signed_range(said.weight_bits)[1] >= peak > (signed_range(said.weight_bits - 1)[1] if peak else -1)
        if isinstance(layer, Neurons):
            assert said.threshold == (layer.threshold.min(), layer.threshold.max())
            step = float_layer.threshold / float_layer.levels
            np.testing.assert_array_equal(layer.scale, step)
            phase = np.floor(float_layer.phase * layer.threshold)
            np.testing.assert_array_equal(layer.initial, phase)
        else:
            assert said.threshold == (0, 0)
        assert said.bits_given_up >= 0
    check_ranges(network, hardware)


def make(floats, input_spec, hardware=LOIHI, **options):
    network, report = quantize(floats, input_spec, hardware, **options)
    check_report(floats, network, report, hardware)
    return network, report


def conv_network(channels, out, kernel, size=16, levels=8, seed=0, gain=1.0):
    """Return conv -> CQReLU -> linear on images, with weights as a trained first layer has them."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, out, kernel, 2, kernel // 2),
        CQReLU(levels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).append(nn.Linear(out, 10))
    model[0].weight.data *= gain
    return fold(trace(model, (channels, size, size + 2))), InputSpec((channels, size, size + 2))


# The grid


@pytest.mark.parametrize("weight_bits", range(2, 9))
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_fit_their_bits_and_use_them(weight_bits, per_channel):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(5, 9)) * np.array([[0.1], [1], [3], [0.3], [1]])
    network, report = make(dense(weight, 0.1), spec(9), weight_bits=weight_bits, per_channel=per_channel)
    greatest = signed_range(weight_bits)[1]
    for layer, said in zip(list(network)[1:], report.layers, strict=True):
        assert max(np.abs(s.weight).max() for s in layer.synapses) <= greatest
        assert said.weight_bits == weight_bits
    grid = network["hidden"].scale / network["hidden"].threshold
    assert (len(set(grid)) == 1) is not per_channel
    if per_channel:
        assert (np.abs(network["hidden"].synapses[0].weight).max(1) >= greatest - (greatest > 1)).all()


@pytest.mark.parametrize("threshold", [0.1, 1.0, 3.7, 100.0])
@pytest.mark.parametrize("levels", [1, 3, 8])
@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_the_threshold_has_no_rounding_error(threshold, levels, phase):
    rng = np.random.default_rng(1)
    floats = dense(rng.normal(size=(6, 4)), 0.2, levels=levels, threshold=threshold, phase=phase)
    network, _ = make(floats, spec(4))
    layer = network["hidden"]
    # step = threshold * grid, and the grid is what weights and bias were rounded on.
    grid = threshold / levels / layer.threshold
    exact = floats.layers[0].synapses[0].weight / 255 / grid[:, None]
    assert (np.abs(layer.synapses[0].weight - exact) <= 0.5 + 1e-9).all()
    assert (np.abs(layer.bias - 0.2 / grid) <= 0.5 + 1e-9).all()
    np.testing.assert_array_equal(layer.initial, layer.threshold // 2 if phase else 0)


@pytest.mark.parametrize("per_channel", [True, False])
def test_more_bits_mean_less_error(per_channel):
    rng = np.random.default_rng(2)
    floats = dense(rng.normal(size=(16, 64)) * rng.uniform(0.2, 5, (16, 1)))
    errors = [
        make(floats, spec(64), weight_bits=bits, per_channel=per_channel)[1].layers[0].weight_error
        for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 20 * errors[-1] > 0


def test_per_channel_is_never_worse():
    rng = np.random.default_rng(3)
    floats = dense(rng.normal(size=(16, 64)) * rng.uniform(0.01, 5, (16, 1)))
    one, other = (make(floats, spec(64), per_channel=p)[1].layers[0].weight_error for p in (True, False))
    assert one < other


def test_halves_go_to_even_and_whole_weights_stay():
    # step / grid = 127 exactly: weights are w / 127 of a step.
    network, report = make(dense([[127, 0.5, 1.5, -0.5, -2.5, 3.5, 77]], levels=1, threshold=127.0), spec(7, 0, 9, 1.0))
    np.testing.assert_array_equal(network["hidden"].synapses[0].weight, [[127, 0, 2, 0, -2, 4, 77]])
    assert network["hidden"].threshold == [127]
    assert report.layers[0].weight_error > 0


# Weights that are quantized already


def in_proportion(weight, whole):
    """Return whether each row of integers is a multiple of a row of others."""
    return all((w * np.abs(k).max() == k * np.abs(w).max()).all() for w, k in zip(weight, whole, strict=True))


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_weights_of_few_steps_keep_their_proportions(bits, seed):
    rng = np.random.default_rng(seed)
    most = 2 ** (bits - 1) - 1 + (bits == 2) * 2  # three magnitudes at least: fewer are on any grid
    whole, last = rng.integers(-most, most + 1, (6, 40)), rng.integers(-most, most + 1, (3, 6))
    whole[:, :most] = np.arange(1, most + 1)
    last[:, :most] = np.arange(1, most + 1)[: last.shape[1]]
    steps = rng.uniform(0.01, 0.1, (6, 1))
    floats = dense(whole * steps, 0.3, levels=7, threshold=rng.uniform(1, 5), readout=last * 0.037)
    network, report = make(floats, spec(40))
    assert in_proportion(network["hidden"].synapses[0].weight, whole)
    assert in_proportion(network["readout"].synapses[0].weight, last)
    assert np.abs(network["hidden"].synapses[0].weight).max() > 63  # and use their bits
    assert report.layers[0].weight_error < 0.005
    assert report.layers[1].weight_error < 1e-9  # which has no threshold to meet
    assert report.layers[0].bits_given_up == 0
    layerwise, _ = make(dense(whole * 0.05, 0.3, levels=7, readout=last * 0.037), spec(40), per_channel=False)
    assert in_proportion(layerwise["hidden"].synapses[0].weight, whole)
    unlike, _ = make(dense(whole * steps, levels=7), spec(40), per_channel=False)
    assert len(set(unlike["hidden"].threshold)) == 1  # of channels with grids of their own one cannot be right for all


def test_weights_of_few_steps_give_up_bits_and_keep_their_proportions():
    rng = np.random.default_rng(0)
    whole = rng.integers(-7, 8, (6, 20))
    network, report = make(dense(whole * 0.01, levels=8, threshold=9.7), spec(20, 0, 31, 1.0), SMALL)
    assert report.layers[0].bits_given_up > 0.3
    assert in_proportion(network["hidden"].synapses[0].weight, whole)


@pytest.mark.parametrize("seed", range(20))
def test_a_grid_is_seen_where_there_is_one(seed):
    rng = np.random.default_rng(seed)
    peak, step = int(rng.integers(3, 128)), float(rng.uniform(1e-6, 1e3))
    whole = np.concatenate([[peak, -1, 2, 0], rng.integers(-peak, peak + 1, 500)])
    found, most = _steps(np.float32(step) * whole.astype(np.float32).astype(float))  # as ONNX files hold them
    assert most == peak
    assert found == pytest.approx(step, rel=1e-5)
    assert _steps(rng.normal(size=500)) == _steps(rng.normal(size=4)) == (0.0, 0)
    assert _steps(step * np.array([0.0, 1, -1, 2])) == (0.0, 0)  # two magnitudes are on any grid
    off = step * whole.astype(float)
    off[5] += 2e-3 * step
    assert _steps(off)[1] != peak
    assert _steps(step * np.concatenate([[128, 1, 2], whole]))[1] in (0, 128)


def test_a_threshold_is_lowered_by_half_at_most_and_only_to_fit():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, peak = int(2 ** rng.uniform(0, 16)), int(rng.integers(1, 128))
        ratio = float(rng.uniform(0, 127 / peak / n))
        (found,) = _aligned(np.array([n]), np.array([ratio]), np.array([peak]))
        steps = ratio * found
        assert n / 2 <= found <= n
        assert found == n or (round(steps) > 0 and abs(steps - round(steps)) * peak < 0.5)
    assert _aligned(np.array([50, 0, 1]), np.zeros(3), np.zeros(3, int)).tolist() == [50, 0, 1]


@pytest.mark.parametrize("weight_bits", [-1, 0, 1, 9, 100])
def test_weight_bits_out_of_range(weight_bits):
    with pytest.raises(
        RangeError, match=rf"weight bits \({weight_bits}\) exceeds 2 .. weight bits of loihi2_oheo_gulch \(8\)"
    ):
        quantize(dense([[1.0]]), spec(1), LOIHI, weight_bits=weight_bits)


def test_hardware_with_more_weight_bits():
    wide = read_hardware().with_registers(
        name="wide", state_bits=32, weight_bits=16, weight_exponent_max=7, message_bits=32
    )
    floats = dense(np.random.default_rng(0).normal(size=(4, 9)))
    errors = [make(floats, spec(9), wide, weight_bits=b)[1].layers[0].weight_error for b in (8, 12, 16)]
    assert errors[0] > 8 * errors[1]
    assert errors[1] > errors[2]


@pytest.mark.parametrize(("low", "high"), [(-128, 127), (-255, 0), (0, 1), (0, 65535)])
def test_input_ranges(low, high):
    rng = np.random.default_rng(5)
    floats = dense(rng.normal(size=(4, 9)), rng.normal(size=4), levels=8)
    network, _ = make(floats, spec(9, low, high, 1 / max(high, -low)))
    assert (network.input.low, network.input.high) == (low, high)
    images = rng.integers(low, high + 1, (50, 9))
    z = images * network.input.scale @ floats.layers[0].synapses[0].weight.T + floats.layers[0].bias
    counts = forward(network, images).counts["hidden"]
    assert np.abs(counts - np.clip(np.floor(z * 8), 0, 8)).mean() < 0.2


# Branches that meet


@pytest.mark.parametrize("ratio", [1 / 100, 1 / 8, 1.0, 3.0, 100.0])
def test_an_identity_branch_keeps_its_precision(ratio):
    rng = np.random.default_rng(6)
    main = rng.normal(size=(6, 6, 3, 3)) / 10
    identity = np.full((6, 1, 1, 1), ratio)
    synapses = (Conv("input", main, padding=(1, 1)), Conv("input", identity, groups=6))
    neurons = FloatNeurons("sum", synapses, np.zeros(6), 1.0, 8, 0.0, "z", "a")
    readout = FloatReadout("end", (Dense("sum", np.ones((2, 120))),), np.zeros(2), "logits")
    floats = FloatNetwork((6, 4, 5), (neurons, readout), {"input": (6, 4, 5), "sum": (6, 4, 5), "end": (2,)})
    network, _ = make(floats, InputSpec((6, 4, 5), 0, 8, 1 / 8))
    layer = network["sum"]
    values, grid = true_values(neurons, network)
    for synapse, value in zip(layer.synapses, values, strict=True):
        exact = value / grid.reshape(-1, 1, 1, 1)
        wrong = synapse.weight * 2.0**synapse.exponent - exact
        # Relative to the greatest sum that this layer has, no branch loses more than its mantissas must.
        assert np.abs(wrong).max() <= max(np.abs(v / grid.reshape(-1, 1, 1, 1)).max() for v in values) / 127
    relative = np.abs(
        layer.synapses[1].weight * 2.0 ** layer.synapses[1].exponent * grid[:, None, None, None] / values[1] - 1
    )
    assert relative.max() < 0.02
    assert all(0 <= s.exponent <= 7 for s in layer.synapses)


def residual(scales, *, levels=8, seed=0, channels=6, readout=False):
    """Return a layer in which branches from the input meet, with weights of these scales (channels or one number)."""
    rng = np.random.default_rng(seed)
    synapses = []
    for scale in scales:
        weight = rng.uniform(-1, 1, (channels, 3, 3, 2))
        weight[:, 0, 0, 0] = 1
        synapses.append(Conv("input", weight * np.broadcast_to(scale, channels).reshape(-1, 1, 1, 1)))
    if readout:
        end = FloatReadout("sum", tuple(synapses), np.zeros(channels), "logits")
        return FloatNetwork((3, 5, 6), (end,), {"input": (3, 5, 6), "sum": (channels, 3, 5)})
    neurons = FloatNeurons("sum", tuple(synapses), np.zeros(channels), 1.0, levels, 0.0, "z", "a")
    end = FloatReadout("end", (Conv("sum", np.ones((2, channels, 1, 1))),), np.zeros(2), "logits")
    shapes = {"input": (3, 5, 6), "sum": (channels, 3, 5), "end": (2, 3, 5)}
    return FloatNetwork((3, 5, 6), (neurons, end), shapes)


IMAGE = InputSpec((3, 5, 6), -8, 8, 1 / 8)


def branches(floats, hardware=LOIHI, **options):
    return make(floats, IMAGE, hardware, **options)[1].layers[0].branches


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("readout", [True, False])
def test_a_branch_that_meets_none_pays_nothing(per_channel, readout):
    for bits in (4, 8):
        (one,) = branches(residual([1.0], readout=readout), per_channel=per_channel, weight_bits=bits)
        assert 0 < one.weight_error == pytest.approx(one.weight_error_alone, rel=1e-9)


@pytest.mark.parametrize("readout", [True, False])
def test_the_price_of_meeting_is_the_difference_to_a_grid_of_its_own(readout):
    # Branches of scales that no exponent can bring together: the second has to make do with a hundredth of a mantissa.
    flat = read_hardware().with_registers(
        name="flat", state_bits=24, weight_bits=8, weight_exponent_max=0, message_bits=24
    )
    # A readout has one grid for all of its channels, and so it would have alone.
    scales = [1.0, [0.01, 0.001, 0.01, 0.003, 0.01, 0.002] if readout else 0.01]
    first, second = branches(residual(scales, readout=readout), flat)
    assert 0.01 > first.weight_error == pytest.approx(first.weight_error_alone, rel=1e-9)
    assert second.weight_error > 20 * second.weight_error_alone
    # Alone it is as exact as a layer of its own, for which the quantizer finds the grid.
    floats = residual(scales, readout=readout)
    layer = dataclasses.replace(floats.layers[0], synapses=floats.layers[0].synapses[1:])
    (own,) = branches(dataclasses.replace(floats, layers=(layer, *floats.layers[1:])), flat)
    assert second.weight_error_alone == pytest.approx(own.weight_error, rel=0.02)
    # With exponents, the greater branch takes one, and the price is less than a factor of two.
    for branch in branches(residual(scales, readout=readout)):
        assert branch.weight_error < 2.1 * branch.weight_error_alone < 0.03


def test_one_exponent_for_a_branch_cannot_suit_channels_of_unlike_scales():
    first, second = branches(residual([1.0, [1 / 8, 1 / 8, 1 / 8, 8, 8, 8]]))
    assert first.weight_error > 1.2 * first.weight_error_alone
    assert second.weight_error > 1.3 * second.weight_error_alone


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [3, 5, 8])
def test_meeting_never_pays(bits, per_channel):
    """Up to the luck of rounding, a branch alone is at least as exact."""
    found = []
    for seed in range(5):
        scales = 10.0 ** np.random.default_rng(seed).uniform(-1, 1, (3, 6))
        found += branches(residual(scales, seed=seed), per_channel=per_channel, weight_bits=bits)
    assert all(b.weight_error_alone <= 1.1 * b.weight_error for b in found)
    assert any(b.weight_error_alone < 0.8 * b.weight_error for b in found)


def test_a_branch_without_weights_has_no_error():
    first, second = branches(residual([1.0, 0.0]))
    assert first.weight_error > 0
    assert second.weight_error == second.weight_error_alone == 0


# Several readouts


def test_each_readout_has_a_grid_of_its_own():
    rng = np.random.default_rng(0)
    layers = (
        FloatNeurons("hidden", (Dense("input", rng.normal(size=(6, 4))),), rng.normal(size=6), 1.0, 8, 0.5, "z", "a"),
        FloatReadout("large", (Dense("hidden", rng.normal(size=(3, 6)) * 1e3),), rng.normal(size=3) * 1e3, "one"),
        FloatReadout("small", (Dense("hidden", rng.normal(size=(5, 6)) / 1e3),), rng.normal(size=5) / 1e3, "two"),
    )
    floats = FloatNetwork((4,), layers, {"input": (4,), "hidden": (6,), "large": (3,), "small": (5,)})
    images = rng.integers(0, 256, (40, 4))
    network, report = make(floats, spec(4))
    assert [layer.name for layer in report.layers] == ["hidden", "large", "small"]
    assert network["large"].scale > 1e5 * network["small"].scale > 0
    found = forward(network, images)
    counts = torch.as_tensor(found.counts["hidden"] / 8)
    for name, outputs in network.outputs(found.logits).items():
        exact = received(floats, floats.layers[[x.name for x in layers].index(name)], {"hidden": counts}).numpy()
        assert np.abs(outputs - exact).max() < 0.02 * np.abs(exact).max()


def test_a_folded_model_of_several_outputs_is_close_to_its_integers():
    parts = {
        "a": nn.Conv2d(2, 3, 3, padding=1),
        "b": nn.Conv2d(2, 4, 1),
        "c": nn.Conv2d(7, 5, (2, 1)),
        "act": CQReLU(8),
    }
    parts |= {"end": nn.Linear(7 * 30, 3)}

    def run(s, x):
        y = torch.cat([s.act(s.a(x)), s.act(s.b(x))], 1)
        return {"boxes": s.c(y), "classes": s.end(y.flatten(1)), "seen": y}

    floats = fold(trace(Model(run, **parts), (2, 5, 6)))
    network, _ = make(floats, InputSpec((2, 5, 6), 0, 255, 1 / 255))
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 5, 6))
    found, real = network.outputs(forward(network, images).logits), evaluate(floats, torch.as_tensor(images / 255))
    assert {name: value.shape[1:] for name, value in found.items()} == {
        "boxes": (5, 4, 6),
        "classes": (3,),
        "seen": (7, 5, 6),
    }
    for name, value in found.items():
        # A level more or less in a few neurons is all that separates them.
        assert np.abs(value - real[name].numpy()).mean() < 0.03 * np.abs(real[name].numpy()).max()


# The range proof


@pytest.mark.parametrize("channels", [3, 16, 64])
@pytest.mark.parametrize("kernel", [7, 11])
def test_large_first_layers_give_up_the_fewest_bits(kernel, channels):
    floats, images = conv_network(channels, 8, kernel)
    network, report = make(floats, images)
    first = report.layers[0]
    assert first.bits_given_up <= WEIGHT_BITS_BEFORE_INPUT
    # With one eighth more threshold in its worst channel, the layer would not fit any more.
    layer = network["0"]
    if first.bits_given_up > 0:
        found = ranges(network)["0"]
        high = signed_range(24)[1]
        use = max(float(np.abs(i).max()) for pair in (found.potential, found.current) for i in pair) / high
        assert 0.9 < use <= 1 + 1 / high
    # The bits that were given up are those between this threshold and the one that 32-bit registers allow.
    wide = LOIHI.with_registers(state_bits=32)
    shifted = InputSpec(images.shape, *network.input.reach, images.scale * 2**network.input.shift)
    wanted = make(floats, shifted, wide)[0]["0"].threshold
    assert first.bits_given_up == pytest.approx(np.log2(wanted / layer.threshold).max(), abs=1e-9)


def test_input_bits_are_given_up_after_two_bits_of_weight():
    rng = np.random.default_rng(0)
    floats = dense(rng.uniform(-1, 1, (4, 20000)), levels=8)
    network, report = make(floats, spec(20000))
    assert report.input_bits_given_up == network.input.shift >= 1
    assert report.layers[0].bits_given_up <= WEIGHT_BITS_BEFORE_INPUT
    # With an input of one bit more, the weights would have lost more than two.
    images = spec(20000, 0, 255 >> (network.input.shift - 1))
    other = quantize(floats, images, LOIHI)[1]
    assert other.input_bits_given_up == 1


def test_wide_dense_layers_give_up_nothing_where_nothing_is_needed():
    rng = np.random.default_rng(0)
    _, report = make(dense(rng.normal(size=(8, 4000)) / 60), spec(4000, 0, 8, 1 / 8))
    assert [layer.bits_given_up for layer in report.layers] == [0, 0]
    assert report.input_bits_given_up == 0


@pytest.mark.parametrize("per_channel", [True, False])
def test_small_hardware_gives_up_bits_and_stays_right(per_channel):
    rng = np.random.default_rng(7)
    floats = dense(rng.normal(size=(4, 12)), rng.normal(size=4) / 4, levels=4)
    network, report = make(floats, spec(12), SMALL, per_channel=per_channel)
    assert report.layers[0].bits_given_up + report.input_bits_given_up > 1
    images = rng.integers(0, 256, (50, 12))
    z = images / 255 @ floats.layers[0].synapses[0].weight.T + floats.layers[0].bias
    assert np.abs(forward(network, images).counts["hidden"] - np.clip(np.floor(z * 4), 0, 4)).mean() < 0.5


@pytest.mark.parametrize("state_bits", [4, 8, 12])
def test_what_cannot_fit_is_refused_with_layer_value_and_limit(state_bits):
    tiny = read_hardware().with_registers(
        name="tiny", state_bits=state_bits, weight_bits=8, weight_exponent_max=7, message_bits=24
    )
    floats = dense(np.random.default_rng(0).normal(size=(4, 100)), levels=16)
    limit = signed_range(state_bits)[1]
    with pytest.raises(
        RangeError,
        match=rf"^hidden: worst-case .* \(\d+\) exceeds the {state_bits} signed bits of tiny \({limit}\)",
    ):
        quantize(floats, spec(100), tiny)


def test_a_readout_that_cannot_fit_is_refused():
    tiny = read_hardware().with_registers(
        name="tiny", state_bits=14, weight_bits=8, weight_exponent_max=7, message_bits=24
    )
    floats = dense(np.eye(3), levels=4, readout=np.ones((2, 3)) * 7)
    assert quantize(floats, spec(3, 0, 3, 1 / 3), tiny)
    wide = dense(np.ones((500, 1)) / 2, levels=16, readout=np.ones((2, 500)))
    with pytest.raises(RangeError, match="^readout: worst-case potential"):
        quantize(wide, spec(1, 0, 1, 1.0), tiny)


def test_a_readout_gives_up_bits_before_it_is_refused():
    # 16 * 127 * 6000 = 12.2 million needs 25 bits.
    floats = dense(np.ones((6000, 1)) / 2, levels=16, readout=np.random.default_rng(0).uniform(0.9, 1, (2, 6000)))
    network, report = make(floats, spec(1, 0, 1, 1.0))
    assert 0.4 < report.layers[1].bits_given_up < 0.7
    assert report.layers[1].range_bits == 24
    assert isinstance(network.readouts[0], Readout)


# Channels that hold next to nothing


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.3, 0.99, 50.0])
def test_a_dead_channel_says_what_its_bias_says(bias, per_channel):
    weight = np.random.default_rng(0).normal(size=(3, 4))
    weight[1] = 0
    network, report = make(dense(weight, bias, levels=7), spec(4), per_channel=per_channel)
    counts = forward(network, np.zeros((1, 4), int)).counts["hidden"]
    assert (counts == np.clip(np.floor(bias * 7 + 1e-9), 0, 7)).all()
    assert report.layers[0].bits_given_up < 4


@pytest.mark.parametrize("bias", [-3.0, 0.19, 0.74, 1.9, 1000.0])
def test_a_layer_without_weights_says_what_its_bias_says(bias):
    network, report = make(dense(np.zeros((2, 3)), bias, threshold=2.0), spec(3))
    assert forward(network, np.zeros((1, 3), int)).counts["hidden"].tolist() == [
        [int(np.clip(bias * 2 // 1, 0, 4))] * 2
    ]
    assert report.layers[0].weight_error == report.layers[0].bits_given_up == 0


def test_a_readout_without_weights_keeps_its_biases():
    floats = dense(np.eye(2), readout=np.zeros((3, 2)))
    floats = dataclasses.replace(
        floats,
        layers=(floats.layers[0], dataclasses.replace(floats.layers[1], bias=np.array([0.3, -0.2, 0.31]))),
    )
    network, _ = make(floats, spec(2))
    logits = forward(network, np.zeros((1, 2), int)).logits[0]
    np.testing.assert_allclose(logits * network.readouts[0].scale, [0.3, -0.2, 0.31], atol=1e-5)


@pytest.mark.parametrize("tiny", [1e-3, 1e-9, 1e-30, 1e-200, 1e-310])
def test_a_channel_switched_off_by_its_batch_norm_costs_the_others_nothing(tiny):
    weight = np.random.default_rng(0).normal(size=(3, 4))
    alone = make(dense(weight[:2], 0.1), spec(4))[0]["hidden"]
    weight[2] *= tiny
    network, report = make(dense(weight, [0.1, 0.1, 0.7]), spec(4))
    layer = network["hidden"]
    np.testing.assert_array_equal(layer.synapses[0].weight[:2], alone.synapses[0].weight)
    assert report.layers[0].bits_given_up == 0
    assert forward(network, np.full((1, 4), 255)).counts["hidden"][0, 2] == 2


@pytest.mark.parametrize("value", [1e-12, 1e6, 1e15])
def test_threshold_far_from_the_weights(value):
    # A threshold much smaller than a unit's effect takes the exponents; then every count is 0 or all levels.
    weight = np.random.default_rng(0).normal(size=(3, 4)) * value
    if value < 1:
        network, _ = make(dense(weight), spec(4))
        assert not forward(network, np.full((1, 4), 255)).counts["hidden"].any()
    elif value < 1e10:
        with pytest.raises(RangeError, match="^hidden: "):
            quantize(dense(weight), spec(4), LOIHI)
    else:
        with pytest.raises(RangeError, match="^hidden: "):
            quantize(dense(weight), spec(4), LOIHI)


@pytest.mark.parametrize("factor", [3.0, 30.0])
def test_a_unit_that_moves_more_than_a_threshold(factor):
    weight = np.array([[1.0, -0.5, 0.25, 0.75]]) * 127 * factor
    network, _ = make(dense(weight, levels=4, threshold=4.0), spec(4, 0, 1, 1.0))
    layer = network["hidden"]
    assert layer.synapses[0].exponent == math.ceil(math.log2(factor))
    assert (layer.threshold >= 1).all()
    for image in np.ndindex(2, 2, 2, 2):
        wanted = np.clip(np.floor(weight @ image), 0, 4)
        assert forward(network, np.array([image])).counts["hidden"][0] == wanted


def test_negative_weights_only():
    network, _ = make(dense(-np.random.default_rng(0).random((3, 4)), 0.5), spec(4))
    assert forward(network, np.full((1, 4), 255)).counts["hidden"].max() == 0
    assert (forward(network, np.zeros((1, 4), int)).counts["hidden"] == 2).all()


@pytest.mark.parametrize("bias", [1e6, -1e9, 1e18, -1e30, 1e300])
@pytest.mark.parametrize("where", ["hidden", "readout"])
def test_huge_biases_are_refused(where, bias):
    floats = dense(np.random.default_rng(0).normal(size=(3, 4)), readout=np.random.default_rng(0).normal(size=(2, 3)))
    layers = [dataclasses.replace(x, bias=x.bias + bias * (x.name == where)) for x in floats.layers]
    with pytest.raises(RangeError, match=f"^{where}: .* exceeds ") as caught:
        quantize(dataclasses.replace(floats, layers=tuple(layers)), spec(4), LOIHI)
    assert "-92233" not in str(caught.value)  # the int64 that a cast makes of everything too large


@pytest.mark.parametrize("what", ["weights", "bias"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(what, bad):
    floats = dense([[1.0, bad if what == "weights" else 1.0]], bad if what == "bias" else 0.0)
    with pytest.raises(RangeError, match=f"^hidden: its folded {what} hold NaN or infinity"):
        quantize(floats, spec(2), LOIHI)


def test_a_batch_norm_without_variance():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=0.0), CQReLU(4), nn.Linear(3, 2)).eval()
    model[1].running_var[1] = 0
    with pytest.raises(RangeError, match="^0: its folded weights hold NaN or infinity. Check its batch norm"):
        quantize(fold(trace(model, (4,))), spec(4), LOIHI)
    model[1].running_var[1] = 1e-18  # a gain of a thousand million
    with pytest.raises(RangeError, match="^0: "):
        quantize(fold(trace(model, (4,))), spec(4), LOIHI)


def test_gamma_zero():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), CQReLU(4), nn.Flatten(), nn.Linear(36, 2))
    randomize(model)
    model[1].weight.data[1] = 0
    floats = fold(trace(model, (2, 5, 6)))
    network, report = make(floats, InputSpec((2, 5, 6)))
    assert not network["0"].synapses[0].weight[1].any()
    assert report.layers[0].bits_given_up == 0


def test_exponents_beyond_the_hardware_are_refused():
    none = read_hardware().with_registers(
        name="flat", state_bits=24, weight_bits=8, weight_exponent_max=0, message_bits=24
    )
    with pytest.raises(RangeError, match=r"hidden: a weight exponent \(2\) exceeds the greatest of flat \(0\)"):
        quantize(dense([[127.0 * 3, 1.0]], levels=4, threshold=4.0), spec(2, 0, 1, 1.0), none)


def test_max_pool_and_residual_scales_go_through():
    parts = {
        "a": CQReLU(8, 2.0),
        "b": CQReLU(4, 0.5),
        "conv": nn.Conv2d(3, 3, 3, padding=1),
        "end": nn.Linear(18, 2),
    }
    parts["pool"] = nn.MaxPool2d(2)
    model = Model(lambda s, x: s.end(s.pool(s.b(s.conv(s.a(x)) + s.a(x))).flatten(1)), **parts)
    floats = fold(trace(model, (3, 4, 6)))
    make(floats, InputSpec((3, 4, 6), -128, 127, 1 / 64))


def test_least_bits_are_what_the_measurements_say():
    assert LEAST_WEIGHT_BITS == 4


def test_a_bias_of_the_full_shape_is_rounded_on_each_channels_own_grid():
    body = [nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), CQReLU(4), nn.Flatten(), nn.Linear(90, 2)]
    model = randomize(nn.Sequential(*body))
    model[1].weight.data *= torch.tensor([0.1, 1.0, 7.0]).reshape(3, 1, 1, 1)
    floats = fold(trace(model, (2, 5, 6)))
    layer = make(floats, InputSpec((2, 5, 6)))[0]["1"]
    grid = (layer.scale / layer.threshold).reshape(3, 1, 1)
    assert layer.bias.shape == (3, 5, 6)
    assert grid.max() > 5 * grid.min()
    assert np.abs(layer.bias - floats.layers[0].bias / grid).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("which", ["dense", "conv", "residual"])
def test_the_ranges_that_it_proved_are_those_of_its_network(which, monkeypatch):
    module = sys.modules["lava_casc.frontend.quantize"]
    checked = []

    def check(network, hardware, proven):
        checked.append((network, proven))
        return check_ranges(network, hardware, proven)

    monkeypatch.setattr(module, "check_ranges", check)
    floats, input_spec = {
        "dense": lambda: (dense([[1.0, -2.0], [0.5, 3.0]], [0.3, -0.7]), spec(2)),
        "conv": lambda: conv_network(3, 8, 3),
        "residual": lambda: (residual([1.0, 4.0]), IMAGE),
    }[which]()
    quantize(floats, input_spec, LOIHI)
    ((network, proven),) = checked
    expected = ranges(network)
    assert proven.keys() == expected.keys()
    for name, found in proven.items():
        for part in ("received", "potential", "current"):
            np.testing.assert_array_equal(getattr(found, part), getattr(expected[name], part))
