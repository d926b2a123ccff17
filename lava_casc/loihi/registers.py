"""Signed registers of a fixed width: what does not fit is an error, or wraps as the register would."""

from __future__ import annotations

from numpy.typing import NDArray

from lava_casc.errors import RangeError, exceeds
from lava_casc.integer import signed_range, wrap_signed

#: The processes compute in int32; with one bit to spare no sum of two registers can leave it.
WIDEST = 31


class Register:
    """What holds the values of one layer in the fixed-point models.

    Parameters
    ----------
    path : str
        The layer, as an error calls it.
    bits : int
    strict : bool
        Whether a value that does not fit is an error; otherwise it wraps.

    Attributes
    ----------
    error : RangeError or None
        The first error. It is for the model to raise, once its step is done: a process that falls silent in
        the middle of a step leaves its neighbours waiting for ever.
    """

    def __init__(self, path: str, bits: int, strict: bool) -> None:
        self.path, self.bits, self.strict = path, bits, strict
        self.low, self.high = signed_range(bits)
        self.error: RangeError | None = None

    def hold(self, what: str, values: NDArray) -> NDArray:
        """Return `values` as the register holds them, and note the error if that changes any."""
        least, greatest = int(values.min(initial=0)), int(values.max(initial=0))
        if self.low <= least and greatest <= self.high:
            return values
        if self.strict and self.error is None:
            value, limit = (greatest, self.high) if greatest > self.high else (least, self.low)
            remedy = "The network was not proven for what it received: see lava_casc.ranges"
            self.error = exceeds(self.path, what, value, f"its {self.bits} signed bits", limit, remedy)
        return wrap_signed(values, self.bits).astype(values.dtype)


class Unbounded:
    """What holds the values of the floating-point models: anything."""

    error = None

    def __init__(self, path: str, bits: int, strict: bool) -> None:
        pass

    def hold(self, what: str, values: NDArray) -> NDArray:
        """Return `values`."""
        return values


def check_width(path: str, bits: int) -> None:
    """Refuse registers that the int32 of the processes cannot hold."""
    if not 2 <= bits <= WIDEST:
        raise RangeError(f"{path}: state_bits ({bits}) lies outside [2, {WIDEST}]. Use the target's own width.")
