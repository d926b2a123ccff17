"""The spine: Lava and the reference emit the same spikes, in the same steps."""

import numpy as np
import pytest
from loihi_differences import differences
from random_networks import random_images, random_network

from lava_casc import loihi
from lava_casc.reference import simulate

KINDS = ("counts", "messages", "spikes")


def _compare(seed, samples=3, **how):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = random_images(rng, network, samples)
    spikes = 0
    for mode in ("unary", "graded"):
        schedule = network.schedule(mode)
        expected = simulate(network, images, schedule, record=KINDS)
        found = loihi.run(network, images, schedule, record=KINDS, **how)
        assert differences(found, expected) == []
        assert found.all_certified
        spikes += sum(int(messages.sum()) for messages in found.messages.values())
    assert spikes > 0
    return spikes


@pytest.mark.parametrize("seed", range(6))
def test_lava_agrees_with_the_reference_spike_by_spike(seed):
    _compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 164))
def test_lava_agrees_with_the_reference_on_many_networks(seed):
    _compare(seed, samples=2)
