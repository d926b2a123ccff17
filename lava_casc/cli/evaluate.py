"""`lava-casc evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import lava_casc
from lava_casc import console
from lava_casc.cli.engines import Runner, print_not_certified, schedule_of
from lava_casc.cli.options import (
    DATA_SETS,
    METHODS,
    AsJson,
    DataDir,
    Debug,
    Download,
    Engine,
    ImageSize,
    MaxBurst,
    Mode,
    Preset,
    SleepSteps,
    WakeSteps,
    among,
    check_writable,
    mode_of,
)
from lava_casc.cli.samples import load_texts, read_dataset_of
from lava_casc.errors import DataError, RangeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lava_casc.frontend import Checkpoint
    from lava_casc.network import IntegerNetwork
    from lava_casc.schedule import WakeSleepSchedule
    from lava_casc.training import Dataset

#: Batches of the simulator that evaluate takes at a time; it changes no result.
BATCHES = 8


@console.reports_errors
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint: lava-casc train wrote it.")],
    network: Annotated[
        Path | None, typer.Option("--network", help="What export made of it; by default MODEL is converted anew.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Classification: by default the data set that MODEL was trained on.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", help="Detection: a list in ImageSets/Main; by default test, or else val. Text: test or train."
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Only the first so many.")] = None,
    engine: Annotated[
        Engine, typer.Option("--engine", help="fused and graph are Lava's simulator, and slower.")
    ] = "reference",
    mode: Annotated[Mode | None, typer.Option("--mode", help="By default the schedule in the file, or unary.")] = None,
    max_burst: MaxBurst = None,
    preset: Preset = None,
    wake_steps: WakeSteps = None,
    sleep_steps: SleepSteps = None,
    certified: Annotated[
        bool,
        typer.Option("--certified", help="Score silence by one forward pass, and try it on random samples."),
    ] = False,
    trials: Annotated[int, typer.Option("--trials", min=1, help="With --certified: samples that are simulated.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="With --certified: chooses these samples.")] = 0,
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Accuracy, errors and cost after every step, into this folder; resumable."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Accuracy over time of methods in the literature: all, or names such as qcfs,srp.",
            autocompletion=among(lambda: METHODS),
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="With --study or --method: the last step; by default four times the levels."
        ),
    ] = None,
    variants: Annotated[
        str, typer.Option("--variants", help="With --study: which of if, if+wsc and cif to run beside cif+wsc.")
    ] = "if,if+wsc,cif,cif+wsc",
    draw: Annotated[
        str, typer.Option("--draw", help="With --study: samples whose spikes are drawn; by default 0 and the slowest.")
    ] = "",
    slurm: Annotated[
        Path | None,
        typer.Option("--slurm", help="Run the spikes as an array of SLURM jobs, in this folder that all nodes see."),
    ] = None,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="With --slurm: into how many jobs.")] = 8,
    partition: Annotated[str | None, typer.Option("--partition", help="With --slurm: by default its own.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a network on test data in its three forms: float, integers, spikes; detectors by mean average precision."""
    import numpy as np

    from lava_casc import pipeline
    from lava_casc.dynamics import batches
    from lava_casc.evaluation import evaluate as score_forms
    from lava_casc.frontend import load_checkpoint

    chosen = mode_of(mode, preset, wake_steps)
    if engine != "reference" and slurm is None:
        lava_casc.loihi.require_lava()  # before any work
    if output is not None:
        check_writable(output)
    if method is not None:
        from lava_casc.cli.methods import check_use

        check_use(method, engine, certified, slurm)
    checkpoint = load_checkpoint(model)
    dataset: Dataset | None = None
    if image_size is not None and "task" in checkpoint.about:
        raise DataError(f"--image-size {image_size}: {model} says the size of what it takes. Leave --image-size out.")
    if checkpoint.about.get("task") == "detection":
        source, task = str(data_dir), _detection(model, checkpoint, data, data_dir, split, samples)
    elif checkpoint.about.get("task") == "text":
        source, task = str(data_dir), _texts(model, checkpoint, data, data_dir, split, samples)
    else:
        if data is None and "dataset" not in checkpoint.about:
            raise DataError(f"{model}: does not say what it was trained on. Give --data NAME.")
        source = str(data or checkpoint.about["dataset"])
        dataset = read_dataset_of(checkpoint, source, data_dir, download, image_size)
        task = _classification(model, checkpoint, dataset, samples)
    if network is None:
        options = pipeline.Options(verify=0)
        integer = pipeline.convert_checkpoint(checkpoint, options, on_step=console.announce).network
        stored = integer.schedule()
    else:
        integer, stored = _network_of(network, checkpoint)
    schedule = schedule_of(integer, stored, chosen, wake_steps, sleep_steps, max_burst)
    methods: dict[str, Any] = {}
    if method is not None:
        from lava_casc.cli.methods import prepared

        methods = prepared(method, checkpoint, integer, dataset)
        if study is None:
            from lava_casc.cli.methods import run_methods

            run_methods(methods, checkpoint, integer, schedule, task, (str(model), source), steps, output, as_json)
            return
    if study is not None:
        if engine != "reference" or certified or output is not None or slurm is not None:
            raise DataError(
                "--study: has its own simulator and files. Leave --engine, --certified, --slurm and --output out."
            )
        from lava_casc.cli.study import Request, run_study

        request = Request(model, network, source, study, steps, variants, draw, methods)
        run_study(request, checkpoint, integer, schedule, task, as_json)
        return
    simulated = _trials(integer, schedule, task.samples, trials, seed) if certified else None
    # Lava compiles the network for each of its runs, the reference simulator prepares it.
    together = batches(integer, task.samples, None, most=256)[0].stop
    size = BATCHES * together if engine == "reference" and slurm is None else task.samples
    starts = range(0, task.samples, size)

    runner = Runner(integer, schedule, engine)

    def run(images: Any, done: Callable[[float], None]) -> Any:
        if slurm is None:
            return runner.run(images, done)
        from lava_casc.cluster import spread

        how: dict[str, Any] = {"tasks": tasks, "engine": engine, "partition": partition}
        return spread(slurm, integer, images, schedule, **how, progress=done, tell=console.err.print)

    kept = nullcontext() if slurm is None else console.keeping(slurm, "what was run; the same command runs the rest")
    with kept, console.progress(runner.name, task.samples) as bar:
        found = score_forms(
            checkpoint.model,
            integer,
            (task.images(range(start, min(start + size, task.samples))) for start in starts),
            task.predict,
            task.score,
            run,
            simulated=simulated,
            progress=bar,
        )
    result: dict[str, Any] = {
        "model": str(model),
        "network": None if network is None else str(network),
        "data": source,
        "engine": engine,
        "schedule": {**asdict(schedule), "mode": schedule.mode},
        "samples": found.samples,
        "interrupted": found.interrupted,
        "simulated_samples": len(found.simulated),
        "certified_samples": int(found.certified.sum()),
        "mismatched_outputs": found.mismatched,
        "scores": found.scores,
        "last_spike_median": float(np.median(found.last_spike)),
        "last_spike_max": int(found.last_spike.max()),
        "silence_bound": integer.silence_bound(schedule),
        "ms_per_sample": {
            form: 1e3 * seconds / (len(found.simulated) if form == "spikes" else found.samples)
            for form, seconds in found.seconds.items()
        },
    }
    if output is not None:
        traces = {name: getattr(found, name).tolist() for name in ("simulated", "certified", "last_spike")}
        pipeline.write_json(output, {**result, **traces})
    if as_json:
        console.show_json(result)
    else:
        _print_evaluation(result)
    if found.interrupted:
        console.stop(f"this is of the first {found.samples} of {task.samples} samples")


