"""Verdicts go back: what each service is sent, byte for byte, that it is sent once, and that no text of a row goes with it."""

import json

import pytest
from service_shapes import Argilla, LabelStudio, Langfuse, Langsmith, Mlflow, OpenWebui, Phoenix, uuid
from stand_in import Answer

import ktodata as kd
from ktodata.errors import EmptyDataError, ServiceError, SettingError
from ktodata.review import push_verdicts
from ktodata.review.store import ReviewVerdict, VerdictStore

TAKES = (Langfuse, Langsmith, Phoenix, Mlflow, LabelStudio, Argilla)
ANSWERS = ("keep", "flip", "drop", "contested")


def judged_run(shape, stand_in, folder, monkeypatch):
    """A run of four pulled answers: kept, flipped, dropped and contested; and the service, which takes what it is sent."""
    monkeypatch.setattr("ktodata.report.write_pages", lambda run: None)
    service = shape()
    for number in range(4):
        service.add(number)

    def answer(request):
        writes = request.method == "POST" and not any(part in request.path for part in ("search", "query", "refresh"))
        return {"id": "x"} if writes else service(request)

    stand_in.service = answer
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    pulling = {"from": service.name, "url": stand_in.url, "project": service.project}
    run = kd.run({"name": "p", "ingest": {**pulling, **service.settings}, "steps": []}, out=folder)
    store = VerdictStore(run.folder)
    for row, verdict in zip(run.feedback.sort("prompt").iter_rows(named=True), ANSWERS, strict=True):
        store.add(ReviewVerdict(row["row_id"], "ben", verdict, row["label"], "d", note="Question, says the note"), current_id=0)
    store.close()
    stand_in.requests.clear()
    return run


@pytest.mark.parametrize("shape", TAKES, ids=lambda shape: shape.__name__)
def test_what_is_sent_is_the_verdict_alone_and_once(shape, stand_in, tmp_path, monkeypatch):
    run = judged_run(shape, stand_in, tmp_path / "run", monkeypatch)
    shown = push_verdicts(run, dry_run=True)
    assert (stand_in.requests, shown.sent) == ([], 0)
    by_question = shape in (LabelStudio, Argilla)  # which have no answer for drop and contested
    assert (shown.to_send, sum(shown.left_out.values())) == ((2, 2) if by_question else (4, 0))
    pushed = push_verdicts(run)
    assert pushed.sent == shown.to_send and [request["path"] for request in pushed.requests] == [
        r["path"] for r in shown.requests
    ]
    writes = [request for request in stand_in.requests if "refresh" not in request.path]
    assert len(writes) == pushed.sent
    for request in writes:
        text = json.dumps(request.json)
        assert "Question" not in text and "Answer" not in text and "note" not in text
    stand_in.requests.clear()
    again = push_verdicts(run)
    assert (again.sent, again.before, stand_in.requests) == (0, pushed.sent, [])
    for path in (path for path in run.folder.rglob("*") if path.is_file()):
        for name, secret in shape.environment.items():
            assert name.endswith("USERNAME") or secret.encode() not in path.read_bytes()


def test_each_service_is_sent_what_its_api_takes(stand_in, tmp_path, monkeypatch):
    expected = {
        Langfuse: (
            "/api/public/scores",
            {"name": "ktodata_review", "traceId": "t0", "dataType": "CATEGORICAL", "value": "desirable"},
        ),
        Langsmith: ("/feedback", {"key": "ktodata_review", "run_id": uuid(1), "score": 0, "value": "undesirable"}),
        Phoenix: ("/v1/span_annotations", {}),
        Mlflow: ("/api/3.0/mlflow/traces/tr-0/assessments", {}),
    }
    for shape, (path, holds) in expected.items():
        run = judged_run(shape, stand_in, tmp_path / shape.__name__, monkeypatch)
        push_verdicts(run)
        first = next(request for request in stand_in.requests if request.path == path)
        assert {name: first.json[name] for name in holds} == holds
        if shape is Phoenix:
            (annotation,) = first.json["data"]
            assert annotation["result"] == {"label": "undesirable", "score": 0.0} and annotation["span_id"] == f"{0:016x}"
            assert (annotation["identifier"], annotation["annotator_kind"]) == ("ben", "HUMAN")
        if shape is Mlflow:
            assert first.json["assessment"]["feedback"] == {"value": "desirable"}
            assert first.json["assessment"]["source"] == {"source_type": "HUMAN", "source_id": "ben"}


def test_a_push_that_breaks_off_goes_on_where_it_stopped(stand_in, tmp_path, monkeypatch):
    run = judged_run(Langsmith, stand_in, tmp_path / "run", monkeypatch)
    stand_in.instead[:] = [None, Answer({"detail": "no"}, 422)]
    with pytest.raises(ServiceError, match="422"):
        push_verdicts(run)
    keys = [request.json["id"] for request in stand_in.requests]
    stand_in.instead[:] = [Answer({"detail": "there"}, 409)]
    stand_in.requests.clear()
    pushed = push_verdicts(run)
    assert (pushed.before, pushed.sent) == (1, 3)
    assert stand_in.requests[0].json["id"] == keys[1], "the same verdict has the same id"


def test_what_cannot_be_pushed_is_said(stand_in, tmp_path, monkeypatch):
    run = judged_run(OpenWebui, stand_in, tmp_path / "webui", monkeypatch)
    with pytest.raises(SettingError, match="open_webui takes feedback from the user of the chat alone: nothing is sent"):
        push_verdicts(run)
    run = judged_run(Langfuse, stand_in, tmp_path / "langfuse", monkeypatch)
    with pytest.raises(SettingError, match="LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY in the environment"):
        push_verdicts(run, environment={})
    (run.folder / "reviews" / "reviews.sqlite").unlink()
    with pytest.raises(EmptyDataError, match="nobody has judged"):
        push_verdicts(run)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c", "label": True}) + "\n")
    from_file = kd.run({"name": "f", "ingest": {"paths": str(tmp_path / "rows.jsonl")}, "steps": []}, out=tmp_path / "file")
    with pytest.raises(SettingError, match="this run reads files"):
        push_verdicts(from_file)


def test_a_verdict_that_changed_is_sent_again_also_when_it_changed_back(stand_in, tmp_path, monkeypatch):
    run = judged_run(Langfuse, stand_in, tmp_path / "run", monkeypatch)
    push_verdicts(run)
    row = run.feedback.sort("prompt").row(0, named=True)
    for answer, minute in (("flip", 1), ("keep", 2)):
        stand_in.requests.clear()
        store = VerdictStore(run.folder)
        given = ReviewVerdict(row["row_id"], "ben", answer, row["label"], "d", at=f"2099-01-01T00:0{minute}:00Z")
        store.add(given, current_id=store.current_verdict(row["row_id"], "ben").id)
        store.close()
        assert push_verdicts(run).sent == 1
        (request,) = stand_in.requests
        assert request.json["value"] == ("desirable" if (answer == "keep") == row["label"] else "undesirable")


def test_where_a_record_has_one_answer_reviewers_who_differ_leave_it_without(stand_in, tmp_path, monkeypatch):
    run = judged_run(Argilla, stand_in, tmp_path / "run", monkeypatch)
    row = run.feedback.sort("prompt").row(0, named=True)
    store = VerdictStore(run.folder)
    store.add(ReviewVerdict(row["row_id"], "ann", "flip", row["label"], "d"), current_id=0)
    store.close()
    shown = push_verdicts(run, dry_run=True)
    assert shown.to_send == 1 and shown.left_out == {
        "argilla has no answer for contested": 2,
        "argilla has no answer for drop": 1,
    }
