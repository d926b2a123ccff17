"""Accuracy after every step, for the network whole and with parts left out, and when each sample fell silent."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lava_casc.dynamics import VARIANTS, batches
from lava_casc.errors import DataError, RangeError
from lava_casc.files import replacing
from lava_casc.network import IntegerNetwork
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule

#: The version of the files that are written here.
VERSION = 1
#: The ranks that are counted as right.
RANKS = {"top1": 1, "top5": 5}
#: Samples between two savings, at least.
CHUNK = 256


def interval(right: int, samples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share, ``right`` of ``samples`` (Wilson, 1927).

    It is sensible for shares of 0 and 1, too, where the normal approximation has no width.
    """
    if not samples:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = right / samples, z * z / samples
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / samples + spread / (4 * samples)) / (1 + spread)
    return 0.0 if right == 0 else centre - half, 1.0 if right == samples else centre + half


@dataclass
class Curves:
    """Sums over the samples so far.

    Attributes
    ----------
    steps : int
        T, the last step.
    planned : int
        The step whose accuracy is the network's: the end of its own schedule.
    wake_steps : int
    identity : str
        A digest of all that the sums depend on.
    samples : int
    reference : dict of str to dict of str to int
        Samples that are right, by ``float`` and ``integer``, and by rank.
    variants : dict of str to dict of str to list of int
        Samples that are right after every step, by variant and rank.
    silent : list of int
        Samples whose certificate is in step 1, 2, ...; of the whole under its own schedule.
    last_spike : list of int
        Of every sample.
    """

    steps: int
    planned: int
    wake_steps: int
    identity: str = ""
    samples: int = 0
    reference: dict[str, dict[str, int]] = field(default_factory=dict)
    variants: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    silent: list[int] = field(default_factory=list)
    last_spike: list[int] = field(default_factory=list)

    @property
    def certified(self) -> int:
        """Samples that were certified."""
        return sum(self.silent)

    def as_dict(self) -> dict[str, Any]:
        """Return the sums, and what follows from them, for a file."""
        summary = {
            "bands": {
                name: {rank: [interval(n, self.samples) for n in row] for rank, row in rows.items()}
                for name, rows in self.variants.items()
            },
            "certified": self.certified,
            "last_spike_median": float(np.median(self.last_spike)) if self.last_spike else 0.0,
            "last_spike_p99": float(np.quantile(self.last_spike, 0.99)) if self.last_spike else 0.0,
            "last_spike_max": max(self.last_spike, default=0),
            "accuracy": {
                name: {rank: [n / max(1, self.samples), *interval(n, self.samples)] for rank, n in found.items()}
                for name, found in {
                    **self.reference,
                    **{
                        v: {r: row[min(self.planned, self.steps) - 1] for r, row in rows.items()}
                        for v, rows in self.variants.items()
                    },
                }.items()
            },
        }
        return {"kind": "lava_casc curves", "version": VERSION, **asdict(self), "summary": summary}


