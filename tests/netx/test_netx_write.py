"""A file is written whole or not at all, the same bytes each time, and never for a network that does not fit."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import subprocess
import sys
import time

import netx_networks as made
import numpy as np
import pytest

from lava_casc import files, netx
from lava_casc.errors import NetworkFileError, RangeError
from lava_casc.hardware import read_hardware
from lava_casc.network import IntegerNetwork
from lava_casc.schedule import WakeSleepSchedule


@pytest.mark.parametrize("make", made.KINDS)
def test_same_network_gives_the_same_bytes(tmp_path, make):
    netx.write(tmp_path / "a.net", make())
    time.sleep(1.1)  # HDF5 keeps times in seconds
    netx.write(tmp_path / "b.net", make())
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


def test_same_bytes_in_another_process_and_under_another_name(tmp_path):
    netx.write(tmp_path / "a.net", made.sequential())
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; import netx_networks, lava_casc.netx\n"
        "lava_casc.netx.write(sys.argv[1], netx_networks.sequential())"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "other.h5", *sys.path], check=True, timeout=120)
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_another_network_gives_other_bytes(tmp_path):
    for seed in range(2):
        netx.write(tmp_path / f"{seed}.net", made.sequential(seed))
    assert (tmp_path / "0.net").read_bytes() != (tmp_path / "1.net").read_bytes()


def test_an_existing_file_is_replaced_through_a_link(tmp_path):
    netx.write(tmp_path / "a.net", made.sequential(0))
    (tmp_path / "link.net").symlink_to("a.net")
    netx.write(tmp_path / "link.net", made.sequential(1))
    assert (tmp_path / "link.net").is_symlink()
    assert netx.read(tmp_path / "a.net") == made.sequential(1)


def test_the_users_umask_decides_who_may_read(tmp_path):
    old = os.umask(0o027)
    try:
        netx.write(tmp_path / "a.net", made.sequential())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.net").stat().st_mode) == 0o640


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    netx.write(tmp_path / "a.net", made.sequential(0))
    before = (tmp_path / "a.net").read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"write": (os, "fsync", full), "replace": (files.Path, "replace", full)}[failing])
    with pytest.raises(NetworkFileError, match=r"a\.net: cannot be written \(No space left on device\)"):
        netx.write(tmp_path / "a.net", made.sequential(1))
    monkeypatch.undo()
    assert (tmp_path / "a.net").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.net"]


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        netx.write(tmp_path / "a.net", made.sequential())
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path):
    with pytest.raises(NetworkFileError, match=r"a\.net: cannot be written .*\. Choose a writable folder"):
        netx.write(tmp_path / "no" / "a.net", made.sequential())


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(NetworkFileError, match="cannot be written, it is not a file. Choose another path"):
        netx.write(tmp_path, made.sequential())


def test_a_write_protected_file_stays(tmp_path, monkeypatch):
    netx.write(tmp_path / "a.net", made.sequential(0))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(NetworkFileError, match="cannot be written, the file is write-protected"):
        netx.write(tmp_path / "a.net", made.sequential(1))
    assert netx.read(tmp_path / "a.net") == made.sequential(0)


def test_a_network_that_leaves_its_registers_is_refused_before_the_disk_is_touched(tmp_path):
    small = read_hardware().with_registers(
        name="small", state_bits=10, weight_bits=8, weight_exponent_max=7, message_bits=24
    )
    with pytest.raises(RangeError, match="wide: worst-case potential .* exceeds the 10 signed bits of small"):
        netx.write(tmp_path / "no" / "a.net", made.sequential(), hardware=small)
    assert not list(tmp_path.iterdir())


def test_the_default_target_is_checked_too(tmp_path):
    network = made.sequential()
    layers = [network.input, dataclasses.replace(network.layers[1], threshold=np.full(4, 2**23)), *network.layers[2:]]
    with pytest.raises(RangeError, match="threshold .8388608. exceeds the 24 signed bits of loihi2"):
        netx.write(tmp_path / "a.net", IntegerNetwork(layers))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layer", "change", "match"),
    [
        (1, {"name": "a\0b"}, "NULL|null|Choose another name"),
        (1, {"levels": 2**40}, "does not fit the 32 bits"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path, monkeypatch, layer, change, match):
    monkeypatch.setattr("lava_casc.ranges.check_ranges", lambda *_: None)
    network = made.sequential()
    layers = list(network.layers)
    if "name" in change:
        source = dataclasses.replace(layers[2].synapses[0], source=change["name"])
        layers[2] = dataclasses.replace(layers[2], synapses=(source,))
    layers[layer] = dataclasses.replace(layers[layer], **change)
    with pytest.raises(NetworkFileError, match=match):
        netx.write(tmp_path / "a.net", IntegerNetwork(layers))
    assert not list(tmp_path.iterdir())


def test_what_would_be_read_differently_is_refused(tmp_path):
    network = made.sequential()
    synapse = dataclasses.replace(network.layers[1].synapses[0], stride=[2, 1])
    layers = [network.input, dataclasses.replace(network.layers[1], synapses=(synapse,)), *network.layers[2:]]
    with pytest.raises(NetworkFileError, match="wide cannot be written exactly"):
        netx.write(tmp_path / "a.net", IntegerNetwork(layers))


def test_a_schedule_beyond_32_bits_is_refused(tmp_path):
    with pytest.raises(NetworkFileError, match="cannot be written: 1099511627776 does not fit the 32 bits"):
        netx.write(tmp_path / "a.net", made.sequential(), WakeSleepSchedule(1, 2**40))


def test_the_package_needs_neither_torch_nor_lava_to_read(tmp_path):
    netx.write(tmp_path / "a.net", made.recurrent())
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; import lava_casc\n"
        "lava_casc.read(sys.argv[1])\n"
        "assert not {'torch', 'lava', 'pydantic', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.net", *sys.path], check=True, timeout=60)
