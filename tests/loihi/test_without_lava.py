"""The package without Lava, and Lava after something else has used multiprocessing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_the_package_loads_without_lava_and_says_what_is_missing():
    done = _python(
        "import sys; sys.modules['lava'] = None\n"
        "from lava_casc import loihi\n"
        "for name in loihi.__all__:\n"
        "    try: getattr(loihi, name)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) >= 4
    for line in lines:
        assert line.startswith("MissingDependencyError This needs Lava, which is not installed.")
        assert 'pip install "lava-casc[lava]"' in line
        assert "Python 3.10" in line


def test_lava_is_not_imported_before_it_is_used():
    done = _python("import sys, lava_casc.loihi; print(any(name.startswith('lava.') for name in sys.modules))")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_an_unknown_name_is_an_attribute_error():
    done = _python("import lava_casc.loihi as l; print(hasattr(l, 'runn'), 'run' in dir(l))")
    assert (done.stdout, done.stderr) == ("False True\n", "")


@pytest.mark.lava
def test_lava_can_be_used_after_multiprocessing_was():
    # As a torch DataLoader with workers does; Lava itself then fails: "context has already been set".
    done = _python(
        "import multiprocessing; multiprocessing.Queue()\nfrom lava_casc.loihi import CIF; print(CIF.__name__)"
    )
    assert (done.stdout, done.stderr) == ("CIF\n", "")
