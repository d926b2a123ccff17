"""From a torch module to a `Graph` of the operations that lava_casc knows, in the order in which data flows.

torch.fx follows the data, so that the order of declaration plays no part. Everything that is not known is an error
that names the module's path and the operation; nothing is skipped.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lava_casc.errors import UnsupportedModelError
from lava_casc.frontend.cqrelu import CQReLU, Normalize

SUPPORTED = (
    "Conv2d, Linear, BatchNorm1d/2d, CQReLU, AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, Dropout, Identity, "
    "Normalize and addition"
)


@dataclass(frozen=True)
class Operation:
    """One operation of a `Graph`.

    Attributes
    ----------
    name : str
        Unique; also the name of the value that it computes.
    kind : str
        A key of `KINDS`, or ``add`` or ``input``.
    path : str
        Where it stands in the model, for messages: a module path, or that of the module which calls it.
    inputs : tuple of str
    arguments : dict
        What the constructor of its module takes: numbers, strings, tuples.
    tensors : dict of str to torch.Tensor
        Its parameters and buffers.
    """

    name: str
    kind: str
    path: str
    inputs: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A model as data: operations in topological order, the last one's value is the output.

    Attributes
    ----------
    operations : tuple of Operation
        The first one has kind ``input``.
    input_shape : tuple of int
        Without the batch.
    """

    operations: tuple[Operation, ...]
    input_shape: tuple[int, ...]


