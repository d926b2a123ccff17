"""torch.export programs: their ATen graph is translated into modules, which our tracer follows.

A program is a zip archive whose tensors torch unpickles and whose sizes sympy evaluates, both of which can run code
from the file. Here torch.load is held to weights alone, sizes have to be plain, and no operation of a file runs before
all of them are known.
"""

from __future__ import annotations

import json
import logging
import math
import operator
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from lava_casc.errors import CheckpointError, UnsupportedModelError
from lava_casc.frontend import GraphModel, InputSpec
from lava_casc.interchange.common import channelwise, damaged, existing, input_shape, traced

#: A size: numbers and symbols such as s0, as torch 2.3 writes them or newer ones do. Anything more might be a program.
_PLAIN_SIZE = re.compile(
    r"(Symbol\('[a-z]\d+'(, [a-z]+=(True|False))*\)|Integer\(-?\d+\)|(Add|Mul)\(|\b[a-z]\d+\b|[-+/(), \d]|\*(?!\*))*"
)
SUPPORTED = (
    "conv2d, linear, batch_norm, relu, hardtanh and clamp(0, a), max_pool2d, avg_pool2d, adaptive_avg_pool2d, mean "
    "over height and width, add, cat along channels, flatten, dropout in evaluation, and add, sub, mul, div with "
    "constants of channels"
)


def read_program(
    path: str | Path, shape: Sequence[int] | None = None, *, low: int = 0, high: int = 255, scale: float = 1 / 255
) -> tuple[GraphModel, InputSpec]:
    """Read what torch.export.save wrote, of one float32 input (N, C, H, W) or (N, F), as `import_model` does.

    Returns
    -------
    model : GraphModel
    spec : InputSpec

    Raises
    ------
    CheckpointError, UnsupportedModelError
        As for `import_model`.
    """
    path = existing(path)
    _check_sizes(path)
    try:
        with _weights_only():
            program = torch.export.load(path)
        tensors = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        inputs = [(kept.arg.name, kept.kind.name, kept.target) for kept in signature.input_specs]
        changes = [kept.kind.name for kept in signature.output_specs if kept.kind.name != "USER_OUTPUT"]
        own = {name: tensors[target] for name, kind, target in inputs if kind != "USER_INPUT"}
    except Exception as error:  # a damaged archive makes torch raise almost anything
        raise damaged(path, "a torch.export program of this version of torch", error) from error
    if changes:
        raise UnsupportedModelError(f"{path}: it changes what it holds ({changes[0]}). Export it in evaluation.")
    names = {name: str(target) for name, kind, target in inputs if kind != "USER_INPUT"}
    translator = _Translator(path, program.graph, own, names)
    size = translator.entry_shape
    spec = InputSpec(input_shape(path, size[1:], shape), low, high, scale)
    model = translator.module()

    def original(x: torch.Tensor) -> Sequence[torch.Tensor]:
        given = [own.get(name, x) for name, _, _ in inputs]
        return tuple(fx.Interpreter(program.graph_module).run(*given))

    return traced(path, model, spec, size[0], original), spec


@contextmanager
def _weights_only() -> Iterator[None]:
    """Hold every torch.load to tensors and plain values, whatever its caller asks of it; what fails, we say."""
    name, log = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", logging.getLogger("torch.export")
    before, level = os.environ.get(name), log.level
    os.environ[name] = "1"
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_sizes(path: Path) -> None:
    """Refuse a program with an expression that is more than a size: it would be evaluated as Python."""
    try:
        with zipfile.ZipFile(path) as archive:
            documents = [json.loads(archive.read(n)) for n in archive.namelist() if n.endswith(".json")]
    except Exception as error:
        raise damaged(path, "a torch.export program", error) from error
    while documents:
        part = documents.pop()
        if isinstance(part, dict):
            text = part.get("expr_str", "")
            if not isinstance(text, str) or not _PLAIN_SIZE.fullmatch(text):
                raise CheckpointError(f"{path}: a size that is an expression ({text!r:.60}). Export with fixed sizes.")
            documents += part.values()
        elif isinstance(part, list):
            documents += part


