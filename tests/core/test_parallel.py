"""The parallel neuron: sorted spikes, as many as the integer network counts, and the staircase in time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import random_graph, random_images, random_network, random_recurrent, random_sequences
from spine import dense_network, neuron

from lava_casc.errors import UnsupportedModelError
from lava_casc.integer import comparator_biases
from lava_casc.network import MaxPool
from lava_casc.reference import forward, parallel
from lava_casc.reference.parallel import fires


@given(
    inputs=st.lists(st.integers(-200, 200), min_size=1, max_size=12),
    threshold=st.integers(1, 60),
)
@settings(max_examples=300, deadline=None)
def test_the_papers_rule_fires_sorted_and_loses_nothing(inputs, threshold):
    """Step x: sum_t I_t / (T - x + 1) + theta / (2 (T - x + 1)) >= theta, in fractions, for T steps of input I_t."""
    steps, total = len(inputs), sum(inputs)
    wanted = []
    for x in range(1, steps + 1):
        left = steps - x + 1
        wanted.append(Fraction(total, left) + Fraction(threshold, 2 * left) >= threshold)
    # In integers z + theta / 2 >= k * theta is the same with theta / 2 rounded down, as k * theta is an integer
    # and so is z. (z + theta // 2 differs from z + theta / 2 by a half at most, and by none that matters.)
    biases = comparator_biases([threshold // 2], [threshold], steps)
    (found,) = fires(np.array([[total]]), biases)[:, :, 0].tolist()
    assert found == wanted
    assert found == sorted(found)
    assert sum(found) == min(max(Fraction(total, threshold) + Fraction(1, 2), 0) // 1, steps)


@given(seed=st.integers(0, 10**6), graph=st.booleans())
@settings(max_examples=40, deadline=None)
def test_spikes_are_sorted_and_counts_and_logits_are_the_integer_networks(seed, graph):
    rng = np.random.default_rng(seed)
    network = (random_graph if graph else random_network)(rng)
    images = random_images(rng, network, 3)
    found, truth = parallel(network, images, batch_size=2), forward(network, images)
    assert list(found.spikes) == list(truth.counts)
    for name, spikes in found.spikes.items():
        assert spikes.shape == (3, network.peaks[name], *network.shapes[name])
        assert (spikes[:, :-1] <= spikes[:, 1:]).all()
        assert (spikes.sum(1) == truth.counts[name]).all()
    assert (found.logits == truth.logits).all()
    assert found.logits.dtype == np.int64


def test_a_thermometer_by_hand():
    """z = 0 .. 9, threshold 4 with half of it at first, T = 3: 0 0 1 1 1 1 2 2 2 2 spikes, the last steps first."""
    network = dense_network(neuron("n", "input", [[1]], threshold=4, levels=3, initial=2), high=14)
    found = parallel(network, np.array([[0], [1], [2], [5], [6], [9], [10], [14]])).spikes["n"][:, :, 0]
    assert found.astype(int).tolist() == [
        [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1],
    ]  # fmt: skip


def test_pools_are_among_what_is_tested():
    networks = [random_network(np.random.default_rng(seed)) for seed in range(20)]
    assert sum(isinstance(layer, MaxPool) for network in networks for layer in network) > 5


def test_a_recurrent_network_has_no_whole_input_to_wait_for():
    rng = np.random.default_rng(0)
    network = random_recurrent(rng)
    with pytest.raises(UnsupportedModelError, match="waits for the whole of its input, which in a recurrent network"):
        parallel(network, random_sequences(rng, network, 1))
