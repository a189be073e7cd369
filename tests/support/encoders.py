"""A tiny encoder in a folder, for tests that need vectors but not meaning: one random direction for each known word."""

from pathlib import Path

import numpy as np

WORDS = ("convert", "feet", "metres", "poem", "spring", "love", "pasta", "tomato", "yes", "no")


def save_encoder(folder: Path, *, dimension: int = 8, seed: int = 0) -> str:
    """Write the encoder and return its path; words outside WORDS are not seen at all."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)} | {"[UNK]": len(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    weights = np.random.default_rng(seed).normal(size=(len(WORDS) + 1, dimension)).astype(np.float32)
    weights[-1] = 0
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu").save(str(folder))
    return str(folder)
