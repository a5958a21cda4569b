"""Open sets: queries whose person the gallery may not hold, and a threshold that says so.

Terms are those of ISO/IEC 19795-1:2021, as NIST's tests of one-to-many face recognition use them (NISTIR 8271). A
search returns the items whose score is greater than a threshold T. Over N enrolled items and the first R places,

- FNIR(N, R, T), the false-negative identification rate, is the share of searches for somebody who is enrolled that do
  not return one of his or her items;
- FPIR(N, T), the false-positive identification rate, is the share of searches for somebody who is not enrolled that
  return anything: false alarms.

Enrolled is who has an item left after the rule has deleted junk. Persons, not queries, are taken as independent when
intervals are computed, because photos of one person succeed or fail together.

Three queries for strangers, with best scores 0.8, 0.6 and 0.3, and two for known persons, with best own items 0.7, 0.5:

    T = 0.8   FPIR 0     FNIR 1
    T = 0.6   FPIR 1/3   FNIR 1/2
    T = 0.3   FPIR 2/3   FNIR 0
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.blocks import split
from reid_done_right.evaluation.counting import Backend
from reid_done_right.evaluation.embedded import Embedded
from reid_done_right.evaluation.ranking import BLOCK, Ranking, dot_scorer
from reid_done_right.evaluation.rules import relevant_and_junk
from reid_done_right.evaluation.task import Counting, Task

NOTHING = -1.0
"""Score of a search whose gallery holds nothing."""


@dataclass(frozen=True)
class OpenSet:
    """The outcome of all searches, at any threshold.

    alarm            (U,) best score of each query for a stranger, descending
    mate             (K,) best score of an own item of each query for a known person, -inf if it was cut off
    place            (K,) rank of that item, from 1
    strangers, known number of persons among the U and the K queries
    """

    alarm: NDArray[np.float32]
    mate: NDArray[np.float32]
    place: NDArray[np.int64]
    strangers: int
    known: int

    def fpir(self, threshold: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Return the share of strangers for whom something is returned, at each threshold."""
        ascending = self.alarm[::-1]
        refused = np.searchsorted(ascending, np.asarray(threshold, np.float32), side="right")
        return np.asarray((len(ascending) - refused) / len(ascending))

    def fnir(self, threshold: NDArray[np.floating] | float, places: int | None = None) -> NDArray[np.float64]:
        """Return the share of known persons who are not returned, in the first `places` if given, at each threshold."""
        within = np.full(len(self.place), True) if places is None else self.place <= places
        ascending = np.sort(self.mate[within])
        missed = np.searchsorted(ascending, np.asarray(threshold, np.float32), side="right")
        return np.asarray((missed + (~within).sum()) / len(self.mate))

    def curve(self) -> dict[str, list[float]]:
        """Return error rates at every threshold where FPIR changes, FPIR ascending; FNIR is the least at each."""
        thresholds = np.unique(self.alarm)[::-1]
        return {
            "threshold": thresholds.tolist(),
            "fpir": self.fpir(thresholds).tolist(),
            "fnir": self.fnir(thresholds).tolist(),
            "fnir_rank1": self.fnir(thresholds, 1).tolist(),
        }

    def at(self, rate: float, level: float = 0.95) -> dict[str, float | None]:
        """Return the lowest threshold at which FPIR is at most `rate`, in [0, 1), and the error rates there.

        low, high: of the threshold; None where so few strangers tell nothing of it.
        """
        threshold = threshold_at(self.alarm, rate)
        low, high = threshold_interval(self.alarm, rate, self.strangers, level)
        found: dict[str, float | None] = {"false_alarms": rate, "threshold": threshold, "low": low, "high": high}
        shares = {
            "fpir": (float(self.fpir(threshold)), self.strangers),
            "fnir": (float(self.fnir(threshold)), self.known),
            "fnir_rank1": (float(self.fnir(threshold, 1)), self.known),
        }
        for name, (share, persons) in shares.items():
            ends = wilson(share, persons, level)
            found |= {name: share, f"{name}_low": ends[0], f"{name}_high": ends[1]}
        return found

    def report(self, rates: list[float], level: float = 0.95) -> dict[str, Any]:
        """Return all numbers of an open set, as `scores.json` has them."""
        return {
            "known_queries": len(self.mate),
            "known_persons": self.known,
            "unknown_queries": len(self.alarm),
            "unknown_persons": self.strangers,
            "level": level,
            "at": [self.at(rate, level) for rate in rates],
            "curve": self.curve(),
        }


