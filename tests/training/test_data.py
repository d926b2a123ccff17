"""The data sets: what they hold, that the split is always the same, and errors."""

import hashlib
import pickle
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
    with pytest.raises(DataError, match="data set 'mnist' is not known. Choose one of cifar10, cifar100, digits, f"):
        load_dataset("mnist")
    assert sorted(DATASETS) == ["cifar10", "cifar100", "digits", "fashion-mnist"]


@pytest.mark.parametrize(
    ("name", "package", "module"),
    [
        ("digits", "scikit-learn", "sklearn.datasets"),
        ("fashion-mnist", "torchvision", "torchvision.datasets"),
        ("cifar10", "torchvision", "torchvision.datasets"),
        ("cifar100", "torchvision", "torchvision.datasets"),
        ("folder", "torchvision", "torchvision.datasets"),
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


def test_mean_and_deviation_are_those_of_the_training_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1003, 2, 3, 4), dtype=np.uint8) // np.array([1, 2], np.uint8)[:, None, None]
    labels = np.zeros(1003, np.int64)
    data = Dataset("toy", ("a",), images, labels, np.zeros_like(images), labels, 255, 1 / 255)
    real = images / 255
    assert data.mean == tuple(real.mean((0, 2, 3)).round(4))
    assert data.std == tuple(real.std((0, 2, 3)).round(4))
    flat = Dataset("toy", ("a",), images * 0, labels, images, labels, 255, 1 / 255)
    assert min(flat.std) > 0  # what is divided by


CIFAR = {"cifar10": ("cifar-10-batches-py", "CIFAR10", 10), "cifar100": ("cifar-100-python", "CIFAR100", 100)}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def _npz(path, pixels, **changes):
    good = {
        "x_train": pixels[:10],
        "y_train": np.arange(10, dtype=np.uint8),
        "x_test": pixels[10:],
        "y_test": np.array([9, 0], np.uint8),
        "classes": np.array(list("abcdefghij")),
    }
    np.savez(path, **{key: value for key, value in {**good, **changes}.items() if value is not None})


@pytest.mark.parametrize("name", sorted(CIFAR))
def test_cifar_is_read_from_one_file_of_arrays(tmp_path, pixels, name):
    _npz(tmp_path / f"{name}.npz", pixels)
    data = load_dataset(name, tmp_path)
    assert (data.name, data.classes) == (name, tuple("abcdefghij"))
    assert np.array_equal(data.train_images, pixels[:10].transpose(0, 3, 1, 2))
    assert np.array_equal(data.test_images, pixels[10:].transpose(0, 3, 1, 2))
    assert data.train_labels.tolist() == list(range(10))
    assert data.test_labels.tolist() == [9, 0]
    assert (data.spec.shape, data.spec.low, data.spec.high, data.spec.scale) == ((3, 32, 32), 0, 255, 1 / 255)


@pytest.mark.parametrize("name", sorted(CIFAR))
def test_cifar_is_read_from_its_own_folder(tmp_path, pixels, monkeypatch, name):
    """Write a tiny CIFAR in its own format; its checksums are those of these files."""
    datasets = pytest.importorskip("torchvision.datasets")
    folder, kind, classes = CIFAR[name]
    cifar = getattr(datasets, kind)
    (tmp_path / folder).mkdir()
    names = [f"class {i}" for i in range(classes)]
    labels = "labels" if name == "cifar10" else "fine_labels"

    def write(file, content):
        (tmp_path / folder / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((tmp_path / folder / file).read_bytes()).hexdigest()]

    rows = pixels.transpose(0, 3, 1, 2).reshape(12, -1)
    train = write("train", {"data": rows[:10], labels: list(range(10))})
    test = write("test", {"data": rows[10:], labels: [9, 0]})
    meta = write("meta", {cifar.meta["key"]: names})
    monkeypatch.setattr(cifar, "train_list", [train])
    monkeypatch.setattr(cifar, "test_list", [test])
    monkeypatch.setattr(cifar, "meta", {"filename": "meta", "key": cifar.meta["key"], "md5": meta[1]})
    data = load_dataset(name, tmp_path)
    assert np.array_equal(data.train_images, pixels[:10].transpose(0, 3, 1, 2))
    assert np.array_equal(data.test_images, pixels[10:].transpose(0, 3, 1, 2))
    assert (data.test_labels.tolist(), data.classes) == ([9, 0], tuple(names))
    (tmp_path / folder / "test").write_bytes(b"cut")
    with pytest.raises(DataError, match=f"{folder}: {name} cannot be read .* Remove what is there and give --download"):
        load_dataset(name, tmp_path)


