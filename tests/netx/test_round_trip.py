"""What is written is what is read: 500 random networks, and everything that a network can hold."""

from __future__ import annotations

import numpy as np
import pytest
from random_networks import random_network

from lava_casc import netx


@pytest.mark.parametrize("block", range(10))
def test_five_hundred_random_networks_are_read_as_they_were_written(tmp_path, block):
    forms = set()
    for seed in range(50 * block, 50 * block + 50):
        network = random_network(np.random.default_rng(seed), sequential=seed % 3 == 0)
        netx.write(tmp_path / "a.net", network)
        found = netx.read(tmp_path / "a.net")
        assert found == network
        assert [layer.name for layer in found] == [layer.name for layer in network]
        forms.add(all(len(getattr(layer, "synapses", "1")) == 1 for layer in network))
    assert forms == {True, False}
