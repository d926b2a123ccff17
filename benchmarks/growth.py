"""How the cost of a sample grows with the batch, the depth, the levels and the steps; and a picture of it.

    python benchmarks/growth.py [--picture FILE.png] [--json FILE]

A network of 3x3 convolutions, 32 channels at 16x16 (8 layers, L = 8, 16 samples, unary, to silence, where the panel
does not say otherwise): on the reference simulator, and within Lava in the fused process. Milliseconds a sample. The
steps are those of the schedule, 8 of them awake: what comes after silence is what differs.
"""

from __future__ import annotations

import json
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import lava_batches
from measuring import MS, Row, calibrated, cores, fastest, images, medians, on_threads, parser
from torch import nn

#: What grows, over which values, and how its panel is called.
PANELS: dict[str, tuple[str, tuple[int, ...]]] = {
    "batch": ("samples in a batch", (1, 2, 4, 8, 16, 32, 64)),
    "depth": ("layers of neurons", (2, 4, 8, 16)),
    "levels": ("levels L", (2, 4, 8, 16)),
    "steps": ("steps T of the schedule", (16, 32, 64, 128)),
}
USUAL = {"batch": 16, "depth": 8, "levels": 8, "steps": 0}
CHANNELS, SIZE = 32, 16
ENGINES = {"reference_ms": "reference simulator", "fused_ms": "fused process in Lava"}


def main() -> None:
    from lava_casc import console

    options = parser(__doc__)
    options.add_argument("--picture", type=Path, metavar="FILE", help="draw it there, as PNG")
    arguments = options.parse_args()
    rows = measure(arguments.quick)
    console.table(
        "milliseconds a sample",
        ["what grows", "", *ENGINES.values(), "note"],
        [
            [PANELS[r["panel"]][0], r["x"], *("" if r[key] is None else r[key] for key in ENGINES), r["note"]]
            for r in rows
        ],
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.picture is not None:
        draw(rows, arguments.picture)


def measure(quick: bool = False, rounds: int = 3) -> list[Row]:
    """Return a row for every point: ``panel``, ``x``, and the ``reference_ms`` and ``fused_ms`` of a sample.

    ``fused_ms`` is None where Lava is not installed.
    """
    rounds = 1 if quick else rounds
    threads = _threads(quick)
    points = [(panel, x) for panel, (_, xs) in PANELS.items() for x in (xs[:1] if quick else xs)]
    return [_point(panel, x, {**USUAL, panel: x}, quick, rounds, threads) for panel, x in points]


def _point(panel: str, x: int, sizes: dict[str, int], quick: bool, rounds: int, threads: int) -> Row:
    import lava_casc
    from lava_casc.schedule import WakeSleepSchedule

    network, samples = _network(sizes, quick)
    truth, schedule = lava_casc.forward(network, samples).logits, network.schedule()
    if sizes["steps"]:
        schedule = WakeSleepSchedule(schedule.wake_steps, sizes["steps"] - schedule.wake_steps)
    certified = bool(lava_casc.simulate(network, samples, schedule, record=()).all_certified)
    found: list[np.ndarray] = []

    def simulated() -> None:
        found.append(lava_casc.simulate(network, samples, schedule, record=()).logits)

    took = medians({"simulated": on_threads(threads, simulated)}, rounds)["simulated"]
    fused = None
    if find_spec("lava") is not None and not (quick and panel != "steps"):
        # A fixed period, where that is what grows.
        batches, logits = lava_batches(network, samples, schedule, rounds, until_silent=panel != "steps")
        found.append(logits)
        fused = statistics.median(sum(times) for times in batches) * MS / len(samples)
    # A schedule that is too short for silence gives every engine the same logits, but not the network's.
    expected = truth if certified else found[0]
    equal = all(np.array_equal(logits, expected) for logits in found)
    return {
        "name": f"{PANELS[panel][0]}: {x}",
        "panel": panel,
        "x": x,
        "reference_ms": took * MS / len(samples),
        "fused_ms": fused,
        "equal": equal,
        "note": ("" if certified else "ends before silence") if equal else "THE RESULTS DIFFER",
    }


def _threads(quick: bool) -> int:
    """Return with how many threads of torch the reference simulator is fastest here."""
    import lava_casc

    network, samples = _network(USUAL, quick)
    return int(
        fastest(
            {
                str(k): on_threads(k, lambda: lava_casc.simulate(network, samples, record=()))
                for k in range(1, cores() + 1)
            }
        )
    )


def _network(sizes: dict[str, int], quick: bool) -> tuple[Any, np.ndarray]:
    """Return an integer network and its samples."""
    import lava_casc
    from lava_casc.frontend import CQReLU

    size, channels = (8, 4) if quick else (SIZE, CHANNELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for i in range(sizes["depth"]):
            layers += [nn.Conv2d(channels if i else 3, channels, 3, padding=1), nn.BatchNorm2d(channels)]
            layers += [CQReLU(sizes["levels"])]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
        model = calibrated(nn.Sequential(*layers), images(64, seed=0, size=size))
    return lava_casc.convert(model, (3, size, size)), images(sizes["batch"], size=size)


def draw(rows: list[Row], path: Path) -> None:
    """Draw a panel for each thing that grows, milliseconds a sample over it, both logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from lava_casc.report import save_figure
    from lava_casc.report.raster import FAINT, INK, NEGATIVE, POSITIVE, RULE, SMALL, TINY

    figure = Figure(figsize=(6.4, 4.0), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    shared: Any = None
    for place, (panel, (name, _)) in zip(figure.subplots(2, 2, sharey=True).flat, PANELS.items(), strict=True):
        points = [found for found in rows if found["panel"] == panel]
        at = [found["x"] for found in points]
        for (key, label), colour, marker in zip(ENGINES.items(), (POSITIVE, NEGATIVE), "os", strict=True):
            if all(found[key] is not None for found in points):
                times = [found[key] for found in points]
                place.plot(at, times, marker=marker, color=colour, label=label, linewidth=1.4, markersize=4)
        place.set_xscale("log", base=2)
        place.set_yscale("log")
        place.set_xticks(at, [str(x) for x in at])
        place.xaxis.set_minor_locator(NullLocator())
        place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_minor_locator(NullLocator())
        place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        place.set_title(name, fontsize=SMALL, color=INK, loc="left")
        place.tick_params(labelsize=TINY, labelcolor=INK, color=RULE)
        place.grid(axis="y", color=RULE, linewidth=0.4)
        place.spines[["top", "right"]].set_visible(False)
        place.spines[:].set_color(RULE)
        shared = shared or place
    figure.supylabel("ms a sample", fontsize=SMALL, color=FAINT)
    figure.legend(
        *shared.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=SMALL
    )
    save_figure(figure, path)


if __name__ == "__main__":
    main()
