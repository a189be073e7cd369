"""Who is asked, and how: checked before anything is asked, and without a word of what may be a key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ktodata.errors import SettingError
from ktodata.models import load_tokenizer, model_digest

MAX_WORDINGS = 3  # of a verdict: judge_questions.WORDINGS
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")  # a key has small letters, so that one given by mistake is not taken for a name
NOT_IN_A_REQUEST = ("api_key", "apikey", "authorization", "headers", "extra_headers")


@dataclass(frozen=True)
class JudgeSettings:
    """What an answer depends on beside the texts and the judge. Raises SettingError for what cannot be asked."""

    criterion: str
    votes: int = MAX_WORDINGS
    max_chars: int = 8_000
    max_answer_tokens: int = 16
    temperature: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.criterion.strip():
            raise SettingError("judge: criterion is empty. Say in words what makes a reply desirable.")
        for name in ("votes", "max_chars"):
            if getattr(self, name) < 1:
                raise SettingError(f"judge: {name} is a number of at least 1; got {getattr(self, name)}.")
        if self.votes > MAX_WORDINGS and self.temperature == 0:
            raise SettingError(
                f"judge: {self.votes} votes, but {MAX_WORDINGS} wordings, and at temperature 0 a wording is answered alike each "
                f"time. Give votes: {MAX_WORDINGS}, or a temperature above 0."
            )
        if secret := sorted(name for name in self.extra if name.lower() in NOT_IN_A_REQUEST):
            raise SettingError(
                f"judge: extra: {secret[0]} does not belong in a recipe, which is copied into every run. A key goes into an "
                "environment variable: api_key_env."
            )


@dataclass(frozen=True)
class JudgeSource:
    """A model behind an address (endpoint), or on this machine (None). Raises SettingError, showing nothing that may be a key."""

    model: str
    endpoint: str | None = None
    api_key_env: str | None = None
    timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise SettingError("judge: model is empty: name the endpoint's model, or a local one.")
        if self.endpoint is not None:
            _check_address(self.endpoint)
        if self.api_key_env is not None and not VARIABLE.fullmatch(self.api_key_env):
            raise SettingError(
                "judge: api_key_env is the NAME of an environment variable, in capitals, digits and _, as OPENAI_API_KEY. What "
                "was given is none, and is not shown here, as it may be a key."
            )

    @property
    def name(self) -> str:
        """As raters are named: of a folder its own name, without the way there."""
        place = Path(self.model)
        return place.name if self.endpoint is None and place.is_dir() else self.model

    def identity(self, settings: JudgeSettings, *, fetch: bool = True) -> dict[str, Any]:
        """What sets its answers apart from another judge's: an address, or the content that a local name stands for.

        fetch : a hub id that is not on this machine is fetched (its tokenizer), as its commit is not known before
        """
        if self.endpoint is not None:
            return {"endpoint": self.endpoint.rstrip("/"), "model": self.model, "temperature": settings.temperature}
        if fetch and model_digest(self.model) == f"{self.model} ":
            load_tokenizer(self.model)
        return {"model": self.name, "content": model_digest(self.model)}


def settings_in(values: Mapping[str, Any]) -> tuple[JudgeSource, JudgeSettings]:
    """Both, from the settings of a recipe's step, defaults included. Raises SettingError."""
    if values["criterion"] is None:
        raise SettingError(
            "judge: criterion is missing: say in words what makes a reply desirable, once for the recipe (criterion: ...) or for "
            "this step."
        )
    given = {**values, "extra": dict(values["extra"] or {})}
    source, asking = ({each.name: given[each.name] for each in fields(what)} for what in (JudgeSource, JudgeSettings))
    return JudgeSource(**source), JudgeSettings(**asking)


def _check_address(base: str) -> None:
    """Raise SettingError, without the password, unless it is a host and a path."""
    try:
        address = urlsplit(base)
        host, _ = address.hostname, address.port
    except ValueError:
        address, host = urlsplit(""), None
    if not host or address.scheme not in ("http", "https") or "@" in address.netloc or address.query or address.fragment:
        raise SettingError(
            "judge: an endpoint is an address such as https://host/v1, without user, password or query; "
            f"got one of host {host!r}. Keys go into an environment variable: api_key_env."
        )
