"""What a CIF population does in a step, in fixed and in floating point."""

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

from lava_casc.loihi.cif.process import CIF
from lava_casc.loihi.gate import IDLE, local_step
from lava_casc.loihi.registers import Register, Unbounded


class AbstractPyCIF(PyLoihiProcessModel):
    """The step that both precisions share; they differ in what holds a potential."""

    register_type: type[Register | Unbounded]
    u: NDArray

    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    activity: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    y: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.levels: int = proc_params["levels"]
        self.period: int = proc_params["period"]
        self.max_burst: int = proc_params["max_burst"]
        self.release: int = proc_params["release"]
        self.wake = range(proc_params["bias_start"], proc_params["bias_start"] + proc_params["wake_steps"])
        self.register = self.register_type(proc_params["path"], proc_params["state_bits"], proc_params["strict"])
        self.silence = np.zeros(proc_params["shape"], np.int32)

    def run_spk(self) -> None:
        """Receive, integrate, fire, and send."""
        step = local_step(self.gate.recv(), self.time_step, self.period)
        spikes = self.advance(step, self.a_in.recv())
        self.s_out.send(spikes)
        self.activity.send(np.array([np.count_nonzero(spikes)], np.int32))
        if self.register.error is not None:
            raise self.register.error

    def advance(self, step: int, current: NDArray) -> NDArray:
        """Advance the state by one step and return the spikes."""
        if step == IDLE:
            return self.silence
        if step == 1:
            self.u[:] = self.u0
            self.y[:] = 0
        else:
            current = self.register.hold("current", current)
            if step in self.wake:
                current = current + self.bias
            self.u = self.register.hold("potential", self.u + current)
        if step < self.release:
            return self.silence
        spikes = self.fire()
        self.u -= self.threshold * spikes
        self.y += spikes
        return spikes

    def fire(self) -> NDArray:
        """Return this step's spikes: the comparisons of the unary neuron, or bursts towards the target."""
        if self.max_burst == 1:
            up = (self.u >= self.threshold) & (self.y < self.levels)
            down = (self.u < 0) & (self.y > 0)
            return up.astype(np.int32) - down
        target = np.clip((self.u // self.threshold).astype(np.int32) + self.y, 0, self.levels)
        return np.clip(target - self.y, -self.max_burst, self.max_burst)


@implements(proc=CIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi")
class PyCIFFixed(AbstractPyCIF):
    """Integers in registers of `state_bits`."""

    register_type = Register

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    u: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    bias: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    u0: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    threshold: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)


@implements(proc=CIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class PyCIFFloat(AbstractPyCIF):
    """float64 potentials in units of the threshold: exact where all thresholds are powers of two."""

    register_type = Unbounded

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, float)
    u: NDArray = LavaPyType(np.ndarray, float)
    bias: NDArray = LavaPyType(np.ndarray, float)
    u0: NDArray = LavaPyType(np.ndarray, float)
    threshold: NDArray = LavaPyType(np.ndarray, float)

    def run_spk(self) -> None:
        """Normalize in the first step, then do what the fixed-point model does."""
        if self.time_step == 1:
            for name in ("u", "bias", "u0"):
                setattr(self, name, getattr(self, name) / self.threshold)
            self.threshold = np.ones_like(self.threshold)
        super().run_spk()
