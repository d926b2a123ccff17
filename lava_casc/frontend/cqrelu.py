"""CQReLU, the activation that spikes can compute exactly, and the normalization of images as part of a model."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._ops import ops
from torch.autograd.function import once_differentiable

#: What the rounding adds before the floor, by its name.
PHASES = {"floor": 0.0, "round": 0.5}


class _StraightThrough(torch.autograd.Function):
    """The formula and the gradient of `CQReLU`, in a third of the passes over memory that autograd's own would take."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, threshold: torch.Tensor, levels: int, phase: float) -> torch.Tensor:
        # The division comes last: it is exact wherever z lies on a step, so that no step is missed by rounding.
        steps = (z * levels).div_(threshold).add_(phase).floor_().clamp_(0, levels)
        value = steps.div_(levels).mul_(threshold)
        ctx.save_for_backward(z, threshold, value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, threshold, value = ctx.saved_tensors
        ratio, limits = z / threshold, torch.finfo(z.dtype)
        # The kernel's limits are exclusive, those of the formula inclusive.
        inside = ops.aten.hardtanh_backward(gradient, ratio, -limits.tiny, 1 + limits.eps)
        if not ctx.needs_input_grad[1]:
            return inside, None, None, None
        sums = [
            t.sum_to_size(threshold.shape) if threshold.dim() else t.sum() for t in (gradient * value, inside * ratio)
        ]
        return inside, sums[0] / threshold - sums[1], None, None


class CQReLU(nn.Module):
    r"""Clipped, quantized ReLU with `levels` steps.

    .. math::

        a = \frac{\lambda}{L} \operatorname{clip}\left(
            \left\lfloor \frac{L (z + s)}{\lambda} + \varphi \right\rfloor, 0, L\right)

    with :math:`L` = `levels`, :math:`\lambda` = `threshold`, :math:`s` = `shift` (none, if not given), and phase
    :math:`\varphi` = 0 (floor, the paper CASC, arXiv 2406.05371) or 1/2 (round). With ``x = z + shift`` the gradient
    is straight-through: 1 to `z` and to the shift where ``0 <= x <= threshold`` and 0 outside; to a learnable
    threshold, ``a / threshold - x / threshold`` inside and ``a / threshold`` outside, as in learned step size
    quantization (arXiv 1902.08153).

    Parameters
    ----------
    levels : int
        At least 1.
    threshold : float or (C,) sequence of float
        The value at which the activation saturates, finite and greater than 0: one for all, or one a channel.
    rounding : {"floor", "round"}
    learnable : bool
        Whether `threshold` and `shift` are parameters.
    shift : float or (C,) sequence of float, optional
        In units of `z`, finite. Without it a state dict holds the threshold alone.

    Raises
    ------
    ValueError
        An argument is out of its range.
    """

    threshold: torch.Tensor
    shift: torch.Tensor | None

    def __init__(
        self,
        levels: int,
        threshold: float | Sequence[float] | torch.Tensor = 1.0,
        rounding: str = "floor",
        learnable: bool = False,
        shift: float | Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(levels, int) or isinstance(levels, bool) or levels < 1:
            raise ValueError(f"levels must be an int of at least 1, not {levels!r}")
        if rounding not in PHASES:
            raise ValueError(f"rounding must be 'floor' or 'round', not {rounding!r}")
        self.levels, self.rounding, self.learnable = levels, rounding, learnable
        for name, given, low in (("threshold", threshold, 0.0), ("shift", shift, -math.inf)):
            value = None if given is None else _a_channel(name, given, low)
            if learnable and value is not None:
                setattr(self, name, nn.Parameter(value))
            elif value is None:
                setattr(self, name, None)
            else:
                self.register_buffer(name, value)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the activation of `z`, of the same shape and dtype.

        The channels of `z` are its dimension 1; those of a sequence (N, P, F) are its last.

        Parameters
        ----------
        z : floating-point tensor
            (N, C), (N, C, H, W), or (N, P, F) of a sequence.

        Returns
        -------
        tensor

        Raises
        ------
        ValueError
            There are not as many thresholds or shifts as channels.
        """
        if self.shift is not None:
            z = z + beside(self.shift, z)
        return _StraightThrough.apply(z, beside(self.threshold, z), self.levels, PHASES[self.rounding])

    def extra_repr(self) -> str:
        """Return the arguments for the module's repr.

        Returns
        -------
        str
        """
        shown = f"levels={self.levels}, threshold={_shown(self.threshold)}"
        shown += "" if self.shift is None else f", shift={_shown(self.shift)}"
        return f"{shown}, rounding={self.rounding!r}, learnable={self.learnable}"


def _a_channel(name: str, given: float | Sequence[float] | torch.Tensor, low: float) -> torch.Tensor:
    """Return a value for all channels () or one each (C,), all of them finite and greater than `low`."""
    value = torch.as_tensor(given, dtype=torch.get_default_dtype(), device="cpu").detach()
    within = "finite" if math.isinf(low) else f"finite and greater than {low:g}"
    if value.dim() > 1 or not value.numel() or not bool(((value > low) & (value < math.inf)).all()):
        raise ValueError(f"{name} must be {within}, one for all or one a channel, not {given!r}")
    return torch.tensor(value.tolist())  # on the device that new modules are made on


def beside(value: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return a value for all channels of `z`, or one for each, so that it broadcasts against `z`."""
    value = value.to(z.dtype)
    if value.dim() == 0:
        return value
    channels = z.shape[1 if z.dim() != 3 else 2] if z.dim() > 1 else -1
    if len(value) != channels:
        raise ValueError(f"CQReLU of {len(value)} channels on an input of shape {tuple(z.shape)}")
    return value if z.dim() == 3 else value.reshape(-1, *(1,) * (z.dim() - 2))


def _shown(value: torch.Tensor) -> str:
    low, high = value.min().item(), value.max().item()
    return f"{low:g}" if value.dim() == 0 else f"{low:g}..{high:g} of {len(value)} channels"


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel, as a part of the model.

    A model that normalizes its images itself can be fed the integers of the image on the chip: zero padding stays zero
    after the normalization, and the conversion keeps the borders exact.

    Parameters
    ----------
    mean, std : float or sequence of float
        One a channel, or one for all; `std` greater than 0.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()).reshape(-1))
        if not bool((self.std > 0).all()):
            raise ValueError("std must be greater than 0")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(x - mean) / std`` for `x` of shape (N, C, ...).

        Parameters
        ----------
        x : (N, C, ...) tensor

        Returns
        -------
        (N, C, ...) tensor
        """
        shape = (-1, *(1,) * (x.dim() - 2))
        return (x - self.mean.reshape(shape)) / self.std.reshape(shape)


def replace_relu(
    model: nn.Module, levels: int, *, threshold: float = 1.0, rounding: str = "floor", learnable: bool = False
) -> nn.Module:
    """Return a copy of `model` in which every ReLU, ReLU6 and Hardtanh(0, x) module is a `CQReLU` of its own.

    Parameters
    ----------
    model : torch.nn.Module
        Any module; itself unchanged. A ReLU that was used twice becomes one CQReLU that is used twice.
    levels, threshold, rounding, learnable
        As for `CQReLU`. A ReLU6 keeps its 6 and a Hardtanh its upper limit as the threshold.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        The model holds no ReLU module. (A functional ``F.relu`` cannot be replaced; `calibrate` can.)
    """
    model = copy.deepcopy(model)
    made: dict[nn.Module, CQReLU] = {}

    def make(relu: nn.Module) -> CQReLU:
        limit = float(relu.max_val) if isinstance(relu, nn.Hardtanh) else threshold
        return made.setdefault(relu, CQReLU(levels, limit, rounding, learnable))

    if _is_relu(model):
        return make(model)
    for parent in list(model.modules()):
        # Not named_children(), which names a ReLU that stands in two places only once.
        for name, child in list(parent._modules.items()):
            if child is not None and _is_relu(child):
                setattr(parent, name, make(child))
    if not made:
        raise ValueError("the model holds no ReLU module to replace; make F.relu calls nn.ReLU modules first")
    return model


def _is_relu(module: nn.Module) -> bool:
    # nn.ReLU6 is a Hardtanh(0, 6).
    return isinstance(module, nn.ReLU) or (isinstance(module, nn.Hardtanh) and module.min_val == 0)
