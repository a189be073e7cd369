"""Rows that no trainer can use are dropped, rows that look wrong are shown to a person, and what the table lacks is said.

code    what is wrong                                               what happens to the rows
KD001   the prompt is empty or white space                          drop    empty_prompt
KD002   the completion is empty or white space                      drop    empty_completion
KD003   the completion starts with the whole prompt                 review  prompt_in_completion
KD004   more tokens than the target model is to be given            drop    too_long
KD005   the conversation does not end with a turn to be answered    review  no_turn_to_answer
KD006   one label holds more than nine rows in ten                  none: rebalance acts on it
KD007   every label is the same                                     none: training refuses it
KD008   a pair has lost a side                                      none: KTO reads single rows
KD009   a text holds personal data, a key or a password             as `pii` says: none, masked in the shards, or quarantine

KD003 is for review: the verdict was on the answer, and cutting the prompt off keeps it; dropping would lose it. Prompts under
MIN_REPEATED_CHARS are passed over, since "Hello" is a natural beginning of an answer to "Hello". What is decided here holds for
held-out rows too.

pii: count says how many and where (stages/validate/pii.parquet: row_id, field, position, kind; never the text). mask lets export
write <EMAIL_1> in its place, the same for the same value within a row; what the run folder holds stays as it came, as no stage
rewrites text. quarantine leaves the rows out. What is looked for, and how it is told: text/pii/patterns.py.
"""

from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field

from ktodata.errors import SettingError
from ktodata.feedback import LABEL_NAMES, TEMPLATE_FIELDS, TURN, check_columns, check_row_ids
from ktodata.findings import Finding, issue, not_applicable, passed
from ktodata.formats.turns import answer_turn, row_turns
from ktodata.models import load_tokenizer
from ktodata.stage import StageResult, decide, no_decisions
from ktodata.stages.template_checks import check_end_token, check_markup, check_template, check_unknown, rendered
from ktodata.text.pii.masks import MASKS, SPANS, counted_once, masks_column, pii_spans
from ktodata.text.pii.patterns import KINDS
from ktodata.text.pii.presidio import presidio
from ktodata.train.data.encoding import message_of, not_for_templates, template_options
from ktodata.work_done import working_on

NEEDS = ("prompt", "completion", "label", "turns", "source_line")
USES = ("pair_id", "answer", *TEMPLATE_FIELDS)
TOKEN_COUNTS = ("prompt_tokens", "completion_tokens")
ADDS = (*TOKEN_COUNTS, "pii_masks")
APPLIES_TO = "all"

MORE = {"answer": TURN, **dict.fromkeys(TEMPLATE_FIELDS, pl.String())}  # what makes a row more than text
MIN_REPEATED_CHARS = 20
MAX_OF_ONE_LABEL = 0.9
ANSWERED_ROLES = ("user", "tool")  # an assistant also answers what a tool gave back
TOKENIZER_BATCH = 1000
ROWS_NAMED = 20  # rows of each kind whose row_id stands in the metrics

Pii = Literal["count", "mask", "quarantine", "off"]
Finder = Literal["auto", "patterns", "presidio"]
Tokens = Annotated[int | None, Field(ge=1, description="tokens; longer rows are dropped; needs a tokenizer")]


