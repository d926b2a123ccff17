"""The process that is a network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess, LogConfig
from numpy.typing import NDArray

from lava_casc.loihi.messages import Messages
from lava_casc.network import IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule


class SpikingNetwork(AbstractProcess):
    """A network under its schedule, from samples to certified logits.

    It has two models, and the run configuration chooses. The *fused* one is a single process that takes every sample
    of a batch one step further in every Lava step, and batch after batch through its ports. The *graph* has a process
    for every layer and synapse, as a chip has them, and runs the samples that the process was made with. Both emit the
    same spikes in the same steps.

    Parameters
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    samples : (N, ...) array
        All that will be run, as `IntegerNetwork.encode` returns them; (N, P, ...) for a recurrent network.
    batch_size : int
        Samples in a batch of the fused model.
    record : collection of {"counts", "messages", "spikes"}
    until_silent : bool
        Whether the next sample, or batch, or phase, begins as soon as one is certified.
    circuit : dict, optional
        What else `lava_casc.loihi.build` takes, for the graph.
    name, log_config
        As in every Lava process.

    Attributes
    ----------
    samples, result : InPort, OutPort
        External pipes of the fused model, flat: see `Messages`. In the step after a batch it waits for the next, until
        it has had as many as `samples` make. The graph does not use them: the pipes are those of its readouts and taps.
    """

    _runtime = None  # Lava's __del__ asks for it, also where __init__ raised
    #: What the graph is made of, once it has been compiled.
    circuit: Any = None

    def __init__(
        self,
        *,
        network: IntegerNetwork,
        schedule: WakeSleepSchedule,
        samples: NDArray[np.int64],
        batch_size: int = 1,
        record: Collection[str] = (),
        until_silent: bool = True,
        circuit: dict[str, Any] | None = None,
        name: str | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        phases = samples.shape[1] if network.is_recurrent else 1
        self.messages = Messages(network, schedule, batch_size, phases, frozenset(record))
        self.all_samples = samples
        super().__init__(
            messages=self.messages,
            batches=-(-len(samples) // batch_size),
            until_silent=bool(until_silent),
            all_samples=samples,
            build_options=dict(circuit or {}),
            name=name,
            log_config=log_config,
        )
        self.samples = InPort(shape=(self.messages.input_size,))
        self.result = OutPort(shape=(self.messages.result_size,))
        for port in (self.samples, self.result):
            port.flag_external_pipe(buffer_size=2)
