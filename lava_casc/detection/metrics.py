"""Mean average precision, as COCO and PASCAL VOC measure it, by torchmetrics and pycocotools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lava_casc.detection.data import Objects
from lava_casc.errors import MissingDependencyError


def mean_average_precision(
    found: Sequence[dict[str, Tensor]], truth: Sequence[Objects], classes: Sequence[str]
) -> dict[str, float | None]:
    """Return the mean average precision over the classes, and that of each class.

    Parameters
    ----------
    found : sequence of dict
        As `lava_casc.detection.decode.detect` returns it, image by image.
    truth : sequence of Objects
        A difficult object counts neither as found nor as missed.
    classes : sequence of str

    Returns
    -------
    dict
        ``mAP`` (mean over overlaps of 0.5, 0.55, ..., 0.95), ``mAP50`` and ``mAP75`` (at one overlap), then
        ``mAP CLASS`` for each class; within [0, 1], None for what has no object in the truth.

    Raises
    ------
    MissingDependencyError
        torchmetrics or pycocotools is not installed.
    """
    metric = _metric()
    metric.update(
        [dict(image) for image in found],
        [
            {
                "boxes": torch.tensor(objects.boxes),
                "labels": torch.tensor(objects.labels),
                "iscrowd": torch.tensor(objects.difficult, dtype=torch.int64),
            }
            for objects in truth
        ],
    )
    result = metric.compute()
    values = {"mAP": result["map"], "mAP50": result["map_50"], "mAP75": result["map_75"]}
    each = dict(zip(result["classes"].reshape(-1).tolist(), result["map_per_class"].reshape(-1), strict=True))
    values |= {f"mAP {name}": each.get(label, torch.tensor(-1.0)) for label, name in enumerate(classes)}
    return {name: None if value < 0 else float(value) for name, value in values.items()}


def _metric():  # type: ignore[no-untyped-def]
    try:
        from torchmetrics.detection import MeanAveragePrecision

        return MeanAveragePrecision(class_metrics=True, backend="pycocotools")
    except ImportError as error:  # torchmetrics says ModuleNotFoundError for pycocotools, too
        raise MissingDependencyError(
            "mean average precision: torchmetrics or pycocotools is not installed. "
            "Install them with pip install 'lava-casc[detection]'."
        ) from error
