"""Where the step from floats to integers loses something, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lava_casc.errors import DataError
from lava_casc.frontend.fold import INPUT, FloatNetwork, FloatNeurons, activate, evaluate, received
from lava_casc.network import IntegerNetwork, MaxPool, Neurons
from lava_casc.reference import forward


def quantization_errors(
    folded: FloatNetwork, network: IntegerNetwork, samples: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Return how far each layer's integers are from its floats.

    Parameters
    ----------
    folded : FloatNetwork
        What `network` was made of.
    network : IntegerNetwork
    samples : (N, ...) array of integers

    Returns
    -------
    dict of str to dict
        By layer: ``changed``, the share of neurons whose count is not the float network's level; ``mean_change``, the
        mean of the difference, in levels; and ``own``, the share that would be changed if all that the layer reads
        were as the float layer has it from these integers: the layer's own share in the loss.

    Raises
    ------
    DataError
        The network was not made of `folded`.
    """
    theirs = {layer.name: layer.levels for layer in folded.layers if isinstance(layer, FloatNeurons)}
    ours = {layer.name: layer.levels for layer in network if isinstance(layer, Neurons)}
    if theirs != ours:
        raise DataError("the network's layers are not those of the model. Export the model again.")
    counts = forward(network, samples).counts
    real = evaluate(folded, torch.as_tensor(samples, dtype=torch.float64) * network.input.scale)
    beside = _beside(folded, network, samples, counts)
    found = {}
    for layer in folded.layers:
        if isinstance(layer, FloatNeurons):
            unit = layer.levels / layer.threshold
            change = np.abs(counts[layer.name] - np.rint(real[layer.name].numpy() * unit))
            shape = network.shapes[layer.name]
            alone = counts[layer.name].reshape(-1, *shape) != np.rint(beside[layer.name].numpy() * unit)
            found[layer.name] = {
                "changed": float((change > 0).mean()),
                "mean_change": float(change.mean()),
                "own": float(alone.mean()),
            }
    return found


def _beside(
    folded: FloatNetwork, network: IntegerNetwork, samples: NDArray[np.int64], counts: dict[str, NDArray]
) -> dict[str, torch.Tensor]:
    """Return every float layer's activation for what the integer layers say; phases are samples of their own."""
    scale = {layer.name: layer.threshold / layer.levels for layer in folded.layers if isinstance(layer, FloatNeurons)}
    for layer in folded.layers:
        if isinstance(layer, MaxPool):
            scale[layer.name] = scale[layer.source]
    values = {
        name: torch.as_tensor(found).double().reshape(-1, *network.shapes[name]) * scale[name]
        for name, found in counts.items()
    }
    if folded.vocabulary is None:
        values[INPUT] = torch.as_tensor(samples, dtype=torch.float64) * network.input.scale
    else:
        values[INPUT] = F.one_hot(torch.as_tensor(samples).flatten(), folded.vocabulary).double()
    for memory in folded.memories:
        held = torch.zeros(counts[memory.source].shape, dtype=torch.float64)
        held[:, 1:] = torch.as_tensor(counts[memory.source][:, :-1]).double() * scale[memory.source]
        values[memory.name] = held.reshape(-1, *memory.shape)
    return {
        layer.name: activate(layer, received(folded, layer, values))
        for layer in folded.layers
        if isinstance(layer, FloatNeurons)
    }
