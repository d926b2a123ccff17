"""What a run of the reference simulator records, and what it refuses."""

from __future__ import annotations

import importlib
import threading

import numpy as np
import pytest
import torch
from naive import Wiring
from random_networks import random_images, random_network
from spine import dense_network, neuron, same, schedules

from lava_casc.dynamics.batch import batches
from lava_casc.errors import DataError, RangeError
from lava_casc.network import Conv, Input, IntegerNetwork, Neurons, Readout
from lava_casc.record import SpikeRecord
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule

#: The package gives the function the name of its module.
simulator = importlib.import_module("lava_casc.reference.simulate")
KINDS = ("counts", "messages", "spikes", "potentials", "synops")


@pytest.fixture(params=range(12), name="run")
def _run(request):
    rng = np.random.default_rng(request.param)
    network = random_network(rng)
    schedule = schedules(network)[request.param % 3]
    images = random_images(rng, network, 4)
    return network, images, schedule, simulate(network, images, schedule, record=KINDS)


def test_counts_are_the_sum_of_spikes(run):
    network, images, _, record = run
    for layer in network.spiking:
        assert same(record.spikes[layer.name].sum(1), record.counts[layer.name])
    assert same(record.spikes[network.input.name].sum(1), network.input.encode(images))


def test_messages_are_the_spikes_that_are_not_zero(run):
    network, _, schedule, record = run
    for name, spikes in record.spikes.items():
        assert spikes.shape == (4, schedule.period, *network.shapes[name])
        flat = spikes.reshape(4, schedule.period, -1)
        assert same(record.messages[name], np.count_nonzero(flat, axis=2))


def test_last_spike_is_the_last_step_in_which_neurons_or_pools_emit(run):
    network, _, schedule, record = run
    emitted = sum(record.messages[layer.name] for layer in network.spiking)
    steps = np.where(emitted > 0, np.arange(1, schedule.period + 1), 0)
    assert same(record.last_spike, steps.max(1))


def test_synops_are_the_connections_that_every_message_crosses(run):
    network, _, schedule, record = run
    wiring = Wiring(network)
    for name, spikes in record.spikes.items():
        messages = (spikes != 0).reshape(4, schedule.period, -1)
        assert same(record.synops[name], messages @ np.array(wiring.fan_out(name)))


