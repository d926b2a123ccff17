"""A probe of a layer's spikes as a Lava process."""

from lava_casc.loihi.tap.process import Tap

__all__ = ["Tap"]
