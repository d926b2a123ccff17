"""Biases that bring the mean of what a channel of spiking neurons says to that of the float network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lava_casc.baselines.rates import Rates
from lava_casc.frontend.fold import FloatNetwork, FloatNeurons, evaluate
from lava_casc.network import IntegerNetwork, Neurons, per_neuron

#: Samples that the float network computes at a time.
BATCH = 16


def calibrated(rates: Rates, folded: FloatNetwork, x: NDArray[np.int64], scale: float, steps: int) -> Rates:
    r"""Return `rates` with other biases: the light pipeline of Li et al. (ICML 2021), arXiv 2106.06984.

    Layer by layer, what its spikes fall short of is added to the bias of each channel c:

    .. math::

        b_c \leftarrow b_c + \operatorname{mean}(a_c) - \lambda \operatorname{mean}(r_c),

    with the float network's activation a, and the rate r after `steps` steps of the spiking layer behind all layers
    that were calibrated before. The paper's is this correction. Ours are the float network, which is the checkpoint's
    CQReLU network here and a ReLU network there, and the integers: a bias is delivered in every step, and is rounded to
    a whole number in units of the weights, which are ``lambda / threshold``. Where neurons are clipped, or negative,
    their rates follow the bias less than in whole, and an error remains.

    Parameters
    ----------
    rates : Rates
    folded : FloatNetwork
        What the network was made of.
    x : (N, ...) array of integers
        Calibration samples.
    scale : float
        Of the input: the float network takes ``scale * x``.
    steps : int
        T.

    Returns
    -------
    Rates
        The same network with other biases.
    """
    means = _means(folded, x, scale)
    for layer in rates.network:
        if isinstance(layer, Neurons):
            rates = replace(rates, network=_corrected(rates, layer.name, x, means[layer.name], steps))
    return rates


def _corrected(
    rates: Rates, name: str, x: NDArray[np.int64], wanted: NDArray[np.float64], steps: int
) -> IntegerNetwork:
    """Return the network with the bias of one layer corrected, for the shares of rate 1 that are `wanted`, (C,)."""
    network = rates.network
    layer = network[name]
    if not isinstance(layer, Neurons):
        raise TypeError(f"{name} has no neurons")
    found = rates.counts(x, name, steps) / steps
    missing = wanted - found.swapaxes(0, 1).reshape(len(wanted), -1).mean(1)
    shift = np.rint(missing * layer.threshold).astype(np.int64)
    bias = layer.bias + (shift if layer.bias.ndim == 1 else per_neuron(shift, network.shapes[name]))
    return IntegerNetwork(tuple(replace(layer, bias=bias) if each.name == name else each for each in network))


def _means(folded: FloatNetwork, x: NDArray[np.int64], scale: float) -> dict[str, NDArray[np.float64]]:
    """Return the mean of every channel's activation, as a share of the threshold, (C,)."""
    neurons = [layer for layer in folded.layers if isinstance(layer, FloatNeurons)]
    sums = {layer.name: np.zeros(folded.shapes[layer.name][0]) for layer in neurons}
    for start in range(0, len(x), BATCH):
        values = evaluate(folded, torch.as_tensor(x[start : start + BATCH], dtype=torch.float64) * scale)
        for layer in neurons:
            share = values[layer.name].transpose(0, 1).flatten(1).sum(1).numpy() / layer.threshold
            sums[layer.name] += share
    return {
        layer.name: sums[layer.name] / (len(x) * np.prod(folded.shapes[layer.name][1:], dtype=int)) for layer in neurons
    }
