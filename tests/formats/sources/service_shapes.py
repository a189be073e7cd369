"""Services as their published clients and servers show them: paths, pages and fields, over things in memory.

Each has `add(n)`, a verdict on an answer of its own, and `change(n)`, the same verdict given another way later.
Shapes: langfuse 5.0.4 and 3.15.0, langsmith 0.15.1, arize-phoenix 20.26.1, mlflow 3.18.0, open-webui 0.12.4, label-studio 1.23.2,
argilla-server 2.8.0.
"""

import json
from types import MappingProxyType
from uuid import UUID

from stand_in import Answer, Request

NOT_FOUND = Answer({"detail": "Not Found"}, 404)


def uuid(number: int) -> str:
    return str(UUID(int=number))


def time(number: int, minute: int = 0) -> str:
    return f"2026-10-{1 + number // 24:02}T{number % 24:02}:{minute:02}:00.000Z"


def page_of(items: list, request: Request, size: int) -> tuple[list, str | None]:
    """A page by cursor, and the cursor of the next."""
    start = int(request.value("cursor") or 0)
    after = start + size
    return items[start:after], str(after) if after < len(items) else None


class Langfuse:
    name, project = "langfuse", None
    environment = MappingProxyType({"LANGFUSE_PUBLIC_KEY": "pk-lf-0123456789", "LANGFUSE_SECRET_KEY": "sk-lf-very-secret-9876"})
    settings = MappingProxyType({"label": {"column": "thumb", True: True, False: False}})

    def __init__(self):
        self.scores, self.observations = {}, {}

    def add(self, n):
        about = {"name": "thumb", "dataType": "BOOLEAN", "source": "API", "projectId": "p", "environment": "default"}
        times = {"timestamp": time(n), "createdAt": time(n), "updatedAt": time(n)}
        subject = {"subject": {"kind": "trace", "id": f"t{n}"}, "comment": None, "authorUserId": "ann"}
        self.scores[f"s{n}"] = {"id": f"s{n}", **about, **times, "value": n % 2 == 0, **subject}
        texts = {"input": json.dumps([{"role": "user", "content": f"Question {n}?"}]), "output": f"Answer {n}."}
        root = {"type": "SPAN", "isRootObservation": True, "parentObservationId": None, "startTime": time(n), "userId": f"u{n}"}
        self.observations[f"o{n}"] = {"id": f"o{n}", "traceId": f"t{n}", **root, **texts}

    def change(self, n):
        score = self.scores[f"s{n}"]
        self.scores[f"s{n}"] = {**score, "value": not score["value"], "updatedAt": time(n, 5)}

    def __call__(self, request):
        if request.headers.get("authorization", "")[:6] != "Basic ":
            return Answer({"message": "Invalid credentials"}, 401)
        if request.path == "/api/public/v3/scores":
            since = request.value("fromTimestamp") or ""
            data, cursor = page_of([s for s in self.scores.values() if s["timestamp"] >= since], request, 2)
        elif request.path == "/api/public/v2/observations":
            chosen = list(self.observations.values())
            for rule in json.loads(request.value("filter")):
                among = rule["value"] if rule["operator"] == "any of" else [rule["value"]]
                chosen = [item for item in chosen if item[rule["column"]] in among]
            data, cursor = page_of(chosen, request, 2)
        else:
            return NOT_FOUND
        return {"data": data, "meta": {"limit": 2, **({"cursor": cursor} if cursor else {})}}


