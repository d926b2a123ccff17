"""From a model to an integer network and a file, as a list of named steps, each checked against the step before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import lava_casc
from lava_casc import files
from lava_casc.errors import CascError, NetworkFileError
from lava_casc.frontend.checkpoint import Checkpoint, InputSpec, load_checkpoint
from lava_casc.frontend.fold import FloatNetwork, FloatNeurons, evaluate, fold
from lava_casc.frontend.quantize import QuantizationReport, quantize
from lava_casc.frontend.trace import Graph, GraphModel, trace
from lava_casc.hardware import DEFAULT, Hardware, read_hardware
from lava_casc.network import IntegerNetwork, MaxPool, Neurons
from lava_casc.reference import forward, simulate
from lava_casc.schedule import WakeSleepSchedule

OnStep = Callable[[int, int, str], None]
#: Writes a file of what was converted, and returns the network that is read back from it.
Store = Callable[[Path, "Conversion"], IntegerNetwork]
#: Samples of a verification that nobody chose, and the multiply-accumulates that it may take all in all: seconds.
VERIFY_SAMPLES, VERIFY_BUDGET = 16, 5e10
STEPS = ("trace", "fold", "quantize", "verify", "write")


class VerificationError(Exception):
    """Two forms of the same network disagree: a bug in lava_casc, never the user's fault."""


@dataclass(frozen=True)
class Options:
    """What a conversion can be told.

    Attributes
    ----------
    weight_bits : int
    per_channel : bool
    levels : int, optional
        Replaces the levels of every CQReLU; by default each keeps its own.
    mode : {"unary", "burst", "graded", "latency", "energy"}
    wake_steps, sleep_steps, max_burst : int, optional
        As for `IntegerNetwork.schedule`.
    hardware : str
        A name that lava_casc ships, or a path.
    verify : int, optional
        Samples on which the spikes are compared with the integer network. By default `VERIFY_SAMPLES`, and fewer, in
        graded mode at last, for networks that would take minutes.
    staircase : bool
        Whether a file is written only of a network that fits the engine ``staircase``, too.
    """

    weight_bits: int = 8
    per_channel: bool = True
    levels: int | None = None
    mode: str = "unary"
    wake_steps: int | None = None
    sleep_steps: int | None = None
    hardware: str = DEFAULT
    verify: int | None = None
    staircase: bool = False
    max_burst: int | None = None


@dataclass(frozen=True)
class LayerError:
    """How far a layer's integers are from its floats, on the verification's samples.

    Attributes
    ----------
    name : str
    changed : float
        Share of neurons whose count is not the float network's level.
    mean_change : float
        Mean of the absolute difference, in levels.
    """

    name: str
    changed: float
    mean_change: float


@dataclass(frozen=True)
class Verification:
    """What the verification ran and found; it raises where anything differs that must not.

    Attributes
    ----------
    samples : int
    mode : str
        Of the schedule that the spikes had.
    source : str
        ``examples`` of the checkpoint, or ``random`` images.
    certified : int
        Samples that were silent within the schedule; every one of them equals the integer network.
    last_spike : int
        The greatest step in which any neuron emitted a spike.
    errors : tuple of LayerError
    logit_error : float
        Root mean square of the logits' error, relative to the float logits'; that of the worst output.
    same_class : int, optional
        Samples for which float and integer network name the same class; None where the outputs are no vector of logits.
    """

    samples: int
    mode: str
    source: str
    certified: int
    last_spike: int
    errors: tuple[LayerError, ...]
    logit_error: float
    same_class: int | None


@dataclass(frozen=True, eq=False)
class Conversion:
    """Everything that a conversion made.

    Attributes
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
    hardware : Hardware
    quantization : QuantizationReport
    verification : Verification, optional
    """

    network: IntegerNetwork
    schedule: WakeSleepSchedule
    hardware: Hardware
    quantization: QuantizationReport
    verification: Verification | None


