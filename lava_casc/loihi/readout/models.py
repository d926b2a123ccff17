"""What the readout does in a step, in fixed and in floating point."""

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

from lava_casc.loihi.gate import IDLE, local_step
from lava_casc.loihi.readout.process import Readout
from lava_casc.loihi.registers import Register, Unbounded


class AbstractPyReadout(PyLoihiProcessModel):
    """The step that both precisions share."""

    register_type: type[Register | Unbounded]
    u: NDArray

    activity: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    silent: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period: int = proc_params["period"]
        self.last_event: int = proc_params["last_event"]
        self.until_silent: bool = proc_params["until_silent"]
        self.wake = range(proc_params["bias_start"], proc_params["bias_start"] + proc_params["wake_steps"])
        self.certified, self.last_spike = False, 0
        self.flag = np.zeros(1, np.int32)
        self.register = self.register_type(proc_params["path"], proc_params["state_bits"], proc_params["strict"])

    def run_spk(self) -> None:
        """Say what the step before proved, integrate, and report a sample that is over."""
        # First of all, before anything is received: the controller waits for it, and all others wait for the
        # controller.
        self.silent.send(self.flag)
        step = local_step(self.gate.recv(), self.time_step, self.period)
        current, active = self.a_in.recv(), self.activity.recv()[0] != 0
        over = self.advance(step, current, active)
        self.flag[0] = over and self.until_silent
        if over:
            trailer = (self.certified, self.last_spike, self.time_step)
            self.result.send(np.concatenate([self.u.ravel(), trailer]).astype(self.u.dtype))
        if self.register.error is not None:
            raise self.register.error

    def advance(self, step: int, current: NDArray, active: bool) -> bool:
        """Advance logits and certificate by one step and return whether the sample is over."""
        if step == IDLE:
            return False
        if step == 1:
            self.u[:] = self.u0
            self.certified, self.last_spike = False, 0
        else:
            if step in self.wake:
                current = current + self.bias
            self.u = self.register.hold("logit", self.u + current)
        if active:
            self.last_spike = step
        elif step >= self.last_event:
            self.certified = True
        return step == self.period or (self.until_silent and self.certified)


@implements(proc=Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi")
class PyReadoutFixed(AbstractPyReadout):
    """Integer logits in registers of `state_bits`."""

    register_type = Register

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    result: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    bias: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    u0: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)


@implements(proc=Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyReadoutFloat(AbstractPyReadout):
    """Logits in float64, in the units of the integer network."""

    register_type = Unbounded

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    result: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, float)
    u: NDArray = LavaPyType(np.ndarray, float)
    bias: NDArray = LavaPyType(np.ndarray, float)
    u0: NDArray = LavaPyType(np.ndarray, float)
