"""Break one thing and the spine must go red: an equality that nothing can break would prove nothing."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from random_networks import cut, random_graph, random_images
from spine import inexact, replaced, slowest

from lava_casc.linear import max_pool
from lava_casc.network import Conv, IntegerNetwork, MaxPool, Neurons
from lava_casc.reference import cif_step, forward

# The package gives both functions the names of their modules.
simulator = importlib.import_module("lava_casc.reference.simulate")
GRAPHS = [(random_graph(rng), rng) for rng in map(np.random.default_rng, range(12))]
SPINE = [(network, random_images(rng, network, 6)) for network, rng in GRAPHS]
EXPECTED = [forward(network, images) for network, images in SPINE]


def _red(change=lambda network: network, modes=("unary", "graded")):
    """Return how many of the spine's networks go red when `change` is what runs in their place."""
    found = 0
    for (network, images), expected in zip(SPINE, EXPECTED, strict=True):
        changed = change(network)
        found += any(inexact(changed, images, network.schedule(mode), expected) != [] for mode in modes)
    return found


def test_the_untouched_spine_is_green():
    assert _red() == 0


def _synapses(network, change, kind=object):
    for layer in network:
        for i, synapse in enumerate(getattr(layer, "synapses", ())):
            if isinstance(synapse, kind):
                changed = [*layer.synapses]
                changed[i] = dataclasses.replace(synapse, **change(synapse))
                network = replaced(network, layer.name, synapses=tuple(changed))
    return network


def _neurons(network, change):
    for layer in network:
        if isinstance(layer, Neurons):
            network = replaced(network, layer.name, **change(layer))
    return network


CHANGES = {
    "kernels flipped": lambda n: _synapses(n, lambda s: {"weight": s.weight[:, :, ::-1, ::-1]}, Conv),
    "kernels transposed in their channels": lambda n: _synapses(n, lambda s: {"weight": s.weight[:, ::-1]}),
    "the greatest weights off by one": lambda n: _synapses(
        n, lambda s: {"weight": s.weight + (s.weight == s.weight.max())}
    ),
    "exponents forgotten": lambda n: _synapses(n, lambda s: {"exponent": 0 if s.exponent else 1}),
    "thresholds one higher": lambda n: _neurons(n, lambda layer: {"threshold": layer.threshold + 1}),
    "initial potentials one lower": lambda n: _neurons(n, lambda layer: {"initial": layer.initial - 1}),
    "levels one fewer": lambda n: _neurons(n, lambda layer: {"levels": max(1, layer.levels - 1)}),
    "biases dropped": lambda n: _neurons(n, lambda layer: {"bias": 0 * layer.bias}),
    "a readout's bias off by one": lambda n: replaced(n, n.readouts[0].name, bias=n.readouts[0].bias + 1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_network_goes_red(what):
    assert _red(CHANGES[what]) >= 2


def test_a_dropped_sleep_goes_red():
    for network, images in SPINE:
        for mode in ("unary", "graded"):
            assert "not certified" in inexact(network, images, cut(network.schedule(mode), 0))


def test_a_sleep_one_step_short_goes_red_on_the_slowest_chain():
    network = slowest(3, 4)
    full = network.schedule()
    assert inexact(network, [[1]], cut(full, full.sleep_steps - 1)) == ["not certified", "logits"]
    assert inexact(network, [[1]], cut(full, full.sleep_steps - 2)) == ["not certified", "counts of layer3", "logits"]


def _step(**broken):
    """Return the neuron with something broken."""

    def step(potential, count, current, threshold, levels, max_burst=1, released=True):
        levels = 10**6 if broken.get("uncapped") else levels
        after, y, spikes = cif_step(
            potential, count, current, threshold + broken.get("late", 0), levels, max_burst, released
        )
        if broken.get("positive"):
            spikes = spikes.clamp(min=0)
            return potential + current - threshold * spikes, count + spikes, spikes
        if broken.get("hard"):
            return torch.where(spikes != 0, 0, after), y, spikes
        return after, y, spikes.abs() if broken.get("unsigned") else spikes

    return step


@pytest.mark.parametrize(
    ("broken", "modes"),
    [
        ({"uncapped": True}, ("unary",)),
        ({"uncapped": True}, ("graded",)),
        ({"late": 1}, ("unary",)),
        ({"late": 1}, ("graded",)),
        ({"positive": True}, ("unary",)),
        ({"unsigned": True}, ("unary",)),
        ({"hard": True}, ("unary",)),
    ],
)
def test_a_broken_neuron_goes_red(monkeypatch, broken, modes):
    monkeypatch.setattr(simulator, "cif_step", _step(**broken))
    assert _red(modes=modes) >= 2


def test_a_release_that_is_not_waited_for_costs_messages_but_stays_exact(monkeypatch):
    # The theorem holds for every release; what the release is for are the messages.
    network, images = SPINE[0]
    before = simulator.simulate(network, images, network.schedule("graded"), record=("messages",))
    step = _step()
    monkeypatch.setattr(simulator, "cif_step", lambda *args: step(*args[:-1], released=True))
    assert _red(modes=("graded",)) == 0
    after = simulator.simulate(network, images, network.schedule("graded"), record=("messages",))
    total = [sum(int(m.sum()) for name, m in r.messages.items() if name != network.input.name) for r in (before, after)]
    assert total[1] >= total[0]


def test_a_lost_remainder_goes_red(monkeypatch):
    split = simulator.split_evenly
    monkeypatch.setattr(simulator, "split_evenly", lambda total, steps: (split(total, steps)[0], np.zeros_like(total)))
    assert _red(modes=("unary",)) >= 2


def test_a_rounded_input_goes_red(monkeypatch):
    monkeypatch.setattr(simulator, "spread", lambda total, steps, t: total // steps * (t <= steps))
    assert _red(modes=("unary",)) >= 2


def test_a_pool_of_the_wrong_counts_goes_red(monkeypatch):
    monkeypatch.setattr(simulator, "max_pool", lambda pool, counts: max_pool(pool, 1 - counts.clamp(max=1)))
    assert sum(any(isinstance(layer, MaxPool) for layer in network) for network, _ in SPINE) >= 2
    assert _red() >= 2


def test_a_certificate_given_too_early_goes_red(monkeypatch):
    monkeypatch.setattr(IntegerNetwork, "last_event", lambda *_: 1)
    assert _red() >= 2
