"""The page in a real browser: opened from disk, nothing loaded, nothing run, nothing missing."""

import re
import shutil
import subprocess
from html import unescape

import folders
import pytest

from ktodata.report import build_audit_page, build_report
from ktodata.report.page import SECTIONS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0",
    "--virtual-time-budget=3000", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


def opened(html, folder, *more):
    """(the DOM after loading, what the page wrote to the console) of a page opened from disk."""
    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *more, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = folders.write_run(tmp_path_factory.mktemp("run") / "small")
    folders.write_ablation(folder)
    folders.write_comparison(folder)
    return folder


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    return opened(build_report(run), tmp_path_factory.mktemp("browser"))


def title(dom):
    return unescape(re.search("<title>([^<]*)</title>", dom)[1])


def test_the_report_opens_from_disk_with_all_its_sections(report):
    dom, console = report
    assert console == []
    assert [anchor for anchor, _, _ in SECTIONS if f'<section id="{anchor}"' not in dom] == []
    assert dom.count("<svg") == 13


def test_no_script_of_the_data_ran(report):
    dom, _ = report
    assert title(dom) == "small <b>run</b> \ufffd · ktodata"
    assert "<script" not in dom
    assert "&lt;script&gt;window.pwned=1;document.title='pwned'&lt;/script&gt;" in dom


def test_a_script_in_the_page_would_not_run_either(run, tmp_path):
    """Were a text ever let through unescaped, the page's policy still stops it; the same page without the policy runs it."""
    html = build_report(run).replace("</main>", "<script>document.title='pwned'</script></main>")
    dom, console = opened(html, tmp_path)
    assert title(dom) != "pwned" and "Content Security Policy" in "".join(console)
    open_page = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", html)
    assert title(opened(open_page, tmp_path)[0]) == "pwned"


def test_the_audit_opens(run, tmp_path):
    dom, console = opened(build_audit_page(run), tmp_path)
    assert console == [] and "Rows doubted most" in dom and title(dom).endswith("ktodata audit")
