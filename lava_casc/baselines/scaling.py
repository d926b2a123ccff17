"""Thresholds from the activations of the ReLU network: what conversions do that were given a plain ReLU network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.frontend.checkpoint import Checkpoint
from lava_casc.frontend.fold import INPUT, FloatNetwork, FloatNeurons, fold, received
from lava_casc.frontend.quantize import quantize
from lava_casc.hardware import DEFAULT, read_hardware
from lava_casc.linear import max_pool
from lava_casc.network import IntegerNetwork, MaxPool

#: Samples that are computed at a time.
BATCH = 16


def percentile_thresholds(network: FloatNetwork, x: torch.Tensor, percentile: float = 99.9) -> dict[str, float]:
    """Return a percentile of each layer's activations, over all neurons and samples, with ReLU in all layers.

    Robust normalization of Rueckauer et al. (2017), doi 10.3389/fnins.2017.00682, section 2.2.1: the 99.9th percentile
    instead of the maximum, so that a few outliers do not make all others slow. Weights are not divided by it here:
    thresholds are multiplied, which is the same.

    Parameters
    ----------
    network : FloatNetwork
        Its CQReLU are taken as ReLU: neither clipped nor quantized.
    x : (N, ...) tensor of float64
        Real inputs.
    percentile : float
        0 to 100.

    Returns
    -------
    dict of str to float
        Greater than 0. A layer whose percentile is 0 gets its greatest activation, and one that never says anything
        keeps its threshold.
    """
    neurons = [layer for layer in network.layers if isinstance(layer, FloatNeurons)]
    seen: dict[str, list[NDArray[np.float32]]] = {layer.name: [] for layer in neurons}
    for part in x.split(BATCH):
        values = {INPUT: part}
        for layer in network.layers:
            if isinstance(layer, MaxPool):
                values[layer.name] = max_pool(layer, values[layer.source])
            elif isinstance(layer, FloatNeurons):
                values[layer.name] = received(network, layer, values).clamp_(min=0)
                seen[layer.name].append(values[layer.name].float().numpy().ravel())
    found = {}
    for layer in neurons:
        activations = np.concatenate(seen.pop(layer.name))
        found[layer.name] = float(np.percentile(activations, percentile)) or float(activations.max()) or layer.threshold
    return found


def percentile_network(
    checkpoint: Checkpoint, samples: NDArray[np.int64], percentile: float = 99.9, hardware: str = DEFAULT
) -> IntegerNetwork:
    """Return the integer network of a checkpoint with the thresholds of `percentile_thresholds`, and 8-bit weights.

    Parameters
    ----------
    checkpoint : Checkpoint
    samples : (N, ...) array of integers
        Calibration samples.
    percentile : float
        Within (0, 100].
    hardware : str
        Name or path of a hardware configuration.

    Returns
    -------
    IntegerNetwork

    Raises
    ------
    RangeError
        It cannot be made to fit the hardware.
    """
    folded = fold(checkpoint.graph)
    x = torch.as_tensor(samples, dtype=torch.float64) * checkpoint.input.scale
    thresholds = percentile_thresholds(folded, x, percentile)
    layers = tuple(
        replace(layer, threshold=thresholds[layer.name]) if isinstance(layer, FloatNeurons) else layer
        for layer in folded.layers
    )
    return quantize(replace(folded, layers=layers), checkpoint.input, read_hardware(hardware))[0]
