"""Where the file's axes differ from ours. Nothing else in the package turns an axis.

netx keeps shapes, strides, paddings and kernels in torch's order, (C, H, W) and (O, I, KH, KW), and turns
them itself while loading. The one exception is a bias of the layer's full shape, which it hands to the neuron
as it stands: that is in Lava's order, (W, H, C).
"""

from __future__ import annotations

from numpy.typing import NDArray


def bias_to_file(bias: NDArray) -> NDArray:
    """Return a bias (C,) or (C, H, W) as the file has it: (C,) or (W, H, C)."""
    return bias.transpose()


def bias_from_file(bias: NDArray) -> NDArray:
    """Return a bias of the file, (C,) or (W, H, C), as a network has it: (C,) or (C, H, W)."""
    return bias.transpose()
