"""Pure integer arithmetic: ranges of bits, wrapping, even delivery over steps, interval bounds.

Nothing in here knows about networks or hardware. Arrays are NumPy integer arrays; scalars are Python ints.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

IntArray = NDArray[np.int64]


class Interval(NamedTuple):
    """Every value between `low` and `high`, both included; arrays of one shape, element by element.

    Attributes
    ----------
    low, high : ndarray of int64
    """

    low: IntArray
    high: IntArray

    def __add__(self, other: object) -> Interval:
        """Return the interval of the sums (the tuple's concatenation is never what is meant)."""
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval(self.low + other.low, self.high + other.high)

    def hull(self, other: Interval) -> Interval:
        """Return the smallest interval that holds both.

        Parameters
        ----------
        other : Interval

        Returns
        -------
        Interval
        """
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def bits(self) -> int:
        """The signed bits that hold every value of every element."""
        return signed_bits(int(np.min(self.low, initial=0)), int(np.max(self.high, initial=0)))


def signed_range(bits: int) -> tuple[int, int]:
    """Return the least and the greatest value of a two's complement integer: ``-2**(bits-1), 2**(bits-1) - 1``.

    Parameters
    ----------
    bits : int
        At least 1.

    Returns
    -------
    (int, int)
    """
    if bits < 1:
        raise ValueError(f"a signed integer needs at least 1 bit, not {bits}")
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def signed_bits(low: int, high: int) -> int:
    """Return the fewest two's complement bits that hold both `low` and `high` (1 for ``0, 0``).

    Parameters
    ----------
    low, high : int

    Returns
    -------
    int
    """
    return 1 + max((~value if value < 0 else value).bit_length() for value in (int(low), int(high)))


def wrap_signed(x: ArrayLike, bits: int) -> IntArray:
    """Return `x` modulo ``2**bits`` in ``[-2**(bits-1), 2**(bits-1))``, as a register of that width would hold it.

    Parameters
    ----------
    x : array of integers
    bits : int
        At least 1; more than 64 change nothing.

    Returns
    -------
    ndarray of int64
    """
    bits = min(bits, 64)
    low, high = signed_range(bits)
    x = _as_int64(x)
    return (x & high) + low * (x >> (bits - 1) & 1)


def split_evenly(total: ArrayLike, steps: int) -> tuple[IntArray, IntArray]:
    """Split `total` into the same amount each step and a remainder of the same sign.

    Parameters
    ----------
    total : array of integers
    steps : int
        At least 1.

    Returns
    -------
    per_step : ndarray of int64
        What is delivered in every step.
    remainder : ndarray of int64
        ``total == steps * per_step + remainder`` with ``abs(remainder) < steps``. Neither differs in sign from `total`,
        so that whatever was delivered so far lies between 0 and `total`.
    """
    total, steps = _as_int64(total), _positive(steps)
    per_step = total // steps + ((total < 0) & (total % steps != 0))
    return per_step, total - steps * per_step


def spread(total: ArrayLike, steps: int, step: int) -> IntArray:
    """Return the share of `total` that is delivered in `step` (1, 2, ...) when it is spread over `steps` steps.

    ``total * t // steps - total * (t - 1) // steps`` for ``t = step <= steps``, and 0 afterwards. The shares of all
    steps add up to `total` exactly, differ by at most one, and never differ in sign from `total`.

    Parameters
    ----------
    total : array of integers
    steps : int
        At least 1.
    step : int
        From 1 on.

    Returns
    -------
    ndarray of int64
    """
    total, steps = _as_int64(total), _positive(steps)
    if not 1 <= step <= steps:
        return np.zeros_like(total)
    return total * step // steps - total * (step - 1) // steps


def comparator_biases(offset: ArrayLike, threshold: ArrayLike, levels: int) -> IntArray:
    """Return the biases of `levels` comparators whose sum is ``clip((z + offset) // threshold, 0, levels)``.

    The k-th compares ``z + offset >= k * threshold``, which in integers is ``z + offset - k * threshold + 1 > 0``. They
    are sorted: where the k-th fires, so do all before it. In space this is a staircase of neurons, and in time the
    parallel neuron.

    Parameters
    ----------
    offset, threshold : array of integers
        Of shapes that broadcast.
    levels : int

    Returns
    -------
    (..., levels) ndarray of int64
        ``offset - k * threshold + 1`` for k = 1 .. levels: comparator k fires where ``z`` and it are above 0 together.
    """
    offset, threshold = np.broadcast_arrays(_as_int64(offset), _as_int64(threshold))
    return offset[..., None] - np.arange(1, levels + 1) * threshold[..., None] + 1


def _as_int64(x: ArrayLike) -> IntArray:
    array = np.asarray(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"integers are needed, not {array.dtype}")
    if array.dtype == np.uint64:
        raise TypeError("uint64 does not fit int64")
    return array.astype(np.int64)


def _positive(steps: int) -> int:
    steps = operator.index(steps)
    if steps < 1:
        raise ValueError(f"at least 1 step is needed, not {steps}")
    return steps
