"""Pulling from each service: pages, what is new and changed, what is interrupted, and that it is read as what it is."""

import gzip
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from service_shapes import Argilla, Langfuse, Langsmith, Mlflow, OpenWebui
from stand_in import Answer

import ktodata as kd
from ktodata.errors import RunError, ServiceError, SettingError
from ktodata.formats.sources import SOURCES, source_named


def records_of(pulled):
    return [json.loads(line) for line in pulled.records.read_text().splitlines()]


def verdicts_of(service, pulled):
    """{question: (answer, verdict)} of what was pulled, as its format reads it."""
    feedback = kd.read(pulled.records, format=service.name, **service.settings).feedback
    return {row["prompt"]: (row["completion"], row["label"]) for row in feedback.iter_rows(named=True)}


def expected(service, numbers, changed=()):
    up = {"langfuse": 0, "mlflow": 0}.get(service.name, 1)
    return {f"Question {n}?": (f"Answer {n}.", (n % 2 == up) != (n in changed)) for n in numbers}


def page_bodies(folder):
    return [json.loads(gzip.decompress(path.read_bytes())) for path in sorted((folder / "pages").iterdir())]


def test_every_verdict_is_pulled_with_its_answer(service, pull_from):
    pulled = pull_from(service)
    assert (pulled.n_records, pulled.new, pulled.changed, pulled.earlier, pulled.left_out) == (5, 5, 0, 0, {})
    assert verdicts_of(service, pulled) == expected(service, range(5))


def test_pages_are_kept_as_they_came(service, pull_from, stand_in, tmp_path):
    pulled = pull_from(service)
    pages = page_bodies(tmp_path / "pulled")
    assert len(pages) == pulled.pages
    assert sorted(path.name for path in (tmp_path / "pulled/pages").iterdir()) == [
        f"{n + 1:06}.json.gz" for n in range(len(pages))
    ]
    for page in pages:
        assert page["url"].startswith(stand_in.url)
    assert {page["feed"] for page in pages} <= set(SOURCES[service.name].feeds)


def test_a_second_pull_adds_only_what_is_new_or_changed(service, pull_from, tmp_path):
    first = pull_from(service)
    before = first.records.read_bytes()
    again = pull_from(service)
    assert (again.new, again.changed, again.earlier, again.cursor) == (0, 0, 0, 2)
    assert again.records.read_bytes() == before
    service.add(5)
    service.change(1)
    third = pull_from(service)
    assert (third.n_records, third.new, third.changed) == (6, 1, 1)
    assert verdicts_of(service, third) == expected(service, range(6), changed={1})
    history = [json.loads(line) for line in (tmp_path / "pulled/history.jsonl").read_text().splitlines()]
    assert len(history) == third.earlier == 1
    assert pull_from(service).records.read_bytes() == third.records.read_bytes()


def test_what_a_verdict_is_about_is_not_asked_for_twice(pull_from, stand_in):
    service = stand_in.service = Langfuse()
    for number in range(5):
        service.add(number)
    pull_from(service)
    stand_in.requests.clear()
    pull_from(service)
    assert {request.path for request in stand_in.requests} == {"/api/public/v3/scores"}


class KilledError(Exception):
    pass


def killed(seconds):
    raise KilledError


def test_an_interrupted_pull_is_taken_up_where_it_stopped(service, pull_from, stand_in, tmp_path):
    whole = pull_from(service, tmp_path / "whole")
    n_requests = len(stand_in.requests)
    for stop in {0, n_requests // 2, n_requests - 1}:
        folder = tmp_path / f"stopped_after_{stop}"
        stand_in.requests.clear()
        stand_in.instead = [None] * stop + [Answer({}, 503)]
        with pytest.raises(KilledError):
            pull_from(service, folder, sleep=killed)
        answered = [request for request in stand_in.requests[:stop] if not isinstance(service(request), Answer)]
        stand_in.requests.clear()
        pulled = pull_from(service, folder)
        asked_again = [(request.path, request.query, request.json) for request in stand_in.requests]
        assert not [request for request in answered if (request.path, request.query, request.json) in asked_again]
        assert (pulled.new, pulled.cursor) == (5, 1)
        assert pulled.records.read_bytes() == whole.records.read_bytes()


def test_a_killed_process_leaves_only_whole_pages(stand_in, tmp_path, pull_from):
    service = stand_in.service = Langfuse()
    for number in range(5):
        service.add(number)
    stand_in.instead = [None, None, Answer({}, 503)]
    code = (
        "import os, signal, sys; from pathlib import Path; from ktodata.formats.sources import pull, source_named;"
        "pull(source_named('langfuse'), Path(sys.argv[1]), url=sys.argv[2], sleep=lambda s: os.kill(os.getpid(), signal.SIGKILL))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pulled"), stand_in.url]
    assert subprocess.run(command, check=False, env={**os.environ, **service.environment}).returncode == -signal.SIGKILL
    assert len(page_bodies(tmp_path / "pulled")) == 2
    assert not (tmp_path / "pulled/langfuse.jsonl").exists()
    stand_in.requests.clear()
    assert pull_from(service).new == 5
    assert [request.value("cursor") for request in stand_in.requests if request.path.endswith("scores")] == ["4"]


