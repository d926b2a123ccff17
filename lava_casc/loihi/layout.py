"""Every flip between torch's layout and Lava's, and nothing else.

An `IntegerNetwork` has images ``(C, H, W)``, kernels ``(O, I, KH, KW)`` that are correlated, and pairs along
height and width. Lava has images ``(W, H, C)``, kernels ``(O, KW, KH, I)`` that are truly convolved (turned
round in both directions), and pairs along width and height. Flat layers are alike in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lava_casc.network import Shape


def lava_shape(shape: Shape) -> Shape:
    """Return the shape (W, H, C) of a layer (C, H, W); a flat one stays."""
    return shape[::-1]


def lava_pair(pair: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) of (height, width)."""
    return pair[::-1]


def lava_images(images: NDArray) -> NDArray:
    """Return (N, W, H, C) of (N, C, H, W); flat ones stay."""
    return np.ascontiguousarray(images.transpose(0, 3, 2, 1)) if images.ndim == 4 else images


def torch_images(flat: NDArray, shape: Shape) -> NDArray:
    """Return (..., C, H, W) = (..., *shape) of Lava's flattened (..., W * H * C); flat layers stay."""
    if len(shape) == 1:
        return flat
    return flat.reshape(*flat.shape[:-1], *lava_shape(shape)).swapaxes(-1, -3)


def lava_values(values: NDArray) -> NDArray:
    """Return values of (C, H, W) for (W, H, C); those per channel already broadcast along its last axis."""
    return values.transpose(2, 1, 0) if values.ndim == 3 else values


def lava_kernel(weight: NDArray) -> NDArray:
    """Return the kernel (O, KW, KH, I), turned round, of torch's (O, I, KH, KW)."""
    return np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1))


def lava_matrix(weight: NDArray, source: Shape) -> NDArray:
    """Return dense weights with columns in the order of a flattened (W, H, C), not (C, H, W), source."""
    if len(source) == 1:
        return weight
    return np.ascontiguousarray(weight.reshape(-1, *source).transpose(0, 3, 2, 1).reshape(len(weight), -1))
