"""Data sets, CQReLU networks for them, and the loop that trains them."""

from lava_casc.training.architectures import ARCHITECTURES, Design, build
from lava_casc.training.augment import Augmentation
from lava_casc.training.data import DATASETS, Dataset, load_dataset
from lava_casc.training.loop import Epoch, fit
from lava_casc.training.recipes import RECIPES, Recipe, partial_of, train_checkpoint
from lava_casc.training.residual import ResidualError, ResidualNoise, residual_errors, spiking
from lava_casc.training.train import TrainingResult, evaluate, train

__all__ = [
    "ARCHITECTURES",
    "DATASETS",
    "RECIPES",
    "Augmentation",
    "Dataset",
    "Design",
    "Epoch",
    "Recipe",
    "ResidualError",
    "ResidualNoise",
    "TrainingResult",
    "build",
    "evaluate",
    "fit",
    "load_dataset",
    "partial_of",
    "residual_errors",
    "spiking",
    "train",
    "train_checkpoint",
]
