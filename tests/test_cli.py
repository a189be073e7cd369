"""The commands as typed: what they print, what they write, and how they end."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest
import typer

from ktodata import cli
from ktodata.files import write_note
from ktodata.pipeline.command_texts import row_text

AUDIT_HELP = """\
Usage: ktodata audit [OPTIONS] {FEEDBACK|RECIPE}

  Say how far the labels in FEEDBACK can be trusted, and which rows to look at
  first.

  Reads   any file that a recipe reads, a Hugging Face data set, or what a RECIPE names; verdicts with --reviews
  Writes  OUT/audit.parquet (label_quality for every row), OUT/audit.html, OUT/review.csv with --minutes

  Every setting of a recipe's `ingest:` can be given with --set. Fill in
  trusted_label in review.csv, and give it back with --reviews.

  Example:  ktodata audit thumbs.jsonl --label thumb --up up --down down --rater user_id --out audits/june
  Example:  ktodata audit support.yaml --minutes 30

Arguments:
  FEEDBACK|RECIPE <str>  What a recipe's paths may be, or a recipe (.yaml): it
                         says how to read.  [required]

Options:
  --out FOLDER                    The folder to write to.  [default: audit]
  --format <str>                  The format to read.  [default: (auto: each
                                  record by its looks)]
  --prompt COLUMN                 The column of the prompt; given again, they
                                  are joined.
  --completion COLUMN             The column of the completion; two are
                                  compared.
  --messages COLUMN               The column of whole conversations.
  --label <str>                   The column that holds the label.  [default:
                                  (label)]
  --up VALUE                      A value that means desirable, as JSON or
                                  text; give each.  [default: (true)]
  --down VALUE                    A value that means undesirable; give each.
                                  [default: (false)]
  --rater <str>                   The column that says who gave the label.
  --created-at COLUMN             The column that says when.
  --source-id COLUMN              The column of the record's own id.
  --source COLUMN                 The column that says where a row is from.
  --trusted COLUMN                An expert's labels, read as --label is; else
                                  --set 'trusted={column: NAME, VALUE: true}'.
  --reviews FILE                  People's verdicts (row_id, trusted_label);
                                  may be given again.
  --telemetry RUN|FILE            An earlier training on these rows: a run,
                                  its model/, or telemetry.parquet.
  --encoder <str>                 Sentence encoder: hub id, folder or packaged
                                  name.  [default: (packaged:wordllama-256)]
  --model <str>                   The language model to be trained: it reads
                                  each row once, which finds more.  [default:
                                  (none)]
  --min-precision <float range>   Flag only what is this likely to be wrong.
                                  [default: (0.8); 0<=x<=1]
  --noise-injection <float range>
                                  Share of labels flipped to measure the audit
                                  itself.  [default: (0.05); 0<=x<=0.4]
  --minutes <float range>         Minutes of review: write the rows they are
                                  best spent on.  [default: (none); x>=1]
  --seed <int range>              Same seed, same answer.  [default: (0);
                                  x>=0]
  --set A.B=C                     Change one setting; may be given again.
  -q, --quiet                     Print nothing but errors.
  --json                          The result as JSON on standard output,
                                  events on standard error.
  --help                          Show this message and exit.
"""


@pytest.fixture
def ktodata(monkeypatch, capsys):
    """Type a command; returns (exit code, standard output, standard error)."""

    def type_in(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ktodata", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return type_in


QUESTIONS = [
    "Can these labels be trusted",
    "What spoils this set",
    "What was done",
    "Did it help",
    "What should a person do next",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with feedback and a recipe that needs no model."""
    place = tmp_path_factory.mktemp("cli")
    rows = [
        {"id": n, "text": f"question {n} of many", "answer": f"reply {n * n}", "thumb": "up" if n % 3 else "down"}
        for n in range(60)
    ]
    rows.append({"id": 60, "text": "last", "answer": "[red]x[/red] \x1b[31m", "thumb": "meh"})
    rows.append({**rows[5], "id": 61})
    (place / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "recipe.yaml").write_text(
        "name: thumbs\n"
        "ingest: {paths: [thumbs.jsonl], prompt: text, completion: answer, label: {column: thumb, up: true, down: false}}\n"
        "steps: [validate, dedupe, {split: {test: 0.2}}, rebalance]\n"
    )
    return place


