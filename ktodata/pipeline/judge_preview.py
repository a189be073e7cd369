"""What a recipe's judge would be asked, and what that costs, before anything runs: `ktodata run --dry-run`."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ktodata.labels.judges.judge_plan import JudgeCost
from ktodata.labels.judges.judge_run import cost_before
from ktodata.pipeline.reading_preview import ReadingPreview
from ktodata.pipeline.recipe import Recipe
from ktodata.pipeline.runner import rows_before


@dataclass(frozen=True)
class JudgePreview:
    """cost : None where the feedback is not known before a pull. at_most : of all rows that were read.

    lacks_key : the environment variable that api_key_env names is not set, which would end the run at this step
    """

    cost: JudgeCost | None
    at_most: bool
    lacks_key: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"at_most": self.at_most, "lacks_key": self.lacks_key, **({} if self.cost is None else asdict(self.cost))}

    def words(self) -> str:
        """In a sentence."""
        key = " The environment variable that api_key_env names is not set: the run would end here." if self.lacks_key else ""
        if self.cost is None:
            return f"judge: how many questions there will be is not known before the feedback is pulled.{key}"
        why = " (of all rows that were read: which of them are left, the stages before will say)" if self.at_most else ""
        return f"judge: {'at most ' if self.at_most else ''}{self.cost.words()}{why}.{key}"


def preview_judging(plan: Recipe, folder: Path, stages: Mapping[str, str], reading: ReadingPreview | None) -> JudgePreview | None:
    """None where the recipe has no judge, or its result is there and would be taken.

    folder : the run's. stages : whether each would run, as `preview_plan` says
    """
    step = next((step for step in plan.steps if step.name == "judge"), None)
    if step is None or stages["judge"] == "unchanged":
        return None
    name = step.settings.get("api_key_env")
    lacks_key = name is not None and not os.environ.get(name, "").strip()
    rows = rows_before(plan, folder, "judge")
    if rows is not None:
        return JudgePreview(cost_before(rows, step.settings), at_most=False, lacks_key=lacks_key)
    cost = None if reading is None else cost_before(reading.feedback, step.settings)
    return JudgePreview(cost, at_most=True, lacks_key=lacks_key)
