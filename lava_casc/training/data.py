"""Data sets as the integers that a network takes: `load_dataset` and the registry behind it.

A further data set is one function that returns a `Dataset`, with `@_register` above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import DataError, MissingDependencyError, first_line
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
    image_size : int or None
        The side that images of a folder were scaled and cropped to.

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
    image_size: int | None = None

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

    @cached_property
    def _pixels(self) -> NDArray[np.int64]:
        """How often each channel has each value, over the training images: (C, 256)."""
        counts = np.zeros((self.shape[0], 256), np.int64)
        for start in range(0, len(self.train_images), 1000):  # bincount makes eight bytes of each pixel
            for channel, pixels in enumerate(self.train_images[start : start + 1000].swapaxes(0, 1)):
                counts[channel] += np.bincount(pixels.ravel(), minlength=256)
        return counts

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the real training pixels, one a channel, to four digits."""
        values = np.arange(256) * self.scale
        return tuple(round(float(np.average(values, weights=counts)), 4) for counts in self._pixels)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the real training pixels, one a channel, to four digits and greater than 0."""
        values = np.arange(256) * self.scale
        squares = [
            np.average((values - np.average(values, weights=counts)) ** 2, weights=counts) for counts in self._pixels
        ]
        return tuple(max(round(float(np.sqrt(square)), 4), 1e-4) for square in squares)


Loader = Callable[[Path | None, bool], Dataset]

#: What loads each data set, by the name that `load_dataset` takes.
DATASETS: dict[str, Loader] = {}


def _register(name: str) -> Callable[[Loader], Loader]:
    def add(loader: Loader) -> Loader:
        DATASETS[name] = loader
        return loader

    return add


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    download: bool = False,
    image_size: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str
        A key of `DATASETS`: ``digits`` comes with scikit-learn, the others lie in a folder. ``folder`` is any images
        in ``DIR/train/CLASS`` and ``DIR/test/CLASS``.
    data_dir : str or Path, optional
        The folder that holds the files, or gets them.
    download : bool
        Whether to fetch what is missing from the internet.
    image_size : int, optional
        Of ``folder`` alone: scale the shorter side of each image to so many pixels and crop the middle. By default
        all images have one size.
    progress : callable
        Of ``folder`` alone: called with the share of images that are read.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        The data set is unknown, absent or damaged.
    MissingDependencyError
        The package that provides it is not installed.
    """
    where = None if data_dir is None else Path(data_dir)
    if name == "folder":
        return _folder(where, image_size, progress)
    if name not in DATASETS:
        raise DataError(f"data set {name!r} is not known. Choose one of {', '.join(sorted([*DATASETS, 'folder']))}.")
    if image_size is not None:
        raise DataError(f"{name}: its images have a size of their own. Leave --image-size out.")
    return DATASETS[name](where, download)


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
    train, test = _of_torchvision("fashion-mnist", "FashionMNIST", "FashionMNIST/raw", data_dir, download)
    images = [split.data.numpy()[:, None] for split in (train, test)]
    labels = [split.targets.numpy() for split in (train, test)]
    classes = tuple(train.classes)
    return Dataset("fashion-mnist", classes, images[0], labels[0], images[1], labels[1], 255, 1 / 255)


@_register("cifar10")
def _cifar10(data_dir: Path | None, download: bool) -> Dataset:
    """Return CIFAR-10, 32x32 images, from ``data_dir/cifar10.npz`` or ``data_dir/cifar-10-batches-py``."""
    return _cifar("cifar10", "CIFAR10", "cifar-10-batches-py", data_dir, download)


@_register("cifar100")
def _cifar100(data_dir: Path | None, download: bool) -> Dataset:
    """Return CIFAR-100, 32x32 images, from ``data_dir/cifar100.npz`` or ``data_dir/cifar-100-python``."""
    return _cifar("cifar100", "CIFAR100", "cifar-100-python", data_dir, download)


def _cifar(name: str, kind: str, folder: str, data_dir: Path | None, download: bool) -> Dataset:
    if data_dir is not None and (data_dir / f"{name}.npz").is_file():
        return _from_npz(name, data_dir / f"{name}.npz")
    train, test = _of_torchvision(name, kind, folder, data_dir, download)
    images = [np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)) for split in (train, test)]
    labels = [np.array(split.targets, np.int64) for split in (train, test)]
    return Dataset(name, tuple(train.classes), images[0], labels[0], images[1], labels[1], 255, 1 / 255)


