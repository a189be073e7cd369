"""Each server that PyPI ships and that starts: filled through its own API, pulled from, changed, pulled from again, stopped.

Not part of the ordinary suite: `make test-servers`.
"""

import subprocess
import time

import pytest
from real_servers import call, environment, server

import ktodata as kd
from ktodata.formats.sources import pull, source_named

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]


def pulls_twice_alike(name, folder, url, project, credentials=()):
    """The second pull's result, after one that brought everything."""
    settings = {"url": url, "project": project, "environment": dict(credentials)}
    first = pull(source_named(name), folder, **settings)
    again = pull(source_named(name), folder, **settings)
    assert (again.new, again.changed, again.earlier) == (0, 0, 0)
    assert (again.n_records, first.new) == (first.n_records, first.n_records)
    return settings, again


def test_mlflow(tmp_path):
    command = [
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--workers",
        "1",
        "--backend-store-uri",
        "sqlite:///m.db",
    ]
    with server("mlflow", "mlflow==3.18.0", command, tmp_path, ready="/health") as url:
        run_there(tmp_path, "mlflow", MLFLOW_FILL, url)
        settings, pulled = pulls_twice_alike("mlflow", tmp_path / "pulled", url, "chat")
        assert (pulled.n_records, pulled.left_out) == (2, {})
        rows = kd.read(pulled.records, format="mlflow", label={"column": "thumb", True: True, False: False}).feedback.sort(
            "prompt"
        )
        assert rows["prompt"].to_list() == ["Grass?", "Sky?"]
        assert rows["completion"].str.len_chars().to_list() == [3006, 3006], "not the preview"
        assert rows.select("label", "rater").rows() == [(False, "ben"), (False, "ann")]
        run_there(tmp_path, "mlflow", MLFLOW_CHANGE, url)
        changed = pull(source_named("mlflow"), tmp_path / "pulled", **settings)
        assert (changed.new, changed.changed) == (1, 1)
        later = pull(source_named("mlflow"), tmp_path / "later", **settings, since="2100-01-01")
        assert later.n_records == 0


def run_there(folder, name, code, url):
    """Run code in a server's own environment: its own client writes the traces."""
    (folder / "fill.py").write_text(code)
    subprocess.run([environment(name, "") / "bin/python", "fill.py", url], cwd=folder, env={"PATH": "/usr/bin:/bin"}, check=True)


MLFLOW_FILL = """
import sys, mlflow
from mlflow.entities import AssessmentSource
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("chat")
@mlflow.trace(span_type="CHAT_MODEL")
def chat(messages):
    return {"choices": [{"message": {"role": "assistant", "content": "Blue. " + "x" * 3000}}]}
keys = []
for question in ("Sky?", "Grass?", "Snow?"):
    chat([{"role": "user", "content": question}])
    keys.append(mlflow.get_last_active_trace_id())
mlflow.flush_trace_async_logging()
human, judge = (lambda name: AssessmentSource("HUMAN", name)), AssessmentSource("LLM_JUDGE", "gpt")
first = mlflow.log_feedback(trace_id=keys[0], name="thumb", value=True, source=human("ann"))
mlflow.log_feedback(trace_id=keys[0], name="correct", value=0.5, source=judge)
mlflow.override_feedback(trace_id=keys[0], assessment_id=first.assessment_id, value=False, source=human("ann"))
mlflow.log_feedback(trace_id=keys[1], name="thumb", value=False, source=human("ben"))
mlflow.log_expectation(trace_id=keys[2], name="answer", value="White", source=human("ben"))
open("keys", "w").write(" ".join(keys))
"""
MLFLOW_CHANGE = """
import sys, mlflow
from mlflow.entities import AssessmentSource
mlflow.set_tracking_uri(sys.argv[1])
keys = open("keys").read().split()
for key in keys[1:]:
    mlflow.log_feedback(trace_id=key, name="thumb", value=True, source=AssessmentSource("HUMAN", "cy"))
"""


