"""What a certificate promises: a sleep cut short anywhere is never passed off as exact."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import cut, random_images, random_network
from spine import dense_network, neuron, schedules, slowest

from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule


def _emissions(record, network):
    """Return for every sample and step how many spikes neurons and pools emitted, (N, T)."""
    return sum(record.messages[layer.name] for layer in network.spiking)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("which", range(3))
def test_a_sleep_cut_anywhere_certifies_what_is_exact_and_nothing_too_early(seed, which):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images, full = random_images(rng, network, 5), schedules(network)[which]
    expected = forward(network, images)
    last_event = network.last_event(full)
    emitted = _emissions(simulate(network, images, full, record=("messages",)), network)
    for sleep in range(full.sleep_steps + 1):
        schedule = cut(full, sleep)
        found = simulate(network, images, schedule)
        silent = emitted[:, last_event - 1 : schedule.period] == 0
        assert found.certified.tolist() == silent.any(1).tolist()
        assert not (schedule.period < last_event and found.certified.any())
        assert not (found.certified & (found.last_spike == schedule.period)).any(), "a spike was travelling"
        for name, counts in found.counts.items():
            assert (counts[found.certified] == expected.counts[name][found.certified]).all(), name
        assert (found.logits[found.certified] == expected.logits[found.certified]).all()
    assert found.all_certified


@pytest.mark.parametrize("which", range(3))
def test_silence_from_the_last_event_on_is_for_ever(which):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        schedule = schedules(network)[which]
        longer = cut(schedule, schedule.sleep_steps + 7)
        record = simulate(network, random_images(rng, network, 4), longer, record=("messages",))
        silent = _emissions(record, network)[:, network.last_event(schedule) - 1 :] == 0
        assert (np.diff(silent.astype(int), axis=1) >= 0).all()


def test_cutting_by_one_step_loses_the_certificate_of_the_slowest_chain():
    network = slowest(depth=5, levels=4)
    full = network.schedule()
    exact = forward(network, [[1]])
    assert simulate(network, [[1]], full).all_certified
    for missing in range(1, full.sleep_steps + 1):
        found = simulate(network, [[1]], cut(full, full.sleep_steps - missing))
        assert not found.certified.any(), missing
    wrong = simulate(network, [[1]], cut(full, full.sleep_steps - 2))
    assert wrong.logits.tolist() != exact.logits.tolist()


def test_the_travelling_spike_is_what_a_cut_run_lacks():
    network = dense_network(neuron("a", "input", [[1]], levels=1), neuron("b", "a", [[1]], levels=1))
    steps = {sleep: simulate(network, [[1]], WakeSleepSchedule(1, sleep)) for sleep in range(5)}
    assert {sleep: record.logits.item() for sleep, record in steps.items()} == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    assert [record.all_certified for record in steps.values()] == [False, False, False, True, True]


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_silence_before_the_first_spike_can_arrive_certifies_nothing(depth):
    layers = [neuron("layer0", "input", [[1]], levels=4)]
    for k in range(1, depth):
        layers.append(neuron(f"layer{k}", layers[-1].name, [[1]], levels=4))
    network = dense_network(*layers)
    for wake in (1, 4, 9):
        for sleep in range(depth):
            found = simulate(network, [[1]], WakeSleepSchedule(wake, sleep))
            assert not found.certified.any()
        assert simulate(network, [[1]], WakeSleepSchedule(wake, 0)).last_spike.tolist() == [0], "all was silent"


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_silence_before_a_release_certifies_nothing(depth):
    layers = [neuron("layer0", "input", [[0]], levels=3, initial=2)]
    for k in range(1, depth):
        layers.append(neuron(f"layer{k}", layers[-1].name, [[1]], levels=3))
    network = dense_network(*layers)
    full = network.schedule("graded")
    assert simulate(network, [[0]], full).logits.tolist() == [[2]]
    for sleep in range(full.sleep_steps):
        found = simulate(network, [[0]], cut(full, sleep))
        assert not (found.certified & (found.logits[:, 0] != 2)).any()
        assert not (found.certified.any() and full.wake_steps + sleep < network.last_event(full))
    assert simulate(network, [[0]], cut(full, 0)).last_spike.tolist() == [0], "all was silent"


def test_a_bias_that_is_still_being_delivered_certifies_nothing():
    network = dense_network(neuron("a", "input", [[0]], threshold=8, levels=8, bias=8))
    schedule = WakeSleepSchedule(8, 8)
    for sleep in range(9):
        found = simulate(network, [[0]], cut(schedule, sleep))
        assert not (found.certified & (found.logits[:, 0] != 1)).any()
    assert simulate(network, [[0]], schedule).all_certified


def test_samples_of_one_batch_are_certified_one_by_one():
    network = slowest(depth=3, levels=4)
    full = network.schedule()
    found = simulate(network, [[0], [1], [0]], cut(full, full.sleep_steps - 1))
    assert found.certified.tolist() == [True, False, True]
    assert not found.all_certified


def test_no_samples_are_not_certified():
    network = slowest(depth=2, levels=2)
    found = simulate(
        network, np.zeros((0, 1), np.int64), record=("counts", "messages", "spikes", "potentials", "synops")
    )
    assert found.logits.shape == (0, 1)
    assert len(found) == 0
    assert not found.all_certified
    assert found.spikes["layer1"].shape == (0, network.schedule().period, 1)
    assert forward(network, np.zeros((0, 1), np.int64)).logits.shape == (0, 1)
