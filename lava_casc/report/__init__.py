"""Pictures of a run."""

from lava_casc.report.raster import plot_spikes, save_figure

__all__ = ["plot_spikes", "save_figure"]