def validate(
    feedback: pl.DataFrame,
    *,
    tokenizer: Annotated[
        str | None, Field(description="model whose tokens are counted: hub id, folder or packaged name; none: no counts")
    ] = None,
    max_prompt_tokens: Tokens = None,
    max_completion_tokens: Tokens = None,
    max_tokens: Annotated[
        int | None,
        Field(ge=1, description="tokens of prompt and completion together; longer rows are dropped; needs a tokenizer"),
    ] = None,
    pii: Annotated[
        Pii, Field(description="what to do about personal data and keys: count, mask in the shards, quarantine their rows")
    ] = "count",
    pii_finder: Annotated[
        Finder,
        Field(description="auto: patterns, with Presidio's own where it is installed; presidio: names of people too, far slower"),
    ] = "auto",
) -> StageResult:
    """Count tokens, decide on rows that cannot or should not be used as they are, and report on the table as a whole."""
    check_columns(feedback, ("row_id", *NEEDS), who="validate")
    check_row_ids(feedback, who="validate")
    settings = {"prompt_tokens": max_prompt_tokens, "completion_tokens": max_completion_tokens, "tokens": max_tokens}
    limits = {name: limit for name, limit in settings.items() if limit is not None}
    if limits and tokenizer is None:
        raise SettingError(
            f"validate: max_{next(iter(limits))} counts tokens, so say which tokenizer: the model that will be trained."
        )
    feedback = feedback.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in MORE.items() if name not in feedback.columns
    )
    loaded = load_tokenizer(tokenizer) if tokenizer else None
    working_on(f"counting tokens of {feedback.height:,} rows" if loaded else f"checking {feedback.height:,} rows")
    rows = feedback.select("prompt", "completion", "turns", *MORE).iter_rows(named=True)
    templated = [_in_template(row, loaded) for row in rows]
    table = _uncounted(feedback) if loaded is None else feedback.with_columns(_token_counts(feedback, loaded, templated))
    table = table.with_columns(tokens=pl.col("prompt_tokens") + pl.col("completion_tokens"))
    working_on(f"looking for personal data in {feedback.height:,} rows")
    spans, finder = _find_pii_spans(feedback, pii, pii_finder)
    row_checks = _row_checks(limits)
    findings = [check(table) for check in (check_empty_prompt, check_empty_completion, check_repeated_prompt)]
    findings += [check_length(table, limits), check_last_turn(table)]
    findings += [check(table) for check in (check_label_balance, check_one_class, check_pairs)]
    findings += [check_pii(feedback, spans, pii), check_markup(feedback, loaded)]
    findings += [check_template(feedback, loaded, [prompt for prompt, _ in templated]), check_unknown(feedback, loaded)]
    findings.append(check_end_token(loaded))
    masks = masks_column(table["row_id"], spans) if pii == "mask" else table.select("row_id", pii_masks=pl.lit(None, MASKS))
    return StageResult(
        columns=table.join(masks, on="row_id", how="left", maintain_order="left").select("row_id", *ADDS),
        decisions=pl.concat([*(decide(table, where, **how) for where, how in row_checks), _decide_on_pii(spans, pii)]),
        metrics={
            "findings": [finding.as_dict() for finding in findings],
            "tokens": _length_metrics(table, tokenizer, limits),
            "pii": _pii_metrics(spans, pii, finder),
        },
        tables={"pii": spans.drop("mask")},
    )


# --- what is wrong with a row: expressions, true where it is -------------------------------------------------------------