def test_phoenix(tmp_path):
    variables = {
        "PHOENIX_WORKING_DIR": str(tmp_path),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": "{port}",
        "PHOENIX_GRPC_PORT": "0",
    }
    with server(
        "phoenix",
        "arize-phoenix==20.26.1",
        ["phoenix", "serve"],
        tmp_path,
        ready="/healthz",
        PHOENIX_TELEMETRY_ENABLED="false",
        **variables,
    ) as url:
        call("POST", f"{url}/v1/projects", {"name": "chat"})
        spans = [phoenix_span(n) for n in range(1, 4)]
        call("POST", f"{url}/v1/projects/chat/spans", {"data": spans})
        wait_until(lambda: len(call("GET", f"{url}/v1/projects/chat/spans")["data"]) == 3)
        thumb = {"name": "thumb", "annotator_kind": "HUMAN", "identifier": "ann"}
        verdicts = [{**thumb, "span_id": f"{n:016x}", "result": {"label": "up", "score": 1}} for n in (1, 2)]
        verdicts.append({"name": "correct", "annotator_kind": "LLM", "span_id": f"{1:016x}", "result": {"score": 0.4}})
        call("POST", f"{url}/v1/span_annotations?sync=true", {"data": verdicts})
        settings, pulled = pulls_twice_alike("phoenix", tmp_path / "pulled", url, "chat")
        rows = kd.read(pulled.records, format="phoenix", label={"column": "thumb", "up": True, "down": False}).feedback.sort(
            "prompt"
        )
        assert rows.select("prompt", "completion", "label", "rater").rows() == [
            (f"Question {n}?", f"Answer {n}.", True, "ann") for n in (1, 2)
        ]
        time.sleep(1.1)  # its times are whole seconds
        call("POST", f"{url}/v1/span_annotations?sync=true", {"data": [{**verdicts[1], "result": {"label": "down", "score": 0}}]})
        trace = {**thumb, "trace_id": f"{3:032x}", "result": {"label": "up", "score": 1}}
        call("POST", f"{url}/v1/trace_annotations?sync=true", {"data": [trace]})
        changed = pull(source_named("phoenix"), tmp_path / "pulled", **settings)
        assert (changed.n_records, changed.new, changed.changed, changed.earlier) == (3, 1, 1, 1)


def phoenix_span(n):
    attributes = {
        "llm.input_messages": [{"message": {"role": "user", "content": f"Question {n}?"}}],
        "llm.output_messages": [{"message": {"role": "assistant", "content": f"Answer {n}."}}],
    }
    context = {"trace_id": f"{n:032x}", "span_id": f"{n:016x}"}
    times = {"start_time": f"2026-10-01T10:00:0{n}Z", "end_time": f"2026-10-01T10:01:0{n}Z", "status_code": "OK"}
    return {"name": "chat", "context": context, "span_kind": "LLM", **times, "attributes": attributes}


def wait_until(is_so):
    for _ in range(60):
        if is_so():
            return
        time.sleep(0.5)
    raise AssertionError("it did not come to be so")


LABELS = """<View><Text name="p" value="$prompt"/><Text name="t" value="$completion"/>
<Choices name="verdict" toName="t"><Choice value="good"/><Choice value="bad"/></Choices></View>"""


def test_label_studio(tmp_path):
    token = "0123456789abcdef0123456789abcdef01234567"
    variables = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "data"),
        "LABEL_STUDIO_USERNAME": "ann@example.com",
        "LABEL_STUDIO_PASSWORD": "a-long-pass-word",
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    command = ["label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", "{port}"]
    with server("label_studio", "label-studio==1.23.2", command, tmp_path, ready="/health", **variables) as url:
        key = {"authorization": f"Token {token}"}
        project = call("POST", f"{url}/api/projects", {"title": "chat", "label_config": LABELS}, **key)["id"]
        texts = [{"prompt": f"Question {n}?", "completion": f"Answer {n}."} for n in range(4)]
        call("POST", f"{url}/api/projects/{project}/import", texts, **key)
        tasks = call("GET", f"{url}/api/tasks?project={project}&page_size=100", **key)["tasks"]
        made = [call("POST", f"{url}/api/tasks/{task['id']}/annotations", verdict("good"), **key) for task in tasks[:3]]
        settings, pulled = pulls_twice_alike("label_studio", tmp_path / "pulled", url, project, {"LABEL_STUDIO_API_KEY": token})
        assert labels_of(pulled) == {"Question 0?": True, "Question 1?": True, "Question 2?": True}
        call("PATCH", f"{url}/api/annotations/{made[1]['id']}", verdict("bad"), **key)
        call("POST", f"{url}/api/tasks/{tasks[3]['id']}/annotations", verdict("bad"), **key)
        personal = call("POST", f"{url}/api/token/", {}, **key)["token"]
        changed = pull(
            source_named("label_studio"), tmp_path / "pulled", **{**settings, "environment": {"LABEL_STUDIO_API_KEY": personal}}
        )
        assert (changed.n_records, changed.new, changed.changed, changed.earlier) == (4, 1, 1, 2)
        assert labels_of(changed) == {"Question 0?": True, "Question 1?": False, "Question 2?": True, "Question 3?": False}
        kept = b"".join(path.read_bytes() for path in (tmp_path / "pulled").rglob("*") if path.is_file())
        assert personal.encode() not in kept


def verdict(choice):
    return {"result": [{"from_name": "verdict", "to_name": "t", "type": "choices", "value": {"choices": [choice]}}]}


def labels_of(pulled):
    feedback = kd.read(pulled.records, format="label_studio", label={"column": "verdict", "good": True, "bad": False}).feedback
    return dict(zip(feedback["prompt"], feedback["label"], strict=True))
