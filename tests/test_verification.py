"""How a conversion is verified where nobody says how: as many samples as seconds allow, in graded mode at last."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import random_network

from lava_casc import pipeline
from lava_casc.network import Conv, Input, IntegerNetwork, Neurons, Readout


def _wide(channels, size):
    """Return a network of two convolutions, of ``2 * channels**2 * size**2`` multiply-accumulates."""
    ones, zeros = np.ones(channels, np.int64), np.zeros(channels, np.int64)
    weight = np.ones((channels, channels, 1, 1), np.int32)
    return IntegerNetwork(
        (
            Input("input", (channels, size, size), 0, 1),
            Neurons("conv", (Conv("input", weight),), zeros, ones, zeros, 4, np.ones(channels)),
            Readout("readout", (Conv("conv", weight),), zeros),
        )
    )


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_small_networks_are_verified_on_all_samples_and_as_they_will_run(mode):
    for seed in range(5):
        network = random_network(np.random.default_rng(seed))
        schedule = network.schedule(mode)
        assert pipeline.affordable(network, schedule) == (schedule, pipeline.VERIFY_SAMPLES)


def test_large_networks_are_verified_on_fewer_samples_and_the_largest_in_graded_mode():
    network = _wide(256, 256)
    macs = 2 * 256**2 * 256**2
    graded = network.schedule("graded")
    assert pipeline.affordable(network, graded) == (graded, int(pipeline.VERIFY_BUDGET / macs / 3))
    unary = network.schedule("unary", wake_steps=2)
    found, samples = pipeline.affordable(network, unary)
    assert (found, samples) == (unary, int(pipeline.VERIFY_BUDGET / macs / (network.silence_bound(unary) / 2)))
    long = network.schedule("unary", wake_steps=60)
    assert pipeline.affordable(network, long) == (graded, int(pipeline.VERIFY_BUDGET / macs / 3))
    huge = _wide(512, 512)
    assert pipeline.affordable(huge, huge.schedule()) == (huge.schedule("graded"), 1)
