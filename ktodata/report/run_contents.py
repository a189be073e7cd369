"""All results of a run, read once for whatever page needs it. A part that is None was not part of the run."""

from dataclasses import dataclass
from pathlib import Path

from ktodata.report.run_changes import ChangesSection, read_changes
from ktodata.report.run_files import RunFiles, pick
from ktodata.report.sections.ablation_section import read_ablation
from ktodata.report.sections.balance_section import BalanceSection, read_balance
from ktodata.report.sections.comparison_section import read_comparison
from ktodata.report.sections.coverage_section import CoverageSection, read_coverage
from ktodata.report.sections.evaluation_section import EvaluationSection, read_evaluation
from ktodata.report.sections.experiment_rows import ExperimentSection
from ktodata.report.sections.flow_section import FlowSection, read_flow
from ktodata.report.sections.labels_section import LabelsSection, read_labels_section
from ktodata.report.sections.training_section import TrainingSection, read_training
from ktodata.report.without_text import WithoutText


@dataclass(frozen=True)
class RunContents:
    """A run's files, and what each section of a page is made of."""

    files: RunFiles
    name: str
    flow: FlowSection | None
    changes: ChangesSection | None
    noise: LabelsSection | None
    balance: BalanceSection | None
    coverage: CoverageSection | None
    training: TrainingSection | None
    evaluation: EvaluationSection | None
    ablation: ExperimentSection | None
    comparison: ExperimentSection | None


def read_contents(folder: Path) -> RunContents:
    """Read a run, finished or not. Raises RunError when `folder` is no run folder."""
    return contents_of(RunFiles(folder))


def contents_of(files: RunFiles) -> RunContents:
    """The contents of a run's files, whether with its texts or without."""
    with_examples = not isinstance(files, WithoutText)
    return RunContents(
        files=files,
        name=str(pick(files.manifest, "name", default=files.path.name)),
        flow=read_flow(files),
        changes=read_changes(files),
        noise=read_labels_section(files, with_examples=with_examples),
        balance=read_balance(files),
        coverage=read_coverage(files),
        training=read_training(files, with_examples=with_examples),
        evaluation=read_evaluation(files),
        ablation=read_ablation(files),
        comparison=read_comparison(files),
    )
