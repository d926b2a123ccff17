"""Pictures of a run, and the page of a study."""

from lava_casc.report.explorer import explore, explore_layer
from lava_casc.report.raster import plot_spikes, save_figure
from lava_casc.report.svg import as_svg

__all__ = ["as_svg", "explore", "explore_layer", "plot_spikes", "save_figure"]