class _Translator:
    """One pass over the nodes of an ATen graph, of which each becomes a module or a function of torch."""

    def __init__(self, path: Path, graph: fx.Graph, own: dict[str, Any], names: dict[str, str]) -> None:
        self.path, self.source = path, graph
        self.graph, self.modules = fx.Graph(), {}  # type: fx.Graph, dict[str, nn.Module]
        self.names = names
        #: What each node is: a node of the new graph, or a tensor of the program's own.
        self.found: dict[fx.Node, Any] = {}
        entries = []
        for node in graph.nodes:
            if node.op == "placeholder":
                if node.name in own:
                    self.found[node] = own[node.name]
                else:
                    entries.append(node)
        shapes = [getattr(node.meta.get("val"), "shape", None) for node in entries]
        if len(entries) != 1 or shapes[0] is None or len(shapes[0]) not in (2, 4):
            raise UnsupportedModelError(
                f"{path}: takes {len(entries)} inputs of shapes {shapes}. Export a network of one tensor, (N, C, H, W) "
                "or (N, F)."
            )
        if entries[0].meta["val"].dtype != torch.float32:
            raise UnsupportedModelError(f"{path}: its input is {entries[0].meta['val'].dtype}. Export one of float32.")
        self.entry_shape = [n if isinstance(n, int) else None for n in shapes[0]]
        self.found[entries[0]] = self.graph.placeholder(entries[0].name)

    def module(self) -> fx.GraphModule:
        """Return the program as a module of modules."""
        for node in self.source.nodes:
            if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor | tuple | list):
                self._translate(node)
            elif node.op == "output":
                outputs = [self.found.get(value) if isinstance(value, fx.Node) else None for value in node.args[0]]
                if not outputs or not all(isinstance(value, fx.Node) for value in outputs):
                    raise UnsupportedModelError(
                        f"{self.path}: an output is none of what the program computes. Export it without."
                    )
                self.graph.output(tuple(outputs) if len(outputs) > 1 else outputs[0])
            elif node.op == "get_attr":
                raise UnsupportedModelError(f"{self.path}: {node.name}: a program within the program. Export it flat.")
        return fx.GraphModule(self.modules, self.graph)

    def _translate(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            inner, place = node.args
            if place == 0 and inner in self.found:
                self.found[node] = self.found[inner]  # type: ignore[index]
            elif node.users:
                raise self._refused(node, f": output {place} of {inner} is not supported")
            return
        schema = getattr(node.target, "_schema", None)
        name = str(schema.name if schema is not None else node.target)
        kind = name.removeprefix("aten::")
        if schema is None or not name.startswith("aten::"):
            raise self._refused(node, f" is not supported. Supported are {SUPPORTED}")
        given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
        given |= node.kwargs
        tensors = [value for value in given.values() if isinstance(value, fx.Node)]
        if (
            kind.removesuffix("_") in _OF_CONSTANTS
            and tensors
            and all(isinstance(self.found.get(n), torch.Tensor) for n in tensors)
        ):
            values = {key: self.found[value] if isinstance(value, fx.Node) else value for key, value in given.items()}
            self.found[node] = node.target(**values)  # type: ignore[operator]
            return
        rewrite = _REWRITES.get(kind) or _REWRITES.get(kind.removesuffix("_"))
        if rewrite is None:
            raise self._refused(node, f" is not supported. Supported are {SUPPORTED}")
        self.found[node] = rewrite(self, node, given)

    def _refused(self, node: fx.Node, what: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.path}: {node.name}: {node.target}{what}.")

    # What the operations read ------------------------------------------------------------------------------------

    def _value(self, node: fx.Node, value: Any) -> fx.Node:
        found = self.found.get(value)
        if not isinstance(found, fx.Node):
            raise self._refused(node, f" of {value}, which is a constant, is not supported")
        return found

    def _tensor(self, node: fx.Node, value: Any) -> torch.Tensor | None:
        if value is None:
            return None
        found = self.found.get(value)
        if not isinstance(found, torch.Tensor):
            raise self._refused(node, f" with weights that are computed ({value}) is not supported")
        return found.detach()

    def _shape(self, value: fx.Node) -> tuple[Any, ...]:
        return tuple(value.meta["val"].shape)

    def _call(self, node: fx.Node, module: nn.Module, source: Any, weight: Any = None) -> fx.Node:
        """Append a module, by the name that its weight had in the model, or else by that of its node."""
        name = self.names.get(getattr(weight, "name", ""), node.name).removesuffix(".weight")
        name = node.name if name in self.modules else name
        self.modules[name] = module
        return self.graph.call_module(name, (self._value(node, source),))

    # The operations ----------------------------------------------------------------------------------------------

    def _conv(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        weight, bias = self._tensor(node, a["weight"]), self._tensor(node, a["bias"])
        assert weight is not None
        if a.get("transposed") or weight.dim() != 4:
            raise self._refused(node, ", transposed or of other than 2 dimensions, is not supported")
        stride, padding, dilation = (_pair(a[key]) for key in ("stride", "padding", "dilation"))
        channels, kernel = weight.shape[1] * a["groups"], _pair(weight.shape[2:])
        with torch.device("meta"):
            conv = nn.Conv2d(
                channels, weight.shape[0], kernel, stride, padding, dilation, a["groups"], bias is not None
            )
        return self._call(node, _filled(conv, weight=weight, bias=bias), a["input"], a["weight"])

    def _linear(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        return self._dense(node, a["input"], self._tensor(node, a["weight"]), a["bias"], a["weight"])

    def _addmm(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        if (a["alpha"], a["beta"]) != (1, 1):
            raise self._refused(node, " with factors is not supported")
        return self._dense(node, a["mat1"], self._transposed(node, a["mat2"]), a["self"], a["mat2"])

    def _matmul(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        other = a["mat2"] if "mat2" in a else a["other"]
        return self._dense(node, a["self"], self._transposed(node, other), None, other)

    def _transposed(self, node: fx.Node, value: Any) -> torch.Tensor:
        weight = self._tensor(node, value)
        if weight is None or weight.dim() != 2:
            raise self._refused(node, " of anything but vectors with a constant matrix is not supported")
        return weight.t().contiguous()

    def _dense(self, node: fx.Node, source: Any, weight: torch.Tensor | None, bias: Any, named: Any) -> fx.Node:
        held = self._tensor(node, bias)
        if weight is None or len(self._shape(source)) != 2 or (held is not None and held.shape != weight.shape[:1]):
            raise self._refused(node, " of anything but vectors with a constant matrix is not supported")
        while named.op == "call_function":  # a transposition
            named = named.args[0]
        with torch.device("meta"):
            linear = nn.Linear(weight.shape[1], weight.shape[0], held is not None)
        return self._call(node, _filled(linear, weight=weight, bias=held), source, named)

    def _batch_norm(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        mean, variance = (self._tensor(node, a[key]) for key in ("running_mean", "running_var"))
        weight, bias = self._tensor(node, a["weight"]), self._tensor(node, a["bias"])
        if a.get("training") or mean is None or (weight is None) != (bias is None):
            raise self._refused(node, " in training is not supported. Export the network in evaluation")
        kind = nn.BatchNorm2d if len(self._shape(a["input"])) == 4 else nn.BatchNorm1d
        norm = kind(len(mean), a["eps"], affine=weight is not None)
        filled = _filled(norm, weight=weight, bias=bias, running_mean=mean, running_var=variance)
        return self._call(node, filled, a["input"], a["weight"])

    def _relu(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        return self._call(node, nn.ReLU(), a["self"])

    def _clipped(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        low, high = a.get("min_val", a.get("min")), a.get("max_val", a.get("max"))
        if low == 0 and high is None:
            return self._relu(node, a)
        if low != 0 or not isinstance(high, int | float) or not 0 < high < math.inf:
            raise self._refused(node, f" to [{low}, {high}] is not supported. Only from 0 to a number it is")
        return self._call(node, nn.Hardtanh(0.0, float(high)), a["self"])

    def _relu6(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        return self._call(node, nn.ReLU6(), a["self"])

    def _max_pool(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        kernel, stride, padding, dilation = (_pair(a[key]) for key in ("kernel_size", "stride", "padding", "dilation"))
        pool = nn.MaxPool2d(kernel, stride or kernel, padding, dilation, ceil_mode=a["ceil_mode"])
        return self._call(node, pool, a["self"])

    def _avg_pool(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        kernel, stride, padding = (_pair(a[key]) for key in ("kernel_size", "stride", "padding"))
        rest = a["ceil_mode"], a["count_include_pad"], a["divisor_override"]
        return self._call(node, nn.AvgPool2d(kernel, stride or kernel, padding, *rest), a["self"])

    def _adaptive_pool(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        return self._call(node, nn.AdaptiveAvgPool2d(_pair(a["output_size"])), a["self"])

    def _mean(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        dims = a.get("dim") or ()
        if len(self._shape(a["self"])) != 4 or sorted(d % 4 for d in dims) != [2, 3]:
            raise self._refused(
                node, f" over dimensions {list(dims)} is not supported. Only over height and width it is"
            )
        return self.graph.call_function(torch.mean, (self._value(node, a["self"]), (2, 3), a["keepdim"]))

    def _arithmetic(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        """Sum up what was computed; or do with a constant of channels what add, sub, mul and div say."""
        kind = str(node.target._schema.name).removeprefix("aten::").removesuffix("_")  # type: ignore[union-attr]
        pair = [
            self.found.get(value, value) if isinstance(value, fx.Node) else value for value in (a["self"], a["other"])
        ]
        if a.get("alpha", 1) != 1 or a.get("rounding_mode") is not None:
            raise self._refused(node, " with a factor or a rounding is not supported")
        if all(isinstance(value, fx.Node) for value in pair):
            if kind != "add" or self._shape(a["self"]) != self._shape(a["other"]):
                raise self._refused(node, " of two values is not supported. Only the sum of equal shapes is")
            return self.graph.call_function(torch.add, tuple(pair))
        if not any(isinstance(value, fx.Node) for value in pair):
            raise self._refused(node, " of what the program holds is not supported. Export the network in evaluation")
        swapped = not isinstance(pair[0], fx.Node)
        source, constant = (a["other"], pair[0]) if swapped else (a["self"], pair[1])
        values = constant.detach().numpy() if isinstance(constant, torch.Tensor) else constant
        shape = (1, *self._shape(source)[1:])
        module = channelwise(kind, values, shape, swapped) if all(isinstance(n, int) for n in shape) else None
        if module is None:
            raise self._refused(
                node, " with a constant is not supported but with one of channels, greater than 0 in mul and div"
            )
        return self._call(node, module, source)

    def _concatenate(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        values = [self._value(node, value) for value in a["tensors"]]
        if a["dim"] % len(self._shape(node)) != 1:
            raise self._refused(node, f" along dimension {a['dim']} is not supported. Only along channels it is")
        return self.graph.call_function(torch.cat, (values, 1))

    def _flatten(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        before, after = self._shape(a["self"]), self._shape(node)
        source = self._value(node, a["self"])
        if before[1:] == after[1:]:
            return source
        if len(after) != 2 or not all(isinstance(n, int) for n in before[1:]) or after[1] != math.prod(before[1:]):
            raise self._refused(
                node, f" from {before[1:]} to {after[1:]} is not supported. Only making vectors of images is"
            )
        return self.graph.call_function(torch.flatten, (source, 1))

    def _dropout(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        if a["train"]:
            raise self._refused(node, " in training is not supported. Export the network in evaluation")
        return self._value(node, a["input"])

    def _same(self, node: fx.Node, a: dict[str, Any]) -> fx.Node:
        return self._value(node, a["self"])


def _pair(value: Any) -> Any:
    """Return one number or two, of a list, as a pair; an empty list as None."""
    numbers = [value] if isinstance(value, int) else list(value)
    return None if not numbers else (int(numbers[0]), int(numbers[-1]))


def _filled(module: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    """Return a module with these tensors, copied."""
    state = {name: tensor.clone().contiguous() for name, tensor in tensors.items() if tensor is not None}
    module.load_state_dict(state, strict=False, assign=True)
    return module


#: What may be computed of a program's own tensors.
_OF_CONSTANTS = {
    "t",
    "transpose",
    "permute",
    "view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "detach",
    "clone",
    "lift_fresh_copy",
}
_REWRITES: dict[str, Callable[[_Translator, fx.Node, dict[str, Any]], fx.Node]] = {
    "_adaptive_avg_pool2d": _Translator._adaptive_pool,
    "_native_batch_norm_legit_no_training": _Translator._batch_norm,
    "_unsafe_view": _Translator._flatten,
    "adaptive_avg_pool2d": _Translator._adaptive_pool,
    "add": _Translator._arithmetic,
    "addmm": _Translator._addmm,
    "alias": _Translator._same,
    "avg_pool2d": _Translator._avg_pool,
    "batch_norm": _Translator._batch_norm,
    "cat": _Translator._concatenate,
    "clamp": _Translator._clipped,
    "clamp_min": _Translator._clipped,
    "clone": _Translator._same,
    "contiguous": _Translator._same,
    "conv2d": _Translator._conv,
    "convolution": _Translator._conv,
    "detach": _Translator._same,
    "div": _Translator._arithmetic,
    "dropout": _Translator._dropout,
    "flatten": _Translator._flatten,
    "hardtanh": _Translator._clipped,
    "linear": _Translator._linear,
    "matmul": _Translator._matmul,
    "max_pool2d": _Translator._max_pool,
    "max_pool2d_with_indices": _Translator._max_pool,
    "mean": _Translator._mean,
    "mm": _Translator._matmul,
    "mul": _Translator._arithmetic,
    "relu": _Translator._relu,
    "relu6": _Translator._relu6,
    "reshape": _Translator._flatten,
    "squeeze": _Translator._flatten,
    "sub": _Translator._arithmetic,
    "view": _Translator._flatten,
}
