"""The batched step simulator: every spike of every step, and for every sample whether it ended in proven silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.integer import signed_bits, split_evenly, spread
from lava_casc.linear import apply, effective_weight, exact_dtype, max_pool
from lava_casc.network import IntegerNetwork, MaxPool, Neurons, Readout, Synapse, per_neuron
from lava_casc.ranges import ranges
from lava_casc.record import SpikeRecord
from lava_casc.reference.batch import batches
from lava_casc.reference.neuron import cif_step
from lava_casc.schedule import WakeSleepSchedule


def simulate(
    network: IntegerNetwork,
    images: ArrayLike,
    schedule: WakeSleepSchedule | None = None,
    *,
    record: Iterable[str] = ("counts",),
    batch_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> SpikeRecord:
    """Run a network as spikes, step by step, and report for every sample whether it ended in proven silence.

    Every synapse delays by one step: what a layer emits in step t arrives in step t + 1. A batch stops early once all
    of its samples are certified, because nothing can happen afterwards; a layer at rest, to which nothing arrives,
    is passed over.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        Within the input's range. (N, P, ...) for a recurrent network: every phase runs through the whole schedule, and
        what the memories inject is what was counted when the phase before ended.
    schedule : WakeSleepSchedule, optional
        By default ``network.schedule()``: unary, with sleep enough for the proven bound.
    record : iterable of {"counts", "messages", "spikes", "potentials", "synops"}
        What to keep beside logits and certificates; `spikes` and `potentials` take memory.
    batch_size : int, optional
        Samples simulated together; by default as many as memory allows, see `lava_casc.reference.batch`.
    progress : callable, optional
        Called with the number of samples finished so far.

    Returns
    -------
    SpikeRecord
    """
    schedule = network.schedule() if schedule is None else schedule
    wanted = frozenset(record)
    unknown = wanted - {"counts", "messages", "spikes", "potentials", "synops"}
    if unknown:
        raise ValueError(f"record knows counts, messages, spikes, potentials and synops, not {sorted(unknown)[0]!r}")
    images = network.encode(images)
    runner = _Runner(network, schedule, wanted)
    parts = []
    for part in batches(network, len(images), batch_size, most=64):
        parts.append(runner.run(images[part]))
        if progress is not None:
            progress(min(part.stop, len(images)))
    return _join(parts)


#: What a record keeps by layer.
_BY_LAYER = ("messages", "spikes", "counts", "potentials", "synops")


@dataclass
class _State:
    """What changes while a batch runs, by layer.

    Attributes
    ----------
    potential, count : dict of str to tensor
    emitted : dict of str to tensor
        The spikes of the last step; None where there were none.
    resting : set of str
        Released layers that were silent in their last step: without a current they stay so.
    """

    potential: dict[str, torch.Tensor]
    count: dict[str, torch.Tensor]
    emitted: dict[str, torch.Tensor | None]
    resting: set[str] = field(default_factory=set)


class _Runner:
    """The tensors of a network, made once, and the loop over steps."""

    def __init__(self, network: IntegerNetwork, schedule: WakeSleepSchedule, wanted: frozenset[str]) -> None:
        self.network, self.schedule, self.wanted = network, schedule, wanted
        self.timing = network.timing(schedule)
        self.last_event = network.last_event(schedule)
        bounds = ranges(network)
        self.weights: dict[tuple[str, int], torch.Tensor] = {}
        self.bias: dict[str, torch.Tensor | None] = {}
        self.start: dict[str, torch.Tensor] = {}
        self.threshold: dict[str, torch.Tensor] = {}
        self.pooled = {name: exact_dtype(peak) for name, peak in network.peaks.items()}
        #: 32 bits where the proof says that they hold everything, thresholds among it: half the memory.
        self.dtype = {layer.name: torch.int64 for layer in network}
        for layer in network.computed:
            if isinstance(layer, MaxPool):
                continue
            shape = network.shapes[layer.name]
            greatest = int(layer.threshold.max(initial=0)) if isinstance(layer, Neurons) else 0
            if max(bounds[layer.name].bits, signed_bits(0, greatest)) < 32:
                self.dtype[layer.name] = torch.int32
            # Partial sums of a current stay within the sum of all magnitudes, which the current's interval spans.
            dtype = exact_dtype(int(bounds[layer.name].current.high.max(initial=0)))
            for i, synapse in enumerate(layer.synapses):
                self.weights[layer.name, i] = effective_weight(synapse, dtype)
            per_step, remainder = split_evenly(layer.bias, schedule.wake_steps)
            self.bias[layer.name] = self._tensor(layer, per_step) if per_step.any() else None
            if isinstance(layer, Neurons):
                remainder = per_neuron(remainder, shape) + per_neuron(layer.initial, shape)
                self.threshold[layer.name] = self._tensor(layer, layer.threshold)
            self.start[layer.name] = self._tensor(layer, remainder)
        self.fan_out = {name: _fan_out(network, name) for name in network.shapes} if "synops" in wanted else {}

    def _tensor(self, layer: Neurons | Readout, values: NDArray[np.int64]) -> torch.Tensor:
        return torch.tensor(per_neuron(values, self.network.shapes[layer.name]), dtype=self.dtype[layer.name])

    def run(self, images: NDArray[np.int64]) -> SpikeRecord:
        """Simulate one batch, phase after phase where the network is recurrent."""
        network = self.network
        if not network.is_recurrent:
            return self._phase({network.input.name: network.input.injected(images)})[0]
        records = []
        held = {m.name: np.zeros((len(images), *m.shape), np.int64) for m in network.memories}
        for phase in range(images.shape[1]):
            entries = {network.input.name: network.input.injected(images[:, phase]), **held}
            record, counts = self._phase(entries)
            records.append(record)
            held = {memory.name: counts[memory.source] for memory in network.memories}
        return _sequence(records)

    def _phase(self, entries: dict[str, NDArray[np.int64]]) -> tuple[SpikeRecord, dict[str, NDArray]]:
        """Simulate one window of wake and sleep, and return what is recorded, and all counts."""
        network, schedule, n = self.network, self.schedule, len(entries[self.network.input.name])
        state = self._start(n)
        certified = np.zeros(n, bool)
        last_spike = np.zeros(n, np.int64)
        names = [*entries, *(layer.name for layer in network.spiking)]
        traces: dict[str, dict[str, list[NDArray]]] = {kind: {} for kind in ("messages", "spikes", "potentials")}
        synops = {name: np.zeros(n, np.int64) for name in names}
        for step in range(1, schedule.period + 1):
            self._step(state, entries, step)
            active = np.zeros(n, bool)
            for name in names:
                spikes = state.emitted[name]
                if spikes is not None and name not in entries:
                    active |= _rows(spikes != 0).any(1).numpy()
                if self.wanted - {"counts"}:
                    silence = torch.zeros(1, dtype=torch.int64).expand(n, *network.shapes[name])
                    self._trace(traces, synops, name, silence if spikes is None else spikes, state)
            last_spike[active] = step
            if step >= self.last_event:
                # From the last event on, one silent step is for ever: the certificate.
                certified |= ~active
                if certified.all():
                    break
        counts = {layer.name: _array(state.count[layer.name]) for layer in network.spiking}
        logits = np.concatenate([_array(_rows(state.potential[r.name])) for r in network.readouts], 1)
        joined = {
            kind: {name: _pad(np.stack(rows, 1), schedule.period) for name, rows in kept.items()}
            for kind, kept in traces.items()
        }
        record = SpikeRecord(
            engine="reference",
            schedule=schedule,
            logits=logits,
            certified=certified,
            last_spike=last_spike,
            counts=counts if "counts" in self.wanted else {},
            synops=synops if "synops" in self.wanted else {},
            messages=joined["messages"],
            spikes=joined["spikes"],
            potentials=joined["potentials"],
        )
        return record, counts

    def _start(self, n: int) -> _State:
        shapes = self.network.shapes
        zeros = {name: torch.zeros(1, dtype=self.dtype[name]).expand(n, *shapes[name]) for name in shapes}
        potential = {name: start.expand(n, *shapes[name]) for name, start in self.start.items()}
        return _State(potential, zeros, dict.fromkeys(shapes))

    def _step(self, state: _State, entries: dict[str, NDArray[np.int64]], step: int) -> None:
        wake = self.schedule.wake_steps
        emitted: dict[str, torch.Tensor | None] = {
            name: _unless_silent(torch.as_tensor(spread(entry, wake, step))) if step <= wake else None
            for name, entry in entries.items()
        }
        for layer in self.network.computed:
            advance = self._pool if isinstance(layer, MaxPool) else self._integrate
            emitted[layer.name] = advance(layer, state, step)  # type: ignore[arg-type]
        state.emitted = emitted

    def _pool(self, layer: MaxPool, state: _State, step: int) -> torch.Tensor | None:
        arriving, name = state.emitted[layer.source], layer.name
        if arriving is None:
            return None
        # `potential` of a pool is what it has received: the cumulative counts of its source.
        state.potential[name] = state.potential.get(name, 0) + arriving.to(torch.int64)
        pooled = max_pool(layer, state.potential[name].to(self.pooled[name])).to(torch.int64)
        before, state.count[name] = state.count[name], pooled
        return _unless_silent(pooled - before)

    def _integrate(self, layer: Neurons | Readout, state: _State, step: int) -> torch.Tensor | None:
        name, timing = layer.name, self.timing[layer.name]
        current = self._current(layer, state, timing.bias_start <= step < timing.bias_stop)
        if isinstance(layer, Readout):
            if current is not None:
                state.potential[name] = state.potential[name] + current
            return None
        released = step >= timing.release
        if current is None and (not released or name in state.resting):
            return None
        state.potential[name], state.count[name], spikes = cif_step(
            state.potential[name],
            state.count[name],
            torch.zeros((), dtype=self.dtype[name]) if current is None else current,
            self.threshold[name],
            layer.levels,
            self.schedule.max_burst,
            released,
        )
        found = _unless_silent(spikes)
        (state.resting.add if released and found is None else state.resting.discard)(name)
        return found

    def _current(self, layer: Neurons | Readout, state: _State, awake: bool) -> torch.Tensor | None:
        """Return what arrives at a layer in this step, None where nothing does."""
        total = self.bias[layer.name] if awake else None
        for i, synapse in enumerate(layer.synapses):
            spikes = state.emitted[synapse.source]
            if spikes is not None:
                weight = self.weights[layer.name, i]
                found = apply(synapse, spikes.to(weight.dtype), weight).to(self.dtype[layer.name])
                total = found if total is None else total + found
        return total

    def _trace(self, traces: dict, synops: dict, name: str, spikes: torch.Tensor, state: _State) -> None:
        if "messages" in self.wanted:
            traces["messages"].setdefault(name, []).append(_array(_rows(spikes != 0).sum(1)))
        if "spikes" in self.wanted:
            traces["spikes"].setdefault(name, []).append(_array(spikes))
        if "potentials" in self.wanted and name in self.threshold:
            traces["potentials"].setdefault(name, []).append(_array(state.potential[name]))
        if "synops" in self.wanted:
            synops[name] += _array(_rows((spikes != 0) * self.fan_out[name]).sum(1))


def fan_out(synapse: Synapse, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the number of targets with a non-zero weight of every source neuron, borders included: int64, `shape`."""
    with torch.inference_mode(False), torch.enable_grad():
        ones = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
        connected = torch.as_tensor((synapse.weight != 0).astype(np.float64))
        (gradient,) = torch.autograd.grad(apply(synapse, ones, connected).sum(), ones)
    return gradient[0].to(torch.int64)


