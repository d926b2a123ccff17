"""Several readouts, and sequences in phases: Lava and the reference agree spike by spike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from loihi_differences import KINDS, differences
from random_networks import cut, random_graph, random_recurrent, random_sequences

from lava_casc import loihi
from lava_casc.errors import DataError
from lava_casc.loihi import runner
from lava_casc.network import Conv, Dense, Input, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Tokens
from lava_casc.reference import forward, simulate


def _network(seed, make, n=3, **how):
    rng = np.random.default_rng(seed)
    network = make(rng, **how)
    return network, random_sequences(rng, network, n)


def _agree(network, samples, schedule, **how):
    """See that both engines return the same record, and return it."""
    found = loihi.run(network, samples, schedule, record=KINDS, **how)
    expected = simulate(network, samples, schedule, record=KINDS)
    assert differences(found, expected) == []
    return found


def _agree_in_both_modes(seed, make):
    network, samples = _network(seed, make)
    for i, mode in enumerate(("unary", "graded")):
        found = _agree(network, samples, network.schedule(mode), until_silent=(seed + i) % 2 == 0)
        assert found.all_certified
        assert (found.logits == forward(network, samples).logits).all()
        assert sum(int(messages.sum()) for messages in found.messages.values()) > 0


def _weights(rng, *shape):
    return rng.integers(-9, 10, shape).astype(np.int32)


def _neurons(name, rng, *synapses, levels=4, scale=1):
    channels = len(synapses[0].weight)
    threshold = scale * rng.integers(5, 20, channels)
    bias = rng.integers(-9, 20, channels)
    return Neurons(name, synapses, bias, threshold, threshold // 2, levels, np.ones(channels))


def _heads():
    """A small network with readouts of several shapes behind several layers, a concatenation and pools among them."""
    rng = np.random.default_rng(4)
    parts = [Conv(name, _weights(rng, 2, 2, 1, 1)) for name in ("stem", "pool")]
    return IntegerNetwork(
        (
            Input("image", (1, 4, 5), 0, 15),
            _neurons("stem", rng, Conv("image", _weights(rng, 2, 1, 3, 3), padding=(1, 1)), scale=8),
            MaxPool("pool", "stem", (3, 3), (1, 1), (1, 1)),
            _neurons("join", rng, *parts, levels=6),
            Readout("objects", (Conv("join", _weights(rng, 1, 2, 1, 1)),), np.array([3])),
            Readout("classes", (Dense("stem", _weights(rng, 3, 40)),), np.array([3, -2, 1]), 0.5),
            Readout("boxes", (Conv("join", _weights(rng, 4, 2, 2, 1)),), rng.integers(-9, 9, (4, 3, 5)), 0.25),
        )
    )


def _images(n):
    return np.random.default_rng(1).integers(0, 16, (n, 1, 4, 5))


def _loop():
    """A small network of words, whose second layer feeds back into the first, and the first into itself."""
    rng = np.random.default_rng(2)
    sources = {"words": 6, "first before": 4, "second before": 3}
    first = _neurons("first", rng, *(Dense(name, _weights(rng, 4, size)) for name, size in sources.items()), levels=5)
    return IntegerNetwork(
        (
            Tokens("words", 6),
            Memory("first before", "first", (4,), 5),
            Memory("second before", "second", (3,), 4),
            first,
            _neurons("second", rng, Dense("first", _weights(rng, 3, 4))),
            Readout("fc", (Dense("second", _weights(rng, 3, 3)),), np.array([5, -7, 0])),
        )
    )


def _words(n, phases=4):
    return np.random.default_rng(3).integers(0, 6, (n, phases))


@pytest.mark.parametrize("make", [random_graph, random_recurrent])
@pytest.mark.parametrize("seed", range(2))
def test_random_networks_agree_spike_by_spike(seed, make):
    _agree_in_both_modes(seed, make)


@pytest.mark.slow
@pytest.mark.parametrize("make", [random_graph, random_recurrent])
@pytest.mark.parametrize("seed", range(100, 132))
def test_many_random_networks_agree_spike_by_spike(seed, make):
    _agree_in_both_modes(seed, make)


# Several readouts.


@pytest.mark.parametrize(("mode", "until_silent"), [("unary", True), ("graded", False)])
def test_several_readouts_give_one_row_of_logits(mode, until_silent):
    network, images = _heads(), _images(12)
    found = _agree(network, images, network.schedule(mode), until_silent=until_silent)
    assert found.all_certified
    assert found.logits.shape == (12, 20 + 3 + 60)
    outputs = network.outputs(found.logits)
    assert {name: values.shape[1:] for name, values in outputs.items()} == {
        "objects": (1, 4, 5),
        "classes": (3,),
        "boxes": (4, 3, 5),
    }
    assert all((values != values[:1]).any() for values in outputs.values())


@pytest.mark.parametrize("sleep_steps", [0, 3])
def test_several_readouts_of_a_run_that_is_cut_off(sleep_steps):
    network, images = _heads(), _images(6)
    images[1] = 0
    found = _agree(network, images, cut(network.schedule(), sleep_steps))
    assert not found.all_certified
    assert found.certified.any() == (sleep_steps == 3), "the last case is a mixed one"


def test_several_readouts_in_floating_point_and_by_lavas_own_synapses():
    network, images = _heads(), _images(2)
    layers = [dataclasses.replace(x, threshold=0 * x.threshold + 8) if isinstance(x, Neurons) else x for x in network]
    network = IntegerNetwork(tuple(layers))
    expected = simulate(network, images, record=KINDS)
    for how in ({"precision": "float"}, {"stock_synapses": True}):
        found = loihi.run(network, images, record=KINDS, **how)
        assert differences(dataclasses.replace(found, logits=found.logits.astype(np.int64)), expected) == []
        assert found.all_certified


def test_no_images_give_an_empty_record_of_all_readouts():
    found = loihi.run(_heads(), _images(0), record=("counts",))
    assert found.logits.shape == (0, 83)
    assert found.counts["join"].shape == (0, 2, 4, 5)


def test_a_change_of_any_readout_is_noticed():
    network, images = _heads(), _images(2)
    readouts = [dataclasses.replace(x, bias=x.bias + i, scale=1.0) for i, x in enumerate(network.readouts, 1)]
    changed = IntegerNetwork((*network.layers[:-3], *readouts))
    found = changed.outputs(loihi.run(changed, images).logits - simulate(network, images).logits)
    assert [np.unique(values).tolist() for values in found.values()] == [[1], [2], [3]]


# Sequences.


@pytest.mark.parametrize(("mode", "until_silent"), [("unary", True), ("graded", False)])
def test_words_in_phases(mode, until_silent):
    network, words = _loop(), _words(5)
    found = _agree(network, words, network.schedule(mode), until_silent=until_silent)
    assert found.all_certified
    assert found.phases_certified.shape == (5, 4)
    assert found.spikes["first before"].shape == (5, 4, found.schedule.period, 4)
    assert found.spikes["first before"][:, 1:].any()
    assert not found.spikes["first before"][:, 0].any()
    assert (found.counts["first"] != found.counts["first"][:, :1]).any()
    assert (found.logits == forward(network, words).logits).all()


def test_what_was_said_before_matters_only_within_a_sequence():
    network, words = _loop(), _words(3)
    words[1:] = words[0]
    found = loihi.run(network, words, record=("counts",))
    assert (found.logits == found.logits[0]).all()
    assert (found.counts["first"] == found.counts["first"][:1]).all()
    turned = loihi.run(network, words[:, ::-1])
    assert (turned.logits != found.logits).any()


@pytest.mark.parametrize(("sleep_steps", "until_silent"), [(0, True), (3, False), (4, True), (4, False)])
def test_a_phase_that_is_cut_off_says_so_and_the_sequence_goes_on_with_what_it_had(sleep_steps, until_silent):
    network, words = _loop(), _words(6)
    schedule = cut(network.schedule(), sleep_steps)
    found = _agree(network, words, schedule, until_silent=until_silent)
    assert found.phases_certified.any() == (sleep_steps > 0)
    assert (found.certified == found.phases_certified.all(1)).all()
    assert not found.all_certified
    assert found.certified.any() == (sleep_steps == 4), "the last case is a mixed one"
    exact = forward(network, words)
    wrong = (found.counts["first"] != exact.counts["first"]).any(2)
    assert wrong.any() == (sleep_steps < 4)
    assert (found.logits == exact.logits)[found.certified].all()
    # What is remembered is what was counted, be it wrong.
    injected = found.spikes["first before"].sum(2)
    assert (injected[:, 1:] == found.counts["first"][:, :-1]).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_random_sequences_that_are_cut_off(seed):
    network, samples = _network(seed, random_recurrent, 4)
    found = _agree(network, samples, cut(network.schedule(), 1))
    assert not found.all_certified


def test_sequences_in_floating_point():
    network, samples = _network(3, random_recurrent, dyadic=True)
    for mode in ("unary", "graded"):
        found = loihi.run(network, samples, network.schedule(mode), precision="float", record=KINDS)
        assert found.logits.dtype == np.float64
        expected = simulate(network, samples, network.schedule(mode), record=KINDS)
        assert differences(dataclasses.replace(found, logits=found.logits.astype(np.int64)), expected) == []
    assert not runner.exact_in_floating_point(_loop())
    other = loihi.run(_loop(), _words(2), precision="float")
    assert not other.certified.any()
    assert not other.phases_certified.any()


@pytest.mark.parametrize("phases", [1, 3])
def test_progress_counts_sequences(phases):
    finished = []
    network, words = _loop(), _words(7, phases)
    found = loihi.run(network, words, progress=finished.append)
    assert differences(found, simulate(network, words), ()) == []
    assert finished == list(range(1, 8))


def test_no_sequences_give_an_empty_record():
    found = loihi.run(_loop(), _words(0), record=("counts", "spikes"))
    assert found.logits.shape == (0, 3)
    assert found.phases_certified.shape == (0, 4)
    assert found.counts["first"].shape == (0, 4, 4)
    assert found.spikes["words"].shape == (0, 4, found.schedule.period, 6)
    assert not found.all_certified


def test_sequences_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="sequences of shape .* do not fit a recurrent network"):
        loihi.run(_loop(), _words(2)[0])


@pytest.mark.parametrize("stock_synapses", [False, True])
def test_a_vocabulary_of_thousands(monkeypatch, stock_synapses):
    rng = np.random.default_rng(0)
    words, units = 5000, 64
    embedding = Dense("words", rng.integers(-127, 128, (units, words)).astype(np.int32))
    recurrent = Dense("before", rng.integers(-20, 21, (units, units)).astype(np.int32))
    cell = Neurons(
        "cell",
        (embedding, recurrent),
        rng.integers(-50, 50, units),
        np.full(units, 50),
        np.full(units, 25),
        4,
        np.ones(units),
    )
    read = Readout("fc", (Dense("cell", rng.integers(-127, 128, (4, units)).astype(np.int32)),), np.zeros(4, np.int64))
    network = IntegerNetwork((Tokens("words", words), Memory("before", "cell", (units,), 4), cell, read))
    samples = rng.integers(0, words, (2, 6))
    circuits = []
    right = runner.build

    def watched(*args, **kwargs):
        circuits.append(right(*args, **kwargs).source.proc_params["images"].shape)
        return right(*args, **kwargs)

    monkeypatch.setattr(runner, "build", watched)
    found = loihi.run(network, samples, network.schedule("graded"), stock_synapses=stock_synapses)
    assert circuits == [(12,)], "no row of 5,000 for every word"
    assert found.all_certified
    assert (found.logits == forward(network, samples).logits).all()
    assert (found.logits[0] != found.logits[1]).any()


# Sabotage: the comparison must turn red.


def _forgetful(network):
    synapses = network["first"].synapses
    none = dataclasses.replace(synapses[1], weight=0 * synapses[1].weight)
    return {"first": {"synapses": (synapses[0], none, synapses[2])}}


def _of_another_layer(network):
    first, second = network["first"].synapses[1:]
    turned = dataclasses.replace(first, weight=np.roll(first.weight, 1, 1))
    return {"first": {"synapses": (network["first"].synapses[0], turned, second)}}


@pytest.mark.parametrize("sabotage", [_forgetful, _of_another_layer])
def test_a_changed_loop_is_noticed(sabotage):
    network, words = _loop(), _words(4)
    changes = sabotage(network)
    layers = [dataclasses.replace(layer, **changes.get(layer.name, {})) for layer in network]
    found = loihi.run(IntegerNetwork(tuple(layers)), words, record=KINDS)
    assert "logits" in differences(found, simulate(network, words, record=KINDS))
