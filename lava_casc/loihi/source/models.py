"""What the source does in a step."""

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
from lava_casc.loihi.gate import local_step
from lava_casc.loihi.source.process import SampleSource


@implements(proc=SampleSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class PySampleSource(PyLoihiProcessModel):
    """One image after the other, each in its shares."""

    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.images = proc_params["images"]
        self.wake_steps: int = proc_params["wake_steps"]
        self.period: int = proc_params["period"]
        self.vocabulary: int | None = proc_params["vocabulary"]
        self.index = -1
        self.silence = np.zeros(self.images.shape[1:] if self.vocabulary is None else self.vocabulary, np.int32)

    def run_spk(self) -> None:
        """Emit this step's share."""
        step = local_step(self.gate.recv(), self.time_step, self.period)
        if step == 1:
            self.index += 1
        if 1 <= step <= self.wake_steps and self.index < len(self.images):
            self.s_out.send(spread(self.sample(), self.wake_steps, step).astype(np.int32))
        else:
            self.s_out.send(self.silence)

    def sample(self) -> NDArray:
        """Return what enters in all in the present sample."""
        if self.vocabulary is None:
            return self.images[self.index]
        word = np.zeros(self.vocabulary, np.int64)
        word[self.images[self.index]] = 1
        return word
