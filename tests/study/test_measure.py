"""The sums of a study against single runs, and what can be interrupted."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from naive import Wiring
from random_networks import random_graph, random_images, random_recurrent, random_sequences
from torch import nn

import lava_casc
from lava_casc.dynamics import VARIANTS
from lava_casc.errors import DataError, RangeError
from lava_casc.network import Neurons, Readout
from lava_casc.study import Predictions, Ranks, connections, measure, multiply_accumulates, read_study, scores
from lava_casc.study.files import as_dict, from_dict
from lava_casc.study.sums import KINDS

STEPS = 24


class _Model(nn.Module):
    """A float model that says what the integer network says, and a little more."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        entry = self.network.input
        samples = x.numpy() if self.network.is_recurrent else np.rint(x.numpy() / entry.scale).astype(np.int64)
        phases = samples.shape[1] if self.network.is_recurrent else 1
        outputs = self.network.outputs(lava_casc.forward(self.network, samples).logits, phases)
        return tuple(torch.tensor(values + 0.01) for values in outputs.values())


def test_ranks_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(-3, 4, (30, 4, 8)), rng.integers(0, 8, 30)
    found = scores.right(logits, labels)
    for t in range(4):
        order = [sorted(range(8), key=lambda k, row=row: (-row[k], k)) for row in logits[:, t]]
        for rank, k in (("top1", 1), ("top5", 5)):
            assert found[rank][t] == sum(label in best[:k] for label, best in zip(labels, order, strict=True))
    assert found["top1"][0] == (logits[:, 0].argmax(1) == labels).sum()


def test_each_point_is_what_a_run_of_that_length_gives(digits, whole):
    _, network, images, labels = digits
    schedule = network.schedule()
    for name, variant in VARIANTS.items():
        for step in (schedule.wake_steps, 11, STEPS):
            cut = dataclasses.replace(schedule, sleep_steps=step - schedule.wake_steps)
            logits = lava_casc.simulate(network, images, cut, variant=variant).logits
            assert whole.scores[name]["top1"][step - 1][0] == (logits.argmax(1) == labels).sum() / 40
        assert len(whole.scores[name]["top1"]) == (schedule.period if name == "cif+wsc" else STEPS)
    truth = lava_casc.forward(network, images).logits.argmax(1)
    right = (truth == labels).sum() / 40
    assert whole.scores["integer"]["top1"][0][0] == right == whole.scores["cif+wsc"]["top1"][-1][0]
    assert right == whole.scores["graded"]["top1"][-1][0]
    assert len({str(whole.scores[name]) for name in VARIANTS}) == 4


def test_the_layers_sums_are_those_of_single_runs(digits, whole):
    _, network, images, _ = digits
    for name, run in whole.runs.items():
        schedule = dataclasses.replace(network.schedule(), sleep_steps=run.steps - run.wake_steps)
        schedule = network.schedule("graded") if name == "graded" else schedule
        variant = VARIANTS[run.variant]
        kinds = ("messages", "negatives", "synops", "errors")
        singles = [
            lava_casc.simulate(network, images[i : i + 1], schedule, record=kinds, variant=variant) for i in range(40)
        ]
        for layer, sums in run.layers.items():
            for kind, values in sums.items():
                assert values == sum(getattr(single, kind)[layer][0] for single in singles).tolist()
        assert set(run.layers) == {layer.name for layer in network if not isinstance(layer, Readout)}
        assert all(set(run.layers[layer.name]) == set(KINDS) for layer in network if isinstance(layer, Neurons))
    counts = lava_casc.forward(network, images).counts
    assert whole.expected == {name: counts[name].sum() for name in whole.expected}


def test_squares_are_the_outputs_distance_from_the_float_networks(digits, whole):
    model, network, images, _ = digits
    with torch.no_grad():
        real = model(torch.tensor(images) * network.input.scale).numpy()
    assert whole.logit_squares == pytest.approx((real**2).mean(1).sum())
    scale = network.readouts[0].scale
    distance = network.distances[network.readouts[0].name][0]
    for name in ("if", "if+wsc", "cif+wsc"):
        run = whole.runs[name]
        schedule = dataclasses.replace(network.schedule(), sleep_steps=run.steps - run.wake_steps)
        by_step = lava_casc.simulate(
            network, images, schedule, record=("logits",), variant=VARIANTS[name]
        ).logits_by_step
        for step in (8, 15, STEPS):
            share = 1 if name.endswith("wsc") else run.wake_steps / (step - distance)
            assert run.squares[step - 1] == pytest.approx(
                ((by_step[:, step - 1] * scale * share - real) ** 2).mean(1).sum()
            )


