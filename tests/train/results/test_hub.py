"""Publishing to a Hub that runs here: what is sent, what stays, and what is said when it cannot be."""

import json

import pytest
import yaml
from hub_stand_in import hubs

from ktodata import extras
from ktodata.errors import MissingExtraError, ModelError, RunError, SettingError
from ktodata.files import write_note
from ktodata.train.results.hub import model_card, push_to_hub

TOKEN = "hf_secret"
LOOK = {
    "step": 40,
    "rows": 120,
    "loss": 0.41234,
    "reward_gap": {"value": 0.2, "low": 0.1, "high": 0.3},
    "auc": {"value": 0.75, "low": 0.66, "high": 0.83},
}
FACTS = {
    "settings": {"model": "acme/base-1b", "beta": 0.1, "learning_rate": 5e-6, "epochs": 1, "max_steps": None, "lora": {"r": 8}},
    "versions": {"ktodata": "0.1.0"},
    "train": {"rows": 1000, "skipped_row_ids": ["private-17"]},
    "validation": {"rows": 120},
    "balance": {"desirable": 600, "undesirable": 400},
    "held_out": [{**LOOK, "step": 20}, LOOK],
}


@pytest.fixture
def hub(monkeypatch):
    with hubs(monkeypatch) as start:
        yield start


@pytest.fixture
def trained(tmp_path):
    """What fit leaves behind, and things that must not leave this machine."""
    write_note(tmp_path / "training.json", FACTS)
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_text(f"content of {name}")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "acme/base-1b", "r": 8}')
    for name in ("telemetry.parquet", "log.jsonl", "wandb_run.txt", "README.md", ".env"):
        (tmp_path / name).write_text("private-17")
    for folder in ("checkpoints/step-00000010", "tensorboard"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "weights.safetensors").write_text("private-17")
    return tmp_path


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_policy_tokenizer_facts_and_card_are_published_and_nothing_else(hub, trained):
    server = hub()
    assert push_to_hub(trained, "me/policy", token=TOKEN) == f"{server.address}/me/policy"
    assert set(server.files) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "training.json",
    }
    assert server.files["tokenizer.json"] == b"content of tokenizer.json"
    assert not any(b"private-17" in content for content in server.files.values())
    assert json.loads(server.files["training.json"])["train"] == {"rows": 1000}
    assert front_matter(server.files["README.md"].decode())["base_model"] == "acme/base-1b"
    assert server.made[0]["visibility"] == "private"
    assert server.tokens == {f"Bearer {TOKEN}"}
    assert (trained / "README.md").read_text() == "private-17"  # what stands in the folder stays as it is


def test_the_path_of_a_base_model_stays_here(hub, trained):
    path = "/home/alice/secret-client/base"
    write_note(trained / "training.json", {**FACTS, "settings": {**FACTS["settings"], "model": path}})
    (trained / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": path, "r": 8}))
    server = hub()
    push_to_hub(trained, "me/policy", token=TOKEN)
    assert not any(b"alice" in content for content in server.files.values())
    assert json.loads(server.files["adapter_config.json"]) == {"base_model_name_or_path": "base", "r": 8}
    assert "base_model" not in front_matter(server.files["README.md"].decode())


def test_a_public_repository_only_when_asked_for(hub, trained):
    server = hub(private=False)
    push_to_hub(trained, "me/policy", private=False, token=TOKEN)
    assert server.made[0]["visibility"] == "public"
    assert server.files


def test_nothing_goes_into_a_public_repository_unasked(hub, trained):
    server = hub(private=False)
    with pytest.raises(SettingError, match=r"everyone can read it\. Say private=False"):
        push_to_hub(trained, "me/policy", token=TOKEN)
    assert not server.files


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_may_not_write_is_a_setting_to_change(status, hub, trained):
    hub(status)
    with pytest.raises(SettingError, match=rf"does not let you write 'me/policy' \(status {status}\)") as raised:
        push_to_hub(trained, "me/policy", token=TOKEN)
    assert TOKEN not in str(raised.value)


def test_a_hub_that_refuses_is_told(hub, trained):
    hub(400)
    with pytest.raises(ModelError, match=r"the Hub refused 'me/policy': .*Nothing was published"):
        push_to_hub(trained, "me/policy", token=TOKEN)


def test_a_hub_that_is_not_there_is_told(hub, trained):
    server = hub()
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelError, match="cannot reach the Hub to push 'me/policy'"):
        push_to_hub(trained, "me/policy", token=TOKEN)


