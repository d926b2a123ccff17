"""What a network could do at most: its connections, and the multiply-accumulates of the network before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from lava_casc.dynamics.trace import fan_out
from lava_casc.network import IntegerNetwork, Tokens


def connections(network: IntegerNetwork) -> dict[str, int]:
    """Return the connections that leave the neurons of each layer, borders included, whatever their weights.

    A synaptic operation is a message on one of them, if its weight is not 0.

    Parameters
    ----------
    network : IntegerNetwork

    Returns
    -------
    dict of str to int
    """
    found = dict.fromkeys(network.shapes, 0)
    for layer in network:
        for synapse in getattr(layer, "synapses", ()):
            full = dataclasses.replace(synapse, weight=np.ones_like(synapse.weight))
            found[synapse.source] += int(fan_out(full, network.shapes[synapse.source]).sum())
    return found


def multiply_accumulates(model: nn.Module, network: IntegerNetwork, phases: int = 1) -> int:
    """Return the multiply-accumulates of the float model for one sample, as torch counts them (padding included).

    Parameters
    ----------
    model : torch.nn.Module
    network : IntegerNetwork
        What it was converted to.
    phases : int
        Elements of a sequence.

    Returns
    -------
    int
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    sample = torch.zeros(1, *([phases] if network.is_recurrent else []), *network.input.sample_shape)
    with counter, torch.no_grad():
        model(sample.long() if isinstance(network.input, Tokens) else sample)
    return counter.get_total_flops() // 2
