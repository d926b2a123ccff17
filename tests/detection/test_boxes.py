"""From maps to boxes, from boxes to a loss, and from boxes to mean average precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lava_casc.detection.data import Objects
from lava_casc.detection.decode import cell_centres, decode_boxes, detect
from lava_casc.detection.loss import assign, detection_loss
from lava_casc.detection.metrics import mean_average_precision

STRIDE, H, W = 8, 4, 6
CLASSES = ("a", "b", "c")
#: Two large objects, and one smaller than a cell, in a map of 4x6 cells.
BOXES = torch.tensor([[2.0, 1.0, 23.0, 22.0], [25.0, 4.0, 47.0, 31.0], [1.0, 27.0, 4.0, 31.0]])
LABELS = torch.tensor([2, 0, 1])


def perfect(boxes, labels, sure=12.0):
    """Return the maps that say what they should, written with the inverse of `decode_boxes` one cell at a time."""
    objectness, classes = torch.full((1, 1, H, W), -sure), torch.full((1, len(CLASSES), H, W), -sure)
    regression = torch.zeros(1, 4, H, W)
    cells, objects = assign(boxes, H, W, STRIDE)
    for cell, number in zip(cells.tolist(), objects.tolist(), strict=True):
        i, j = divmod(cell, W)
        x0, y0, x1, y1 = boxes[number].tolist()
        objectness[0, 0, i, j] = classes[0, labels[number], i, j] = sure
        regression[0, :, i, j] = torch.tensor(
            [
                (x0 + x1) / 2 / STRIDE - j - 0.5,
                (y0 + y1) / 2 / STRIDE - i - 0.5,
                np.log((x1 - x0) / STRIDE),
                np.log((y1 - y0) / STRIDE),
            ]
        )
    return objectness, classes, regression


def truth(boxes=BOXES, labels=LABELS, difficult=None):
    hard = np.zeros(len(boxes), bool) if difficult is None else np.array(difficult)
    return Objects(boxes.numpy(), labels.numpy(), hard)


def test_the_cells_are_counted_row_by_row():
    assert cell_centres(2, 3, 8).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_decoding_is_the_inverse_of_what_a_box_is():
    cells, objects = assign(BOXES, H, W, STRIDE)
    decoded = decode_boxes(perfect(BOXES, LABELS)[2], STRIDE)[0]
    assert torch.allclose(decoded[cells], BOXES[objects], atol=1e-4)
    # A cell that says 0 means a box of a cell's size around its own centre.
    others = sorted(set(range(H * W)) - set(cells.tolist()))
    centres = cell_centres(H, W, STRIDE)
    assert torch.equal(decoded[others], torch.cat([centres - 4, centres + 4], 1)[others])


def test_a_box_that_would_be_endless_stays_finite():
    maps = torch.full((1, 4, H, W), 1e9)
    maps[:, :2] = 0
    sizes = decode_boxes(maps, STRIDE)
    assert sizes.isfinite().all()
    assert torch.allclose(sizes[..., 2] - sizes[..., 0], torch.tensor(2.0 * W * STRIDE))


def test_cells_near_the_centre_answer_and_the_smallest_object_wins():
    cells, objects = assign(BOXES, H, W, STRIDE)
    found = {cell: number for cell, number in zip(cells.tolist(), objects.tolist(), strict=True)}
    assert [cell for cell, number in found.items() if number == 0] == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert found[18] == 2  # the small object's centre lies in the first cell of the last row
    assert 19 not in found  # near the small object's centre, but outside of its box
    both = torch.tensor([[0.0, 0.0, 40.0, 32.0], [16.0, 8.0, 25.0, 17.0]])
    found = dict(zip(*(part.tolist() for part in assign(both, H, W, STRIDE)), strict=True))
    assert found[8] == 1
    assert found[7] == found[9] == 0
    assert [len(part) for part in assign(torch.zeros(0, 4), H, W, STRIDE)] == [0, 0]


def test_every_object_that_stands_alone_is_answered_for():
    for x in np.arange(0.25, W * STRIDE - 2, 1.75):
        box = torch.tensor([[x, 9.1, x + 1.5, 10.2]], dtype=torch.float32)
        assert len(assign(box, H, W, STRIDE)[0]) >= 1


def test_perfect_maps_find_every_object_once():
    pytest.importorskip("torchvision")
    (found,) = detect(perfect(BOXES, LABELS), STRIDE)
    order = found["labels"].argsort()
    assert found["labels"][order].tolist() == [0, 1, 2]
    assert torch.allclose(found["boxes"][order], BOXES[LABELS.argsort()], atol=1e-4)
    assert (found["scores"] > 0.99).all()


def test_what_is_found_stays_in_the_image_and_above_the_score():
    pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, H, W, generator=generator) * 2 for channels in (1, 3, 4)]
    for found in detect(maps, STRIDE, min_score=0.3, most=5):
        assert 0 < len(found["boxes"]) <= 5
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([W, H, W, H]) * STRIDE).all()
        assert (found["scores"] >= 0.3).all()
        assert (found["scores"].diff() <= 0).all()


def test_overlapping_boxes_of_one_class_are_suppressed_and_of_two_are_not():
    pytest.importorskip("torchvision")
    objectness, classes, boxes = torch.full((1, 1, 1, 2), 3.0), torch.zeros(1, 2, 1, 2), torch.zeros(1, 4, 1, 2)
    boxes[0, 0, 0] = torch.tensor([0.5, -0.4])  # both boxes lie around the border between the two cells
    classes[0, 0] = 3
    assert len(detect((objectness, classes, boxes), STRIDE)[0]["boxes"]) == 1
    assert len(detect((objectness, classes, boxes), STRIDE, max_overlap=0.99)[0]["boxes"]) == 2
    classes[0, 1, 0, 1] = 4
    (found,) = detect((objectness, classes, boxes), STRIDE)
    assert found["labels"].tolist() == [1, 0]
    sure, surer = torch.tensor([3.0, 4.0]).sigmoid()
    assert found["scores"].tolist() == pytest.approx([sure * surer, sure * sure])


def test_the_loss_falls_to_nothing_where_all_is_right_and_to_nowhere_else():
    pytest.importorskip("torchvision")
    right = [part.clone() for part in perfect(BOXES, LABELS, sure=30.0)]
    best = detection_loss(right, [BOXES], [LABELS], STRIDE)
    assert best["loss"].item() == pytest.approx(0, abs=1e-4)
    for part, name in enumerate(("objectness", "classes", "boxes")):
        wrong = [values.clone() for values in right]
        wrong[part][0, :, 1, 1] *= -0.5
        worse = detection_loss(wrong, [BOXES], [LABELS], STRIDE)
        assert worse[name] > 0.01
        assert worse["loss"] == worse["objectness"] + worse["classes"] + 5 * worse["boxes"]


def test_the_loss_of_each_image_is_its_own():
    pytest.importorskip("torchvision")
    a, b = perfect(BOXES[:1], LABELS[:1], 30.0), perfect(BOXES[1:], LABELS[1:], 30.0)
    both = [torch.cat(parts) for parts in zip(a, b, strict=True)]
    boxes, labels = [BOXES[:1], BOXES[1:]], [LABELS[:1], LABELS[1:]]
    assert detection_loss(both, boxes, labels, STRIDE)["loss"] < 1e-4
    assert detection_loss(both, boxes[::-1], labels[::-1], STRIDE)["loss"] > 1
    nothing = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    empty = detection_loss(both, *nothing, STRIDE)
    assert empty["boxes"] == empty["classes"] == 0
    assert empty["objectness"] > 1


def test_perfect_boxes_have_a_precision_of_one_and_worse_ones_less():
    for package in ("torchvision", "torchmetrics", "pycocotools"):
        pytest.importorskip(package)
    found = detect(perfect(BOXES, LABELS), STRIDE)
    result = mean_average_precision(found, [truth()], (*CLASSES, "never"))
    assert result == {
        "mAP": 1, "mAP50": 1, "mAP75": 1, "mAP a": 1, "mAP b": 1, "mAP c": 1, "mAP never": None,
    }  # fmt: skip
    shifted = [{**found[0], "boxes": found[0]["boxes"] + torch.tensor([0.0, 0.0, 4.0, 4.0])}]
    worse = mean_average_precision(shifted, [truth()], CLASSES)
    assert 0 < worse["mAP"] < worse["mAP50"] < 1
    confused = [{**found[0], "labels": (found[0]["labels"] + 1) % 3}]
    assert mean_average_precision(confused, [truth()], CLASSES)["mAP"] == 0
    nothing = [{name: values[:0] for name, values in found[0].items()}]
    assert mean_average_precision(nothing, [truth()], CLASSES)["mAP"] == 0


def test_a_difficult_object_counts_neither_way():
    for package in ("torchvision", "torchmetrics", "pycocotools"):
        pytest.importorskip(package)
    found = detect(perfect(BOXES, LABELS), STRIDE)
    without = [{name: values[found[0]["labels"] != 0] for name, values in found[0].items()}]
    boxes, labels = torch.cat([BOXES, BOXES[1:2] - 10]), torch.cat([LABELS, LABELS[1:2]])
    hard = truth(boxes, labels, [False, False, False, True])
    assert mean_average_precision(found, [hard], CLASSES)["mAP a"] == 1
    assert mean_average_precision(without, [truth()], CLASSES)["mAP a"] == 0
    alone = truth(BOXES, LABELS, [False, True, False])
    assert mean_average_precision(found, [alone], CLASSES)["mAP a"] is None
