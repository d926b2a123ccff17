"""What Lava's LIF can hold as a comparator, and which layers of a network do not fit it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import RangeError, exceeds
from lava_casc.hardware import Hardware
from lava_casc.integer import Interval, comparator_biases, signed_range
from lava_casc.loihi.staircase.cost import refuse_recurrence
from lava_casc.network import IntegerNetwork, MaxPool, Neurons, per_neuron
from lava_casc.ranges import check_ranges, contribution, source_of

#: Signed bits of what a LIF receives in a step, and of the mantissa of its bias; unsigned bits of its threshold.
#: Source: lava-nc 0.10.0, lava/proc/lif/models.py (a_in, bias_mant, vth).
INPUT_BITS, BIAS_BITS, THRESHOLD_BITS = 16, 13, 17
#: A GradedVec receives, holds and sends so many signed bits; Lava's Conv wraps what it delivers at as many.
#: Source: lava-nc 0.10.0, lava/proc/graded/models.py and lava/proc/conv/models.py.
GRADED_BITS = 24
#: Signed bits of a weight: Lava's Dense clips what does not fit. Source: lava-nc 0.10.0, lava/proc/dense/models.py.
WEIGHT_BITS = 8
#: LIF shifts its input and its threshold by 6 bits. With the same exponent, a bias is in their units.
BIAS_EXPONENT = 6

FEWER_BITS = "Export with fewer --weight-bits, or use the engine fused or graph"


class Comparators(NamedTuple):
    """The comparators of a layer: the k-th of a unit spikes where ``z + bias > threshold``.

    Attributes
    ----------
    bias : (..., L) ndarray of int64
        ``b - k * theta + 1 + threshold``, k = 1 .. L along the last axis; in torch's layout (C, H, W, L) or (N, L).
    threshold : int
        One for the whole layer. Of all that would do, the least that lifts every bias to its register's low end.
    """

    bias: NDArray[np.int64]
    threshold: int


def comparators(network: IntegerNetwork, layer: Neurons | MaxPool) -> Comparators:
    """Return the comparators of a layer, whether they fit their registers or not.

    ``z + b >= k * theta`` is ``z + (b - k * theta + 1 + V) > V`` for every V, with ``b = bias + initial``: the layer's
    threshold V takes what all biases have in common, so that only their span has to fit 13 bits. A max pool compares
    the number of its window's spikes at a level with 1: bias 0, threshold 0.
    """
    shape, levels = network.shapes[layer.name], network.peaks[layer.name]
    if isinstance(layer, MaxPool):
        return Comparators(np.zeros((*shape, levels), np.int64), 0)
    offset = np.broadcast_to(per_neuron(layer.bias, shape) + per_neuron(layer.initial, shape), shape)
    bias = comparator_biases(offset, per_neuron(layer.threshold, shape), levels)
    threshold = max(0, signed_range(BIAS_BITS)[0] - int(bias.min()))
    return Comparators(bias + threshold, threshold)


def staircase_refusals(network: IntegerNetwork) -> dict[str, str]:
    """Return why layers do not fit Lava's LIF: one line a layer, value, limit and remedy; empty where all of them fit.

    The input of a comparator is bounded by interval arithmetic, for whatever counts its sources may reach, as in
    `lava_casc.ranges`; the rest is read off the integers.

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    """
    refuse_recurrence(network)
    errors = {layer.name: _refusal(network, layer) for layer in network.spiking}
    return {name: str(error) for name, error in errors.items() if error is not None}


def check_staircase(network: IntegerNetwork, hardware: Hardware) -> None:
    """Refuse a network whose staircase `hardware`, or one of Lava's stock processes, might not hold.

    Weights, their exponents, messages and accumulators are held to `hardware` as those of the CIF form are, and to what
    Lava's processes have where `hardware` has more; then every layer to the registers of LIF.

    Raises
    ------
    RangeError
        Names every layer that does not fit, one sentence after the other.
    UnsupportedModelError
        The network is recurrent.
    """
    refuse_recurrence(network)
    most = {"state_bits": GRADED_BITS, "message_bits": GRADED_BITS, "weight_bits": WEIGHT_BITS}
    narrow = {name: min(getattr(hardware, name), bits) for name, bits in most.items()}
    check_ranges(network, hardware.with_registers(**narrow))
    refused = staircase_refusals(network)
    if refused:
        raise RangeError(" ".join(refused.values()))


def _refusal(network: IntegerNetwork, layer: Neurons | MaxPool) -> RangeError | None:
    name, (low, high) = layer.name, signed_range(INPUT_BITS)
    if isinstance(layer, MaxPool):
        window, remedy = math.prod(layer.kernel), "Pool in several layers"
        return (
            exceeds(name, "a window's spikes", window, _lif("input", INPUT_BITS), high, remedy)
            if window > high
            else None
        )
    received = Interval(np.zeros(1, np.int64), np.zeros(1, np.int64))
    for synapse in layer.synapses:
        received += contribution(synapse, *source_of(network, network[synapse.source]))  # type: ignore[arg-type]
    least, greatest = int(received.low.min()), int(received.high.max())
    if least < low or greatest > high:
        value, limit = (greatest, high) if greatest - high >= low - least else (least, low)
        what = "the worst-case input of a comparator"
        return exceeds(name, what, value, _lif("input", INPUT_BITS), limit, FEWER_BITS)
    bias, threshold = comparators(network, layer)
    limit = signed_range(BIAS_BITS)[1]
    if bias.max() > limit:
        what = f"a comparator's bias at the threshold {threshold}"
        return exceeds(name, what, int(bias.max()), _lif("bias", BIAS_BITS), limit, FEWER_BITS)
    limit = (1 << THRESHOLD_BITS) - 1
    if threshold > limit:
        return exceeds(
            name, "the comparators' threshold", threshold, _lif("threshold", THRESHOLD_BITS, ""), limit, FEWER_BITS
        )
    return None


def _lif(register: str, bits: int, signed: str = "signed ") -> str:
    return f"the {bits} {signed}bits of LIF's {register}"
