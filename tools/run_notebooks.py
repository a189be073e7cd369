"""Run notebooks from top to bottom and keep what they show: `python tools/run_notebooks.py notebooks/00_tour.ipynb ...`.

What is kept can be read on a page and is no machine's own: texts, tables, pictures. Widgets, which only a kernel draws, are left
out, and so is what goes to standard error.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

SHOWN = ("text/plain", "text/html", "image/png")
WIDGET = "application/vnd.jupyter.widget-view+json"
MAX_PLAIN = 5_000  # characters of a text beside the table that shows the same
SECONDS = 3600


def run_notebook(path: Path) -> None:
    """Run it in an empty folder, and write it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": empty}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = [kept for output in cell.outputs if (kept := kept_output(output)) is not None]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def kept_output(output: Any) -> Any | None:
    """The output without what is not kept; None where nothing is left."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if WIDGET in output.data:
        return None
    output.data = {kind: data for kind, data in output.data.items() if kind in SHOWN}
    if "text/html" in output.data and len(output.data.get("text/plain", "")) > MAX_PLAIN:
        del output.data["text/plain"]
    return output if output.data else None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run_notebook(Path(name))
