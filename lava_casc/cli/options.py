"""What more than one command takes, and what is asked of it before anything begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lava_casc.errors import CheckpointError, RangeError

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of a table.")]


DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the data set, in torchvision's layout.")]


Download = Annotated[bool, typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.")]


Mode = Literal["unary", "burst", "graded"]


MaxBurst = Annotated[
    int | None,
    typer.Option("--max-burst", min=1, help="The most units in one spike: 2 in bursts, else all levels by default."),
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
