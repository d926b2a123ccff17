"""Pictures of a run."""

from lava_casc.report.curves import plot_curves
from lava_casc.report.raster import plot_spikes, save_figure

__all__ = ["plot_curves", "plot_spikes", "save_figure"]
