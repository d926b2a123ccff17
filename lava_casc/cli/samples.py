"""The samples that a network is run on, from wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_casc import console
from lava_casc.errors import DataError

if TYPE_CHECKING:
    from lava_casc.frontend import Checkpoint
    from lava_casc.training import Dataset


def load_images(
    data: str | None,
    data_dir: Path | None,
    download: bool,
    images: Path | None,
    samples: int | None,
    image_size: int | None = None,
) -> tuple[Any, Any]:
    """Return the test images of a data set and their labels, or the samples of a file and None."""
    import numpy as np

    if (data is None) == (images is None):
        raise DataError("give either --data NAME or --images FILE.npy.")
    if images is not None:
        if image_size is not None:
            raise DataError(f"--image-size {image_size}: is for --data folder. Leave it out with --images.")
        try:
            loaded = np.load(images, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{images}: not a readable .npy file ({error}). Save an integer array with numpy.save."
            ) from error
        if not isinstance(loaded, np.ndarray) or loaded.ndim not in (2, 4) or not len(loaded):
            raise DataError(f"{images}: not a non-empty array (N, C, H, W) or (N, I). Save one with numpy.save.")
        return loaded[:samples], None
    dataset = read_dataset(str(data), data_dir, download, image_size)
    return dataset.test_images[:samples], dataset.test_labels[:samples]


def read_dataset_of(
    checkpoint: Checkpoint, name: str, data_dir: Path | None, download: bool, image_size: int | None
) -> Dataset:
    """Return a data set for a checkpoint: images of folders in the size that it was trained on, if none is given."""
    trained = checkpoint.about.get("image_size") if name == "folder" else None
    return read_dataset(name, data_dir, download, image_size or trained)


def read_dataset(name: str, data_dir: Path | None, download: bool, image_size: int | None = None) -> Dataset:
    """Return a data set, while a bar shows how much of it is read where that takes long."""
    from lava_casc.training import load_dataset

    return load_dataset(name, data_dir, download, image_size, progress=console.share)


def texts_to_run(
    model: Path, data: str | None, folder: Path | None, images: Path | None, samples: int | None
) -> tuple[Any, Any]:
    """Return the tokens of the texts in test.csv, in the words of the checkpoint `model`, and their classes."""
    from lava_casc.frontend import load_checkpoint

    if data is not None or images is not None or folder is None:
        raise DataError("--model is for texts: give --data-dir FOLDER with test.csv, and neither --data nor --images.")
    return load_texts(load_checkpoint(model), folder, "test", samples)


def load_texts(checkpoint: Checkpoint, folder: Path, split: str, samples: int | None) -> tuple[Any, Any]:
    """Return the tokens of a folder's texts, in the words of a checkpoint, and their classes."""
    from lava_casc.text import encoding_of, read_texts

    encoding = encoding_of(checkpoint.about)
    texts = read_texts(folder, split, encoding.classes).first(samples)
    return encoding.encode(texts.texts), texts.labels
