"""Residual errors: what spiking neurons leave behind by hand, as noise while training, and what that is good for."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from lava_casc.cli import main
from lava_casc.dynamics import VARIANTS
from lava_casc.errors import CheckpointError
from lava_casc.frontend import CQReLU, load_checkpoint
from lava_casc.network import Dense, Input, IntegerNetwork, Neurons, Readout
from lava_casc.reference import simulate
from lava_casc.schedule import WakeSleepSchedule
from lava_casc.training import ResidualError, ResidualNoise, residual_errors, spiking, train

SETTINGS = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "seed": 5}


def _model(levels=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 16), CQReLU(levels, 2.0, "round", True), nn.Linear(16, 3))


def test_a_neuron_with_constant_input_by_hand():
    """Threshold 2, four levels. Two steps of z = 0.75 from u = 1: 1.75, then 2.5, a spike. Its rate is a half, so that
    it says 1; its CQReLU of 0.75 rounds 1.5 levels to 2, which is 1. Of z = 0.25 it is half a level, rounded to 1, and
    no spike in two steps: an error of 1 level."""
    model = CQReLU(4, 2.0, "round")
    assert spiking(model, torch.tensor([[0.75]]), 2)[0].flatten().tolist() == [0.0, 1.0]
    assert residual_errors(model, torch.tensor([[0.75]]), 2) == {"": 0.0}
    assert residual_errors(model, torch.tensor([[0.25]]), 2) == {"": 1.0}
    both = residual_errors(model, torch.tensor([[0.75, 0.25]]), 2)[""]
    assert both == pytest.approx(0.5**0.5)
    # From u = 0, with a floor, it takes three steps of 0.75 to the first spike.
    assert spiking(CQReLU(4, 2.0), torch.tensor([[0.75]]), 3)[0].flatten().tolist() == pytest.approx([0, 0, 2 / 3])


def test_channels_have_thresholds_and_shifts_of_their_own():
    """A threshold of 2 and a shift of 0.5 make of 0.25 what 0.75 is without; the other channel spikes at 1."""
    model = CQReLU(4, [2.0, 1.0], "round", shift=[0.5, 0.0])
    z = torch.tensor([[0.25, 0.75]])
    # From u = 1 and 0.5: 1.75 and 1.25, a spike; 2.5, a spike, and 0.25 + 0.75 = 1, a spike.
    assert spiking(model, z, 2)[0].tolist() == [[[0.0, 1.0]], [[1.0, 1.0]]]
    # 0.75 of 2 rounds to 2 of 4 levels, a half, as the rate; 0.75 of 1 is 3 levels, and the rate is 4.
    assert residual_errors(model, z, 2)[""] == pytest.approx(0.5**0.5)


def test_a_layer_is_not_charged_with_what_its_inputs_got_wrong():
    first, second = CQReLU(2, 1.0), CQReLU(2, 1.0)
    model = nn.Sequential(first, second)
    # 0.9 in one step: the first says nothing instead of one level, the second had nothing to say.
    assert residual_errors(model, torch.tensor([[0.9]]), 1) == {"0": 1.0, "1": 0.0}


def test_a_max_pool_passes_on_how_much_the_maximum_has_grown():
    """Two neurons that spike in turns: the maximum of their counts is what the pool has passed on, not one a step."""
    model = nn.Sequential(CQReLU(4, 1.0), nn.MaxPool2d((1, 2)))
    x = torch.tensor([[[[0.5, 0.75]]]])
    outputs = spiking(model, x, 4)[0].flatten() * torch.arange(1, 5)
    # The counts are 0 1 1 2 and 0 1 2 3; of a maximum of spikes the last would be 3 as well, of their sum 5.
    assert outputs.tolist() == pytest.approx([0, 1, 2, 3])
    model = nn.Sequential(CQReLU(4, 1.0), nn.MaxPool2d((1, 2)))
    alternating = torch.tensor([[[[0.5, 0.0]]], [[[0.5, 0.5]]]])
    assert (spiking(model, alternating, 4)[0][-1] * 4).flatten().tolist() == pytest.approx([2, 2])


@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_it_spikes_as_the_integer_network_does_without_a_sleep(rounding):
    """The same network by hand in both forms, in numbers that floating point holds: a spike is 1 here, 16 there."""
    rng = np.random.default_rng(3)
    first, second = rng.integers(-7, 8, (9, 12)), rng.integers(-7, 8, (5, 9))
    last, images = rng.integers(-7, 8, (2, 5)), 4 * rng.integers(0, 4, (6, 12))
    start = 8 if rounding == "round" else 0
    network = IntegerNetwork(
        (
            Input("image", (12,), 0, 12),
            *(
                _sixteen(name, source, weight, start)
                for name, source, weight in (("a", "image", first), ("b", "a", second))
            ),
            Readout("end", (Dense("b", last.astype(np.int32)),), np.zeros(2, int)),
        )
    )
    model = nn.Sequential(
        nn.Linear(12, 9), CQReLU(4, 16.0, rounding), nn.Linear(9, 5), CQReLU(4, 16.0, rounding), nn.Linear(5, 2)
    )
    for layer, weight, spike in ((model[0], first, 1), (model[2], second, 16), (model[4], last, 16)):
        layer.weight.data = torch.tensor(weight / spike, dtype=torch.float32)
        layer.bias.data.zero_()
    # A share of a quarter of the image in every step; the readout hears of it three steps later.
    schedule = WakeSleepSchedule(4, 20)
    record = simulate(network, images, schedule, record=("logits",), variant=VARIANTS["if"])
    found = spiking(model, torch.tensor(images / 4, dtype=torch.float32), 8)[0].numpy()
    assert np.abs(found).max() > 1
    for step in range(1, 9):
        assert (record.logits_by_step[:, step + 2] == found[step - 1] * step).all()


def _sixteen(name, source, weight, start):
    n = len(weight)
    full = {"threshold": np.full(n, 16), "initial": np.full(n, start), "bias": np.zeros(n, int), "scale": np.ones(n)}
    return Neurons(name, (Dense(source, weight.astype(np.int32)),), levels=4, **full)


def test_noise_is_there_while_training_and_never_else():
    model = _model()
    x = torch.rand(200, 1, 4, 6)
    quiet = model(x)
    with ResidualNoise(model, ResidualError(1), x) as noise:
        noise.intensity, noise.strength = {"2": 1.0}, 1.0
        inside = {}
        handle = model[2].register_forward_hook(lambda module, _, value: inside.update(value=value))
        assert (model.eval()(x) == quiet).all()
        model.train()(x)
        clean = model[2].forward(model[1](model[0](x)))
        between = (clean > 0) & (clean < 2)
        difference = (inside["value"] - clean)[between].detach()
        # Of one level, 2 / 4, at both ends cut off.
        assert 0.3 < float(difference.std()) < 0.55
        assert inside["value"].min() == 0
        model(20 * x)  # most neurons are at the top
        assert inside["value"].max() == 2
        noise.strength = 0.0
        assert (model(x) == quiet).all()
        handle.remove()
        noise.strength = 1.0
    assert (model(x) == quiet).all()


def test_noise_rises_from_nothing_and_is_measured_before_every_epoch(toy):
    model, x = _model(), torch.rand(8, 1, 4, 6)
    noise = ResidualNoise(model, ResidualError(2, rise=0.5), x)
    strengths, measured = [], []
    batches = noise.rising(lambda epoch: range(4), epochs=2, steps_per_epoch=4)
    for epoch in range(2):
        for _ in batches(epoch):
            strengths.append(noise.strength)
            measured.append(dict(noise.intensity))
        model[1].weight.data *= 1.7
    assert strengths == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert measured[0] == measured[3] != measured[4]
    model[1].weight.data /= 1.7
    noise.strength = 0.0
    assert measured[4] == pytest.approx(residual_errors(model, x, 2))


def test_training_with_noise_is_reproducible_and_another_than_without(toy):
    found = []
    for residual in (None, ResidualError(1), ResidualError(1), ResidualError(1, rise=0.0)):
        model = _model()
        train(model, toy, **SETTINGS, residual=residual)
        found.append(model[1].weight.detach().clone())
        assert not model[2]._forward_hooks
    assert (found[1] == found[2]).all()
    assert (found[0] != found[1]).any()
    assert (found[1] != found[3]).any()


def test_it_resumes_with_the_same_noise_alone(toy, tmp_path):
    whole = _model()
    train(whole, toy, **SETTINGS, residual=ResidualError(2))
    cut = _model()

    def stop(done, epochs, epoch):
        raise KeyboardInterrupt

    how = {**SETTINGS, "partial": tmp_path / "partial", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        train(cut, toy, **how, residual=ResidualError(2), on_epoch=stop)
    assert not cut[2]._forward_hooks
    with pytest.raises(CheckpointError, match="holds a training with residual_steps 2, which cannot go on with 4"):
        train(_model(), toy, **how, residual=ResidualError(4))
    with pytest.raises(CheckpointError, match="holds a training with residual_rise 0.5, which cannot go on with None"):
        train(_model(), toy, **how)
    resumed = _model()  # it measures in training mode, without the noise of the epoch before
    train(resumed, toy, **how, residual=ResidualError(2))
    assert all((a == b).all() for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_the_command_trains_for_few_steps_and_notes_it(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    weights = []
    for name, options in (("plain.pt", ()), ("noisy.pt", ("--residual-steps", "2"))):
        monkeypatch.setattr(sys, "argv", ["lava-casc", "train", "--epochs", "1", "-o", name, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        checkpoint = load_checkpoint(tmp_path / name)
        assert checkpoint.about.get("residual_steps") == (2 if options else None)
        weights.append(next(iter(checkpoint.model.parameters())))
    assert (weights[0] != weights[1]).any()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "samples": 0}, {"steps": 1, "rise": 1.5}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="steps and samples are at least 1, rise is from 0 to 1"):
        ResidualError(**wrong)
