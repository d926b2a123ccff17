"""CQRNN, the recurrent layer that spikes can compute exactly: an RNN cell with CQReLU in place of tanh."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from lava_casc.frontend.cqrelu import CQReLU


class CQRNN(nn.Module):
    r"""A recurrent layer over the phases (words, say) of a sequence.

    .. math::

        h_p = \operatorname{CQReLU}(W_{ih} x_p + b + W_{hh} h_{p-1}), \qquad h_0 = 0

    The activation is the one of CASC (arXiv 2406.05371), which replaces the tanh of an RNN by it. For several layers,
    put several modules behind each other.

    Parameters
    ----------
    input_size, hidden_size : int
        At least 1.
    levels, threshold, rounding, learnable, shift
        As for `CQReLU`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        levels: int,
        threshold: float | Sequence[float] | torch.Tensor = 1.0,
        rounding: str = "floor",
        learnable: bool = False,
        shift: float | Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, not {value!r}")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(hidden_size))
        self.activation = CQReLU(levels, threshold, rounding, learnable, shift)
        for parameter in (self.weight_ih, self.weight_hh, self.bias):  # as torch.nn.RNN
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)

    @property
    def levels(self) -> int:
        """The levels of the activation."""
        return self.activation.levels

    @property
    def rounding(self) -> str:
        """The rounding of the activation."""
        return self.activation.rounding

    @property
    def learnable(self) -> bool:
        """Whether the threshold of the activation is a parameter."""
        return self.activation.learnable

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the hidden states (N, P, hidden_size) of all phases of `x` (N, P, input_size).

        Parameters
        ----------
        x : (N, P, input_size) tensor

        Returns
        -------
        (N, P, hidden_size) tensor

        Raises
        ------
        ValueError
            `x` has another shape, or no phase.
        """
        if x.dim() != 3 or x.shape[2] != self.input_size or not x.shape[1]:
            raise ValueError(f"an input of shape {tuple(x.shape)} is not (N, P, {self.input_size}) with P at least 1")
        received = F.linear(x, self.weight_ih, self.bias)
        states = [self.activation(received[:, 0])]
        for phase in range(1, x.shape[1]):
            states.append(self.activation(received[:, phase] + F.linear(states[-1], self.weight_hh)))
        return torch.stack(states, 1)

    def received(self, x: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return what the activation is given, (N, P, hidden_size), where `states` are the hidden states.

        Parameters
        ----------
        x : (N, P, input_size) tensor
        states : (N, P, hidden_size) tensor

        Returns
        -------
        (N, P, hidden_size) tensor
        """
        before = F.pad(states, (0, 0, 1, -1))
        return F.linear(x, self.weight_ih, self.bias) + F.linear(before, self.weight_hh)

    def extra_repr(self) -> str:
        """Return the arguments for the module's repr that those of the activation do not show.

        Returns
        -------
        str
        """
        return f"{self.input_size}, {self.hidden_size}"
