"""The picture of a partition: how full every core is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lava_casc.report.raster import FAINT, INK, LARGE, NEGATIVE, POSITIVE, RULE, SMALL, TINY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Narrower layers are not named below the bars.
NAMED = 0.04


def plot_cores(
    utilization: Sequence[dict[str, tuple[int, int]]],
    layers: Sequence[tuple[str, int]],
    cores_per_chip: int,
    title: str,
) -> Figure:
    """Draw what every core holds of each resource, as a share of its limit; what is over it is vermillion.

    Parameters
    ----------
    utilization : sequence of dict
        (used, limit) by resource for each core, in order.
    layers : sequence of (str, int)
        The layers' names and numbers of cores, in the same order.
    cores_per_chip : int
    title : str

    Raises
    ------
    MissingDependencyError
        matplotlib is not installed.
    """
    resources, cores = list(utilization[0]), len(utilization)
    figure = new_figure(1.1 + 1.0 * len(resources))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(resources), 1, sharex=True)
    edges = np.concatenate([[0], np.cumsum([number for _, number in layers])])
    for axes, resource in zip(panels, resources, strict=True):
        share = np.array([core[resource][0] / core[resource][1] for core in utilization])
        for colour, shown in ((POSITIVE, share <= 1), (NEGATIVE, share > 1)):
            # One patch for all of thousands of cores.
            axes.stairs(np.where(shown, 100 * share, 0), np.arange(cores + 1), fill=True, color=colour, linewidth=0)
        axes.axhline(100, color=NEGATIVE, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set_ylabel(resource.replace("_", " "), fontsize=SMALL, color=INK, rotation=0, ha="right", va="center")
        axes.set_ylim(0, max(112.0, 105 * float(share.max())))
        axes.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        for edge in edges:
            axes.axvline(edge, color=RULE, linewidth=0.6)
        for chip in range(cores_per_chip, cores, cores_per_chip):
            axes.axvline(chip, color=INK, linewidth=1.2)
        axes.tick_params(labelsize=TINY, length=2, color=RULE, labelcolor=INK)
        axes.spines[:].set_visible(False)
    named = [i for i, (_, number) in enumerate(layers) if number >= NAMED * cores]
    panels[-1].set_xlim(0, cores)
    panels[-1].set_xticks(
        [(edges[i] + edges[i + 1]) / 2 for i in named], [layers[i][0] for i in named], rotation=25, ha="right"
    )
    limit = utilization[0]
    limits = ", ".join(f"{limit[resource][1]:,} {resource.replace('_', ' ')}" for resource in resources)
    panels[-1].set_xlabel(f"cores, by layer; of one core: {limits}", fontsize=TINY, color=FAINT)
    panels[0].set_title(title, fontsize=LARGE, loc="left", color=INK)
    return figure
