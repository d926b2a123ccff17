"""A batch divided among threads."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.dynamics.layers import Plan
from lava_casc.dynamics.stepper import Stepper
from lava_casc.network import IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule

#: Neurons, of all samples together, below which a thread of its own costs more than it gains.
SHARE = 1 << 17


class Crew:
    """Steppers that share the samples of a batch, each in a thread of its own; for a process of its own.

    Torch's own threads do not survive the fork that made the process, and wait for each other at every operation; here
    each thread has its samples, and torch computes in it alone.

    Parameters
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    wanted : collection of {"counts", "messages", "spikes"}
    threads : int, optional
        By default as many as the process may use processors.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        schedule: WakeSleepSchedule,
        wanted: Collection[str] = (),
        threads: int | None = None,
    ) -> None:
        torch.set_num_threads(1)  # before torch does anything
        self.plan, self.wanted = Plan(network, schedule), frozenset(wanted)
        self.threads = threads or len(os.sched_getaffinity(0))
        self.pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))
        self.steppers: list[Stepper] = []

    def begin(self, samples: NDArray[np.int64], until_silent: bool = True) -> None:
        """Begin with a batch.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
            As `IntegerNetwork.encode` returns them.
        until_silent : bool
            Whether the batch is over as soon as all are certified.
        """
        shares = max(1, min(self.threads, len(samples), len(samples) * self.plan.network.neurons // SHARE))
        self.steppers = [
            Stepper(self.plan, part, until_silent=until_silent, wanted=self.wanted)
            for part in np.array_split(samples, shares)
        ]

    @property
    def over(self) -> bool:
        """Whether there is no batch, or all of its samples are done."""
        return all(stepper.over for stepper in self.steppers)

    def step(self) -> bool:
        """Advance all samples by one step and return whether the batch is over.

        Returns
        -------
        bool
        """
        going = [stepper for stepper in self.steppers if not stepper.over]
        if len(going) > 1:
            list(self.pool.map(Stepper.step, going))
        else:
            for stepper in going:
                stepper.step()
        return self.over

    def result(self) -> dict[tuple[str, str], NDArray]:
        """Return ``logits``, ``certified`` and ``last_spike`` (N, P, ...), and by kind and layer what is wanted.

        Returns
        -------
        dict of (str, str) to ndarray
        """
        found: dict[tuple[str, str], list[NDArray]] = {}
        for stepper in self.steppers:
            for kind in ("logits", "certified", "last_spike"):
                found.setdefault((kind, ""), []).append(np.stack(getattr(stepper, kind), 1))
            for kind in self.wanted:
                kept = stepper.counts if kind == "counts" else [trace.kept[kind] for trace in stepper.traces]
                for name in kept[0]:
                    found.setdefault((kind, name), []).append(np.stack([phase[name] for phase in kept], 1))
        return {key: np.concatenate(parts) for key, parts in found.items()}
