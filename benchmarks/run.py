"""Every benchmark, each in a process of its own, and one table of them all.

    python benchmarks/run.py [--json FILE] [--page docs/performance.md] [--only NAME ...]
    make bench

Takes less than ten minutes on two cores. --page writes the table and the machine between two markers of a page, and the
picture of growth beside it. The peers of the reference simulator are not part of this repository: see simulator.py for
--casc and --spikingjelly; --simulator-python runs that script with another Python.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import COLUMNS, Row, cells, cores, left_out, parser

HERE = Path(__file__).resolve().parent
#: Name, script and whether it needs Lava.
SCRIPTS = (
    ("synapses", "lava_synapses.py", True),
    ("engines", "engines.py", False),
    ("simulator", "simulator.py", False),
    ("export", "export.py", False),
    ("growth", "growth.py", False),
)
TITLES = {
    "synapses": "Synapses in Lava, a step",
    "engines": "The fused process",
    "simulator": "The reference simulator",
    "export": "Export and start",
}
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
#: Where the picture lies, seen from the page.
PICTURE = "images/growth.png"


def main() -> None:
    from lava_casc import console

    arguments = options().parse_args()
    page = arguments.page and arguments.page.read_text(encoding="utf-8")
    if page:
        replaced(page, "")  # before ten minutes of work
    machine, start = describe_machine(), time.perf_counter()
    if arguments.quick:
        machine["NOT A MEASUREMENT"] = "--quick"
    results: dict[str, list[Row]] = {}
    for i, (name, script, needs_lava) in enumerate(chosen := [s for s in SCRIPTS if s[0] in arguments.only], start=1):
        console.announce(i, len(chosen), name)
        if needs_lava and find_spec("lava") is None:
            results[name] = [left_out(name, "Lava is not installed")]
        else:
            results[name] = run(script, extra(name, arguments), arguments)
    spent = time.perf_counter() - start
    rows = [[*line] for name, found in results.items() for line in lines(name, found)]
    console.table("benchmarks", COLUMNS, rows)
    console.out.print(f"{spent:.0f} s; {'; '.join(f'{key}: {value}' for key, value in machine.items())}")
    if arguments.json:
        found = {"machine": machine, "seconds": spent, "results": results}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if page:
        write_page(arguments.page, replaced(page, markdown(results, machine, spent)))
    sys.exit(any(found.get("equal") is False for each in results.values() for found in each))


def options() -> argparse.ArgumentParser:
    names = [name for name, _, _ in SCRIPTS]
    found = parser(__doc__)
    found.add_argument("--page", type=Path, metavar="FILE", help="rewrite the part of this page between the markers")
    found.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    found.add_argument("--casc", type=Path, metavar="FOLDER", help="for simulator.py")
    found.add_argument("--spikingjelly", metavar="FOLDERS", default="", help="for simulator.py")
    found.add_argument(
        "--simulator-python", type=Path, metavar="FILE", help="runs simulator.py; by default this Python"
    )
    return found


def extra(name: str, arguments: argparse.Namespace) -> list[str]:
    """Return the options of one script."""
    found = ["--quick"] if arguments.quick and name in ("engines", "simulator", "growth") else []
    if name == "simulator":
        found += ["--casc", str(arguments.casc.resolve())] if arguments.casc else []
        found += ["--spikingjelly", arguments.spikingjelly] if arguments.spikingjelly else []
    if name == "growth" and arguments.page:
        found += ["--picture", str(arguments.page.resolve().parent / PICTURE)]
    return found


def run(script: str, options: list[str], arguments: argparse.Namespace) -> list[Row]:
    """Return what a script measured; a script that failed is a row that says so."""
    python = sys.executable
    if script == "simulator.py" and arguments.simulator_python:
        python = str(arguments.simulator_python)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        done = subprocess.run(
            [python, str(HERE / script), "--json", str(path), *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_here_first())},
            stdout=subprocess.DEVNULL,
        )
        if not path.is_file():
            return [{**left_out(script, f"ended with exit code {done.returncode}"), "equal": False}]
        return json.loads(path.read_text())


def _here_first() -> list[str]:
    return list(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))


def lines(name: str, found: list[Row]) -> list[list[str]]:
    """Return the rows of one script as rows of the table; growth has a picture instead."""
    return [] if name == "growth" else [cells(alike(each)) for each in found]


def alike(found: dict[str, Any]) -> Row:
    """Return a row of any script under the names of `measuring.row`."""
    if "case" in found:  # lava_synapses.py
        note = f"a synapse that computes nothing: {found['limit']:.0f}" if "limit" in found else ""
        note = note if found["equal"] else f"THE RESULTS DIFFER. {note}"
        bar = f"at least {found['bar']}"
        return {
            **found,
            "name": f"{found['case']}, {found['part']}",
            "theirs_ms": found["stock_ms"],
            "bar": bar,
            "note": note,
        }
    if "peak_gib" in found:  # export.py
        return {**found, "ours_s": found["seconds"], "note": f"{found['peak_gib']:.2f} GiB at most"}
    return found


def describe_machine() -> dict[str, str]:
    """Return what was measured on, and how busy it was at the start."""
    lava = {"lava-nc": _version("lava-nc")}
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "numpy")},
        **lava,
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if "model name" in line] if path.is_file() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def markdown(results: dict[str, list[Row]], machine: dict[str, str], spent: float) -> str:
    """Return the tables, the picture and the machine as Markdown."""
    parts = []
    for name, found in results.items():
        if name == "growth":
            continue
        table = [["what", "ours", "theirs", "ratio", "bar", "met", "note"], ["---"] * 7, *lines(name, found)]
        parts.append(f"### {TITLES[name]}\n\n" + "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in table))
    if "growth" in results:
        parts.append(f"![Milliseconds a sample over batch, depth, levels and steps]({PICTURE})")
    measured = ", ".join(f"{key} {value}" for key, value in machine.items())
    parts.append(f"Measured in one run of {spent:.0f} s: {measured}.")
    return "\n\n".join(parts)


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def replaced(page: str, measured: str) -> str:
    """Return the page with `measured` between its markers, and not one other character changed."""
    from lava_casc.errors import DataError

    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(
            f"the page: it has to hold {BEGIN!r} and then {END!r}, each once. Put them where the table goes."
        )
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{measured}\n\n{END}{rest.split(END)[1]}"


def write_page(path: Path, text: str) -> None:
    from lava_casc.errors import DataError
    from lava_casc.files import replacing

    with replacing(path, DataError) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
