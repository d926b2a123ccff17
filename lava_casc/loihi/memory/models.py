"""What a memory does in a step. Counts are integers in either precision, so that one model serves both."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from lava_casc.integer import spread
from lava_casc.loihi.gate import IDLE, local_step
from lava_casc.loihi.memory.process import Memory


@implements(proc=Memory, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class PyMemory(PyLoihiProcessModel):
    """Two registers a neuron: what was, and what is becoming."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    held: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    counted: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.phases: int = proc_params["phases"]
        self.wake_steps: int = proc_params["wake_steps"]
        self.period: int = proc_params["period"]
        self.turns = 0
        self.silence = np.zeros(proc_params["shape"], np.int32)

    def run_spk(self) -> None:
        """Emit this step's share, then listen."""
        step = local_step(self.gate.recv(), self.time_step, self.period)
        if step == 1:
            self.turn()
        share = 1 <= step <= self.wake_steps and self.held.any()
        self.s_out.send(spread(self.held, self.wake_steps, step).astype(np.int32) if share else self.silence)
        arrived = self.s_in.recv()
        if step != IDLE:
            self.counted += arrived

    def turn(self) -> None:
        """Begin a phase: what was counted is what is remembered, unless a new sequence begins."""
        self.held[:] = self.counted if self.turns % self.phases else 0
        self.counted[:] = 0
        self.turns += 1  # `phase` is taken: Lava counts its own
