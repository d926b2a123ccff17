"""The gate: one number a step that tells every process where in its sample the network is.

============  ==========================================================================================
code          meaning
============  ==========================================================================================
1 .. period   the local step of the sample; 1 starts a new one: reset, and discard what arrives in it
0             no controller is connected (an unconnected `InPort` receives zeros): count by yourself
-1            idle: all samples are over, keep the state, discard what arrives, say nothing
============  ==========================================================================================

In local step 1 nothing of the new sample can have arrived, because everything is at least one synapse away
from the input. What arrives is left over from a sample that was cut short; discarding it keeps the samples
apart.
"""

from __future__ import annotations

from numpy.typing import NDArray

IDLE = -1
UNCONTROLLED = 0


def local_step(code: NDArray, time_step: int, period: int) -> int:
    """Return the local step that the gate's `code` means in Lava's `time_step` (1, 2, ...), or `IDLE`."""
    step = int(code[0])
    return (time_step - 1) % period + 1 if step == UNCONTROLLED else step
