"""What reading a foreign network takes, whatever its format: libraries, its input, and that it computes the same."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from lava_casc.errors import CheckpointError, MissingDependencyError, UnsupportedModelError, first_line
from lava_casc.frontend import GraphModel, InputSpec, Normalize, trace
from lava_casc.frontend.trace import Graph

#: How many random inputs are compared, and by how much of its greatest value an output may differ.
SAMPLES, TOLERANCE = 8, 1e-3
#: What both sides add to a sum before it is rounded, as a share of a level: where a tie goes is no part of this.
OFF_TIES = 2**-10
#: Our outputs and the original's, for the same samples.
_Pair = tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]


def library(name: str, path: Path) -> Any:
    """Return an optional library that `path` is read or written with.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: {name.split('.')[0]} is not installed. Install it with pip install 'lava-casc[interchange]'."
        ) from error


def existing(path: str | Path) -> Path:
    """Return `path`, if it is a file."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {what}. Give the path of an ONNX file or a torch.export program.")
    return path


def damaged(path: Path, what: str, error: BaseException) -> CheckpointError:
    """Return the error of a file that its library cannot read."""
    return CheckpointError(
        f"{path}: damaged, or not {what} ({type(error).__name__}: {first_line(error)}). Copy or export it again."
    )


def input_shape(path: Path, found: Sequence[int | None], given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of one sample: what the file says (None where it leaves that open), or what is given for it."""
    shown = ",".join("?" if n is None else str(n) for n in found)
    if given is None:
        if None in found:
            raise CheckpointError(f"{path}: leaves the shape of its input open ({shown}). Give --input-shape.")
        return tuple(int(n) for n in found if n is not None)
    fits = len(given) == len(found) and all(n in (None, m) for n, m in zip(found, given, strict=True))
    if not fits:
        raise CheckpointError(f"{path}: takes inputs of shape {shown}, not {','.join(map(str, given))}.")
    return tuple(given)


def channelwise(kind: str, constant: ArrayLike, shape: Sequence[int], swapped: bool) -> Normalize | None:
    """Return ``x + c``, ``x - c``, ``x * c`` or ``x / c`` as a `Normalize`; None where it cannot be one.

    Parameters
    ----------
    kind : {"add", "sub", "mul", "div"}
    constant : array of float
        Broadcasts against `shape`.
    shape : sequence of int
        (N, C, ...) of x.
    swapped : bool
        Whether the constant stands first.
    """
    c = np.asarray(constant, np.float64)
    try:
        full = np.broadcast_to(c, (1, *shape[1:])).reshape(shape[1], -1)
    except ValueError:
        return None
    values = full[:, 0]
    divides = kind in ("mul", "div")
    if not full.size or (full != full[:, :1]).any() or (swapped and kind in ("sub", "div")):
        return None
    if not np.isfinite(values).all() or (divides and not (values > 0).all()):
        return None
    none = np.zeros_like(values)
    mean = {"add": -values, "sub": values}.get(kind, none)
    std = {"mul": lambda: 1 / values, "div": lambda: values}.get(kind, lambda: none + 1)()
    return Normalize(mean.tolist(), std.tolist())


def traced(
    path: Path, model: nn.Module, spec: InputSpec, batch: int | None, original: Callable[[torch.Tensor], Sequence[Any]]
) -> GraphModel:
    r"""Return the graph of `model`, if it computes what the `original` does.

    Parameters
    ----------
    path : Path
        For messages.
    model : torch.nn.Module
    spec : InputSpec
        The samples are random images of it, float32 ``scale * integer``.
    batch : int or None
        The batch size that the original insists on.
    original : callable
        Takes a float32 tensor (N, \*shape) and returns its outputs, in order.

    Raises
    ------
    UnsupportedModelError
        The model cannot be traced, or half of the samples or more come out otherwise. (Sums are taken in another
        order, and where that makes a rounding fall to the other side, a sample may differ.)
    """
    model = model.eval()
    try:
        graph = trace(model, spec.shape)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
    mine = GraphModel(_off_ties(graph), own=False).eval()
    size = SAMPLES if batch is None else batch
    pairs: list[_Pair] = []
    generator = torch.Generator().manual_seed(0)
    for start in range(0, SAMPLES, size):
        x = torch.randint(spec.low, spec.high + 1, (size, *spec.shape), generator=generator)
        if start % (2 * size):
            x = x * (torch.rand(x.shape, generator=generator) < 0.3)  # sparse ones, too
        x = x.float() * spec.scale
        with torch.no_grad():
            ours = mine(x)
            try:
                theirs = original(x)
            except Exception as error:  # a library's own interpreter raises almost anything
                raise UnsupportedModelError(
                    f"{path}: does not run on an input of shape {(size, *spec.shape)} "
                    f"({type(error).__name__}: {first_line(error)}). Export it again."
                ) from error
        outputs = ours if isinstance(ours, tuple) else (ours,)
        pairs.append((outputs, [torch.as_tensor(np.asarray(value)) for value in theirs]))
    for k in range(max(len(pairs[0][0]), len(pairs[0][1]))):
        _check_equal(path, k, pairs)
    return GraphModel(graph).eval()


def _off_ties(graph: Graph) -> Graph:
    """Return the graph with `OFF_TIES` of a level added to every sum before it is rounded."""
    operations = []
    for op in graph.operations:
        if op.kind == "CQReLU":
            step = op.tensors["threshold"] / op.arguments["levels"]
            shift = op.tensors.get("shift", torch.zeros(())) + OFF_TIES * step
            op = replace(op, tensors={**op.tensors, "shift": shift})
        operations.append(op)
    return replace(graph, operations=tuple(operations))


def _check_equal(path: Path, k: int, pairs: list[_Pair]) -> None:
    """Refuse an output `k` that differs from the original's on half of the samples or more."""
    if any(k >= min(len(ours), len(theirs)) or ours[k].shape != theirs[k].shape for ours, theirs in pairs):
        raise UnsupportedModelError(
            f"{path}: output {k} has another shape once it is read. Export the network with its outputs alone."
        )
    ours, theirs = (torch.cat([pair[side][k].double().flatten(1) for pair in pairs]) for side in (0, 1))
    difference, greatest = (ours - theirs).abs().amax(1), theirs.abs().amax(1)
    wrong = ~(difference <= TOLERANCE * greatest + 1e-9)  # NaN is wrong
    if 2 * int(wrong.sum()) >= len(wrong):
        raise UnsupportedModelError(
            f"{path}: what was read differs from the file by {float(difference.max()):g} on {int(wrong.sum())} of "
            f"{len(wrong)} random inputs. Rebuild the network in torch, and use lava_casc.save_model."
        )
