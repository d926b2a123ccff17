"""Small CQReLU networks for the data sets of `load_dataset`, as plain torch modules.

They take real images, ``scale * integer``. Each of them holds what a conversion has to deal with: batch norm,
average and max pooling, and a residual addition. They have few stages and few channels, because the Lava
simulator pays for every layer in every step.
"""

from __future__ import annotations

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
        self.conv = _conv(channels, channels)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation of convolution plus identity, of the shape of `x`."""
        return self.activation(self.norm(self.conv(x)) + x)


def digits(activation: Activation) -> nn.Module:
    """Return a network for 8x8 images: three layers of neurons and a max pool."""
    return nn.Sequential(
        _block(1, 8, activation),
        Residual(8, activation),
        nn.AvgPool2d(2),
        _block(8, 16, activation),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 2 * 2, 10),
    )


def fashion(activation: Activation) -> nn.Module:
    """Return a network for 28x28 images: five layers of neurons and a max pool."""
    return nn.Sequential(
        Normalize(0.2860, 0.3530),  # of the training images
        nn.Sequential(nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), activation()),
        Residual(16, activation),
        nn.AvgPool2d(2),
        _block(16, 32, activation),
        Residual(32, activation),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 3 * 3, 128),
        activation(),
        nn.Linear(128, 10),
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
        raise DataError(
            f"architecture {name!r} is not known. Choose one of {', '.join(sorted(ARCHITECTURES))}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[name](lambda: CQReLU(levels, threshold, rounding, learnable))


def _block(inputs: int, outputs: int, activation: Activation) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs), nn.BatchNorm2d(outputs), activation())


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
