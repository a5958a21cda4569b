"""Split own data by identity into training and test, and choose the queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def training_persons(person_id: NDArray[np.int64], share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw a share, in [0, 1], of the distinct ids in (N,), rounded to nearest; ascending."""
    persons = np.unique(person_id)
    return np.sort(generator.permutation(persons)[: int(share * len(persons) + 0.5)])


def choose_queries(
    person_id: NDArray[np.int64],
    camera_id: NDArray[np.int64],
    item_id: NDArray[np.int64],
    same_camera_is_junk: bool,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Tell (N,) which rows are queries: a random item of each person and camera, as in Market-1501; others are gallery.

    An item is an image or, where rows share an item_id, a tracklet. It is chosen only if it leaves all queries of its
    person something to find: an item in the gallery, and of another camera if `same_camera_is_junk`. Cameras that have
    only one item of a person give it last. Persons with ids below 1 are nobody, and never queried.
    """
    items, first = np.unique(item_id, return_index=True)
    order = generator.permutation(len(items))
    views: dict[int, dict[int, list[int]]] = {}
    for item in order[np.argsort(person_id[first[order]], kind="stable")]:
        person, camera = int(person_id[first[item]]), int(camera_id[first[item]])
        if person > 0:
            views.setdefault(person, {}).setdefault(camera, []).append(int(item))
    chosen = []
    for cameras in views.values():
        left = {camera: len(members) for camera, members in cameras.items()}
        queried: list[int] = []
        for camera in sorted(cameras, key=lambda camera: (left[camera] == 1, camera)):
            left[camera] -= 1
            if all(_findable(query, left, same_camera_is_junk) for query in [*queried, camera]):
                queried.append(camera)
                chosen.append(cameras[camera][0])
            else:
                left[camera] += 1
    return np.isin(item_id, items[chosen])


def _findable(query: int, left: dict[int, int], same_camera_is_junk: bool) -> bool:
    """Return whether a query's camera, given how many items each camera has left, still finds one that counts."""
    return any(count for camera, count in left.items() if not (same_camera_is_junk and camera == query))
