"""CQReLU networks for the data sets of `load_dataset`, as plain torch modules.

They take real images, ``scale * integer``. `digits` and `fashion` hold, small as they are, what a conversion has to
deal with: batch norm, average and max pooling, and a residual addition. `vgg9`, `vgg16` and `resnet20` are those of
the CIFAR images. Networks for greater images are torchvision's own definitions: ``torchvision:resnet34``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.frontend.cqrelu import CQReLU, Normalize, replace_relu

Activation = Callable[[], nn.Module]

#: What stands before the name of a network that torchvision defines.
TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class Design:
    """What a network is built for.

    Attributes
    ----------
    activation : callable
        Makes one `CQReLU`, or another module in its place.
    channels, classes : int
        Of the images, and of the answer.
    mean, std : float or sequence of float
        Of the real pixels, one a channel or one for all: what the network normalizes its images with.
    width : float
        Factor of all numbers of channels.
    pool : {"average", "max"}
        How a VGG makes its images smaller.
    """

    activation: Activation
    channels: int = 3
    classes: int = 10
    mean: float | Sequence[float] = 0.5
    std: float | Sequence[float] = 0.25
    width: float = 1.0
    pool: str = "average"

    def wide(self, channels: int) -> int:
        """Return a number of channels at this width.

        Parameters
        ----------
        channels : int

        Returns
        -------
        int
        """
        return max(1, round(channels * self.width))


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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a 1x1 convolution with batch norm where shapes change.

    That is option B of "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
    """

    def __init__(self, inputs: int, channels: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == channels
            else nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )
        self.activation2 = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's activation, its height and width divided by the stride."""
        y = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        return self.activation2(y + self.shortcut(x))


def digits(design: Design) -> nn.Module:
    """Return a network for 8x8 images: three layers of neurons and a max pool."""
    first, second = design.wide(8), design.wide(16)
    return _sequence(
        _block("1", nn.Conv2d(design.channels, first, 3, padding=1, bias=False), design),
        {"residual": Residual(first, design.activation), "average": nn.AvgPool2d(2)},
        _block("2", nn.Conv2d(first, second, 3, padding=1, bias=False), design),
        {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten(), "readout": nn.Linear(second * 2 * 2, design.classes)},
    )


def fashion(design: Design) -> nn.Module:
    """Return a network for 28x28 images: five layers of neurons and a max pool."""
    first, second, dense = design.wide(16), design.wide(32), design.wide(128)
    return _sequence(
        {"normalize": Normalize(design.mean, design.std)},
        _block("1", nn.Conv2d(design.channels, first, 5, stride=2, padding=2, bias=False), design),
        {"residual1": Residual(first, design.activation), "average": nn.AvgPool2d(2)},
        _block("2", nn.Conv2d(first, second, 3, padding=1, bias=False), design),
        {"residual2": Residual(second, design.activation), "pool": nn.MaxPool2d(2), "flatten": nn.Flatten()},
        {"dense": nn.Linear(second * 3 * 3, dense), "activation3": design.activation()},
        {"readout": nn.Linear(dense, design.classes)},
    )


