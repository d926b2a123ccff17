"""What ``model.pt`` is: a traced graph as plain data, loaded without running any code that the file brings along.

The file is torch.save of dictionaries, lists, numbers, strings and tensors, so that ``torch.load(weights_only=True)``
reads it. It carries the operations with their arguments and tensors, the shape and range of the input, and a few
example images; the Python class of the model is not needed to load it.
"""

from __future__ import annotations

import operator
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from lava_casc.errors import CheckpointError, first_line
from lava_casc.files import is_network, replacing
from lava_casc.frontend.trace import UNQUANTIZED, Graph, GraphModel, Operation, trace

#: Version 1 had one output, the value of the last operation; version 2 had neither ReLU nor thresholds and shifts of
#: channels. What needs no more than version 2 is written as such.
FORMAT, VERSION = "lava_casc.checkpoint", 3


@dataclass(frozen=True)
class InputSpec:
    """What the integers of an image mean to the model: it was trained on ``scale * integer``.

    The integers of a text are tokens and mean themselves: ``InputSpec((P,), 0, vocabulary - 1, 1)``.

    Attributes
    ----------
    shape : tuple of int
        (C, H, W) or (N,); (P,) for P tokens.
    low, high : int
        The range of the integers; it holds 0.
    scale : float
        Greater than 0, for example 1 / 255.
    """

    shape: tuple[int, ...]
    low: int = 0
    high: int = 255
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "shape", tuple(operator.index(n) for n in self.shape))
            for name in ("low", "high"):
                object.__setattr__(self, name, operator.index(getattr(self, name)))
            object.__setattr__(self, "scale", float(self.scale))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the input's shape and range must be integers, its scale a number ({error})."
            ) from error
        if len(self.shape) not in (1, 3) or min(self.shape) < 1:
            raise CheckpointError(
                f"the input shape {self.shape} is neither (C, H, W) nor (N,). Give the shape of one sample."
            )
        if not self.low <= 0 <= self.high or self.low == self.high:
            raise CheckpointError(f"the input range [{self.low}, {self.high}] must hold 0 and one more integer.")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise CheckpointError(f"the input scale ({self.scale}) must be greater than 0.")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint.

    Attributes
    ----------
    graph : Graph
    input : InputSpec
    examples : (n, ...) ndarray of integers, or None
        A few images to verify and to report quantization errors on.
    about : dict of str to str, int, float or bool
        Free notes: data set, accuracy, seed.
    """

    graph: Graph
    input: InputSpec
    examples: NDArray[np.integer] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.graph.input_shape != self.input.shape:
            raise CheckpointError(
                f"a model traced for {self.graph.input_shape} does not fit an input of shape {self.input.shape}."
            )
        vocabulary, spec = self.graph.vocabulary, self.input
        if vocabulary is not None and (spec.low, spec.high, spec.scale) != (0, vocabulary - 1, 1):
            raise CheckpointError(
                f"an input of {spec.low} to {spec.high} with scale {spec.scale:g} does not fit a vocabulary of "
                f"{vocabulary} tokens. Give InputSpec({spec.shape}, 0, {vocabulary - 1}, 1)."
            )
        if self.examples is not None:
            _check_examples(self.examples, self.input)

    @property
    def model(self) -> GraphModel:
        """The network as a new torch module, in evaluation."""
        return GraphModel(self.graph).eval()


def save_model(
    path: str | Path,
    model: nn.Module,
    spec: InputSpec,
    *,
    examples: ArrayLike | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Trace a model and write it as a checkpoint, under a temporary name first.

    Parameters
    ----------
    path : str or Path
    model : torch.nn.Module
        Of operations that `trace` knows.
    spec : InputSpec
    examples : (n, ...) array of integers, optional
    about : dict, optional

    Raises
    ------
    UnsupportedModelError
        The model holds an operation that cannot be converted.
    CheckpointError
        The path cannot be written, or the examples do not fit the input.
    """
    kept = None if examples is None else np.asarray(examples)
    checkpoint = Checkpoint(trace(model, spec.shape), spec, kept)
    wide = np.uint8 if kept is not None and kept.dtype == np.uint8 else np.int64
    content = {
        "format": FORMAT,
        "version": VERSION if any(map(_is_new, checkpoint.graph.operations)) else VERSION - 1,
        "input": asdict(spec),
        "operations": [asdict(op) for op in checkpoint.graph.operations],
        "outputs": list(checkpoint.graph.outputs),
        "output_names": list(checkpoint.graph.output_names),
        "examples": None if kept is None else torch.tensor(np.array(kept, wide)),
        "about": {str(key): _note(value) for key, value in (about or {}).items()},
    }
    with replacing(path, CheckpointError) as temporary:
        torch.save(content, temporary)


def _is_new(op: Operation) -> bool:
    """Whether no version before this one could say an operation."""
    names = [name.removeprefix("activation.") for name in op.tensors]
    by_channel = op.kind in ("CQReLU", "CQRNN") and any(
        name == "shift" or (name == "threshold" and tensor.dim())
        for name, tensor in zip(names, op.tensors.values(), strict=True)
    )
    return op.kind in UNQUANTIZED or by_channel


def load_model(path: str | Path, *, allow_pickle: bool = False) -> GraphModel:
    """Return the network of a checkpoint as a torch module that can be evaluated or trained on.

    Parameters
    ----------
    path : str or Path
    allow_pickle : bool
        As for `load_checkpoint`.

    Returns
    -------
    GraphModel

    Raises
    ------
    CheckpointError
        As for `load_checkpoint`.
    """
    return load_checkpoint(path, allow_pickle=allow_pickle).model


