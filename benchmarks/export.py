"""How long the command line takes to begin, and a VGG16 for CIFAR from checkpoint to file: seconds and memory.

    python benchmarks/export.py [--json FILE]

Every command runs in a process of its own, of one thread. It is run once to warm up, then timed: the best of a few
runs counts, since whatever else a machine does only adds to it. Python's bytecode is kept between the runs, as pip and
Python themselves keep it; in a temporary folder where PYTHONDONTWRITEBYTECODE forbids to keep it beside the sources.
Next to the bars stand, from the same run, what anything that uses torch or netx takes to begin, and the plain work on
the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

#: The checkpoint: an untrained VGG16 whose batch norms have seen a few images, or else it were silent in the middle.
MODEL = """
import sys, numpy as np, torch
from lava_casc.frontend import InputSpec, save_model
from lava_casc.training import build
model, rng = build("vgg16", levels=8).train(), np.random.default_rng(0)
with torch.no_grad():
    for _ in range(4):
        model(torch.tensor(rng.integers(0, 256, (32, 3, 32, 32)) / 255, dtype=torch.float32))
save_model(sys.argv[1], model, InputSpec((3, 32, 32)))
"""
#: A small network for `lava-casc run`.
SMALL = """
import sys, numpy as np, torch, lava_casc
model = torch.nn.Sequential(torch.nn.Linear(4, 8), lava_casc.CQReLU(4), torch.nn.Linear(8, 2))
lava_casc.write(sys.argv[1], lava_casc.convert(model, (4,), input_range=(0, 15), input_scale=1 / 15))
np.save(sys.argv[2], np.ones((1, 4), np.int64))
"""
#: The least that has to be done with the weights: reading them, one forward pass, one copy in double precision.
PLAIN = """
import sys, torch
from lava_casc.frontend import load_model
model = load_model(sys.argv[1])
with torch.no_grad():
    model(torch.zeros(1, 3, 32, 32))
copies = [parameter.detach().double().numpy() for parameter in model.parameters()]
"""
COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'lava-casc'; from lava_casc.cli import main; main()"]
GIB = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts memory in bytes, Linux in KiB


def main() -> None:
    from lava_casc import console

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    found = measure()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    rows = []
    for row in found:
        met = "" if row["met"] is None else "met" if row["met"] else "NOT MET"
        rows.append([row["name"], row["seconds"], row["cpu_seconds"], row["peak_gib"], row["bar"] or "", met])
    console.table("export and start", ["what", "seconds", "CPU seconds", "peak GiB", "bar", ""], rows)
    by_name = {row["name"]: row for row in found}
    export, torch, plain = (by_name[name] for name in ("export VGG16", "import torch", "load, forward, copy VGG16"))
    console.out.print(
        f"CPU time of the export: {export['cpu_seconds'] / torch['cpu_seconds']:.1f} times `import torch`, "
        f"{export['cpu_seconds'] / plain['cpu_seconds']:.1f} times loading, one forward pass and one copy"
    )


def measure() -> list[dict[str, Any]]:
    """Return one row a measurement: its name, seconds, CPU seconds, peak memory, and the bar where there is one."""
    python = [sys.executable, "-c"]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        environment = _environment(here / "bytecode")
        run = _Runs(environment, here)
        run.once([*python, MODEL, "model.pt"])
        rows = [
            run.row("python", [*python, "pass"]),
            run.row("import torch", [*python, "import torch"]),
            run.row("import lava_casc", [*python, "import lava_casc"], seconds=1.5),
            run.row("lava-casc --help", [*COMMAND, "--help"], seconds=0.5),
            run.row("lava-casc run --help", [*COMMAND, "run", "--help"], seconds=0.5),
            run.row("load, forward, copy VGG16", [*python, PLAIN, "model.pt"]),
            run.row("export VGG16", [*COMMAND, "export", "model.pt", "-o", "model.net"], seconds=5, gib=2),
        ]
        rows.append(run.row("export VGG16, --verify 0", [*COMMAND, "export", "model.pt", "--verify", "0"], runs=1))
        if find_spec("lava") is not None:
            run.once([*python, SMALL, "small.net", "images.npy"])
            small = [*COMMAND, "run", "small.net", "--images", "images.npy"]
            rows += [run.row("lava-casc run, no netx loaded", small, runs=1)]
            # Reports every module, also in the processes that Lava starts.
            modules = run.once([sys.executable, "-X", "importtime", *small[1:]])
            rows[-1] |= {"bar": "no lava.lib", "met": "lava.magma" in modules and "lava.lib" not in modules}
            rows.append(run.row("import netx", [*python, "import lava.lib.dl.netx.hdf5"], runs=1))
    return rows


class _Runs:
    """Runs commands in one folder, each in a process of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.environment, self.folder = environment, folder

    def once(self, command: list[str]) -> str:
        """Run a command that must succeed, and return what it says on stderr."""
        found = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"{command}: {found.stderr[-2000:]}")
        return found.stderr

    def row(
        self, name: str, command: list[str], seconds: float | None = None, gib: float | None = None, runs: int = 3
    ) -> dict[str, Any]:
        """Return the least wall and CPU seconds of some runs, the greatest memory, and whether the bars are met."""
        self.once(command)
        walls, processors, peaks = np.transpose([self._timed(command) for _ in range(runs)])
        row = {"name": name, "seconds": walls.min(), "cpu_seconds": processors.min(), "peak_gib": peaks.max()}
        limits = {"seconds": (seconds, "s"), "peak_gib": (gib, "GiB")}
        bars = [(float(row[key]) < bar, f"{bar:g} {unit}") for key, (bar, unit) in limits.items() if bar is not None]
        met = all(kept for kept, _ in bars) if bars else None
        return {
            **{key: value if key == "name" else round(float(value), 3) for key, value in row.items()},
            "bar": ", ".join(said for _, said in bars) or None,
            "met": met,
        }

    def _timed(self, command: list[str]) -> tuple[float, float, float]:
        start = time.perf_counter()
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, **nowhere)
        _, status, used = os.wait4(process.pid, 0)  # of this child alone, unlike RUSAGE_CHILDREN
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} failed")
        return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / GIB


def _environment(bytecode: Path) -> dict[str, str]:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = str(bytecode)
    return environment


if __name__ == "__main__":
    main()
