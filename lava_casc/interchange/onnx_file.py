"""ONNX files, read with onnx2torch: the graph is brought into a form that it reads and our tracer follows.

What is done to the graph beforehand, with onnx's own tools: constants are computed (dequantized weights among them),
a pair of QuantizeLinear and DequantizeLinear becomes one CQReLU, and what has several spellings gets one. Each node
that is left is known; every other is refused by its name and its operation.

A quantized activation: with levels ``q_low .. q_high``, zero point ``z`` and scale ``s``, ONNX computes
``s * clip(round(x / s), low, high)``, where high is ``q_high - z``, and low ``q_low - z`` or 0 behind a ReLU. That is a
CQReLU of ``x - low s`` with ``L = high - low`` and threshold ``L s`` which rounds, plus ``low s``. ONNX rounds a tie to
the even level and CQReLU up: they differ at ``x = (k + 1/2) s`` for even k, and nowhere else in exact arithmetic. For
the comparison with the file both sides therefore add `OFF_TIES` of a step first.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from lava_casc.errors import CascError, UnsupportedModelError, first_line
from lava_casc.frontend import CQReLU, GraphModel, InputSpec, Normalize
from lava_casc.interchange.common import OFF_TIES, channelwise, damaged, existing, input_shape, library, traced

#: The version of ONNX's operations that every older file is brought to first: with all of its types, and what onnx's
#: own interpreter runs as specified (before 14 it normalizes batches as in training).
FIRST = 21
#: What onnx2torch reads in full, so that every file is brought to it last.
OPSET = 17
#: The least and the greatest of the integers that an activation may be quantized to, by ONNX's name for the type.
_INTEGERS = {
    f"{'U' if low == 0 else ''}INT{bits}": (low, high)
    for bits in (2, 4, 8, 16)
    for low, high in ((0, 2**bits - 1), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
}
#: Clip's limits where there were none before opset 11, which made them attributes: the greatest float32.
_NO_LIMIT = 3.4e38
#: What a module of torch.fx calls its own already.
_TAKEN = {*dir(fx.GraphModule), *vars(nn.Module()), "graph", "code", "initializers"}
_IN_PAIRS = ". Export the quantized network as pairs of QuantizeLinear and DequantizeLinear (QDQ)"
#: What to do about operations whose names begin so.
_HINTS = {
    "QLinear": _IN_PAIRS,
    "DynamicQuantize": f"{_IN_PAIRS}, with fixed scales",
    "QuantizeLinear": ". Quantize to 8 bits, or export operator set 21, which has 16",
    "DequantizeLinear": ". Quantize to 8 bits, or export operator set 21, which has 16",
    "Softmax": ". Export the network up to its logits",
}
SUPPORTED = (
    "Conv, Gemm, MatMul, BatchNormalization, Relu, Clip(0, a), QuantizeLinear with DequantizeLinear, MaxPool, "
    "AveragePool, GlobalAveragePool, ReduceMean over height and width, Add, Sum, Concat along channels, Flatten, "
    "Reshape to vectors, Dropout, Identity, and Add, Sub, Mul, Div with constants of channels"
)


def read_onnx(
    path: str | Path, shape: Sequence[int] | None = None, *, low: int = 0, high: int = 255, scale: float = 1 / 255
) -> tuple[GraphModel, InputSpec]:
    """Read an ONNX file of one float input (N, C, H, W) or (N, F), as `import_model` does.

    Returns
    -------
    model : GraphModel
    spec : InputSpec

    Raises
    ------
    CheckpointError, UnsupportedModelError, MissingDependencyError
        As for `import_model`.
    """
    path = existing(path)
    onnx, onnx2torch = library("onnx", path), library("onnx2torch", path)
    evaluator = library("onnx.reference", path).ReferenceEvaluator
    library("onnx.version_converter", path), library("onnx.inliner", path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:  # protobuf and the checker raise errors of their own
        raise damaged(path, "an ONNX file", error) from error
    try:
        versions = {opset.domain: opset.version for opset in model.opset_import}
        if versions.get("", versions.get("ai.onnx", FIRST)) < FIRST:
            model = onnx.version_converter.convert_version(model, FIRST)
    except Exception as error:  # an operation that its newer versions do not know
        raise _unread(path, error) from error
    entry, batch, found = _entry(path, onnx, model)
    spec = InputSpec(input_shape(path, found, shape), low, high, scale)
    concrete = copy.deepcopy(model)
    _set_input_shape(concrete, entry, (batch or 2, *spec.shape))
    rewriter = _Rewriter(path, onnx, concrete, entry, spec)
    try:
        plain = rewriter.rewritten()
        original = evaluator(_off_ties(onnx, model))
        module = onnx2torch.convert(onnx.version_converter.convert_version(plain, OPSET))
    except CascError:
        raise
    except Exception as error:  # whatever a library says of a graph that it does not like
        raise _unread(path, error) from error
    for name, made in rewriter.made.items():
        if hasattr(module, name):
            setattr(module, name, made)
    dtype = np.float64 if rewriter.is_double else np.float32
    return traced(
        path, module.float(), spec, batch, lambda x: original.run(None, {entry: x.numpy().astype(dtype)})
    ), spec


def _unread(path: Path, error: BaseException) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path}: cannot be read ({type(error).__name__}: {first_line(error)}). Supported are {SUPPORTED}."
    )


def _entry(path: Path, onnx: Any, model: Any) -> tuple[str, int | None, list[int | None]]:
    """Return the name of the one input, its batch size and the shape behind that; None where they are left open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise UnsupportedModelError(f"{path}: has {len(inputs)} inputs. Export a network of one.")
    kind = inputs[0].type.tensor_type
    name = onnx.TensorProto.DataType.Name(kind.elem_type)
    if name not in ("FLOAT", "DOUBLE"):
        raise UnsupportedModelError(f"{path}: its input {inputs[0].name} is of type {name}. Export one of float.")
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]
    if len(sizes) not in (2, 4):
        raise UnsupportedModelError(
            f"{path}: its input {inputs[0].name} has {len(sizes)} dimensions. Export one of (N, C, H, W) or (N, F)."
        )
    return inputs[0].name, sizes[0], sizes[1:]


