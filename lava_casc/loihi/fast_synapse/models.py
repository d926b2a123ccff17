"""Models of Lava's Conv and Dense that compute the same numbers with BLAS, ten to several hundred times faster.

Lava convolves channel by channel with SciPy, and multiplies int32 matrices, for which there is no BLAS. Here
a convolution gathers the windows of the input (im2col) and is one matrix product; a dense synapse reads the
weights of those inputs alone that spike, where they are few. The products are taken in float32 where every
partial sum stays below 2**24, else in float64: either is exact for integers, whatever the order of the sums.

Sparse has no model here, and no network of this package has one: for graded spikes Lava's own takes half a nanosecond a
weight in compiled code, and reading the columns of the spiking inputs alone took twice as long at 20 % activity. (For
unary spikes it takes seven times as long as for graded ones: `num_message_bits=8` is the remedy.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from lava.magma.core.model.py.type import LavaPyType
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

#: Below this every partial sum of integers is exact in float32, and in float64.
FLOAT32_EXACT = 1 << 24
FLOAT64_EXACT = 1 << 53
#: Lava's Conv wraps what it delivers at 24 bits; what stays below this is as it was.
UNWRAPPED = 1 << 23
#: This many float32 weights fit the cache of a core, with room for the rest: 1 MiB.
CACHED = 1 << 18


def peak(x: NDArray) -> Any:
    """Return the largest magnitude in `x`, as a Python number: 0 says that `x` is silent."""
    return max(x.max(initial=0).item(), -x.min(initial=0).item())


class Product:
    """``x @ weights`` for integers, in float32 where that is exact, else in float64.

    Parameters
    ----------
    source : ndarray
        The weights as the process model holds them. They are read once: make another product when they change.
    weights : (G, K, O) ndarray
        The same as one matrix a group, inputs before outputs.
    """

    def __init__(self, source: NDArray, weights: NDArray) -> None:
        self.source, self.weights = source, weights
        self.copies: dict[Any, NDArray] = {}
        self.gain = float(np.abs(weights, dtype=np.float64).sum(axis=1).max(initial=0))
        self.integers = weights.dtype.kind in "iu"

    def __call__(self, x: NDArray, out: NDArray | None = None) -> NDArray:
        """Return ``x @ weights``, x of shape (G, N, K) and of the type in which to multiply."""
        return np.matmul(x, self.copy(x.dtype), out=out)

    def active(self, x: NDArray, which: NDArray, dtype: type) -> NDArray:
        """Return the same for G = 1 and one vector, whose elements not in `which` are 0.

        Where they are few, the weights of the others are not read: a cache full at a time, in the smallest type
        that holds them, for it is the memory that takes the time.
        """
        inputs, outputs = self.weights.shape[1:]
        if inputs * outputs <= CACHED or 2 * which.size > inputs:
            return self(x.astype(dtype)[None, None])[0, 0]
        rows, values = self.copy(self.smallest)[0], x[which].astype(dtype)
        some = max(CACHED // outputs, 1)
        buffer: NDArray = np.empty((some, outputs), dtype)
        found: NDArray = np.zeros(outputs, dtype)
        for start in range(0, which.size, some):
            part = which[start : start + some]
            buffer[: part.size] = rows[part]
            found += values[start : start + some] @ buffer[: part.size]
        return found

    def copy(self, dtype: Any) -> NDArray:
        """Return the weights in `dtype`, contiguous, made once."""
        dtype = np.dtype(dtype)
        if dtype not in self.copies:
            self.copies[dtype] = np.ascontiguousarray(self.weights, dtype)
        return self.copies[dtype]

    @cached_property
    def smallest(self) -> Any:
        """The smallest type that holds the weights."""
        if not self.integers:
            return self.weights.dtype
        low, high = self.weights.min(initial=0).item(), self.weights.max(initial=0).item()
        return np.min_scalar_type(min(low, ~high) if low < 0 else high)

    def dtype(self, loudest: float) -> type:
        """Return the type in which the product is exact; `loudest` is the largest magnitude of what is multiplied.

        Above 2**53 it is int64, which wraps as Lava's own int32 does: the remainder is the same.
        """
        if not (self.integers and isinstance(loudest, int)):
            return np.float64
        reach = self.gain * loudest
        return np.float32 if reach < FLOAT32_EXACT else np.float64 if reach < FLOAT64_EXACT else np.int64


class Windows:
    """The windows of an image as the rows of one matrix a group, in buffers that are made once.

    Parameters
    ----------
    shape : (3,) tuple
        Width, height and channels of the image.
    kernel, stride, padding, dilation : (2,) sequence of int
        Along the width and the height.
    groups : int
    dtype : type
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        dtype: type,
    ) -> None:
        (width, height, channels), (kw, kh), (pw, ph) = shape, kernel, padding
        padded: NDArray = np.zeros((width + 2 * pw, height + 2 * ph, channels), dtype)
        self.image = padded[pw : pw + width, ph : ph + height]
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        windows = sliding_window_view(padded, reach, axis=(0, 1))  # type: ignore[call-overload]
        windows = windows[:: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]  # (W', H', C, KW, KH)
        grouped = windows.reshape(*windows.shape[:2], groups, channels // groups, kw, kh)
        self.windows = grouped.transpose(2, 0, 1, 4, 5, 3)
        #: (G, W' * H', KW * KH * C / G); for a kernel of 1x1 the padded image itself, else a copy.
        self.columns = self.windows.reshape(groups, windows.shape[0] * windows.shape[1], -1)
        self.target = self.columns.reshape(self.windows.shape)
        self.copied = not np.shares_memory(self.columns, padded)

    def __call__(self, image: NDArray) -> NDArray:
        """Return the windows of `image`, until the next call."""
        self.image[...] = image
        if self.copied:
            self.target[...] = self.windows
        return self.columns


class _OneThread:
    """A process with one thread: Lava has one for every part of a network, and BLAS's threads spin while they wait."""

    def start(self) -> None:
        """Start the process."""
        with threadpool_limits(1, "blas"):
            super().start()  # type: ignore[misc]


class _FastConv(_OneThread):
    """The step of either convolution model, on Lava's layout: (W, H, C), kernels (O, KW, KH, I), flipped."""

    # Lava's own models hold these in 8 bits, take 128 groups for -128, and then deliver nothing.
    kernel_size: NDArray = LavaPyType(np.ndarray, np.int32)
    stride: NDArray = LavaPyType(np.ndarray, np.int32)
    padding: NDArray = LavaPyType(np.ndarray, np.int32)
    dilation: NDArray = LavaPyType(np.ndarray, np.int32)
    groups: NDArray = LavaPyType(np.ndarray, np.int32)

    product: Product | None = None
    windows: dict[type, tuple[Windows, NDArray]]

    def run_spk(self: Any) -> None:
        """Send what the spikes of the step before caused, then receive: one step of delay."""
        self.a_out.send(self.a_buf)
        spikes = self.s_in.recv()
        if not self.num_message_bits.item() > 0:
            spikes = spikes.astype(bool)
        loudest = peak(spikes)
        if not loudest:
            self.a_buf[...] = 0
            return
        # What was sent was copied: the buffer may be used again.
        found = self.convolve(spikes, loudest)
        self.a_buf.reshape(found.shape)[...] = found
        if self.product.gain * loudest >= UNWRAPPED:
            self.a_buf[...] = self.clamp_precision(self.a_buf)

    def convolve(self: Any, spikes: NDArray, loudest: float) -> NDArray:
        """Return the convolution of `spikes`, as (W', H', G, O / G), until the next call."""
        groups = int(self.groups.item())
        if self.product is None or self.product.source is not self.weight:
            # A true convolution is a correlation with the kernel turned round.
            turned = self.weight[:, ::-1, ::-1, :].reshape(groups, len(self.weight) // groups, -1)
            self.product, self.windows = Product(self.weight, turned.transpose(0, 2, 1)), {}
        dtype = self.product.dtype(loudest)
        if dtype not in self.windows:
            kernel, stride, padding, dilation = (
                pair.tolist() for pair in (self.kernel_size, self.stride, self.padding, self.dilation)
            )
            windows = Windows(spikes.shape, kernel, stride, padding, dilation, groups, dtype)
            found: NDArray = np.empty((groups, windows.columns.shape[1], len(self.weight) // groups), dtype)
            self.windows[dtype] = windows, found
        windows, found = self.windows[dtype]
        self.product(windows(spikes), out=found)  # (G, W' * H', O / G)
        return found.transpose(1, 0, 2).reshape(*windows.windows.shape[1:3], *found.shape[::2])

    def on_var_update(self) -> None:
        """Take the weights anew: one of the variables was set, perhaps they."""
        self.product = None


class FastConvFixed(_FastConv, PyConvModelFixed):
    """Lava's fixed-point Conv, the same to the bit, its wrapping at 24 bits included."""


class FastConvFloat(_FastConv, PyConvModelFloat):
    """Lava's floating-point Conv; the same to the bit where its sums are exact."""


class _FastDense(_OneThread):
    """The step of either dense model."""

    product: Product | None = None

    def multiply(self: Any) -> NDArray | None:
        """Send what the step before caused, receive, and return what that causes: None for nothing."""
        self.a_out.send(self.a_buff)
        spikes = self.s_in.recv()
        if not self.num_message_bits.item() > 0:
            spikes = spikes.astype(bool)
        which = np.flatnonzero(spikes)
        if not which.size:
            return None
        if self.product is None or self.product.source is not self.weights:
            self.product = Product(self.weights, self.weights.T[None])
        return self.product.active(spikes, which, self.product.dtype(peak(spikes)))

    def on_var_update(self) -> None:
        """Take the weights anew: one of the variables was set, perhaps they."""
        self.product = None


class FastDenseFixed(_FastDense, PyDenseModelBitAcc):
    """Lava's bit-accurate Dense, the same to the bit: clipping, truncation and exponent included."""

    a_buff: NDArray = PyDenseModelBitAcc.a_buff
    weights: NDArray = PyDenseModelBitAcc.weights
    weights_set: bool

    def run_spk(self) -> None:
        """Multiply, then shift by the exponent."""
        if not self.weights_set:  # Lava's own model clips and truncates in its first step, and then no more
            mode = self.proc_params.get("sign_mode") or determine_sign_mode(self.weights)
            clipped = clip_weights(self.weights, mode, num_bits=8)
            self.weights = truncate_weights(clipped, mode, self.proc_params.get("num_weight_bits", 8))
            self.weights_set = True
        found = self.multiply()
        if found is None:
            self.a_buff = np.zeros_like(self.a_buff)
            return
        exponent = self.proc_params.get("weight_exp", 0)
        whole = found.astype(np.int64).astype(self.weights.dtype)  # wraps where Lava's own int32 sums do
        self.a_buff = whole << exponent if exponent > 0 else whole >> -exponent


class FastDenseFloat(_FastDense, PyDenseModelFloat):
    """Lava's floating-point Dense; the same to the bit where its sums are exact."""

    a_buff: NDArray = PyDenseModelFloat.a_buff

    def run_spk(self) -> None:
        """Multiply."""
        found = self.multiply()
        self.a_buff = np.zeros_like(self.a_buff) if found is None else found.astype(np.float64)
