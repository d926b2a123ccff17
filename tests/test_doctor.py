"""`doctor` tells the truth about what is there, hangs for nothing and survives whatever is absent."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lava_casc import doctor

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = [
    "lava_casc",
    "system",
    "Python",
    *(package.name for package in doctor.PACKAGES),
    *("other packages", "environment", "lava-loihi", "SLURM", "CUDA", "CPU", "Loihi chip"),
]

# What the doctor says in an interpreter where the modules of argv[1:] cannot be imported.
BLOCKED = """
import json, sys
from dataclasses import asdict
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from lava_casc.doctor import diagnose
checks = [asdict(check) for check in diagnose()]
assert not [name for name in sys.modules if name.startswith("lava.")], "Lava was imported"
print(json.dumps(checks))
"""


def diagnose(**arguments):
    return {check.name: check for check in doctor.diagnose(**arguments)}


def diagnose_without(*modules):
    command = [sys.executable, "-W", "error", "-c", BLOCKED, *modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {check["name"]: check for check in json.loads(done.stdout)}


@pytest.fixture
def sinfo(tmp_path, monkeypatch):
    """Return a function that puts a script called sinfo on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(script):
        path = tmp_path / "sinfo"
        path.write_text(script)
        path.chmod(0o755)

    return write


def test_every_check_is_complete_and_fit_for_json():
    checks = doctor.diagnose()
    assert [check.name for check in checks] == NAMES
    for check in checks:
        assert check.status in ("ok", "missing", "wrong")
        assert check.found
        assert check.status == "ok" or check.remedy.endswith(".")
    assert json.loads(json.dumps([asdict(check) for check in checks]))


def test_says_that_no_chip_was_ever_used():
    check = diagnose()["Loihi chip"]
    assert check.status == "missing"
    assert "nothing of lava_casc was ever run on a Loihi chip" in check.found


def test_finds_what_the_tests_run_with():
    checks = diagnose()
    for name in ("numpy", "torch", "h5py"):
        assert checks[name].status == "ok"
        assert checks[name].found == importlib.metadata.version(name)


@pytest.mark.lava
def test_finds_lava():
    checks = diagnose()
    assert (checks["lava-nc"].status, checks["lava-nc"].found) == ("ok", "0.10.0")
    assert (checks["lava-dl"].status, checks["lava-dl"].found) == ("ok", "0.6.0")


def test_survives_without_torch():
    checks = diagnose_without("torch")
    assert checks["torch"]["status"] == "missing"
    assert checks["CUDA"]["status"] == "missing"
    assert checks["CPU"]["status"] == "ok"
    assert checks["numpy"]["status"] == "ok"


def test_survives_without_any_package():
    checks = diagnose_without("lava", *(p.module for p in doctor.PACKAGES if "." not in p.module))
    assert list(checks) == NAMES
    for package in doctor.PACKAGES:
        assert checks[package.name]["status"] == "missing"
        assert checks[package.name]["remedy"] == package.remedy


def test_broken_torch_is_wrong(tmp_path, monkeypatch):
    """A CUDA library that is not there shows when torch is imported, as OSError."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    checks = diagnose()
    assert checks["torch"].status == "wrong"
    assert "libcudart.so" in checks["torch"].found
    assert checks["CUDA"].status == "missing"


def test_other_version_of_lava_is_wrong(monkeypatch):
    monkeypatch.setattr(doctor, "_is_present", lambda module: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9.0")
    check = diagnose()["lava-nc"]
    assert (check.status, check.found) == ("wrong", "0.9.0, not ==0.10.0")


@pytest.mark.parametrize(
    ("version", "wanted", "serves"),
    [
        ("0.10.0", "==0.10.0", True),
        ("0.10.1", "==0.10.0", False),
        ("2.3.0", ">=2.3", True),
        ("2.3", ">=2.3", True),
        ("2.2.9", ">=2.3", False),
        ("2.13.0+cpu", ">=2.3", True),
        ("2.10.0a1", ">=2.3", True),
    ],
)
def test_versions(version, wanted, serves):
    assert doctor._serves(version, wanted) is serves


def test_wanted_versions_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    asked = {r.name: str(r.specifier) for r in map(Requirement, texts)}
    assert {p.name: p.wanted for p in doctor.PACKAGES} == {p.name: asked[p.name] for p in doctor.PACKAGES}


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ((3, 10, 99), ""),
        ((3, 11, 0), "Everything but Lava works here; Lava needs Python 3.10 exactly."),
    ],
)
def test_python(monkeypatch, version, remedy):
    monkeypatch.setattr(sys, "version_info", version)
    check = doctor._check_python()
    monkeypatch.undo()
    assert (check.status, check.remedy) == ("ok", remedy)


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Put what looks like Intel's extension where imports look, and name no microcode."""
    (tmp_path / "lava/magma/core/model/nc").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LAVA_CASC_UCODE", raising=False)


