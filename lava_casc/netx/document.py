"""A whole network file: `write` and `read`, and the pure functions between a network and a file's content."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lava_casc.errors import InvalidNetworkError, NetworkFileError, RangeError
from lava_casc.network import IntegerNetwork
from lava_casc.netx import graph, sequential
from lava_casc.netx.header import (
    HEAD,
    OWN_LABELS,
    check_version,
    decode_schedule,
    encode_header,
    needed_version,
)
from lava_casc.netx.section import Section
from lava_casc.netx.storage import REMEDY, Content, image, load, save
from lava_casc.schedule import WakeSleepSchedule

if TYPE_CHECKING:
    from lava_casc.hardware import Hardware


@dataclass(frozen=True)
class NetworkFile:
    """All that a network file says.

    Attributes
    ----------
    network : IntegerNetwork
    schedule : WakeSleepSchedule
        The one that the network was exported with; any other may be used instead.
    version : int
        Of the format: the first one that can say the network.
    hardware : str
        Name of the target whose limits the network was checked against.
    """

    network: IntegerNetwork
    schedule: WakeSleepSchedule
    version: int
    hardware: str


def write(
    path: str | os.PathLike[str],
    network: IntegerNetwork,
    schedule: WakeSleepSchedule | None = None,
    *,
    hardware: Hardware | None = None,
) -> None:
    """Write a network to an HDF5 file. The same network gives the same bytes.

    Parameters
    ----------
    path : path
        An existing file is replaced in one step, or stays as it was.
    network : IntegerNetwork
    schedule : WakeSleepSchedule, optional
        By default ``network.schedule()``.
    hardware : Hardware, optional
        The target that must be able to hold the network, by default ``read_hardware()``.

    Raises
    ------
    RangeError
        A register of the target might not hold the network. Nothing was written.
    NetworkFileError
        The file cannot be written. Nothing was.
    """
    # The proof needs torch; reading does not, nor does whoever only reads.
    from lava_casc.hardware import read_hardware
    from lava_casc.ranges import check_ranges

    hardware = read_hardware() if hardware is None else hardware
    schedule = network.schedule() if schedule is None else schedule
    check_ranges(network, hardware)
    try:
        content = encode(network, schedule, hardware.name)
        found = decode(content)
        data = image(content)
    except NetworkFileError as error:
        raise NetworkFileError(f"{path}: cannot be written: {error}") from error
    # Whatever the network holds that the format cannot say must not be lost in silence.
    if found.network != network or found.schedule != schedule:
        differs = [a.name for a, b in zip(network, found.network, strict=False) if a != b] or ["the schedule"]
        raise NetworkFileError(f"{path}: {differs[0]} cannot be written exactly. Use plain integers and tuples in it.")
    save(path, data)


def read(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Read the network of a file that `write` made: equal to what was written, name by name, bit by bit.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    IntegerNetwork

    Raises
    ------
    NetworkFileError
        The file is missing, damaged, altered, foreign, or of a newer version.
    """
    return read_file(path).network


def read_file(path: str | os.PathLike[str]) -> NetworkFile:
    """Read a network with its schedule, its format version and the target that it was checked against.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    NetworkFile

    Raises
    ------
    NetworkFileError
        As `read`.
    """
    content = load(path, HEAD, check_version)
    try:
        return decode(content)
    except NetworkFileError as error:
        raise NetworkFileError(f"{path}: {error}") from error


def encode(network: IntegerNetwork, schedule: WakeSleepSchedule, hardware: str) -> Content:
    """Return the flat content of the file of a network."""
    body = sequential.encode(network) if sequential.fits(network) else graph.encode(network)
    return encode_header(network, schedule, hardware) | body


def decode(content: Content) -> NetworkFile:
    """Return what `content` says.

    Raises
    ------
    NetworkFileError
        Anything in it is missing, wrong, contradictory or unknown.
    """
    version = check_version(content)
    left = {key: value for key, value in content.items() if key not in OWN_LABELS}
    head = Section(left, HEAD)
    hardware, schedule = head.label("hardware"), decode_schedule(head.section("schedule"))
    form = graph if any(key.startswith(f"{graph.ROOT}/") for key in left) else sequential
    try:
        chain = form.decode(left)
        network = IntegerNetwork(tuple(chain.layers))
    except (InvalidNetworkError, RangeError) as error:
        raise NetworkFileError(f"its layers do not fit together: {error}. {REMEDY}.") from error
    for name, shape in chain.shapes.items():
        found = network.shapes[name]
        if shape != found:
            raise NetworkFileError(f"layer {name} claims shape {shape}, but its source gives {found}. {REMEDY}.")
    head.finish()
    if version != (needed := needed_version(network)):
        raise NetworkFileError(f"/{HEAD}@version is {version}, but its network is one of version {needed}. {REMEDY}.")
    return NetworkFile(network, schedule, version, hardware)
