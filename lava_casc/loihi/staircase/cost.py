"""What the staircase form of a network takes: neurons, and steps. Neither Lava nor torch is needed."""

from __future__ import annotations

import math

from lava_casc.errors import UnsupportedModelError
from lava_casc.network import IntegerNetwork, MaxPool, Neurons

#: Steps from the counts of a layer to those of the next, one for each synapse: the weights, the way to the L
#: comparators, and the sum of what they say.
STEPS_A_LAYER = 3


def staircase_cost(network: IntegerNetwork) -> dict[str, int]:
    """Return the neurons of every computed layer in the staircase form, in topological order.

    A unit of `Neurons` takes L comparators and two graded neurons (L + 2), one of a `MaxPool` L comparators and one
    graded neuron (L + 1), one of a `Readout` a single graded neuron. The CIF form takes one neuron for each of them.
    The input is the host's, in both forms.

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    """
    refuse_recurrence(network)
    found = {}
    for layer in network.computed:
        each = 1
        if isinstance(layer, Neurons | MaxPool):
            each = network.peaks[layer.name] + (2 if isinstance(layer, Neurons) else 1)
        found[layer.name] = each * math.prod(network.shapes[layer.name])
    return found


def settling_steps(network: IntegerNetwork) -> dict[str, int]:
    """Return the step from which on every layer's value is the integer network's, its input held from step 1 on.

    One step a synapse: three for `Neurons`; a `MaxPool` reads comparators, which are a step ahead of the counts, and
    comes one step after them; a `Readout` is one synapse. Where branches meet the longest one counts. The greatest of
    these steps is how long each sample is held.

    Raises
    ------
    UnsupportedModelError
        The network is recurrent.
    """
    refuse_recurrence(network)
    found = {network.input.name: 1}
    for layer in network.computed:
        takes = STEPS_A_LAYER if isinstance(layer, Neurons) else 1
        found[layer.name] = takes + max(found[source] for source in layer.sources)
    return found


def refuse_recurrence(network: IntegerNetwork) -> None:
    """Refuse a network with memories: the staircase has nothing that remembers."""
    if network.is_recurrent:
        raise UnsupportedModelError(
            f"{network.memories[0].name}: the staircase has no memory, and cannot hold a recurrent network. "
            "Use the engine fused or graph."
        )
