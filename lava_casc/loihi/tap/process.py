"""The process that records what a layer emits."""

from __future__ import annotations

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig


class Tap(AbstractProcess):
    """Records a layer's spikes and sends the record of each sample through an external pipe when it is over.

    That it is over shows in the step after, when the gate begins the next sample or says idle: a run with
    taps needs one step more. A record is flat int32: the messages of each step ``(period,)``, the sum of all
    spikes of the sample (the counts), and with `spikes` every spike of every step.

    Parameters
    ----------
    shape : tuple of int
        The layer's shape.
    period : int
        Steps of a sample, at most.
    spikes : bool
        Whether every spike is kept; otherwise messages and counts alone.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    s_in, gate : InPort
    result : OutPort
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        period: int,
        spikes: bool = True,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        super().__init__(shape=shape, period=int(period), spikes=bool(spikes), name=name, log_config=log_config)
        self.s_in = InPort(shape=shape)
        self.gate = InPort(shape=(1,))
        size = int(np.prod(shape))
        self.result = OutPort(shape=(period + size + (period * size if spikes else 0),))
