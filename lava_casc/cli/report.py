"""`lava-casc report`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from lava_casc import console
from lava_casc.cli.options import AsJson, Debug, among, check_writable, energy_tables
from lava_casc.errors import DataError


@console.reports_errors
def report(
    studies: Annotated[
        list[Path], typer.Argument(help="What lava-casc evaluate --study left: its folder, or the study.json in it.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page; by default report.html beside the study, or comparison.html."),
    ] = None,
    energy: Annotated[
        list[str] | None,
        typer.Option(
            "--energy",
            help="A table of energy constants: a shipped name or a TOML file; may be repeated.",
            autocompletion=among(energy_tables),
        ),
    ] = None,
    step_us: Annotated[
        float | None, typer.Option("--step-us", min=0.0, help="How long a step takes, in microseconds, for latencies.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write one page of HTML about a study, or about several side by side."""
    from lava_casc.energy import read_energy, shipped_energy_tables
    from lava_casc.report.page import comparison_page, save_page, study_page
    from lava_casc.study import compare, read_study

    found = [read_study(path) for path in studies]
    tables = [read_energy(name) for name in energy or shipped_energy_tables()]
    if len(found) == 1:
        home = studies[0] if studies[0].is_dir() else studies[0].parent
        target = output or home / "report.html"
        check_writable(target)
        rows: list[dict[str, Any]] = found[0]["summary"]["costs"]
        page = study_page(found[0], tables, step_us, _rasters(home))
    else:
        target = output or Path("comparison.html")
        check_writable(target)
        rows = compare(found)
        page = comparison_page(rows, found, tables, step_us)
    save_page(page, target)
    if as_json:
        console.show_json({"page": str(target), "rows": rows})
        return
    if len(found) == 1:
        console.out.print(found[0]["summary"]["verdict"])
    console.out.print(f"page: {target}")


def _rasters(folder: Path) -> list[tuple[str, str]]:
    """Return the pictures of spikes that lie beside a study, with what they show."""
    found = []
    for path in sorted(folder.glob("spikes-*.svg"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]):
        text = path.read_text(encoding="utf-8")
        if "<script" in text.lower():
            raise DataError(f"{path}: is no picture that lava-casc drew. Remove it.")
        found.append((path.stem.replace("spikes-", "sample "), text))
    return found
