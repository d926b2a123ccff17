"""Chance in the images of a training: whole batches of uint8 at once, so that it costs a few seconds an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lava_casc.errors import MissingDependencyError

#: So many batches share the draws of AutoAugment: an image of each gets the same policy, no two of one batch do.
BATCHES_IN_A_DRAW = 8


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a training.

    Attributes
    ----------
    shift : int
        Each image is moved by up to so many pixels along both axes, zeros moving in: a crop of the padded image.
    flip : bool
        Half of the images are mirrored, left and right.
    cutout : int
        Side of a square that is blotted out with the mean colour, wherever its centre lies in the image
        (arXiv 1708.04552); 0 for none.
    autoaugment : bool
        The policies of AutoAugment for CIFAR-10 (arXiv 1805.09501) in torchvision's implementation.
    """

    shift: int = 0
    flip: bool = False
    cutout: int = 0
    autoaugment: bool = False

    def __post_init__(self) -> None:
        if self.autoaugment:
            try:
                import torchvision.transforms.v2  # noqa: F401
            except ImportError as error:
                raise MissingDependencyError(
                    "AutoAugment: torchvision is not installed. Install it with pip install 'lava-casc[data]', or "
                    "train with --augment standard."
                ) from error


def augmented(
    images: torch.Tensor, order: torch.Tensor, batch_size: int, augmentation: Augmentation, mean: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield batches of images in the given order, augmented by chance from torch's global generator.

    Parameters
    ----------
    images : (N, C, H, W) tensor of uint8
    order : (M,) tensor of int64
        Indices into `images`.
    batch_size : int
    augmentation : Augmentation
    mean : (C,) tensor of uint8
        The colour of a cutout.
    """
    for together in order.split(BATCHES_IN_A_DRAW * batch_size):
        drawn = images[together]
        if augmentation.autoaugment:
            drawn = _autoaugmented(drawn, batch_size)
        for batch in drawn.split(batch_size):
            batch = _shifted(batch, augmentation.shift)
            batch = _flipped(batch) if augmentation.flip else batch
            yield _cut_out(batch, augmentation.cutout, mean)


def _autoaugmented(images: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Return the images of a few batches under policies of AutoAugment, one for the i-th images of all of them."""
    from torchvision.transforms import v2

    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    result = torch.empty_like(images)
    for i in range(min(batch_size, len(images))):
        result[i::batch_size] = policy(images[i::batch_size])
    return result


def _shifted(images: torch.Tensor, limit: int) -> torch.Tensor:
    """Return each image moved by up to `limit` pixels along both axes, zeros moving in."""
    if limit == 0:
        return images
    n, _, height, width = images.shape
    padded = F.pad(images, (limit,) * 4)
    offsets = torch.randint(0, 2 * limit + 1, (2, n, 1)).to(images.device)
    rows = (offsets[0] + torch.arange(height, device=images.device))[:, :, None]
    columns = (offsets[1] + torch.arange(width, device=images.device))[:, None]
    return padded[torch.arange(n, device=images.device)[:, None, None], :, rows, columns].movedim(-1, 1)


def _flipped(images: torch.Tensor) -> torch.Tensor:
    """Return the images, half of them mirrored."""
    mirrored = (torch.rand(len(images), 1, 1, 1) < 0.5).to(images.device)
    return torch.where(mirrored, images.flip(-1), images)


def _cut_out(images: torch.Tensor, side: int, colour: torch.Tensor) -> torch.Tensor:
    """Return each image with a square of `side` pixels in one colour; its centre is anywhere in the image."""
    if side == 0:
        return images
    inside = []
    for length in images.shape[2:]:
        start = torch.randint(0, length, (len(images), 1)) - side // 2
        pixel = torch.arange(length)
        inside.append(((pixel >= start) & (pixel < start + side)).to(images.device))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(square, colour[:, None, None], images)
