"""The paper's ablations against loops over Python integers, and what is recorded of their errors."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from naive import flat, naive_phases, naive_simulate
from random_networks import random_graph, random_images, random_network, random_recurrent, random_sequences
from spine import dense_network

from lava_casc.dynamics import VARIANTS
from lava_casc.network import Dense, Input, IntegerNetwork, Neurons, Readout
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule

KINDS = ("counts", "spikes", "potentials", "logits", "errors", "messages", "negatives")


def _case(seed, make):
    rng = np.random.default_rng(seed)
    network = make(rng)
    return network, random_images(rng, network, 2), WakeSleepSchedule(network.levels, int(rng.integers(2, 20)))


@pytest.mark.parametrize("make", [random_network, random_graph])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_agrees_with_loops_over_python_ints(name, seed, make):
    network, images, schedule = _case(seed, make)
    variant = VARIANTS[name]
    found = simulate(network, images, schedule, record=KINDS, variant=variant)
    truth = forward(network, images).counts
    for i, image in enumerate(network.encode(images)):
        run = naive_simulate(network, image, schedule, variant.signed, variant.sleeps)
        for layer in network.spiking:
            spikes = np.array(run.spikes[layer.name]).reshape(schedule.period, -1)
            assert flat(found.counts[layer.name][i]) == run.counts[layer.name]
            assert flat(found.spikes[layer.name][i]) == flat(spikes)
            assert flat(found.negatives[layer.name][i]) == flat((spikes < 0).sum(1))
            assert variant.signed or not found.negatives[layer.name].any()
            if not isinstance(layer, Neurons):
                continue
            assert flat(found.potentials[layer.name][i]) == flat(np.array(run.potentials[layer.name]))
            for step in range(1, schedule.period + 1):
                heard = max(0, step - network.distances[layer.name][0])
                share = 1 if variant.sleeps else heard / schedule.wake_steps
                off = [y - share * t for y, t in zip(spikes[:step].sum(0), flat(truth[layer.name][i]), strict=True)]
                assert found.excess[layer.name][i, step - 1] == sum(d >= 1 for d in off)
                assert found.deficit[layer.name][i, step - 1] == sum(d <= -1 for d in off)
                assert found.deviation[layer.name][i, step - 1] == pytest.approx(sum(abs(d) for d in off))
        for step in range(schedule.period):
            logits = [x for readout in network.readouts for x in run.potentials[readout.name][step]]
            assert flat(found.logits_by_step[i, step]) == logits
        assert flat(found.logits[i]) == run.logits
        assert bool(found.certified[i]) == (run.certified and name == "cif+wsc")


@pytest.mark.parametrize("name", VARIANTS)
def test_bursts_are_those_of_the_schedule_also_beyond_a_layers_levels(name):
    for seed in range(4):
        network, images, _ = _case(seed, random_graph)
        schedule = WakeSleepSchedule(2, 6, 3 * network.levels)
        variant = VARIANTS[name]
        found = simulate(network, images, schedule, record=("spikes",), variant=variant)
        for i, image in enumerate(network.encode(images)):
            run = naive_simulate(network, image, schedule, variant.signed, variant.sleeps)
            for layer in network.spiking:
                assert flat(found.spikes[layer.name][i]) == flat(np.array(run.spikes[layer.name]))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_sequences_memories_go_on_at_the_rate_that_they_heard(name):
    variant = VARIANTS[name]
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network = random_recurrent(rng)
        images = random_sequences(rng, network, 2)
        schedule = WakeSleepSchedule(int(rng.integers(1, 2 * network.levels)), int(rng.integers(2, 20)), 1 + seed % 3)
        found = simulate(network, images, schedule, record=("spikes", "counts"), variant=variant)
        for i, sequence in enumerate(network.encode(images)):
            runs = naive_phases(network, sequence, schedule, variant.signed, variant.sleeps)
            for phase, run in enumerate(runs):
                for layer in network.spiking:
                    assert flat(found.counts[layer.name][i, phase]) == run.counts[layer.name]
                    assert flat(found.spikes[layer.name][i, phase]) == flat(np.array(run.spikes[layer.name]))
            assert flat(found.logits[i]) == [sum(values) for values in zip(*(run.logits for run in runs), strict=True)]


def test_only_the_whole_certifies():
    network, images, _ = _case(1, random_network)
    schedule = network.schedule()
    for name, variant in VARIANTS.items():
        found = simulate(network, images, schedule, variant=variant)
        assert found.certified.all() == (name == "cif+wsc")
        assert found.certified.any() == (name == "cif+wsc")


def test_without_the_sleep_a_neuron_goes_on_at_its_rate():
    network = dense_network()
    found = simulate(network, [[1]], WakeSleepSchedule(2, 98), record=("messages",), variant=VARIANTS["if"])
    assert found.messages[network.input.name].sum() == 50


def test_what_an_integrate_and_fire_neuron_says_too_early_it_never_takes_back():
    wrong = dict.fromkeys(VARIANTS, 0)
    for seed in range(12):
        network, images, _ = _case(seed, random_graph)
        truth = forward(network, images).counts
        for name in ("if+wsc", "cif+wsc"):
            found = simulate(network, images, network.schedule(), variant=VARIANTS[name])
            wrong[name] += sum(int((found.counts[layer] != truth[layer]).sum()) for layer in truth)
    assert wrong["cif+wsc"] == 0
    assert wrong["if+wsc"] > 100


@pytest.mark.parametrize(("levels", "wake", "steps"), [(127, 127, 140), (126, 3, 130), (200, 100, 120), (1000, 9, 40)])
@pytest.mark.parametrize("name", VARIANTS)
def test_errors_of_many_levels_are_whole_numbers(name, levels, wake, steps):
    """Where products of counts and steps leave 8 and 16 bits."""
    weights = np.array([[3], [-2], [1]], np.int32)
    neurons = Neurons("n", (Dense("x", weights),), [0, 9, 1], [1, 1, 2], [0, 5, 0], levels, np.ones(3))
    readout = Readout("y", (Dense("n", np.ones((1, 3), np.int32)),), np.zeros(1, np.int64))
    network = IntegerNetwork((Input("x", (1,), 0, 1000), neurons, readout))
    images = np.array([[0], [1000], [7], [333]])
    schedule = WakeSleepSchedule(wake, steps - wake)
    variant = VARIANTS[name]
    found = simulate(network, images, schedule, record=("errors", "spikes"), variant=variant)
    truth = forward(network, images).counts["n"]
    counts = found.spikes["n"].cumsum(1)
    for step in range(1, steps + 1):
        heard = Fraction(1) if variant.sleeps else Fraction(step - 1, wake)
        off = [[Fraction(int(c)) - heard * int(t) for c, t in zip(*pair, strict=True)]
               for pair in zip(counts[:, step - 1], truth, strict=True)]  # fmt: skip
        for i, row in enumerate(off):
            assert found.excess["n"][i, step - 1] == sum(d >= 1 for d in row)
            assert found.deficit["n"][i, step - 1] == sum(d <= -1 for d in row)
            assert found.deviation["n"][i, step - 1] == pytest.approx(float(sum(map(abs, row))))


def test_the_errors_of_a_sequence_are_those_of_its_phases():
    rng = np.random.default_rng(0)
    network = random_recurrent(rng)
    images = random_sequences(rng, network, 3)
    found = simulate(network, images, record=("errors", "logits"))
    assert all(values.shape[:2] == images.shape[:2] for values in found.excess.values())
    assert all(not values[..., -1].any() for values in (*found.excess.values(), *found.deviation.values()))
    assert (found.logits_by_step[:, :, -1].sum(1) == found.logits).all()
