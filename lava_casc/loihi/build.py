"""From an `IntegerNetwork` to connected Lava processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.proc.conv.process import Conv as LavaConv
from lava.proc.dense.process import Dense as LavaDense
from lava.utils.weightutils import SignMode
from numpy.typing import NDArray

from lava_casc.integer import signed_bits
from lava_casc.loihi.cif import CIF
from lava_casc.loihi.controller import WakeSleepController
from lava_casc.loihi.layout import lava_images, lava_kernel, lava_matrix, lava_pair, lava_shape, lava_values
from lava_casc.loihi.max_pool import CIFMaxPool
from lava_casc.loihi.memory import Memory
from lava_casc.loihi.readout import Readout
from lava_casc.loihi.source import SampleSource
from lava_casc.loihi.tap import Tap
from lava_casc.network import Conv, Entry, IntegerNetwork, MaxPool, Neurons, Shape, Synapse, Tokens
from lava_casc.network import Readout as ReadoutLayer
from lava_casc.schedule import WakeSleepSchedule

#: Records waiting in a pipe before the simulation waits for the host.
PIPE_DEPTH = 8


@dataclass(frozen=True)
class Circuit:
    """The connected processes of a network.

    Attributes
    ----------
    controller, source : process
    readouts : dict of str to Readout
        In the network's order.
    memories : dict of str to Memory
    layers : dict of str to CIF or CIFMaxPool
    synapses : dict of (str, int) to process
        By target layer and place in its `synapses`.
    taps : dict of str to Tap
    """

    controller: WakeSleepController
    source: SampleSource
    readouts: dict[str, Readout] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    layers: dict[str, CIF | CIFMaxPool] = field(default_factory=dict)
    synapses: dict[tuple[str, int], AbstractProcess] = field(default_factory=dict)
    taps: dict[str, Tap] = field(default_factory=dict)

    @property
    def processes(self) -> list[AbstractProcess]:
        """All processes."""
        return [
            self.controller,
            self.source,
            *self.memories.values(),
            *self.synapses.values(),
            *self.layers.values(),
            *self.readouts.values(),
            *self.taps.values(),
        ]


def build(
    network: IntegerNetwork,
    images: NDArray[np.int64],
    schedule: WakeSleepSchedule,
    *,
    floating: bool = False,
    until_silent: bool = True,
    tapped: Collection[str] = (),
    tap_spikes: bool = False,
    state_bits: int = 24,
    strict: bool = True,
) -> Circuit:
    """Return the circuit of a network that runs over `images` once, sample after sample, phase after phase.

    The gate goes from the controller, for which every phase is a sample, to everything with a state; the activity
    of every layer goes to every readout, so that all of them end a phase in the same step; with `until_silent` the flag
    of the first one goes back to the controller. A memory listens to its layer, in a loop: whatever it injects is
    from the phase before.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) ndarray
        As `IntegerNetwork.encode` returns them: (N, P, ...) for a recurrent network.
    schedule : WakeSleepSchedule
    floating : bool
        Whether weights are divided by the threshold of their target, as the floating-point neurons expect.
    until_silent : bool
        Whether the next sample begins as soon as one is certified.
    tapped : collection of str
        The layers whose spikes are recorded.
    tap_spikes : bool
        Whether taps keep every spike, or messages and counts alone.
    state_bits, strict
        As in `CIF`.
    """
    builder = _Builder(network, images, schedule, floating, until_silent, {"state_bits": state_bits, "strict": strict})
    for layer in network.spiking:
        builder.add(layer)
    for readout in network.readouts:
        builder.connect(readout, builder.circuit.readouts[readout.name].a_in)
    for memory in network.memories:
        builder.out[memory.source].connect(builder.circuit.memories[memory.name].s_in)
    for name in tapped:
        builder.tap(name, tap_spikes)
    return builder.circuit


def message_bits(network: IntegerNetwork, name: str, schedule: WakeSleepSchedule) -> int:
    """Return the signed bits of one spike of a layer.

    At least 2: with 0 bits Lava takes a spike for a truth value, and a -1 for a 1.
    """
    layer = network[name]
    if isinstance(layer, Entry):
        return max(2, signed_bits(*layer.reach))
    burst = min(schedule.max_burst, network.peaks[name])
    return signed_bits(-burst, burst)


class _Builder:
    """A circuit that grows layer by layer, and the port from which each layer's spikes come."""

    def __init__(
        self,
        network: IntegerNetwork,
        images: NDArray[np.int64],
        schedule: WakeSleepSchedule,
        floating: bool,
        until_silent: bool,
        register: dict[str, Any],
    ) -> None:
        self.network, self.schedule, self.floating = network, schedule, floating
        self.timing = network.timing(schedule)
        self.steps: dict[str, Any] = {"wake_steps": schedule.wake_steps, "period": schedule.period}
        self.register = register
        phases = images.shape[1] if network.is_recurrent else 1
        if network.is_recurrent:
            images = images.reshape(-1, *images.shape[2:])
        controller = WakeSleepController(period=schedule.period, samples=len(images), name="controller")
        vocabulary = network.input.vocabulary if isinstance(network.input, Tokens) else None
        source = SampleSource(images=lava_images(images), vocabulary=vocabulary, **self.steps, name=network.input.name)
        self.circuit = Circuit(controller, source)
        self.out = {network.input.name: source.s_out}
        controller.gate.connect(source.gate)
        for layer in network.memories:
            memory = Memory(shape=lava_shape(layer.shape), phases=phases, **self.steps, name=layer.name)
            controller.gate.connect(memory.gate)
            self.circuit.memories[layer.name] = memory
            self.out[layer.name] = memory.s_out
        for readout in network.readouts:
            made = self._readout(readout, until_silent)
            controller.gate.connect(made.gate)
            self.circuit.readouts[readout.name] = made
        if until_silent:
            self.circuit.readouts[network.readouts[0].name].silent.connect(controller.silent)

    def add(self, layer: Neurons | MaxPool) -> None:
        """Add a spiking layer and everything that it is connected to."""
        made: CIF | CIFMaxPool
        if isinstance(layer, MaxPool):
            made = self._pool(layer)
            self.out[layer.source].connect(made.s_in)
        else:
            made = self._neurons(layer)
            self.connect(layer, made.a_in)
        for readout in self.circuit.readouts.values():
            made.activity.connect(readout.activity)
        self.circuit.controller.gate.connect(made.gate)
        self.circuit.layers[layer.name] = made
        self.out[layer.name] = made.s_out

    def connect(self, layer: Neurons | ReadoutLayer, port: InPort) -> None:
        """Add the synapses of a layer; the port sums what they deliver."""
        scale = layer.threshold if self.floating and isinstance(layer, Neurons) else None
        for i, synapse in enumerate(layer.synapses):
            shape = self.network.shapes[synapse.source]
            bits = message_bits(self.network, synapse.source, self.schedule)
            made = make_synapse(synapse, shape, f"{layer.name}.synapses[{i}]", bits, scale, self.floating)
            source = self.out[synapse.source]
            (source if made.s_in.shape == source.shape else source.flatten()).connect(made.s_in)
            made.a_out.connect(port)
            self.circuit.synapses[layer.name, i] = made

    def tap(self, name: str, spikes: bool) -> None:
        """Record a layer."""
        shape = lava_shape(self.network.shapes[name])
        tap = Tap(shape=shape, period=self.schedule.period, spikes=spikes, name=f"{name}.tap")
        tap.result.flag_external_pipe(buffer_size=PIPE_DEPTH)
        self.out[name].connect(tap.s_in)
        self.circuit.controller.gate.connect(tap.gate)
        self.circuit.taps[name] = tap

    def _neurons(self, layer: Neurons) -> CIF:
        return CIF(
            shape=lava_shape(self.network.shapes[layer.name]),
            threshold=layer.threshold,
            levels=layer.levels,
            bias=lava_values(layer.bias),
            initial=layer.initial,
            bias_start=self.timing[layer.name].bias_start,
            max_burst=self.schedule.max_burst,
            release=self.timing[layer.name].release,
            name=layer.name,
            **self.steps,
            **self.register,
        )

    def _pool(self, layer: MaxPool) -> CIFMaxPool:
        return CIFMaxPool(
            shape=lava_shape(self.network.shapes[layer.source]),
            kernel=lava_pair(layer.kernel),
            stride=lava_pair(layer.stride),
            padding=lava_pair(layer.padding),
            dilation=lava_pair(layer.dilation),
            period=self.schedule.period,
            name=layer.name,
        )

    def _readout(self, layer: ReadoutLayer, until_silent: bool) -> Readout:
        readout = Readout(
            shape=lava_shape(self.network.shapes[layer.name]),
            bias=lava_values(layer.bias),
            bias_start=self.timing[layer.name].bias_start,
            last_event=self.network.last_event(self.schedule),
            until_silent=until_silent,
            name=layer.name,
            **self.steps,
            **self.register,
        )
        readout.result.flag_external_pipe(buffer_size=PIPE_DEPTH)
        return readout


