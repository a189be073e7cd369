"""The step `judge` of a recipe: its cost before, its votes, what is asked again, and what of it stands on the page."""

import json
import re
import sys

import polars as pl
import pytest
from judge_stand_in import KEY, completion, fair, judge_stand_in

from ktodata.cli import main
from ktodata.errors import RecipeError, SettingError
from ktodata.pipeline.recipe import load_recipe
from ktodata.pipeline.run_folder import Run
from ktodata.pipeline.self_training import dry_run, run
from ktodata.stages import ORDER


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with judge_stand_in(tmp_path / "cache" / "judge") as endpoint:
        yield endpoint


@pytest.fixture
def recipe(tmp_path, stand_in):
    """Forty rows, ten of them labelled against what they say; the judge goes by the recipe's criterion."""
    words = ["apple", "boat", "cedar", "drum", "eagle", "flute", "grape", "hotel", "igloo", "jacket"]
    lines = [
        {"prompt": f"Tell me of the {words[k % 10]} and the {words[k // 4]}, number {k}.", "completion": f"{said} answer of {words[k % 7]} {k}",
         "label": (said == "good") != (k % 4 == 0), "rater": f"r{k % 3}"}
        for k in range(40) for said in [("good", "bad")[k % 2]]
    ]  # fmt: skip
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = {"endpoint": stand_in.address, "model": "m-1", "api_key_env": "JUDGE_KEY", "backoff_s": 0.001, "concurrency": 8}

    def make(**changes):
        return {
            "name": "judged",
            "criterion": "It is good.",
            "ingest": {"paths": [str(tmp_path / "in.jsonl")], "rater": "rater"},
            "steps": [
                {"dedupe": {}},
                {"split": {"test": 0.2}},
                {"embed": {"model": "packaged:wordllama-256"}},
                {"judge": step | changes},
                {"label_noise": {"noise_injection": 0.0}},
            ],
        }

    return make


def test_a_recipe_asks_a_judge_and_its_vote_is_one_more(recipe, stand_in, tmp_path):
    events = []
    done = run(recipe(), out=tmp_path / "run", notify=events.append)
    train = done.feedback.filter(part="train")
    assert len(stand_in.seen) == 3 * train.height, "held-out rows are not asked about"
    held_out = done.feedback.filter(pl.col("part") != "train")
    assert held_out["judge_p_desirable"].null_count() == held_out.height == 40 - train.height
    assert all((row["judge_p_desirable"] == 1.0) == row["completion"].startswith("good") for row in train.iter_rows(named=True))
    raters = json.loads((tmp_path / "run" / "stages" / "label_noise" / "metrics.json").read_text())["votes"]
    assert raters["raters"] == 4 and raters["rows_with_several_raters"] == train.height
    assert "It is good." in stand_in.seen[0][1]["messages"][1]["content"]
    said = [event["text"] for event in events if event["kind"] == "progress" and event["stage"] == "judge"]
    assert len(said) == 3 * train.height and re.match(rf"{len(said)} of {len(said)} questions, ", said[-1])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What the judge is worth" in page and "judge:m-1" in page
    assert "How far it agrees with people was not measured" in page


def test_the_key_is_nowhere_in_the_run_or_the_cache(recipe, stand_in, tmp_path):
    stand_in.reply = lambda text: completion(fair(text)) if "1" in text else (400, {"error": f"not {KEY}"})
    run(recipe(probes=True, probe_rows=5), out=tmp_path / "run")
    assert stand_in.seen[0][0]["Authorization"] == f"Bearer {KEY}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_what_a_second_run_asks(recipe, stand_in, tmp_path):
    run(recipe(), out=tmp_path / "run")
    first = len(stand_in.seen)
    assert set(dict(dry_run(recipe(), out=tmp_path / "run")[1]).values()) == {"unchanged"}
    run(recipe(), out=tmp_path / "run")
    run(recipe(concurrency=2), out=tmp_path / "run")
    run(recipe(), out=tmp_path / "elsewhere")
    assert len(stand_in.seen) == first, "answers are kept by content, whatever run they were for"
    other = {**recipe(), "criterion": "It is short."}
    assert dict(dry_run(other, out=tmp_path / "run")[1])["judge"] == "runs: settings changed"
    run(other, out=tmp_path / "run")
    assert len(stand_in.seen) == 2 * first


