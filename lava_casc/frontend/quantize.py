"""From a `FloatNetwork` to an `IntegerNetwork`, and an account of every bit that it cost.

For a neuron of channel c with real levels ``step = lambda / L``, and synapses whose weights count the units of their
sources (``V = W * scale_source``), a grid ``g`` makes everything an integer::

    w = round(V / g)    B = round(b / g)    threshold = step / g    initial = floor(phase * threshold)

The grid is chosen as ``g = step / n`` for an integer ``n``, so that the threshold ``n`` has no rounding error, and as
fine as the weight bits allow. Weights that lie on a grid of few steps already, as of a network that was trained with
quantized weights, keep their proportions exactly, where a somewhat coarser grid lets them. Where the proven range
leaves the hardware's registers, ``n`` of that channel is made smaller, which is bits of weight given up; where that
costs more than two, bits of the input are given up too. Both are reported. A network that does not fit then is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import RangeError, exceeds
from lava_casc.frontend.checkpoint import InputSpec
from lava_casc.frontend.fold import INPUT, FloatNetwork, FloatNeurons, FloatReadout
from lava_casc.hardware import Hardware
from lava_casc.integer import signed_range
from lava_casc.network import (
    Input,
    IntegerNetwork,
    MaxPool,
    Neurons,
    Readout,
    Shape,
    Synapse,
    Tokens,
    per_neuron,
)
from lava_casc.ranges import LayerRange, Source, check_ranges, layer_range

#: Fewer weight bits than this ruin a network (4 cost the prototype's networks 3 to 10 points of accuracy on CIFAR-10
#: with one grid a channel): the quantizer refuses instead.
LEAST_WEIGHT_BITS = 4
#: Where rounding moves a neuron by less than this share of a level, even with all of its sources at their greatest,
#: few weight bits are enough: a channel with next to no weights, say, after a batch norm that has switched it off.
FINE_NOISE = 1 / 32
#: A finer grid than one with this noise resolves nothing that a count of levels could show ...
FINEST_NOISE = 1 / 256
#: ... and a threshold of 16 bits, which resolves any bias, is always allowed.
FINEST_THRESHOLD = 1 << 16
#: Weight bits that a layer on the input gives up before the input gives up one.
WEIGHT_BITS_BEFORE_INPUT = 2.0
MOST_INPUT_SHIFT = 4
#: Weights that are whole multiples of a step, to within this share of it, and up to so many of them, lie on a grid.
ON_GRID, MOST_STEPS = 1e-4, 127
#: Far beyond any register, and safe from overflow in int64 when it is added to a worst case.
GREATEST_BIAS = 2.0**60


@dataclass(frozen=True)
class BranchReport:
    """What the quantization of one synapse cost, and how much of that because it meets others in its layer.

    Branches that meet share the grid of each channel, up to a power of two a branch. The difference of the two errors
    is the price of this; a layer of one synapse pays none.

    Attributes
    ----------
    source : str
    weight_error : float
        Root mean square of ``w * 2**exponent - V / g`` relative to that of ``V / g``, over the synapse.
    weight_error_alone : float
        The same, had each of the synapse's channels a grid of its own, as fine as the weight bits allow. What the
        layer gives up beyond this (a threshold that is an integer, the range proof), the synapse gives up alone, too.
    """

    source: str
    weight_error: float
    weight_error_alone: float


@dataclass(frozen=True)
class LayerReport:
    """What the quantization of one layer cost.

    Attributes
    ----------
    name : str
    weight_bits : int
        Signed bits of the mantissas in use.
    bits_given_up : float
        Bits of weight that the worst channel gave up to the range proof; 0 for most layers.
    weight_error : float
        Root mean square of ``w - V / g`` relative to that of ``V / g``, over all synapses.
    threshold : (int, int)
        The least and the greatest threshold; (0, 0) for the readout.
    range_bits : int
        Signed bits that the proven range of potential and current takes.
    branches : tuple of BranchReport
        One a synapse, in their order.
    """

    name: str
    weight_bits: int
    bits_given_up: float
    weight_error: float
    threshold: tuple[int, int]
    range_bits: int
    branches: tuple[BranchReport, ...]


@dataclass(frozen=True)
class QuantizationReport:
    """The layers' reports, and the bits of input that were given up.

    Attributes
    ----------
    layers : tuple of LayerReport
    input_bits_given_up : int
    """

    layers: tuple[LayerReport, ...]
    input_bits_given_up: int = 0


def quantize(
    network: FloatNetwork,
    spec: InputSpec,
    hardware: Hardware,
    *,
    weight_bits: int = 8,
    per_channel: bool = True,
) -> tuple[IntegerNetwork, QuantizationReport]:
    """Quantize a folded network to integers that provably fit `hardware`.

    Parameters
    ----------
    network : FloatNetwork
    spec : InputSpec
        Range and meaning of the images' integers.
    hardware : Hardware
    weight_bits : int
        Signed bits of weights, symmetric: ``-(2**(bits-1) - 1) .. 2**(bits-1) - 1``. 2 or more.
    per_channel : bool
        One grid a channel (the default), or one a layer. The readout has one grid, so that its logits compare.

    Returns
    -------
    network : IntegerNetwork
    report : QuantizationReport

    Raises
    ------
    RangeError
        More weight bits than the hardware has, or a layer that cannot be made to fit its registers.
    """
    if not 2 <= weight_bits <= hardware.weight_bits:
        raise exceeds(
            "quantize",
            "weight bits",
            weight_bits,
            f"2 .. weight bits of {hardware.name}",
            hardware.weight_bits,
            "Choose a number in between",
        )
    best: tuple[float, IntegerNetwork, QuantizationReport, dict[str, LayerRange]] | None = None
    refused: RangeError | None = None
    for shift in range(MOST_INPUT_SHIFT + 1):
        if shift and (network.vocabulary is not None or max(spec.high, -spec.low) >> shift == 0):
            break
        try:
            quantizer = _Quantizer(network, spec, hardware, weight_bits, per_channel, shift)
            integers, report = quantizer.quantize()
        except RangeError as error:
            refused = refused or error
            continue
        readers = {layer.name for layer in integers if INPUT in layer.sources}
        lost = max(layer.bits_given_up for layer in report.layers if layer.name in readers)
        enough = lost <= WEIGHT_BITS_BEFORE_INPUT
        if best is None or enough or lost + shift < best[0]:
            best = (lost + shift, integers, report, quantizer.ranges)
        if enough:
            break
    if best is None:
        assert refused is not None
        raise refused
    _, integers, report, proven = best
    check_ranges(integers, hardware, proven)
    return integers, report


class _Quantizer:
    def __init__(
        self,
        network: FloatNetwork,
        spec: InputSpec,
        hardware: Hardware,
        weight_bits: int,
        per_channel: bool,
        shift: int,
    ) -> None:
        self.network, self.hardware, self.weight_bits, self.per_channel = (
            network,
            hardware,
            weight_bits,
            per_channel,
        )
        self.greatest = signed_range(weight_bits)[1]
        self.input = (
            Input(INPUT, spec.shape, spec.low, spec.high, spec.scale, shift)
            if network.vocabulary is None
            else Tokens(INPUT, network.vocabulary)
        )
        unit = self.input.scale * 2.0**self.input.shift
        #: The real value of one unit of each source.
        self.units = {INPUT: unit}
        self.sources = {INPUT: Source(self.input.shape, *self.input.reach, isinstance(self.input, Tokens))}
        steps = {n.name: n.threshold / n.levels for n in network.layers if isinstance(n, FloatNeurons)}
        for memory in network.memories:
            self.units[memory.name] = steps[memory.source]
            self.sources[memory.name] = Source(memory.shape, *memory.reach)
        self.reports: list[LayerReport] = []
        self.ranges: dict[str, LayerRange] = {}

    def quantize(self) -> tuple[IntegerNetwork, QuantizationReport]:
        layers = [self.input, *self.network.memories, *(self._layer(layer) for layer in self.network.layers)]
        return IntegerNetwork(tuple(layers)), QuantizationReport(tuple(self.reports), self.input.shift)

    def _layer(self, layer: FloatNeurons | FloatReadout | MaxPool) -> Neurons | Readout | MaxPool:
        shape = self.network.shapes[layer.name]
        if isinstance(layer, MaxPool):
            self.units[layer.name] = self.units[layer.source]
            self.sources[layer.name] = self.sources[layer.source]._replace(shape=shape)
            return layer
        peaks = np.array([_peaks(synapse.weight, shape[0]) * self.units[synapse.source] for synapse in layer.synapses])
        for value, what in ((peaks, "weights"), (layer.bias, "bias")):
            if not np.isfinite(value).all():
                raise RangeError(
                    f"{layer.name}: its folded {what} hold NaN or infinity. Check its batch norm's variances."
                )
        exponents, finest = self._grids(peaks)
        quantized: Neurons | Readout
        if isinstance(layer, FloatReadout):
            quantized, found, bits_lost = self._readout(layer, shape, exponents, finest)
        else:
            quantized, found, bits_lost = self._neurons(layer, shape, exponents, finest)
        self.ranges[layer.name] = found
        self._report(layer, quantized, shape, peaks, found, bits_lost)
        return quantized

    def _grids(self, peaks: NDArray) -> tuple[list[int], NDArray]:
        """Return each synapse's exponent, and the finest grid of each channel at which all mantissas fit.

        A channel without weights has no such grid: 0.

        The exponent of a branch is how many times greater than the smallest branch its median channel is.
        """
        peaks = peaks if self.per_channel else _of_layer(peaks)
        medians = np.array([np.median(p[p > 0]) if (p > 0).any() else 0.0 for p in peaks])
        smallest = medians[medians > 0].min(initial=np.inf)
        exponents = [
            int(np.clip(np.round(np.log2(m / smallest)), 0, self.hardware.weight_exponent_max)) if m > 0 else 0
            for m in medians
        ]
        return exponents, (peaks / 2.0 ** np.array(exponents)[:, None]).max(0) / self.greatest

    def _neurons(
        self, layer: FloatNeurons, shape: Shape, exponents: list[int], finest: NDArray
    ) -> tuple[Neurons, LayerRange, float]:
        step = layer.threshold / layer.levels
        while (step < finest).any():
            # A single unit moves this neuron by more than a mantissa's worth of thresholds: shift the mantissas.
            exponents, finest = [e + 1 for e in exponents], finest / 2
        weighted = finest > 0
        noise = self._noise(layer, exponents)
        finest = np.maximum(finest, step / max(FINEST_THRESHOLD, noise / FINEST_NOISE))
        own, peaks = self._own_steps(layer, shape)
        threshold = wanted = _aligned(np.floor(step / finest).astype(np.int64), own / step, peaks)
        while True:
            grid = step / threshold
            quantized = Neurons(
                layer.name,
                self._synapses(layer, grid, exponents),
                _bias(layer, grid, shape),
                threshold,
                np.floor(layer.phase * threshold).astype(np.int64),
                layer.levels,
                np.full(shape[0], step),
            )
            found = layer_range(quantized, shape, self.sources)
            excess = self._excess(found, shape)
            if excess.max() <= 1:
                break
            smaller = np.minimum(threshold - 1, (threshold / np.maximum(excess, 1)).astype(np.int64))
            smaller = _aligned(smaller, own / step, peaks)
            threshold = np.where(excess > 1, smaller, threshold)
            if not self.per_channel:
                threshold = np.full_like(threshold, threshold.min())
            # A bias alone needs no bits of weight, but a threshold it does need.
            matters = np.where(weighted, noise > FINE_NOISE * threshold, threshold < 1)
            self._refuse_if_coarse(layer.name, wanted / np.maximum(threshold, 1e-9) * matters, found)
        self.units[layer.name] = step
        self.sources[layer.name] = Source(shape, 0, layer.levels)
        return quantized, found, float(np.log2(wanted / threshold)[weighted].max(initial=0))

    def _own_steps(self, layer: FloatNeurons | FloatReadout, shape: Shape) -> tuple[NDArray, NDArray]:
        """Return the step of the grid on which each channel's weights lie, in units of X, and how many its greatest is.

        Both are 0 where they lie on none, and where branches meet. One grid a layer fits all channels or none.
        """
        none = np.zeros(shape[0]), np.zeros(shape[0], np.int64)
        if len(layer.synapses) != 1:
            return none
        (synapse,) = layer.synapses
        rows = synapse.weight.reshape(shape[0], -1)
        some = np.sort(np.abs(rows[:, :: 1 + rows.shape[1] // (2 * MOST_STEPS)]), axis=1)  # tells most of them apart
        own, peaks = np.zeros(shape[0]), np.zeros(shape[0], np.int64)
        for channel in np.flatnonzero(np.count_nonzero(np.diff(some, axis=1), axis=1) <= MOST_STEPS):
            own[channel], peaks[channel] = _steps(rows[channel])
        if not self.per_channel and np.ptp(own) > ON_GRID / MOST_STEPS * own.min():
            return none
        return own * self.units[synapse.source], peaks

    def _noise(self, layer: FloatNeurons, exponents: list[int]) -> float:
        """Return the root mean square of what rounding adds to X, with all sources at their greatest, in units of X."""
        variance = 1 / 12  # of the bias
        for synapse, exponent in zip(layer.synapses, exponents, strict=True):
            _, low, high, alone = self.sources[synapse.source]
            variance += (1 if alone else synapse.weight[0].size) * (2.0**exponent * max(-low, high)) ** 2 / 12
        return float(np.sqrt(variance))

    def _readout(
        self, layer: FloatReadout, shape: Shape, exponents: list[int], finest: NDArray
    ) -> tuple[Readout, LayerRange, float]:
        # Logits without weights are their biases, on a grid of 16 bits.
        wanted = float(finest.max()) or float(np.abs(layer.bias).max()) / FINEST_THRESHOLD or 1.0
        own = self._own_steps(layer, shape)[0]
        if wanted <= own.min() and np.ptp(own) <= ON_GRID / MOST_STEPS * own.min():  # one grid for all channels
            wanted = float(own.min() / np.floor(own.min() / wanted))
        grid = wanted
        while True:
            scale = np.full(shape[0], grid)
            quantized = Readout(layer.name, self._synapses(layer, scale, exponents), _bias(layer, scale, shape), grid)
            found = layer_range(quantized, shape, self.sources)
            excess = float(self._excess(found, shape).max())
            if excess <= 1:
                return quantized, found, float(np.log2(grid / wanted))
            grid *= max(excess, 1 + 1e-3)
            self._refuse_if_coarse(layer.name, np.array([grid / wanted]), found)

    def _synapses(self, layer: FloatNeurons | FloatReadout, grid: NDArray, exponents: list[int]) -> tuple[Synapse, ...]:
        made = []
        for synapse, exponent in zip(layer.synapses, exponents, strict=True):
            weight = np.empty(synapse.weight.shape, np.int32)
            for mantissas, exact in zip(weight, self._exact(synapse, grid * 2.0**exponent), strict=True):
                mantissas[...] = np.rint(exact)
            weight.setflags(write=False)
            made.append(replace(synapse, weight=weight, exponent=exponent))
        return tuple(made)

    def _exact(self, synapse: Synapse, grid: NDArray) -> Iterator[NDArray[np.float64]]:
        """Yield the real weights of one channel after the other, on the counts of their source, in units of `grid`.

        A row at a time stays in the processor's cache.
        """
        unit = self.units[synapse.source]
        for row, width in zip(synapse.weight, grid, strict=True):
            exact = row * unit
            exact /= width
            yield exact

    def _excess(self, found: LayerRange, shape: Shape) -> NDArray[np.float64]:
        """Return by what factor each channel's worst case exceeds the registers; at most 1 fits."""
        low, high = signed_range(self.hardware.state_bits)
        worst = np.zeros(shape)
        for interval in (found.potential, found.current):
            worst = np.maximum(worst, np.maximum(interval.high / high, interval.low / low))
        return worst.reshape(shape[0], -1).max(1)

    def _refuse_if_coarse(self, name: str, coarser: NDArray, found: LayerRange) -> None:
        lost = np.log2(max(1.0, coarser.max()))
        if lost > 0 and self.weight_bits - lost < LEAST_WEIGHT_BITS:
            value = max(int(np.abs(bound).max()) for interval in (found.potential, found.current) for bound in interval)
            raise exceeds(
                name,
                f"worst-case potential, at fewer than {LEAST_WEIGHT_BITS} weight bits still",
                value,
                f"the {self.hardware.state_bits} signed bits of {self.hardware.name}",
                signed_range(self.hardware.state_bits)[1],
                "Use fewer levels or a smaller fan-in",
            )

    def _report(
        self,
        floats: FloatNeurons | FloatReadout,
        layer: Neurons | Readout,
        shape: Shape,
        peaks: NDArray,
        found: LayerRange,
        bits_lost: float,
    ) -> None:
        grid = layer.scale / layer.threshold if isinstance(layer, Neurons) else np.full(shape[0], layer.scale)
        # How much coarser than the layer's each synapse's own grid would be; a readout has one for all channels.
        peaks = peaks if self.per_channel and isinstance(layer, Neurons) else _of_layer(peaks)
        exponents = 2.0 ** np.array([synapse.exponent for synapse in layer.synapses])
        greatest = (peaks / exponents[:, None]).max(0)
        coarser = np.divide(peaks, greatest, out=np.ones_like(peaks), where=peaks > 0)
        branches = len(layer.synapses)
        errors, alone, powers = (np.zeros(branches) for _ in range(3))
        for i, (synapse, real) in enumerate(zip(layer.synapses, floats.synapses, strict=True)):
            for exact, weight, own in zip(self._exact(real, grid), synapse.weight, coarser[i], strict=True):
                error = _square(weight * exponents[i] - exact)
                errors[i] += error
                alone[i] += _square(np.rint(exact / own) * own - exact) if branches > 1 else error
                powers[i] += _square(exact)
        peak = max(max(int(s.weight.max(initial=0)), -int(s.weight.min(initial=0))) for s in layer.synapses)
        thresholds = (int(layer.threshold.min()), int(layer.threshold.max())) if isinstance(layer, Neurons) else (0, 0)
        self.reports.append(
            LayerReport(
                layer.name,
                peak.bit_length() + 1,
                max(0.0, bits_lost),
                _relative(errors.sum(), powers.sum()),
                thresholds,
                found.bits,
                tuple(
                    BranchReport(synapse.source, _relative(errors[i], powers[i]), _relative(alone[i], powers[i]))
                    for i, synapse in enumerate(layer.synapses)
                ),
            )
        )


