"""Networks as spikes on Lava's CPU simulator, in the fixed point of Loihi 2; nothing of it ran on a chip.

The only place that imports Lava, and only when something of it is used: the package itself loads without.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import sys
from typing import Any

from lava_casc.errors import MissingDependencyError

_WHERE = {
    "CIF": "lava_casc.loihi.cif",
    "CIFMaxPool": "lava_casc.loihi.max_pool",
    "SpikingNetwork": "lava_casc.loihi.network",
    "WakeSleepController": "lava_casc.loihi.controller",
    "register_netx": "lava_casc.loihi.netx",
    "fast_models": "lava_casc.loihi.runner",
    "run": "lava_casc.loihi.runner",
}

__all__ = [*_WHERE]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_lava()
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def require_lava() -> None:
    """Make sure that Lava can be imported, or say how to get it."""
    if "lava.magma" in sys.modules:
        return
    if importlib.util.find_spec("lava") is None or importlib.util.find_spec("lava.magma") is None:
        raise MissingDependencyError(
            f"This needs Lava, which is not installed. Lava 0.10 runs on Python 3.10 alone (this is "
            f"{sys.version_info.major}.{sys.version_info.minor}). There: "
            'pip install "lava-casc[lava]".'
        )
    # Lava sets the start method when it is imported, and fails where something else, be it a torch
    # DataLoader, has used multiprocessing before. Forgetting the choice lets Lava choose: it chooses `fork`,
    # which is Linux' default.
    multiprocessing.set_start_method(None, force=True)
