"""What the controller does in a step."""

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

from lava_casc.loihi.controller.process import WakeSleepController
from lava_casc.loihi.gate import IDLE


@implements(proc=WakeSleepController, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class PyWakeSleepController(PyLoihiProcessModel):
    """Two counters: the step of the sample, and the sample."""

    silent: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    gate: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    step: NDArray = LavaPyType(np.ndarray, np.int32)
    sample: NDArray = LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period: int = proc_params["period"]
        self.samples: int = proc_params["samples"]

    def run_spk(self) -> None:
        """Count on, or begin the next sample, or rest."""
        certified = self.silent.recv()[0] != 0
        if self.step[0] != IDLE:
            self.step += 1
            if self.sample[0] == 0 or certified or self.step[0] > self.period:
                self.step[:] = 1
                self.sample += 1
                if 0 < self.samples < self.sample[0]:
                    self.step[:] = IDLE
        self.gate.send(self.step)
