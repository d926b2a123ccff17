"""From a torch module to a `Graph` of the operations that lava_casc knows, in the order in which data flows.

torch.fx follows the data, so that the order of declaration plays no part. Everything that is not known is an error
that names the module's path and the operation; nothing is skipped.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from lava_casc.errors import UnsupportedModelError, first_line
from lava_casc.frontend.cqrelu import CQReLU, Normalize
from lava_casc.frontend.cqrnn import CQRNN

SUPPORTED = (
    "Conv2d, Linear, BatchNorm1d/2d, CQReLU, AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, Dropout, Identity, "
    "Normalize, addition and concatenation along channels, ReLU until it is calibrated; on words Embedding, CQRNN and "
    "the mean over them"
)


@dataclass(frozen=True)
class Operation:
    """One operation of a `Graph`.

    Attributes
    ----------
    name : str
        Unique; also the name of the value that it computes.
    kind : str
        A key of `KINDS`, or ``add``, ``concatenate`` (along dimension 1), ``mean`` (over the phases of a sequence) or
        ``input``.
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

    @property
    def is_module(self) -> bool:
        """Whether a module of torch computes it: one of `KINDS`."""
        return self.kind in _BY_NAME


@dataclass(frozen=True)
class Graph:
    """A model as data: operations in topological order, and which of their values are the outputs.

    With an Embedding the input is a sequence of tokens, one a phase, and so is every value up to its mean over them.

    Attributes
    ----------
    operations : tuple of Operation
        The first one has kind ``input``.
    input_shape : tuple of int
        Without the batch. (P,) where the input is tokens: the model takes any other number of phases as well.
    outputs : tuple of str
        Names of the values that the model returns, in order; by default that of the last operation.
    output_names : tuple of str
        What the model itself calls them: the keys of the dictionary that it returns, if it does, else empty.

    Raises
    ------
    ValueError
        An operation is of an unknown kind, stands twice, or does not read what comes before it; an output is none of
        their values.
    UnsupportedModelError
        An operation cannot be done on tokens, on a sequence or on its mean; an output is still a sequence.
    """

    operations: tuple[Operation, ...]
    input_shape: tuple[int, ...]
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known: set[str] = set()
        for op in self.operations:
            if op.kind not in (*_INPUTS, *_BY_NAME):
                raise ValueError(f"{op.name}: an operation of unknown kind {op.kind!r}")
            if op.name in known or (op.kind == "input") != (not known):
                raise ValueError(f"{op.name}: the name stands twice, or the input does not stand first and alone")
            fewest, most = _INPUTS.get(op.kind, (1, 1))
            if not fewest <= len(op.inputs) <= most or not known.issuperset(op.inputs):
                raise ValueError(f"{op.name}: cannot read {', '.join(map(str, op.inputs)) or 'nothing'}")
            known.add(op.name)
        if not known:
            raise ValueError("a graph without operations")
        object.__setattr__(self, "outputs", self.outputs or (self.operations[-1].name,))
        if not known.issuperset(self.outputs):
            raise ValueError(f"no operation computes the outputs {', '.join(map(str, self.outputs))}")
        names = self.output_names
        if names and (len(names) != len(self.outputs) or len(set(names)) != len(names) or not all(names)):
            raise ValueError(f"{', '.join(names)} do not name {len(self.outputs)} outputs")
        _check_phases(self)

    @property
    def vocabulary(self) -> int | None:
        """How many tokens there are, 0, 1, ...; None where the input is real numbers."""
        sizes = [op.arguments["num_embeddings"] for op in self.operations if op.kind == "Embedding"]
        return min(sizes, default=None)

    def random_inputs(self, count: int, generator: torch.Generator, phases: int | None = None) -> torch.Tensor:
        r"""Return random inputs (count, \*input_shape): tokens, or else float32 within [-1, 1].

        `phases` replaces the number of those in `input_shape`.

        Parameters
        ----------
        count : int
        generator : torch.Generator
        phases : int, optional

        Returns
        -------
        tensor
            float32, or int64 tokens.
        """
        if self.vocabulary is None:
            return torch.rand((count, *self.input_shape), generator=generator) * 2 - 1
        return torch.randint(self.vocabulary, (count, phases or self.input_shape[0]), generator=generator)


