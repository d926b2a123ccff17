"""What a layer had counted in the phase before, as a Lava process."""

from lava_casc.loihi.memory.process import Memory

__all__ = ["Memory"]
