"""Bursts of up to gamma units in a spike (arXiv 2204.13271), capped: exact for every gamma, sooner for greater ones."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from naive import flat, naive_simulate
from random_networks import random_graph, random_images, random_network, random_recurrent, random_sequences

from lava_casc.cli.engines import schedule_of
from lava_casc.cli.study import _mode
from lava_casc.errors import InvalidNetworkError, RangeError
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Neurons, Readout
from lava_casc.reference import forward, simulate


@pytest.mark.parametrize("make", [random_network, random_graph, random_recurrent])
@pytest.mark.parametrize("gamma", [1, 2, 3, 4, None])
def test_silence_is_exact_for_every_gamma_and_comes_within_the_bound(make, gamma):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = make(rng)
        samples = (random_sequences if network.is_recurrent else random_images)(rng, network, 3)
        burst = network.levels if gamma is None else gamma
        schedule = network.schedule("burst", max_burst=burst)
        assert schedule.wake_steps == -(-network.levels // burst)
        assert schedule.mode == ("unary" if burst == 1 else "burst")
        found = simulate(network, samples, schedule, record=("counts", "spikes"))
        truth = forward(network, samples)
        assert found.certified.all()
        assert (found.last_spike <= network.silence_bound(schedule)).all()
        assert (found.logits == truth.logits).all()
        for layer in network.spiking:
            assert (found.counts[layer.name] == truth.counts[layer.name]).all()
            if isinstance(layer, Neurons):
                assert np.abs(found.spikes[layer.name]).max(initial=0) <= burst


@pytest.mark.parametrize("gamma", [2, 3])
def test_bursts_agree_with_loops_over_python_ints(gamma):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = random_graph(rng)
        images = random_images(rng, network, 2)
        schedule = network.schedule("burst", max_burst=gamma)
        found = simulate(network, images, schedule, record=("spikes",))
        for i, image in enumerate(network.encode(images)):
            run = naive_simulate(network, image, schedule)
            for layer in network.spiking:
                assert flat(found.spikes[layer.name][i]) == flat(np.array(run.spikes[layer.name]))


def test_greater_bursts_are_proven_silent_no_later():
    for seed in range(20):
        network = random_graph(np.random.default_rng(seed))
        bounds = [network.silence_bound(network.schedule("burst", max_burst=g)) for g in range(1, network.levels + 1)]
        assert bounds == sorted(bounds, reverse=True)


def test_what_a_schedule_cannot_be_is_refused():
    network = random_network(np.random.default_rng(0))
    assert network.schedule("burst").max_burst == 2
    assert network.schedule("burst", wake_steps=5, max_burst=3).wake_steps == 5
    with pytest.raises(
        InvalidNetworkError, match=r"max_burst \(2\) is not for mode unary, which has 1. Use mode burst"
    ):
        network.schedule("unary", max_burst=2)
    with pytest.raises(InvalidNetworkError, match="mode 'bursts' is not known. Use one of unary, burst"):
        network.schedule("bursts")
    with pytest.raises(RangeError, match=r"max_burst \(0\) is below 1"):
        network.schedule("burst", max_burst=0)


@pytest.mark.parametrize("gamma", [1, 2, 3])
def test_layers_that_speak_one_after_another_are_exact_and_take_nothing_back(gamma):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = random_graph(rng)
        images = random_images(rng, network, 3)
        schedule = network.schedule("graded", max_burst=gamma)
        assert (schedule.wake_steps, schedule.max_burst, schedule.mode) == (1, gamma, "graded")
        found = simulate(network, images, schedule, record=("spikes", "counts", "messages"))
        truth = forward(network, images)
        assert found.certified.all()
        assert (found.last_spike <= network.silence_bound(schedule)).all()
        assert (found.logits == truth.logits).all()
        for layer in network.spiking:
            spikes, counts = found.spikes[layer.name], truth.counts[layer.name]
            assert spikes.min(initial=0) >= 0
            assert spikes.max(initial=0) <= (gamma if isinstance(layer, Neurons) else network.peaks[layer.name])
            if isinstance(layer, Neurons):  # no more spikes than its count needs
                assert found.messages[layer.name].sum() == (-(-counts // gamma)).sum()
        for i, image in enumerate(network.encode(images)):
            run = naive_simulate(network, image, schedule)
            for layer in network.spiking:
                assert flat(found.spikes[layer.name][i]) == flat(np.array(run.spikes[layer.name]))


def test_a_released_layer_waits_for_the_slowest_of_its_inputs():
    """By hand: every neuron needs three steps for its six units, and a pool hands them on at once."""
    network, gamma = _in_a_row(6), 2
    found = network.timing(network.schedule("graded", max_burst=gamma))
    # The image arrives in step 2; a speaks in 2, 3, 4; the pool relays in 3, 4, 5; b hears that in 4, 5, 6.
    assert {name: timing.release for name, timing in found.items()} == {"a": 2, "pool": 5, "b": 6, "end": 9}
    assert network.silence_bound(network.schedule("graded", max_burst=gamma)) == 8


def test_a_page_says_how_large_spikes_may_be_where_that_is_a_choice():
    network = _in_a_row(6)
    modes = (("unary", None), ("burst", 3), ("graded", None), ("graded", 2))
    shown = [_mode(network.schedule(mode, max_burst=burst), network.levels) for mode, burst in modes]
    assert shown == ["unary", "burst of 3", "graded", "graded of 2"]


def test_a_new_wake_leaves_the_files_bursts_as_they_are():
    network = _in_a_row(6)
    for mode, burst in (("graded", 2), ("burst", 3), ("graded", None), ("unary", None)):
        stored = network.schedule(mode, max_burst=burst)
        assert schedule_of(network, stored, None, 5, None) == network.schedule(mode, 5, max_burst=burst)


def _in_a_row(levels):
    one = np.ones((1, 1, 1, 1), np.int32)
    neuron = {"bias": np.zeros(1, int), "threshold": np.ones(1, int), "initial": np.zeros(1, int), "scale": np.ones(1)}
    return IntegerNetwork(
        (
            Input("image", (1, 2, 2), 0, 255, 1.0),
            Neurons("a", (Conv("image", one),), levels=levels, **neuron),
            MaxPool("pool", "a", kernel=(1, 1), stride=(1, 1)),
            Neurons("b", (Conv("a", one), Conv("pool", one)), levels=levels, **neuron),
            Readout("end", (Dense("b", np.ones((2, 4), np.int32)),), np.zeros(2, int)),
        )
    )


def _pooled(rng):
    """Return a network of one max pool over an input that is itself the neurons, and its images."""
    network = random_network(rng)
    while not any(isinstance(layer, MaxPool) for layer in network):
        network = random_network(rng)
    return network, random_images(rng, network, 3)


def _windows(pool, shape, values):
    """Yield, in the order of the pool's output, the values of each window, padding left out."""
    channels, height, width = shape
    size = pool.output_shape(shape)[1:]
    for c in range(channels):
        for row in range(size[0]):
            for column in range(size[1]):
                places = [
                    (row * pool.stride[0] - pool.padding[0] + i * pool.dilation[0],
                     column * pool.stride[1] - pool.padding[1] + j * pool.dilation[1])
                    for i in range(pool.kernel[0]) for j in range(pool.kernel[1])
                ]  # fmt: skip
                yield [values[:, c, y, x] for y, x in places if 0 <= y < height and 0 <= x < width]


