"""The process that integrates the logits and certifies silence."""

from __future__ import annotations

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from lava.magma.core.process.variable import Var
from numpy.typing import NDArray

from lava_casc.integer import split_evenly
from lava_casc.loihi.messages import TRAILER
from lava_casc.loihi.registers import check_width


class Readout(AbstractProcess):
    """Integrates the logits, watches the activity of every layer, and reports each sample once.

    A sample is certified if and only if in some local step ``t >= last_event`` no layer emitted a spike.
    Before that step silence proves nothing: something may still be injected or released
    (`IntegerNetwork.last_event`). From a certified step on, nothing can change any more, so that the logits
    are the integer network's.

    Every sample's result leaves through an external pipe of `result`: the logits, then `TRAILER`
    numbers (`lava_casc.loihi.messages`).
    With `until_silent` that happens in the step that certifies, otherwise at the end of the period.

    Parameters
    ----------
    shape : tuple of int
        ``(W, H, C)`` or ``(N,)``.
    bias : array of integers
        What arrives in total in the readout's wake; it broadcasts to `shape`.
    wake_steps, period : int
    bias_start : int
        The local step in which its wake begins.
    last_event : int
        The local step from which on a silent step certifies.
    until_silent : bool
        Whether a sample ends when it is certified.
    state_bits : int
    strict : bool
        As in `CIF`.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    a_in, activity, gate : InPort
        The current; the sum of the activities of all layers, shape ``(1,)``; the gate code, shape ``(1,)``.
    silent, result : OutPort
        Shape ``(1,)``: with `until_silent`, whether the sample ended in the step before (sent first in a
        step); the result.
    u, bias, u0 : Var
        The logits; the bias of one wake step; what `u` is reset to.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        bias: NDArray[np.int64],
        wake_steps: int,
        period: int,
        bias_start: int,
        last_event: int,
        until_silent: bool = False,
        state_bits: int = 24,
        strict: bool = True,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        check_width(name or "readout", state_bits)
        per_step, remainder = split_evenly(np.atleast_1d(bias), wake_steps)
        super().__init__(
            shape=shape,
            wake_steps=int(wake_steps),
            period=int(period),
            bias_start=int(bias_start),
            last_event=int(last_event),
            until_silent=bool(until_silent),
            state_bits=int(state_bits),
            strict=bool(strict),
            path=name or "readout",
            name=name,
            log_config=log_config,
        )
        self.a_in = InPort(shape=shape)
        self.activity = InPort(shape=(1,))
        self.gate = InPort(shape=(1,))
        self.silent = OutPort(shape=(1,))
        self.result = OutPort(shape=(int(np.prod(shape)) + TRAILER,))
        self.u = Var(shape=shape, init=remainder)
        self.bias = Var(shape=per_step.shape, init=per_step)
        self.u0 = Var(shape=remainder.shape, init=remainder)
