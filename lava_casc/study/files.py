"""A study as files: JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from lava_casc.errors import DataError
from lava_casc.files import replacing
from lava_casc.study.summary import summary
from lava_casc.study.sums import KINDS, Run, Study

KIND = "lava_casc study"
#: The version of files that hold runs of other methods, which readers of version 1 do not know; the others are as
#: they were.
VERSION = 2


def as_dict(study: Study) -> dict[str, Any]:
    """Return the sums, and what follows from them."""
    version = VERSION if study.methods else 1
    return {"kind": KIND, "version": version, **asdict(study), "summary": summary(study)}


def from_dict(found: dict[str, Any]) -> Study:
    """Return the study that `as_dict` wrote down."""
    values = {entry.name: found[entry.name] for entry in fields(Study)}
    return Study(**{**values, "runs": {name: Run(**run) for name, run in found["runs"].items()}})


def save_study(study: Study, path: Path) -> None:
    """Write a study as JSON, whole or not at all.

    Parameters
    ----------
    study : Study
    path : Path
    """
    with replacing(path, DataError) as temporary:
        temporary.write_text(json.dumps(as_dict(study)), encoding="utf-8")


def read_study(path: Path) -> dict[str, Any]:
    """Return what a file says of a study, as `as_dict` has it.

    Parameters
    ----------
    path : Path
        The file, or the folder that it lies in as ``study.json``.

    Returns
    -------
    dict

    Raises
    ------
    DataError
        It is no such file, or of a newer version.
    """
    path = path / "study.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable JSON ({error}). Run lava-casc evaluate --study again.") from error
    if not isinstance(found, dict) or found.get("kind") != KIND or not isinstance(found.get("version"), int):
        raise DataError(f"{path}: holds no study. Give a file that lava-casc evaluate --study wrote.")
    if found["version"] > VERSION:
        raise DataError(
            f"{path}: its version ({found['version']}) exceeds what is known ({VERSION}). Update lava_casc."
        )
    try:
        from_dict(found)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}). Run lava-casc evaluate --study again.") from error
    return found


def write_scores(study: Study, path: Path) -> None:
    """Write one row a point: the scores of each run with their intervals, and the share certified by then.

    Parameters
    ----------
    study : Study
    path : Path
        Of a CSV file.
    """
    names = [(run, score) for run in study.runs for score in study.scores.get(run, {})]
    header = ["step", *(f"{run} {score}{end}" for run, score in names for end in ("", " low", " high")), "certified"]
    silent = np.cumsum(study.whole.silent)
    points = sorted({point for run in study.runs.values() for point in run.points})
    rows = []
    for point in points:
        row: list[Any] = [point]
        for run, score in names:
            found = study.runs[run].points
            cells = study.scores[run][score][found.index(point)] if point in found else (None, None, None)
            row += ["" if value is None else value for value in cells]
        rows.append([*row, int(silent[min(point, len(silent)) - 1]) / max(1, study.samples)])
    _write(path, header, rows)


def write_layers(study: Study, path: Path) -> None:
    """Write one row for each run, layer and step: the sums of all samples.

    Parameters
    ----------
    study : Study
    path : Path
        Of a CSV file.
    """
    rows = []
    for name, run in study.runs.items():
        for layer, sums in run.layers.items():
            for step in range(run.steps):
                rows.append([name, layer, step + 1, *(sums[kind][step] if kind in sums else "" for kind in KINDS)])
    _write(path, ["run", "layer", "step", *KINDS], rows)


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with replacing(path, DataError) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
