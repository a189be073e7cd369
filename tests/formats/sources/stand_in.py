"""A local server that answers as a service does, and what it was asked."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    json: object
    headers: dict[str, str]

    def value(self, name: str, default: str | None = None) -> str | None:
        return self.query.get(name, [default])[0]


@dataclass
class Answer:
    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class StandIn:
    """`service` answers a request with an Answer or a JSON value; `instead` answers are given first, one a request."""

    service: Callable[[Request], object] = lambda request: Answer({"detail": "Not Found"}, 404)
    requests: list[Request] = field(default_factory=list)
    instead: list[Answer | None] = field(default_factory=list)

    def __enter__(self):
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body at once: a second packet would wait for an acknowledgement

            def answer(self):
                parts = urlsplit(self.path)
                text = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, parts.path, parse_qs(parts.query), json.loads(text) if text else None, headers)
                stand_in.requests.append(request)
                instead = stand_in.instead.pop(0) if stand_in.instead else None
                answer = instead or stand_in.service(request)
                answer = answer if isinstance(answer, Answer) else Answer(answer)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
