r"""Training for few time steps: the error that spiking neurons leave behind, as noise in the activations.

A network that is read after T steps, fewer than its levels, is not exact, and nothing certifies it. What a neuron has
said by then is off its activation by a residual error: its potential is not used up, and its input came unevenly.
"Converting High-Performance and Low-Latency SNNs through Explicit Modelling of Residual Error in ANNs" (arXiv
2404.17456) adds that error to the activation as noise while the network is trained, so that it learns to live with it:

.. math::

    \hat a = \operatorname{clip}\left(a + \sigma_l \frac{\lambda}{L} \varepsilon, 0, \lambda\right), \qquad
    \varepsilon \sim \mathcal N(0, 1)

with :math:`a` the `CQReLU` and an intensity :math:`\sigma_l`, in levels, of each layer. The idea is the paper's. How
the intensities are found is ours: they are measured, before every epoch, on the network as it is by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.hooks import RemovableHandle

from lava_casc.frontend.cqrelu import PHASES, CQReLU, beside

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ResidualError:
    """For which residual errors to train.

    Attributes
    ----------
    steps : int
        T, the time steps after which the network will be read; at least 1.
    samples : int
        Training samples on which the errors are measured before every epoch; at least 1.
    rise : float
        In this share of the training the noise rises linearly from 0 to the measured intensity; from 0 to 1.
    """

    steps: int
    samples: int = 64
    rise: float = 0.5

    def __post_init__(self) -> None:
        if min(self.steps, self.samples) < 1 or not 0 <= self.rise <= 1:
            raise ValueError(f"{self}: steps and samples are at least 1, rise is from 0 to 1")


class ResidualNoise:
    """Noise in every `CQReLU` of a model, while it is in training mode and this is entered as a context.

    Parameters
    ----------
    model : torch.nn.Module
    target : ResidualError
    x : tensor
        What the model takes: the samples on which the errors are measured.

    Attributes
    ----------
    intensity : dict of str to float
        By the path of a CQReLU, the standard deviation of its noise in levels, as last measured.
    strength : float
        What the intensities are multiplied by now.
    """

    def __init__(self, model: nn.Module, target: ResidualError, x: torch.Tensor) -> None:
        self.model, self.target, self.x = model, target, x
        self.intensity: dict[str, float] = {}
        self.strength = 0.0
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> ResidualNoise:
        self._handles = [
            module.register_forward_hook(self._add(path, module)) for path, module in _activations(self.model).items()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def rising(
        self, batches: Callable[[int], Iterable[Batch]], epochs: int, steps_per_epoch: int
    ) -> Callable[[int], Iterator[Batch]]:
        """Return what yields the `batches` of an epoch, measuring before the first and growing stronger with each.

        Parameters
        ----------
        batches : callable
            From an epoch's number to its batches.
        epochs : int
        steps_per_epoch : int

        Returns
        -------
        callable
        """

        def noisy(epoch: int) -> Iterator[Batch]:
            self.intensity = residual_errors(self.model, self.x, self.target.steps)
            rising = self.target.rise * epochs * steps_per_epoch
            for step, batch in enumerate(batches(epoch), epoch * steps_per_epoch):
                self.strength = min(1.0, step / rising) if rising else 1.0
                yield batch

        return noisy

    def _add(self, path: str, module: CQReLU) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor | None]:
        def hook(_: nn.Module, inputs: Any, value: torch.Tensor) -> torch.Tensor | None:
            if not module.training or not self.strength:
                return None
            top = _top(module, value)
            size = self.strength * self.intensity[path] / module.levels
            noisy = value + size * top.detach() * torch.randn_like(value)
            return torch.minimum(noisy.clamp_min(0), top)

        return hook


def residual_errors(model: nn.Module, x: torch.Tensor, steps: int) -> dict[str, float]:
    r"""Return how far each `CQReLU` is from its own rate, when the model has run as spikes for `steps` steps.

    For a neuron that spikes :math:`n` times in T steps, given inputs :math:`z_t`, the residual error in levels is
    :math:`L (n / T - a / \lambda)` with :math:`a` the CQReLU of the mean of the :math:`z_t`: what its inputs have got
    wrong is not counted again.

    Parameters
    ----------
    model : torch.nn.Module
        Left in the mode it was in.
    x : tensor
        What it takes.
    steps : int
        T.

    Returns
    -------
    dict of str to float
        The root mean square over neurons and samples, by the path of the CQReLU.
    """
    return spiking(model, x, steps)[1]


def spiking(model: nn.Module, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Run a model with integrate-and-fire neurons in place of its CQReLU, with `x` as its input in every step.

    The potential starts at half of the threshold where the CQReLU rounds, and at 0 where it floors; a spike of size
    :math:`\lambda` is emitted, and subtracted, where the potential reaches :math:`\lambda` (QCFS, arXiv 2303.04347). A
    max pool says by how much the maximum of what it has received in all has grown. Layers do not delay.

    Parameters
    ----------
    model : torch.nn.Module
    x : (N, ...) tensor
    steps : int
        T.

    Returns
    -------
    logits : (T, N, ...) tensor
        The mean of the model's outputs in the steps 1 to t.
    errors : dict of str to float
        As `residual_errors`.
    """
    was_training = model.training
    model.eval()
    activations = _activations(model)
    neurons = {path: _Neurons(module) for path, module in activations.items()}
    hooked: list[Any] = list(neurons.values())
    hooked += [_Pool(module) for module in model.modules() if isinstance(module, nn.MaxPool2d)]
    handles = [each.module.register_forward_hook(each.hook) for each in hooked]
    try:
        with torch.no_grad():
            outputs = []
            for _ in range(steps):
                for each in hooked:
                    each.call = 0
                outputs.append(model(x))
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    with torch.no_grad():
        errors = {path: neuron.error(steps) for path, neuron in neurons.items()}
    counted = torch.arange(1, steps + 1, device=x.device).reshape(-1, *(1,) * outputs[0].dim())
    return torch.stack(outputs).cumsum(0) / counted, errors


