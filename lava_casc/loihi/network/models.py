"""The two models of a network: all of it in one process, or a process for each of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.model.sub.model import AbstractSubProcessModel
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from lava_casc.dynamics import Crew
from lava_casc.loihi.build import build
from lava_casc.loihi.messages import Messages
from lava_casc.loihi.network.process import SpikingNetwork


@implements(proc=SpikingNetwork, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt", "bit_accurate_loihi")
class PyFusedNetwork(PyLoihiProcessModel):
    """The whole network: batch after batch, and in every Lava step one step of all samples of a batch."""

    samples: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    result: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.messages: Messages = proc_params["messages"]
        self.batches: int = proc_params["batches"]
        self.until_silent: bool = proc_params["until_silent"]
        self.crew: Crew | None = None

    def run_spk(self) -> None:
        """Take the next batch if there is none, advance, and send what came out of a batch that is over."""
        if self.crew is None:
            # Only now is this the process that computes.
            self.crew = Crew(self.messages.network, self.messages.schedule, self.messages.record)
        if self.crew.over and self.batches:
            self.batches -= 1
            self.crew.begin(self.messages.unpack_samples(self.samples.recv()), self.until_silent)
        if not self.crew.over and self.crew.step():
            self.result.send(self.messages.pack_result(self._fields(self.crew)))

    def _fields(self, crew: Crew) -> dict[tuple[str, str], NDArray]:
        found = crew.result()
        ends = np.full(found["certified", ""].shape, self.time_step)
        trailer = (found.pop(("certified", "")), found.pop(("last_spike", "")), ends)
        return {**found, ("trailer", ""): np.stack(trailer, -1)}


@implements(proc=SpikingNetwork, protocol=LoihiProtocol)
@tag("fixed_pt", "bit_accurate_loihi", "floating_pt")
class GraphOfNetwork(AbstractSubProcessModel):
    """A process for every layer and every synapse."""

    def __init__(self, proc: AbstractProcess) -> None:
        how = proc.proc_params
        messages: Messages = how["messages"]
        circuit = build(
            messages.network,
            how["all_samples"],
            messages.schedule,
            until_silent=how["until_silent"],
            **how["build_options"],
        )
        proc.circuit = circuit
        # Lava finds the parts among the attributes.
        for i, process in enumerate(circuit.processes):
            setattr(self, f"process{i}", process)
