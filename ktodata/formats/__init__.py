"""Feedback as others write it down, in and out: `read`, `write`, `convert`, and every format by name.

What survives the way out and back in is `Format.holds`; `write` says what did not. Ratings (ultrafeedback, helpsteer) are
written only for rows that still have theirs; logs and exports (langfuse, langsmith, label_studio, argilla) only where the label
is what the votes say; pairs (trl_paired, hh_rlhf, preference) only where both sides are there.
"""

from ktodata.formats.dialects import FORMATS
from ktodata.formats.reading import IngestResult, read
from ktodata.formats.writing import Written, convert, write

__all__ = ["FORMATS", "IngestResult", "Written", "convert", "read", "write"]
