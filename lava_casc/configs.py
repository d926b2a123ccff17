"""The TOML files in ``hw_configs``, and those of a user: found and read, not yet understood."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lava_casc.errors import HardwareConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises
    ------
    HardwareConfigError
        It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HardwareConfigError(
            f"{path}: not a readable TOML file ({error}). Start from one in hw_configs."
        ) from error


def shipped(folder: str) -> dict[str, Path]:
    """Return the TOML files in a folder of hw_configs, of the installed package or the source tree, by name."""
    here = Path(__file__).resolve().parent
    for root in (here / "hw_configs", here.parent / "hw_configs"):
        if root.is_dir():
            return {path.stem: path for path in sorted((root / folder).glob("*.toml"))}
    return {}
