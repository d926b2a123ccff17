"""Calibration on networks small enough to compute by hand or by brute force, its means, memory and refusals."""

import itertools
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import Model, randomize
from random_models import rescaled, set_shift
from torch import nn

from lava_casc.errors import DataError, UnsupportedModelError
from lava_casc.frontend import (
    CQRNN,
    Calibration,
    Checkpoint,
    CQReLU,
    GraphModel,
    InputSpec,
    calibrate,
    fold,
    load_checkpoint,
    save_model,
    trace,
)
from lava_casc.frontend.calibrate import GRID, METHODS, spread
from lava_casc.pipeline import Options, convert_checkpoint
from lava_casc.study import quantization_errors

SIGNED = (-1000, 1000, 1.0)
#: The function of the same name hides it.
module = sys.modules["lava_casc.frontend.calibrate"]


def checkpoint(model, shape, low=-128, high=127, scale=1 / 64):
    return Checkpoint(trace(model.eval(), shape), InputSpec(shape, low, high, scale))


def columns(*values):
    """Return a checkpoint whose only activation receives the samples themselves, and these samples (N, C)."""
    samples = np.array(values).T
    model = nn.Sequential(nn.ReLU(), nn.Linear(len(values), 2)).double()
    return checkpoint(model, samples.shape[1:], *SIGNED), samples


def found(graph):
    """Return thresholds and shifts of the first activation, as lists."""
    tensors = next(op for op in graph.operations if op.kind == "CQReLU").tensors
    return tensors["threshold"].tolist(), tensors["shift"].tolist() if "shift" in tensors else None


def cqrelu(x, threshold, levels, shift=0.0):
    """CQReLU with rounding, in Python's numbers."""
    step = threshold / levels
    return [min(max(math.floor((v + shift) / step + 0.5), 0), levels) * step for v in x]


def mean(values):
    return sum(values) / len(values)


def cqrelu_means(x, threshold, levels, shifts):
    """Return the mean for each shift."""
    x, s = np.array(x, float), np.array(shifts)
    counts = np.clip(np.floor((x[:, None] + s) * levels / threshold + 0.5), 0, levels)
    return dict(zip(shifts, counts.mean(0) * threshold / levels, strict=True))


def mse(x, a, threshold, levels, shift=0.0):
    return mean([(p - q) ** 2 for p, q in zip(cqrelu(x, threshold, levels, shift), a, strict=True)])


# Thresholds and shifts


RAMP = list(range(-100, 101))


