"""What a detector is trained to do: which cell answers for which object, and the price of its three answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lava_casc.detection.decode import cell_centres, decode_boxes, torchvision_ops

#: A cell answers for an object whose centre is nearer than this along both axes, in cells: a window of 3x3.
RADIUS = 1.5
#: Weight of the box's loss; the two others have 1 (YOLOX, arXiv 2107.08430).
BOX_WEIGHT = 5.0


def assign(boxes: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """Return the cells (rows of `cell_centres`) that answer for an object, and the object of each.

    Those around its centre that lie in its box, and always the one that holds its centre. Of several objects a cell
    answers for the smallest (FCOS, arXiv 1904.01355).

    Parameters
    ----------
    boxes : (n, 4) tensor
        x0, y0, x1, y1 in pixels.
    height, width : int
        Of the map.
    stride : int
    """
    if not len(boxes):
        return (torch.zeros(0, dtype=torch.int64, device=boxes.device),) * 2
    cells = cell_centres(height, width, stride).to(boxes)[:, None]
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = ((cells > low) & (cells < high)).all(-1)
    distance = (cells - (low + high) / 2).abs().amax(-1) / stride
    area = (high - low).prod(-1).expand(len(cells), -1)
    answers = (inside & (distance < RADIUS)) | (distance <= 0.5)
    smallest, objects = area.masked_fill(~answers, torch.inf).min(1)
    (chosen,) = smallest.isfinite().nonzero(as_tuple=True)
    return chosen, objects[chosen]


def detection_loss(
    maps: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor], stride: int
) -> dict[str, Tensor]:
    """Return the loss of a batch and its three parts, scalars, each a sum divided by the number of answering cells.

    ``objectness``: binary cross entropy over all cells. Over the cells that `assign` chose, ``boxes``: 1 - GIoU
    (arXiv 1902.09630), and ``classes``: binary cross entropy towards the object's class, times the GIoU that its box
    has reached, so that a good box scores higher.

    Parameters
    ----------
    maps : three tensors
        Objectness (N, 1, h, w), classes (N, C, h, w), boxes (N, 4, h, w).
    boxes, labels : sequences of N tensors
        (n, 4) in pixels and (n,) of class indices, image by image.
    stride : int
    """
    objectness, classes, regression = (found.float() for found in maps)
    height, width = objectness.shape[2:]
    chosen, wanted, kinds = [], [], []
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        cells, objects = assign(box, height, width, stride)
        chosen.append(cells + i * height * width)
        wanted.append(box[objects])
        kinds.append(label[objects])
    cells, target, kind = torch.cat(chosen), torch.cat(wanted), torch.cat(kinds)
    logits = classes.flatten(2).transpose(1, 2).flatten(0, 1)[cells]
    found = decode_boxes(regression, stride).flatten(0, 1)[cells]
    box_loss = torchvision_ops().generalized_box_iou_loss(found, target)
    quality = (1 - box_loss.detach()).clamp(min=0)
    there = torch.zeros(objectness.numel(), device=objectness.device).index_fill(0, cells, 1)
    parts = {
        "objectness": F.binary_cross_entropy_with_logits(objectness.flatten(), there, reduction="sum"),
        "classes": F.binary_cross_entropy_with_logits(
            logits, F.one_hot(kind, logits.shape[1]) * quality[:, None], reduction="sum"
        ),
        "boxes": box_loss.sum(),
    }
    parts = {name: part / max(1, len(cells)) for name, part in parts.items()}
    return {"loss": parts["objectness"] + parts["classes"] + BOX_WEIGHT * parts["boxes"], **parts}