def test_silence_is_that_of_the_networks_own_schedule(digits, whole):
    model, network, images, labels = digits
    record = lava_casc.simulate(network, images)
    run = whole.whole
    assert run.certified == 40
    assert run.last_spike == record.last_spike.tolist()
    first = [i + 1 for i, n in enumerate(run.silent) for _ in range(n)]
    assert first == sorted(max(int(t) + 1, network.last_event(network.schedule())) for t in record.last_spike)
    assert whole.bound == max(network.silence_bound(network.schedule()) + 1, network.last_event(network.schedule()))
    assert whole.runs["graded"].certified == 40
    short = dataclasses.replace(network.schedule(), sleep_steps=int(np.median(record.last_spike)) - 7)
    for steps in (10, 30):  # what falls silent after the planned end was not certified within it
        cut = measure(model, network, short, images, Ranks(labels), steps=steps, variants=("cif",))
        assert 0 < cut.whole.certified == lava_casc.simulate(network, images, short).certified.sum() < 40
        assert set(cut.runs) == {"cif", "cif+wsc", "graded"}


def test_a_graded_schedule_is_its_own_graded_run(digits):
    model, network, images, labels = digits
    found = measure(model, network, network.schedule("graded"), images, Ranks(labels), steps=12, variants=())
    assert set(found.runs) == {"cif+wsc"}
    assert found.whole.released
    assert found.whole.certified == 40


def test_what_was_interrupted_goes_on(digits, whole, tmp_path, monkeypatch):
    model, network, images, labels = digits
    monkeypatch.setattr("lava_casc.study.measuring.CHUNK", 9)
    schedule = network.schedule()

    def stop(done):
        if done == 18:
            raise KeyboardInterrupt

    def again(images=images, labels=labels, **how):
        return measure(model, network, schedule, images, Ranks(labels), **{"steps": STEPS, "folder": tmp_path, **how})

    with pytest.raises(KeyboardInterrupt):
        again(progress=stop)
    told: list[int] = []
    found = again(progress=told.append)
    assert told == [18, 27, 36, 40]
    assert found.scores == whole.scores
    for name, run in found.runs.items():
        theirs = dataclasses.replace(whole.runs[name], squares=pytest.approx(whole.runs[name].squares))
        assert run == theirs
    assert again().samples == 40
    read = read_study(tmp_path)
    assert read["samples"] == 40
    assert read["runs"]["cif+wsc"]["last_spike"] == whole.whole.last_spike
    for change in ({"steps": STEPS + 1}, {"variants": ("cif",)}, {"images": images[::-1]}, {"labels": labels[::-1]}):
        with pytest.raises(DataError, match="is of another network, schedule or data. Choose another folder"):
            again(**change)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(DataError, match="is of another network"):
        measure(other, network, schedule, images, Ranks(labels), steps=STEPS, folder=tmp_path)
    (tmp_path / "progress.pt").write_bytes(b"nothing")
    with pytest.raises(DataError, match="progress.pt: cannot be read"):
        again()


def test_another_network_does_not_go_on_where_one_stopped(digits, tmp_path):
    model, network, images, labels = digits
    how = {"steps": STEPS, "variants": (), "folder": tmp_path}
    measure(model, network, network.schedule(), images[:3], Ranks(labels[:3]), **how)
    first = network.computed[0]
    bias = first.bias.copy()
    bias.flat[0] += 1
    layers = [dataclasses.replace(layer, bias=bias) if layer is first else layer for layer in network]
    other = dataclasses.replace(network, layers=tuple(layers))
    with pytest.raises(DataError, match="is of another network"):
        measure(model, other, network.schedule(), images[:3], Ranks(labels[:3]), **how)