def test_percentile_by_hand():
    """Of the activations 0 (101 times), 1, ..., 100 the 99th percentile is the value at place 0.99 * 200 = 198."""
    ramp, samples = columns(RAMP, [v // 2 for v in RAMP])
    assert found(calibrate(ramp, samples, Calibration(4, "percentile", percentile=99))) == ([98.0, 49.0], None)
    # Of both channels, 402 values: place 396.99 is just below the 98 at place 397, behind the 97 at place 396.
    (threshold,) = {found(calibrate(ramp, samples, Calibration(4, "percentile", False, percentile=99)))[0]}
    both = sorted([max(v, 0) for v in RAMP] + [max(v // 2, 0) for v in RAMP])
    low, high = both[396], both[397]
    assert threshold == pytest.approx(low + 0.99 * (high - low), rel=1e-12)


def test_a_percentile_of_zero_gives_way_to_the_greatest():
    rare, samples = columns([-1] * 99 + [7], RAMP[:99] + [50])
    assert found(calibrate(rare, samples, Calibration(4, "percentile", percentile=90)))[0] == [7.0, 50.0]


@pytest.mark.parametrize("levels", [1, 2, 4, 16])
def test_mse_by_brute_force(levels):
    rng = np.random.default_rng(levels)
    values = [np.rint(rng.standard_t(2, 150) * scale).clip(-900, 900).astype(int).tolist() for scale in (30, 60, 5)]
    heavy, samples = columns(*values)
    relu = [[max(v, 0) for v in x] for x in values]
    thresholds, shifts = found(calibrate(heavy, samples, Calibration(levels, "mse")))
    assert shifts is None
    for x, a, threshold in zip(values, relu, thresholds, strict=True):
        errors = [mse(x, a, max(a) * part / GRID, levels) for part in range(1, GRID + 1)]
        assert round(threshold * GRID / max(a), 6) in range(1, GRID + 1)
        assert mse(x, a, threshold, levels) == pytest.approx(min(errors), rel=1e-9)
    # One for the layer: every value counts alike.
    x, a = (list(itertools.chain(*rows)) for rows in (values, relu))
    threshold, _ = found(calibrate(heavy, samples, Calibration(levels, "mse", per_channel=False)))
    assert mse(x, a, threshold, levels) == pytest.approx(
        min(mse(x, a, max(a) * part / GRID, levels) for part in range(1, GRID + 1)), rel=1e-9
    )


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_distribution_by_brute_force(levels, per_channel):
    rng = np.random.default_rng(levels)
    values = [np.rint(rng.standard_t(3, 400) * scale).clip(-900, 900).astype(int).tolist() for scale in (30, 60)]
    heavy, samples = columns(*values)
    thresholds, shifts = found(calibrate(heavy, samples, Calibration(levels, "distribution", per_channel)))
    rows = values if per_channel else [list(itertools.chain(*samples.tolist()))]
    thresholds, shifts = (value if per_channel else [value] for value in (thresholds, shifts))
    for x, threshold, shift in zip(rows, thresholds, shifts, strict=True):
        a = [max(v, 0) for v in x]
        wanted = mean(a)
        missed = abs(mean(cqrelu(x, threshold, levels, shift)) - wanted)
        # A mean changes only where some value passes a step: between two such places, one shift stands for all.
        steps = [threshold / levels * (k - 0.5) for k in range(1, levels + 1)]
        places = sorted({step - v for step in steps for v in set(x)})
        shift_between = [(p + q) / 2 for p, q in itertools.pairwise(places)]
        means = cqrelu_means(x, threshold, levels, [0.0, *shift_between])
        means = {s: abs(value - wanted) for s, value in means.items()}
        assert missed == pytest.approx(min(means.values()), abs=1e-9)
        # No shift nearer to 0 does as well, but for those between the same two places.
        alike = [s for s, error in means.items() if error <= missed + 1e-9]
        nearest = min(alike, key=abs)
        assert abs(shift) <= abs(nearest) + threshold / 1000
        # No candidate's mean squared error is much less; that of each is taken at a shift found in half the halvings.
        errors = []
        for part in range(1, GRID + 1):
            candidate = max(a) * part / GRID
            tried = {candidate / levels * (k - 0.5) - v for k in range(1, levels + 1) for v in set(x)}
            counts = cqrelu_means(x, candidate, levels, sorted(s + e for s in tried for e in (-1e-6, 1e-6)))
            met = min(counts, key=lambda s: abs(counts[s] - wanted))
            errors.append(mse(x, a, candidate, levels, met))
        assert mse(x, a, threshold, levels, shift) <= 1.1 * min(errors)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_dead_channel_gets_the_greatest_threshold_of_its_layer(method, per_channel):
    dead, samples = columns([-5] * 201, RAMP, [0] * 201)
    threshold, shift = found(calibrate(dead, samples, Calibration(4, method, per_channel)))
    assert (threshold[0] == threshold[2] == threshold[1] > 50) if per_channel else threshold > 50
    if shift is not None and per_channel:
        assert shift[0] == shift[2] == 0
    model = GraphModel(calibrate(dead, samples, Calibration(4, method, per_channel)))
    assert not model.values(torch.tensor(samples).double())[model.graph.operations[1].name][:, [0, 2]].any()


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_layer_has_threshold_one(method):
    dead, samples = columns([-5] * 9, [-1] * 9)
    assert found(calibrate(dead, samples, Calibration(4, method)))[0] == [1.0, 1.0]


def test_a_channel_that_only_quantization_excites_is_silenced():
    """What is dead in the float network must not fire in the quantized one: its mean is to be 0."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        model[1].weight[:], model[1].bias[:] = 1.0, -5.5  # a - 5.5 with a at most 5 there, and 6 when rounded up
    samples = np.array([[0], [1], [2], [3], [4], [5]])
    plain = checkpoint(model, (1,), *SIGNED)
    graph = calibrate(plain, samples, Calibration(1, "distribution", bias_correction=False))
    values = GraphModel(graph).values(torch.tensor(samples).double())
    second = [op for op in graph.operations if op.kind == "CQReLU"][1]
    assert not values[second.name].any()


def test_a_clip_is_the_greatest_threshold():
    model = nn.Sequential(nn.Hardtanh(0, 40.0), nn.Linear(2, 2)).double()
    samples = np.array([RAMP, [v // 4 for v in RAMP]]).T
    for method in METHODS:
        graph = calibrate(checkpoint(model, (2,), *SIGNED), samples, Calibration(8, method, percentile=100))
        assert found(graph)[0][0] <= 40
        assert found(graph)[0][1] <= 25
    assert found(calibrate(checkpoint(model, (2,), *SIGNED), samples, Calibration(8, "percentile")))[0][0] == 40


@pytest.mark.parametrize("functional", [F.relu, torch.relu, lambda x: x.relu(), F.relu6])
def test_functional_activations_are_replaced(functional):
    model = Model(lambda s, x: s.out(functional(s.fc(x))), fc=nn.Linear(3, 4), out=nn.Linear(4, 2))
    samples = np.random.default_rng(0).integers(-128, 128, (20, 3))
    graph = calibrate(checkpoint(model, (3,)), samples, Calibration(4))
    assert [op.kind for op in graph.operations] == ["input", "Linear", "CQReLU", "Linear"]


# Whole networks


def deep():
    """Return a network with pools, a branch and a concatenation, in double precision."""
    torch.manual_seed(3)

    def run(s, x):
        x = s.pool(F.relu(s.norm(s.first(x))))
        y = s.six(s.second(x) + x)
        y = s.average(torch.cat([x, y], 1))
        return s.last(torch.relu(s.dense(y.flatten(1))))

    parts = {"first": nn.Conv2d(2, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "pool": nn.MaxPool2d(2)}
    parts |= {"second": nn.Conv2d(4, 4, 3, padding=1), "six": nn.ReLU6(), "average": nn.AvgPool2d(2)}
    parts |= {"dense": nn.Linear(16, 6), "last": nn.Linear(6, 3)}
    return randomize(Model(run, **parts)).double()


SHAPE = (2, 8, 4)
SAMPLES = np.random.default_rng(5).integers(-128, 128, (150, *SHAPE))


def both(graph, plain):
    """Return the values of a calibrated graph and of the one that it was made of, and its CQReLU operations."""
    x = torch.tensor(SAMPLES).double() / 64
    with torch.no_grad():
        ours, theirs = (GraphModel(g).eval().values(x) for g in (graph, plain))
    return ours, theirs, [op for op in graph.operations if op.kind == "CQReLU"]


def channel_means(values):
    return values.transpose(0, 1).flatten(1).mean(1)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_bias_correction_makes_the_means_equal(method, per_channel):
    """To the rounding of sums in double precision: a shift adds to every sample alike, so it moves the mean exactly."""
    plain = checkpoint(deep(), SHAPE)
    graph = calibrate(plain, SAMPLES, Calibration(3, method, per_channel))
    ours, theirs, activations = both(graph, plain.graph)
    assert len(activations) == 3
    for op in activations[1:]:
        received = channel_means(ours[op.inputs[0]]) + op.tensors["shift"]
        torch.testing.assert_close(received, channel_means(theirs[op.inputs[0]]), rtol=0, atol=1e-13)
        assert op.tensors["shift"].abs().max() > 1e-3
        assert op.tensors["threshold"].shape == (op.tensors["shift"].shape if per_channel else ())
    assert "shift" not in activations[0].tensors  # nothing is quantized before it
    output = graph.outputs[0]
    torch.testing.assert_close(channel_means(ours[output]), channel_means(theirs[output]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_without_bias_correction_the_outputs_bias_stays(method):
    plain = checkpoint(deep(), SHAPE)
    graph = calibrate(plain, SAMPLES, Calibration(3, method, bias_correction=False))
    ours, theirs, activations = both(graph, plain.graph)
    assert torch.equal(graph.operations[-1].tensors["bias"], plain.graph.operations[-1].tensors["bias"])
    assert (channel_means(ours[graph.outputs[0]]) - channel_means(theirs[graph.outputs[0]])).abs().max() > 1e-5
    assert all(("shift" in op.tensors) == (method == "distribution") for op in activations)


@pytest.mark.parametrize("levels", [2, 8])
def test_distribution_makes_the_means_of_activations_equal(levels):
    """To half a jump: one value passing one step changes the mean by a level over the number of values."""
    plain = checkpoint(deep(), SHAPE)
    graph = calibrate(plain, SAMPLES, Calibration(levels, "distribution"))
    ours, theirs, activations = both(graph, plain.graph)
    for op in activations:
        jump = op.tensors["threshold"] / levels / (ours[op.name].numel() / ours[op.name].shape[1])
        missed = (channel_means(ours[op.name]) - channel_means(theirs[op.name])).abs()
        assert bool((missed <= jump * 0.51).all())


def test_the_more_levels_the_nearer():
    plain = checkpoint(deep(), SHAPE)
    for method in METHODS:
        errors = []
        for levels in (2, 8, 64):
            ours, theirs, _ = both(calibrate(plain, SAMPLES, Calibration(levels, method, percentile=100)), plain.graph)
            name = plain.graph.outputs[0]
            errors.append(float((ours[name] - theirs[name]).square().mean()))
        assert errors[0] > 4 * errors[1] > 16 * errors[2], method


def test_a_cqrelu_is_taken_as_it_is():
    """With its own levels nothing changes; its shift stays."""
    act = CQReLU(4, [0.5, 1.5], "round", shift=[0.25, -0.25])
    model = nn.Sequential(act, nn.Linear(2, 2))
    samples = np.random.default_rng(0).integers(-128, 128, (60, 2))
    plain = checkpoint(model, (2,))
    threshold, shift = found(calibrate(plain, samples, Calibration(4, "mse")))
    assert (threshold, shift) == ([0.5, 1.5], [0.25, -0.25])
    again = GraphModel(calibrate(plain, samples, Calibration(4, "mse")))
    x = torch.tensor(samples) / 64
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))
    graph = calibrate(plain, samples, Calibration(16, "distribution"))
    after = GraphModel(graph).values(x)[graph.operations[1].name]
    torch.testing.assert_close(after.mean(0), act(x).mean(0), rtol=0.02, atol=1e-3)


def test_the_same_again_and_nothing_else_changes():
    plain = checkpoint(deep().float(), SHAPE)
    before = {op.name: {k: t.clone() for k, t in op.tensors.items()} for op in plain.graph.operations}
    torch.manual_seed(0)
    state, done = torch.random.get_rng_state(), []
    first = calibrate(plain, SAMPLES, Calibration(4), progress=done.append)
    assert torch.equal(state, torch.random.get_rng_state())
    assert done == sorted(done)
    assert done[-1] == 1
    second = calibrate(plain, SAMPLES, Calibration(4))
    for a, b in zip(first.operations, second.operations, strict=True):
        assert (a.kind, a.arguments) == (b.kind, b.arguments)
        assert all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)
    for op in plain.graph.operations:
        assert all(torch.equal(t, before[op.name][k]) for k, t in op.tensors.items())


def test_values_beyond_those_that_are_searched(monkeypatch):
    plain = checkpoint(deep(), SHAPE)
    whole = calibrate(plain, SAMPLES, Calibration(4, "mse"))
    monkeypatch.setattr(module, "SEARCHED", 4 * 1024)
    few = calibrate(plain, SAMPLES, Calibration(4, "mse"))
    ratio = torch.tensor(found(few)[0]) / torch.tensor(found(whole)[0])
    assert bool((ratio != 1).any())
    assert bool(((ratio - 1).abs() < 0.2).all())


def test_a_calibrated_model_folds_and_its_spikes_are_certified(tmp_path):
    for method, per_channel in itertools.product(METHODS, (True, False)):
        plain = checkpoint(deep().float(), SHAPE)
        graph = calibrate(plain, SAMPLES, Calibration(4, method, per_channel))
        path = tmp_path / "model.pt"
        save_model(path, GraphModel(graph).eval(), plain.input, examples=SAMPLES[:16])
        loaded = load_checkpoint(path)
        conversion = convert_checkpoint(loaded, Options(verify=16))
        assert conversion.verification.certified == 16
        assert max(error.changed for error in conversion.verification.errors) < 0.1
        errors = quantization_errors(fold(loaded.graph), conversion.network, SAMPLES[:16])
        assert max(error["own"] for error in errors.values()) < 0.1


def test_errors_of_dyadic_thresholds_of_channels_are_none():
    """What pipeline and study report as changed must be nothing where the conversion is exact."""
    from random_models import dyadic_model

    rng = np.random.default_rng(1002)
    model, shape = dyadic_model(rng)
    model = rescaled(model, rng)
    images = rng.integers(0, 256, (16, *shape))
    exact = Checkpoint(trace(model, shape), InputSpec(shape, 0, 255, 1.0), images)
    conversion = convert_checkpoint(exact, Options(verify=16))
    assert [error.changed for error in conversion.verification.errors] == [0, 0, 0]
    errors = quantization_errors(fold(exact.graph), conversion.network, images)
    assert all(error["changed"] == error["own"] == 0 for error in errors.values())


# Samples, memory, refusals


def test_samples_are_spread_over_all_classes():
    assert spread(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert spread(10, 4).tolist() == [0, 3, 6, 9]
    assert spread(7, 1).tolist() == [0]


def test_values_that_are_no_longer_read_are_not_kept():
    def network(depth):
        layers = [layer for _ in range(depth) for layer in (nn.Conv2d(2, 2, 1), nn.ReLU())]
        return checkpoint(nn.Sequential(*layers), SHAPE).graph

    assert module._bytes_a_sample(network(3)) == module._bytes_a_sample(network(20))


def test_too_many_samples(monkeypatch):
    plain = checkpoint(deep().float(), SHAPE)
    needed = 150 * module._bytes_a_sample(plain.graph)
    monkeypatch.setattr(module, "MOST_BYTES", needed)
    calibrate(plain, SAMPLES, Calibration(2))
    monkeypatch.setattr(module, "MOST_BYTES", needed - 1)
    with pytest.raises(DataError, match=r"^150 samples: .* would exceed .*Calibrate on 149\.$"):
        calibrate(plain, SAMPLES, Calibration(2))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, *SHAPE), int), r"samples of shape \(0, 2, 8, 4\) and int64 do not fit"),
        (np.zeros((3, 2, 4, 8), int), r"samples of shape \(3, 2, 4, 8\) .* do not fit an integer input of shape"),
        (np.zeros((3, *SHAPE)), "and float64 do not fit"),
        (np.full((3, *SHAPE), 128), r"samples span \[128, 128\], outside the input range \[-128, 127\]"),
        (np.full((3, *SHAPE), -129), r"samples span \[-129, -129\], outside"),
    ],
)
def test_samples_that_do_not_fit(samples, message):
    with pytest.raises(DataError, match=message):
        calibrate(checkpoint(deep(), SHAPE), samples, Calibration(2))


def test_models_that_cannot_be_calibrated():
    with pytest.raises(UnsupportedModelError, match="has no ReLU to calibrate"):
        calibrate(checkpoint(nn.Linear(3, 2), (3,)), np.zeros((2, 3), int), Calibration(2))
    model = Model(lambda s, x: s.r(s.e(x)).mean(1), e=nn.Embedding(9, 3), r=CQRNN(3, 2, 4))
    words = Checkpoint(trace(model.eval(), (5,)), InputSpec((5,), 0, 8, 1))
    with pytest.raises(UnsupportedModelError, match="a model of words cannot be calibrated. Train it with CQRNN"):
        calibrate(words, np.zeros((2, 5), int), Calibration(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels"),
        ({"levels": True}, "levels"),
        ({"levels": 2.0}, "levels"),
        ({"levels": 2, "method": "best"}, "method must be one of percentile, mse, distribution"),
        ({"levels": 2, "percentile": 0}, "percentile"),
        ({"levels": 2, "percentile": 100.1}, "percentile"),
        ({"levels": 2, "percentile": math.nan}, "percentile"),
        ({"levels": 2, "rounding": "up"}, "rounding"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**arguments)


def test_set_shift_is_what_the_constructor_does():
    act = CQReLU(4)
    set_shift(act, np.array([0.5, 1.0]))
    assert torch.equal(act.shift, CQReLU(4, shift=[0.5, 1.0]).shift)