def load_checkpoint(path: str | Path, *, allow_pickle: bool = False, spec: InputSpec | None = None) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : str or Path
    allow_pickle : bool
        Also accept a pickled `nn.Module`. **Unpickling runs whatever code the file holds**: only for files from a
        source that you would run programs from. The module's classes must be importable.
    spec : InputSpec, optional
        The input of a pickled module, which the pickle itself does not know.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        The file is missing, damaged, a bare state dict, a pickle without `allow_pickle`, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}. Give the path of a checkpoint that "
            "`lava-casc train` or lava_casc.save_model wrote."
        )
    if is_network(path):
        raise CheckpointError(f"{path}: a network file, and no checkpoint. Give the checkpoint that it was made of.")
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path}: a TorchScript program. Save the torch.nn.Module that it was made of with lava_casc.save_model."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(path) and not _is_legacy(path):
            raise _damaged(path, error) from error
        if not allow_pickle:
            raise CheckpointError(
                f"{path}: a pickled Python object, and loading it would run code from the file. Save it with "
                "lava_casc.save_model(path, model, InputSpec(shape)), or pass --allow-pickle if you trust its source."
            ) from error
        return _load_pickle(path, spec)
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise _damaged(path, error) from error
    return _decode(path, content)


def _decode(path: Path, content: Any) -> Checkpoint:
    if isinstance(content, dict) and content and all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(
            f"{path}: a bare state dict, which does not say how its layers are connected. Load it into your model "
            "and save that with lava_casc.save_model(path, model, InputSpec(shape))."
        )
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a lava_casc checkpoint. Save the model with "
            "lava_casc.save_model(path, model, InputSpec(shape))."
        )
    version: Any = content.get("version")
    if version not in range(1, VERSION + 1):
        raise CheckpointError(
            f"{path}: checkpoint version {version}; this lava_casc reads 1 to {VERSION}. Update lava_casc."
        )
    try:
        spec = InputSpec(**content["input"])
        operations = tuple(_operation(**op) for op in content["operations"])
        outputs = _outputs(content["outputs"], content["output_names"]) if version > 1 else ()
        graph = Graph(operations, spec.shape, *outputs)
        with torch.no_grad():
            GraphModel(graph, own=False).eval()(graph.random_inputs(1, torch.Generator()))
        examples = None if content["examples"] is None else content["examples"].numpy()
        return Checkpoint(graph, spec, examples, dict(content["about"]))
    except Exception as error:  # made-up content makes torch raise almost anything
        raise _damaged(path, error) from error


def _operation(
    name: str, kind: str, path: str, inputs: tuple[str, ...], arguments: dict[str, Any], tensors: dict[str, Any]
) -> Operation:
    """Return an operation of a file, if its fields are of the right types."""
    for text in (name, kind, path, *inputs):
        if not isinstance(text, str):
            raise TypeError(f"a name is a string, not {text!r}")
    for key, value in arguments.items():
        allowed = str if key == "rounding" else int | float if key in ("eps", "min_val", "max_val") else int
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, allowed | None):
                raise TypeError(f"{name}: {key} cannot be {value!r}")
    return Operation(name, kind, path, tuple(inputs), dict(arguments), dict(tensors))


def _outputs(outputs: Any, names: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the outputs of a file and their names, if they are some and of the right types."""
    lists = isinstance(outputs, list) and isinstance(names, list)
    if not lists or not outputs or not all(isinstance(text, str) for text in (*outputs, *names)):
        raise TypeError(f"the outputs cannot be {outputs!r}, named {names!r}")
    return tuple(outputs), tuple(names)


def _load_pickle(path: Path, spec: InputSpec | None) -> Checkpoint:
    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs arbitrary code, which raises arbitrary errors
        raise CheckpointError(
            f"{path}: the pickle cannot be loaded ({type(error).__name__}: {error}). Make its classes importable."
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(
            f"{path}: the pickle holds a {type(model).__name__}, not a torch.nn.Module. Save the module itself."
        )
    if spec is None:
        raise CheckpointError(f"{path}: a pickled module does not know its input. Give --input-shape C,H,W.")
    return Checkpoint(trace(model, spec.shape), spec)


def _is_torchscript(path: Path) -> bool:
    """Whether torch.load would hand the file on to torch.jit.load, which reads programs."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # no zip file, or a damaged one; torch.load says what is wrong with it
        return False


def _is_legacy(path: Path) -> bool:
    """Whether torch wrote the file in its format before zip, which starts with a pickled magic number."""
    start = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    reason = type(error).__name__
    if not isinstance(error, pickle.UnpicklingError):  # of which torch says how to run whatever code the file holds
        reason += f": {first_line(error)}"
    return CheckpointError(f"{path}: damaged, or not a checkpoint ({reason}). Copy or save it again.")


def _check_examples(examples: NDArray, spec: InputSpec) -> None:
    if examples.dtype.kind not in "iu" or examples.shape[1:] != spec.shape:
        raise CheckpointError(
            f"examples of shape {examples.shape[1:]} and {examples.dtype} do not fit an integer input of shape "
            f"{spec.shape}."
        )
    if examples.size and not spec.low <= examples.min() <= examples.max() <= spec.high:
        raise CheckpointError(
            f"examples span [{examples.min()}, {examples.max()}], outside the input range [{spec.low}, {spec.high}]."
        )


def _note(value: Any) -> Any:
    """Return a number, string or bool as the plain type that a checkpoint may hold."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if type(value) in (str, int, float, bool, type(None)) else str(value)
