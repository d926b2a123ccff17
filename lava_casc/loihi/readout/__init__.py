"""The readout and its certificate as a Lava process."""

from lava_casc.loihi.readout.process import Readout

__all__ = ["Readout"]
