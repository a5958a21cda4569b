"""Which items count for a query: each benchmark's rule on labels, independent of any metric.

For a query, a gallery item of the same person is *relevant*, unless the same camera saw it: then it is
*junk*, removed from the ranked list before ranks are counted, like any item with the junk id. Every other item
is a negative, including distractors and other people seen by the query's own camera.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reid_done_right.evaluation.embedded import Labels
from reid_done_right.evaluation.metrics import ApRule
from reid_done_right.evaluation.ragged import Ragged, rows_of


@dataclass(frozen=True)
class Rule:
    """What a benchmark's own evaluation code ignores, keeps and computes."""

    same_camera_is_junk: bool = True
    """Ignore items with the query's person and camera. Turn it off for data from one camera."""
    junk_id: int | None = -1
    """Items with this id are ignored for every query."""
    distractor_id: int | None = 0
    """Items with this id are distractors: negatives for every query."""
    cut: int | None = None
    """Matches beyond this rank, counted before junk is removed, do not count for AP or CMC."""
    ap_rule: ApRule = "trapezoid"
    """Definition of AP in the benchmark's code."""
    queries_in_gallery: bool = False
    """The gallery may hold the very images of the queries, which are junk by their own camera."""

    def __post_init__(self) -> None:
        """Raise ValueError for a cut that leaves nothing and for an AP rule that is unknown."""
        if self.cut is not None and self.cut < 1:
            raise ValueError(f"cut is {self.cut}, expected a rank from 1 on")
        if self.ap_rule not in get_args(ApRule):
            raise ValueError(f"AP rule {self.ap_rule!r} is unknown: use one of {', '.join(get_args(ApRule))}")


MARKET1501 = Rule()
MARKET_500K = MARKET1501
DUKEMTMC = Rule()
DUKEMTMC_OFFICIAL = Rule(cut=4000)
"""As `evaluation_res_duke_fast.m`, which ranks only the first 4,000 gallery items."""
MARS = Rule(queries_in_gallery=True)
"""On tracklets; the gallery holds the queries."""
PERSON_SEARCH = Rule(same_camera_is_junk=False, junk_id=None, distractor_id=-1, ap_rule="step")
"""No cameras; boxes of unlabelled pedestrians (-1) are negatives; each query has its own gallery list."""
VERI776 = Rule(queries_in_gallery=True)
"""The gallery holds the images of the queries, too."""
VEHICLEID = Rule(same_camera_is_junk=False, ap_rule="step")
"""No cameras; each query has one match, at rank r, and an AP of 1 / r."""

RULES: dict[str, Rule] = {
    "market1501": MARKET1501,
    "market1501-500k": MARKET_500K,
    "dukemtmc": DUKEMTMC,
    "dukemtmc-official": DUKEMTMC_OFFICIAL,
    "mars": MARS,
    "person-search": PERSON_SEARCH,
    "prw": PERSON_SEARCH,
    "msmt17": MARKET1501,
    "cuhk03-labelled": MARKET1501,
    "cuhk03-detected": MARKET1501,
    "veri776": VERI776,
    "vehicleid-800": VEHICLEID,
    "vehicleid-1600": VEHICLEID,
    "vehicleid-2400": VEHICLEID,
}

GALLERIES: dict[str, Literal["listed", "other-images"]] = {"person-search": "listed", "prw": "other-images"}
"""Formats in which every query has a gallery of its own: the images of its list, or all images but its own."""


def rule_of(layout: str, own: Mapping[str, Any] | None = None) -> Rule:
    """Return the rule of a benchmark's format, or of own data: {"same_camera_is_junk", "ap_rule"}."""
    return RULES[layout] if own is None else Rule(own["same_camera_is_junk"], ap_rule=own["ap_rule"])


def same_person(query: Labels, gallery: Labels) -> Ragged:
    """Return, for each query, the gallery rows of its person, in gallery order."""
    return rows_of(query.person_id, gallery.person_id)


def relevant_and_junk(query: Labels, gallery: Labels, rule: Rule) -> tuple[Ragged, Ragged]:
    """Return, for each query, the gallery rows that it should find and those deleted for it alone (Q rows each)."""
    same = same_person(query, gallery)
    junk = np.full(len(same.items), False)
    if rule.same_camera_is_junk:
        junk = gallery.camera_id[same.items] == query.camera_id[same.rows]
    return same.keep(~junk), same.keep(junk)


def deleted(gallery: Labels, rule: Rule) -> NDArray[np.bool_]:
    """Return (G,) whether a gallery row is deleted for every query."""
    return gallery.person_id == rule.junk_id if rule.junk_id is not None else np.full(len(gallery), False)


def check_labels(query: Labels, gallery: Labels, rule: Rule, names: tuple[str, str] = ("query", "gallery")) -> None:
    """Raise ValueError for an undefined id, for a query that is not a person, or if no query has a match.

    `names` are what messages call the two sides, such as their files.
    """
    nobody = [marker for marker in (rule.junk_id, rule.distractor_id) if marker is not None]
    for name, labels in zip(names, (query, gallery), strict=True):
        unknown = (labels.person_id < -1) & ~np.isin(labels.person_id, nobody)
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(
                f"{name}: row {row} has person_id {labels.person_id[row]}, which is undefined: junk is {rule.junk_id}, "
                f"a distractor {rule.distractor_id}, and people have positive numbers"
            )
    marked = np.isin(query.person_id, nobody)
    if marked.any():
        row = int(np.argmax(marked))
        raise ValueError(
            f"{names[0]}: row {row} has person_id {query.person_id[row]}, which marks junk or distractors; "
            "a query must show a person; number people from 1 on, or change the rule (distractor_id=None, or "
            "--distractor-id none)"
        )
    relevant, junk = relevant_and_junk(query, gallery, rule)
    if len(relevant.items):
        return
    if len(junk.items):
        raise ValueError(
            f"no query of {names[0]} has a match: every item of {names[1]} that shows a query's person is from the "
            "query's own camera, hence excluded; for data of one camera switch same-camera exclusion off "
            "(same_camera_is_junk=False, or --same-camera-counts)"
        )
    raise ValueError(f"no query has a match: no person_id of {names[0]} occurs in {names[1]}")
