"""The bench on sources made here: what a source is, what methods see, what is kept, and what the page says."""

import gzip
import importlib
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

import ktodata as kd
from ktodata.bench.bench_cells import BenchCell, paired
from ktodata.bench.bench_methods import METHODS, BenchAnswer, BenchTask, method, vote_matrix
from ktodata.bench.bench_rows import COLUMNS, bench_rows
from ktodata.bench.bench_table import bench_page
from ktodata.bench.bench_tracks import BenchPlan, run_bench
from ktodata.bench.label_sources import FLIPS, label_sources
from ktodata.feedback import feedback_table

ROWS, ENCODER = 160, "packaged:wordllama-256"
WORDS = ("river", "engine", "apple", "window", "planet", "violin", "carpet", "harbour")


def rows(seed=0, *, wrong=0.25, votes=False):
    """Answers that say yes are right; the given label is wrong at a rate, and so are three raters."""
    rng = np.random.default_rng(seed)
    for number in range(ROWS):
        truth, word = bool(number % 2), WORDS[number % len(WORDS)]
        answer = f"{'yes, certainly so' if truth else 'no, never at all'} {word} {number}"
        line = {"prompt": f"about the {word} {number // 2} ?", "completion": answer, "truth": truth}
        if votes:
            yield line | {"votes": {f"r{who}": bool(truth ^ (rng.random() < wrong)) for who in range(3)}}
        else:
            yield line | {"weak_label_rule": bool(truth ^ (rng.random() < wrong)), "weak_label_none": None}


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a file for each kind of source, and files that are none."""
    place = tmp_path_factory.mktemp("data")
    write(place / "rule.jsonl", rows())
    write(place / "deep" / "voted.jsonl.gz", rows(1, votes=True))
    write(place / "clean.jsonl", ({k: v for k, v in line.items() if not k.startswith("weak")} for line in rows(2)))
    write(place / "no_truth.jsonl", ({"prompt": "a", "completion": "b"} for _ in range(ROWS)))
    write(place / "short.jsonl", list(rows())[:20])
    return place


def test_what_a_source_is(folder):
    sources = {source.name: source for source in label_sources(folder)[0]}
    assert list(sources) == [
        *(f"clean, flips {kind}" for kind in FLIPS),
        *(f"deep/voted, {who}" for who in ("majority of votes", "r0", "r1", "r2")),
        "rule, weak_label_rule",
    ]
    assert {source.data for source in sources.values()} == {"clean", "deep/voted", "rule"}


def test_a_label_beside_the_truth_is_what_was_given(tmp_path):
    """Flips were drawn in its place, without a word; and lines without a truth were judged by the label that is on trial."""
    plain = [{"label" if key == "weak_label_rule" else key: value for key, value in line.items()} for line in rows()]
    write(tmp_path / "plain.jsonl", ({key: value for key, value in line.items() if key != "weak_label_none"} for line in plain))
    for name, gap in (("absent", {}), ("null", {"truth": None})):
        lines = [{key: value for key, value in line.items() if key != "truth"} | gap for line in plain[:40]]
        write(tmp_path / f"{name}.jsonl", [*lines, *({**line, "weak_label_judge": line["truth"]} for line in plain[40:])])
    sources, passed_over = label_sources(tmp_path)
    given = {source.name: source.given for source in sources}
    names = [f"{name}, {column}" for name in ("absent", "null") for column in ("label", "weak_label_judge")]
    assert list(given) == [*names, "plain, label"]
    assert given["plain, label"] == [line["label"] for line in plain]
    assert given["absent, label"] == given["null, label"] == given["plain, label"][40:]
    judged = [source for source in sources if source.name.endswith("judge")]
    assert all(source.given == [record.truth for record in source.records] for source in judged)
    assert passed_over["absent"] == passed_over["null"].replace("null", "absent") and "40 without a truth" in passed_over["null"]


FORMS = {
    "words": lambda verdict, n: "yes" if verdict else "no",
    "signs": lambda verdict, n: 1 if verdict else -1,
    "stars": lambda verdict, n: 1 + n % 2 + 3 * verdict,
    "by whom": lambda verdict, n: {"gpt4": verdict},
    "in a list": lambda verdict, n: [{"score": 5 if verdict else 1}],
    "on some lines": lambda verdict, n: verdict if n % 5 < 2 else None,
}


@pytest.mark.parametrize("form", FORMS)
def test_what_may_be_given_in_words_of_its_own_is_not_replaced_by_flips(tmp_path, form):
    """Four sources of flips stood there instead, and no word of it."""
    bare = [{key: line[key] for key in ("prompt", "completion", "truth")} for line in rows()]
    given = [line["weak_label_rule"] for line in rows()]
    lines = [{**line, "judge": FORMS[form](given[n], n), "id": n, "source": "one"} for n, line in enumerate(bare)]
    write(tmp_path / "other.jsonl", lines)
    write(tmp_path / "rule.jsonl", rows())
    sources, passed_over = label_sources(tmp_path)
    assert [source.name for source in sources] == ["rule, weak_label_rule"]
    assert "name it weak_label_judge" in passed_over["other, judge"] and "may be in judge" in passed_over["other"]
    with_flips, _ = label_sources(tmp_path, flips=True)
    assert [source.name for source in with_flips] == [*(f"other, flips {kind}" for kind in FLIPS), "rule, weak_label_rule"]


@pytest.mark.parametrize("empty", [{}, [], "", {"ann": None}])
def test_a_column_in_which_nobody_voted_is_none(tmp_path, empty):
    """The file had no source, and no line said so."""
    bare = [{key: line[key] for key in ("prompt", "completion", "truth")} for line in rows()]
    write(tmp_path / "a.jsonl", [{**line, "votes": empty} for line in bare])
    sources, passed_over = label_sources(tmp_path)
    assert [source.name for source in sources] == [f"a, flips {kind}" for kind in FLIPS]
    assert passed_over["a, votes"] == "Nobody voted."


def test_a_folder_without_sources_is_refused_with_the_reasons(tmp_path):
    with pytest.raises(kd.KtodataError, match="none of 0 files"):
        label_sources(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(kd.KtodataError, match=r"broken\.jsonl, line 2"):
        label_sources(tmp_path)
    (tmp_path / "broken.jsonl").unlink()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:40])
    with pytest.raises(kd.KtodataError, match=r"cut\.jsonl\.gz"):
        label_sources(tmp_path)


def test_no_two_sources_have_one_name(tmp_path):
    """Two would be taken for two seeds of one."""
    long = "feedback of a team whose export has a name that goes on and on"
    for name in ("a.jsonl", "a.jsonl.gz", f"{long}, Monday.jsonl", f"{long}, Tuesday.jsonl"):
        write(tmp_path / name, rows())
    raters = ("r" * 50 + "a", "r" * 50 + "b", "majority of votes")
    lines = [{**line, "votes": dict(zip(raters, line["votes"].values(), strict=True))} for line in rows(votes=True)]
    write(tmp_path / "voted.jsonl", lines)
    sources, passed_over = label_sources(tmp_path)
    names = [source.name for source in sources]
    assert len(set(names)) == len(names) == 8
    assert names[:2] == ["a.jsonl, weak_label_rule", "a.jsonl.gz, weak_label_rule"]
    assert f"{long}, Monday, weak_label_rule" in names
    assert len({source.data for source in sources}) == 5
    assert {name for name in names if name.startswith("voted, majority of votes")} == {
        "voted, majority of votes",
        "voted, majority of votes (2)",
    }
    assert len(passed_over) == 4, "the empty column of each file that has one"


def as_numbers(line):
    return {key: int(value) if isinstance(value, bool) else value for key, value in line.items()}


@pytest.mark.parametrize("votes", [False, True])
def test_one_and_zero_are_verdicts(tmp_path, votes):
    """As numbers, and as text."""
    lines = [as_numbers(line) for line in rows(votes=votes)]
    if votes:
        lines = [{**line, "votes": {who: str(int(vote)) for who, vote in line["votes"].items()}} for line in lines]
    write(tmp_path / "a.jsonl", lines)
    write(tmp_path / "b.jsonl", rows(votes=votes))
    sources, _ = label_sources(tmp_path)
    half = len(sources) // 2
    assert half == (4 if votes else 1)
    for number, word in zip(sources[:half], sources[half:], strict=True):
        assert number.given == word.given and number.records == word.records


def test_whatever_is_passed_over_is_named_with_the_reason(folder, tmp_path):
    every = list(rows())
    messages = [{"role": "user", "content": "a"}]
    write(tmp_path / "good.jsonl", every)
    write(tmp_path / "chat.jsonl", ({**line, "prompt": messages} for line in every))
    write(tmp_path / "few.jsonl", every[:30])
    write(tmp_path / "partly.jsonl", [*every, {"prompt": "a", "completion": "b", "truth": "unsure"}, 7])
    write(tmp_path / "stars.jsonl", ({**line, "weak_label_rule": 5} for line in every))
    write(tmp_path / "ups.jsonl", ({**line, "votes": {"a": "up"}} for line in rows(votes=True)))
    write(tmp_path / "both.jsonl", (line for line in every for line in (line, {**line, "truth": not line["truth"]})))
    (tmp_path / "broken.jsonl").write_text('{"prompt": \n')
    sources, why = label_sources(tmp_path)
    assert [source.name for source in sources] == ["good, weak_label_rule", "partly, weak_label_rule"], "and no flips in place"
    assert f"{ROWS} without the texts prompt and completion" in why["chat"] and "100 are needed" in why["chat"]
    assert why["few"] == "30 lines have prompt, completion and a truth, and 100 are needed."
    assert "1 without a truth" in why["partly"] and "1 that are no JSON object" in why["partly"]
    assert f"{ROWS} of {ROWS} values are none of true, false, 1, 0" in why["stars, weak_label_rule"]
    assert f"{ROWS} of {ROWS} are no" in why["ups, votes"]
    assert f"{2 * ROWS} of texts with both truths" in why["both"]
    assert "broken.jsonl, line 1" in why["broken"]
    assert why["good, weak_label_none"] == "it has no value."


def test_what_is_measured_is_counted_without_repeats(tmp_path):
    """Two hundred lines of ten texts are ten rows; a truth, or labels, that are all one teach nothing."""
    few, every = [line for line in list(rows())[:10] for _ in range(20)], list(rows())
    write(tmp_path / "alltrue.jsonl", ({"prompt": f"a {n}", "completion": f"b {n}", "truth": True} for n in range(ROWS)))
    write(tmp_path / "alltruth.jsonl", ({**line, "truth": True} for line in every))
    write(tmp_path / "constant.jsonl", ({**line, "weak_label_rule": True} for line in every))
    write(tmp_path / "repeats.jsonl", ({**line, "weak_label_rule": line["truth"] ^ (n % 3 == 0)} for n, line in enumerate(few)))
    write(tmp_path / "sound.jsonl", ({**line, "weak_label_rule": line["truth"]} for line in every))
    outcome = run_bench(
        BenchPlan(tmp_path, tmp_path / "out", budgets=(0.0,), methods=("as given",), max_rows=ROWS, encoder=ENCODER)
    )
    assert not outcome.rows and not outcome.cells
    why = outcome.passed_over
    assert len([name for name in why if name.startswith("alltrue, flips")]) == len(FLIPS)
    assert "the truth of its 160 rows is all one" in why["alltrue, flips uniform"]
    assert "the truth is all one" in why["alltruth, weak_label_rule"]
    assert "the labels are all one" in why["constant, weak_label_rule"]
    assert "100 are needed" in why["repeats, weak_label_rule"]
    assert "0 labels are wrong, and 20 are needed" in why["sound, weak_label_rule"]
    page = bench_page(outcome)
    assert all(f"- {name}: " in page for name in why)


def test_a_source_does_not_vanish_by_the_cut(tmp_path):
    """25 of 160 labels are wrong, of the 100 rows that it is cut to fewer than 20."""
    write(
        tmp_path / "rule.jsonl",
        ({**line, "weak_label_rule": line["truth"] ^ (n % 6 == 0 and n < 150)} for n, line in enumerate(rows())),
    )
    made = bench_rows(label_sources(tmp_path)[0][0], max_rows=100, encoder=ENCODER)
    assert len(made.labels) == 100 and 0 < made.wrong.sum() < 20


def test_flips_are_as_many_as_said(folder):
    for source in label_sources(folder)[0][:4]:
        made = bench_rows(source, max_rows=ROWS, encoder=ENCODER)
        assert 0.05 < made.wrong.mean() < 0.27, source.name


def leaves(column):
    """Every column of single values that is nested in a column."""
    if isinstance(column.dtype, pl.List):
        return leaves(column.list.first())
    if isinstance(column.dtype, pl.Struct):
        return [leaf for name in column.struct.fields for leaf in leaves(column.struct.field(name))]
    return [] if isinstance(column.dtype, pl.Array) else [column]


def test_methods_never_see_the_truth(folder):
    """Of no row that is not reviewed, in no column however nested, of no source; nor in the order of the rows."""
    for source in label_sources(folder)[0]:
        made = bench_rows(source, max_rows=ROWS, encoder=ENCODER)
        reviewed = np.arange(len(made.labels)) < 7
        task = BenchTask.of(made, reviewed, 0)
        assert (task.verdicts[reviewed] == made.truth[reviewed]).all()
        assert (task.verdicts[~reviewed] == made.labels[~reviewed]).all()
        assert set(task.table.columns) <= set(COLUMNS)
        texts = [f"{line['prompt']}\n{line['completion']}" for line in made.table.iter_rows(named=True)]
        truth_of = {f"{record.prompt}\n{record.completion}": record.truth for record in source.records}
        assert made.truth.tolist() == [truth_of[text] for text in texts]
        for leaf in (leaf for name in task.table.columns for leaf in leaves(task.table[name])):
            if leaf.name in ("prompt", "completion") or leaf.n_unique() > ROWS / 4:
                continue
            for value in leaf.drop_nulls().unique():
                agree = (leaf == value).fill_null(False).to_numpy() == made.truth
                assert 0.05 < agree.mean() < 0.95, (source.name, leaf.name, value)
        turns = np.diff(made.truth.astype(int)) != 0
        assert 0.3 < turns.mean() < 0.7, "the file has its truths in turn, the rows have not"


def test_a_method_cannot_change_what_others_are_given(folder):
    """Its arrays are not to be written to, and its table is its own."""
    made = bench_rows(label_sources(folder)[0][-1], max_rows=ROWS, encoder=ENCODER)
    before, columns = made.labels.copy(), made.table.columns
    task = BenchTask.of(made, np.zeros(len(made.labels), bool), 0)
    for array in (task.labels, task.groups, task.reviewed, task.verdicts, task.review_weight):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
        array.flags.writeable = True
        array[:] = 0
    task.table.insert_column(0, pl.Series("mine", before))
    task.table[0, "label"] = not task.table[0, "label"]
    assert made.table.columns == columns
    assert (made.labels == before).all() and (made.table["label"].to_numpy() == before).all()


def test_a_source_is_cut_by_whole_rows_the_same_each_time(folder):
    source = label_sources(folder)[0][-1]
    small, again = (bench_rows(source, max_rows=100, encoder=ENCODER) for _ in range(2))
    assert len(small.labels) == 100
    assert small.table["row_id"].to_list() == again.table["row_id"].to_list()


def test_an_answer_is_kept_as_long_as_its_own_sources_are_the_same(folder, tmp_path, monkeypatch):
    """Through a package and an import inside a function; another method's file changes nothing."""
    (tmp_path / "mine.py").write_text(
        "from ktodata.bench.bench_methods import BenchAnswer, method\nimport helper_of_mine\n"
        "@method('mine')\ndef mine(task): return BenchAnswer(None, labels=helper_of_mine.turned(task.labels))\n"
    )
    (tmp_path / "helper_of_mine.py").write_text(
        "def turned(labels):\n    from package_of_mine import deep\n    return labels if deep.KEEP else ~labels\n"
    )
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "__init__.py").write_text("")
    (tmp_path / "package_of_mine" / "deep.py").write_text("from .deeper import KEEP\n")
    deeper = tmp_path / "package_of_mine" / "deeper.py"
    monkeypatch.syspath_prepend(tmp_path)
    answered = []
    monkeypatch.setitem(
        METHODS, "as given", replace(given := METHODS["as given"], answer=lambda task: answered.append(1) or given.answer(task))
    )

    def right(keep, *more):
        deeper.write_text(f"KEEP = {keep}  # {'x' * keep}\n")
        for name in [name for name in sys.modules if "of_mine" in name or name.startswith("bench_method_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        names, added = ("as given", "mine"), (tmp_path / "mine.py", *more)
        plan = BenchPlan(
            folder,
            tmp_path / "out",
            budgets=(0.0,),
            sources=("rule, weak_label_rule",),
            methods=names,
            added=added,
            max_rows=ROWS,
        )
        try:
            return run_bench(plan).cells["rule, weak_label_rule", 0.0, "mine"][0].figures()["right"]
        finally:
            METHODS.pop("mine")
            METHODS.pop("other", None)

    kept = right(1)
    assert right(0) == pytest.approx(1 - kept) != kept
    assert right(1) == kept
    (tmp_path / "other.py").write_text(
        "from ktodata.bench.bench_methods import BenchAnswer, method\n@method('other')\ndef other(task): return BenchAnswer(None)\n"
    )
    assert right(1, tmp_path / "other.py") == kept
    assert len(answered) == 1, "of the other methods nothing has changed"
    cells = list((tmp_path / "out" / "cells").glob("*.npz"))
    assert len(cells) == 3


@pytest.fixture(scope="module")
def outcome(folder, tmp_path_factory):
    """Every method on two sources."""
    plan = BenchPlan(
        folder,
        tmp_path_factory.mktemp("out"),
        budgets=(0.0, 0.3),
        sources=("rule", "deep/voted, r0"),
        max_rows=ROWS,
        encoder=ENCODER,
    )
    return run_bench(plan)


def test_every_method_answers_where_it_can(outcome):
    pairs = {(source, method) for source, _, method in outcome.cells}
    able = {name: each for name, each in METHODS.items() if not (each.needs_model or each.only_trained)}
    assert {name for source, name in pairs if source == "deep/voted, r0"} == set(able)
    assert {name for source, name in pairs if source.startswith("rule")} == {
        name for name, each in able.items() if not each.needs_votes
    }


def test_the_figures_are_right_where_the_truth_is_plain(outcome):
    figures = {(line["source"], line["budget"], line["method"]): line for line in outcome.figures()}
    for name in ("ktodata", "cleanlab, TF-IDF", "cleanlab, embeddings"):
        assert figures["rule, weak_label_rule", 0.0, name]["auroc"] > 0.85, name
    given = figures["rule, weak_label_rule", 0.0, "as given"]
    assert given["auroc"] is None and given["turned"] == 0
    reviewed = figures["rule, weak_label_rule", 0.3, "as given"]
    assert reviewed["reviewed"] == round(0.3 * outcome.rows["rule, weak_label_rule"])
    assert given["right"] < reviewed["right"] < 1
    assert figures["deep/voted, r0", 0.0, "Dawid-Skene"]["right"] > figures["deep/voted, r0", 0.0, "as given"]["right"]


def test_a_stopped_bench_goes_on(outcome, monkeypatch):
    """What is on disk is not asked again; a damaged cell is."""
    cells = sorted((outcome.plan.out / "cells").glob("*.npz"))
    assert len(cells) == len(outcome.cells)
    cells[0].write_bytes(cells[0].read_bytes()[:50])
    answered = []
    for name, each in list(METHODS.items()):
        monkeypatch.setitem(
            METHODS,
            name,
            replace(each, answer=lambda task, each=each: answered.append(1) or each.answer(task)),
        )
    again = run_bench(outcome.plan)
    assert len(answered) == 1
    assert [{**line, "seconds": 0} for line in again.figures()] == [{**line, "seconds": 0} for line in outcome.figures()]


def test_the_page_says_what_can_be_told(outcome, monkeypatch):
    monkeypatch.setattr("ktodata.bench.bench_table.DRAWS", 20)
    page = bench_page(outcome)
    assert "| rule, weak_label_rule |" in page
    words = {line.rsplit(": ", 1)[1].split(" ")[0] for line in page.splitlines() if line.count(" to ") and line.startswith("| ")}
    assert words <= {"ahead", "behind", "cannot", "the"}
    assert "- rule, weak_label_none: it has no value." in page
    row = page.split("30% of the rows reviewed")[1].split("| rule, weak_label_rule |")[1]
    assert row.split("|")[2].strip() == str(round(0.3 * outcome.rows["rule, weak_label_rule"])), "how many rows were reviewed"


def cell(doubt, labels, truth, repaired=None):
    nobody = np.zeros(len(labels), bool)
    return BenchCell(labels, truth, np.arange(len(labels)), nobody, labels if repaired is None else repaired, doubt, None, 0.0)


def test_a_difference_that_is_none_is_not_told_and_one_that_is_there_is():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.5
    labels = truth ^ (rng.random(600) < 0.2)
    wrong = (labels != truth).astype(float)
    noise, weak, strong = rng.normal(size=600), wrong + 3 * rng.normal(size=600), wrong + 0.5 * rng.normal(size=600)
    apart = paired([cell(strong, labels, truth)], [cell(weak, labels, truth)], "auroc", draws=40)
    assert apart.low > 0
    same = paired([cell(noise, labels, truth)], [cell(rng.normal(size=600), labels, truth)], "auroc", draws=40)
    assert same.low < 0 < same.high
    right = paired([cell(None, labels, truth, truth)], [cell(None, labels, truth)], "right", draws=40)
    assert right.value == pytest.approx(wrong.mean()) and right.low > 0
    assert paired([cell(None, labels, truth)], [cell(noise, labels, truth)], "auroc", draws=10).value is None


def test_calibration_does_not_cancel():
    """Half of the rows too sure by 0.3, half not sure enough by 0.3: the signed mean is 0."""
    truth, wrong = np.ones(400, bool), np.arange(400) % 10 < 5
    p = np.where(np.arange(400) % 20 < 10, 0.85, 0.15)  # of either half of the rows one in two is wrong
    made = replace(cell(None, truth ^ wrong, truth), p_wrong=p)
    figures = made.figures()
    assert figures["calibration_error"] == pytest.approx(0.35) and figures["brier"] == pytest.approx(0.25 + 0.35**2)
    perfect = replace(made, p_wrong=wrong.astype(float)).figures()
    assert perfect["calibration_error"] == perfect["brier"] == 0


def test_a_label_that_is_nearly_always_wrong_is_not_averaged_in():
    """One right row of a given label is beaten by all of its wrong ones, or by none."""
    truth, labels = np.arange(400) % 2 == 0, np.arange(400) % 4 < 2
    truth[labels] = False
    truth[np.flatnonzero(labels)[0]] = True
    made = cell(np.arange(400.0), labels, truth)
    assert len(made.sides) == 1 and not made.labels[made.sides[0]].any()


def test_votes_as_a_matrix(folder):
    source = next(source for source in label_sources(folder)[0] if source.name == "deep/voted, r0")
    made = bench_rows(source, max_rows=ROWS, encoder=ENCODER)
    votes = vote_matrix(made.table)
    assert votes.shape == (len(made.labels), 3)
    assert (votes[:, 0] == made.labels).all(), "the given label is r0's"
    assert 0.6 < (votes == made.truth[:, None]).mean() < 0.9


def test_of_two_votes_of_a_rater_the_later_counts_wherever_it_stands():
    early, late = (datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2))
    votes = [{"rater": "ann", "label": True, "created_at": late}, {"rater": "ann", "label": False, "created_at": early}]
    rows = feedback_table({"prompt": "p", "completion": "c", "label": True, "votes": votes}, ("p", "d", False))
    assert np.array_equal(vote_matrix(rows), [[1.0], [np.nan]], equal_nan=True)


MINE = '''
import numpy as np
from ktodata.bench.bench_methods import BenchAnswer, BenchTask, method


@method("length of the answer")
def length(task: BenchTask) -> BenchAnswer:
    """Long answers are taken for good ones."""
    words = task.table["completion"].str.count_matches(r"\\\\S+").to_numpy().astype(float)
    return BenchAnswer(doubt=np.where(task.labels, -words, words))
'''


def test_a_stranger_adds_a_method_by_the_command(folder, tmp_path):
    from typer.testing import CliRunner

    from ktodata.cli import app

    (tmp_path / "mine.py").write_text(MINE)
    options = ["--data", str(folder), "--out", str(tmp_path / "out"), "--source", "rule", "--budget", "0", "--max-rows", "160"]
    chosen = ["--method", "as given", "--method", "length", "--add", str(tmp_path / "mine.py"), "--json"]
    try:
        ended = CliRunner().invoke(app, ["bench", *options, *chosen])
        assert ended.exit_code == 0, ended.output
        values = json.loads(ended.stdout)
        assert [line["method"] for line in values["cells"]] == ["as given", "length of the answer"]
        assert "length of the answer" in (tmp_path / "out" / "bench.md").read_text()
    finally:
        METHODS.pop("length of the answer", None)


def raises(task):
    raise KeyError("x")


def raises_once_reviewed(task):
    return raises(task) if task.reviewed.any() else BenchAnswer(doubt=np.arange(len(task.labels)))


@pytest.mark.parametrize(
    ("answer", "fault", "budgets"),
    [
        (lambda task: BenchAnswer(doubt=np.zeros(3)), "doubt of shape (3,)", 2),
        (lambda task: BenchAnswer(doubt=np.full(len(task.labels), np.nan)), "finite", 2),
        (lambda task: None, "it is a BenchAnswer", 2),
        (raises, "KeyError: 'x' (test_bench.py, line", 2),
        (raises_once_reviewed, "20% reviewed: KeyError: 'x'", 1),
    ],
)
def test_a_method_that_does_not_answer_is_passed_over_with_the_reason(folder, tmp_path, answer, fault, budgets):
    """And the others are measured."""
    method("odd")(answer)
    names = ("as given", "odd")
    try:
        plan = BenchPlan(
            folder,
            tmp_path,
            budgets=(0.0, 0.2),
            seeds=2,
            sources=("rule, weak_label_rule",),
            methods=names,
            max_rows=ROWS,
            encoder=ENCODER,
        )
        outcome = run_bench(plan)
    finally:
        METHODS.pop("odd")
    assert fault in outcome.passed_over["rule, weak_label_rule, odd"]
    assert [len(outcome.cells["rule, weak_label_rule", budget, "as given"]) for budget in plan.budgets] == [2, 2]
    assert len([name for _, _, name in outcome.cells if name == "odd"]) == 2 - budgets
    assert f"- rule, weak_label_rule, odd: {outcome.passed_over['rule, weak_label_rule, odd']}" in bench_page(outcome)


def test_names_that_nothing_has(folder, tmp_path):
    with pytest.raises(kd.KtodataError, match="no method 'ktodate'"):
        run_bench(BenchPlan(folder, tmp_path, methods=("ktodate",)))
    with pytest.raises(kd.KtodataError, match="no source 'rool'"):
        run_bench(BenchPlan(folder, tmp_path, sources=("rool",)))
    with pytest.raises(kd.KtodataError, match="at least 0 and under 1"):
        BenchPlan(folder, tmp_path, budgets=(5,))
    with pytest.raises(kd.KtodataError, match="is no Python file"):
        run_bench(BenchPlan(folder, tmp_path, added=(tmp_path / "none.py",)))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(kd.KtodataError, match="registers no method"):
        run_bench(BenchPlan(folder, tmp_path, added=(tmp_path / "empty.py",)))
    (tmp_path / "wrong.py").write_text("import ktodata.none\n")
    with pytest.raises(kd.KtodataError, match=r"wrong\.py does not run: ModuleNotFoundError"):
        run_bench(BenchPlan(folder, tmp_path, added=(tmp_path / "wrong.py",)))
    with pytest.raises(kd.KtodataError, match="already"):
        method("ktodata")(lambda task: BenchAnswer(None))
