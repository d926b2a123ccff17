"""Data sets, small CQReLU networks for them, and the loop that trains them."""

from lava_casc.training.architectures import ARCHITECTURES, build
from lava_casc.training.data import DATASETS, Dataset, load_dataset
from lava_casc.training.recipes import RECIPES, Recipe, train_checkpoint
from lava_casc.training.train import Epoch, TrainingResult, evaluate, train

__all__ = [
    "ARCHITECTURES",
    "DATASETS",
    "RECIPES",
    "Dataset",
    "Epoch",
    "Recipe",
    "TrainingResult",
    "build",
    "evaluate",
    "load_dataset",
    "train",
    "train_checkpoint",
]
