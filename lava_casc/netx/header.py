"""The group ``/casc``: what the file is, and all that belongs to no single layer."""

from __future__ import annotations

import numpy as np

from lava_casc import __version__
from lava_casc.errors import NetworkFileError
from lava_casc.network import Input, IntegerNetwork, Tokens
from lava_casc.netx.parts import integers, under
from lava_casc.netx.section import Section
from lava_casc.netx.storage import REMEDY, Content
from lava_casc.schedule import WakeSleepSchedule

FORMAT = "lava_casc network"
#: The newest version of the format; `needed_version` says which one a file is of.
VERSION = 2
#: The group that tells our files from others.
HEAD = "casc"
_SCHEDULE = ("wake_steps", "sleep_steps", "max_burst", "released")
#: What `check_version` looks at, and who wrote the file: nothing that a network depends on.
OWN_LABELS = frozenset(f"{HEAD}@{name}" for name in ("format", "version", "lava_casc"))


def needed_version(network: IntegerNetwork) -> int:
    """Return the version of a network's file: the first one that can say it.

    So a network has one file, the same bytes whichever release wrote it, and older releases read all that they can.
    """
    novel = len(network.readouts) > 1 or network.is_recurrent or isinstance(network.input, Tokens)
    return 2 if novel else 1


def encode_header(network: IntegerNetwork, schedule: WakeSleepSchedule, hardware: str) -> Content:
    """Return the group ``/casc``."""
    entry = network.input
    steps: Content = {key: integers(int(getattr(schedule, key))) for key in _SCHEDULE}
    values: Content = {}
    if isinstance(entry, Input):
        values = {key: integers(getattr(entry, key)) for key in ("low", "high", "shift")}
        values["scale"] = np.asarray(entry.scale, "<f8")
    fields: Content = {
        "@format": FORMAT,
        "@version": needed_version(network),
        "@lava_casc": __version__,
        "@hardware": hardware,
    }
    return under(HEAD, fields | under("schedule", steps) | under("input", values))


def check_version(content: Content) -> int:
    """Return the version of a file, and refuse what this release cannot read.

    Parameters
    ----------
    content : Content
        At least the attributes of ``/casc``.

    Raises
    ------
    NetworkFileError
        Another format, or a version that does not exist yet.
    """
    if content.get(f"{HEAD}@format") != FORMAT:
        raise NetworkFileError(f"/{HEAD}@format is not {FORMAT!r}. {REMEDY}.")
    version = Section(dict(content), HEAD).number("version")
    if version > VERSION:
        raise NetworkFileError(
            f"has format version {version}, lava_casc {__version__} reads up to {VERSION}. Update lava_casc."
        )
    if version < 1:
        raise NetworkFileError(f"has format version {version}, and the first one is 1. {REMEDY}.")
    return version


def decode_schedule(section: Section) -> WakeSleepSchedule:
    """Take the group ``/casc/schedule``."""
    return WakeSleepSchedule(
        section.integer("wake_steps", 1),
        section.integer("sleep_steps", 0),
        section.integer("max_burst", 1),
        bool(section.integer("released", 0, 1)),
    )
