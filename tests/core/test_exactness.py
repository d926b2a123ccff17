"""The theorem on random networks: silence comes within its bound, and then everything is the integer network's."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from naive import naive_forward, naive_simulate
from random_networks import random_graph, random_images, random_network
from spine import dense_network, inexact, neuron, same, schedules, settled, slowest

from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout
from lava_casc.reference import forward, simulate


def _pairs(seed, samples, make=random_network):
    rng = np.random.default_rng(seed)
    network = make(rng)
    return rng, network, random_images(rng, network, samples)


def _features(network):
    for layer in network:
        yield type(layer).__name__
        if isinstance(layer, MaxPool):
            continue
        for synapse in getattr(layer, "synapses", ()):
            yield type(synapse).__name__
            if isinstance(synapse, Conv):
                yield from ("groups",) * (synapse.groups > 1)
                yield from ("uneven",) * (synapse.stride[0] != synapse.stride[1])
                yield from ("dilated",) * (max(synapse.dilation) > 1)
            yield from ("exponent",) * (synapse.exponent > 0)
        yield from ("residual",) * (len(getattr(layer, "synapses", ())) > 1)
        yield from ("border bias",) * (np.ndim(getattr(layer, "bias", 0)) == 3)


def test_random_networks_hold_everything_that_a_network_can():
    seen = Counter(f for seed in range(200) for f in set(_features(_pairs(seed, 1)[1])))
    rare = {"Dense", "Conv", "MaxPool", "groups", "uneven", "dilated", "exponent", "residual", "border bias"}
    assert {feature for feature in rare if seen[feature] < 10} == set()
    heads = [_pairs(seed, 1, random_graph)[1] for seed in range(100)]
    assert sum(len(network.readouts) > 1 for network in heads) > 20
    assert sum(len(network.shapes[r.name]) == 3 for network in heads for r in network.readouts) > 5


@pytest.mark.parametrize("block", range(10))
def test_two_thousand_pairs_of_network_and_image_are_exact(block):
    spikes = 0
    for seed in range(25 * block, 25 * block + 25):
        _, network, images = _pairs(seed, 8)
        expected = forward(network, images)
        for schedule in schedules(network):
            assert inexact(network, images, schedule, expected) == [], (seed, schedule)
        spikes += sum(int(counts.sum()) for counts in expected.counts.values())
    assert spikes > 10_000, "mostly silence proves little"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_ten_thousand_random_networks_are_exact(block):
    for seed in range(10_000 + 500 * block, 10_500 + 500 * block):
        _, network, images = _pairs(seed, 1)
        expected = forward(network, images)
        for mode in ("unary", "graded"):
            assert inexact(network, images, network.schedule(mode), expected) == [], (seed, mode)


@pytest.mark.parametrize("wake_steps", range(1, 13))
def test_any_wake_burst_and_release_is_exact(wake_steps):
    for seed in range(10 * wake_steps, 10 * wake_steps + 10):
        rng, network, images = _pairs(seed, 3)
        burst = int(rng.integers(1, network.levels + 2))
        for released in (False, True):
            schedule = settled(network, wake_steps=wake_steps, max_burst=burst, released=released)
            assert inexact(network, images, schedule) == [], (seed, schedule)


@pytest.mark.parametrize("block", range(4))
def test_graphs_of_any_shape_are_exact(block):
    for seed in range(30 * block, 30 * block + 30):
        _, network, images = _pairs(seed, 4, random_graph)
        expected = forward(network, images)
        for schedule in schedules(network):
            assert inexact(network, images, schedule, expected) == [], (seed, schedule)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_five_thousand_graphs_of_any_shape_are_exact_under_any_schedule(block):
    for seed in range(10_000 + 500 * block, 10_500 + 500 * block):
        rng, network, images = _pairs(seed, 1, random_graph)
        wake, burst = int(rng.integers(1, 20)), int(rng.integers(1, network.levels + 1))
        schedule = settled(network, wake_steps=wake, max_burst=burst, released=bool(rng.integers(2)))
        assert inexact(network, images, schedule) == [], (seed, schedule)


def test_forward_agrees_with_loops_over_python_ints():
    for seed, make in itertools.product(range(40), (random_network, random_graph)):
        _, network, images = _pairs(seed, 2, make)
        found = forward(network, images)
        for n, image in enumerate(network.input.encode(images)):
            expected = naive_forward(network, image)
            assert found.logits[n].tolist() == [x for readout in network.readouts for x in expected[readout.name]], seed
            for name, counts in found.counts.items():
                assert counts[n].ravel().tolist() == expected[name], (seed, name)


@pytest.mark.parametrize("make", [random_network, random_graph])
@pytest.mark.parametrize("seed", range(12))
def test_the_simulator_agrees_with_loops_over_python_ints_spike_by_spike(seed, make):
    rng, network, images = _pairs(seed, 2, make)
    full = schedules(network)[seed % 3]
    for schedule in (full, settled(network, wake_steps=3, max_burst=int(rng.integers(1, 4)), released=True)):
        found = simulate(network, images, schedule, record=("counts", "spikes", "potentials"))
        for n, image in enumerate(network.input.encode(images)):
            expected = naive_simulate(network, image, schedule)
            assert found.logits[n].tolist() == expected.logits
            assert (found.last_spike[n], found.certified[n]) == (expected.last_spike, expected.certified)
            assert sorted(found.spikes) == sorted(expected.spikes)
            for name, spikes in found.spikes.items():
                assert spikes[n].reshape(schedule.period, -1).tolist() == expected.spikes[name], name
            for name, counts in found.counts.items():
                assert counts[n].ravel().tolist() == expected.counts[name], name
            for name, potentials in found.potentials.items():
                assert potentials[n].reshape(schedule.period, -1).tolist() == expected.potentials[name], name


def test_spikes_are_taken_back_in_unary_mode_and_never_in_graded_mode():
    for seed in range(20):
        _, network, images = _pairs(seed, 4)
        graded = simulate(network, images, network.schedule("graded"), record=("spikes",)).spikes
        assert all((graded[layer.name] >= 0).all() for layer in network.spiking)
        assert all((np.count_nonzero(graded[layer.name], axis=1) <= 1).all() for layer in network.spiking)
    unary = simulate(network, images, record=("spikes",)).spikes
    assert min(int(unary[layer.name].min()) for layer in network.spiking) == -1


@pytest.mark.parametrize("levels", [2, 3, 8])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_bound_is_reached_and_not_passed(depth, levels):
    network = slowest(depth, levels)
    schedule = network.schedule()
    found = simulate(network, [[1]], schedule)
    assert network.silence_bound(schedule) == levels + depth * levels
    assert found.last_spike.tolist() == [levels + depth * levels]
    assert inexact(network, [[1]], schedule) == []


@pytest.mark.parametrize("burst", [2, 3, 4])
def test_the_bound_is_reached_with_bursts(burst):
    network = slowest(4, 8)
    schedule = settled(network, max_burst=burst)
    assert simulate(network, [[1]], schedule).last_spike.tolist() == [network.silence_bound(schedule)]
    assert network.silence_bound(schedule) == 8 + 4 * -(-8 // burst)


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_every_image_of_a_small_network_is_exact(mode):
    images = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    for seed in range(25):
        rng = np.random.default_rng(seed)
        hidden = neuron("a", "input", rng.integers(-3, 4, (3, 3)), rng.integers(1, 5, 3), 3, rng.integers(-4, 5, 3))
        above = neuron("b", "a", rng.integers(-3, 4, (2, 3)), rng.integers(1, 5, 2), 2, rng.integers(-4, 5, 2), [0, 2])
        network = dense_network(hidden, above, pixels=3, low=-2, high=2, readout=[[1, -2], [3, 1]])
        assert inexact(network, images, network.schedule(mode)) == []


@pytest.mark.parametrize("record", [("counts",), ("counts", "messages", "spikes", "potentials", "synops")])
def test_the_batch_size_changes_nothing(record):
    for seed in range(4):
        _, network, images = _pairs(seed, 7)
        for schedule in (network.schedule(), settled(network), network.schedule(sleep_steps=2)):
            whole = simulate(network, images, schedule, record=record)
            for size in (1, 3):
                parts = simulate(network, images, schedule, record=record, batch_size=size)
                assert all(same(getattr(parts, k), getattr(whole, k)) for k in ("logits", "certified", "last_spike"))
                for kind in ("counts", "messages", "spikes", "potentials", "synops"):
                    ours, theirs = getattr(parts, kind), getattr(whole, kind)
                    assert list(ours) == list(theirs)
                    assert all(same(ours[name], theirs[name]) for name in ours)
    whole, parts = (forward(network, images, batch_size=size) for size in (256, 2))
    assert same(whole.logits, parts.logits)
    assert all(same(whole.counts[name], parts.counts[name]) for name in whole.counts)


# Torch 2.13 says so whenever oneDNN is switched, without a word about TF32 from us.
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
@pytest.mark.parametrize("onednn", [True, False])
def test_wide_convolutions_are_exact_whichever_library_convolves(onednn):
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int32)
    network, images = _wide(rng, weight)
    with torch.backends.mkldnn.flags(enabled=onednn):
        assert inexact(network, images, network.schedule("graded")) == []
        assert inexact(network, images, network.schedule("unary")) == []


def _wide(rng, weight):
    n = len(weight)
    threshold, zeros = np.full(n, 997), np.zeros(n, np.int64)
    layers = [Input("input", (8, 9, 12), 0, 255)]
    for k in range(2):
        synapse = Conv(layers[-1].name, weight, padding=(1, 1))
        layers.append(Neurons(f"conv{k}", (synapse,), zeros, threshold * 40 ** (1 - k), zeros, 8, np.ones(n)))
    read = rng.integers(-127, 128, (3, 8 * 9 * 12)).astype(np.int32)
    network = IntegerNetwork((*layers, Readout("readout", (Dense("conv1", read),), np.zeros(3, np.int64))))
    return network, rng.integers(0, 256, (32, 8, 9, 12))


@pytest.mark.parametrize(
    "context",
    [
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.autocast("cpu"),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_torch_modes_around_a_run_change_nothing(context):
    _, network, images = _pairs(3, 20)
    images = images * 0 + network.input.high
    expected = simulate(network, images, record=("synops", "counts"))
    assert inexact(network, images, network.schedule("graded")) == []
    with context():
        found = simulate(network, images, record=("synops", "counts"))
        assert inexact(network, images, network.schedule("graded")) == []
    assert same(found.logits, expected.logits)
    assert all(same(found.synops[name], expected.synops[name]) for name in expected.synops)


def test_sums_that_float32_would_round_are_exact():
    weight = [[2**20 + 1, 2**20 - 3], [-(2**21) + 1, 2**21 + 5]]
    network = dense_network(
        neuron("a", "input", weight, [2**19 + 1, 2**20 + 7], 99), pixels=2, high=99, readout=[[2**24 + 1, -(2**24) + 1]]
    )
    images = np.array([[a, b] for a in range(0, 100, 3) for b in range(0, 100, 7)])
    assert [naive_forward(network, image)["readout"] for image in images] == forward(network, images).logits.tolist()
    for schedule in schedules(network):
        assert inexact(network, images, schedule) == []


def test_pools_of_counts_that_float32_would_round_are_exact():
    one, levels = np.ones((1, 1, 1, 1), np.int32), 2**25
    unit = np.ones(1, np.int64)
    network = IntegerNetwork(
        (
            Input("input", (1, 1, 2), 0, levels),
            Neurons("conv", (Conv("input", one),), 0 * unit, unit, 0 * unit, levels, np.ones(1)),
            MaxPool("pool", "conv", (1, 2), (1, 2)),
            Readout("readout", (Dense("pool", np.ones((1, 1), np.int32)),), 0 * unit),
        )
    )
    images = np.array([[2**24 + 1, 2**24], [2**24 + 2, 2**24 + 3]]).reshape(2, 1, 1, 2)
    assert forward(network, images).logits.tolist() == [[2**24 + 1], [2**24 + 3]]
    assert inexact(network, images, network.schedule("graded")) == []
