"""Ten tasks of an assistant through the protocol's own client, and what no tool may do."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import anyio
import pytest
from review_runs import HOSTILE, records, write_recipe

import ktodata as kd

pytest.importorskip("mcp")
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from ktodata.files import read_note, write_note
from ktodata.mcp.mcp_server import mcp_server

READING = {"label": {"column": "thumb", "up": True, "down": False}, "rater": "user", "source_id": "id"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with feedback, a recipe, a finished run of it; beside it, outside, a secret."""
    place = tmp_path_factory.mktemp("desk") / "allowed"
    place.mkdir()
    (place.parent / "secret.jsonl").write_text('{"prompt": "SECRET", "completion": "x", "label": true}\n' * 3)
    recipe = write_recipe(place) | {"name": "thumbs"}
    recipe["ingest"]["paths"] = ["feedback.jsonl"]
    recipe["steps"].append({"coverage": {}})
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ktodata.report.write_pages", lambda run: None)
        kd.run(place / "recipe.yaml", out=place / "runs" / "thumbs")
    return place


def calls(folder, *tools):
    """The answer to each (tool, arguments), from one server: JSON values, or the error's text."""

    async def ask():
        async with Client(mcp_server(folder)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in tools]

    return [answer.content[0].text if answer.is_error else answer.structured_content for answer in anyio.run(ask)]


def call(folder, name, **arguments):
    return calls(folder, (name, arguments))[0]


def a_row(folder):
    return kd.Run(folder / "runs" / "thumbs").ledger["row_id"][0]


def test_arguments_that_a_tool_does_not_know_or_needs_are_named(folder):
    answers = calls(
        folder, ("audit", {"source": "feedback.jsonl", "labels": "thumb"}), ("next_reviews", {"count": 3}), ("explain", {})
    )
    assert answers == [
        "audit has no argument 'labels'. Known: source, reading.",
        "next_reviews needs source; it takes source, count, reading.",
        "explain needs run and row_id; it takes run, row_id.",
    ]


def test_arguments_of_a_wrong_kind_are_named_without_the_checkers_own_words(folder):
    answers = calls(folder, ("inspect", {"file": ["a"]}), ("next_reviews", {"source": "feedback.jsonl", "count": "ten"}))
    assert answers[0] == "inspect: file must be a valid string; got ['a']."
    assert answers[1].startswith("next_reviews: count must be a valid integer") and "pydantic" not in answers[1]


def test_a_file_without_named_texts_is_answered_with_the_tool_that_names_them(folder):
    (folder / "odd.jsonl").write_text('{"q": "Why?", "a": "So.", "thumb": "up"}\n' * 3)
    answer = call(folder, "audit", source="odd.jsonl", reading={"label": {"column": "thumb", "up": True}})
    assert "the tool inspect names them" in answer and "kd.inspect" not in answer and "ktodata init" not in answer


def test_all_rows_that_the_headline_names_can_be_asked_for(folder):
    assert len(call(folder, "next_reviews", source="runs/thumbs", count=60)["rows"]) > 50


def test_task_1_what_is_in_this_file(folder):
    answer = call(folder, "inspect", file="feedback.jsonl")
    assert "thumb" in [column["column"] for column in answer["columns"]]
    assert "CHOOSE" in answer["recipe"], "what a label means is left to a person"


def test_task_2_can_the_labels_of_a_file_be_trusted(folder):
    answer = call(folder, "audit", source="feedback.jsonl", reading=READING)
    assert {one["given"] for one in answer["classes"]} == {"desirable", "undesirable"}
    assert "The tool next_reviews names 60 rows" in answer["headline"][-1]
    assert answer["p_wrong_was_measured"] is False
    assert answer["reading"]["rows"] == len(list(records())) - 1


def test_and_as_a_recipe_reads_and_audits_them(folder, monkeypatch):
    """Its meanings, its reviews, its steps; the model it would train is not asked for, and one that would be fetched is refused."""
    recipe = json.loads((folder / "recipe.yaml").read_text())
    judged = kd.Run(folder / "runs" / "thumbs").feedback.head(3).select("row_id", trusted_label="label")
    judged.write_csv(folder / "judged.csv")
    (folder / "own.yaml").write_text(json.dumps(recipe | {"reviews": "judged.csv", "train": {"model": "owner/name"}}))
    recipe["steps"].append({"hidden_states": {"model": "owner/name"}})
    (folder / "fetching.yaml").write_text(json.dumps(recipe))
    arguments = {"source": "own.yaml"}
    before = digests(folder)
    answer, rows, refused, both = calls(
        folder,
        ("audit", arguments),
        ("next_reviews", arguments | {"count": 5}),
        ("audit", {"source": "fetching.yaml"}),
        ("audit", arguments | {"reading": READING}),
    )
    assert digests(folder) == before
    for name in ("own.yaml", "fetching.yaml", "judged.csv"):
        (folder / name).unlink()
    assert answer["reading"]["rows"] == len(list(records())) - 1
    assert sum(one["reviewed"] for one in answer["classes"]) == 3
    assert answer["headline"][0].startswith("Can these labels be trusted?") and "`" not in answer["headline"][-1]
    assert not set(judged["row_id"]) & {row["row_id"] for row in rows["rows"]} and len(rows["rows"]) == 5
    assert "'owner/name' is not ktodata's own" in refused
    assert "reading is for a file" in both