def _trials(
    network: IntegerNetwork, schedule: WakeSleepSchedule, samples: int, trials: int, seed: int
) -> NDArray[np.int64]:
    """Return random samples on which silence is tried, if each sample is proven to reach it."""
    import numpy as np

    needed = network.certified_by(schedule)
    if schedule.period < needed:
        raise RangeError(
            f"--certified: the period ({schedule.period} steps) is below the {needed} in which silence is proven. "
            "Use more --sleep-steps."
        )
    return np.random.default_rng(seed).choice(samples, min(trials, samples), replace=False)


@dataclass(frozen=True)
class Task:
    """What a checkpoint is evaluated on: images by their indices, a prediction for each, and the scores of some.

    `truth` is what the scores compare with; for classifiers the labels.
    """

    samples: int
    images: Callable[[range], Any]
    predict: Callable[[Any], Any]
    score: Callable[[Any, NDArray[np.int64]], dict[str, float | None]]
    truth: list[Any]
    classifies: bool = True


def _detection(
    model: Path, checkpoint: Checkpoint, data: str | None, folder: Path | None, split: str | None, samples: int | None
) -> Task:
    from lava_casc.detection import detect, detector_of, mean_average_precision, read_voc, splits

    if data is not None or folder is None:
        raise DataError(f"{model}: a detector. Give --data-dir FOLDER in VOC layout, and no --data.")
    classes, stride = detector_of(checkpoint)
    _, height, width = checkpoint.input.shape
    found = read_voc(folder, split or splits(folder)[1], (height, width), classes).first(samples)
    return Task(
        len(found),
        found.images,
        lambda maps: detect(maps, stride),
        lambda predictions, chosen: mean_average_precision(predictions, [found.objects[i] for i in chosen], classes),
        [array for objects in found.objects for array in (objects.boxes, objects.labels, objects.difficult)],
        classifies=False,
    )


