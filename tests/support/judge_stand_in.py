"""An OpenAI-compatible endpoint on this machine, and a judge that is fair."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

KEY = "sk-secret-of-the-test"


def fair(text):
    """A judge without leanings: the reply is desirable if it says "good"; the negated question gets the negated answer."""
    reply = text.split("The reply", 1)[1].split("<data-", 1)[1].split("</data-")[0]
    return "yes" if ("good" in reply) != ("violate" in text.rsplit("\n\n", 1)[1]) else "no"


def completion(text, **usage):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}], **({"usage": usage} if usage else {})}


class Endless:
    """An answer that goes on until nobody reads it."""


@contextlib.contextmanager
def judge_stand_in(folder):
    """An endpoint on this machine. `reply(user's text) -> (status, body)` may be set; `seen` holds (headers, body) of each request."""
    state = SimpleNamespace(seen=[], reply=lambda text: completion(fair(text)), headers={})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.seen.append((dict(self.headers), body))
            status, answer = state.reply(body["messages"][1]["content"])
            if isinstance(answer, Endless):
                self.drip()
                return
            sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def drip(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(500):
                    self.wfile.write(b" ")
                    time.sleep(0.02)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/v1"
    state.folder = folder
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
