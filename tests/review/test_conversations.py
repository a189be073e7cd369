"""Conversations on the desk: turn by turn, calls and results as such, reasoning folded; and no conversation takes time."""

import json
import re
import time

import pytest

from ktodata.review.filters import Filters
from ktodata.review.pages import row_page
from ktodata.review.session import open_session

LAG_SECONDS = 0.1


@pytest.fixture(scope="module")
def session(parcels):
    opened = open_session(parcels, reviewer="ann", blind=False)
    yield opened
    opened.store.close()


def page_of(session, row_id):
    item = session.item(Filters(), place=session.place(row_id))
    return row_page(session, item, Filters(), csrf="")


def test_a_conversation_is_shown_turn_by_turn(session, ids):
    page = page_of(session, ids["r4"])
    prompt = re.search('(?s)id="prompt".*?</section>', page)[0]
    assert re.findall(r'<h3 class="role"><bdi>(\w+)</bdi>', prompt) == ["System", "User", "Assistant", "Tool", "User"]
    assert '<p class="tool-head">Calls <code><bdi>lookup_order</bdi></code></p>' in prompt
    assert json.dumps({"order_id": "A-4"}, indent=2).replace('"', "&#34;") in prompt
    assert 'Result of <code><bdi>lookup_order</bdi></code></p>\n<pre class="tool"><code dir="auto">{&#34;status&#34;' in prompt
    completion = re.search('(?s)id="completion".*?</section>', page)[0]
    assert '<details class="thought"><summary>Reasoning <span class="quiet">22 characters</span></summary>' in completion
    assert '<div class="words" dir="auto">On day 4.</div>' in completion and 'class="role"' not in completion
    assert "Tools it could call: <bdi>lookup_order</bdi>" in page and "[reasoning, " in page  # of the rows beside it


def test_what_is_no_call_says_so(session, ids):
    page = page_of(session, ids["calls"])
    assert (
        "{&#34;a&#34;: 1, &#34;a&#34;: 2}" in page and "(these arguments are not JSON)" in page and "(without arguments)" in page
    )


@pytest.mark.parametrize("name", ["long", "many", "hostile"])
def test_no_conversation_makes_the_reviewer_wait(session, ids, name):
    page_of(session, ids[name])
    began = time.process_time()
    page = page_of(session, ids[name])
    assert time.process_time() - began < LAG_SECONDS
    assert len(page) < 1_000_000
    if name == "long":
        assert "1 earlier turn left out here." in page and f"/text?id={ids[name]}&amp;side=prompt" in page and "y" * 1000 in page


def test_a_prompt_that_is_text_looks_as_before(run):
    plain = open_session(run, reviewer="ann", blind=False)
    page = page_of(plain, plain.rows.row_ids[9])
    assert 'class="turn' not in page and "thought" not in page and '<div class="text" id="prompt"' in page
    plain.store.close()
