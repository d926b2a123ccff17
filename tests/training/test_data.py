"""The data sets: what they hold, that the split is always the same, and errors."""

import hashlib
import struct
import sys

import numpy as np
import pytest

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.training import DATASETS, Dataset, load_dataset


def test_digits_are_integers_within_their_range():
    data = load_dataset("digits")
    assert data.shape == (1, 8, 8)
    assert (len(data.train_images), len(data.test_images)) == (1437, 360)
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int64
    assert (data.test_images.min(), data.test_images.max()) == (0, 16) == (0, data.input_high)
    assert data.scale * data.input_high == 1
    assert (data.spec.shape, data.spec.low, data.spec.high, data.spec.scale) == ((1, 8, 8), 0, 16, 1 / 16)


def test_digits_are_split_by_class_and_without_overlap():
    data = load_dataset("digits")
    shares = np.bincount(data.test_labels) / (np.bincount(data.test_labels) + np.bincount(data.train_labels))
    assert abs(shares - 0.2).max() < 0.005
    both = np.concatenate([data.train_images, data.test_images]).reshape(1797, -1)
    assert len(np.unique(both, axis=0)) == 1797


def test_digits_are_split_alike_for_ever():
    data = load_dataset("digits")
    digest = hashlib.sha256(data.test_images.tobytes() + data.test_labels.tobytes()).hexdigest()
    assert digest.startswith("3ea49a6c5c1f0810")


def test_images_are_read_only():
    data = load_dataset("digits")
    with pytest.raises(ValueError, match="read-only"):
        data.train_images[0] = 0


def test_unknown_data_set_is_refused():
    with pytest.raises(DataError, match=r"data set 'mnist' is not known. Choose one of digits, fashion-mnist"):
        load_dataset("mnist")
    assert sorted(DATASETS) == ["digits", "fashion-mnist"]


@pytest.mark.parametrize(
    ("name", "package", "module"),
    [
        ("digits", "scikit-learn", "sklearn.datasets"),
        ("fashion-mnist", "torchvision", "torchvision.datasets"),
    ],
)
def test_missing_package_is_named(monkeypatch, name, package, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{name}: {package} is not installed. Install it with pip"):
        load_dataset(name)


def _damaged(**changes):
    good = {
        "name": "toy",
        "classes": ("a", "b"),
        "train_images": np.zeros((3, 1, 2, 4), np.uint8),
        "train_labels": np.array([0, 1, 1]),
        "test_images": np.zeros((2, 1, 2, 4), np.uint8),
        "test_labels": np.array([0, 1]),
        "input_high": 3,
        "scale": 0.5,
    }
    return Dataset(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": np.array([0, 2])}, "test split is damaged: labels from 0 to 2 of 2 classes"),
        ({"train_labels": np.array([-1, 0, 1])}, "train split is damaged: labels from -1 to 1 of 2 classes"),
        ({"train_labels": np.array([0, 1])}, r"3 images and int64 labels of shape \(2,\)"),
        ({"train_labels": np.array([0.0, 1, 1])}, "3 images and float64 labels"),
        (
            {"test_images": np.zeros((2, 1, 4, 2), np.uint8)},
            r"test split is damaged: images of shape \(2, 1, 4, 2\)",
        ),
        ({"test_images": np.zeros((2, 1, 2, 4))}, "images of shape .* and float64"),
        ({"test_images": np.full((2, 1, 2, 4), 4, np.uint8)}, "a pixel of 4, greater than 3"),
        ({"test_images": np.zeros((0, 1, 2, 4), np.uint8), "test_labels": np.zeros(0, np.int64)}, "0 images"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    assert len(_damaged().test_images) == 2
    with pytest.raises(DataError, match=message):
        _damaged(**changes)


@pytest.fixture
def fashion(tmp_path):
    """Write a tiny Fashion-MNIST in its own format."""
    pytest.importorskip("torchvision")
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, *images.shape) + images.tobytes()
        )
        labels = np.arange(n, dtype=np.uint8) % 10
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
    return tmp_path


def test_fashion_mnist_is_read_from_its_folder(fashion):
    data = load_dataset("fashion-mnist", fashion)
    assert data.train_images.shape == (20, 1, 28, 28)
    assert data.test_labels.tolist() == list(range(10))
    stored = (fashion / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert data.test_images.tobytes() == stored
    assert data.classes[9] == "Ankle boot"
    assert (data.input_high, data.scale) == (255, 1 / 255)


def test_fashion_mnist_without_a_folder_says_what_to_give(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="no folder is given. Give --data-dir DIR, and --download"):
        load_dataset("fashion-mnist")
    with pytest.raises(DataError, match=r"raw: no such folder. Give the right --data-dir, or --download"):
        load_dataset("fashion-mnist", tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "missing", "garbage", "labels"])
def test_damaged_fashion_mnist_is_refused_in_one_line(fashion, damage):
    images = fashion / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    labels = images.with_name("train-labels-idx1-ubyte")
    if damage == "truncated":
        images.write_bytes(images.read_bytes()[:-1])
    elif damage == "missing":
        images.unlink()
    elif damage == "garbage":
        images.write_bytes(b"not an idx file at all")
    else:
        labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError) as caught:
        load_dataset("fashion-mnist", fashion)
    assert "\n" not in str(caught.value)
    assert (
        "damaged" in str(caught.value)
        if damage == "labels"
        else "Remove what is there and give --download" in str(caught.value)
    )
