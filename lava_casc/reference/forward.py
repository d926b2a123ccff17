"""The integer network without time: what every certified run equals, bit for bit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.linear import apply, max_pool
from lava_casc.network import IntegerNetwork, MaxPool, Readout, per_neuron
from lava_casc.reference.batch import batches


@dataclass(frozen=True, eq=False)
class Activations:
    """The result of a time-free forward pass.

    Attributes
    ----------
    counts : dict of str to (N, ...) ndarray of int64
        ``clip(X // threshold, 0, levels)`` of every spiking layer, in topological order.
    logits : (N, K) ndarray of int64
        ``X`` of the readout.
    """

    counts: dict[str, NDArray[np.int64]]
    logits: NDArray[np.int64]


def forward(network: IntegerNetwork, images: ArrayLike, batch_size: int | None = None) -> Activations:
    """Compute every count and every logit of the integer network.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) array of integers
        Within the input's range; `Input.encode` is applied to them.
    batch_size : int, optional
        Samples computed at a time; by default as many as memory allows, see `lava_casc.reference.batch`.

    Raises
    ------
    DataError, RangeError
        The images do not fit the network's input.
    """
    images = network.input.encode(images)
    parts = [_forward(network, images[part]) for part in batches(network, len(images), batch_size, most=256)]
    counts = {layer.name: np.concatenate([found[layer.name] for found in parts]) for layer in network.spiking}
    logits = np.concatenate([found[network.readout.name] for found in parts])
    return Activations(counts, logits.reshape(len(images), math.prod(logits.shape[1:])))


def _forward(network: IntegerNetwork, images: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    # float64 holds every partial sum exactly: the range proof keeps them far below 2**53.
    values = {network.input.name: torch.as_tensor(images, dtype=torch.float64)}
    for layer in network.computed:
        if isinstance(layer, MaxPool):
            values[layer.name] = max_pool(layer, values[layer.source])
            continue
        shape = network.shapes[layer.name]
        currents = [apply(synapse, values[synapse.source]) for synapse in layer.synapses]
        received = torch.stack(currents).sum(0).to(torch.int64) + _tensor(layer.bias, shape)
        if not isinstance(layer, Readout):
            received = received + _tensor(layer.initial, shape)
            received = torch.div(received, _tensor(layer.threshold, shape), rounding_mode="floor").clamp(
                0, layer.levels
            )
        values[layer.name] = received.to(torch.float64)
    return {name: value.to(torch.int64).numpy() for name, value in values.items()}


def _tensor(values: NDArray[np.int64], shape: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(per_neuron(values, shape))
