"""The batched step simulator: every spike of every step, and for every sample whether it ended in proven silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.integer import split_evenly, spread
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
    of its samples are certified, because nothing can happen afterwards.

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
    """What changes while a batch runs, by layer."""

    potential: dict[str, torch.Tensor]
    count: dict[str, torch.Tensor]
    emitted: dict[str, torch.Tensor]


class _Runner:
    """The tensors of a network, made once, and the loop over steps."""

    def __init__(self, network: IntegerNetwork, schedule: WakeSleepSchedule, wanted: frozenset[str]) -> None:
        self.network, self.schedule, self.wanted = network, schedule, wanted
        self.timing = network.timing(schedule)
        self.last_event = network.last_event(schedule)
        bounds = ranges(network)
        self.weights: dict[tuple[str, int], torch.Tensor] = {}
        self.bias: dict[str, torch.Tensor] = {}
        self.start: dict[str, torch.Tensor] = {}
        self.threshold: dict[str, torch.Tensor] = {}
        self.pooled = {name: exact_dtype(peak) for name, peak in network.peaks.items()}
        for layer in network.computed:
            if isinstance(layer, MaxPool):
                continue
            shape = network.shapes[layer.name]
            # Partial sums of a current stay within the sum of all magnitudes, which the current's interval spans.
            dtype = exact_dtype(int(bounds[layer.name].current.high.max(initial=0)))
            for i, synapse in enumerate(layer.synapses):
                self.weights[layer.name, i] = effective_weight(synapse, dtype)
            per_step, remainder = split_evenly(layer.bias, schedule.wake_steps)
            self.bias[layer.name] = _tensor(per_step, shape)
            self.start[layer.name] = _tensor(remainder, shape)
            if isinstance(layer, Neurons):
                self.start[layer.name] = self.start[layer.name] + _tensor(layer.initial, shape)
                self.threshold[layer.name] = _tensor(layer.threshold, shape)
        readers = {
            name: [(layer, s) for layer in network for s in getattr(layer, "synapses", ()) if s.source == name]
            for name in network.shapes
        }
        self.fan_out = {
            name: sum(fan_out(s, network.shapes[name]) for _, s in found) for name, found in readers.items()
        }

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
                if name not in entries:
                    active |= _rows(spikes != 0).any(1).numpy()
                self._trace(traces, synops, name, spikes, state)
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
        zeros = {name: torch.zeros((n, *shape), dtype=torch.int64) for name, shape in shapes.items()}
        potential = {name: start.expand(n, *shapes[name]) for name, start in self.start.items()}
        return _State(potential, dict(zeros), dict(zeros))

    def _step(self, state: _State, entries: dict[str, NDArray[np.int64]], step: int) -> None:
        arriving = state.emitted
        wake = self.schedule.wake_steps
        state.emitted = {name: torch.as_tensor(spread(entry, wake, step)) for name, entry in entries.items()}
        for layer in self.network.computed:
            name = layer.name
            if isinstance(layer, MaxPool):
                # `potential` of a pool is what it has received: the cumulative counts of its source.
                state.potential[name] = state.potential.get(name, 0) + arriving[layer.source]
                pooled = max_pool(layer, state.potential[name].to(self.pooled[name])).to(torch.int64)
                state.emitted[name], state.count[name] = pooled - state.count[name], pooled
                continue
            current = self._current(layer, arriving)
            timing = self.timing[name]
            if timing.bias_start <= step < timing.bias_stop:
                current = current + self.bias[name]
            if isinstance(layer, Readout):
                state.potential[name] = state.potential[name] + current
                continue
            state.potential[name], state.count[name], state.emitted[name] = cif_step(
                state.potential[name],
                state.count[name],
                current,
                self.threshold[name],
                layer.levels,
                self.schedule.max_burst,
                step >= timing.release,
            )

    def _current(self, layer: Neurons | Readout, arriving: dict[str, torch.Tensor]) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.int64)
        for i, synapse in enumerate(layer.synapses):
            spikes = arriving[synapse.source]
            if not spikes.any():
                continue  # a silent source delivers nothing
            weight = self.weights[layer.name, i]
            total = total + apply(synapse, spikes.to(weight.dtype), weight).to(torch.int64)
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


def _tensor(values: NDArray[np.int64], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(per_neuron(values, shape))


def _array(tensor: torch.Tensor) -> NDArray:
    return tensor.numpy()


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
