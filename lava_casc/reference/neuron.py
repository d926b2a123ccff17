"""One step of the CIF neuron, as a pure function on integers."""

from __future__ import annotations

import torch


def cif_step(
    potential: torch.Tensor,
    count: torch.Tensor,
    current: torch.Tensor,
    threshold: torch.Tensor,
    levels: int,
    max_burst: int = 1,
    released: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Advance consistent integrate-and-fire neurons by one step.

    The equations, with ``u`` the potential, ``y`` the spike count and ``g`` the burst limit::

        u      <- u + current
        target  = clip(u // threshold + y, 0, levels)
        s       = clip(target - y, -g, g)        (0 before the release)
        u      <- u - threshold * s
        y      <- y + s

    For ``g = 1`` this is ``s = +1 if u >= threshold and y < levels, -1 if u < 0 and y > 0, else 0``, the neuron of
    CASC (arXiv 2406.05371) with the cap that its results need. ``u + threshold * y`` changes by `current` alone.

    Parameters
    ----------
    potential, count, current, threshold : integer tensors that broadcast together
        `threshold` is at least 1, `count` lies in ``[0, levels]``.
    levels, max_burst : int
        At least 1.
    released : bool
        Whether the layer may speak in this step.

    Returns
    -------
    potential, count, spikes : tensors of the dtype of `potential`
        Signed spikes in ``[-max_burst, max_burst]``.
    """
    potential = potential + current
    if not released:
        return potential, count, torch.zeros_like(count)
    target = (torch.div(potential, threshold, rounding_mode="floor") + count).clamp(0, levels)
    spikes = (target - count).clamp(-max_burst, max_burst)
    return potential - threshold * spikes, count + spikes, spikes
