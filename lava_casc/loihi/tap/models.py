"""What a tap does in a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lava_casc.loihi.gate import IDLE, local_step
from lava_casc.loihi.tap.process import Tap


@implements(proc=Tap, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class PyTap(PyLoihiProcessModel):
    """A record that is filled step by step and sent when its sample is over."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    result: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period: int = proc_params["period"]
        size = int(np.prod(proc_params["shape"]))
        rows = self.period if proc_params["spikes"] else 0
        self.record = np.zeros(self.period + size + rows * size, np.int32)
        self.messages = self.record[: self.period]
        self.counts = self.record[self.period : self.period + size]
        self.spikes = self.record[self.period + size :].reshape(rows, size)
        self.recording = False

    def run_spk(self) -> None:
        """Send the record of the sample before if it is over, then note this step."""
        step = local_step(self.gate.recv(), self.time_step, self.period)
        arrived = self.s_in.recv().ravel()
        if step in (1, IDLE):
            if self.recording:
                self.result.send(self.record)
            self.record[:] = 0
            self.recording = step == 1
        if step == IDLE:
            return
        self.messages[step - 1] = np.count_nonzero(arrived)
        self.counts += arrived
        if len(self.spikes):
            self.spikes[step - 1] = arrived