def test_task_3_and_of_a_run(folder):
    answer = call(folder, "audit", source="runs/thumbs")
    assert answer["headline"][0].startswith("Can these labels be trusted?")
    assert answer["findings"]


def test_task_4_what_should_a_person_judge_next(folder):
    answer = call(folder, "next_reviews", source="runs/thumbs", count=5)
    assert len(answer["rows"]) == 5
    assert {row["p_wrong"] for row in answer["rows"]} == {None}, "without reviews a doubt is an order only"
    assert {row["why"] for row in answer["rows"]} == {"measures"}, "the random draw first, as at the desk"


def test_task_5_what_is_known_of_a_row(folder):
    row_id = a_row(folder)
    answer = call(folder, "explain", run="runs/thumbs", row_id=row_id)
    assert answer["row"]["row_id"] == row_id
    assert answer["measured"]["embed"]["prompt_embedding"].endswith("numbers")


def test_task_6_what_is_wrong_with_the_set(folder):
    answer = call(folder, "findings", run="runs/thumbs")
    assert len(answer["headline"]) == 5
    assert all(one["status"] == "issue" for one in answer["issues"])
    assert {one["stage"] for one in answer["others"]} >= {"dedupe", "label_noise"}


def test_task_7_which_prompts_are_covered(folder):
    assert call(folder, "coverage", run="runs/thumbs")["clusters"]


def test_task_8_what_would_a_recipe_do(folder):
    answer = call(folder, "dry_run", recipe="recipe.yaml")
    assert answer["stages"]["label_noise"] == "unchanged"
    assert answer["reading"]["rows"] == len(list(records())) - 1


def test_a_criterion_is_words_and_no_place(folder):
    """A recipe with a judge on this machine: its criterion may name what it likes. One behind an address is a service elsewhere."""
    recipe = json.loads((folder / "recipe.yaml").read_text())
    recipe |= {"name": "judged", "criterion": "/etc is not named, ../.. neither"}
    recipe["steps"].insert(0, {"judge": {"model": "m"}})
    (folder / "judged.yaml").write_text(json.dumps(recipe))
    answer = call(folder, "dry_run", recipe="judged.yaml")
    recipe["steps"][0]["judge"]["endpoint"] = "http://127.0.0.1:9/v1"
    (folder / "judged.yaml").write_text(json.dumps(recipe))
    refused = call(folder, "dry_run", recipe="judged.yaml")
    (folder / "judged.yaml").unlink()
    assert isinstance(answer, dict) and answer["stages"]["judge"].startswith("runs"), answer
    assert "is not in the allowed folder" in refused


def test_task_9_a_question_about_the_same_file_needs_no_second_audit(folder, monkeypatch):
    from ktodata.mcp import read_only_tools
    from ktodata.pipeline.runner import run_plan

    made = []
    monkeypatch.setattr(read_only_tools, "run_plan", lambda *args, **to: made.append(1) or run_plan(*args, **to))
    arguments = {"source": "feedback.jsonl", "reading": READING}
    answers = calls(
        folder, ("audit", arguments), ("next_reviews", arguments | {"count": 2}), ("next_reviews", arguments | {"count": 3})
    )
    assert [len(answer["rows"]) for answer in answers[1:]] == [2, 3]
    assert len(made) == 1


def test_task_10_over_standard_input_and_output(folder):
    """The command itself; what libraries print must not get between the messages."""
    server = StdioServerParameters(
        command=os.sys.executable,
        args=["-m", "ktodata", "mcp", str(folder)],
        env=dict(os.environ),
    )

    async def ask():
        async with Client(stdio_client(server)) as client:
            tools = (await client.list_tools()).tools
            answer = await client.call_tool("audit", {"source": "feedback.jsonl", "reading": READING})
            return tools, answer.structured_content

    tools, answer = anyio.run(ask)
    assert all(tool.annotations.read_only_hint for tool in tools)
    assert answer["classes"]


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_no_tool_writes_or_takes_a_verdict(folder):
    before = digests(folder)
    row = a_row(folder)

    async def everything():
        async with Client(mcp_server(folder)) as client:
            tools = (await client.list_tools()).tools
            values = {
                "file": "feedback.jsonl",
                "source": "runs/thumbs",
                "run": "runs/thumbs",
                "row_id": row,
                "recipe": "recipe.yaml",
            }
            for tool in tools:
                needed = {name: values[name] for name in tool.input_schema["required"]}
                assert not (await client.call_tool(tool.name, needed)).is_error, tool.name
            return tools

    tools = anyio.run(everything)
    assert digests(folder) == before
    assert {name for tool in tools for name in tool.input_schema["properties"]} == {
        *("file", "source", "reading", "count", "run", "row_id", "recipe")
    }


