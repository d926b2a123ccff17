"""The process that carries a layer's counts from one phase of a sequence to the next."""

from __future__ import annotations

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from lava.magma.core.process.variable import Var

from lava_casc.errors import RangeError


class Memory(AbstractProcess):
    """Adds up what a layer emits, and spreads the sum over the wake of the next phase.

    With ``c`` the sum of all spikes of the phase before (0 in the first phase of a sequence), step t emits
    ``c * t // T - c * (t - 1) // T``, T the wake steps: as `SampleSource` does with an image. It sends before it
    receives, so that the loop through the layer and its synapses can turn.

    Parameters
    ----------
    shape : tuple of int
        That of the layer, ``(W, H, C)`` or ``(N,)``.
    phases : int
        Phases of a sequence, at least 1. The gate counts each of them as a sample.
    wake_steps : int
    period : int
        Steps of a phase, used where no controller is connected.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    s_in, gate : InPort
        The layer's spikes; the gate code, shape ``(1,)``.
    s_out : OutPort
        The shares of what is remembered, graded spikes.
    held, counted : Var
        What was counted in the phase before, and in the present one so far.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        phases: int,
        wake_steps: int,
        period: int,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        if phases < 1:
            raise RangeError(f"{name or 'memory'}: phases ({phases}) is below 1. Use at least 1.")
        super().__init__(
            shape=shape,
            phases=int(phases),
            wake_steps=int(wake_steps),
            period=int(period),
            name=name,
            log_config=log_config,
        )
        self.s_in = InPort(shape=shape)
        self.gate = InPort(shape=(1,))
        self.s_out = OutPort(shape=shape)
        self.held = Var(shape=shape, init=0)
        self.counted = Var(shape=shape, init=0)
