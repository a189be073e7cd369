"""ktodata: find, measure and repair what spoils binary feedback, and train on it with KTO.

    import ktodata as kd
    run = kd.run("pipelines/quickstart.yaml")

Everything below loads on first use, so `import ktodata` brings in neither torch nor polars.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ktodata.ablation import ablate
    from ktodata.errors import KtodataError
    from ktodata.feedback import feedback_table
    from ktodata.formats import convert, read, write
    from ktodata.label_audit import LabelAudit, audit
    from ktodata.ledger import apply
    from ktodata.report.notebook import show
    from ktodata.report.prompt_map import prompt_map
    from ktodata.review.in_notebook import review_widget
    from ktodata.run_folder import Run
    from ktodata.sample import production_prompts_path, sample_path, truth_path
    from ktodata.self_training import run
    from ktodata.sharing import push_dataset
    from ktodata.signals.confident_learning import find_label_issues, get_label_quality_scores
    from ktodata.signals.judge import estimate_cost, judge
    from ktodata.signals.prompt_groups import find_leaks
    from ktodata.stage import StageResult
    from ktodata.stages.coverage import coverage
    from ktodata.stages.dedupe import dedupe
    from ktodata.stages.embed import embed
    from ktodata.stages.export import export
    from ktodata.stages.hidden_states import hidden_states
    from ktodata.stages.label_noise import label_noise
    from ktodata.stages.rebalance import rebalance
    from ktodata.stages.split import split
    from ktodata.stages.validate import validate
    from ktodata.two_runs import beside

# the public names, sorted, and the module that holds each
_HOMES = {
    "KtodataError": "errors",
    "LabelAudit": "label_audit",
    "Run": "run_folder",
    "StageResult": "stage",
    "ablate": "ablation",
    "apply": "ledger",
    "audit": "label_audit",
    "beside": "two_runs",
    "convert": "formats",
    "coverage": "stages.coverage",
    "dedupe": "stages.dedupe",
    "embed": "stages.embed",
    "estimate_cost": "signals.judge",
    "evaluate": "evaluate",
    "export": "stages.export",
    "feedback_table": "feedback",
    "find_label_issues": "signals.confident_learning",
    "find_leaks": "signals.prompt_groups",
    "get_label_quality_scores": "signals.confident_learning",
    "hidden_states": "stages.hidden_states",
    "judge": "signals.judge",
    "label_noise": "stages.label_noise",
    "production_prompts_path": "sample",
    "prompt_map": "report.prompt_map",
    "push_dataset": "sharing",
    "read": "formats",
    "rebalance": "stages.rebalance",
    "review_widget": "review.in_notebook",
    "run": "self_training",
    "sample_path": "sample",
    "show": "report.notebook",
    "split": "stages.split",
    "train": "train",
    "truth_path": "sample",
    "validate": "stages.validate",
    "write": "formats",
}
_MODULES = ("evaluate", "train")  # public as modules: kd.train.fit(...), kd.evaluate.evaluate(...)

__all__ = [
    "KtodataError",
    "LabelAudit",
    "Run",
    "StageResult",
    "ablate",
    "apply",
    "audit",
    "beside",
    "convert",
    "coverage",
    "dedupe",
    "embed",
    "estimate_cost",
    "evaluate",
    "export",
    "feedback_table",
    "find_label_issues",
    "find_leaks",
    "get_label_quality_scores",
    "hidden_states",
    "judge",
    "label_noise",
    "production_prompts_path",
    "prompt_map",
    "push_dataset",
    "read",
    "rebalance",
    "review_widget",
    "run",
    "sample_path",
    "show",
    "split",
    "train",
    "truth_path",
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
