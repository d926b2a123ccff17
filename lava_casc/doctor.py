"""What this machine has and lacks for each part of lava_casc, what to do about it, and what to do next.

It names nobody: a bug report may hold all of it.

Lava is looked for but never imported: that is reserved to `lava_casc.loihi`, and takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

import lava_casc
from lava_casc.errors import HardwareConfigError
from lava_casc.loihi.neurocore import UCODE, microcode


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `dataclasses.asdict` makes it ready for JSON.

    Attributes
    ----------
    name : str
        What was looked at.
    status : {"ok", "missing", "wrong"}
        ``wrong`` is something that is there but cannot serve.
    found : str
        What was found: a version, a count, or the reason why it cannot serve.
    remedy : str
        What to do about it, and what it is needed for; empty where nothing is to be done.
    """

    name: str
    status: Literal["ok", "missing", "wrong"]
    found: str
    remedy: str


@dataclass(frozen=True)
class _Package:
    name: str
    module: str
    wanted: str  # ">=" or "==" and a version
    remedy: str


_EVERYTHING = "Needed for everything: `pip install -e .` in the repository."
_DETECTION = "Needed for detection: `pip install -e '.[detection]'` in the repository."
_FILES = "Needed for network files: `pip install -e .` in the repository."
_LAVA = "Needed to run in Lava: `make demo` in the repository installs it, with Python 3.10."
_DATA_SETS = "Needed for its data sets: `pip install -e '.[data]'` in the repository."
_PLOTS = "Needed for plots: `pip install -e '.[plot]'` in the repository."
_FORMATS = "Needed to read ONNX files, and for NIR: `pip install -e '.[interchange]'` in the repository."

PACKAGES = (
    _Package("numpy", "numpy", ">=1.24", _EVERYTHING),
    _Package("torch", "torch", ">=2.3", _EVERYTHING),
    _Package("h5py", "h5py", ">=3.7", _FILES),
    _Package("pydantic", "pydantic", ">=2", _EVERYTHING),
    _Package("jinja2", "jinja2", ">=3", _EVERYTHING),
    _Package("lava-nc", "lava.magma", "==0.10.0", _LAVA),
    _Package("lava-dl", "lava.lib.dl", "==0.6.0", _LAVA),
    _Package("torchvision", "torchvision", ">=0.18", _DATA_SETS),
    _Package("scikit-learn", "sklearn", ">=1.3", _DATA_SETS),
    _Package("matplotlib", "matplotlib", ">=3.7", _PLOTS),
    _Package("onnx", "onnx", ">=1.20", _FORMATS),
    _Package("onnx2torch", "onnx2torch", ">=1.5.15", _FORMATS),
    _Package("nir", "nir", ">=1.0.8", _FORMATS),
    _Package("torchmetrics", "torchmetrics", ">=1.4", _DETECTION),
    _Package("pycocotools", "pycocotools", ">=2.0.7", _DETECTION),
)
#: What a bug may come from, too.
OTHERS = ("typer", "click", "rich", "scipy", "pillow", "setuptools", "threadpoolctl")
VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONPATH",
    "TERM",
    "SLURM",
    "PARTITION",
    "LOIHI_GEN",
    UCODE,
)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, of lava_casc and of some packages, for a record of what ran."""
    found = {"python": platform.python_version(), "lava-casc": lava_casc.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed by pip"
    return found


def diagnose(*, slurm_timeout: float = 5.0) -> list[Check]:
    """Look at Python, packages, Intel's extension, SLURM, CUDA and the CPU; raise for nothing that is absent.

    Parameters
    ----------
    slurm_timeout : float
        Seconds that ``sinfo`` is given to answer: where its cluster is out of reach, it waits.

    Returns
    -------
    list of Check
        Always the same checks in the same order.
    """
    torch = _import_torch()
    checks = [
        Check(
            "lava_casc", "ok", f"{lava_casc.__version__}, {_origin(Path(lava_casc.__file__).resolve().parents[1])}", ""
        ),
        Check("system", "ok", platform.platform(), ""),
        _check_python(),
        *(_check_package(package, torch) for package in PACKAGES),
        Check(
            "other packages",
            "ok",
            _listed({name: version for name, version in versions(*OTHERS).items() if name in OTHERS}),
            "",
        ),
        Check("environment", "ok", _listed({name: os.environ[name] for name in VARIABLES if name in os.environ}), ""),
        _check_extension(),
        _check_slurm(slurm_timeout),
        _check_cuda(torch),
        _check_cpu(torch),
        Check(
            "Loihi chip",
            "missing",
            "nothing of lava_casc was ever run on a Loihi chip",
            "Take a first run on a chip for an experiment: compare its counts with those of the simulator.",
        ),
    ]
    return [replace(check, found=_nameless(check.found), remedy=_nameless(check.remedy)) for check in checks]


def outlook(checks: Sequence[Check]) -> str:
    """Return in one line what works here, what does not, and what to do next: the first thing first."""
    bad = {check.name: check for check in checks if check.status != "ok"}
    vital = [check for check in bad.values() if check.remedy in (_EVERYTHING, _FILES)]
    if vital:
        return f"Nothing works yet, for want of {vital[0].name}. Next: pip install -e . in the repository."
    parts = {
        "training on digits": ("scikit-learn",),
        "other data sets": ("torchvision",),
        "plots": ("matplotlib",),
        "ONNX and NIR": ("onnx", "onnx2torch", "nir"),
        "detection": ("torchvision", "torchmetrics", "pycocotools"),
        "Lava": ("lava-nc", "lava-dl"),
    }
    lacking = [part for part, packages in parts.items() if bad.keys() & {*packages}]
    works = ["conversion and the reference engine", *(part for part in parts if part not in lacking)]
    if "training on digits" in lacking:
        then = "pip install -e '.[data,plot]' in the repository, then lava-casc train"
    else:
        then = "lava-casc train" if "Lava" in lacking else "make demo in the repository, or lava-casc train"
    without = f" Not here: {', '.join(lacking)}; the table says how to get them." if lacking else ""
    return f"Works here: {', '.join(works)}.{without} Next: {then}."


def _origin(home: Path) -> str:
    """Return whether this is a checkout, and of which commit."""
    if not (home / ".git").exists():
        return "installed"
    answer = ""
    if git := shutil.which("git"):
        command = [git, "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()
    return f"a checkout at {answer}" if answer else "a checkout"


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "nothing that matters"


def _nameless(text: str) -> str:
    """Return a text without the names of the user and of the machine."""
    for name, shown in ((str(Path.home()), "~"), (platform.node(), "HOST"), (os.environ.get("USER", ""), "USER")):
        if len(name) > 1 and name != "/":
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, text)
    return text


def _import_torch() -> ModuleType | ImportError | OSError:
    """Return torch, or why it cannot be had: a broken CUDA library, too, shows on import only."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return error
    return torch