def test_help_reads_like_a_manual(ktodata):
    code, out, _ = ktodata("audit", "--help")
    assert code == 0
    assert [line.rstrip() for line in out.strip().splitlines()] == AUDIT_HELP.strip().splitlines()


def test_every_command_has_an_example_that_names_it(ktodata):
    _, out, _ = ktodata("--help")
    for command in typer.main.get_command(cli.app).commands:
        assert f"  {command} " in out
        code, told, _ = ktodata(command, "--help")
        assert code == 0 and f"Example:  ktodata {command} " in told


def test_every_command_can_be_read_by_a_script_and_be_silent():
    commands = dict(typer.main.get_command(cli.app).commands)
    del commands["mcp"]  # what it says on standard output is the protocol's
    options = {name: {option for parameter in command.params for option in parameter.opts} for name, command in commands.items()}
    assert len(options) == 17
    assert [name for name, there in options.items() if not {"--json", "--quiet"} <= there] == []


def test_with_json_standard_output_holds_one_value(ktodata, folder):
    run = folder / "scripted"
    words = {
        "run": ("run", folder / "recipe.yaml", "--out", run),
        "report": ("report", run),
        "export": ("export", run, "--out", folder / "scripted.jsonl"),
        "convert": ("convert", folder / "scripted.jsonl", folder / "again.jsonl"),
        "init": ("init", folder / "scripted-recipe"),
    }
    values = {}
    for name, typed in words.items():
        code, out, _ = ktodata(*typed, "--json")
        assert code == 0, name
        values[name] = json.loads(out)
    assert values["report"] == {"page": str(run / "report.html")}
    assert values["export"]["records"] == values["convert"]["records"] > 30
    assert values["init"] == {"recipe": str(folder / "scripted-recipe" / "recipe.yaml")}
    for typed in (words["report"], words["export"], ("explain", run, pl.read_parquet(run / "ledger.parquet")["row_id"][0])):
        assert ktodata(*typed, "--quiet")[:2] == (0, "")


def test_run_explain_export(ktodata, folder):
    run = folder / "run"
    code, out, _ = ktodata("run", folder / "recipe.yaml", "--out", run)
    assert code == 0 and "report.html" in out
    repeat = pl.read_parquet(run / "ledger.parquet").filter(pl.col("reason") == "repeat").row(0, named=True)
    code, out, _ = ktodata("explain", run, repeat["row_id"])
    assert code == 0 and "outcome: drop" in out and f"caused by row {repeat['caused_by']}" in out
    assert "label as exported: none (dropped: repeat)" in out and not any(line.endswith(": ") for line in out.splitlines())
    assert ktodata("explain", run, "61")[1] == out  # by the record's own id
    code, out, _ = ktodata("explain", run, repeat["row_id"], "--json")
    ended = ktodata("explain", run, "none\x1b[31m", "--json")
    error = json.loads(ended[2])
    assert ended[:2] == (1, "") and error["kind"] == "error" and "no row 'none" in error["text"] and "\x1b" not in error["text"]
    assert json.loads(out)["row"]["source_id"] == "61"
    code, out, _ = ktodata("export", run, "--format", "llamafactory_sharegpt", "--out", folder / "kto.jsonl")
    written = (folder / "kto.jsonl").read_text().splitlines()
    assert code == 0 and f"{len(written)} records" in out
    assert isinstance(json.loads(written[0])["kto_tag"], bool)


def test_run_for_scripts_and_dry(ktodata, folder):
    code, out, err = ktodata("run", folder / "recipe.yaml", "--out", folder / "json", "--json")
    events = [json.loads(line) for line in err.splitlines()]
    assert {"start", "progress", "done"} <= {event["kind"] for event in events}
    assert {"stage": "report", "kind": "progress", "text": "writing the page"}.items() <= events[-1].items()
    value = json.loads(out)
    assert code == 0 and value["rows"]["quarantined"] == 1
    assert [line.partition("?")[0] for line in value["headline"]] == QUESTIONS
    code, out, err = ktodata("run", folder / "recipe.yaml", "--out", folder / "json", "--quiet")
    assert (code, out, err) == (0, "", "")
    code, out, _ = ktodata("run", folder / "recipe.yaml", "--out", folder / "json", "--dry-run", "--set", "split.test=0.3")
    assert code == 0
    for options, says in ((["--workers", "2"], "give engine local or ray, too"), (["--engine", "loca"], "no engine 'loca'")):
        refused, _, reason = ktodata("run", folder / "recipe.yaml", "--out", folder / "json", *options)
        assert refused == 2 and says in " ".join(reason.split())
    reading, _, stages = out.partition("\n\n")  # how the feedback is read stands first: tests/cases/test_dry_run.py
    assert "records" in reading
    after = "runs: what it depends on runs"
    assert dict(line.split(maxsplit=1) for line in stages.splitlines()) == {
        "ingest": "unchanged", "validate": "unchanged", "dedupe": "unchanged", "split": "runs: settings changed", "rebalance": after,
        "export": after,
    }  # fmt: skip


