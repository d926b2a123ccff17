"""Which neuron goes to which neurocore, what each core has to hold, and what does not fit."""

from lava_casc.mapping.grid import Grid
from lava_casc.mapping.needs import RESOURCES
from lava_casc.mapping.place import LayerPlan, Placement, Problem, place

__all__ = ["RESOURCES", "Grid", "LayerPlan", "Placement", "Problem", "place"]
