"""The proof on the page: what curation is worth and how methods stand side by side, or why neither can be said."""

import json

import folders
import polars as pl
import pytest
from test_page import Page

from ktodata.errors import RunError
from ktodata.experiments.treatments import FAMILIES
from ktodata.report import build_report
from ktodata.report.headline import headline_text
from ktodata.report.run_files import RunFiles
from ktodata.report.sections.ablation_section import DRAWN, REVIEWED_AT_RANDOM, TREATMENTS, TRUE, read_ablation

NO_ABLATION, NO_COMPARISON = "Did curation help (ktodata ablate", "Methods side by side (ktodata compare"


@pytest.fixture(scope="module")
def html(proven):
    return build_report(proven)


def pictures(html):
    return [attributes["aria-labelledby"].split("-title")[0] for tag, attributes in Page(html).tags if tag == "svg"]


def section(html, anchor):
    start = html.index(f'<section id="{anchor}"')
    return html[start : html.index("</section>", start)]


def test_both_sections_are_drawn_and_told(html):
    assert {"ablation-forest", "ablation-curve", "ablation-rewards", "comparison-forest", "comparison-rewards"} <= set(
        pictures(html)
    )
    curation, methods = (Page(section(html, anchor)).visible for anchor in ("curation", "methods"))
    assert "10% reviewed +0.150 (+0.050 to +0.250), more than chance" in curation
    assert "+0.050 (-0.020 to +0.110), no difference that this can show" in curation
    assert (
        "reviewed: +0.150 (+0.050 to +0.250) at 0.1; reviewed at random: +0.040 (-0.010 to +0.100) at 0.1; true labels: +0.200"
        in (curation)
    )
    assert "10% reviewed: 1.05 desirable, -0.95 undesirable" in curation  # 1 and -1 with the first seed, 0.1 more with the second
    assert "8 updates of 16 completions, learning rate 0.001, the top 1 layer, at most 48 tokens a row." in curation
    assert "2 seeds (0, 1)." in curation and "6 test rows, judged by their labels as given" in curation
    assert (
        "AUC of the reward, minus KTO's against the truth; right is better: the untrained base -0.300 (-0.350 to -0.250), more than"
        in methods
    )
    assert "KTO: 2 desirable, 2 undesirable; DPO: -1 desirable, -1 undesirable." in methods  # KTO: the mean of 1 and 3
    assert "kto" not in methods and NO_ABLATION not in curation and NO_COMPARISON not in methods


def test_every_number_is_in_the_folded_tables(html):
    table = section(html, "curation").split("<tbody>")[1].split("</tbody>")[0]
    lines = [Page(f"<tr>{line}").visible for line in table.split("<tr>")[1:]]
    assert lines[4] == "10% reviewedwhat 10% reviewed isAUC0.7500.500 to 0.900+0.150+0.050 to +0.250no75 %0 to 150 %452"
    assert lines[0].endswith("AUC0.6000.500 to 0.900–––452") and "yes" in lines[1]
    methods = Page(section(html, "methods")).visible
    assert "safe prompts refused, by a rule <b>; lower is betterno labelKTO0.2500.100 to 0.400" in methods
    assert "task <b>sums; higher is better" in methods
    assert "KTO362DPO172" in methods  # rows used, seeds
    assert "DPO0.7000.600 to 0.800-0.100-0.150 to -0.050no+0.200+0.150 to +0.250no172" in methods


def test_names_from_files_stay_text(html):
    page = Page(html)
    assert not {"script", "img", "b"} & {tag for tag, _ in page.tags}
    assert folders.HOSTILE[1] in page.visible and "tiny {{ 7 * 7 }} <b>, trained anew" in page.visible
    assert folders.HOSTILE[0][:40] in page.visible and folders.HOSTILE[6] in page.visible
    assert len({a["id"] for _, a in page.tags if "id" in a}) == sum("id" in a for _, a in page.tags)


