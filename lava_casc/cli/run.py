"""`lava-casc run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import lava_casc
from lava_casc import console
from lava_casc.cli.engines import Runner, print_not_certified, schedule_of
from lava_casc.cli.options import (
    DATA_SETS,
    AsJson,
    DataDir,
    Debug,
    Download,
    ImageSize,
    MaxBurst,
    Mode,
    Precision,
    Preset,
    RunEngine,
    SleepSteps,
    WakeSteps,
    among,
    check_writable,
    mode_of,
)
from lava_casc.cli.samples import load_images, texts_to_run
from lava_casc.errors import DataError


@console.reports_errors
def run(
    network: Annotated[Path, typer.Argument(help="A network file that export wrote.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Run on the test images of digits, fashion-mnist, cifar10, cifar100 or folder.",
            autocompletion=among(lambda: DATA_SETS),
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    image_size: ImageSize = None,
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
    engine: Annotated[
        RunEngine,
        typer.Option(
            "--engine",
            help="Lava with the whole network in one process, or one for each part; reference needs no Lava; "
            "staircase gives the same answers from processes that Lava ships, without spikes to count or certificates.",
        ),
    ] = "fused",
    precision: Annotated[
        Precision, typer.Option("--precision", help="fixed is what Loihi 2 computes; float needs --engine graph.")
    ] = "fixed",
    mode: Annotated[Mode | None, typer.Option("--mode", help="By default the schedule in the file.")] = None,
    max_burst: MaxBurst = None,
    preset: Preset = None,
    wake_steps: WakeSteps = None,
    sleep_steps: SleepSteps = None,
    fixed_period: Annotated[
        bool, typer.Option("--fixed-period", help="Lava: sleep to the end, even after the certificate.")
    ] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw the first sample's spikes (PNG).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the result as JSON.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a network as spikes and say for every sample whether it is certified: silent, hence exact bit for bit."""
    import numpy as np

    from lava_casc import pipeline
    from lava_casc.netx import read_file
    from lava_casc.record import kept
    from lava_casc.reference import logits

    chosen = mode_of(mode, preset, wake_steps)
    if engine == "staircase":
        _refuse_schedule(
            mode=mode, preset=preset, max_burst=max_burst, wake_steps=wake_steps, sleep_steps=sleep_steps,
            fixed_period=fixed_period or None, picture=picture,
        )  # fmt: skip
    for path in (picture, output):
        if path is not None:
            check_writable(path)
    file = read_file(network)
    integer = file.network
    if model is None:
        pictures, labels = load_images(data, data_dir, download, images, samples, image_size)
    else:
        pictures, labels = texts_to_run(model, data, data_dir, images, samples)
    integer.encode(pictures)  # a wrong shape or range is said before anything runs
    if engine != "reference":
        lava_casc.loihi.require_lava()
    held, asked, interrupted = engine == "staircase", len(pictures), False
    schedule = schedule_of(integer, file.schedule, chosen, wake_steps, sleep_steps, max_burst)
    runner = Runner(integer, schedule, engine, precision, not fixed_period)
    with console.progress("integer network", asked) as bar:
        truth = logits(integer, pictures, bar)
    try:
        with console.progress(runner.name, asked) as bar:
            record = runner.run(pictures, bar)
    except KeyboardInterrupt as stop:
        finished = kept(stop)
        if finished is None:
            raise
        record, interrupted = finished, True
        truth, labels = truth[: len(record)], None if labels is None else labels[: len(record)]
    result: dict[str, Any] = {
        "file": str(network),
        "engine": record.engine,
        "schedule": {**asdict(record.schedule), "mode": "held" if held else schedule.mode},
        "samples": len(record),
        "interrupted": interrupted,
        "certified_samples": int(record.certified.sum()),
        "mismatched_logits": int((record.logits != truth).sum()),
        "accuracy": None if labels is None else float((record.predictions == labels).mean()),
        "integer_accuracy": None if labels is None else float((truth.argmax(1) == labels).mean()),
        "last_spike_median": None if held else float(np.median(record.last_spike)),
        "last_spike_max": None if held else int(record.last_spike.max()),
        "silence_bound": None if held else integer.silence_bound(schedule),
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
        console.show_json(result)
    else:
        _print_run(result)
    if interrupted:
        console.stop(f"this is of the first {len(record)} of {asked} samples")
    if picture is not None:
        from lava_casc.report import plot_spikes, save_figure

        with console.progress(f"drawing {picture}", 1) as bar:
            drawn = runner.run(pictures[:1], bar, record=("spikes",))
            save_figure(plot_spikes(integer, drawn, 0, image=None if integer.is_recurrent else pictures[0]), picture)
        if not as_json:
            console.out.print(f"picture: {picture}")


def _refuse_schedule(**options: Any) -> None:
    """Refuse what the staircase has not, before anything is read."""
    for option, value in options.items():
        if value is not None:
            name = option.replace("_", "-")
            raise DataError(
                f"--{name}: the staircase holds its input; it has no schedule, and no spikes to draw. Leave --{name} "
                "out, or use another --engine."
            )


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
    if result["silence_bound"] is not None:
        rows += [
            [
                "last spike, median and greatest step",
                f"{result['last_spike_median']:g}, {result['last_spike_max']}",
            ],
            ["silent at the latest after step (proven)", result["silence_bound"]],
        ]
    if result["ms_per_step"] is not None:
        rows.append(["steps run, ms a step", f"{result['steps']:,}, {result['ms_per_step']:.2f}"])
    schedule = result["schedule"]
    console.table(
        f"{result['engine']}, {schedule['mode']}, {schedule['wake_steps']} + {schedule['sleep_steps']} steps",
        ["", ""],
        rows,
    )
    print_not_certified(result)
