"""Real feedback through every curation stage: whatever it holds, each record is accounted for and the shards can be used.

These tests read the data sets beside the checkout, and skip, saying so, where those are absent.
"""

import json

import polars as pl
import pytest

import ktodata as kd

pytestmark = pytest.mark.shared

STEPS = [
    {"validate": None},
    {"dedupe": {"near": 0.8}},
    {"split": {"validation": 0.1, "test": 0.1}},
    {"embed": {"model": "packaged:wordllama-256"}},
    {"label_noise": {"repeats": 1}},
    {"rebalance": {"by": "weights"}},
    {"coverage": None},
]
# file, how it is read, records in the file, records that cannot become a row and why
FEEDBACK = {
    "xstest": (
        "kto_xstest.jsonl.gz",
        {
            "label": {"column": "weak_label_gpt4", True: True, False: False},
            "model": "model",
            "votes": {"weak_label_gpt4": "gpt4", "weak_label_strmatch": "strmatch"},
        },
        1350,
        {"unlabelled": 8},
    ),
    "tulu": ("kto_tulu1_human.jsonl.gz", {"rater": "annotator", "created_at": "timestamp", "model": "model"}, 1400, {}),
    "hh_pairs": ("kto_hh_harmless.jsonl.gz", {"pair_id": "pair", "transcripts": True}, 2824, {}),
    "halueval": ("kto_halueval_general.jsonl.gz", {}, 2644, {}),
    "llamafactory": ("kto_llamafactory_demo.jsonl.gz", {"prompt": "messages", "format": "mapping"}, 176, {}),
    "pandalm": (
        "pref_pandalm.jsonl.gz",
        {
            "format": "preference",
            "prompt": ["instruction", "input"],
            "completion": ["response1", "response2"],
            "votes": {"annotator1": "a1", "annotator2": "a2", "annotator3": "a3"},
            "label": {"1": "first", 1: "first", 2: "second", 0: "tie"},
        },
        624,
        {"tie": 63},
    ),
}


@pytest.fixture(scope="module", params=FEEDBACK)
def run(request, shared, tmp_path_factory):
    file, reading, records, unread = FEEDBACK[request.param]
    recipe = {"name": request.param, "ingest": {"paths": [str(shared / file)], **reading}, "steps": STEPS}
    if records > 2000:  # what planted flips take grows with rows, and shows nothing here
        recipe["steps"] = [{"label_noise": {"noise_injection": 0}} if "label_noise" in step else step for step in STEPS]
    return kd.run(recipe, out=tmp_path_factory.mktemp("runs") / request.param), records, unread


def test_every_record_is_accounted_for(run):
    done, records, unread = run
    read = done.stage("ingest").metrics
    assert read["records"] == records
    assert dict(done.quarantine.group_by("reason").len().iter_rows()) == unread
    rows = done.manifest["rows"]
    assert rows["rows_in"] == read["rows"] + sum(unread.values())
    assert rows["rows_in"] == rows["kept"] + rows["dropped"] + rows["quarantined"] + rows["review"]
    shipped = pl.concat([done.shards(part).select("row_id", "prompt_group") for part in ("train", "validation", "test")])
    assert shipped["row_id"].n_unique() == shipped.height == rows["kept"] > 0


def test_no_prompt_group_stands_on_both_sides(run):
    done, _, _ = run
    sides = [set(done.shards(part)["prompt_group"]) for part in ("train", "validation", "test")]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert done.stage("split").metrics["leaks"] == 0


def test_the_card_and_the_page_say_what_was_done(run):
    done, _, _ = run
    page = (done.folder / "report.html").read_text()
    main = page[page.index("<main") : page.index("</main>")]
    assert f"{done.manifest['rows']['kept']:,}" in page and "<script" not in main
    assert (done.folder / "README.md").read_text().startswith("---\n")


@pytest.mark.parametrize("run", ["tulu"], indirect=True)
def test_raters_votes_reach_the_audit(shared, run):
    """Tulu: 16 people, many texts judged twice; of 60 with both verdicts those that are tied are held, and raters can be compared."""
    done, _, _ = run
    records = [json.loads(line) for line in _lines(shared / FEEDBACK["tulu"][0])]
    last: dict[tuple[str, str], dict[str, bool]] = {}
    for record in sorted(records, key=lambda record: record["timestamp"]):
        text = tuple(" ".join(record[side].split()).casefold() for side in ("prompt", "completion"))
        last.setdefault(text, {})[record["annotator"]] = record["label"]
    ties = sum(2 * sum(labels.values()) == len(labels) for labels in last.values())
    held = done.stage("dedupe").decisions.filter(pl.col("reason") == "labels_disagree")
    assert ties == 14 and held.height == 2 * ties
    assert done.stage("label_noise").table("raters").height == len({record["annotator"] for record in records})


def _lines(path):
    import gzip

    with gzip.open(path, "rt") as file:
        return list(file)
