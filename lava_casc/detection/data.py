"""Images and boxes from a folder in the layout of PASCAL VOC.

``Annotations/NAME.xml``, ``JPEGImages/NAME.jpg`` (or .jpeg, .png) and ``ImageSets/Main/SPLIT.txt``, which lists names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import DataError, MissingDependencyError, first_line

SUFFIXES = (".jpg", ".jpeg", ".png")
TAGS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, eq=False)
class Objects:
    """What an image holds.

    Attributes
    ----------
    boxes : (n, 4) ndarray of float32
        x0, y0, x1, y1 in pixels of the image that the network gets, ``x0 < x1`` and ``y0 < y1``.
    labels : (n,) ndarray of int64
        Indices of classes.
    difficult : (n,) ndarray of bool
        Objects that count neither as found nor as missed.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detection:
    """One split of a data set; images are read from their files when they are asked for.

    Attributes
    ----------
    files : tuple of Path
        Of the images.
    objects : tuple of Objects
        Image by image.
    classes : tuple of str
    size : (int, int)
        Height and width to which every image is stretched, its boxes with it.
    """

    files: tuple[Path, ...]
    objects: tuple[Objects, ...]
    classes: tuple[str, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def first(self, count: int | None) -> Detection:
        """Return only the first `count` images, all of them by default.

        Parameters
        ----------
        count : int or None

        Returns
        -------
        Detection
        """
        return replace(self, files=self.files[:count], objects=self.objects[:count])

    def images(self, chosen: Sequence[int] | range) -> NDArray[np.uint8]:
        """Return the images at the indices `chosen`, (n, 3, H, W), 0 .. 255.

        Parameters
        ----------
        chosen : sequence of int

        Returns
        -------
        ndarray of uint8

        Raises
        ------
        DataError
            A file is damaged; names it.
        """
        if not len(chosen):
            return np.zeros((0, 3, *self.size), np.uint8)
        return np.stack([_read_image(self.files[i], self.size) for i in chosen])


def read_voc(folder: str | Path, split: str, size: tuple[int, int], classes: Sequence[str] | None = None) -> Detection:
    """Read the annotations of one split of a folder in VOC layout.

    Coordinates are taken as they stand, as corners in pixels from 0; the original VOC counts from 1, which is an offset
    of one pixel of the full-size image.

    Parameters
    ----------
    folder : str or Path
    split : str
        A list in ``ImageSets/Main``: train, val, trainval, test.
    size : (int, int)
        Height and width of what the network gets.
    classes : sequence of str, optional
        The names of the labels 0, 1, ...; by default those that occur in the split, sorted.

    Returns
    -------
    Detection

    Raises
    ------
    DataError
        A file is missing or damaged, a class is not known, a box has no area or leaves its image; names the file.
    """
    folder = Path(folder)
    names = _names(folder, split)
    parsed = [_annotation(folder / "Annotations" / f"{name}.xml") for name in names]
    if classes is None:
        classes = sorted({kind for objects in parsed for kind, _, _ in objects})
    if not classes:
        raise DataError(f"{_list_of(folder, split)}: none of its {len(names)} images holds an object.")
    files = tuple(_find_image(folder, name) for name in names)
    index = {kind: label for label, kind in enumerate(classes)}
    objects = tuple(
        _objects(folder / "Annotations" / f"{name}.xml", found, _image_size(file), size, index)
        for name, found, file in zip(names, parsed, files, strict=True)
    )
    return Detection(files, objects, tuple(classes), size)


def splits(folder: str | Path) -> tuple[str, str]:
    """Return the names of the splits to train and to test on: trainval and test, or train and val without a test.

    Parameters
    ----------
    folder : str or Path
        In VOC layout.

    Returns
    -------
    (str, str)
    """
    return ("trainval", "test") if _list_of(Path(folder), "test").is_file() else ("train", "val")


def _list_of(folder: Path, split: str) -> Path:
    return folder / "ImageSets" / "Main" / f"{split}.txt"


def _names(folder: Path, split: str) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give --data-dir a folder in VOC layout.")
    path = _list_of(folder, split)
    try:
        # The lists of single classes have a second column.
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        have = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}). A folder in VOC layout lists the names of its images "
            f"there; this one has {', '.join(have) or 'no lists'}."
        ) from error
    if not names:
        raise DataError(f"{path}: is empty. List the names of the split's images, one a line.")
    return names


def _annotation(path: Path) -> list[tuple[str, tuple[float, ...], bool]]:
    """Return class, corners and difficulty of every object of a file."""
    if not path.is_file():
        raise DataError(f"{path}: no such annotation. Every image of a split needs one, if only an empty one.")
    try:
        root = ElementTree.parse(path).getroot()
        return [
            (
                str(found.findtext("name", "")).strip() or _missing("name"),
                tuple(float(found.findtext(f"bndbox/{tag}") or _missing(tag)) for tag in TAGS),
                bool(int(found.findtext("difficult") or 0)),
            )
            for found in root.findall("object")
        ]
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise DataError(f"{path}: not an annotation in VOC's XML ({error}).") from error


def _missing(tag: str) -> str:
    raise ValueError(f"an object without {tag}")


def _objects(
    path: Path,
    found: list[tuple[str, tuple[float, ...], bool]],
    full: tuple[int, int],
    size: tuple[int, int],
    index: dict[str, int],
) -> Objects:
    """Return the objects of one file, checked, in pixels of an image of `size`."""
    height, width = full
    for kind, (x0, y0, x1, y1), _ in found:
        box = f"the box {x0:g},{y0:g},{x1:g},{y1:g} of {kind!r}"
        if kind not in index:
            raise DataError(f"{path}: class {kind!r} is not known. The classes are {', '.join(index)}.")
        if not (x0 < x1 and y0 < y1):
            raise DataError(f"{path}: {box} has no area. Mend or remove it.")
        if not (x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height):
            raise DataError(f"{path}: {box} leaves its image of {width}x{height} pixels. Mend or remove it.")
    factor = np.array([size[1] / width, size[0] / height] * 2)
    boxes = np.array([box for _, box, _ in found], np.float64).reshape(-1, 4) * factor
    labels = np.array([index[kind] for kind, _, _ in found], np.int64)
    return Objects(boxes.astype(np.float32), labels, np.array([hard for _, _, hard in found], bool))


def _find_image(folder: Path, name: str) -> Path:
    candidates = [folder / "JPEGImages" / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{candidates[0]}: no such image, nor one in {' or '.join(SUFFIXES[1:])}.")


def _image_size(path: Path) -> tuple[int, int]:
    """Return height and width from an image's header."""
    image = _pillow()
    try:
        with image.open(path) as opened:
            return opened.height, opened.width
    except Exception as error:  # Pillow's decoders raise whatever their formats do
        raise _damaged(path, error) from error


def _read_image(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    image = _pillow()
    try:
        with image.open(path) as opened:
            opened.draft("RGB", (size[1], size[0]))  # a JPEG is decoded no larger than needed
            resized = opened.convert("RGB").resize((size[1], size[0]), image.Resampling.BILINEAR)
    except Exception as error:  # Pillow's decoders raise whatever their formats do
        raise _damaged(path, error) from error
    return np.asarray(resized, np.uint8).transpose(2, 0, 1)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: not a readable image ({type(error).__name__}: {first_line(error)}). Get it again or remove it."
    )


def _pillow():  # type: ignore[no-untyped-def]
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            "detection: Pillow is not installed. Install it with pip install 'lava-casc[detection]'."
        ) from error
    return Image
