"""Work for engines that needs no model: importable by a worker process, where a test's own module is not."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ktodata.engines.engine import ModelWork
from ktodata.errors import ModelError


@dataclass(eq=False)
class Lengths(ModelWork):
    """Of each text its length and the process that counted; a part does what its first text says, if it is an order.

    notes : a folder, where a process leaves a file for each model that it loads, and each kill that it has carried out
    """

    notes: Path

    def load(self):
        (self.notes / f"loaded-{os.getpid()}").touch()
        return {"version": int((self.notes / "version").read_text()) if (self.notes / "version").exists() else 1}

    def identity(self, model):
        return str(model["version"])

    def __call__(self, part):
        loaded, order = self.model, part[0].split()[0]
        if order == "die" or (order == "die-once" and not (self.notes / "died").exists()):
            (self.notes / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "wait":
            time.sleep(0.2)
        if order == "fail":
            raise ModelError("no such word")
        if order == "odd":
            raise Unsendable(print)
        print("a library that prints")
        return np.array([[len(text), os.getpid(), loaded["version"]] for text in part], np.float32)


class Unsendable(Exception):
    """It cannot be made again from what it holds."""

    def __init__(self, of):
        super().__init__(lambda: of)


def lengths(folder):
    return Lengths("lengths", "cpu", folder)


def counts(results):
    return np.concatenate(list(results))[:, 0].tolist()


def processes(results):
    return {int(process) for process in np.concatenate(list(results))[:, 1]}
