"""What axe finds on a page in a browser."""

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'ktodata[dev]'")


def grave(page):
    """[(rule, the first element that breaks it)] of all that axe calls serious or critical; details are opened first."""
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 15, [one["id"] for one in found["passes"]]  # the rules did run
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"] if one["impact"] in ("serious", "critical")]