OUTSIDE = [
    "../secret.jsonl",
    "runs/../../secret.jsonl",
    "link.jsonl",
    "linked/secret.jsonl",
    "s3://bucket/x.jsonl",
    "~/x.jsonl",
    "a\0b",
]


@pytest.mark.parametrize("name", [*OUTSIDE, "/etc/passwd", "owner/hub-id", "*.jsonl", ".", "", "x" * 5000])
def test_nothing_outside_is_read(folder, name):
    make_links(folder)
    answers = calls(
        folder,
        ("inspect", {"file": name}),
        ("audit", {"source": name}),
        ("audit", {"source": f"{name}.yaml"}),
        ("findings", {"run": name}),
        ("dry_run", {"recipe": name}),
    )
    assert all(isinstance(answer, str) and "SECRET" not in answer for answer in answers)
    assert not any(str(folder) in answer for answer in answers), "where the folder lies is not said"


def make_links(folder: Path):
    if not (folder / "link.jsonl").is_symlink():
        (folder / "link.jsonl").symlink_to(folder.parent / "secret.jsonl")
        (folder / "linked").symlink_to(folder.parent)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"ingest": {"paths": [name]}}
            for name in (*OUTSIDE[:6], "../*.jsonl", "linked/*.jsonl", "**/secret.jsonl", "owner/name", ".")
        ),
        {"ingest": {"from": "langfuse", "url": "http://127.0.0.1:1", "project": "p"}},
        {"reviews": ["../secret.jsonl"]},
        {"telemetry": "../elsewhere"},
        {"steps": [{"embed": {"model": "../model"}}]},
        {"train": {"model": "/somewhere/model"}},
        {"steps": [{"dedupe": {"decontaminate": ["../secret.jsonl"]}}]},
    ],
)
def test_a_recipe_leads_nowhere_else(folder, change):
    make_links(folder)
    recipe = json.loads((folder / "recipe.yaml").read_text())
    recipe |= change | ({"ingest": {**READING, **change["ingest"]}} if "ingest" in change else {})
    (folder / "hostile.yaml").write_text(json.dumps(recipe))
    calls_of_it = [("dry_run", {"recipe": "hostile.yaml"})]
    calls_of_it += [] if "train" in change else [("audit", {"source": "hostile.yaml"})]  # an audit trains nothing
    answers = calls(folder, *calls_of_it)
    (folder / "hostile.yaml").unlink()
    assert all(isinstance(answer, str) and "SECRET" not in answer for answer in answers)


def test_a_run_with_a_link_out_is_not_read(folder, tmp_path):
    run = shutil.copytree(folder / "runs" / "thumbs", folder / "runs" / "linked_run")
    (run / "stages" / "ingest" / "extra.parquet").symlink_to(folder.parent / "secret.jsonl")
    answer = call(folder, "findings", run="runs/linked_run")
    shutil.rmtree(run)
    assert "outside the allowed folder" in answer


@pytest.mark.parametrize("name", ["../../../../outside", "/tmp", "..", "a/b", 7, ""])
def test_a_run_whose_manifest_names_a_place_elsewhere_is_not_read(folder, name):
    run = shutil.copytree(folder / "runs" / "thumbs", folder / "runs" / "forged")
    manifest = read_note(run / "manifest.json")
    manifest["stages"][0]["name"] = name
    write_note(run / "manifest.json", manifest)
    answers = calls(
        folder, *((tool, {"run": "runs/forged"}) for tool in ("findings", "coverage")), ("audit", {"source": "runs/forged"})
    )
    shutil.rmtree(run)
    assert all("is no run: its manifest calls a stage" in answer for answer in answers)


def test_strangers_words_hide_nothing_and_are_cut(folder):
    rows = kd.Run(folder / "runs" / "thumbs").feedback
    hostile = rows.filter(rows["source_id"].is_in([f"r{number}" for number in range(len(HOSTILE))]))["row_id"]
    answers = calls(folder, *(("explain", {"run": "runs/thumbs", "row_id": row_id}) for row_id in hostile))
    texts = json.dumps(answers, ensure_ascii=False)
    assert not {"\x1b", "\x07", "\u202e", "\u202d", "\u2066"} & set(texts)
    assert "the first 1,000 of 100,00" in texts
    assert max(len(answer["row"]["prompt"]) for answer in answers) < 1_100


@pytest.mark.parametrize("reading", [{"paths": ["/etc/passwd"]}, {"labels": "thumb"}, {"max_record_mb": "many"}])
def test_a_reading_that_is_not_one_is_refused_in_words(folder, reading):
    assert "reading" in call(folder, "audit", source="feedback.jsonl", reading=reading)


@pytest.mark.parametrize("count", [0, -1, 101, 10**9])
def test_a_count_that_is_none_is_refused(folder, count):
    assert "count is 1 to 100" in call(folder, "next_reviews", source="runs/thumbs", count=count)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(kd.KtodataError, match="there is no folder"):
        mcp_server(tmp_path / "none")
