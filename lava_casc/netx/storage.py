"""A flat mapping of paths to arrays, in and out of HDF5: the only module of the package that knows h5py.

Reading hands out plain NumPy arrays and closes the file, so that no h5py object and no h5py error ever
leaves here. Writing makes the whole file in memory and puts it in place with one rename: no partial file is
ever seen.

Every file starts with a seal, in the block that HDF5 leaves to its users: a magic line and the SHA-256 of all that
follows. HDF5's own library crashes on some damaged files, taking Python with it; nothing is handed to it unsealed.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lava_casc.errors import NetworkFileError
from lava_casc.files import NETWORK, replacing

#: A SHA-256 in hexadecimal and a newline follow.
SEAL = NETWORK + b"\nsha256 "
SEAL_SIZE = 512  # the least user block that HDF5 allows
_SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: ``layer/0/weight`` is a dataset, ``layer/0@name`` an attribute of the group ``layer/0``.
Content = dict[str, "NDArray | str | int"]

Check = Callable[[Content], object]

#: Appended to whatever is wrong with a file that cannot be trusted.
REMEDY = "Export the network again, with lava-casc export or lava_casc.write"

#: No path of any version is longer than ``graph/layer/<i>/synapse/<k>/weight``.
_DEEPEST = 6


def load(path: str | os.PathLike[str], head: str, check: Check) -> Content:
    """Read every dataset and attribute of an HDF5 file into memory.

    Parameters
    ----------
    path : path
    head : str
        The group whose attributes tell our files from others.
    check : callable
        Called with these attributes (none where there is no such group) before anything else is read; raises
        where the file is not ours, or not of our time.

    Returns
    -------
    Content
        Datasets as arrays of the dtype that they have in the file, attributes as str or int.

    Raises
    ------
    NetworkFileError
        The file is missing, unreadable, empty, damaged, or not one of ours.
    """
    try:
        data = Path(path).read_bytes()
        check_seal(data)
        # From memory: HDF5 would want to lock the file, which not every file system of a cluster can.
        with h5py.File(io.BytesIO(data), "r") as file:
            return _load(file, len(data), head, check)
    except NetworkFileError as error:
        raise NetworkFileError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise NetworkFileError(f"{path}: no such network file. Write one with lava-casc export.") from error
    except IsADirectoryError as error:
        raise NetworkFileError(f"{path}: is a folder. Give the path of a network file.") from error
    except OSError as error:
        reason = error.strerror or "HDF5 does not understand it"
        raise NetworkFileError(f"{path}: cannot be read ({reason}). Check the path and its permissions.") from error
    except (RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py makes of types it does not know
        raise NetworkFileError(f"{path}: cannot be read ({error}). {REMEDY}.") from error


def image(content: Content) -> bytes:
    """Return `content` as the bytes of a sealed HDF5 file, the same bytes for the same content.

    Raises
    ------
    NetworkFileError
        A text cannot be kept in HDF5 (it holds a NUL, or is no Unicode).
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=SEAL_SIZE) as file:
        for key, value in content.items():
            where, is_attribute, name = key.partition("@")
            try:
                if is_attribute:
                    file.require_group(where).attrs[name] = value
                else:
                    file.create_dataset(where, data=value, track_times=False)
            except (ValueError, UnicodeError) as error:
                raise NetworkFileError(
                    f"/{key}: {value!r} cannot be written ({error}). Choose another name."
                ) from error
    return seal(buffer.getvalue())