def _from_npz(name: str, file: Path) -> Dataset:
    """Return a data set of ``x_train``, ``y_train``, ``x_test``, ``y_test`` (images NHWC) and ``classes``."""
    try:
        with file.open("rb") as opened:
            content = np.load(opened, allow_pickle=False)
            found = {key: content[key] for key in ("x_train", "y_train", "x_test", "y_test", "classes")}
    except Exception as error:  # numpy raises almost anything on a damaged file
        raise DataError(
            f"{file}: cannot be read ({first_line(error)}). It holds the arrays x_train, y_train, x_test, y_test "
            "and classes."
        ) from error
    for key, dimensions in (("x_train", 4), ("y_train", 1), ("x_test", 4), ("y_test", 1), ("classes", 1)):
        kinds = "U" if key == "classes" else "iu"
        if found[key].ndim != dimensions or found[key].dtype.kind not in kinds:
            raise DataError(
                f"{file}: {key} is of shape {found[key].shape} and {found[key].dtype}. It holds uint8 images "
                "(N, H, W, C), integer labels (N,) and the classes as strings."
            )
    images = [np.ascontiguousarray(found[key].transpose(0, 3, 1, 2)) for key in ("x_train", "x_test")]
    labels = [found[key].astype(np.int64) for key in ("y_train", "y_test")]
    try:
        classes = tuple(str(label) for label in found["classes"])
        return Dataset(name, classes, images[0], labels[0], images[1], labels[1], 255, 1 / 255)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _of_torchvision(name: str, kind: str, folder: str, data_dir: Path | None, download: bool) -> tuple[Any, Any]:
    """Return the training and the test split of a data set as torchvision reads it from ``data_dir/folder``."""
    try:
        import torchvision.datasets
    except ImportError as error:
        raise _missing(name, "torchvision") from error
    if data_dir is None:
        raise DataError(f"{name}: no folder is given. Give --data-dir DIR, and --download to fetch it there.")
    where = data_dir / folder
    if not download and not where.is_dir():
        raise DataError(f"{where}: no such folder. Give the right --data-dir, or --download to fetch {name} there.")
    read = getattr(torchvision.datasets, kind)
    try:
        return read(str(data_dir), train=True, download=download), read(str(data_dir), train=False, download=download)
    except Exception as error:  # torchvision raises whatever its parser, the disk or the network do
        raise DataError(
            f"{where}: {name} cannot be read ({first_line(error)}). Remove what is there and give --download."
        ) from error


def _folder(data_dir: Path | None, image_size: int | None, progress: Callable[[float], None]) -> Dataset:
    """Return the images in ``data_dir/train/CLASS`` and ``data_dir/test/CLASS``, in memory, as RGB."""
    try:
        from torchvision.datasets import ImageFolder
    except ImportError as error:
        raise _missing("folder", "torchvision") from error
    if data_dir is None:
        raise DataError("folder: no folder is given. Give --data-dir DIR, with DIR/train/CLASS and DIR/test/CLASS.")
    splits = []
    for split in ("train", "test"):
        try:
            splits.append(ImageFolder(str(data_dir / split)))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{data_dir / split}: no images by class ({first_line(error)}). Put them into {split}/CLASS."
            ) from error
    train, test = splits
    if train.classes != test.classes:
        odd = sorted({*train.classes} ^ {*test.classes})[0]
        raise DataError(f"{data_dir}: class {odd!r} is in one of train and test alone. Give both the same classes.")
    size = (image_size, image_size) if image_size else _size(train.samples[0][0])
    paths = [path for split in splits for path, _ in split.samples]
    images = np.split(_read_images(paths, size, image_size is not None, progress), [len(train)])
    labels = [np.array(split.targets, np.int64) for split in splits]
    kept = images[0], labels[0], images[1], labels[1]
    return Dataset("folder", tuple(train.classes), *kept, 255, 1 / 255, image_size)


def _size(path: str) -> tuple[int, int]:
    height, width = _read_image(path).shape[1:]
    return height, width


def _read_images(
    paths: list[str], size: tuple[int, int], resize: bool, progress: Callable[[float], None]
) -> NDArray[np.uint8]:
    images = np.empty((len(paths), 3, *size), np.uint8)
    for i, path in enumerate(paths):
        image = _read_image(path, size[0] if resize else None)
        if image.shape[1:] != size:
            found, first = ("x".join(map(str, one)) for one in (image.shape[1:], size))
            raise DataError(f"{path}: is of {found} pixels, the first image of {first}. Give --image-size.")
        images[i] = image
        progress((i + 1) / len(paths))
    return images


def _read_image(path: str, image_size: int | None = None) -> NDArray[np.uint8]:
    """Return an image as RGB (3, H, W), scaled and cropped if a size is given."""
    import torchvision.transforms.functional as F
    from torchvision.datasets.folder import default_loader

    try:
        image = default_loader(path)
    except Exception as error:  # Pillow raises almost anything on a damaged file
        raise DataError(f"{path}: not a readable image ({first_line(error)}). Replace or remove it.") from error
    if image_size is not None:
        image = F.center_crop(F.resize(image, image_size), image_size)
    return F.pil_to_tensor(image).numpy()


def _missing(name: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{name}: {package} is not installed. Install it with pip install 'lava-casc[data]'.")
