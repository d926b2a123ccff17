"""What follows from the sums: the verdict, accuracies, when samples fell silent, costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lava_casc.errors import DataError
from lava_casc.study.sums import GRADED, WHOLE, Run, Study

FORMS = ("float", "integer")


def summary(study: Study) -> dict[str, Any]:
    """Return what a person wants to know first, as plain data.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict
    """
    return {
        "verdict": verdict(study),
        "certified": study.whole.certified,
        "silence": _silence(study.whole),
        "accuracy": {
            form: {name: points[planned_point(study, form)] for name, points in scores.items()}
            for form, scores in study.scores.items()
        },
        "reported_at": {name: run.points[planned_point(study, name)] for name, run in study.runs.items()},
        "costs": costs(study),
    }


def verdict(study: Study) -> str:
    """Return in one sentence what is proven of this run, and what is not."""
    n, certified = study.samples, study.whole.certified
    if not n:
        return "nothing was run yet"
    each = " of each phase" if study.phases > 1 else ""
    if certified == n:
        last = len(study.whole.silent) - next(i for i, k in enumerate(reversed(study.whole.silent)) if k)
        return f"certified lossless: {certified:,} of {n:,} samples silent by step {last:,}{each}"
    return (
        f"not certified: {n - certified:,} of {n:,} samples were not silent when step {study.planned:,}{each} ended, "
        "and their answers are not proven"
    )


def planned_point(study: Study, form: str) -> int:
    """Return the place, among a form's points, of the step that is reported: the planned one, or the last before."""
    if form in FORMS or form not in study.runs:
        return 0
    points = study.runs[form].points
    return max(i for i, point in enumerate(points) if point <= study.planned or i == 0)


def costs(study: Study) -> list[dict[str, Any]]:
    """Return one row for each way to compute the network's answer, with what a sample costs on average.

    ``steps`` are the mean over samples, ``last_step`` the greatest. Synaptic operations of the input, whose spikes
    carry numbers of several bits, are counted apart. ``events`` are what tables of energy constants price.
    """
    if not study.samples:
        return []
    rows: list[dict[str, Any]] = [
        {"name": "ANN", "macs": study.network["macs"], "events": {"mac": float(study.network["macs"])}}
    ]
    end = _last_certificate(study)
    for name in ("if", WHOLE, GRADED):
        if name not in study.runs:
            continue
        run = study.runs[name]
        silent = name != "if"
        until = run.steps if silent else min(end, run.steps)
        steps = _mean_certificate(run, study.samples) if silent else float(until)
        entries = [layer["name"] for layer in study.network["layers"] if layer["entry"]]
        hidden = [layer for layer in run.layers if layer not in entries]
        each = {kind: run.total(kind, hidden, until) / study.samples for kind in ("messages", "negatives", "synops")}
        input_synops = run.total("synops", entries, until) / study.samples
        updates = study.network["computed_neurons"] * steps * study.phases
        graded = run.max_burst > 1
        rows.append(
            {
                "name": name,
                "steps": steps,
                "last_step": until if not silent else _greatest(run),
                "input_synops": input_synops,
                **each,
                "events": {
                    "input_synop": input_synops,
                    "graded_synop" if graded else "synop": each["synops"],
                    "message": each["messages"],
                    "update": updates,
                },
            }
        )
    return rows


def compare(studies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a study, if they can be compared: one architecture, the same samples.

    Levels, bit widths and schedules may differ: they are what is compared.

    Parameters
    ----------
    studies : sequence of dict
        As `read_study` returns them.

    Returns
    -------
    list of dict

    Raises
    ------
    DataError
        They are of different data or different architectures.
    """
    first = studies[0]
    for other in studies[1:]:
        if other["data"] != first["data"]:
            raise DataError(
                f"{_name(first)} and {_name(other)} were run on different samples. Run both on the same --data and "
                "--samples."
            )
        if _architecture(other) != _architecture(first):
            raise DataError(
                f"{_name(first)} and {_name(other)} are of different architectures. Compare levels, bit widths and "
                "schedules of one."
            )
    return [_compared(study) for study in studies]


def _compared(study: dict[str, Any]) -> dict[str, Any]:
    found = study["summary"]
    rows = {row["name"]: row for row in found["costs"]}
    return {
        "name": _name(study),
        "levels": study["network"]["levels"],
        "weight_bits": study["network"]["weight_bits"],
        "mode": study["about"].get("mode", ""),
        "samples": study["samples"],
        "certified": found["certified"],
        "silence": found["silence"],
        "accuracy": found["accuracy"],
        "cost": rows[WHOLE],
        "ann": rows["ANN"],
    }


def _name(study: dict[str, Any]) -> str:
    return str(study["about"].get("name", "a study"))


def _architecture(study: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(layer["name"], layer["type"], tuple(layer["shape"])) for layer in study["network"]["layers"]]


def _silence(run: Run) -> dict[str, float | None]:
    """Return when samples were certified, and their last spikes: median, 99 % and greatest."""
    steps = np.repeat(np.arange(1, len(run.silent) + 1), run.silent)
    found: dict[str, float | None] = {}
    for name, values in (("certificate", steps), ("last_spike", np.array(run.last_spike))):
        for part, share in (("median", 0.5), ("p99", 0.99), ("max", 1.0)):
            found[f"{name}_{part}"] = float(np.quantile(values, share)) if len(values) else None
    return found


def _mean_certificate(run: Run, samples: int) -> float:
    """Return how long a sample takes on average; one that is not certified takes all steps."""
    certified = sum(step * number for step, number in enumerate(run.silent, 1))
    return (certified + len(run.silent) * (samples - run.certified)) / samples


def _greatest(run: Run) -> int:
    """Return the step in which the last sample is done."""
    return max(step for step, number in enumerate(run.silent, 1) if number or step == 1)


def _last_certificate(study: Study) -> int:
    return _greatest(study.whole) if study.whole.certified == study.samples else study.planned