def test_convert_round_trip(ktodata, folder):
    (folder / "in.jsonl").write_text(
        '{"prompt": "p", "completion": "c", "label": true}\n{"prompt": "p", "completion": 5, "label": true}\n'
    )
    code, out, _ = ktodata("convert", folder / "in.jsonl", folder / "swift.jsonl", "--to", "ms_swift")
    assert code == 0 and "1 records written" in out and "1 records not read" in out
    code, _, _ = ktodata("convert", folder / "swift.jsonl", folder / "back.jsonl", "--from", "ms_swift")
    assert code == 0
    assert json.loads((folder / "back.jsonl").read_text())["label"] is True


def test_convert_reads_labels_as_it_is_told(ktodata, folder):
    meaning = "label={column: thumb, up: true, down: false}"
    words = (
        "convert",
        folder / "thumbs.jsonl",
        folder / "out.jsonl",
        "--set",
        meaning,
        "--set",
        "prompt=text",
        "--set",
        "completion=answer",
    )
    code, out, _ = ktodata(*words)
    assert code == 0 and "61 records written" in out and "1 records not read: label_unmapped" in out
    assert [json.loads(line)["label"] for line in (folder / "out.jsonl").read_text().splitlines()][:4] == [
        False,
        True,
        True,
        False,
    ]


def test_init_gives_a_recipe_that_runs(ktodata, folder):
    code, out, _ = ktodata("init", folder / "mine")
    assert code == 0 and "recipe.yaml" in out
    rows = [{"prompt": f"question {n}", "completion": f"reply {n}", "label": n % 2 == 0} for n in range(20)]
    (folder / "mine" / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = ktodata("run", folder / "mine" / "recipe.yaml", "--dry-run", "--set", "ingest.paths=[rated.jsonl]")
    assert code == 0 and "label_noise" in out
    code, _, err = ktodata("init", folder / "mine")
    assert code == 1 and "is there already" in err


def test_init_from_a_file_gives_a_recipe_that_waits_for_the_labels_meaning(ktodata, folder):
    (folder / "export").mkdir()
    texts = "".join(f"Why {n}?;So {n}, and so.;{['up', 'down'][n % 2]};u{n % 3}\n" for n in range(24))
    (folder / "export" / "thumbs.txt").write_text(f"question;answer;thumb;user_id\n{texts}")
    recipe = folder / "recipes" / "thumbs.yaml"
    code, out, _ = ktodata("init", "--from", folder / "export" / "thumbs.txt", "--out", recipe)
    assert code == 0 and "thumb: 'up' 12, 'down' 12" in out and str(recipe) in out
    code, _, err = ktodata("run", recipe, "--out", folder / "refused")
    assert code == 1 and "CHOOSE" in err
    code, out, _ = ktodata("init", "--from", folder / "export" / "thumbs.txt", "--out", recipe)
    assert code == 1
    recipe.write_text(recipe.read_text().replace("up: CHOOSE", "up: true").replace("down: CHOOSE", "down: false"))
    code, out, _ = ktodata("run", recipe, "--out", folder / "chosen", "--until", "ingest", "--json")
    assert code == 0
    rows = pl.read_parquet(folder / "chosen" / "stages" / "ingest" / "columns.parquet")
    assert (rows.height, rows["label"].sum(), rows["rater"].n_unique()) == (24, 12, 3)


def test_init_from_a_file_takes_what_is_said_of_the_file(ktodata, folder):
    (folder / "odd.csv").write_bytes("prompt,completion,label\nž,b,1\n".encode("cp1250"))
    code, out, _ = ktodata(
        "init", "--from", folder / "odd.csv", "--out", folder / "odd.yaml", "--set", "encoding=cp1250", "--json"
    )
    assert code == 0 and json.loads(out)["columns"][0]["examples"] == "'ž'"
    assert "encoding: cp1250" in (folder / "odd.yaml").read_text()
    code, _, err = ktodata("init")
    assert code == 1 and "--from" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "nothing.yaml"), 1, "RecipeError: there is no recipe nothing.yaml"),
        (("explain", ".", "x"), 1, "RunError: . is not a run folder"),
        (("run",), 2, "Missing argument 'RECIPE'"),
        (("rum", "x"), 2, "No such command 'rum'"),
        (("audit", "x", "--min-precision", "50"), 2, "less than or equal to 1"),
        (("train", "nowhere", "--model", "m", "--set", "epocs=1"), 1, "Did you mean 'epochs'"),
    ],
)
def test_exit_codes(ktodata, words, code, said):
    ended, out, err = ktodata(*words)
    assert ended == code and said in err and out == ""


