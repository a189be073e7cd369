"""Presidio's recognisers, where presidio-analyzer is installed: what has a form, and names of people with a spaCy model."""

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from ktodata.errors import MissingExtraError
from ktodata.text.pii.patterns import Span

Finder = Callable[[str], list[Span]]
# what these find beyond ktodata's own patterns: telephone numbers as eight countries write them at home, and wallets
BY_FORM = ("PhoneRecognizer", "CryptoRecognizer")
KINDS = {"PHONE_NUMBER": "phone", "CRYPTO": "crypto_wallet", "PERSON": "person"}
MIN_SCORE = 0.4  # what Presidio gives a telephone number without a word beside it that says so
PIECE = 100_000  # characters; spaCy refuses texts from a million on
SIZES = ("sm", "md", "lg", "trf")


def presidio(*, names: bool = False) -> tuple[Finder, str] | None:
    """A finder and what it is, in words; None when presidio-analyzer is not installed. Nothing is downloaded.

    names : also names of people, by a spaCy model of English. Raises MissingExtraError when they are asked for and Presidio or
        a model is not installed.
    """
    if find_spec("presidio_analyzer") is None:
        if names:
            raise MissingExtraError("pii_finder: presidio needs presidio-analyzer: pip install presidio-analyzer")
        return None
    recognisers, what = _by_form(), f"presidio-analyzer {version('presidio-analyzer')}"
    if not names:
        return (lambda text: _in_pieces(text, lambda piece: _each(recognisers, piece))), f"{what}, without names"
    model = _model()
    engine = _engine(model)

    def recognise(piece: str) -> list[Any]:
        people = engine.analyze(piece, language="en", entities=["PERSON"], score_threshold=MIN_SCORE)
        return [*people, *_each(recognisers, piece)]

    return (lambda text: _in_pieces(text, recognise)), f"{what} with {model}"


def _model() -> str:
    """An installed spaCy model of English; the largest first."""
    from spacy.util import get_installed_models

    models: list[str] = [name for name in get_installed_models() if name.startswith("en_core_web_")]
    if not models:
        raise MissingExtraError(
            "pii_finder: presidio looks for names with a spaCy model of English, and none is installed: "
            "python -m spacy download en_core_web_lg"
        )
    return max(models, key=lambda name: next((rank for rank, size in enumerate(SIZES) if f"_{size}" in name), -1))


def _engine(model: str) -> Any:
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    of_english = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    return AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=of_english).create_engine(), supported_languages=["en"])


def _by_form() -> list[Any]:
    import presidio_analyzer.predefined_recognizers as known

    return [getattr(known, name)() for name in BY_FORM]


def _each(recognisers: list[Any], text: str) -> list[Any]:
    per_recogniser = [each.analyze(text, entities=each.supported_entities, nlp_artifacts=None) or [] for each in recognisers]
    return [result for results in per_recogniser for result in results if result.score >= MIN_SCORE]


def _in_pieces(text: str, recognise: Callable[[str], list[Any]]) -> list[Span]:
    return [
        Span(start + result.start, start + result.end, KINDS[result.entity_type])
        for start in range(0, len(text), PIECE)
        for result in recognise(text[start : start + PIECE])
        if result.entity_type in KINDS
    ]
