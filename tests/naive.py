"""The same networks in loops over Python ints, from docs/mathematics.md: no torch, no arrays, no shared helper."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product

from lava_casc.network import Dense, MaxPool, Neurons, Readout, Tokens


def flat(values):
    """Return the elements of an array as a list of Python ints."""
    return [int(v) for v in values.ravel()]


def windows(size, kernel, stride, padding, dilation):
    """Return for every window, in row-major order, its positions as ``(ky, kx, y, x)`` within the image."""
    starts = [
        range(-p, n + p - d * (k - 1), s) for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    found = []
    for top, left in product(*starts):
        taps = []
        for ky, kx in product(range(kernel[0]), range(kernel[1])):
            y, x = top + ky * dilation[0], left + kx * dilation[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                taps.append((ky, kx, y, x))
        found.append(taps)
    return found


def edges(synapse, shape):
    """Return every connection ``(target, source, weight)`` of a synapse, targets and sources counted in C order."""
    weight = synapse.weight.tolist()
    if isinstance(synapse, Dense):
        return [(o, i, w << synapse.exponent) for o, row in enumerate(weight) for i, w in enumerate(row)]
    channels, height, width = shape
    kernel = len(weight[0][0]), len(weight[0][0][0])
    places = windows((height, width), kernel, synapse.stride, synapse.padding, synapse.dilation)
    found = []
    for o, (at, taps) in product(range(len(weight)), enumerate(places)):
        first = o // (len(weight) // synapse.groups) * (channels // synapse.groups)
        for c, (ky, kx, y, x) in product(range(channels // synapse.groups), taps):
            value = weight[o][c][ky][kx] << synapse.exponent
            found.append((o * len(places) + at, ((first + c) * height + y) * width + x, value))
    return found


def pools(layer, shape):
    """Return for every pooled neuron, in C order, the sources that it takes the maximum of."""
    channels, height, width = shape
    places = windows((height, width), layer.kernel, layer.stride, layer.padding, layer.dilation)
    return [[(c * height + y) * width + x for *_, y, x in taps] for c in range(channels) for taps in places]


def each(values, shape):
    """Return per-channel (or full) values once for each neuron of a layer of `shape`."""
    values, size = flat(values), 1
    for n in shape:
        size *= n
    return values if len(values) == size else [v for v in values for _ in range(size // len(values))]


class Wiring:
    """What every layer of a network is connected to, neuron by neuron."""

    def __init__(self, network):
        self.network, self.shapes = network, network.shapes
        self.synapses = {
            layer.name: [(s.source, edges(s, self.shapes[s.source])) for s in getattr(layer, "synapses", ())]
            for layer in network
        }
        self.pools = {
            layer.name: pools(layer, self.shapes[layer.source]) for layer in network if isinstance(layer, MaxPool)
        }

    def currents(self, layer, emitted):
        """Return what arrives at each neuron of a layer when its sources have `emitted`."""
        total = [0 for _ in range(self.size(layer.name))]
        for source, connections in self.synapses[layer.name]:
            spikes = emitted[source]
            for target, i, weight in connections:
                total[target] += weight * spikes[i]
        return total

    def size(self, name):
        """Return the number of neurons of a layer."""
        found = 1
        for n in self.shapes[name]:
            found *= n
        return found

    def fan_out(self, name):
        """Return how many connections that weigh something leave each neuron of a layer."""
        found = [0] * self.size(name)
        for source, connections in (pair for pairs in self.synapses.values() for pair in pairs):
            if source == name:
                for _, i, weight in connections:
                    found[i] += weight != 0
        return found


def naive_forward(network, image):
    """Return the count of every neuron, and the logits under the readouts' names, as lists in C order."""
    return _forward(Wiring(network), {network.input.name: flat(image)})


def naive_sequence(network, sequence):
    """Return what `naive_forward` does for every phase of a sequence, already encoded."""
    wiring, found = Wiring(network), []
    for element in sequence:
        entries = {network.input.name: _entered(network, element)}
        for memory in network.memories:
            entries[memory.name] = found[-1][memory.source] if found else [0] * wiring.size(memory.name)
        found.append(_forward(wiring, entries))
    return found


def _entered(network, element):
    """Return what one element of a sequence injects; a token is a single 1."""
    if isinstance(network.input, Tokens):
        return [int(i == int(element)) for i in range(network.input.vocabulary)]
    return flat(element)


def _forward(wiring, entries):
    network, counts = wiring.network, dict(entries)
    for layer in network.layers[len(entries) :]:
        if isinstance(layer, MaxPool):
            counts[layer.name] = [max(counts[layer.source][i] for i in taps) for taps in wiring.pools[layer.name]]
            continue
        shape = network.shapes[layer.name]
        received = [x + b for x, b in zip(wiring.currents(layer, counts), each(layer.bias, shape), strict=True)]
        if not isinstance(layer, Readout):
            threshold, initial = each(layer.threshold, shape), each(layer.initial, shape)
            reached = [(x + u) // t for x, u, t in zip(received, initial, threshold, strict=True)]
            received = [min(max(y, 0), layer.levels) for y in reached]
        counts[layer.name] = received
    return counts


@dataclass
class Run:
    """Everything that happened in one sample, by layer and step."""

    spikes: dict = field(default_factory=dict)
    potentials: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)
    logits: list = field(default_factory=list)
    last_spike: int = 0
    certified: bool = False