def resnet20(design: Design) -> nn.Module:
    """Return the ResNet-20 of He et al. (arXiv 1512.03385) for 32x32 images: 16, 32 and 64 channels."""
    channels = design.wide(16)
    parts: list[dict[str, nn.Module]] = [
        {"normalize": Normalize(design.mean, design.std)},
        _block("1", nn.Conv2d(design.channels, channels, 3, padding=1, bias=False), design),
    ]
    for i in range(9):
        inputs, channels = channels, design.wide(16 * 2 ** (i // 3))
        stride = 2 if i in (3, 6) else 1
        parts.append({f"block{i + 1}": BasicBlock(inputs, channels, stride, design.activation)})
    return _sequence(*parts, _head(channels, design))


def vgg9(design: Design) -> nn.Module:
    """Return a small VGG for 32x32 images: eight convolutions of 32 to 256 channels and a readout."""
    return _vgg(((32, 32), (64, 64), (128, 128), (256, 256)), design)


def vgg16(design: Design) -> nn.Module:
    """Return the VGG16 of arXiv 1409.1556 as usual for 32x32 images: 13 convolutions with batch norm and a readout."""
    return _vgg(((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3), design)


#: The networks by name.
ARCHITECTURES: dict[str, Callable[[Design], nn.Module]] = {
    "digits": digits,
    "fashion": fashion,
    "resnet20": resnet20,
    "vgg16": vgg16,
    "vgg9": vgg9,
}


def build(
    name: str,
    *,
    channels: int = 3,
    classes: int = 10,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.25,
    width: float = 1.0,
    pool: str = "average",
    levels: int = 8,
    rounding: str = "round",
    learnable: bool = True,
    threshold: float = 1.0,
    activation: str = "cqrelu",
    seed: int = 0,
) -> nn.Module:
    """Return a new network with the initial weights of `seed`; the caller's random state stays as it is.

    Parameters
    ----------
    name : str
        A key of `ARCHITECTURES`, or ``torchvision:`` and the name of a classification network of
        ``torchvision.models``: its ReLU become CQReLU, and a `Normalize` comes first.
    channels, classes, mean, std, width, pool
        As for `Design`. Networks of torchvision have three channels, their own width and their own pools.
    levels, rounding, learnable, threshold
        Of every `CQReLU`. ``rounding="floor", learnable=False`` is the activation of CASC (arXiv 2406.05371).
    activation : {"cqrelu", "relu"}
        ``relu`` has plain ReLU in place of every CQReLU, and the same weights.
    seed : int

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    DataError
        The name is not known, or the network has no such choice.
    MissingDependencyError
        torchvision is not installed.
    """
    if pool not in ("average", "max"):
        raise DataError(f"pool {pool!r} is not known. Choose one of average, max.")
    if pool != "average" and name not in ("vgg9", "vgg16"):
        raise DataError(f"architecture {name!r} has pools of its own. Choose {pool} pools for vgg9 or vgg16.")
    if activation not in ("cqrelu", "relu"):
        raise DataError(f"activation {activation!r} is not known. Choose one of cqrelu, relu.")
    plain = activation == "relu"
    make: Activation = nn.ReLU if plain else lambda: CQReLU(levels, threshold, rounding, learnable)
    design = Design(make, channels, classes, mean, std, width, pool)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in ARCHITECTURES:
            return ARCHITECTURES[name](design)
        if not name.startswith(TORCHVISION):
            raise DataError(
                f"architecture {name!r} is not known. Choose one of {', '.join(sorted(ARCHITECTURES))}, or "
                f"{TORCHVISION}NAME for a network of torchvision."
            )
        network = _of_torchvision(name.removeprefix(TORCHVISION), design)
    try:
        quantized = replace_relu(network, levels, threshold=threshold, rounding=rounding, learnable=learnable)
    except ValueError as error:
        raise DataError(f"architecture {name!r}: {error}.") from error
    return _sequence({"normalize": Normalize(mean, std), "network": network if plain else quantized})


def _of_torchvision(name: str, design: Design) -> nn.Module:
    """Return a network of torchvision.models with new weights."""
    try:
        from torchvision.models import get_model, list_models
    except ImportError as error:
        raise MissingDependencyError(
            f"{TORCHVISION}{name}: torchvision is not installed. Install it with pip install 'lava-casc[data]'."
        ) from error
    import torchvision.models

    if name not in list_models(module=torchvision.models):
        raise DataError(
            f"{TORCHVISION}{name}: torchvision has no such classification network. "
            "Choose one such as resnet34, vgg16_bn, resnext50_32x4d or regnet_x_8gf."
        )
    if design.channels != 3 or design.width != 1:
        raise DataError(
            f"{TORCHVISION}{name}: is of three channels and its own width, not of {design.channels} channels and "
            f"width {design.width}. Choose another architecture."
        )
    return get_model(name, weights=None, num_classes=design.classes)


def _vgg(stages: Sequence[Sequence[int]], design: Design) -> nn.Module:
    """Return stages of 3x3 convolutions with a pool between them, the mean of all pixels, and a readout."""
    parts: list[dict[str, nn.Module]] = [{"normalize": Normalize(design.mean, design.std)}]
    inputs = design.channels
    for i, stage in enumerate(stages, start=1):
        for j, channels in enumerate(map(design.wide, stage), start=1):
            parts.append(_block(f"{i}_{j}", nn.Conv2d(inputs, channels, 3, padding=1, bias=False), design))
            inputs = channels
        if i < len(stages):
            parts.append({f"pool{i}": nn.AvgPool2d(2) if design.pool == "average" else nn.MaxPool2d(2)})
    return _sequence(*parts, _head(inputs, design))


def _head(channels: int, design: Design) -> dict[str, nn.Module]:
    readout = nn.Linear(channels, design.classes)
    return {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "readout": readout}


def _block(number: str, conv: nn.Conv2d, design: Design) -> dict[str, nn.Module]:
    norm = nn.BatchNorm2d(conv.out_channels)
    return {f"conv{number}": conv, f"norm{number}": norm, f"activation{number}": design.activation()}


def _sequence(*parts: dict[str, nn.Module]) -> nn.Sequential:
    """Return a sequence of named modules: a converted layer is called after its module."""
    return nn.Sequential(OrderedDict(item for part in parts for item in part.items()))
