"""Data for the page's own script: compressed JSON, in characters that mean nothing to HTML."""

import base64
import gzip
import json
from typing import Any


def encode_payload(values: Any) -> str:
    """JSON, gzip, base64; the same bytes for the same values. Texts must be clean: a lone surrogate cannot be written."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode("ascii")
