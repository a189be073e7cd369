"""From a run folder to a desk in the browser: bound to this machine, until Ctrl-C."""

import getpass
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from ktodata.errors import RunError
from ktodata.extras import require
from ktodata.pipeline.run_folder import Run

HOST = "127.0.0.1"


def places_text(address: str, store: Path) -> str:
    """Where to go, and where verdicts are kept."""
    return f"review desk (this address works once): {address}\nverdicts are kept in {store}; Ctrl-C ends the sitting"


def print_places(address: str, store: Path) -> None:
    """For a person at a terminal."""
    print(places_text(address, store))  # noqa: T201


def review(
    folder: Path | str,
    *,
    reviewer: str | None = None,
    blind: bool | None = None,
    minutes: float = 60.0,
    budget: int | None = None,
    port: int = 0,
    open_browser: bool = True,
    announce: Callable[[str, Path], None] = print_places,
) -> None:
    """Serve the review desk of a run until it is interrupted.

    reviewer : who judges; the user's name when None. blind : hide the given label and all that hints at it: of
    every row, of none (false), or of those drawn at random until they are judged (None).
    minutes : of this sitting, a row a minute, the random draw that the run asks for first. budget : rows more, instead.
    port : 0 takes a free one. announce : is given the address, which works once, and the file of the verdicts.

    Raises RunError (no label_noise in the run, a port that is taken, a store that cannot be written) and MissingExtraError.
    """
    require("starlette", "uvicorn", what="the review desk", extra="review")
    import uvicorn

    from ktodata.review.auth import AuthMiddleware
    from ktodata.review.session import open_session
    from ktodata.review.web import ClosingProtocol, ReviewApp

    session = open_session(Run(folder), reviewer=reviewer or getpass.getuser(), blind=blind, minutes=minutes, budget=budget)
    with listening_socket(port) as bound:
        web = ReviewApp(session)
        auth = AuthMiddleware(web.app(), bound.getsockname()[1])
        web.csrf = auth.csrf
        announce(auth.address, session.store.path)
        if open_browser:
            # it may wait for the browser to end
            threading.Thread(target=webbrowser.open, args=(auth.address,), daemon=True).start()
        config = uvicorn.Config(
            auth, http=ClosingProtocol, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none"
        )
        try:
            uvicorn.Server(config).run(sockets=[bound])
        finally:
            session.store.close()


def listening_socket(port: int) -> socket.socket:
    """A socket of this machine; port 0 takes a free one. Raises RunError where the port is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        raise RunError(f"port {port} of {HOST} cannot be taken: {error.strerror}. --port 0 takes a free one.") from error
    bound.listen()
    return bound
