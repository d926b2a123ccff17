"""A layer cut into blocks of channels, rows and columns: one block a core."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lava_casc.network import Shape

Axes = tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """A layer's neurons as blocks, each of them (channels, rows, columns) that lie together.

    Along an axis of size s that is cut into n pieces, piece i is ``i * s // n <= place < (i + 1) * s // n``: every
    neuron is in one block and in no other, and no piece is empty or more than one place longer than another.

    Attributes
    ----------
    shape : (int, int, int)
        (C, H, W); a flat layer of N neurons is (N, 1, 1).
    cuts : (int, int, int)
        Pieces along each axis, from 1 to its size.
    """

    shape: Axes
    cuts: Axes

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return math.prod(self.cuts)

    def edges(self, axis: int) -> NDArray[np.int64]:
        """Return where the pieces along an axis begin, and where the last one ends.

        Parameters
        ----------
        axis : int
            0, 1, 2: channels, rows, columns.

        Returns
        -------
        ndarray of int64
        """
        pieces, size = self.cuts[axis], self.shape[axis]
        return np.arange(pieces + 1) * size // pieces

    def sizes(self, axis: int) -> NDArray[np.int64]:
        """Return how long each piece along an axis is.

        Parameters
        ----------
        axis : int
            0, 1, 2: channels, rows, columns.

        Returns
        -------
        ndarray of int64
        """
        return np.diff(self.edges(axis))

    def outer(self, channels: NDArray, rows: NDArray, columns: NDArray) -> NDArray:
        """Return the product of a number for each piece along the axes, for every block in C order.

        Parameters
        ----------
        channels, rows, columns : ndarray
            A number for each piece along the axis.

        Returns
        -------
        ndarray
        """
        return (channels[:, None, None] * rows[:, None] * columns).reshape(-1)

    @property
    def neurons(self) -> NDArray[np.int64]:
        """Neurons of every block."""
        return self.outer(*(self.sizes(axis) for axis in range(3)))


def three_axes(shape: Shape) -> Axes:
    """Return a layer's shape with three axes."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


#: Up to this size of an axis every number of pieces is tried.
SMALL = 64


def cuttings(size: int) -> list[int]:
    """Return the numbers of pieces to try along an axis: all, or for each length of the longest piece the fewest."""
    return sorted({-(-size // length) for length in range(1, size + 1)} | set(range(1, min(size, SMALL) + 1)))