class _Neurons:
    """The integrate-and-fire neurons of a CQReLU; one population for each time that it is called in a step."""

    def __init__(self, module: CQReLU) -> None:
        self.module, self.call = module, 0
        self.potential: list[torch.Tensor] = []
        self.received: list[torch.Tensor] = []
        self.spikes: list[torch.Tensor] = []

    def hook(self, module: nn.Module, inputs: tuple[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
        """Return the spikes of a step in place of the activation."""
        (z,), i = inputs, self.call
        top = _top(self.module, value)
        if i == len(self.potential):
            self.potential.append(PHASES[self.module.rounding] * top * torch.ones_like(z))
            self.received.append(torch.zeros_like(z))
            self.spikes.append(torch.zeros_like(z))
        self.call += 1
        self.received[i] += z
        self.potential[i] += z if self.module.shift is None else z + beside(self.module.shift, z)
        fires = (self.potential[i] >= top).to(z.dtype)
        self.potential[i] -= top * fires
        self.spikes[i] += fires
        return top * fires

    def error(self, steps: int) -> float:
        """Return the root mean square of the residual errors, in levels."""
        levels, sums, count = self.module.levels, 0.0, 0
        for received, spikes in zip(self.received, self.spikes, strict=True):
            # Not by calling the module, whose hooks may add noise.
            activation = self.module.forward(received / steps) / _top(self.module, received)
            difference = levels * (spikes / steps - activation)
            sums, count = sums + float(difference.double().square().sum()), count + difference.numel()
        return (sums / max(1, count)) ** 0.5


class _Pool:
    """A max pool that passes on by how much its maxima have grown."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        self.module, self.call = module, 0
        self.received: list[torch.Tensor] = []
        self.passed: list[torch.Tensor] = []

    def hook(self, module: nn.Module, inputs: tuple[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
        """Return the growth of a step in place of the maxima of a step."""
        (x,), i = inputs, self.call
        if i == len(self.received):
            self.received.append(torch.zeros_like(x))
            self.passed.append(torch.zeros_like(value))
        self.call += 1
        self.received[i] += x
        pool = self.module
        maxima = F.max_pool2d(
            self.received[i], pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode
        )
        before, self.passed[i] = self.passed[i], maxima
        return maxima - before


def _activations(model: nn.Module) -> dict[str, CQReLU]:
    return {path: module for path, module in model.named_modules() if isinstance(module, CQReLU)}


def _top(module: CQReLU, value: torch.Tensor) -> torch.Tensor:
    return beside(module.threshold, value)
