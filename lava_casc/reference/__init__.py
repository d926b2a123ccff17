"""The written specification: the time-free integer forward pass, one step of the neuron, and the batched simulator."""

from lava_casc.reference.forward import forward
from lava_casc.reference.neuron import cif_step
from lava_casc.reference.simulate import simulate

__all__ = ["cif_step", "forward", "simulate"]
