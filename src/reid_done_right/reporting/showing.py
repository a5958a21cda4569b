"""Select the queries, pairs and people that a report shows, by fixed rules instead of by hand."""

import numpy as np
from numpy.typing import NDArray


def extremes(
    precision: NDArray[np.floating], relevant: NDArray[np.integer], person: NDArray[np.integer], count: int, best: bool
) -> list[int]:
    """Return the `count` queries with the highest (lowest) AP, one per person; ties go to more relevant images.

    precision, relevant, person: (Q,). Queries without a match are skipped. Fewer people give fewer queries.
    """
    order = np.lexsort((np.arange(len(precision)), -relevant, -precision if best else precision))
    chosen: list[int] = []
    for query in order[relevant[order] > 0].tolist():
        if len(chosen) < count and person[query] not in person[chosen]:
            chosen.append(query)
    return chosen


def spread(
    precision: NDArray[np.floating], person: NDArray[np.integer], allowed: NDArray[np.bool_], count: int
) -> list[int]:
    """Return `count` of the allowed queries, spread evenly over AP, one per person. All are (Q,)."""
    order = np.lexsort((np.arange(len(precision)), -precision))
    _, first = np.unique(person[order][allowed[order]], return_index=True)
    queries = order[allowed[order]][np.sort(first)]
    places = np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(np.int64)
    return [int(query) for query in queries[places]]


def most_seen(person: NDArray[np.integer], camera: NDArray[np.integer], count: int, images: int) -> list[list[int]]:
    """Return one image from each of `images` cameras for the `count` people seen by most cameras, then in most images.

    person, camera: (N,). Only people of id 1 and more; of equals the lower id. Where a person has fewer cameras, the
    cameras take turns.
    """
    people, totals = np.unique(person[person > 0], return_counts=True)
    cameras = np.array([len(np.unique(camera[person == each])) for each in people], dtype=np.int64)
    order = np.lexsort((people, -totals, -cameras))[:count]
    return [_in_turn(np.flatnonzero(person == each), camera, images) for each in people[order]]


def _in_turn(rows: NDArray[np.int64], camera: NDArray[np.integer], count: int) -> list[int]:
    """Return the first `count` rows, in an order in which cameras alternate."""
    turn = np.array([(camera[rows[:i]] == camera[row]).sum() for i, row in enumerate(rows)])
    return [int(row) for row in rows[np.lexsort((camera[rows], turn))][:count]]
