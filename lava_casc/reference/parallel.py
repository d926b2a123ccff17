"""The parallel neuron: all spikes of a layer at once, sorted, from the whole of what it receives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.dynamics.batch import batches
from lava_casc.errors import UnsupportedModelError
from lava_casc.integer import IntArray, comparator_biases
from lava_casc.linear import apply, effective_weight, exact_dtype
from lava_casc.network import IntegerNetwork, MaxPool, Neurons, Readout, per_neuron


@dataclass(frozen=True, eq=False)
class ParallelRecord:
    """What a network of parallel neurons said.

    Attributes
    ----------
    spikes : dict of str to (N, T, ...) ndarray of bool
        Of every spiking layer, in topological order, step 1 first. T is the layer's levels, a pool's those of what it
        reads.
    logits : (N, K) ndarray of int64
        What the readouts received in all T steps.
    """

    spikes: dict[str, NDArray[np.bool_]]
    logits: IntArray


def parallel(network: IntegerNetwork, images: ArrayLike, batch_size: int | None = None) -> ParallelRecord:
    r"""Run a network of parallel neurons, layer by layer (arXiv 2412.13610).

    A layer waits for the input :math:`I_1 \dots I_T` of all T steps, and its neurons then fire in step x = 1 .. T if

    .. math::

        \frac{1}{T - x + 1} \sum_t I_t + \frac{\theta}{2 (T - x + 1)} \geq \theta,

    which is if the total and what the network starts with (``initial``, a half of the threshold where it rounds) reach
    ``T - x + 1`` thresholds. So the spikes are sorted: none in the steps before some one, and one in every step from
    then on. Their number is exactly ``clip((X + initial) // threshold, 0, T)``, the integer network's count: nothing is
    lost, and nothing is to be settled. The paper's is the neuron and its two properties; that a network of T steps is
    the integer network of T levels, and this arithmetic in integers, are ours.

    Parameters
    ----------
    network : IntegerNetwork
        Its levels are the steps. `lava_casc.pipeline.with_levels` makes one of any number of steps.
    images : (N, ...) array of integers
        Within the input's range.
    batch_size : int, optional
        Samples computed at a time; by default as many as memory allows.

    Returns
    -------
    ParallelRecord
        ``spikes`` by layer, (N, T, ...) bool, step 1 first, and ``logits`` (N, K), int64.

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    DataError, RangeError
        The images do not fit the network's input.
    """
    if network.is_recurrent:
        raise UnsupportedModelError(
            "a parallel neuron waits for the whole of its input, which in a recurrent network waits for the neuron. "
            "Use lava_casc.simulate."
        )
    images = network.encode(images)
    parts = [_once(network, images[part]) for part in batches(network, len(images), batch_size, most=64)]
    spikes = {name: np.concatenate([found.spikes[name] for found in parts]) for name in parts[0].spikes}
    return ParallelRecord(spikes, np.concatenate([found.logits for found in parts]))


def fires(z: IntArray, biases: IntArray) -> NDArray[np.bool_]:
    """Return the spikes (N, T, ...) of parallel neurons: step x is comparator ``T - x + 1``.

    Parameters
    ----------
    z : (N, ...) ndarray of int64
        What they receive in all.
    biases : (..., T) ndarray of int64
        As `comparator_biases` returns them.
    """
    steps = biases.shape[-1]
    found = np.empty((len(z), steps, *z.shape[1:]), bool)
    for x in range(1, steps + 1):
        np.greater(z, -biases[..., steps - x], out=found[:, x - 1])
    return found


def _once(network: IntegerNetwork, images: IntArray) -> ParallelRecord:
    spikes: dict[str, NDArray[np.bool_]] = {}
    totals = {network.input.name: network.input.injected(images)}
    logits = []
    for layer in network.computed:
        name, shape = layer.name, network.shapes[layer.name]
        if isinstance(layer, MaxPool):
            spikes[name] = _any_of_window(layer, spikes[layer.source])
            totals[name] = spikes[name].sum(1)
            continue
        received = _received(network, layer, totals)
        if isinstance(layer, Readout):
            logits.append((received + per_neuron(layer.bias, shape)).reshape(len(images), math.prod(shape)))
            continue
        offset = np.broadcast_to(per_neuron(layer.bias, shape) + per_neuron(layer.initial, shape), shape)
        biases = comparator_biases(offset, per_neuron(layer.threshold, shape), layer.levels)
        spikes[name] = fires(received, biases)
        totals[name] = spikes[name].sum(1)
    return ParallelRecord(spikes, np.concatenate(logits, 1))


def _received(network: IntegerNetwork, layer: Neurons | Readout, totals: dict[str, IntArray]) -> IntArray:
    """Return what the spikes of all steps bring to a layer, without its bias: ``sum_t I_t``, as the sum is linear."""
    dtype = exact_dtype(network.magnitudes[layer.name])
    parts = [
        apply(synapse, torch.as_tensor(totals[synapse.source]).to(dtype), effective_weight(synapse, dtype))
        for synapse in layer.synapses
    ]
    found: IntArray = sum((part.to(torch.int64) for part in parts[1:]), parts[0].to(torch.int64)).numpy()
    return found


def _any_of_window(pool: MaxPool, spikes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pooled spikes, step by step; of sorted ones this is the maximum of the counts."""
    steps = torch.as_tensor(spikes.reshape(-1, *spikes.shape[2:])).float()
    pooled = torch.nn.functional.max_pool2d(steps, pool.kernel, pool.stride, pool.padding, pool.dilation)
    return pooled.bool().numpy().reshape(*spikes.shape[:2], *pooled.shape[1:])
