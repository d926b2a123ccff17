"""The consistent integrate-and-fire neuron as a Lava process."""

from lava_casc.loihi.cif.process import CIF

__all__ = ["CIF"]
