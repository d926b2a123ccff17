"""`lava-casc evaluate --method` as a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lava_casc.cli.methods import check_use
from lava_casc.errors import DataError

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests/data/digits.pt"


def _casc(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "150"}
    command = [sys.executable, "-m", "lava_casc.cli", "evaluate", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_a_table_of_all_methods_beside_ours(tmp_path):
    found = _casc(MODEL, "--method", "all", "--samples", 40, "--steps", 11, "-o", "out.json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["times"] == [1, 2, 4, 8]
    names = ["if-percentile", "qcfs", "opi", "snm", "srp", "calibrated", "parallel"]
    assert list(result["runs"]) == ["cif+wsc", "graded", *names]
    rows = {line.split("│")[1].strip(): line.split("│")[2:7] for line in found.stdout.splitlines() if "│" in line}
    for name in (*names, "cif+wsc", "graded"):
        run = result["runs"][name]
        assert [cell.strip() for cell in rows[name][:4]] == [f"{score[0]:.2%}" for score in run["scores"]]
        assert rows[name][4].strip() == ("40 of 40" if name in ("cif+wsc", "graded") else "none")
        assert all(low <= value <= high for value, low, high in run["scores"])
        assert ("paper" in run) == (name in names)
    assert result["certified"] == {**dict.fromkeys(names, 0), "cif+wsc": 40, "graded": 40}
    # At T = L = 8 and behind, the digits' parallel network is the integer network; graded has settled at once.
    assert result["runs"]["parallel"]["scores"][3] == result["integer"]
    assert result["runs"]["graded"]["scores"] == [result["integer"]] * 4
    assert "Which answers are the integer network's the methods do not say; cif+wsc does: certified" in found.stdout
    assert "calibrating thresholds and biases on 64 training samples" in found.stderr


def test_a_study_with_methods_and_its_page(tmp_path):
    pytest.importorskip("matplotlib")
    how = ("--study", "out", "--samples", 20, "--steps", 8, "--variants", "if", "--draw", "0")
    found = _casc(MODEL, "--method", "srp,qcfs", *how, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "of cif+wsc alone: qcfs, srp certify nothing" in found.stdout
    assert "calibrating" not in found.stderr
    data = json.loads((tmp_path / "out/study.json").read_text())
    assert data["version"] == 2
    assert list(data["runs"]) == ["if", "cif+wsc", "graded", "qcfs", "srp"]
    assert data["about"]["method srp"].endswith("(Hao et al., AAAI 2023, arXiv 2302.02091); certifies nothing")


@pytest.mark.parametrize(
    ("method", "how", "message"),
    [
        ("qcfs,lif", {}, "--method: 'lif' is not known. Use all, or any of if-percentile, qcfs, opi, snm, srp, cal"),
        ("", {}, "--method: '' is not known"),
        ("all", {"engine": "fused"}, "--method: runs in the reference simulator, and certifies nothing. Leave --eng"),
        ("all", {"certified": True}, "Leave --engine, --certified and --slurm out."),
        ("all", {"slurm": Path("here")}, "Leave --engine, --certified and --slurm out."),
    ],
)
def test_what_has_no_meaning_is_refused(method, how, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check_use(method, **{"engine": "reference", "certified": False, "slurm": None, **how})


def test_what_is_wrong_is_said_in_one_line_before_anything_is_done(tmp_path):
    found = _casc(tmp_path / "no.pt", "--method", "qcfs,lif", cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    (error,) = found.stderr.splitlines()
    assert error.startswith("error: --method: 'lif' is not known.")
    assert not list(tmp_path.iterdir())


def _interrupted(monkeypatch, capsys, *arguments):
    """Run the command here, 9 samples at a time, and interrupt it in the middle of the third time."""
    from lava_casc.cli import app
    from lava_casc.study import measuring

    right, calls = measuring._add_silence, []

    def interrupt(study, name, *rest):
        right(study, name, *rest)
        if name == "graded":  # the last run of a chunk that certifies
            calls.append(study.samples)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "CHUNK", 9)
    monkeypatch.setattr(measuring, "_add_silence", interrupt)
    with pytest.raises(SystemExit) as ended:
        app(["evaluate", str(MODEL), *map(str, arguments)], standalone_mode=False)
    assert ended.value.code == 130
    monkeypatch.undo()
    return capsys.readouterr()


def test_ctrl_c_keeps_the_samples_that_every_method_has_seen(tmp_path, monkeypatch, capsys):
    how = ("--method", "qcfs", "--steps", 8, "--json", "-o")
    shown = _interrupted(monkeypatch, capsys, "--samples", 40, *how, tmp_path / "cut.json")
    cut = json.loads(shown.out)
    assert "interrupted: this is of the first 18 of 40 samples" in shown.err
    assert (cut["samples"], cut["interrupted"], cut["certified"]["cif+wsc"]) == (18, True, 18)
    assert json.loads((tmp_path / "cut.json").read_text()) == cut
    whole = _casc(MODEL, "--samples", 18, *how, "whole.json", cwd=tmp_path)
    assert json.loads(whole.stdout) == {**cut, "interrupted": False}


def test_ctrl_c_says_where_a_study_is_kept(tmp_path, monkeypatch, capsys):
    shown = _interrupted(monkeypatch, capsys, "--samples", 40, "--study", tmp_path / "out", "--variants", "cif+wsc")
    kept = tmp_path / "out" / "progress.pt"
    assert f"interrupted: {kept} holds what was measured so far; the same command goes on" in shown.err
    assert kept.exists()
