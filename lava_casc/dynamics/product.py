"""What a synapse delivers, exactly and fast: 8-bit integers, float32 or float64, whichever the proof allows."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lava_casc.linear import FLOAT32_EXACT
from lava_casc.network import Conv, Shape, Synapse

#: Processors without an instruction for four products at once add two of them in 16 bits, saturating.
PAIR_LIMIT = (1 << 15) - 1
#: oneDNN's products of 8-bit integers, as torch has them.
_onednn: Any = torch.ops.onednn  # type: ignore[attr-defined]
#: The largest weight, and the largest count, of the 8-bit product.
WEIGHT_LIMIT, COUNT_LIMIT = 127, 255


class Product:
    """``weight * 2**exponent`` applied to counts: exact, whatever the order of the sums.

    Three kinds of arithmetic, the fastest first:

    * ``int8``: unsigned 8-bit counts and signed 8-bit weights, summed in 32 bits by oneDNN, on x86 only. Two products
      together stay within 16 bits, so that this is exact on every processor.
    * ``float32``: where no sum can reach 2**24.
    * ``float64``: else; `IntegerNetwork` holds all sums below 2**53.

    Parameters
    ----------
    synapse : Conv or Dense
        Integer weights.
    shape : tuple of int
        Of the source, ``(C, H, W)`` or ``(N,)``.
    low, high : int
        What lies in a source's count at any time.
    device : torch.device or str
    kind : str, optional
        By default the fastest kind that is exact and available.
    gathers : bool, optional
        Whether to convolve by windows and a matrix product; by default on every device but the processor.
    blocks : bool
        Whether blocks of equal weights, which the folding of an average pool leaves behind, are applied to sums of
        counts: for windows of 2x2 a fourth of the products.

    Attributes
    ----------
    kind : str
    dtype : torch.dtype
        Of what it returns.
    """

    def __init__(
        self,
        synapse: Synapse,
        shape: Shape,
        low: int,
        high: int,
        device: torch.device | str = "cpu",
        kind: str | None = None,
        gathers: bool | None = None,
        blocks: bool = True,
    ) -> None:
        self.block = block_of(synapse) if blocks else 1
        if isinstance(synapse, Conv) and self.block > 1:
            self.window = synapse.output_shape(shape)[1:]
            synapse, shape = _of_blocks(synapse, shape, self.block)
            low, high = low * self.block**2, high * self.block**2
        self.sums = torch.uint8 if low >= 0 and high <= COUNT_LIMIT else torch.int64
        self.synapse, self.shape, self.device = synapse, shape, torch.device(device)
        self.image = isinstance(synapse, Conv)
        if gathers is None:
            # Without oneDNN torch would choose NNPACK, which convolves by Winograd or Fourier transform.
            gathers = self.device.type != "cpu" or not torch.backends.mkldnn.is_available()
        self.gathers = gathers
        self._prepare(kind or kinds(synapse, shape, low, high, self.device)[0])
        if self.kind == "int8" and kind is None and not self._is_right(high):
            self._prepare("float32")

    def _prepare(self, kind: str) -> None:
        synapse, shape = self.synapse, self.shape
        self.kind = kind
        self.dtype = torch.float64 if kind == "float64" else torch.float32
        weight = synapse.weight if self.image else _columns_last(synapse.weight, shape)
        self.geometry: Any = ()
        if isinstance(synapse, Conv):
            self.geometry = ([*synapse.stride], [*synapse.padding], [*synapse.dilation], synapse.groups)
        if self.kind == "int8":
            self._prepare_int8(torch.tensor(weight.astype(np.int8)))
        else:
            self.weight = torch.tensor(weight, dtype=self.dtype, device=self.device) * 2.0**synapse.exponent
            if isinstance(synapse, Conv) and self.gathers:
                self.weight = self.weight.permute(2, 3, 1, 0).contiguous()  # (KH, KW, I, O)
            elif isinstance(synapse, Conv) and _keeps_channels_last(synapse):
                self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def _is_right(self, high: int) -> bool:
        """Return whether 8 bits give what float32 gives, once: the proof is about numbers, this about the library."""
        exact = Product(self.synapse, self.shape, 0, high, self.device, "float32", blocks=False)
        shape = (*self.shape[1:], self.shape[0]) if self.image else self.shape
        counts = torch.arange(2 * int(np.prod(shape)), dtype=torch.int64).reshape(2, *shape) % (high + 1)
        counts = counts.to(torch.uint8)
        return torch.equal(self._apply(counts), exact(counts))

    def __call__(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the current (K, H', W', O) or (K, O) that `counts` cause, integers in a floating-point type.

        Parameters
        ----------
        counts : integer tensor
            (K, H, W, C) or (K, N), contiguous.
        """
        if self.block == 1:
            return self._apply(counts)
        height, width = self.window
        found = self._apply(_sums(counts, self.block, self.sums))[:, :height, :width]
        return found.contiguous()

    def _apply(self, counts: torch.Tensor) -> torch.Tensor:
        if not self.image:
            counts = counts.flatten(1)
        if self.kind == "int8":
            return self._int8(counts)
        x = counts.to(self.dtype)
        if not self.image:
            with torch.autocast(x.device.type, enabled=False):
                return F.linear(x, self.weight)
        return self._gather(x) if self.gathers else self._convolve(x)

    def _prepare_int8(self, weight: torch.Tensor) -> None:
        n = len(weight)
        self.scale = torch.full((n,), 2.0**self.synapse.exponent)
        self.zero = torch.zeros(n, dtype=torch.int64)
        if self.image:
            pack = _onednn.qconv_prepack
            self.weight = pack(weight, self.scale, 1.0, 0, *self.geometry, None)
        else:
            self.weight = _onednn.qlinear_prepack(weight, None)

    def _int8(self, counts: torch.Tensor) -> torch.Tensor:
        x = counts.view(torch.uint8) if counts.dtype == torch.int8 else counts.to(torch.uint8)
        operands = (1.0, 0, self.weight, self.scale, self.zero, None)
        if not self.image:
            return _onednn.qlinear_pointwise(x, *operands, 1.0, 0, torch.float32, "none", [], "")
        found = _onednn.qconv2d_pointwise(
            x.permute(0, 3, 1, 2), *operands, *self.geometry, 1.0, 0, torch.float32, "none", [], None
        )
        return found.permute(0, 2, 3, 1)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2)
        if not _keeps_channels_last(self.synapse):
            x = torch.empty(x.shape, dtype=x.dtype).copy_(x)  # `contiguous` would keep the strides of a single channel
        # NNPACK, torch's choice where oneDNN is missing, convolves by Winograd or Fourier transform, and autocast
        # rounds to bfloat16: neither is exact for integers.
        with torch.backends.nnpack.flags(enabled=False), torch.autocast("cpu", enabled=False):
            found = F.conv2d(x, self.weight, None, *self.geometry)
        return found.permute(0, 2, 3, 1).contiguous()

    def _gather(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve by gathering windows and a matrix product: cuDNN would be free to choose Winograd."""
        (sh, sw), (ph, pw), (dh, dw), groups = self.geometry
        kh, kw, per_group, out = self.weight.shape
        x = F.pad(x, (0, 0, pw, pw, ph, ph))
        _, height, width = self.synapse.output_shape(self.shape)
        batch, row, column, channel = x.stride()
        windows = x.as_strided(
            (groups, len(x), height, width, kh, kw, per_group),
            (per_group * channel, batch, sh * row, sw * column, dh * row, dw * column, channel),
        )
        columns = windows.reshape(groups, len(x) * height * width, kh * kw * per_group)
        weight = self.weight.reshape(-1, groups, out // groups).transpose(0, 1)
        with torch.autocast(x.device.type, enabled=False):
            found = columns @ weight  # (G, N * H' * W', O / G)
        return found.transpose(0, 1).reshape(len(x), height, width, out).contiguous()


def block_of(synapse: Synapse) -> int:
    """Return the greatest k for which a convolution has equal weights within k x k blocks that no window divides."""
    if not isinstance(synapse, Conv) or synapse.dilation != (1, 1):
        return 1
    weight = synapse.weight
    common = math.gcd(*weight.shape[2:], *synapse.stride, *synapse.padding)
    for k in range(common, 1, -1):
        if common % k == 0:
            height, width = weight.shape[2:]
            blocks = weight.reshape(-1, height // k, k, width // k, k)
            if (blocks == blocks[:, :, :1, :, :1]).all():
                return k
    return 1


def _of_blocks(synapse: Conv, shape: Shape, k: int) -> tuple[Conv, Shape]:
    """Return the convolution that does the same to the sums of k x k blocks, and their shape."""
    (sh, sw), (ph, pw) = synapse.stride, synapse.padding
    reduced = replace(
        synapse, weight=synapse.weight[:, :, ::k, ::k], stride=(sh // k, sw // k), padding=(ph // k, pw // k)
    )
    return reduced, (shape[0], -(-shape[1] // k), -(-shape[2] // k))


def _sums(counts: torch.Tensor, k: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the sums of k x k blocks of (K, H, W, C); what a block lacks at the border is 0."""
    high, wide = (-n % k for n in counts.shape[1:3])
    if high or wide:
        counts = F.pad(counts, (0, 0, 0, wide, 0, high))
    found = counts[:, ::k, ::k].to(dtype, copy=True)
    for y in range(k):
        for x in range(k):
            if y or x:
                found += counts[:, y::k, x::k].to(dtype)
    return found


def kinds(synapse: Synapse, shape: Shape, low: int, high: int, device: torch.device) -> list[str]:
    """Return the kinds of arithmetic in which a product is exact, the fastest first."""
    weight = synapse.weight
    greatest = max(int(weight.max(initial=0)), -int(weight.min(initial=0)))
    fan_in = int(np.abs(weight, dtype=np.int64).reshape(len(weight), -1).sum(1).max(initial=0))
    found = ["float64"]
    if (fan_in << synapse.exponent) * max(high, -low) < FLOAT32_EXACT:
        found.insert(0, "float32")
        small = greatest <= WEIGHT_LIMIT and low >= 0 and high <= COUNT_LIMIT and 2 * greatest * high <= PAIR_LIMIT
        if small and _suits_int8(synapse, shape) and device.type == "cpu" and has_int8():
            found.insert(0, "int8")
    return found


def _keeps_channels_last(synapse: Synapse) -> bool:
    """Return whether oneDNN can be trusted with a convolution of images whose channels come last.

    Where whole windows lie in the padding it crashes, and with a single channel it was seen to give wrong sums (torch
    2.3 and 2.13, some ten thousand random convolutions); within these limits neither was ever seen.
    """
    if not isinstance(synapse, Conv):
        return True
    channels = synapse.weight.shape[1] * synapse.groups
    reach = zip(synapse.padding, synapse.dilation, synapse.weight.shape[2:], strict=True)
    return channels > 1 and all(2 * p <= d * (k - 1) for p, d, k in reach)


def _suits_int8(synapse: Synapse, shape: Shape) -> bool:
    """Return whether oneDNN can be trusted with it in 8 bits.

    One channel a group gave wrong sums there, and so did images one wide on processors with AMX; of some of those one
    high it crashed (torch 2.3, a few in a thousand random convolutions; of ten thousand others none).
    """
    if not isinstance(synapse, Conv):
        return True
    several = synapse.weight.shape[1] > 1 and min(synapse.output_shape(shape)[1:]) > 1
    return several and _keeps_channels_last(synapse)


@cache
def has_int8() -> bool:
    """Return whether torch can multiply 8-bit integers here, and does so exactly."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    weight = torch.full((1, 64), WEIGHT_LIMIT, dtype=torch.int8)
    counts = torch.full((1, 64), 2 * PAIR_LIMIT // (4 * WEIGHT_LIMIT), dtype=torch.uint8)
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    try:
        packed = _onednn.qlinear_prepack(weight, None)
        found = _onednn.qlinear_pointwise(
            counts, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
    except (AttributeError, RuntimeError):
        return False
    return float(found) == float(counts.long().sum() * WEIGHT_LIMIT)


def _columns_last(weight: np.ndarray, shape: Shape) -> np.ndarray:
    """Return dense weights with columns in the order of a flattened (H, W, C), not (C, H, W), source."""
    if len(shape) == 1:
        return weight
    return np.ascontiguousarray(weight.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(weight), -1))
