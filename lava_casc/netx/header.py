"""The group ``/casc``: what the file is, and all that belongs to no single layer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lava_casc import __version__
from lava_casc.errors import NetworkFileError
from lava_casc.network import Input
from lava_casc.netx.parts import integers, under
from lava_casc.netx.section import Section
from lava_casc.netx.storage import REMEDY, Content, digest
from lava_casc.schedule import WakeSleepSchedule

FORMAT = "lava_casc network"
VERSION = 1
#: The group that tells our files from others.
HEAD = "casc"
_SCHEDULE = ("wake_steps", "sleep_steps", "max_burst", "released")
#: Outside of the digest: itself, and who wrote the file.
_UNSIGNED = frozenset(f"{HEAD}@{name}" for name in ("lava_casc", "sha256"))
#: What `check_version` and `check_signature` look at, and nobody else does.
OWN_LABELS = _UNSIGNED | {f"{HEAD}@format", f"{HEAD}@version"}


def encode_header(entry: Input, schedule: WakeSleepSchedule, hardware: str) -> Content:
    """Return the group ``/casc`` without its signature."""
    steps: Content = {key: integers(int(getattr(schedule, key))) for key in _SCHEDULE}
    values: Content = {key: integers(getattr(entry, key)) for key in ("low", "high", "shift")}
    values["scale"] = np.asarray(entry.scale, "<f8")
    fields: Content = {
        "@format": FORMAT,
        "@version": VERSION,
        "@lava_casc": __version__,
        "@hardware": hardware,
    }
    return under(HEAD, fields | under("schedule", steps) | under("input", values))


def sign(content: Content) -> Content:
    """Return `content` with the digest of all that it says about the network."""
    return content | {f"{HEAD}@sha256": digest(_signed(content))}


def check_version(content: Content, groups: Iterable[str] = ()) -> int:
    """Return the version of a file, and refuse what this release cannot read.

    Parameters
    ----------
    content : Content
        At least the attributes of ``/casc``.
    groups : iterable of str
        What stands at the root of the file, to tell where it comes from.

    Raises
    ------
    NetworkFileError
        Another format, or a version that does not exist yet.
    """
    if content.get(f"{HEAD}@format") != FORMAT:
        foreign = "a netx file of another origin" if "layer" in groups else "another program's HDF5 file"
        raise NetworkFileError(f"has no /{HEAD}@format {FORMAT!r}: it is {foreign}. {REMEDY}.")
    version = Section(dict(content), HEAD).number("version")
    if version > VERSION:
        raise NetworkFileError(
            f"has format version {version}, lava_casc {__version__} reads up to {VERSION}. Update lava_casc."
        )
    if version < 1:
        raise NetworkFileError(f"has format version {version}, and the first one is 1. {REMEDY}.")
    return version


def check_signature(content: Content) -> None:
    """See that everything in `content` is what was once written.

    Raises
    ------
    NetworkFileError
        A value was altered after it was written.
    """
    head = Section(dict(content), HEAD)
    head.label("lava_casc")
    if head.label("sha256") != digest(_signed(content)):
        raise NetworkFileError(f"was altered after it was written: it does not match /{HEAD}@sha256. {REMEDY}.")


def _signed(content: Content) -> Content:
    return {key: value for key, value in content.items() if key not in _UNSIGNED}


def decode_schedule(section: Section) -> WakeSleepSchedule:
    """Take the group ``/casc/schedule``."""
    return WakeSleepSchedule(
        section.integer("wake_steps", 1),
        section.integer("sleep_steps", 0),
        section.integer("max_burst", 1),
        bool(section.integer("released", 0, 1)),
    )
