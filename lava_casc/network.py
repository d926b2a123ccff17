"""`IntegerNetwork`, the one immutable form in the middle: everything before it is float, everything after it reads it.

A network is a graph of layers in topological order. Each layer holds integers only::

    X = sum over synapses (weight * y_source) * 2**exponent + bias + initial
    y = clip(X // threshold, 0, levels)                               `Neurons`
    y = max over a window of y_source                                 `MaxPool`
    logits = X                                                        `Readout`
    y = y_source at the end of the phase before                       `Memory`

A network with a `Memory` is recurrent: a sample is a sequence, each element of it one phase, in which the graph has no
cycle. Its logits are the sums of the phases' X.

Shapes are ``(C, H, W)`` for images and ``(N,)`` for flat layers. Arrays are read-only; a changed network is a new one
(`dataclasses.replace`). A network validates itself when it is made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import DataError, InvalidNetworkError, RangeError
from lava_casc.integer import IntArray
from lava_casc.schedule import MODES, PRESETS, LayerTiming, WakeSleepSchedule

Shape = tuple[int, ...]
Pair = tuple[int, int]

#: Below this every partial sum of integers is exact in float64, in whatever order it is taken.
FLOAT64_EXACT = 1 << 53


class _Frozen:
    """Equality by content, arrays included, for frozen dataclasses."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def _freeze(self, name: str, dtype: type | None = None) -> None:
        """Replace the array `name` by a read-only copy, of integer kind and `dtype` where one is given.

        An array that is read-only and no view of another one is kept as it is.
        """
        array = getattr(self, name)
        if not _is_frozen(array):
            array = np.array(array, order="C")
        if dtype is not None and array.dtype != dtype:
            if array.dtype.kind not in "iu" and array.size:
                raise InvalidNetworkError(f"{name} must hold integers, not {array.dtype}")
            if array.size and not np.iinfo(dtype).min <= int(array.min()) <= int(array.max()) <= np.iinfo(dtype).max:
                raise InvalidNetworkError(f"{name} holds a value outside {np.dtype(dtype)}")
            array = array.astype(dtype)
        array.setflags(write=False)
        object.__setattr__(self, name, array)


@dataclass(frozen=True, eq=False)
class Conv(_Frozen):
    """A convolution synapse, in torch's layout: cross-correlation with zero padding.

    Attributes
    ----------
    source : str
        Name of the layer that it comes from, of shape (C, H, W).
    weight : (O, C / groups, KH, KW) ndarray
        int32 in an `IntegerNetwork`; the front end uses the same class with float64 weights.
    stride, padding, dilation : (int, int)
        Along height and width.
    groups : int
    exponent : int
        The effective weight is ``weight * 2**exponent``.
    """

    source: str
    weight: NDArray
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    exponent: int = 0

    def __post_init__(self) -> None:
        self._freeze("weight")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape (O, H', W') of the target for a source of `shape`.

        Parameters
        ----------
        shape : tuple of int
            (C, H, W).

        Returns
        -------
        tuple of int
        """
        if len(shape) != 3 or self.weight.ndim != 4:
            raise InvalidNetworkError(
                f"a convolution of {self.source} needs (C, H, W) and 4-d weights, not {shape}, {self.weight.shape}"
            )
        out, per_group, *_ = self.weight.shape
        kernel: Pair = self.weight.shape[2:]  # type: ignore[assignment]
        if per_group * self.groups != shape[0] or out % self.groups:
            raise InvalidNetworkError(
                f"a convolution of {self.source} with weights {self.weight.shape} and {self.groups} groups needs "
                f"{per_group * self.groups} input channels and {self.groups} to divide {out}, not {shape[0]} channels"
            )
        return (
            out,
            *window_shape(self.source, shape[1:], kernel, self.stride, self.padding, self.dilation),
        )


@dataclass(frozen=True, eq=False)
class Dense(_Frozen):
    """A fully connected synapse on the flattened source (C order, as `torch.flatten`).

    Attributes
    ----------
    source : str
    weight : (O, I) ndarray
        int32 in an `IntegerNetwork`; float64 in the front end.
    exponent : int
        The effective weight is ``weight * 2**exponent``.
    """

    source: str
    weight: NDArray
    exponent: int = 0

    def __post_init__(self) -> None:
        self._freeze("weight")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape (O,) of the target for a source of `shape`.

        Parameters
        ----------
        shape : tuple of int

        Returns
        -------
        tuple of int
        """
        if self.weight.ndim != 2 or self.weight.shape[1] != int(np.prod(shape)):
            raise InvalidNetworkError(f"dense weights {self.weight.shape} do not fit {self.source} of shape {shape}")
        return (self.weight.shape[0],)