#: Every module that can be traced, and the constructor arguments that say all about it.
KINDS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.BatchNorm1d: ("num_features", "eps", "affine"),
    nn.BatchNorm2d: ("num_features", "eps", "affine"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.Flatten: (),
    CQReLU: ("levels", "rounding", "learnable"),
    Normalize: (),
}
_BY_NAME = {kind.__name__: kind for kind in KINDS}
#: What changes nothing in evaluation.
_TRANSPARENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_ADD = (operator.add, operator.iadd, torch.add)
_FLATTEN = (torch.flatten, "flatten", torch.reshape, "reshape", "view")
_MEAN = (torch.mean, "mean")
_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.avg_pool2d: (nn.AvgPool2d, KINDS[nn.AvgPool2d]),
    F.max_pool2d: (nn.MaxPool2d, (*KINDS[nn.MaxPool2d], "ceil_mode", "return_indices")),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, KINDS[nn.AdaptiveAvgPool2d]),
}


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """Trace a model, in evaluation, into a `Graph`.

    Parameters
    ----------
    model : torch.nn.Module
        Takes (N, \\*input_shape) and returns (N, classes). Left as it was.
    input_shape : tuple of int
        (C, H, W) or (N,).

    Raises
    ------
    UnsupportedModelError
        Names the module path and the operation that is not supported, or what keeps torch.fx from following the data.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _Translator(model, tuple(int(n) for n in input_shape)).graph()
    finally:
        for module, mode in training.items():
            module.training = mode


class GraphModel(nn.Module):
    """A `Graph` as a trainable torch module, so that a checkpoint needs no code of the model that it came from."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.operations = nn.ModuleDict(
            {f"op{i}": _module(op) for i, op in enumerate(graph.operations) if op.kind in _BY_NAME}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the model's output."""
        return self.values(x)[self.graph.operations[-1].name]

    def graph_with_weights(self) -> Graph:
        """Return the graph with the weights that the module has now, after training on."""
        operations = []
        for i, op in enumerate(self.graph.operations):
            if op.kind in _BY_NAME:
                state = self.operations[f"op{i}"].state_dict()
                op = replace(op, tensors={name: state[name].detach().clone().cpu() for name in op.tensors})
            operations.append(op)
        return replace(self.graph, operations=tuple(operations))

    def values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the value of every operation by name."""
        found: dict[str, torch.Tensor] = {}
        for i, op in enumerate(self.graph.operations):
            inputs = [found[name] for name in op.inputs]
            if op.kind == "input":
                found[op.name] = x
            elif op.kind == "add":
                found[op.name] = inputs[0] + inputs[1]
            else:
                found[op.name] = self.operations[f"op{i}"](*inputs)
        return found


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, tuple(KINDS)) or super().is_leaf_module(m, module_qualified_name)


class _Translator:
    """One run of torch.fx, translated node by node."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.model, self.input_shape = model, input_shape
        # A module that is itself a leaf has no inside to trace.
        root = nn.Sequential(model) if isinstance(model, tuple(KINDS)) else model
        try:
            self.nodes = _Tracer().trace(root)
        except Exception as error:  # torch.fx raises whatever the model's own code raises on proxies
            raise UnsupportedModelError(
                f"the model cannot be traced ({type(error).__name__}: {_first_line(error)}). "
                "Keep Python control flow on tensor values out of forward()."
            ) from error
        self.modules = dict(root.named_modules())
        self.shapes = self._propagate(root)
        self.operations: list[Operation] = []
        self.alias: dict[fx.Node, str] = {}

    def graph(self) -> Graph:
        output = next(node for node in self.nodes.nodes if node.op == "output")
        if not isinstance(output.args[0], fx.Node):
            raise UnsupportedModelError("the model returns more than one tensor. Return the logits alone.")
        for node in self._needed(output.args[0]):
            self._translate(node)
        last = self.alias[output.args[0]]
        if last != self.operations[-1].name:
            raise UnsupportedModelError(
                "the model computes something after its output. Return the last value."
            )
        return Graph(tuple(self.operations), self.input_shape)

    def _needed(self, output: fx.Node) -> list[fx.Node]:
        """Return the nodes whose tensors flow into the output, in order (sizes for a reshape do not)."""
        wanted, stack = set(), [output]
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack += [a for a in self._tensor_inputs(node)]
        return [node for node in self.nodes.nodes if node in wanted]

    def _tensor_inputs(self, node: fx.Node) -> list[fx.Node]:
        return [a for a in node.all_input_nodes if a in self.shapes]

    def _propagate(self, root: nn.Module) -> dict[fx.Node, tuple[int, ...]]:
        """Run the model once on zeros, to know which nodes are tensors and of which shape (without the batch of 2)."""
        shapes: dict[fx.Node, tuple[int, ...]] = {}

        class Shapes(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, torch.Tensor):
                    shapes[n] = tuple(value.shape[1:])
                return value

        parameter = next(root.parameters(), torch.zeros(()))
        zeros = torch.zeros((2, *self.input_shape), dtype=parameter.dtype, device=parameter.device)
        try:
            with torch.no_grad():
                Shapes(fx.GraphModule(root, self.nodes)).run(zeros)
        except Exception as error:  # whatever the model's layers raise on a shape that does not fit
            raise UnsupportedModelError(
                f"the model does not run on an input of shape {self.input_shape} ({_first_line(error)}). Give the right input shape."
            ) from error
        return shapes

    def _translate(self, node: fx.Node) -> None:
        path = _path(node)
        if node.op == "placeholder":
            self._append(node, "input", path)
        elif node.op == "call_module":
            self._translate_module(node, self.modules[str(node.target)], str(node.target))
        elif node.op in ("call_function", "call_method"):
            self._translate_call(node, node.target, path)
        else:
            raise UnsupportedModelError(
                f"{path}: the model uses a tensor of its own ({node.target}). Supported are {SUPPORTED}."
            )

    def _translate_module(self, node: fx.Node, module: nn.Module, path: str) -> None:
        if isinstance(module, _TRANSPARENT):
            self.alias[node] = self.alias[self._tensor_inputs(node)[0]]
            return
        kind = type(module)
        if kind not in KINDS:
            raise UnsupportedModelError(
                f"{path}: {kind.__name__} is not supported{_hint(kind.__name__)}. Supported are {SUPPORTED}."
            )
        _check_module(module, path)
        arguments = {name: _plain(getattr(module, name)) for name in KINDS[kind]}
        if isinstance(module, nn.Flatten):
            self._check_flatten(node, path)
        tensors = {
            name: t.detach().clone().cpu()
            for name, t in module.state_dict().items()
            if name != "num_batches_tracked"
        }
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise UnsupportedModelError(
                    f"{path}: its {name} holds NaN or infinity. Train again, or load an earlier checkpoint."
                )
        self._append(node, kind.__name__, path, arguments, tensors)

    def _translate_call(self, node: fx.Node, target: Any, path: str) -> None:
        inputs = self._tensor_inputs(node)
        if target in (*_ADD, "add", "add_") and len(inputs) == 2 and not node.kwargs:
            if self.shapes[inputs[0]] != self.shapes[inputs[1]]:
                raise UnsupportedModelError(
                    f"{path}: an addition of shapes {self.shapes[inputs[0]]} and {self.shapes[inputs[1]]}. Make them equal."
                )
            self._append(node, "add", path)
        elif target in _FLATTEN:
            self._check_flatten(node, path)
            self._append(node, "Flatten", path)
        elif target in (F.dropout, F.dropout2d):
            self.alias[node] = self.alias[inputs[0]]
        elif (
            target in _MEAN
            and len(self.shapes[inputs[0]]) == 3
            and self.shapes[node] in ((self.shapes[inputs[0]][0],), (self.shapes[inputs[0]][0], 1, 1))
        ):
            self._append(node, "AdaptiveAvgPool2d", path, {"output_size": (1, 1)})
            if len(self.shapes[node]) == 1:
                pooled = self.operations[-1].name
                self.operations.append(Operation(f"{pooled}.flatten", "Flatten", path, (pooled,)))
                self.alias[node] = f"{pooled}.flatten"
        elif target in _POOLS:
            kind, names = _POOLS[target]
            given = {
                **dict(zip(names, node.args[1:], strict=False)),
                **{k: v for k, v in node.kwargs.items() if k != "input"},
            }
            module = kind(**given)
            _check_module(module, path)
            self._append(
                node, kind.__name__, path, {name: _plain(getattr(module, name)) for name in KINDS[kind]}
            )
        else:
            name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            raise UnsupportedModelError(
                f"{path}: {name}() is not supported{_hint(name)}. Supported are {SUPPORTED}."
            )

    def _check_flatten(self, node: fx.Node, path: str) -> None:
        before = self.shapes[self._tensor_inputs(node)[0]]
        if self.shapes[node] != (int(torch.Size(before).numel()),):
            raise UnsupportedModelError(
                f"{path}: a reshape from {before} to {self.shapes[node]} is not supported. Only flattening everything is."
            )

    def _append(
        self, node: fx.Node, kind: str, path: str, arguments: dict | None = None, tensors: dict | None = None
    ) -> None:
        # The path makes the better name; a module that is called twice keeps torch.fx's unique one.
        name = (
            path if node.op == "call_module" and all(op.name != path for op in self.operations) else node.name
        )
        inputs = (
            tuple(
                self.alias[a] for a in (a for a in node.args if isinstance(a, fx.Node) and a in self.shapes)
            )
            if node.op != "placeholder"
            else ()
        )
        self.operations.append(Operation(name, kind, path, inputs, arguments or {}, tensors or {}))
        self.alias[node] = name


