"""How many samples are computed at a time: it bounds the memory and changes no result."""

from __future__ import annotations

from lava_casc.network import IntegerNetwork

#: Neurons of all samples of a batch together, where the caller does not choose: about a gigabyte of state.
BATCH_NEURONS = 1 << 24


def batches(network: IntegerNetwork, samples: int, batch_size: int | None, most: int) -> list[slice]:
    """Return the slices of `samples` to compute one after the other, at least one.

    Parameters
    ----------
    network : IntegerNetwork
    samples : int
    batch_size : int, optional
        At least 1. By default as many as have `BATCH_NEURONS` neurons together, 1 at least and `most` at most.
    most : int

    Returns
    -------
    list of slice
    """
    if batch_size is None:
        batch_size = max(1, min(most, BATCH_NEURONS // network.neurons))
    elif batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    return [slice(start, start + batch_size) for start in range(0, max(1, samples), batch_size)]
