"""What a float model says of the integers that a network takes."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import nn

from lava_casc.frontend.checkpoint import InputSpec
from lava_casc.network import Input, Tokens

#: Samples that the model takes at a time.
BATCH = 32


def real_outputs(model: nn.Module, samples: NDArray, entry: Input | Tokens | InputSpec) -> list[NDArray]:
    """Return the model's outputs, each (N, ...), for samples (N, ...) of integers as `entry` has them.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation.
    samples : (N, ...) array of integers
    entry : Input, Tokens or InputSpec

    Returns
    -------
    list of (N, ...) ndarray
        One for each output of the model.
    """
    parts = []
    with torch.no_grad():
        for part in torch.tensor(samples).split(BATCH):
            found = model(part if isinstance(entry, Tokens) else part * entry.scale)
            parts.append(found if isinstance(found, tuple | list) else (found,))
    return [torch.cat(outputs).numpy() for outputs in zip(*parts, strict=True)]
