"""The folder that holds all that a run needs: whole, checked, and of itself."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import lava_casc
from lava_casc.cluster import Settings, collect, make_folder, missing, open_folder, read_part
from lava_casc.cluster.folder import VERSION, digest, run_script
from lava_casc.cluster.merge import differences
from lava_casc.cluster.worker import work
from lava_casc.errors import ClusterError, RangeError


@pytest.fixture
def folder(digits, tmp_path):
    network, images = digits
    return make_folder(tmp_path / "job", network, images, network.schedule(), 3)


def test_the_folder_lists_every_file_with_its_checksum(digits, folder):
    network, images = digits
    files = {str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file()} - {"manifest.json"}
    assert files == set(folder.manifest)
    assert all(digest(folder.path / name) == wanted for name, wanted in folder.manifest.items())
    assert {"network.net", "inputs.npy", "job.json", "run.sh", "run.py", "requirements.txt"} < files
    assert {"src/lava_casc/cluster/worker.py", "src/lava_casc/hw_configs/template.toml"} < files
    assert folder.network() == network
    assert (folder.inputs() == images).all()
    assert [(task.start, task.stop) for task in folder.tasks] == [(0, 13), (13, 26), (26, 40)]
    assert folder.schedule == network.schedule()


def test_it_runs_by_itself_and_comes_back_certified_and_exact(digits, folder, tmp_path):
    network, images = digits
    elsewhere = tmp_path / "another place; with 'names'"
    shutil.move(folder.path, elsewhere)
    moved = open_folder(elsewhere)
    assert missing(moved) == [0, 1, 2]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for task in (0, 2):
        done = subprocess.run(
            ["bash", "run.sh", str(task)], cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert f"task {task}: 1" in done.stdout
    assert missing(moved) == [1]
    with pytest.raises(ClusterError, match=r"1 of 3 tasks have no whole results \(1\)"):
        collect(moved)
    done = subprocess.run(
        ["bash", "run.sh"],
        cwd=elsewhere,
        env={**environment, "SLURM_ARRAY_TASK_ID": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    record = collect(moved)
    assert record.certified.all()
    expected = lava_casc.simulate(network, images)
    assert (record.logits == expected.logits).all()
    assert (record.last_spike == expected.last_spike).all()
    assert differences(moved, record) == []
    # What ran is the copy in the folder, not what is installed.
    (elsewhere / "src/lava_casc/__init__.py").write_text("raise SystemExit('the copy')\n")
    done = subprocess.run(["bash", "run.sh", "0"], cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert "the copy" in done.stderr


def test_every_differing_logit_is_listed(digits, folder):
    for task in range(3):
        work(folder.path, task)
    record = collect(folder)
    record.logits[5, 3] += 2
    record.certified[5] = False
    (found,) = differences(folder, record)
    assert (found.sample, found.logit, found.found - found.wanted, found.certified) == (5, 3, 2, False)


def test_a_broken_result_is_no_result(folder):
    work(folder.path, 0)
    good = folder.part(0).read_bytes()
    assert read_part(folder, 0).certified.all()
    for bad in (good[:-40], good[: len(good) // 2], b"", b"text", good[:200] + bytes([good[200] ^ 1]) + good[201:]):
        folder.part(0).write_bytes(bad)
        assert read_part(folder, 0) is None
    folder.part(1).write_bytes(good)  # another task's
    assert read_part(folder, 1) is None
    with np.load(_at(folder, good)) as found:
        arrays = dict(found)
    for name, value in (("logits", arrays["logits"] + 1), ("certified", ~arrays["certified"]), ("last_spike", [1])):
        np.savez(folder.part(0), **{**arrays, name: value})
        assert read_part(folder, 0) is None
    facts = json.loads(arrays["facts"].tobytes())
    other = np.frombuffer(json.dumps({**facts, "identity": "x"}).encode(), np.uint8)
    np.savez(folder.part(0), **{**arrays, "facts": other})
    assert read_part(folder, 0) is None
    folder.part(0).write_bytes(good)
    assert read_part(folder, 0) is not None


def _at(folder, content):
    path = folder.path / "copy.npz"
    path.write_bytes(content)
    return path


def test_a_worker_that_is_stopped_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        work(folder.path, 0)
    assert not list(folder.path.glob("*part*"))
    with pytest.raises(ClusterError, match="has no task 3. Choose one from 0 to 2"):
        work(folder.path, 3)


@pytest.mark.parametrize("name", ["network.net", "inputs.npy", "run.sh", "src/lava_casc/record.py"])
def test_a_changed_folder_is_refused(folder, name):
    path = folder.path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ClusterError, match=f"{name} was changed. Make the folder again"):
        open_folder(folder.path)
    path.unlink()
    with pytest.raises(ClusterError, match=f"{name} is missing"):
        open_folder(folder.path)


def test_what_is_no_folder_is_refused(digits, folder, tmp_path):
    network, images = digits
    with pytest.raises(ClusterError, match="no folder of lava-casc submit"):
        open_folder(tmp_path)
    with pytest.raises(ClusterError, match="exists already. Choose another folder"):
        make_folder(folder.path, network, images, network.schedule())
    with pytest.raises(RangeError):
        make_folder(tmp_path / "new", network, images + 17, network.schedule())
    for name in ("a\\b", "a\nb"):
        with pytest.raises(ClusterError, match="holds a backslash or the end of a line"):
            make_folder(tmp_path / name, network, images, network.schedule())
    (tmp_path / "file").write_text("")
    with pytest.raises(ClusterError, match="cannot be made"):
        make_folder(tmp_path / "file/new", network, images, network.schedule())
    assert {path.name for path in tmp_path.iterdir()} == {"job", "file"}
    job = folder.path / "job.json"
    job.write_text(json.dumps({**json.loads(job.read_text()), "version": VERSION + 1}))
    with pytest.raises(ClusterError, match=rf"its version \({VERSION + 1}\) exceeds what is known \({VERSION}\)"):
        open_folder(folder.path)


def test_the_script_quotes_what_it_is_given():
    evil = "a; touch pwned $(touch pwned) 'quoted' \"too\""
    script = run_script(Settings("reference", {"PARTITION": evil, "SLURM": "1"}, (evil,), evil))
    words = [shlex.split(line) for line in script.splitlines() if line.startswith(("export PART", "export PATH"))]
    assert words[0] == ["export", f"PARTITION={evil}"]
    assert words[1] == ["export", f"PATH={evil}:$PATH"]
    assert f"exec {shlex.quote(evil)} run.py" in script
    assert f"exec {shlex.quote(sys.executable)} " in run_script(Settings())