Synapse = Conv | Dense


@dataclass(frozen=True, eq=False)
class _Entry(_Frozen):
    """A layer that injects into the network, and is not computed by it."""

    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        """No layer comes before it."""
        return ()


@dataclass(frozen=True, eq=False)
class Input(_Entry):
    """Where images enter, as integers ``low <= x <= high`` that mean ``real = scale * x``.

    Attributes
    ----------
    name : str
    shape : tuple of int
    low, high : int
        The range of an image's integers, for which the network was proven; it holds 0.
    scale : float
    shift : int
        Bits of input that the quantizer gave up: the network computes with `encode` of an image, in units of
        ``2**shift``.
    """

    shape: Shape
    low: int
    high: int
    scale: float = 1.0
    shift: int = 0

    def __post_init__(self) -> None:
        _check_shape(self.name, self.shape)
        for what in ("low", "high", "shift"):
            _check_whole(self.name, what, getattr(self, what))
        if not self.low <= 0 <= self.high:
            raise InvalidNetworkError(f"{self.name}: the input range [{self.low}, {self.high}] must hold 0")
        _check_scale(self.name, self.scale)
        if self.shift < 0:
            raise InvalidNetworkError(f"{self.name}: shift ({self.shift}) must not be negative")

    @property
    def sample_shape(self) -> Shape:
        """The shape of an image."""
        return self.shape

    @property
    def reach(self) -> Pair:
        """The least and the greatest integer that the network computes with, after `shift`."""
        return self._shifted(self.low), self._shifted(self.high)

    def encode(self, images: ArrayLike) -> IntArray:
        """Return what the network computes with, in units of ``2**shift``: ``(images + 2**(shift-1)) >> shift``.

        Parameters
        ----------
        images : (N, ...) array of integers
            Each of `shape`, within ``low .. high``.

        Returns
        -------
        (N, ...) ndarray of int64

        Raises
        ------
        DataError, RangeError
            The images have another type, shape or range.
        """
        array = _integers(self.name, images, "images", f"Scale them to [{self.low}, {self.high}] and round.")
        if array.shape[1:] != self.shape:
            raise DataError(
                f"{self.name}: images of shape {array.shape[1:]} do not fit the network's input {self.shape}."
            )
        low, high = _span(array)
        if low < self.low or high > self.high:
            raise RangeError(
                f"{self.name}: images span [{low}, {high}], outside the network's input range "
                f"[{self.low}, {self.high}]."
            )
        return self._shifted(array.astype(np.int64))

    def injected(self, encoded: IntArray) -> IntArray:
        """Return what enters the network in all, (N, ...) of `shape`, for what `encode` returned.

        Parameters
        ----------
        encoded : (N, ...) ndarray of int64

        Returns
        -------
        (N, ...) ndarray of int64
        """
        return encoded

    def _shifted(self, x: Any) -> Any:
        return x if self.shift == 0 else (x + (1 << (self.shift - 1))) >> self.shift


