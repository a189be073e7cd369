"""Vectors: unit length, each text once, kept on disk whole or not at all."""

import subprocess
import sys

import numpy as np
import pytest
from encoders import save_encoder

from ktodata.embeddings import encode, vector_cache
from ktodata.embeddings.encode import encode_texts
from ktodata.embeddings.static_encoder import load_static_encoder
from ktodata.embeddings.vector_cache import load_vectors, store_vectors, text_keys
from ktodata.errors import ModelError
from ktodata.models import cache_dir


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KTODATA_CACHE", str(tmp_path / "cache"))


def cached_files():
    return sorted((cache_dir() / "vectors").rglob("*.*"))


def test_vectors_have_length_one_and_unseen_texts_are_zero_not_nan(encoder):
    encoded = encode_texts(["feet", "feet metres", "", "\x00", "unseen", "\u202e"], model=encoder)
    assert np.linalg.norm(encoded.vectors, axis=1) == pytest.approx([1, 1, 0, 0, 0, 0], abs=1e-6)
    assert encoded.zero_vectors == 4
    assert encoded.vectors.dtype == np.float32


def test_the_same_text_has_the_same_vector_whatever_stands_beside_it(encoder):
    alone = encode_texts(["poem love"], model=encoder, cache=False).vectors[0]
    among = encode_texts(["feet " * n for n in range(50)] + ["poem love"], model=encoder, cache=False).vectors[-1]
    assert np.array_equal(alone, among)


def test_a_second_run_encodes_only_what_is_new(encoder, monkeypatch):
    first = encode_texts(["feet", "love"], model=encoder)
    sent = []
    monkeypatch.setattr(
        encode.SentenceEncoder, "encode", lambda self, texts, *how: sent.append(texts) or np.ones((len(texts), 8), np.float32)
    )
    second = encode_texts(["love", "pasta", "feet"], model=encoder)
    assert (first.from_cache, second.from_cache, sent) == (0, 2, [["pasta"]])
    assert np.array_equal(second.vectors[[2, 0]], first.vectors)


def test_other_weights_under_the_same_name_do_not_share_a_cache(tmp_path):
    encode_texts(["feet"], model=save_encoder(tmp_path / "model", seed=0))
    again = encode_texts(["feet"], model=save_encoder(tmp_path / "model", seed=1))
    assert again.from_cache == 0
    assert len(list((cache_dir() / "vectors").iterdir())) == 2


def test_an_encoder_that_dies_on_the_way_leaves_no_partial_cache(encoder, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "of_unit_length", killed)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(["feet"], model=encoder)
    assert cached_files() == []


def test_a_damaged_cache_file_is_counted_and_its_texts_encoded_again(encoder):
    encode_texts(["feet"], model=encoder)
    (file,) = cached_files()
    file.write_bytes(file.read_bytes()[:40])
    again = encode_texts(["feet"], model=encoder)
    assert (again.from_cache, again.unreadable_cache_files) == (0, 1)
    assert np.linalg.norm(again.vectors[0]) == pytest.approx(1)
    assert encode_texts(["feet"], model=encoder).from_cache == 1


def test_two_writers_of_the_same_texts_leave_one_vector_each(tmp_path):
    keys = text_keys(["a", "b", "c"])
    store_vectors(tmp_path, keys[:2], np.eye(2, 4, dtype=np.float32))
    store_vectors(tmp_path, keys[1:], np.eye(2, 4, dtype=np.float32))
    vectors = np.zeros((4, 4), np.float32)
    held, unreadable = load_vectors(tmp_path, [*keys, *text_keys(["d"])], vectors)
    assert held.tolist() == [True, True, True, False] and unreadable == 0
    assert vectors.sum(axis=1).tolist() == [1, 1, 1, 0] and vectors[[0, 2]].argmax(axis=1).tolist() == [0, 1]


def test_vectors_of_another_width_are_not_taken(tmp_path):
    store_vectors(tmp_path, text_keys(["a"]), np.ones((1, 4), np.float32))
    held, unreadable = load_vectors(tmp_path, text_keys(["a"]), np.zeros((1, 8), np.float32))
    assert not held.any() and unreadable == 1


def test_many_vectors_are_stored_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_cache, "FILE_ROWS", 2)
    stored, loaded = np.random.default_rng(0).random((5, 4), np.float32), np.zeros((5, 4), np.float32)
    store_vectors(tmp_path, keys := text_keys(list("abcde")), stored)
    assert len(list(tmp_path.iterdir())) == 3 and load_vectors(tmp_path, keys, loaded)[0].all()
    assert np.array_equal(stored, loaded)


def test_keys_tell_texts_apart_that_look_alike():
    assert len(set(text_keys(["\u00e9", "e\u0301", "e", "", "\x00"]))) == 5


def test_a_failing_encoder_is_a_model_error_with_what_to_try(encoder, monkeypatch):
    import sentence_transformers

    def out_of_memory(*args, **options):
        raise RuntimeError("CUDA out of memory\nmany lines more")

    monkeypatch.setattr(sentence_transformers.SentenceTransformer, "encode", out_of_memory)
    with pytest.raises(ModelError, match=r"failed on 1 texts: CUDA out of memory\. Try a smaller batch_size \(it is 5\)"):
        encode_texts(["feet"], model=encoder, batch_size=5)


def test_cuda_without_a_device_is_refused(encoder, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="torch sees no CUDA device"):
        encode_texts(["feet"], model=encoder, device="cuda")
    assert encode_texts(["feet"], model=encoder, device="auto").device == "cpu"


STATIC = "packaged:wordllama-256"


def test_the_static_encoder_gives_what_sentence_transformers_gives():
    """Means of token vectors, whatever the length; nothing for a text without a token."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    encoder = load_static_encoder(STATIC)
    peer = SentenceTransformer(modules=[StaticEmbedding(encoder._tokenizer, embedding_weights=encoder._table)], device="cpu")
    texts = ["hello", "Is 81 less than 19? Answer yes or no.", "", "\x00\u202e", "\u732b", "long " * 900]
    vectors = encoder.encode(texts)
    assert vectors == pytest.approx(peer.encode(texts, convert_to_numpy=True, show_progress_bar=False), abs=1e-4)


def test_the_static_encoder_needs_no_torch():
    code = (
        "import sys; from ktodata.embeddings.encode import encode_texts;"
        f"print(encode_texts(['hello'], model={STATIC!r}, cache=False).vectors.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "(1, 256) False"
