"""A Hub that runs here: it answers the calls of an upload and a download, keeps what it was sent, and can refuse."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" + 34 * "0"


class Hub(ThreadingHTTPServer):
    """Answers as the Hub does to the calls of an upload and a download, and keeps what it was sent."""

    def __init__(self, status, private):
        super().__init__(("127.0.0.1", 0), Answer)
        self.status, self.private, self.files, self.made, self.tokens = status, private, {}, [], set()
        self.commits = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.status != 200:
            return self.say({"error": "the Hub says no"}, hub.status)
        if self.path == "/api/repos/create":
            hub.made.append(json.loads(body))
            kind = "datasets/" if hub.made[-1].get("type") == "dataset" else ""
            return self.say({"url": f"{hub.address}/{kind}me/policy"})
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.say({"files": files})
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            sent = [line["value"] for line in lines if line["key"] == "file"]
            hub.commits.append(self.path)
            hub.files = {file["path"]: base64.b64decode(file["content"]) for file in sent}
            return self.say({"success": True, "commitUrl": f"{hub.address}/me/policy/commit/1", "commitOid": "1"})
        return self.say({})  # validate-yaml

    def do_GET(self):
        hub = self.server
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.status != 200:
            return self.say({"error": "the Hub says no"}, hub.status)
        if "/resolve/" in self.path:
            return self.send_file(unquote(self.path.partition(f"/resolve/{COMMIT}/")[2]))
        if "/tree/" in self.path:
            files = [{"type": "file", "path": name, "size": len(file), "oid": "0"} for name, file in hub.files.items()]
            return self.say(files)
        files = [{"rfilename": name} for name in hub.files]
        return self.say({"id": "me/policy", "private": hub.private, "sha": COMMIT, "siblings": files})

    do_HEAD = do_GET

    def send_file(self, name):
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def say(self, answer, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@contextmanager
def hubs(monkeypatch):
    """A function that starts a Hub which answers with a status, and points huggingface_hub to it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    started = []

    def start(status=200, *, private=True):
        server = Hub(status, private)
        started.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "".join(template[1:]))
        return server

    try:
        yield start
    finally:
        for server in started:
            server.shutdown()
            server.server_close()
