"""One batch, one step after the other through all layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.dynamics.layers import Arrival, Change, Plan, State, channels_first, channels_last, last_shape
from lava_casc.dynamics.trace import Trace, as_array
from lava_casc.network import Entry


class Stepper:
    """A batch of samples on its way through a network; every call of `step` is one step of all of them.

    A sample that has fallen silent costs nothing any more, and nor does a layer to which nothing arrives.

    Parameters
    ----------
    plan : Plan
    samples : (N, ...) array
        As `IntegerNetwork.encode` returns them; (N, P, ...) for a recurrent network, which runs P phases.
    until_silent : bool
        Whether a phase ends when all samples are certified, and not only when its period is over.
    wanted : collection of {"counts", "messages", "spikes"}
        What to keep of every layer.

    Attributes
    ----------
    over : bool
    logits : list of (N, K) ndarray of int64
        One item for every phase that is over, as in all that follow.
    certified, last_spike : list of (N,) ndarray
    traces : list of Trace
    counts : list of dict of str to (N, ...) ndarray of int64
        By spiking layer, where they are wanted.
    """

    def __init__(
        self, plan: Plan, samples: NDArray[np.int64], *, until_silent: bool = True, wanted: Collection[str] = ()
    ) -> None:
        self.plan, self.until_silent, self.wanted = plan, until_silent, frozenset(wanted)
        self.network = plan.network
        self.phases = [*np.moveaxis(samples, 1, 0)] if self.network.is_recurrent else [samples]
        self.n = len(samples)
        self.read_out = {source for readout in self.network.readouts for source in readout.sources}
        self.logits: list[NDArray[np.int64]] = []
        self.certified: list[NDArray[np.bool_]] = []
        self.last_spike: list[NDArray[np.int64]] = []
        self.traces: list[Trace] = []
        self.counts: list[dict[str, NDArray[np.int64]]] = []
        self.over = False
        self._begin({})

    def _begin(self, held: dict[str, torch.Tensor]) -> None:
        plan, network = self.plan, self.network
        phase = self.phases[len(self.logits)]
        injected = torch.as_tensor(np.ascontiguousarray(network.input.injected(phase)))
        totals = {network.input.name: channels_last(injected).to(plan.device)}
        for memory in network.memories:
            shape = (self.n, *last_shape(memory.shape))
            totals[memory.name] = held.get(memory.source, torch.zeros(shape, dtype=torch.int64, device=plan.device))
        self.states: dict[str, State] = {
            layer.name: plan.inject(layer, totals[layer.name]) for layer in network.entries
        } | {layer.name: plan.begin(layer.name, self.n) for layer in network.spiking}
        self.said: dict[str, Change | None] = dict.fromkeys(self.states)
        self.local = 0
        self.silent = np.zeros(self.n, bool)
        self.trace = Trace(network, plan.schedule.period, self.n, self.wanted)

    @torch.inference_mode()
    def step(self) -> bool:
        """Advance by one step, into the next phase where one is over, and return whether the batch is over.

        Returns
        -------
        bool
        """
        if self.over:
            return True
        self.local = step = self.local + 1
        counted = {name: self.states[name].count for name in self.read_out}  # what the readouts have received by now
        self.said = {name: self._advance(name, step) for name in self.states}
        for name, change in self.said.items():
            if change is not None:
                self.trace.note(name, change)
        if step >= self.plan.last_event:
            # From the last event on, one silent step is for ever: the certificate.
            self.silent |= ~self.trace.active[:, step - 1]
        if step == self.plan.schedule.period or (self.until_silent and bool(self.silent.all())):
            self._end(counted)
        return self.over

    def _advance(self, name: str, step: int) -> Change | None:
        state: Any = self.states[name]
        layer = self.network[name]
        arrivals: list[Arrival | None] = []
        if not isinstance(layer, Entry):
            for operator, source in zip(self.plan.operators[name], layer.sources, strict=True):
                change = self.said[source]
                arrivals.append(None if change is None else (change.rows, operator(change.counts)))
        if state.rests(step - 1) and all(arrival is None for arrival in arrivals):
            return None
        return state.advance(step, arrivals)

    def _end(self, counted: dict[str, torch.Tensor]) -> None:
        self.logits.append(as_array(self.plan.logits(counted, self.local)))
        self.certified.append(self.silent)
        self.last_spike.append(self.trace.last_spike)
        self.traces.append(self.trace)
        self.counts.append(
            {layer.name: as_array(channels_first(self.states[layer.name].count)) for layer in self.network.spiking}
            if "counts" in self.wanted
            else {}
        )
        self.over = len(self.logits) == len(self.phases)
        if not self.over:
            self._begin({m.source: self.states[m.source].count.to(torch.int64) for m in self.network.memories})
