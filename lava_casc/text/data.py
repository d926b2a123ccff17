"""Texts from a folder of CSV files, and what turns them into the integers that a network takes.

``train.csv`` and ``test.csv`` hold one text a row: class (1, 2, ...), title, description. ``classes.txt`` may name the
classes, one a line. AG News is distributed like this.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import CheckpointError, DataError, first_line

PADDING, UNKNOWN = 0, 1
#: What stands at the indices `PADDING` and `UNKNOWN`, and can be no word.
RESERVED = ("<pad>", "<unknown>")
COLUMNS = ("class", "title", "description")


@dataclass(frozen=True, eq=False)
class Texts:
    """One split of a data set.

    Attributes
    ----------
    texts : tuple of str
        Title and description, with a space between.
    labels : (N,) ndarray of int64
        Classes, counted from 0.
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.texts)

    def first(self, count: int | None) -> Texts:
        """Return only the first `count` texts, all of them by default.

        Parameters
        ----------
        count : int or None

        Returns
        -------
        Texts
        """
        return Texts(self.texts[:count], self.labels[:count])


@dataclass(frozen=True)
class Encoding:
    """How texts become sequences of tokens, and what a network's classes are called.

    Attributes
    ----------
    words : tuple of str
        The vocabulary: the index of a word is its token. The first two are `RESERVED`.
    length : int
        Tokens a text: longer texts are cut off, shorter ones padded at the end.
    classes : tuple of str
    """

    words: tuple[str, ...]
    length: int
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[:2] != RESERVED or len(set(self.words)) != len(self.words):
            raise ValueError(f"a vocabulary begins with {', '.join(RESERVED)} and holds each word once")
        if self.length < 1 or not self.classes:
            raise ValueError("an encoding needs a length of at least 1, and a class")

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the tokens (N, length) of texts.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        (N, length) ndarray of int64
        """
        index = {word: token for token, word in enumerate(self.words)}
        tokens = np.full((len(texts), self.length), PADDING, np.int64)
        for row, text in zip(tokens, texts, strict=True):
            found = [index.get(word, UNKNOWN) for word in split_words(text)[: self.length]]
            row[: len(found)] = found
        return tokens

    def about(self) -> dict[str, str | int]:
        """Return the encoding as notes of a checkpoint: plain strings and a number.

        Returns
        -------
        dict
        """
        return {
            "vocabulary": " ".join(self.words[len(RESERVED) :]),
            "length": self.length,
            "classes": json.dumps(self.classes),
        }


def split_words(text: str) -> list[str]:
    """Return the words of a text: its unbroken runs of letters, of any alphabet, in lower case.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
    """
    return re.findall(r"[^\W\d_]+", text.lower())


def make_encoding(texts: Sequence[str], classes: tuple[str, ...], vocabulary: int, length: int) -> Encoding:
    """Return the encoding with the most frequent words of `texts`, `vocabulary` tokens in all at most.

    Words that are equally frequent are taken in alphabetical order.

    Parameters
    ----------
    texts : sequence of str
    classes : tuple of str
    vocabulary : int
    length : int
        Words of a text that are read.

    Returns
    -------
    Encoding
    """
    counts = Counter(word for text in texts for word in split_words(text))
    words = sorted(counts, key=lambda word: (-counts[word], word))[: max(0, vocabulary - len(RESERVED))]
    return Encoding((*RESERVED, *words), length, classes)


def encoding_of(about: Mapping[str, Any]) -> Encoding:
    """Return the encoding that the notes of a checkpoint hold.

    Parameters
    ----------
    about : mapping

    Returns
    -------
    Encoding

    Raises
    ------
    CheckpointError
        They hold none: the checkpoint is of no network for texts.
    """
    try:
        words = (*RESERVED, *str(about["vocabulary"]).split())
        return Encoding(words, int(about["length"]), tuple(map(str, json.loads(about["classes"]))))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "the checkpoint does not say how words become tokens. Train one with lava-casc train --task text."
        ) from error


def read_texts(folder: str | Path, split: str, classes: Sequence[str]) -> Texts:
    """Read one split of a folder.

    Parameters
    ----------
    folder : str or Path
    split : {"train", "test"}
    classes : sequence of str
        As `read_classes` returns them, or a checkpoint holds them.

    Returns
    -------
    Texts

    Raises
    ------
    DataError
        The file is missing, empty or damaged, a class does not fit, or a text has no word; names file and line.
    """
    path = _file(folder, split)
    texts, labels = [], []
    for line, (label, title, description) in _rows(path):
        if not 1 <= label <= len(classes):
            raise DataError(
                f"{path}, line {line}: class {label} is none of 1 .. {len(classes)}. Mend the row, or the classes."
            )
        text = f"{title} {description}"
        if not split_words(text):
            raise DataError(f"{path}, line {line}: the text holds no word. Remove the row.")
        texts.append(text)
        labels.append(label - 1)
    return Texts(tuple(texts), np.array(labels, np.int64))


def read_classes(folder: str | Path) -> tuple[str, ...]:
    """Return the names of a folder's classes: the lines of classes.txt, or else the numbers in train.csv.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    tuple of str

    Raises
    ------
    DataError
        classes.txt is damaged, or train.csv where it is asked.
    """
    path = Path(folder) / "classes.txt"
    if not path.exists():
        most = max(label for _, (label, *_) in _rows(_file(folder, "train")))
        return tuple(str(number) for number in range(1, most + 1))
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}). Write one class a line, or remove it."
        ) from error
    if not names:
        raise DataError(f"{path}: is empty. Write one class a line, or remove it.")
    return names


def _file(folder: str | Path, split: str) -> Path:
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder. Give --data-dir a folder with train.csv and test.csv.")
    path = Path(folder) / f"{split}.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give --data-dir a folder with train.csv and test.csv.")
    return path


def _rows(path: Path) -> list[tuple[int, tuple[int, str, str]]]:
    """Return line number, class, title and description of every row of a file."""
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if len(row) != len(COLUMNS):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} columns instead of {len(COLUMNS)}: "
                        f"{', '.join(COLUMNS)}. Mend the row."
                    )
                if not re.fullmatch(r"[0-9]{1,9}", row[0]):
                    raise DataError(
                        f"{path}, line {reader.line_num}: the class {row[0][:20]!r} is no number. "
                        "Number the classes from 1."
                    )
                rows.append((reader.line_num, (int(row[0]), row[1], row[2])))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}, behind line {rows[-1][0] if rows else 0}: not a CSV file in UTF-8 ({first_line(error)}). "
            "Get it again."
        ) from error
    if not rows:
        raise DataError(f"{path}: is empty. Write one text a row: {', '.join(COLUMNS)}.")
    return rows
