"""What a block of neurons needs of its core: the cost model.

* **Neurons** are counted as they are.
* **Synaptic memory.** A convolution's kernels are shared: a core holds those of its channels once, however many places
  it has of them. A dense synapse has a weight for each pair. Weights take the bits that the greatest of the synapse
  needs, zeros too. A pool's window is a kernel of one weight a place.
* **Axons in.** One for each neuron of a source that reaches the block, and for each synapse that it does so by.
* **Axons out.** One for each core that a neuron reaches, and for each synapse that it does so by.

All of it is a product of a number for the channels, one for the rows and one for the columns, since blocks and
receptive fields are boxes. Input and memories are sent by the host or the embedded processors and take no core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lava_casc.mapping.grid import Axes, Grid, three_axes
from lava_casc.network import Conv, IntegerNetwork, MaxPool, Neurons, Readout, Synapse

#: What a core has so much of, and no more.
RESOURCES = ("neurons", "synaptic_memory", "axons_in", "axons_out")
Computed = Neurons | MaxPool | Readout


@dataclass(frozen=True, eq=False)
class Window:
    """How a layer reads one source: a box of the source for each neuron.

    Attributes
    ----------
    source : str
    from_shape, to_shape : (int, int, int)
    kernel, stride, padding, dilation : (int, int)
        Of rows and columns.
    groups : int
        Channels of the source and of the layer, in so many groups of their own.
    bits_per_channel : int
        Bits of the weights of one channel of the layer.
    """

    source: str
    from_shape: Axes
    to_shape: Axes
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    bits_per_channel: int

    @cached_property
    def reach(self) -> tuple[NDArray[np.bool_], ...]:
        """For channels, rows and columns: whether each place of the layer reads each place of the source."""
        found = []
        for axis in range(3):
            places, sources = self.to_shape[axis], np.arange(self.from_shape[axis])
            if axis == 0:
                groups = np.arange(places) // (places // self.groups)
                found.append(groups[:, None] == sources // (len(sources) // self.groups))
                continue
            begin = np.arange(places) * self.stride[axis - 1] - self.padding[axis - 1]
            taps = begin[:, None] + np.arange(self.kernel[axis - 1]) * self.dilation[axis - 1]
            found.append((taps[:, :, None] == sources).any(1))
        return tuple(found)

    def read(self, grid: Grid, axis: int) -> NDArray[np.bool_]:
        """Return which places of the source each piece of the layer reads along an axis: (pieces, places)."""
        if axis == 0 and self.groups == 1:
            return np.ones((grid.cuts[0], self.from_shape[0]), bool)
        return np.logical_or.reduceat(self.reach[axis], grid.edges(axis)[:-1], axis=0)


def windows(network: IntegerNetwork, layer: Computed) -> Iterator[Window]:
    """Yield how a layer reads its sources, one window a synapse."""
    shape = three_axes(network.shapes[layer.name])
    if isinstance(layer, MaxPool):
        source = three_axes(network.shapes[layer.source])
        taps = layer.kernel[0] * layer.kernel[1]
        yield Window(
            layer.source, source, shape, layer.kernel, layer.stride, layer.padding, layer.dilation, shape[0], taps
        )
        return
    for synapse in layer.synapses:
        source = three_axes(network.shapes[synapse.source])
        bits = synapse.weight[0].size * weight_bits(synapse)
        if isinstance(synapse, Conv):
            kernel = (synapse.weight.shape[2], synapse.weight.shape[3])
            yield Window(
                synapse.source, source, shape, kernel, synapse.stride, synapse.padding, synapse.dilation,
                synapse.groups, bits,
            )  # fmt: skip
        else:
            # Each neuron reads everything, through a kernel as large as the source.
            yield Window(synapse.source, source, shape, (source[1], source[2]), (1, 1), (0, 0), (1, 1), 1, bits)


def weight_bits(synapse: Synapse) -> int:
    """Return the signed bits that the greatest weight of a synapse takes."""
    high, low = int(synapse.weight.max(initial=0)), int(synapse.weight.min(initial=0))
    return 1 + max(high, -low - 1, 1).bit_length()


def needs(grid: Grid, reads: list[Window], readers: list[tuple[Window, Grid]]) -> dict[str, NDArray[np.int64]]:
    """Return what every block of a layer needs, by resource; memory in bytes.

    Parameters
    ----------
    grid : Grid
        Of the layer.
    reads : list of Window
        What it reads.
    readers : list of (Window, Grid)
        Who reads it, and how these are cut.
    """
    ones = [np.ones(pieces, np.int64) for pieces in grid.cuts]
    memory, axons_in, axons_out = (np.zeros(grid.blocks, np.int64) for _ in range(3))
    for window in reads:
        memory += grid.outer(grid.sizes(0) * window.bits_per_channel, ones[1], ones[2])
        axons_in += grid.outer(*(window.read(grid, axis).sum(1) for axis in range(3)))
    for window, theirs in readers:
        axons_out += grid.outer(*(sums(window.read(theirs, axis).sum(0), grid, axis) for axis in range(3)))
    return {
        "neurons": grid.neurons,
        "synaptic_memory": -(-memory // 8),
        "axons_in": axons_in,
        "axons_out": axons_out,
    }


def sums(values: NDArray[np.int64], grid: Grid, axis: int) -> NDArray[np.int64]:
    """Return the sum over each piece of an axis."""
    return np.add.reduceat(values, grid.edges(axis)[:-1])


def routes(grid: Grid, window: Window, theirs: Grid) -> NDArray[np.bool_]:
    """Return which block of a source sends to which block of its reader: (blocks, blocks of the reader)."""
    met = []
    for axis in range(3):
        read = window.read(theirs, axis)
        met.append(np.logical_or.reduceat(read, grid.edges(axis)[:-1], axis=1).T)
    channels, rows, columns = met
    every = channels[:, None, None, :, None, None] & rows[:, None, None, :, None] & columns[:, None, None, :]
    return every.reshape(grid.blocks, theirs.blocks)