@dataclass(frozen=True, eq=False)
class Tokens(_Entry):
    """Where words enter: a sample's integer is an index, and one unit is injected at that place of (vocabulary,).

    An embedding is then nothing but the weights of the first synapses.

    Attributes
    ----------
    name : str
    vocabulary : int
        Tokens are ``0 .. vocabulary - 1``.
    """

    vocabulary: int

    def __post_init__(self) -> None:
        _check_whole(self.name, "vocabulary", self.vocabulary)
        if self.vocabulary < 1:
            raise InvalidNetworkError(f"{self.name}: vocabulary ({self.vocabulary}) must be at least 1")

    low, shift, scale = 0, 0, 1.0

    @property
    def high(self) -> int:
        """The greatest token."""
        return self.vocabulary - 1

    @property
    def shape(self) -> Shape:
        """One place for each token."""
        return (self.vocabulary,)

    @property
    def sample_shape(self) -> Shape:
        """A single integer."""
        return ()

    @property
    def reach(self) -> Pair:
        """Nothing, or one unit."""
        return 0, 1

    def encode(self, tokens: ArrayLike) -> IntArray:
        """Return tokens (N,) as they are, checked.

        Parameters
        ----------
        tokens : (N,) array of integers

        Returns
        -------
        (N,) ndarray of int64

        Raises
        ------
        DataError, RangeError
            They have another type or shape, or are not in the vocabulary.
        """
        array = _integers(self.name, tokens, "tokens", "Give the words' indices.")
        if array.ndim != 1:
            raise DataError(f"{self.name}: tokens of shape {array.shape[1:]} a sample. Give a single integer.")
        low, high = _span(array)
        if low < 0 or high > self.high:
            raise RangeError(f"{self.name}: tokens span [{low}, {high}], outside the vocabulary [0, {self.high}].")
        return array.astype(np.int64)

    def injected(self, encoded: IntArray) -> IntArray:
        """Return the tokens one-hot, (N, vocabulary).

        Parameters
        ----------
        encoded : (N,) ndarray of int64

        Returns
        -------
        (N, vocabulary) ndarray of int64
        """
        return (encoded[:, None] == np.arange(self.vocabulary)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Memory(_Entry):
    """What a layer had counted at the end of the phase before, 0 in the first phase: how a network is recurrent.

    It is injected like an image, over the wake.

    Attributes
    ----------
    name : str
    source : str
        The neurons, further down, whose counts are remembered. They are none of the `sources`, which are of one phase.
    shape : tuple of int
        That of the source.
    levels : int
        Those of the source.
    """

    source: str
    shape: Shape
    levels: int

    def __post_init__(self) -> None:
        _check_shape(self.name, self.shape)
        _check_whole(self.name, "levels", self.levels)

    @property
    def reach(self) -> Pair:
        """Counts."""
        return 0, self.levels


@dataclass(frozen=True, eq=False)
class _Population(_Frozen):
    name: str
    synapses: tuple[Synapse, ...]
    bias: IntArray

    def __post_init__(self) -> None:
        self._freeze("bias", np.int64)
        object.__setattr__(self, "synapses", tuple(self.synapses))
        if not self.synapses:
            raise InvalidNetworkError(f"{self.name}: a layer needs at least one synapse")
        for synapse in self.synapses:
            if synapse.weight.dtype != np.int32:
                raise InvalidNetworkError(f"{self.name}: weights must be int32, not {synapse.weight.dtype}")
            _check_whole(self.name, "a weight exponent", synapse.exponent)
            if synapse.exponent < 0:
                raise InvalidNetworkError(f"{self.name}: a weight exponent ({synapse.exponent}) must not be negative")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the layers that feed this one, synapse by synapse."""
        return tuple(synapse.source for synapse in self.synapses)


@dataclass(frozen=True, eq=False)
class Neurons(_Population):
    """A population of CIF neurons: ``y = clip((sum_i w_i y_i + bias + initial) // threshold, 0, levels)``.

    Attributes
    ----------
    name : str
        Path of the layer in the model it came from.
    synapses : tuple of Conv or Dense
        More than one where branches meet (a residual).
    bias : ndarray of int64
        (C,), or the full shape where zero padding meets a shifted input; injected in whole over the wake.
    threshold : (C,) ndarray of int64
        At least 1, one a channel (a neuron, in a flat layer).
    initial : (C,) ndarray of int64
        The potential that a neuron starts with; it realises the phase of the rounding.
    levels : int
        The greatest count.
    scale : (C,) ndarray of float64
        ``real activation = scale * count``. It plays no part in the integer dynamics.
    """

    threshold: IntArray
    initial: IntArray
    levels: int
    scale: NDArray[np.float64]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._freeze("threshold", np.int64)
        self._freeze("initial", np.int64)
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float64))
        self._freeze("scale")
        if self.threshold.size and self.threshold.min() < 1:
            raise InvalidNetworkError(f"{self.name}: a threshold ({self.threshold.min()}) must be at least 1")
        _check_whole(self.name, "levels", self.levels)
        if self.levels < 1:
            raise InvalidNetworkError(f"{self.name}: levels ({self.levels}) must be at least 1")
        _check_scale(self.name, self.scale)


@dataclass(frozen=True, eq=False)
class Readout(_Population):
    """The integrator without a neuron: its ``X`` are the logits, ``real = scale * X`` with one positive scale.

    Attributes
    ----------
    name : str
        Path of the layer in the model it came from.
    synapses : tuple of Conv or Dense
    bias : ndarray of int64
        (C,), or the full shape.
    scale : float
        Positive.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scale(self.name, self.scale)


@dataclass(frozen=True, eq=False)
class MaxPool(_Frozen):
    """Max pooling over cumulative counts: emits ``max_i Y_i(t) - max_i Y_i(t-1)``.

    Padding never wins, because counts are not negative.

    Attributes
    ----------
    name, source : str
    kernel, stride, padding, dilation : (int, int)
        Along height and width.
    """

    name: str
    source: str
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def sources(self) -> tuple[str, ...]:
        """The one layer that is pooled."""
        return (self.source,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (C, H', W') for a source of shape (C, H, W).

        Parameters
        ----------
        shape : tuple of int

        Returns
        -------
        tuple of int
        """
        if len(shape) != 3:
            raise InvalidNetworkError(f"{self.name}: max pooling needs a (C, H, W) source, not {shape}")
        if any(2 * p > d * (k - 1) + 1 for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True)):
            raise InvalidNetworkError(
                f"{self.name}: padding {self.padding} is more than half of a window of {self.kernel}, dilated by "
                f"{self.dilation}"
            )
        return (
            shape[0],
            *window_shape(self.name, shape[1:], self.kernel, self.stride, self.padding, self.dilation),
        )


#: What injects into the network, and is not computed by it.
Entry = Input | Tokens | Memory
Layer = Entry | Neurons | MaxPool | Readout


@dataclass(frozen=True, eq=False)
class IntegerNetwork(_Frozen):
    """A graph of integer layers, in topological order: the `Input` (or `Tokens`), any `Memory`, ..., each `Readout`.

    Attributes
    ----------
    layers : tuple of Input, Tokens, Memory, Neurons, MaxPool or Readout
    shapes : dict of str to tuple of int
        Of what each layer emits, without the samples' axis; computed, not given.

    Raises
    ------
    InvalidNetworkError
        Names twice, a source that does not come before, shapes that do not meet, a layer that nothing reads.
    """

    layers: tuple[Layer, ...]
    shapes: dict[str, Shape] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if len(self.layers) < 2 or not isinstance(self.layers[0], Input | Tokens) or not self.readouts:
            raise InvalidNetworkError("a network starts with its Input and ends with its Readouts")
        shapes: dict[str, Shape] = {}
        for i, layer in enumerate(self.layers):
            if isinstance(layer, Input | Tokens) != (i == 0) or (isinstance(layer, Memory) and i > len(self.memories)):
                raise InvalidNetworkError(f"{layer.name}: a network has one Input, and Memories right behind it alone")
            if isinstance(layer, Readout) and i < len(self.layers) - len(self.readouts):
                raise InvalidNetworkError(f"{layer.name}: Readouts come last")
            if layer.name in shapes:
                raise InvalidNetworkError(f"{layer.name}: the name stands twice")
            for source in layer.sources:
                if source not in shapes or isinstance(self._by_name[source], Readout):
                    raise InvalidNetworkError(f"{layer.name}: its source {source} does not come before it")
            if isinstance(layer, MaxPool) and isinstance(self._by_name[layer.source], _Entry):
                raise InvalidNetworkError(f"{layer.name}: {layer.source} cannot be max-pooled, only spiking layers can")
            shapes[layer.name] = _layer_shape(layer, shapes)
        object.__setattr__(self, "shapes", shapes)
        self._check_memories()
        self._check_sums()
        read = {source for layer in self.layers for source in layer.sources} | {m.source for m in self.memories}
        unread = set(shapes) - read - {readout.name for readout in self.readouts}
        if unread:
            raise InvalidNetworkError(f"{sorted(unread)[0]}: nothing reads this layer")

    def _check_memories(self) -> None:
        for memory in self.memories:
            source = self._by_name.get(memory.source)
            if not isinstance(source, Neurons):
                raise InvalidNetworkError(f"{memory.name}: there are no neurons {memory.source} to remember")
            if (self.shapes[source.name], source.levels) != (memory.shape, memory.levels):
                raise InvalidNetworkError(
                    f"{memory.name}: remembers {memory.levels} levels of shape {memory.shape}, but {source.name} has "
                    f"{source.levels} of shape {self.shapes[source.name]}"
                )

    def _check_sums(self) -> None:
        """Refuse a layer whose sums float64 might round: every engine relies on their being exact."""
        for name, magnitude in self.magnitudes.items():
            if magnitude >= FLOAT64_EXACT:
                raise InvalidNetworkError(
                    f"{name}: its sums may reach {magnitude}, but only integers below 2**53 are exact in float64"
                )

    @cached_property
    def magnitudes(self) -> dict[str, int]:
        """What no partial sum of a layer can exceed, in whatever order it is taken."""
        peaks = {layer.name: max(int(layer.reach[1]), -int(layer.reach[0])) for layer in self.entries} | self.peaks
        return {
            layer.name: self.magnitude(layer, peaks, 1, peaks.get(layer.name, 0))
            for layer in self.computed
            if not isinstance(layer, MaxPool)
        }

    def magnitude(self, layer: Neurons | Readout, peaks: Mapping[str, int], turns: int, levels: int) -> int:
        """Return what no partial sum of a layer can exceed, nor its threshold times its count.

        Parameters
        ----------
        layer : Neurons or Readout
        peaks : mapping of str to int
            The greatest magnitude of what each source counts.
        turns : int
            How many times the bias is delivered.
        levels : int
            The greatest count of the layer.

        Returns
        -------
        int
        """
        total = turns * _greatest(layer.bias)
        for synapse in layer.synapses:
            fan_in = max((int(np.abs(row, dtype=np.int64).sum()) for row in synapse.weight), default=0)
            total += (fan_in << int(synapse.exponent)) * int(peaks[synapse.source])
        if isinstance(layer, Neurons):
            total = max(total + _greatest(layer.initial), _greatest(layer.threshold) * int(levels))
        return total

    def __getitem__(self, name: str) -> Layer:
        """Return the layer `name`."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[Layer]:
        """Iterate over the layers in topological order."""
        return iter(self.layers)

    @cached_property
    def _by_name(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.layers}

    @property
    def input(self) -> Input | Tokens:
        """The first layer."""
        return self.layers[0]  # type: ignore[return-value]

    @cached_property
    def memories(self) -> tuple[Memory, ...]:
        """What is remembered from phase to phase; nothing in a network without recurrence."""
        return tuple(layer for layer in self.layers if isinstance(layer, Memory))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The layers that inject: the input and the memories."""
        return (self.input, *self.memories)

    @property
    def is_recurrent(self) -> bool:
        """Whether a sample is a sequence, which runs in phases."""
        return bool(self.memories)

    @property
    def computed(self) -> tuple[Neurons | MaxPool | Readout, ...]:
        """Every layer that does not inject, in topological order."""
        return self.layers[len(self.entries) :]  # type: ignore[return-value]

    @cached_property
    def readouts(self) -> tuple[Readout, ...]:
        """The last layers: one for each output of the model, in its order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Readout))

    def encode(self, samples: ArrayLike) -> IntArray:
        """Return what the network computes with for samples (N, ...); (N, P, ...) of P phases for a recurrent one.

        Parameters
        ----------
        samples : array of integers

        Returns
        -------
        ndarray of int64
            Of the same shape.

        Raises
        ------
        DataError, RangeError
            The samples have another type, shape or range than the input says.
        """
        if not self.is_recurrent:
            return self.input.encode(samples)
        array = np.asarray(samples)
        if array.ndim != 2 + len(self.input.sample_shape) or not array.shape[1]:
            raise DataError(
                f"{self.input.name}: sequences of shape {array.shape[1:]} do not fit a recurrent network. "
                f"Give (phases, *{self.input.sample_shape}), one phase at least."
            )
        return self.input.encode(array.reshape(-1, *array.shape[2:])).reshape(array.shape)

    def outputs(self, logits: NDArray, phases: int = 1) -> dict[str, NDArray[np.float64]]:
        """Return the model's outputs in real numbers: ``scale * X / phases``, by readout.

        Parameters
        ----------
        logits : (N, K) array
            The readouts' X, flattened, one readout behind the other.
        phases : int
            How many phases were summed up; the model takes the mean.

        Returns
        -------
        dict of str to (N, ...) ndarray of float64
        """
        found, start = {}, 0
        for readout in self.readouts:
            shape = self.shapes[readout.name]
            stop = start + int(np.prod(shape))
            found[readout.name] = logits[:, start:stop].reshape(len(logits), *shape) * (readout.scale / phases)
            start = stop
        if logits.shape[1] != start:
            raise DataError(f"{logits.shape[1]} logits do not fit readouts of {start} in all.")
        return found

    @cached_property
    def spiking(self) -> tuple[Neurons | MaxPool, ...]:
        """The layers that emit spikes, the input aside."""
        return tuple(layer for layer in self.layers if isinstance(layer, Neurons | MaxPool))

    @property
    def neurons(self) -> int:
        """The neurons of all layers together, those of entries and readouts among them."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def levels(self) -> int:
        """The greatest number of levels of any layer (1 for a network without neurons)."""
        return max((layer.levels for layer in self.layers if isinstance(layer, Neurons)), default=1)

    @cached_property
    def distances(self) -> dict[str, Pair]:
        """The shortest and the longest path from an entry to each layer, in synapses (pooling counts as one)."""
        found: dict[str, Pair] = {layer.name: (0, 0) for layer in self.entries}
        for layer in self.computed:
            before = [found[source] for source in layer.sources]
            found[layer.name] = 1 + min(short for short, _ in before), 1 + max(long for _, long in before)
        return found

    @cached_property
    def peaks(self) -> dict[str, int]:
        """The greatest count that each spiking layer can reach: its levels, or those of what a pool reads."""
        found: dict[str, int] = {}
        for layer in self.spiking:
            found[layer.name] = layer.levels if isinstance(layer, Neurons) else found[layer.source]
        return found

    @property
    def is_sequential(self) -> bool:
        """Whether every layer has one synapse, from the layer before it: what netx's own schema can say."""
        return all(layer.sources == (before.name,) for before, layer in zip(self.layers, self.layers[1:], strict=False))

    def timing(self, schedule: WakeSleepSchedule) -> dict[str, LayerTiming]:
        """Return the timing of every layer but the input under `schedule`.

        Parameters
        ----------
        schedule : WakeSleepSchedule

        Returns
        -------
        dict of str to LayerTiming
        """
        complete, _ = self._latest(schedule)
        return {name: schedule.timing(self.distances[name][0], step) for name, step in complete.items()}

    def _latest(self, schedule: WakeSleepSchedule) -> tuple[dict[str, int], dict[str, int]]:
        """Return the last step in which anything can arrive at each computed layer, and in which each can speak.

        A neuron whose inputs are complete is at most ``levels`` units away from its rest, and mends `max_burst` of
        them in a step; a pool relays. Bias ends and released layers speak when inputs are complete, or before.
        """
        complete: dict[str, int] = {}
        last = {layer.name: schedule.wake_steps for layer in self.entries}
        for layer in self.computed:
            complete[layer.name] = last[layer.name] = max(1 + last[source] for source in layer.sources)
            if isinstance(layer, Neurons):
                last[layer.name] += schedule.duration(layer.levels) - 1
        return complete, last

    def last_event(self, schedule: WakeSleepSchedule) -> int:
        """Return the step from which on nothing new can enter: the last injection and the last release are over.

        A step at or after it in which no neuron emits a spike is the certificate: nothing travels, nothing will come.
        The last input spikes leave in step `wake_steps` and arrive one step later.

        Parameters
        ----------
        schedule : WakeSleepSchedule

        Returns
        -------
        int
        """
        timing = self.timing(schedule).values()
        return max(schedule.wake_steps + 1, *(t.bias_stop - 1 for t in timing), *(t.release for t in timing))

    def silence_bound(self, schedule: WakeSleepSchedule) -> int:
        """Return a step after which no neuron can emit a spike, for whatever input (proof in docs/mathematics.md).

        With ``c`` the step in which the last input of a layer can arrive, its last spike comes no later than
        ``c + ceil(levels / max_burst) - 1``.

        Parameters
        ----------
        schedule : WakeSleepSchedule

        Returns
        -------
        int
        """
        _, last = self._latest(schedule)
        return max(last[layer.name] for layer in self.layers if not isinstance(layer, Readout))

    def certified_by(self, schedule: WakeSleepSchedule) -> int:
        """Return the step by which every sample has its certificate: silent, with the last event over.

        Parameters
        ----------
        schedule : WakeSleepSchedule

        Returns
        -------
        int
        """
        return max(self.silence_bound(schedule) + 1, self.last_event(schedule))

    def schedule(
        self,
        mode: str = "unary",
        wake_steps: int | None = None,
        sleep_steps: int | None = None,
        max_burst: int | None = None,
    ) -> WakeSleepSchedule:
        """Return the schedule of a mode for this network.

        Parameters
        ----------
        mode : {"unary", "burst", "graded", "latency", "energy"}
            `unary`: one signed spike a step, input and bias through the wake (the paper). `burst`: up to `max_burst`
            of them in one spike (burst spikes, arXiv 2204.13271, where the number is gamma). `graded`: layers speak
            one after another, each when its inputs are complete, in spikes of up to `max_burst` units. The other two
            are presets, of what was measured in docs/schedules.md: `latency` is the schedule with the fewest steps to
            certified silence (graded; burst where `max_burst` is less than the levels), `energy` the one with the
            fewest synaptic operations (graded).
        wake_steps : int, optional
            By default ``ceil(levels / max_burst)``, and 1 in graded mode.
        sleep_steps : int, optional
            By default enough for the proven bound, and for the silent step that certifies it.
        max_burst : int, optional
            The most units of a spike, at least 1; for bursts by default 2, in graded mode and for presets all levels,
            so that each neuron speaks once.

        Returns
        -------
        WakeSleepSchedule
        """
        if mode in PRESETS:
            mode = "burst" if mode == "latency" and (max_burst or self.levels) < self.levels else "graded"
        if mode not in MODES:
            raise InvalidNetworkError(f"mode {mode!r} is not known. Use one of {', '.join((*MODES, *PRESETS))}.")
        if max_burst is not None and mode == "unary":
            raise InvalidNetworkError(f"max_burst ({max_burst}) is not for mode unary, which has 1. Use mode burst.")
        graded = mode == "graded"
        burst = {"unary": 1, "burst": 2, "graded": self.levels}[mode] if max_burst is None else max_burst
        wake = wake_steps if wake_steps is not None else (1 if graded else -(-self.levels // max(burst, 1)))
        schedule = WakeSleepSchedule(wake, 0, burst, graded)
        if sleep_steps is None:
            sleep_steps = self.certified_by(schedule) - wake
        return dataclasses.replace(schedule, sleep_steps=sleep_steps)


def window_shape(name: str, size: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return the number of windows along height and width (floor, as torch does).

    Parameters
    ----------
    name : str
        Of the layer, for errors.
    size : tuple of int
        (C, H, W) of the source.
    kernel, stride, padding, dilation : (int, int)
        Along height and width.

    Returns
    -------
    (int, int)
    """
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or min(kernel) < 1:
        raise InvalidNetworkError(
            f"{name}: kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation} make no windows"
        )
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    if min(out) < 1:
        raise InvalidNetworkError(f"{name}: a window of {kernel} does not fit into {size}")
    return out  # type: ignore[return-value]


def per_neuron(values: NDArray, shape: Shape) -> NDArray:
    """Return per-channel (or full) `values` in a shape that broadcasts against a layer of `shape`.

    Parameters
    ----------
    values : (C,) or `shape` ndarray
    shape : tuple of int

    Returns
    -------
    ndarray
    """
    return values if values.shape == shape else values.reshape(-1, *(1,) * (len(shape) - 1))


def _layer_shape(layer: Layer, shapes: dict[str, Shape]) -> Shape:
    if isinstance(layer, _Entry):
        return layer.shape
    if isinstance(layer, MaxPool):
        return layer.output_shape(shapes[layer.source])
    found = {synapse.output_shape(shapes[synapse.source]) for synapse in layer.synapses}
    if len(found) > 1:
        raise InvalidNetworkError(f"{layer.name}: its synapses have different shapes: {sorted(found)}")
    (shape,) = found
    _check_shape(layer.name, shape)
    allowed = {"bias": (shape[:1], shape)} | dict.fromkeys(("threshold", "initial", "scale"), (shape[:1],))
    for name, options in allowed.items():
        values = getattr(layer, name, None)
        if isinstance(values, np.ndarray) and values.shape not in options:
            raise InvalidNetworkError(f"{layer.name}: {name} has shape {values.shape}, the layer {shape}")
    return shape


def _check_shape(name: str, shape: Shape) -> None:
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise InvalidNetworkError(f"{name}: a shape is (C, H, W) or (N,), not {shape}")


def _integers(name: str, values: ArrayLike, what: str, remedy: str) -> NDArray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name}: {what} must hold integers, not {array.dtype}. {remedy}")
    return array


def _span(array: NDArray) -> Pair:
    return (int(array.min()), int(array.max())) if array.size else (0, 0)


def _check_whole(name: str, what: str, value: object) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise InvalidNetworkError(f"{name}: {what} ({value}) must be a whole number")


def _check_scale(name: str, scale: float | NDArray) -> None:
    if not np.all(np.isfinite(scale) & (np.asarray(scale) > 0)):
        raise InvalidNetworkError(f"{name}: scale {scale} must be positive and finite")


def _greatest(values: NDArray) -> int:
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _is_frozen(array: Any) -> bool:
    """Whether nobody can write to an array: neither by itself nor by another one that it would be a view of."""
    if type(array) is not np.ndarray:
        return False
    return array.flags.owndata and array.flags.c_contiguous and not array.flags.writeable


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b
