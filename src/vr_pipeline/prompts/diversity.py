"""Choice of the most diverse prompts by their embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import DiversityParameters
from vr_pipeline.prompts.semantic import is_seen

Indices = npt.NDArray[np.int64]


def choose_diverse(
    identifiers: Sequence[str], embeddings: npt.NDArray[np.float32], parameters: DiversityParameters
) -> Indices:
    """Return indices of the chosen prompts, increasing; all if there are at most ``parameters.count``.

    The choice depends on the set of prompts and the seed, not on their order. Prompts that the embedder does not cover
    (rows of zeros) get their share by a random draw, because their similarity is unknown.

    Args:
        identifiers: prompt_id of each prompt.
        embeddings: unit vectors [prompts, axes].
    """
    if parameters.count is None or len(identifiers) <= parameters.count:
        return np.arange(len(identifiers), dtype=np.int64)
    ranks = [content_hash("diversity", parameters.seed, identifier) for identifier in identifiers]
    order = np.array(sorted(range(len(ranks)), key=ranks.__getitem__), dtype=np.int64)
    seen = is_seen(embeddings[order])
    count = round(parameters.count * float(seen.mean()))
    by_lot, order = order[~seen][: parameters.count - count], order[seen]
    if not count:
        return np.sort(by_lot)
    if parameters.method == "k_centre":
        chosen = k_centre(embeddings[order], count)
    else:
        chosen = cluster_balanced(embeddings[order], count, parameters.clusters, parameters.seed)
    return np.sort(np.concatenate([by_lot, order[chosen]]))


def k_centre(embeddings: npt.NDArray[np.float32], count: int) -> Indices:
    """Choose rows by farthest-first traversal from row 0.

    Each next row has the smallest maximum cosine with the chosen rows. The covering radius is at most twice the
    optimum (Gonzalez 1985, Clustering to minimize the maximum intercluster distance). Each choice costs one product
    with the whole matrix.
    """
    chosen = np.zeros(count, dtype=np.int64)
    closest = embeddings @ embeddings[0]
    closest[0] = np.inf
    for position in range(1, count):
        row = int(np.argmin(closest))
        chosen[position] = row
        np.maximum(closest, embeddings @ embeddings[row], out=closest)
        closest[row] = np.inf
    return chosen


def cluster_balanced(embeddings: npt.NDArray[np.float32], count: int, clusters: int, seed: int) -> Indices:
    """Choose nearly equal numbers of rows from all k-means clusters, the nearest to each centre first."""
    from sklearn.cluster import MiniBatchKMeans

    clusters = min(clusters, count)
    model = MiniBatchKMeans(clusters, random_state=seed, n_init=1, batch_size=4096).fit(embeddings)
    distance = np.linalg.norm(embeddings - model.cluster_centers_[model.labels_], axis=1)
    order = np.lexsort((distance, model.labels_))
    labels = model.labels_[order]
    starts = np.searchsorted(labels, np.arange(clusters))
    turn = np.arange(len(order)) - starts[labels]
    # First the best of every cluster, then the second of every cluster, and so on.
    return np.asarray(order[np.lexsort((labels, turn))][:count], dtype=np.int64)
