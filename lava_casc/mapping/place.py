"""The partition: for every layer the fewest cores on which nothing is over any limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import HardwareConfigError
from lava_casc.hardware import Hardware
from lava_casc.mapping.grid import Grid, cuttings, three_axes
from lava_casc.mapping.needs import RESOURCES, Window, needs, routes, sums, windows
from lava_casc.network import IntegerNetwork

#: What each resource is called, and what helps where a single neuron needs too much of it.
WORDS = {
    "neurons": ("neurons", "Use a target with larger cores"),
    "synaptic_memory": ("bytes of weights", "Use fewer inputs a neuron, or fewer bits a weight"),
    "axons_in": ("incoming axons", "Use fewer input channels, a smaller kernel or groups"),
    "axons_out": ("outgoing axons", "Use fewer output channels behind it, or larger cores"),
}


@dataclass(frozen=True)
class Problem:
    """Something that does not fit.

    Attributes
    ----------
    layer : str
        Empty for the network as a whole.
    resource : str
        One of `RESOURCES`, or ``cores``.
    used, limit : int
    message : str
        In one line, with a remedy.
    """

    layer: str
    resource: str
    used: int
    limit: int
    message: str


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """One layer's cores.

    Attributes
    ----------
    name, type : str
    grid : Grid
    first_core : int
        Its cores are this one and those that follow.
    needs : dict of str to (cores,) ndarray of int64
        What each of them holds, by resource.
    """

    name: str
    type: str
    grid: Grid
    first_core: int
    needs: dict[str, NDArray[np.int64]]

    @property
    def cores(self) -> int:
        """How many cores it takes."""
        return self.grid.blocks

    def tightest(self, limits: dict[str, int]) -> str:
        """Return the resource of which a core is fullest: what keeps the layer from fewer cores.

        Parameters
        ----------
        limits : dict of str to int

        Returns
        -------
        str
            One of `RESOURCES`.
        """
        return max(RESOURCES, key=lambda resource: self.needs[resource].max() / limits[resource])


@dataclass(frozen=True, eq=False)
class Placement:
    """A network on a target's cores.

    Attributes
    ----------
    network : IntegerNetwork
    hardware : Hardware
    limits : dict of str to int
        Of one core, by resource.
    layers : tuple of LayerPlan
        In topological order.
    problems : tuple of Problem
        Empty if all fits.
    """

    network: IntegerNetwork
    hardware: Hardware
    limits: dict[str, int]
    layers: tuple[LayerPlan, ...]
    problems: tuple[Problem, ...]

    @property
    def cores(self) -> int:
        """Cores in all."""
        return sum(layer.cores for layer in self.layers)

    @property
    def chips(self) -> int:
        """Chips that so many cores take."""
        return -(-self.cores // _chip(self.hardware)[0])

    def utilization(self) -> list[dict[str, tuple[int, int]]]:
        """Return (used, limit) by resource for every core, in order.

        Returns
        -------
        list of dict of str to (int, int)
        """
        return [
            {resource: (int(layer.needs[resource][i]), self.limits[resource]) for resource in RESOURCES}
            for layer in self.layers
            for i in range(layer.cores)
        ]

    @cached_property
    def traffic(self) -> tuple[int, int]:
        """Pairs of cores of which one sends to the other, and how many of them lie on different chips."""
        a_chip = _chip(self.hardware)[0]
        plans = {layer.name: layer for layer in self.layers}
        met: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for layer in self.network.computed:
            for window in windows(self.network, layer):
                if window.source in plans:  # and not sent from outside
                    key = window.source, layer.name
                    found = routes(plans[window.source].grid, window, plans[layer.name].grid)
                    met[key] = met[key] | found if key in met else found
        total = crossing = 0
        for (source, reader), found in met.items():
            chips = [(plans[name].first_core + np.arange(plans[name].cores)) // a_chip for name in (source, reader)]
            total += int(found.sum())
            crossing += int((found & (chips[0][:, None] != chips[1])).sum())
        return total, crossing


def place(network: IntegerNetwork, hardware: Hardware) -> Placement:
    """Cut every layer into blocks, one a core, as few as the limits of a core allow.

    Layers are cut from the last to the first, one by one, since what leaves a neuron depends on how its readers are
    cut. Each layer has cores of its own. Of the cuts along channels, rows and columns (`cuttings`) the one with the
    fewest cores is taken, and of those the one with the fewest incoming axons. A layer whose neurons are too large each
    for a core is cut as if that limit were not there, and reported.

    Parameters
    ----------
    network : IntegerNetwork
    hardware : Hardware

    Returns
    -------
    Placement

    Raises
    ------
    HardwareConfigError
        The target has no cores.
    """
    if hardware.core is None:
        raise HardwareConfigError(f"{hardware.name}: has no cores to place neurons on. Choose a target with [core].")
    limits = {resource: getattr(hardware.core, resource).number for resource in RESOURCES}
    readers: dict[str, list[tuple[Window, Grid]]] = {}
    plans, problems = [], []
    for layer in reversed(network.computed):
        reads = list(windows(network, layer))
        grid, over = _cut(three_axes(network.shapes[layer.name]), reads, readers.get(layer.name, []), limits)
        problems += [
            _problem(layer.name, resource, used, limits[resource], hardware) for resource, used in over.items()
        ]
        for window in reads:
            readers.setdefault(window.source, []).append((window, grid))
        plans.append((layer, grid, needs(grid, reads, readers.get(layer.name, []))))
    placed, core = [], 0
    for layer, grid, found in reversed(plans):
        placed.append(LayerPlan(layer.name, type(layer).__name__, grid, core, found))
        core += grid.blocks
    a_chip, chips = _chip(hardware)
    if core > a_chip * chips:
        problems.append(_too_many(core, a_chip, chips, hardware))
    return Placement(network, hardware, limits, tuple(placed), tuple(reversed(problems)))


def _cut(
    shape: tuple[int, int, int], reads: list[Window], readers: list[tuple[Window, Grid]], limits: dict[str, int]
) -> tuple[Grid, dict[str, int]]:
    """Return the cut with the fewest cores, and by how much single neurons are over which limits."""
    pieces = [cuttings(size) for size in shape]
    most = _most(shape, pieces, reads, readers)
    blocks = _product(*(np.array(p) for p in pieces))
    fits = _within(most, limits, RESOURCES)
    if fits.any():
        return _fewest(shape, pieces, blocks, fits, most["axons_in"]), {}
    finest = Grid(shape, shape)
    single = {resource: int(values.max()) for resource, values in needs(finest, reads, readers).items()}
    over = {resource: used for resource, used in single.items() if used > limits[resource]}
    if not over:
        return finest, {}  # the sums of greatest parts were over a limit that no block is over
    fits = _within(most, limits, [resource for resource in RESOURCES if resource not in over])
    return (_fewest(shape, pieces, blocks, fits, most["axons_in"]) if fits.any() else finest), over


def _most(
    shape: tuple[int, int, int], pieces: list[list[int]], reads: list[Window], readers: list[tuple[Window, Grid]]
) -> dict[str, NDArray[np.int64]]:
    """Return what the blocks of each cut need at most, for all cuts: arrays with an axis for each axis of the layer.

    The greatest product of three numbers is that of the greatest ones; of several synapses the sum of these is a bound.
    """
    # For every axis, the grids that are cut along that axis alone: there a number of the pieces can be looked at.
    grids = [
        [Grid(shape, (n if axis == 0 else 1, n if axis == 1 else 1, n if axis == 2 else 1)) for n in pieces[axis]]
        for axis in range(3)
    ]

    def product(number: Callable[[Grid, int], NDArray]) -> NDArray[np.int64]:
        greatest = (np.array([number(grid, axis).max() for grid in grids[axis]], np.int64) for axis in range(3))
        return _product(*greatest)

    sizes = product(Grid.sizes)
    bits = sum(window.bits_per_channel for window in reads)
    channels = np.array([grid.sizes(0).max() for grid in grids[0]], np.int64)[:, None, None]
    axons_in, axons_out = np.zeros_like(sizes), np.zeros_like(sizes)
    for window in reads:
        axons_in += product(partial(_sources, window))
    for window, theirs in readers:
        axons_out += product(partial(_targets, window, theirs))
    memory = np.broadcast_to(-(-channels * bits // 8), sizes.shape)
    return {"neurons": sizes, "synaptic_memory": memory, "axons_in": axons_in, "axons_out": axons_out}


def _sources(window: Window, grid: Grid, axis: int) -> NDArray[np.int64]:
    return window.read(grid, axis).sum(1)


def _targets(window: Window, theirs: Grid, grid: Grid, axis: int) -> NDArray[np.int64]:
    return sums(window.read(theirs, axis).sum(0), grid, axis)


def _product(channels: NDArray, rows: NDArray, columns: NDArray) -> NDArray[np.int64]:
    return channels[:, None, None] * rows[:, None] * columns


def _within(most: dict[str, NDArray], limits: dict[str, int], resources: Collection[str]) -> NDArray[np.bool_]:
    return np.logical_and.reduce([most[resource] <= limits[resource] for resource in resources])


def _fewest(
    shape: tuple[int, int, int],
    pieces: list[list[int]],
    blocks: NDArray[np.int64],
    fits: NDArray[np.bool_],
    axons: NDArray[np.int64],
) -> Grid:
    least = blocks[fits].min()
    chosen = np.where(fits & (blocks == least), axons, np.iinfo(np.int64).max)
    place = np.unravel_index(int(chosen.argmin()), chosen.shape)
    return Grid(shape, (pieces[0][place[0]], pieces[1][place[1]], pieces[2][place[2]]))


def _chip(hardware: Hardware) -> tuple[int, int]:
    if hardware.chip is None:
        raise HardwareConfigError(f"{hardware.name}: has no chips. Choose a target with [core] and [chip].")
    return hardware.chip.cores.number, hardware.chip.chips.number


def _problem(layer: str, resource: str, used: int, limit: int, hardware: Hardware) -> Problem:
    what, remedy = WORDS[resource]
    known = getattr(hardware.core, resource).is_known
    assumed = "" if known else ", which is assumed: the real one is not public"
    return Problem(
        layer,
        resource,
        used,
        limit,
        f"{layer}: the {what} of a single neuron ({used:,}) exceed those of a core of {hardware.name} "
        f"({limit:,}{assumed}). {remedy}.",
    )


def _too_many(cores: int, a_chip: int, chips: int, hardware: Hardware) -> Problem:
    needed = math.ceil(cores / a_chip)
    return Problem(
        "",
        "cores",
        cores,
        a_chip * chips,
        f"the network: its cores ({cores:,}) exceed those of {hardware.name} ({a_chip * chips:,}, {chips} of the "
        f"{needed} chips that it needs). Use fewer channels or a smaller input, or a target with more chips.",
    )