def convert(
    model: nn.Module | Checkpoint,
    input_shape: tuple[int, ...] | None = None,
    *,
    input_range: tuple[int, int] = (0, 255),
    input_scale: float = 1 / 255,
    weight_bits: int = 8,
    per_channel: bool = True,
    levels: int | None = None,
    hardware: str = DEFAULT,
) -> IntegerNetwork:
    """Convert a model with CQReLU activations into an integer network that provably fits the hardware.

    Parameters
    ----------
    model : torch.nn.Module or Checkpoint
    input_shape : tuple of int
        (C, H, W) or (N,), (P,) for P tokens; not needed for a `Checkpoint`.
    input_range : (int, int)
        The integers that images consist of, 0 among them. Tokens have the range of the vocabulary.
    input_scale : float
        The model was trained on ``input_scale * integer``. Tokens have none.
    weight_bits, per_channel, levels, hardware
        As for `Options`.

    Returns
    -------
    IntegerNetwork

    Raises
    ------
    UnsupportedModelError, RangeError
    """
    if not isinstance(model, Checkpoint):
        if input_shape is None:
            raise TypeError("convert needs input_shape, (C, H, W) or (N,), for a torch module")
        graph = model.graph_with_weights() if isinstance(model, GraphModel) else trace(model, input_shape)
        if graph.vocabulary is not None:
            input_range, input_scale = (0, graph.vocabulary - 1), 1.0
        model = Checkpoint(graph, InputSpec(input_shape, *input_range, input_scale))
    options = Options(weight_bits=weight_bits, per_channel=per_channel, levels=levels, hardware=hardware, verify=0)
    return convert_checkpoint(model, options).network


