"""`lava-casc train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lava_casc import console
from lava_casc.cli.options import ARCHITECTURES, DATA_SETS, DataDir, Debug, Download, among, check_writable
from lava_casc.cli.samples import read_dataset
from lava_casc.errors import CascError, DataError

if TYPE_CHECKING:
    from lava_casc.training import Epoch

Rounding = Literal["floor", "round"]


Activation = Literal["cqrelu", "relu"]


Task = Literal["classification", "detection", "text"]


Pool = Literal["average", "max"]


Augment = Literal["none", "standard", "autoaugment"]


Device = Literal["auto", "cpu", "cuda"]


_OF_TEXT = ("vocabulary", "words")


_OF_CLASSES = ("data", "download", "activation", "width", "pool", "augment", "residual_steps", "init", "examples")


#: Options of train that mean nothing to a task.
_MEANINGLESS = {
    "classification": _OF_TEXT,
    "detection": (*_OF_CLASSES, *_OF_TEXT),
    "text": (*_OF_CLASSES, "image_size", "architecture"),
}


@console.reports_errors
def train(
    context: typer.Context,
    task: Annotated[
        Task,
        typer.Option(
            "--task",
            help="detection: a YOLO, on the folder --data-dir in VOC layout. text: a recurrent network, on the folder "
            "--data-dir with train.csv and test.csv of class, title, description.",
        ),
    ] = "classification",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="digits (comes with scikit-learn), fashion-mnist, cifar10, cifar100 or folder.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = "digits",
    data_dir: DataDir = None,
    download: Download = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", help="N or H,W. folder: scale and crop every image to N,N. detection: stretch it to H,W."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.")] = Path("model.pt"),
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            help="digits, fashion, resnet20, vgg9, vgg16, or torchvision:NAME; by default the data set's own. "
            "detection: vgg-tiny, vgg-small (the default) or vgg16, torchvision's.",
            autocompletion=among(lambda: ARCHITECTURES),
        ),
    ] = None,
    width: Annotated[float, typer.Option("--width", min=0.01, help="Factor of all numbers of channels.")] = 1.0,
    pool: Annotated[Pool, typer.Option("--pool", help="Pools of vgg9 and vgg16.")] = "average",
    vocabulary: Annotated[
        int | None, typer.Option("--vocabulary", min=3, help="text: so many tokens, for the most frequent words.")
    ] = None,
    words: Annotated[int | None, typer.Option("--words", min=1, help="text: words that are read of each text.")] = None,
    activation: Annotated[
        Activation, typer.Option("--activation", help="relu: an ordinary network, for lava-casc calibrate.")
    ] = "cqrelu",
    levels: Annotated[int, typer.Option("--levels", min=1, help="Levels L of every CQReLU.")] = 8,
    rounding: Annotated[Rounding, typer.Option("--rounding", help="floor is the paper's.")] = "round",
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="By default what suits the data set.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=2, help="By default what suits the data set.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", min=0.0, help="Of the cosine schedule's start.")
    ] = None,
    augment: Annotated[
        Augment,
        typer.Option("--augment", help="standard: crop and mirror; autoaugment: AutoAugment and Cutout beside it."),
    ] = "standard",
    residual_steps: Annotated[
        int | None,
        typer.Option("--residual-steps", min=1, help="Train to be read after so few steps: noise in the activations."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option("--init", help="Begin with the weights of this checkpoint, of any levels.")
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Compute in bfloat16: for a GPU, or a CPU with AVX-512 BF16.")
    ] = False,
    device: Annotated[Device, typer.Option("--device", help="auto: CUDA where there is a device.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training was cut short: OUTPUT.partial holds its state.")
    ] = False,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Training images that the checkpoint carries along.")
    ] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same machine, same network.")] = 0,
    debug: Debug = False,
) -> None:
    """Train a network of CQReLU, or of ReLU, and save it as a checkpoint; its state is kept after every epoch."""
    from lava_casc.training import ResidualError, train_checkpoint

    check_writable(output)
    _check_options(context, task, activation)
    size = None if image_size is None else _size(image_size)
    common: dict[str, Any] = {
        "levels": levels,
        "rounding": rounding,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "bfloat16": bfloat16,
        "device": device,
        "resume": resume,
    }
    if task == "detection":
        _train_detector(output, data_dir, size, backbone=architecture, **common)
        return
    if task == "text":
        _train_text(output, data_dir, vocabulary=vocabulary, length=words, **common)
        return
    if size is not None and size[0] != size[1]:
        raise DataError(f"--image-size {image_size}: images of classes are square. Give one number.")
    dataset = read_dataset(data, data_dir, download, None if size is None else size[0])
    with _training(output) as bar:
        result = train_checkpoint(
            output,
            dataset,
            architecture=architecture,
            activation=activation,
            width=width,
            pool=pool,
            augment=augment,
            residual=None if residual_steps is None else ResidualError(residual_steps),
            init=init,
            examples=examples,
            **common,
            progress=bar,
            on_epoch=print_epoch,
        )
    console.out.print(
        f"{output}: {result.accuracy:.2%} of {len(dataset.test_labels)} test images right, "
        f"in float with {'ReLU' if activation == 'relu' else f'CQReLU of {levels} levels'}"
    )


def _check_options(context: typer.Context, task: Task, activation: Activation) -> None:
    def refuse(names: tuple[str, ...], choice: str) -> None:
        for name in names:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                raise CascError(f"--{name.replace('_', '-')} is no option of {choice}. Leave it out.")

    refuse(_MEANINGLESS[task], f"--task {task}")
    if activation == "relu":
        refuse(("levels", "rounding", "residual_steps"), "--activation relu")


def _train_text(output: Path, folder: Path | None, **settings: Any) -> None:
    from lava_casc.text import train_text

    if folder is None:
        raise DataError("text needs --data-dir FOLDER with train.csv and test.csv.")
    given = {name: value for name, value in settings.items() if value is not None}
    with _training(output) as bar:
        result = train_text(output, folder, **given, progress=bar, on_epoch=print_epoch)
    console.out.print(
        f"{output}: {result.accuracy:.2%} of {result.texts} test texts right, in float with CQReLU of "
        f"{settings['levels']} levels"
    )


def _train_detector(output: Path, folder: Path | None, size: tuple[int, int] | None, **settings: Any) -> None:
    from lava_casc.detection import train_detector

    if folder is None or size is None:
        raise DataError("detection needs --data-dir FOLDER in VOC layout, and --image-size H,W.")
    given = {name: value for name, value in settings.items() if value is not None}
    with _training(output) as bar:
        result = train_detector(output, folder, size, **given, progress=bar, on_epoch=print_epoch)
    scores = ", ".join(f"{name} {value:.2%}" for name, value in result.metrics.items() if value is not None)
    console.out.print(f"{output}: on {result.images} images of {result.tested}: {scores}")


@contextmanager
def _training(output: Path) -> Iterator[Callable[[float], None]]:
    """Show the progress of a training; where it is interrupted, say what is left of it."""
    from lava_casc.training import partial_of

    whole = "the training up to its last whole epoch; --resume goes on"
    with console.keeping(partial_of(output), whole), console.progress("training", 1) as bar:
        yield bar


def print_epoch(done: int, epochs: int, epoch: Epoch) -> None:
    """Print what an epoch measured, and how long the others will take at its pace."""
    left = epoch.seconds * (epochs - done)
    accuracy = epoch.measured.get("accuracy")
    right = "" if accuracy is None else f", {accuracy:.2%} of the training samples right"
    console.err.print(
        f"epoch {done}/{epochs}: loss {epoch.loss:.4f}{right}, "
        f"learning rate {epoch.learning_rate:.4f}, {epoch.seconds:.1f} s, {left / 60:.1f} min left"
    )


def _size(text: str) -> tuple[int, int]:
    """Return height and width of ``N`` or ``H,W``."""
    try:
        height, width = (int(part) for part in text.split(",")) if "," in text else (int(text),) * 2
    except ValueError as error:
        raise CascError(f"--image-size {text!r}: give one number or two, as in 128,160.") from error
    if min(height, width) < 1:
        raise CascError(f"--image-size {text!r}: a side must be at least 1.")
    return height, width