def cif(u, y, threshold, levels, burst, signed=True, below=0):
    """Return one neuron's potential, count and spike; it takes back at a share `below` of its threshold beneath 0."""
    spike = 0
    while u >= threshold and y < levels and spike < burst:
        u, y, spike = u - threshold, y + 1, spike + 1
    if spike == 0 and signed:
        while (u <= -below * threshold if below else u < 0) and y > 0 and spike > -burst:
            u, y, spike = u + threshold, y - 1, spike - 1
    return u, y, spike


def naive_phases(network, sequence, schedule, signed=True, sleeps=True):
    """Run the phases of a sequence, already encoded; each goes on from the counts with which the last one ended."""
    wiring, runs = Wiring(network), []
    for element in sequence:
        entries = {network.input.name: _entered(network, element)}
        for memory in network.memories:
            entries[memory.name] = runs[-1].counts[memory.source] if runs else [0] * wiring.size(memory.name)
        runs.append(_simulate(wiring, entries, schedule, signed, sleeps))
    return runs


def naive_simulate(network, image, schedule, signed=True, sleeps=True, **how):
    """Run one sample through the whole period of `schedule`, or an ablation of it.

    `how` may hold the share of its threshold that a neuron starts with (`initial`) or takes back at (`below`), and by
    layer which neurons are `silenced`.
    """
    return _simulate(Wiring(network), {network.input.name: flat(image)}, schedule, signed, sleeps, **how)


def _simulate(wiring, entries, schedule, signed=True, sleeps=True, initial=None, below=0, silenced=None):
    network, wake = wiring.network, schedule.wake_steps
    # What a memory has heard through all of a phase that never slept it says through all of the next.
    pace = {name: wake if sleeps or name == network.input.name else schedule.period for name in entries}
    near, spoken = dict.fromkeys(entries, 0), dict.fromkeys(entries, wake)
    u, y, heard, share, bias_from, release = {}, {}, {}, {}, {}, {}
    for layer in network.layers[len(entries) :]:
        name, shape = layer.name, network.shapes[layer.name]
        near[name] = 1 + min(near[s] for s in layer.sources)
        complete = spoken[name] = 1 + max(spoken[s] for s in layer.sources)
        if isinstance(layer, Neurons):
            spoken[name] = complete - 1 + math.ceil(layer.levels / schedule.max_burst)
        bias_from[name], release[name] = near[name] + 1, complete if schedule.released else 1
        y[name] = [0] * wiring.size(name)
        if isinstance(layer, MaxPool):
            heard[name] = [0] * wiring.size(layer.source)
        else:
            bias = each(layer.bias, shape)
            share[name] = [abs(b) // wake * (1 if b > 0 else -1) for b in bias]
            u[name] = [b - wake * s for b, s in zip(bias, share[name], strict=True)]
            if not isinstance(layer, Readout):
                own = each(layer.initial, shape)
                if initial is not None:
                    own = [int(initial * threshold // 1) for threshold in each(layer.threshold, shape)]
                u[name] = [a + b for a, b in zip(u[name], own, strict=True)]
    settled = max(wake + 1, *(t + wake - 1 for t in bias_from.values()), *release.values())
    emitted = {name: [0] * wiring.size(name) for name in network.shapes}
    readouts = [readout.name for readout in network.readouts]
    run = Run({name: [] for name in emitted if name not in readouts}, {name: [] for name in u})
    for step in range(1, schedule.period + 1):
        arriving = emitted
        emitted = {
            name: [
                x * step // pace[name] - x * (step - 1) // pace[name] if step <= pace[name] or not sleeps else 0
                for x in values
            ]
            for name, values in entries.items()
        }
        for layer in network.layers[len(entries) :]:
            name = layer.name
            if isinstance(layer, MaxPool):
                heard[name] = [a + b for a, b in zip(heard[name], arriving[layer.source], strict=True)]
                before, y[name] = y[name], [max(heard[name][i] for i in taps) for taps in wiring.pools[name]]
                emitted[name] = [a - b for a, b in zip(y[name], before, strict=True)]
                continue
            current = wiring.currents(layer, arriving)
            if bias_from[name] <= step and (step < bias_from[name] + wake or not sleeps):
                current = [c + b for c, b in zip(current, share[name], strict=True)]
            u[name] = [a + c for a, c in zip(u[name], current, strict=True)]
            if isinstance(layer, Readout):
                continue
            emitted[name] = [0] * wiring.size(name)
            if step >= release[name]:
                for i, threshold in enumerate(each(layer.threshold, network.shapes[name])):
                    if silenced and silenced[name][i]:
                        continue
                    u[name][i], y[name][i], emitted[name][i] = cif(
                        u[name][i],
                        y[name][i],
                        threshold,
                        layer.levels if signed and sleeps else 10**9,
                        schedule.max_burst,
                        signed,
                        below,
                    )
        active = any(any(emitted[layer.name]) for layer in network.spiking)
        run.last_spike = step if active else run.last_spike
        run.certified = run.certified or (step >= settled and not active)
        for name, spikes in emitted.items():
            run.spikes[name].append(spikes)
        for name, values in u.items():
            run.potentials[name].append(list(values))
    run.counts, run.logits = y, [x for name in readouts for x in u[name]]
    return run
