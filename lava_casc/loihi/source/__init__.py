"""The images as a Lava process."""

from lava_casc.loihi.source.process import SampleSource

__all__ = ["SampleSource"]
