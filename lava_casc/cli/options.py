"""What more than one command takes, and what is asked of it before anything begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from lava_casc.errors import CheckpointError, RangeError

#: What the shell completes; tests hold them equal to what there is, which takes seconds to import.
DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "folder")
ARCHITECTURES = ("digits", "fashion", "resnet20", "vgg9", "vgg16")
METHODS = ("all", "if-percentile", "qcfs", "opi", "snm", "srp", "calibrated", "parallel")


def among(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes a word to one of some names."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _targets() -> Iterable[str]:
    from lava_casc.hardware import shipped_configs

    return shipped_configs()


def energy_tables() -> Iterable[str]:
    """Return the names of the tables that are shipped."""
    from lava_casc.energy import shipped_energy_tables

    return shipped_energy_tables()


Target = Annotated[
    str,
    typer.Option(
        "--hw",
        help="The target and its limits: a file, or the name of one in hw_configs/.",
        autocompletion=among(_targets),
    ),
]


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]


DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the data set, in torchvision's layout.")]


Download = Annotated[bool, typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.")]


ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=1,
        help="Of --data folder: scale images to this side and crop the middle. A checkpoint says how it was trained.",
    ),
]


Mode = Literal["unary", "burst", "graded"]


MaxBurst = Annotated[
    int | None,
    typer.Option("--max-burst", min=1, help="The most units in one spike: 2 in bursts, else all levels by default."),
]


WakeSteps = Annotated[
    int | None,
    typer.Option("--wake-steps", min=1, help="Steps with input; by default the levels a burst, or 1 (graded)."),
]


SleepSteps = Annotated[
    int | None,
    typer.Option("--sleep-steps", min=0, help="By default enough for the proven bound; too few certify nothing."),
]


Preset = Annotated[
    Literal["latency", "energy"] | None,
    typer.Option("--preset", help="Instead of --mode: the fewest steps, or the fewest synaptic operations."),
]


Engine = Literal["fused", "graph", "reference"]


#: What one sample can be run on; the staircase gives no certificates, of which evaluate and study are made.
RunEngine = Literal["fused", "graph", "reference", "staircase"]


Precision = Literal["fixed", "float"]


def mode_of(mode: str | None, preset: str | None, wake_steps: int | None = None) -> str | None:
    """Return the mode that was asked for, which may be a preset."""
    if preset is not None and (mode is not None or wake_steps is not None):
        raise RangeError(f"--preset {preset}: chooses the mode and the wake. Leave --mode and --wake-steps out.")
    return preset or mode


def check_writable(path: Path) -> None:
    """Refuse before minutes of work what could not be written after them."""
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder. Give the path of a file.")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: its folder does not exist. Make it first.")
