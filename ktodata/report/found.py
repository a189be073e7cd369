"""All that a run has found, read once for whatever page needs it. A part that is None was not part of the run."""

from dataclasses import dataclass
from pathlib import Path

from ktodata.report.ablation import Ablation, read_ablation
from ktodata.report.balance import Balance, read_balance
from ktodata.report.comparison import Comparison, read_comparison
from ktodata.report.coverage import Coverage, read_coverage
from ktodata.report.evaluation import Evaluation, read_evaluation
from ktodata.report.files import RunFiles, pick
from ktodata.report.flow import Flow, read_flow
from ktodata.report.noise import Noise, read_noise
from ktodata.report.training import Training, read_training
from ktodata.report.without_text import WithoutText


@dataclass(frozen=True)
class Found:
    """A run's files, and what each section of a page is made of."""

    files: RunFiles
    name: str
    flow: Flow | None
    noise: Noise | None
    balance: Balance | None
    coverage: Coverage | None
    training: Training | None
    evaluation: Evaluation | None
    ablation: Ablation | None
    comparison: Comparison | None


def read_run(folder: Path) -> Found:
    """Read a run, finished or not. Raises RunError when `folder` is no run folder."""
    return read_found(RunFiles(folder))


def read_found(files: RunFiles) -> Found:
    """What the files of a run say, whether with its texts or without."""
    with_examples = not isinstance(files, WithoutText)
    return Found(
        files=files,
        name=str(pick(files.manifest, "name", default=files.path.name)),
        flow=read_flow(files),
        noise=read_noise(files, with_examples=with_examples),
        balance=read_balance(files),
        coverage=read_coverage(files),
        training=read_training(files, with_examples=with_examples),
        evaluation=read_evaluation(files),
        ablation=read_ablation(files),
        comparison=read_comparison(files),
    )
