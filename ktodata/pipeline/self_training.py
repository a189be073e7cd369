"""Self-training: what training saw of each row goes back to label_noise, and the model is trained again, while that helps.

    round 0   the recipe as it is
    round n   label_noise is given the telemetry of round n-1 (column training_dynamics); the rows are exported and the base model
              is trained anew, with the same settings, seed and number of updates

Dynamics act only as far as reviewed rows show that they are right (labels/people/reviewed_model.py), so a recipe without
reviews ends with round 1, in which nothing changed. Rounds are judged by the reward AUC of *validation* rows, never by test rows
or by the loss of training. It ends when `patience` rounds in a row did not raise that, when a round changes nothing that training
sees, or after `rounds`. A round is the result only if its gain over round 0 has an interval above zero; otherwise round 0 is.

    RUN/rounds/0, 1, ...       a run each, resumable as any run; what telemetry does not touch is linked from round 0
    RUN/self_training.json     a line for each round, and which one is the result
    RUN/report.html            the same as a page, with links to the rounds' own

Falls short where a policy only repeats what its labels taught it: its opinion is then no second one. A reviewed row's verdict
also reaches its near rows' soft labels, and by them the policy, so reviewed rows flatter the dynamics a little.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from ktodata.engines.running import check_engine, running_on
from ktodata.errors import RunError
from ktodata.evaluate.rounds import Ruler, best_round, compare_rounds, ruler, standing_round, waited
from ktodata.files import alone_in, make_folder, read_note, remove_leftovers, whole_file, whole_folder, write_note
from ktodata.pipeline.recipe import Recipe, check_visible, load_recipe, path_from
from ktodata.pipeline.run_folder import Run, SavedStage, stage_folder
from ktodata.pipeline.runner import Notify, preview_plan, run_plan
from ktodata.report.rounds_page import build_rounds_page

RESULT = "self_training.json"
SAME = 0.01  # a soft label that moved by less is the same
MAX_EPOCHS = 1000  # rounds end by their number of updates


def run(
    recipe: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
    until: str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    notify: Notify = lambda event: None,
) -> Run:
    """Run a recipe into a run folder and return it; with `self_training:`, run its rounds and return the one that is the result.

    Stages whose inputs have not changed are read back, not run again; a run that was killed goes on where it stopped when the
    same call is made again.

    recipe : a YAML file, or the same as a dict.
    out : the run folder; runs/<name> when None. It may hold an earlier or unfinished run of the same recipe name. With rounds, it
        holds them in rounds/.
    overrides : e.g. ["label_noise.min_precision=0.9"].
    reviews : files of people's verdicts (row_id, trusted_label), beside those of the recipe's `reviews:`.
    telemetry : of an earlier training on these rows (run folder, model folder or telemetry.parquet), in place of the recipe's.
    until : the last stage to run; the run then ends without shards. With rounds, it stops in round 0.
    engine : where texts go through a model (embed, hidden_states): "local", in processes of this machine; "ray", on a Ray
        cluster; None: in this process. The result is the same.
    workers : how many processes; None: one for each core, or for each processor (GPU) of the cluster.
    address : of the Ray cluster; None: where Ray itself looks, else one that is started here.

    Raises RecipeError and its kin, MissingExtraError or EngineError where there is no Ray, and what `read_reviews` and
    `read_telemetry` raise, before reading a row; DataError, ModelError, EngineError, RunError while running; with rounds,
    OneClassError before the first training when the validation rows are all of one label.
    """
    plan = load_recipe(recipe, overrides=overrides, reviews=reviews, telemetry=telemetry)
    folder = _folder_of(plan, out)
    with running_on(engine, workers=workers, address=address):
        if plan.self_training is None:
            return run_plan(plan, folder, until=until, notify=notify)
        return _Rounds(plan, plan.self_training, folder, notify).go(until)


def dry_run(
    recipe: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    reviews: Sequence[Path | str] = (),
    telemetry: Path | str | None = None,
    engine: str | None = None,
    workers: int | None = None,
    address: str | None = None,
) -> tuple[Recipe, list[tuple[str, str]]]:
    """The checked recipe, and for each stage (of round 0, if there are rounds) "unchanged" or "runs", without running any.

    It refuses an engine that `run` refuses, but joins no cluster.
    """
    plan = load_recipe(recipe, overrides=overrides, reviews=reviews, telemetry=telemetry)
    check_engine(engine, workers=workers, address=address)
    first, folder = first_run(plan, out)
    return plan, preview_plan(first, folder)


def first_run(plan: Recipe, out: Path | str | None) -> tuple[Recipe, Path]:
    """The recipe without its rounds, and the folder that it runs in: the run's own, or with rounds that of round 0."""
    folder = _folder_of(plan, out)
    return (plan, folder) if plan.self_training is None else (replace(plan, self_training=None), _round_folder(folder, 0))