#: What can be done with the tokens of a sequence, with a value of each phase, and with its mean over the phases.
_STAGES = {
    "tokens": {"Embedding": "sequence"},
    "sequence": {**dict.fromkeys(("CQRNN", "Linear", "CQReLU", "add"), "sequence"), "mean": "mean"},
    "mean": dict.fromkeys(("Linear", "BatchNorm1d", "Flatten", "add", "concatenate"), "mean"),
}
_STAGE_REMEDIES = {
    "tokens": "An nn.Embedding has to read them",
    "sequence": "Each phase can have Linear, CQReLU, CQRNN and addition; x.mean(1) goes over all of them",
    "mean": "Only linear operations can follow it: a spike counts in its own phase",
}


def _check_phases(graph: Graph) -> None:
    """Refuse what cannot be done phase by phase, with a sum over the phases at the end."""
    if graph.vocabulary is None:
        for op in graph.operations:
            if op.kind in ("CQRNN", "mean"):
                raise UnsupportedModelError(
                    f"{op.path}: {op.kind} of something other than words. Let an nn.Embedding read the model's input."
                )
        return
    if len(graph.input_shape) != 1:
        raise UnsupportedModelError(f"an input of shape {graph.input_shape} for words. Give (P,), the phases.")
    stages: dict[str, str] = {}
    for op in graph.operations:
        before = {stages[name] for name in op.inputs}
        for stage in before:
            if op.kind not in _STAGES[stage] or len(before) > 1:
                what = {"tokens": "tokens", "sequence": "a sequence", "mean": "the mean over a sequence"}[stage]
                raise UnsupportedModelError(
                    f"{op.path}: {op.kind} of {what} is not supported. {_STAGE_REMEDIES[stage]}."
                )
        stages[op.name] = _STAGES[before.pop()][op.kind] if before else "tokens"
    for name in graph.outputs:
        if stages[name] != "mean":
            raise UnsupportedModelError(f"{name}: an output of every phase. Return something linear in x.mean(1).")
    if all(op.kind != "CQRNN" for op in graph.operations):
        raise UnsupportedModelError("a model of words without any CQRNN. Put one behind the Embedding.")


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
    nn.ReLU: (),
    nn.Hardtanh: ("min_val", "max_val"),
    Normalize: (),
    nn.Embedding: ("num_embeddings", "embedding_dim", "padding_idx"),
    CQRNN: ("input_size", "hidden_size", "levels", "rounding", "learnable"),
}
_BY_NAME = {kind.__name__: kind for kind in KINDS}
#: Activations without levels, which can be saved, trained and calibrated, but not folded.
UNQUANTIZED = ("ReLU", "Hardtanh")
#: The other kinds of operations: how many inputs they take, at least and at most.
_INPUTS: dict[str, tuple[int, float]] = {"input": (0, 0), "add": (2, 2), "concatenate": (1, math.inf), "mean": (1, 1)}
#: What changes nothing in evaluation.
_TRANSPARENT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_RELU = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_RELU6 = (F.relu6,)
_HARDTANH = (F.hardtanh, F.hardtanh_)
#: What they are clipped to.
_LIMITS = (("min_val", -1.0), ("max_val", 1.0))
_ADD = (operator.add, operator.iadd, torch.add)
_CONCATENATE = (torch.cat, torch.concat, torch.concatenate)
_FLATTEN = (torch.flatten, "flatten", torch.reshape, "reshape", "view")
_MEAN = (torch.mean, "mean")
#: Functions of weights, and their arguments.
_WEIGHTED: dict[Any, tuple[str, ...]] = {
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.linear: ("input", "weight", "bias"),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}
_POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.avg_pool2d: (nn.AvgPool2d, KINDS[nn.AvgPool2d]),
    F.max_pool2d: (nn.MaxPool2d, (*KINDS[nn.MaxPool2d], "ceil_mode", "return_indices")),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, KINDS[nn.AdaptiveAvgPool2d]),
}


