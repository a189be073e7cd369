"""Each finding has three tests: it fires, it stays silent, it does not apply."""

from typing import Any

import polars as pl
import pytest

from ktodata.errors import MissingColumnError, MissingExtraError, ModelError, SettingError
from ktodata.feedback import feedback_table
from ktodata.pipeline.recipe import load_recipe
from ktodata.stages.validate import ADDS, validate

LONG_QUESTION = "What is the capital of France?"  # 30 characters, over MIN_REPEATED_CHARS
GOOD = ("sky?", "blue", True)
BAD = ("grass?", "red", False)


def finding(code: str, feedback: pl.DataFrame, **settings: Any) -> dict[str, Any]:
    findings = [f for f in validate(feedback, **settings).metrics["findings"] if f["code"] == code]
    assert len(findings) == 1
    return findings[0]


def talk(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} says"} for role in roles]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer folder with one token a word, no start token, the end token <end>, and a chat template of `role content` a turn."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<end>": 0, "?": 1}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="?")
    tokenizer.chat_template = (
        "{% for turn in messages %}{% if turn.role == 'robot' %}{{ raise_exception('no robots') }}{% endif %}"
        "{{ turn.role }} {{ turn.content }} {% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    folder = tmp_path_factory.mktemp("words")
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_sound_table_gets_no_decision_and_no_token_counts():
    result = validate(feedback_table(GOOD, BAD))
    assert result.actions() == {}
    assert result.columns.columns == ["row_id", *ADDS]
    assert result.columns.height == 2
    assert result.columns["prompt_tokens"].to_list() == [None, None]
    assert result.columns.schema["completion_tokens"] == pl.Int32


def test_what_is_done_with_each_kind_of_row():
    feedback = feedback_table(
        ("", "blue", True),
        (" \n\t", "blue", True),
        ("sky?", "", True),
        (LONG_QUESTION, f"{LONG_QUESTION} Paris.", True),
        {"prompt": "...", "completion": "x", "label": False, "turns": talk("user", "assistant")},
        GOOD,
    )
    assert validate(feedback).actions() == {
        "1": ("drop", "empty_prompt"),
        "2": ("drop", "empty_prompt"),
        "3": ("drop", "empty_completion"),
        "4": ("review", "prompt_in_completion"),
        "5": ("review", "no_turn_to_answer"),
    }


def test_input_is_not_touched_and_columns_are_asked_for():
    feedback = feedback_table(GOOD)
    before = feedback.clone()
    validate(feedback)
    assert feedback.equals(before)
    with pytest.raises(MissingColumnError, match="'turns'"):
        validate(feedback.drop("turns"))


# KD001, KD002: empty texts


def test_kd001_fires():
    result = finding("KD001", feedback_table((" ", "blue", True), GOOD))
    assert (result["status"], result["rows"]) == ("issue", 1)
    assert "1 of 2 rows" in result["text"]


def test_kd001_silent():
    assert finding("KD001", feedback_table(GOOD))["status"] == "passed"


def test_kd001_does_not_apply():
    assert finding("KD001", feedback_table())["status"] == "not_applicable"


def test_kd002_fires():
    # U+3000 is white space too
    result = finding("KD002", feedback_table(("sky?", "\u3000", True), ("sky?", "", False), GOOD))
    assert (result["status"], result["rows"]) == ("issue", 2)


def test_kd002_silent():
    assert finding("KD002", feedback_table(GOOD))["status"] == "passed"


def test_kd002_does_not_apply():
    assert finding("KD002", feedback_table())["status"] == "not_applicable"


# KD003: the completion starts with the whole prompt


def test_kd003_fires():
    assert finding("KD003", feedback_table((LONG_QUESTION, f"\n{LONG_QUESTION}\nParis", True), GOOD))["rows"] == 1


def test_kd003_fires_on_the_last_turn_of_a_conversation():
    turns = [*talk("user", "assistant"), {"role": "user", "content": LONG_QUESTION}]
    row = {"prompt": "joined", "completion": f"{LONG_QUESTION} Paris", "label": True, "turns": turns}
    assert finding("KD003", feedback_table(row))["rows"] == 1


def test_kd003_silent_on_short_prompts_and_on_quotes_further_in():
    feedback = feedback_table(("Hello", "Hello there", True), (LONG_QUESTION, f"You ask: {LONG_QUESTION}", True))
    assert finding("KD003", feedback)["status"] == "passed"


def test_kd003_does_not_apply():
    assert finding("KD003", feedback_table())["status"] == "not_applicable"


# KD004: length


def test_kd004_fires_and_counts_per_label(words: str):
    feedback = feedback_table(("a b c", "d", True), ("a b c", "d", False), ("a b c", "d e f", False), ("a", "d", True))
    result = validate(feedback, tokenizer=words, max_prompt_tokens=2)
    assert result.actions() == dict.fromkeys(("1", "2", "3"), ("drop", "too_long"))
    result = finding("KD004", feedback, tokenizer=words, max_prompt_tokens=2)
    assert result["rows"] == 3
    assert "1 of 2 desirable, 2 of 2 undesirable rows" in result["text"]


def test_kd004_limits_the_sum_with_its_end_token(words: str):
    """3 + (1 + 1 for the end of text) = 5 tokens: a limit of 5 holds them, one of 4 does not."""
    feedback = feedback_table(("a b c", "d", True))
    assert validate(feedback, tokenizer=words, max_tokens=5).actions() == {}
    assert validate(feedback, tokenizer=words, max_tokens=4).actions() == {"1": ("drop", "too_long")}


def test_kd004_silent(words: str):
    assert finding("KD004", feedback_table(GOOD), tokenizer=words, max_completion_tokens=5)["status"] == "passed"


def test_kd004_does_not_apply_without_a_limit(words: str):
    assert finding("KD004", feedback_table(GOOD), tokenizer=words)["status"] == "not_applicable"


def test_tokens_of_text_conversations_and_refused_conversations(words: str):
    """Row 2: "user user says assistant assistant says user user says assistant" is 3 turns of 3 words and the opened answer: 10."""
    feedback = feedback_table(
        ("a b c", "d e", True),
        {"prompt": "a", "completion": "d", "label": False, "turns": talk("user", "assistant", "user")},
        {"prompt": "a", "completion": "d", "label": False, "turns": talk("robot")},
        ("a b c", "d", True),
    )
    result = validate(feedback, tokenizer=words)
    assert result.columns["prompt_tokens"].to_list() == [3, 10, None, 3]
    assert result.columns["completion_tokens"].to_list() == [3, 2, 2, 2]
    assert result.metrics["tokens"]["refused_by_template"] == 1


def test_a_limit_without_a_tokenizer_and_a_tokenizer_that_is_none(tmp_path):
    with pytest.raises(SettingError, match="max_prompt_tokens counts tokens"):
        validate(feedback_table(GOOD), max_prompt_tokens=10)
    with pytest.raises(ModelError, match="cannot read the tokenizer"):
        validate(feedback_table(GOOD), tokenizer=str(tmp_path))


# KD005: last turn


def test_kd005_fires():
    row = {"prompt": "x", "completion": "y", "label": True, "turns": talk("system")}
    assert finding("KD005", feedback_table(row, GOOD))["rows"] == 1


def test_kd005_silent_when_a_user_or_a_tool_speaks_last():
    rows = [{"prompt": "x", "completion": "y", "label": True, "turns": talk("user", role)} for role in ("user", "tool")]
    assert finding("KD005", feedback_table(*rows))["status"] == "passed"


def test_kd005_does_not_apply():
    assert finding("KD005", feedback_table(GOOD))["status"] == "not_applicable"


# KD006, KD007: labels


def test_kd006_fires():
    """10 of 11 rows are desirable: 90.9 %"""
    result = finding("KD006", feedback_table(*[GOOD] * 10, BAD))
    assert result["status"] == "issue"
    assert result["text"].startswith("90.9% of 11 rows are desirable")


def test_kd006_silent_at_exactly_nine_in_ten():
    assert finding("KD006", feedback_table(*[GOOD] * 9, BAD))["status"] == "passed"
    assert finding("KD006", feedback_table(*[BAD] * 9, GOOD))["status"] == "passed"


def test_kd006_does_not_apply():
    assert finding("KD006", feedback_table())["status"] == "not_applicable"


def test_kd007_fires():
    assert "all 2 rows are undesirable" in finding("KD007", feedback_table(BAD, BAD))["text"]


def test_kd007_silent():
    assert finding("KD007", feedback_table(GOOD, BAD))["status"] == "passed"


def test_kd007_does_not_apply():
    assert finding("KD007", feedback_table())["status"] == "not_applicable"


# KD008: pairs


def side(pair: str | None, label: bool) -> dict[str, Any]:
    return {"prompt": "sky?", "completion": "blue" if label else "red", "label": label, "pair_id": pair}


def test_kd008_fires():
    result = finding(
        "KD008", feedback_table(side("a", True), side("a", False), side("b", True), side("c", False), side("c", False))
    )
    assert (result["status"], result["rows"]) == ("issue", 3)


def test_kd008_silent():
    assert finding("KD008", feedback_table(side("a", True), side("a", False), side(None, True)))["status"] == "passed"


def test_kd008_does_not_apply():
    assert finding("KD008", feedback_table(GOOD))["status"] == "not_applicable"


@pytest.mark.shared
def test_the_pairs_of_hh_harmless_are_whole(shared):
    from ktodata.formats import read

    feedback = read(shared / "kto_hh_harmless.jsonl.gz", pair_id="pair").feedback
    assert finding("KD008", feedback)["status"] == "passed"
    assert finding("KD008", feedback.head(2823))["rows"] == 1
    assert finding("KD006", feedback)["status"] == "passed"


@pytest.mark.shared
def test_two_transcripts_of_hh_harmless_end_with_the_assistant(shared):
    from ktodata.formats import read

    result = validate(read(shared / "kto_hh_harmless.jsonl.gz", transcripts=True).feedback)
    reasons = result.decisions["reason"].value_counts().rows()
    assert ("no_turn_to_answer", 2) in reasons


# --- KD009: personal data ----------------------------------------------------------------------------------------------

PERSONAL = (
    {"row_id": "a" * 16, "prompt": "write to ann@example.org", "completion": "ann@example.org? done", "label": True},
    {"row_id": "b" * 16, "prompt": "hello", "completion": "call 212-555-0123", "label": False},
    {"row_id": "c" * 16, "prompt": "7 * 6?", "completion": "42", "label": True},
)


def look(pii: str, *rows: Any) -> Any:
    return validate(feedback_table(*(rows or PERSONAL)), pii=pii, pii_finder="patterns")  # type: ignore[arg-type]


def test_kd009_counts_by_kind_and_place_and_holds_no_text():
    result = look("count")
    assert result.metrics["pii"] == {
        "setting": "count",
        "finder": "ktodata's patterns",
        "looked_for": [
            *("email", "phone", "ip_address", "credit_card", "iban"),
            *("us_ssn", "api_key", "token", "private_key", "password_url"),
        ],
        "rows": 2,
        "kinds": {
            "email": {"prompt": 1, "completion": 1, "rows": 1, "row_ids": ["a" * 16]},
            "phone": {"prompt": 0, "completion": 1, "rows": 1, "row_ids": ["b" * 16]},
        },
    }
    assert result.tables["pii"].rows() == [
        ("a" * 16, "prompt", None, 9, 24, "email"),
        ("a" * 16, "completion", None, 0, 15, "email"),
        ("b" * 16, "completion", None, 5, 17, "phone"),
    ]
    assert result.actions() == {} and result.columns["pii_masks"].null_count() == 3
    told = finding("KD009", feedback_table(*PERSONAL), pii_finder="patterns")
    assert told["status"] == "issue" and told["rows"] == 2
    assert told["text"].startswith("2 of 3 rows hold personal data or keys (rows: 1 email, 1 phone). They are only counted")
    assert "ann@" not in str(result.metrics)


def test_kd009_masks_by_a_column_and_says_so_in_the_ledger():
    result = look("mask")
    masks = result.columns["pii_masks"].to_list()
    assert [mask["mask"] for mask in masks[0]] == ["<EMAIL_1>", "<EMAIL_1>"]
    assert [len(row) for row in masks] == [2, 1, 0]
    assert result.actions() == {"a" * 16: ("keep", "pii_masked"), "b" * 16: ("keep", "pii_masked")}
    assert result.decisions["evidence"].to_list() == ['{"kinds": "email", "spans": 2}', '{"kinds": "phone", "spans": 1}']


def test_kd009_quarantines_only_those_rows():
    assert look("quarantine").actions() == {"a" * 16: ("quarantine", "pii_found"), "b" * 16: ("quarantine", "pii_found")}


def test_kd009_stays_silent_and_says_when_it_did_not_look():
    clean = look("mask", GOOD, BAD)
    assert clean.metrics["pii"]["kinds"] == {} and clean.columns["pii_masks"].to_list() == [[], []]
    assert finding("KD009", feedback_table(GOOD, BAD))["status"] == "passed"
    off = look("off")
    assert off.metrics["pii"] == {"setting": "off"} and off.tables["pii"].is_empty()
    assert finding("KD009", feedback_table(*PERSONAL), pii="off")["status"] == "not_applicable"


def test_a_recipe_may_say_off():
    """Not the boolean that YAML once made of it."""
    step = load_recipe({"name": "x", "ingest": {"paths": "x.jsonl"}, "steps": [{"validate": {"pii": "off"}}]}).steps[0]
    assert step.settings["pii"] == "off"


def test_presidio_is_asked_for_by_name_and_told_when_it_is_not_there(monkeypatch):
    monkeypatch.setattr("ktodata.text.pii.presidio.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="presidio-analyzer"):
        validate(feedback_table(GOOD), pii_finder="presidio")
    assert validate(feedback_table(GOOD)).metrics["pii"]["finder"] == "ktodata's patterns"
