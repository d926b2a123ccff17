"""Apply a synapse or a pooling window to counts: the algebra that front end, proof and reference share.

Torch does the sums. In float64 they are exact for integers below 2**53, in float32 below 2**24; `exact_dtype` chooses.
The Lava side does not use this module: its processes convolve on their own, so that their equality proves something.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lava_casc.network import Conv, MaxPool, Synapse

#: Below this every partial sum of integers is exact in float32, in whatever order it is taken.
FLOAT32_EXACT = 1 << 24


def effective_weight(
    synapse: Synapse, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return ``weight * 2**exponent`` as a tensor; exact, because a power of two only shifts."""
    weight = torch.tensor(synapse.weight, dtype=dtype, device=device)
    return weight * 2.0**synapse.exponent if synapse.exponent else weight


def apply(synapse: Synapse, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the current that `x` causes, shape (B, ...): ``sum_i w_i x_i`` without any bias.

    Parameters
    ----------
    synapse : Conv or Dense
    x : (B, C, H, W) or (B, N) tensor
        Floating point, holding whatever the synapse multiplies.
    weight : tensor, optional
        Replaces ``effective_weight(synapse, x.dtype)``, to keep it between calls.
    """
    weight = effective_weight(synapse, x.dtype, x.device) if weight is None else weight
    # NNPACK, torch's choice where oneDNN is missing, convolves by Winograd or Fourier transform, and autocast
    # rounds to bfloat16: neither is exact for integers.
    with torch.backends.nnpack.flags(enabled=False), torch.autocast(x.device.type, enabled=False):
        if isinstance(synapse, Conv):
            return F.conv2d(x, weight, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
        return F.linear(x.flatten(1), weight)


def max_pool(pool: MaxPool, counts: torch.Tensor) -> torch.Tensor:
    """Return the maximum of non-negative `counts` (B, C, H, W) in every window."""
    return F.max_pool2d(counts, pool.kernel, pool.stride, pool.padding, pool.dilation)


def exact_dtype(magnitude: int) -> torch.dtype:
    """Return the fastest floating-point type in which sums of integers up to `magnitude` are exact."""
    return torch.float32 if magnitude < FLOAT32_EXACT else torch.float64
