"""The network without time, and the batched simulator of its spikes."""

from lava_casc.reference.forward import forward
from lava_casc.reference.simulate import simulate

__all__ = ["forward", "simulate"]
