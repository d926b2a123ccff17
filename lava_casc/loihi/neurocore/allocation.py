"""What a CIF layer puts on a neurocore: the constants that it shares, and the words that each neuron has for itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import exceeds
from lava_casc.loihi.neurocore.interpreter import cif_program

REMEDY = "Use fewer levels, weight bits or steps, or a shorter burst: docs/microcode.md has every width"


@dataclass(frozen=True)
class Allocation:
    """The values with which the neuron program starts, proven to fit its registers.

    An `IntegerNetwork` has one number of levels and one timing a layer, so those are constants. Threshold and initial
    potential may differ from channel to channel, and the bias even from neuron to neuron (where zero padding meets a
    shifted input); a neurocore's constants are the same for all that run a program. So these three are words.

    Attributes
    ----------
    neurons : int
        N, in C order of the process' own shape, (W, H, C) or (N,).
    constants : dict of str to int
    words : dict of str to (N,) ndarray of int64
        All words but `u` and `y`, which start as the process' variables do.
    message_bits : int
        Signed bits of a spike.
    """

    neurons: int
    constants: dict[str, int]
    words: dict[str, NDArray[np.int64]]
    message_bits: int


def allocate(params: Mapping[str, Any], variables: Mapping[str, NDArray]) -> Allocation:
    """Return the allocation of a CIF process.

    Parameters
    ----------
    params : mapping
        The process' `proc_params`.
    variables : mapping of str to ndarray
        The initial values of its variables `bias`, `u0` and `threshold`.

    Raises
    ------
    RangeError
        A value does not fit the register that the program has for it.
    """
    program, path, shape = cif_program(), params["path"], tuple(params["shape"])
    limit = program.slots["u"].bits
    if params["state_bits"] > limit:
        remedy = f"Build the process with state_bits={limit}"
        raise exceeds(path, "state_bits", params["state_bits"], "the bits of a neurocore's state words", limit, remedy)
    most = min(params["max_burst"], params["levels"])
    constants = {
        "levels": params["levels"],
        "period": params["period"],
        "wake": params["bias_start"],
        "sleep": params["bias_start"] + params["wake_steps"],
        "free": params["release"],
        "most": most,
        "least": -most,
    }
    sources = {"bias": variables["bias"], "u0": variables["u0"], "theta": variables["threshold"], "t": np.zeros(1)}
    words = {name: np.broadcast_to(value, shape).astype(np.int64).ravel() for name, value in sources.items()}
    for name, value in constants.items():
        program.slots[name].hold(value, path, REMEDY)
    for name, values in words.items():
        program.slots[name].hold(int(values.min()), path, REMEDY)
        program.slots[name].hold(int(values.max()), path, REMEDY)
    return Allocation(math.prod(shape), constants, words, program.slots["s"].bits)