def trace(model: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    r"""Trace a model, in evaluation, into a `Graph`.

    Parameters
    ----------
    model : torch.nn.Module
        Takes (N, \\*input_shape) and returns (N, K) or (N, C, H, W), or a tuple, a list or a dictionary of several
        such outputs. Left as it was. With an nn.Embedding it takes int64 tokens (N, P).
    input_shape : tuple of int
        (C, H, W) or (N,); (P,) for tokens.

    Returns
    -------
    Graph

    Raises
    ------
    UnsupportedModelError
        Names the module path and the operation that is not supported, or what keeps torch.fx from following the data.
        Also where the graph does not compute what the model does: hooks and in-place tricks are invisible to torch.fx.
    """
    shape = tuple(int(n) for n in input_shape)
    if len(shape) not in (1, 3):
        raise UnsupportedModelError(f"the input shape {shape} is neither (C, H, W) nor (N,).")
    if isinstance(model, GraphModel):
        if shape != model.graph.input_shape:
            raise UnsupportedModelError(
                f"the input shape {shape} is not {model.graph.input_shape}, for which the model was traced."
            )
        graph = model.graph_with_weights()
        for i, op in enumerate(graph.operations):
            _check_finite(op.tensors, op.path)
            if op.is_module:
                _check_module(model.operations[f"op{i}"], op.path)
        return graph
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = _Translator(model, shape).graph()
        _compare(model, graph)
        return graph
    finally:
        for module, mode in training.items():
            module.training = mode


class GraphModel(nn.Module):
    """A `Graph` as a trainable torch module, so that a checkpoint needs no code of the model that it came from.

    Parameters
    ----------
    graph : Graph
    own : bool
        Whether the module has tensors of its own, to train them. Otherwise it reads the graph's.
    """

    def __init__(self, graph: Graph, *, own: bool = True) -> None:
        super().__init__()
        self.graph = graph
        self.operations = nn.ModuleDict(
            {f"op{i}": module_of(op, own) for i, op in enumerate(graph.operations) if op.is_module}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the model's output, or all of them in order where they are several.

        Parameters
        ----------
        x : (N, ...) tensor

        Returns
        -------
        tensor or tuple of tensor
        """
        found = self.values(x)
        outputs = tuple(found[name] for name in self.graph.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def graph_with_weights(self) -> Graph:
        """Return the graph with the weights that the module has now, after training on.

        Returns
        -------
        Graph
        """
        operations = []
        for i, op in enumerate(self.graph.operations):
            if op.is_module:
                state = self.operations[f"op{i}"].state_dict()
                op = replace(op, tensors={name: state[name].detach().clone().cpu() for name in op.tensors})
            operations.append(op)
        return replace(self.graph, operations=tuple(operations))

    def values(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the value of every operation by name.

        Parameters
        ----------
        x : (N, ...) tensor

        Returns
        -------
        dict of str to tensor
        """
        found: dict[str, torch.Tensor] = {}
        for i, op in enumerate(self.graph.operations):
            module = self.operations[f"op{i}"] if op.is_module else None
            found[op.name] = value_of(op, module, [found[name] for name in op.inputs], x)
        return found


def value_of(op: Operation, module: nn.Module | None, inputs: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the value of an operation for given `inputs`, in a graph whose own input is `x`."""
    if module is not None:
        return module(*inputs)
    if op.kind == "input":
        return x
    if op.kind == "add":
        return inputs[0] + inputs[1]
    return torch.cat(tuple(inputs), 1) if op.kind == "concatenate" else inputs[0].mean(1)


class _Proxy(fx.Proxy):
    """A value that is traced. Its sizes are numbers, so that a model may decide by them."""

    tracer: _Tracer

    @property
    def shape(self) -> torch.Size:
        return self.tracer.values[self.node].shape

    @property
    def ndim(self) -> int:
        return self.tracer.values[self.node].ndim

    def dim(self) -> int:
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


class _Tracer(fx.Tracer):
    """Follows a model, and runs every step of it on zeros at once."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__()
        self.x, self.running = x, False
        #: What each node computes of `x`.
        self.values: dict[fx.Node, Any] = {}
        #: The module in which the last error arose.
        self.failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, tuple(KINDS)):  # a class of one's own may have a forward of its own
            return type(m) in (*KINDS, nn.ReLU6)
        return super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.running:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "output":
            return node
        self.running = True
        try:
            with torch.no_grad():
                self.values[node] = self._value(node)
        except Exception as error:  # whatever the model's layers raise on a shape that does not fit
            raise UnsupportedModelError(
                f"{_path(node)}: does not run on an input of shape {tuple(self.x.shape[1:])} ({first_line(error)}). "
                "Give the right input shape."
            ) from error
        finally:
            self.running = False
        return node

    def _value(self, node: fx.Node) -> Any:
        given = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        args, kwargs = given
        if node.op == "placeholder":
            if not self.values:
                return self.x
            if not args and not str(node.target).startswith("*"):
                raise TypeError(f"the model takes {node.target} besides its input")
            return args[0] if args else ()
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)


class _Translator:
    """One run of torch.fx, translated node by node."""

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.model, self.input_shape = model, input_shape
        # A module that is itself a leaf has no inside to trace.
        root = nn.Sequential(model) if isinstance(model, tuple(KINDS)) else model
        tracer = _Tracer(torch.zeros((2, *input_shape), **_kind_of_tensor(root)))
        own = set(vars(root))
        try:
            self.nodes = tracer.trace(root, _defaults(root))
        except UnsupportedModelError:
            raise
        except Exception as error:  # torch.fx raises whatever the model's own code raises on proxies
            remedy = (
                "Keep Python control flow on tensor values out of forward()"
                if isinstance(error, fx.proxy.TraceError)
                else "Give an input shape that it takes, and keep out of forward() what torch.fx cannot follow"
            )
            raise UnsupportedModelError(
                f"{tracer.failed or 'the model'}: cannot be traced ({type(error).__name__}: {first_line(error)}). "
                f"{remedy}."
            ) from error
        finally:
            for name in set(vars(root)) - own:  # where torch.fx keeps the tensors that forward() makes
                delattr(root, name)
        self.modules = dict(root.named_modules())
        #: What is computed of the model's own tensors alone, and the shapes (without the batch) of what is not.
        self.constants: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        for node, value in tracer.values.items():
            if node.op != "placeholder" and self.constants.keys() >= set(node.all_input_nodes):
                self.constants[node] = value
            elif isinstance(value, torch.Tensor):
                self.shapes[node] = tuple(value.shape[1:])
            elif isinstance(value, tuple | list) and not isinstance(value, torch.Size):
                self.shapes[node] = ()  # several tensors, which only an operation that is not supported returns
        self.operations: list[Operation] = []
        self.alias: dict[fx.Node, str] = {}

    def graph(self) -> Graph:
        returned = next(node for node in self.nodes.nodes if node.op == "output").args[0]
        outputs = _outputs(returned)
        if not outputs or not all(isinstance(output, fx.Node) and output in self.shapes for output in outputs):
            raise UnsupportedModelError(
                "the model returns something other than tensors. "
                "Return one, or a tuple, a list or a dictionary of them."
            )
        names = tuple(returned) if isinstance(returned, dict) else ()
        if not all(isinstance(name, str) and name for name in names):
            raise UnsupportedModelError("the model returns a dictionary with keys that are no names. Use strings.")
        for node in self._needed(outputs):
            self._translate(node)
        return Graph(tuple(self.operations), self.input_shape, tuple(self.alias[node] for node in outputs), names)

    def _needed(self, outputs: Sequence[fx.Node]) -> list[fx.Node]:
        """Return the nodes whose tensors flow into the outputs, in order (sizes for a reshape do not)."""
        wanted, stack = set(), list(outputs)
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack += self._tensor_inputs(node)
        return [node for node in self.nodes.nodes if node in wanted]

    def _tensor_inputs(self, node: fx.Node) -> list[fx.Node]:
        """Return the tensors among a node's arguments, in order; twice what is given twice."""
        found: list[fx.Node] = []

        def keep(n: fx.Node) -> fx.Node:
            found.append(n)
            return n

        fx.node.map_arg((node.args, node.kwargs), keep)
        return [n for n in found if n in self.shapes]

    def _translate(self, node: fx.Node) -> None:
        path = _path(node)
        if node.op == "placeholder":
            self._append(node, "input", path)
        elif node.op == "call_module":
            self._translate_module(node, self.modules[path], path)
        else:
            self._translate_call(node, node.target, path)

    def _translate_module(self, node: fx.Node, module: nn.Module, path: str) -> None:
        if isinstance(module, _TRANSPARENT):
            self.alias[node] = self.alias[self._tensor_inputs(node)[0]]
            return
        kind = nn.Hardtanh if type(module) is nn.ReLU6 else type(module)
        if kind not in KINDS:
            raise UnsupportedModelError(
                f"{path}: {kind.__name__} is not supported{_hint(kind.__name__)}. Supported are {SUPPORTED}."
            )
        self._check_module(node, module, path)
        arguments = {name: _plain(getattr(module, name)) for name in KINDS[kind]}
        if isinstance(module, nn.Flatten):
            self._check_flatten(node, path)
        if isinstance(module, Normalize) and self.shapes[node] != self.shapes[self._tensor_inputs(node)[0]]:
            raise UnsupportedModelError(
                f"{path}: Normalize of {max(module.mean.numel(), module.std.numel())} channels on an input of shape "
                f"{self.input_shape}. Give one mean and std a channel."
            )
        tensors = {
            name: t.detach().clone().cpu() for name, t in module.state_dict().items() if name != "num_batches_tracked"
        }
        if not _fits(kind, arguments, tensors):
            raise UnsupportedModelError(
                f"{path}: {kind.__name__} computes its weights from {', '.join(sorted(tensors))}. "
                "Make weight norm or pruning permanent (remove_weight_norm, prune.remove)."
            )
        _check_finite(tensors, path)
        self._append(node, kind.__name__, path, arguments, tensors)

    def _translate_call(self, node: fx.Node, target: Any, path: str) -> None:
        inputs = self._tensor_inputs(node)
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        if target in _WEIGHTED:
            self._translate_module(node, self._weighted(node, path), path)
        elif any(value in self.constants for value in node.all_input_nodes):
            raise UnsupportedModelError(
                f"{path}: {name}() of a tensor of the model's own ({self._own(node)}) is not supported. "
                f"Supported are {SUPPORTED}."
            )
        elif target in (*_ADD, "add", "add_"):
            if len(inputs) == 1 and 0 in node.args:  # where Python's sum() begins
                self.alias[node] = self.alias[inputs[0]]
                return
            if len(inputs) != 2 or len(node.args) + len(node.kwargs) != 2:
                raise UnsupportedModelError(
                    f"{path}: {name}() of anything but two tensors is not supported: no constant, no alpha."
                )
            if self.shapes[inputs[0]] != self.shapes[inputs[1]]:
                raise UnsupportedModelError(
                    f"{path}: an addition of shapes {self.shapes[inputs[0]]} and {self.shapes[inputs[1]]}. "
                    "Make them equal."
                )
            self._append(node, "add", path)
        elif target in _CONCATENATE:
            dim = _argument(node, 1, "dim", node.kwargs.get("axis", 0))
            rank = len(self.shapes[node]) + 1
            if not isinstance(dim, int) or dim % rank != 1:
                raise UnsupportedModelError(
                    f"{path}: {name}() along dimension {dim} is not supported. Concatenate along dimension 1, the "
                    "channels of images or the features of vectors."
                )
            self._append(node, "concatenate", path)
        elif target in _FLATTEN:
            self._check_flatten(node, path)
            self._append(node, "Flatten", path)
        elif target in (F.dropout, F.dropout2d):
            if _argument(node, 2, "training", True) is not False:
                raise UnsupportedModelError(
                    f"{path}: {name}() drops in evaluation, too. Pass training=self.training, or use nn.Dropout."
                )
            self.alias[node] = self.alias[inputs[0]]
        elif target in _RELU:
            self._append(node, "ReLU", path)
        elif target in (*_RELU6, *_HARDTANH):
            low, high = (0, 6) if target in _RELU6 else (_argument(node, i, *d) for i, d in enumerate(_LIMITS, 1))
            if low != 0 or not isinstance(high, int | float) or not 0 < high < math.inf:
                raise UnsupportedModelError(f"{path}: {name}() with limits {low} and {high}. Give 0 and a number.")
            self._append(node, "Hardtanh", path, {"min_val": 0.0, "max_val": float(high)})
        elif target in _MEAN and self._is_mean_over_phases(node):
            self._append(node, "mean", path)
        elif target in _MEAN and self._is_spatial_mean(node):
            self._append(node, "AdaptiveAvgPool2d", path, {"output_size": (1, 1)})
            if len(self.shapes[node]) == 1:
                pooled = self.operations[-1].name
                flat = self._unique(f"{pooled}.flatten")
                self.operations.append(Operation(flat, "Flatten", path, (pooled,)))
                self.alias[node] = flat
        elif target in _POOLS:
            kind, names = _POOLS[target]
            given = {
                **dict(zip(names, node.args[1:], strict=False)),
                **{k: v for k, v in node.kwargs.items() if k != "input"},
            }
            module = kind(**given)
            self._check_module(node, module, path)
            self._append(node, kind.__name__, path, {name: _plain(getattr(module, name)) for name in KINDS[kind]})
        else:
            over = any(len(self.shapes[value]) == 2 for value in inputs)
            hint = ": of a sequence only x.mean(1) leaves one value, not its last or greatest" if over else _hint(name)
            raise UnsupportedModelError(f"{path}: {name}() is not supported{hint}. Supported are {SUPPORTED}.")

    def _weighted(self, node: fx.Node, path: str) -> nn.Module:
        """Return the module that does what a function does with weights: the model's own, or computed of these."""
        target: Any = node.target
        given = {**dict(zip(_WEIGHTED[target], node.args, strict=False)), **node.kwargs}
        source: Any = given.pop("input")
        held = {name: value for name, value in given.items() if isinstance(value, fx.Node)}
        if source not in self.shapes or not self.constants.keys() >= set(held.values()):
            raise UnsupportedModelError(
                f"{path}: {target.__name__}() with weights that depend on the input is not supported. Keep them fixed."
            )
        tensors = {name: self.constants[value].detach() for name, value in held.items()}
        options: dict[str, Any] = {
            name: value for name, value in given.items() if name not in tensors and value is not None
        }
        if target is F.batch_norm:
            if options.get("training") or "running_mean" not in tensors:
                raise UnsupportedModelError(
                    f"{path}: batch_norm() by the statistics of the batch. Train with track_running_stats."
                )
            mean = tensors["running_mean"]
            if "weight" in tensors or "bias" in tensors:
                tensors = {"weight": torch.ones_like(mean), "bias": torch.zeros_like(mean), **tensors}
            kind = nn.BatchNorm2d if len(self.shapes[source]) == 3 else nn.BatchNorm1d
            module: nn.Module = kind(len(mean), options.get("eps", 1e-5), affine="weight" in tensors)
        else:
            outputs, inputs, *kernel = tensors["weight"].shape
            with torch.device("meta"):
                if target is F.linear:
                    module = nn.Linear(inputs, outputs, "bias" in tensors)
                else:
                    inputs *= options.get("groups", 1)
                    module = nn.Conv2d(inputs, outputs, tuple(kernel), bias="bias" in tensors, **options)
        module.load_state_dict(tensors, strict=False, assign=True)
        return module

    def _own(self, node: fx.Node) -> str:
        """Return the name of a tensor of the model's own that a node reads, or what it reads was computed of."""
        held = next(value for value in node.all_input_nodes if value in self.constants)
        return str(held.target) if held.op == "get_attr" else self._own(held)

    def _check_module(self, node: fx.Node, module: nn.Module, path: str) -> None:
        if isinstance(module, nn.MaxPool2d) and module.ceil_mode:
            # Where no window reaches beyond the image and its padding, both modes are the same.
            before = torch.zeros(1, *self.shapes[self._tensor_inputs(node)[0]])
            floor = {name: getattr(module, name) for name in (*KINDS[nn.MaxPool2d], "return_indices")}
            if F.max_pool2d(before, **{**floor, "return_indices": False}).shape[1:] == self.shapes[node]:
                module = nn.MaxPool2d(**floor)
        _check_module(module, path)

    def _is_mean_over_phases(self, node: fx.Node) -> bool:
        """Whether a mean goes over the phases of (N, P, F) and leaves (N, F)."""
        before = self.shapes[self._tensor_inputs(node)[0]]
        dims = _argument(node, 1, "dim", None)
        dims = [dims] if isinstance(dims, int) else dims
        over = isinstance(dims, tuple | list) and [d % 3 for d in dims if isinstance(d, int)] == [1]
        return len(before) == 2 and over and self.shapes[node] == before[1:]

    def _is_spatial_mean(self, node: fx.Node) -> bool:
        """Whether a mean goes over height and width, all of both and nothing else."""
        dims = _argument(node, 1, "dim", None)
        if len(self.shapes[self._tensor_inputs(node)[0]]) != 3 or not isinstance(dims, tuple | list):
            return False
        return sorted(d % 4 if isinstance(d, int) else -1 for d in dims) == [2, 3]

    def _check_flatten(self, node: fx.Node, path: str) -> None:
        before = self.shapes[self._tensor_inputs(node)[0]]
        if self.shapes[node] != (int(torch.Size(before).numel()),):
            raise UnsupportedModelError(
                f"{path}: a reshape from {before} to {self.shapes[node]} is not supported. "
                "Flatten all of it, or do without."
            )

    def _append(
        self, node: fx.Node, kind: str, path: str, arguments: dict | None = None, tensors: dict | None = None
    ) -> None:
        # The path makes the better name; a module that is called twice keeps torch.fx's unique one.
        name = path if node.op == "call_module" else node.name
        if any(op.name == name for op in self.operations):
            name = self._unique(node.name)
        inputs = () if kind == "input" else tuple(self.alias[a] for a in self._tensor_inputs(node))
        self.operations.append(Operation(name, kind, path, inputs, arguments or {}, tensors or {}))
        self.alias[node] = name

    def _unique(self, name: str) -> str:
        taken = {op.name for op in self.operations}
        return next(c for c in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if c not in taken)


_CHECKS: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.Conv2d: lambda m: (
        f"padding mode {m.padding_mode!r}. Use zero padding"
        if m.padding_mode != "zeros"
        else f"padding {m.padding!r}. Give it in numbers"
        if isinstance(m.padding, str) and m.padding != "valid"
        else None
    ),
    nn.MaxPool2d: lambda m: (
        "ceil_mode and a window that reaches beyond the image. Use floor mode, or another image size"
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
        None if bool((m.threshold > 0).all()) else f"threshold {m.threshold.min():g}. It must be greater than 0"
    ),
    nn.Hardtanh: lambda m: (
        None if m.min_val == 0 < m.max_val < math.inf else f"limits {m.min_val:g} and {m.max_val:g}. Use Hardtanh(0, a)"
    ),
    CQRNN: lambda m: _CHECKS[CQReLU](m.activation),
    nn.Embedding: lambda m: "max_norm. Train without" if m.max_norm is not None else None,
}