def test_nothing_was_measured_says_the_command(tmp_path):
    html = build_report(folders.write_run(tmp_path / "small", stages=folders.PROOF))
    said = Page(html).visible
    assert NO_ABLATION in said and NO_COMPARISON in said
    assert not [key for key in pictures(html) if key.startswith(("ablation", "comparison"))]
    assert html.count('class="absent"') == 4  # those two, coverage and training


@pytest.mark.parametrize("anchor", ["curation", "methods"])
def test_results_of_other_rows_are_not_shown_as_if_current(tmp_path, anchor):
    """The run was made anew, and one of its six test rows is now another."""
    folder = folders.write_run(tmp_path / "small", stages=folders.PROOF)
    ids = [*folders.held_out_ids(folder)[:5], "gone"]
    {"curation": folders.write_ablation, "methods": folders.write_comparison}[anchor](folder, row_ids=ids)
    html = build_report(folder)
    said = Page(section(html, anchor)).visible
    assert "1 of 6 scored rows is not among its test rows." in said and "measures again" in said
    assert "<svg" not in section(html, anchor) and "<table" not in section(html, anchor)
    if anchor == "curation":
        line = headline_text(folder)[3]
        assert line.startswith("Did it help? Training did.") and "not known to be of these rows" in line


@pytest.mark.parametrize("anchor", ["curation", "methods"])
def test_results_of_other_training_rows_are_not_shown(measured_run, anchor):
    folder = measured_run
    stage, facts = {
        "curation": ("label_noise", folders.NOISE_FACTS | {"rows": {"learnt_from": 50}}),
        "methods": ("export", {"rows": {"train": 41}}),
    }[anchor]
    folders.noted(folder / f"stages/{stage}/metrics.json", facts)
    trained, now = {"curation": (45, 50), "methods": (36, 41)}[anchor]
    assert f"They were trained on {trained} rows; it now has {now}." in Page(section(build_report(folder), anchor)).visible


FILES = {"curation": "ablation.parquet", "methods": "comparison/comparison.parquet"}


@pytest.mark.parametrize("anchor", FILES)
def test_without_the_scores_it_cannot_be_told_whose_they_are(measured_run, anchor):
    folder = measured_run
    (folder / FILES[anchor]).unlink()
    visible = Page(section(build_report(folder), anchor)).visible
    assert f"{FILES[anchor]} says which rows were scored, and it is gone or has other columns." in visible


def test_the_answer_names_the_best_treatment_and_its_control(proven):
    """Of two treatments one is better; ranking its control the wrong way round, it is ahead of that by an AUC of 1."""
    line = headline_text(proven)[3]
    assert line.startswith(
        "Did it help? Curation did. Of 2 treatments of the labels, each training the same model, 1 did better than the labels as "
        "given by more than chance, 0 worse. Best: 10% reviewed, +0.150 (+0.050 to +0.250). Its control: 10% at random, +0.040 "
        "(-0.010 to +0.100); ahead of it by more than chance (+1.000, +1.000 to +1.000). To compare with: true labels, +0.200"
    )
    assert "6 test rows, judged by their labels as given. On 6 held-out rows" in line


UNSURE = {"minus_low": -0.05, "differs": False}
WORSE = {"minus_baseline": -0.2, "minus_low": -0.3, "minus_high": -0.1, "differs": True}


@pytest.mark.parametrize(
    ("how", "short", "told"),
    [
        ({"chance": 1.0}, "Perhaps.", "no difference from it that this can show (+0.000, +0.000 to +0.000)"),
        ({"changed": {"reviewed at random": {"budget": 0.2}}}, "Perhaps.", "It has no random control here."),
        ({"changed": {"reviewed": UNSURE}}, "No clear difference.", "0 did better than the labels as given by more than chance"),
        ({"changed": {"reviewed": WORSE}}, "It got worse.", "1 worse. Worst: 10% reviewed, -0.200 (-0.300 to -0.100)."),
        ({"changed": {"reviewed": {"family": "oracle"}}}, "No clear difference.", "Of 1 treatment of the labels"),
    ],
)
def test_no_more_is_claimed_than_the_control_leaves(ablated, how, short, told):
    found = read_ablation(RunFiles(ablated(**how)))
    assert found.answer[0] == short and told in found.answer[1]