def make_synapse(
    synapse: Synapse, shape: Shape, name: str, message_bits: int, scale: NDArray | None, floating: bool
) -> AbstractProcess:
    """Return Lava's process of a synapse from a source of `shape`.

    In fixed point Lava's Conv knows no exponent, so that the weights are shifted; its Dense drops the lowest
    bit of matrices of mixed sign, so that the weights go in doubled and come out halved. To call every matrix
    mixed keeps Lava from clipping those of one sign differently.

    Parameters
    ----------
    synapse : Conv or Dense
    shape : tuple of int
        ``(C, H, W)`` or ``(N,)``.
    name : str
    message_bits : int
        The width of the source's spikes; with 0 Lava drops their signs and sizes.
    scale : array, optional
        What the weights of each target channel are divided by, in floating point.
    floating : bool
    """
    weight = synapse.weight
    if floating:
        weight = weight * 2.0**synapse.exponent
        if scale is not None:
            weight = weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if isinstance(synapse, Conv):
        weight = weight if floating else weight << synapse.exponent
        return LavaConv(
            weight=lava_kernel(weight),
            input_shape=lava_shape(shape),
            stride=lava_pair(synapse.stride),
            padding=lava_pair(synapse.padding),
            dilation=lava_pair(synapse.dilation),
            groups=synapse.groups,
            num_message_bits=message_bits,
            name=name,
        )
    weight = lava_matrix(weight, shape)
    if floating:
        return LavaDense(weights=weight, num_message_bits=message_bits, name=name)
    return LavaDense(
        weights=weight << 1,
        weight_exp=synapse.exponent - 1,
        sign_mode=SignMode.MIXED,
        num_message_bits=message_bits,
        name=name,
    )
