"""The settled values of a network from processes that Lava ships, without the CIF neuron and its microcode.

Every count is a staircase of its potential, and a staircase is a sum of steps::

    y = clip((z + b) // threshold, 0, L) = sum over k = 1 .. L of [z + b >= k * threshold],    b = bias + initial

A layer is its synapses, a `GradedVec` for z, L memoryless `LIF` for each unit, and a `GradedVec` for their sum. There
is no wake, no sleep and no silence: the input is held until everything has settled, and no answer has a certificate.
What is offered here needs no Lava; `circuit` and `host` do. See docs/staircase.md. It was never run on a chip.
"""

from lava_casc.loihi.staircase.cost import settling_steps, staircase_cost
from lava_casc.loihi.staircase.limits import Comparators, check_staircase, comparators, staircase_refusals

__all__ = [
    "Comparators",
    "check_staircase",
    "comparators",
    "settling_steps",
    "staircase_cost",
    "staircase_refusals",
]
