"""The pictures of the README and of the site: the quickstart's report, its five lines once rows were judged, a desk, a tour.

make screenshots        (runs the quickstart first; needs Chromium)

With another run's folder, `as-given` must stand beside it.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import nbformat
import polars as pl
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from playwright.sync_api import Page, sync_playwright

import ktodata as kd
from ktodata.files import write_note

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
RECIPE = ROOT / "pipelines" / "quickstart.yaml"
SIZE = {"width": 1240, "height": 860}
PHONE = {"width": 390, "height": 844}
ROW = "html[data-ready] main[data-row-id]"
DRAWN, SITTING = 60, 64  # rows at the desk: first the random draw, judged blind, then those of the queue
JUDGED = 40  # rows
LAST_CELL = "audit"  # of the tour: what an audit looks like when it draws itself


def truth_by_id() -> dict[str, bool]:
    """The truth of the quickstart's sample by source_id."""
    answers = map(json.loads, (kd.datasets.short_sample() / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    return {answer["id"]: answer["truth"] for answer in answers}


def report(page: Page, run: Path) -> None:
    """The top of the page, its map, and the same in dark and on a phone."""
    page.goto((run / "report.html").as_uri())
    page.screenshot(path=PICTURES / "report.png")
    page.evaluate("document.getElementById('coverage').scrollIntoView()")
    page.wait_for_timeout(500)  # the map draws in a frame of its own
    page.screenshot(path=PICTURES / "map.png")
    page.evaluate("scrollTo(0, 0)")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=PICTURES / "report-dark.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    page.screenshot(path=PICTURES / "report-phone.png")
    page.set_viewport_size(SIZE)


def reviewed(page: Page, run: Path) -> None:
    """The five lines of the same run once rows were judged, by the sample's truth in a person's place; nothing is trained."""
    truth = truth_by_id()
    queue = kd.audit(run).next_reviews(JUDGED)
    verdicts = queue.select("row_id", trusted_label=queue["source_id"].replace_strict(truth, return_dtype=pl.Boolean))
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # the page names the run's folder as it is from here
        file = Path(folder) / "verdicts.csv"
        verdicts.write_csv(file)
        again = kd.run(RECIPE, out="runs/reviewed", reviews=[file], until="export")
        page.goto((again.folder / "report.html").resolve().as_uri())
        page.locator("#verdict").screenshot(path=PICTURES / "reviewed.png")


@contextmanager
def review_of_a_copy(run: Path) -> Iterator[str]:
    """The address of a desk: what is pressed for a picture is no verdict on the run itself."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(run, Path(folder, "runs", run.name))
        shutil.rmtree(copy / "reviews", ignore_errors=True)
        shutil.copytree(RECIPE.parent, Path(folder, "pipelines"))  # the last command names the recipe as it is from here
        write_note(copy / "manifest.json", kd.Run(copy).manifest | {"recipe_folder": "../../pipelines"})
        command = ["-c", "from ktodata.cli import main; main()", "review", str(copy.relative_to(folder))]
        command += ["--reviewer", "ann", "--no-open", "--budget", str(SITTING)]
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait()


def review_page(page: Page, run: Path) -> None:
    """A sitting, by the sample's truth: a row of the random draw, one of the queue, and what was learnt at the end."""
    truth, rows = truth_by_id(), {row["row_id"]: row for row in kd.Run(run).feedback.iter_rows(named=True)}
    with review_of_a_copy(run) as address:
        page.goto(address)
        for number in range(SITTING):
            page.wait_for_selector(ROW)
            if number in (0, DRAWN):
                page.screenshot(path=PICTURES / ("desk.png" if number else "desk-blind.png"))
            shown = page.locator("main")
            row = rows[shown.get_attribute("data-row-id")]
            right = truth[row["source_id"]]
            keys = ("b", "g") if shown.get_attribute("data-blind") == "yes" else ("f", "k")
            page.keyboard.press(keys[right if keys[0] == "b" else right == row["label"]])
            page.wait_for_function("row => document.querySelector('main').dataset.rowId !== row", arg=row["row_id"])
        page.keyboard.press("p")
        page.wait_for_selector("html[data-ready] main.progress")
        page.screenshot(path=PICTURES / "desk-end.png")


def notebook(page: Page) -> None:
    """The tour as Jupyter shows it, up to its audit."""
    tour = nbformat.read(ROOT / "notebooks" / "00_tour.ipynb", as_version=4)
    last = next(place for place, cell in enumerate(tour.cells) if cell.source.splitlines()[-1:] == [LAST_CELL])
    tour.cells = tour.cells[: last + 1]
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(tour, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
        place = Path(folder) / "tour.html"
        place.write_text(HTMLExporter().from_notebook_node(tour)[0], encoding="utf-8")
        page.goto(place.as_uri(), wait_until="domcontentloaded")  # its mathematics would come from elsewhere; there is none
        page.evaluate("document.querySelectorAll('.jp-CodeCell:last-of-type')[0].scrollIntoView()")
        page.screenshot(path=PICTURES / "notebook.png")


def main() -> None:
    run = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "runs" / "quickstart"
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        report(page, run)
        reviewed(page, run)
        review_page(page, run.with_name("as-given"))  # the quickstart's own draw was judged: nothing there is blind any more
        notebook(page)
        browser.close()


if __name__ == "__main__":
    main()
