"""How a network runs: its schedule, its engine, and what is said where a sample has no certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lava_casc
from lava_casc import console
from lava_casc.cli.options import Precision, RunEngine
from lava_casc.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lava_casc.network import IntegerNetwork
    from lava_casc.record import SpikeRecord
    from lava_casc.schedule import WakeSleepSchedule

#: What a record calls the engine that certifies nothing.
STAIRCASE = "lava staircase fixed_pt"


def schedule_of(
    network: IntegerNetwork,
    stored: WakeSleepSchedule,
    mode: str | None,
    wake_steps: int | None,
    sleep_steps: int | None,
    max_burst: int | None = None,
) -> WakeSleepSchedule:
    """Return the file's schedule, or what the options make of it: a new wake or mode gets the sleep that it needs."""
    mode = mode or ("burst" if max_burst is not None else stored.mode)
    if wake_steps is not None or max_burst is not None or mode != stored.mode:
        if mode == stored.mode != "unary":
            max_burst = max_burst or stored.max_burst
        return network.schedule(mode, wake_steps, sleep_steps, max_burst)
    return stored if sleep_steps is None else replace(stored, sleep_steps=sleep_steps)


@dataclass(frozen=True)
class Runner:
    """A network on the engine that was asked for."""

    network: IntegerNetwork
    schedule: WakeSleepSchedule
    engine: RunEngine
    precision: Precision = "fixed"
    until_silent: bool = True

    def __post_init__(self) -> None:
        if self.precision == "float" and self.engine != "graph":
            raise DataError(f"--precision float: the {self.engine} engine computes integers. Use --engine graph.")

    @property
    def name(self) -> str:
        """What a bar calls it."""
        return self.engine if self.engine == "staircase" else f"{self.engine} {self.schedule.mode}"

    def run(
        self, images: NDArray, progress: Callable[[float], None] | None = None, record: Iterable[str] = ()
    ) -> SpikeRecord:
        """Return the record of some samples."""
        how: dict[str, Any] = {"record": record, "progress": progress}
        if self.engine == "reference":
            return lava_casc.simulate(self.network, images, self.schedule, **how)
        if self.engine == "staircase":
            return lava_casc.loihi.run(self.network, images, engine=self.engine, **how)
        how |= {"precision": self.precision, "until_silent": self.until_silent}
        return lava_casc.loihi.run(self.network, images, self.schedule, engine=self.engine, **how)


def print_not_certified(result: dict[str, Any]) -> None:
    """Say how many samples have no certificate, and why, where there are any."""
    missing = result.get("simulated_samples", result["samples"]) - result["certified_samples"]
    if missing and result["engine"] == STAIRCASE:
        console.out.print(
            "NOT CERTIFIED: the staircase holds its input, and nothing falls silent. Tests hold its answers equal to "
            "the integer network's, and the table compares the logits of these samples; that is no certificate."
        )
    elif missing and result["engine"] == "lava floating_pt":
        console.out.print(
            "NOT CERTIFIED: silence in floating point proves nothing where a threshold is no power of two. "
            "Use --precision fixed."
        )
    elif missing:
        console.out.print(
            f"NOT CERTIFIED: {missing} samples were cut off before silence; their results prove nothing. "
            "Use more --sleep-steps."
        )
