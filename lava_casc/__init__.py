"""Take a PyTorch network trained with CQReLU to integers, a netx HDF5 file, and exact spikes on Lava, for Loihi 2.

The whole way in five calls::

    model = lava_casc.replace_relu(model, levels=8)          # then train it
    network = lava_casc.convert(model, input_shape=(1, 28, 28), input_range=(0, 255))
    lava_casc.write("model.net", network)
    record = lava_casc.simulate(network, images)             # NumPy and torch only
    record = lava_casc.loihi.run(network, images)            # needs Lava, so Python 3.10

`record.certified` says for every sample whether it ended in proven silence; then its logits equal those of the integer
network bit for bit.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `import lava_casc` stays quick and needs NumPy and torch alone.
_WHERE = {
    "CQReLU": "lava_casc.frontend",
    "CQRNN": "lava_casc.frontend",
    "InputSpec": "lava_casc.frontend",
    "Normalize": "lava_casc.frontend",
    "replace_relu": "lava_casc.frontend",
    "load_model": "lava_casc.frontend",
    "save_model": "lava_casc.frontend",
    "convert": "lava_casc.pipeline",
    "read": "lava_casc.netx",
    "write": "lava_casc.netx",
    "forward": "lava_casc.reference",
    "simulate": "lava_casc.reference",
    "IntegerNetwork": "lava_casc.network",
    "SpikeRecord": "lava_casc.record",
    "WakeSleepSchedule": "lava_casc.schedule",
    "CascError": "lava_casc.errors",
}
_MODULES = ("loihi",)

__all__ = [*_WHERE, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