@pytest.mark.parametrize("gamma", [1, 2])
def test_lateral_inhibition_pooling_is_our_max_pool_and_the_max_of_spikes_is_wrong(gamma):
    """Lateral inhibition lets a pool's neuron follow whichever input is ahead, and take back for none of the others."""
    wrong = right = 0
    for seed in range(12):
        network, images = _pooled(np.random.default_rng(seed))
        schedule = network.schedule("burst", max_burst=gamma)
        record = simulate(network, images, schedule, record=("spikes", "counts"))
        truth = forward(network, images).counts
        for pool in (layer for layer in network if isinstance(layer, MaxPool)):
            shape = network.shapes[pool.source]
            for i in range(len(images)):
                source = record.spikes[pool.source][i].reshape(schedule.period, *shape)
                ours = record.spikes[pool.name][i].reshape(schedule.period, -1)
                expected = truth[pool.name][i].reshape(-1)
                for k, inputs in enumerate(_windows(pool, shape, source)):
                    said, heard = 0, np.cumsum(np.array(inputs), 1)
                    for step in range(1, schedule.period):
                        # The winner's lead over what was said already is what comes out, one step later.
                        lead = max(int(heard[:, step - 1].max()), 0) - said
                        assert ours[step, k] == lead
                        said += lead
                    plain = sum(max(int(values[step]) for values in inputs) for step in range(schedule.period))
                    assert said == expected[k]
                    wrong += plain != expected[k]
                    right += plain == expected[k]
    assert wrong > 100
    assert right > 0


def test_the_wake_may_be_any_length_with_bursts():
    rng = np.random.default_rng(1)
    network = random_graph(rng)
    images = random_images(rng, network, 4)
    truth = forward(network, images).logits
    for wake in (1, 2, 7):
        for gamma in (2, math.ceil(network.levels / 2)):
            schedule = network.schedule("burst", wake, max_burst=gamma)
            found = simulate(network, images, schedule)
            assert found.certified.all()
            assert (found.logits == truth).all()
    short = dataclasses.replace(schedule, sleep_steps=0)
    assert not simulate(network, images, short).certified.all()