def read_curves(path: Path) -> Curves:
    """Return the curves that a file holds.

    Raises
    ------
    DataError
        It is no such file, or of a newer version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable JSON ({error}). Run lava-casc evaluate again.") from error
    if not isinstance(found, dict) or found.get("kind") != "lava_casc curves":
        raise DataError(f"{path}: holds no curves. Give a file that lava-casc evaluate --curves wrote.")
    if found["version"] > VERSION:
        raise DataError(
            f"{path}: its version ({found['version']}) exceeds what is known ({VERSION}). Update lava_casc."
        )
    names = Curves.__dataclass_fields__
    return Curves(**{name: value for name, value in found.items() if name in names})


def measure(
    model: nn.Module,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    steps: int,
    variants: tuple[str, ...] = tuple(VARIANTS),
    path: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Curves:
    """Return the accuracy after every step up to `steps`, for each variant.

    Every variant has the wake of `schedule` and runs for `steps` steps. When samples fall silent is seen in a run
    under `schedule` itself.

    Parameters
    ----------
    model : torch.nn.Module
        The float network.
    network : IntegerNetwork
        With one flat readout, and without recurrence.
    schedule : WakeSleepSchedule
    images, labels : (N, ...) and (N,) arrays of integers
    steps : int
        At least the wake.
    variants : tuple of str
        Of `VARIANTS`.
    path : Path, optional
        Where to save after every chunk, and to go on from where it was saved.
    progress : callable
        Called with the number of samples done.

    Raises
    ------
    RangeError
        `steps` is smaller than the wake.
    DataError
        The network has more than one readout, or phases; or `path` holds the curves of something else.
    """
    if steps < schedule.wake_steps:
        raise RangeError(f"steps ({steps}) is smaller than the wake ({schedule.wake_steps}). Use at least that many.")
    if network.is_recurrent or len(network.readouts) != 1 or len(network.shapes[network.readouts[0].name]) != 1:
        raise DataError("curves need a classifier with one flat readout. Leave --curves out.")
    curves = Curves(
        steps, schedule.period, schedule.wake_steps, _identity(network, schedule, steps, variants, images, labels)
    )
    if path is not None and path.exists():
        before = read_curves(path)
        if before.identity != curves.identity:
            raise DataError(f"{path}: holds the curves of another network, schedule or data. Choose another file.")
        curves = before
    size = max(CHUNK, batches(network, len(images), None, most=256)[0].stop)
    progress(curves.samples)
    while curves.samples < len(images):
        part = slice(curves.samples, curves.samples + size)
        _add(curves, model, network, schedule, images[part], labels[part], variants)
        if path is not None:
            save(curves, path)
        progress(curves.samples)
    return curves


def save(curves: Curves, path: Path) -> None:
    """Write curves as JSON, whole or not at all."""
    with replacing(path, DataError) as temporary:
        temporary.write_text(json.dumps(curves.as_dict(), indent=1), encoding="utf-8")


def write_csv(curves: Curves, path: Path) -> None:
    """Write one row a step: the accuracy of each variant with its interval, and the share certified by then."""
    names = [(variant, rank) for variant in curves.variants for rank in RANKS]
    header = ["step"] + [f"{v} {r}{end}" for v, r in names for end in ("", " low", " high")] + ["certified"]
    silent = np.cumsum([*curves.silent, *[0] * curves.steps])[: curves.steps]
    with replacing(path, DataError) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for t in range(curves.steps):
            row: list[float] = [t + 1]
            for variant, rank in names:
                right = curves.variants[variant][rank][t]
                row += [right / max(1, curves.samples), *interval(right, curves.samples)]
            writer.writerow([*row, int(silent[t]) / max(1, curves.samples)])


def _add(
    curves: Curves,
    model: nn.Module,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
    variants: tuple[str, ...],
) -> None:
    with torch.no_grad():
        real = torch.cat([model(part * network.input.scale) for part in torch.tensor(images).split(32)]).numpy()
    truth = forward(network, images).logits
    for name, logits in (("float", real), ("integer", truth)):
        total = curves.reference.setdefault(name, dict.fromkeys(RANKS, 0))
        for rank, right in _right(logits[:, None], labels).items():
            total[rank] += right[0]
    run = WakeSleepSchedule(
        schedule.wake_steps, curves.steps - schedule.wake_steps, schedule.max_burst, schedule.released
    )
    for name in variants:
        by_step = simulate(network, images, run, record=("logits",), variant=VARIANTS[name]).logits_by_step
        assert by_step is not None
        sums = curves.variants.setdefault(name, {rank: [0] * curves.steps for rank in RANKS})
        for rank, found in _right(by_step, labels).items():
            sums[rank] = [a + b for a, b in zip(sums[rank], found, strict=True)]
    whole = simulate(network, images, schedule, record=())
    if (whole.logits[whole.certified] != truth[whole.certified]).any():
        raise RuntimeError("a certified sample differs from the integer network")
    curves.silent = curves.silent or [0] * schedule.period
    for last in whole.last_spike[whole.certified]:
        curves.silent[max(int(last) + 1, network.last_event(schedule)) - 1] += 1
    curves.last_spike += [int(last) for last in whole.last_spike]
    curves.samples += len(images)


def _right(logits: NDArray, labels: NDArray[np.int64]) -> dict[str, list[int]]:
    """Return how many of (N, T, K) logits have the label among the best, after every step, by rank.

    Where logits tie, the first class wins, as `argmax` has it.
    """
    own = np.take_along_axis(logits, labels[:, None, None], 2)
    earlier = np.arange(logits.shape[2]) < labels[:, None, None]
    ahead = ((logits > own) | ((logits == own) & earlier)).sum(2)
    return {rank: [int(n) for n in (ahead < k).sum(0)] for rank, k in RANKS.items()}


def _identity(
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    steps: int,
    variants: tuple[str, ...],
    images: NDArray,
    labels: NDArray,
) -> str:
    found = hashlib.sha256(repr((asdict(schedule), steps, variants, images.shape, VERSION)).encode())
    for data in (images, labels):
        found.update(np.ascontiguousarray(data).tobytes())
    for layer in network:
        found.update(repr((layer.name, getattr(layer, "levels", 0))).encode())
        for array in (
            *(s.weight for s in getattr(layer, "synapses", ())),
            getattr(layer, "bias", None),
            getattr(layer, "threshold", None),
            getattr(layer, "initial", None),
        ):
            if array is not None:
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
