"""Train a detector on a folder in VOC layout, and write it as a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lava_casc.detection.data import Detection, read_voc, splits
from lava_casc.detection.decode import detect, torchvision_ops
from lava_casc.detection.loss import detection_loss
from lava_casc.detection.metrics import mean_average_precision
from lava_casc.detection.model import build_detector, stride_for
from lava_casc.errors import CheckpointError
from lava_casc.frontend.checkpoint import Checkpoint, InputSpec, save_model
from lava_casc.training.loop import Epoch, fit, refuse_to_begin_anew
from lava_casc.training.recipes import partial_of, pick_device

#: What a checkpoint of a detector says of itself under "task".
TASK = "detection"
#: Of a pixel, 0 .. 255.
SCALE = 1 / 255
CLIP_NORM, WARMUP_SHARE = 10.0, 0.05
#: What moves in beside an image that is moved or made smaller, and the least side in pixels of an object that is left.
FILL, MIN_SIDE = 114, 2.0

#: Images (N, 3, H, W) uint8, the boxes and the labels of each.
Batch = tuple[Tensor, list[Tensor], list[Tensor]]


@dataclass(frozen=True)
class DetectorTraining:
    """The outcome of a training.

    Attributes
    ----------
    metrics : dict of str to float
        `mean_average_precision` on the split `tested`, after the last epoch: no epoch is chosen by its images.
    trained, tested : str
        The splits.
    images : int
        In the split `tested`.
    history : tuple of Epoch
    """

    metrics: dict[str, float | None]
    trained: str
    tested: str
    images: int
    history: tuple[Epoch, ...]


def train_detector(
    path: str | Path,
    folder: str | Path,
    size: tuple[int, int],
    *,
    backbone: str = "vgg-small",
    levels: int = 8,
    rounding: str = "round",
    epochs: int = 100,
    batch_size: int = 16,
    learning_rate: float = 0.003,
    seed: int = 0,
    bfloat16: bool = False,
    device: str = "auto",
    resume: bool = False,
    progress: Callable[[float], None] | None = None,
    on_epoch: Callable[[int, int, Epoch], None] | None = None,
) -> DetectorTraining:
    """Train a detector and write it as a checkpoint, without any image of the data set.

    Parameters
    ----------
    path : str or Path
        Of the checkpoint. Its folder exists. Beside it lies ``path.partial`` while the training runs.
    folder : str or Path
        In VOC layout: `read_voc`. Trained on trainval and tested on test; without a test, on train and val.
    size : (int, int)
        Height and width to which images are stretched: multiples of the backbone's stride.
    backbone : str
        A key of `BACKBONES`.
    levels, rounding
        Of every CQReLU; its threshold is learned. ``floor`` is that of CASC (arXiv 2406.05371).
    epochs, batch_size, learning_rate, seed, bfloat16
        As for `fit`.
    device : {"auto", "cpu", "cuda"}
        ``auto`` is CUDA where there is a device.
    resume, progress, on_epoch
        As for `fit`.

    Returns
    -------
    DetectorTraining

    Raises
    ------
    DataError
        The folder is damaged, or the backbone cannot take images of this size.
    UnsupportedModelError
        The training diverged.
    CheckpointError
        The path cannot be written, or there is a training to resume and `resume` is false.
    """
    stride = stride_for(backbone, size)
    torchvision_ops()  # says what is missing before minutes of work
    where = pick_device(device)
    partial = partial_of(path)
    refuse_to_begin_anew(partial, resume)
    trained, tested = splits(folder)
    data = read_voc(folder, trained, size)
    test = read_voc(folder, tested, size, data.classes)
    model = build_detector(backbone, len(data.classes), levels=levels, rounding=rounding, seed=seed)
    steps = -(-len(data) // batch_size)
    settings: dict[str, str | int | float | bool | None] = {
        "task": TASK,
        "classes": json.dumps(data.classes),
        "stride": stride,
        "backbone": backbone,
        "levels": levels,
        "rounding": rounding,
        "batch_size": batch_size,
        "height": size[0],
        "width": size[1],
    }
    history = fit(
        model.to(where),
        lambda epoch: batches(data, batch_size, where),
        lambda model, batch: detection_loss(model(batch[0] * SCALE), batch[1], batch[2], stride),
        epochs=epochs,
        steps_per_epoch=steps,
        learning_rate=learning_rate,
        warmup=int(WARMUP_SHARE * epochs * steps),
        clip_norm=CLIP_NORM,
        optimizer=torch.optim.AdamW,
        seed=seed,
        bfloat16=bfloat16,
        partial=partial,
        resume=resume,
        settings=settings,
        progress=progress,
        on_epoch=on_epoch,
    )
    model.cpu()
    metrics = mean_average_precision(find(model, test, stride), test.objects, test.classes)
    measured = {f"test {name}": value for name, value in metrics.items()}
    trained_with = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "torch": str(torch.__version__)}
    save_model(path, model, InputSpec((3, *size), scale=SCALE), about={**settings, **trained_with, **measured})
    partial.unlink()
    return DetectorTraining(metrics, trained, tested, len(test), history)


def find(model: nn.Module, data: Detection, stride: int, batch_size: int = 32) -> list[dict[str, Tensor]]:
    """Return what a detector, in evaluation, finds in each image: `detect` of its float outputs."""
    found = []
    with torch.no_grad():
        for start in range(0, len(data), batch_size):
            images = data.images(range(start, min(start + batch_size, len(data))))
            found += detect(model(torch.as_tensor(images) * SCALE), stride)
    return found


def detector_of(checkpoint: Checkpoint) -> tuple[tuple[str, ...], int]:
    """Return the classes and the stride of the detector in a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint

    Returns
    -------
    classes : tuple of str
    stride : int
        In pixels.

    Raises
    ------
    CheckpointError
        It is no detector, or its notes do not fit it.
    """
    about = checkpoint.about
    try:
        classes, stride = tuple(json.loads(about["classes"])), about["stride"]
        height, width = (pixels // stride for pixels in checkpoint.input.shape[1:])
        with torch.no_grad():
            shapes = [tuple(found.shape[1:]) for found in checkpoint.model(torch.zeros(1, *checkpoint.input.shape))]
        fits = shapes == [(channels, height, width) for channels in (1, len(classes), 4)]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"the checkpoint is no detector ({type(error).__name__}: {error}). Train one with "
            "lava-casc train --task detection."
        ) from error
    if not fits:
        raise CheckpointError(
            f"the model's outputs {shapes} are not the maps of {len(classes)} classes at stride {stride}. "
            "Train it anew with lava-casc train --task detection."
        )
    return classes, stride


def batches(data: Detection, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the images of one epoch in random order, augmented at random: torch's global generator decides."""
    augment = _augmentation(data.size)
    for chosen in torch.randperm(len(data)).split(batch_size):
        indices = chosen.tolist()
        pictures = torch.tensor(data.images(indices))
        samples = [augment(data, i, picture) for i, picture in zip(indices, pictures, strict=True)]
        images, boxes, labels = zip(*samples, strict=True)
        yield (
            torch.stack(images).to(device),
            [found.to(device) for found in boxes],
            [found.to(device) for found in labels],
        )


def _augmentation(size: tuple[int, int]) -> Callable[[Detection, int, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function that moves, scales, mirrors and lights an image anew at random, its objects with it."""
    from torchvision import tv_tensors
    from torchvision.transforms import InterpolationMode, v2

    change = v2.Compose(
        [
            v2.ColorJitter(brightness=0.3, contrast=0.3),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                degrees=0, translate=(0.2, 0.2), scale=(0.7, 1.5), fill=FILL, interpolation=InterpolationMode.BILINEAR
            ),
            v2.SanitizeBoundingBoxes(min_size=MIN_SIDE, labels_getter=lambda sample: sample[2]),
        ]
    )

    def augment(data: Detection, i: int, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        objects = data.objects[i]
        boxes = tv_tensors.BoundingBoxes(torch.tensor(objects.boxes), format="XYXY", canvas_size=size)
        image, boxes, labels = change(tv_tensors.Image(image), boxes, torch.tensor(objects.labels))
        return image.as_subclass(Tensor), boxes.as_subclass(Tensor), labels

    return augment
