"""Two loops, one network: step after step gives what layer after layer gives, and nothing is computed for silence."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from random_networks import cut, random_graph, random_network, random_recurrent, random_sequences
from spine import dense_network, inexact, neuron, replaced, same, schedules, settled

from lava_casc.dynamics import Plan, Stepper, product
from lava_casc.dynamics.layers import Change
from lava_casc.network import Conv, Entry, Input, IntegerNetwork, MaxPool, Neurons, Readout
from lava_casc.reference import forward
from lava_casc.schedule import WakeSleepSchedule

# The package gives the function the name of its module.
simulator = importlib.import_module("lava_casc.reference.simulate")
KINDS = ("counts", "messages", "spikes")


def _stepped(network, samples, schedule, **how):
    """Return what a stepper makes of samples, by kind and layer, the phases side by side."""
    stepper = Stepper(Plan(network, schedule), network.encode(samples), **{"wanted": KINDS} | how)
    while not stepper.step():
        pass
    found = {(kind, ""): np.stack(getattr(stepper, kind), 1) for kind in ("logits", "certified", "last_spike")}
    for kind in KINDS:
        kept = stepper.counts if kind == "counts" else [trace.kept[kind] for trace in stepper.traces]
        found |= {(kind, name): np.stack([phase[name] for phase in kept], 1) for name in kept[0]}
    return found


def _different(found, record):
    """Return in what the stepper's phases differ from a record of the reference simulator."""
    phases = record.certified[:, None] if record.phases_certified is None else record.phases_certified
    pairs = {
        "logits": (found["logits", ""].sum(1), record.logits),
        "certified": (found["certified", ""], phases),
        "last spike": (found["last_spike", ""].max(1), record.last_spike),
    }
    for kind in KINDS:
        kept = getattr(record, kind)
        if {name for what, name in found if what == kind} != set(kept):
            return [f"layers with {kind}"]
        for name, values in kept.items():
            ours = found[kind, name]
            pairs[f"{kind} of {name}"] = (ours if record.phases_certified is not None else ours[:, 0], values)
    return [what for what, (ours, theirs) in pairs.items() if not same(ours, theirs)]


def _cases(seeds, make, samples=4):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        network = make(rng)
        images = random_sequences(rng, network, samples)
        yield seed, rng, network, images


MAKERS = [random_network, random_graph, random_recurrent]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("which", range(3))
def test_step_after_step_gives_what_layer_after_layer_gives(make, which):
    uncertified = 0
    for seed, rng, network, images in _cases(range(15 * which, 15 * which + 15), make):
        full = schedules(network)[which]
        for schedule in (full, cut(full, int(rng.integers(0, 6)))):
            record = simulator.simulate(network, images, schedule, record=KINDS)
            for until_silent in (True, False):
                found = _stepped(network, images, schedule, until_silent=until_silent)
                assert _different(found, record) == [], (seed, schedule, until_silent)
            uncertified += not record.all_certified
    assert uncertified > 2, "runs that are all certified prove little of those that are cut short"


@pytest.mark.parametrize("make", MAKERS)
def test_batches_may_be_divided_anyhow(make):
    for seed, rng, network, images in _cases(range(100, 106), make, samples=7):
        full = schedules(network)[seed % 3]
        for schedule in (full, cut(full, 2)):
            whole = _stepped(network, images, schedule)
            at = np.sort(rng.choice(np.arange(1, 7), 2, replace=False))
            parts = [_stepped(network, part, schedule) for part in np.split(images, at)]
            assert all(same(np.concatenate([part[key] for part in parts]), whole[key]) for key in whole), seed


@pytest.mark.parametrize("make", MAKERS)
def test_no_samples_are_no_trouble(make):
    for _, _, network, images in _cases(range(3), make):
        schedule = network.schedule()
        found = _stepped(network, images[:0], schedule, until_silent=False)
        assert _different(found, simulator.simulate(network, images[:0], schedule, record=KINDS)) == []
        assert found["logits", ""].size == 0
        _stepped(network, images[:0], schedule)


def test_a_batch_that_is_over_stays_over():
    stepper = Stepper(Plan(network := dense_network(), network.schedule()), network.encode([[1]]))
    steps = 1
    while not stepper.step():
        steps += 1
    assert stepper.over
    assert steps == stepper.plan.last_event
    assert stepper.step()
    assert len(stepper.logits) == len(stepper.traces) == 1