def test_cifar_without_its_files_says_what_to_give(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="cifar10: no folder is given. Give --data-dir DIR, and --download"):
        load_dataset("cifar10")
    with pytest.raises(DataError, match="cifar-10-batches-py: no such folder. Give the right --data-dir, or --downlo"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(DataError, match="cifar10: its images have a size of their own. Leave --image-size out"):
        load_dataset("cifar10", tmp_path, image_size=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "cannot be read .*y_test"),
        ({"classes": np.array([None, {}])}, "cannot be read .*allow_pickle"),
        ({"classes": np.arange(10)}, r"classes is of shape \(10,\) and int64"),
        ({"x_train": np.zeros((10, 32, 32), np.uint8)}, r"x_train is of shape \(10, 32, 32\) and uint8"),
        ({"x_train": np.zeros((10, 32, 32, 3))}, r"x_train is of shape \(10, 32, 32, 3\) and float64"),
        ({"x_train": np.zeros((10, 32, 32, 3), np.int16)}, "train split is damaged: images of .* and int16"),
        ({"y_train": np.arange(9)}, "train split is damaged: 10 images and int64 labels of shape"),
        ({"y_train": np.ones(10)}, r"y_train is of shape \(10,\) and float64"),
        ({"classes": np.array(["a", "b"])}, "train split is damaged: labels from 0 to 9 of 2 classes"),
        ({"x_test": np.zeros((2, 28, 28, 1), np.uint8)}, "test split is damaged: images of shape"),
        ({"x_train": np.zeros((0, 32, 32, 3), np.uint8), "y_train": np.zeros(0, int)}, "train split is damaged: 0 im"),
    ],
)
def test_damaged_arrays_are_refused_by_their_file(tmp_path, pixels, changes, message):
    _npz(tmp_path / "cifar10.npz", pixels, **changes)
    with pytest.raises(DataError, match=rf"{tmp_path}/cifar10.npz: .*{message}") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "bit", "array"])
def test_damaged_array_file_is_refused_in_one_line(tmp_path, pixels, damage):
    file = tmp_path / "cifar10.npz"
    _npz(file, pixels)
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    if damage == "array":
        with file.open("wb") as opened:
            np.save(opened, pixels)
        content = file.read_bytes()
    changed = {"array": content, "truncated": content[:-200], "garbage": b"no", "empty": b"", "bit": bytes(content)}[
        damage
    ]
    file.write_bytes(changed)
    with pytest.raises(DataError, match=r"cifar10.npz: cannot be read \(.+\). It holds the arrays x_train") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """Write images of 6 x 5 pixels in three classes, in torchvision's layout."""
    pytest.importorskip("torchvision")
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, n in (("train", 3), ("test", 1)):
        for label in ("ant", "bee", "cat"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{i}.png")
    return tmp_path


def test_folder_is_read_by_class(folder):
    from PIL import Image

    data = load_dataset("folder", folder)
    assert (data.name, data.classes, data.shape) == ("folder", ("ant", "bee", "cat"), (3, 6, 5))
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test_labels.tolist() == [0, 1, 2]
    stored = np.array(Image.open(folder / "train" / "bee" / "2.png"))
    assert np.array_equal(data.train_images[5], stored.transpose(2, 0, 1))
    assert (data.spec.low, data.spec.high, data.spec.scale) == (0, 255, 1 / 255)


def test_grey_images_become_three_channels(folder):
    from PIL import Image

    Image.fromarray(np.full((6, 5), 9, np.uint8)).save(folder / "test" / "ant" / "0.png")
    assert (load_dataset("folder", folder).test_images[0] == 9).all()


def test_images_are_scaled_by_their_shorter_side_and_cropped_to_the_middle(folder):
    from PIL import Image

    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(folder / "train" / "ant" / "0.png")
    data = load_dataset("folder", folder, image_size=4)
    assert data.shape == (3, 4, 4)
    assert (data.train_images[0][:, :, 1:3] == 200).all()
    assert (data.train_images[0] > 100).all()  # the middle third of it, but for the filter at its edge


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("corrupt", r"train/bee/1.png: not a readable image \(.+\). Replace or remove it"),
        ("truncated", r"train/bee/1.png: not a readable image \(.+\). Replace or remove it"),
        ("size", "train/bee/1.png: is of 5x6 pixels, the first image of 6x5. Give --image-size"),
        ("first", r"train/ant/0.png: not a readable image"),
        ("class without images", r"test: no images by class \(.*dog"),
        ("class in one split", "class 'dog' is in one of train and test alone. Give both the same classes"),
        ("no classes", r"train: no images by class \(.+\). Put them into train/CLASS"),
        ("no test", r"test: no images by class \(.+\). Put them into test/CLASS"),
        ("nothing", r"train: no images by class \(.+\). Put them into train/CLASS"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, damage, message):
    import shutil

    from PIL import Image

    one = folder / "train" / "bee" / "1.png"
    if damage == "corrupt":
        one.write_bytes(b"not an image")
    elif damage == "truncated":
        one.write_bytes(one.read_bytes()[:-40])
    elif damage == "first":
        (folder / "train" / "ant" / "0.png").write_bytes(b"")
    elif damage == "size":
        Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(one)
    elif damage == "class without images":
        for split in ("train", "test"):
            (folder / split / "dog").mkdir()
        shutil.copy(one, folder / "train" / "dog")
    elif damage == "class in one split":
        (folder / "train" / "dog").mkdir()
        shutil.copy(one, folder / "train" / "dog")
    elif damage == "no classes":
        shutil.rmtree(folder / "train")
        (folder / "train").mkdir()
    elif damage == "no test":
        shutil.rmtree(folder / "test")
    else:
        shutil.rmtree(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("folder", folder)
    assert "\n" not in str(caught.value)


def test_folder_must_be_given():
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="folder: no folder is given. Give --data-dir DIR, with DIR/train/CLASS"):
        load_dataset("folder")
