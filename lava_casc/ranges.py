"""The proof that no potential leaves its register: interval arithmetic from the integers alone.

For every neuron and every order in which spikes may arrive, with source counts ``0 <= Y_i <= levels`` at all times:

* what it received so far, ``S(t) = initial + sum_i w_i Y_i(t - 1) + (bias delivered so far)``, lies between the sum of
  all negative and the sum of all positive contributions (the bias is delivered without ever changing sign);
* ``u = S - threshold * Y`` with ``0 <= threshold * Y <= max(0, min(threshold * levels, max S))``, because ``Y`` grows
  only where ``S >= threshold * (Y + 1)``;
* one step's current is a difference of two such ``S``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.errors import exceeds
from lava_casc.integer import Interval, signed_range
from lava_casc.linear import apply
from lava_casc.network import (
    Conv,
    Entry,
    IntegerNetwork,
    MaxPool,
    Neurons,
    Readout,
    Shape,
    Synapse,
    Tokens,
    per_neuron,
)

if TYPE_CHECKING:  # the simulator proves its ranges too, and needs no pydantic
    from lava_casc.hardware import Hardware


@dataclass(frozen=True)
class LayerRange:
    """What the registers of one layer can come to hold, neuron by neuron, whatever happens.

    Attributes
    ----------
    received : Interval
        ``S`` at any time.
    potential : Interval
        ``u`` at any time, before and after a spike.
    current : Interval
        What the synapses and the bias can deliver in a single step.
    """

    received: Interval
    potential: Interval
    current: Interval

    @property
    def bits(self) -> int:
        """Signed bits that hold the potential and the current of every neuron."""
        return max(self.potential.bits, self.current.bits)


class Source(NamedTuple):
    """What a layer can send: its shape, and the least and the greatest total that it can have sent at any time.

    `alone` says that no two of its neurons send anything, as of all tokens one is there in a phase.

    Attributes
    ----------
    shape : tuple of int
    low, high : int
    alone : bool
    """

    shape: Shape
    low: int
    high: int
    alone: bool = False


def ranges(network: IntegerNetwork) -> dict[str, LayerRange]:
    """Return the proven range of every layer that integrates.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    dict of str to LayerRange
    """
    sources = {layer.name: source_of(network, layer) for layer in network if not isinstance(layer, Readout)}
    return {
        layer.name: layer_range(layer, network.shapes[layer.name], sources)
        for layer in network
        if isinstance(layer, Neurons | Readout)
    }


def source_of(network: IntegerNetwork, layer: Entry | Neurons | MaxPool) -> Source:
    """Return what a layer of a network can send.

    Parameters
    ----------
    network : IntegerNetwork
    layer : Input, Tokens, Memory, Neurons or MaxPool

    Returns
    -------
    Source
    """
    low, high = layer.reach if isinstance(layer, Entry) else (0, network.peaks[layer.name])
    return Source(network.shapes[layer.name], low, high, isinstance(layer, Tokens))


def layer_range(layer: Neurons | Readout, shape: Shape, sources: Mapping[str, Source]) -> LayerRange:
    """Return the proven range of one layer of `shape`, from its own integers and what its sources can send.

    Parameters
    ----------
    layer : Neurons or Readout
    shape : tuple of int
    sources : mapping of str to Source

    Returns
    -------
    LayerRange
    """
    received = zero = Interval(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    for synapse in layer.synapses:
        received += contribution(synapse, *sources[synapse.source])
    bias = np.broadcast_to(per_neuron(layer.bias, shape), shape)
    received += Interval(np.minimum(bias, 0), np.maximum(bias, 0))
    span = received.high - received.low
    if isinstance(layer, Readout):
        return LayerRange(received, received, Interval(-span, span))
    threshold = np.broadcast_to(per_neuron(layer.threshold, shape), shape)
    initial = np.broadcast_to(per_neuron(layer.initial, shape), shape)
    received += Interval(initial, initial)
    taken = np.clip(received.high, 0, threshold * layer.levels)
    return LayerRange(received, Interval(received.low - taken, received.high).hull(zero), Interval(-span, span))


def contribution(synapse: Synapse, shape: Shape, low: int, high: int, alone: bool = False) -> Interval:
    """Return what a synapse can deliver in total when every source of `shape` lies in ``[low, high]``, 0 included.

    With `alone` all of them but one are 0, whichever it is; then `synapse` is a `Dense`.

    Parameters
    ----------
    synapse : Conv or Dense
    shape : tuple of int
    low, high : int
    alone : bool

    Returns
    -------
    Interval
        Of the target's shape.
    """
    if alone:
        totals: tuple[NDArray, ...] = np.maximum(synapse.weight, 0).max(1), np.minimum(synapse.weight, 0).min(1)
    else:
        totals = _of_ones(synapse, shape)
    up, down = (total * 2.0**synapse.exponent for total in totals)
    bounds = up * low + down * high, up * high + down * low
    return Interval(*(bound.astype(np.int64) for bound in bounds))


def _of_ones(synapse: Synapse, shape: Shape) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the positive and what the negative weights make of sources that are all 1."""
    ones = np.ones(synapse.weight.shape[1])
    totals = np.empty((2, len(synapse.weight), math.prod(synapse.weight.shape[2:])))
    # Row by row, so that no array of the weights' size is made.
    for row, up, down in zip(synapse.weight, *totals, strict=True):
        weight = row.reshape(len(ones), -1).astype(np.float64)
        down[...] = ones @ weight
        up[...] = ones @ np.maximum(weight, 0, out=weight)
        down -= up
    if not isinstance(synapse, Conv):
        return totals[0, :, 0], totals[1, :, 0]
    # Channels that are all alike are a single one, with the sum of their weights.
    weight = totals.reshape(-1, 1, *synapse.weight.shape[2:])
    x = torch.ones(1, 1, *shape[1:], dtype=torch.float64)
    both = apply(replace(synapse, weight=weight, groups=1, exponent=0), x)[0].numpy()
    up, down = np.split(both, 2)
    return up, down


