"""Break one thing and the spine must go red: an equality that nothing can break would prove nothing."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from random_networks import cut, random_graph, random_images
from spine import inexact, replaced, same, slowest

from lava_casc.dynamics import Plan, Stepper, aim, cif_step, layers, product
from lava_casc.network import Conv, IntegerNetwork, MaxPool, Neurons
from lava_casc.reference import forward

# The package gives the function the name of its module.
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


def _aim(change):
    """Return where neurons aim with something broken; 120 is a level that 8 bits hold and no network here has."""

    def broken(received, threshold, levels, dtype):
        return aim(*change(received, threshold, levels), dtype)

    return broken


NEURONS = {
    "uncapped": ("aim", _aim(lambda x, threshold, levels: (x, threshold, 120))),
    "a threshold that has to be exceeded": ("aim", _aim(lambda x, threshold, levels: (x - 1, threshold, levels))),
    "quotients rounded": ("aim", _aim(lambda x, threshold, levels: (x + threshold // 2, threshold, levels))),
    "quotients rounded up": ("aim", _aim(lambda x, threshold, levels: (x + threshold - 1, threshold, levels))),
    "positive spikes alone": ("cif_step", lambda *args: cif_step(*args).clamp(min=0)),
    "spikes without their signs": ("cif_step", lambda *args: cif_step(*args).abs()),
    "spikes of the other sign": ("cif_step", lambda *args: -cif_step(*args)),
    "half of a burst": ("cif_step", lambda *args: cif_step(*args) // 2),
    "bursts one too great": ("cif_step", lambda *args: cif_step(*args) + cif_step(*args).sign()),
}


@pytest.mark.parametrize("what", NEURONS)
@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_a_broken_neuron_goes_red(monkeypatch, what, mode):
    monkeypatch.setattr(layers, *NEURONS[what])
    released = mode == "graded" and what in ("positive spikes alone", "spikes without their signs")
    assert (_red(modes=(mode,)) >= 2) != released, "a layer that is waited for takes nothing back"


def test_a_release_that_is_not_waited_for_costs_messages_but_stays_exact(monkeypatch):
    # The theorem holds for every release; what the release is for are the messages.
    before = _messages()
    early = property(lambda self: self.early, lambda self, t: setattr(self, "early", dataclasses.replace(t, release=1)))
    monkeypatch.setattr(layers._Population, "timing", early, raising=False)
    assert _red(modes=("graded",)) == 0
    assert _messages() > before


def _messages():
    """Return how many messages all networks of the spine cost, the input aside, where releases come late."""
    total = 0
    for network, images in SPINE:
        found = simulator.simulate(
            network, images, network.schedule("graded", wake_steps=3), record=("messages",)
        ).messages
        total += sum(int(found[layer.name].sum()) for layer in network.spiking)
    return total


def test_a_lost_remainder_goes_red(monkeypatch):
    split = layers.split_evenly
    monkeypatch.setattr(layers, "split_evenly", lambda total, steps: (split(total, steps)[0], np.zeros_like(total)))
    assert _red(modes=("unary",)) >= 2


def test_a_rounded_input_goes_red(monkeypatch):
    inject = Plan.inject

    def rounded(plan, layer, total):
        return inject(plan, layer, total // plan.schedule.wake_steps * plan.schedule.wake_steps)

    monkeypatch.setattr(Plan, "inject", rounded)
    assert _red(modes=("unary",)) >= 2


def test_a_pool_of_the_wrong_counts_goes_red(monkeypatch):
    pool = layers._Windows.__call__
    monkeypatch.setattr(layers._Windows, "__call__", lambda self, counts: pool(self, 1 - counts.clamp(max=1)))
    assert sum(any(isinstance(layer, MaxPool) for layer in network) for network, _ in SPINE) >= 2
    assert _red() >= 2


@pytest.mark.parametrize("kind", ["int8", "float32", "float64"])
def test_a_product_off_by_one_in_one_kind_goes_red(monkeypatch, kind):
    if kind == "int8" and not product.has_int8():
        pytest.skip("8-bit products are not there")
    possible, compute = product.kinds, product.Product.__call__
    monkeypatch.setattr(
        product, "kinds", lambda *args: [k for k in possible(*args) if k == kind] or possible(*args)[-1:]
    )
    assert _red() == 0
    monkeypatch.setattr(
        product.Product,
        "__call__",
        lambda self, counts: compute(self, counts) - float(self.kind == kind and len(counts) != 2),
    )
    assert _red() >= 2


def test_a_product_in_8_bits_that_is_seen_to_be_wrong_is_given_up(monkeypatch):
    monkeypatch.setattr(product, "has_int8", lambda: True)
    monkeypatch.setattr(product.Product, "_prepare_int8", lambda *_: None)
    monkeypatch.setattr(product.Product, "_int8", lambda self, counts: torch.zeros(1))
    assert _red() == 0
    monkeypatch.setattr(product.Product, "_is_right", lambda *_: True)
    with pytest.raises(RuntimeError, match="size|shape"):
        _red()


def _last_row_forgotten(values, rows, new, n):
    """Write rows, the last one of the targets aside."""
    write, is_target = layers_write, not new.is_floating_point()
    kept = values[rows[-1]].clone() if is_target else None
    found = write(values, rows, new, n)
    if is_target:
        found[rows[-1]] = kept
    return found


layers_write = layers._write


def test_a_row_whose_target_is_forgotten_goes_red(monkeypatch):
    monkeypatch.setattr(layers, "_write", _last_row_forgotten)
    assert _red(modes=("unary",)) >= 2
    assert _red(modes=("graded",)) >= 2


def _after(change):
    """Return an `advance` of neurons after which something is changed."""
    advance = layers._NeuronState.advance

    def broken(self, step, arrivals):
        found = advance(self, step, arrivals)
        change(self)
        return found

    return broken


def test_a_row_that_spoke_and_is_not_looked_at_again_goes_red(monkeypatch):
    monkeypatch.setattr(layers._NeuronState, "advance", _after(lambda self: self.unsettled.zero_()))
    assert _red(modes=("unary",)) >= 2
    assert _red(modes=("graded",)) == 0, "what may say all at once needs no second look"


def test_what_arrives_before_the_release_and_is_forgotten_goes_red(monkeypatch):
    monkeypatch.setattr(layers._NeuronState, "advance", _after(lambda self: self.stale.zero_()))
    assert _red(modes=("graded",)) >= 1, "most layers are released when something arrives"


def _out_of_step():
    """Return how many of the spine's networks spike otherwise layer after layer than they do step after step."""
    found = 0
    for network, images in SPINE:
        schedule = network.schedule()
        record = simulator.simulate(network, images, schedule, record=("spikes",))
        stepper = Stepper(Plan(network, schedule), network.encode(images), wanted=("spikes",))
        while not stepper.step():
            pass
        ours = stepper.traces[0].kept["spikes"]
        found += not all(same(ours[name], record.spikes[name]) for name in record.spikes)
    return found