def _peaks(weight: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """Return the greatest magnitude of each channel's weights, (channels,); NaN where one of them is."""
    rows = weight.reshape(channels, -1)
    return np.maximum(rows.max(1), -rows.min(1))


def _steps(weights: NDArray[np.float64]) -> tuple[float, int]:
    """Return the step of which all weights are whole multiples, and how many the greatest is, or zeros."""
    values = np.unique(np.abs(weights))
    values = values[values > 0]
    if not 3 <= len(values) <= MOST_STEPS:  # one or two are multiples of almost anything
        return 0.0, 0
    peaks = np.arange(len(values), MOST_STEPS + 1)
    steps = values / values[-1] * peaks[:, None]
    fitting = peaks[np.abs(steps - np.rint(steps)).max(1) <= ON_GRID]
    return (float(values[-1] / fitting[0]), int(fitting[0])) if len(fitting) else (0.0, 0)


def _aligned(threshold: NDArray[np.int64], ratio: NDArray[np.float64], peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return thresholds, lower by at most half, at which weights on a grid are whole multiples of one integer.

    With a threshold of n a step of the grid is ``r = ratio n`` units. Where r is so close to an integer m that also the
    greatest weight, ``peak r``, is rounded to ``peak m``, rounding has changed no proportion. Of such n the one with
    the least ``|r - m| / m`` is taken; a channel without one keeps its threshold.
    """
    found = threshold.copy()
    for channel in np.flatnonzero(ratio * threshold >= 1):
        n, r = int(threshold[channel]), float(ratio[channel])
        candidates = np.rint(np.arange(np.floor(n * r), 0, -1) / r).astype(np.int64)  # the nearest to each integer
        candidates = candidates[(candidates <= n) & (2 * candidates >= n)]
        steps = r * candidates
        whole = np.rint(steps)
        fits = np.abs(steps - whole) * peaks[channel] < 0.5
        if fits.any():
            found[channel] = candidates[np.argmin(np.where(fits, np.abs(steps - whole) / whole, np.inf))]
    return found


def _of_layer(peaks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the greatest peak of each synapse for all of its channels, (synapses, channels)."""
    return np.repeat(peaks.max(1, keepdims=True), peaks.shape[1], axis=1)


def _square(values: NDArray[np.float64]) -> float:
    """Return the sum of the squares."""
    return float(np.vdot(values, values))


def _relative(error: float, power: float) -> float:
    return float(np.sqrt(error / power)) if power else 0.0


def _bias(layer: FloatNeurons | FloatReadout, grid: NDArray, shape: Shape) -> NDArray[np.int64]:
    bias = np.rint(layer.bias / (grid if layer.bias.ndim == 1 else per_neuron(grid, shape)))
    if np.abs(bias).max(initial=0) >= GREATEST_BIAS:
        raise exceeds(
            layer.name,
            "a bias in units of its weights",
            f"{np.abs(bias).max():g}",
            "what integers here can hold",
            f"{GREATEST_BIAS:g}",
            "Check its batch norm's variances",
        )
    return bias.astype(np.int64)