def _texts(
    model: Path, checkpoint: Checkpoint, data: str | None, folder: Path | None, split: str | None, samples: int | None
) -> Task:
    if data is not None or folder is None:
        raise DataError(f"{model}: a classifier of texts. Give --data-dir FOLDER with test.csv, and no --data.")
    tokens, labels = load_texts(checkpoint, folder, split or "test", samples)
    return Task(
        len(tokens),
        lambda chosen: tokens[chosen.start : chosen.stop],
        lambda outputs: outputs[0].argmax(1),
        lambda predictions, chosen: {"accuracy": float((labels[chosen] == predictions).mean())},
        [labels],
    )


def _classification(model: Path, checkpoint: Checkpoint, dataset: Dataset, samples: int | None) -> Task:
    images, labels = dataset.test_images[:samples], dataset.test_labels[:samples]
    if dataset.shape != checkpoint.input.shape:
        raise DataError(
            f"{model}: takes {checkpoint.input.shape}, but the images of {dataset.name} are {dataset.shape}."
        )
    return Task(
        len(images),
        lambda chosen: images[chosen.start : chosen.stop],
        lambda outputs: outputs[0].argmax(1),
        lambda predictions, chosen: {"accuracy": float((labels[chosen] == predictions).mean())},
        [labels],
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
    simulated, samples = result["simulated_samples"], result["samples"]

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    rows: list[list[Any]] = [[name, *(shown(scores[form][name]) for form in scores)] for name in scores["spikes"]]
    rows.append(["samples", samples, samples, simulated])
    rows.append(["ms a sample", *(round(ms, 1) for ms in result["ms_per_sample"].values())])
    schedule = result["schedule"]
    console.table(
        f"{result['engine']}, {schedule['mode']}, {schedule['wake_steps']} + {schedule['sleep_steps']} steps",
        ["", *scores],
        rows,
    )
    console.out.print(
        f"certified silent: {result['certified_samples']} of {simulated} samples, last spike in step "
        f"{result['last_spike_median']:g} (median), {result['last_spike_max']} (greatest), proven bound "
        f"{result['silence_bound']}; outputs that differ from the integer network: {result['mismatched_outputs']}"
    )
    if simulated < samples:
        console.out.print(
            f"Integer: one forward pass through all {samples} samples, each of which is proven to fall silent within "
            f"{result['silence_bound']} steps with these very outputs. Spikes: {simulated} random samples, simulated."
        )
    print_not_certified(result)
