"""`lava-casc evaluate --study`: the measurement, its files and its tables."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_casc import console
from lava_casc.doctor import versions
from lava_casc.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lava_casc.cli.evaluate import Task
    from lava_casc.frontend import Checkpoint
    from lava_casc.network import IntegerNetwork
    from lava_casc.schedule import WakeSleepSchedule
    from lava_casc.study import Method, Study
    from lava_casc.study.scores import Scorer

#: Samples on which integers are compared with floats, layer by layer, and how many neurons they may have in all.
DIAGNOSED, NEURONS = 128, 1 << 26
#: Words of a checkpoint's notes that are no longer than this are told.
NOTE = 60


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    network: Path | None
    data: str
    folder: Path
    steps: int | None
    variants: str
    draw: str
    methods: dict[str, Method] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """The samples of a task, read when they are needed."""

    task: Task

    def __len__(self) -> int:
        return self.task.samples

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.task.images(range(*part.indices(self.task.samples)))
        return found


def run_study(
    request: Request,
    checkpoint: Checkpoint,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    task: Task,
    as_json: bool,
) -> None:
    """Measure, and leave JSON, CSV and pictures in the folder."""
    from lava_casc.dynamics import VARIANTS
    from lava_casc.frontend import fold
    from lava_casc.pipeline import with_levels
    from lava_casc.report import figures, save_figure
    from lava_casc.study import (
        measure,
        quantization_errors,
        read_study,
        summary,
        write_layers,
        write_scores,
    )
    from lava_casc.study.measuring import PROGRESS

    chosen = tuple(request.variants.split(","))
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown:
        raise DataError(f"--variants: {unknown[0]!r} is not known. Use any of {', '.join(VARIANTS)}.")
    drawn = _drawn(request.draw, task.samples)
    folder = request.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}). Choose another folder.") from error
    samples = Samples(task)
    diagnosed = samples[: min(DIAGNOSED, max(1, NEURONS // network.neurons))]
    graph = checkpoint.graph if network.levels == _levels(checkpoint) else with_levels(checkpoint.graph, network.levels)
    console.err.print(f"comparing integers with floats on {len(diagnosed)} samples ...")
    errors = quantization_errors(fold(graph), network, diagnosed)
    scorer = scorer_of(task)
    kept = console.keeping(folder / PROGRESS, "what was measured so far; the same command goes on")
    with kept, console.progress("every step of every variant", task.samples) as bar:
        found = measure(
            checkpoint.model,
            network,
            schedule,
            samples,
            scorer,
            steps=request.steps or max(4 * network.levels, schedule.wake_steps),
            variants=chosen,
            about=_about(request, checkpoint, schedule, network.levels, len(diagnosed)),
            quantization=errors,
            methods=request.methods,
            folder=folder,
            progress=bar,
            tell=console.err.print,
        )
    write_scores(found, folder / "scores.csv")
    write_layers(found, folder / "layers.csv")
    data = read_study(folder)
    save_figure(figures.plot_scores(data, next(iter(data["scores"]["float"]))), folder / "scores.png")
    _draw(found, network, schedule, samples, drawn, folder)
    if as_json:
        console.show_json(summary(found))
        return
    _print(found, folder)


def scorer_of(task: Task) -> Scorer:
    """Return what scores a task's outputs."""
    from lava_casc.study import Predictions, Ranks

    return Ranks(task.truth[0]) if task.classifies else Predictions(task.predict, task.score, task.truth)


def _levels(checkpoint: Checkpoint) -> int:
    return max((op.arguments["levels"] for op in checkpoint.graph.operations if "levels" in op.arguments), default=1)


def _drawn(text: str, samples: int) -> list[int]:
    """Return which samples to draw, if any were named."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise DataError(f"--draw: {text!r} is no list of samples. Give numbers such as 0,5.") from error
    outside = [i for i in found if not 0 <= i < samples]
    if outside:
        raise DataError(f"--draw: sample {outside[0]} is not among the {samples}. Choose one from 0 on.")
    return found


def _mode(schedule: WakeSleepSchedule, levels: int) -> str:
    if schedule.mode == "unary" or (schedule.released and schedule.max_burst >= levels):
        return schedule.mode
    return f"{schedule.mode} of {schedule.max_burst}"


def _about(
    request: Request, checkpoint: Checkpoint, schedule: WakeSleepSchedule, levels: int, diagnosed: int
) -> dict[str, Any]:
    """Return what somebody needs to know, and to get it again."""
    trained = {f"trained: {key}": value for key, value in checkpoint.about.items() if len(str(value)) <= NOTE}
    file = {} if request.network is None else {"network": str(request.network)}
    return {
        "name": (request.network or request.model).stem,
        "model": str(request.model),
        **file,
        "data": request.data,
        "mode": _mode(schedule, levels),
        "diagnosed": diagnosed,
        **{f"method {name}": _told(name) for name in request.methods},
        **trained,
        "command": shlex.join(["lava-casc", *sys.argv[1:]]),
        "versions": {**versions("torch", "numpy"), "machine": platform.machine()},
    }


def _told(name: str) -> str:
    """Return whose a method is, and that it proves nothing."""
    from lava_casc.baselines import METHODS

    return f"{METHODS[name].title} ({METHODS[name].paper}); certifies nothing"


def _draw(
    study: Study,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    samples: Samples,
    drawn: list[int],
    folder: Path,
) -> None:
    """Draw the spikes of some samples: those that were named, or the first and the one that took longest."""
    import numpy as np

    from lava_casc.errors import DataError
    from lava_casc.files import replacing
    from lava_casc.reference import simulate
    from lava_casc.report import as_svg, plot_spikes

    slowest = int(np.argmax(study.whole.last_spike))
    for old in folder.glob("spikes-*.svg"):
        old.unlink()
    for sample in dict.fromkeys(drawn or [0, slowest]):
        one = samples[sample : sample + 1]
        record = simulate(network, one, schedule, record=("spikes",))
        image = None if network.is_recurrent or one.ndim < 4 else one[0]
        last = " is among the last to fall silent" if sample == slowest else ""
        figure = plot_spikes(network, record, image=image, title=f"sample {sample}{last}")
        with replacing(folder / f"spikes-{sample}.svg", DataError) as temporary:
            temporary.write_text(as_svg(figure), encoding="utf-8")


def _print(study: Study, folder: Path) -> None:
    from lava_casc.study import summary

    found = summary(study)
    scores = list(study.scores["float"])[:3]
    rows: list[list[Any]] = []
    for form, values in found["accuracy"].items():
        at = found["reported_at"].get(form)
        rows.append([form if at is None else f"{form}, step {at}", *(_shown(values[name]) for name in scores)])
    console.table(f"{study.samples} samples, with 95 % confidence intervals", ["", *scores], rows)
    silence = found["silence"]
    console.out.print(found["verdict"])
    if study.methods:
        console.out.print(f"of cif+wsc alone: {', '.join(study.methods)} certify nothing")
    if study.whole.certified:
        console.out.print(
            f"certificate in step {silence['certificate_median']:g} (median), {silence['certificate_p99']:g} (99 %), "
            f"{silence['certificate_max']:g} (greatest); proven for every sample by step {study.bound}"
        )
    console.out.print(f"study.json, scores.csv, layers.csv, scores.png, spikes-*.svg: {folder}")
    console.out.print(f"for the page: {shlex.join(['lava-casc', 'report', str(folder)])}")


def _shown(score: Any) -> str:
    value, low, high = score
    if value is None:
        return ""
    return f"{value:.2%}" if low is None else f"{value:.2%} ({low:.2%} to {high:.2%})"
