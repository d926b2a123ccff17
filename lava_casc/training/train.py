"""Train and evaluate a CQReLU network on labelled images, the same every time for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lava_casc.training.augment import Augmentation, augmented
from lava_casc.training.data import Dataset
from lava_casc.training.loop import Epoch, fit
from lava_casc.training.residual import ResidualError, ResidualNoise

LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training.

    Attributes
    ----------
    accuracy : float
        On the test images, after the last epoch: no epoch is chosen by the test images.
    history : tuple of Epoch
        Each measured ``loss`` and ``accuracy``, on the training images as they were trained on.
    seed : int
    """

    accuracy: float
    history: tuple[Epoch, ...]
    seed: int

    @property
    def seconds(self) -> float:
        """The time of all epochs."""
        return sum(epoch.seconds for epoch in self.history)


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    augmentation: Augmentation | None = None,
    residual: ResidualError | None = None,
    bfloat16: bool = False,
    partial: Path | None = None,
    resume: bool = False,
    settings: Mapping[str, str | int | float | bool | None] | None = None,
    progress: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> TrainingResult:
    """Train `model` in place with `fit` and label smoothing, and leave it in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Takes real images (N, C, H, W) and returns (N, classes). Trained on the device where it lies.
    dataset : Dataset
    epochs, batch_size : int
    learning_rate : float
        The greatest one, at the start.
    seed : int
        Of the order of images and their augmentation.
    augmentation : Augmentation, optional
        By default none.
    residual : ResidualError, optional
        The errors of a network that is read after few steps, as noise in the activations. By default none.
    bfloat16, partial, resume, settings, progress, on_epoch
        As for `fit`. The data set, the batch size and the augmentation are among the settings in any case.

    Returns
    -------
    TrainingResult

    Raises
    ------
    CheckpointError, UnsupportedModelError
        As for `fit`.
    """
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs ({epochs}) and batch_size ({batch_size}) must be at least 1")
    augmentation = augmentation or Augmentation()
    device = next(model.parameters()).device
    images = torch.tensor(dataset.train_images, device=device)
    labels = torch.tensor(dataset.train_labels, device=device)
    mean = torch.tensor(np.round(np.array(dataset.mean) / dataset.scale).astype(np.uint8), device=device)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(images)).to(device)
        for batch, chosen in zip(
            augmented(images, order, batch_size, augmentation, mean), order.split(batch_size), strict=True
        ):
            yield (batch * dataset.scale).contiguous(memory_format=torch.channels_last), labels[chosen]

    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, wanted = batch
        logits = model(x).float()
        return {
            "loss": F.cross_entropy(logits, wanted, label_smoothing=LABEL_SMOOTHING),
            "accuracy": (logits.argmax(1) == wanted).float().mean(),
        }

    digest = hashlib.sha256(dataset.train_labels.tobytes())
    digest.update(np.ascontiguousarray(dataset.train_images).data)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU
    steps_per_epoch = -(-len(images) // batch_size)
    with ExitStack() as stack:
        noisy = None
        if residual is not None:
            measured = (images[: residual.samples] * dataset.scale).contiguous(memory_format=torch.channels_last)
            noise = stack.enter_context(ResidualNoise(model, residual, measured))
            noisy = noise.rising(batches, epochs, steps_per_epoch)
        history = fit(
            model,
            noisy or batches,
            loss,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            learning_rate=learning_rate,
            seed=seed,
            bfloat16=bfloat16,
            partial=partial,
            resume=resume,
            settings={
                **(settings or {}),
                **asdict(augmentation),
                **({} if residual is None else {f"residual_{name}": n for name, n in asdict(residual).items()}),
                "batch_size": batch_size,
                "data": dataset.name,
                "images": digest.hexdigest()[:16],
            },
            progress=progress,
            on_epoch=on_epoch,
        )
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    accuracy = evaluate(model, dataset.test_images, dataset.test_labels, dataset.scale)
    return TrainingResult(accuracy, history, seed)


def evaluate(
    model: nn.Module,
    images: NDArray,
    labels: NDArray,
    scale: float,
    batch_size: int = 512,
    progress: Callable[[int], None] = lambda done: None,
) -> float:
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
    progress : callable
        Called with the number of images done.

    Returns
    -------
    float
        Within [0, 1].
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
                progress(start + len(predicted))
    finally:
        model.train(was_training)
    return right / len(images)
