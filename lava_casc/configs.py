"""The TOML files in ``hw_configs``, and those of a user: found and read, not yet understood."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
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


def explained(problems: Sequence[Mapping[str, Any]], known: Callable[[Sequence[str]], Sequence[str]]) -> str:
    """Return in one line the first thing that is wrong in a file, with what was probably meant.

    Parameters
    ----------
    problems : sequence of mapping
        As pydantic's ``ValidationError.errors()`` has them.
    known : callable
        From the place of a key, its own name last, to the keys that may stand there.
    """
    # A misspelt key rather than what is missing for it.
    first = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    keys = known(place) if place else ()
    near = get_close_matches(place[-1], keys, 1) if place and place[-1] not in keys else []
    remedy = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(keys)}." if keys else "See hw_configs."
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {message}. {remedy}" if place else f"{message}. {remedy}"


def shipped(folder: str) -> dict[str, Path]:
    """Return the TOML files in a folder of hw_configs, of the installed package or the source tree, by name."""
    here = Path(__file__).resolve().parent
    for root in (here / "hw_configs", here.parent / "hw_configs"):
        if root.is_dir():
            return {path.stem: path for path in sorted((root / folder).glob("*.toml"))}
    return {}