def test_an_old_interrupted_pull_is_begun_anew(pull_from, stand_in, tmp_path):
    service = stand_in.service = Langfuse()
    service.add(0)
    pull_from(service)
    note = tmp_path / "pulled/pull.json"
    started = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    note.write_text(json.dumps({**json.loads(note.read_text()), "finished": False, "started_at": started}))
    service.add(1)
    assert (pull_from(service).new, json.loads(note.read_text())["pull"]) == (1, 2)


def test_since_is_asked_for(pull_from, stand_in):
    service = stand_in.service = Langsmith()
    for number in range(5):
        service.add(number)
    assert pull_from(service, since="2026-10-01T03:00:00+00:00").n_records == 2
    asked_since = [request.value("min_created_at") for request in stand_in.requests if request.path == "/feedback"]
    assert asked_since == ["2026-10-01T03:00:00.000000Z"]


def test_since_where_the_service_has_no_such_filter(pull_from, stand_in):
    service = stand_in.service = OpenWebui()
    for number in range(5):
        service.add(number)
    pulled = pull_from(service, since=datetime.fromtimestamp(1790000003, UTC))
    assert (pulled.n_records, pulled.left_out) == (2, {"before since": 3})


def test_more_than_a_page_by_offset(pull_from, stand_in):
    service = stand_in.service = Langsmith()
    for number in range(230):
        service.add(number)
    assert pull_from(service).n_records == 230
    assert [request.value("offset") for request in stand_in.requests if request.path == "/feedback"] == ["0", "100", "200"]


def test_what_has_no_answer_is_counted(pull_from, stand_in):
    service = stand_in.service = Langfuse()
    for number in range(3):
        service.add(number)
    service.scores["s0"]["subject"] = {"kind": "session", "id": "x"}
    service.scores["s1"]["subject"] = {"kind": "trace", "id": "deleted"}
    pulled = pull_from(service)
    assert (pulled.n_records, pulled.left_out) == (1, {"score of a session": 1, "trace not there": 1})


def test_a_score_of_an_observation_is_a_record_of_it(pull_from, stand_in):
    service = stand_in.service = Langfuse()
    service.add(0)
    inner = {"id": "o9", "traceId": "t0", "isRootObservation": False, "parentObservationId": "o0"}
    service.observations["o9"] = {**inner, "input": '{"question": "Inner?"}', "output": "Yes."}
    service.scores["s9"] = {**service.scores["s0"], "id": "s9", "subject": {"kind": "observation", "id": "o9", "traceId": "t0"}}
    records = {record["id"]: record for record in records_of(pull_from(service))}
    assert set(records) == {"t0", "o9"}
    assert records["o9"]["input"] == {"question": "Inner?"}
    assert [score["id"] for score in records["o9"]["scores"]] == ["s9"]


def test_an_older_version_takes_no_newer_ones_place(pull_from, stand_in):
    service = stand_in.service = Langfuse()
    service.add(0)
    old = dict(service.scores["s0"])
    service.change(0)
    pull_from(service)
    service.scores["s0"] = {**old, "comment": "from a copy that lags behind"}
    pulled = pull_from(service)
    assert (pulled.changed, pulled.earlier) == (0, 1)
    assert records_of(pulled)[0]["scores"][0]["value"] is False


def test_a_folder_holds_what_one_place_gave(pull_from, stand_in, tmp_path):
    service = stand_in.service = Langsmith()
    service.add(0)
    pull_from(service)
    with pytest.raises(RunError, match="project"):
        pull_from(service, project="another")
    (tmp_path / "pulled/pages/000001.json.gz").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"000001\.json\.gz"):
        pull_from(service)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "https://user:pass@example.com"}, "LANGSMITH_API_KEY"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://example.com/?key=1"}, "url"),
        ({"project": None}, "project"),
        ({"project": "typo"}, "typo"),
        ({"since": "yesterday"}, "yesterday"),
        ({"environment": {}}, "LANGSMITH_API_KEY"),
    ],
)
def test_settings_that_cannot_be(settings, words, pull_from, stand_in):
    service = stand_in.service = Langsmith()
    with pytest.raises(SettingError, match=words) as error:
        pull_from(service, **settings)
    assert "user:pass" not in str(error.value)


def test_names_of_services_and_projects_that_are_not_there(pull_from, stand_in, tmp_path):
    with pytest.raises(SettingError, match="langfuse"):
        source_named("langfus")
    stand_in.service = Mlflow()
    with pytest.raises(SettingError, match="nope"):
        pull_from(stand_in.service, project="nope")
    stand_in.service = Argilla()
    with pytest.raises(SettingError, match="answers, others"):
        pull_from(stand_in.service, tmp_path / "another", project="nope")


def test_json_of_another_shape(pull_from, stand_in):
    service = Langfuse()
    stand_in.service = lambda request: {"version": "1.0"}
    with pytest.raises(ServiceError, match="another shape") as error:
        pull_from(service)
    assert stand_in.url in str(error.value)
