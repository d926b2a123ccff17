"""A cursor over the flat content of a file: takes out what a layer must have, and refuses the rest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import NetworkFileError
from lava_casc.integer import IntArray
from lava_casc.netx.storage import REMEDY, Content

#: Absurd sizes are refused before anything is computed with them.
LARGEST = 2**31 - 1


class Section:
    """One group of a file. Everything is taken once; `finish` refuses whatever nobody took.

    Parameters
    ----------
    content : Content
        Shared by all sections of a file, and emptied by them.
    path : str
        The group, without a leading slash.
    """

    def __init__(self, content: Content, path: str) -> None:
        self._content = content
        self.path = path

    def __contains__(self, name: str) -> bool:
        return f"{self.path}/{name}" in self._content

    def section(self, name: str) -> Section:
        """Return the group `name` of this one, which may be empty."""
        return Section(self._content, f"{self.path}/{name}")

    def top(self, path: str) -> Section:
        """Return another group of the same file, from its root."""
        return Section(self._content, path)

    def numbered(self, name: str) -> list[Section]:
        """Return the groups ``name/0``, ``name/1``, ... in order, of which there is at least one.

        Raises
        ------
        NetworkFileError
            There is none, one is missing in between, or one is not a plain number.
        """
        prefix = f"{self.path}/{name}/".lstrip("/")
        keys = {
            key[len(prefix) :].partition("/")[0].partition("@")[0] for key in self._content if key.startswith(prefix)
        }
        if not keys or keys != {str(i) for i in range(len(keys))}:
            shown = ", ".join(sorted(keys)) or "none"
            raise NetworkFileError(
                f"/{prefix}* must be numbered 0, 1, 2, ... without a gap, but there are: {shown}. {REMEDY}."
            )
        return [Section(self._content, f"{prefix}{i}") for i in range(len(keys))]

    def array(self, name: str, dtypes: str | tuple[str, ...], *shapes: tuple[int | None, ...]) -> NDArray:
        """Take an array of one of `dtypes`, whose shape fits one of `shapes` (None: any length)."""
        value = self._take(f"{self.path}/{name}")
        allowed = (dtypes,) if isinstance(dtypes, str) else dtypes
        if not isinstance(value, np.ndarray) or value.dtype.str not in allowed:
            found = getattr(value, "dtype", type(value).__name__)
            raise self.error(name, f"has type {found}, not {' or '.join(np.dtype(d).name for d in allowed)}")
        if not any(_fits(value.shape, shape) for shape in shapes):
            raise self.error(name, f"has shape {value.shape}, not {' or '.join(map(str, shapes))}")
        return value

    def integer(self, name: str, low: int, high: int = LARGEST) -> int:
        """Take one integer within ``[low, high]``."""
        value = int(self.array(name, "<i8", ()))
        if not low <= value <= high:
            raise self.error(name, f"is {value}, outside [{low}, {high}]")
        return value

    def integers(self, name: str, lengths: tuple[int, ...], low: int) -> tuple[int, ...]:
        """Take a vector of one of `lengths` integers, each within ``[low, LARGEST]``."""
        values = tuple(int(v) for v in self.array(name, "<i8", *((n,) for n in lengths)))
        if not all(low <= value <= LARGEST for value in values):
            raise self.error(name, f"is {values}, outside [{low}, {LARGEST}]")
        return values

    def pair(self, name: str, low: int) -> tuple[int, int]:
        """Take two integers, along height and width."""
        height, width = self.integers(name, (2,), low)
        return height, width

    def constants(self, name: str, dtypes: str | tuple[str, ...], shape: tuple[int, ...], value: float) -> IntArray:
        """Take an array that the format fixes to one value, and see that it has it."""
        found = self.array(name, dtypes, shape)
        if not (found == value).all():
            raise self.error(name, f"must be {value} here")
        return found

    def real(self, name: str) -> float:
        """Take one finite floating-point number."""
        return float(self.reals(name, ()))

    def reals(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Take an array of finite floating-point numbers."""
        values = self.array(name, "<f8", shape)
        if not np.isfinite(values).all():
            raise self.error(name, "holds a number that is not finite")
        return values

    def shape(self) -> tuple[int, ...]:
        """Take the shape (C, H, W) or (N,) of a layer."""
        shape = self.integers("shape", (1, 3), 1)
        if math.prod(shape) > LARGEST:
            raise self.error("shape", f"is {shape}, more than {LARGEST} neurons")
        return shape

    def kind(self, known: tuple[str, ...], name: str = "type") -> str:
        """Take a type string and see that it is known."""
        value = self._take(f"{self.path}/{name}")
        if not isinstance(value, np.ndarray) or value.dtype.kind != "S" or value.size != 1:
            raise self.error(name, f"is no type string, which would be one of: {', '.join(known)}")
        text = value.reshape(-1)[0].decode("ascii", "replace")
        if text not in known:
            raise self.error(name, f"is {text!r}, not {' or '.join(known)}")
        return text

    def label(self, name: str) -> str:
        """Take an attribute that is text."""
        value = self._take(f"{self.path}@{name}")
        if not isinstance(value, str):
            raise self.error(f"@{name}", "is not text")
        return value

    def number(self, name: str) -> int:
        """Take an attribute that is an integer."""
        value = self._take(f"{self.path}@{name}")
        if not isinstance(value, int):
            raise self.error(f"@{name}", "is not an integer")
        return value

    def finish(self) -> None:
        """Refuse a file that holds something nobody asked for: ignoring it could mean another network."""
        if self._content:
            raise NetworkFileError(f"/{sorted(self._content)[0]} is unknown in this place. {REMEDY}.")

    def error(self, name: str, what: str) -> NetworkFileError:
        """Return the error that says what is wrong with a member of this group."""
        separator = "" if not name or name.startswith("@") else "/"
        return NetworkFileError(f"/{self.path}{separator}{name} {what}. {REMEDY}.")

    def _take(self, key: str) -> NDArray | str | int:
        key = key.lstrip("/")
        if key not in self._content:
            raise NetworkFileError(f"/{key} is missing. {REMEDY}.")
        return self._content.pop(key)


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or n == w for n, w in zip(shape, wanted, strict=True))
