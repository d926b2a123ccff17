"""For each data set the network and the training that suit it, and the way from there to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lava_casc.errors import DataError, UnsupportedModelError
from lava_casc.frontend.checkpoint import load_checkpoint, save_model
from lava_casc.frontend.trace import trace
from lava_casc.training.architectures import build
from lava_casc.training.augment import Augmentation
from lava_casc.training.data import Dataset
from lava_casc.training.loop import Epoch, refuse_to_begin_anew
from lava_casc.training.residual import ResidualError
from lava_casc.training.train import TrainingResult, train

#: Training images that a checkpoint carries along, to verify its conversion with.
EXAMPLES = 64

#: What the thresholds start with. After a batch norm few values are greater; with 1, where a sixth is, the gradient
#: of too many is zero, and a ResNet-20 learns far more slowly.
THRESHOLD = 3.0

Augment = Literal["none", "standard", "autoaugment"]


@dataclass(frozen=True)
class Recipe:
    """What suits a data set.

    Attributes
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    epochs, batch_size : int
    learning_rate : float
    augmentation : Augmentation
        The standard one.
    threshold : float
        What the thresholds start with.
    """

    architecture: str
    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: Augmentation = Augmentation(shift=1)
    threshold: float = THRESHOLD


#: Crop and mirror; CASC (arXiv 2406.05371) has AutoAugment and Cutout beside them.
_CIFAR = Recipe("resnet20", epochs=100, batch_size=128, learning_rate=0.1, augmentation=Augmentation(4, flip=True))

#: How each data set is trained where nothing else is said.
RECIPES = {
    # So few layers learn from smaller thresholds as well, and then lose less to 8 bits (1, 1.5, 2 and 3 were tried).
    "digits": Recipe("digits", epochs=60, batch_size=32, learning_rate=0.05, threshold=1.5),
    "fashion-mnist": Recipe("fashion", epochs=12, batch_size=128, learning_rate=0.1),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "folder": _CIFAR,
}


def partial_of(path: str | Path) -> Path:
    """Return where the state of a training is kept until its checkpoint is written.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint.

    Returns
    -------
    Path
    """
    path = Path(path)
    return path.with_name(f"{path.name}.partial")


def train_checkpoint(
    path: str | Path,
    dataset: Dataset,
    *,
    architecture: str | None = None,
    activation: str = "cqrelu",
    levels: int = 8,
    rounding: str = "round",
    width: float = 1.0,
    pool: str = "average",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    augment: Augment = "standard",
    residual: ResidualError | None = None,
    seed: int = 0,
    init: str | Path | None = None,
    bfloat16: bool = False,
    device: str = "auto",
    resume: bool = False,
    examples: int = EXAMPLES,
    progress: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> TrainingResult:
    """Train a network for a data set and write it as a checkpoint, with some training images as its examples.

    After each epoch the state of the training is kept beside the checkpoint-to-be, in ``PATH.partial``, which is
    removed when the checkpoint is written.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint. Its folder exists.
    dataset : Dataset
    architecture : str, optional
        By default that of the data set's `Recipe`.
    activation : {"cqrelu", "relu"}
        ``relu`` trains an ordinary network, which `calibrate` can quantize; it has neither levels nor rounding.
    levels : int
        Of every CQReLU; its threshold is learned, from that of the recipe on.
    rounding : {"round", "floor"}
        Of every CQReLU; ``floor`` is that of CASC (arXiv 2406.05371).
    width, pool
        As for `Design`.
    epochs, batch_size, learning_rate
        By default those of the data set's `Recipe`.
    augment : {"none", "standard", "autoaugment"}
        ``standard`` is the augmentation of the `Recipe`; ``autoaugment`` has AutoAugment and Cutout of half the
        image's side beside it.
    residual : ResidualError, optional
        As for `train`.
    seed : int
        Of the initial weights and of the training.
    init : str or Path, optional
        A checkpoint of the same architecture to begin with, of any levels.
    bfloat16 : bool
        As for `fit`.
    device : {"auto", "cpu", "cuda"}
        ``auto`` is CUDA where there is a device.
    resume : bool
        Go on from ``PATH.partial``, if there is one.
    examples : int
        Training images that the checkpoint carries along.
    progress, on_epoch : callable, optional
        As for `fit`.

    Returns
    -------
    TrainingResult

    Raises
    ------
    DataError
        The architecture is not known, or does not fit the images or `init`; there is no CUDA device.
    UnsupportedModelError
        The network cannot be converted, or the training diverged.
    CheckpointError
        The path cannot be written; a training was cut short there and `resume` is false, or its settings differ.
    MissingDependencyError
        AutoAugment or a network of torchvision, without torchvision.
    """
    path, recipe = Path(path), RECIPES[dataset.name]
    partial = partial_of(path)
    refuse_to_begin_anew(partial, resume)
    settings = Recipe(
        architecture or recipe.architecture,
        epochs or recipe.epochs,
        batch_size or recipe.batch_size,
        recipe.learning_rate if learning_rate is None else learning_rate,
        _augmentation(recipe, augment, dataset),
        recipe.threshold,
    )
    where = pick_device(device)
    model = build(
        settings.architecture,
        channels=dataset.shape[0],
        classes=len(dataset.classes),
        mean=dataset.mean,
        std=dataset.std,
        width=width,
        pool=pool,
        levels=levels,
        rounding=rounding,
        threshold=settings.threshold,
        activation=activation,
        seed=seed,
    )
    _check_fit(model, settings.architecture, dataset)
    if init is not None and not partial.exists():
        load_weights(model, init, dataset)
    chosen: dict[str, str | int | float | bool | None] = {
        "architecture": settings.architecture,
        **({"levels": levels, "rounding": rounding} if activation == "cqrelu" else {"activation": activation}),
        "width": width,
        "pool": pool,
        "augment": augment,
        "init": None if init is None else Path(init).name,
    }
    result = train(
        model.to(where),
        dataset,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
        augmentation=settings.augmentation,
        residual=residual,
        bfloat16=bfloat16,
        partial=partial,
        resume=resume,
        settings=chosen,
        progress=progress,
        on_epoch=on_epoch,
    )
    about = {
        **({} if residual is None else {"residual_steps": residual.steps}),
        **({} if dataset.image_size is None else {"image_size": dataset.image_size}),
        "dataset": dataset.name,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "bfloat16": bfloat16,
        "seed": seed,
        "test_accuracy": result.accuracy,
        "seconds": round(result.seconds),
        "device": where.type,
        "torch": str(torch.__version__),  # torch.load takes no subclass of str
    }
    kept = dataset.train_images[:examples].copy() if examples else None
    save_model(path, model.cpu(), dataset.spec, examples=kept, about={**chosen, **about})
    partial.unlink(missing_ok=True)
    return result


def load_weights(model: nn.Module, path: str | Path, dataset: Dataset) -> None:
    """Give `model` the weights, batch norm statistics and thresholds of a checkpoint of the same architecture.

    Raises
    ------
    DataError
        The checkpoint is of another architecture, width or number of classes.
    CheckpointError
        It cannot be read.
    """
    path = Path(path)
    state = {
        f"{operation.path}.{name}": tensor
        for operation in load_checkpoint(path).graph.operations
        for name, tensor in operation.tensors.items()
    }
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if "num_batches" not in name}
    found = {name: tensor.shape for name, tensor in state.items() if "num_batches" not in name}
    differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if differing:
        raise DataError(
            f"{path}: does not fit the network to train, at {differing[0]}. Give --init a checkpoint of the same "
            "architecture, width and number of classes."
        )
    model.load_state_dict(state, strict=False)


def _augmentation(recipe: Recipe, augment: Augment, dataset: Dataset) -> Augmentation:
    if augment == "none":
        return Augmentation()
    if augment == "standard":
        return recipe.augmentation
    if dataset.shape[0] != 3:
        raise DataError(f"{dataset.name}: AutoAugment is for images of three channels. Train with --augment standard.")
    return replace(recipe.augmentation, autoaugment=True, cutout=min(dataset.shape[1:]) // 2)


def pick_device(name: str) -> torch.device:
    """Return the device of a name: ``auto`` is CUDA where there is a device, and otherwise the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("device cuda: torch finds no CUDA device. Train with --device cpu.")
    return torch.device(name)


def _check_fit(model: nn.Module, architecture: str, dataset: Dataset) -> None:
    """Refuse, before hours of work, a network that cannot take the images or cannot be converted after them."""
    try:
        trace(model, dataset.shape)
    except UnsupportedModelError as error:
        shape = "x".join(map(str, dataset.shape))
        raise DataError(f"architecture {architecture!r} for images of {shape}: {error}") from error