def test_an_arrival_one_step_early_or_late_goes_red(monkeypatch):
    # The counts stay exact, in whatever order spikes arrive; the spikes tell.
    at = simulator._Stream.at
    assert _out_of_step() == 0
    for early in (1, -1):
        monkeypatch.setattr(simulator._Stream, "at", lambda self, step, early=early: at(self, step + early))
        assert _out_of_step() >= 2


def _falsely_certified():
    """Return how many of the spine's networks certify what is not exact, by loop."""
    layer_by_layer = step_by_step = 0
    for (network, images), expected in zip(SPINE, EXPECTED, strict=True):
        schedule = network.schedule()
        found = simulator.simulate(network, images, cut(schedule, 0))
        layer_by_layer += bool((found.certified & (found.logits != expected.logits).any(1)).any())
        stepper = Stepper(Plan(network, schedule), network.encode(images))
        while not stepper.step():
            pass
        step_by_step += bool((stepper.certified[0] & (stepper.logits[0] != expected.logits).any(1)).any())
    return layer_by_layer, step_by_step


def test_a_certificate_given_too_early_goes_red(monkeypatch):
    assert _falsely_certified() == (0, 0)
    monkeypatch.setattr(IntegerNetwork, "last_event", lambda *_: 1)
    assert min(_falsely_certified()) >= 2