def _folder_of(plan: Recipe, out: Path | str | None) -> Path:
    folder = Path(out) if out else Path("runs") / plan.name
    check_visible(folder.name, "--out is a folder of that name")
    return folder


def rounds_of(run: Run) -> dict[str, Any] | None:
    """What self-training found, of a run that is one of its rounds; None of any other run."""
    place = run.folder.parent.parent / RESULT
    if run.folder.parent.name != "rounds" or not place.is_file():
        return None
    return read_note(place)


def changes(before: pl.DataFrame, after: pl.DataFrame, *, soft: bool) -> dict[str, int]:
    """How many rows training sees otherwise than before; each is counted once.

    before, after : training shards, row_id, label and (where `soft`: training is on soft labels) p_desirable
    entered, left : rows that a decision put in or took out. relabelled : with the other label. softened : with a soft label that
    moved by SAME or more. Weights follow from these and are not counted.
    """
    both = before.join(after, on="row_id", suffix="_after")
    turned = both["label"] != both["label_after"]
    moved = (both["p_desirable"] - both["p_desirable_after"]).abs() >= SAME if soft else pl.Series([False] * both.height)
    counts = {
        "entered": after.height - both.height,
        "left": before.height - both.height,
        "relabelled": int(turned.sum()),
        "softened": int((moved & ~turned).sum()),
    }
    return {**counts, "changed": sum(counts.values()), "rows": after.height}


