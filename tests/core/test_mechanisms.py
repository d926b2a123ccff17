"""What other conversions change of the neuron, against loops over Python integers, spike by spike."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from naive import flat, naive_simulate
from random_networks import random_graph, random_images, random_network, random_recurrent, random_sequences
from spine import dense_network, neuron

from lava_casc.dynamics import VARIANTS, WHOLE, Variant
from lava_casc.network import Neurons
from lava_casc.reference import simulate
from lava_casc.schedule import WakeSleepSchedule

HALF = Fraction(1, 2)
MECHANISMS = {
    "half a threshold at first": Variant(signed=False, sleeps=False, initial=HALF),
    "a third at first": Variant(signed=True, sleeps=True, initial=Fraction(1, 3)),
    "nothing at first": Variant(signed=False, sleeps=False, initial=Fraction(0)),
    "a negative threshold": Variant(signed=True, sleeps=False, negative_threshold=Fraction(1)),
    "two fifths below": Variant(signed=True, sleeps=False, initial=HALF, negative_threshold=Fraction(2, 5)),
    "a negative threshold, and sleep": Variant(signed=True, sleeps=True, negative_threshold=Fraction(1)),
}


def _masks(rng, network, samples):
    shapes = {layer.name: network.shapes[layer.name] for layer in network if isinstance(layer, Neurons)}
    return {name: rng.random((samples, *shape)) < 0.4 for name, shape in shapes.items()}


@pytest.mark.parametrize("make", [random_network, random_graph])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("silences", [False, True])
def test_each_mechanism_agrees_with_loops_over_python_ints(name, seed, make, silences):
    rng = np.random.default_rng(seed)
    network, variant = make(rng), MECHANISMS[name]
    schedule = WakeSleepSchedule(int(rng.integers(1, network.levels + 1)), int(rng.integers(2, 20)), 1 + seed % 3)
    images = random_images(rng, network, 3)
    masks = _masks(rng, network, 3) if silences else None
    found = simulate(
        network, images, schedule, record=("spikes", "potentials", "counts"), variant=variant, silenced=masks
    )
    assert not found.certified.any()
    for i, image in enumerate(network.encode(images)):
        silenced = {layer: mask[i].ravel() for layer, mask in masks.items()} if masks else None
        how = {"initial": variant.initial, "below": variant.negative_threshold, "silenced": silenced}
        run = naive_simulate(network, image, schedule, variant.signed, variant.sleeps, **how)
        for layer in network.spiking:
            assert flat(found.spikes[layer.name][i]) == flat(np.array(run.spikes[layer.name]))
            assert flat(found.counts[layer.name][i]) == run.counts[layer.name]
            if isinstance(layer, Neurons):
                assert flat(found.potentials[layer.name][i]) == flat(np.array(run.potentials[layer.name]))
        assert flat(found.logits[i]) == run.logits


def test_masks_go_with_their_samples_through_batches_and_change_what_is_said():
    rng = np.random.default_rng(2)
    network = random_network(rng)
    images = random_images(rng, network, 7)
    masks = _masks(rng, network, 7)
    whole = simulate(network, images, record=("spikes",), silenced=masks)
    parts = simulate(network, images, record=("spikes",), silenced=masks, batch_size=2)
    free = simulate(network, images, record=("spikes",))
    for name, mask in masks.items():
        assert (whole.spikes[name] == parts.spikes[name]).all()
        assert not whole.spikes[name].any(1)[mask].any()
        assert free.spikes[name].any(1)[mask].any()
        assert whole.spikes[name].any()


def test_nothing_certifies_but_the_whole_with_every_neuron_free_to_speak():
    network = dense_network(neuron("n", "input", [[1]], threshold=4, levels=2))
    free = {"n": np.zeros((1, 1), bool)}
    assert simulate(network, [[1]]).certified.all()
    assert not simulate(network, [[1]], silenced=free).certified.any()
    for variant in (*MECHANISMS.values(), Variant(initial=Fraction(0))):
        assert variant != WHOLE
        assert not simulate(network, [[1]], variant=variant).certified.any()
    assert [name for name, variant in VARIANTS.items() if variant == WHOLE] == ["cif+wsc"]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"input": np.zeros((2, 1), bool)}, "there is no layer of neurons 'input'"),
        ({"m": np.zeros((2, 1), bool)}, "there is no layer of neurons 'm'"),
        ({"n": np.zeros((1, 1), bool)}, r"n needs bool of shape \(2, 1\), not bool of \(1, 1\)"),
        ({"n": np.zeros((2, 1))}, r"n needs bool of shape \(2, 1\), not float64"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    network = dense_network(neuron("n", "input", [[1]]))
    with pytest.raises(ValueError, match=message):
        simulate(network, [[1], [0]], silenced=masks)


def test_masks_are_not_for_recurrent_networks():
    rng = np.random.default_rng(0)
    network = random_recurrent(rng)
    with pytest.raises(ValueError, match="silenced neurons are for networks without recurrence"):
        simulate(network, random_sequences(rng, network, 1), silenced={"layer0": np.zeros((1, 1), bool)})


def test_sums_beside_a_great_threshold_are_exact():
    """The input alone stays below 2**24; with a whole threshold of 2**23 - 2 at first, float32 would round."""
    threshold, high = (1 << 23) - 2, (1 << 24) - 1
    network = dense_network(neuron("n", "input", [[1]], threshold=threshold, levels=1), high=high)
    variant, schedule = Variant(signed=False, sleeps=True, initial=Fraction(1)), WakeSleepSchedule(1, 1)
    for image in (high, high - 1, 1, 0):
        found = simulate(network, [[image]], schedule, record=("spikes", "potentials"), variant=variant)
        run = naive_simulate(network, np.array([image]), schedule, False, True, initial=1)
        assert flat(found.spikes["n"][0]) == flat(np.array(run.spikes["n"]))
        assert flat(found.potentials["n"][0]) == flat(np.array(run.potentials["n"]))


def test_the_mechanisms_differ():
    said: dict[str, bytes] = dict.fromkeys({**VARIANTS, **MECHANISMS}, b"")
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        images = random_images(rng, network, 4)
        for name, variant in {**VARIANTS, **MECHANISMS}.items():
            said[name] += simulate(network, images, WakeSleepSchedule(2, 20), variant=variant).logits.tobytes()
    assert len(set(said.values())) == len(said)
