"""From an `IntegerNetwork` to connected Lava processes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
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
from lava_casc.loihi.readout import Readout
from lava_casc.loihi.source import SampleSource
from lava_casc.loihi.tap import Tap
from lava_casc.network import Conv, Input, IntegerNetwork, MaxPool, Neurons, Synapse
from lava_casc.network import Readout as ReadoutLayer
from lava_casc.schedule import WakeSleepSchedule

#: Records waiting in a pipe before the simulation waits for the host.
PIPE_DEPTH = 8


@dataclass(frozen=True)
class Circuit:
    """The connected processes of a network.

    Attributes
    ----------
    controller, source, readout : process
    layers : dict of str to CIF or CIFMaxPool
    synapses : dict of (str, int) to process
        By target layer and place in its `synapses`.
    taps : dict of str to Tap
    """

    controller: WakeSleepController
    source: SampleSource
    readout: Readout
    layers: dict[str, CIF | CIFMaxPool] = field(default_factory=dict)
    synapses: dict[tuple[str, int], AbstractProcess] = field(default_factory=dict)
    taps: dict[str, Tap] = field(default_factory=dict)

    @property
    def processes(self) -> list[AbstractProcess]:
        """All processes."""
        return [
            self.controller,
            self.source,
            *self.synapses.values(),
            *self.layers.values(),
            self.readout,
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
    """Return the circuit of a network that runs over `images` once, sample after sample.

    The gate goes from the controller to everything with a state; the activity of every layer goes to the
    readout; with `until_silent` the readout's flag goes back to the controller.

    Parameters
    ----------
    network : IntegerNetwork
    images : (N, ...) ndarray
        As `Input.encode` returns them.
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
    timing = network.timing(schedule)
    steps = {"wake_steps": schedule.wake_steps, "period": schedule.period}
    register = {"state_bits": state_bits, "strict": strict}
    end = network.readout
    circuit = Circuit(
        controller=WakeSleepController(period=schedule.period, samples=len(images), name="controller"),
        source=SampleSource(images=lava_images(images), **steps, name=network.input.name),
        readout=Readout(
            shape=lava_shape(network.shapes[end.name]),
            bias=lava_values(end.bias),
            bias_start=timing[end.name].bias_start,
            last_event=network.last_event(schedule),
            until_silent=until_silent,
            name=end.name,
            **steps,
            **register,
        ),
    )
    out = {network.input.name: circuit.source.s_out}
    gated = [circuit.source, circuit.readout]
    for layer in network.spiking:
        if isinstance(layer, MaxPool):
            found = _pool(layer, network, schedule)
            out[layer.source].connect(found.s_in)
        else:
            found = _neurons(layer, network, schedule, register)
            _connect(circuit, network, schedule, layer, found.a_in, out, floating)
        out[layer.name] = found.s_out
        found.activity.connect(circuit.readout.activity)
        circuit.layers[layer.name] = found
        gated.append(found)
    _connect(circuit, network, schedule, end, circuit.readout.a_in, out, floating)
    for name in tapped:
        tap = circuit.taps[name] = Tap(
            shape=lava_shape(network.shapes[name]),
            period=schedule.period,
            spikes=tap_spikes,
            name=f"{name}.tap",
        )
        tap.result.flag_external_pipe(buffer_size=PIPE_DEPTH)
        out[name].connect(tap.s_in)
        gated.append(tap)
    for process in gated:
        circuit.controller.gate.connect(process.gate)
    if until_silent:
        circuit.readout.silent.connect(circuit.controller.silent)
    circuit.readout.result.flag_external_pipe(buffer_size=PIPE_DEPTH)
    return circuit


def message_bits(network: IntegerNetwork, name: str, schedule: WakeSleepSchedule) -> int:
    """Return the signed bits of one spike of a layer.

    At least 2: with 0 bits Lava takes a spike for a truth value, and a -1 for a 1.
    """
    layer = network[name]
    if isinstance(layer, Input):
        return max(2, signed_bits(*layer.reach))
    burst = min(schedule.max_burst, network.peaks[name])
    return signed_bits(-burst, burst)


def _neurons(layer: Neurons, network: IntegerNetwork, schedule: WakeSleepSchedule, register: dict) -> CIF:
    timing = network.timing(schedule)[layer.name]
    return CIF(
        shape=lava_shape(network.shapes[layer.name]),
        threshold=layer.threshold,
        levels=layer.levels,
        bias=lava_values(layer.bias),
        initial=layer.initial,
        wake_steps=schedule.wake_steps,
        period=schedule.period,
        bias_start=timing.bias_start,
        max_burst=schedule.max_burst,
        release=timing.release,
        name=layer.name,
        **register,
    )


def _pool(layer: MaxPool, network: IntegerNetwork, schedule: WakeSleepSchedule) -> CIFMaxPool:
    pairs = {name: lava_pair(getattr(layer, name)) for name in ("kernel", "stride", "padding", "dilation")}
    return CIFMaxPool(shape=lava_shape(network.shapes[layer.source]), period=schedule.period, name=layer.name, **pairs)


def _connect(
    circuit: Circuit,
    network: IntegerNetwork,
    schedule: WakeSleepSchedule,
    layer: Neurons | ReadoutLayer,
    port,
    out: dict,
    floating: bool,
) -> None:
    scale = layer.threshold if floating and isinstance(layer, Neurons) else None
    for i, synapse in enumerate(layer.synapses):
        bits = message_bits(network, synapse.source, schedule)
        name = f"{layer.name}.synapses[{i}]"
        made = _synapse(synapse, network, name, bits, scale, floating)
        circuit.synapses[layer.name, i] = made
        source = out[synapse.source]
        (source if isinstance(synapse, Conv) or len(source.shape) == 1 else source.flatten()).connect(made.s_in)
        made.a_out.connect(port)


def _synapse(
    synapse: Synapse, network: IntegerNetwork, name: str, bits: int, scale: NDArray | None, floating: bool
) -> AbstractProcess:
    """Return Lava's process of a synapse.

    In fixed point Lava's Conv knows no exponent, so that the weights are shifted; its Dense drops the lowest
    bit of matrices of mixed sign, so that the weights go in doubled and come out halved. To call every matrix
    mixed keeps Lava from clipping those of one sign differently.
    """
    weight = synapse.weight
    if floating:
        weight = weight * 2.0**synapse.exponent
        if scale is not None:
            weight = weight / scale.reshape(-1, *(1,) * (weight.ndim - 1))
    shape = network.shapes[synapse.source]
    if isinstance(synapse, Conv):
        weight = weight if floating else weight << synapse.exponent
        return LavaConv(
            weight=lava_kernel(weight),
            input_shape=lava_shape(shape),
            stride=lava_pair(synapse.stride),
            padding=lava_pair(synapse.padding),
            dilation=lava_pair(synapse.dilation),
            groups=synapse.groups,
            num_message_bits=bits,
            name=name,
        )
    weight = lava_matrix(weight, shape)
    if floating:
        return LavaDense(weights=weight, num_message_bits=bits, name=name)
    return LavaDense(
        weights=weight << 1,
        weight_exp=synapse.exponent - 1,
        sign_mode=SignMode.MIXED,
        num_message_bits=bits,
        name=name,
    )
