"""Parallel neurons at several numbers of steps: a network of its own for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.frontend.checkpoint import Checkpoint
from lava_casc.network import IntegerNetwork
from lava_casc.pipeline import Options, convert_checkpoint, with_levels
from lava_casc.reference import parallel
from lava_casc.reference.parallel import ParallelRecord


@dataclass(frozen=True, eq=False)
class ParallelTimes:
    """Networks of parallel neurons for T = 1, 2, 4, 8, ... steps: the `lava_casc.study.Method` of arXiv 2412.13610.

    What takes T steps is the network of T levels with rounding. Each layer waits for all T steps of its input; its
    point is nevertheless T steps after the first input could have reached the outputs, as for everybody else.

    Attributes
    ----------
    checkpoint : Checkpoint
        Its thresholds stay.
    network : IntegerNetwork
        Of any number of levels; says how far away the outputs are.
    layers : tuple of str
        Those whose messages are counted by step: none, since all spikes of a layer are one event.
    """

    checkpoint: Checkpoint
    network: IntegerNetwork
    layers: tuple[str, ...] = ()

    @property
    def parts(self) -> list[Any]:
        """All that its answers depend on, beside the checkpoint's weights."""
        return ["parallel", self.distance]

    @property
    def distance(self) -> int:
        """The steps that the input takes to the farthest output."""
        return max(self.network.distances[readout.name][0] for readout in self.network.readouts)

    def points(self, steps: int) -> list[int]:
        """Return the steps after which the outputs have heard 1, 2, 4, 8, ... of them.

        Parameters
        ----------
        steps : int

        Returns
        -------
        list of int
        """
        heard = steps - self.distance
        return [self.distance + (1 << k) for k in range(max(heard, 0).bit_length())]

    def run(self, samples: NDArray[np.int64], steps: int) -> tuple[list[list[NDArray]], None]:
        """Return the real outputs at every point, and no record.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
        steps : int

        Returns
        -------
        outputs : list of list of (N, ...) ndarray
            By point, and by output of the model.
        record : None
        """
        found = []
        for point in self.points(steps):
            network = self.network_of(point - self.distance)
            found.append(list(network.outputs(self.spikes(samples, point - self.distance).logits).values()))
        return found, None

    def spikes(self, samples: NDArray[np.int64], times: int) -> ParallelRecord:
        """Return all spikes of a network of so many steps.

        Parameters
        ----------
        samples : (N, ...) ndarray of int64
        times : int

        Returns
        -------
        ParallelRecord
        """
        return parallel(self.network_of(times), samples)

    def network_of(self, times: int) -> IntegerNetwork:
        """Return the integer network of so many levels, with rounding; made once.

        Parameters
        ----------
        times : int

        Returns
        -------
        IntegerNetwork
        """
        if times not in self._networks:
            graph = with_levels(self.checkpoint.graph, times)
            rounded = tuple(
                replace(op, arguments={**op.arguments, "rounding": "round"}) if op.kind == "CQReLU" else op
                for op in graph.operations
            )
            checkpoint = replace(self.checkpoint, graph=replace(graph, operations=rounded))
            self._networks[times] = convert_checkpoint(checkpoint, Options(verify=0)).network
        return self._networks[times]

    @cached_property
    def _networks(self) -> dict[int, IntegerNetwork]:
        return {}
