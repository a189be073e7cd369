"""What becomes of every family of causal language models that transformers has: the table, and the page docs/models.md made of it.

    python tests/benchmarks/model_families.py [--write] [FAMILY ...]

Prints a line for each family, dtype and length of its windows: the way, its errors beside single rows in float32, and the same errors
of single rows in that dtype. --write makes docs/models.md and a dated result; without families, all of them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from families_page import PAGE, page_text, way_of
from family_outcomes import DTYPES, WINDOWS, Outcome, agrees, has_windows, outcome_of
from machine import machine, write_result
from tiny_families import families


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    measured = {family: _measured(family) for family in options.families or families()}
    if not options.write:
        return
    import transformers

    exact = {family: {window: outcomes[window, "float32"] for window in WINDOWS} for family, outcomes in measured.items()}
    PAGE.write_text(page_text(transformers.__version__, exact), encoding="utf-8")
    flat = [
        outcome.as_dict() | {"window": window, "dtype": dtype, "agrees": agrees(outcome, dtype)}
        for outcomes in measured.values()
        for (window, dtype), outcome in outcomes.items()
    ]
    write_result("model_families", {**machine(), "transformers": transformers.__version__, "outcomes": flat})


def _measured(family: str) -> dict[tuple[str, str], Outcome]:
    outcomes: dict[tuple[str, str], Outcome] = {}
    for window in WINDOWS:
        for dtype in DTYPES:
            same = outcomes.get(("within", dtype)) if window == "beyond" and not has_windows(family) else None
            outcomes[window, dtype] = same or outcome_of(family, window=window, dtype=dtype)
            _print_line(outcomes[window, dtype], window, dtype)
    return outcomes


def _print_line(outcome: Outcome, window: str, dtype: str) -> None:
    errors = [f"{name} {value:.1e}" for name, value in vars(outcome.ours).items()] if outcome.ours else []
    verdict = "" if agrees(outcome, dtype) else "  DIFFERS"
    print(
        f"{outcome.family:28} {window:7} {dtype:9} {way_of(outcome):9} {' '.join(errors) or outcome.reason}{verdict}", flush=True
    )


if __name__ == "__main__":
    main()