def _check_finite(tensors: dict[str, torch.Tensor], path: str) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UnsupportedModelError(
                f"{path}: its {name} holds NaN or infinity. Train again, or load an earlier checkpoint."
            )


def _check_module(module: nn.Module, path: str) -> None:
    problem = _CHECKS.get(type(module), lambda m: None)(module)
    if problem:
        raise UnsupportedModelError(f"{path}: {type(module).__name__} with {problem}.")


class _NotInitialized(TorchFunctionMode):
    """Draw no initial weights: without a device, torch would load a computer algebra system for that."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        drawn = getattr(function, "__module__", None) == nn.init.__name__
        if drawn:
            return arguments[0] if arguments else keywords["tensor"]
        return function(*arguments, **keywords)


def module_of(op: Operation, own: bool = True) -> nn.Module:
    """Return the torch module of an operation, with tensors in the dtype of the operation's: its `own`, or the same.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        The arguments or tensors are not those of such a module.
    """
    kind, arguments = _BY_NAME[op.kind], dict(op.arguments)
    if set(arguments) != set(KINDS[kind]):
        raise ValueError(f"{op.name}: {op.kind} takes {', '.join(KINDS[kind])}, not {', '.join(arguments)}")
    if not _fits(kind, arguments, op.tensors):
        raise ValueError(f"{op.name}: {op.kind} does not hold {', '.join(op.tensors) or 'no tensors'}")
    if kind in (nn.Conv2d, nn.Linear):
        arguments["bias"] = "bias" in op.tensors
    elif kind is CQReLU:
        arguments |= {name: op.tensors.get(name) for name in ("threshold", "shift")}
    elif kind is CQRNN:
        arguments |= {name: op.tensors.get(f"activation.{name}") for name in ("threshold", "shift")}
    elif kind is Normalize:
        arguments = {name: op.tensors[name].tolist() for name in ("mean", "std")}
    # On no device nothing is allocated, whatever sizes a damaged file may name.
    with torch.device("meta" if kind in (nn.Conv2d, nn.Linear, nn.Embedding, CQRNN) else "cpu"), _NotInitialized():
        module: nn.Module = kind(**arguments)
    # num_batches_tracked alone is missing: no graph has it.
    missing, unexpected = module.load_state_dict(
        {name: tensor.clone() if own else tensor.detach() for name, tensor in op.tensors.items()},
        strict=False,
        assign=True,
    )
    if unexpected or set(missing) - {"num_batches_tracked"}:
        raise ValueError(f"{op.name}: {op.kind} lacks {', '.join(missing)} or has no {', '.join(unexpected)}")
    _check_module(module, op.path)
    return module


def _fits(kind: type[nn.Module], arguments: dict[str, Any], tensors: Iterable[str]) -> bool:
    """Whether tensors of these names, and no others, make a module of `kind`."""
    optional = {nn.Conv2d: {"bias"}, nn.Linear: {"bias"}, CQReLU: {"shift"}, CQRNN: {"activation.shift"}}
    required = _tensor_names(kind, arguments)
    return required <= set(tensors) <= required | optional.get(kind, set())


def _tensor_names(kind: type[nn.Module], arguments: dict[str, Any]) -> set[str]:
    """Return the names of the tensors that every module of `kind` has."""
    if kind in (nn.Conv2d, nn.Linear):
        return {"weight"}
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d):
        statistics = {"running_mean", "running_var"}
        return statistics | {"weight", "bias"} if arguments["affine"] else statistics
    if kind is Normalize:
        return {"mean", "std"}
    if kind is nn.Embedding:
        return {"weight"}
    if kind is CQRNN:
        return {"weight_ih", "weight_hh", "bias", "activation.threshold"}
    return {"threshold"} if kind is CQReLU else set()


def _compare(model: nn.Module, graph: Graph) -> None:
    """Refuse a graph that does not compute what `model` does, on images of [-1, 1] and of [-255, 255].

    Both run the same operations, so that they agree to the last bits but where a tie falls to another level (a mean is
    summed in another order). A graph that misses something agrees on no image.
    """
    tensor = _kind_of_tensor(model)
    mine = GraphModel(graph).to(tensor["device"]).eval()
    generator = torch.Generator().manual_seed(0)
    for size in (1, 255):
        x = graph.random_inputs(4, generator)
        x = x if graph.vocabulary else x * size
        with torch.no_grad():
            try:
                pairs = list(zip(_outputs(model(x.to(**tensor))), _outputs(mine(x.to(**tensor))), strict=True))
                differences = [_difference(theirs, ours) for theirs, ours in pairs]
            except Exception as error:
                raise UnsupportedModelError(
                    f"the model does not run on a batch of 4 ({first_line(error)}). Keep the batch size out of it."
                ) from error
        for difference, size_of_output in differences:
            if not bool((difference <= 1e-3 * size_of_output + 1e-9).any()):
                raise UnsupportedModelError(
                    "the model does something that torch.fx cannot see: its output differs from the traced graph's by "
                    f"{float(difference.min()):g}. Keep hooks, and in-place operations on tensors that are used again, "
                    "out of it."
                )


def _difference(theirs: torch.Tensor, ours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each sample's greatest difference between two outputs, and the greatest value of the first."""
    alike = (theirs == ours) | (theirs.isnan() & ours.isnan())
    difference = torch.where(alike, 0, (theirs - ours).abs()).flatten(1).amax(1)
    return difference, theirs.abs().nan_to_num(0.0, 0.0).flatten(1).amax(1)


