"""The script of a text, for texts of one script, of several, and of none."""

import polars as pl
import pytest

from ktodata.text.scripts import main_script


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("How do I cook rice?", "Latin"),
        ("Wie heißt die Straße?", "Latin"),
        ("Как сварить рис в iPhone?", "Cyrillic"),
        ("كيف أطبخ الأرز؟", "Arabic"),
        ("쌀을 어떻게 요리하나요?", "Hangul"),
        ("東京の天気は何ですか", "Hiragana"),
        ("怎么煮米饭", "Han"),
        ("1 + 1 = ?", "other"),
        ("", "other"),
    ],
)
def test_script(text, script):
    assert pl.DataFrame({"text": [text]}).select(main_script("text").alias("script"))["script"].to_list() == [script]
