"""What a CIF population is on a neurocore. Needs Intel's extension of Lava; never run on a chip.

Written from public code of custom neurons alone, and run against a fake of the extension only (tests/loihi). That the
extension takes the calls below is what public code suggests, not what was tried.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.nc.model import AbstractNcProcessModel
from lava.magma.core.model.nc.net import NetL2
from lava.magma.core.model.nc.ports import NcInPort, NcOutPort
from lava.magma.core.model.nc.type import LavaNcType
from lava.magma.core.model.nc.var import NcVar
from lava.magma.core.resources import Loihi2NeuroCore
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from lava_casc.loihi.cif import CIF
from lava_casc.loihi.neurocore import microcode
from lava_casc.loihi.neurocore.allocation import allocate


@implements(proc=CIF, protocol=LoihiProtocol)
@requires(Loihi2NeuroCore)
@tag("ucoded")
class NcCIF(AbstractNcProcessModel):
    """CIF neurons that count their own steps.

    `gate` and `activity` are declared, because a model declares what its process has, and connected to nothing: on
    the chip nobody tells a neuron where in its sample it is, and nobody counts spikes for it (docs/microcode.md).
    """

    #: The microcode; where it is None, the environment variable LAVA_CASC_UCODE names it.
    ucode: Path | None = None

    a_in: NcInPort = LavaNcType(NcInPort, np.int32, precision=24)
    gate: NcInPort = LavaNcType(NcInPort, np.int32, precision=24)
    s_out: NcOutPort = LavaNcType(NcOutPort, np.int32, precision=24)
    activity: NcOutPort = LavaNcType(NcOutPort, np.int32, precision=24)
    u: NcVar = LavaNcType(NcVar, np.int32, precision=24)
    y: NcVar = LavaNcType(NcVar, np.int32, precision=24)
    bias: NcVar = LavaNcType(NcVar, np.int32, precision=24)
    u0: NcVar = LavaNcType(NcVar, np.int32, precision=24)
    threshold: NcVar = LavaNcType(NcVar, np.int32, precision=24)

    def allocate(self, net: NetL2) -> None:
        """Allocate the program with its constants, the neurons with their words, and their axons; connect them."""
        made = allocate(self.proc_params, {name: getattr(self, name).var.init for name in ("bias", "u0", "threshold")})
        program = net.neurons_cfg.allocate_ucode(shape=(1,), ucode=str(microcode(self.ucode)), **made.constants)
        neurons = net.neurons.allocate_ucode(shape=made.neurons, u=self.u, y=self.y, **made.words)
        axons = net.ax_out.allocate(shape=made.neurons, num_message_bits=made.message_bits)
        self.a_in.connect(neurons)
        neurons.connect(program)
        neurons.connect(axons)
        axons.connect(self.s_out)
