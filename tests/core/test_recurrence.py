"""Sequences: phase after phase, each certified, each exactly what the integer network's own recursion gives."""

from __future__ import annotations

import numpy as np
import pytest
from naive import naive_phases, naive_sequence
from random_networks import cut, random_recurrent, random_sequences
from spine import inexact, neuron, replaced, same, schedules, settled

from lava_casc.errors import DataError, InvalidNetworkError, RangeError
from lava_casc.network import Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens
from lava_casc.ranges import ranges
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule


def _pairs(seed, samples):
    rng = np.random.default_rng(seed)
    network = random_recurrent(rng)
    return rng, network, random_sequences(rng, network, samples)


def _loop(levels=4, **memory):
    """Return a network that counts its inputs up: h <- min(h + x, levels), and sums h over the phases."""
    ones = np.ones(1, np.int64)
    layers = (
        Input("input", (1,), 0, 3),
        Memory(**{"name": "held", "source": "h", "shape": (1,), "levels": levels} | memory),
        Neurons("h", (_unit("input"), _unit("held")), 0 * ones, ones, 0 * ones, levels, np.ones(1)),
    )
    return IntegerNetwork((*layers, Readout("sum", (_unit("h"),), ones, 2.0)))


def _unit(source):
    return Dense(source, np.ones((1, 1), np.int32))


def test_a_counter_counts_over_the_phases():
    network, sequences = _loop(), [[[1], [2], [0], [3]], [[0], [0], [1], [0]]]
    found = forward(network, sequences)
    assert found.counts["h"][..., 0].tolist() == [[1, 3, 3, 4], [0, 0, 1, 1]]
    assert found.logits[:, 0].tolist() == [1 + 3 + 3 + 4 + 4, 0 + 0 + 1 + 1 + 4]  # a bias of 1 in each phase
    assert network.outputs(found.logits, phases=4)["sum"].tolist() == [[7.5], [3.0]]
    for schedule in schedules(network):
        assert inexact(network, sequences, schedule, found) == []


@pytest.mark.parametrize("block", range(4))
def test_random_recurrent_networks_are_exact(block):
    seen = 0
    for seed in range(40 * block, 40 * block + 40):
        _, network, sequences = _pairs(seed, 4)
        expected = forward(network, sequences)
        for schedule in schedules(network):
            assert inexact(network, sequences, schedule, expected) == [], (seed, schedule)
        last = expected.counts[network.memories[0].source]
        seen += bool((last[:, -1:] != last).any())
    assert seen > 15, "phases that are all alike prove little"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_two_thousand_recurrent_networks_are_exact_under_any_schedule(block):
    for seed in range(10_000 + 400 * block, 10_400 + 400 * block):
        rng, network, sequences = _pairs(seed, 2)
        wake, burst = int(rng.integers(1, 12)), int(rng.integers(1, network.levels + 1))
        schedule = settled(network, wake_steps=wake, max_burst=burst, released=bool(rng.integers(2)))
        assert inexact(network, sequences, schedule) == [], (seed, schedule)


def test_forward_agrees_with_loops_over_python_ints():
    for seed in range(60):
        _, network, sequences = _pairs(seed, 2)
        found = forward(network, sequences)
        for n, sequence in enumerate(network.encode(sequences)):
            phases = naive_sequence(network, sequence)
            heads = [[x for readout in network.readouts for x in phase[readout.name]] for phase in phases]
            assert found.logits[n].tolist() == [sum(values) for values in zip(*heads, strict=True)], seed
            for name, counts in found.counts.items():
                assert counts[n].tolist() == [phase[name] for phase in phases], (seed, name)


@pytest.mark.parametrize("seed", range(16))
def test_the_simulator_agrees_with_loops_over_python_ints_also_where_it_is_cut_short(seed):
    rng, network, sequences = _pairs(seed, 2)
    full = schedules(network)[seed % 3]
    for schedule in (full, cut(full, int(rng.integers(0, 4)))):
        found = simulate(network, sequences, schedule, record=("counts", "spikes", "potentials", "messages"))
        for n, sequence in enumerate(network.encode(sequences)):
            runs = naive_phases(network, sequence, schedule)
            assert found.logits[n].tolist() == [sum(x) for x in zip(*(run.logits for run in runs), strict=True)]
            assert found.phases_certified[n].tolist() == [run.certified for run in runs]
            assert found.certified[n] == all(run.certified for run in runs)
            assert found.last_spike[n] == max(run.last_spike for run in runs)
            for p, run in enumerate(runs):
                assert sorted(found.spikes) == sorted(run.spikes)
                for name, spikes in run.spikes.items():
                    assert found.spikes[name][n, p].reshape(schedule.period, -1).tolist() == spikes
                    assert found.messages[name][n, p].tolist() == [sum(s != 0 for s in step) for step in spikes]
                for name, counts in run.counts.items():
                    if name in found.counts:
                        assert found.counts[name][n, p].ravel().tolist() == counts
                for name, potentials in found.potentials.items():
                    assert potentials[n, p].reshape(schedule.period, -1).tolist() == run.potentials[name]


def test_one_phase_without_a_certificate_leaves_the_sequence_without_one():
    # Two units at once, a new one and a remembered one, are emitted in the steps 3 and 4, and 4 is the last.
    found = simulate(_loop(), [[[1], [1], [0]], [[1], [0], [0]]], WakeSleepSchedule(2, 2))
    assert found.certified.tolist() == [False, True]
    assert found.phases_certified.tolist() == [[True, False, True], [True, True, True]]


