"""Where many labels have no meaning, to give them one comes first: what is reviewed before that is another set."""

import json

import pytest

import ktodata as kd
from ktodata.report.headline import headline_text


@pytest.mark.parametrize(("n_unmapped", "first"), [(9, "Map the label's values."), (2, "Review rows.")])
def test_values_without_a_meaning_are_the_first_step_where_they_are_many(tmp_path, n_unmapped, first):
    thumbs = ["up", "down"] * 10 + ["it's fine", "-1", "-1 "][: min(n_unmapped, 3)] * (n_unmapped // min(n_unmapped, 3))
    rows = [{"prompt": f"Why {n}?", "completion": f"So {n}.", "thumb": thumb} for n, thumb in enumerate(thumbs)]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "thumb": "down"}]))
    label = {"column": "thumb", "up": True, "down": False}
    kd.run(
        {"name": "x", "ingest": {"paths": [str(tmp_path / "f.jsonl")], "label": label}, "steps": ["dedupe"]}, out=tmp_path / "run"
    )
    steps = headline_text(tmp_path / "run")[-1]
    assert f"do next? {first}" in steps
    if n_unmapped == 9:
        assert "9 records of 30 are out for want of that ('-1' 6, 'it''s fine' 3)" in steps
        assert "--CHOOSE -1 --CHOOSE 'it'\"'\"'s fine'" in steps and "'it''s fine': CHOOSE" in steps
