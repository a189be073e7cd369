"""The project's own sample feedback: about a thousand thumbs on short answers, with the truth kept beside it.

The raters are simulated; sample/README.md says how. `python -m tools.sample.make_sample`, in the repository, made the files.
"""

from pathlib import Path

__all__ = ["production_prompts_path", "sample_path", "short_sample", "truth_path"]

_FOLDER = Path(__file__).parent / "sample"


def sample_path() -> Path:
    """The thumbs, one JSON record a line: id, prompt, completion, thumb ("up" or "down"), user, ts, model."""
    return _FOLDER / "feedback.jsonl"


def truth_path() -> Path:
    """What is true of each record of the sample; to score with, never to train on."""
    return _FOLDER / "truth.jsonl"


def production_prompts_path() -> Path:
    """What the users of the imagined service ask, in its natural mix: the reference for coverage."""
    return _FOLDER / "production_prompts.jsonl"


def short_sample() -> Path:
    """The folder of the quickstart's sample: thumbs on whether an answer is short, its truth, reviews and held-out prompts."""
    return _FOLDER / "short"
