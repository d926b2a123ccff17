"""The pipeline: its steps, what it writes and when, and a verification that can fail."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from random_models import dyadic_model
from torch import nn

import lava_casc
from lava_casc.errors import (
    CascError,
    CheckpointError,
    DataError,
    HardwareConfigError,
    RangeError,
    UnsupportedModelError,
)
from lava_casc.frontend import (
    Checkpoint,
    CQReLU,
    GraphModel,
    InputSpec,
    fold,
    load_checkpoint,
    save_model,
    trace,
)
from lava_casc.hardware import read_hardware
from lava_casc.network import IntegerNetwork, MaxPool, Neurons
from lava_casc.pipeline import (
    STEPS,
    Options,
    VerificationError,
    convert,
    convert_checkpoint,
    export,
    layer_rows,
    summary,
    verify,
    with_levels,
    write_json,
)
from lava_casc.ranges import ranges
from lava_casc.reference import forward

SHAPE = (2, 6, 7)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model():
    torch.manual_seed(3)
    body = [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        CQReLU(4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 2),
        CQReLU(8),
    ]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(12, 5)).eval()


def checkpoint(examples=None):
    return Checkpoint(trace(model(), SHAPE), InputSpec(SHAPE), examples)


def images(n, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE))


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path / "model.pt", model(), InputSpec(SHAPE), examples=images(5))
    return tmp_path / "model.pt"


# convert


def test_convert_takes_modules_graph_models_and_checkpoints_alike():
    network = convert(model(), SHAPE)
    assert isinstance(network, IntegerNetwork)
    assert convert(checkpoint()) == network
    assert convert(GraphModel(trace(model(), SHAPE)), SHAPE) == network
    assert lava_casc.convert(model(), SHAPE) == network
    assert [layer.name for layer in network] == ["input", "0", "3", "4", "7"]


def test_convert_passes_its_arguments_on():
    network = convert(
        model(), SHAPE, input_range=(-128, 127), input_scale=0.5, weight_bits=5, per_channel=False, levels=3
    )
    assert (network.input.low, network.input.high, network.input.scale) == (-128, 127, 0.5)
    assert {layer.levels for layer in network if isinstance(layer, Neurons)} == {3}
    assert max(np.abs(network[name].synapses[0].weight).max() for name in ("0", "4", "7")) == 15
    assert len(set(network["0"].threshold)) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "needs input_shape"),
        ({"input_shape": (2, 6)}, UnsupportedModelError, "neither"),
        ({"input_shape": (3, 6, 7)}, UnsupportedModelError, "does not run on an input"),
        ({"input_shape": SHAPE, "input_range": (1, 5)}, CheckpointError, "must hold 0"),
        ({"input_shape": SHAPE, "input_scale": 0.0}, CheckpointError, "scale"),
        ({"input_shape": SHAPE, "weight_bits": 9}, RangeError, "weight bits"),
        ({"input_shape": SHAPE, "levels": 0}, CascError, "levels"),
        ({"input_shape": SHAPE, "hardware": "loihi3"}, HardwareConfigError, "no such hardware"),
    ],
)
def test_convert_refuses(options, error, message):
    with pytest.raises(error, match=message):
        convert(model(), **options)


def test_a_graph_model_of_another_shape():
    with pytest.raises(CheckpointError, match="does not fit an input of shape"):
        convert(GraphModel(trace(model(), SHAPE)), (2, 9, 9))


def test_levels_are_replaced_everywhere_and_thresholds_stay():
    graph = trace(nn.Sequential(nn.Linear(4, 3), CQReLU(4, 0.7), nn.Linear(3, 3), CQReLU(8, 2.0)), (4,))
    changed = [op for op in with_levels(graph, 16).operations if op.kind == "CQReLU"]
    assert [op.arguments["levels"] for op in changed] == [16, 16]
    assert [round(op.tensors["threshold"].item(), 5) for op in changed] == [0.7, 2.0]
    assert [op.arguments["levels"] for op in graph.operations if op.kind == "CQReLU"] == [4, 8]
    for levels in (0, -3):
        with pytest.raises(CascError, match="must be at least 1"):
            with_levels(graph, levels)


# Steps and verification


def test_steps_are_told_in_order():
    told = []
    conversion = convert_checkpoint(checkpoint(), Options(verify=3), lambda i, n, name: told.append((i, n, name)))
    assert told == [(i + 1, len(STEPS), name) for i, name in enumerate(STEPS) if name in ("fold", "quantize", "verify")]
    assert conversion.verification.samples == 3


def test_no_verification_on_request():
    assert convert_checkpoint(checkpoint(), Options(verify=0)).verification is None


@pytest.mark.parametrize(
    ("n", "wanted", "source"), [(None, 6, "random"), (0, 6, "random"), (4, 4, "examples"), (9, 6, "examples")]
)
def test_what_is_verified(n, wanted, source):
    made = checkpoint(None if n is None else images(n).astype(np.uint8))
    found = convert_checkpoint(made, Options(verify=6)).verification
    assert (found.samples, found.source, found.certified) == (wanted, source, wanted)


@pytest.mark.parametrize("mode", ["unary", "graded"])
def test_modes(mode):
    conversion = convert_checkpoint(checkpoint(), Options(mode=mode, verify=4))
    assert conversion.schedule.mode == mode
    assert conversion.verification.certified == 4
    assert 0 < conversion.verification.last_spike <= conversion.schedule.period


def test_a_short_sleep_is_reported_as_not_certified():
    found = convert_checkpoint(checkpoint(images(8)), Options(sleep_steps=0, verify=8)).verification
    assert found.certified < found.samples == 8


def conversion_and_floats(made):
    return convert_checkpoint(made, Options(verify=0)), fold(made.graph)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("field", ["threshold", "initial", "bias"])
def test_verification_fails_where_spikes_and_integers_differ(monkeypatch, layer, field):
    """Sabotage: the spikes run on a network that one number of one layer sets apart."""
    made = checkpoint(images(16))
    conversion, folded = conversion_and_floats(made)
    layers = list(conversion.network)
    values = getattr(layers[layer], field).copy()
    values += max(1, int(layers[layer].threshold.max()) // 2)
    layers[layer] = dataclasses.replace(layers[layer], **{field: values})
    wrong = dataclasses.replace(conversion.network, layers=tuple(layers))
    module = __import__("sys").modules["lava_casc.pipeline"]
    right = module.simulate
    assert verify(conversion.network, folded, made, conversion.schedule, 16).certified == 16
    monkeypatch.setattr(module, "simulate", lambda network, *rest, **options: right(wrong, *rest, **options))
    with pytest.raises(VerificationError, match=f"^{layers[layer].name}: the counts of a certified run differ"):
        verify(conversion.network, folded, made, conversion.schedule, 16)


def test_verification_fails_where_only_logits_differ(monkeypatch):
    made = checkpoint(images(4))
    conversion, folded = conversion_and_floats(made)
    module = __import__("sys").modules["lava_casc.pipeline"]
    right = module.simulate

    def wrong(*args, **options):
        record = right(*args, **options)
        record.logits[2, 1] += 1
        return record

    monkeypatch.setattr(module, "simulate", wrong)
    with pytest.raises(VerificationError, match="the logits of a certified run differ"):
        verify(conversion.network, folded, made, conversion.schedule, 4)


def test_examples_outside_the_network_are_refused():
    made = checkpoint(images(4))
    conversion, folded = conversion_and_floats(made)
    object.__setattr__(made, "examples", images(4) + 1)
    with pytest.raises((DataError, RangeError), match="outside the network's input range"):
        verify(conversion.network, folded, made, conversion.schedule, 4)


def test_layer_errors_are_the_difference_in_levels():
    made = checkpoint(images(16))
    conversion = convert_checkpoint(made, Options(verify=16, weight_bits=4))
    with torch.no_grad():
        truth = GraphModel(made.graph).double().eval().values(torch.as_tensor(images(16)).double() / 255)
    counts = forward(conversion.network, images(16)).counts
    for error, name, value, levels in zip(conversion.verification.errors, ("0", "4"), ("2", "5"), (4, 8), strict=True):
        difference = np.abs(counts[name] - np.rint(truth[value].numpy() * levels))
        assert error.name == name
        assert error.changed == pytest.approx((difference > 0).mean())
        assert error.mean_change == pytest.approx(difference.mean())
        assert error.changed > 0
    logits = forward(conversion.network, images(16)).logits * conversion.network.readouts[0].scale
    wanted = truth["7"].numpy()
    error = np.sqrt(((logits - wanted) ** 2).mean() / (wanted**2).mean())
    assert conversion.verification.logit_error == pytest.approx(error)
    assert conversion.verification.same_class == (logits.argmax(1) == wanted.argmax(1)).sum()


def test_a_dyadic_model_has_no_error_at_all():
    rng = np.random.default_rng(5)
    dyadic, shape = dyadic_model(rng)
    made = Checkpoint(trace(dyadic, shape), InputSpec(shape, 0, 255, 1.0), rng.integers(0, 256, (8, *shape)))
    found = convert_checkpoint(made, Options(verify=8)).verification
    assert [(error.changed, error.mean_change) for error in found.errors] == [(0, 0)] * 3
    assert found.logit_error == 0
    assert found.same_class == 8


# The summary


def test_the_summary_is_json_and_true(tmp_path):
    conversion = convert_checkpoint(checkpoint(images(5)), Options(verify=5, mode="graded"))
    network, found = conversion.network, summary(conversion)
    write_json(tmp_path / "summary.json", found)
    plain = json.loads(json.dumps(found, allow_nan=False))
    assert json.loads((tmp_path / "summary.json").read_text()) == plain
    assert os.listdir(tmp_path) == ["summary.json"]
    assert found["lava_casc"] == lava_casc.__version__
    assert found["hardware"] == read_hardware().name
    assert found["input"] == {"shape": [2, 6, 7], "low": 0, "high": 255, "scale": 1 / 255, "bits_given_up": 0}
    assert found["schedule"]["mode"] == "graded"
    assert found["schedule"]["period"] == conversion.schedule.period
    assert found["schedule"]["silence_bound"] == network.silence_bound(conversion.schedule)
    assert found["verification"]["certified"] == found["verification"]["samples"] == 5
    proven = ranges(network)
    assert [row["name"] for row in found["layers"]] == list(network.shapes)
    for row, layer in zip(found["layers"], network, strict=True):
        assert row["type"] == type(layer).__name__
        assert tuple(row["shape"]) == network.shapes[layer.name]
        assert [s["source"] for s in row["synapses"]] == [s.source for s in getattr(layer, "synapses", ())]
        assert row.get("range_bits") == (proven[layer.name].bits if layer.name in proven else None)
        if isinstance(layer, MaxPool):
            assert (row["kernel"], row["stride"], row["source"]) == ([2, 2], [2, 2], "0")
    assert found["layers"][1]["synapses"][0]["padding"] == [1, 1]
    assert found["layers"][1]["levels"] == 4
    assert 0 <= found["layers"][1]["changed"] <= 1


def test_the_summary_without_verification():
    conversion = convert_checkpoint(checkpoint(), Options(verify=0))
    assert summary(conversion)["verification"] is None
    assert "changed" not in layer_rows(conversion)[1]


def test_json_that_cannot_be_written(tmp_path):
    from lava_casc.errors import NetworkFileError

    with pytest.raises(NetworkFileError, match="cannot be written"):
        write_json(tmp_path / "no" / "summary.json", {})
    with pytest.raises(TypeError):
        write_json(tmp_path / "summary.json", {"x": object()})
    assert not os.listdir(tmp_path)


# export


def test_export(saved, tmp_path):
    told = []
    output = tmp_path / "model.net"
    conversion = export(saved, output, Options(verify=2), on_step=lambda i, n, name: told.append(name))
    assert tuple(told) == STEPS
    assert lava_casc.read(output) == conversion.network == convert(load_checkpoint(saved))
    assert sorted(os.listdir(tmp_path)) == ["model.net", "model.pt"]


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), CheckpointError),
        (lambda path: path.unlink(), CheckpointError),
        (
            lambda path: save_model(path, nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), InputSpec(SHAPE)),
            CascError,
        ),
    ],
)
def test_export_writes_nothing_where_a_step_fails(saved, tmp_path, break_it, error):
    output = tmp_path / "model.net"
    output.write_bytes(b"what was there before")
    break_it(saved)
    with pytest.raises(error):
        export(saved, output, Options())
    assert output.read_bytes() == b"what was there before"
    assert {"model.net"} <= set(os.listdir(tmp_path)) <= {"model.net", "model.pt"}


def test_export_writes_nothing_where_the_verification_fails(saved, tmp_path, monkeypatch):
    def fail(*args):
        raise VerificationError("sabotage")

    monkeypatch.setattr("lava_casc.pipeline.verify", fail)
    with pytest.raises(VerificationError, match="sabotage"):
        export(saved, tmp_path / "model.net", Options())
    assert os.listdir(tmp_path) == ["model.pt"]


def test_export_into_no_folder(saved, tmp_path):
    with pytest.raises(CascError, match="cannot be written"):
        export(saved, tmp_path / "no" / "model.net", Options(verify=1))
    assert os.listdir(tmp_path) == ["model.pt"]


def test_export_reads_its_file_back(saved, tmp_path, monkeypatch):
    from lava_casc import netx

    network = convert(model(), SHAPE, weight_bits=7)
    monkeypatch.setattr(netx, "read", lambda path: network)
    with pytest.raises(VerificationError, match="does not give the network that was written"):
        export(saved, tmp_path / "model.net", Options(verify=1))
