"""From a network of plain ReLU to one of CQReLU, by thresholds and shifts that a few hundred samples suggest.

The graph is gone through once, operation by operation, for all samples: as it is, and with every activation so far
replaced. What is kept of either are only the values that are still to be read. Nothing here trains, and the weights
stay as they are, but for the bias of an output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lava_casc.errors import DataError, UnsupportedModelError
from lava_casc.frontend.checkpoint import Checkpoint
from lava_casc.frontend.cqrelu import PHASES
from lava_casc.frontend.trace import UNQUANTIZED, Graph, GraphModel, Operation, module_of, value_of

METHODS = ("percentile", "mse", "distribution")
#: What is replaced.
ACTIVATIONS = (*UNQUANTIZED, "CQReLU")
#: Outputs whose bias can be corrected.
CORRECTED = ("Linear", "Conv2d")
#: Samples that an operation takes at a time. It decides the last bits of a sum, so that it is fixed.
BATCH = 64
#: Most bytes of values that may be kept: VGG16 on 512 images of 32x32 needs a quarter of it.
MOST_BYTES = 3 << 30
#: A threshold that is searched is one of so many equal parts of the greatest activation.
GRID = 64
#: Values of a layer among which a threshold is searched, at most; chosen at random, always the same ones.
SEARCHED = 1 << 20
#: Halvings of the interval that a shift is searched in.
HALVINGS = 24


@dataclass(frozen=True)
class Calibration:
    r"""How thresholds and shifts are found.

    For every activation, let `z` be what a channel (or the whole layer) receives in the network as it is, `a` its
    activation there, and `x` what it receives once all activations before it are quantized.

    * ``percentile``: the threshold is a percentile of `a`, zeros included, which is robust against outliers (Rueckauer
      et al., "Conversion of Continuous-Valued Deep Networks to Efficient Event-Driven Networks for Image
      Classification", 2017).
    * ``mse``: the threshold :math:`\lambda` that minimises the mean of
      :math:`(a - \operatorname{CQReLU}(z; \lambda))^2`, out of `GRID` parts of the greatest `a`.
    * ``distribution``: after the distribution-aware QCFS of "Faster and Stronger: When ANN-SNN Conversion Meets
      Parallel Spiking Calculation" (arXiv 2412.13610). The paper's idea, which is known here from its abstract and
      from summaries alone: every channel has a clip of its own and shifts that the mean error between the ReLU and its
      quantization sets, layer by layer, without training. Our way: for each of `GRID` thresholds the shift `s` with
      which the mean of :math:`\operatorname{CQReLU}(x + s; \lambda)` is that of `a`, by bisection; then the threshold
      whose mean squared error against `a` is least. A mean moves by jumps, one level of one value at a time: it is met
      to half a jump, on the values that are searched; of all shifts that do, the one nearest to 0 is taken.

    Attributes
    ----------
    levels : int
        L of every CQReLU, at least 1.
    method : {"percentile", "mse", "distribution"}
    per_channel : bool
        A threshold (and with ``distribution`` a shift) for every channel, or one for the layer.
    percentile : float
        Within (0, 100].
    bias_correction : bool
        Whether, layer by layer, the mean of `x` in each channel is brought to that of `z`, by a shift: the empirical
        bias correction of "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721),
        applied to what quantized activations do, where the paper has quantized weights. The mean of an output that a
        Linear or Conv2d computes is corrected in its bias. With ``distribution`` only the outputs are left to correct:
        its shifts meet means behind the activation.
    rounding : {"round", "floor"}

    Raises
    ------
    ValueError
        A setting is out of its range.
    """

    levels: int
    method: str = "distribution"
    per_channel: bool = True
    percentile: float = 99.9
    bias_correction: bool = True
    rounding: str = "round"

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or isinstance(self.levels, bool) or self.levels < 1:
            raise ValueError(f"levels must be an int of at least 1, not {self.levels!r}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile must be greater than 0 and at most 100, not {self.percentile!r}")
        if self.rounding not in PHASES:
            raise ValueError(f"rounding must be 'floor' or 'round', not {self.rounding!r}")


def calibrate(
    checkpoint: Checkpoint,
    samples: ArrayLike,
    calibration: Calibration,
    *,
    progress: Callable[[float], None] = lambda done: None,
) -> Graph:
    r"""Return the graph of a checkpoint with every activation replaced by a calibrated CQReLU.

    A ReLU, and one clipped at the top (ReLU6, ``Hardtanh(0, a)``), becomes a CQReLU whose threshold is no greater than
    the clip. A CQReLU is taken as the function that it is, its levels and shift included: what it was trained to be
    is what its replacement, of other levels say, has to be near. Thresholds and shifts are learnable.

    A channel that no sample excites gets the greatest threshold of its layer, and a layer of such channels 1: neither
    weights nor what reads them grow by it.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of images or vectors.
    samples : (N, \*input_shape) array of integers
        Within the checkpoint's input range. At least one; a few hundred training samples, of all classes.
    calibration : Calibration
    progress : callable
        Called with the share of the operations that is done.

    Returns
    -------
    Graph
        The same for the same samples, on the same machine with the same number of threads.

    Raises
    ------
    UnsupportedModelError
        The model is one of words, or has no activation.
    DataError
        The samples do not fit the input, or are so many that their values would take more than `MOST_BYTES`.
    """
    graph = checkpoint.graph
    if graph.vocabulary is not None:
        raise UnsupportedModelError("a model of words cannot be calibrated. Train it with CQRNN and CQReLU.")
    if not any(op.kind in ACTIVATIONS for op in graph.operations):
        raise UnsupportedModelError("the model has no ReLU to calibrate. Convert it as it is.")
    images = _checked(samples, checkpoint)
    with torch.no_grad():
        return _sweep(graph, images, checkpoint.input.scale, calibration, progress)


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return the places of at most `wanted` of `count` samples, evenly spread: of all classes, were they in order."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64)


def _checked(samples: ArrayLike, checkpoint: Checkpoint) -> NDArray[np.integer]:
    images, spec = np.asarray(samples), checkpoint.input
    if images.dtype.kind not in "iu" or images.shape[1:] != spec.shape or not len(images):
        raise DataError(
            f"samples of shape {images.shape} and {images.dtype} do not fit an integer input of shape {spec.shape}. "
            "Give at least one sample of that shape."
        )
    if not spec.low <= images.min() <= images.max() <= spec.high:
        raise DataError(
            f"samples span [{images.min()}, {images.max()}], outside the input range [{spec.low}, {spec.high}]. "
            "Give integers as the model was trained on."
        )
    needed = len(images) * _bytes_a_sample(checkpoint.graph)
    if needed > MOST_BYTES:
        raise DataError(
            f"{len(images)} samples: their values ({needed / 2**30:.1f} GiB) would exceed {MOST_BYTES / 2**30:g} GiB. "
            f"Calibrate on {max(1, len(images) * MOST_BYTES // needed)}."
        )
    return images


def _bytes_a_sample(graph: Graph) -> int:
    """Return the most bytes that the values of one sample take at a time: two networks, and the sorting of one."""
    with torch.no_grad():
        values = GraphModel(graph, own=False).eval().values(torch.zeros(1, *graph.input_shape, dtype=_dtype(graph)))
    size = {name: value.numel() * value.element_size() for name, value in values.items()}
    last, kept, most = _last_readers(graph), 0, 0
    for op in graph.operations:
        kept += 2 * size[op.name]
        most = max(most, kept + 2 * size[op.name] * (op.kind in ACTIVATIONS))
        kept -= sum(2 * size[name] for name in {*op.inputs} if last[name] == op.name)
    return most


def _dtype(graph: Graph) -> torch.dtype:
    return next((tensor.dtype for op in graph.operations for tensor in op.tensors.values()), torch.float32)


def _last_readers(graph: Graph) -> dict[str, str]:
    return {name: op.name for op in graph.operations for name in op.inputs}


def _sweep(
    graph: Graph,
    images: NDArray[np.integer],
    scale: float,
    calibration: Calibration,
    progress: Callable[[float], None],
) -> Graph:
    """Go through the operations in order, with the value of each in both networks: one tensor while they agree."""
    real = torch.tensor(images).to(_dtype(graph)) * scale
    theirs: dict[str, torch.Tensor] = {}
    ours: dict[str, torch.Tensor] = {}
    operations: list[Operation] = []
    last = _last_readers(graph)
    for i, op in enumerate(graph.operations):
        if op.kind == "input":
            theirs[op.name] = ours[op.name] = real
            operations.append(op)
        elif op.kind in ACTIVATIONS:
            z, x = theirs[op.inputs[0]], ours[op.inputs[0]]
            theirs[op.name] = a = _value(op, [z])
            operations.append(_replaced(op, z, x, a, calibration))
            ours[op.name] = _value(operations[-1], [x])
        else:
            alike = all(ours[name] is theirs[name] for name in op.inputs)
            theirs[op.name] = _value(op, [theirs[name] for name in op.inputs])
            ours[op.name] = theirs[op.name] if alike else _value(op, [ours[name] for name in op.inputs])
            if calibration.bias_correction and not alike and op.name in graph.outputs and op.kind in CORRECTED:
                op = _corrected(op, _means(theirs[op.name]) - _means(ours[op.name]))
                ours[op.name] = _value(op, [ours[name] for name in op.inputs])
            operations.append(op)
        for name in {*op.inputs}:
            if last[name] == op.name:
                del theirs[name], ours[name]
        progress((i + 1) / len(graph.operations))
    return replace(graph, operations=tuple(operations))


def _value(op: Operation, inputs: list[torch.Tensor]) -> torch.Tensor:
    """Return the value of an operation for all samples, some at a time."""
    module = module_of(op, own=False).eval() if op.is_module else None
    parts = list(zip(*(value.split(BATCH) for value in inputs), strict=True))
    first = value_of(op, module, parts[0], parts[0][0])
    if len(parts) == 1:
        return first
    made = first.new_empty((len(inputs[0]), *first.shape[1:]))
    made[: len(first)] = first
    for place, part in zip(made.split(BATCH)[1:], parts[1:], strict=True):
        place.copy_(value_of(op, module, part, part[0]))
    return made


def _replaced(op: Operation, z: torch.Tensor, x: torch.Tensor, a: torch.Tensor, calibration: Calibration) -> Operation:
    """Return the CQReLU in place of an activation that receives `z` and returns `a`, and will receive `x`."""
    before = op.tensors.get("shift", torch.zeros(()))
    if bool(before.any()):  # of a CQReLU
        z, x = (value + before.reshape(-1, *(1,) * (value.dim() - 2)) for value in (z, x))
    a_rows = _rows(a, calibration.per_channel)
    greatest, more = a_rows.max(1).values, torch.zeros((), dtype=torch.float64)
    if calibration.method == "percentile":
        found = torch.as_tensor(np.percentile(a_rows.numpy(), calibration.percentile, axis=1)).to(a.dtype)
        threshold = _settled(torch.where(found > 0, found, greatest))  # a rare activation's percentile is 0
    elif calibration.method == "mse":
        z_rows, a_rows = _searched([_rows(z, calibration.per_channel), a_rows], SEARCHED)
        threshold = _settled(_threshold(z_rows, a_rows, greatest, calibration))
    else:
        rows = _searched([_rows(x, calibration.per_channel), a_rows], SEARCHED)
        few_x, few_a = _searched(rows, SEARCHED // 4)  # for each threshold a shift has to be found
        threshold = _settled(_threshold(few_x, few_a, greatest, calibration))
        shifts = _nearest(rows[0], threshold, _row_means(rows[1]), calibration)
        more = shifts if calibration.per_channel else shifts[0]
    if calibration.bias_correction and calibration.method != "distribution":
        more = _means(z) - _means(x)
    tensors = {"threshold": threshold if calibration.per_channel else threshold[0]}
    if "shift" in op.tensors or bool(more.any()):
        tensors["shift"] = (before.double() + more).to(z.dtype)
    arguments: dict[str, Any] = {"levels": calibration.levels, "rounding": calibration.rounding, "learnable": True}
    return replace(op, kind="CQReLU", arguments=arguments, tensors=tensors)


def _threshold(x: torch.Tensor, a: torch.Tensor, greatest: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """Return of the candidates up to the `greatest` activation (R,) those with which CQReLU of `x` is nearest to `a`.

    `x` and `a` are rows (R, n). With ``distribution``, the shift that a threshold needs comes before the comparison.
    """
    wanted = _row_means(a)
    best, least = greatest.clone(), torch.full_like(greatest, torch.inf)
    for part in range(GRID, 0, -1):
        threshold, shifted = greatest * (part / GRID), x
        if calibration.method == "distribution":
            low, high = _passing(x, threshold, lambda means: means >= wanted, calibration, HALVINGS // 2)
            shifted = x + ((low + high) / 2)[:, None]
        error = (_quantized(shifted, threshold, calibration) - a).square_().mean(1)
        best, least = torch.where(error < least, threshold, best), torch.minimum(error, least)
    return best


def _nearest(x: torch.Tensor, threshold: torch.Tensor, wanted: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """Return of all shifts (R,) whose means are nearest to the `wanted` ones the least, a little within their interval.

    A shift at the very end would leave it to rounding whether the last value counts.
    """

    def means(shift: torch.Tensor) -> torch.Tensor:
        return _row_means(_quantized(x + shift[:, None], threshold, calibration))

    below, above = map(means, _passing(x, threshold, lambda found: found >= wanted, calibration))
    value = torch.where((wanted - below).abs() <= (above - wanted).abs(), below, above)
    _, first = _passing(x, threshold, lambda found: found >= value, calibration)
    end, _ = _passing(x, threshold, lambda found: found > value, calibration)
    margin = torch.minimum((end - first) / 2, threshold / calibration.levels / 256).clamp_min(0)
    return torch.zeros_like(first).clamp(first + margin, end - margin)


def _passing(
    x: torch.Tensor,
    threshold: torch.Tensor,
    reached: Callable[[torch.Tensor], torch.Tensor],
    calibration: Calibration,
    halvings: int = HALVINGS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shifts (R,) just below and just above the least with which the mean of a row has `reached` something.

    They lie between those with which nothing counts and everything saturates.
    """
    low, high = (-x.max(1).values - threshold).clamp_max(0), (2 * threshold - x.min(1).values).clamp_min(0)
    for _ in range(halvings):
        middle = (low + high) / 2
        enough = reached(_row_means(_quantized(x + middle[:, None], threshold, calibration)))
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return low, high


def _quantized(x: torch.Tensor, threshold: torch.Tensor, calibration: Calibration) -> torch.Tensor:
    """Return CQReLU of rows (R, n) with thresholds (R,); 0 of those with threshold 0."""
    step = (threshold / calibration.levels)[:, None]
    counts = (x / torch.where(step > 0, step, 1)).add_(PHASES[calibration.rounding]).floor_()
    return counts.clamp_(0, calibration.levels).mul_(step)


def _row_means(rows: torch.Tensor) -> torch.Tensor:
    return rows.mean(1, dtype=torch.float64)


def _settled(threshold: torch.Tensor) -> torch.Tensor:
    """Return thresholds greater than 0: dead rows get the greatest of the layer, those of a dead layer 1."""
    greatest = float(threshold.max())
    return torch.where(threshold > 0, threshold, greatest if greatest > 0 else 1.0)


def _rows(values: torch.Tensor, per_channel: bool) -> torch.Tensor:
    """Return values (N, C, ...) as a row (C, n) for each channel, or as a single one (1, n)."""
    return values.transpose(0, 1).reshape(values.shape[1], -1) if per_channel else values.reshape(1, -1)


def _searched(rows: list[torch.Tensor], most: int) -> list[torch.Tensor]:
    """Return at most so many values of rows (R, n), the same places of each: chosen at random, always the same."""
    count, kept = rows[0].shape[1], max(1, most // len(rows[0]))
    if count <= kept:
        return rows
    chosen = torch.as_tensor(np.sort(np.random.default_rng(0).choice(count, kept, replace=False)))
    return [row[:, chosen] for row in rows]


def _means(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of each channel of values (N, C, ...), in float64."""
    return values.mean([0, *range(2, values.dim())], dtype=torch.float64)


def _corrected(op: Operation, more: torch.Tensor) -> Operation:
    """Return an operation with more bias."""
    weight = op.tensors["weight"]
    bias = op.tensors.get("bias", torch.zeros(len(weight))).double() + more
    return replace(op, tensors={**op.tensors, "bias": bias.to(weight.dtype)})
