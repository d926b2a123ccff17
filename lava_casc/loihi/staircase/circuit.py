"""From an `IntegerNetwork` to the connected Lava processes of its staircase."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lava.magma.core.process.process import AbstractProcess
from lava.proc.graded.process import GradedVec
from lava.proc.lif.process import LIF
from numpy.typing import NDArray

from lava_casc.integer import signed_bits
from lava_casc.loihi.build import PIPE_DEPTH, make_synapse
from lava_casc.loihi.layout import lava_images, lava_shape
from lava_casc.loihi.staircase.host import HeldSource, SettledProbe
from lava_casc.loihi.staircase.limits import BIAS_EXPONENT, GRADED_BITS, comparators
from lava_casc.network import Conv, IntegerNetwork, MaxPool, Neurons, Readout, Shape, Synapse


@dataclass(frozen=True)
class Staircase:
    """The connected processes.

    Attributes
    ----------
    source : HeldSource
    synapses : dict of str to process
        Lava's Conv and Dense by name: those of the network, and those of ones.
    potentials : dict of str to GradedVec
        z of every `Neurons`, without bias and initial.
    comparators : dict of str to LIF
        ``(N, 1, L)`` of every `Neurons` and `MaxPool` of N units, those in the order of a flattened (W, H, C).
    values : dict of str to GradedVec
        The counts of every `Neurons` and `MaxPool`, and the logits of every `Readout` without their bias.
    probes : dict of str to SettledProbe
    """

    source: HeldSource
    synapses: dict[str, AbstractProcess] = field(default_factory=dict)
    potentials: dict[str, GradedVec] = field(default_factory=dict)
    comparators: dict[str, LIF] = field(default_factory=dict)
    values: dict[str, GradedVec] = field(default_factory=dict)
    probes: dict[str, SettledProbe] = field(default_factory=dict)


def build(network: IntegerNetwork, images: NDArray[np.int64], hold: int, tapped: Collection[str] = ()) -> Staircase:
    """Return the staircase of a network that fits, over samples that are held for `hold` steps each.

    Parameters
    ----------
    network : IntegerNetwork
        As `check_staircase` let pass.
    images : (N, ...) ndarray
        What enters: `Input.injected` of what `IntegerNetwork.encode` returned.
    hold : int
    tapped : collection of str
        The layers whose settled counts are handed out, besides the readouts.
    """
    made = Staircase(HeldSource(images=lava_images(images), hold=hold, name=network.input.name))
    builder = _Builder(network, made)
    for layer in network.computed:
        builder.add(layer)
    for name in (*tapped, *(readout.name for readout in network.readouts)):
        value = made.values[name]
        probe = SettledProbe(shape=value.shape, hold=hold, name=f"{name}.probe")
        probe.result.flag_external_pipe(buffer_size=PIPE_DEPTH)
        value.s_out.connect(probe.s_in)
        made.probes[name] = probe
    return made


def window_of_ones(pool: MaxPool, channels: int, levels: int) -> Conv:
    """Return the convolution that counts the spikes in every window, level by level: (C * L, ...) to (C * L, ...)."""
    groups = channels * levels
    weight: NDArray[np.int32] = np.ones((groups, 1, *pool.kernel), np.int32)
    return Conv(pool.source, weight, pool.stride, pool.padding, pool.dilation, groups)


class _Builder:
    """A staircase that grows layer by layer.

    Units of any shape are, as a Lava image of N x 1 pixels, what a convolution with a kernel of 1 x 1 takes to L
    channels and back to one: the same few ones for all of them.
    """

    def __init__(self, network: IntegerNetwork, made: Staircase) -> None:
        self.network, self.made = network, made
        self.out: dict[str, Any] = {network.input.name: made.source.s_out}

    def add(self, layer: Neurons | MaxPool | Readout) -> None:
        """Add a layer and everything that it is connected to."""
        name, shape = layer.name, self.network.shapes[layer.name]
        if isinstance(layer, Readout):
            self._connect(layer, self._graded(self.made.values, name))
        else:
            units, levels = math.prod(shape), self.network.peaks[name]
            if isinstance(layer, MaxPool):
                channels, *size = self.network.shapes[layer.source]
                window = window_of_ones(layer, channels, levels)
                spikes = self.made.comparators[layer.source].s_out
                arrives = self._synapse(f"{name}.window", window, (channels * levels, *size), spikes, 0)
            else:
                potential = self._graded(self.made.potentials, name)
                self._connect(layer, potential)
                arrives = self._synapse(f"{name}.fan", _ones(name, levels, 1), (1, 1, units), potential.s_out)
            compared = self._comparators(layer, units, levels)
            arrives.reshape((units, 1, levels)).connect(compared.a_in)
            added = self._synapse(f"{name}.sum", _ones(name, 1, levels), (levels, 1, units), compared.s_out, 0)
            added.reshape(lava_shape(shape)).connect(self._graded(self.made.values, name).a_in)
        self.out[name] = self.made.values[name].s_out

    def _connect(self, layer: Neurons | Readout, target: GradedVec) -> None:
        """Add the network's own synapses; the port sums what they deliver."""
        for i, synapse in enumerate(layer.synapses):
            source, shape = self.network[synapse.source], self.network.shapes[synapse.source]
            reach = (0, self.network.peaks[source.name]) if source.name in self.network.peaks else source.reach  # type: ignore[union-attr]
            name, bits = f"{layer.name}.synapses[{i}]", max(2, signed_bits(*reach))
            self._synapse(name, synapse, shape, self.out[source.name], bits).connect(target.a_in)

    def _synapse(self, name: str, synapse: Synapse, shape: Shape, source: Any, bits: int = GRADED_BITS) -> Any:
        """Add a synapse from a port that is a source of `shape`; with 0 `bits` its messages are spikes without size."""
        process = make_synapse(synapse, shape, name, bits, None, False)
        (source if source.shape == process.s_in.shape else source.reshape(process.s_in.shape)).connect(process.s_in)
        self.made.synapses[name] = process
        return process.a_out

    def _graded(self, group: dict[str, GradedVec], name: str) -> GradedVec:
        group[name] = GradedVec(shape=lava_shape(self.network.shapes[name]), vth=0)
        group[name].name = f"{name}.{'potential' if group is self.made.potentials else 'value'}"
        return group[name]

    def _comparators(self, layer: Neurons | MaxPool, units: int, levels: int) -> LIF:
        """Return LIF neurons that forget everything: their decays are the whole of current and voltage."""
        bias, threshold = comparators(self.network, layer)
        if bias.ndim == 4:
            bias = bias.transpose(2, 1, 0, 3)  # (C, H, W, L) as (W, H, C, L)
        made = LIF(
            shape=(units, 1, levels),
            du=4095,  # one less than all: the model adds it
            dv=4096,
            vth=threshold,
            bias_mant=bias.reshape(units, 1, levels),
            bias_exp=BIAS_EXPONENT,
            name=layer.name,
        )
        self.made.comparators[layer.name] = made
        return made


def _ones(source: str, out: int, into: int) -> Conv:
    return Conv(source, np.ones((out, into, 1, 1), np.int32))
