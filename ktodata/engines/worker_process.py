"""What a process of the local engine runs: it takes the work, then part after part, and answers each with an error or a result.

It ends when nobody sends any more: also when the process that started it was killed.
"""

import os
import pickle
import signal
import sys
from contextlib import suppress
from typing import Any


def serve() -> None:
    """Answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the starter's: it ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    with suppress(EOFError, BrokenPipeError):
        packed = pickle.load(sys.stdin.buffer)
        work = None
        while True:
            part = pickle.load(sys.stdin.buffer)
            try:
                work = work or pickle.loads(packed)
                answer: tuple[Exception | None, Any] = None, work(part)
            except Exception as error:
                answer = _sendable(error), None
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _sendable(error: Exception) -> Exception:
    """The error itself, if it can be sent; else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    serve()
