"""Models in a line, for the tests of this folder."""

from __future__ import annotations

import torch
from torch import nn


class Model(nn.Module):
    """A module whose forward is given as a function of itself and x."""

    def __init__(self, run, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        # torch.fx reads the forward of the class, so that each model needs a class of its own.
        self.__class__ = type("Model", (Model,), {"forward": run})


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm random statistics and factors; return the model in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            n = module.num_features
            module.running_mean = torch.randn(n, generator=generator) * 0.3
            module.running_var = torch.rand(n, generator=generator) + 0.2
            if module.affine:
                module.weight.data = torch.randn(n, generator=generator)
                module.bias.data = torch.randn(n, generator=generator) * 0.3
    return model.eval()


def kinds(graph) -> list[str]:
    """Return the kinds of a graph's operations, the input aside."""
    return [op.kind for op in graph.operations[1:]]


__all__ = ["Model", "kinds", "randomize"]
