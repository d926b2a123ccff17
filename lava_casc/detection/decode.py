"""From the three maps of a detector to boxes: the same functions for float, integer and spiking outputs.

With ``t`` the four values of the cell in row i, column j, a box has

    centre = (j + 1/2 + t_0, i + 1/2 + t_1) * stride        width, height = (exp t_2, exp t_3) * stride

in pixels, and the score ``sigmoid(objectness) * sigmoid(class)`` of its likeliest class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lava_casc.errors import MissingDependencyError

#: Below this score nothing is reported; mean average precision wants the doubtful boxes as well.
MIN_SCORE = 0.01
#: Of two boxes of one class that overlap more than this (intersection over union), the likelier one stays.
MAX_OVERLAP = 0.6
#: Boxes of an image, the likeliest: as many as COCO's metric looks at.
MOST = 100


def cell_centres(height: int, width: int, stride: int) -> Tensor:
    """Return x, y of the centre of every cell of a map, (height * width, 2) float64, in pixels, row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5) * stride


def decode_boxes(maps: Tensor, stride: int) -> Tensor:
    """Return the boxes x0, y0, x1, y1 (N, h * w, 4) of a map (N, 4, h, w), in pixels.

    A box wider or higher than twice the image is cut to that, so that ``exp`` stays finite.
    """
    height, width = maps.shape[2:]
    t = maps.flatten(2).transpose(1, 2)
    centre = cell_centres(height, width, stride).to(t) + t[..., :2] * stride
    half = t[..., 2:].clamp(max=math.log(2 * max(height, width))).exp() * (stride / 2)
    return torch.cat([centre - half, centre + half], -1)


def detect(
    maps: Sequence[ArrayLike],
    stride: int,
    *,
    min_score: float = MIN_SCORE,
    max_overlap: float = MAX_OVERLAP,
    most: int = MOST,
) -> list[dict[str, Tensor]]:
    """Return the objects in every image: decoded, cut to the image, without what non-maximum suppression drops.

    Parameters
    ----------
    maps : three arrays of real values
        Objectness (N, 1, h, w), classes (N, C, h, w), boxes (N, 4, h, w).
    stride : int
        Pixels of a cell's side.
    min_score, max_overlap : float
        Within [0, 1].
    most : int

    Returns
    -------
    list of dict
        ``boxes`` (n, 4) x0, y0, x1, y1 in pixels, ``scores`` (n,) falling, ``labels`` (n,) int64: one dict an image.
    """
    ops = torchvision_ops()
    objectness, classes, boxes = (torch.as_tensor(values) for values in maps)
    height, width = objectness.shape[2:]
    corners = ops.clip_boxes_to_image(decode_boxes(boxes, stride), (height * stride, width * stride))
    likeliest, labels = classes.flatten(2).sigmoid().max(1)
    scores = objectness.flatten(1).sigmoid() * likeliest
    found = []
    for box, score, label in zip(corners, scores, labels, strict=True):
        chosen = score >= min_score
        box, score, label = box[chosen], score[chosen], label[chosen]
        kept = ops.batched_nms(box, score, label, max_overlap)[:most]
        found.append({"boxes": box[kept], "scores": score[kept], "labels": label[kept]})
    return found


def torchvision_ops():  # type: ignore[no-untyped-def]
    """Return `torchvision.ops`, or say that torchvision is missing."""
    try:
        import torchvision.ops
    except ImportError as error:
        raise MissingDependencyError(
            "detection: torchvision is not installed. Install it with pip install 'lava-casc[detection]'."
        ) from error
    return torchvision.ops
