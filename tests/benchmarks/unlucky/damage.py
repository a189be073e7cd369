"""Every command on a run folder in which a file is damaged: it names that, or its answer is that of the whole folder."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from unlucky.forks import Ended, call
from unlucky.sample import contents, make_home, without_changing, write_feedback

Way = Callable[[Path, bytes], None]
WAYS: dict[str, Way] = {
    "gone": lambda file, content: file.unlink(),
    "empty": lambda file, content: _put(file, b""),
    "cut": lambda file, content: _put(file, content[: len(content) // 2]),
    "bit": lambda file, content: _put(file, _with_a_bit_turned(content)),
    "folder": lambda file, content: (file.unlink(), file.mkdir())[0],
    "no text": lambda file, content: _put(file, b"\xff\xfe\x00{" + content[:40]),
    "longer": lambda file, content: _put(file, content + b"\0" * 100),
}
OTHERS = ("another file's", "another run's")  # what is there is whole, and of something else
# what only its own command can make again: `run` names it or leaves it alone
ITS_OWN = ("ablation", "comparison", "reviews", "evaluation.parquet")


def _put(file: Path, content: bytes) -> None:
    """Another file of this name: a linked one of the same content stays as it is."""
    file.unlink()
    file.write_bytes(content)


def _with_a_bit_turned(content: bytes) -> bytes:
    """In JSON a digit becomes another, as what is no JSON any more is seen by anybody."""
    digits = [at for at in range(len(content)) if 48 <= content[at] <= 57] if content[:1] == b"{" else []
    at = digits[len(digits) // 2] if digits else len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"\1"


def commands_on(run: Path, row_id: str) -> dict[str, tuple[object, ...]]:
    """Every command that reads a run; what it writes goes to the folder `out` beside it where it can."""
    home, out = run.parent, run.parent / "out"
    train = ("--set", "batch_size=8", "--set", "max_steps=1")
    return {
        "explain": ("explain", run, row_id, "--json"),
        "export": ("export", run, "--out", out / "kto.jsonl", "--json"),
        "push": ("export", run, "--push", "owner/name", "--dry-run", "--json"),
        "report": ("report", run, "--quiet"),
        "page without text": ("report", run, "--no-text", "--out", out / "page.html", "--quiet"),
        "review": ("review", run, "--export", out / "verdicts.csv", "--json"),
        "take verdicts in": ("review", run, "--import", home / "verdicts.csv", "--reviewer", "bob", "--json"),
        "train": ("train", run, "--model", home / "tiny", "--out", out / "model", *train, "--quiet"),
        "evaluate": ("evaluate", run, "--set", "generate=0", "--set", "bootstrap=100", "--json"),
        "evaluate against another": ("evaluate", run, "--baseline", home / "whole", "--json"),
        "audit with its telemetry": ("audit", home / "feedback.jsonl", "--telemetry", run, "--out", out / "audit", "--quiet"),
        "run with its reviews": (
            *("run", home / "recipe.yaml", "--out", out / "again", "--until", "dedupe"),
            *("--reviews", run / "reviews/reviews.sqlite", "--quiet"),
        ),
        "ablate, dry": ("ablate", run, "--seeds", 1, "--dry-run", "--json"),
        "ablate": ("ablate", run, *ABLATED, "--json"),
        "compare, dry": ("compare", run, *COMPARED, "--dry-run", "--json"),
        "compare": ("compare", run, *COMPARED, "--json"),
        "run, dry": ("run", home / "recipe.yaml", "--out", run, "--dry-run", "--json"),
        "run": ("run", home / "recipe.yaml", "--out", run, "--quiet"),
    }


ABLATED = ("--seeds", 1, "--only", "confident learning", "--set", "train.max_steps=1", "--set", "train.batch_size=8")
COMPARED = tuple(
    word
    for setting in ("compare.methods=[kto]", "max_steps=1", "batch_size=8", "max_length=64", "bootstrap=100")
    for word in ("--set", setting)
)


def answer(name: str, run: Path, ended: Ended) -> Any:
    """What a command has answered, for the comparison with the undamaged run."""
    if name == "run":
        return {file: of for file, of in contents(run).items() if not file.startswith(ITS_OWN)}
    if name == "report":
        return {file: of for file, of in contents(run).items() if file in ("report.html", "README.md")}
    if name in ("ablate, dry", "compare, dry"):
        return None  # an estimate in minutes differs from call to call
    written = {file: of for file, of in contents(run.parent / "out").items() if "manifest" not in file and "page" not in file}
    if name == "run, dry":
        return None  # it says what it would do, and is not asked for the same
    return written, without_changing(json.loads(ended.out)) if ended.out.strip() else ""


def make_whole(home: Path, call: Callable[..., Ended] = call) -> str:
    """home/run with all that commands leave in a run, home/whole a copy of it, home/older another run. Returns a row_id."""
    make_home(home)
    run, older = home / "run", home / "older"
    for place in (older, run):
        write_feedback(home / "feedback.jsonl", 90, seed=int(place is older))
        _must(call("run", home / "recipe.yaml", "--out", place, "--quiet"))
        row_ids = _row_ids(place)
        verdicts = "".join(f"{row_id},{str(n % 2 == 0).lower()}\n" for n, row_id in enumerate(row_ids[:3]))
        (home / "verdicts.csv").write_text(f"row_id,trusted_label\n{verdicts}")
        _must(call("review", place, "--import", home / "verdicts.csv", "--reviewer", "ann"))
        _must(call("ablate", place, *ABLATED, "--quiet"))
        _must(call("compare", place, *COMPARED, "--quiet"))
        _must(call("run", home / "recipe.yaml", "--out", place, "--quiet"))
    shutil.copytree(run, home / "whole")
    return row_ids[0]


def _row_ids(run: Path) -> list[str]:
    table = pq.read_table(run / "stages/export/columns.parquet", columns=["row_id"], use_threads=False)
    return [str(value) for value in table["row_id"].to_pylist()]


def _must(ended: Ended) -> None:
    if ended.code:
        raise SystemExit(f"the sample cannot be made: {ended.err[-2000:]}")


def kinds(home: Path, seed: int) -> list[tuple[str, str]]:
    """(file, way) of all damage: every file once before any a second time, and of the ways each as often."""
    draw, ways = random.Random(seed), [*WAYS, *OTHERS]
    whole = sorted(file.relative_to(home / "whole").as_posix() for file in (home / "whole").rglob("*") if file.is_file())
    files = [file for file in whole if Path(file).name != ".lock"]
    for order in (files, ways):
        draw.shuffle(order)
    return [(file, ways[(place + turn) % len(ways)]) for turn in range(len(ways)) for place, file in enumerate(files)]


def _damage(home: Path, file: str, way: str) -> bool:
    """Whether there is such a damage to this file."""
    target = home / "run" / file
    content = target.read_bytes()
    if way in WAYS:
        WAYS[way](target, content)
        return True
    if way == "another run's":
        source = home / "older" / file
    else:
        alike = sorted(other for other in (home / "whole").rglob(f"*{target.suffix}") if other.is_file())
        different = [other for other in alike if other.read_bytes() != content]
        source = different[len(file) % len(different)] if different else target
    if not source.is_file() or source.read_bytes() == content:
        return False
    _put(target, source.read_bytes())
    return True


def _fresh(home: Path) -> None:
    for name in ("run", "out"):
        shutil.rmtree(home / name, ignore_errors=True)
    subprocess.run(["cp", "-a", home / "whole", home / "run"], check=True)
    (home / "out").mkdir()


def expected_answers(home: Path, row_id: str) -> dict[str, Any]:
    """What every command answers on the whole folder."""
    answers = {}
    for name, words in commands_on(home / "run", row_id).items():
        _fresh(home)
        ended = call(*words)
        if ended.code:
            raise SystemExit(f"{name} cannot be tried: {ended.err[-500:]}")
        answers[name] = answer(name, home / "run", ended)
    return answers


def try_damage(home: Path, row_id: str, expected: dict[str, Any], file: str, way: str) -> Iterator[tuple[str, str, str]]:
    """(command, how it ended, its words) for every command."""
    for name, words in commands_on(home / "run", row_id).items():
        _fresh(home)
        if not _damage(home, file, way):
            return
        ended = call(*words)
        yield name, *_verdict(home, name, file, ended, expected[name])


def _verdict(home: Path, name: str, file: str, ended: Ended, expected: Any) -> tuple[str, str]:
    words = ended.err.strip()
    if ended.code is None or "unexpected " in words or "Traceback" in words or ended.code == 99:
        return "traceback" if ended.code is not None else "hangs", words[-300:]
    if ended.code:
        named = len(words.splitlines()) == 1 and (name != "run" or file.startswith(ITS_OWN))
        return "named" if named else "not healed" if name == "run" else "many lines", words[-300:]
    found = answer(name, home / "run", ended)
    if found == expected:
        return "as undamaged", ""
    # a command that can do without the file says on standard error that it is gone, or what it spoke of
    may_go_on = name != "run" or file.startswith(ITS_OWN)
    return ("named", words[-300:]) if may_go_on and Path(file).stem in words else ("silent", _difference(found, expected))


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict):
        return str(sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))[:5])
    if isinstance(found, tuple):
        return f"{_difference(found[0], expected[0])} {_difference(found[1], expected[1])}"
    return "" if found == expected else f"{str(found)[:150]} for {str(expected)[:150]}"
