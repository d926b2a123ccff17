"""The network file: an `IntegerNetwork` and its schedule in HDF5, in netx's own schema where that can say it.

A sequential network lies under ``/layer`` exactly as lava-dl's slayer would have exported it, so that the
stock netx loader opens it (`lava_casc.loihi.netx.register_netx` teaches it the neuron). Any other network lies
under ``/graph``, which makes the stock loader fail at once instead of loading half of it. The specification is
``docs/file-format.md``.
"""

from lava_casc.netx.document import NetworkFile, read, read_file, write
from lava_casc.netx.header import VERSION

__all__ = ["VERSION", "NetworkFile", "read", "read_file", "write"]