def test_offline_is_told(hub, trained, monkeypatch):
    from huggingface_hub import constants

    hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        push_to_hub(trained, "me/policy", token=TOKEN)


def test_a_name_that_is_no_repository_is_told(hub, trained):
    hub()
    with pytest.raises(SettingError, match="'me/a/b' cannot be a Hub repository"):
        push_to_hub(trained, "me/a/b", token=TOKEN)


def test_a_folder_that_is_no_finished_training_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no training\.json"):
        push_to_hub(tmp_path, "me/policy")


def test_without_huggingface_hub_it_says_what_to_install(trained, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs huggingface_hub: pip install 'ktodata\[hub\]'"):
        push_to_hub(trained, "me/policy")


def test_the_card_says_what_was_trained_and_measured():
    card = model_card(FACTS, FACTS["held_out"])
    assert front_matter(card) == {
        "base_model": "acme/base-1b",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["kto", "ktodata"],
    }
    for line in (
        "After 40 updates, on validation rows that training did not see.",
        "| AUC of the implicit reward (0.5 is chance, 1 is perfect) | 0.750 (95 % interval 0.660 to 0.830) |",
        "| rows | 120 |",
        "| train | 1000 |",
        "| train, undesirable | 400 |",
        "| learning_rate | `5e-06` |",
        '| lora | `{"r": 8}` |',
    ):
        assert line in card.splitlines(), line
    assert "max_steps" not in card
    assert "license" not in front_matter(card)
    assert "private-17" not in card


def test_after_an_early_stop_the_card_gives_the_look_that_was_kept_and_says_so():
    held_out = [{**LOOK, "step": 20, "auc": {**LOOK["auc"], "value": 0.8}}, LOOK]
    card = model_card({**FACTS, "settings": {**FACTS["settings"], "early_stop": {"patience": 1}}}, held_out)
    assert "After 20 updates" in card
    assert "| 0.800 (95 %" in card
    assert "chosen for the highest AUC of 2 evaluations on these rows, which flatters it" in card


def test_a_weight_that_was_not_set_is_shown_as_it_was_in_force():
    balance = {**FACTS["balance"], "desirable_weight": 1.0, "undesirable_weight": 1.5}
    settings = {**FACTS["settings"], "desirable_weight": None, "undesirable_weight": 2.0}
    card = model_card({**FACTS, "balance": balance, "settings": settings}, [])
    assert "| desirable_weight | `1.0` |" in card
    assert "| undesirable_weight | `2.0` |" in card


def test_without_held_out_rows_or_a_second_label_the_card_says_so():
    assert "None were scored." in model_card(FACTS, [])
    one_label = {**LOOK, "auc": None, "reward_gap": None, "not_applicable": "both need two"}
    assert "AUC was not measured: it needs two rows of each label." in model_card(FACTS, [one_label])


@pytest.mark.parametrize(
    "name",
    [
        'x"\nlicense: mit\n---\n# mine',
        "a/b\nlicense: mit",
        "`</td><script>alert(1)</script>`|",
        "x: &a [*a]",
        "models/---\n\n![](https://example.org/seen.png)",
    ],
)
def test_a_hostile_model_name_stays_text(name):
    card = model_card({**FACTS, "settings": {"model": name, "beta": 0.1}}, [])
    assert set(front_matter(card)) == {"library_name", "pipeline_tag", "tags"}
    assert card.count("\n---\n") == 1
    body = card.split("---\n", 2)[2]
    outside_code = "".join(body.split("`")[::2])
    for bad in ("<script>", "license: mit", "https://", "&a"):
        assert bad not in outside_code


def test_a_folder_is_named_without_its_path():
    card = model_card({**FACTS, "settings": {"model": "/home/alice/secret-client/base"}}, [])
    assert "alice" not in card
    assert "# `base` after `kto`" in card