def test_a_step_ends_as_soon_as_all_samples_are_certified():
    early = 0
    for _, _, network, images in _cases(range(20), random_graph):
        schedule = network.schedule()
        record = simulator.simulate(network, images, schedule)
        stepper, steps = Stepper(Plan(network, schedule), network.encode(images)), 1
        while not stepper.step():
            steps += 1
        assert steps == max(stepper.plan.last_event, record.last_spike.max() + 1)
        early += steps < schedule.period
    assert early > 10


class _Watched(Plan):
    """A plan that counts the rows that its operators are called with, and notes when its layers are advanced."""

    def __init__(self, network, schedule):
        super().__init__(network, schedule)
        self.rows = {name: [0] * len(operators) for name, operators in self.operators.items()}
        self.sizes = {name: [] for name in self.operators}
        self.steps = {name: [] for name in network.shapes}
        self.operators = {
            name: tuple(self._watch(name, i, operator) for i, operator in enumerate(operators))
            for name, operators in self.operators.items()
        }

    def _watch(self, name, i, operator):
        def counted(counts):
            found = operator(counts)
            self.rows[name][i] += len(counts)
            self.sizes[name].append((len(counts), found.numel()))
            return found

        return counted

    def begin(self, name, n):
        return self._noted(name, super().begin(name, n))

    def inject(self, layer, total):
        return self._noted(layer.name, super().inject(layer, total))

    def _noted(self, name, state):
        advance = state.advance

        def noted(step, arrivals=()):
            self.steps[name].append(step)
            return advance(step, arrivals)

        state.advance = noted
        return state


def _step_by_step(plan, samples):
    stepper = Stepper(plan, samples, until_silent=False)
    while not stepper.step():
        pass


def _layer_by_layer(plan, samples):
    simulator._Runner(plan, frozenset()).run((samples, {}))


LOOPS = [_step_by_step, _layer_by_layer]


@pytest.mark.parametrize("make", [random_network, random_graph])
@pytest.mark.parametrize("loop", LOOPS)
def test_only_what_arrives_is_computed(make, loop):
    saved = 0
    for seed, rng, network, images in _cases(range(24), make):
        images[rng.random(len(images)) < 0.4] = 0
        full = schedules(network)[seed % 3]
        schedule = full if seed % 2 else cut(full, 3)
        messages = simulator.simulate(network, images, schedule, record=("messages",)).messages
        plan = _Watched(network, schedule)
        loop(plan, network.encode(images))
        for layer in network.computed:
            # What is emitted in the last step arrives nowhere; a readout adds up once, at the end.
            arriving = [int((messages[source][:, :-1] > 0).sum()) for source in layer.sources]
            expected = [len(images)] * len(layer.sources) if isinstance(layer, Readout) else arriving
            assert plan.rows[layer.name] == expected, (seed, layer.name)
            saved += sum(len(images) * (schedule.period - 1) - rows for rows in arriving)
    assert saved > 5000


@pytest.mark.parametrize("make", [random_network, random_graph])
@pytest.mark.parametrize("loop", LOOPS)
def test_layers_at_rest_are_left_alone(make, loop):
    rested = 0
    for seed, _, network, images in _cases(range(24), make):
        schedule = schedules(network)[seed % 3]
        messages = simulator.simulate(network, images, schedule, record=("messages",)).messages
        spoke = {name: {int(t) + 1 for t in np.flatnonzero(m.any(0))} for name, m in messages.items()}
        plan = _Watched(network, schedule)
        loop(plan, network.encode(images))
        for layer in (*network.entries, *network.spiking):
            busy = _busy(plan, layer, spoke)
            if loop is _layer_by_layer:  # a layer is left for good, not in between
                busy = set(range(1, max(busy, default=1) + 1))
            assert plan.steps[layer.name] == sorted(busy), (seed, layer.name)
            rested += schedule.period - len(busy)
    assert rested > 500


@pytest.mark.parametrize("chunk", [1, 300, simulator.CHUNK])
def test_many_steps_are_computed_together_but_no_more_than_a_chunk(monkeypatch, chunk):
    monkeypatch.setattr(simulator, "CHUNK", chunk)
    together = 0
    for seed, _, network, images in _cases(range(12), random_graph):
        schedule = schedules(network)[seed % 3]
        record = simulator.simulate(network, images, schedule, record=KINDS)
        assert _different(_stepped(network, images, schedule), record) == [], seed
        plan = _Watched(network, schedule)
        _layer_by_layer(plan, network.encode(images))
        for layer in network.spiking:
            assert all(rows <= len(images) or size <= chunk for rows, size in plan.sizes[layer.name]), seed
            together += sum(rows > len(images) for rows, _ in plan.sizes[layer.name])
            if chunk > 300:  # the first to see how large they are, and the rest
                assert len(plan.sizes[layer.name]) <= 2 * len(layer.sources), seed
    assert (together > 10) == (chunk > 1)


