"""What the host's ends do in a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lava_casc.loihi.staircase.host.process import HeldSource, SettledProbe


@implements(proc=HeldSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyHeldSource(PyLoihiProcessModel):
    """One sample after the other, each for as long as it takes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.images, self.hold = proc_params["images"], proc_params["hold"]

    def run_spk(self) -> None:
        """Emit the present sample."""
        index = (self.time_step - 1) // self.hold
        sample = self.images[index] if index < len(self.images) else np.zeros(self.images.shape[1:])
        self.s_out.send(sample.astype(np.int32))


@implements(proc=SettledProbe, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySettledProbe(PyLoihiProcessModel):
    """Everything is received, and the last of it handed on."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    result: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.hold = proc_params["hold"]

    def run_spk(self) -> None:
        """Hand on what came in the last step of a sample."""
        arrived = self.s_in.recv()
        if self.time_step % self.hold == 0:
            self.result.send(arrived.ravel())
