from dataclasses import replace

import numpy as np
import pytest

from oracles import labels
from reid_done_right.evaluation import rules
from reid_done_right.evaluation.embedded import Embedded, normalised
from reid_done_right.evaluation.rules import Rule
from reid_done_right.evaluation.task import Task


def rows(table):
    return [table.items[a:b].tolist() for a, b in zip(table.pointers[:-1], table.pointers[1:], strict=True)]


GALLERY = labels((7, 1), (-1, 2), (7, 2), (0, 1), (8, 1), (7, 3), (-1, 1))


def test_same_person_other_camera_is_relevant_same_camera_is_junk():
    relevant, junk = rules.relevant_and_junk(labels((7, 1), (8, 1), (9, 1)), GALLERY, rules.MARKET1501)
    assert rows(relevant) == [[2, 5], [], []]
    assert rows(junk) == [[0], [4], []]


def test_minus_one_is_deleted_and_zero_is_not():
    assert np.flatnonzero(rules.deleted(GALLERY, rules.MARKET1501)).tolist() == [1, 6]
    assert not rules.deleted(GALLERY, rules.PERSON_SEARCH).any()


def test_same_camera_exclusion_can_be_switched_off():
    relevant, junk = rules.relevant_and_junk(labels((7, 1)), GALLERY, Rule(same_camera_is_junk=False))
    assert rows(relevant) == [[0, 2, 5]]
    assert rows(junk) == [[]]


def test_rules_that_rank_nothing_are_rejected():
    with pytest.raises(ValueError, match="cut is 0, expected a rank from 1 on"):
        Rule(cut=0)
    with pytest.raises(ValueError, match="AP rule 'area' is unknown: use one of trapezoid, step"):
        Rule(ap_rule="area")


def check(query, gallery, rule=rules.MARKET1501, query_size=2, gallery_size=2):
    rng = np.random.default_rng(0)
    arrays = [normalised(rng.random((len(each), d))) for each, d in ((query, query_size), (gallery, gallery_size))]
    Task(Embedded(arrays[0], query, "query"), Embedded(arrays[1], gallery, "gallery"), rule)


def test_one_camera_error_names_option():
    one_camera = labels((7, 1), (8, 1))
    with pytest.raises(ValueError, match="switch same-camera exclusion off"):
        check(one_camera, one_camera[::-1])
    check(one_camera, one_camera[::-1], Rule(same_camera_is_junk=False))


def test_other_pairs_that_cannot_be_evaluated():
    with pytest.raises(ValueError, match="no person_id of query occurs in gallery"):
        check(labels((1, 1)), labels((2, 1)))
    with pytest.raises(ValueError, match="query: row 1 has person_id 0"):
        check(labels((7, 1), (0, 1)), GALLERY)
    with pytest.raises(ValueError, match="gallery: row 1 has person_id -7, which is undefined: junk is -1"):
        check(labels((7, 1)), labels((7, 2), (-7, 1)))
    with pytest.raises(ValueError, match="query: embeddings of 3 dimensions, those of gallery have 2"):
        check(labels((7, 1)), GALLERY, query_size=3)


def test_gallery_that_is_the_query_set_is_rejected():
    both = Embedded(np.eye(2), labels((7, 1), (7, 2)), "images")
    with pytest.raises(ValueError, match="images: the gallery is the query set"):
        Task(both, both, rules.MARKET1501)
    Task(both, both, rules.MARS)  # its gallery holds the queries
    with pytest.raises(ValueError, match="every query would meet itself"):
        Task(both, both, replace(rules.MARS, same_camera_is_junk=False))