def leave_out(task: Task, share: float) -> Task:
    """Return a task whose gallery lacks a share, in (0, 1), of the persons that queries find in it.

    These are the persons whose numbers, in decimal, have the least SHA-256: the same on every machine and in every
    draw, and a smaller share leaves out some of those that a larger one does. The task has no lists. Raises ValueError
    if that is nobody, or everybody.
    """
    assert task.lists is None
    query, gallery = task.query.labels, task.gallery
    relevant, _ = relevant_and_junk(query, gallery.labels, task.rule)
    persons = np.unique(query.person_id[relevant.rows]).tolist()
    count = round(share * len(persons))
    if not 0 < count < len(persons):
        raise ValueError(
            f"{share:g} of {len(persons)} persons with a match is {count}; leave out one person or more, but not all"
        )
    unknown = sorted(persons, key=lambda person: sha256(str(person).encode()).digest())[:count]
    kept = ~np.isin(gallery.labels.person_id, unknown)
    return Task(task.query, Embedded(gallery.embeddings[kept], gallery.labels[kept], gallery.name), task.rule)


def open_set(task: Task, ranking: Ranking, block: int = BLOCK) -> OpenSet:
    """Return the outcome of all searches of a task that was ranked, plainly.

    Raises ValueError naming the two sides if nobody is a stranger. Memory holds `block` scores.
    """
    unknown = ranking.relevant == 0
    if not unknown.any():
        raise ValueError(
            f"{task.query.name}: every query shows somebody in {task.gallery.name}, so that there are no false alarms; "
            "add queries of people who are not in it"
        )
    first, retrieved = ranking.pointers[:-1], np.diff(ranking.pointers) > 0
    mate, place = np.full(len(unknown), -np.inf, np.float32), np.full(len(unknown), np.iinfo(np.int64).max)
    mate[retrieved] = ranking.similarity[first[retrieved]]
    place[retrieved] = ranking.ranks[first[retrieved]]
    person = task.query.labels.person_id
    alarm = np.sort(_best_scores(task, np.flatnonzero(unknown), block))[::-1]
    persons = (len(np.unique(person[rows])) for rows in (unknown, ~unknown))
    return OpenSet(alarm, mate[~unknown], place[~unknown], *persons)


def threshold_at(alarm: NDArray[np.floating], rate: float) -> float:
    """Return the lowest of the scores (U,), descending, that at most `rate`, in [0, 1), of them are greater than."""
    return float(alarm[int(rate * len(alarm) + 1e-9)])


def threshold_interval(
    alarm: NDArray[np.floating], rate: float, persons: int, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Return a confidence interval of the threshold at `rate` for other strangers; None for an end that is open.

    The number of persons who pass the true threshold is binomial, so that two scores, by their place from the top,
    enclose it whatever the distribution. With more queries than persons, places are those of the persons, stretched.
    """
    tail = (1 - level) / 2
    cumulated = np.cumsum(_binomial(persons, rate))
    fewest, most = (int(np.searchsorted(cumulated, share, side="right")) for share in (tail, 1 - tail))
    stretch = len(alarm) / persons
    low = None if most >= persons else float(alarm[min(len(alarm), int(np.ceil((most + 1) * stretch))) - 1])
    return low, None if fewest == 0 else float(alarm[int((fewest - 1) * stretch)])


def wilson(share: float, persons: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share seen among as many independent persons."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, weight = share + z**2 / (2 * persons), 1 + z**2 / persons
    half = z * np.sqrt(share * (1 - share) / persons + z**2 / (4 * persons**2))
    return max(0.0, float((centre - half) / weight)), min(1.0, float((centre + half) / weight))


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Return the probabilities (n + 1,) of 0 to n successes."""
    if p == 0:
        return np.asarray(np.eye(1, n + 1)[0])
    steps = np.log(np.arange(n, 0, -1)) - np.log(np.arange(1, n + 1)) + np.log(p) - np.log1p(-p)
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + n * np.log1p(-p)
    return np.asarray(np.exp(logs))


def _best_scores(task: Task, rows: NDArray[np.int64], block: int) -> NDArray[np.float32]:
    """Return (U,) the best score of the queries in `rows` (U,), which have no relevant item."""
    gallery, there, everybody = task.gallery, Backend(), slice(0, len(rows))
    lists = None if task.lists is None else [task.lists[row] for row in rows.tolist()]
    counting = Counting.of(task.query.labels[rows], gallery.labels, task.rule, lists)
    scorer = dot_scorer(task.query.embeddings[rows], gallery, there)
    best = np.full(len(rows), NOTHING, np.float32)
    for columns in split(slice(0, len(gallery)), max(1, block // len(rows))):
        shape = len(rows), columns.stop - columns.start
        scores = there.empty(shape[0] * shape[1]).reshape(shape)
        scorer(everybody, columns, scores)
        np.maximum(best, np.where(counting.block(everybody, columns), scores, NOTHING).max(axis=1), out=best)
    return best
