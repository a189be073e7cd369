"""The telemetry of an earlier training is found where it lies, and whatever else lies there is said."""

import polars as pl
import pytest

from ktodata.errors import EmptyDataError, FormatError, MissingColumnError
from ktodata.files import write_note
from ktodata.train.results.telemetry import SCHEMA
from ktodata.train.results.telemetry_file import COLUMNS, read_telemetry


def looks(rows=2):
    """As training writes them: at step 3, log-ratios 0, 1, ..."""
    lines = [
        {"row_id": f"r{n}", "part": "train", "epoch": 0, "step": 3, "label": True, "log_ratio": float(n)} for n in range(rows)
    ]
    table = pl.DataFrame(lines, schema_overrides={name: SCHEMA[name] for name in ("row_id", "part", "label")})
    rest = {name: pl.lit(1, dtype) for name, dtype in SCHEMA.items() if name not in table.columns}
    return table.with_columns(**rest).select(SCHEMA.names()).cast(SCHEMA)


def test_it_reads_what_training_writes():
    assert {name: SCHEMA[name] for name in COLUMNS.names()} == dict(COLUMNS)


def test_a_run_a_model_folder_and_the_file_are_the_same(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    looks().write_parquet(model / "telemetry.parquet")
    write_note(model / "training.json", {"settings": {"beta": 0.5}})
    results = [read_telemetry(place) for place in (tmp_path / "run", str(model), model / "telemetry.parquet")]
    assert {result.digest for result in results} == {results[0].digest}
    assert [result.beta for result in results] == [0.5] * 3
    assert results[0].metrics == {"lines": 2, "beta": 0.5, "beta_from": "training.json"}
    assert results[0].observations["log_ratio"].to_list() == [0.0, 1.0]


def test_without_training_json_beta_is_the_usual_one_and_that_is_said(tmp_path):
    looks().write_parquet(tmp_path / "telemetry.parquet")
    telemetry = read_telemetry(tmp_path)
    assert telemetry.beta == 0.1 and "no training.json" in telemetry.metrics["beta_from"]


def test_what_cannot_be_read_is_said(tmp_path):
    place = tmp_path / "telemetry.parquet"
    with pytest.raises(FormatError, match=r"holds no telemetry\.parquet, nor does its model/"):
        read_telemetry(tmp_path)
    with pytest.raises(FormatError, match=r"there is no .*telemetry\.parquet"):
        read_telemetry(place)
    place.write_bytes(b"PAR1 no PAR1")
    with pytest.raises(FormatError, match="no Parquet file that can be read"):
        read_telemetry(place)
    looks().drop("z0", "step").write_parquet(place)
    with pytest.raises(MissingColumnError, match="no column 'step', 'z0'"):
        read_telemetry(place)
    looks().clear().write_parquet(place)
    with pytest.raises(EmptyDataError, match="has no rows"):
        read_telemetry(place)
    looks().with_columns(log_ratio=pl.lit("<b>0.1")).write_parquet(place)
    with pytest.raises(FormatError, match="other values than training writes in 'log_ratio'"):
        read_telemetry(place)


@pytest.mark.parametrize("content", ["{", "{}", '{"settings": {"beta": null}}', '{"settings": {"beta": 0}}', '{"settings": []}'])
def test_a_damaged_training_json_is_not_guessed_at(tmp_path, content):
    looks().write_parquet(tmp_path / "telemetry.parquet")
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(FormatError, match=r"training\.json"):
        read_telemetry(tmp_path)
