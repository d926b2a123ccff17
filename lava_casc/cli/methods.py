"""`lava-casc evaluate --method`: accuracy against T for methods of the literature, and ours beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lava_casc import console
from lava_casc.errors import DataError

if TYPE_CHECKING:
    from lava_casc.cli.evaluate import Task
    from lava_casc.frontend import Checkpoint
    from lava_casc.network import IntegerNetwork
    from lava_casc.schedule import WakeSleepSchedule
    from lava_casc.study import Method, Study
    from lava_casc.training import Dataset

#: Training images that thresholds and biases are calibrated on, and how many neurons they may have in all.
CALIBRATED, NEURONS = 64, 1 << 26


def check_use(names: str, engine: str, certified: bool, slurm: Path | None) -> None:
    """Refuse unknown methods, and options without a meaning for what certifies nothing."""
    from lava_casc.baselines import find

    find(names)
    if engine != "reference" or certified or slurm is not None:
        raise DataError(
            "--method: runs in the reference simulator, and certifies nothing. Leave --engine, --certified and --slurm "
            "out."
        )


def prepared(names: str, checkpoint: Checkpoint, network: IntegerNetwork, dataset: Dataset | None) -> dict[str, Method]:
    """Return the methods that were named, calibrated on the checkpoint's examples or on training images.

    Parameters
    ----------
    names : str
        As `lava_casc.baselines.find` takes them.
    checkpoint : Checkpoint
    network : IntegerNetwork
    dataset : Dataset, optional
        Where there are training images.
    """
    import numpy as np

    from lava_casc.baselines import METHODS, Material, find, prepare

    chosen = find(names)
    calibrates = any(METHODS[name].calibrates for name in chosen) and not network.is_recurrent
    examples: Any = checkpoint.examples if calibrates else None
    if examples is None and dataset is not None and calibrates:
        examples = dataset.train_images[:CALIBRATED]
    if examples is not None:
        examples = examples[: max(1, min(CALIBRATED, NEURONS // network.neurons))].astype(np.int64)
        console.err.print(f"calibrating thresholds and biases on {len(examples)} training samples ...")
    return prepare(chosen, Material(checkpoint, network, examples))


def run_methods(
    methods: dict[str, Method],
    checkpoint: Checkpoint,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    task: Task,
    names: tuple[str, str],
    steps: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run methods, and the network whole, and print a score at T = 1, 2, 4, 8, ..."""
    from lava_casc import files
    from lava_casc.cli.study import Samples, scorer_of
    from lava_casc.study import measure

    distance = max(network.distances[readout.name][0] for readout in network.readouts)
    times = [1 << k for k in range((steps or 4 * network.levels).bit_length())]
    with console.progress("every step of every method", task.samples) as bar:
        found = measure(
            checkpoint.model,
            network,
            schedule,
            Samples(task),
            scorer_of(task),
            steps=max(times[-1], schedule.wake_steps),
            variants=(),
            methods=methods,
            progress=bar,
            tell=console.err.print,
        )
    interrupted = found.samples < task.samples
    about = {"model": names[0], "data": names[1], "samples": found.samples, "interrupted": interrupted}
    result = {**about, **_table(found, times, distance)}
    if output is not None:
        files.write_json(output, result, DataError)
    if as_json:
        console.show_json(result)
    else:
        _print(result)
    if interrupted:
        console.stop(f"this is of the first {found.samples} of {task.samples} samples")


def _table(study: Study, times: list[int], distance: int) -> dict[str, Any]:
    """Return the first score of every form, after the outputs have heard T steps."""
    from lava_casc.baselines import METHODS
    from lava_casc.study.summary import verdict

    score = next(iter(study.scores["float"]))
    rows: dict[str, Any] = {}
    for name, run in study.runs.items():
        places = [max(i for i, point in enumerate(run.points) if point <= distance + t or i == 0) for t in times]
        rows[name] = {"scores": [study.scores[name][score][place] for place in places]}
        if name in METHODS:
            baseline = METHODS[name]
            rows[name] |= {"title": baseline.title, "paper": baseline.paper, "limit": baseline.limit}
    return {
        "score": score,
        "times": times,
        "distance": distance,
        "float": study.scores["float"][score][0],
        "integer": study.scores["integer"][score][0],
        "runs": rows,
        "certified": {name: 0 if name in METHODS else run.certified for name, run in study.runs.items()},
        "verdict": verdict(study),
    }


def _print(result: dict[str, Any]) -> None:
    def shown(score: Any) -> str:
        return "" if score[0] is None else f"{score[0]:.2%}"

    times, runs, samples, certified = (result[key] for key in ("times", "runs", "samples", "certified"))
    ours = [name for name in runs if "paper" not in runs[name]]
    ordered = [*(name for name in runs if name not in ours), *ours]
    rows: list[list[Any]] = [
        [name, *map(shown, runs[name]["scores"]), f"{certified[name]} of {samples}" if name in ours else "none"]
        for name in ordered
    ]
    console.table(f"{result['score']} of {samples} samples, after T steps", ["", *map(str, times), "certified"], rows)
    console.out.print(
        f"float {shown(result['float'])}, integers {shown(result['integer'])}. T counts from when the input has "
        f"reached the outputs, {result['distance']} steps after it began."
    )
    scores = [score for row in runs.values() for score in row["scores"]]
    if all(low is not None for _, low, _ in scores):
        widest = max(high - low for _, low, high in scores)
        console.out.print(f"Intervals of 95 % are up to {widest:.2%} wide; --json has them all.")
    if "srp" in runs:
        console.out.print("srp: T counts its second stage; the first takes as many steps as there are levels.")
    if "parallel" in runs:
        console.out.print("parallel: each layer waits for all T steps of the one before it.")
    console.out.print(
        f"Which answers are the integer network's the methods do not say; cif+wsc does: {result['verdict']}."
    )