@pytest.mark.parametrize("entry", ["lava/magma/core/model/nc/", "lava/magma/core/model/nc.py"])
def test_intels_extension_is_seen_without_being_imported(tmp_path, monkeypatch, entry):
    path = tmp_path / entry
    path.parent.mkdir(parents=True)
    path.mkdir() if entry.endswith("/") else path.write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LAVA_CASC_UCODE", raising=False)
    check = diagnose()["lava-loihi"]
    assert (check.status, check.found) == (
        "ok",
        "installed, but no microcode; the neuron program was never run on a chip",
    )
    assert check.remedy.startswith("LAVA_CASC_UCODE: no microcode file is named. Set it")


@pytest.mark.usefixtures("extension")
def test_microcode_that_is_named_is_looked_for(tmp_path, monkeypatch):
    path = tmp_path / "cif.bin"
    monkeypatch.setenv("LAVA_CASC_UCODE", str(path))
    check = diagnose()["lava-loihi"]
    assert (check.status, check.found) == (
        "wrong",
        "installed, but no microcode; the neuron program was never run on a chip",
    )
    assert check.remedy.startswith(f"{path}: LAVA_CASC_UCODE cannot be read (No such file or directory).")
    path.write_bytes(b"1")
    check = diagnose()["lava-loihi"]
    assert (check.status, check.found, check.remedy) == (
        "ok",
        "installed, with microcode; the neuron program was never run on a chip",
        "",
    )


def test_without_the_extension_one_line_says_that_the_neuron_program_was_never_run():
    check = diagnose_without("lava")["lava-loihi"]
    assert (check["status"], check["found"]) == (
        "missing",
        "not installed; the neuron program was never run on a chip",
    )
    assert "INRC" in check["remedy"]


def test_no_sinfo(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnose()["SLURM"].status == "missing"


def test_sinfo_that_hangs_is_given_up(sinfo):
    sinfo("#!/bin/sh\nexec sleep 60\n")
    start = time.monotonic()
    check = diagnose(slurm_timeout=0.5)["SLURM"]
    assert time.monotonic() - start < 30
    assert (check.status, check.found) == ("wrong", "sinfo gave no answer within 0.5 s")


@pytest.mark.parametrize(
    ("script", "status", "found"),
    [
        ("#!/bin/sh\necho oheogulch; echo kp; echo kp\n", "ok", "partitions kp, oheogulch"),
        ("#!/bin/sh\n", "wrong", "sinfo names no partition"),
        (
            "#!/bin/sh\necho 'slurm: no' >&2; echo more >&2; exit 1\n",
            "wrong",
            "slurm: no",
        ),
        ("#!/bin/sh\nexit 3\n", "wrong", "exit code 3"),
        ("no program\n", "wrong", "does not run"),
    ],
)
def test_answers_of_sinfo(sinfo, script, status, found):
    sinfo(script)
    check = diagnose()["SLURM"]
    assert check.status == status
    assert found in check.found
    assert "more" not in check.found


def test_more_threads_than_cores_is_wrong(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1 + (os.cpu_count() or 1))
    check = diagnose()["CPU"]
    assert check.status == "wrong"
    assert "OMP_NUM_THREADS" in check.remedy


def _outlook(*bad):
    lacking = {package.name: package.remedy for package in doctor.PACKAGES if package.name in bad}
    names = [package.name for package in doctor.PACKAGES]
    return doctor.outlook(
        [doctor.Check(name, "missing" if name in bad else "ok", "", lacking.get(name, "")) for name in names]
    )


def test_the_outlook_says_the_first_thing_first():
    everything = _outlook()
    assert everything.startswith("Works here: conversion and the reference engine, training on digits")
    assert "Not here" not in everything
    assert everything.endswith("Lava. Next: make demo in the repository, or lava-casc train.")
    assert _outlook("h5py", "torch", "lava-nc").startswith(
        "Nothing works yet, for want of torch. Next: pip install -e ."
    )
    without = _outlook("lava-nc", "lava-dl", "matplotlib")
    assert "Not here: plots, Lava;" in without
    assert without.endswith("Next: lava-casc train.")
    assert "Next: pip install -e '.[data,plot]'" in _outlook("scikit-learn", "lava-nc")


def test_a_report_names_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/ada/code:/data/ada/more")
    monkeypatch.setattr(doctor.platform, "node", lambda: "analytical-engine")
    monkeypatch.setenv("LAVA_CASC_UCODE", "/net/analytical-engine/cif.bin")
    checks = diagnose()
    text = json.dumps([asdict(check) for check in checks.values()])
    assert "ada" not in text
    assert "analytical-engine" not in text
    assert "PYTHONPATH ~/code:/data/USER/more" in checks["environment"].found
    assert "LAVA_CASC_UCODE /net/HOST/cif.bin" in checks["environment"].found


def test_a_report_says_which_commit_and_which_other_packages(tmp_path):
    assert doctor._origin(tmp_path) == "installed"
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert doctor._origin(tmp_path) == f"a checkout at {commit[:12]}"
    assert f"rich {importlib.metadata.version('rich')}" in diagnose()["other packages"].found