def test_explain_shows_control_signs_and_does_not_obey_them():
    """An escape sequence in a prompt must not colour, clear or retitle the reader's terminal."""
    row = {
        "row_id": "r",
        "source": "f",
        "source_line": 1,
        "prompt": "\x1b[2J[red]\x00",
        "completion": "\u202eabc" * 1000,
        "label": True,
    }
    row |= dict.fromkeys(("rater", "created_at", "model"))
    labels = {"read": "desirable", "exported": None, "why": "\x1b[2J"}
    story = row_text({"row": row, "labels": labels, "outcome": "keep", "measured": {}, "decisions": []})
    assert "label as read: desirable\nlabel as exported: none (\\x1b[2J)\n" in story
    assert "\x1b" not in story and "\x00" not in story and "\u202e" not in story
    assert "\\x1b[2J[red]\\x00" in story and "(4,000 characters)" in story


def test_push_uploads_the_model_of_a_run(ktodata, tmp_path, monkeypatch):
    asked = []

    def push(folder, repo, *, private, token, about_feedback):
        asked.append((folder, repo, private))
        return "the address"

    monkeypatch.setattr("ktodata.pipeline.sharing.push_to_hub", push)
    model = tmp_path / "model"
    model.mkdir()
    write_note(model / "training.json", {})
    assert ktodata("push", tmp_path, "team/one") == (0, "the address\n", "")
    assert ktodata("push", model, "team/one", "--public") == (0, "the address\n", "")
    assert asked == [(model, "team/one", True), (model, "team/one", False)]


