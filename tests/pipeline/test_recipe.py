"""Recipes: what is wrong in one is said before the first row is read, with the nearest right name."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from ktodata.errors import KtodataError, MissingColumnError, RecipeError, SettingError
from ktodata.pipeline.recipe import load_recipe
from ktodata.settings import check_settings, settings_of
from ktodata.stages import ORDER, load_stage

BASE = {"name": "x", "ingest": {"paths": ["feedback.jsonl"]}}
FULL = {**BASE, "steps": [{"validate": None}, {"dedupe": {"near": 0.8}}, {"split": {"test": 0.1}}, {"rebalance": None}]}


@pytest.mark.parametrize("name", [name for name in ORDER if "seed" in settings_of(load_stage(name).function)])
def test_no_step_takes_a_seed_below_0(name):
    seed = TypeAdapter(settings_of(load_stage(name).function)["seed"].annotation)
    assert seed.validate_python(0) == 0
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        seed.validate_python(-1)


def test_defaults_are_written_out():
    recipe = load_recipe({**FULL, "seed": 7})
    resolved = recipe.as_dict()
    assert [next(iter(step)) for step in resolved["steps"]] == ["validate", "dedupe", "split", "rebalance"]
    assert resolved["steps"][1]["dedupe"]["near"] == 0.8
    assert resolved["steps"][2]["split"]["validation"] == 0.05  # the signature's own default
    assert resolved["steps"][2]["split"]["seed"] == 7  # the recipe's seed goes everywhere


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"stepz": []}, RecipeError, "'stepz'. Did you mean 'steps'"),
        ({"name": "a/b"}, SettingError, "without slashes; got 'a/b'"),
        ({"name": ".."}, SettingError, "got '..'"),
        ({"seed": -1}, SettingError, "seed is a whole number"),
        ({"seed": True}, SettingError, "seed is a whole number"),
        ({"steps": [{"rebalance": {"seed": -1}}]}, SettingError, "greater than or equal to 0; got -1"),
        ({"ingest": {}}, SettingError, "ingest: paths must be given"),
        ({"ingest": {"pathz": ["a"]}}, SettingError, "'pathz'. Did you mean 'paths'"),
        ({"steps": [{"dedupe": {"nearr": 0.8}}]}, SettingError, "step 1 (dedupe): unknown setting 'nearr'. Did you mean 'near'"),
        ({"steps": [{"dedup": None}]}, RecipeError, "step 1: there is no stage 'dedup'. Did you mean 'dedupe'"),
        ({"steps": [{"dedupe": {"near": 80}}]}, SettingError, "got 80. Did you mean 0.8?"),
        ({"steps": [{"dedupe": {"near": "0.8"}}]}, SettingError, "got '0.8'"),
        ({"steps": [{"dedupe": {"near": True}}]}, SettingError, "got True"),
        ({"steps": [{"dedupe": None, "split": None}]}, RecipeError, "step 1 must be one stage"),
        ({"steps": [{"dedupe": [1]}]}, RecipeError, "takes settings as `key: value`"),
        ({"steps": ["dedupe", "dedupe"]}, RecipeError, "dedupe stands in the recipe 2 times"),
        (
            {"steps": ["split"]},
            MissingColumnError,
            "step 1 (split) needs column 'prompt_group', which no earlier step adds. Put dedupe",
        ),
        ({"ingest": {"paths": ["f"], "keep": ["weight"]}}, SettingError, "keep: {given_weight: weight}"),
        ({"evaluate": {}}, RecipeError, "evaluates but does not train"),
        ({"reviews": {"path": "r.csv"}}, SettingError, "reviews is a file of verdicts, or a list of them"),
        ({"reviews": ["r.csv", 3]}, SettingError, "e.g. reviews: [review.csv]; got 3."),
        ({"reviews": " "}, SettingError, "got ' '"),
        ({"review": "r.csv"}, RecipeError, "'review'. Did you mean 'reviews'"),
        ({"telemetri": "runs/x"}, RecipeError, "'telemetri'. Did you mean 'telemetry'"),
        ({"ingest": {"paths": ["f"], "keep": ["training_dynamics"]}}, SettingError, "keep: {given_training_dynamics"),
    ],
)
def test_what_is_wrong_is_said(change, error, words):
    with pytest.raises(error) as caught:
        load_recipe({**BASE, **change})
    assert words in str(caught.value)
    assert isinstance(caught.value, KtodataError)


def test_evaluation_needs_rows_held_out():
    with pytest.raises(RecipeError, match="holds nothing out"):
        load_recipe({**BASE, "train": {"model": "m"}, "evaluate": {}})


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_yaml_words_and_numbers_are_what_they_look_like(tmp_path):
    """In YAML 1.1 `yes` is true and `1e-6` is text; here a thumb called `yes` stays a word, and a learning rate is a number."""
    text = "name: y\ningest:\n  paths: [f.jsonl]\n  label: {column: thumb, yes: true, no: false}\ntrain: {model: m, learning_rate: 1e-6}\n"
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.ingest.settings["label"] == {"column": "thumb", "yes": True, "no": False}
    assert recipe.train["learning_rate"] == 1e-6


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match=r"Did you mean .*recipe\.yaml"):
        write(tmp_path, "name: x")
        load_recipe(tmp_path / "recipes.yaml")
    with pytest.raises(RecipeError, match="it holds list"):
        load_recipe(write(tmp_path, "- 1"))
    with pytest.raises(RecipeError, match="not a YAML recipe"):
        load_recipe(write(tmp_path, "name: [x"))
    with pytest.raises(RecipeError, match="duplicate key"):
        load_recipe(write(tmp_path, "name: x\nname: y\n"))
    for pair in ("1: true, 1.0: true", "TRUE: true, true: true"):
        with pytest.raises(RecipeError, match=r"duplicate key .* one of them is enough, or write .* in quotes"):
            load_recipe(write(tmp_path, f"ingest: {{label: {{{pair}}}}}"))


def test_overrides():
    raw = {**FULL, "steps": [{"validate": None}, "dedupe", {"split": {"test": 0.1}}]}
    recipe = load_recipe(raw, overrides=["dedupe.near=0.9", "split.test=0.2", "name=z", "export.block=8"])
    assert recipe.name == "z"
    assert recipe.steps[1].settings["near"] == 0.9
    assert recipe.steps[2].settings["test"] == 0.2
    assert recipe.export.settings["block"] == 8
    for text, words in (
        ("near=", "unknown key 'near'"),
        ("dedupe", "write section.setting=value"),
        ("embd.model=x", "no section or step 'embd'"),
    ):
        with pytest.raises(RecipeError, match=words):
            load_recipe(FULL, overrides=[text])


@pytest.mark.parametrize(("given", "files"), [("a.csv", ["a.csv"]), (["a.csv", "b.jsonl"], ["a.csv", "b.jsonl"]), (None, [])])
def test_reviews_are_one_file_or_several(given, files):
    resolved = load_recipe({**BASE, "reviews": given}).as_dict()
    assert resolved["reviews"] == files
    assert load_recipe(BASE, overrides=[f"reviews={files}"]).as_dict()["reviews"] == files


def test_reviews_from_the_command_line_start_where_it_was_typed(tmp_path, monkeypatch):
    """The recipe is in recipes/, the command was typed beside it: r.csv there is ../r.csv from the recipe."""
    (tmp_path / "recipes").mkdir()
    path = write(tmp_path / "recipes", "name: y\ningest: {paths: [f.jsonl]}\nreviews: own.csv\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(path, reviews=["r.csv", tmp_path / "recipes" / "s.csv"]).reviews == ("own.csv", "../r.csv", "s.csv")


def test_telemetry_from_the_command_line_stands_in_place_of_the_recipe_s(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    path = write(tmp_path / "recipes", "name: y\ningest: {paths: [f.jsonl]}\ntelemetry: runs/first\n")
    monkeypatch.chdir(tmp_path)
    assert load_recipe(path).as_dict()["telemetry"] == "runs/first"
    assert load_recipe(path, telemetry="runs/second").telemetry == "../runs/second"
    assert load_recipe(BASE).telemetry is None and load_recipe(BASE).self_training is None


def test_the_defaults_of_self_training_are_written_out():
    steps = ["validate", "dedupe", {"split": {"validation": 0.2}}, "embed", "label_noise"]
    plan = {**BASE, "steps": steps, "train": {"model": "m"}, "self_training": None}
    assert load_recipe(plan).as_dict()["self_training"] == {"rounds": 3, "patience": 1, "bootstrap": 1000}
    assert load_recipe(plan, overrides=["self_training.rounds=2"]).self_training["rounds"] == 2


def test_coverage_embeds_its_reference_like_embed():
    steps = ["validate", "dedupe", {"embed": {"model": "some/encoder"}}, {"coverage": {"reference": "asked.txt"}}]
    assert load_recipe({**BASE, "steps": steps}).steps[-1].settings["encoder"] == "some/encoder"


def test_validate_and_export_know_the_model_that_is_trained():
    plan = {**BASE, "steps": ["validate"], "train": {"model": "some/model"}}
    recipe = load_recipe(plan)
    assert recipe.steps[0].settings["tokenizer"] == recipe.export.settings["tokenizer"] == "some/model"
    other = load_recipe({**plan, "steps": [{"validate": {"tokenizer": "other/model"}}], "export": {"tokenizer": "other/model"}})
    assert other.steps[0].settings["tokenizer"] == other.export.settings["tokenizer"] == "other/model"
    assert load_recipe({**BASE, "steps": ["validate"]}).export.settings["tokenizer"] is None


def test_settings_come_from_any_signature():
    def stage(feedback, *, share: float, name: str = "a", sizes: list[int] | None = None):
        """A stage."""

    assert check_settings(stage, {"share": 1}, where="s") == {"share": 1.0, "name": "a", "sizes": None}
    with pytest.raises(SettingError, match="s: share must be given"):
        check_settings(stage, {}, where="s")
    with pytest.raises(SettingError, match=r"s: sizes"):
        check_settings(stage, {"share": 0.5, "sizes": [1, "2"]}, where="s")


def test_committed_recipes_are_sound():
    """Every recipe of pipelines/ and the template of `ktodata init` passes the check as it stands."""
    root = Path(__file__).parents[2]
    recipes = [*sorted((root / "pipelines").glob("*.yaml")), root / "ktodata" / "recipe_template.yaml"]
    assert len(recipes) >= 2
    for path in recipes:
        assert load_recipe(path).steps


def of_several_types(
    *,
    prompt: str | list[str] | None = None,
    label: str | dict[str, bool | None] | None = None,
    near: Annotated[float | None, Field(ge=0, le=1)] = 0.8,
) -> None:
    """Settings that take one type or another."""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": 3}, "step: prompt: it should be a valid string, or a valid list; got 3."),
        ({"prompt": ["a", 3]}, "step: prompt.1: it should be a valid string; got 3."),
        ({"label": 3}, "step: label: it should be a valid string, or a valid dictionary; got 3."),
        ({"label": {"x": 3}}, "step: label.x: it should be a valid boolean; got 3."),
        ({"near": 80}, r"step: near: it should be less than or equal to 1; got 80. Did you mean 0.8\?"),
    ],
)
def test_a_setting_of_several_types_is_named_plainly(given, words):
    with pytest.raises(SettingError, match=f"^{words}$"):
        check_settings(of_several_types, given, where="step")


def test_fractions_that_leave_nothing_to_train_on_are_refused_before_a_row_is_read():
    plan = {"name": "x", "ingest": {"paths": "f.jsonl"}, "steps": ["dedupe", {"split": {"validation": 0.5, "test": 0.6}}]}
    with pytest.raises(SettingError, match=r"sum to 1\.1 and leave nothing to train on"):
        load_recipe(plan)
