"""Slow, obvious versions of the fast routines: dense matrices, full sorts, plain loops."""

import numpy as np

from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.rules import Rule


def ranked_list(scores, person, camera, labels: Labels, rule: Rule, allowed=None):
    """Walk one query's sorted gallery: (is relevant, place before deletion) of every item that is not junk."""
    kept = []
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    if allowed is not None:
        order = [j for j in order if j in set(allowed)]
    for place, j in enumerate(order, start=1):
        same = labels.person_id[j] == person
        if labels.person_id[j] == rule.junk_id:
            continue
        if same and rule.same_camera_is_junk and labels.camera_id[j] == camera:
            continue
        kept.append((bool(same), place))
    return kept


def average_precision_of_list(hits, relevant, rule):
    """Area under precision and recall, adding a piece at every rank (the official compute_AP.m for the trapezoid)."""
    if relevant == 0:
        return 0.0
    area, found, old_recall, old_precision = 0.0, 0, 0.0, 1.0
    for rank, hit in enumerate(hits, start=1):
        found += hit
        recall, precision = found / relevant, found / rank
        height = (old_precision + precision) / 2 if rule == "trapezoid" else precision
        area += (recall - old_recall) * height
        old_recall, old_precision = recall, precision
    return area


def evaluate(scores, query: Labels, gallery: Labels, rule: Rule, lists=None):
    """From (Q, G) scores, per query: ranks of the relevant items, both APs, rank of the first hit (0 for none)."""
    rows = []
    for i in range(len(query)):
        allowed = None if lists is None else lists[i]
        kept = ranked_list(scores[i], query.person_id[i], query.camera_id[i], gallery, rule, allowed)
        hits = [hit and (rule.cut is None or place <= rule.cut) for hit, place in kept]
        relevant = sum(hit for hit, _ in kept)
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        rows.append(
            {
                "ranks": ranks,
                "trapezoid": average_precision_of_list(hits, relevant, "trapezoid"),
                "step": average_precision_of_list(hits, relevant, "step"),
                "first": ranks[0] if ranks else 0,
            }
        )
    return rows


def neighbours(similarity, k):
    """(N, k) the most similar items of each row, the earlier first where equal."""
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def labels(*pairs):
    """Return the labels of rows of (person, camera)."""
    return Labels(np.array([p for p, _ in pairs]), np.array([c for _, c in pairs]))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expand(query, gallery, k_query, k_database, alpha, self_counts, order):
    """QE and DBA from dense similarities, one item after the other."""
    within = gallery @ gallery.T
    augmented = gallery.copy()
    if k_database:
        for j in range(len(gallery)):
            others = [i for i in np.argsort(-within[j], kind="stable") if i != j][: k_database - self_counts]
            members = [gallery[j]] + [max(within[j, i], 0) ** alpha * gallery[i] for i in others]
            augmented[j] = np.mean(members, axis=0)
        augmented = unit(augmented)
    seen = augmented if order == "database-first" else gallery
    expanded = query.copy()
    if k_query:
        across = query @ seen.T
        for i in range(len(query)):
            nearest = np.argsort(-across[i], kind="stable")[: k_query - self_counts]
            members = [query[i]] + [max(across[i, j], 0) ** alpha * seen[j] for j in nearest]
            expanded[i] = np.mean(members, axis=0)
        expanded = unit(expanded)
    return expanded, augmented


def k_reciprocal(query, gallery, k1=20, k2=6, lambda_value=0.3, half=None, squared_twice=False):
    """The textbook algorithm with dense N x N matrices: final distances (Q, G).

    `half` is the size of the half neighbourhoods, by default the one of the original MATLAB code.
    """
    half = int(np.floor((k1 + 1) / 2 + 0.5)) if half is None else half
    items = np.concatenate([query, gallery])
    distance = np.maximum(2 - 2 * items @ items.T, 0)
    order = np.argsort(distance, axis=1, kind="stable")
    distance = distance**2 if squared_twice else distance
    distance /= distance.max(axis=1, keepdims=True)

    def mutual(a, size):
        return np.array([b for b in order[a, :size] if a in order[b, :size]], dtype=np.int64)

    halves = [mutual(a, half) for a in range(len(items))]
    vectors = np.zeros_like(distance)
    for a in range(len(items)):
        members = mutual(a, k1 + 1)
        expanded = members
        for b in members:
            if len(np.intersect1d(halves[b], members)) > 2 / 3 * len(halves[b]):
                expanded = np.union1d(expanded, halves[b])
        weight = np.exp(-distance[a, expanded])
        vectors[a, expanded] = weight / weight.sum()
    if k2 != 1:
        vectors = np.stack([vectors[order[a, :k2]].mean(axis=0) for a in range(len(items))])
    across = vectors[len(query) :]
    holders = [np.flatnonzero(across[:, e]) for e in range(len(items))]
    jaccard = np.empty((len(query), len(gallery)), dtype=distance.dtype)
    for a in range(len(query)):
        shared = np.zeros(len(gallery), dtype=distance.dtype)
        for e in np.flatnonzero(vectors[a]):
            shared[holders[e]] += np.minimum(vectors[a, e], across[holders[e], e])
        jaccard[a] = 1 - shared / (2 - shared)
    return (1 - lambda_value) * jaccard + lambda_value * distance[: len(query), len(query) :]
