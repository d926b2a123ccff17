"""From a `Graph` of operations to a `FloatNetwork` of layers: all that is linear between activations becomes synapses.

Contract of a rewrite in this file:

* it preserves the function exactly in real arithmetic, borders included; what cannot be preserved is an error;
* a value that is linear in activations is an `_Affine`: one linear map for each activation that it reads, and a bias of
  the full shape, in which batch norm before a zero-padded convolution leaves its mark at the borders;
* a concatenation is never made: every value is a tuple of parts along dimension 1 (channels of an image, features of a
  vector), most often one. A convolution or a Linear sums over its parts; everything else goes part by part;
* in a graph of words every value is that of one phase, and a mean over the phases is that value itself: a readout is
  summed over the phases, and what is linear in the mean is linear in the sum;
* thresholds of channels become one: the neurons of a layer share the greatest, what a channel receives is divided by
  its share of that, and what reads the channel is multiplied by it;
* the result is checked against the graph on random inputs before it is returned (`fold`).
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.nn.grad import conv2d_input

from lava_casc.errors import UnsupportedModelError
from lava_casc.frontend.cqrelu import PHASES
from lava_casc.frontend.cqrnn import CQRNN
from lava_casc.frontend.trace import UNQUANTIZED, Graph, Operation, module_of, value_of
from lava_casc.linear import apply, max_pool
from lava_casc.network import Conv, Dense, MaxPool, Memory, Pair, Shape, Synapse, per_neuron

INPUT = "input"
#: Largest dense matrix, in entries, that stands in for a chain of windows which no single convolution can say.
DENSE_LIMIT = 1 << 24


@dataclass(frozen=True, eq=False)
class FloatNeurons:
    """CQReLU of a sum of synapses; `Conv` and `Dense` hold float64 weights on real activations.

    Attributes
    ----------
    name : str
    synapses : tuple of Conv or Dense
    bias : (C,) or full-shape ndarray of float64
    threshold : float
        lambda: the activation at which it saturates.
    levels : int
    phase : float
        0 (floor) or 1/2 (round).
    preactivation, activation : str
        The values of the graph that this layer's sum and its activation equal; `activation` is empty where a max pool
        stood between the two, because the pool now follows. The sum of a CQRNN is called as `_sum_inside` says.
    channels : (int, int or None)
        The channels of these values that this layer computes, from the first to before the second: all of them, but
        where the values are concatenated from several layers'.
    ratio, shift : (C,) or full-shape ndarray of float64
        Of a CQReLU whose channels have thresholds and shifts of their own: this layer's sum is ``(preactivation +
        shift) / ratio``, its activation the graph's divided by `ratio`, which is the channel's threshold over the
        greatest one: within (0, 1]. Otherwise 1 and 0, of shape (1,).
    """

    name: str
    synapses: tuple[Synapse, ...]
    bias: NDArray[np.float64]
    threshold: float
    levels: int
    phase: float
    preactivation: str
    activation: str
    channels: tuple[int, int | None] = (0, None)
    ratio: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    shift: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))

    def sum_for(self, preactivation: torch.Tensor) -> torch.Tensor:
        r"""Return the layer's sum where the graph has `preactivation`, (N, \*shape) in the shape of the layer."""
        shape = tuple(preactivation.shape[1:])
        ratio, shift = (torch.as_tensor(per_neuron(value, shape)) for value in (self.ratio, self.shift))
        return (preactivation + shift) / ratio

    def activation_for(self, activation: torch.Tensor) -> torch.Tensor:
        r"""Return the layer's activation where the graph has `activation`, (N, \*shape) in the shape of the layer."""
        return activation / torch.as_tensor(per_neuron(self.ratio, tuple(activation.shape[1:])))


@dataclass(frozen=True, eq=False)
class FloatReadout:
    """A linear end of the network, like `FloatNeurons` without the activation."""

    name: str
    synapses: tuple[Synapse, ...]
    bias: NDArray[np.float64]
    preactivation: str


FloatLayer = FloatNeurons | MaxPool | FloatReadout


@dataclass(frozen=True, eq=False)
class FloatNetwork:
    """Layers in topological order, a `FloatReadout` an output last. The input is called ``input``.

    Attributes
    ----------
    input_shape : tuple of int
        That of the graph.
    layers : tuple of FloatNeurons, MaxPool or FloatReadout
    shapes : dict of str to tuple of int
        Of every layer, of the input (one place for each token) and of the memories; in a network for words those of a
        single phase.
    memories : tuple of Memory
        In a network for words, what its layers read that was computed in the phase before.
    vocabulary : int, optional
        How many tokens there are, in a network for words.
    """

    input_shape: Shape
    layers: tuple[FloatLayer, ...]
    shapes: dict[str, Shape]
    memories: tuple[Memory, ...] = ()
    vocabulary: int | None = None


def fold(graph: Graph, *, check: int = 2) -> FloatNetwork:
    """Fold a graph into layers of synapses and CQReLU.

    Batch norm and average pools go into the weights, a max pool before a CQReLU goes behind it (both are monotone),
    additions and concatenations become further synapses of the neurons that read them. The CQReLU of a concatenation
    is one layer a part.

    Parameters
    ----------
    graph : Graph
    check : int
        Random inputs on which every layer's sum is compared with the graph's value, in float64.

    Returns
    -------
    FloatNetwork

    Raises
    ------
    UnsupportedModelError
        An operation stands where it cannot be folded, or is an activation without levels; names its path.
    """
    for op in graph.operations:
        if op.kind in UNQUANTIZED:
            raise UnsupportedModelError(
                f"{op.path}: {op.kind} has no levels for spikes to count. Calibrate the checkpoint with lava-casc "
                "calibrate, or use lava_casc.replace_relu(model, levels) and train."
            )
    network = _Folder(averages_into_linear(graph)).fold()
    if check:
        _check(network, graph, check)
    return network