def _set_input_shape(model: Any, entry: str, shape: tuple[int, ...]) -> None:
    """Write the shape that is known now into the input, and let go of every other, which will follow from it."""
    for value in model.graph.input:
        if value.name == entry:
            for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _off_ties(onnx: Any, model: Any) -> Any:
    """Return a model that adds `OFF_TIES` of a step to all that it quantizes, weights aside."""
    model, helper = copy.deepcopy(model), onnx.helper
    known = {tensor.name for tensor in model.graph.initializer}
    nodes = []
    for i, node in enumerate(model.graph.node):
        if known.issuperset(node.input):
            known.update(node.output)
        elif node.op_type == "QuantizeLinear" and node.domain in ("", "ai.onnx"):
            part, step, moved = (f"off_ties/{i}/{name}" for name in ("part", "step", "moved"))
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(OFF_TIES), part))
            nodes.append(helper.make_node("Cast", [node.input[1]], [f"{step}/float"], to=onnx.TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{step}/float", part], [step]))
            nodes.append(helper.make_node("CastLike", [step, node.input[0]], [f"{step}/like"]))
            nodes.append(helper.make_node("Add", [node.input[0], f"{step}/like"], [moved]))
            node.input[0] = moved
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@dataclass(frozen=True)
class _Integers:
    """A value that ONNX holds as integers: ``clip(round(source / scale), low, high)``, less the zero point."""

    source: str
    scale: float
    zero: int
    low: int
    high: int


class _Rewriter:
    """One pass over the nodes, which are in topological order, with what is known of each value."""

    def __init__(self, path: Path, onnx: Any, model: Any, entry: str, spec: InputSpec) -> None:
        self.path, self.onnx, self.model, self.entry, self.spec = path, onnx, model, entry, spec
        self.opsets = {opset.domain: opset.version for opset in model.opset_import}
        self.opset = self.opsets.get("", self.opsets.get("ai.onnx", FIRST))
        graph = model.graph
        self.constants: dict[str, NDArray] = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.alias: dict[str, str] = {}
        self.integers: dict[str, _Integers] = {}
        self.grids: dict[str, tuple[float, int, int]] = {}  # values that are low .. high times a scale
        self.sources: dict[str, str] = {}  # what was quantized to such a value right before
        self.before: dict[str, tuple[str, float]] = {}  # what a ReLU reads, and where that is clipped at the top
        self.nodes: list[Any] = []
        self.names: set[str] = set()
        #: Modules by the name of the node that keeps their place.
        self.made: dict[str, nn.Module] = {}
        self.is_double = any(
            value.name == entry and value.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for value in graph.input
        )

    def rewritten(self) -> Any:
        """Return a model of nodes that onnx2torch reads, all of them with names of their own."""
        helper, graph = self.onnx.helper, self.model.graph
        self._fold_constants()
        for node in graph.node:
            if not all(name in self.constants for name in node.output if name):
                self._rewrite(node)
        outputs = [self._read(value.name) for value in graph.output]
        computed = {node.output[0] for node in self.nodes}
        for value, name in zip(graph.output, outputs, strict=True):
            if name not in computed:
                raise UnsupportedModelError(
                    f"{self.path}: its output {value.name} is none of what the network computes. Export it without."
                )
        kept = self._alive(outputs)
        kind = self.onnx.TensorProto.DOUBLE if self.is_double else self.onnx.TensorProto.FLOAT

        def info(name: str) -> Any:
            return helper.make_tensor_value_info(name, kind, self.shapes[name])

        used = {name for node in kept for name in node.input}
        made = helper.make_graph(
            kept,
            "network",
            [info(self.entry)],
            [info(name) for name in outputs],
            [self.onnx.numpy_helper.from_array(a, n) for n, a in self.constants.items() if n in used],
            value_info=[info(node.output[0]) for node in kept if node.output[0] not in outputs],
        )
        return helper.make_model(
            made, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=min(self.model.ir_version, 10)
        )

    def _alive(self, outputs: list[str]) -> list[Any]:
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if node.output[0] in wanted:
                kept.append(node)
                wanted.update(node.input)
        return kept[::-1]

    def _fold_constants(self) -> None:
        """Compute what depends on constants alone, and infer the shapes of the rest, until nothing more is known."""
        graph, known = self.model.graph, -1
        while known < len(self.constants):
            known = len(self.constants)
            inferred = self.onnx.shape_inference.infer_shapes(self.model, data_prop=True)
            for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
                kind = value.type.tensor_type
                if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                    self.shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
            for node in graph.node:
                if node.output[0] in self.constants or node.domain not in ("", "ai.onnx"):
                    continue
                inputs = [name for name in node.input if name]
                if node.op_type == "Shape" and inputs[0] in self.shapes and not node.attribute:
                    self._keep(node.output[0], np.array(self.shapes[inputs[0]], np.int64))
                elif all(name in self.constants for name in inputs) and not node.op_type.startswith("Random"):
                    self._keep_computed(node, inputs)

    def _keep_computed(self, node: Any, inputs: list[str]) -> None:
        helper, evaluator = self.onnx.helper, self.onnx.reference.ReferenceEvaluator
        graph = helper.make_graph(
            [node],
            "constant",
            [],
            [helper.make_empty_tensor_value_info(name) for name in node.output],
            [self.onnx.numpy_helper.from_array(self.constants[name], name) for name in set(inputs)],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        try:
            values = evaluator(helper.make_model(graph, opset_imports=opsets, ir_version=10)).run(None, {})
        except Exception as error:  # the interpreter raises almost anything
            raise self._refused(node, f": its constants cannot be computed ({first_line(error)})") from error
        for name, value in zip(node.output, values, strict=True):
            self._keep(name, np.asarray(value))

    def _keep(self, name: str, value: NDArray) -> None:
        """Make a value a constant, also for the inference of shapes."""
        self.constants[name] = value
        self.model.graph.initializer.append(self.onnx.numpy_helper.from_array(value, name))

    # One node ---------------------------------------------------------------------------------------------------

    def _rewrite(self, node: Any) -> None:
        domain = "" if node.domain in ("", "ai.onnx") else f" of {node.domain}"
        rewrite = None if domain else _REWRITES.get(node.op_type)
        if rewrite is None:
            hints = [hint for name, hint in _HINTS.items() if node.op_type.startswith(name)]
            raise self._refused(node, f"{domain} is not supported{(hints or [f'. Supported are {SUPPORTED}'])[0]}")
        if any(name in self.integers for name in node.input) and node.op_type not in ("DequantizeLinear", "Clip"):
            raise self._refused(node, f": it computes with quantized integers{_IN_PAIRS}")
        rewrite(self, node, {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute})

    def _refused(self, node: Any, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.path}: {node.name or node.output[0]}: {node.op_type}{what}.")

    def _read(self, name: str) -> str:
        """Return the value that stands for `name` now."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def _shape(self, node: Any, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise self._refused(node, f": the shape of {name} is not known. Export it with a fixed input shape")
        return self.shapes[name]

    def _emit(
        self, node: Any, kind: str, inputs: Sequence[str], made: nn.Module | None = None, **attributes: Any
    ) -> str:
        """Append a node in place of `node`, whose output keeps its name; return that."""
        wanted = re.sub(r"\W+", "_", node.name or node.output[0]).strip("_") or node.op_type
        wanted = f"n{wanted}" if wanted[0].isdigit() or wanted in _TAKEN else wanted
        name = next(n for n in (wanted, *(f"{wanted}_{i}" for i in range(len(self.names)))) if n not in self.names)
        self.names.add(name)
        output = node.output[0]
        self._shape(node, output)
        if made is not None:
            self.made[name] = made
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], name=name, **attributes))
        return str(output)

    def _constant(self, node: Any, place: int) -> NDArray | None:
        """Return an input that has to be a constant; None where it is left out."""
        if len(node.input) <= place or not node.input[place]:
            return None
        if node.input[place] not in self.constants:
            raise self._refused(node, f": its input {node.input[place]} is no constant")
        return self.constants[node.input[place]]

    def _alias(self, node: Any, attributes: dict[str, Any]) -> None:
        self.alias[node.output[0]] = self._read(node.input[0])

    def _dropout(self, node: Any, attributes: dict[str, Any]) -> None:
        training = self._constant(node, 2)
        if (training is not None and training.any()) or any(node.output[1:]):
            raise self._refused(node, ": in training. Export the network in evaluation")
        self._alias(node, attributes)

    def _cast(self, node: Any, attributes: dict[str, Any]) -> None:
        kind = self.onnx.TensorProto.DOUBLE if self.is_double else self.onnx.TensorProto.FLOAT
        if attributes["to"] != kind:
            raise self._refused(node, " to another type is not supported. Export the network in float")
        self._alias(node, attributes)

    def _relu(self, node: Any, attributes: dict[str, Any]) -> None:
        source = self._read(node.input[0])
        scale, low, high = self.grids.get(source, (0.0, -1, 0))
        if low >= 0:
            self._alias(node, attributes)
            return
        if source in self.sources and high > 0:  # cut off below 0, what has levels has the others
            self._leveled(node, self.sources[source], scale, 0, high)
            return
        self.before[self._emit(node, "Relu", [source])] = source, math.inf

    def _clip(self, node: Any, attributes: dict[str, Any]) -> None:
        limits = [self._constant(node, place) for place in (1, 2)]
        given = (attributes.get("min"), attributes.get("max"))
        low, high = (
            end if limit is None and older is None else np.asarray(older if limit is None else limit, np.float64).item()
            for limit, older, end in zip(limits, given, (-math.inf, math.inf), strict=True)
        )
        low, high = (math.copysign(math.inf, end) if abs(end) >= _NO_LIMIT else end for end in (low, high))
        held = self.integers.get(node.input[0])
        if held is not None:
            limited = max(held.low, math.ceil(max(low, held.low))), min(held.high, math.floor(min(high, held.high)))
            self.integers[node.output[0]] = _Integers(held.source, held.scale, held.zero, *limited)
        elif low == 0 and 0 < high < math.inf:
            source = self._read(node.input[0])
            self.before[self._emit(node, "Relu", [source], nn.Hardtanh(0.0, high))] = source, high
        elif low == 0 and high == math.inf:
            self._relu(node, attributes)
        elif (low, high) == (-math.inf, math.inf):
            self._alias(node, attributes)
        else:
            raise self._refused(node, f" to [{low:g}, {high:g}] is not supported. Only Clip(0, a) is")

    def _quantize(self, node: Any, attributes: dict[str, Any]) -> None:
        scale, zero = self._scale(node), self._constant(node, 2)
        helper, types = self.onnx.helper, self.onnx.TensorProto.DataType
        kind = "UINT8"
        if zero is not None:
            kind = types.Name(helper.np_dtype_to_tensor_dtype(zero.dtype))
        elif attributes.get("output_dtype"):
            kind = types.Name(attributes["output_dtype"])
        if kind not in _INTEGERS:
            raise self._refused(node, f" to {kind} is not supported. Quantize activations to integers")
        offset = 0 if zero is None else int(zero.astype(np.int64).item())
        self.integers[node.output[0]] = _Integers(self._read(node.input[0]), scale, offset, *_INTEGERS[kind])

    def _scale(self, node: Any) -> float:
        """Return the one scale of a quantized activation, if it is one, with a zero point that is one, too."""
        scale, zero = self._constant(node, 1), self._constant(node, 2)
        if scale is None or scale.size != 1 or (zero is not None and zero.size != 1):
            raise self._refused(node, ": an activation with a scale for every channel. Quantize it with one scale")
        value = float(scale.astype(np.float64).item())
        if not 0 < value < math.inf:
            raise self._refused(node, f": a scale of {value:g}. It must be greater than 0")
        return value

    def _dequantize(self, node: Any, attributes: dict[str, Any]) -> None:
        held = self.integers.get(node.input[0])
        if held is None:
            raise self._refused(node, " of what no QuantizeLinear made. Quantize activations in pairs of both")
        zero = self._constant(node, 2)
        if self._scale(node) != held.scale or (0 if zero is None else int(zero.astype(np.int64).item())) != held.zero:
            raise self._refused(node, " with another scale or zero point than its QuantizeLinear")
        low, high = held.low - held.zero, held.high - held.zero
        source, output = held.source, node.output[0]
        if self._changes_nothing(source, held.scale, low, high):
            self.alias[output] = source
            return
        if source in self.before:
            source, top = self.before[source]
            low = max(low, 0)
            if top < math.inf:  # the rounding of a minimum is the minimum of the roundings, ties to the even one, too
                high = min(high, round(top / held.scale))
        self._leveled(node, source, held.scale, low, high)

    def _leveled(self, node: Any, source: str, scale: float, low: int, high: int) -> None:
        """Append ``scale * clip(round(source / scale), low, high)``."""
        if high - low < 1:
            raise self._refused(node, f": an activation quantized to {low} .. {high} steps. Give it one level at least")
        output = node.output[0]
        levels, shift = high - low, None if low == 0 else -low * scale
        counted = node if low == 0 else self.onnx.helper.make_node("Relu", [], [f"{output}/levels"], name=node.name)
        self.shapes[counted.output[0]] = self._shape(node, output)
        name = self._emit(counted, "Relu", [source], CQReLU(levels, levels * scale, "round", shift=shift))
        if shift is not None:
            channels = self.shapes[output][1]
            self._emit(node, "Relu", [name], Normalize([shift] * channels, [1.0] * channels))
        self.grids[output], self.sources[output] = (scale, low, high), source

    def _changes_nothing(self, source: str, scale: float, low: int, high: int) -> bool:
        """Whether a value lies on the grid that it is quantized to, already."""
        if source == self.entry:
            spec = self.spec
            return math.isclose(spec.scale, scale, rel_tol=1e-6) and low <= spec.low and spec.high <= high
        grid = self.grids.get(source)
        return grid is not None and grid[0] == scale and low <= grid[1] and grid[2] <= high

    def _flatten(self, node: Any, attributes: dict[str, Any]) -> None:
        source, output = self._read(node.input[0]), node.output[0]
        before, after = self._shape(node, source), self._shape(node, output)
        if before == after:
            self._alias(node, attributes)
        elif after == (before[0], math.prod(before[1:])):
            self._passed_on(source, self._emit(node, "Flatten", [source], axis=1))
        else:
            raise self._refused(
                node, f" from {before[1:]} to {after} is not supported. Only making vectors of images is"
            )

    def _passed_on(self, source: str, output: str) -> None:
        if source in self.grids:
            self.grids[output] = self.grids[source]

    def _window(self, node: Any, attributes: dict[str, Any]) -> None:
        """Pools and convolutions, with the padding in numbers and alike on both sides."""
        source, output = self._read(node.input[0]), node.output[0]
        shape, constants = self._shape(node, source), list(node.input[1:])
        if len(shape) != 4 or any(node.output[1:]):
            raise self._refused(node, f" of {len(shape) - 2} dimensions, or with indices, is not supported")
        weight = self._constant(node, 1) if node.op_type == "Conv" else None
        kernel = attributes.get("kernel_shape") or list(weight.shape[2:] if weight is not None else ())
        stride, dilation = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        pads, auto = attributes.pop("pads", [0, 0, 0, 0]), attributes.pop("auto_pad", b"NOTSET").decode()
        if auto.startswith("SAME"):
            more = [
                max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
                for n, k, s, d in zip(shape[2:], kernel, stride, dilation, strict=True)
            ]
            first, second = ([m // 2 for m in more], [m - m // 2 for m in more])
            pads = [*first, *second] if auto == "SAME_UPPER" else [*second, *first]
        if pads[:2] != pads[2:]:
            raise self._refused(node, f" with padding {pads} that differs from side to side is not supported")
        for place in range(1, len(node.input)):
            self._constant(node, place)
        attributes |= {"kernel_shape": kernel, "pads": pads}
        self._emit(node, node.op_type, [source, *constants], **attributes)
        if node.op_type == "MaxPool":
            self._passed_on(source, output)

    def _global_pool(self, node: Any, attributes: dict[str, Any]) -> None:
        self._emit(node, node.op_type, [self._read(node.input[0])])

    def _mean(self, node: Any, attributes: dict[str, Any]) -> None:
        source = self._read(node.input[0])
        axes, given = attributes.get("axes"), self._constant(node, 1) if len(node.input) > 1 else None
        axes = given.tolist() if given is not None else axes
        if len(self._shape(node, source)) != 4 or sorted(a % 4 for a in axes or ()) != [2, 3]:
            raise self._refused(node, f" over axes {axes} is not supported. Only over height and width it is")
        helper, output = self.onnx.helper, node.output[0]
        pooled = helper.make_node("GlobalAveragePool", [source], [f"{output}/pooled"], name=node.name)
        self.shapes[pooled.output[0]] = (*self.shapes[source][:2], 1, 1)
        value = self._emit(pooled, "GlobalAveragePool", [source])
        if attributes.get("keepdims", 1):
            self.alias[output] = value
        else:
            self._emit(node, "Flatten", [value], axis=1)

    def _batch_norm(self, node: Any, attributes: dict[str, Any]) -> None:
        if attributes.get("training_mode") or any(node.output[1:]):
            raise self._refused(node, " in training is not supported. Export the network in evaluation")
        for place in range(1, 5):
            self._constant(node, place)
        kept = {name: value for name, value in attributes.items() if name == "epsilon"}
        self._emit(node, node.op_type, [self._read(node.input[0]), *node.input[1:]], **kept)

    def _gemm(self, node: Any, attributes: dict[str, Any]) -> None:
        """Take a product with a constant matrix, transposed and scaled, with a bias, to what nn.Linear has."""
        weight, bias = self._constant(node, 1), self._constant(node, 2)
        source = self._read(node.input[0])
        if weight is None or weight.ndim != 2 or len(self._shape(node, source)) != 2 or attributes.get("transA"):
            raise self._refused(node, " of anything but vectors with a constant matrix is not supported")
        weight = (weight.T if attributes.get("transB") else weight) * weight.dtype.type(attributes.get("alpha", 1.0))
        names = [f"{node.output[0]}/weight"]
        self.constants[names[0]] = weight
        if bias is not None:
            if bias.size not in (1, weight.shape[1]):
                raise self._refused(node, f" with a bias of shape {bias.shape} is not supported")
            names.append(f"{node.output[0]}/bias")
            scaled = bias.reshape(-1) * weight.dtype.type(attributes.get("beta", 1.0))
            self.constants[names[1]] = np.broadcast_to(scaled, weight.shape[1]).copy()
        self._emit(node, "Gemm", [source, *names])

    def _add(self, node: Any, attributes: dict[str, Any]) -> None:
        """Sum up what was computed; or do with a constant of channels what Add, Sub, Mul and Div say."""
        computed = [place for place, name in enumerate(node.input) if name not in self.constants]
        if len(computed) == 1 and len(node.input) == 2:
            self._affine(node, computed[0])
            return
        if node.op_type not in ("Add", "Sum") or len(computed) != len(node.input):
            raise self._refused(node, " of two values that are computed is not supported. Only their sum is")
        total, *others = (self._read(name) for name in node.input)
        for i, other in enumerate(others):
            if self._shape(node, total) != self._shape(node, other):
                raise self._refused(node, f" of shapes {self.shapes[total][1:]} and {self.shapes[other][1:]}")
            last = i == len(others) - 1
            step = node if last else self.onnx.helper.make_node("Add", [], [f"{node.output[0]}/{i}"], name=node.name)
            self.shapes[step.output[0]] = self.shapes[total]
            total = self._emit(step, "Add", [total, other])
        if not others:
            self._alias(node, attributes)

    def _affine(self, node: Any, place: int) -> None:
        source = self._read(node.input[place])
        kind = {"Sum": "add"}.get(node.op_type, node.op_type.lower())
        module = channelwise(kind, self.constants[node.input[1 - place]], self._shape(node, source), place == 1)
        if module is None:
            raise self._refused(
                node, " with a constant is not supported but with one of channels, greater than 0 in Mul and Div"
            )
        self._emit(node, "Relu", [source], module)

    def _concat(self, node: Any, attributes: dict[str, Any]) -> None:
        sources = [self._read(name) for name in node.input]
        if any(name in self.constants for name in node.input):
            raise self._refused(node, " with a constant is not supported")
        if attributes["axis"] % len(self._shape(node, sources[0])) != 1:
            raise self._refused(node, f" along axis {attributes['axis']} is not supported. Only along channels it is")
        output = self._emit(node, "Concat", sources, axis=1)
        grids = {self.grids.get(source) for source in sources}
        if len(grids) == 1:
            self._passed_on(sources[0], output)


_REWRITES: dict[str, Callable[[_Rewriter, Any, dict[str, Any]], None]] = {
    "Add": _Rewriter._add,
    "AveragePool": _Rewriter._window,
    "BatchNormalization": _Rewriter._batch_norm,
    "Cast": _Rewriter._cast,
    "Clip": _Rewriter._clip,
    "Concat": _Rewriter._concat,
    "Conv": _Rewriter._window,
    "DequantizeLinear": _Rewriter._dequantize,
    "Div": _Rewriter._add,
    "Dropout": _Rewriter._dropout,
    "Flatten": _Rewriter._flatten,
    "Gemm": _Rewriter._gemm,
    "GlobalAveragePool": _Rewriter._global_pool,
    "Identity": _Rewriter._alias,
    "MatMul": _Rewriter._gemm,
    "MaxPool": _Rewriter._window,
    "Mul": _Rewriter._add,
    "QuantizeLinear": _Rewriter._quantize,
    "ReduceMean": _Rewriter._mean,
    "Relu": _Rewriter._relu,
    "Reshape": _Rewriter._flatten,
    "Squeeze": _Rewriter._flatten,
    "Sub": _Rewriter._add,
    "Sum": _Rewriter._add,
}
