"""docs/models.md: what becomes of each family of models, from measured outcomes; and read back, to be held to them."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
WAYS = {
    "packed": "packed: no padding, and a prompt is computed once for all its completions",
    "padded": "padded: rows side by side, prompts not shared",
    "logits": "own logits: padded rows, and the model's own logits of every token",
    "rows": "one row at a time",
    "refused": "refused, with an error that says why",
    "not built": "not tested: no tiny model of it could be made here",
}
INTRO = """# Which models train, and how

<!-- made by tests/benchmarks/model_families.py; a test holds it to what is measured -->
Every family of causal language models in transformers {release}, {count} of them, built tiny from its config, and one update of KTO on each
beside rows that go one at a time through the model's own logits. In float32, log-probs, loss, z0 and the whole gradient agree for every family
that is not marked refused or not built: to {logp:.0e} nats and {gradient:.0e} of the gradient's norm at most. In bfloat16 the tests ask for no
more error than its own rounding gives single rows; they take some families every day, `make test-families` takes all. Which way is taken is
found out on the model itself at the start of each training, and training.json says it with the reason (`self_check`). A window is a sliding
window, a chunk of attention, or the number of tokens that a query picks to attend to.

`lora` and `trainable_layers` need a decoder whose layers can be told apart: of the encoders that may be run as decoders (BERT's kin), CPM-Ant, GIT,
HRM-Text and Reformer all weights train, and the two are refused; on all others that are built here adapters can be put (2026-11-30; that what they train
is what single rows train is tested on a dozen).

Rows are not longer than the context in config.json (`max_position_embeddings`), also where rotary places grow with the row (`rope_type: dynamic`): longer
ones are refused. Such a model's numbers would hang on the longest row before.
"""
ROW = re.compile(r"^\| ([\w-]+) \| ([\w ]+) \| ([\w ]+) \| (.*) \|$")


def page_text(release, outcomes):
    """The whole page. outcomes : {family: {"within": Outcome, "beyond": Outcome}} in float32."""
    exact = [of.ours for both in outcomes.values() for of in both.values() if of.ours is not None]
    intro = INTRO.format(
        release=release,
        count=len(outcomes),
        logp=max(error.logp for error in exact),
        gradient=max(error.gradient for error in exact),
    )
    return "\n".join([intro, *_numbers(outcomes), "", *_table(outcomes)]) + "\n"


def way_of(outcome):
    return outcome.method if outcome.status == "trained" else outcome.status


def ways_on_page():
    """{family: (way with rows within its window, way with rows beyond it)}"""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return {match[1]: (match[2], match[3]) for line in lines if (match := ROW.match(line)) and match[1] != "family"}


def _numbers(outcomes):
    """How many families go which way."""
    yield "| way | rows within the window | rows beyond it |"
    yield "|---|---|---|"
    for way, meaning in WAYS.items():
        counts = [sum(way_of(both[window]) == way for both in outcomes.values()) for window in ("within", "beyond")]
        if any(counts):
            yield f"| {meaning} | {counts[0]} | {counts[1]} |"


def _table(outcomes):
    yield "| family | within its window | beyond it | why not packed |"
    yield "|---|---|---|---|"
    for family, both in sorted(outcomes.items()):
        reason = both["within"].reason or both["beyond"].reason or ""
        yield f"| {family} | {way_of(both['within'])} | {way_of(both['beyond'])} | {_cell(reason)} |"


def _cell(reason):
    """A reason in a cell of a table: the first one, without measured numbers, which differ from machine to machine."""
    first = re.sub(r"up to [\d.e+-]+ nats", "some nats", reason.split("; ")[0].removeprefix("packed: "))
    return first.replace("|", "\\|").replace("<", "&lt;").replace("`", "").replace("_", "\\_").replace("*", "\\*")[:200]