@dataclass
class _Rounds:
    """One go at the rounds of a recipe: what is known so far."""

    plan: Recipe
    settings: Mapping[str, Any]
    folder: Path
    notify: Notify
    runs: list[Run] = field(default_factory=list)
    changed: list[dict[str, int] | None] = field(default_factory=list)
    rewards: list[pl.DataFrame] = field(default_factory=list)

    def go(self, until: str | None) -> Run:
        from ktodata.train.model.activation_cache import shared_activations

        _check_rounds_folder(self.folder, self.plan.name)
        make_folder(self.folder)
        with alone_in(self.folder), shared_activations():
            remove_leftovers(self.folder)
            if until is not None:
                return run_plan(
                    _plan_of_round(self.plan, None, None), self._round_path(0), until=until, notify=self._with_round(0)
                )
            ended = None
            for number in range(self.settings["rounds"] + 1):
                ended = self._round(number)
                if ended is not None:
                    break
                self._write_result("running", None)
            return self._finish_rounds(ended or f"{self.settings['rounds']} rounds were asked for")

    def _round(self, number: int) -> str | None:
        """Run a round, as far as it goes; why no further one is needed, if none is."""
        plan, place = self._plan_for(number), self._round_path(number)
        if number:
            _link_unchanged(self._round_path(0), place, _before_telemetry(self.plan))
        if _is_done(plan, place):
            self.notify({"kind": "cached", "round": number, "stage": f"round {number}", "number": 1, "of": 1})
        else:
            curated = run_plan(plan, place, until="export", notify=self._with_round(number))
            self._judge_by(curated)
            if number and not self._changes_since(curated)["changed"]:
                return self._nothing_changed(number, curated)
            run_plan(plan, place, notify=self._with_round(number, ("train",)))
        done = Run(place)
        self.changed.append(self._changes_since(done) if number else None)
        self.runs.append(done)
        self.rewards.append(_validation_rewards(done))
        since = waited(self._compared_rounds())
        return f"{since} round(s) in a row did not raise it" if since >= self.settings["patience"] else None

    def _nothing_changed(self, number: int, curated: Run) -> str:
        self.changed.append(self._changes_since(curated))
        return f"round {number} changed nothing that training sees, so it was not trained"

    def _finish_rounds(self, ended: str) -> Run:
        """Evaluate the round that is the result, on test rows if the recipe says so, and write the result."""
        chosen = standing_round(self._compared_rounds())
        plan = replace(self._plan_for(chosen), evaluate=self.plan.evaluate)
        if not _is_done(plan, self._round_path(chosen)):
            run_plan(plan, self._round_path(chosen), notify=self._with_round(chosen, ("evaluate",)))
        self._write_result("done", ended)
        return Run(self._round_path(chosen))

    # --- what a round is made of --------------------------------------------------------------------------------------

    def _round_path(self, number: int) -> Path:
        return _round_folder(self.folder, number)

    def _plan_for(self, number: int) -> Recipe:
        if not number:
            return _plan_of_round(self.plan, None, None)
        return _plan_of_round(self.plan, self._round_path(number - 1), _updates(self._round_path(0)))

    def _changes_since(self, run: Run) -> dict[str, int]:
        """Against the round before."""
        before = Run(self._round_path(int(run.folder.name) - 1))
        return changes(before.shards("train"), run.shards("train"), soft=bool((self.plan.train or {})["soft_labels"]))

    def _with_round(self, number: int, only: Sequence[str] = ()) -> Notify:
        """Events with the round's number; of stages in `only`, if any are named: the others were told of before."""

        def notify_with_round(event: Mapping[str, Any]) -> None:
            if not only or event["stage"] in only:
                self.notify({**event, "round": number, "stage": f"round {number}, {event['stage']}"})

        return notify_with_round

    # --- what is said of it -------------------------------------------------------------------------------------------

    def _judge_by(self, run: Run) -> Ruler:
        rows = run.feedback.filter(pl.col("part") == "validation")
        return ruler(rows.filter(pl.col("row_id").is_in(run.shards("validation")["row_id"].implode())))

    def _compared_rounds(self) -> list[dict[str, Any]]:
        return compare_rounds(
            self.rewards, self._judge_by(self.runs[0]), resamples=self.settings["bootstrap"], seed=self.plan.seed
        )

    def _write_result(self, status: str, ended: str | None) -> None:
        lines = self._compared_rounds()
        untrained = [{"auc": None, "best_before": best_round(lines), "minus_best": None, "minus_round_0": None}]
        every = [*lines, *untrained[: len(self.changed) - len(lines)]]
        chosen = standing_round(lines)
        result = {
            "name": self.plan.name,
            "status": status,
            "settings": dict(self.settings),
            "chosen_round": chosen,
            "helped": chosen > 0,
            "best_round": best_round(lines),
            "ended_because": ended,
            **self._judge_by(self.runs[0]).as_dict(),
            "part": "validation",
            "is": "auc: P(a desirable row has the higher reward), in [0, 1], higher is better; intervals: 95 %, by prompt group",
            "rounds": [
                {"round": number, "folder": f"rounds/{number}", "trained": number < len(lines), **line, "changed": changed}
                for number, (line, changed) in enumerate(zip(every, self.changed, strict=True))
            ],
        }
        result["verdict"] = verdict(result)
        write_note(self.folder / RESULT, result)
        with whole_file(self.folder / "report.html") as scratch:
            scratch.write_text(build_rounds_page(result), encoding="utf-8")


