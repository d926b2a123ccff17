"""The range proof: never left, reached where it says, and refused one past every limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_images, random_network
from spine import dense_network, neuron, replaced, schedules, slowest

from lava_casc.dynamics import aim, cif_step
from lava_casc.errors import RangeError
from lava_casc.hardware import read_hardware
from lava_casc.integer import Interval, split_evenly
from lava_casc.network import Dense, Input, IntegerNetwork, Neurons, Readout, per_neuron
from lava_casc.ranges import LayerRange, check_ranges, ranges
from lava_casc.reference import forward, simulate

LOIHI2 = read_hardware()


def _escapes(bounds, network, record):
    """Return what a run held outside of the proven ranges, before and after every spike."""
    found = []
    for layer in network:
        if not isinstance(layer, Neurons):
            continue
        shape, bound = network.shapes[layer.name], bounds[layer.name]
        threshold = per_neuron(layer.threshold, shape)
        after, spikes = record.potentials[layer.name], record.spikes[layer.name]
        before = after + threshold * spikes
        _, remainder = split_evenly(layer.bias, record.schedule.wake_steps)
        start = np.broadcast_to(per_neuron(layer.initial, shape) + per_neuron(remainder, shape), shape)
        started = np.broadcast_to(start, (len(after), 1, *shape))
        current = before - np.concatenate([started, after[:, :-1]], 1)
        held = {"potential": (before, after, started), "current": (current,)}
        held["received"] = (after + threshold * spikes.cumsum(1), started)
        for what, values in held.items():
            low, high = getattr(bound, what)
            found += [f"{what} of {layer.name}" for v in values if (v < low).any() or (v > high).any()]
    low, high = bounds[network.readouts[0].name].received
    logits = record.logits.reshape(-1, *network.shapes[network.readouts[0].name])
    return found + ["logits"] * bool((logits < low).any() or (logits > high).any())


def _shrunk(interval):
    return Interval(-(-interval.low // 2), interval.high // 2)


def _halved(bounds):
    return {
        name: LayerRange(_shrunk(b.received), _shrunk(b.potential), _shrunk(b.current)) for name, b in bounds.items()
    }


@pytest.mark.parametrize("which", range(3))
def test_runs_stay_within_the_proven_ranges(which):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        images = random_images(rng, network, 4)
        record = simulate(network, images, schedules(network)[which], record=("spikes", "potentials"))
        assert _escapes(ranges(network), network, record) == []


def test_ranges_of_half_the_size_are_left():
    left = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        images = random_images(rng, network, 4)
        for schedule in schedules(network)[:2]:
            record = simulate(network, images, schedule, record=("spikes", "potentials"))
            left |= {what.split()[0] for what in _escapes(_halved(ranges(network)), network, record)}
    assert left == {"potential", "current", "received", "logits"}


def _spike(received, count, threshold, levels, burst):
    """Return what a neuron says that has received and counted this much."""
    target = aim(torch.tensor([float(received)]), torch.tensor([float(threshold)]), levels, torch.int64)
    return int(cif_step(target, torch.tensor([count]), burst))


weights = st.lists(st.integers(-9, 9), min_size=1, max_size=4)


@settings(deadline=None)
@given(weights=weights, threshold=st.integers(1, 20), levels=st.integers(1, 5), peak=st.integers(1, 4), data=st.data())
def test_a_neuron_stays_within_its_range_whatever_the_order_of_arrival(weights, threshold, levels, peak, data):
    initial, bias = data.draw(st.integers(-20, 20)), data.draw(st.integers(-20, 20))
    layer = neuron("a", "input", [weights], threshold, levels, bias, initial)
    bound = ranges(dense_network(layer, pixels=len(weights), high=peak))["a"]
    totals = st.tuples(*[st.integers(0, peak)] * len(weights), st.integers(min(bias, 0), max(bias, 0)))
    burst = data.draw(st.integers(1, levels))
    y, received, held = 0, initial, [initial]
    for *counts, injected in data.draw(st.lists(totals, max_size=12)):
        total = initial + injected + sum(w * c for w, c in zip(weights, counts, strict=True))
        current, received = total - received, total
        assert bound.received.low <= received <= bound.received.high
        assert bound.current.low <= current <= bound.current.high
        held.append(received - threshold * y)
        y += _spike(received, y, threshold, levels, burst)
        held.append(received - threshold * y)
    assert bound.potential.low <= min(held)
    assert max(held) <= bound.potential.high


@settings(deadline=None)
@given(weights=weights, levels=st.integers(1, 5), peak=st.integers(1, 4), initial=st.integers(-20, 20))
def test_every_end_of_a_range_is_reached(weights, levels, peak, initial):
    up = sum(w for w in weights if w > 0) * peak
    down = sum(w for w in weights if w < 0) * peak
    bound = ranges(
        dense_network(neuron("a", "input", [weights], 1, levels, 0, initial), pixels=len(weights), high=peak)
    )
    found = bound["a"]
    assert (found.received.low, found.received.high) == (initial + down, initial + up)
    assert (found.current.low, found.current.high) == (down - up, up - down)
    assert found.potential.high == max(initial + up, 0)
    left = initial + up - _spike(initial + up, 0, 1, levels, levels)
    assert found.potential.low == min(left + down - up, 0)


def test_a_whole_network_reaches_its_ranges():
    network = slowest(depth=2, levels=4)
    bound = ranges(network)["layer1"]
    record = simulate(network, [[1]], record=("spikes", "potentials"))
    assert (bound.potential.low, bound.potential.high) == (-5, 4)
    before = record.potentials["layer1"] + record.spikes["layer1"]
    assert (before.min(), before.max()) == (-5, 4)


def test_a_readout_reaches_its_range():
    network = dense_network(pixels=3, low=-2, high=5, readout=[[3, -1, 2], [-1, -1, -1]])
    low, high = ranges(network)["readout"].received
    extremes = forward(network, [[5, -2, 5], [-2, 5, -2], [-2] * 3, [5] * 3]).logits
    assert low.tolist() == extremes.min(0).tolist()
    assert high.tolist() == extremes.max(0).tolist()


def test_borders_receive_less():
    rng = np.random.default_rng(1)
    network = next(n for n in iter(lambda: random_network(rng), None) if n.layers[1].synapses[0].padding == (2, 2))
    found = ranges(network)["conv0"].received
    assert (found.high - found.low)[:, 0, 0].sum() < (found.high - found.low).max((1, 2)).sum()


@pytest.mark.parametrize("seed", range(12))
def test_registers_of_just_the_right_size_are_enough_and_one_bit_fewer_is_not(seed):
    network = random_network(np.random.default_rng(seed))
    widest = max(
        *(bound.bits for bound in ranges(network).values()),
        *(int(layer.threshold.max()).bit_length() + 1 for layer in network if isinstance(layer, Neurons)),
    )
    assert check_ranges(network, LOIHI2.with_registers(state_bits=widest))
    with pytest.raises(RangeError, match=rf"exceeds the {widest - 1} signed bits of loihi2"):
        check_ranges(network, LOIHI2.with_registers(state_bits=widest - 1))


def test_the_proven_ranges_are_returned():
    network = slowest(depth=3, levels=2)
    found, expected = check_ranges(network, LOIHI2), ranges(network)
    assert list(found) == list(expected) == ["layer1", "layer2", "layer3", "readout"]
    assert all((found[name].potential.low == expected[name].potential.low).all() for name in found)


def test_ranges_that_are_known_are_not_proven_again_but_checked():
    network = slowest(depth=3, levels=2)
    proven = ranges(network)
    assert check_ranges(network, LOIHI2, proven) is proven
    wide = Interval(np.full((1,), -(1 << 30)), np.full((1,), 1 << 30))
    too_wide = {name: dataclasses.replace(found, potential=wide) for name, found in proven.items()}
    with pytest.raises(RangeError, match="^layer1: worst-case potential of neuron"):
        check_ranges(network, LOIHI2, too_wide)


TINY = read_hardware().with_registers(name="tiny", state_bits=8, weight_bits=4, weight_exponent_max=2, message_bits=5)


def _one(weight=0, threshold=1, levels=1, bias=0, initial=0, exponent=0, low=0, high=1):
    """Return a network of one neuron that nothing hides."""
    layer = neuron("conv", "input", [[weight]], threshold, levels, bias, initial)
    network = dense_network(layer, low=low, high=high)
    synapse = Dense("input", np.array([[weight]], np.int32), exponent)
    return replaced(network, "conv", synapses=(synapse,))


LIMITS = [
    ("potential", {"initial": 127}, {"initial": 128}, r"worst-case potential of neuron \(0,\) \(128\) .* \(127\)"),
    ("potential", {"initial": -128}, {"initial": -129}, r"worst-case potential of neuron \(0,\) \(-129\) .* \(-128\)"),
    ("potential", {"bias": 127}, {"bias": 128}, r"potential of neuron \(0,\) \(128\) .*; it is 1 too much"),
    ("potential", {"bias": -127}, {"bias": -129}, r"potential of neuron \(0,\) \(-129\)"),
    (
        "current",
        {"weight": 7, "bias": -22, "high": 15},
        {"weight": 7, "bias": -23, "high": 15},
        r"current of neuron \(0,\) \(-?128\)",
    ),
    ("threshold", {"threshold": 127}, {"threshold": 128}, r"a threshold \(128\) exceeds the 8 signed bits of tiny"),
    ("weight", {"weight": 7}, {"weight": 8}, r"a weight \(8\) exceeds the 4 weight bits of tiny \(7\)"),
    ("weight", {"weight": -8}, {"weight": -9}, r"a weight \(-9\) exceeds the 4 weight bits of tiny \(-8\)"),
    ("exponent", {"exponent": 2}, {"exponent": 3}, r"a weight exponent \(3\) exceeds the greatest of tiny \(2\)"),
    ("levels", {"levels": 15}, {"levels": 16}, r"conv: a spike's payload \(16\) exceeds the 5 message bits"),
    ("input", {"high": 15}, {"high": 16}, r"input: a spike's payload \(16\) exceeds the 5 message bits"),
    ("input", {"low": -16}, {"low": -17}, r"input: a spike's payload \(16\) exceeds the 5 message bits"),
]


@pytest.mark.parametrize(("what", "held", "refused", "message"), LIMITS)
def test_at_every_limit_a_network_passes_and_one_past_it_is_refused(what, held, refused, message):
    check_ranges(_one(**held), TINY)
    with pytest.raises(RangeError, match=message):
        check_ranges(_one(**refused), TINY)


def test_a_weight_too_great_is_not_hidden_by_the_least_one():
    network = dense_network(neuron("a", "input", [[-128, 128]]), pixels=2)
    with pytest.raises(RangeError, match=r"a: a weight \(128\) exceeds the 8 weight bits of loihi2_oheo_gulch \(127\)"):
        check_ranges(network, LOIHI2)
    check_ranges(dense_network(neuron("a", "input", [[-128, 127]]), pixels=2), LOIHI2)


def test_what_was_taken_counts_when_the_rest_goes():
    held = _one(weight=-5, threshold=31, levels=2, initial=62, low=0, high=15)
    assert ranges(held)["conv"].potential.low.tolist() == [62 - 75 - 62]
    check_ranges(held, TINY)
    with pytest.raises(RangeError, match=r"potential of neuron \(0,\) \(-129\) .* it is 1 too much"):
        check_ranges(_one(weight=-6, threshold=13, levels=3, initial=39, bias=-39, high=15), TINY)


def test_readouts_have_limits_too():
    for weight, fits in ((7, True), (8, False)):
        layers = Readout("logits", (Dense("input", np.full((2, 1), weight, np.int32)),), np.array([0, 127 - 7 * 15]))
        network = IntegerNetwork((Input("input", (1,), 0, 15), layers))
        hardware = TINY.with_registers(weight_bits=8)
        if fits:
            check_ranges(network, hardware)
        else:
            with pytest.raises(RangeError, match=r"logits: worst-case potential of neuron \(1,\) \(142\)"):
                check_ranges(network, hardware)


def test_the_worst_neuron_is_named():
    network = dense_network(neuron("a", "input", [[1], [1], [1]], initial=[127, 300, 200]))
    with pytest.raises(RangeError, match=r"a: worst-case potential of neuron \(1,\) \(301\) .* it is 174 too much"):
        check_ranges(network, TINY)


def test_a_shifted_input_reaches_less():
    entry = Input("input", (1,), -300, 255, shift=4)
    assert entry.reach == (-19, 16)
    layers = Readout("logits", (Dense("input", np.array([[1]], np.int32)),), np.zeros(1, int))
    bound = ranges(IntegerNetwork((entry, layers)))["logits"].received
    assert (bound.low.item(), bound.high.item()) == (-19, 16)
    assert forward(IntegerNetwork((entry, layers)), [[-300], [255]]).logits.ravel().tolist() == [-19, 16]
