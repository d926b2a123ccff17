"""The layers of a network in time: what is fixed for a schedule, and what each keeps while a batch runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.dynamics.neuron import aim, cif_step
from lava_casc.dynamics.product import Product
from lava_casc.dynamics.variant import WHOLE, Variant
from lava_casc.integer import split_evenly
from lava_casc.linear import exact_dtype
from lava_casc.network import Entry, IntegerNetwork, MaxPool, Memory, Neurons, Readout, Shape
from lava_casc.schedule import WakeSleepSchedule

#: The greatest count that is held in 8 bits.
SMALL = 127


class Change(NamedTuple):
    """The samples in which a layer said something in a step.

    Attributes
    ----------
    step : int
    rows : (K,) tensor of int64
        Which samples of the batch, in rising order.
    counts : (K, ...) integer tensor
        What they have counted since the beginning, this step included. It is never written to again.
    spikes : (K, ...) integer tensor
        What they said in this step.
    """

    step: int
    rows: torch.Tensor
    counts: torch.Tensor
    spikes: torch.Tensor


#: The rows that something arrives in, and what has arrived in all since the beginning.
Arrival = tuple[torch.Tensor, torch.Tensor]
Operator = Callable[[torch.Tensor], torch.Tensor]


class State(Protocol):
    """What a layer keeps while a batch runs."""

    count: torch.Tensor

    def advance(self, step: int, arrivals: Sequence[Arrival | None]) -> Change | None:
        """Take in what arrives, one item a source, and return what the layer says; None for nothing."""

    def rests(self, step: int) -> bool:
        """Return whether the layer will say nothing after `step` unless something arrives."""


class Plan:
    """A network under a schedule, prepared for any number of batches.

    Parameters
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    device : torch.device or str
    variant : Variant, optional

    Attributes
    ----------
    last_injection : int
        The last step in which input or bias may be injected: that of the wake, or the last of all.
    operators : dict of str to tuple of callables
        For every layer that is computed, from the counts of each source to what arrives of them.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        schedule: WakeSleepSchedule,
        device: torch.device | str = "cpu",
        variant: Variant = WHOLE,
    ) -> None:
        self.network, self.schedule, self.device = network, schedule, torch.device(device)
        self.variant = variant
        self.last_injection = schedule.wake_steps if variant.sleeps else schedule.period
        #: How many times what the wake delivers is delivered in all.
        self.turns = -(-self.last_injection // schedule.wake_steps)
        self.timing = network.timing(schedule)
        self.last_event = network.last_event(schedule)
        self.peaks = (
            network.peaks if variant.capped else dict.fromkeys(network.peaks, schedule.period * schedule.max_burst)
        )
        reach = {layer.name: (self.turns * layer.reach[0], self.turns * layer.reach[1]) for layer in network.entries}
        reach |= {name: (0, peak) for name, peak in self.peaks.items()}
        reach |= {memory.name: reach[memory.source] for memory in network.memories}
        greatest = {name: max(high, -low) for name, (low, high) in reach.items()}
        #: What no partial sum of a layer, and no threshold times a count, can exceed.
        self.magnitudes = {
            layer.name: network.magnitude(layer, greatest, self.turns, self.peaks.get(layer.name, 0))
            + variant.beyond(layer)
            for layer in network.computed
            if not isinstance(layer, MaxPool)
        }
        self.operators: dict[str, tuple[Operator, ...]] = {}
        self.populations: dict[str, _Population] = {}
        for layer in network.computed:
            if isinstance(layer, MaxPool):
                self.operators[layer.name] = (_Windows(layer, network.shapes[layer.name]),)
                continue
            self.operators[layer.name] = tuple(
                Product(synapse, network.shapes[synapse.source], *reach[synapse.source], self.device)
                for synapse in layer.synapses
            )
            self.populations[layer.name] = _Population(self, layer)

    def begin(self, name: str, n: int) -> State:
        """Return the state in which a spiking layer begins with `n` samples.

        Parameters
        ----------
        name : str
            Of the layer.
        n : int

        Returns
        -------
        State
        """
        layer = self.network[name]
        if isinstance(layer, MaxPool):
            peak = self.peaks[name]
            return _PoolState(
                torch.zeros(n, *last_shape(self.network.shapes[name]), dtype=_holds(peak), device=self.device)
            )
        return _NeuronState(self.populations[name], n)

    def inject(self, layer: Entry, total: torch.Tensor) -> _EntryState:
        """Return the state of an entry that injects `total`, (N, H, W, C) or (N, I), over every wake_steps steps.

        A memory does so over the steps in which its source was heard: where nothing sleeps, they are all.

        Parameters
        ----------
        layer : Input, Tokens or Memory
        total : integer tensor
            What it injects in all.

        Returns
        -------
        State
        """
        window = self.last_injection if isinstance(layer, Memory) else self.schedule.wake_steps
        return _EntryState(total, window, self.last_injection)

    def delivers(self, step: int) -> bool:
        """Return whether bias arrives at a readout in `step`.

        Parameters
        ----------
        step : int

        Returns
        -------
        bool
        """
        return any(self.populations[readout.name].delivers(step) for readout in self.network.readouts)

    def logits(self, sources: dict[str, torch.Tensor], step: int) -> torch.Tensor:
        """Return (N, K) int64: what the readouts have integrated by `step`, from what their sources counted before.

        Parameters
        ----------
        sources : dict of str to tensor
            What each source of a readout has counted.
        step : int

        Returns
        -------
        (N, K) tensor of int64
        """
        found = []
        for readout in self.network.readouts:
            population = self.populations[readout.name]
            products = zip(self.operators[readout.name], readout.synapses, strict=True)
            parts = [operator(sources[synapse.source]) for operator, synapse in products]
            received = sum((part.to(population.dtype) for part in parts[1:]), parts[0].to(population.dtype))
            received = received + population.offset(step)
            found.append(channels_first(received).flatten(1).to(torch.int64))
        return torch.cat(found, 1)


def channels_last(values: torch.Tensor) -> torch.Tensor:
    """Return (N, H, W, C), contiguous, of (N, C, H, W); anything else stays.

    Parameters
    ----------
    values : tensor

    Returns
    -------
    tensor
    """
    return values.permute(0, 2, 3, 1).contiguous() if values.ndim == 4 else values


def channels_first(values: torch.Tensor) -> torch.Tensor:
    """Return (N, C, H, W) of (N, H, W, C); anything else stays.

    Parameters
    ----------
    values : tensor

    Returns
    -------
    tensor
    """
    return values.permute(0, 3, 1, 2) if values.ndim == 4 else values


def last_shape(shape: Shape) -> Shape:
    """Return (H, W, C) of (C, H, W); a flat shape stays."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _holds(peak: int) -> torch.dtype:
    return torch.int8 if peak <= SMALL else torch.int32


class _Population:
    """What is fixed of a layer that integrates."""

    def __init__(self, plan: Plan, layer: Neurons | Readout) -> None:
        self.layer, self.timing = layer, plan.timing[layer.name]
        self.shape = plan.network.shapes[layer.name]
        self.device = plan.device
        self.signed = plan.variant.signed
        self.dtype = exact_dtype(plan.magnitudes[layer.name])
        #: The steps in which bias arrives.
        self.wake = range(self.timing.bias_start, self.timing.bias_start + plan.last_injection)
        per_step, start = split_evenly(layer.bias, plan.schedule.wake_steps)
        self.stepped = bool(per_step.any())
        self.per_step = self._tensor(per_step)
        self.start = self._tensor(start)
        if isinstance(layer, Neurons):
            share, below = plan.variant.initial, plan.variant.negative_threshold
            initial = layer.initial if share is None else layer.threshold * share.numerator // share.denominator
            self.start = self.start + self._tensor(initial)
            self.threshold = self._tensor(layer.threshold)
            #: By how much less than nothing a neuron may have before it takes back, where that is more than CIF's.
            self.slack: torch.Tensor | None = None
            if self.signed and below:
                self.slack = self._tensor(-(-layer.threshold * below.numerator // below.denominator) - 1)
            self.levels = plan.peaks[layer.name]
            self.holds = _holds(self.levels)
            self.max_burst = min(plan.schedule.max_burst, self.levels)  # 8 bits may hold no greater one

    def _tensor(self, values: NDArray[np.int64]) -> torch.Tensor:
        if values.ndim == 3:
            values = values.transpose(1, 2, 0)
        return torch.tensor(np.ascontiguousarray(values), dtype=self.dtype, device=self.device)

    def offset(self, step: int) -> torch.Tensor:
        """Return what was there at the start, and the bias that has been delivered by `step`."""
        delivered = min(max(step - self.wake.start + 1, 0), len(self.wake))
        return self.start + delivered * self.per_step

    def delivers(self, step: int) -> bool:
        """Return whether bias arrives in `step`."""
        return self.stepped and step in self.wake


class _NeuronState:
    """Where each neuron aims, and how far it has come."""

    def __init__(self, population: _Population, n: int) -> None:
        self.population, self.n = population, n
        #: Which neurons may not speak, (n, ...) of bool, channels last; whoever begins a run may set it.
        self.silenced: torch.Tensor | None = None
        shape = last_shape(population.shape)
        device = population.device
        self.parts: list[torch.Tensor | None] = [None] * len(population.layer.synapses)
        self.target = torch.zeros(n, *shape, dtype=population.holds, device=device)
        self.count = torch.zeros_like(self.target)
        self.ceiling = None if population.slack is None else torch.zeros_like(self.target)
        #: Samples to which something came since they last aimed; those that may not be where they aim.
        begins = bool((population.start >= population.threshold).any())
        self.stale = torch.full((n,), begins, device=device)
        self.unsettled = torch.zeros(n, dtype=torch.bool, device=device)

    def advance(self, step: int, arrivals: Sequence[Arrival | None]) -> Change | None:
        """Integrate, aim, and say what brings the counts nearer."""
        for i, arrival in enumerate(arrivals):
            if arrival is not None:
                self.parts[i] = _write(self.parts[i], *arrival, self.n)
                self.stale[arrival[0]] = True
        if self.population.delivers(step):
            self.stale[:] = True
        if step < self.population.timing.release:
            return None
        rows = _where(self.stale)
        if len(rows):
            received = self._received(step, rows)
            if self.population.slack is not None:
                higher = self._aim(received + self.population.slack, rows)
                self.ceiling = _write(self.ceiling, rows, higher, self.n)
            self.target = _write(self.target, rows, self._aim(received, rows), self.n)
            self.unsettled |= self.stale
            self.stale[:] = False
        rows = _where(self.unsettled)
        if not len(rows):
            return None
        counts, population = _take(self.count, rows), self.population
        ceiling = None if self.ceiling is None else _take(self.ceiling, rows)
        spikes = cif_step(_take(self.target, rows), counts, population.max_burst, population.signed, ceiling)
        found = _spoken(step, rows, counts, spikes)
        # A neuron that says nothing is where it aims, or cannot get there.
        self.unsettled[:] = False
        if found is not None:
            self.unsettled[found.rows] = True
            self.count = _put(self.count, found.rows, found.counts)
        return found

    def rests(self, step: int) -> bool:
        """Return whether nothing is to come but what may arrive."""
        moving = bool(self.stale.any() or self.unsettled.any())
        population = self.population
        complete = not population.stepped or step >= population.wake.stop - 1
        return not moving and step >= population.timing.release and complete

    def potential(self, step: int) -> torch.Tensor:
        """Return ``received - threshold * count`` of every neuron after `step`, int64."""
        received = self._received(step, torch.arange(self.n, device=self.count.device))
        return (received - self.population.threshold * self.count.to(received.dtype)).to(torch.int64)

    def _aim(self, received: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        population = self.population
        found = aim(received, population.threshold, population.levels, population.holds)
        return found if self.silenced is None else found.masked_fill_(_take(self.silenced, rows), 0)

    def _received(self, step: int, rows: torch.Tensor) -> torch.Tensor:
        parts = [_take(part, rows) for part in self.parts if part is not None]
        offset = self.population.offset(step)
        if not parts:
            return offset.expand(len(rows), *self.target.shape[1:]).clone()
        received = parts[0] + offset
        for part in parts[1:]:
            received += part
        return received


class _PoolState:
    """The maxima of what the windows have counted."""

    def __init__(self, peak: torch.Tensor) -> None:
        self.count = peak

    def advance(self, step: int, arrivals: Sequence[Arrival | None]) -> Change | None:
        """Return by how much the maxima have changed."""
        (arrival,) = arrivals
        if arrival is None:
            return None
        rows, counts = arrival
        found = _spoken(step, rows, None, counts - _take(self.count, rows), counts)
        if found is not None:
            self.count = _put(self.count, found.rows, found.counts)
        return found

    def rests(self, step: int) -> bool:
        """Return True: a pool says at once whatever it says."""
        return True


class _EntryState:
    """What is injected evenly over a window, or on and on at that rate."""

    def __init__(self, total: torch.Tensor, window: int, last: int) -> None:
        self.total, self.window, self.last = total, window, last
        self.count = torch.zeros_like(total)

    def advance(self, step: int, arrivals: Sequence[Arrival | None] = ()) -> Change | None:
        """Return this step's share: of ``total * t // window`` by step t."""
        if step > self.last:
            return None
        before = self.count
        self.count = torch.div(self.total * step, self.window, rounding_mode="floor")
        rows = torch.arange(len(before), device=before.device)
        return _spoken(step, rows, None, self.count - before, self.count)

    def rests(self, step: int) -> bool:
        """Return whether the last injection is over."""
        return step >= self.last


class _Windows:
    """The maxima of all windows of counts; the padding, 0, never wins because counts are not negative."""

    def __init__(self, pool: MaxPool, shape: Shape) -> None:
        self.pool, self.size = pool, shape[1:]

    def __call__(self, counts: torch.Tensor) -> torch.Tensor:
        """Return (K, H', W', C) of (K, H, W, C), one place of the window after the other."""
        pool = self.pool
        high, wide = pool.padding
        padded = torch.nn.functional.pad(counts, (0, 0, wide, wide, high, high)) if high or wide else counts
        best: torch.Tensor | None = None
        for y in range(pool.kernel[0]):
            for x in range(pool.kernel[1]):
                rows, columns = (
                    slice(k * d, k * d + s * (n - 1) + 1, s)
                    for k, d, s, n in zip((y, x), pool.dilation, pool.stride, self.size, strict=True)
                )
                tap = padded[:, rows, columns]
                best = tap if best is None else torch.maximum(best, tap)
        assert best is not None
        return best.contiguous()


def _where(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero()[:, 0]


def _take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return values if len(rows) == len(values) else values[rows]


def _put(values: torch.Tensor, rows: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return `values` with `new` rows; the argument stays as it was, for a `Change` may hold it."""
    return new if len(rows) == len(values) else values.index_copy(0, rows, new)


def _write(values: torch.Tensor | None, rows: torch.Tensor, new: torch.Tensor, n: int) -> torch.Tensor:
    """Return `values`, of `n` rows, with `new` rows written into it, and the rest 0 where there was nothing."""
    if len(rows) == n:
        return new
    if values is None:
        values = torch.zeros(n, *new.shape[1:], dtype=new.dtype, device=new.device)
    return values.index_copy_(0, rows, new)


def _spoken(
    step: int,
    rows: torch.Tensor,
    before: torch.Tensor | None,
    spikes: torch.Tensor,
    after: torch.Tensor | None = None,
) -> Change | None:
    """Return the change in the rows with a spike, given the counts before it or after it."""
    spoke = _any(spikes)
    if not bool(spoke.any()):
        return None
    kept = _where(spoke)
    spikes = _take(spikes, kept)
    if after is not None:
        counts = _take(after, kept)
    else:
        assert before is not None
        counts = _take(before, kept) + spikes
    return Change(step, _take(rows, kept), counts, spikes)


def _any(spikes: torch.Tensor) -> torch.Tensor:
    """Return whether anything in each row is not 0; eight bytes at a time where a row divides."""
    flat = spikes.flatten(1)
    if flat.shape[1] * flat.element_size() % 8 == 0 and flat.is_contiguous():
        flat = flat.view(torch.int64)
    return (flat != 0).any(1)