def verdict(result: Mapping[str, Any]) -> str:
    """What self_training.json says, in two or three sentences."""
    first, best = result["rounds"][0]["auc"], result["rounds"][result["best_round"]]
    by = f"on {result['rows']:,} validation rows, by {result['judged_by']}"
    if not result["best_round"]:
        head = f"No round helped: round 0 is the result, with an AUC of {first['value']:.3f} {by}."
    else:
        gain = best["minus_round_0"]
        gained = (
            f"an AUC of {best['auc']['value']:.3f} against {first['value']:.3f} of round 0 {by}: {gain['value']:+.3f} "
            f"({gain['low']:+.3f} to {gain['high']:+.3f})"
        )
        head = f"Round {result['best_round']} helped and is the result: {gained}."
        if not result["helped"]:
            highest = f"Round {result['best_round']} was highest, with {gained}, which includes zero."
            head = f"No round is shown to help, so round 0 is the result. {highest}"
    return head if result["ended_because"] is None else f"{head} It ended because {result['ended_because']}."


def _round_folder(out: Path, number: int) -> Path:
    return out / "rounds" / str(number)


def _plan_of_round(plan: Recipe, before: Path | None, updates: int | None) -> Recipe:
    """The recipe of one round: without evaluation, which only the round that is the result gets.

    before : the round before, whose telemetry is handed in; updates : as many as round 0 made
    """
    once = replace(plan, self_training=None, evaluate=None)
    if before is None:
        return once
    train = {**(plan.train or {}), "max_steps": updates, "epochs": MAX_EPOCHS}
    return replace(once, telemetry=path_from(before, plan.folder), train=train)


def _before_telemetry(plan: Recipe) -> list[str]:
    """The stages that no telemetry can change: those before label_noise."""
    steps = [step.name for step in plan.steps]
    return ["ingest", *(["reviews"] if plan.reviews else []), *steps[: steps.index("label_noise")]]


def _link_unchanged(first: Path, place: Path, stages: Sequence[str]) -> None:
    """Let a round start from what round 0 has of these stages. Files of a run are replaced and never written in, so links do."""
    for name in stages:
        source, target = stage_folder(first, name), stage_folder(place, name)
        if SavedStage(source).key != SavedStage(target).key:
            with whole_folder(target) as scratch:
                for file in source.iterdir():
                    _link(file, scratch / file.name)
    for name in ("quarantine.parquet", "manifest.json"):
        if not (place / name).exists():
            with whole_file(place / name) as scratch:
                _link(first / name, scratch)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _is_done(plan: Recipe, place: Path) -> bool:
    """Whether this very round lies there, whole."""
    if not (place / "manifest.json").is_file():
        return False
    finished = read_note(place / "manifest.json")["status"] == "done"
    return finished and all(answer == "unchanged" for _, answer in preview_plan(plan, place))


def _validation_rewards(run: Run) -> pl.DataFrame:
    """row_id, reward (beta x log-ratio) of the validation rows, under the weights that the training left."""
    from ktodata.train.results.train_result import TrainResult

    trained = TrainResult.load(run.folder / "model")
    last = trained.telemetry.filter((pl.col("part") == "validation") & (pl.col("step") == trained.metrics["weights_of_step"]))
    beta = float(trained.metrics["settings"]["beta"])
    return last.select("row_id", reward=beta * pl.col("log_ratio").cast(pl.Float64))


def _updates(place: Path) -> int:
    """Updates that the training of a round was planned to make."""
    training = read_note(place / "model" / "training.json")
    return int(training["plan"]["steps"])


def _check_rounds_folder(folder: Path, name: str) -> None:
    """The folder is new, empty, or holds the rounds of a recipe of this name."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder for the run.")
    if (folder / "manifest.json").is_file():
        raise RunError(f"{folder} holds a run without rounds. Give another --out, or remove that folder.")
    first = folder / "rounds" / "0" / "manifest.json"
    if first.is_file():
        other = read_note(first).get("name")
        if other != name:
            raise RunError(f"{folder} holds the rounds of {other!r}, and this recipe is {name!r}. Give another --out.")
    elif any(child.name not in (".lock", "rounds") for child in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no rounds: nothing was written there. Give another --out.")
