"""Several readouts, and sequences in phases: both engines of Lava and the reference agree spike by spike."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from loihi_differences import ENGINES, KINDS, agree, differences
from loihi_networks import heads, heads_images, loop, loop_words
from random_networks import cut, random_graph, random_images, random_network, random_recurrent, random_sequences

from lava_casc import loihi
from lava_casc.errors import DataError
from lava_casc.loihi import runner
from lava_casc.loihi.network import models
from lava_casc.network import Dense, IntegerNetwork, Memory, Neurons, Readout, Tokens
from lava_casc.reference import forward, simulate


def _network(seed, make, n=3, **how):
    rng = np.random.default_rng(seed)
    network = make(rng, **how)
    return network, random_sequences(rng, network, n)


def _agree_in_both_modes(seed, make):
    network, samples = _network(seed, make)
    for i, mode in enumerate(("unary", "graded")):
        found = agree(network, samples, network.schedule(mode), until_silent=(seed + i) % 2 == 0)
        assert found.all_certified
        assert (found.logits == forward(network, samples).logits).all()
        assert sum(int(messages.sum()) for messages in found.messages.values()) > 0


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
    network, images = heads(), heads_images(12)
    found = agree(network, images, network.schedule(mode), until_silent=until_silent)
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
    network, images = heads(), heads_images(6)
    images[1] = 0
    found = agree(network, images, cut(network.schedule(), sleep_steps))
    assert not found.all_certified
    assert found.certified.any() == (sleep_steps == 3), "the last case is a mixed one"


def test_several_readouts_in_floating_point_and_by_lavas_own_synapses():
    network, images = heads(), heads_images(2)
    layers = [dataclasses.replace(x, threshold=0 * x.threshold + 8) if isinstance(x, Neurons) else x for x in network]
    network = IntegerNetwork(tuple(layers))
    expected = simulate(network, images, record=KINDS)
    for how in ({"precision": "float"}, {"stock_synapses": True}):
        found = loihi.run(network, images, record=KINDS, engine="graph", **how)
        assert differences(dataclasses.replace(found, logits=found.logits.astype(np.int64)), expected) == []
        assert found.all_certified


@pytest.mark.parametrize("engine", ENGINES)
def test_no_images_give_an_empty_record_of_all_readouts(engine):
    found = loihi.run(heads(), heads_images(0), record=("counts",), engine=engine)
    assert found.logits.shape == (0, 83)
    assert found.counts["join"].shape == (0, 2, 4, 5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_of_any_readout_is_noticed(engine):
    network, images = heads(), heads_images(2)
    readouts = [dataclasses.replace(x, bias=x.bias + i, scale=1.0) for i, x in enumerate(network.readouts, 1)]
    changed = IntegerNetwork((*network.layers[:-3], *readouts))
    found = changed.outputs(loihi.run(changed, images, engine=engine).logits - simulate(network, images).logits)
    assert [np.unique(values).tolist() for values in found.values()] == [[1], [2], [3]]


# Sequences.


@pytest.mark.parametrize(("mode", "until_silent"), [("unary", True), ("graded", False)])
def test_words_in_phases(mode, until_silent):
    network, words = loop(), loop_words(5)
    found = agree(network, words, network.schedule(mode), until_silent=until_silent)
    assert found.all_certified
    assert found.phases_certified.shape == (5, 4)
    assert found.spikes["first before"].shape == (5, 4, found.schedule.period, 4)
    assert found.spikes["first before"][:, 1:].any()
    assert not found.spikes["first before"][:, 0].any()
    assert (found.counts["first"] != found.counts["first"][:, :1]).any()
    assert (found.logits == forward(network, words).logits).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_said_before_matters_only_within_a_sequence(engine):
    network, words = loop(), loop_words(3)
    words[1:] = words[0]
    found = loihi.run(network, words, record=("counts",), engine=engine)
    assert (found.logits == found.logits[0]).all()
    assert (found.counts["first"] == found.counts["first"][:1]).all()
    turned = loihi.run(network, words[:, ::-1], engine=engine)
    assert (turned.logits != found.logits).any()


@pytest.mark.parametrize(("sleep_steps", "until_silent"), [(0, True), (3, False), (4, True), (4, False)])
def test_a_phase_that_is_cut_off_says_so_and_the_sequence_goes_on_with_what_it_had(sleep_steps, until_silent):
    network, words = loop(), loop_words(6)
    schedule = cut(network.schedule(), sleep_steps)
    found = agree(network, words, schedule, until_silent=until_silent)
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
    found = agree(network, samples, cut(network.schedule(), 1))
    assert not found.all_certified


def test_sequences_in_floating_point():
    network, samples = _network(3, random_recurrent, dyadic=True)
    for mode in ("unary", "graded"):
        found = loihi.run(network, samples, network.schedule(mode), precision="float", record=KINDS, engine="graph")
        assert found.logits.dtype == np.float64
        expected = simulate(network, samples, network.schedule(mode), record=KINDS)
        assert differences(dataclasses.replace(found, logits=found.logits.astype(np.int64)), expected) == []
    assert not runner.exact_in_floating_point(loop())
    other = loihi.run(loop(), loop_words(2), precision="float", engine="graph")
    assert not other.certified.any()
    assert not other.phases_certified.any()


@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize(("engine", "told"), [("fused", [3, 6, 7]), ("graph", [1, 2, 3, 4, 5, 6, 7])])
def test_progress_counts_sequences(engine, told, phases):
    finished = []
    network, words = loop(), loop_words(7, phases)
    found = loihi.run(network, words, progress=finished.append, engine=engine, batch_size=3)
    assert differences(found, simulate(network, words), ()) == []
    assert finished == told


@pytest.mark.parametrize("engine", ENGINES)
def test_no_sequences_give_an_empty_record(engine):
    found = loihi.run(loop(), loop_words(0), record=("counts", "spikes"), engine=engine)
    assert found.logits.shape == (0, 3)
    assert found.phases_certified.shape == (0, 4)
    assert found.counts["first"].shape == (0, 4, 4)
    assert found.spikes["words"].shape == (0, 4, found.schedule.period, 6)
    assert not found.all_certified


def test_sequences_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="sequences of shape .* do not fit a recurrent network"):
        loihi.run(loop(), loop_words(2)[0])


@pytest.mark.parametrize("how", [{}, {"engine": "graph"}, {"engine": "graph", "stock_synapses": True}])
def test_a_vocabulary_of_thousands(monkeypatch, how):
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
    right = models.build

    def watched(*args, **kwargs):
        circuits.append(right(*args, **kwargs).source.proc_params["images"].shape)
        return right(*args, **kwargs)

    monkeypatch.setattr(models, "build", watched)
    found = loihi.run(network, samples, network.schedule("graded"), **how)
    assert circuits == ([(12,)] if how else []), "no row of 5,000 for every word"
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
    network, words = loop(), loop_words(4)
    changes = sabotage(network)
    layers = [dataclasses.replace(layer, **changes.get(layer.name, {})) for layer in network]
    for engine in ENGINES:
        found = loihi.run(IntegerNetwork(tuple(layers)), words, record=KINDS, engine=engine)
        assert "logits" in differences(found, simulate(network, words, record=KINDS))


@pytest.mark.parametrize("gamma", [2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_bursts_are_the_references_spike_by_spike(seed, gamma):
    rng = np.random.default_rng(seed)
    network = random_graph(rng)
    for mode in ("burst", "graded"):
        agree(network, random_images(rng, network, 3), network.schedule(mode, max_burst=gamma))


def test_bursts_in_floating_point_are_exact_on_dyadic_thresholds():
    rng = np.random.default_rng(4)
    network = random_network(rng, dyadic=True)
    images, schedule = random_images(rng, network, 3), network.schedule("burst", max_burst=2)
    found = loihi.run(network, images, schedule, record=("spikes",), engine="graph", precision="float")
    expected = simulate(network, images, schedule, record=("spikes",))
    assert (found.logits == expected.logits).all()
    assert all((found.spikes[name] == expected.spikes[name]).all() for name in found.spikes)
