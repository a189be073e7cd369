"""Commands in forked processes that have their imports already: a command costs its work, and not seconds of imports.

polars starts its threads at its first work, and a fork would not have them: nothing here may use polars before it forks.
"""

import importlib
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktodata import cli

SECONDS = 240.0  # a command that takes longer hangs
CHANGES_A_FILE = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.link",
    "sqlite3.connect",
    "shutil.copyfile",
)


@dataclass(frozen=True)
class Ended:
    """code : None where it was killed or hung. seconds : by the wall. events : files changed, where they were counted"""

    code: int | None
    out: str
    err: str
    seconds: float
    events: int = 0


def modules_of(calls: Callable[[], Any]) -> list[str]:
    """The names of what `calls` imports, by having it do so in a fork."""
    with tempfile.TemporaryDirectory(prefix="modules-") as place:
        listing, failed = Path(place, "names"), Path(place, "failed")

        def listed() -> int:
            calls()
            listing.write_text("\n".join(sys.modules))
            return 0

        if _wait(_fork(listed, failed, failed), None):
            raise SystemExit(failed.read_text()[-2000:])
        return listing.read_text().splitlines()


def import_all(names: list[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # made up while running, or of use only where it was imported
            continue


def draw_nothing() -> None:
    """A page without its pictures: in each one's place what it would show. Nine tenths of a small page's time is matplotlib's."""
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from ktodata.report import figures
    from ktodata.report.sections import experiment_pictures, over_time

    def shown(figure: Any, key: str, title: str, description: str) -> Markup:
        drawn = [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]
        drawn += [patch.get_extents().bounds for axes in figure.axes for patch in axes.patches]
        return Markup("<svg><!-- {} {} {} --></svg>").format(title, description, drawn)

    for module in (figures, experiment_pictures, over_time):
        module.svg = shown
    Figure.savefig = lambda figure, place, **settings: Path(place).write_bytes(b"a picture")


def call(
    *words: object,
    killed_after: float | None = None,
    killed_at: int | None = None,
    count: bool = False,
    before: Callable[[], Any] = lambda: None,
) -> Ended:
    """A command, in a process group of its own. killed_after : seconds. killed_at : the how manieth change of a file

    count : say how many files it changed. before : done in the forked process, before the command
    """
    with tempfile.TemporaryDirectory(prefix="call-") as place:
        out, err, counted = (Path(place, name) for name in ("out", "err", "counted"))

        def command() -> int:
            before()
            if killed_at is not None or count:
                _watch_files(killed_at, counted if count else None)
            return _typed(words)

        began = time.monotonic()
        code = _wait(_fork(command, out, err), killed_after if killed_after is not None else SECONDS)
        took = time.monotonic() - began
        events = len(counted.read_bytes()) if counted.exists() else 0
        return Ended(code, _text(out), _text(err), took, events)


def call_here(*words: object) -> Ended:
    """A command in this very process."""
    began = time.monotonic()
    return Ended(_typed(words), "", "", time.monotonic() - began)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _typed(words: tuple[object, ...]) -> int:
    sys.argv = ["ktodata", *map(str, words)]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _watch_files(killed_at: int | None, counted: Path | None) -> None:
    """SIGKILL to the process group before the how manieth change of a file; a byte in `counted` for each until then."""
    changes = 0
    file = counted.open("ab", buffering=0) if counted else None

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[1], str) and any(sign in arguments[1] for sign in "wax+")
        if event not in CHANGES_A_FILE and not writes:
            return
        changes += 1
        if file is not None:
            file.write(b".")
        if changes == killed_at:
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(seen)


def _fork(work: Callable[[], int], out: Path, err: Path) -> tuple[int, int]:
    """(its process id, a pipe that closes when it has ended)."""
    ends, held = os.pipe()
    process = os.fork()
    if process:
        os.close(held)
        return process, ends
    code = 99
    try:
        os.setsid()
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = work()
    except BaseException as error:
        print(f"Traceback of a call: {error!r}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(process_and_pipe: tuple[int, int], seconds: float | None) -> int | None:
    """The exit code; None where it was killed, by itself or, after so many seconds, from here."""
    process, ends = process_and_pipe
    ready, _, _ = select.select([ends], [], [], seconds)
    if not ready:
        _kill_group(process)
    _, status = os.waitpid(process, 0)
    os.close(ends)
    _kill_group(process)  # whatever it has started
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def _kill_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
