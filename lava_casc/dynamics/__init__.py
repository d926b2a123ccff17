"""What a network does in time, for many samples at once: exact products, and what each layer keeps and says.

Two loops are built of it: `lava_casc.reference` takes one layer after the other through all steps, and the network
process of `lava_casc.loihi` takes one step after the other through all layers. In here images are ``(N, H, W, C)``,
channels last.
"""

from lava_casc.dynamics.batch import batches
from lava_casc.dynamics.crew import Crew
from lava_casc.dynamics.layers import Change, Plan, channels_first, channels_last
from lava_casc.dynamics.neuron import aim, cif_step
from lava_casc.dynamics.product import Product
from lava_casc.dynamics.stepper import Stepper
from lava_casc.dynamics.trace import Trace, as_array, fan_out, fan_outs
from lava_casc.dynamics.variant import VARIANTS, WHOLE, Variant

__all__ = [
    "VARIANTS",
    "WHOLE",
    "Change",
    "Crew",
    "Plan",
    "Product",
    "Stepper",
    "Trace",
    "Variant",
    "aim",
    "as_array",
    "batches",
    "channels_first",
    "channels_last",
    "cif_step",
    "fan_out",
    "fan_outs",
]