def save(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path` in one step: whoever looks sees the old file, or the new one, whole.

    Raises
    ------
    NetworkFileError
        The folder is missing or not writable, `path` is no file or write-protected, or the disk is full.
    """
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    if target.exists() and not target.is_file():
        raise NetworkFileError(f"{path}: cannot be written, it is not a file. Choose another path.")
    if target.exists() and not os.access(target, os.W_OK):
        raise NetworkFileError(f"{path}: cannot be written, the file is write-protected. Choose another path.")
    with replacing(target, NetworkFileError) as temporary, temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def seal(data: bytes) -> bytes:
    """Return an HDF5 file with the digest of all that follows in its user block of `SEAL_SIZE` bytes."""
    body = memoryview(data)[SEAL_SIZE:]
    return b"".join((_block(body), body))


def check_seal(data: bytes) -> None:
    """See that a file is one of ours, and byte for byte what was once written.

    Raises
    ------
    NetworkFileError
        It is empty, foreign, damaged, cut short or altered.
    """
    if not data:
        raise NetworkFileError(f"the network file is empty. {REMEDY}.")
    if data.startswith(b"PK"):
        raise NetworkFileError("is a zip archive, as checkpoints are, and no network. Make one with lava-casc export.")
    if not data.startswith(SEAL):
        kind, nir = "no network", ""
        if data.startswith(_SIGNATURE):
            kind, nir = "an HDF5 file, but no network", "; a NIR graph is read by lava-casc import"
        raise NetworkFileError(f"is {kind} that lava_casc wrote: it does not start with {NETWORK!r}. {REMEDY}{nir}.")
    if data[:SEAL_SIZE] != _block(memoryview(data)[SEAL_SIZE:]):
        raise NetworkFileError(f"was damaged, cut short or altered: it does not match its SHA-256. {REMEDY}.")


def _block(body: memoryview) -> bytes:
    return (SEAL + hashlib.sha256(body).hexdigest().encode("ascii") + b"\n").ljust(SEAL_SIZE, b"\0")


def _load(file: h5py.File, size: int, head: str, check: Check) -> Content:
    check(_attributes(head, file[head]) if head in file else {})
    content: Content = {}
    left, seen = size, set()
    pending = [("", file["/"])]
    while pending:
        path, node = pending.pop()
        address = h5py.h5o.get_info(node.id).addr
        if address in seen or path.count("/") >= _DEEPEST:
            raise NetworkFileError(f"/{path} stands in the file twice or too deep. {REMEDY}.")
        seen.add(address)
        content.update(_attributes(path, node))
        if isinstance(node, h5py.Dataset):
            content[path] = _dataset(path, node, left)
            left -= node.nbytes
        elif isinstance(node, h5py.Group):
            if path and not len(node):
                raise NetworkFileError(f"/{path} is an empty group. {REMEDY}.")
            pending += [(f"{path}/{key}".lstrip("/"), _member(path, node, key)) for key in node]
        else:
            raise NetworkFileError(f"/{path} is neither a group nor a dataset. {REMEDY}.")
    return content


def _member(path: str, group: h5py.Group, key: str) -> h5py.HLObject:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise NetworkFileError(f"/{path}/{key} is a link to elsewhere. {REMEDY}.")
    return group[key]


def _attributes(path: str, node: h5py.HLObject) -> Content:
    found: Content = {}
    for name, value in node.attrs.items():
        if isinstance(value, np.integer):
            value = int(value)
        if not isinstance(value, str | int):
            raise NetworkFileError(f"/{path}@{name} is neither text nor an integer. {REMEDY}.")
        found[f"{path}@{name}"] = value
    return found


def _dataset(path: str, dataset: h5py.Dataset, left: int) -> NDArray:
    if dataset.shape is None or dataset.dtype.kind not in "iufS":
        raise NetworkFileError(f"/{path} has type {dataset.dtype}, which no network file holds. {REMEDY}.")
    # A claimed shape costs nothing to write; only what lies in the file, byte for byte, is worth allocating.
    if dataset.id.get_storage_size() != dataset.nbytes or dataset.nbytes > left or dataset.external:
        raise NetworkFileError(f"/{path} claims shape {dataset.shape}, but holds other data, or compressed. {REMEDY}.")
    return dataset[()] if dataset.shape else np.asarray(dataset[()], dataset.dtype)