def _fan_out(network: IntegerNetwork, name: str) -> torch.Tensor:
    """Return the fan-out of every neuron of a layer, over all of its readers."""
    readers = (s for layer in network for s in getattr(layer, "synapses", ()) if s.source == name)
    return sum((fan_out(s, network.shapes[name]) for s in readers), torch.zeros((), dtype=torch.int64))


def _unless_silent(spikes: torch.Tensor) -> torch.Tensor | None:
    return spikes if bool(spikes.any()) else None


def _array(tensor: torch.Tensor) -> NDArray[np.int64]:
    return tensor.to(torch.int64).numpy()


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(1)


def _pad(trace: NDArray, steps: int) -> NDArray:
    """Append the steps after the certificate, in which every spike is 0 and every potential stays."""
    return (
        trace
        if trace.shape[1] == steps
        else np.concatenate([trace, np.repeat(trace[:, -1:], steps - trace.shape[1], axis=1)], axis=1)
    )


def _sequence(phases: list[SpikeRecord]) -> SpikeRecord:
    """Return one record of the phases of the same samples."""
    certified = np.stack([phase.certified for phase in phases], 1)
    merged: dict[str, Any] = {
        kind: {name: np.stack([getattr(p, kind)[name] for p in phases], 1) for name in getattr(phases[0], kind)}
        for kind in _BY_LAYER
    }
    return replace(
        phases[0],
        logits=np.sum([phase.logits for phase in phases], 0),
        certified=certified.all(1),
        phases_certified=certified,
        last_spike=np.max([phase.last_spike for phase in phases], 0),
        **merged,
    )


def _join(parts: list[SpikeRecord]) -> SpikeRecord:
    merged: dict[str, Any] = {
        kind: {name: np.concatenate([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)}
        for kind in _BY_LAYER
    }
    for kind in ("logits", "certified", "last_spike", "phases_certified"):
        if getattr(parts[0], kind) is not None:
            merged[kind] = np.concatenate([getattr(p, kind) for p in parts])
    return replace(parts[0], **merged)
