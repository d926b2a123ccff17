"""The command line: ``lava-casc train | export | run | doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

import lava_casc
from lava_casc import console
from lava_casc.errors import CascError, CheckpointError, DataError

if TYPE_CHECKING:
    from lava_casc.frontend import Checkpoint
    from lava_casc.network import IntegerNetwork
    from lava_casc.schedule import WakeSleepSchedule
    from lava_casc.training import Epoch

app = typer.Typer(
    name="lava-casc",
    help="From PyTorch networks with CQReLU to exact spikes on Lava and Loihi 2. Silence is a certificate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the data set, in torchvision's layout.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.")]


Mode = Literal["unary", "graded"]
Engine = Literal["lava", "reference"]
Precision = Literal["fixed", "float"]
Rounding = Literal["floor", "round"]
Task = Literal["classification", "detection", "text"]
Pool = Literal["average", "max"]
Augment = Literal["none", "standard", "autoaugment"]
Device = Literal["auto", "cpu", "cuda"]


#: Samples that evaluate takes at a time; it changes no result.
BATCH = 64


def main() -> None:
    """Run the command line."""
    app()


def _version(show: bool) -> None:
    if show:
        console.out.print(f"lava_casc {lava_casc.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: lava-casc train --data cifar10 --data-dir data --levels 8 --epochs 20 -o out/resnet20.pt")
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
        typer.Option("--data", help="digits (comes with scikit-learn), fashion-mnist, cifar10, cifar100 or folder."),
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
        ),
    ] = None,
    width: Annotated[float, typer.Option("--width", min=0.01, help="Factor of all numbers of channels.")] = 1.0,
    pool: Annotated[Pool, typer.Option("--pool", help="Pools of vgg9 and vgg16.")] = "average",
    vocabulary: Annotated[
        int | None, typer.Option("--vocabulary", min=3, help="text: so many tokens, for the most frequent words.")
    ] = None,
    words: Annotated[int | None, typer.Option("--words", min=1, help="text: words that are read of each text.")] = None,
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
    """Train a CQReLU network and save it as a checkpoint; its state is kept after every epoch."""
    from lava_casc.training import load_dataset, train_checkpoint

    _check_writable(output)
    _check_options(context, task)
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
    dataset = load_dataset(data, data_dir, download, None if size is None else size[0])
    with _training(output) as bar:
        result = train_checkpoint(
            output,
            dataset,
            architecture=architecture,
            width=width,
            pool=pool,
            augment=augment,
            init=init,
            examples=examples,
            **common,
            progress=bar,
            on_epoch=_print_epoch,
        )
    console.out.print(
        f"{output}: {result.accuracy:.2%} of {len(dataset.test_labels)} test images right, "
        f"in float with CQReLU of {levels} levels"
    )


@app.command(epilog="Example: lava-casc export out/digits.pt -o out/digits.net --verify 64 --report out/export.json")
@console.reports_errors
def export(
    model: Annotated[Path, typer.Argument(help="A checkpoint: lava-casc train or lava_casc.save_model wrote it.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The network file; by default MODEL with the suffix .net."),
    ] = None,
    levels: Annotated[
        int | None, typer.Option("--levels", min=1, help="Other levels than the model was trained with.")
    ] = None,
    weight_bits: Annotated[int, typer.Option("--weight-bits", min=2, max=16, help="Signed bits of a weight.")] = 8,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="One scale a layer instead of one a channel.")] = False,
    hw: Annotated[
        str, typer.Option("--hw", help="Limits to fit: a file or the name of one in hw_configs/.")
    ] = "loihi2",
    mode: Annotated[
        Mode, typer.Option("--mode", help="Schedule that is written into the file; run can choose another.")
    ] = "unary",
    wake_steps: Annotated[
        int | None, typer.Option("--wake-steps", min=1, help="By default the levels (unary) or 1 (graded).")
    ] = None,
    sleep_steps: Annotated[
        int | None, typer.Option("--sleep-steps", min=0, help="By default enough for the proven bound.")
    ] = None,
    verify: Annotated[
        int | None,
        typer.Option("--verify", min=0, help="Samples to compare spikes and integers on; by default up to 16."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write everything that is known as JSON.")] = None,
    input_shape: Annotated[str | None, typer.Option("--input-shape", help="C,H,W: only for a pickled module.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickled module. THIS RUNS CODE FROM THE FILE.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fold and quantize a checkpoint to integers, prove their ranges, verify spikes, and write a netx HDF5 file."""
    from lava_casc import pipeline
    from lava_casc.frontend import InputSpec

    output = model.with_suffix(".net") if output is None else output
    if output.resolve() == model.resolve():
        raise CascError(f"{output}: the network file would replace the checkpoint. Give another -o.")
    if allow_pickle:
        console.err.print("warning: --allow-pickle runs whatever code the file holds")
    options = pipeline.Options(weight_bits, not per_layer, levels, mode, wake_steps, sleep_steps, hw, verify)
    spec = None if input_shape is None else InputSpec(_shape(input_shape))
    conversion = pipeline.export(model, output, options, on_step=console.announce, spec=spec, allow_pickle=allow_pickle)
    summary = {**pipeline.summary(conversion), "file": str(output), "bytes": output.stat().st_size}
    if report is not None:
        pipeline.write_json(report, summary)
    if as_json:
        console.out.print_json(json.dumps(summary))
        return
    _print_conversion(summary)
    if report is not None:
        console.out.print(f"report: {report}")


