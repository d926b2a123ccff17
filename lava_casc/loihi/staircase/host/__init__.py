"""The host's two ends of a staircase: the process that holds a sample, and the one that hands out what has settled."""

from lava_casc.loihi.staircase.host.process import HeldSource, SettledProbe

__all__ = ["HeldSource", "SettledProbe"]
