"""The process that drives wake and sleep."""

from __future__ import annotations

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from lava.magma.core.process.variable import Var

from lava_casc.errors import RangeError


class WakeSleepController(AbstractProcess):
    """Tells every layer, step by step, where in its sample the network is: wake, sleep, and the next sample.

    Its gate carries the local step, 1 .. `period`, then the next sample begins, back to back. From that one
    number the input and every layer know their own wake, in which they inject, and everything knows when to
    reset. After the last sample the gate says idle (see `lava_casc.loihi.gate`).

    Where `silent` is connected (to `Readout.silent`), a sample ends as soon as it is certified, and at the
    latest after `period` steps. The readout sends its flag, which is about the step before, ahead
    of everything that it receives; only so can this loop turn without waiting for itself.

    Parameters
    ----------
    period : int
        Steps of a sample, at most.
    samples : int
        How many samples there are; 0 goes on for ever.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    silent : InPort
        Shape ``(1,)``: not 0 when the readout ended the sample in the step before.
    gate : OutPort
        Shape ``(1,)``.
    step, sample : Var
        The local step and the number of the sample (1, 2, ...) of the last step.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised

    def __init__(
        self, *, period: int, samples: int = 0, name: str | None = None, log_config: LogConfig | None = None
    ) -> None:
        if period < 1 or samples < 0:
            raise RangeError(f"{name or 'controller'}: period ({period}) is below 1, or samples ({samples}) below 0.")
        super().__init__(period=int(period), samples=int(samples), name=name, log_config=log_config)
        self.silent = InPort(shape=(1,))
        self.gate = OutPort(shape=(1,))
        self.step = Var(shape=(1,), init=0)
        self.sample = Var(shape=(1,), init=0)
