"""For each data set the network and the training that suit it, and the way from there to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lava_casc.frontend.checkpoint import save_model
from lava_casc.training.architectures import build
from lava_casc.training.data import Dataset
from lava_casc.training.train import TrainingResult, train

#: Training images that a checkpoint carries along, to verify its conversion with.
EXAMPLES = 64


@dataclass(frozen=True)
class Recipe:
    """What `build` and `train` are called with.

    Attributes
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    epochs, batch_size : int
    learning_rate : float
    """

    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float


RECIPES = {
    "digits": Recipe("digits", epochs=60, batch_size=32, learning_rate=0.05),
    "fashion-mnist": Recipe("fashion", epochs=12, batch_size=128, learning_rate=0.1),
}


def train_checkpoint(
    path: str | Path,
    dataset: Dataset,
    *,
    architecture: str | None = None,
    levels: int = 8,
    rounding: str = "round",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> TrainingResult:
    """Train a network for a data set and write it as a checkpoint, with some training images as its examples.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint. Its folder exists.
    dataset : Dataset
    architecture, epochs, batch_size, learning_rate
        By default those of the data set's `Recipe`.
    levels : int
        Of every CQReLU; its threshold is learned.
    rounding : {"round", "floor"}
        Of every CQReLU; ``floor`` is that of CASC (arXiv 2406.05371).
    seed : int
        Of the initial weights and of the training.
    progress : callable, optional
        Called with the share of the training that is done.

    Raises
    ------
    DataError
        The architecture is not known.
    UnsupportedModelError
        The training diverged: a weight is not finite or a threshold not positive.
    CheckpointError
        The path cannot be written.
    """
    recipe = RECIPES[dataset.name]
    settings = Recipe(
        architecture or recipe.architecture,
        epochs or recipe.epochs,
        batch_size or recipe.batch_size,
        recipe.learning_rate if learning_rate is None else learning_rate,
    )
    model = build(settings.architecture, levels=levels, rounding=rounding, seed=seed)
    result = train(
        model,
        dataset,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        progress=progress,
    )
    about = {
        "dataset": dataset.name,
        "levels": levels,
        "rounding": rounding,
        "seed": seed,
        "test_accuracy": result.accuracy,
        "torch": str(torch.__version__),  # torch.load takes no subclass of str
    }
    save_model(
        path,
        model,
        dataset.spec,
        examples=dataset.train_images[:EXAMPLES].copy(),
        about={**vars(settings), **about},
    )
    return result