def averages_into_linear(graph: Graph) -> Graph:
    """Return the graph in which a Linear behind an adaptive average and a Flatten does the averaging itself.

    Its weights become ``W @ P``, with P the average's matrix, which is never made: each row of the product is the
    gradient of the average with a row of W. Windows of any size and overlap fold this way, VGG's 7x7 ones on images of
    any size among them.
    """
    by_name = {op.name: op for op in graph.operations}
    readers = Counter([*graph.outputs, *(name for op in graph.operations for name in op.inputs)])
    changed: dict[str, Operation] = {}
    for linear in graph.operations:
        flatten = by_name[linear.inputs[0]] if linear.kind == "Linear" else None
        pool = by_name[flatten.inputs[0]] if flatten is not None and flatten.kind == "Flatten" else None
        if flatten is None or pool is None or pool.kind != "AdaptiveAvgPool2d":
            continue
        if readers[flatten.name] == readers[pool.name] == 1:
            rows = _averaging(pool, linear.tensors["weight"].double(), _shape_of(graph, pool.inputs[0]))
            changed[linear.name] = replace(linear, tensors={**linear.tensors, "weight": rows.flatten(1)})
            changed[flatten.name] = replace(flatten, inputs=pool.inputs)
            by_name.pop(pool.name)
    return replace(graph, operations=tuple(changed.get(op.name, op) for op in graph.operations if op.name in by_name))