def check_ranges(
    network: IntegerNetwork, hardware: Hardware, proven: dict[str, LayerRange] | None = None
) -> dict[str, LayerRange]:
    """Return the proven ranges, or refuse a network that a register of `hardware` might not hold.

    Parameters
    ----------
    network : IntegerNetwork
    hardware : Hardware
    proven : dict of str to LayerRange, optional
        The ranges of the same network, where they are known.

    Returns
    -------
    dict of str to LayerRange

    Raises
    ------
    RangeError
        Names the layer, the neuron, the value and the limit.
    """
    found = ranges(network) if proven is None else proven
    low, high = signed_range(hardware.state_bits)
    state = f"{hardware.state_bits} signed bits"
    for layer in network:
        if isinstance(layer, MaxPool):
            continue
        if isinstance(layer, Entry):
            low_reach, high_reach = layer.reach
            _check_message(layer.name, max(high_reach, -low_reach - 1), hardware)
            continue
        for synapse in layer.synapses:
            _check_weights(layer.name, synapse, hardware)
        for what in ("potential", "current"):
            interval = getattr(found[layer.name], what)
            excess = np.maximum(interval.high - high, low - interval.low)
            worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
            if excess[worst] > 0:
                value = max(int(interval.high[worst]), int(interval.low[worst]), key=abs)
                where = tuple(int(i) for i in worst)
                raise exceeds(
                    layer.name,
                    f"worst-case {what} of neuron {where}",
                    value,
                    f"the {state} of {hardware.name}",
                    high if value > 0 else low,
                    f"Use fewer levels, fewer weight bits, or a smaller fan-in; it is {int(excess[worst])} too much",
                )
        if isinstance(layer, Neurons):
            _check_message(layer.name, layer.levels, hardware)
            # The potential's range holds bias and initial already, whatever their sign.
            threshold = int(layer.threshold.max(initial=0))
            if threshold > high:
                raise exceeds(
                    layer.name,
                    "a threshold",
                    threshold,
                    f"the {state} of {hardware.name}",
                    high,
                    "Use fewer weight bits",
                )
    return found


def _check_weights(path: str, synapse: Synapse, hardware: Hardware) -> None:
    low, high = signed_range(hardware.weight_bits)
    for value in (int(synapse.weight.min(initial=0)), int(synapse.weight.max(initial=0))):
        if not low <= value <= high:
            raise exceeds(
                path,
                "a weight",
                value,
                f"the {hardware.weight_bits} weight bits of {hardware.name}",
                low if value < 0 else high,
                f"Quantize with at most {hardware.weight_bits} bits",
            )
    if synapse.exponent > hardware.weight_exponent_max:
        raise exceeds(
            path,
            "a weight exponent",
            synapse.exponent,
            f"the greatest of {hardware.name}",
            hardware.weight_exponent_max,
            "Train with branches of more alike scales",
        )


def _check_message(path: str, value: int, hardware: Hardware) -> None:
    _, high = signed_range(hardware.message_bits)
    if value > high:
        raise exceeds(
            path,
            "a spike's payload",
            value,
            f"the {hardware.message_bits} message bits of {hardware.name}",
            high,
            "Use fewer levels",
        )
