"""The training loop: it learns, repeats itself for a seed, disturbs nothing, and survives an interruption."""

import numpy as np
import pytest
import torch
from torch import nn

from lava_casc.errors import CheckpointError
from lava_casc.training import Augmentation, evaluate, train


def _model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


SETTINGS = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "seed": 5}


def test_training_learns_and_reports_what_it_measured(toy):
    model = _model()
    assert evaluate(model, toy.test_images, toy.test_labels, toy.scale) < 0.7
    result = train(model, toy, **{**SETTINGS, "epochs": 8})
    assert result.accuracy == evaluate(model, toy.test_images, toy.test_labels, toy.scale) > 0.9
    assert len(result.history) == 8
    assert result.history[-1].loss < result.history[0].loss
    assert result.history[-1].measured["accuracy"] > 0.9
    assert sum(epoch.seconds for epoch in result.history) == result.seconds > 0
    assert result.seed == 5
    assert not model.training


def _weights(toy, state, **changes):
    model = _model(dropout=0.2)
    torch.manual_seed(state)
    train(model, toy, **{**SETTINGS, "augmentation": Augmentation(1, True, 2), **changes})
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_same_seed_same_weights_whatever_the_random_state(toy):
    first = _weights(toy, 1)
    assert torch.equal(first, _weights(toy, 2))
    assert not torch.equal(first, _weights(toy, 1, seed=6))


def test_random_state_of_the_caller_is_not_disturbed(toy):
    model = _model(dropout=0.5)
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    train(model, toy, **SETTINGS)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_progress_counts_every_step(toy):
    calls = []
    train(_model(), toy, **SETTINGS, progress=calls.append)
    assert calls == [i / 24 for i in range(1, 25)]  # 90 images are 6 batches of 16, 4 times


def test_interruption_leaves_a_model_that_works(toy):
    def interrupt(done):
        if done > 0.3:
            raise KeyboardInterrupt

    model = _model(dropout=0.5)
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(model, toy, **SETTINGS, progress=interrupt)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.training
    assert 0 <= evaluate(model, toy.test_images, toy.test_labels, toy.scale) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": Augmentation(1)}, "with shift 0, which cannot go on with 1"),
        ({"batch_size": 15}, "with batch_size 16, which cannot go on with 15"),  # as many steps as before
    ],
)
def test_other_settings_cannot_go_on(toy, tmp_path, changes, message):
    path = tmp_path / "x.partial"
    train(_model(), toy, **SETTINGS, partial=path)
    with pytest.raises(CheckpointError, match=message):
        train(_model(), toy, **{**SETTINGS, **changes}, partial=path, resume=True)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"batch_size": 0}])
def test_nothing_to_train_is_refused(toy, changes):
    with pytest.raises(ValueError, match="must be at least 1"):
        train(_model(), toy, **{**SETTINGS, **changes})


class _Brightest(nn.Module):
    """Answers the brightest of three pixels, provided it gets the scaled image in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x):
        assert not self.training
        assert x.max() <= 0.5
        return x.flatten(1) * self.one


@pytest.mark.parametrize("batch_size", [1, 3, 512])
def test_evaluate_counts_right_answers_and_keeps_the_mode(batch_size):
    images = np.array([[4, 0, 1], [0, 2, 0], [1, 0, 2], [0, 4, 0]], np.uint8).reshape(4, 1, 1, 3)
    labels = np.array([0, 1, 2, 0])
    model = _Brightest().train()
    assert evaluate(model, images, labels, 1 / 8, batch_size) == 0.75
    assert model.training


def test_evaluate_needs_a_label_for_each_image(toy):
    with pytest.raises(ValueError, match="30 images and 90 labels"):
        evaluate(_model(), toy.test_images, toy.train_labels, toy.scale)
