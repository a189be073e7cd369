"""Sharing a run's data set: what goes, what stays here, and when nothing goes at all. The Hub is one that runs here."""

import hashlib
import io
import json
import shutil

import polars as pl
import pytest
import yaml
from hub_stand_in import COMMIT, hubs
from typer.testing import CliRunner

from ktodata.cli import app
from ktodata.errors import DataError, ModelError, RunError, SettingError
from ktodata.files import read_note, write_note
from ktodata.pipeline.run_folder import Run
from ktodata.pipeline.self_training import run
from ktodata.pipeline.sharing import dataset_files, file_sizes, pii_in, pull_dataset, push_model
from ktodata.report.cards.croissant import croissant
from ktodata.train.data.training_rows import open_part

TOKEN = "hf_secret"
ADDRESS = "ann@example.org"


@pytest.fixture
def hub(monkeypatch):
    with hubs(monkeypatch) as start:
        yield start


def feedback(place, *, rater="u{}", last="thank you"):
    lines = [
        {"prompt": f"what is {n} and {n}?", "completion": f"it is {2 * n}", "label": n % 3 != 0, "user": rater.format(n % 4)}
        for n in range(60)
    ]
    lines.append({"prompt": f"write to {ADDRESS} please", "completion": last, "label": True, "user": "u1"})
    lines.append({"prompt": "what is 2 and 2?", "completion": "it is 4", "label": True, "user": "u2"})
    place.mkdir()
    (place / "thumbs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(place / "thumbs.jsonl")


def made(place, *, pii="mask", **given):
    recipe = {
        "name": "thumbs",
        "ingest": {"paths": feedback(place / "in", **given), "rater": "user"},
        "steps": [{"validate": {"pii": pii, "pii_finder": "patterns"}}, {"dedupe": {}}, {"split": {"test": 0.2}}],
        "export": {"license": "cc-by-4.0"},
    }
    return run(recipe, out=place / "run").folder


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory):
    return made(
        tmp_path_factory.mktemp("masked"), rater="u{}@example.org", last=f"I told Ann ({ADDRESS.upper()}, bob@example.org)"
    )


@pytest.fixture(scope="module")
def open_run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("open"), pii="count")


def test_the_shards_hold_placeholders_and_the_run_folder_the_text(masked_run):
    rows = pl.concat([pl.read_parquet(path) for path in sorted((masked_run / "shards").glob("*.parquet"))])
    row = rows.filter(pl.col("prompt").str.starts_with("write to")).row(0, named=True)
    assert (row["prompt"], row["completion"]) == ("write to <EMAIL_1> please", "I told Ann (<EMAIL_1>, <EMAIL_2>)")
    assert rows["rater"].unique().len() == 6  # four addresses, and u1 and u2 of the last rows
    assert not rows["rater"].str.contains("@").any()
    kept = pl.read_parquet(masked_run / "stages/ingest/columns.parquet").filter(pl.col("row_id") == row["row_id"])
    assert kept["prompt"].item() == f"write to {ADDRESS} please"
    assert json.loads((masked_run / "stages/export/metrics.json").read_text())["masked"] == {"rows": 1, "places": 3}


def test_the_ledger_says_which_rows_were_masked_and_how_often(masked_run):
    line = pl.read_parquet(masked_run / "ledger.parquet").filter(reason="pii_masked", stage="validate").row(0, named=True)
    assert line["action"] == "keep"
    assert json.loads(line["evidence"]) == {"spans": 3, "kinds": "email"}
    assert "They are masked in the shards; the texts in this run folder" in (masked_run / "report.html").read_text()


def test_what_is_sent_is_all_that_is_listed(hub, masked_run):
    server = hub()
    assert Run(masked_run).push("me/policy", token=TOKEN) == f"{server.address}/datasets/me/policy"
    assert set(server.files) == {
        "README.md",
        "croissant.json",
        "ledger.parquet",
        "shards/checksums.json",
        "shards/test-00000-of-00001.parquet",
        "shards/train-00000-of-00001.parquet",
        "shards/validation-00000-of-00001.parquet",
    }
    assert {name: len(content) for name, content in server.files.items()} == file_sizes(dataset_files(Run(masked_run)))
    train = masked_run / "shards/train-00000-of-00001.parquet"
    assert server.files["shards/train-00000-of-00001.parquet"] == train.read_bytes()
    assert server.made[0]["visibility"] == "private" and server.made[0]["type"] == "dataset"
    assert server.commits == ["/api/datasets/me/policy/commit/main"]
    assert server.tokens == {f"Bearer {TOKEN}"}


