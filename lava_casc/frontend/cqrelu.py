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
        return inside, (gradient * value).sum() / threshold - (inside * ratio).sum(), None, None


class CQReLU(nn.Module):
    r"""Clipped, quantized ReLU with `levels` steps.

    .. math::

        a = \frac{\lambda}{L} \operatorname{clip}\left(
            \left\lfloor \frac{L z}{\lambda} + \varphi \right\rfloor, 0, L\right)

    with :math:`L` = `levels`, :math:`\lambda` = `threshold`, and phase :math:`\varphi` = 0 (floor, the paper CASC,
    arXiv 2406.05371) or 1/2 (round). The gradient is straight-through: 1 to `z` where ``0 <= z <= threshold`` and 0
    outside; to a learnable threshold, ``a / threshold - z / threshold`` inside and ``a / threshold`` outside, as in
    learned step size quantization (arXiv 1902.08153).

    Parameters
    ----------
    levels : int
        At least 1.
    threshold : float
        The value at which the activation saturates, greater than 0.
    rounding : {"floor", "round"}
    learnable : bool
        Whether `threshold` is a parameter.
    """

    threshold: torch.Tensor

    def __init__(self, levels: int, threshold: float = 1.0, rounding: str = "floor", learnable: bool = False) -> None:
        super().__init__()
        if not isinstance(levels, int) or isinstance(levels, bool) or levels < 1:
            raise ValueError(f"levels must be an int of at least 1, not {levels!r}")
        if not 0 < threshold < math.inf:
            raise ValueError(f"threshold must be finite and greater than 0, not {threshold!r}")
        if rounding not in PHASES:
            raise ValueError(f"rounding must be 'floor' or 'round', not {rounding!r}")
        self.levels, self.rounding, self.learnable = levels, rounding, learnable
        value = torch.tensor(float(threshold))
        if learnable:
            self.threshold = nn.Parameter(value)
        else:
            self.register_buffer("threshold", value)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the activation of `z`, of the same shape and dtype."""
        return _StraightThrough.apply(z, self.threshold.to(z.dtype), self.levels, PHASES[self.rounding])

    def extra_repr(self) -> str:
        """Return the arguments for the module's repr."""
        shown = f"levels={self.levels}, threshold={self.threshold.item():g}"
        return f"{shown}, rounding={self.rounding!r}, learnable={self.learnable}"


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
        """Return ``(x - mean) / std`` for `x` of shape (N, C, ...)."""
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

    Raises
    ------
    ValueError
        The model holds no ReLU module. (A functional ``F.relu`` cannot be replaced; `convert` names it.)
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
