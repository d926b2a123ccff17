"""The batched simulator: every spike of every step, and for every sample whether it ended in proven silence."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.dynamics import WHOLE, Change, Plan, Trace, Variant, as_array, channels_first, channels_last, fan_outs
from lava_casc.dynamics.batch import batches
from lava_casc.dynamics.crew import SHARE
from lava_casc.dynamics.layers import SMALL
from lava_casc.dynamics.trace import BY_STEP
from lava_casc.network import Entry, IntegerNetwork, MaxPool, Neurons
from lava_casc.record import SpikeRecord, keep
from lava_casc.reference.forward import Pass
from lava_casc.schedule import WakeSleepSchedule

#: Numbers that the operators of a layer give back at a time: as much as the processor's cache may hold.
CHUNK = 1 << 21


def simulate(
    network: IntegerNetwork,
    images: ArrayLike,
    schedule: WakeSleepSchedule | None = None,
    *,
    record: Iterable[str] = ("counts",),
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    variant: Variant = WHOLE,
    silenced: Mapping[str, NDArray[np.bool_]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> SpikeRecord:
    """Run a network as spikes, every one of them, and report for every sample whether it ended in proven silence.

    Every synapse delays by one step: what a layer emits in step t arrives in step t + 1. Within a phase the graph has
    no cycle, so that one layer after the other is taken through all steps: all that arrives at it is known by then,
    and is computed together. Samples in which nothing arrives in a step are left out of it, and so are samples that
    have fallen silent.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        Within the input's range. (N, P, ...) for a recurrent network: every phase runs through the whole schedule, and
        what the memories inject is what was counted when the phase before ended.
    schedule : WakeSleepSchedule, optional
        By default ``network.schedule()``: unary, with sleep enough for the proven bound.
    record : iterable of {"counts", "messages", "negatives", "spikes", "potentials", "synops", "logits", "errors"}
        What to keep beside logits and certificates; `spikes` and `potentials` take memory. `logits` are those after
        every step; `errors` compare what each layer has counted after every step with the integer network, and are
        kept as `excess`, `deficit` and `deviation`.
    batch_size : int, optional
        Samples simulated together; by default as many as memory allows, see `lava_casc.dynamics.batch`.
    device : torch.device or str
        Where torch computes.
    variant : Variant
        An ablation of the paper, or what another conversion has. Only the whole certifies anything.
    silenced : mapping of str to (N, ...) array of bool, optional
        By layer of neurons, those that may not speak in a sample. A run with silenced neurons certifies nothing. Not
        for recurrent networks.
    progress : callable, optional
        Called with the number of samples finished so far.

    Returns
    -------
    SpikeRecord

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C; after some samples its attribute ``record`` is their record.
    """
    schedule = network.schedule() if schedule is None else schedule
    wanted = frozenset(record)
    unknown = wanted - set(RECORDS)
    if unknown:
        raise ValueError(f"record knows {', '.join(RECORDS)}, not {sorted(unknown)[0]!r}")
    images = network.encode(images)
    masks = _masks(network, silenced or {}, len(images))
    runner = _Runner(Plan(network, schedule, device, variant), wanted)
    parts = batches(network, len(images), batch_size, most=256)
    threads = torch.get_num_threads() if torch.device(device).type == "cpu" else 1
    if batch_size is None and threads > 1:
        parts = _shares(network, len(images), parts[0].stop, threads)
    found: list[SpikeRecord] = []
    work = [(images[part], {name: mask[part] for name, mask in masks.items()}) for part in parts]
    try:
        with closing(_in_threads(runner, work, threads)) as records:
            for part, record_of_part in zip(parts, records, strict=True):
                found.append(record_of_part)
                if progress is not None:
                    progress(min(part.stop, len(images)))
    except KeyboardInterrupt as stop:
        if found:
            keep(stop, _join(found))
        raise
    return _join(found)


def _shares(network: IntegerNetwork, samples: int, together: int, threads: int) -> list[slice]:
    """Return batches such that each thread has its own, and all of them together take no more memory than one would."""
    worthwhile = min(threads, max(1, samples * network.neurons // SHARE))
    return batches(network, samples, max(1, min(-(-together // worthwhile), -(-samples // worthwhile))), most=1)


#: Some samples, and which neurons may not speak in them.
_Part = tuple[NDArray[np.int64], dict[str, torch.Tensor]]


def _masks(network: IntegerNetwork, silenced: Mapping[str, NDArray[np.bool_]], samples: int) -> dict[str, torch.Tensor]:
    """Return masks as the layers keep them, if they are for this network and so many samples."""
    if silenced and network.is_recurrent:
        raise ValueError("silenced neurons are for networks without recurrence")
    found = {}
    for name, mask in silenced.items():
        if name not in network.shapes or not isinstance(network[name], Neurons):
            raise ValueError(f"silenced: there is no layer of neurons {name!r}")
        expected = (samples, *network.shapes[name])
        if mask.dtype != np.bool_ or mask.shape != expected:
            raise ValueError(f"silenced: {name} needs bool of shape {expected}, not {mask.dtype} of {mask.shape}")
        found[name] = channels_last(torch.tensor(mask))
    return found


def _in_threads(runner: _Runner, parts: list[_Part], threads: int) -> Generator[SpikeRecord, None, None]:
    """Yield what `runner` returns for each part, in their order.

    A thread computes a part alone: torch's own threads wait for each other at every operation, which takes ten times as
    long where another program keeps a processor busy.
    """
    if threads == 1 or len(parts) == 1:
        yield from map(runner.run, parts)
        return
    try:
        with ThreadPoolExecutor(min(threads, len(parts)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield from pool.map(runner.run, parts)
            finally:
                runner.is_over = True  # where it ends early, threads do not go on with what nobody waits for
    finally:
        torch.set_num_threads(threads)


#: What can be recorded.
RECORDS = ("counts", "messages", "negatives", "spikes", "potentials", "synops", "logits", "errors")
#: What a record keeps by layer.
_BY_LAYER = (*BY_STEP, "counts")


class _Runner:
    """The loop over layers, and within it over steps."""

    def __init__(self, plan: Plan, wanted: frozenset[str]) -> None:
        self.plan, self.wanted = plan, wanted
        self.is_over = False  # set from outside
        self.network, self.schedule = plan.network, plan.schedule
        self.fan_out = fan_outs(self.network) if "synops" in wanted else None
        sources = [set(layer.sources) for layer in self.network.spiking]
        self.readers = {name: sum(name in each for each in sources) for name in self.network.shapes}
        self.passing = Pass(self.network) if "errors" in wanted else None
        self.certifies = plan.variant == WHOLE
        self.read_out = {source for readout in self.network.readouts for source in readout.sources}

    @torch.inference_mode()
    def run(self, part: _Part) -> SpikeRecord:
        """Simulate one batch, phase after phase where the network is recurrent."""
        network, (images, silenced) = self.network, part
        if not network.is_recurrent:
            truth = self.passing.sequence(images).counts if self.passing else {}
            return self._phase({network.input.name: network.input.injected(images)}, truth, silenced)[0]
        records = []
        sequence = self.passing.sequence(images).counts if self.passing else {}
        held = {m.name: np.zeros((len(images), *m.shape), np.int64) for m in network.memories}
        for phase in range(images.shape[1]):
            entries = {network.input.name: network.input.injected(images[:, phase]), **held}
            truth = {name: counted[:, phase] for name, counted in sequence.items()}
            record, counts = self._phase(entries, truth, {})
            records.append(record)
            held = {memory.name: counts[memory.source] for memory in network.memories}
        return _sequence(records)

    def _phase(
        self,
        entries: dict[str, NDArray[np.int64]],
        truth: dict[str, NDArray[np.int64]],
        silenced: dict[str, torch.Tensor],
    ) -> tuple[SpikeRecord, dict[str, NDArray]]:
        """Simulate one window of wake and sleep, and return what is recorded, and all counts."""
        network, n, period = self.network, len(entries[self.network.input.name]), self.schedule.period
        trace = Trace(network, period, n, self.wanted, self.fan_out)
        changes: dict[str, list[Change]] = {}
        remembered = {memory.source for memory in network.memories}
        counts: dict[str, NDArray] = {}
        before_last: dict[str, torch.Tensor] = {}
        read: dict[str, list[Change]] = {}
        unread = dict(self.readers)
        for layer in (*network.entries, *network.spiking):
            name = layer.name
            count = self._layer(layer, n, entries, changes, trace, truth, silenced.get(name))
            if name in self.read_out:
                before_last[name] = _counted(count, changes[name], period)
                if "logits" in self.wanted:
                    read[name] = changes[name]
            if not isinstance(layer, Entry) and (name in remembered or "counts" in self.wanted):
                counts[name] = as_array(channels_first(count))
            for source in set(layer.sources):
                unread[source] -= 1
                if not unread[source]:
                    del changes[source]  # nobody needs its spikes any more
        kept: dict[str, Any] = dict(trace.kept)
        record = SpikeRecord(
            engine="reference",
            schedule=self.schedule,
            logits=as_array(self.plan.logits(before_last, period)),
            # From the last event on, one silent step is for ever: the certificate.
            certified=(~trace.active[:, self.plan.last_event - 1 :]).any(1) & (self.certifies and not silenced),
            last_spike=trace.last_spike,
            counts=counts if "counts" in self.wanted else {},
            logits_by_step=self._logits(before_last, read) if "logits" in self.wanted else None,
            **kept,
        )
        return record, counts

    def _logits(self, last: dict[str, torch.Tensor], changes: dict[str, list[Change]]) -> NDArray[np.int64]:
        """Return the logits after every step, (N, T, K)."""
        counted = {name: torch.zeros_like(count) for name, count in last.items()}
        by_step: dict[int, list[tuple[str, Change]]] = {}
        for name, said in changes.items():
            for change in said:
                by_step.setdefault(change.step, []).append((name, change))
        found: list[NDArray[np.int64]] = []
        for step in range(1, self.schedule.period + 1):
            for name, change in by_step.get(step - 1, ()):
                counted[name][change.rows] = change.counts.to(counted[name].dtype)
            if found and step - 1 not in by_step and not self.plan.delivers(step):
                found.append(found[-1])
            else:
                found.append(as_array(self.plan.logits(counted, step)))
        return np.stack(found, 1)

    def _layer(
        self,
        layer: Entry | Neurons | MaxPool,
        n: int,
        entries: dict[str, NDArray[np.int64]],
        changes: dict[str, list[Change]],
        trace: Trace,
        truth: dict[str, NDArray[np.int64]],
        silenced: torch.Tensor | None,
    ) -> torch.Tensor:
        """Take a layer through all steps, note what it says, and return what it has counted at the end."""
        name, plan = layer.name, self.plan
        if isinstance(layer, Entry):
            total = torch.as_tensor(np.ascontiguousarray(entries[name]))
            state: Any = plan.inject(layer, channels_last(total).to(plan.device))
            streams = []
        else:
            state = plan.begin(name, n)
            if silenced is not None:
                state.silenced = silenced.to(plan.device)
            # What is said in the last step arrives nowhere.
            arriving = [[c for c in changes[source] if c.step < self.schedule.period] for source in layer.sources]
            streams = [_Stream(*pair) for pair in zip(plan.operators[name], arriving, strict=True)]
        said = changes[name] = []
        wake, distance = self.schedule.wake_steps, self.network.distances[name][0]
        compares = "errors" in self.wanted and isinstance(layer, Neurons)
        expected = state.count
        if isinstance(layer, Neurons) and compares:
            kind = torch.int8 if layer.levels <= SMALL else torch.int64
            expected = channels_last(torch.as_tensor(truth[name])).to(plan.device, kind)
        # Without a sleep, more is expected in every step.
        ends = "potentials" not in self.wanted and (plan.variant.sleeps or "errors" not in self.wanted)
        for step in range(1, self.schedule.period + 1):
            if self.is_over:
                raise CancelledError
            arrivals = [stream.at(step) for stream in streams]
            change = state.advance(step, arrivals)
            if change is not None:
                trace.note(name, change)
                said.append(change._replace(spikes=change.counts[:0]))  # nobody needs them any more
            if "potentials" in self.wanted and isinstance(layer, Neurons):
                trace.potential(name, step, state.potential(step))
            if compares:
                share = (1, 1) if plan.variant.sleeps else (max(0, step - distance), wake)
                trace.compare(name, step, state.count, expected, share)
            if ends and state.rests(step) and all(stream.over for stream in streams):
                break
        return state.count


class _Stream:
    """What arrives at a layer of one source, step by step, computed for many steps at once."""

    def __init__(self, operator: Callable[[torch.Tensor], torch.Tensor], changes: list[Change]) -> None:
        self.operator, self.changes = operator, changes
        self.place = 0
        self.ready: list[torch.Tensor] = []
        self.many = 1  # how many rows to compute at once; the size of a row of results shows with the first

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.place == len(self.changes)

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return what arrives in `step`, for the rows of the change one step before."""
        if self.over or self.changes[self.place].step + 1 != step:
            return None
        if not self.ready:
            self._compute()
        found = self.changes[self.place].rows, self.ready.pop(0)
        self.place += 1
        return found

    def _compute(self) -> None:
        taken: list[torch.Tensor] = []
        rows = 0
        for change in self.changes[self.place :]:
            if taken and rows + len(change.rows) > self.many:
                break
            taken.append(change.counts)
            rows += len(change.rows)
        results = self.operator(torch.cat(taken) if len(taken) > 1 else taken[0])
        self.many = max(1, CHUNK // max(1, results[0].numel()))
        self.ready = list(results.split([len(counts) for counts in taken]))


def _counted(count: torch.Tensor, changes: list[Change], step: int) -> torch.Tensor:
    """Return what a layer had counted before `step`, given what it has counted now."""
    if not changes or changes[-1].step < step:
        return count
    found = torch.zeros_like(count)
    for change in changes:
        if change.step < step:
            found[change.rows] = change.counts.to(found.dtype)
    return found


def _sequence(phases: list[SpikeRecord]) -> SpikeRecord:
    """Return one record of the phases of the same samples."""
    certified = np.stack([phase.certified for phase in phases], 1)
    by_step = [phase.logits_by_step for phase in phases if phase.logits_by_step is not None]
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
        logits_by_step=np.stack(by_step, 1) if by_step else None,
        **merged,
    )


def _join(parts: list[SpikeRecord]) -> SpikeRecord:
    if len(parts) == 1:
        return parts[0]
    merged: dict[str, Any] = {
        kind: {name: np.concatenate([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)}
        for kind in _BY_LAYER
    }
    for kind in ("logits", "logits_by_step", "certified", "last_spike", "phases_certified"):
        if getattr(parts[0], kind) is not None:
            merged[kind] = np.concatenate([getattr(p, kind) for p in parts])
    return replace(parts[0], **merged)
