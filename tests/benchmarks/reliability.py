"""What a run folder does when it is unlucky: killed, damaged, made elsewhere, of records that nobody meant.

    python tests/benchmarks/reliability.py damages   --of 60         FILE
    python tests/benchmarks/reliability.py kills     --of 500        FILE
    python tests/benchmarks/reliability.py settings                  FILE
    python tests/benchmarks/reliability.py mutations --of 20000      FILE
    python tests/benchmarks/reliability.py sum                       FILE ...

Each try is a line of JSON in FILE; the same command goes on after the last, and ends after --minutes. `sum` counts them and writes
a dated result.

damages   : each kind is a file of a run and what is done to it (gone, empty, cut, a bit turned, another file's content, another
    run's, a folder, no text, longer). Every command is called on each: it ends in one line that names what is wrong, or with the
    answer that the undamaged run has; anything else is a traceback, or silent. `run` must leave the undamaged folder.
kills     : SIGKILL to the process group at a random instant, or before a random one of the changes that the command makes to files;
    then the same command again: all it leaves is what the undisturbed one left, byte for byte but for times.
settings  : threads, hash seed, locale, time zone, working directory, order of rows, cut into files: the same ledger, shards, model.
mutations : records of every format with values, keys or bytes changed: each is rows or in the quarantine, none is lost.
"""

import argparse
import json
import os
import pickle
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [
    str(Path(__file__).parents[2]),
    str(Path(__file__).parents[1] / "support"),
    str(Path(__file__).parents[1] / "formats"),
]
os.environ |= {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

from unlucky import circumstances, damage, forks, kills  # noqa: E402

SOUND = ("as undamaged", "named")


def all_imported(place: Path) -> None:
    """Have here what a run, a comparison and an ablation import."""
    names = kept(place / "modules", lambda: forks.modules_of(lambda: damage.make_whole(place / "first", forks.call_here)))
    forks.import_all(names)
    forks.draw_nothing()


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, from the file where it was made before."""
    if not file.exists():
        file.write_bytes(pickle.dumps(make()))
    return pickle.loads(file.read_bytes())


def damages(home: Path, given: argparse.Namespace, number: int) -> Iterator[dict[str, Any]]:
    row_id = kept(home.with_name("row"), lambda: damage.make_whole(home))
    expected = kept(home.with_name("expected"), lambda: damage.expected_answers(home, row_id))
    every = damage.kinds(home, given.seed)
    for at in range(number, min(given.of, len(every))):
        file, way = every[at]
        ends = [(name, end, words) for name, end, words in damage.try_damage(home, row_id, expected, file, way)]
        bad = {name: [end, words] for name, end, words in ends if end not in SOUND}
        counts = dict(Counter(end for _, end, _ in ends))
        yield {"number": at, "seed": given.seed, "of": len(every), "file": file, "way": way, "ends": counts, "bad": bad}


def killed(home: Path, given: argparse.Namespace, number: int) -> Iterator[dict[str, Any]]:
    kept(home.with_name("row"), lambda: damage.make_whole(home))
    known = kept(home.with_name("undisturbed"), lambda: kills.undisturbed(home))
    for at in range(number, given.of):
        yield kills.kill_once(home, known, at, given.seed)


def settings(home: Path, given: argparse.Namespace, number: int) -> Iterator[dict[str, Any]]:
    warm = [circumstances.NAMES[0]] * 2  # the first fills the caches, of which training.json says what was in them
    first = kept(home.with_name("first-run"), lambda: [circumstances.run_under(home, name) for name in warm][-1])
    for at, name in list(enumerate(circumstances.NAMES))[number:]:
        left = circumstances.run_under(home, name)
        yield {"number": at, "circumstance": name, "files": len(left), "different": circumstances.differing(first, left)}


def mutations(home: Path, given: argparse.Namespace, number: int) -> Iterator[dict[str, Any]]:
    from test_mutations import CASES, check

    home.mkdir(exist_ok=True)
    each = given.of // len(CASES) + 1
    for at, case in list(enumerate(CASES))[number:]:
        try:
            check(home / "mutated.jsonl", case, each, given.seed)
        except Exception as error:
            yield {"number": at, "seed": given.seed, "case": case, "records": each, "error": repr(error)[:300]}
        else:
            yield {"number": at, "seed": given.seed, "case": case, "records": each}


CAMPAIGNS = {"damages": damages, "kills": killed, "settings": settings, "mutations": mutations}


def summed(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of what was tried, and every try that ended badly."""
    damaged = [line for line in lines if "way" in line and line["ends"]]
    killed_ones = [line for line in lines if "command" in line]
    mutated = [line for line in lines if "case" in line]
    ends: Counter[str] = Counter()
    for line in damaged:
        ends.update(line["ends"])
    really = [line for line in killed_ones if line["first"] == "killed"]
    return {
        "damage": {"kinds": len(damaged), "calls": ends.total(), "ends": dict(ends), "bad": [x for x in damaged if x["bad"]]},
        "kills": {
            "killed": dict(Counter(line["command"] for line in really)),
            "killed_in_all": len(really),
            "had_ended": len(killed_ones) - len(really),
            "different": [line for line in killed_ones if "different" in line],
        },
        "circumstances": {line["circumstance"]: line["different"] for line in lines if "circumstance" in line},
        "mutations": {
            "records": sum(line["records"] for line in mutated),
            "cases": len(mutated),
            "bad": [line for line in mutated if "error" in line],
        },
    }


@contextmanager
def place_for(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="reliability-") as place:
        yield Path(place)


def go_on(given: argparse.Namespace) -> None:
    """Append a line for each further try to the file of results."""
    file = Path(given.results[0])
    before = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    number = 1 + max((line["number"] for line in before if line.get("seed", given.seed) == given.seed), default=-1)
    until = time.monotonic() + 60 * given.minutes
    with place_for(given.keep) as place:
        if given.campaign != "mutations":
            all_imported(place)
        with file.open("a") as results:
            for line in CAMPAIGNS[given.campaign](place / "home", given, number):
                results.write(json.dumps(line) + "\n")
                results.flush()
                if time.monotonic() > until:
                    break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=(*CAMPAIGNS, "sum"))
    parser.add_argument("results", nargs="+")
    parser.add_argument("--of", type=int, default=60, help="tries in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=24 * 60)
    parser.add_argument(
        "--keep", type=Path, help="a folder that keeps the sample, so that the same command need not make it again"
    )
    given = parser.parse_args()
    if given.campaign != "sum":
        return go_on(given)
    from machine import machine, write_result

    lines = [json.loads(line) for file in given.results for line in Path(file).read_text().splitlines()]
    print(write_result("reliability", {**machine(), **summed(lines)}))
    return None


if __name__ == "__main__":
    main()
