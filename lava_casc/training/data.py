"""Data sets as the integers that a network takes: `load_dataset` and the registry behind it.

A further data set is one function that returns a `Dataset`, with `@_register` above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.frontend.checkpoint import InputSpec

#: Of the handwritten digits, 360 of 1,797 are for testing: always the same ones.
DIGITS_TEST_SHARE, DIGITS_SPLIT_SEED = 0.2, 0


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, as integers.

    Attributes
    ----------
    name : str
    classes : tuple of str
        The name of each label.
    train_images, test_images : (N, C, H, W) ndarray of uint8
        Within ``[0, input_high]``.
    train_labels, test_labels : (N,) ndarray of int64
    input_high : int
        The greatest value that a pixel can have.
    scale : float
        ``real = scale * integer``: what a model is trained on.

    Raises
    ------
    DataError
        Images and labels do not belong together, or leave their range.
    """

    name: str
    classes: tuple[str, ...]
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    input_high: int
    scale: float

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            problem = self._problem(images, labels)
            if problem:
                raise DataError(f"{self.name}: its {split} split is damaged: {problem}. Get the data set again.")
            images.setflags(write=False)
            labels.setflags(write=False)

    def _problem(self, images: NDArray, labels: NDArray) -> str:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.train_images.shape[1:]:
            return f"images of shape {images.shape} and {images.dtype}"
        if labels.dtype != np.int64 or labels.shape != (len(images),) or not len(images):
            return f"{len(images)} images and {labels.dtype} labels of shape {labels.shape}"
        if not 0 <= labels.min() <= labels.max() < len(self.classes):
            return f"labels from {labels.min()} to {labels.max()} of {len(self.classes)} classes"
        if images.max() > self.input_high:
            return f"a pixel of {images.max()}, greater than {self.input_high}"
        return ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.train_images.shape[1:]  # type: ignore[return-value]

    @property
    def spec(self) -> InputSpec:
        """What the integers mean to a model: the input of its checkpoint."""
        return InputSpec(self.shape, 0, self.input_high, self.scale)


Loader = Callable[[Path | None, bool], Dataset]

DATASETS: dict[str, Loader] = {}


def _register(name: str) -> Callable[[Loader], Loader]:
    def add(loader: Loader) -> Loader:
        DATASETS[name] = loader
        return loader

    return add


def load_dataset(name: str, data_dir: str | Path | None = None, download: bool = False) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        A key of `DATASETS`: ``digits`` comes with scikit-learn, ``fashion-mnist`` lies in a folder.
    data_dir : str or Path, optional
        The folder that holds the files, or gets them.
    download : bool
        Whether to fetch what is missing from the internet.

    Raises
    ------
    DataError
        The data set is unknown, absent or damaged.
    MissingDependencyError
        The package that provides it is not installed.
    """
    if name not in DATASETS:
        raise DataError(f"data set {name!r} is not known. Choose one of {', '.join(sorted(DATASETS))}.")
    return DATASETS[name](None if data_dir is None else Path(data_dir), download)


@_register("digits")
def _digits(data_dir: Path | None, download: bool) -> Dataset:
    """Return the 8x8 handwritten digits that scikit-learn ships, pixels 0 .. 16."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise _missing("digits", "scikit-learn") from error
    found = load_digits()
    images = found.images.astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(images)), test_size=DIGITS_TEST_SHARE, random_state=DIGITS_SPLIT_SEED, stratify=labels
    )
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", classes, images[train], labels[train], images[test], labels[test], 16, 1 / 16)


@_register("fashion-mnist")
def _fashion_mnist(data_dir: Path | None, download: bool) -> Dataset:
    """Return Fashion-MNIST, 28x28 images of clothes, from ``data_dir/FashionMNIST/raw``."""
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError as error:
        raise _missing("fashion-mnist", "torchvision") from error
    if data_dir is None:
        raise DataError("fashion-mnist: no folder is given. Give --data-dir DIR, and --download to fetch it there.")
    where = data_dir / "FashionMNIST" / "raw"
    if not download and not where.is_dir():
        raise DataError(
            f"{where}: no such folder. Give the right --data-dir, or --download to fetch fashion-mnist there."
        )
    try:
        train, test = (FashionMNIST(str(data_dir), train=part, download=download) for part in (True, False))
    except Exception as error:  # torchvision raises whatever its parser, the disk or the network do
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise DataError(
            f"{where}: fashion-mnist cannot be read ({line}). Remove what is there and give --download."
        ) from error
    images = [split.data.numpy()[:, None] for split in (train, test)]
    labels = [split.targets.numpy() for split in (train, test)]
    classes = tuple(train.classes)
    return Dataset("fashion-mnist", classes, images[0], labels[0], images[1], labels[1], 255, 1 / 255)


def _missing(name: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{name}: {package} is not installed. Install it with pip install 'lava-casc[data]'.")
