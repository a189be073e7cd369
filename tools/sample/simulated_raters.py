"""The simulated raters of the sample, and their habits. Every rate is a fraction of the rater's own verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Habit = Literal["slip", "careless", "long_answers"]

# an answer with at least so many characters is "long" to the rater who likes long answers
LONG_CHARACTERS = 60


@dataclass(frozen=True)
class Rater:
    """One rater. With none of the habits the thumb is the truth.

    share : of all verdicts, in [0, 1].
    misses : P(up | the answer is wrong) when judging: the mistake is overlooked.
    faults : P(down | the answer is right) when judging.
    careless : share of verdicts that are a fair coin toss instead of a judgement.
    likes_long : share of verdicts that are up for a long answer and down for a short one, right or wrong.
    """

    name: str
    share: float
    misses: float
    faults: float
    careless: float = 0.0
    likes_long: float = 0.0

    def verdict(self, *, right: bool, completion: str, rng: Random) -> tuple[bool, Habit | None]:
        """(thumb up?, the habit that made the verdict); no habit means that the thumb is a sound judgement."""
        drawn = rng.random()
        if drawn < self.careless:
            return rng.random() < 0.5, "careless"
        if drawn < self.careless + self.likes_long:
            return len(completion) >= LONG_CHARACTERS, "long_answers"
        slips = rng.random() < (self.faults if right else self.misses)
        return right != slips, "slip" if slips else None


RATERS = (
    Rater("r1", share=0.24, misses=0.05, faults=0.01),
    Rater("r2", share=0.22, misses=0.08, faults=0.02),
    Rater("r3", share=0.18, misses=0.25, faults=0.01),  # quick to be content
    Rater("r4", share=0.14, misses=0.05, faults=0.05),  # a little strict
    Rater("r5", share=0.12, misses=0.05, faults=0.02, careless=0.30),
    Rater("r6", share=0.10, misses=0.05, faults=0.02, likes_long=0.25),
)


def choose_rater(rng: Random, raters: Sequence[Rater], *, but: str | None = None) -> Rater:
    """One of the raters by their shares, and not the one named `but`."""
    others = [rater for rater in raters if rater.name != but]
    return rng.choices(others, weights=[rater.share for rater in others])[0]
