"""Models of Lava's Conv and Dense that compute the same numbers with BLAS, a hundred times faster and more.

Lava convolves channel by channel with SciPy, and multiplies int32 matrices, for which there is no BLAS. Here
a convolution gathers the windows of the input (im2col) and is one matrix product. The products are taken in
float32 where every partial sum stays below 2**24, else in float64: either is exact for integers, whatever the
order of the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.model.py.type import LavaPyType
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

#: Below this every partial sum of integers is exact in float32.
FLOAT32_EXACT = 1 << 24


class Product:
    """``weights @ x`` for integers, in float32 where that is exact, else in float64.

    Parameters
    ----------
    weights : (G, K, O) ndarray
        One matrix a group, inputs before outputs.
    """

    def __init__(self, weights: NDArray) -> None:
        self.weights = weights
        self.copies: dict[type, NDArray] = {}
        self.gain = float(np.abs(weights).sum(axis=1, dtype=np.float64).max(initial=0))
        self.integers = weights.dtype.kind in "iu"

    def __call__(self, x: NDArray) -> NDArray:
        """Return ``x @ weights``, x of shape (G, N, K)."""
        return x @ self.copy(x.dtype.type)

    def copy(self, dtype: type) -> NDArray:
        """Return the weights in `dtype`, contiguous, made once."""
        if dtype not in self.copies:
            self.copies[dtype] = np.ascontiguousarray(self.weights, dtype)
        return self.copies[dtype]

    def dtype(self, x: NDArray) -> type:
        """Return the type in which the product with `x` is exact."""
        small = self.integers and x.dtype.kind in "iub" and self.gain * int(np.abs(x).max(initial=0)) < FLOAT32_EXACT
        return np.float32 if small else np.float64


class _FastConv:
    """The step of either convolution model, on Lava's layout: (W, H, C), kernels (O, KW, KH, I), flipped."""

    # Lava's own models hold these in 8 bits, take 128 groups for -128, and then deliver nothing.
    kernel_size: NDArray = LavaPyType(np.ndarray, np.int32)
    stride: NDArray = LavaPyType(np.ndarray, np.int32)
    padding: NDArray = LavaPyType(np.ndarray, np.int32)
    dilation: NDArray = LavaPyType(np.ndarray, np.int32)
    groups: NDArray = LavaPyType(np.ndarray, np.int32)

    product: Product | None = None

    def run_spk(self: Any) -> None:
        """Send what the spikes of the step before caused, then receive: one step of delay."""
        self.a_out.send(self.a_buf)
        spikes = self.s_in.recv()
        if not self.num_message_bits.item() > 0:
            spikes = spikes.astype(bool)
        if not spikes.any():
            self.a_buf = np.zeros_like(self.a_buf)
            return
        self.a_buf = self.clamp_precision(self.convolve(spikes).astype(self.a_buf.dtype))

    def convolve(self: Any, spikes: NDArray) -> NDArray:
        """Return the convolution of `spikes`, as (W', H', O)."""
        groups, (kw, kh) = int(self.groups.item()), (int(k) for k in self.kernel_size)
        channels = spikes.shape[2] // groups
        if self.product is None:
            # A true convolution is a correlation with the kernel turned round.
            turned = self.weight[:, ::-1, ::-1, :].reshape(groups, -1, kw * kh * channels)
            self.product = Product(turned.transpose(0, 2, 1))
        (pw, ph), (sw, sh), (dw, dh) = ((int(a), int(b)) for a, b in (self.padding, self.stride, self.dilation))
        dtype = self.product.dtype(spikes)
        padded = np.zeros((spikes.shape[0] + 2 * pw, spikes.shape[1] + 2 * ph, spikes.shape[2]), dtype)
        padded[pw : pw + spikes.shape[0], ph : ph + spikes.shape[1]] = spikes
        reach = (dw * (kw - 1) + 1, dh * (kh - 1) + 1)
        windows = sliding_window_view(padded, reach, axis=(0, 1))  # type: ignore[call-overload]
        windows = windows[::sw, ::sh, :, ::dw, ::dh]  # (W', H', C, KW, KH)
        width, height = windows.shape[:2]
        grouped = windows.reshape(width, height, groups, channels, kw, kh) if groups > 1 else windows[:, :, None]
        columns = grouped.transpose(2, 0, 1, 4, 5, 3).reshape(groups, width * height, kw * kh * channels)
        found = self.product(columns)  # (G, W' * H', O / G)
        return found.transpose(1, 0, 2).reshape(width, height, -1)


class FastConvFixed(_FastConv, PyConvModelFixed):
    """Lava's fixed-point Conv, the same to the bit, its wrapping at 24 bits included."""


class FastConvFloat(_FastConv, PyConvModelFloat):
    """Lava's floating-point Conv; the same to the bit where its sums are exact."""


class _FastDense:
    """The step of either dense model."""

    product: Product | None = None

    def multiply(self: Any) -> NDArray | None:
        """Send what the step before caused, receive, and return what that causes: None for nothing."""
        self.a_out.send(self.a_buff)
        spikes = self.s_in.recv()
        if not self.num_message_bits.item() > 0:
            spikes = spikes.astype(bool)
        if not spikes.any():
            return None
        if self.product is None:
            self.product = Product(self.prepared().T[None])
        return self.product(spikes.astype(self.product.dtype(spikes))[None, None])[0, 0]

    def prepared(self: Any) -> NDArray:
        """Return the weights as the stock model uses them."""
        return self.weights


class FastDenseFixed(_FastDense, PyDenseModelBitAcc):
    """Lava's bit-accurate Dense, the same to the bit: clipping, truncation and exponent included."""

    a_buff: NDArray = PyDenseModelBitAcc.a_buff

    def run_spk(self) -> None:
        """Multiply, then shift by the exponent."""
        found = self.multiply()
        exponent = self.proc_params.get("weight_exp", 0)
        if found is None:
            self.a_buff = np.zeros_like(self.a_buff)
            return
        whole = found.astype(np.int64)
        self.a_buff = (whole << exponent if exponent > 0 else whole >> -exponent).astype(self.a_buff.dtype)

    def prepared(self) -> NDArray:
        """Return the weights that are left after the stock model's clipping and truncation."""
        mode = self.proc_params.get("sign_mode") or determine_sign_mode(self.weights)
        clipped = clip_weights(self.weights, mode, num_bits=8)
        return truncate_weights(clipped, mode, self.proc_params.get("num_weight_bits", 8))


class FastDenseFloat(_FastDense, PyDenseModelFloat):
    """Lava's floating-point Dense; the same to the bit where its sums are exact."""

    a_buff: NDArray = PyDenseModelFloat.a_buff

    def run_spk(self) -> None:
        """Multiply."""
        found = self.multiply()
        self.a_buff = np.zeros_like(self.a_buff) if found is None else found.astype(np.float64)