def test_the_batch_size_changes_nothing():
    for seed in range(6):
        _, network, sequences = _pairs(seed, 5)
        for schedule in (network.schedule(), network.schedule(sleep_steps=1)):
            whole, parts = (simulate(network, sequences, schedule, batch_size=size) for size in (5, 2))
            for kind in ("logits", "certified", "last_spike", "phases_certified"):
                assert same(getattr(whole, kind), getattr(parts, kind))
            assert all(same(whole.counts[name], parts.counts[name]) for name in whole.counts)


def test_no_potential_leaves_its_proven_range():
    for seed in range(30):
        _, network, sequences = _pairs(seed, 4)
        bounds = ranges(network)
        found = simulate(network, sequences, record=("potentials",))
        for name, potentials in found.potentials.items():
            low, high = bounds[name].potential
            assert (low <= potentials).all(), (seed, name)
            assert (potentials <= high).all(), (seed, name)


def test_a_memory_off_by_one_phase_or_forgotten_is_seen():
    network, sequences = _loop(), [[[1], [2], [0], [3]]]
    expected = forward(network, sequences)
    forgetful = replaced(
        network, "h", synapses=network["h"].synapses[:1] + (Dense("held", np.zeros((1, 1), np.int32)),)
    )
    assert inexact(forgetful, sequences, network.schedule(), expected) == ["counts of h", "logits"]
    assert inexact(network, sequences[0:1], network.schedule(), forward(network, [[[2], [1], [0], [3]]])) != []


WRONG = [
    (lambda: _loop(source="nowhere"), "held: there are no neurons nowhere to remember"),
    (lambda: _loop(source="sum"), "held: there are no neurons sum to remember"),
    (lambda: _loop(shape=(0,)), r"held: a shape is \(C, H, W\) or \(N,\), not \(0,\)"),
    (lambda: _loop(shape=(1, 1, 1)), r"held: remembers 4 levels of shape \(1, 1, 1\), but h has 4 of shape \(1,\)"),
    (lambda: replaced(_loop(), "held", levels=5), r"held: remembers 5 levels of shape \(1,\), but h has 4"),
    (lambda: replaced(_loop(), "held", levels=2.0), r"held: levels \(2.0\) must be a whole number"),
    (lambda: _moved(), "held: a network has one Input, and Memories right behind it alone"),
    (
        lambda: IntegerNetwork((*_loop().layers[:3], MaxPool("p", "held", (1, 1), (1, 1)), _loop()["sum"])),
        "held cannot",
    ),
    (lambda: Tokens("input", 0), r"input: vocabulary \(0\) must be at least 1"),
    (lambda: Tokens("input", 2.5), r"input: vocabulary \(2.5\) must be a whole number"),
]


def _moved():
    entry, held, h, end = _loop()
    return IntegerNetwork((entry, neuron("first", "input", [[1]]), held, h, end))


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_a_network_that_contradicts_itself_is_refused(make, message):
    with pytest.raises(InvalidNetworkError, match=message):
        make()


def test_samples_that_do_not_fit_are_refused():
    network = _loop()
    for wrong in ([[1], [2]], np.zeros((2, 0, 1), int), np.zeros((2, 3, 1, 1), int)):
        with pytest.raises(DataError, match="input: sequences of shape .* do not fit a recurrent network"):
            forward(network, wrong)
    with pytest.raises(RangeError, match=r"input: images span \[0, 4\], outside"):
        simulate(network, [[[4], [0]]])
    with pytest.raises(DataError, match="logits do not fit readouts of 1 in all"):
        network.outputs(np.zeros((1, 2), int))


def test_tokens_are_checked():
    tokens = Tokens("words", 5)
    assert tokens.injected(tokens.encode([4, 0])).tolist() == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]
    assert (tokens.shape, tokens.reach, tokens.sources) == ((5,), (0, 1), ())
    with pytest.raises(RangeError, match=r"words: tokens span \[5, 5\], outside the vocabulary \[0, 4\]"):
        tokens.encode([5])
    with pytest.raises(RangeError, match=r"words: tokens span \[-1, -1\], outside"):
        tokens.encode([-1])
    with pytest.raises(DataError, match="words: tokens must hold integers, not float64"):
        tokens.encode([0.0])
    with pytest.raises(DataError, match=r"words: tokens of shape \(1,\) a sample"):
        tokens.encode([[0]])


def test_the_schedule_is_that_of_a_single_phase():
    network = _loop()
    assert network.distances == {"input": (0, 0), "held": (0, 0), "h": (1, 1), "sum": (2, 2)}
    assert network.silence_bound(WakeSleepSchedule(4, 0)) == 4 + 1 + 4 - 1
    assert network.is_recurrent
    assert not network.is_sequential
    assert [layer.name for layer in network.computed] == ["h", "sum"]


def test_the_range_of_a_word_is_that_of_its_greatest_weight_not_of_all():
    weight = np.array([[3, -2, 7, 0], [-1, -5, -4, -2], [6, 1, 2, 5]], np.int32)
    ones, zeros = np.ones(3, np.int64), np.zeros(3, np.int64)
    layers = (
        Tokens("input", 4),
        Memory("held", "h", (3,), 4),
        Neurons(
            "h", (Dense("input", weight, 1), Dense("held", np.eye(3, dtype=np.int32))), zeros, ones, zeros, 4, ones
        ),
        Readout("sum", (Dense("h", np.ones((1, 3), np.int32)),), np.zeros(1, np.int64)),
    )
    found = ranges(IntegerNetwork(layers))["h"].received
    assert found.low.tolist() == [-4, -10, 0]
    assert found.high.tolist() == [14 + 4, 0 + 4, 12 + 4]