def test_what_cannot_be_studied_is_refused(digits):
    model, network, images, labels = digits
    with pytest.raises(RangeError, match=r"steps \(7\) is smaller than the wake \(8\)"):
        measure(model, network, network.schedule(), images, Ranks(labels), steps=7)
    with pytest.raises(DataError, match="there are no samples"):
        measure(model, network, network.schedule(), images[:0], Ranks(labels[:0]), steps=STEPS)


def test_a_recurrent_network_is_run_anew_for_every_point():
    rng = np.random.default_rng(3)
    network = next(n for n in (random_recurrent(rng) for _ in range(50)) if len(n.readouts) == 1)
    sequences = random_sequences(rng, network, 6)
    labels = rng.integers(0, 2, 6)
    schedule = network.schedule()
    model = _Model(network)
    steps = schedule.wake_steps + 7
    found = measure(model, network, schedule, sequences, Ranks(labels), steps=steps)
    for name, variant in VARIANTS.items():
        run = found.runs[name]
        assert run.points[0] == schedule.wake_steps
        assert run.points[-1] == run.steps
        for place, point in enumerate(run.points):
            cut = dataclasses.replace(schedule, sleep_steps=point - schedule.wake_steps)
            logits = lava_casc.simulate(network, sequences, cut, variant=variant).logits
            assert found.scores[name]["top1"][place][0] == (logits.argmax(1) == labels).sum() / 6
    assert found.phases == sequences.shape[1]
    assert found.whole.certified == 6
    assert all(
        not any(sums[-1] for sums in (s["excess"], s["deficit"])) for s in found.whole.layers.values() if "excess" in s
    )


def test_predictions_are_scored_together_and_taken_up_again(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    network = next(n for n in (random_graph(rng) for _ in range(20)) if not n.is_recurrent)
    samples = random_images(rng, network, 11)
    wanted = rng.normal(size=11)
    asked = []

    def score(predictions, chosen):
        asked.append(len(chosen))
        return {"closeness": float(np.exp(-np.abs(np.array(predictions) - wanted[chosen]).mean())), "nothing": None}

    def scorer():
        return Predictions(
            lambda outputs: [float(row.mean()) for row in outputs[0].reshape(len(outputs[0]), -1)], score, [wanted]
        )

    schedule = network.schedule()
    how = {"steps": schedule.wake_steps + 3, "variants": ("if",)}
    found = measure(_Model(network), network, schedule, samples, scorer(), **how)
    value, low, high = found.scores["cif+wsc"]["closeness"][schedule.period - 1]
    assert (value, found.scores["cif+wsc"]["nothing"][0]) == (
        found.scores["integer"]["closeness"][0][0],
        (None, None, None),
    )
    assert low < value < high
    assert found.scores["if"]["closeness"][0][1:] == (None, None)
    monkeypatch.setattr("lava_casc.study.measuring.CHUNK", 4)

    def stop(done):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(_Model(network), network, schedule, samples, scorer(), folder=tmp_path, progress=stop, **how)
    again = measure(_Model(network), network, schedule, samples, scorer(), folder=tmp_path, **how)
    assert again.scores == found.scores


def test_connections_are_what_messages_could_cross_at_most():
    rng = np.random.default_rng(0)
    for _ in range(6):
        network = random_graph(rng)
        full = [
            dataclasses.replace(
                layer,
                synapses=tuple(dataclasses.replace(s, weight=np.ones_like(s.weight)) for s in layer.synapses),
            )
            if hasattr(layer, "synapses")
            else layer
            for layer in network
        ]
        wiring = Wiring(dataclasses.replace(network, layers=tuple(full)))
        found = connections(network)
        assert all(found[name] == sum(wiring.fan_out(name)) for name in network.shapes if name in found)


def test_multiply_accumulates_are_weights_times_places(digits):
    model, network, _, _ = digits
    places = model.values(torch.zeros(1, 1, 8, 8))
    layers = [op for op in model.graph.operations if op.kind in ("Conv2d", "Linear")]
    by_hand = sum(places[op.name].numel() * op.tensors["weight"][0].numel() for op in layers)
    assert len(layers) >= 4
    assert multiply_accumulates(model, network) == by_hand


def test_a_study_is_read_as_it_was_written(whole):
    assert from_dict(json.loads(json.dumps(as_dict(whole)))).runs == whole.runs
