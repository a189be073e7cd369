"""ktodata: find, measure and repair what spoils binary feedback, and train on it with KTO.

    import ktodata as kd
    run = kd.run("pipelines/quickstart.yaml")

Everything below loads on first use, so `import ktodata` brings in neither torch nor polars.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# two threads of torch that wait for each other by spinning, on cores that others use as well, cost ten times what they compute.
# OpenMP reads this when it is loaded, so it is set before anything here loads it; a value of your own is left as it is
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from ktodata import datasets, evaluate, notebook, train
    from ktodata.errors import KtodataError
    from ktodata.experiments.compare import compare
    from ktodata.formats import convert, read, write
    from ktodata.formats.inspection import inspect
    from ktodata.ledger import add_columns
    from ktodata.pipeline.ablate import ablate
    from ktodata.pipeline.audit import audit
    from ktodata.pipeline.run_folder import Run
    from ktodata.pipeline.self_training import run
    from ktodata.report.prompt_map import prompt_map
    from ktodata.stages.coverage import coverage
    from ktodata.stages.dedupe import dedupe
    from ktodata.stages.embed import embed
    from ktodata.stages.export import export
    from ktodata.stages.hidden_states import hidden_states
    from ktodata.stages.judge import judge
    from ktodata.stages.label_noise import label_noise
    from ktodata.stages.rebalance import rebalance
    from ktodata.stages.split import split
    from ktodata.stages.validate import validate

# the public names, and the module that holds each
_HOMES = {
    "KtodataError": "errors",
    "Run": "pipeline.run_folder",
    "ablate": "pipeline.ablate",
    "add_columns": "ledger",
    "audit": "pipeline.audit",
    "compare": "experiments.compare",
    "convert": "formats",
    "coverage": "stages.coverage",
    "datasets": "datasets",
    "dedupe": "stages.dedupe",
    "embed": "stages.embed",
    "evaluate": "evaluate",
    "export": "stages.export",
    "hidden_states": "stages.hidden_states",
    "inspect": "formats.inspection",
    "judge": "stages.judge",
    "label_noise": "stages.label_noise",
    "notebook": "notebook",
    "prompt_map": "report.prompt_map",
    "read": "formats",
    "rebalance": "stages.rebalance",
    "run": "pipeline.self_training",
    "split": "stages.split",
    "train": "train",
    "validate": "stages.validate",
    "write": "formats",
}
_MODULES = ("datasets", "evaluate", "notebook", "train")  # public as modules: kd.train.fit(...), kd.notebook.show(...)

__all__ = [
    "KtodataError",
    "Run",
    "ablate",
    "add_columns",
    "audit",
    "compare",
    "convert",
    "coverage",
    "datasets",
    "dedupe",
    "embed",
    "evaluate",
    "export",
    "hidden_states",
    "inspect",
    "judge",
    "label_noise",
    "notebook",
    "prompt_map",
    "read",
    "rebalance",
    "run",
    "split",
    "train",
    "validate",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ktodata' has no attribute {name!r}")
    module = importlib.import_module(f"ktodata.{_HOMES[name]}")
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
