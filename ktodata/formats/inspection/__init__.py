"""What a file holds, before anything is read from it for good: its columns, what each may be, and a recipe to begin with."""

from ktodata.formats.inspection.inspection import Inspection, inspect

__all__ = ["Inspection", "inspect"]
