"""A whole network as one Lava process."""

from lava_casc.loihi.network.process import SpikingNetwork

__all__ = ["SpikingNetwork"]
