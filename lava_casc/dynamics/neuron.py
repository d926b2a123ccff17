"""The CIF neuron on integers, as two pure functions: where it aims, and how it gets there."""

from __future__ import annotations

import torch


def aim(received: torch.Tensor, threshold: torch.Tensor, levels: int, dtype: torch.dtype) -> torch.Tensor:
    """Return ``clip(floor(received / threshold), 0, levels)``; `received` is overwritten.

    Parameters
    ----------
    received : floating-point tensor
        Integers, below 2**24 in float32 and 2**53 in float64.
    threshold : tensor of the same type, not of dimension 0
        Integers of at least 1. They are divided by: torch would multiply by the reciprocal of a single number.
    levels : int
    dtype : torch.dtype
        An integer type that holds `levels`.

    Returns
    -------
    tensor of `dtype`
        Of the shape of `received`.

    Notes
    -----
    The floor of the rounded quotient is that of the quotient. With p bits of precision, let ``S = k * threshold - j``,
    ``1 <= j <= threshold``, so that k is the least integer above the quotient, at a distance of ``j / threshold``. Half
    the distance from k to the number before it is less than ``k * 2**-p = (S + j) / (threshold * 2**p)``, which is at
    most ``j / threshold`` because ``S < 2**p``: the quotient is rounded to something less than k.
    """
    return received.div_(threshold).clamp_(0, levels).to(dtype)


def cif_step(
    target: torch.Tensor,
    count: torch.Tensor,
    max_burst: int,
    signed: bool = True,
    ceiling: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the signed spikes of one step, ``clip(target - count, -max_burst, max_burst)``.

    With the potential ``u = received - threshold * count`` and the target that `aim` returns, this is for
    ``max_burst = 1`` the neuron of CASC (arXiv 2406.05371) with the cap that its results need:
    ``+1 if u >= threshold and count < levels, -1 if u < 0 and count > 0, else 0``.

    Parameters
    ----------
    target, count : integer tensors of one shape
    max_burst : int
        At least 1.
    signed : bool
        Whether spikes may be negative; without them this is the integrate-and-fire neuron with soft reset.
    ceiling : integer tensor, optional
        The greatest count that is not taken back, nowhere below `target`; by default that is `target`. With the
        negative threshold n, ``-1 if u <= -n and count > 0``, it is ``aim(received + n - 1)``, because ``u <= -n`` says
        that ``threshold * count > received + n - 1``.

    Returns
    -------
    integer tensor
        Of the same shape and type, within ``[-max_burst, max_burst]``.
    """
    if ceiling is None:
        return (target - count).clamp_(-max_burst if signed else 0, max_burst)
    return (target - count).clamp_(0, max_burst) + (ceiling - count).clamp_(-max_burst, 0)
