"""What the command line and the demo show: progress with time left, tables, one line for an error, and Ctrl-C."""

from __future__ import annotations

import _thread
import functools
import json
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from lava_casc.errors import CascError

Command = TypeVar("Command", bound=Callable[..., Any])

#: Seconds without a word until a spinner shows that something goes on.
PATIENCE = 1.0


class _Out(Console):
    """Where results go; nothing moves beside them."""

    def print(self, *objects: Any, **options: Any) -> None:
        rest()
        super().print(*objects, **options)


class _Display(Progress):
    """What goes on at present: a bar with the time left, or, where nobody knows how much there is, a spinner."""

    BAR = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    SPINNER = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())

    def __init__(self, name: str) -> None:
        super().__init__(console=err, transient=True, disable=not err.is_interactive, redirect_stdout=False)
        self.name = name
        self.show(name)

    def show(self, what: str, total: float | None = None) -> None:
        """Begin with something else."""
        for task in self.task_ids:
            self.remove_task(task)
        self.task = self.add_task(escape(what), total=total)
        self.start()

    def get_renderables(self) -> Iterator[RenderableType]:
        """Return what is drawn ten times a second."""
        for task in self.tasks:
            self.columns = self.SPINNER if task.total is None else self.BAR
            patient = task.total is None and (task.elapsed or 0) < PATIENCE
            yield Text() if patient else self.make_tasks_table([task])


#: Results go to stdout, everything about how it goes to stderr. Colours and bars are for a terminal, whatever a program
#: that reads the output, such as a notebook, has put into FORCE_COLOR.
out = _Out(highlight=False, soft_wrap=True, force_terminal=sys.stdout.isatty())
err = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=sys.stderr.isatty())
_display: _Display | None = None


@contextmanager
def working(task: str) -> Iterator[_Display]:
    """Show on stderr that a task goes on, until there are results; within, `progress` and `announce` say more."""
    global _display
    try:
        with _Display(task) as _display:
            yield _display
    finally:
        _display = None


def rest() -> None:
    """Show nothing until something else begins: what comes now shows by itself that something goes on."""
    if _display is not None:
        _display.stop()


@contextmanager
def progress(task: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show a bar with the time left; yields a function to call with the number done so far."""
    if not err.is_interactive:
        err.print(escape(f"{task} ..."))  # a bar that nobody sees move says no more than this
    with nullcontext(_display) if _display is not None else working(task) as display:
        display.show(task, total)
        try:
            yield lambda done: display.update(display.task, completed=done)
        finally:
            display.show(display.name)


def announce(step: int, steps: int, what: str) -> None:
    """Show that a step begins: ``[2/5] fold ...``."""
    err.print(escape(f"[{step}/{steps}] {what} ..."))
    if _display is not None:
        _display.show(what)


def share(done: float) -> None:
    """Show which share is done of what goes on, where that turns out to be known."""
    if _display is not None:
        _display.update(_display.task, total=1, completed=done)


def stop(kept: str) -> NoReturn:
    """End a command that Ctrl-C has interrupted, and say what is kept of it."""
    err.print(escape(f"interrupted: {kept}"))
    sys.exit(130)


@contextmanager
def keeping(path: Path, what: str) -> Iterator[None]:
    """Say what `path` holds, if it is there, where Ctrl-C ends what is within."""
    try:
        yield
    except KeyboardInterrupt:
        if path.exists():
            stop(f"{path} holds {what}")
        raise


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table to stdout; numbers flush right."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    shown = Table(title=title, title_justify="left", show_header=any(columns))
    width = 1
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], int | float) or row[i] == "" for row in rows)
        # Long text stands in the last columns, which may fold between words.
        folds = i >= len(columns) - 2
        texts = [column, *(row[i] for row in cells)]
        width += 3 + max(cell_len(word) for text in texts for word in (text.split() if folds else [text]) or [""])
        shown.add_column(column, justify="right" if numeric else "left", no_wrap=not folds, overflow="fold")
    for row in cells:
        shown.add_row(*map(escape, row))
    # A pipe has no width of its own: do not fold the table to 80 columns there.
    console = out if out.is_terminal else Console(width=160, highlight=False, force_terminal=False)
    if width > console.width:
        for column_shown in shown.columns[1:]:
            column_shown.no_wrap = False  # rather in several lines than cut off
    console.print(shown)


def show_json(data: Any) -> None:
    """Print data to stdout for a program to read."""
    out.print(json.dumps(data, indent=2), markup=False)


def reports_errors(command: Command) -> Command:
    """Turn a `CascError` of a command into one line on stderr and exit code 2, any other error into exit code 1.

    With ``debug=True`` among the arguments, the traceback comes first.
    """

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            with _interruptible(), working(command.__name__.strip("_")):
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            err.print("interrupted")
            sys.exit(130)
        except Exception as error:  # the last place where anything can be said about it
            if kwargs.get("debug"):
                traceback.print_exc()
            if isinstance(error, CascError):
                err.print(f"error: {escape(' '.join(str(error).split()))}")
                sys.exit(2)
            err.print(
                escape(
                    f"{type(error).__name__}: {error}. This is a bug in lava_casc; --debug shows where. "
                    "Please report it with that and what lava-casc doctor --json prints."
                )
            )
            sys.exit(1)

    return wrapper  # type: ignore[return-value]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C wait for the end of an import: in the middle of one, libraries swallow it, or stumble over it."""
    again = threading.Timer(0, lambda: None)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal again
        place = frame
        while place is not None:
            if place.f_code.co_filename.startswith("<frozen importlib"):
                again = threading.Timer(0.05, _thread.interrupt_main)
                again.start()
                return
            place = place.f_back
        signal.default_int_handler(number, frame)

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # a shell lets its background jobs ignore it, and a program that calls a command may have its own
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        again.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)
