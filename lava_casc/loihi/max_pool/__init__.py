"""Max pooling over cumulative spike counts as a Lava process."""

from lava_casc.loihi.max_pool.process import CIFMaxPool

__all__ = ["CIFMaxPool"]
