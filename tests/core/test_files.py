"""A file is written in whole or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from lava_casc.errors import CascError, NetworkFileError
from lava_casc.files import replacing


def _write(path, text="new"):
    with replacing(path, NetworkFileError) as temporary:
        temporary.write_text(text)


def _fail(path, failure):
    with replacing(path, NetworkFileError) as temporary:
        temporary.write_text("half")
        raise failure


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_a_new_file_is_written(tmp_path, as_type):
    _write(as_type(tmp_path / "a.net"))
    assert (tmp_path / "a.net").read_text() == "new"
    assert _names(tmp_path) == ["a.net"]


def test_an_old_file_stays_until_the_end_and_is_replaced(tmp_path):
    path = tmp_path / "a.net"
    path.write_text("old")
    with replacing(path, NetworkFileError) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["a.net"]


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), CascError("mine")])
@pytest.mark.parametrize("existed", [True, False])
def test_any_failure_leaves_everything_as_it_was(tmp_path, failure, existed):
    path = tmp_path / "a.net"
    if existed:
        path.write_text("old")
    with pytest.raises(type(failure)) as raised:
        _fail(path, failure)
    assert raised.value is failure
    assert _names(tmp_path) == ["a.net"] * existed
    assert not existed or path.read_text() == "old"


def test_a_refusal_of_the_operating_system_is_one_line(tmp_path):
    path = tmp_path / "a.net"
    path.write_text("old")
    with pytest.raises(NetworkFileError, match=r"a.net: cannot be written \(No space left on device\). Choose a "):
        _fail(path, OSError(28, "No space left on device"))
    with pytest.raises(NetworkFileError, match=r"a.net: cannot be written \(unable to write\)"):
        _fail(path, OSError("unable to write"))
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.net"]


def test_a_missing_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(NetworkFileError, match=r"nowhere/a.net: cannot be written \(No such file or directory\)"):
        _fail(tmp_path / "nowhere" / "a.net", AssertionError("the work was begun"))
    assert _names(tmp_path) == []


def test_a_folder_in_the_way_is_refused(tmp_path):
    (tmp_path / "a.net").mkdir()
    with pytest.raises(NetworkFileError, match=r"a.net: cannot be written \(Is a directory\)"):
        _write(tmp_path / "a.net")
    assert _names(tmp_path) == ["a.net"]


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NetworkFileError, match=r"cannot be written \(Not a directory\)"):
        _write(tmp_path / "file" / "a.net")


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NetworkFileError, match=r"cannot be written \(Permission denied\)"):
            _write(tmp_path / "a.net")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        _write(tmp_path / "a.net")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.net").stat().st_mode) == mode


def test_two_files_of_one_folder_are_written_at_once(tmp_path):
    with replacing(tmp_path / "a", CascError) as a, replacing(tmp_path / "b", CascError) as b:
        a.write_text("a")
        b.write_text("b")
    assert (_names(tmp_path), (tmp_path / "b").read_text()) == (["a", "b"], "b")
