"""What a command loads, in a process of its own: nothing heavy to show its help, no netx to run, no SymPy to export."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lava_casc import pipeline

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; sys.argv[0] = 'lava-casc'; from lava_casc.cli import main; main()"
#: Seconds each to import, all of them together: what asks for help or a completion needs none.
HEAVY = {"numpy", "torch", "lava", "h5py", "sklearn", "torchvision", "matplotlib", "scipy", "sympy"}


def loaded(*arguments: object, cwd: Path, **environment: str) -> tuple[set[str], str]:
    """Return the modules that the command line imports, also in its child processes, and what it prints."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    names = set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", found.stderr, re.MULTILINE))
    assert "lava_casc.cli" in names
    return names, found.stdout


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """The network file of the digits, and an image beside it."""
    folder = tmp_path_factory.mktemp("network")
    np.save(folder / "image.npy", np.arange(64).reshape(1, 1, 8, 8) % 17)
    pipeline.export(ROOT / "tests/data/digits.pt", folder / "digits.net", pipeline.Options(verify=0))
    return folder / "digits.net"


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", *(f"{name} --help" for name in ("train", "export", "run", "evaluate", "doctor"))],
)
def test_help_loads_nothing_heavy(arguments, tmp_path):
    names, printed = loaded(*arguments.split(), cwd=tmp_path)
    assert "lava_casc" in printed if arguments == "--version" else "Usage: lava-casc" in printed
    assert not HEAVY & tops(names)


@pytest.mark.parametrize(("words", "completed"), [("lava-casc ex", "export"), ("lava-casc run --eng", "--engine")])
def test_a_completion_loads_nothing_heavy(words, completed, tmp_path):
    position = str(len(words.split()) - 1)
    shell = {"_LAVA_CASC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    names, printed = loaded(cwd=tmp_path, **shell)
    assert printed.split() == [completed]
    assert not HEAVY & tops(names)


@pytest.mark.lava
def test_a_run_on_lava_does_not_load_its_netx(network):
    names, printed = loaded("run", network.name, "--images", "image.npy", cwd=network.parent)
    assert re.search("certified silent +. 1 of 1", printed)
    assert "lava.magma.core.run_configs" in names
    # netx takes seconds to import, and everything of lava-dl is below lava.lib.
    assert sorted(name for name in names if name.startswith("lava.lib")) == []


def test_a_run_on_the_reference_loads_no_lava(network):
    names, printed = loaded("run", network.name, "--images", "image.npy", "--engine", "reference", cwd=network.parent)
    assert re.search("certified silent +. 1 of 1", printed)
    assert not {"lava", "sklearn", "torchvision", "matplotlib"} & tops(names)


def test_an_export_loads_neither_lava_nor_data_sets_nor_sympy(tmp_path):
    names, printed = loaded("export", ROOT / "tests/data/digits.pt", "-o", "digits.net", cwd=tmp_path)
    assert "wrote digits.net" in printed
    assert not {"lava", "sklearn", "torchvision", "matplotlib", "sympy"} & tops(names)
