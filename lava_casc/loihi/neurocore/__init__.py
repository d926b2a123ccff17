"""CIF on Loihi 2 neurocores, along the public pattern of custom neurons. Never run on a chip.

Intel's extension of Lava (lava-loihi) and the microcode of the neuron are not public. This package is loaded without
either; `neurocore_models` needs both. What the microcode has to do is specified in docs/microcode.md, and tested by
an interpreter. See there for what is known, what is assumed and what nobody has tried.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lava_casc.errors import HardwareConfigError, MissingDependencyError
from lava_casc.loihi import require_lava

__all__ = ["UCODE", "is_installed", "microcode", "neurocore_models"]

#: The environment variable that names the microcode file.
UCODE = "LAVA_CASC_UCODE"
_EXTENSION = "lava.magma.core.model.nc"
_PARTS = ("model", "net", "ports", "type", "var")


def is_installed() -> bool:
    """Return whether Intel's extension has the modules that the neurocore model is made from; this imports Lava."""
    require_lava()
    if importlib.util.find_spec(_EXTENSION) is None:
        return False
    return all(importlib.util.find_spec(f"{_EXTENSION}.{part}") is not None for part in _PARTS)


def microcode(path: str | Path | None = None) -> Path:
    """Return the microcode file, made sure to be readable.

    Parameters
    ----------
    path : str or Path, optional
        By default what the environment variable LAVA_CASC_UCODE names.

    Raises
    ------
    HardwareConfigError
        No file is named, or it cannot be read, or it is empty.
    """
    named = path if path is not None else os.environ.get(UCODE)
    origin = "the microcode file" if path is not None else UCODE
    remedy = "Assemble it from docs/microcode.md, with Intel's tools."
    if not named:
        raise HardwareConfigError(f"{UCODE}: no microcode file is named. Set it to the neuron's. {remedy}")
    found = Path(named).expanduser().absolute()
    try:
        with found.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise HardwareConfigError(f"{found}: {origin} cannot be read ({error.strerror}). {remedy}") from error
    if empty:
        raise HardwareConfigError(f"{found}: {origin} is empty. {remedy}")
    return found


def neurocore_models(ucode: str | Path | None = None) -> dict[type, type]:
    """Return the neurocore model of CIF, for the run configuration of a host with a Loihi 2. Never run on a chip.

    ``Loihi2HwCfg(exception_proc_model_map=neurocore_models("cif.bin"))``

    Parameters
    ----------
    ucode : str or Path, optional
        The microcode of the neuron; by default what LAVA_CASC_UCODE names.

    Raises
    ------
    MissingDependencyError
        Intel's extension is not installed.
    HardwareConfigError
        The microcode is missing.
    """
    if not is_installed():
        raise MissingDependencyError(
            "Neurocores need Intel's extension of Lava (lava-loihi), which is not installed. "
            "Intel gives it to members of its research community (INRC)."
        )
    path = microcode(ucode)
    from lava_casc.loihi.cif import CIF
    from lava_casc.loihi.neurocore.models import NcCIF

    return {CIF: type(NcCIF.__name__, (NcCIF,), {"ucode": path, "__module__": NcCIF.__module__})}