def test_potentials_follow_from_what_was_received(run):
    network, _, schedule, record = run
    for layer in network:
        if isinstance(layer, Neurons):
            potentials = record.potentials[layer.name]
            assert potentials.shape == (4, schedule.period, *network.shapes[layer.name])
            left = potentials[:, -1].reshape(4, len(layer.threshold), -1)
            counts = record.counts[layer.name].reshape(left.shape)
            inside = (counts > 0) & (counts < layer.levels)
            assert (((left >= 0) & (left < layer.threshold[:, None])) | ~inside).all()
    assert set(record.potentials) == {layer.name for layer in network if isinstance(layer, Neurons)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_recorded_alone_and_alike(run, kind):
    network, images, schedule, everything = run
    record = simulate(network, images, schedule, record=(kind,))
    for other in KINDS:
        assert bool(getattr(record, other)) == (other == kind)
    ours, theirs = getattr(record, kind), getattr(everything, kind)
    assert list(ours) == list(theirs)
    assert all(same(ours[name], theirs[name]) for name in ours)
    assert same(record.logits, everything.logits)


def test_a_run_that_stops_early_is_padded_as_if_it_had_gone_on():
    network = dense_network(neuron("a", "input", [[1, 2]], 3, 4, initial=1), pixels=2, high=5)
    images = [[5, 5], [0, 0], [1, 0]]
    long = WakeSleepSchedule(2, 40)
    record = simulate(network, images, long, record=KINDS)
    steps = [network.last_event(long), *range(3, 20)]
    for step in steps:
        exact = simulate(network, images, WakeSleepSchedule(2, step), record=KINDS)
        for kind in ("spikes", "potentials", "messages"):
            for name, trace in getattr(exact, kind).items():
                assert (getattr(record, kind)[name][:, : step + 2] == trace).all()
    assert record.spikes["a"].shape == (3, 42, 1)
    assert not record.spikes["a"][:, 10:].any()
    assert (record.potentials["a"][:, 10:] == record.potentials["a"][:, 10:11]).all()


def test_records_share_no_memory_with_images_or_each_other():
    network = dense_network(neuron("a", "input", [[1]], levels=2), high=2)
    images = np.array([[2]])
    first = simulate(network, images)
    first.counts["a"][:] = 99
    first.logits[:] = 99
    assert images.tolist() == [[2]]
    assert simulate(network, images).counts["a"].tolist() == [[2]]


def test_progress_tells_the_samples_finished_so_far():
    network, told = dense_network(), []
    simulate(network, [[1]] * 5, batch_size=2, progress=told.append)
    assert told == [2, 4, 5]


def test_a_network_without_neurons_reads_the_image():
    network = dense_network(pixels=3, low=-9, high=9, readout=[[1, -2, 3], [0, 1, 0]])
    images = np.array([[9, -9, 4], [0, 0, 0]])
    expected = [[39, -9], [0, 0]]
    assert forward(network, images).logits.tolist() == expected
    for mode in ("unary", "graded"):
        record = simulate(network, images, network.schedule(mode))
        assert record.all_certified
        assert record.logits.tolist() == expected
        assert record.predictions.tolist() == [0, 0]


def test_a_readout_by_convolution_has_flat_logits():
    readout = Readout("readout", (Conv("input", np.ones((2, 1, 2, 2), np.int32)),), np.array([0, 7]))
    network = IntegerNetwork((Input("input", (1, 2, 3), 0, 9), readout))
    image = np.arange(6).reshape(1, 1, 2, 3)
    for found in (forward(network, image), simulate(network, image)):
        assert found.logits.tolist() == [[8, 12, 15, 19]]


def test_records_say_where_they_come_from():
    network = dense_network(neuron("a", "input", [[1]], levels=3))
    record = simulate(network, [[1]])
    assert isinstance(record, SpikeRecord)
    assert (record.engine, record.schedule) == ("reference", network.schedule())
    assert len(record) == 1


def test_ties_are_won_by_the_first_class():
    network = dense_network(pixels=1, readout=[[0], [1], [1]])
    assert simulate(network, [[1], [0]]).predictions.tolist() == [1, 0]


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(ValueError, match="record knows counts, messages, .*, not 'currents'"):
        simulate(dense_network(), [[1]], record=("counts", "currents"))


@pytest.mark.parametrize("size", [0, -1])
def test_batches_hold_at_least_one_sample(size):
    for function in (simulate, forward):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {size}"):
            function(dense_network(), [[1]], batch_size=size)


@pytest.mark.parametrize("function", [simulate, forward])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([[0.5]], DataError, "images must hold integers, not float64"),
        ([1], DataError, r"images of shape \(\) do not fit the network's input \(1,\)"),
        ([[2]], RangeError, r"images span \[2, 2\], outside the network's input range \[0, 1\]"),
    ],
)
def test_images_that_do_not_fit_are_refused(function, images, error, message):
    with pytest.raises(error, match=message):
        function(dense_network(), images)


def test_a_batch_holds_as_many_samples_as_memory_allows(monkeypatch):
    network = dense_network()
    neurons = sum(int(np.prod(shape)) for shape in network.shapes.values())
    for budget, sizes in ((1, [1] * 5), (2 * neurons, [2, 2, 1]), (1 << 24, [4, 1])):
        monkeypatch.setattr("lava_casc.dynamics.batch.BATCH_NEURONS", budget)
        parts = batches(network, 5, None, most=4)
        assert [len(range(5)[part]) for part in parts] == sizes
    assert [len(range(0)[part]) for part in batches(network, 0, None, most=4)] == [0]


@pytest.mark.parametrize("kinds", [(), ("counts", "messages", "spikes")])
def test_threads_change_nothing_but_who_computes(monkeypatch, kinds):
    network = random_network(np.random.default_rng(5))
    images = random_images(np.random.default_rng(6), network, 11)
    expected = simulate(network, images, record=kinds)
    workers = set()
    run = simulator._Runner.run

    def noted(self, part):
        workers.add(threading.get_ident())
        return run(self, part)

    monkeypatch.setattr(simulator._Runner, "run", noted)
    monkeypatch.setattr(simulator, "SHARE", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        told: list[int] = []
        found = simulate(network, images, record=kinds, progress=told.append)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threading.get_ident() not in workers
    assert told == [4, 8, 11]
    for kind in ("logits", "certified", "last_spike"):
        assert (getattr(found, kind) == getattr(expected, kind)).all()
    for kind in kinds:
        for name, values in getattr(expected, kind).items():
            assert (getattr(found, kind)[name] == values).all()


def test_an_error_in_a_thread_is_raised_and_the_threads_are_given_back(monkeypatch):
    network = dense_network()
    monkeypatch.setattr(simulator, "SHARE", 1)
    monkeypatch.setattr(simulator._Runner, "run", lambda self, part: 1 / 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            simulate(network, [[1], [0], [1]])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
