"""What axe finds on a page in a browser."""

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'ktodata[dev]'")


def grave(page):
    """[(rule, the first element that breaks it)] of all that axe calls serious or critical; details are opened first."""
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    report = axe.Axe().run(page).response
    assert len(report["passes"]) > 15, [rule["id"] for rule in report["passes"]]  # the rules did run
    return [
        (rule["id"], rule["nodes"][0]["html"][:200]) for rule in report["violations"] if rule["impact"] in ("serious", "critical")
    ]
