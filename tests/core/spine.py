"""The equality that the project is about, as a list of what breaks it, so that sabotage can be seen to break it."""

from __future__ import annotations

import dataclasses

import numpy as np

from lava_casc.network import Dense, Input, IntegerNetwork, Neurons, Readout
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule


def inexact(network, images, schedule, expected=None):
    """Return what a run that should be certified and exact gets wrong, in words; nothing where all is well."""
    found = simulate(network, images, schedule)
    expected = forward(network, images) if expected is None else expected
    wrong = [] if found.all_certified else ["not certified"]
    if found.last_spike.max(initial=0) > network.silence_bound(schedule):
        wrong.append("spikes after the bound")
    if list(found.counts) != [layer.name for layer in network.spiking]:
        wrong.append("layers")
    wrong += [f"counts of {name}" for name in found.counts if not same(found.counts[name], expected.counts[name])]
    return wrong if same(found.logits, expected.logits) else [*wrong, "logits"]


def same(a, b):
    """Return whether two arrays agree in every value, in shape and in dtype."""
    return a.shape == b.shape and a.dtype == b.dtype and bool((a == b).all())


def settled(network, **how):
    """Return a schedule with sleep enough for the network's bound and for the silent step that certifies."""
    schedule = WakeSleepSchedule(**{"wake_steps": network.levels, "sleep_steps": 0} | how)
    last = max(network.silence_bound(schedule) + 1, network.last_event(schedule))
    return dataclasses.replace(schedule, sleep_steps=last - schedule.wake_steps)


def schedules(network):
    """Return the two modes and one in between."""
    return network.schedule("unary"), network.schedule("graded"), settled(network, max_burst=2)


def replaced(network, name, **changes):
    """Return the network with one layer changed."""
    layers = (dataclasses.replace(layer, **changes) if layer.name == name else layer for layer in network)
    return IntegerNetwork(tuple(layers))


def neuron(name, source, weight, threshold=1, levels=1, bias=0, initial=0):
    """Return a dense layer, made of lists of numbers."""
    weight = np.array(weight, np.int32)
    n = len(weight)
    values = (np.broadcast_to(np.array(v, np.int64), n) for v in (bias, threshold, initial))
    return Neurons(name, (Dense(source, weight),), *values, levels, np.ones(n))


def dense_network(*layers, pixels=1, low=0, high=1, readout=None):
    """Return a flat network: the given layers, and a readout that reads the last."""
    entry = Input("input", (pixels,), low, high)
    last = (entry, *layers)[-1]
    size = len(last.threshold) if isinstance(last, Neurons) else pixels
    weight = np.ones((1, size), np.int32) if readout is None else np.array(readout, np.int32)
    end = Readout("readout", (Dense(last.name, weight),), np.zeros(len(weight), np.int64))
    return IntegerNetwork((entry, *layers, end))


def slowest(depth, levels):
    """Return a chain in which each layer turns round only once the one before has turned round in whole.

    The image ``[1]`` arrives in the last step of the wake and takes back what the first layer was started with. Then
    one layer after the other falls from `levels` to 0, or rises from 0 to `levels`, with the very last unit.
    """
    weight = levels + 1
    layers = [neuron("layer1", "input", [[-weight]], levels=levels, initial=levels)]
    for k in range(2, depth + 1):
        initial = levels if k % 2 == 0 else levels + weight * (levels - 1)
        layers.append(neuron(f"layer{k}", layers[-1].name, [[-weight]], levels=levels, initial=initial))
    return dense_network(*layers)
