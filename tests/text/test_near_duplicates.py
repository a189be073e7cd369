"""Near-duplicates against a slow, plain comparison of all pairs, and where MinHash tools are known to go wrong."""

import itertools
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktodata.text.minhash import SMALL_BUCKET, candidate_pairs, rows_per_band, signatures
from ktodata.text.near_duplicates import SimilarPairs, near_texts, nearest_kept, prepare, similarity
from ktodata.text.shingles import SAMPLE, jaccard, shingle_sets, template_words
from ktodata.text.words import blocks, figures, normalised, word_hashes


def plain_jaccard(text: str, other: str) -> float:
    """Words and neighbouring words, as Python sets of strings."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text)
        return {(word,) for word in words} | set(itertools.pairwise(words))

    a, b = shingles(text), shingles(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def variants(count: int, seed: int = 0) -> list[str]:
    """`count` different texts: 8 to 30 words, each with a sibling in which up to three words are changed."""
    random = np.random.default_rng(seed)
    vocabulary = [first + second for first in "bcdfglmnprst" for second in ("ane", "ilo", "ust", "ery", "oma", "ake")]
    texts = []
    for _ in range(count // 2):
        words = random.choice(vocabulary, random.integers(8, 31)).tolist()
        texts.append(" ".join(words))
        for place in random.integers(0, len(words), random.integers(0, 4)):
            words[place] = str(random.choice(vocabulary))
        texts.append(" ".join(words))
    return list(dict.fromkeys(texts))


def test_jaccard_is_that_of_plain_sets():
    texts = variants(60)
    left, right = np.triu_indices(len(texts), 1)
    result = jaccard(shingle_sets(word_hashes(pl.Series(texts))), left, right)
    expected = [plain_jaccard(texts[i], texts[j]) for i, j in zip(left, right, strict=True)]
    np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85])
def test_near_texts_finds_what_comparing_all_pairs_finds(threshold):
    texts = variants(240)
    near = near_texts(prepare(pl.Series(texts), templates=False, seed=0), threshold)
    expected = {(i, j) for i, j in itertools.combinations(range(len(texts)), 2) if plain_jaccard(texts[i], texts[j]) >= threshold}
    result = set(zip(near.left.tolist(), near.right.tolist(), strict=True))
    assert len(expected) > 15
    assert result <= expected  # verified: no false pair, whatever the hashes
    assert len(result) >= 0.99 * len(expected)
    assert near.skipped == 0


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_can_be_compared(texts):
    """Empty texts, NUL, control characters, any script: no crash, similarity is in [0, 1], symmetric, and 1 with itself."""
    ready = prepare(pl.Series(texts), templates=True, seed=0)
    left, right = (place.ravel() for place in np.meshgrid(np.arange(len(texts)), np.arange(len(texts))))
    value = similarity(ready, left, right)
    assert ((value >= 0) & (value <= 1)).all()
    np.testing.assert_array_equal(value, similarity(ready, right, left))
    assert (value[left == right] == 1).all()


def like(text: str, other: str) -> float:
    texts = pl.Series("text", [text, other]).to_frame().select(normalised(pl.col("text"), ignore_case=True))["text"]
    ready = prepare(texts, templates=False, seed=0)
    return float(similarity(ready, np.array([0]), np.array([1]))[0])


@pytest.mark.parametrize(
    ("text", "other", "alike"),
    [
        ("ok", "ok.", True),
        ("yes", "no", False),
        ("👍", "👎", False),
        ("Thanks!", "thanks", True),
        ("???", "!!!", False),  # no words at all: only equal texts are the same
        ("dog bites man", "man bites dog", False),
        ("What is 13 + 25?", "What is 13 - 25?", False),
        ("What is 13 + 25?", "what is 13 + 25", True),
        ("C++", "C#", False),
        ("今天天气怎么样", "今天天气怎么样？", True),
        ("今天天气怎么样", "明天比赛谁会赢", False),
        ("Das ist gro\u00df, m\u00fcde", "das  ist gro\u00df m\u0075\u0308de", True),  # composed and decomposed u-umlaut
    ],
)
def test_short_texts(text, other, alike):
    assert (like(text, other) >= 0.8) is alike


def test_a_changed_number_keeps_long_texts_apart():
    text = (
        "A train leaves the station at {} and drives to the next town, where it waits for {} minutes before it comes back here."
    )
    assert plain_jaccard(text.format("8:15", 20), text.format("8:15", 30)) > 0.8
    assert like(text.format("8:15", 20), text.format("8:15", 30)) == 0
    assert like(text.format("8:15", 20), text.format("20:15", 8)) == 0
    assert like(text.format("8:15", 20), text.format("8:15", 20).replace("drives", "goes")) > 0.8


def test_figures_are_numbers_and_signs_in_order():
    values = figures(pl.Series(["3 of 5", "5 of 3", "3, of 5.", "no number", "", "3 + 5", "3.5", "-3.5"]))
    assert values[0] == values[2]
    assert values[3] == values[4]
    assert len(set(values.tolist())) == 6


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("**bold** move", "bold move"),
        ("**3** things", "3 things"),
        ("1. **Step** go", "1. Step go"),
        ("* a thing * another", "- a thing - another"),
        ("* 3 apples", "- 3 apples"),
        ("====== Title", "Title"),
        ("<b>word</b>", "word"),
        ("and/or", "and or"),
        ("5 % of all", "5% of all"),
        ("cost = price * amount", "cost = worth * amount"),
        ("it was \u22123 degrees", "it was -3 degrees"),
        ("GPT\u20114 is", "GPT-4 is"),
        ("take *care* there", "take care there"),
        ("# Title of it", "Title of it"),
        ("done 👍🏽 by us", "done 👍 by us"),
        ("pre-war and well-known", "pre war and well known"),
        ("● a thing", "- a thing"),
        ("有3个人在这里。", "有3个人在那里。"),
        ("R&amp;D here", "R&D here"),
    ],
)
def test_marks_of_layout_are_no_figures(text, other):
    left, right = figures(pl.Series([text, other]))
    assert left == right


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("area = length * width", "area = length + width"),
        ("the area is length * width = area", "the area is length - width = area"),
        ("he paid 5 + 6", "he paid 5 - 6"),
        ("width / height is", "width × height is"),
        ("3*4", "3+4"),
        ("2 ** 3", "2 * 3"),
        ("a*b", "a/b"),
        ("x > y holds", "x < y holds"),
        ("x^2", "x^3"),
        ("use C++ now", "use C now"),
        ("5 % of all", "5 of all"),
        ("3 * 412", "3 * 41 2"),
        ("at \u22123 degrees", "at 3 degrees"),
        ("at \u20133 degrees", "at 3 degrees"),
        ("at \uff0d3 degrees", "at 3 degrees"),
        ("\u00bd cup", "\u00bc cup"),
        ("an area of r\u00b2", "an area of r\u00b3"),
        ("10\u207b\u00b2", "10\u00b2"),
        ("H\u2082O", "H\u2083O"),
        ("take \u2460", "take \u2463"),
        ("一日三回", "一日二回"),
        ("共有三百人", "共有五百人"),
        ("x \u2264 3", "x \u2265 3"),
        ("x <= 3", "x >= 3"),
        ("total <= limit", "total >= limit"),
        ("total<limit", "total>limit"),
        ("A \u2282 B", "A \u2283 B"),
        (r"$x \leq 3$", r"$x \geq 3$"),
        (r"$a \times b$", r"$a \div b$"),
        ("5' long", '5" long'),
        ("$5 in all", "\u20ac5 in all"),
        ("5 \u2030 of it", "5 % of it"),
        ("foo*bar", "foo+bar"),
        ("use C# now", "use C now"),
        ("type A+ is given", "type A- is given"),
        ("rated AA+.", "rated AA-."),
        ("her mark was B+", "her mark was B"),
        ("Na+ moves", "Na- moves"),
        ("- [x] locked", "- [ ] locked"),
        ("a &lt; b holds", "a &gt; b holds"),
        ("it ~~rises~~ here", "it rises here"),
        ("done 👍 by us", "done 👎 by us"),
        ("rated ★★★★☆ here", "rated ★★☆☆☆ here"),
        ("rated ●●●○○ here", "rated ●○○○○ here"),
        ("the ♠ ace", "the ♥ ace"),
        ("a ♂ bird", "a ♀ bird"),
        ("price ⬆ now", "price ⬇ now"),
        ("in C♭ minor", "in C minor"),
        ("use #FFAABB there", "use #FFAACC there"),
        ("flag 0xFE there", "flag 0xFD there"),
        ("see 3a of it", "see 3b of it"),
        ("install 1.0-alpha now", "install 1.0-beta now"),
        ("model GPT-4o is", "model GPT-4 is"),
    ],
)
def test_a_changed_sign_of_a_formula_is_a_changed_figure(text, other):
    left, right = figures(pl.Series([text, other]))
    assert left != right


def test_signature_agreement_estimates_jaccard():
    """128 places, similarity s: the share of equal places has a standard error of sqrt(s(1-s)/128) < 0.045; mean over pairs is close."""
    texts = variants(400)
    sets = shingle_sets(word_hashes(pl.Series(texts)))
    left, right = np.arange(0, len(texts) - 1, 2), np.arange(1, len(texts), 2)
    signature = signatures(sets, seed=1)
    agreement = (signature[left] == signature[right]).mean(axis=1)
    error = agreement - jaccard(sets, left, right)
    assert abs(error.mean()) < 0.01
    assert error.std() < 0.05


def test_signatures_depend_on_the_seed_only():
    sets = shingle_sets(word_hashes(pl.Series(variants(50))))
    np.testing.assert_array_equal(signatures(sets, seed=3), signatures(sets, seed=3))
    assert (signatures(sets, seed=3) != signatures(sets, seed=4)).mean() > 0.99


def test_bands_find_a_pair_of_just_the_threshold():
    """0.8 with 6 places a band, 21 bands: 1 - (1 - 0.8^6)^21 = 0.998; 7 places, 18 bands: 0.986 is too few."""
    assert rows_per_band(0.8) == 6
    assert [rows_per_band(threshold) for threshold in (0.1, 0.5, 1.0)] == [1, 3, 16]


def test_very_long_texts_are_compared_by_a_sample():
    """30,000 words each, half of them shared: 15,000 of 45,000 single words and about as many of the pairs are in both, 1/3."""
    text = " ".join(f"w{number}" for number in range(30_000))
    other = " ".join(f"w{number}" for number in range(15_000, 45_000))
    sets = shingle_sets(word_hashes(pl.Series([text, other, "w1 w2"])))
    assert sets.lengths.tolist() == [SAMPLE, SAMPLE, 3]
    place = np.array([0, 0])
    result = jaccard(sets, place, np.array([1, 0]))
    assert result[0] == pytest.approx(1 / 3, abs=0.03)
    assert result[1] == 1


def test_a_sampled_text_and_a_shorter_whole_one():
    """6,000 words, of which the other text has the first 1,000: about 2,000 shingles of 12,000, 1/6."""
    text = " ".join(f"w{number}" for number in range(6_000))
    other = " ".join(f"w{number}" for number in range(1_000))
    result = jaccard(shingle_sets(word_hashes(pl.Series([text, other]))), np.array([0, 1]), np.array([1, 0]))
    np.testing.assert_allclose(result, 1 / 6, atol=0.02)


def test_a_run_of_words_in_many_different_texts_is_a_template():
    system = "you are a careful and friendly assistant of our shop"
    texts = [f"{system} question{number} about thing{number}" for number in range(60)]
    words = word_hashes(pl.Series([*texts, "you are a careful reader"]))
    flags = template_words(words)
    assert flags[: 60 * 13].reshape(60, 13).tolist() == [[True] * 10 + [False] * 3] * 60
    assert not flags[60 * 13 :].any()  # shares four words, no run of six


def test_few_texts_make_no_template():
    texts = [f"you are a careful and friendly assistant of our shop question{number}" for number in range(20)]
    assert not template_words(word_hashes(pl.Series(texts))).any()


def test_one_system_prompt_does_not_make_all_prompts_alike():
    """Any two texts share 50 of 52 words, a Jaccard of 0.94; without the template they share at most `about`."""
    system = " ".join(f"rule{number}x" for number in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX")
    texts = pl.Series(
        [f"{system} tell{chr(97 + n % 26)}{chr(97 + n // 26)} item{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]
    )
    assert len(near_texts(prepare(texts, templates=False, seed=0), 0.8).left) > 2_000
    assert len(near_texts(prepare(texts, templates=True, seed=0), 0.8).left) == 0


def test_a_text_that_is_all_template_is_compared_whole():
    phrase = "please tell me what you know about"
    texts = [phrase, *(f"{phrase} thing{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)), f"{phrase}!"]
    pairs = near_texts(prepare(pl.Series(texts), templates=True, seed=0), 0.8)
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0], [61])


def test_crowded_buckets_are_searched_in_part_and_what_is_left_out_is_counted():
    """200 equal signatures are one bucket in each band. All 19,900 pairs are candidates; at most 9 a text and band are taken."""
    signature = np.tile(np.arange(128, dtype=np.uint32), (200, 1))
    result = candidate_pairs(signature, threshold=0.8, apart=np.zeros(200, np.uint64))
    assert len(result.left) <= 200 * 9
    assert result.skipped == 21 * (19_900 - len(result.left))
    assert set(result.right[result.left == 0]) == set(range(1, 200))  # the best row meets every other
    small = candidate_pairs(signature[:SMALL_BUCKET], threshold=0.8, apart=np.zeros(SMALL_BUCKET, np.uint64))
    assert (len(small.left), small.skipped) == (SMALL_BUCKET * (SMALL_BUCKET - 1) // 2, 0)


def test_texts_set_apart_are_no_candidates():
    signature = np.tile(np.arange(128, dtype=np.uint32), (4, 1))
    result = candidate_pairs(signature, threshold=0.8, apart=np.array([1, 2, 1, 2], np.uint64))
    assert list(zip(result.left, result.right, strict=True)) == [(0, 2), (1, 3)]


def pairs(*lines: tuple[int, int, float]) -> SimilarPairs:
    left, right, value = (np.array(column) for column in zip(*lines, strict=True))
    return SimilarPairs(left, right, value, compared=len(left), skipped=0)


def test_a_chain_is_not_merged():
    """0 ~ 1 ~ 2 ~ 3 in a row, ends unlike: 1 goes to 0; 2 is near 1 only, which has gone, so it stays and takes 3."""
    centre, value = nearest_kept(pairs((0, 1, 0.9), (1, 2, 0.95), (2, 3, 0.85)), 4)
    assert centre.tolist() == [-1, 0, -1, 2]
    assert np.isnan(value[[0, 2]]).all()
    assert value[[1, 3]].tolist() == [0.9, 0.85]


def test_a_row_goes_to_the_most_similar_kept_row_and_of_equals_to_the_better():
    centre, _ = nearest_kept(pairs((0, 2, 0.8), (1, 2, 0.9), (0, 3, 0.9), (1, 3, 0.9)), 4)
    assert centre.tolist() == [-1, -1, 1, 0]


def test_every_row_that_goes_is_near_a_row_that_stays():
    random = np.random.default_rng(0)
    left, right = np.sort(random.integers(0, 300, (2, 800)), axis=0)
    chosen = np.unique(np.stack([left, right])[:, left < right], axis=1)
    near = SimilarPairs(chosen[0], chosen[1], random.random(chosen.shape[1]), compared=0, skipped=0)
    centre, _ = nearest_kept(near, 300)
    linked = set(zip(chosen[0].tolist(), chosen[1].tolist(), strict=True))
    gone = np.flatnonzero(centre >= 0)
    assert 0 < len(gone) < 300
    assert all((centre[row], row) in linked and centre[centre[row]] == -1 for row in gone)
    stays = set(np.flatnonzero(centre < 0).tolist())
    assert not any(row in stays and other in stays for row, other in linked)


def test_blocks_cover_everything_once():
    sizes = np.array([5, 1, 1, 100, 0, 0, 3, 3])
    assert list(blocks(sizes, 6, 3)) == [(0, 2), (2, 3), (3, 4), (4, 7), (7, 8)]
    assert list(blocks(np.array([], dtype=np.int64), 6, 3)) == []


def test_words_do_not_depend_on_where_blocks_end(monkeypatch):
    texts = pl.Series([*variants(40), "", "x", "???"])
    whole = word_hashes(texts)
    monkeypatch.setattr("ktodata.text.words.BLOCK_BYTES", 50)
    in_parts = word_hashes(texts)
    np.testing.assert_array_equal(whole.values, in_parts.values)
    np.testing.assert_array_equal(whole.offsets, in_parts.offsets)