_CHECKS: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.Conv2d: lambda m: (
        f"padding mode {m.padding_mode!r}. Use zero padding"
        if m.padding_mode != "zeros"
        else f"padding {m.padding!r}. Give it in numbers"
        if isinstance(m.padding, str) and m.padding != "valid"
        else None
    ),
    nn.MaxPool2d: lambda m: (
        "ceil_mode. Use floor mode"
        if m.ceil_mode
        else "return_indices. Return the values alone"
        if m.return_indices
        else None
    ),
    nn.BatchNorm1d: lambda m: (
        None if m.track_running_stats else "no running statistics. Train with track_running_stats"
    ),
    nn.BatchNorm2d: lambda m: (
        None if m.track_running_stats else "no running statistics. Train with track_running_stats"
    ),
    CQReLU: lambda m: (
        None if float(m.threshold) > 0 else f"threshold {float(m.threshold):g}. It must be greater than 0"
    ),
}


def _check_module(module: nn.Module, path: str) -> None:
    problem = _CHECKS.get(type(module), lambda m: None)(module)
    if problem:
        raise UnsupportedModelError(f"{path}: {type(module).__name__} with {problem}.")


def _module(op: Operation) -> nn.Module:
    """Return the torch module of an operation."""
    kind, arguments = _BY_NAME[op.kind], dict(op.arguments)
    if kind in (nn.Conv2d, nn.Linear):
        arguments["bias"] = "bias" in op.tensors
    elif kind is CQReLU:
        arguments["threshold"] = float(op.tensors["threshold"])
    elif kind is Normalize:
        arguments = {name: op.tensors[name].tolist() for name in ("mean", "std")}
    module = kind(**arguments)
    module.load_state_dict(op.tensors, strict=False)
    return module


def _plain(value: Any) -> Any:
    if value == "valid":  # torch's word for no padding
        return (0, 0)
    return tuple(value) if isinstance(value, list | tuple) else value


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    inside = [path for path in (str(key) for key in stack) if path]
    return f"{inside[-1]}.{node.name}" if inside and node.op != "call_module" else str(node.name)


def _hint(name: str) -> str:
    if name.lower() in ("relu", "relu_", "relu6", "hardtanh"):
        return ": its outputs have no upper limit of levels. Use lava_casc.replace_relu(model, levels) and train, nn.ReLU modules instead of F.relu"
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