def _is_present(module: str) -> bool:
    """Tell whether `module` is there, importing nothing.

    `find_spec` imports the parents of a dotted name, so beyond the first part this looks at files.
    """
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return spec is not None
    places = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
    return any(place.is_dir() or place.with_suffix(".py").is_file() for place in places)


def _serves(version: str, wanted: str) -> bool:
    """Tell whether `version` is what is `wanted`, by the numbers of their release alone."""
    have, want = (tuple(map(int, re.findall(r"\d+", text.split("+")[0])[:3])) for text in (version, wanted))
    return have == want if wanted.startswith("==") else have >= want


def _check_python() -> Check:
    found = "{}.{}.{}".format(*sys.version_info)
    if sys.version_info >= (3, 11):
        return Check("Python", "ok", found, "Everything but Lava works here; Lava needs Python 3.10 exactly.")
    return Check("Python", "ok", found, "")


def _check_package(package: _Package, torch: ModuleType | ImportError | OSError) -> Check:
    if not _is_present(package.module):
        return Check(package.name, "missing", "not installed", package.remedy)
    try:
        version = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(package.name, "wrong", "there, but not installed by pip", package.remedy)
    if not _serves(version, package.wanted):
        return Check(package.name, "wrong", f"{version}, not {package.wanted}", package.remedy)
    if package.name == "torch" and isinstance(torch, Exception):
        return Check(package.name, "wrong", f"{version}, which does not import: {torch}", package.remedy)
    return Check(package.name, "ok", version, "")


def _check_extension() -> Check:
    """Intel's closed part of Lava, which adds the models that run on neurocores, and the microcode of our neuron."""
    untried = "the neuron program was never run on a chip"
    if not _is_present("lava.magma.core.model.nc"):
        remedy = "Needed on a Loihi 2 host only: Intel gives it to members of its research community (INRC)."
        return Check("lava-loihi", "missing", f"not installed; {untried}", remedy)
    try:
        microcode()
    except HardwareConfigError as error:
        # The road that needs no microcode stays open, unless a wrong file is named.
        status: Literal["ok", "wrong"] = "wrong" if os.environ.get(UCODE) else "ok"
        return Check("lava-loihi", status, f"installed, but no microcode; {untried}", str(error))
    return Check("lava-loihi", "ok", f"installed, with microcode; {untried}", "")


def _check_slurm(timeout: float) -> Check:
    sinfo = shutil.which("sinfo")
    if sinfo is None:
        remedy = "Needed to submit to a Loihi 2 host only: run lava-casc on a machine of that cluster."
        return Check("SLURM", "missing", "no sinfo on PATH", remedy)

    remedy = "Try `sinfo` by hand, and ask the cluster's administrators."
    try:
        answer = subprocess.run(
            [sinfo, "--noheader", "--format=%R"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return Check("SLURM", "wrong", f"sinfo gave no answer within {timeout:g} s", remedy)
    except OSError as error:
        return Check("SLURM", "wrong", f"sinfo does not run: {error.strerror}", remedy)
    if answer.returncode:
        reason = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[0]
        return Check("SLURM", "wrong", f"sinfo failed: {reason}", remedy)
    partitions = sorted(set(answer.stdout.split()))
    if not partitions:
        return Check("SLURM", "wrong", "sinfo names no partition", remedy)
    return Check("SLURM", "ok", f"partitions {', '.join(partitions)}", "")


def _check_cuda(torch: ModuleType | ImportError | OSError) -> Check:
    if isinstance(torch, Exception):
        return Check("CUDA", "missing", "no torch to ask", _EVERYTHING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of an unfit driver, and then answers no
        available = torch.cuda.is_available()
    if available:
        return Check("CUDA", "ok", torch.cuda.get_device_name(), "")
    remedy = "Needed to train large networks fast; a CPU does for the rest."
    return Check("CUDA", "missing", "torch sees no GPU", remedy)


def _check_cpu(torch: ModuleType | ImportError | OSError) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(torch, Exception):
        return Check("CPU", "ok", f"{cores} cores", "")
    threads = torch.get_num_threads()
    found = f"{cores} cores, {threads} torch threads"
    if threads > cores:
        remedy = f"Threads are slow where they share a core: set OMP_NUM_THREADS={cores}."
        return Check("CPU", "wrong", found, remedy)
    return Check("CPU", "ok", found, "")
