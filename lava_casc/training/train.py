"""Train and evaluate a CQReLU network: a plain supervised loop, the same every time for the same seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lava_casc.training.data import Dataset

MOMENTUM, WEIGHT_DECAY, LABEL_SMOOTHING = 0.9, 5e-4, 0.1


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training measured.

    Attributes
    ----------
    loss : float
        The mean over the training images, label smoothing and augmentation included.
    accuracy : float
        The share of training images that were classified rightly while they were trained on.
    seconds : float
    """

    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training.

    Attributes
    ----------
    accuracy : float
        On the test images, after the last epoch: no epoch is chosen by the test images.
    history : tuple of Epoch
    seconds : float
    seed : int
    """

    accuracy: float
    history: tuple[Epoch, ...]
    seconds: float
    seed: int


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    shift: int = 1,
    progress: Callable[[float], None] | None = None,
) -> TrainingResult:
    """Train `model` in place and leave it in evaluation mode.

    Stochastic gradient descent with Nesterov momentum, one cosine from `learning_rate` to 0, label smoothing,
    and images shifted at random. Nothing outside of the model changes, torch's random state included. An
    interruption (Ctrl-C) goes through to the caller and leaves a model that works, as far as it had got.

    Parameters
    ----------
    model : torch.nn.Module
        Takes real images (N, C, H, W) and returns (N, classes). Trained on the device where it lies.
    dataset : Dataset
    epochs, batch_size : int
    learning_rate : float
        The greatest one, at the start.
    seed : int
        Of the order of images and their shifts.
    shift : int
        Each image is moved by up to so many pixels along both axes; 0 for none.
    progress : callable, optional
        Called after every step with the share that is done, the last time with 1.
    """
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs ({epochs}) and batch_size ({batch_size}) must be at least 1")
    began = time.perf_counter()
    device = next(model.parameters()).device
    images = torch.tensor(dataset.train_images, device=device)
    labels = torch.tensor(dataset.train_labels, device=device)
    steps = epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.SGD(_groups(model), learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history: list[Epoch] = []
    done = 0
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # for a dropout that a model may hold
            generator = torch.Generator().manual_seed(seed)
            for _ in range(epochs):
                model.train()
                start, loss_sum, right = time.perf_counter(), 0.0, 0
                for chosen in torch.randperm(len(images), generator=generator).to(device).split(batch_size):
                    x = _shifted(images[chosen], shift, generator) * dataset.scale
                    logits = model(x)
                    loss = F.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    cosine.step()
                    loss_sum += loss.item() * len(chosen)
                    right += int((logits.argmax(1) == labels[chosen]).sum())
                    done += 1
                    if progress is not None:
                        progress(done / steps)
                history.append(Epoch(loss_sum / len(images), right / len(images), time.perf_counter() - start))
    finally:
        model.eval()
    accuracy = evaluate(model, dataset.test_images, dataset.test_labels, dataset.scale)
    return TrainingResult(accuracy, tuple(history), time.perf_counter() - began, seed)


def evaluate(model: nn.Module, images: NDArray, labels: NDArray, scale: float, batch_size: int = 512) -> float:
    """Return the share of images that `model` classifies rightly, in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Its mode is left as it was.
    images : (N, C, H, W) ndarray of integers
    labels : (N,) ndarray of integers
    scale : float
        The model gets ``scale * images``.
    batch_size : int
        Changes no result.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: as many of both, and at least one")
    was_training = model.training
    device = next(model.parameters()).device
    model.eval()
    right = 0
    try:
        with torch.no_grad():
            for start in range(0, len(images), batch_size):
                batch = torch.tensor(images[start : start + batch_size], device=device)
                predicted = model(batch * scale).argmax(1).cpu().numpy()
                right += int(np.count_nonzero(predicted == labels[start : start + batch_size]))
    finally:
        model.train(was_training)
    return right / len(images)


def _groups(model: nn.Module) -> list[dict]:
    """Weights decay; biases, batch norm and thresholds, which have one dimension at most, do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _shifted(images: torch.Tensor, limit: int, generator: torch.Generator) -> torch.Tensor:
    """Return each image moved by up to `limit` pixels along both axes, zeros moving in."""
    if limit == 0:
        return images
    n, _, height, width = images.shape
    padded = F.pad(images, (limit,) * 4)
    offsets = torch.randint(0, 2 * limit + 1, (2, n, 1), generator=generator).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)
    columns = offsets[1] + torch.arange(width, device=images.device)
    return padded[torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None]].movedim(
        -1, 1
    )
