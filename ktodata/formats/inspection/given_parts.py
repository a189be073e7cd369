"""Parts that a source gives its rows: a data set's splits, or a column that names them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktodata.feedback import PARTS
from ktodata.formats.file_types.saved_data import parts_in_words
from ktodata.formats.inspection.column_profiles import column_at
from ktodata.formats.inspection.draft_lines import UNDECIDED, yaml_value

if TYPE_CHECKING:
    from ktodata.formats.inspection.inspection import Inspection

USUAL_NAMES = frozenset((*PARTS, "training", "valid", "val", "dev", "eval", "evaluation", "holdout", "held_out", "testing"))


@dataclass(frozen=True)
class GivenParts:
    """The parts with their rows (None: not counted); `column`: where they are named, None for a data set's own splits."""

    column: str | None
    sizes: Mapping[str, int | None]

    def text(self) -> str:
        """Their names and rows."""
        return parts_in_words(self.sizes)

    def step_lines(self) -> list[str]:
        """The step split of a recipe, with the choice to be made."""
        unknown = {name: UNDECIDED for name in self.sizes if name not in PARTS}
        kept = yaml_value({"given": unknown or True})
        joined = "with join_parts: true under ingest" if self.column is None else "with join_parts: true beside ingest's split"
        return [
            f"  # The source has parts: {self.text()}. Keep them, or deal all rows anew? One of these in place of {UNDECIDED}:",
            f"  #   - split: {kept}" + ("        a name is train, validation or test" if unknown else ""),
            f"  #   - split: {{validation: 0.05, test: 0.1}}        {joined}; what others report on as test is trained on",
            f"  - split: {UNDECIDED}",
        ]


def given_parts(inspection: "Inspection") -> GivenParts | None:
    """The parts of an inspected source, where it has several."""
    if inspection.shape.kind in ("saved_dataset", "hub"):
        is_one = inspection.settings.table is not None or len(inspection.shape.tables) < 2
        return None if is_one else GivenParts(None, inspection.shape.tables)
    for candidate in inspection.roles["split"][:1]:
        column = column_at(inspection.columns, candidate.column)
        names = {str(value): count for (_, value), count in column.counts.most_common()}
        if 1 < len(names) <= 12 and any(name.lower() in USUAL_NAMES for name in names):
            return GivenParts(candidate.column, names)
    return None
