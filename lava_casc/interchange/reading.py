"""The one door for foreign networks, by the suffix of their file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lava_casc.errors import CheckpointError
from lava_casc.frontend import GraphModel, InputSpec
from lava_casc.interchange.common import existing
from lava_casc.interchange.onnx_file import read_onnx
from lava_casc.interchange.program import read_program

_READERS = {".onnx": read_onnx, ".pt2": read_program}


def import_model(
    path: str | Path, shape: Sequence[int] | None = None, *, low: int = 0, high: int = 255, scale: float = 1 / 255
) -> tuple[GraphModel, InputSpec]:
    r"""Read an ONNX file (``.onnx``) or a torch.export program (``.pt2``), for `lava_casc.save_model`.

    Parameters
    ----------
    path : str or Path
    shape : sequence of int, optional
        (C, H, W) or (N,) of one sample; needed where the file leaves it open.
    low, high : int
        The range of the integers of an image; it holds 0.
    scale : float
        The network was trained on ``scale * integer``.

    Returns
    -------
    model : GraphModel
        Computes (N, \*shape) -> outputs, as the file does: compared on random images.
    spec : InputSpec

    Raises
    ------
    CheckpointError
        The file is missing, damaged or of another kind, or the shape does not fit.
    UnsupportedModelError
        It holds what cannot be converted, named by node and operation.
    MissingDependencyError
        The library that reads it is not installed.
    """
    path = existing(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(
            f"{path}: neither an ONNX file (.onnx) nor a torch.export program (.pt2). A NIR graph is read with "
            "lava_casc.interchange.read_nir, a torch module saved with lava_casc.save_model."
        )
    return reader(path, shape, low=low, high=high, scale=scale)