DROPPED = {"minus_baseline": 0.18, "minus_low": 0.08, "minus_high": 0.28, "differs": True}


def test_rows_that_are_dropped_have_as_many_dropped_at_random_for_control(ablated):
    """Confident learning is ahead here; the review arm's control is of no concern to it."""
    short, told = read_ablation(RunFiles(ablated(changed={"confident learning": DROPPED}))).answer
    assert "2 did better than the labels as given by more than chance" in told
    assert f"Best: {folders.HOSTILE[0][:40]}" in told and "Its control: dropped at random, -0.010 (-0.050 to +0.040)" in told
    assert short == "Perhaps."  # both arms rank the rows alike
    fewer = read_ablation(RunFiles(ablated(changed={"confident learning": DROPPED | {"rows": 39}}))).answer
    assert "It has no random control here." in fewer[1]  # 40 rows were dropped at random


def test_one_treatment_may_help_and_another_harm(ablated):
    told = read_ablation(RunFiles(ablated(changed={"confident learning": WORSE}))).answer[1]
    assert "1 did better than the labels as given by more than chance, 1 worse." in told
    assert "Best: 10% reviewed, +0.150" in told and "-0.200 (-0.300 to -0.100)" in told


def test_where_all_scored_rows_are_of_one_class_nothing_is_ranked(ablated):
    """The control's gain is told, but that the queue is ahead of it cannot be."""
    folder = ablated()
    scores = pl.read_parquet(folder / "ablation.parquet").with_columns(truth=pl.lit(True))
    scores.write_parquet(folder / "ablation.parquet")
    folders.renoted(folder / "ablation.json")
    short, told = read_ablation(RunFiles(folder)).answer
    assert short == "Perhaps." and "Its control: 10% at random, +0.040 (-0.010 to +0.100). To compare with" in told


def test_arms_without_families_are_shown_without_curve_or_answer(ablated):
    """As an earlier version wrote them."""
    folder = ablated(families=False)
    found = read_ablation(RunFiles(folder))
    assert found.forest and found.rewards and found.curve is None and found.answer is None
    assert "Did curation help" in headline_text(folder)[3]


@pytest.mark.parametrize(("judged_by", "drawn"), [("label", True), ("truth", False)])
def test_rewards_are_split_by_what_the_rows_were_judged_by(ablated, judged_by, drawn):
    """Labels are in the run; the truth only if the run was evaluated with it."""
    folder = ablated(truth=False, judged_by=judged_by)
    assert (read_ablation(RunFiles(folder)).rewards is not None) is drawn
    if not drawn:
        assert "the truth of the scored rows is not in the run folder" in Page(section(build_report(folder), "curation")).visible
        known = pl.DataFrame({"row_id": folders.held_out_ids(folder), "truth": [number < 2 for number in range(6)]})
        known.write_parquet(folder / "stages/evaluate/columns.parquet")
        # desirable are the rows 0 and 1: 1.05 and -0.95; the others are -0.95, 1.05, -0.95 and 1.05
        assert "10% reviewed: 0.05 desirable, 0.05 undesirable" in read_ablation(RunFiles(folder)).rewards


def test_a_file_that_is_no_object_is_named(measured_run):
    (measured_run / "ablation.json").write_text("[]")
    with pytest.raises(RunError, match=r"ablation\.json is damaged"):
        build_report(measured_run)


@pytest.mark.parametrize("told", ['{"arms": "none", "measures": 3, "settings": null}', '{"arms": [7, {"arm": 3}]}'])
def test_files_of_another_version_break_nothing(measured_run, told):
    folder = measured_run
    for name in ("ablation.json", "comparison/comparison.json"):
        folders.noted(folder / name, json.loads(told))
    assert "Did curation help" in Page(build_report(folder)).visible


def test_every_family_of_arms_is_a_treatment_a_control_or_a_bound():
    """A family that the page does not know would be shown, and left out of the answer at its top."""
    known = {*TREATMENTS, DRAWN, REVIEWED_AT_RANDOM, "as given", TRUE, "oracle"}
    assert known == set(FAMILIES)