def _averaging(pool: Operation, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return weights on an adaptive average as weights on the image of `shape` that it averages."""
    if _pair(pool.arguments["output_size"]) == (1, 1):  # most often; torch.autograd would first load SymPy
        return (weight / math.prod(shape[1:]))[:, :, None, None].expand(-1, *shape)
    with torch.enable_grad():
        x = torch.zeros(len(weight), *shape, dtype=torch.float64, requires_grad=True)
        y = F.adaptive_avg_pool2d(x, pool.arguments["output_size"])
        (rows,) = torch.autograd.grad(y, x, weight.reshape(y.shape))
    return rows


def _shape_of(graph: Graph, name: str) -> Shape:
    """Return the shape of a value of the graph, without the batch."""
    place = [op.name for op in graph.operations].index(name)
    before = replace(graph, operations=graph.operations[: place + 1], outputs=(name,), output_names=())
    return tuple(_truth(before, torch.zeros(1, *graph.input_shape, dtype=torch.float64))[name].shape[1:])


def evaluate(network: FloatNetwork, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the real activation of every layer, the readouts last, for real inputs (N, ...) in float64.

    For tokens (N, P) the activations of neurons are (N, P, ...), and readouts are means over the phases.
    """
    if network.vocabulary is None:
        return _evaluate(network, {INPUT: x.to(torch.float64)})
    phases: list[dict[str, torch.Tensor]] = []
    held = {m.name: torch.zeros(len(x), *m.shape, dtype=torch.float64) for m in network.memories}
    for tokens in x.long().unbind(1):
        phases.append(_evaluate(network, {INPUT: F.one_hot(tokens, network.vocabulary).double(), **held}))
        held = {memory.name: phases[-1][memory.source] for memory in network.memories}
    found = {layer.name: torch.stack([phase[layer.name] for phase in phases], 1) for layer in network.layers}
    means = {layer.name: found[layer.name].mean(1) for layer in network.layers if isinstance(layer, FloatReadout)}
    return {**found, **means}


def _evaluate(network: FloatNetwork, entries: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    values = dict(entries)
    for layer in network.layers:
        if isinstance(layer, MaxPool):
            values[layer.name] = max_pool(layer, values[layer.source])
            continue
        total = received(network, layer, values)
        values[layer.name] = activate(layer, total) if isinstance(layer, FloatNeurons) else total
    return values


def received(
    network: FloatNetwork, layer: FloatNeurons | FloatReadout, values: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the sum of a layer's synapses and bias, (N, ...) float64, for given values of its sources."""
    bias = torch.as_tensor(per_neuron(layer.bias, network.shapes[layer.name]))
    return sum((apply(s, values[s.source], _shared(s.weight)) for s in layer.synapses), bias)


def activate(layer: FloatNeurons, z: torch.Tensor) -> torch.Tensor:
    """Return CQReLU of `z`."""
    steps = torch.floor(z * layer.levels / layer.threshold + layer.phase).clamp(0, layer.levels)
    return steps * (layer.threshold / layer.levels)


@dataclass(frozen=True, eq=False)
class _Diagonal:
    """`Dense` of a diagonal matrix, by its diagonal (I,) alone: thousands of values, not millions of zeros."""

    source: str
    weight: NDArray[np.float64]


_Term = Synapse | _Diagonal


@dataclass(frozen=True, eq=False)
class _Affine:
    """A value ``sum_k map_k(source_k) + bias``; `shape` may be flat while a map still is a convolution (C order)."""

    shape: Shape
    terms: tuple[_Term, ...]
    bias: torch.Tensor
    label: str = ""

    @property
    def width(self) -> int:
        """How many channels or features it has."""
        return self.shape[0]

    @property
    def synapses(self) -> tuple[Synapse, ...]:
        """The terms of a value that a layer is made of, none of which is a diagonal any more."""
        found = tuple(term for term in self.terms if not isinstance(term, _Diagonal))
        if len(found) != len(self.terms):
            raise AssertionError(f"{self.label}: a diagonal is left among the synapses")
        return found

    @property
    def scaled(self) -> tuple[str, NDArray[np.float64]] | None:
        """The source that this value is, if it is one, and the factor greater than 0 (C,) of each channel."""
        if len(self.terms) != 1 or bool(self.bias.any()) or not _is_pointwise(self.terms[0]):
            return None
        term = self.terms[0]
        factors = np.diagonal(term.weight) if isinstance(term, Dense) else term.weight.reshape(len(term.weight))
        return (term.source, factors) if bool((factors > 0).all()) else None


@dataclass(frozen=True, eq=False)
class _PooledAffine:
    """A max pool of a value that is no activation: it waits for a CQReLU to come before."""

    affine: _Affine
    pool: Operation
    of: str
    channels: tuple[int, int]

    @property
    def width(self) -> int:
        """How many channels it has."""
        return self.affine.width


class _Folder:
    """One pass over a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[FloatLayer] = []
        self.memories: list[Memory] = []
        vocabulary = graph.vocabulary
        self.shapes: dict[str, Shape] = {INPUT: graph.input_shape if vocabulary is None else (vocabulary,)}
        if INPUT in graph.output_names:
            raise UnsupportedModelError(f"an output is called {INPUT!r}, as the network's input is. Rename it.")
        self.values: dict[str, tuple[_Affine | _PooledAffine, ...]] = {}

    def fold(self) -> FloatNetwork:
        last_reader = {name: op.name for op in self.graph.operations for name in op.inputs}
        for op in self.graph.operations:
            self.values[op.name] = self._fold(op)
            for name in {*op.inputs} - {*self.graph.outputs}:
                if last_reader[name] == op.name:
                    del self.values[name]  # its weights need the memory of all that comes after
        by_name = {op.name: op for op in self.graph.operations}
        for i, name in enumerate(self.graph.outputs):
            self._readout(by_name[name], self.graph.output_names[i] if self.graph.output_names else "")
        memories = tuple(self.memories)
        return FloatNetwork(self.graph.input_shape, tuple(self.layers), self.shapes, memories, self.graph.vocabulary)

    def _readout(self, op: Operation, name: str) -> None:
        """Add the readout of an output; where its parts are several, each has rows of zeros for the others."""
        parts = self._affine(op.name, "the output")
        width = sum(part.width for part in parts)
        made = []
        for part, (start, stop) in zip(parts, _channels_of(parts), strict=True):
            if len(part.shape) == 3 and not all(isinstance(term, Conv) for term in part.terms):
                raise UnsupportedModelError(
                    f"{op.path}: an output image that no convolution can say, but only a matrix. Flatten this output."
                )
            terms = part.synapses if len(part.shape) == 3 else tuple(self._dense(op, term) for term in part.terms)
            bias = torch.zeros(width, *part.shape[1:], dtype=torch.float64)
            bias[start:stop] = part.bias
            terms = terms if len(parts) == 1 else tuple(_among(term, start, width) for term in terms)
            made.append(_Affine(tuple(bias.shape), terms, bias))
        total = _sum(made, "")
        name = name or self._unique((parts[0].label if len(parts) == 1 else "") or "readout")
        self._add(FloatReadout(name, total.synapses, _compress(total.bias), op.name), total.shape)

    def _fold(self, op: Operation) -> tuple[_Affine | _PooledAffine, ...]:
        if op.kind == "input":
            return (self._identity(INPUT),) if self.graph.vocabulary is None else ()
        if op.kind == "Embedding":
            # A token is one unit at its place: its embedding is a column.
            weight = op.tensors["weight"][: self.graph.vocabulary].double().T
            bias = torch.zeros(len(weight), dtype=torch.float64)
            return (_Affine((len(weight),), (Dense(INPUT, weight.numpy()),), bias),)
        if op.kind == "mean":
            return self.values[op.inputs[0]]
        if op.kind == "concatenate":
            return tuple(part for name in op.inputs for part in self.values[name])
        if op.kind == "CQReLU":
            parts = self.values[op.inputs[0]]
            return tuple(self._activation(op, *each) for each in zip(parts, _channels_of(parts), strict=True))
        reader = f"{op.kind} ({op.path})"
        if op.kind == "add":
            a, b = (self._affine(name, reader) for name in op.inputs)
            cuts = {stop for parts in (a, b) for _, stop in _channels_of(parts)}
            pairs = zip(self._cut(op, a, cuts), self._cut(op, b, cuts), strict=True)
            return tuple(_sum(pair, pair[0].label or pair[1].label) for pair in pairs)
        affines = self._affine(op.inputs[0], reader)
        if op.kind in _SUMS:
            return _SUMS[op.kind](self, op, affines)
        each = zip(affines, _channels_of(affines), strict=True)
        return tuple(_RULES[op.kind](self, op, value, slice(*channels)) for value, channels in each)

    def _affine(self, name: str, reader: str) -> tuple[_Affine, ...]:
        """Return the parts of a value that `reader` can only read as linear ones."""
        parts = self.values[name]
        for part in parts:
            if isinstance(part, _PooledAffine):
                raise UnsupportedModelError(
                    f"{part.pool.path}: a max pool of something that is no activation, followed by {reader}. "
                    "Put a CQReLU right before or right behind the max pool."
                )
        return parts  # type: ignore[return-value]

    def _cut(self, op: Operation, parts: tuple[_Affine, ...], cuts: set[int]) -> list[_Affine]:
        """Return the parts cut further, so that each ends at one of `cuts`."""
        made = []
        for part, (start, stop) in zip(parts, _channels_of(parts), strict=True):
            ends = sorted(cut for cut in cuts if start < cut <= stop)
            for first, last in zip([start, *ends], ends, strict=False):
                made.append(self._channels(op, part, first - start, last - start))
        return made

    def _channels(self, op: Operation, value: _Affine, start: int, stop: int) -> _Affine:
        """Return channels `start` to `stop` of a value: the rows of its weights."""
        if (start, stop) == (0, value.width):
            return value

        def rows(term: _Term) -> Synapse:
            if isinstance(term, Conv):
                # A flattened image has as many features a channel as it has positions.
                size = term.output_shape(self.shapes[term.source])[1:] if len(value.shape) == 1 else ()
                positions = int(np.prod(size))
                if start % positions == stop % positions == 0:
                    weight = _ungrouped(term)[start // positions : stop // positions]
                    return replace(term, weight=weight, groups=1)
            term = self._dense(op, term)
            positions = int(np.prod(value.shape[1:]))
            return replace(term, weight=term.weight[start * positions : stop * positions])

        shape = (stop - start, *value.shape[1:])
        return replace(value, shape=shape, terms=tuple(map(rows, value.terms)), bias=value.bias[start:stop])

    def _identity(self, source: str, factors: NDArray[np.float64] | None = None) -> _Affine:
        """Return the value of a source, each of its channels times its factor (C,)."""
        shape = self.shapes[source]
        diagonal = np.ones(shape[0]) if factors is None else np.broadcast_to(factors, shape[:1])
        if len(shape) == 3:
            term: _Term = Conv(source, diagonal.reshape(-1, 1, 1, 1).copy(), groups=shape[0])
        else:
            term = _Diagonal(source, diagonal)
        return _Affine(shape, (term,), torch.zeros(shape, dtype=torch.float64))

    def _activation(self, op: Operation, value: _Affine | _PooledAffine, channels: tuple[int, int]) -> _Affine:
        pooled = isinstance(value, _PooledAffine)
        flat = value.affine if isinstance(value, _PooledAffine) else value
        threshold, ratio, shift = _thresholds(op, channels)
        if shift.any():
            flat = replace(flat, bias=flat.bias + _column(torch.as_tensor(shift), len(flat.shape)))
        if (ratio != 1).any():
            flat = self._rescale(op, flat, torch.as_tensor(1 / ratio), torch.zeros(1))
        affine = self._shaped(op, flat)
        ratio, shift = (_spread(values, flat.shape, affine.shape) for values in (ratio, shift))
        neurons = FloatNeurons(
            self._unique(affine.label or op.path),
            affine.synapses,
            _compress(affine.bias),
            threshold,
            op.arguments["levels"],
            PHASES[op.arguments["rounding"]],
            value.of if isinstance(value, _PooledAffine) else op.inputs[0],
            "" if pooled else op.name,
            value.channels if isinstance(value, _PooledAffine) else channels,
            ratio,
            shift,
        )
        self._add(neurons, affine.shape)
        if isinstance(value, _PooledAffine):
            return self._max_pool(value.pool, neurons.name, ratio)
        identity = self._identity(neurons.name, ratio)
        return replace(identity, shape=flat.shape, bias=identity.bias.reshape(flat.shape))

    def _shaped(self, op: Operation, value: _Affine) -> _Affine:
        """Return a value in the shape in which neurons receive it.

        Where all of its terms are convolutions that is an image, even of a flattened value, and otherwise a vector.
        """
        images = {t.output_shape(self.shapes[t.source]) for t in value.terms if isinstance(t, Conv)}
        if len(images) == 1 and all(isinstance(term, Conv) for term in value.terms):
            (shape,) = images
            return replace(value, shape=shape, bias=value.bias.reshape(shape))
        terms = tuple(self._dense(op, term) for term in value.terms)
        return _sum([_Affine((value.bias.numel(),), terms, value.bias.flatten())], value.label)

    def _max_pool(self, op: Operation, source: str, factors: NDArray[np.float64]) -> _Affine:
        """Return the max pool of a source whose channels have factors greater than 0, with which it commutes."""
        if len(self.shapes[source]) != 3:
            raise UnsupportedModelError(
                f"{op.path}: a max pool of {source}, whose windows only a matrix can say. "
                "Use windows that tile their input."
            )
        kernel = _pair(op.arguments["kernel_size"])
        pool = MaxPool(
            self._unique(op.path),
            source,
            kernel,
            _pair(op.arguments["stride"] or kernel),
            _pair(op.arguments["padding"]),
            _pair(op.arguments["dilation"]),
        )
        shape = pool.output_shape(self.shapes[source])
        if bool(max_pool(pool, torch.zeros(1, *self.shapes[source])).isinf().any()):
            raise UnsupportedModelError(
                f"{op.path}: a window of the max pool holds nothing but padding. Use less padding."
            )
        self._add(pool, shape)
        return self._identity(pool.name, factors)

    def _add(self, layer: FloatLayer, shape: Shape) -> None:
        self.layers.append(layer)
        self.shapes[layer.name] = shape

    def _unique(self, name: str) -> str:
        taken = {*self.shapes, *self.graph.output_names}
        candidates: Iterator[str] = (name if i == 0 else f"{name}_{i}" for i in range(len(taken) + 1))
        return next(candidate for candidate in candidates if candidate not in taken)

    # One rule for each kind of operation that sums over its input's channels: all of its parts in, a part or more out.

    def _conv(self, op: Operation, parts: tuple[_Affine, ...]) -> tuple[_Affine, ...]:
        weight, groups = _float64(op.tensors["weight"]), op.arguments["groups"]
        bias = _column(op.tensors.get("bias", torch.zeros(len(weight))), 3)
        stride, padding, dilation = (_pair(op.arguments[name]) for name in ("stride", "padding", "dilation"))
        kernel = Conv("", weight, stride, padding, dilation, groups)
        rows, columns = len(weight) // groups, weight.shape[1]
        if groups > 1 and any(start % columns for start, _ in _channels_of(parts)):  # a part ends within a group
            kernel, groups = replace(kernel, weight=_ungrouped(kernel), groups=1), 1
        made = []
        for part, (start, stop) in zip(parts, _channels_of(parts), strict=True):
            if len(parts) == 1:
                own = kernel
            elif groups == 1:
                own = replace(kernel, weight=kernel.weight[:, start:stop])
            else:
                first, last = start // columns, stop // columns
                own = replace(kernel, weight=weight[first * rows : last * rows], groups=last - first)
            terms = tuple(self._convolve(op, own, term, part.shape) for term in part.terms)
            shape = own.output_shape(part.shape)
            none = torch.zeros(shape, dtype=torch.float64)
            shifted = apply(own, part.bias[None], _shared(own.weight))[0] if bool(part.bias.any()) else none
            made.append(_Affine(shape, terms, shifted, op.path))
        made = [_sum(made, op.path)] if groups == 1 else made
        return tuple(
            replace(part, bias=part.bias + bias[slice(*channels)])
            for part, channels in zip(made, _channels_of(made), strict=True)
        )

    def _linear(self, op: Operation, parts: tuple[_Affine, ...]) -> tuple[_Affine, ...]:
        for part in parts:
            if len(part.shape) != 1:
                raise UnsupportedModelError(f"{op.path}: Linear on shape {part.shape}. Flatten first.")
        weight = op.tensors["weight"].double()
        made = []
        for part, (start, stop) in zip(parts, _channels_of(parts), strict=True):
            own = weight[:, start:stop]
            terms = tuple(self._multiply(own, term) for term in part.terms)
            made.append(_Affine((len(weight),), terms, own @ part.bias, op.path))
        total = _sum(made, op.path)
        return (replace(total, bias=total.bias + _column(op.tensors.get("bias", torch.zeros(())), 1)),)

    def _recurrent(self, op: Operation, values: tuple[_Affine, ...]) -> tuple[_Affine, ...]:
        tensors = {"weight": op.tensors["weight_ih"], "bias": op.tensors["bias"]}
        threshold, ratio, shift = _thresholds(op, (0, None))
        (received,) = self._linear(replace(op, tensors=tensors), values)
        received = self._rescale(op, received, torch.as_tensor(1 / ratio), torch.as_tensor(shift / ratio))
        recurrent = op.tensors["weight_hh"].double().numpy() / ratio[:, None] * ratio
        name = self._unique(op.path)
        memory = Memory(self._unique(f"{name}.memory"), name, received.shape, op.arguments["levels"])
        self.memories.append(memory)
        self.shapes[memory.name] = memory.shape
        neurons = FloatNeurons(
            name,
            (*received.synapses, Dense(memory.name, recurrent)),
            received.bias.numpy(),
            threshold,
            memory.levels,
            PHASES[op.arguments["rounding"]],
            _sum_inside(op),
            op.name,
            ratio=ratio,
            shift=shift,
        )
        self._add(neurons, received.shape)
        return (self._identity(name, ratio),)

    # One rule for each other kind of linear operation: a part in, a part out. `channels` are those of the operation's
    # input that the part is.

    def _batch_norm(self, op: Operation, value: _Affine, channels: slice) -> _Affine:
        t = {name: tensor.double()[channels] for name, tensor in op.tensors.items()}
        scale = t.get("weight", torch.ones(())) / torch.sqrt(t["running_var"] + op.arguments["eps"])
        return self._rescale(op, value, scale, t.get("bias", torch.zeros(())) - t["running_mean"] * scale)

    def _normalize(self, op: Operation, value: _Affine, channels: slice) -> _Affine:
        mean, std = (op.tensors[name].double() for name in ("mean", "std"))
        mean, std = (t.expand(value.width) if t.numel() == 1 else t[channels] for t in (mean, std))
        return self._rescale(op, value, 1 / std, -mean / std)

    def _rescale(self, op: Operation, value: _Affine, scale: torch.Tensor, shift: torch.Tensor) -> _Affine:
        full = scale.reshape(-1, *(1,) * (len(value.shape) - 1)).expand(value.shape)

        def rescaled(term: _Term) -> _Term:
            if isinstance(term, Conv) and len(value.shape) == 1:  # flattened: another factor for each position
                term = self._dense(op, term)
            factors = (scale if isinstance(term, Conv) else full).reshape(-1, *(1,) * (term.weight.ndim - 1)).numpy()
            return replace(term, weight=_frozen(term.weight * factors))

        return replace(
            value,
            terms=tuple(rescaled(term) for term in value.terms),
            bias=value.bias * full + _column(shift, len(value.shape)),
        )

    def _average(self, op: Operation, value: _Affine, channels: slice) -> _Affine:
        a, floor = op.arguments, {**op.arguments, "ceil_mode": False}
        if F.avg_pool2d(value.bias[None], **a).shape == F.avg_pool2d(value.bias[None], **floor).shape:
            a = floor  # no window reaches beyond the image
        kernel = _pair(a["kernel_size"])
        stride, padding = _pair(a["stride"] or kernel), _pair(a["padding"])
        divisor = a["divisor_override"] or kernel[0] * kernel[1]
        uniform = not a["ceil_mode"] and (a["count_include_pad"] or padding == (0, 0) or a["divisor_override"])
        window = (
            Conv("", np.full((value.shape[0], 1, *kernel), 1 / divisor), stride, padding, groups=value.shape[0])
            if uniform
            else None
        )
        return self._window(op, value, window, lambda x: F.avg_pool2d(x, **a))

    def _adaptive(self, op: Operation, value: _Affine, channels: slice) -> _Affine:
        size = tuple(n if n else m for n, m in zip(_pair(op.arguments["output_size"]), value.shape[1:], strict=True))
        kernel = (value.shape[1] // size[0], value.shape[2] // size[1])
        even = all(k * n == m for k, n, m in zip(kernel, size, value.shape[1:], strict=True))
        window = (
            Conv(
                "",
                np.full((value.shape[0], 1, *kernel), 1 / (kernel[0] * kernel[1])),
                kernel,
                groups=value.shape[0],
            )
            if even
            else None
        )
        return self._window(op, value, window, lambda x: F.adaptive_avg_pool2d(x, (size[0], size[1])))

    def _window(
        self,
        op: Operation,
        value: _Affine,
        window: Conv | None,
        average: Callable[[torch.Tensor], torch.Tensor],
    ) -> _Affine:
        """Fold an average: a depthwise convolution where all of its windows are alike, else a matrix."""
        bias = average(value.bias[None])[0]

        def averaged(term: _Term) -> Synapse:
            if window is not None:
                return self._convolve(op, window, term, value.shape)
            return self._through(op, self._dense(op, term), value.shape, average)

        return replace(value, shape=tuple(bias.shape), terms=tuple(averaged(term) for term in value.terms), bias=bias)

    def _maximum(self, op: Operation, value: _Affine, channels: slice) -> _Affine | _PooledAffine:
        source, factors = value.scaled or (INPUT, np.ones(1))
        if source != INPUT:
            return self._max_pool(op, source, factors)
        return _PooledAffine(value, op, op.inputs[0], (channels.start, channels.stop))

    def _flatten(self, op: Operation, value: _Affine, channels: slice) -> _Affine:
        return replace(value, shape=(int(np.prod(value.shape)),), bias=value.bias.flatten())

    # Composition of linear maps.

    def _convolve(self, op: Operation, outer: Conv, inner: _Term, shape: Shape) -> Synapse:
        """Return `outer` after `inner`, whose result has `shape`."""
        if isinstance(inner, Conv):
            composed = _compose(outer, inner, self.shapes[inner.source])
            if composed is not None:
                return composed
        return self._through(op, self._dense(op, inner), shape, lambda x: apply(outer, x))

    def _multiply(self, weight: torch.Tensor, inner: _Term) -> Dense:
        """Return the dense synapse ``weight @ inner``."""
        if isinstance(inner, _Diagonal):
            return Dense(inner.source, weight.numpy() * inner.weight)
        if isinstance(inner, Dense):
            return Dense(inner.source, (weight @ torch.as_tensor(inner.weight.copy())).numpy())
        # The transpose of a convolution is the gradient of its result with respect to its input.
        shape = self.shapes[inner.source]
        windows = inner.stride, inner.padding, inner.dilation, inner.groups
        gradient = weight.reshape(-1, *inner.output_shape(shape))
        rows = conv2d_input((len(weight), *shape), _shared(inner.weight), gradient, *windows)
        return Dense(inner.source, rows.flatten(1).numpy())

    def _dense(self, op: Operation, term: _Term) -> Dense:
        """Return a term as a matrix."""
        if isinstance(term, Dense):
            return term
        shape = self.shapes[term.source]
        if isinstance(term, _Diagonal):
            if shape[0] ** 2 > DENSE_LIMIT:
                raise UnsupportedModelError(
                    f"{op.path}: {op.kind} reads {term.source} value by value, and a matrix of {shape[0]} x {shape[0]} "
                    f"would be too large. Make {term.source} an image of ({shape[0]}, 1, 1)."
                )
            return Dense(term.source, np.diag(term.weight))
        inputs, outputs = int(np.prod(shape)), int(np.prod(term.output_shape(shape)))
        _check_matrix(op, term.source, outputs, inputs)
        if outputs < inputs:
            return self._multiply(torch.eye(outputs, dtype=torch.float64), term)
        basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *shape)
        return Dense(term.source, apply(term, basis).flatten(1).T.contiguous().numpy())

    def _through(
        self, op: Operation, inner: Dense, shape: Shape, linear: Callable[[torch.Tensor], torch.Tensor]
    ) -> Dense:
        """Return `linear`, which takes images of `shape`, after a matrix."""
        columns = torch.as_tensor(inner.weight.copy()).T.reshape(-1, *shape)
        _check_matrix(op, inner.source, linear(columns[:1]).numel(), len(columns))
        return Dense(inner.source, linear(columns).flatten(1).T.contiguous().numpy())


_SUMS: dict[str, Callable[[_Folder, Operation, tuple[_Affine, ...]], tuple[_Affine, ...]]] = {
    "Conv2d": _Folder._conv,
    "Linear": _Folder._linear,
    "CQRNN": _Folder._recurrent,
}
_RULES: dict[str, Callable[[_Folder, Operation, _Affine, slice], _Affine | _PooledAffine]] = {
    "BatchNorm1d": _Folder._batch_norm,
    "BatchNorm2d": _Folder._batch_norm,
    "Normalize": _Folder._normalize,
    "AvgPool2d": _Folder._average,
    "AdaptiveAvgPool2d": _Folder._adaptive,
    "MaxPool2d": _Folder._maximum,
    "Flatten": _Folder._flatten,
}


def _thresholds(
    op: Operation, channels: tuple[int, int | None]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the greatest threshold of some channels, each one's share of it, and the shifts; (1,) where all agree."""
    prefix, found = "activation." if op.kind == "CQRNN" else "", []
    for name, default in (("threshold", 1.0), ("shift", 0.0)):
        value = op.tensors.get(prefix + name, torch.tensor(default)).double().numpy().reshape(-1)
        value = value[slice(*channels)] if value.size > 1 else value
        found.append(value[:1] if (value == value[0]).all() else value)
    threshold, shift = found
    return float(threshold.max()), threshold / threshold.max(), shift


def _spread(values: NDArray[np.float64], before: Shape, after: Shape) -> NDArray[np.float64]:
    """Return values of the channels of shape `before` for the same neurons in shape `after`."""
    if values.size == 1 or before == after:
        return values
    return np.broadcast_to(values.reshape(-1, *(1,) * (len(before) - 1)), before).reshape(after)


def _channels_of(parts: Sequence[_Affine | _PooledAffine]) -> list[tuple[int, int]]:
    """Return the first channel of each part, and the one after its last, within the value that they make up."""
    stops = list(accumulate(part.width for part in parts))
    return list(zip([0, *stops], stops, strict=False))


def _sum(values: Sequence[_Affine], label: str) -> _Affine:
    """Return the sum of values, with one synapse for all terms of the same source and geometry."""
    terms: dict[Any, _Term] = {}
    for term in (term for value in values for term in value.terms):
        geometry = tuple(getattr(term, f.name) for f in fields(term) if f.name != "weight")
        key = (type(term), term.weight.shape, *geometry)
        terms[key] = replace(term, weight=terms[key].weight + term.weight) if key in terms else term
    bias = torch.stack([value.bias for value in values]).sum(0)
    return _Affine(values[0].shape, tuple(terms.values()), bias, label)


def _ungrouped(conv: Conv) -> NDArray[np.float64]:
    """Return the weights (O, C, KH, KW) of the same convolution in one group: zeros between the groups."""
    out, per_group = conv.weight.shape[:2]
    full = np.zeros((out, conv.groups * per_group, *conv.weight.shape[2:]))
    for rows, columns in zip(np.split(np.arange(out), conv.groups), range(0, full.shape[1], per_group), strict=True):
        full[rows, columns : columns + per_group] = conv.weight[rows]
    return full


def _among(term: Synapse, start: int, width: int) -> Synapse:
    """Return a synapse whose rows are those from `start` on among `width`, and zero elsewhere."""
    rows = _ungrouped(term) if isinstance(term, Conv) else term.weight
    full = np.zeros((width, *rows.shape[1:]))
    full[start : start + len(rows)] = rows
    return replace(term, weight=full, groups=1) if isinstance(term, Conv) else replace(term, weight=full)


def _check_matrix(op: Operation, source: str, outputs: int, inputs: int) -> None:
    if inputs * outputs > DENSE_LIMIT:
        raise UnsupportedModelError(
            f"{op.path}: {op.kind} follows {source} with windows that no convolution can say, and a matrix of "
            f"{outputs} x {inputs} would be too large. Put a CQReLU between them, or use windows that tile their input."
        )


def _compose(outer: Conv, inner: Conv, shape: Shape) -> Conv | None:
    """Return one convolution that does `inner`, then `outer`, or None where there is none.

    Zero padding between the two is zero padding before both only if `inner` yields zero there: where `outer` does not
    pad, or where the windows of `inner` tile its input without overlap, remainder or padding of their own.
    """
    if _is_pointwise(inner):
        same = bool((inner.weight == 1).all())
        weight = outer.weight if same else _frozen(outer.weight * _gather(inner.weight, outer))
        return replace(outer, source=inner.source, weight=weight)
    size = inner.output_shape(shape)[1:]
    tiles = (
        inner.weight.shape[2:] == inner.stride
        and inner.padding == (0, 0)
        and inner.dilation == (1, 1)
        and shape[1:] == tuple(n * s for n, s in zip(size, inner.stride, strict=True))
    )
    if outer.padding != (0, 0) and not tiles:
        return None
    mix: Callable[[NDArray, NDArray], NDArray] = _multiplied
    if inner.groups == inner.weight.shape[0] and inner.weight.shape[1] == 1:
        weight, groups, taps = outer.weight, outer.groups, _gather(inner.weight, outer)
    elif outer.groups == outer.weight.shape[0] == inner.weight.shape[0] and outer.weight.shape[1] == 1:
        weight, groups, taps = outer.weight, inner.groups, inner.weight
    else:
        weight, groups, taps, mix = _ungrouped(outer), 1, _ungrouped(inner), _mixed
    extent = [
        (ko - 1) * do * si + (ki - 1) * di + 1
        for ko, do, si, ki, di in zip(
            outer.weight.shape[2:],
            outer.dilation,
            inner.stride,
            inner.weight.shape[2:],
            inner.dilation,
            strict=True,
        )
    ]
    size = (*mix(weight[:, :, 0, 0], taps[:, :, :1, :1]).shape[:2], *extent)
    if mix is _multiplied and inner.weight.shape[2:] == inner.stride and inner.dilation == outer.dilation == (1, 1):
        # No two products fall together, as for an average pool: all of them at once.
        (high, wide), (kh, kw) = weight.shape[2:], taps.shape[2:]
        composed = np.empty(size)
        products = composed.reshape(*size[:2], high, kh, wide, kw)
        np.multiply(weight[:, :, :, None, :, None], taps[:, :, None, :, None, :], out=products)
    else:
        composed = np.zeros(size)
        reach = [(ki - 1) * di + 1 for ki, di in zip(inner.weight.shape[2:], inner.dilation, strict=True)]
        for i, j in np.ndindex(outer.weight.shape[2:]):
            row, column = i * outer.dilation[0] * inner.stride[0], j * outer.dilation[1] * inner.stride[1]
            rows = slice(row, row + reach[0], inner.dilation[0])
            columns = slice(column, column + reach[1], inner.dilation[1])
            composed[:, :, rows, columns] += mix(weight[:, :, i, j], taps)
    stride = tuple(a * b for a, b in zip(outer.stride, inner.stride, strict=True))
    padding = tuple(p * s + q for p, s, q in zip(outer.padding, inner.stride, inner.padding, strict=True))
    return Conv(inner.source, _frozen(composed), stride, padding, (1, 1), groups)  # type: ignore[arg-type]


def _multiplied(factors: NDArray, taps: NDArray) -> NDArray:
    """Return taps (O, I, KH, KW), each times the factor (O, I) of its channels."""
    return factors[:, :, None, None] * taps


def _mixed(factors: NDArray, taps: NDArray) -> NDArray:
    """Return taps (M, I, KH, KW) whose channels are summed by factors (O, M), as (O, I, KH, KW)."""
    return np.matmul(factors, taps.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)


def _gather(depthwise: NDArray, outer: Conv) -> NDArray:
    """Return depthwise weights (C, 1, KH, KW) as (O, C / groups, KH, KW): those of the channel that a weight reads."""
    out, per_group = outer.weight.shape[:2]
    channel = (np.arange(out) // (out // outer.groups))[:, None] * per_group + np.arange(per_group)
    return depthwise[:, 0][channel]


def _is_pointwise(term: _Term) -> bool:
    """Whether a term scales each channel and does nothing else."""
    if isinstance(term, _Diagonal):
        return True
    if isinstance(term, Dense):
        return term.weight.shape[0] == term.weight.shape[1] and bool(
            (term.weight == np.diag(np.diagonal(term.weight))).all()
        )
    return (
        term.weight.shape[1:] == (1, 1, 1)
        and term.groups == term.weight.shape[0]
        and term.stride == (1, 1)
        and term.padding == (0, 0)
    )


def _compress(bias: torch.Tensor) -> NDArray[np.float64]:
    """Return one bias a channel where all positions agree (up to float64 rounding), else the full shape."""
    array = bias.numpy()
    if array.ndim == 1:
        return array
    flat = array.reshape(len(array), -1)
    alike = np.ptp(flat, axis=1).max() <= 1e-12 * max(1.0, np.abs(flat).max())
    return flat[:, 0].copy() if alike else array


def _float64(values: torch.Tensor) -> NDArray[np.float64]:
    """Return a tensor of any floating-point type as an array that no synapse need copy."""
    array = np.empty(values.shape)
    torch.from_numpy(array).copy_(values)
    return _frozen(array)


def _frozen(array: NDArray) -> NDArray:
    """Return an array that was just made, read-only from now on, so that no synapse need copy it."""
    array.setflags(write=False)
    return array


def _shared(weight: NDArray[np.float64]) -> torch.Tensor:
    """Return a read-only array as a tensor in the same memory, for reading alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns of writing to it, which nobody does
        return torch.from_numpy(weight)


def _column(values: torch.Tensor, ndim: int) -> torch.Tensor:
    """Return one value a channel, so that it broadcasts against an image or a vector."""
    return values.double().reshape(-1, *(1,) * (ndim - 1))


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) or value is None else (value[0], value[-1])


def _sum_inside(op: Operation) -> str:
    """Return how the sum before the activation of a CQRNN is called, which is no value of its graph."""
    return f"{op.name}.received"


def _truth(graph: Graph, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return every value of the graph in float64; those of phases as if each phase were a sample."""
    truth: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for op in graph.operations:
            inputs = [truth[name] for name in op.inputs]
            # One after the other: all in double precision together would take the memory of another network.
            module = module_of(op, own=False).double().eval() if op.is_module else None
            truth[op.name] = value_of(op, module, inputs, x)
            if isinstance(module, CQRNN):
                truth[_sum_inside(op)] = module.received(inputs[0], truth[op.name])
    if graph.vocabulary is None:
        return truth
    return {name: value.flatten(0, 1) if value.dim() == 3 else value for name, value in truth.items()}


def _check(network: FloatNetwork, graph: Graph, samples: int) -> None:
    """Compare every layer's sum with the value of the graph that it must equal, each from the graph's own activations.

    A sum is compared before its floor, so that rounding in float64 cannot flip a level and hide or fake a difference.
    """
    generator = torch.Generator().manual_seed(0)
    x = graph.random_inputs(samples, generator, phases=3)
    x = x if graph.vocabulary else x.double()
    truth = _truth(graph, x)
    values = {INPUT: x if network.vocabulary is None else F.one_hot(x.flatten(), network.vocabulary).double()}
    remembered = {layer.name: layer for layer in network.layers if isinstance(layer, FloatNeurons)}
    for memory in network.memories:
        neurons = remembered[memory.source]
        states = neurons.activation_for(truth[neurons.activation]).unflatten(0, x.shape)
        values[memory.name] = F.pad(states, (0, 0, 1, -1)).flatten(0, 1)
    for layer in network.layers:
        if isinstance(layer, MaxPool):
            values[layer.name] = max_pool(layer, values[layer.source])
            continue
        shape = (-1, *network.shapes[layer.name])  # a flattened image is an image for its neurons
        part = slice(*layer.channels) if isinstance(layer, FloatNeurons) else slice(None)
        z, expected = received(network, layer, values), truth[layer.preactivation][:, part].reshape(shape)
        if network.vocabulary and isinstance(layer, FloatReadout):
            z = z.unflatten(0, x.shape).mean(1)
        expected = layer.sum_for(expected) if isinstance(layer, FloatNeurons) else expected
        tolerance = 1e-9 * max(1.0, float(expected.abs().max()))
        if z.shape != expected.shape or float((z - expected).abs().max()) > tolerance:
            raise AssertionError(f"{layer.name}: folding changed the function; this is a bug in lava_casc")
        if isinstance(layer, FloatNeurons):
            values[layer.name] = activate(layer, z)
            if layer.activation:
                values[layer.name] = layer.activation_for(truth[layer.activation][:, part].reshape(shape))
