"""Small CQReLU networks for the data sets of `load_dataset`, as plain torch modules.

They take real images, ``scale * integer``. Each of them holds what a conversion has to deal with: batch norm,
average and max pooling, and a residual addition. They have few stages and few channels, because the Lava
simulator pays for every layer in every step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from lava_casc.errors import DataError
from lava_casc.frontend.cqrelu import CQReLU, Normalize

Activation = Callable[[], nn.Module]


class Residual(nn.Module):
    """A 3x3 convolution whose input is added to its output before the activation."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation of convolution plus identity, of the shape of `x`."""
        return self.activation(self.norm(self.conv(x)) + x)


def digits(activation: Activation) -> nn.Module:
    """Return a network for 8x8 images: three layers of neurons and a max pool."""
    return _sequence(
        _block("1", nn.Conv2d(1, 8, 3, padding=1, bias=False), activation),
        {"residual": Residual(8, activation), "average": nn.AvgPool2d(2)},
        _block("2", nn.Conv2d(8, 16, 3, padding=1, bias=False), activation),
        {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "readout": nn.Linear(16 * 2 * 2, 10)},
    )


def fashion(activation: Activation) -> nn.Module:
    """Return a network for 28x28 images: five layers of neurons and a max pool."""
    return _sequence(
        {"normalize": Normalize(0.2860, 0.3530)},  # of the training images
        _block("1", nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), activation),
        {"residual1": Residual(16, activation), "average": nn.AvgPool2d(2)},
        _block("2", nn.Conv2d(16, 32, 3, padding=1, bias=False), activation),
        {"residual2": Residual(32, activation), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten()},
        {"dense": nn.Linear(32 * 3 * 3, 128), "activation3": activation()},
        {"readout": nn.Linear(128, 10)},
    )


#: The networks by name; each is built around the activation that it is given.
ARCHITECTURES: dict[str, Callable[[Activation], nn.Module]] = {"digits": digits, "fashion": fashion}


def build(
    name: str,
    *,
    levels: int = 8,
    rounding: str = "round",
    learnable: bool = True,
    threshold: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """Return a new network with the initial weights of `seed`; the caller's random state stays as it is.

    Parameters
    ----------
    name : str
        A key of `ARCHITECTURES`.
    levels, rounding, learnable, threshold
        Of every `CQReLU`. ``rounding="floor", learnable=False`` is the activation of CASC (arXiv 2406.05371).
    seed : int

    Raises
    ------
    DataError
        The name is not known.
    """
    if name not in ARCHITECTURES:
        raise DataError(f"architecture {name!r} is not known. Choose one of {', '.join(sorted(ARCHITECTURES))}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[name](lambda: CQReLU(levels, threshold, rounding, learnable))


def _block(number: str, conv: nn.Conv2d, activation: Activation) -> dict[str, nn.Module]:
    norm = nn.BatchNorm2d(conv.out_channels)
    return {f"conv{number}": conv, f"norm{number}": norm, f"activation{number}": activation()}


def _sequence(*parts: dict[str, nn.Module]) -> nn.Sequential:
    """Return a sequence of named modules: a converted layer is called after its module."""
    return nn.Sequential(OrderedDict(item for part in parts for item in part.items()))
