"""The detector of CASC (arXiv 2406.05371), a YOLO: VGG backbone, SPP neck, decoupled head, one stride, no anchors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from lava_casc.errors import DataError, MissingDependencyError
from lava_casc.frontend.cqrelu import Normalize, replace_relu

#: Mean and standard deviation of ImageNet's pixels, channel by channel: near enough for photographs of anything.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: What a new detector believes of every cell: that an object is there. Nearly no cell holds one.
PRIOR = 0.01
POOLS = (5, 9, 13)


class PyramidPooling(nn.Module):
    """SPP: what max pools of three sizes see, beside what they see it in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.narrow = _block(channels, half, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in POOLS)
        self.join = _block(half * (1 + len(POOLS)), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the shape of `x`."""
        x = self.narrow(x)
        return self.join(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class Head(nn.Module):
    """Two 3x3 modules for the class, four for the box and whether there is one; three maps of real values."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.classification = _blocks(channels, width, 2)
        self.regression = _blocks(channels, width, 4)
        self.objectness = nn.Conv2d(width, 1, 1)
        self.classes = nn.Conv2d(width, classes, 1)
        self.boxes = nn.Conv2d(width, 4, 1)
        for output in (self.objectness, self.classes):
            nn.init.constant_(output.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the maps of `Detector`."""
        what, where = self.classification(x), self.regression(x)
        return self.objectness(where), self.classes(what), self.boxes(where)


class Detector(nn.Module):
    """A detector: images to three maps, each with one value or vector for every cell of `stride` by `stride` pixels.

    Parameters
    ----------
    backbone : torch.nn.Module
        (N, 3, H, W) to (N, channels, H / stride, W / stride).
    channels : int
    width : int
        Channels of the head's modules.
    classes : int
    """

    def __init__(self, backbone: nn.Module, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(MEAN, STD)
        self.backbone = backbone
        self.neck = PyramidPooling(channels)
        self.head = Head(channels, width, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return objectness (N, 1, h, w), classes (N, C, h, w) and boxes (N, 4, h, w) for images within [0, 1].

        The first two are logits; `lava_casc.detection.decode` says what the boxes mean.
        """
        return self.head(self.neck(self.backbone(self.normalize(x))))


def _vgg16(classes: int) -> Detector:
    try:
        from torchvision.models import vgg16_bn
    except ImportError as error:
        raise MissingDependencyError(
            "vgg16: torchvision is not installed. Install it with pip install 'lava-casc[detection]'."
        ) from error
    return Detector(vgg16_bn(weights=None).features[:-1], 512, 256, classes)


def _vgg_small(classes: int) -> Detector:
    stages = ((3, 16), (16, 32, 32), (32, 64, 64), (64, 64))
    return Detector(_stages(stages), 64, 48, classes)


def _vgg_tiny(classes: int) -> Detector:
    stages = ((3, 8), (8, 16), (16, 32), (32, 32))
    return Detector(_stages(stages), 32, 24, classes)


#: By name: the backbone's stride, and what makes a detector of it. vgg16 is torchvision's, without its last max pool.
BACKBONES: dict[str, tuple[int, Callable[[int], Detector]]] = {
    "vgg16": (16, _vgg16),
    "vgg-small": (8, _vgg_small),
    "vgg-tiny": (8, _vgg_tiny),
}


def build_detector(
    backbone: str,
    classes: int,
    *,
    levels: int = 8,
    rounding: str = "round",
    learnable: bool = True,
    threshold: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """Return a new `Detector` with CQReLU activations and the initial weights of `seed`.

    Parameters
    ----------
    backbone : str
        A key of `BACKBONES`.
    classes : int
        At least 1.
    levels, rounding, learnable, threshold
        Of every `CQReLU`. ``rounding="floor", learnable=False`` is the activation of CASC (arXiv 2406.05371).
    seed : int
        The caller's random state stays as it is.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    DataError
        The backbone is not known.
    """
    _, make = _backbone(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return replace_relu(make(classes), levels, threshold=threshold, rounding=rounding, learnable=learnable)


def stride_for(backbone: str, size: tuple[int, int]) -> int:
    """Return a backbone's stride, if it divides images of `size` (height, width).

    Raises
    ------
    DataError
        The backbone is not known, or cannot take images of this size.
    """
    stride, _ = _backbone(backbone)
    for name, pixels in zip(("height", "width"), size, strict=True):
        if pixels < stride or pixels % stride:
            below, above = max(stride, pixels // stride * stride), max(1, -(-pixels // stride)) * stride
            choice = f"{below} or {above}" if below != above else f"{below}"
            raise DataError(
                f"image size {size[0]},{size[1]}: the {name} ({pixels}) is no multiple of {stride}, the stride of "
                f"{backbone}. Use {choice}."
            )
    return stride


def _backbone(name: str) -> tuple[int, Callable[[int], Detector]]:
    if name not in BACKBONES:
        raise DataError(f"backbone {name!r} is not known. Choose one of {', '.join(sorted(BACKBONES))}.")
    return BACKBONES[name]


def _block(channels: int, out: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, padding=size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


def _blocks(channels: int, width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_block(channels if i == 0 else width, width, 3) for i in range(depth)))


def _stages(stages: tuple[tuple[int, ...], ...]) -> nn.Sequential:
    """Return 3x3 modules of these channels, with a max pool of 2 between two stages, as in VGG."""
    layers: list[nn.Module] = []
    for number, channels in enumerate(stages):
        if number:
            layers.append(nn.MaxPool2d(2))
        layers += [_block(a, b, 3) for a, b in zip(channels, channels[1:], strict=False)]
    return nn.Sequential(*layers)
