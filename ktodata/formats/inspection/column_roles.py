"""Which columns look like prompt, completion, conversation, label, rater, time, id or model, each with its evidence.

The evidence is the values and the name; neither says what a label's values mean, and nothing here does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ktodata.formats.format import ENTRIES
from ktodata.formats.inspection.column_profiles import ColumnProfile
from ktodata.formats.inspection.list_places import is_last, is_vote_list
from ktodata.formats.label_rules import by_sense
from ktodata.formats.times import moment, time_formats

Role = Literal["messages", "prompt", "completion", "label", "rater", "created_at", "source_id", "model", "split"]
ROLES: tuple[Role, ...] = ("messages", "prompt", "completion", "label", "rater", "created_at", "source_id", "model", "split")

MAX_LABEL_VALUES = 11  # a scale from 0 to 10
MAX_NAMED_VALUES = 40  # words, in whatever spellings, of a column that is named so: more are comments
MAX_LABEL_CANDIDATES = 6
MIN_SHARE = 0.9
MIN_LABELLED = 20  # of a column whose name says nothing; in fewer records any column has few values
MAX_AGAIN = 0.05  # of an id's values: a source that sends a record twice has its id twice
MIN_TEXT_CHARS = 20  # on average; of shorter texts a share of MIN_SENTENCES must be sentences
MIN_SENTENCES = 0.25
MIN_EPOCH = 3e8  # seconds, 1979: a smaller number is a duration, or a date written as 20250301
_WORDS = {
    "prompt": "prompt question instruction query input inputs request user_message user_input ask problem",
    "completion": "completion answer response output outputs reply generation generated assistant result prediction text_out",
    "label": "label labels rating thumb thumbs feedback score scores vote verdict good bad quality grade reward correct accepted "
    "approved helpful like liked preference winner preferred better choice "
    "desirable kto_tag sentiment reaction satisfaction csat pass passed is_good value",
    "rater": "rater annotator reviewer judge user userid user_id uid author worker annotator_id labeler labeller evaluator "
    "rated_by completed_by customer member",
    "created_at": "created_at created timestamp ts date time datetime rated_at judged_at updated_at at when "
    "submitted_at start_time",
    "source_id": "id uuid row_id record_id eval_id trace_id run_id example_id conversation_id message_id request_id key",
    "model": "model model_id model_name model_version engine llm",
    "split": "split partition fold subset",
}
# of an entry that has a name (scores[name=thumb].value) only these can be the verdict
ENTRY_VALUES = (".value", ".stringValue", ".score", ".rating", ".choices.0", ".label", ".avg", ".value.rating", ".selected")
_NAMES = {role: frozenset(words.split()) for role, words in _WORDS.items()}
# named so, a column of few values is no verdict
_OTHER = frozenset(("language", "lang", "locale", "country", "status", "type", "object", "version", "index", "source"))
_CALLED = frozenset(("id", "uuid", "name", "email", "version"))
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class RoleCandidate:
    """A column that may have a role, and why. `is_named`: its name speaks for it, too."""

    role: Role
    column: str
    is_named: bool
    evidence: str
    place: str = ""  # which entry of a list it is, where the list has several


def column_roles(columns: Sequence[ColumnProfile], n_records: int) -> dict[Role, list[RoleCandidate]]:
    """The candidates for each role, the likeliest first."""
    candidates: dict[Role, list[RoleCandidate]] = {role: [] for role in ROLES}
    for column in columns:
        if column.n_values and (not column.n_repeated or "[" in column.path):
            for candidate in _roles_of(column, n_records):
                candidates[candidate.role].append(candidate)
    for role, of_role in candidates.items():
        of_role.sort(key=_likeliest_first)
        candidates[role] = of_role[: MAX_LABEL_CANDIDATES if role == "label" else 4]
    return candidates


def _likeliest_first(candidate: RoleCandidate) -> tuple[bool, int, bool]:
    """Of the entries of a list the judged answer is likelier the last than the first."""
    is_earlier = candidate.role == "completion" and not is_last(candidate.column)
    return not candidate.is_named, _depth(candidate.column), is_earlier


def _depth(path: str) -> int:
    return path.count(".")


def names_role(path: str, role: str) -> bool:
    """Whether the last names of a path are words for a role: `user_id`, `userId`, `meta.user`, `scores[name=thumb].value`.

    What a person or a model is called says nothing alone: of `user.id` and `model.name` the name before it decides.
    """
    names = [snake_name(name) for name in re.split(r"[.\[\]=]", path) if name and not name.lstrip("-").isdigit()]
    owner = names[-2] if len(names) > 1 and names[-1] in _CALLED else ""
    if any(owner in _NAMES[named] for named in ("rater", "model")):
        return owner in _NAMES[role]
    last = re.sub(r"_\d+$", "", names[-1]) if names else ""  # vote_1, vote_2
    return last in _NAMES[role] or _is_compound(last, role)


def snake_name(name: str) -> str:
    """`userId` and `User ID` as `user_id`."""
    return "_".join(part.lower() for part in _PART.findall(name)) or name.lower()


def _is_compound(name: str, role: str) -> bool:
    """`user_feedback` and `thumb_value`, but not `user_language`: the last word that says anything decides."""
    parts = name.split("_")
    return len(parts) > 1 and role in ("label", "created_at", "completion", "prompt") and parts[-1] in _NAMES[role]


def _roles_of(column: ColumnProfile, n_records: int) -> list[RoleCandidate]:
    if column.share_of("conversation", "conversation as JSON text") >= MIN_SHARE:
        return [_conversation_candidate(column)]
    if column.share_of("turn", "turn as JSON text") >= MIN_SHARE:
        return [_turn_candidate(column)]
    roles = [*_time_candidates(column), *_names_of_things(column, n_records)]
    if is_vote_list(column.path):
        return [] if roles else _label_candidates(column)
    if is_last(column.path):  # beside its own place it would be counted twice
        return _text_candidates(column)
    if not roles:
        roles = _label_candidates(column)
    if not roles:
        roles = _text_candidates(column)
    return roles


def _conversation_candidate(column: ColumnProfile) -> RoleCandidate:
    is_text = column.types["conversation as JSON text"] > 0
    n_conversations = column.types["conversation"] + column.types["conversation as JSON text"]
    share = column.n_assistant_last / n_conversations
    ends = "all end" if share == 1 else f"{column.n_assistant_last:,} of them end"
    how_many = f"{n_conversations:,} of {column.n_values:,} values are conversations"
    evidence = f"{how_many}{' as JSON text' if is_text else ''}; {ends} with the assistant's turn"
    if share >= 0.5:
        role: Role = "completion" if names_role(column.path, "completion") else "messages"
        return RoleCandidate(role, column.path, True, evidence)
    return RoleCandidate("prompt", column.path, True, evidence)


def _turn_candidate(column: ColumnProfile) -> RoleCandidate:
    is_answer = 2 * column.n_assistant_last >= column.n_values
    whose = (
        f"{column.n_assistant_last if is_answer else column.n_values - column.n_assistant_last:,} of {column.n_values:,} values"
    )
    evidence = f"{whose} are single turns of {'the assistant' if is_answer else 'others than the assistant'}"
    return RoleCandidate("completion" if is_answer else "prompt", column.path, True, evidence)


def _text_candidates(column: ColumnProfile) -> list[RoleCandidate]:
    """Texts, some of which may be turns: prompt or completion by name, or, where they are long and differ, either."""
    if column.share_of("number", "boolean", "time"):
        return []
    sides: tuple[Role, ...] = ("prompt", "completion")
    what = f"text, {column.mean_chars:,.0f} characters on average" if len(column.types) == 1 else column.type_text()
    what, place = what + (f"; {column.place}" if column.place else ""), column.place
    named = [role for role in sides if names_role(column.path, role)]
    if named:  # of several entries no name says which is the judged one
        return [RoleCandidate(role, column.path, not place, f"its name; {what}", place) for role in named]
    is_text = column.n_distinct is None or column.n_distinct > MAX_LABEL_VALUES
    is_text = is_text and (column.mean_chars >= MIN_TEXT_CHARS or _are_short_sentences(column))
    return [RoleCandidate(role, column.path, False, what, place) for role in sides] if is_text else []


def _are_short_sentences(column: ColumnProfile) -> bool:
    """Whether short texts are words that somebody wrote, and no ids or names: most differ, and some have several words."""
    texts = [value for kind, value in column.counts if kind is str]
    n_sentences = sum(" " in text.strip() for text in texts)
    return 2 * column.n_again < column.n_values and MIN_SENTENCES * len(texts) < n_sentences


def _time_candidates(column: ColumnProfile) -> list[RoleCandidate]:
    """Dates and ISO texts are times whatever their name; numbers only under a name that says so."""
    is_named = names_role(column.path, "created_at")
    is_number = column.share_of("number") >= MIN_SHARE
    if column.share_of("time") >= MIN_SHARE:
        return [RoleCandidate("created_at", column.path, is_named, f"{column.n_values:,} times")]
    values = [value for _, value in list(column.counts)[:50]]
    if not values or (is_number and not is_named) or column.types["boolean"]:
        return []
    readable = sum(moment(value) is not None and not (is_number and value < MIN_EPOCH) for value in values)
    if readable >= MIN_SHARE * len(values):
        if not is_named and not all(isinstance(value, str) and "-" in value for value in values):
            return []
        return [RoleCandidate("created_at", column.path, is_named, _times_text(readable, len(values)))]
    if is_named and column.n_distinct != 1 and any(char.isdigit() for value in values for char in str(value)):
        return [RoleCandidate("created_at", column.path, False, _other_times_text(values, readable))]
    return []


def _other_times_text(values: Sequence[object], readable: int) -> str:
    if formats := time_formats(values):
        return f"its name; all of {len(values):,} different values read as {' or '.join(formats)}"
    return f"its name; but {_times_text(readable, len(values))}"


def _times_text(readable: int, n_values: int) -> str:
    return f"{readable:,} of {n_values:,} different values read as times"


def _names_of_things(column: ColumnProfile, n_records: int) -> list[RoleCandidate]:
    if column.share_of("text", "number") < MIN_SHARE or (column.types["text"] and column.mean_chars > 80):
        return []
    distinct = "over 1,000" if column.n_distinct is None else f"{column.n_distinct:,}"
    is_unique = column.n_values > 1 and not column.n_again
    evidence = f"its name; {distinct} different value{'s' * (distinct != '1')} in {column.n_values:,}"
    for role in ("model", "split", "rater"):
        if names_role(column.path, role) and not (role == "rater" and is_unique and names_role(column.path, "source_id")):
            return [RoleCandidate(role, column.path, True, evidence)]
    if names_role(column.path, "source_id"):
        is_id = column.n_values > 1 and column.n_again <= MAX_AGAIN * column.n_values
        again = f"{column.n_again:,} of {column.n_values:,} values stood before" if column.n_again else "no value twice"
        return [RoleCandidate("source_id", column.path, is_id, f"its name; {again}")]
    return []


def _label_candidates(column: ColumnProfile) -> list[RoleCandidate]:
    """A scalar of few values. What they mean is not asked here: a name or a type cannot say it."""
    is_scalar = column.share_of("text", "number", "boolean") == 1
    is_list = is_vote_list(column.path)
    is_named = _names_label(column.path)
    n_distinct = column.n_distinct
    is_number = column.share_of("number") == 1 or is_number_text(column)
    if "[" in column.path and not is_list and not column.path.endswith(ENTRY_VALUES):
        return []
    few = n_distinct is not None and (_n_words(column) <= MAX_LABEL_VALUES or (is_named and _are_few_words(column)))
    if not is_scalar or not (few or (is_named and is_number)) or snake_name(column.path.rpartition(".")[2]) in _OTHER:
        return []
    if not is_named and (n_distinct == 1 or not _are_like_verdicts(column)):
        return []
    if few and column.mean_chars > 40:
        return []
    how_many = "numbers" if not few else "one value" if n_distinct == 1 else f"{n_distinct:,} different values"
    reason = f"its name; {how_many}" if is_named else f"{how_many} in {column.n_holders:,} records"
    of_list = f"lists of {column.sizes.in_words()} values, each as a vote; " if is_list and column.sizes else ""
    return [RoleCandidate("label", column.path, is_named, of_list + reason)]


def _names_label(path: str) -> bool:
    """Whether a path is called as verdicts are; of a list also in the plural: `votes[]`."""
    if is_vote_list(path):
        return any(names_role(name, "label") for name in (path, path.removesuffix(ENTRIES).removesuffix("s")))
    return names_role(path, "label") or ("[" in path and path.endswith(ENTRY_VALUES))


def _are_like_verdicts(column: ColumnProfile) -> bool:
    """Whether values whose name says nothing may be verdicts: booleans, or of enough records.

    A list that never has a value twice is one of tags: several things said of a text.
    """
    if column.share_of("boolean") == 1:
        return True
    has_repeats = column.sizes is not None and column.sizes.has_repeats
    return column.n_holders >= MIN_LABELLED and (has_repeats or not is_vote_list(column.path))


def _n_words(column: ColumnProfile) -> int:
    """How many different values it has, a value in several spellings (4, "4", "4.0") counting once."""
    return len(by_sense((value, count) for (_, value), count in column.counts.items()))


def _are_few_words(column: ColumnProfile) -> bool:
    """Whether its values are few words that come again and again, each in any spelling; the hand that wrote them may be free."""
    n_words = _n_words(column)
    return n_words <= MAX_NAMED_VALUES and 2 * n_words <= column.n_values


def is_number_text(column: ColumnProfile) -> bool:
    """Whether a column of text holds numbers, as every CSV's does."""
    values = [value for kind, value in column.counts if kind is str]
    return bool(values) and all(map(is_number, values))


def is_number(value: object) -> bool:
    """Whether a value is a finite number, or text that is one."""
    if isinstance(value, str):
        return re.fullmatch(r"[+-]?\d{1,15}([.,]\d{1,15})?", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def as_number(value: object) -> float:
    """The number that a value is, or that its text says, with a point or a comma: what `is_number` allows."""
    return float(str(value).replace(",", "."))