@app.command(epilog="Example: lava-casc run out/digits.net --data digits --mode graded --samples 100")
@console.reports_errors
def run(
    network: Annotated[Path, typer.Argument(help="A network file that export wrote.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Run on this data set's test images: digits or fashion-mnist."),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Run on these instead: .npy of integers (N, C, H, W), of tokens (N, P) for a text network."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Run on test.csv in --data-dir, in the words that this checkpoint knows."),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Only the first so many.")] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="reference needs no Lava.")] = "lava",
    precision: Annotated[
        Precision, typer.Option("--precision", help="Lava's models: fixed is what Loihi 2 computes.")
    ] = "fixed",
    mode: Annotated[Mode | None, typer.Option("--mode", help="By default the schedule in the file.")] = None,
    wake_steps: Annotated[int | None, typer.Option("--wake-steps", min=1)] = None,
    sleep_steps: Annotated[
        int | None, typer.Option("--sleep-steps", min=0, help="Too few, and samples are not certified.")
    ] = None,
    fixed_period: Annotated[
        bool, typer.Option("--fixed-period", help="Lava: sleep to the end, even after the certificate.")
    ] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw the first sample's spikes (PNG).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a network as spikes and say for every sample whether it is certified: silent, hence exact bit for bit."""
    from lava_casc import pipeline
    from lava_casc.netx import read_file
    from lava_casc.reference import forward

    file = read_file(network)
    integer = file.network
    if model is None:
        pictures, labels = _load_images(data, data_dir, download, images, samples)
    else:
        pictures, labels = _texts_to_run(model, data, data_dir, images, samples)
    integer.encode(pictures)  # a wrong shape or range is said before anything runs
    schedule = _schedule(integer, file.schedule, mode, wake_steps, sleep_steps)
    with console.progress(f"{engine} {schedule.mode}", len(pictures)) as bar:
        record = _run(integer, pictures, schedule, engine, precision, not fixed_period, (), bar)
    if picture is not None:
        from lava_casc.report import plot_spikes, save_figure

        drawn = _run(
            integer,
            pictures[:1],
            schedule,
            engine,
            precision,
            not fixed_period,
            ("spikes",),
            lambda done: None,
        )
        save_figure(plot_spikes(integer, drawn, 0, image=None if integer.is_recurrent else pictures[0]), picture)
    truth = forward(integer, pictures)
    result: dict[str, Any] = {
        "file": str(network),
        "engine": record.engine,
        "schedule": {**asdict(schedule), "mode": schedule.mode},
        "samples": len(record),
        "certified_samples": int(record.certified.sum()),
        "mismatched_logits": int((record.logits != truth.logits).sum()),
        "accuracy": None if labels is None else float((record.predictions == labels).mean()),
        "integer_accuracy": None if labels is None else float((truth.logits.argmax(1) == labels).mean()),
        "last_spike_median": float(np.median(record.last_spike)),
        "last_spike_max": int(record.last_spike.max()),
        "silence_bound": integer.silence_bound(schedule),
        "steps": record.steps,
        "ms_per_step": 1e3 * record.seconds / record.steps if record.steps else None,
    }
    if output is not None:
        pipeline.write_json(
            output,
            {
                **result,
                "certified": record.certified.tolist(),
                "last_spike": record.last_spike.tolist(),
                "predictions": record.predictions.tolist(),
                "logits": record.logits.tolist(),
            },
        )
    if as_json:
        console.out.print_json(json.dumps(result))
        return
    _print_run(result)
    if picture is not None:
        console.out.print(f"picture: {picture}")


@app.command(epilog="Example: lava-casc evaluate out/detector.pt --data-dir VOC2007 --samples 100 -o out/detector.json")
@console.reports_errors
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint: lava-casc train wrote it.")],
    network: Annotated[
        Path | None, typer.Option("--network", help="What export made of it; by default MODEL is converted anew.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Classification: by default the data set that MODEL was trained on.")
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Detection: a list in ImageSets/Main; by default test, or else val. Text: test or train."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Only the first so many.")] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="lava takes minutes a sample.")] = "reference",
    mode: Annotated[Mode | None, typer.Option("--mode", help="By default the schedule in the file, or unary.")] = None,
    wake_steps: Annotated[int | None, typer.Option("--wake-steps", min=1)] = None,
    sleep_steps: Annotated[
        int | None, typer.Option("--sleep-steps", min=0, help="Too few, and samples are not certified.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a network on test data in its three forms: float, integers, spikes; detectors by mean average precision."""
    from lava_casc import pipeline
    from lava_casc.evaluation import evaluate as score_forms
    from lava_casc.frontend import load_checkpoint

    if output is not None:
        _check_writable(output)
    checkpoint = load_checkpoint(model)
    if checkpoint.about.get("task") == "detection":
        source, task = str(data_dir), _detection(model, checkpoint, data, data_dir, split, samples)
    elif checkpoint.about.get("task") == "text":
        source, task = str(data_dir), _texts(model, checkpoint, data, data_dir, split, samples)
    else:
        if data is None and "dataset" not in checkpoint.about:
            raise DataError(f"{model}: does not say what it was trained on. Give --data NAME.")
        source = str(data or checkpoint.about["dataset"])
        task = _classification(model, checkpoint, source, data_dir, download, samples)
    if network is None:
        options = pipeline.Options(verify=0)
        integer = pipeline.convert_checkpoint(checkpoint, options, on_step=console.announce).network
        stored = integer.schedule()
    else:
        integer, stored = _network_of(network, checkpoint)
    schedule = _schedule(integer, stored, mode, wake_steps, sleep_steps)
    size = task.samples if engine == "lava" else BATCH  # Lava compiles the network for each of its runs
    starts = range(0, task.samples, size)
    with console.progress(f"{engine} {schedule.mode}", task.samples) as bar:
        found = score_forms(
            checkpoint.model,
            integer,
            (task.images(range(start, min(start + size, task.samples))) for start in starts),
            task.predict,
            task.score,
            lambda images, done: _run(integer, images, schedule, engine, "fixed", True, (), done),
            progress=bar,
        )
    result: dict[str, Any] = {
        "model": str(model),
        "network": None if network is None else str(network),
        "data": source,
        "engine": engine,
        "schedule": {**asdict(schedule), "mode": schedule.mode},
        "samples": task.samples,
        "certified_samples": int(found.certified.sum()),
        "mismatched_outputs": found.mismatched,
        "scores": found.scores,
        "last_spike_median": float(np.median(found.last_spike)),
        "last_spike_max": int(found.last_spike.max()),
        "silence_bound": integer.silence_bound(schedule),
        "ms_per_sample": {form: 1e3 * seconds / task.samples for form, seconds in found.seconds.items()},
    }
    if output is not None:
        traces = {"certified": found.certified.tolist(), "last_spike": found.last_spike.tolist()}
        pipeline.write_json(output, {**result, **traces})
    if as_json:
        console.out.print_json(json.dumps(result))
        return
    _print_evaluation(result)


@app.command(epilog="Example: lava-casc doctor --json")
@console.reports_errors
def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what is installed, what is missing, and what to do about each."""
    from lava_casc.doctor import diagnose

    checks = diagnose()
    if as_json:
        console.out.print_json(json.dumps([asdict(check) for check in checks]))
        return
    console.table(
        "lava-casc doctor",
        ["check", "status", "found", "what to do"],
        [[c.name, c.status, c.found, c.remedy] for c in checks],
    )


@dataclass(frozen=True)
class _Task:
    """What a checkpoint is evaluated on: images by their indices, a prediction for each, and the scores of all."""

    samples: int
    images: Callable[[range], Any]
    predict: Callable[[Any], Any]
    score: Callable[[Any], dict[str, float | None]]


def _detection(
    model: Path, checkpoint: Checkpoint, data: str | None, folder: Path | None, split: str | None, samples: int | None
) -> _Task:
    from lava_casc.detection import detect, detector_of, mean_average_precision, read_voc, splits

    if data is not None or folder is None:
        raise DataError(f"{model}: a detector. Give --data-dir FOLDER in VOC layout, and no --data.")
    classes, stride = detector_of(checkpoint)
    _, height, width = checkpoint.input.shape
    found = read_voc(folder, split or splits(folder)[1], (height, width), classes).first(samples)
    return _Task(
        len(found),
        found.images,
        lambda maps: detect(maps, stride),
        lambda predictions: mean_average_precision(predictions, found.objects, classes),
    )


def _texts(
    model: Path, checkpoint: Checkpoint, data: str | None, folder: Path | None, split: str | None, samples: int | None
) -> _Task:
    if data is not None or folder is None:
        raise DataError(f"{model}: a classifier of texts. Give --data-dir FOLDER with test.csv, and no --data.")
    tokens, labels = _load_texts(checkpoint, folder, split or "test", samples)
    return _Task(
        len(tokens),
        lambda chosen: tokens[chosen.start : chosen.stop],
        lambda outputs: outputs[0].argmax(1),
        lambda predictions: {"accuracy": float((np.array(predictions) == labels).mean())},
    )


def _load_texts(checkpoint: Checkpoint, folder: Path, split: str, samples: int | None) -> tuple[Any, Any]:
    """Return the tokens of a folder's texts, in the words of a checkpoint, and their classes."""
    from lava_casc.text import encoding_of, read_texts

    encoding = encoding_of(checkpoint.about)
    texts = read_texts(folder, split, encoding.classes).first(samples)
    return encoding.encode(texts.texts), texts.labels


def _classification(
    model: Path, checkpoint: Checkpoint, name: str, data_dir: Path | None, download: bool, samples: int | None
) -> _Task:
    images, labels = _load_images(name, data_dir, download, None, samples)
    if images.shape[1:] != checkpoint.input.shape:
        raise DataError(f"{model}: takes {checkpoint.input.shape}, but the images of {name} are {images.shape[1:]}.")
    return _Task(
        len(images),
        lambda chosen: images[chosen.start : chosen.stop],
        lambda outputs: outputs[0].argmax(1),
        lambda predictions: {"accuracy": float((np.array(predictions) == labels).mean())},
    )


def _network_of(path: Path, checkpoint: Checkpoint) -> tuple[IntegerNetwork, WakeSleepSchedule]:
    """Return the network of a file and its schedule, if it takes what the checkpoint's model takes."""
    from lava_casc.netx import read_file

    file = read_file(path)
    theirs, ours, vocabulary = file.network.input, checkpoint.input, checkpoint.graph.vocabulary
    shape = ours.shape if vocabulary is None else (vocabulary,)
    if (theirs.shape, theirs.low, theirs.high, theirs.scale) != (shape, ours.low, ours.high, ours.scale):
        raise DataError(f"{path}: its input is not that of the checkpoint. Export the checkpoint again.")
    return file.network, file.schedule


def _print_evaluation(result: dict[str, Any]) -> None:
    scores = result["scores"]

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    rows: list[list[Any]] = [[name, *(shown(scores[form][name]) for form in scores)] for name in scores["spikes"]]
    rows.append(["ms a sample", *(round(ms, 1) for ms in result["ms_per_sample"].values())])
    schedule = result["schedule"]
    console.table(
        f"{result['engine']}, {schedule['mode']}, {schedule['wake_steps']} + {schedule['sleep_steps']} steps",
        ["", *scores],
        rows,
    )
    console.out.print(
        f"certified silent: {result['certified_samples']} of {result['samples']} samples, last spike in step "
        f"{result['last_spike_median']:g} (median), {result['last_spike_max']} (greatest), proven bound "
        f"{result['silence_bound']}; outputs that differ from the integer network: {result['mismatched_outputs']}"
    )
    _print_not_certified(result)


def _schedule(
    network: IntegerNetwork,
    stored: WakeSleepSchedule,
    mode: str | None,
    wake_steps: int | None,
    sleep_steps: int | None,
) -> WakeSleepSchedule:
    """Return the file's schedule, or what the options make of it: a new wake or mode gets the sleep that it needs."""
    if wake_steps is not None or mode not in (None, stored.mode):
        return network.schedule(mode or stored.mode, wake_steps, sleep_steps)
    return stored if sleep_steps is None else replace(stored, sleep_steps=sleep_steps)


def _run(
    integer: Any,
    images: Any,
    schedule: Any,
    engine: Engine,
    precision: Precision,
    until_silent: bool,
    record: Any,
    bar: Any,
) -> Any:
    if engine == "reference":
        return lava_casc.simulate(integer, images, schedule, record=record, progress=bar)
    return lava_casc.loihi.run(
        integer,
        images,
        schedule,
        precision=precision,
        record=record,
        until_silent=until_silent,
        progress=bar,
    )


def _load_images(
    data: str | None, data_dir: Path | None, download: bool, images: Path | None, samples: int | None
) -> tuple[Any, Any]:
    if (data is None) == (images is None):
        raise DataError("give either --data NAME or --images FILE.npy.")
    if images is not None:
        try:
            loaded = np.load(images, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{images}: not a readable .npy file ({error}). Save an integer array with numpy.save."
            ) from error
        if not isinstance(loaded, np.ndarray) or loaded.ndim not in (2, 4) or not len(loaded):
            raise DataError(f"{images}: not a non-empty array (N, C, H, W) or (N, I). Save one with numpy.save.")
        return loaded[:samples], None
    from lava_casc.training import load_dataset

    dataset = load_dataset(str(data), data_dir, download=download)
    return dataset.test_images[:samples], dataset.test_labels[:samples]


def _texts_to_run(
    model: Path, data: str | None, folder: Path | None, images: Path | None, samples: int | None
) -> tuple[Any, Any]:
    from lava_casc.frontend import load_checkpoint

    if data is not None or images is not None or folder is None:
        raise DataError("--model is for texts: give --data-dir FOLDER with test.csv, and neither --data nor --images.")
    return _load_texts(load_checkpoint(model), folder, "test", samples)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise CascError(f"--input-shape {text!r}: give integers and commas, as in 3,32,32.") from error


def _size(text: str) -> tuple[int, int]:
    """Return height and width of ``N`` or ``H,W``."""
    try:
        height, width = (int(part) for part in text.split(",")) if "," in text else (int(text),) * 2
    except ValueError as error:
        raise CascError(f"--image-size {text!r}: give one number or two, as in 128,160.") from error
    if min(height, width) < 1:
        raise CascError(f"--image-size {text!r}: a side must be at least 1.")
    return height, width


_OF_TEXT = ("vocabulary", "words")
_OF_CLASSES = ("data", "download", "width", "pool", "augment", "init", "examples")
#: Options of train that mean nothing to a task.
_MEANINGLESS = {
    "classification": _OF_TEXT,
    "detection": (*_OF_CLASSES, *_OF_TEXT),
    "text": (*_OF_CLASSES, "image_size", "architecture"),
}


def _check_options(context: typer.Context, task: Task) -> None:
    for name in _MEANINGLESS[task]:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise CascError(f"--{name.replace('_', '-')} is no option of --task {task}. Leave it out.")


def _train_text(output: Path, folder: Path | None, **settings: Any) -> None:
    from lava_casc.text import train_text

    if folder is None:
        raise DataError("text needs --data-dir FOLDER with train.csv and test.csv.")
    given = {name: value for name, value in settings.items() if value is not None}
    with _training(output) as bar:
        result = train_text(output, folder, **given, progress=bar, on_epoch=_print_epoch)
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
        result = train_detector(output, folder, size, **given, progress=bar, on_epoch=_print_epoch)
    scores = ", ".join(f"{name} {value:.2%}" for name, value in result.metrics.items() if value is not None)
    console.out.print(f"{output}: on {result.images} images of {result.tested}: {scores}")


@contextmanager
def _training(output: Path) -> Iterator[Callable[[float], None]]:
    """Show the progress of a training; where it is interrupted, say what is left of it."""
    from lava_casc.training import partial_of

    try:
        with console.progress("training", 1) as bar:
            yield bar
    except KeyboardInterrupt:
        if partial_of(output).exists():
            console.err.print(f"{partial_of(output)}: the training up to its last whole epoch; --resume goes on")
        raise


def _print_epoch(done: int, epochs: int, epoch: Epoch) -> None:
    """Print what an epoch measured, and how long the others will take at its pace."""
    left = epoch.seconds * (epochs - done)
    accuracy = epoch.measured.get("accuracy")
    right = "" if accuracy is None else f", {accuracy:.2%} of the training samples right"
    console.err.print(
        f"epoch {done}/{epochs}: loss {epoch.loss:.4f}{right}, "
        f"learning rate {epoch.learning_rate:.4f}, {epoch.seconds:.1f} s, {left / 60:.1f} min left"
    )


def _check_writable(path: Path) -> None:
    """Refuse before minutes of work what could not be written after them."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder. Give the path of a file.")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: its folder does not exist. Make it first.")


#: The layer table of an export: heading, and what a row shows of the layer and of one of its synapses.
_COLUMNS: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "shape": lambda layer, synapse: _times(layer["shape"]),
    "kernel": lambda layer, synapse: _times(synapse.get("weight_shape", [])[2:] or layer.get("kernel", [])),
    "stride": lambda layer, synapse: _times(synapse.get("stride") or layer.get("stride", [])),
    "groups": lambda layer, synapse: synapse.get("groups", ""),
    "exponent": lambda layer, synapse: synapse.get("exponent", ""),
    "error (alone)": lambda layer, synapse: _weight_error(synapse),
    "weight bits": lambda layer, synapse: layer.get("weight_bits", ""),
    "threshold": lambda layer, synapse: "..".join(str(t) for t in sorted({*layer.get("threshold", ())} - {0})),
    "worst |u| bits": lambda layer, synapse: layer.get("range_bits", ""),
    "bits given up": lambda layer, synapse: round(layer["bits_given_up"], 2) if "bits_given_up" in layer else "",
    "levels changed": lambda layer, synapse: f"{layer['changed']:.2%}" if "changed" in layer else "",
}


def _weight_error(synapse: dict[str, Any]) -> str:
    """Return the error of a synapse's weights, and what it would be without the branches that it meets."""
    if "weight_error" not in synapse:
        return ""
    error, alone = (f"{synapse[key]:.2%}" for key in ("weight_error", "weight_error_alone"))
    return error if error == alone else f"{error} ({alone})"


def _times(numbers: list[int]) -> str:
    return "x".join(str(n) for n in numbers)


def _print_conversion(summary: dict[str, Any]) -> None:
    rows = []
    for layer in summary["layers"]:
        branches = layer.get("branches", [])
        first, *more = [s | b for s, b in zip(layer["synapses"], branches, strict=True)] or [{}]
        rows.append([layer["name"], layer["type"], *(show(layer, first) for show in _COLUMNS.values())])
        for synapse in more:
            shown = (show({"shape": layer["shape"]}, synapse) for show in _COLUMNS.values())
            rows.append([f"+ {synapse['source']}", "", *shown])
    console.table(f"{summary['hardware']}: every register proven", ["layer", "type", *_COLUMNS], rows)
    schedule, checked, given_up = summary["schedule"], summary["verification"], summary["input"]["bits_given_up"]
    if given_up:
        console.out.print(f"input: {given_up} bits of every image given up to the range proof")
    if checked is None:
        console.out.print("not verified: --verify 0")
    else:
        console.out.print(
            f"verified on {checked['samples']} {checked['source']} samples, {checked['mode']}: "
            f"{checked['certified']} certified silent by step {checked['last_spike']}, "
            "all counts and logits of these equal to the integer network; "
            f"{_same_class(checked)}logits off by {checked['logit_error']:.2%}"
        )
    console.out.print(
        f"schedule: {schedule['mode']}, {schedule['wake_steps']} wake + {schedule['sleep_steps']} sleep steps, "
        f"silent after step {schedule['silence_bound']} at the latest"
    )
    console.out.print(f"wrote {summary['file']} ({summary['bytes']:,} bytes)")


def _same_class(checked: dict[str, Any]) -> str:
    same = checked["same_class"]
    return "" if same is None else f"{same} of {checked['samples']} classes as in float, "


def _print_run(result: dict[str, Any]) -> None:
    rows: list[list[Any]] = [
        ["samples", result["samples"]],
        ["certified silent", f"{result['certified_samples']} of {result['samples']}"],
    ]
    rows.append(["logits that differ from the integer network", result["mismatched_logits"]])
    if result["accuracy"] is not None:
        rows += [
            ["accuracy, spikes", f"{result['accuracy']:.2%}"],
            ["accuracy, integer network", f"{result['integer_accuracy']:.2%}"],
        ]
    rows.append(
        [
            "last spike, median and greatest step",
            f"{result['last_spike_median']:g}, {result['last_spike_max']}",
        ]
    )
    rows.append(["silent at the latest after step (proven)", result["silence_bound"]])
    if result["ms_per_step"] is not None:
        rows.append(["steps run, ms a step", f"{result['steps']:,}, {result['ms_per_step']:.2f}"])
    schedule = result["schedule"]
    console.table(
        f"{result['engine']}, {schedule['mode']}, {schedule['wake_steps']} + {schedule['sleep_steps']} steps",
        ["", ""],
        rows,
    )
    _print_not_certified(result)


def _print_not_certified(result: dict[str, Any]) -> None:
    missing = result["samples"] - result["certified_samples"]
    if missing and result["engine"] == "lava floating_pt":
        console.out.print(
            "NOT CERTIFIED: silence in floating point proves nothing where a threshold is no power of two. "
            "Use --precision fixed."
        )
    elif missing:
        console.out.print(
            f"NOT CERTIFIED: {missing} samples were cut off before silence; their results prove nothing. "
            "Use more --sleep-steps."
        )


if __name__ == "__main__":
    main()