def test_a_killed_run_goes_on_without_asking_twice(recipe, stand_in, tmp_path):
    """The tenth answer ends the run as Ctrl+C would; what was answered before is not sent again."""

    def kill(event):
        if event["kind"] == "progress" and event["stage"] == "judge" and event["text"].startswith("10 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe(concurrency=1), out=tmp_path / "run", notify=kill)
    before = len(stand_in.seen)
    done = run(recipe(concurrency=1), out=tmp_path / "run")
    rows = done.feedback.filter(part="train").height
    assert before < 3 * rows and len(stand_in.seen) == 3 * rows
    assert done.stage("judge").metrics["cached"] == before


def entered(capsys, monkeypatch, tmp_path, recipe, *words):
    from ruamel.yaml import YAML

    with (tmp_path / "recipe.yaml").open("w") as file:
        YAML().dump(recipe, file)
    monkeypatch.setattr(sys, "argv", ["ktodata", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    return capsys.readouterr().out


def test_a_dry_run_says_what_the_judge_would_cost(recipe, stand_in, tmp_path, capsys, monkeypatch):
    priced = recipe(price_in=1.0, price_out=2.0)
    text = entered(capsys, monkeypatch, tmp_path, priced, "--dry-run")
    assert "judge: at most 120 questions on 40 rows; 0 are answered in the cache, 120 would be sent" in text
    assert not stand_in.seen and "api_key_env" not in text
    without_key = entered(capsys, monkeypatch, tmp_path, recipe(api_key_env="SET_NOWHERE"), "--dry-run")
    assert "The environment variable that api_key_env names is not set: the run would end here." in without_key
    run(recipe(), out=tmp_path / "run", until="embed")
    train = Run(tmp_path / "run").feedback.filter(part="train").height
    value = json.loads(entered(capsys, monkeypatch, tmp_path, priced, "--dry-run", "--json"))["judge"]
    assert (value["at_most"], value["rows"], value["requests"], value["cached"]) == (False, train, 3 * train, 0)
    assert value["money"] == pytest.approx((value["tokens_in"] + 2 * value["tokens_out"]) / 1e6)
    run(priced, out=tmp_path / "run")
    assert len(stand_in.seen) == value["requests"]
    with_probes = json.loads(
        entered(capsys, monkeypatch, tmp_path, recipe(probes=True, probe_rows=4, max_requests=15), "--dry-run", "--json")
    )["judge"]
    assert (with_probes["cached"], with_probes["of_probes"], with_probes["requests"], with_probes["left_out"]) == (
        3 * train,
        20,
        15,
        5,
    )
    assert "judge" not in json.loads(entered(capsys, monkeypatch, tmp_path, priced, "--dry-run", "--json"))


def test_a_run_says_how_many_questions_were_not_sent(recipe, tmp_path):
    done = run(recipe(max_requests=7), out=tmp_path / "run")
    assert done.stage("judge").metrics["requests"] == 7
    page = (tmp_path / "run" / "report.html").read_text()
    assert "questions were not sent (max_requests)" in page and "KD071" in page


def test_reviews_stand_beside_the_judge_on_the_page_and_ask_nothing_anew(recipe, stand_in, tmp_path):
    run(recipe(), out=tmp_path / "run")
    first = len(stand_in.seen)
    rows = Run(tmp_path / "run").feedback
    verdicts = "".join(f"{row['row_id']},{str(row['completion'].startswith('good')).lower()}\n" for row in rows.to_dicts())
    (tmp_path / "reviews.csv").write_text("row_id,trusted_label\n" + verdicts)
    done = run(recipe(), out=tmp_path / "run", reviews=[tmp_path / "reviews.csv"])
    assert len(stand_in.seen) == first
    agreement = done.stage("judge").metrics["agreement"]
    assert {name: of["agreement"]["value"] for name, of in agreement.items()} == {"desirable": 1.0, "undesirable": 1.0}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "sees that the given label is wrong, where it is (given as undesirable)" in page


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"criterion": None}, SettingError, "criterion is missing"),
        ({"steps": [{"judge": {"model": "m", "votes": 4}}]}, SettingError, "4 votes, but 3 wordings"),
        ({"steps": [{"judge": {"model": "m", "endpoint": "ftp://host"}}]}, SettingError, "an endpoint is an address"),
        ({"steps": [{"judge": {}}]}, SettingError, "model must be given"),
        ({"steps": [{"judge": {"model": "m", "endpont": "x"}}]}, SettingError, "endpoint"),
        ({"steps": [{"jugde": {"model": "m"}}]}, RecipeError, "Did you mean 'judge'"),
    ],
)
def test_errors_come_before_a_row_is_read(recipe, changes, error, says):
    with pytest.raises(error, match=says):
        load_recipe({**recipe(), **changes})


def test_a_recipe_comes_back_as_it_was_resolved(recipe):
    once = load_recipe(recipe()).as_dict()
    (step,) = (each["judge"] for each in once["steps"] if "judge" in each)
    assert step["criterion"] == "It is good." and step["votes"] == 3
    given = {name: value for name, value in once.items() if value is not None}
    assert load_recipe(given).as_dict() == once
    assert ORDER.index("embed") < ORDER.index("judge") < ORDER.index("label_noise")