def _busy(plan, layer, spoke):
    """Return the steps in which a layer may have something to say, from what it and its sources say in a run."""
    if isinstance(layer, Entry):
        return set(range(1, plan.schedule.wake_steps + 1))
    busy = {step + 1 for source in layer.sources for step in spoke[source]}
    if isinstance(layer, Neurons):
        timing = plan.timing[layer.name]
        busy |= {step + 1 for step in spoke[layer.name]}  # it may not be where it aims
        busy |= set(range(1, timing.release + 1))
        if (abs(layer.bias) >= plan.schedule.wake_steps).any():
            busy |= set(range(1, timing.bias_stop))
    return {step for step in busy if step <= plan.schedule.period}


@pytest.mark.parametrize("make", MAKERS)
def test_every_kind_of_arithmetic_gives_the_same_run(monkeypatch, make):
    possible, used = product.kinds, set()

    def forced(place):
        def choose(*arguments):
            found = possible(*arguments)
            used.add(found[place(found)])
            return [found[place(found)]]

        return choose

    for seed, _, network, images in _cases(range(10), make):
        schedule = schedules(network)[seed % 3]
        expected = None
        for place in (lambda found: 0, lambda found: found.index("float64") - 1, lambda found: -1):
            monkeypatch.setattr(product, "kinds", forced(place))
            found = _stepped(network, images, schedule)
            record = simulator.simulate(network, images, schedule, record=(*KINDS, "potentials"))
            assert _different(found, record) == [], seed
            expected = expected or (found, record)
            assert all(same(found[key], expected[0][key]) for key in expected[0]), seed
            potentials = record.potentials, expected[1].potentials
            assert all(same(potentials[0][name], potentials[1][name]) for name in potentials[0]), seed
    assert used == {"float32", "float64"} | ({"int8"} if product.has_int8() else set())


def _raised(rng, network):
    """Return a network with levels too many for 8 bits in about half of its layers."""
    for layer in network:
        if isinstance(layer, Neurons) and rng.random() < 0.6:
            levels = int(rng.choice([127, 128, 255, 256, 1000]))
            network = replaced(network, layer.name, levels=levels, threshold=1 + layer.threshold // 16)
    return network


@pytest.mark.parametrize("make", [random_network, random_graph])
def test_counts_beyond_8_bits_are_exact_beside_those_within(make):
    seen = set()
    for seed, rng, network, images in _cases(range(20), make):
        raised = _raised(rng, network)
        expected = forward(raised, images)
        seen |= {int(counts.max()) for counts in expected.counts.values()}
        for schedule in (raised.schedule("graded"), settled(raised, wake_steps=5, max_burst=200)):
            assert inexact(raised, images, schedule, expected) == [], seed
            record = simulator.simulate(raised, images, schedule, record=KINDS)
            assert _different(_stepped(raised, images, schedule), record) == [], seed
    assert {127, 128, 255, 256, 1000} <= seen


@pytest.mark.parametrize(("levels", "holds"), [(127, torch.int8), (128, torch.int32)])
def test_counts_are_held_in_8_bits_as_long_as_they_fit(levels, holds):
    layers = (
        Input("input", (2, 2, 2), 0, levels),
        _channel("a", "input", levels),
        MaxPool("pool", "a", (2, 2), (1, 1)),
        Readout("readout", (Conv("pool", np.ones((1, 2, 1, 1), np.int32)),), np.zeros(1, np.int64)),
    )
    network = IntegerNetwork(layers)
    plan = Plan(network, network.schedule("graded"))
    assert {plan.begin(name, 1).count.dtype for name in ("a", "pool")} == {holds}
    image = np.full((1, 2, 2, 2), levels)
    assert inexact(network, image, network.schedule("graded")) == []
    assert forward(network, image).logits.tolist() == [[2 * levels]]


def _channel(name, source, levels):
    """Return neurons that repeat their source, of two channels."""
    ones = np.ones(2, np.int64)
    weight = np.eye(2, dtype=np.int32)[:, :, None, None]
    return Neurons(name, (Conv(source, weight),), 0 * ones, ones, 0 * ones, levels, np.ones(2))


def test_an_input_below_zero_is_delivered_in_whole():
    network = dense_network(neuron("a", "input", [[-1, 0], [1, 1]], 1, 40), pixels=2, low=-37, high=9)
    images = [[-37, 0], [9, -37], [-1, 9], [0, 0]]
    for wake in (1, 2, 5, 7, 40):
        schedule = settled(network, wake_steps=wake)
        assert inexact(network, images, schedule) == []
        found = _stepped(network, images, schedule)
        assert found["spikes", "input"].sum((1, 2)).tolist() == images
        assert found["counts", "a"][:, 0].tolist() == [[37, 0], [0, 0], [1, 8], [0, 0]]


def _sequences(length, reach):
    """Return every sequence of `length` integers from -reach .. reach, one a row."""
    return torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * length).reshape(-1, length)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("threshold", [1, 2, 3])
