"""The services' own servers, from PyPI: each in an environment of its own, started on a free port and stopped.

Environments are kept in ~/.cache/ktodata/servers, or where KTODATA_SERVERS says; making one downloads about a gigabyte.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("KTODATA_SERVERS", Path.home() / ".cache/ktodata/servers"))
READY_WITHIN = 420  # seconds; the first start makes a database


@contextmanager
def server(name: str, package: str, command: list[str], folder: Path, *, ready: str, **variables: str) -> Iterator[str]:
    """Its address. `{port}` in the command and the variables is a free port; the command is one of the environment's own."""
    port = free_port()
    words = [word.format(port=port) for word in command]
    variables = {key: value.format(port=port) for key, value in variables.items()}
    words[0] = str(environment(name, package) / "bin" / words[0])
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": "", **variables}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + ready, process, folder / "server.log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def environment(name: str, package: str) -> Path:
    """An environment with `package`, made where there is none."""
    folder = CACHE / name
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", package], check=True)
        (folder / "installed").write_text(package)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def call(method: str, url: str, body: object = None, **headers: str) -> object:
    """What a request with JSON is answered with."""
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
    for key, value in {"content-type": "application/json", **headers}.items():
        request.add_header(key, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from error
    return json.loads(text) if text else None