@pytest.fixture
def dishes(tmp_path):
    """120 rows, every tenth label flipped; the prompts begin like formulas."""
    rows = [
        {
            "prompt": f"=cmd()|{n} how do I cook dish {n % 7}?",
            "completion": f"Heat pan {n % 5} and stir for {n} minutes."
            if n % 3
            else f"Sorry, nothing about dish {n % 7}, way {n}.",
            "label": (n % 3 > 0) ^ (n % 10 == 0),
        }
        for n in range(120)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "rows.jsonl"


def test_a_budget_writes_the_rows_it_is_best_spent_on(ktodata, dishes, tmp_path):
    code, out, _ = ktodata("audit", dishes, "--out", tmp_path / "out", "--minutes", "7")
    assert code == 0
    assert "7 minutes: 7 rows in" in out
    asked = pl.read_csv(tmp_path / "out" / "review.csv")
    assert asked.columns == [
        "row_id",
        "source_id",
        "label",
        "doubt",
        "p_wrong",
        "prompt",
        "completion",
        "why",
        "content",
        "trusted_label",
    ]
    assert asked.height == 7 and set(asked["why"]) == {"measures"}
    assert asked["prompt"].str.starts_with("'=").all()  # a spreadsheet shows it and does not run it


def judge(path, word):
    """Fill in the queue as somebody at a spreadsheet does, and count the rows."""
    asked = pl.read_csv(path, infer_schema=False)
    asked.with_columns(trusted_label=pl.lit(word)).write_csv(path)
    return asked["row_id"].to_list()


def test_what_was_asked_is_answered_and_asked_no_more(ktodata, dishes, tmp_path):
    """audit, fill in, audit again, run: a queue that was filled in stays as it is, and the next is of other rows."""
    out = tmp_path / "out"
    audit = ("audit", dishes, "--out", out, "--minutes", "5", "--noise-injection", "0")
    assert ktodata(*audit)[0] == 0
    assert ktodata(*audit)[0] == 0 and not (out / "review-2.csv").exists()  # nobody has judged yet: the same queue again
    first = judge(out / "review.csv", "flip")
    judged = (out / "review.csv").read_bytes()
    code, output, _ = ktodata(*audit, "--reviews", out / "review.csv")
    assert code == 0 and "5 rows reviewed, 5 with another verdict than the given label." in output and "review-2.csv" in output
    assert (out / "review.csv").read_bytes() == judged
    rows = dict(pl.read_parquet(out / "audit.parquet").select("row_id", "trusted_label").drop_nulls().iter_rows())
    given = dict(pl.read_parquet(out / "audit.parquet").select("row_id", "label").iter_rows())
    assert rows == {row_id: not given[row_id] for row_id in first}
    second = judge(out / "review-2.csv", "keep")
    assert len(second) == 5 and not set(second) & set(first)
    both = ("--reviews", out / "review.csv", "--reviews", out / "review-2.csv")
    code, output, _ = ktodata(*audit[:4], *audit[6:], *both, "--json")
    assert code == 0 and {name: json.loads(output)["verdicts"][name] for name in ("verdicts", "differ_from_label")} == {
        "verdicts": 10,
        "differ_from_label": 5,
    }
    assert json.loads(output)["trusted"]["rows"] == 10
    questions = [line.partition("?")[0] for line in json.loads(output)["headline"]]
    assert questions == [question for question in QUESTIONS if question != "Did it help"]  # an audit trains nothing
    (tmp_path / "recipe.yaml").write_text("name: dishes\ningest: {paths: [rows.jsonl]}\nsteps: [validate, dedupe]\n")
    run = ("run", tmp_path / "recipe.yaml", "--out", tmp_path / "run", *both)
    assert ["reviews", "runs:"] in [line.split()[:2] for line in ktodata(*run, "--dry-run")[1].splitlines()]
    code, output, _ = ktodata(*run)
    assert code == 0 and "10 rows reviewed, 5 with another verdict than the given label." in output
    code, output, _ = ktodata("explain", tmp_path / "run", first[0])
    assert code == 0 and "reviews: trusted_label=" in output


def test_what_an_earlier_training_saw_goes_into_an_audit(ktodata, dishes, tmp_path):
    """A model of these rows: it is no signal of its own until reviews show what it is worth."""
    assert ktodata("audit", dishes, "--out", tmp_path / "plain", "--noise-injection", "0")[0] == 0
    ids = pl.read_parquet(tmp_path / "plain" / "audit.parquet").select("row_id", "label")
    looks = ids.select(
        "row_id",
        part=pl.lit("train"),
        epoch=pl.lit(0, pl.Int32),
        step=pl.lit(1, pl.Int32),
        label="label",
        log_ratio=pl.when("label").then(1.0).otherwise(-1.0).cast(pl.Float32),
        z0=pl.lit(0.0, pl.Float32),
        completion_tokens=pl.lit(5, pl.Int32),
    )
    looks.write_parquet(tmp_path / "telemetry.parquet")
    code, _, _ = ktodata("audit", dishes, "--out", tmp_path / "out", "--telemetry", tmp_path / "telemetry.parquet", "--json")
    assert code == 0
    joined = pl.read_parquet(tmp_path / "out" / "stages" / "telemetry" / "columns.parquet")
    assert joined["training_dynamics"].count() == ids.height
    code, _, err = ktodata("audit", dishes, "--out", tmp_path / "out", "--telemetry", tmp_path / "none.parquet")
    assert code == 1 and "telemetry: there is no" in err


def test_verdicts_on_other_data_end_with_a_sentence(ktodata, dishes, tmp_path):
    (tmp_path / "r.csv").write_text("row_id,verdict\nnobody,good\n")
    code, out, err = ktodata("audit", dishes, "--out", tmp_path / "out", "--reviews", tmp_path / "r.csv")
    assert (code, out) == (1, "") and "DataError: reviews: none of 1 verdicts is on a row of the data" in err


@pytest.mark.parametrize(("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(own, policy):
    """Set before torch loads OpenMP, which reads it once."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | (
        {} if own is None else {"OMP_WAIT_POLICY": own}
    )
    code = "import ktodata, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [policy, "False"]


def test_the_command_line_itself_loads_nothing_heavy():
    """`ktodata --help` and a mistyped option answer at once: what a command needs it loads when it runs."""
    heavy = ("numpy", "polars", "scipy", "sklearn", "torch", "cleanlab", "datasets")
    code = f"import ktodata.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
