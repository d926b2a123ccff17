"""What max pooling does in a step. Counts are integers in either precision, so that one model serves both."""

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
from lava_casc.loihi.max_pool.process import CIFMaxPool


@implements(proc=CIFMaxPool, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class PyCIFMaxPool(PyLoihiProcessModel):
    """Cumulative counts, and the maximum of every window of them."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    gate: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    activity: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    counts: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)
    peak: NDArray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.period: int = proc_params["period"]
        self.kernel, self.stride, self.padding, self.dilation = (
            proc_params[name] for name in ("kernel", "stride", "padding", "dilation")
        )
        self.output_shape: tuple[int, ...] = proc_params["output_shape"]
        self.arrived = np.zeros(proc_params["shape"], np.int32)
        self.silence = np.zeros(self.output_shape, np.int32)

    def run_spk(self) -> None:
        """Send what arrived one step ago has changed, then receive: the delay of a synapse."""
        step = local_step(self.gate.recv(), self.time_step, self.period)
        spikes = self.advance(step)
        self.s_out.send(spikes)
        self.activity.send(np.array([np.count_nonzero(spikes)], np.int32))
        self.arrived = self.s_in.recv()

    def advance(self, step: int) -> NDArray:
        """Take in what arrived in the step before and return the change of the maxima."""
        if step == 1:
            self.counts[:] = 0
            self.peak[:] = 0
        if step in (1, IDLE) or not self.arrived.any():
            return self.silence
        self.counts += self.arrived
        before, self.peak = self.peak, self.pool()
        return self.peak - before

    def pool(self) -> NDArray:
        """Return the maximum of every window, one tap of the window after the other."""
        width, height = self.padding
        padded = np.pad(self.counts, ((width, width), (height, height), (0, 0)))
        best = np.zeros(self.output_shape, np.int32)
        for x in range(self.kernel[0]):
            for y in range(self.kernel[1]):
                taps = (
                    slice(k * d, k * d + s * (n - 1) + 1, s)
                    for k, d, s, n in zip((x, y), self.dilation, self.stride, self.output_shape, strict=False)
                )
                np.maximum(best, padded[tuple(taps)], out=best)
        return best