def test_what_was_pushed_is_pulled_checked_and_trained_on(hub, masked_run, tmp_path):
    server = hub()
    Run(masked_run).push("me/policy", token=TOKEN)
    server.files["notes.bin"] = b"not asked for"
    done = CliRunner().invoke(app, ["pull", "me/policy", "--out", str(tmp_path / "got"), "--json"])
    assert done.exit_code == 0, done.exception
    pulled = json.loads(done.stdout)
    assert pulled["revision"] == COMMIT
    assert set(pulled["files"]) == set(server.files) - {"notes.bin"}
    assert {name: (tmp_path / "got" / name).read_bytes() for name in pulled["files"]} == {
        name: server.files[name] for name in pulled["files"]
    }
    assert [path.name for path in tmp_path.iterdir()] == ["got"]
    of_both = [open_part(place, "train").places for place in (tmp_path / "got", masked_run)]
    assert [[path.name for path in places] for places in of_both] == 2 * [["train-00000-of-00001.parquet"]]
    with pytest.raises(SettingError, match="give a new folder"):
        pull_dataset("me/policy", tmp_path / "got")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda files: files.update({"shards/test-00000-of-00001.parquet": b"PAR1"}), RunError, "1 of 3 shards are not what"),
        (lambda files: files.update({"shards/train-00001-of-00002.parquet": b"PAR1"}), RunError, "1 of 3 shards are not what"),
        (lambda files: files.pop("shards/checksums.json"), RunError, "was not pushed by ktodata"),
        (lambda files: files.update({"shards/in/train.parquet": b"PAR1"}), RunError, "no checksum names, such as shards/in/"),
        (lambda files: files.update({"shards/../../evil.parquet": b"PAR1"}), ModelError, "cannot be pulled: Invalid filename"),
    ],
)
def test_what_is_not_whole_is_not_pulled(hub, masked_run, tmp_path, spoil, error, words):
    server = hub()
    Run(masked_run).push("me/policy", token=TOKEN)
    spoil(server.files)
    with pytest.raises(error, match=words):
        pull_dataset("me/policy", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_nobody_is_shown_is_said_so(hub, tmp_path):
    hub(404)
    with pytest.raises(SettingError, match=r"the Hub shows you no 'me/policy' \(status 404\)"):
        pull_dataset("me/policy", tmp_path / "got")
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_that_is_sent_has_no_evidence(masked_run):
    sent = pl.read_parquet(io.BytesIO(dataset_files(Run(masked_run))["ledger.parquet"]))
    assert sent.columns == ["row_id", "stage", "action", "reason"]
    assert sent.height == pl.read_parquet(masked_run / "ledger.parquet").height


def test_catalogues_are_told_what_the_shards_are(masked_run):
    described = json.loads(dataset_files(Run(masked_run))["croissant.json"])
    files = {one["@id"]: one for one in described["distribution"] if one["@type"] == "cr:FileObject"}
    for path in (masked_run / "shards").glob("*.parquet"):
        content = path.read_bytes()
        one = files[f"shards/{path.name}"]
        assert (one["sha256"], one["contentSize"]) == (hashlib.sha256(content).hexdigest(), f"{len(content)} B")
    assert described["license"] == "cc-by-4.0" and "train " in described["description"]
    train = next(one for one in described["recordSet"] if one["@id"] == "train")
    kinds = {one["source"]["extract"]["column"]: one["dataType"] for one in train["field"]}
    shard = pl.read_parquet_schema(masked_run / "shards/train-00000-of-00001.parquet")
    assert list(kinds) == list(shard) and (kinds["label"], kinds["weight"], kinds["prompt"]) == (
        "sc:Boolean",
        "sc:Float",
        "sc:Text",
    )


def test_turns_are_repeated_fields_and_an_odd_name_breaks_out_of_nothing():
    turns = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    shards = {"train-00000-of-00001.parquet": {"rows": 3, "bytes": 9, "sha256": "ab"}}
    schemas = {"train-00000-of-00001.parquet": pl.Schema({"prompt": turns})}
    described = croissant('a\n"b"', None, "2026-01-01", shards, schemas)
    assert described["name"] == 'a "b"' and "license" not in described
    ((field,),) = [one["field"] for one in described["recordSet"]]
    assert field["repeated"] is True
    assert [one["source"]["transform"]["jsonPath"] for one in field["subField"]] == ["[*].role", "[*].content"]


@pytest.mark.servers
def test_mlcommons_own_loader_reads_what_is_sent(masked_run, tmp_path):
    """mlcroissant, 1.1 when written."""
    import mlcroissant

    for name, content in dataset_files(Run(masked_run)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    rows = list(mlcroissant.Dataset(str(tmp_path / "croissant.json")).records("train"))
    sent = pl.read_parquet(tmp_path / "shards/train-00000-of-00001.parquet")
    assert [row["train/prompt"].decode() for row in rows] == sent["prompt"].to_list()


def test_the_card_that_is_sent_reads_as_a_card(masked_run):
    card = dataset_files(Run(masked_run))["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    assert ADDRESS not in card


def test_personal_data_is_refused_until_it_is_masked_or_allowed(hub, open_run):
    server = hub()
    with pytest.raises(
        DataError, match=r"email in prompt of 1 row \(first: [0-9a-f]{16}\)\. Nothing was sent\. Set validate: {pii: mask}"
    ) as raised:
        Run(open_run).push("me/policy", token=TOKEN)
    assert ADDRESS not in str(raised.value)
    assert not server.made and not server.files
    Run(open_run).push("me/policy", allow_pii=True, token=TOKEN)
    assert server.files


def test_personal_data_is_looked_for_in_messages_and_beside_the_texts_too(tmp_path):
    rows = {"row_id": ["a", "b"], "prompt_group": ["4111111111111111", "x"], "rater": [ADDRESS, "u2"]}
    rows["prompt"] = [[{"role": "system", "content": "be brief"}, {"role": "user", "content": text}] for text in ("hi", ADDRESS)]
    pl.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    assert pii_in([tmp_path / "train.parquet"]) == {("email", "rater"): (1, ["a"]), ("email", "prompt"): (1, ["b"])}


def test_nothing_goes_into_a_public_repository_unasked(hub, masked_run):
    server = hub(private=False)
    with pytest.raises(SettingError, match="everyone can read it"):
        Run(masked_run).push("me/policy", token=TOKEN)
    assert not server.files
    Run(masked_run).push("me/policy", private=False, token=TOKEN)
    assert server.made[-1]["visibility"] == "public" and server.files


def test_an_unfinished_run_is_refused(masked_run, tmp_path):
    folder = shutil.copytree(masked_run, tmp_path / "run")
    manifest = read_note(folder / "manifest.json")
    write_note(folder / "manifest.json", {**manifest, "status": "stopped after dedupe"})
    with pytest.raises(RunError, match=r"is not finished \(its status is 'stopped after dedupe'\)"):
        dataset_files(Run(folder))


def test_a_shard_that_is_not_what_export_wrote_is_refused(masked_run, tmp_path):
    folder = shutil.copytree(masked_run, tmp_path / "run")
    shard = next((folder / "shards").glob("train-*.parquet"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(RunError, match=r"1 of 3 shards are not what export wrote \(train-00000-of-00001\.parquet\)"):
        dataset_files(Run(folder))
    # other rows, with a checksum that fits them
    shard.write_bytes(whole)
    pl.read_parquet(shard).head(3).write_parquet(shard)
    checksums = json.loads((folder / "shards/checksums.json").read_text())
    checksums[shard.name]["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    (folder / "shards/checksums.json").write_text(json.dumps(checksums))
    with pytest.raises(RunError, match="1 of 3 shards are not what export wrote"):
        dataset_files(Run(folder))
    (folder / "shards/checksums.json").unlink()
    with pytest.raises(RunError, match=r"has no checksums\.json"):
        dataset_files(Run(folder))


def test_the_command_lists_and_sends_and_a_dry_run_only_lists(hub, masked_run):
    server = hub()
    listed = CliRunner().invoke(app, ["export", str(masked_run), "--push", "me/policy", "--dry-run"])
    assert listed.exit_code == 0 and "me/policy (private):" in listed.output and "nothing was sent" in listed.output
    assert not server.made
    as_json = CliRunner().invoke(app, ["export", str(masked_run), "--push", "me/policy", "--dry-run", "--json"])
    assert json.loads(as_json.stdout)["address"] is None and "ledger.parquet" in json.loads(as_json.stdout)["files"]
    sent = CliRunner().invoke(app, ["export", str(masked_run), "--push", "me/policy", "--public"])
    assert sent.exit_code == 0 and "me/policy (public):" in sent.output and "ledger.parquet" in sent.output
    assert server.made[0]["visibility"] == "public" and "ledger.parquet" in server.files


@pytest.mark.parametrize("given", [[], ["--out", "a.jsonl", "--push", "me/policy"]])
def test_the_command_wants_a_file_or_a_repository(given, masked_run):
    asked = CliRunner().invoke(app, ["export", str(masked_run), *given])
    assert asked.exit_code == 1 and "--out FILE to write a file, or --push OWNER/NAME" in str(asked.exception)


def test_a_models_card_tells_of_the_run_that_trained_it(hub, masked_run, tmp_path):
    server, folder = hub(), shutil.copytree(masked_run, tmp_path / "run")
    rows = pl.read_parquet(next((folder / "shards").glob("train-*.parquet"))).height
    (folder / "model").mkdir()

    def card(rows, pushed):
        facts = {"settings": {"model": "acme/base-1b"}, "train": {"rows": rows, "skipped_row_ids": ["secret-1"]}}
        write_note(folder / "model/training.json", facts)
        push_model(pushed, "me/policy", token=TOKEN)
        return server.files["README.md"].decode()

    for pushed in (folder, folder / "model"):
        told = card(rows - 1, pushed)
        assert "## The feedback that it learnt from" in told and "## What is not known" in told and "secret-1" not in told
        assert "places are masked by a placeholder" in told
    # other rows than those of the run
    told = card(rows + 7, folder)
    assert "The feedback that it learnt from" not in told and "made from the training alone" in told