def convert_checkpoint(
    checkpoint: Checkpoint,
    options: Options,
    on_step: OnStep = lambda i, n, name: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Conversion:
    """Run the steps from a checkpoint to a verified integer network.

    Parameters
    ----------
    checkpoint : Checkpoint
    options : Options
    on_step : callable
        Called before each step with its number, how many there are, and its name.
    progress : callable
        Called with the share of the verification that is done.

    Returns
    -------
    Conversion
    """

    def announce(name: str) -> None:
        on_step(STEPS.index(name) + 1, len(STEPS), name)

    hardware = read_hardware(options.hardware)
    graph = checkpoint.graph if options.levels is None else with_levels(checkpoint.graph, options.levels)
    announce("fold")
    folded = fold(graph)
    announce("quantize")
    network, report = quantize(
        folded, checkpoint.input, hardware, weight_bits=options.weight_bits, per_channel=options.per_channel
    )
    schedule = network.schedule(options.mode, options.wake_steps, options.sleep_steps, options.max_burst)
    tried, samples = (schedule, options.verify) if options.verify is not None else affordable(network, schedule)
    if samples:
        announce("verify")
    verification = verify(network, folded, checkpoint, tried, samples, progress) if samples else None
    return Conversion(network, schedule, hardware, report, verification)


def export(
    path: str | Path,
    output: str | Path,
    options: Options,
    *,
    on_step: OnStep = lambda i, n, name: None,
    progress: Callable[[float], None] = lambda share: None,
    spec: InputSpec | None = None,
    allow_pickle: bool = False,
    store: Store | None = None,
) -> Conversion:
    """Convert the checkpoint at `path` and write the file `output`.

    Parameters
    ----------
    path : str or Path
    output : str or Path
    options : Options
    on_step, progress : callable
        As for `convert_checkpoint`.
    spec : InputSpec, optional
        As for `load_checkpoint`.
    allow_pickle : bool
        As for `load_checkpoint`.
    store : callable, optional
        Writes the conversion to a path and returns the network that it reads back from there; by default a network
        file.

    Returns
    -------
    Conversion
    """
    on_step(1, len(STEPS), "trace")
    checkpoint = load_checkpoint(path, allow_pickle=allow_pickle, spec=spec)
    conversion = convert_checkpoint(checkpoint, options, on_step, progress)
    if options.staircase:
        from lava_casc.loihi.staircase import check_staircase

        check_staircase(conversion.network, conversion.hardware)
    on_step(len(STEPS), len(STEPS), "write")
    with files.replacing(output, NetworkFileError) as temporary:
        if (store or _network_file)(temporary, conversion) != conversion.network:
            raise VerificationError(f"{output}: reading the file back does not give the network that was written")
    return conversion


def _network_file(path: Path, conversion: Conversion) -> IntegerNetwork:
    from lava_casc import netx  # h5py is needed here alone

    netx.write(path, conversion.network, conversion.schedule, hardware=conversion.hardware)
    return netx.read(path)


def with_levels(graph: Graph, levels: int) -> Graph:
    """Return `graph` with another number of levels in every CQReLU and CQRNN; the thresholds stay.

    Parameters
    ----------
    graph : Graph
    levels : int
        At least 1.

    Returns
    -------
    Graph
    """
    if levels < 1:
        raise CascError(f"levels ({levels}) must be at least 1.")
    changed = (
        replace(op, arguments={**op.arguments, "levels": levels}) if op.kind in ("CQReLU", "CQRNN") else op
        for op in graph.operations
    )
    return replace(graph, operations=tuple(changed))


def affordable(network: IntegerNetwork, schedule: WakeSleepSchedule) -> tuple[WakeSleepSchedule, int]:
    """Return how to verify a network within `VERIFY_BUDGET`: the schedule, and how many samples.

    In unary mode a layer computes in most steps, in graded mode about three times. Both prove the same of the network,
    so that one that is too large for a single unary sample is verified in graded mode.

    Parameters
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule

    Returns
    -------
    schedule : WakeSleepSchedule
    samples : int
    """
    macs = sum(
        synapse.weight[0].size * math.prod(network.shapes[layer.name])
        for layer in network.computed
        for synapse in getattr(layer, "synapses", ())
    )
    samples = VERIFY_BUDGET / macs / (3 if schedule.released else network.silence_bound(schedule) / 2)
    if samples < 1 and not schedule.released:
        return affordable(network, network.schedule("graded"))
    return schedule, int(min(max(samples, 1), VERIFY_SAMPLES))


def verify(
    network: IntegerNetwork,
    folded: FloatNetwork,
    checkpoint: Checkpoint,
    schedule: WakeSleepSchedule,
    samples: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Run spikes and the integer network on a few images and compare every count and every logit.

    Parameters
    ----------
    network : IntegerNetwork
    folded : FloatNetwork
        What it was made of.
    checkpoint : Checkpoint
    schedule : WakeSleepSchedule
    samples : int
    progress : callable
        Called with the share that is done.

    Returns
    -------
    Verification

    Raises
    ------
    VerificationError
        A certified sample differs from the integer network in any neuron.
    """
    images, source = _images(checkpoint, samples)
    truth = forward(network, images)
    record = simulate(network, images, schedule, progress=lambda done: progress(done / len(images)))
    sure = record.certified
    for name, counts in truth.counts.items():
        if not np.array_equal(counts[sure], record.counts[name][sure]):
            raise VerificationError(f"{name}: the counts of a certified run differ from the integer network's")
    if not np.array_equal(truth.logits[sure], record.logits[sure]):
        raise VerificationError("the logits of a certified run differ from the integer network's")
    real = evaluate(folded, torch.as_tensor(images, dtype=torch.float64) * checkpoint.input.scale)
    errors = tuple(
        _error(layer, real[layer.name].numpy(), truth.counts[layer.name])
        for layer in folded.layers
        if isinstance(layer, FloatNeurons)
    )
    phases = images.shape[1] if network.is_recurrent else 1
    outputs = [
        (real[name].numpy().reshape(len(images), -1), found.reshape(len(images), -1))
        for name, found in network.outputs(truth.logits, phases).items()
    ]
    same = sum(int((found.argmax(1) == wanted.argmax(1)).sum()) for wanted, found in outputs)
    return Verification(
        len(images),
        schedule.mode,
        source,
        int(sure.sum()),
        int(record.last_spike.max(initial=0)),
        errors,
        max(_relative(found - wanted, wanted) for wanted, found in outputs),
        same if len(network.shapes[network.readouts[0].name]) == len(network.readouts) == 1 else None,
    )


def layer_rows(conversion: Conversion) -> list[dict[str, Any]]:
    """Return one row a layer for tables and reports: shape, synapses, weight bits, thresholds, worst case, errors.

    Parameters
    ----------
    conversion : Conversion

    Returns
    -------
    list of dict
    """
    network = conversion.network
    quantized = {layer.name: asdict(layer) for layer in conversion.quantization.layers}
    errors = {error.name: asdict(error) for error in conversion.verification.errors} if conversion.verification else {}
    rows = []
    for layer in network:
        row: dict[str, Any] = {
            "name": layer.name,
            "type": type(layer).__name__,
            "shape": list(network.shapes[layer.name]),
        }
        row["synapses"] = [
            {
                "source": s.source,
                "type": type(s).__name__,
                "weight_shape": list(s.weight.shape),
                "exponent": s.exponent,
                **(
                    {
                        "stride": list(s.stride),
                        "padding": list(s.padding),
                        "dilation": list(s.dilation),
                        "groups": s.groups,
                    }
                    if hasattr(s, "stride")
                    else {}
                ),
            }
            for s in getattr(layer, "synapses", ())
        ]
        if isinstance(layer, Neurons):
            row["levels"] = layer.levels
        if isinstance(layer, MaxPool):
            row |= {"source": layer.source, "kernel": list(layer.kernel), "stride": list(layer.stride)}
        rows.append({**row, **quantized.get(layer.name, {}), **errors.get(layer.name, {})})
    return rows


def summary(conversion: Conversion) -> dict[str, Any]:
    """Return the conversion's report as plain data, for JSON.

    Parameters
    ----------
    conversion : Conversion

    Returns
    -------
    dict
    """
    network, schedule = conversion.network, conversion.schedule
    return {
        "lava_casc": lava_casc.__version__,
        "hardware": conversion.hardware.name,
        "input": {
            "shape": list(network.input.shape),
            "low": network.input.low,
            "high": network.input.high,
            "scale": network.input.scale,
            "bits_given_up": network.input.shift,
        },
        "schedule": {
            **asdict(schedule),
            "mode": schedule.mode,
            "period": schedule.period,
            "silence_bound": network.silence_bound(schedule),
        },
        "layers": layer_rows(conversion),
        "verification": None
        if conversion.verification is None
        else {k: v for k, v in asdict(conversion.verification).items() if k != "errors"},
    }


def write_json(path: str | Path, content: Any) -> None:
    """Write a report as JSON, whole or not at all.

    Parameters
    ----------
    path : str or Path
    content : object
        What JSON can say.
    """
    files.write_json(path, content, NetworkFileError)


def _images(checkpoint: Checkpoint, samples: int) -> tuple[NDArray[np.int64], str]:
    spec = checkpoint.input
    if checkpoint.examples is not None and len(checkpoint.examples):
        return checkpoint.examples[:samples].astype(np.int64), "examples"
    return np.random.default_rng(0).integers(spec.low, spec.high + 1, (samples, *spec.shape)), "random"


def _relative(error: NDArray, values: NDArray) -> float:
    power = float((values**2).mean())
    return float(np.sqrt((error**2).mean() / power)) if power else 0.0


def _error(layer: FloatNeurons, activation: NDArray, counts: NDArray) -> LayerError:
    difference = np.abs(counts - np.rint(activation * layer.levels / layer.threshold))
    return LayerError(layer.name, float((difference > 0).mean()), float(difference.mean()))