@pytest.mark.parametrize(("wake", "released"), [(1, False), (1, True), (3, True), (5, True)])
def test_every_sequence_of_arrivals_is_followed_and_no_row_forgotten(levels, threshold, wake, released):
    # Rows in which nothing arrives are left out; what a layer says must not depend on which others there are.
    layer = neuron("a", "input", [[1]], threshold, levels, bias=3, initial=threshold // 2)
    network = dense_network(layer, low=-99, high=99)
    sequences = _sequences(4, threshold + 1)
    for burst in {1, 2, levels}:
        plan = Plan(network, WakeSleepSchedule(wake, 9, burst, released))
        state, timing = plan.begin("a", len(sequences)), plan.timing["a"]
        received = torch.full((len(sequences),), threshold // 2 + 3 % wake)
        count, arrived = torch.zeros_like(received), torch.zeros_like(received)
        for step in range(1, 5 + timing.release + levels):
            current = sequences[:, step - 1] if step <= 4 else torch.zeros_like(received)
            arrived = arrived + current
            rows = current.nonzero()[:, 0]
            arrival = (rows, arrived[rows, None].float()) if len(rows) else None
            received = received + current + 3 // wake * (timing.bias_start <= step < timing.bias_stop)
            spikes = ((received // threshold).clamp(0, levels) - count).clamp(-burst, burst)
            spikes = spikes * (step >= timing.release)
            count = count + spikes
            assert _is_said(state.advance(step, [arrival]), step, count, spikes)
            assert torch.equal(state.count[:, 0].long(), count)
            assert torch.equal(state.potential(step)[:, 0], received - threshold * count)
            if state.rests(step):
                assert torch.equal(count, (received // threshold).clamp(0, levels))
        assert state.rests(step)


def _is_said(change, step, count, spikes):
    """Return whether a change says what was to be said, of the rows in which there was something."""
    rows = spikes.nonzero()[:, 0]
    if change is None or not len(rows):
        return change is None and not len(rows)
    expected = Change(step, rows, count[rows, None], spikes[rows, None])
    return change.step == step and all(
        torch.equal(ours.long(), theirs) for ours, theirs in zip(change[1:], expected[1:], strict=True)
    )


def test_what_a_layer_has_said_is_never_written_to_again():
    heard = 0
    for _, _, network, images in _cases(range(12), random_graph):
        stepper = Stepper(Plan(network, network.schedule()), network.encode(images), until_silent=False)
        said = []
        while not stepper.step():
            for change in stepper.said.values():
                if change is not None:
                    said.append((change, [values.clone() for values in change[1:]]))
        heard += len(said)
        assert all(torch.equal(a, b) for change, kept in said for a, b in zip(change[1:], kept, strict=True))
    assert heard > 100


def test_records_share_no_memory():
    network = dense_network(neuron("a", "input", [[1]], levels=2), high=2)
    samples = np.array([[2]])
    plan = Plan(network, network.schedule())
    first, second = (Stepper(plan, samples, wanted=KINDS) for _ in range(2))
    while not first.step():
        second.step()
    first.counts[0]["a"][:] = 99
    first.logits[0][:] = 99
    first.traces[0].kept["spikes"]["a"][:] = 99
    second.step()
    assert second.over
    assert (second.counts[0]["a"].tolist(), second.logits[0].tolist(), samples.tolist()) == ([[2]], [[2]], [[2]])


def test_two_batches_at_once_do_not_disturb_each_other():
    for seed, _, network, images in _cases(range(6), random_graph):
        schedule = network.schedule()
        plan = Plan(network, schedule)
        steppers = [Stepper(plan, network.encode(part), wanted=("counts",)) for part in (images[:3], images[1:])]
        while not all([stepper.step() for stepper in steppers]):
            pass
        for stepper, part in zip(steppers, (images[:3], images[1:]), strict=True):
            expected = forward(network, part)
            assert same(stepper.logits[0], expected.logits), seed
            assert all(same(stepper.counts[0][name], expected.counts[name]) for name in expected.counts), seed
