"""The criterion on the desk: Markdown with tags, pictures and other schemes left as text; a row's page keeps its policy."""

import gc
import re
import time

import pytest

from ktodata.review.pages import MAX_MARKDOWN, render_markdown

HOSTILE = (
    "<b>Nothing else</b>",
    "<script>window.pwned=1</script>",
    "![a picture](https://evil.example/x.png)",
    '![a](x "onerror=alert(1)")',
    "[go](javascript:alert(1))",
    "[go](JaVaScRiPt&colon;alert(1))",
    "[go](&#106;avascript:alert(1))",
    "[go](data:text/html,<script>1</script>)",
    "[go](//evil.example)",
    "[go](/progress)",
    "[go](file:///etc/passwd)",
    "[go](https://good.example\" onclick=\"alert(1))",
    "[go](http://[x) <http://[>",
    "[go](http:evil.example)",
    "<javascript:alert(1)>",
    "<mailto:a@b.example>",
    "[go][there]\n\n[there]: javascript:alert(1)",
    "`<i>` and ```\n<i>\n```",
    "``` \"><script>\n<i>\n```",
    "\u202edcba &#x202e;dcba \x1b[31m &#27;[31m",
    "a\x00b &#0; \ud800",
    "<!-- <img src=x onerror=alert(1)> -->",
    "[ok](https://good.example/?a=1&b=\"><script>)",
)  # fmt: skip
TAG = re.compile(r"<(/?)([a-z0-9]+)((?: [a-z]+(?:=\"[^\"<>]*\")?)*) ?/?>")
TAGS = {"p", "br", "em", "strong", "ul", "ol", "li", "h3", "h4", "h5", "h6", "pre", "code", "a", "blockquote", "hr", "div"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_tag_but_markdowns_own_and_no_link_but_to_the_web(text):
    html = str(render_markdown(text))
    left = TAG.sub("", html)
    assert "<" not in left and ">" not in left, html
    tags = [(name, attributes) for _, name, attributes in TAG.findall(html)]
    assert {name for name, _ in tags} <= TAGS
    for name, attributes in tags:
        names = set(re.findall(r" ([a-z]+)=", attributes))
        assert names <= {"a": {"href", "rel", "target"}, "code": {"class"}, "ol": {"start"}, "div": {"class"}}.get(name, set()), (
            html
        )
        if 'href="' in attributes:
            assert re.search(' href="https?://', attributes) and "noopener" in attributes
    assert not re.search("[\u202e\x1b\x00\ud800]", html)


def test_what_is_typed_stays_in_sight():
    assert "&lt;b&gt;Nothing else&lt;/b&gt;" in render_markdown("It helps. <b>Nothing else</b>")
    assert "[go](javascript:alert(1))" in render_markdown("[go](javascript:alert(1))")
    shown = render_markdown(
        "It **helps**:\n- is right\n- is short\nand\nno more, see [the guide](https://a.example/x).\n\n# Not this\n"
    )
    assert "<strong>helps</strong>" in shown and shown.count("<li>") == 2 and "<h3>Not this</h3>" in shown
    assert '<a href="https://a.example/x" rel="noopener noreferrer" target="_blank">the guide</a>' in shown
    assert "one<br />\ntwo" in render_markdown("one\ntwo")


@pytest.mark.parametrize(
    "text", ["[" * MAX_MARKDOWN, "*a_" * (MAX_MARKDOWN // 3), ">" * MAX_MARKDOWN, "- " * (MAX_MARKDOWN // 2)]
)
def test_no_criterion_takes_long(text):
    render_markdown.cache_clear()
    gc.freeze()  # what other tests left in this process, and what their threads do, is no time of the criterion's
    began = time.thread_time()
    render_markdown(text)
    assert time.thread_time() - began < 2.0
    gc.unfreeze()
    longer = render_markdown(text + "<b>" * 10)
    assert longer.startswith('<div class="words">') and "&lt;b&gt;" in longer
