"""What moves on a terminal while a command runs, and what Ctrl-C does to it."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from sessions import ctrl_c, session

#: A command that imports a slow module, works, shows a bar, and prints.
COMMAND = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from lava_casc import console
console.PATIENCE = 0.2
@console.reports_errors
def slow_(debug=False):
    time.sleep(0.8)
    console.announce(1, 2, "fold")
    time.sleep(0.8)
    with console.progress("spikes", 10) as bar:
        for done in range(11):
            bar(done)
            time.sleep(0.1)
    console.table("found", ["a"], [[1]])
    time.sleep(0.5)
    console.show_json({"a": [1]})
slow_()
"""
SLOW_IMPORT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, ".")
from lava_casc import console
@console.reports_errors
def importing():
    import swallows
    console.err.print(swallows.whole)
    time.sleep(30)
importing()
"""
#: As some libraries do.
SWALLOWS = """
import sys, time
try:
    print("loading", file=sys.stderr, flush=True)
    time.sleep(1)
    whole = "whole"
except BaseException:
    whole = "torn"
"""


def _on_a_terminal(code: str, **environment: str) -> str:
    """Return what a program prints on a terminal."""
    child, screen = pty.fork()
    if not child:
        variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        path = str(Path(__file__).parents[1])
        os.execve(
            sys.executable,
            [sys.executable, "-c", code],
            {**variables, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "80", **environment},
        )
    shown = b""
    while True:
        try:
            part = os.read(screen, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    return shown.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="terminals elsewhere behave a little otherwise")
def test_a_terminal_shows_what_goes_on_and_keeps_the_results_alone() -> None:
    shown = _on_a_terminal(COMMAND)
    plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"slow 0:00:0\d", plain), "a spinner with the name of the command"
    assert re.search(r"fold 0:00:0\d", plain), "and of the step"
    assert re.search(r"spikes .* 50% 0:00:0\d left 0:00:0\d", plain)
    results = shown[shown.index("found") :]
    assert "0:00" not in re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", results), "nothing moves beside results"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is there again"


@pytest.mark.skipif(sys.platform != "linux", reason="terminals elsewhere behave a little otherwise")
def test_a_dumb_terminal_gets_lines() -> None:
    shown = _on_a_terminal(COMMAND, TERM="dumb")
    assert "\x1b[?25l" not in shown
    assert "[1/2] fold ...\r\nspikes ...\r\n" in shown


def test_a_pipe_gets_lines_and_json_alone_whatever_the_colours() -> None:
    with session(COMMAND.replace('console.table("found", ["a"], [[1]])', ""), FORCE_COLOR="1") as process:
        shown, errors = process.communicate(timeout=60)
    assert json.loads(shown) == {"a": [1]}
    assert errors == "[1/2] fold ...\nspikes ...\n"


def test_ctrl_c_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    with session(SLOW_IMPORT, cwd=tmp_path) as process:
        assert process.stderr.readline() == "loading\n"
        _, errors = ctrl_c(process)
    assert errors in ("interrupted\n", "whole\ninterrupted\n"), "swallowed, or the module is torn"
    assert process.returncode == 130
