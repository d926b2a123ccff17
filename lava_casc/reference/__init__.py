"""The network without time, the batched simulator of its spikes, and the parallel neuron."""

from lava_casc.reference.forward import forward, logits
from lava_casc.reference.parallel import parallel
from lava_casc.reference.simulate import simulate

__all__ = ["forward", "logits", "parallel", "simulate"]
