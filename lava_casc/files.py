"""Write a file in whole or not at all."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lava_casc.errors import CascError

#: What every network file starts with, whatever its version.
NETWORK = b"lava_casc network"


def is_network(path: Path) -> bool:
    """Return whether a file begins as those that `lava_casc.write` writes."""
    with path.open("rb") as file:
        return file.read(len(NETWORK)) == NETWORK


@contextmanager
def replacing(path: str | Path, error: type[CascError]) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to, which takes its name only once everything went well.

    Parameters
    ----------
    path : str or Path
        Whatever stands there stays as it is until the end, and if anything fails.
    error : type of CascError
        Raised, in one line, where the operating system refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            # Refused here, before any work, where the folder is missing or not writable.
            temporary.open("xb").close()
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise error(
            f"{path}: cannot be written ({reason}). Choose a writable folder that exists, with room left."
        ) from cause


def write_json(path: str | Path, content: Any, error: type[CascError]) -> None:
    """Write `content` as JSON in whole or not at all; `error` as for `replacing`."""
    with replacing(path, error) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
