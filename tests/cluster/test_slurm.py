"""Submitting, watching, failing, cancelling and spreading out, on a real SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slurm_local import NODE, slurm

import lava_casc
from lava_casc.cluster import Host, Settings, cancel, collect, launch, look, make_folder, missing, open_folder, spread
from lava_casc.cluster import slurm as commands
from lava_casc.errors import ClusterError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(240)


def _wait(folder, until=lambda state: all(name in commands.ENDED for name in state.states.values()), seconds=90):
    end = time.monotonic() + seconds
    while not until(state := look(folder)):
        assert time.monotonic() < end, state
        time.sleep(0.3)
    return state


def _python(folder, text):
    """Return an interpreter that runs `text` first; the shell around sees the task as $2."""
    path = folder / "python"
    path.write_text(f'#!/bin/bash\n{text}\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lava_casc.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_partitions_are_read_as_they_are_printed(cluster):
    found = commands.partitions()
    assert {name: (p.is_up, p.nodes) for name, p in found.items()} == {
        "oheogulch": (True, (NODE,)), "kapohopoint": (True, (NODE,)),
    }  # fmt: skip
    commands.check_partition("oheogulch", NODE)
    with pytest.raises(ClusterError, match="nowhere: no such partition. There are: kapohopoint, oheogulch"):
        commands.check_partition("nowhere")
    with pytest.raises(ClusterError, match=f"x: no board of oheogulch. There are: {NODE}"):
        commands.check_partition("oheogulch", "x")


def test_a_partition_that_is_down_takes_nothing(cluster, digits, tmp_path):
    network, images = digits
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule())
    update = ["scontrol", "update", "PartitionName=kapohopoint"]
    subprocess.run([*update, "State=DOWN"], check=True, timeout=20)
    try:
        with pytest.raises(ClusterError, match="kapohopoint: the partition is down"):
            launch(folder, "sbatch", Host("kapohopoint"))
    finally:
        subprocess.run([*update, "State=UP"], check=True, timeout=20)
    with pytest.raises(ClusterError, match="nowhere: no such partition"):
        launch(folder, "sbatch", Host("nowhere"))
    assert look(folder) is None


def test_a_job_runs_and_its_name_is_a_name(cluster, digits, tmp_path):
    network, images = digits
    for name in ("a; touch pwned", "$(touch pwned) 'b' \"c\" %j", "-x"):
        folder = make_folder(tmp_path / name, network, images[:4], network.schedule())
        launch(folder, "sbatch", Host("oheogulch"))
        assert set(_wait(folder).states.values()) == {"COMPLETED"}
        record = collect(folder)
        assert record.certified.all()
        assert (record.logits == lava_casc.forward(network, images[:4]).logits).all()
        with pytest.raises(ClusterError, match="all of its tasks have results. Use lava-casc collect"):
            launch(folder, "sbatch", Host("oheogulch"))
    assert not list(tmp_path.rglob("pwned"))


def test_a_job_that_fails_says_so(cluster, digits, tmp_path):
    network, images = digits
    settings = Settings(python=_python(tmp_path, "echo no such luck; exit 7"))
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule(), 1, settings)
    launch(folder, "sbatch", Host("oheogulch"))
    assert _wait(folder).states == {0: "FAILED"}
    found = _casc("jobs", folder.path, cwd=tmp_path)
    assert "FAILED" in found.stdout
    assert "no such luck" in found.stdout
    with pytest.raises(ClusterError, match="1 of 1 tasks have no whole results"):
        collect(folder)


def test_a_job_that_ends_well_without_results_has_failed(cluster, digits, tmp_path):
    network, images = digits
    settings = Settings(python=_python(tmp_path, "exit 0"))
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule(), 1, settings)
    launch(folder, "sbatch", Host("oheogulch"))
    assert _wait(folder).states == {0: "FAILED"}


def test_a_job_is_cancelled(cluster, digits, tmp_path):
    network, images = digits
    settings = Settings(python=_python(tmp_path, "sleep 300"))
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule(), 1, settings)
    with pytest.raises(ClusterError, match="nothing of it was ever started"):
        cancel(folder)
    state = launch(folder, "sbatch", Host("oheogulch"))
    _wait(folder, lambda state: "RUNNING" in state.states.values())
    with pytest.raises(ClusterError, match=f"job {state.job} is not over yet"):
        launch(folder, "sbatch", Host("oheogulch"))
    found = _casc("cancel", folder.path, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert look(folder).states == {0: "CANCELLED"}
    end = time.monotonic() + 30
    while set(commands.states(state.job).values()) != {"CANCELLED"}:
        assert time.monotonic() < end
        time.sleep(0.3)
    with pytest.raises(ClusterError, match="is over already"):
        cancel(folder)


def test_a_job_that_slurm_has_forgotten_is_judged_by_what_it_left(cluster, digits, tmp_path):
    network, images = digits
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule())
    launch(folder, "sbatch", Host("oheogulch"))
    _wait(folder)
    path = folder.path / "state.json"
    state = json.loads(path.read_text())
    for results, name in ((True, "COMPLETED"), (False, "FAILED")):
        if not results:
            folder.part(0).unlink()
        path.write_text(json.dumps({**state, "job": "999999", "states": {"0": "RUNNING"}}))
        assert look(folder).states == {0: name}
    path.write_text("{")
    with pytest.raises(ClusterError, match="state.json: is damaged"):
        look(folder)


def test_an_array_of_eight_survives_a_task_that_is_killed(cluster, digits, tmp_path, monkeypatch):
    network, images = digits
    # The first time that task 3 runs it is killed half-way, with something half-written; task 5 writes nonsense.
    broken = (
        'if [ "$2" = 3 ] && [ ! -e once3 ]; then touch once3; echo half >.part-3.npz.tmp; kill -9 $$; fi\n'
        'if [ "$2" = 5 ] && [ ! -e once5 ]; then touch once5; echo nonsense >part-5.npz; exit 0; fi'
    )
    monkeypatch.setattr(sys, "executable", _python(tmp_path, broken).replace("'", ""))
    told, counted = [], []
    record = spread(
        tmp_path / "array", network, images, network.schedule(), tasks=8, partition="kapohopoint",
        progress=counted.append, tell=told.append,
    )  # fmt: skip
    assert (tmp_path / "array/once3").exists()
    assert (tmp_path / "array/once5").exists()
    assert told == ["round 2: 2 of 8 tasks left no whole results, again"]
    assert counted[-1] == 40
    expected = lava_casc.simulate(network, images)
    assert record.certified.all()
    assert (record.logits == expected.logits).all()
    assert (record.last_spike == expected.last_spike).all()
    # Again: nothing is missing, nothing runs.
    monkeypatch.setattr(commands, "run_sbatch", lambda command: pytest.fail("something was submitted"))
    again = spread(tmp_path / "array", network, images, network.schedule(), tasks=8)
    assert (again.logits == record.logits).all()
    with pytest.raises(ClusterError, match="is of another network, schedule, engine or data"):
        spread(tmp_path / "array", network, images[::-1], network.schedule(), tasks=8)


def test_only_what_is_missing_runs_again(cluster, digits, tmp_path):
    network, images = digits
    schedule = network.schedule("graded")
    spread(tmp_path / "array", network, images, schedule, tasks=4, partition="oheogulch")
    folder = open_folder(tmp_path / "array")
    kept = {task: folder.part(task).stat().st_mtime_ns for task in (0, 1, 3)}
    folder.part(2).unlink()
    spread(tmp_path / "array", network, images, schedule, tasks=4, partition="oheogulch")
    assert {task: folder.part(task).stat().st_mtime_ns for task in (0, 1, 3)} == kept
    assert look(folder).tasks == [2]
    assert missing(folder) == []


def test_a_task_that_always_fails_is_given_up_and_says_why(cluster, digits, tmp_path, monkeypatch):
    network, images = digits
    monkeypatch.setattr(sys, "executable", _python(tmp_path, 'if [ "$2" = 1 ]; then echo "out of luck"; exit 1; fi'))
    with pytest.raises(ClusterError, match="1 of 2 tasks failed 3 times; task 1 said: .*out of luck. Mend"):
        spread(tmp_path / "array", network, images[:4], network.schedule(), tasks=2, partition="oheogulch")


def test_a_run_on_this_host_has_the_variables_and_can_be_cancelled(digits, tmp_path):
    network, images = digits
    host = Host("oheogulch", "ncl-ext-og-04", "N3B3")
    python = _python(tmp_path, 'echo "$SLURM $PARTITION $BOARD $LOIHI_GEN ${PATH%%:*}"')
    settings = Settings("reference", host.environment, ("/nfs/a b",), python)
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule(), 1, settings)
    launch(folder, "env", host)
    assert _wait(folder).states == {0: "COMPLETED"}
    assert "1 oheogulch ncl-ext-og-04 N3B3 /nfs/a b" in (folder.path / "log-0.txt").read_text()
    assert collect(folder).certified.all()
    slow = Settings(python=_python(tmp_path, "sleep 300"))
    folder = make_folder(tmp_path / "slow", network, images[:2], network.schedule(), 1, slow)
    state = launch(folder, "env", host)
    assert look(folder).states == {0: "RUNNING"}
    cancel(folder)
    end = time.monotonic() + 20
    while Path(f"/proc/{state.job}").exists() and "sleep" in Path(f"/proc/{state.job}/cmdline").read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert look(folder).states == {0: "CANCELLED"}
    two = make_folder(tmp_path / "two", network, images[:2], network.schedule(), 2)
    with pytest.raises(ClusterError, match="2 tasks. --launcher env runs a single one"):
        launch(two, "env", host)


def test_the_commands_go_all_the_way(cluster, digits, tmp_path):
    network, images = digits
    lava_casc.write(tmp_path / "digits.net", network)
    np.save(tmp_path / "images.npy", images)
    submit = ("submit", "digits.net", "--images", "images.npy", "--launcher", "sbatch", "--partition", "oheogulch")
    submit = (*submit, "--engine", "reference", "--tasks", 2)
    found = _casc(*submit, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "Nothing was made and nothing was started" in found.stdout
    assert "sbatch --parsable" in found.stdout
    assert "export LOIHI_GEN=N3B3" in found.stdout
    assert not (tmp_path / "out").exists()
    found = _casc(*submit, "--no-dry-run", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    folder = open_folder(tmp_path / "out/jobs/digits")
    _wait(folder)
    rows = json.loads(_casc("jobs", "--json", cwd=tmp_path).stdout)
    assert [(row["task"], row["state"], row["samples"]) for row in rows] == [(0, "COMPLETED", 20), (1, "COMPLETED", 20)]
    found = _casc("collect", "out/jobs/digits", "-o", "back.npz", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert (
        "certified silent: 40 of 40 samples; logits that differ from the integer network computed here: 0 of 400"
        in (found.stdout)
    )
    with np.load(tmp_path / "back.npz") as back:
        assert (back["logits"] == lava_casc.forward(network, images).logits).all()
    found = _casc(*submit, "--no-dry-run", cwd=tmp_path)
    assert found.returncode == 2
    assert "exists already" in found.stderr
    folder.part(1).unlink()
    before = look(folder).job
    found = _casc(*submit, "--again", cwd=tmp_path)
    assert "--array=1" in found.stdout
    assert look(folder).job == before
    folder.part(1).write_bytes(b"half")
    rows = json.loads(_casc("jobs", "--json", cwd=tmp_path).stdout)
    assert [row["state"] for row in rows] == ["COMPLETED", "FAILED"]
    found = _casc(*submit, "--again", "--no-dry-run", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert _wait(folder).tasks == [1]
    assert missing(folder) == []
    # What could not be started leaves nothing behind.
    found = _casc(*submit[:-5], "nowhere", "--engine", "reference", "-o", "elsewhere", "--no-dry-run", cwd=tmp_path)
    assert found.returncode == 2
    assert "nowhere: no such partition" in found.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_data_set_is_evaluated_over_an_array(cluster, tmp_path):
    pytest.importorskip("sklearn")
    arguments = ("evaluate", ROOT / "tests/data/digits.pt", "--samples", 60, "-o", "result.json")
    found = _casc(*arguments, "--slurm", "array", "--tasks", 3, "--partition", "oheogulch", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    spread_out = json.loads((tmp_path / "result.json").read_text())
    assert _casc(*arguments, cwd=tmp_path).returncode == 0
    here = json.loads((tmp_path / "result.json").read_text())
    for key in ("scores", "certified_samples", "mismatched_outputs", "last_spike", "samples"):
        assert spread_out[key] == here[key]
    assert spread_out["certified_samples"] == 60
    assert len(list((tmp_path / "array").glob("part-*.npz"))) == 3


def test_where_there_is_no_slurm_that_is_what_is_said(digits, tmp_path, monkeypatch):
    network, images = digits
    folder = make_folder(tmp_path / "job", network, images[:2], network.schedule())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="sinfo: not found, so there is no SLURM here"):
        launch(folder, "sbatch", Host("oheogulch"))


def test_a_full_queue_is_an_error_and_no_job(digits, tmp_path, monkeypatch):
    network, images = digits
    monkeypatch.setattr(commands, "TIMEOUT", 6.0)
    with slurm(most=2) as environment:
        monkeypatch.setenv("PATH", environment["PATH"])
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        slow = Settings(python=_python(tmp_path, "sleep 60"))
        folders = [make_folder(tmp_path / str(i), network, images[:2], network.schedule(), 1, slow) for i in range(6)]
        kept = []

        def fill():
            for folder in folders:
                launch(folder, "sbatch", Host("oheogulch"))
                kept.append(folder)

        with pytest.raises(ClusterError, match="sbatch: .*queue"):
            fill()
        assert 0 < len(kept) < 6
        assert look(folders[len(kept)]) is None
        for each in kept:
            cancel(each)