class LegacyLangfuse(Langfuse):
    """A server of Langfuse 3: no /v3/scores, no /v2/observations."""

    settings = MappingProxyType({"label": {"column": "thumb", 1: True, 0: False}})

    def __call__(self, request):
        if request.path == "/api/public/v2/scores":
            number, size = int(request.value("page")), int(request.value("limit"))
            scores = [self.legacy(score) for score in self.scores.values()]
            meta = {"page": number, "limit": size, "totalItems": len(scores), "totalPages": -(-len(scores) // size)}
            return {"data": scores[(number - 1) * size : number * size], "meta": meta}
        if request.path.startswith("/api/public/traces/t"):
            observation = self.observations["o" + request.path.rsplit("/t", maxsplit=1)[-1]]
            texts = {"input": json.loads(observation["input"]), "output": observation["output"]}
            return {
                "id": observation["traceId"],
                "timestamp": observation["startTime"],
                "userId": observation["userId"],
                **texts,
                "scores": [],
                "observations": [],
            }
        return NOT_FOUND

    def legacy(self, score):
        own = {name: value for name, value in score.items() if name != "subject"}
        about = {"traceId": score["subject"]["id"], "observationId": None, "sessionId": None}
        return {**own, **about, "value": int(score["value"]), "stringValue": str(score["value"])}


class Langsmith:
    name, project = "langsmith", "chat"
    environment = MappingProxyType({"LANGSMITH_API_KEY": "lsv2_pt_very_secret_1234"})
    settings = MappingProxyType({"label": {"column": "user_score", 1: True, 0: False}})
    has_legacy_query = True

    def __init__(self):
        self.feedback, self.runs = {}, {}

    def add(self, n):
        source = {"type": "api", "metadata": {}, "user_id": "ann", "user_name": None}
        times = {"created_at": time(n), "modified_at": time(n), "start_time": time(n)}
        about = {"run_id": uuid(n + 1), "trace_id": uuid(n + 1), "session_id": uuid(99), "key": "user_score", "value": None}
        self.feedback[n] = {"id": uuid(n + 1000), **times, **about, "score": n % 2, "comment": None, "feedback_source": source}
        texts = {"inputs": {"question": f"Question {n}?"}, "outputs": {"answer": f"Answer {n}."}}
        self.runs[uuid(n + 1)] = {"id": uuid(n + 1), "name": "rag", "run_type": "chain", **texts, "session_id": uuid(99)}

    def change(self, n):
        self.feedback[n] = {**self.feedback[n], "score": 1 - self.feedback[n]["score"], "modified_at": time(n, 5)}

    def __call__(self, request):
        if "x-api-key" not in request.headers:
            return Answer({"detail": "Unauthorized"}, 401)
        if request.path == "/sessions":
            return [{"id": uuid(99), "name": "chat"}] if request.value("name") == "chat" else []
        if request.path == "/feedback" and request.value("session") == uuid(99):
            start, size = int(request.value("offset")), int(request.value("limit"))
            since = request.value("min_created_at") or ""
            return [item for item in self.feedback.values() if item["created_at"] >= since][start : start + size]
        if request.path == "/runs/query" and self.has_legacy_query:
            chosen = [self.runs[key] for key in request.json["id"]]
            start = int(request.json.get("cursor", 0))
            return {
                "runs": chosen[start : start + 60],
                "cursors": {"next": str(start + 60) if start + 60 < len(chosen) else None},
            }
        if request.path == "/api/v2/runs/query" and not self.has_legacy_query and request.json["project_ids"] == [uuid(99)]:
            return {"items": [self.runs[key] for key in request.json["ids"]], "next_cursor": None}
        return NOT_FOUND


class LangsmithWithoutLegacyQuery(Langsmith):
    has_legacy_query = False


class Phoenix:
    name, project = "phoenix", "chat"
    environment = MappingProxyType({"PHOENIX_API_KEY": "phx-very-secret-5678"})
    settings = MappingProxyType({"label": {"column": "thumb", 1.0: True, 0.0: False}})

    def __init__(self):
        self.spans, self.annotations = {}, {}

    def add(self, n):
        attributes = {
            "input.value": json.dumps({"messages": []}),
            "input.mime_type": "application/json",
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": f"Question {n}?",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": f"Answer {n}.",
        }
        context = {"trace_id": f"{n:032x}", "span_id": f"{n:016x}"}
        self.spans[n] = {
            "id": f"S{n}",
            "name": "chat",
            "context": context,
            "span_kind": "LLM",
            "parent_id": None,
            "start_time": time(n),
            "attributes": attributes,
            "events": [],
        }
        about = {"id": f"A{n}", "name": "thumb", "annotator_kind": "HUMAN", "user_id": None, "identifier": "ann", "metadata": {}}
        times = {"created_at": time(n), "updated_at": time(n), "source": "API"}
        self.annotations[n] = {
            **about,
            **times,
            "span_id": f"{n:016x}",
            "result": {"label": None, "score": float(n % 2), "explanation": None},
        }

    def change(self, n):
        result = {"label": None, "score": 1 - self.annotations[n]["result"]["score"], "explanation": None}
        self.annotations[n] = {**self.annotations[n], "result": result, "updated_at": time(n, 5)}

    def __call__(self, request):
        kind = request.path.removeprefix("/v1/projects/chat/")
        if kind == "spans":
            since = request.value("start_time") or ""
            data, cursor = page_of([span for span in self.spans.values() if span["start_time"] >= since], request, 2)
        elif kind == "span_annotations":
            chosen = [item for item in self.annotations.values() if item["span_id"] in request.query["span_ids"]]
            data, cursor = page_of(chosen, request, 2)
        elif kind == "trace_annotations":
            data, cursor = [], None
        else:
            return NOT_FOUND
        return {"data": data, "next_cursor": cursor}


class Mlflow:
    name, project = "mlflow", "chat"
    environment = MappingProxyType({"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "very-secret-pass"})
    settings = MappingProxyType({"label": {"column": "thumb", True: True, False: False}})

    def __init__(self):
        self.traces, self.texts = {}, {}

    def add(self, n):
        key = f"tr-{n}"
        feedback = {"assessment_id": f"a-{n}", "assessment_name": "thumb", "trace_id": key, "valid": True}
        feedback |= {"source": {"source_type": "HUMAN", "source_id": "ann"}, "feedback": {"value": n % 2 == 0}}
        feedback |= {"create_time": time(n), "last_update_time": time(n)}
        self.traces[key] = {
            "trace_id": key,
            "request_time": time(n),
            "state": "OK",
            "request_preview": "Question…",
            "assessments": [feedback],
        }
        self.texts[key] = (f"Question {n}?", f"Answer {n}.")

    def change(self, n):
        before = self.traces[f"tr-{n}"]["assessments"][0]
        after = {**before, "assessment_id": f"b-{n}", "overrides": before["assessment_id"], "last_update_time": time(n, 5)}
        after["feedback"] = {"value": not before["feedback"]["value"]}
        self.traces[f"tr-{n}"] = {**self.traces[f"tr-{n}"], "assessments": [{**before, "valid": False}, after]}

    def span(self, key):
        question, answer = self.texts[key]
        turn = {
            "kvlist_value": {
                "values": [
                    {"key": "role", "value": {"string_value": "user"}},
                    {"key": "content", "value": {"string_value": question}},
                ]
            }
        }
        inputs = {"kvlist_value": {"values": [{"key": "messages", "value": {"array_value": {"values": [turn]}}}]}}
        attributes = [
            {"key": "mlflow.spanInputs", "value": inputs},
            {"key": "mlflow.spanOutputs", "value": {"string_value": answer}},
        ]
        return {"trace_id": "cghn", "span_id": "4y4J", "name": "chat", "attributes": attributes}

    def __call__(self, request):
        if request.path == "/api/2.0/mlflow/experiments/get-by-name" and request.value("experiment_name") == "chat":
            return {"experiment": {"experiment_id": "1", "name": "chat"}}
        if request.path == "/api/3.0/mlflow/traces/search":
            assert request.json["locations"][0]["mlflow_experiment"] == {"experiment_id": "1"}
            start = int(request.json.get("page_token", 0))
            traces = list(self.traces.values())
            return {
                "traces": traces[start : start + 2],
                **({"next_page_token": str(start + 2)} if start + 2 < len(traces) else {}),
            }
        if request.path == "/api/3.0/mlflow/traces/batchGet":
            return {
                "traces": [{"trace_info": {"trace_id": key}, "spans": [self.span(key)]} for key in request.query["trace_ids"]]
            }
        return NOT_FOUND


class OpenWebui:
    name, project = "open_webui", None
    environment = MappingProxyType({"OPEN_WEBUI_API_KEY": "sk-very-secret-4321"})
    settings = MappingProxyType({"label": {"column": "data.rating", 1: True, -1: False}})

    def __init__(self):
        self.feedback = {}

    def add(self, n):
        messages = {
            "a": {"id": "a", "role": "user", "content": f"Question {n}?", "parentId": None, "childrenIds": ["b"]},
            "b": {"id": "b", "role": "assistant", "content": f"Answer {n}.", "parentId": "a", "childrenIds": ["c"]},
            "c": {"id": "c", "role": "user", "content": "Thanks", "parentId": "b", "childrenIds": []},
        }
        snapshot = {"chat": {"id": "c", "chat": {"history": {"messages": messages, "currentId": "c"}}}}
        about = {"id": f"f{n}", "user_id": "ann", "version": 0, "type": "rating", "meta": {"chat_id": "c", "message_id": "b"}}
        times = {"created_at": 1790000000 + n, "updated_at": 1790000000 + n}
        self.feedback[n] = {**about, "data": {"rating": 1 if n % 2 else -1, "model_id": "m"}, "snapshot": snapshot, **times}

    def change(self, n):
        before = self.feedback[n]
        self.feedback[n] = {
            **before,
            "data": {**before["data"], "rating": -before["data"]["rating"]},
            "updated_at": before["updated_at"] + 60,
        }

    def __call__(self, request):
        if request.headers.get("authorization") != "Bearer sk-very-secret-4321":
            return Answer({"detail": "401 Unauthorized"}, 401)
        if request.path != "/api/v1/evaluations/feedbacks/all/export":
            return NOT_FOUND
        return sorted(self.feedback.values(), key=lambda item: -item["updated_at"])


class LabelStudio:
    name, project = "label_studio", "7"
    environment = MappingProxyType({"LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567"})
    settings = MappingProxyType({"label": {"column": "verdict", "good": True, "bad": False}})

    def __init__(self):
        self.tasks = {}

    def add(self, n):
        result = {"from_name": "verdict", "to_name": "t", "type": "choices", "value": {"choices": ["good" if n % 2 else "bad"]}}
        annotation = {"id": 100 + n, "completed_by": 1, "was_cancelled": False, "created_at": time(n), "result": [result]}
        data = {"prompt": f"Question {n}?", "completion": f"Answer {n}."}
        self.tasks[n] = {"id": n, "data": data, "annotations": [annotation], "predictions": [], "updated_at": time(n)}

    def change(self, n):
        annotation = self.tasks[n]["annotations"][0]
        was = annotation["result"][0]["value"]["choices"][0]
        result = {**annotation["result"][0], "value": {"choices": ["bad" if was == "good" else "good"]}}
        self.tasks[n] = {**self.tasks[n], "annotations": [{**annotation, "result": [result]}], "updated_at": time(n, 5)}

    def __call__(self, request):
        if request.path != "/api/tasks" or request.value("project") != "7" or request.value("fields") != "all":
            return NOT_FOUND
        start = 2 * (int(request.value("page")) - 1)
        tasks = list(self.tasks.values())
        return {"tasks": tasks[start : start + 2], "total": len(tasks), "total_annotations": len(tasks), "total_predictions": 0}


class Argilla:
    name, project = "argilla", "answers"
    environment = MappingProxyType({"ARGILLA_API_KEY": "argilla.very-secret"})
    settings = MappingProxyType({"label": {"column": "verdict", "good": True, "bad": False}})

    def __init__(self):
        self.records = {}

    def add(self, n):
        response = {
            "id": uuid(n),
            "values": {"verdict": {"value": "good" if n % 2 else "bad"}},
            "status": "submitted",
            "user_id": "ann",
        }
        response |= {"record_id": uuid(n), "inserted_at": time(n), "updated_at": time(n)}
        suggestion = {"question_id": uuid(5), "value": "good", "agent": "judge", "score": 0.7, "id": uuid(n)}
        about = {"id": uuid(n), "status": "completed", "external_id": f"r{n}", "metadata": {}, "dataset_id": uuid(3)}
        fields = {"prompt": f"Question {n}?", "completion": f"Answer {n}."}
        self.records[n] = {**about, "fields": fields, "responses": [response], "suggestions": [suggestion], "updated_at": time(n)}

    def change(self, n):
        response = self.records[n]["responses"][0]
        was = response["values"]["verdict"]["value"]
        after = {**response, "values": {"verdict": {"value": "bad" if was == "good" else "good"}}, "updated_at": time(n, 5)}
        self.records[n] = {**self.records[n], "responses": [after], "updated_at": time(n, 5)}

    def __call__(self, request):
        if request.headers.get("x-argilla-api-key") != "argilla.very-secret":
            return Answer({"detail": {"code": "argilla.api.errors::UnauthorizedError"}}, 401)
        if request.path == "/api/v1/me/datasets":
            return {"items": [{"id": uuid(3), "name": "answers"}, {"id": uuid(4), "name": "others"}]}
        if request.path == f"/api/v1/datasets/{uuid(3)}/questions":
            return {"items": [{"id": uuid(5), "name": "verdict", "settings": {"type": "label_selection"}}]}
        if request.path == f"/api/v1/datasets/{uuid(3)}/records":
            start, size = int(request.value("offset")), int(request.value("limit"))
            return {"items": list(self.records.values())[start : start + size], "total": len(self.records)}
        return NOT_FOUND


SERVICES = (Langfuse, LegacyLangfuse, Langsmith, LangsmithWithoutLegacyQuery, Phoenix, Mlflow, OpenWebui, LabelStudio, Argilla)