def _outputs(returned: Any) -> tuple[Any, ...]:
    """Return what a model returned as a tuple: of the values of a dictionary, of the items of a list or tuple."""
    if isinstance(returned, dict):
        return tuple(returned.values())
    return tuple(returned) if isinstance(returned, tuple | list) else (returned,)


def _defaults(model: nn.Module) -> dict[str, Any]:
    """Return the plain defaults of what a model takes besides its input, by which it may decide."""
    parameters = inspect.signature(type(model).forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is None or isinstance(p.default, bool | int | float)}


def _kind_of_tensor(model: nn.Module) -> dict[str, Any]:
    """Return the dtype and the device of what a model takes: tokens for an Embedding, else what it computes in."""
    first = next(iter([*model.parameters(), *model.buffers()]), torch.zeros(()))
    if any(isinstance(module, nn.Embedding) for module in model.modules()):
        return {"dtype": torch.int64, "device": first.device}
    return {"dtype": first.dtype if first.is_floating_point() else torch.float32, "device": first.device}


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _plain(value: Any) -> Any:
    """Return an argument as Python's own types, which a checkpoint may hold."""
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    if value == "valid":  # torch's word for no padding
        return (0, 0)
    return value.item() if isinstance(value, np.generic) else value


def _path(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    inside = [path for path in (str(key) for key in stack) if path]
    return f"{inside[-1]}.{node.name}" if inside else str(node.name)


#: Activations and normalizations that have a relative which is supported, in lower case without underscores.
_ACTIVATIONS = {
    *("celu", "elu", "gelu", "glu", "hardsigmoid", "hardswish", "leakyrelu", "logsigmoid", "mish", "prelu", "selu"),
    *("sigmoid", "silu", "softmax", "softplus", "softsign", "swish", "tanh"),
}
_NORMS = {"groupnorm", "groupnorm1", "instancenorm2d", "instancenorm", "layernorm", "layernorm2d"}


def _hint(name: str) -> str:
    plain = name.lower().replace("_", "")
    if plain in _ACTIVATIONS:
        return ": of activations only ReLU, ReLU6 and Hardtanh(0, a) become levels. Train with these"
    if plain in _NORMS:
        return ": only a batch norm is linear in evaluation. Train with BatchNorm2d"
    if plain in ("chunk", "getitem", "split"):
        return ": no value is taken apart. Compute its parts with layers of their own"
    if name in ("RNN", "GRU", "LSTM"):
        return ": its activations are no CQReLU. Use lava_casc.CQRNN and train"
    return ""