def _blank(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars().str.len_chars() == 0


def _repeats_prompt() -> pl.Expr:
    # of a conversation, what a careless template repeats is its last turn
    last_turn = pl.coalesce(pl.col("turns").list.last().struct.field("content"), "prompt").str.strip_chars()
    long_enough = last_turn.str.len_chars() >= MIN_REPEATED_CHARS
    answer = pl.coalesce(pl.col("answer").struct.field("content"), "completion")  # without its reasoning
    return long_enough & answer.str.strip_chars_start().str.starts_with(last_turn)


def _no_turn_to_answer() -> pl.Expr:
    role = pl.col("turns").list.last().struct.field("role")
    return role.is_not_null() & ~role.is_in(ANSWERED_ROLES)


def _too_long(limits: dict[str, int]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *(pl.col(name) > limit for name, limit in limits.items()))


def _row_checks(limits: dict[str, int]) -> list[tuple[pl.Expr, dict[str, Any]]]:
    return [
        (_blank("prompt"), {"action": "drop", "reason": "empty_prompt"}),
        (_blank("completion"), {"action": "drop", "reason": "empty_completion"}),
        (_repeats_prompt(), {"action": "review", "reason": "prompt_in_completion"}),
        (_too_long(limits), {"action": "drop", "reason": "too_long", "evidence": ["prompt_tokens", "completion_tokens"]}),
        (_no_turn_to_answer(), {"action": "review", "reason": "no_turn_to_answer"}),
    ]


# --- findings: one function a code -------------------------------------------------------------------------------------


def check_empty_prompt(feedback: pl.DataFrame) -> Finding:
    """KD001: the prompt is empty or white space."""
    return _about_rows("KD001", feedback, _blank("prompt"), "have an empty prompt; they are dropped")


def check_empty_completion(feedback: pl.DataFrame) -> Finding:
    """KD002: the completion is empty or white space. Some trainers read it as an undesirable row, whatever its label."""
    return _about_rows("KD002", feedback, _blank("completion"), "have an empty completion; they are dropped")


def check_repeated_prompt(feedback: pl.DataFrame) -> Finding:
    """KD003: the completion starts with the whole prompt."""
    text = "have a completion that starts with the whole prompt; cut it off where they were exported, or review them"
    return _about_rows("KD003", feedback, _repeats_prompt(), text)


def check_length(feedback: pl.DataFrame, limits: dict[str, int]) -> Finding:
    """KD004: more tokens than allowed, counted per label, since dropping mostly one label changes what is learnt."""
    if not limits:
        return not_applicable("KD004", "no max_prompt_tokens, max_completion_tokens or max_tokens is set")
    if feedback.is_empty():
        return not_applicable("KD004", "the table has no rows")
    long = feedback.filter(_too_long(limits))
    if long.is_empty():
        return passed("KD004")
    shares = ", ".join(
        f"{long.filter(label).height:,} of {feedback.filter(label).height:,} {name}"
        for name, label in (("desirable", pl.col("label")), ("undesirable", ~pl.col("label")))
    )
    exceeded = ", ".join(f"max_{name} {limit:,}" for name, limit in limits.items())
    return issue("KD004", f"{shares} rows are longer than {exceeded}; they are dropped.", long.height)


def check_last_turn(feedback: pl.DataFrame) -> Finding:
    """KD005: the conversation does not end with a turn to be answered."""
    conversations = feedback.filter(pl.col("turns").is_not_null())
    if conversations.is_empty():
        return not_applicable("KD005", "no row is a conversation")
    words = "are conversations that end with a turn that is neither the user's nor a tool's"
    return _about_rows("KD005", conversations, _no_turn_to_answer(), words)


def check_label_balance(feedback: pl.DataFrame) -> Finding:
    """KD006: one label holds more than nine rows in ten."""
    if feedback.is_empty():
        return not_applicable("KD006", "the table has no rows")
    share = feedback.select(pl.col("label").mean()).item()
    if 1 - MAX_OF_ONE_LABEL <= share <= MAX_OF_ONE_LABEL:
        return passed("KD006")
    return issue(
        "KD006", f"{share:.1%} of {feedback.height:,} rows are desirable. rebalance suggests loss weights for the rarer label."
    )


def check_one_class(feedback: pl.DataFrame) -> Finding:
    """KD007: every label is the same, so that there is nothing to tell apart."""
    if feedback.is_empty():
        return not_applicable("KD007", "the table has no rows")
    if feedback["label"].n_unique() == 2:
        return passed("KD007")
    only = LABEL_NAMES[feedback["label"][0]]
    return issue(
        "KD007", f"all {feedback.height:,} rows are {only}. Check what the label setting maps; KTO needs both.", feedback.height
    )


def check_pairs(feedback: pl.DataFrame) -> Finding:
    """KD008: a pair has lost a side, so that paired methods (DPO, ORPO) cannot use it."""
    if "pair_id" not in feedback.columns or feedback["pair_id"].null_count() == feedback.height:
        return not_applicable("KD008", "no row is one side of a pair")
    paired = feedback.filter(pl.col("pair_id").is_not_null())
    one_sided = paired.filter(pl.col("label").n_unique().over("pair_id") < 2)
    if one_sided.is_empty():
        return passed("KD008")
    text = f"{one_sided.height:,} of {paired.height:,} paired rows lack the other side of their pair; KTO reads them, DPO cannot."
    return issue("KD008", text, one_sided.height)


def _about_rows(code: str, feedback: pl.DataFrame, wrong: pl.Expr, text: str) -> Finding:
    if feedback.is_empty():
        return not_applicable(code, "the table has no rows")
    count = feedback.filter(wrong).height
    return issue(code, f"{count:,} of {feedback.height:,} rows {text}.", count) if count else passed(code)


# --- personal data and keys --------------------------------------------------------------------------------------------


def check_pii(feedback: pl.DataFrame, spans: pl.DataFrame, pii: Pii) -> Finding:
    """KD009: a text holds personal data, a key or a password."""
    if pii == "off":
        return not_applicable("KD009", "pii is off: personal data was not looked for")
    if feedback.is_empty():
        return not_applicable("KD009", "the table has no rows")
    rows = spans["row_id"].n_unique()
    if not rows:
        return passed("KD009")
    kinds = ", ".join(f"{counts['rows']:,} {kind.replace('_', ' ')}" for kind, counts in _pii_counts(spans).items())
    done = {
        "count": "They are only counted: pii: mask replaces them in the shards, pii: quarantine leaves their rows out.",
        "mask": "They are masked in the shards; the texts in this run folder, and its page, are as they came.",
        "quarantine": "Their rows are quarantined.",
    }
    return issue("KD009", f"{rows:,} of {feedback.height:,} rows hold personal data or keys (rows: {kinds}). {done[pii]}", rows)


def _find_pii_spans(feedback: pl.DataFrame, pii: Pii, pii_finder: Finder) -> tuple[pl.DataFrame, str]:
    """What was found where, and by what."""
    if pii == "off":
        return pl.DataFrame(schema=SPANS), "none"
    also = None if pii_finder == "patterns" else presidio(names=pii_finder == "presidio")
    finder, named = also or (None, "")
    return pii_spans(feedback, finder), " and ".join(filter(None, ("ktodata's patterns", named)))


def _decide_on_pii(spans: pl.DataFrame, pii: Pii) -> pl.DataFrame:
    """A row that is masked is kept, which the ledger says; of a conversation each place counts once, not again in its turns."""
    if pii not in ("mask", "quarantine"):
        return no_decisions()
    of_rows = spans.group_by("row_id", maintain_order=True).agg(
        spans=counted_once().sum(),
        kinds=pl.col("kind").unique().sort().str.join(", "),
    )
    every, evidence = pl.lit(value=True), ("spans", "kinds")
    if pii == "mask":
        return decide(of_rows, every, action="keep", reason="pii_masked", evidence=evidence)
    return decide(of_rows, every, action="quarantine", reason="pii_found", evidence=evidence)


def _pii_counts(spans: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """{kind: {prompt, completion: how many; rows; row_ids: the first}}, the most frequent kind first."""
    counts = spans.group_by("kind").agg(
        rows=pl.col("row_id").n_unique(),
        prompt=(pl.col("field") == "prompt").sum(),
        completion=(pl.col("field") == "completion").sum(),
        row_ids=pl.col("row_id").unique(maintain_order=True).head(ROWS_NAMED),
    )
    lines = counts.sort("rows", "kind", descending=[True, False]).select("kind", "prompt", "completion", "rows", "row_ids")
    return {line.pop("kind"): line for line in lines.iter_rows(named=True)}


def _pii_metrics(spans: pl.DataFrame, pii: Pii, finder: str) -> dict[str, Any]:
    if pii == "off":
        return {"setting": pii}
    return {
        "setting": pii,
        "finder": finder,
        "looked_for": list(KINDS),
        "rows": spans["row_id"].n_unique(),
        "kinds": _pii_counts(spans),
    }


# --- tokens ------------------------------------------------------------------------------------------------------------


def _uncounted(feedback: pl.DataFrame) -> pl.DataFrame:
    return feedback.with_columns(pl.lit(None, dtype=pl.Int32).alias(name) for name in TOKEN_COUNTS)


def _token_counts(feedback: pl.DataFrame, tokenizer: Any, templated: list[tuple[str | None, str | None]]) -> list[pl.Series]:
    """Tokens of each prompt (conversations in the chat template, with their tools) and of each completion with its end token.

    An answer that is more than text counts as the template writes it after its prompt.
    """
    end = int(tokenizer.eos_token_id is not None)
    prompts = _tokens_per_text(feedback["prompt"], tokenizer, special=True)
    answers = _tokens_per_text(feedback["completion"], tokenizer, special=False) + end
    if tokenizer.chat_template is not None:
        # the template has written the special tokens already; a conversation that it refuses has no count
        before, whole = (
            _tokens_per_text(pl.Series([texts[side] for texts in templated], dtype=pl.String), tokenizer, special=False)
            for side in (0, 1)
        )
        is_plain, is_text = (
            feedback.select(pl.all_horizontal(pl.col(*names).is_null())).to_series() for names in (("turns", *MORE), ("answer",))
        )
        prompts, answers = prompts.zip_with(is_plain, before), answers.zip_with(is_text, whole - before)
    return [prompts.alias("prompt_tokens"), answers.cast(pl.Int32).alias("completion_tokens")]


def _in_template(row: dict[str, Any], tokenizer: Any | None) -> tuple[str | None, str | None]:
    """The prompt of a row, and, where its answer is more than text, both; null where that is not asked for, or refused."""
    if tokenizer is None or not tokenizer.chat_template or all(row[name] is None for name in ("turns", *MORE)):
        return None, None
    turns, answer = [message_of(turn) for turn in row_turns(row)], [message_of(answer_turn(row))]
    options = template_options(row)
    if not_for_templates(options):
        return None, None
    prompt = rendered(turns, tokenizer, options)
    if not row["answer"]:
        return prompt, None
    whole = rendered(turns + answer, tokenizer, options, add_generation_prompt=False)
    return (None, None) if whole is None else (prompt, whole)


def _tokens_per_text(texts: pl.Series, tokenizer: Any, *, special: bool) -> pl.Series:
    """Tokens of each text; equal texts, as prompts with many answers are, are encoded once."""
    different = texts.drop_nulls().unique(maintain_order=True)
    batches = [different.slice(start, TOKENIZER_BATCH).to_list() for start in range(0, len(different), TOKENIZER_BATCH)]
    encoded = (tokenizer(batch, add_special_tokens=special, verbose=False)["input_ids"] for batch in batches)
    lengths = pl.Series([len(ids) for batch in encoded for ids in batch], dtype=pl.Int32)
    counts = pl.DataFrame({"text": different, "tokens": lengths})
    return texts.alias("text").to_frame().join(counts, on="text", how="left", maintain_order="left")["tokens"]


def _length_metrics(table: pl.DataFrame, tokenizer: str | None, limits: dict[str, int]) -> dict[str, Any]:
    if tokenizer is None or table.is_empty():
        return {"tokenizer": tokenizer}
    columns = {name: table[name] for name in (*TOKEN_COUNTS, "tokens")}
    spread = {name: {"median": values.median(), "longest": values.max(), "sum": values.sum()} for name, values in columns.items()}
    refused = table["prompt_tokens"].null_count()
    return {
        "tokenizer": tokenizer,
        "refused_by_template": refused,
        "limits": {f"max_{name}": limit for name, limit in limits.items()},
        **spread,
    }
