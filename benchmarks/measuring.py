"""What the benchmarks share: a clock that is fair, the network and its images, the dense floor, and rows of results."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

Row = dict[str, Any]
Work = Callable[[], object]
MS = 1e3


def cores() -> int:
    """Return how many threads torch may have: OMP_NUM_THREADS, or the processors that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("OMP_NUM_THREADS", available))


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(contestants: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Return the median seconds of each; they take turns, so that whatever else the machine does hits them all."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            found[name].append(seconds(work))
    return {name: statistics.median(times) for name, times in found.items()}


def fastest(contestants: Mapping[str, Work]) -> str:
    """Return the name of the fastest in the second of two turns."""
    medians(contestants, 1)
    found = medians(contestants, 1)
    return min(found, key=found.__getitem__)


def on_threads(threads: int, work: Work) -> Work:
    """Return `work` on so many threads of torch."""

    def run() -> object:
        torch.set_num_threads(threads)
        return work()

    return run


def row(
    name: str,
    ours: float,
    theirs: float | None = None,
    *,
    unit: str = "ms",
    least: float | None = None,
    most: float | None = None,
    part: bool = False,
    equal: bool = True,
    note: str = "",
) -> Row:
    """Return a result.

    The ratio says how many times faster ours is, and `least` is its bar; or, with `most` or `part`, what part of the
    time of theirs ours takes. A bar is met only if the results were `equal`.
    """
    ratio, met = None, None
    if theirs is not None:
        ratio = float(ours / theirs if part or most is not None else theirs / ours)
        if least is not None or most is not None:
            met = bool(equal and (ratio >= least if least is not None else ratio <= most))
    bar = f"at least {least:g}" if least is not None else f"at most {most:g}" if most is not None else None
    note = note if equal else f"THE RESULTS DIFFER. {note}".strip()
    times = {f"ours_{unit}": _plain(ours), f"theirs_{unit}": _plain(theirs)}
    return {"name": name, **times, "ratio": ratio, "bar": bar, "met": met, "equal": bool(equal), "note": note}


def _plain(number: float | None) -> float | None:
    return None if number is None else float(number)  # JSON knows no numbers of numpy


def left_out(name: str, why: str, bar: str | None = None) -> Row:
    """Return the row of something that was not run."""
    keys = ("ratio", "met", "equal")
    return {"name": name, **dict.fromkeys(keys), "bar": bar, "note": f"not run: {why}"}


def vgg16(quick: bool = False, levels: int = 8) -> nn.Module:
    """Return the VGG16 of 32x32 images with CASC's activation and random weights, and batch norms that fit its images.

    Without statistics that fit, such a network is silent from the middle on, and measures nothing.
    """
    from lava_casc.training import build

    model = build("vgg16", levels=levels, rounding="floor", learnable=False, width=1 / 16 if quick else 1)
    return calibrated(model, images(8 if quick else 64, seed=0))


def calibrated(model: nn.Module, samples: np.ndarray) -> nn.Module:
    """Give the batch norms the statistics of `samples`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # this batch alone
    with torch.no_grad():
        model.train()(real(samples))
    return model.eval()


def images(n: int, seed: int = 1, channels: int = 3, size: int = 32) -> np.ndarray:
    """Return images of noise with a rectangle of one colour each: (N, C, H, W), 0 to 255."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (n, channels, size, size))
    for image in found:
        top, left = rng.integers(0, size // 2, 2)
        height, width = rng.integers(size // 4, size // 2, 2)
        image[:, top : top + height, left : left + width] = rng.integers(0, 256, (channels, 1, 1))
    return found


def real(samples: np.ndarray) -> torch.Tensor:
    """Return integer images as the models take them."""
    return torch.tensor(samples / 255, dtype=torch.float32)


class Floor:
    """The convolutions of a model alone, dense, in float32: the least that a simulator without any trick computes.

    The faster of the two orders of memory and the best number of threads are found first.

    Attributes
    ----------
    label : str
        What was fastest.
    """

    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        kept: list[tuple[nn.Conv2d, torch.Tensor]] = []
        hooks = [m.register_forward_pre_hook(lambda m, given: kept.append((m, given[0].clone()))) for m in convolutions]
        with torch.inference_mode():
            model(x)
            for hook in hooks:
                hook.remove()
            self.operands = {
                "NCHW": [(x, m.weight, m) for m, x in kept],
                "channels last": [(_last(x), _last(m.weight), m) for m, x in kept],
            }
        configurations = {
            f"{order}, {threads} thread{'s' if threads > 1 else ''}": on_threads(
                threads, lambda order=order: self._convolve(order)
            )
            for order in self.operands
            for threads in range(1, cores() + 1)
        }
        self.label = fastest(configurations)
        self.run = configurations[self.label]
        kept_order = self.label.split(",")[0]
        self.operands = {kept_order: self.operands[kept_order]}

    @torch.inference_mode()
    def _convolve(self, order: str) -> None:
        for x, weight, conv in self.operands[order]:
            nn.functional.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def parser(description: str | None) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    found.add_argument("--quick", action="store_true", help="tiny networks, once: shows that it runs, measures nothing")
    return found


def show(title: str, rows: list[Row], path: Path | None) -> None:
    """Print the rows as a table, and write them as JSON."""
    from lava_casc import console

    console.table(title, COLUMNS, [cells(found) for found in rows])
    if path is not None:
        path.write_text(json.dumps(rows, indent=2) + "\n")


#: What a table shows of a row.
COLUMNS = ["what", "ours", "theirs", "ratio", "bar", "", "note"]


def cells(found: Row) -> list[str]:
    """Return a row as text."""
    verdict = {True: "met", False: "NOT MET", None: ""}[found.get("met")]
    ratio = "" if found.get("ratio") is None else f"{found['ratio']:.3g}"
    bar = "" if found.get("bar") is None else str(found["bar"])
    return [found["name"], _time(found, "ours"), _time(found, "theirs"), ratio, bar, verdict, found.get("note", "")]


def _time(found: Row, whose: str) -> str:
    for unit in ("ms", "s"):
        value = found.get(f"{whose}_{unit}")
        if value is not None:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
    return ""
