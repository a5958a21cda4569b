from dataclasses import replace

import numpy as np
import pytest

from reid_done_right.functional import protocols
from reid_done_right.functional.protocols import Labels, Rule


def labels(*pairs):
    return Labels(np.array([p for p, _ in pairs]), np.array([c for _, c in pairs]))


def rows(table):
    return [table.items[a:b].tolist() for a, b in zip(table.pointers[:-1], table.pointers[1:], strict=True)]


GALLERY = labels((7, 1), (-1, 2), (7, 2), (0, 1), (8, 1), (7, 3), (-1, 1))


def test_same_person_other_camera_is_relevant_same_camera_is_junk():
    relevant, junk = protocols.relevant_and_junk(labels((7, 1), (8, 1), (9, 1)), GALLERY, protocols.MARKET1501)
    assert rows(relevant) == [[2, 5], [], []]
    assert rows(junk) == [[0], [4], []]


def test_minus_one_is_deleted_and_zero_is_not():
    assert np.flatnonzero(protocols.deleted(GALLERY, protocols.MARKET1501)).tolist() == [1, 6]
    assert not protocols.deleted(GALLERY, protocols.PERSON_SEARCH).any()


def test_same_camera_exclusion_can_be_switched_off():
    relevant, junk = protocols.relevant_and_junk(labels((7, 1)), GALLERY, Rule(same_camera_is_junk=False))
    assert rows(relevant) == [[0, 2, 5]]
    assert rows(junk) == [[]]


@pytest.mark.parametrize(
    ("person", "camera", "message"),
    [
        ([1, 2], [1], "2 person_id but 1 camera_id"),
        ([1, 1.5], [1, 1], "person_id of row 1 is 1.5, not a whole number"),
        ([1, np.nan], [1, 1], "person_id of row 1 is nan, not a whole number"),
        (np.float32([1, 2**24]), [1, 1], "person_id of row 1 is 16777216.0, not a whole number that float32 holds"),
        (["a", "b"], [1, 1], "person_id holds text, expected integers"),
        ([True], [1], r"person_id is bool of shape \(1,\), expected integers"),
        (np.int64(1), [1], r"person_id is int64 of shape \(\), expected integers"),
        ([[1]], [1], r"person_id is int64 of shape \(1, 1\)"),
        (
            np.array([1, 2**63], dtype=np.uint64),
            [1, 1],
            "person_id of row 1 is 9223372036854775808, too large for a signed integer",
        ),
    ],
)
def test_labels_that_are_not_two_lists_of_integers_are_refused(person, camera, message):
    with pytest.raises(ValueError, match=message):
        Labels(np.asarray(person), np.asarray(camera))


@pytest.mark.parametrize("kind", ["u1", "u2", ">i4", "f2", "f4", ">f8"])
def test_whole_numbers_of_any_type_are_labels(kind):
    person = Labels(np.array([3, 200], kind), np.array([1, 2], kind)).person_id
    assert person.dtype == np.int64 and person.tolist() == [3, 200]


def test_rules_that_rank_nothing_are_refused():
    with pytest.raises(ValueError, match="cut is 0, expected a place from 1 on"):
        Rule(cut=0)
    with pytest.raises(ValueError, match="AP rule 'area' is unknown: use one of trapezoid, step"):
        Rule(ap_rule="area")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_name_file_and_row(bad):
    embeddings = np.ones((4, 2), np.float32)
    embeddings[2, 1] = bad
    with pytest.raises(ValueError, match="gallery: embedding of row 2 holds a value that is not finite"):
        protocols.check_embeddings(embeddings, GALLERY[:4], "gallery")


def test_zero_rows_and_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="query: embedding of row 1 is all zeros"):
        protocols.check_embeddings(np.array([[1.0, 0], [0, 0]]), GALLERY[:2], "query")
    with pytest.raises(ValueError, match="query: 3 embeddings but 2 labels"):
        protocols.check_embeddings(np.ones((3, 2)), GALLERY[:2], "query")
    for odd in (np.ones((2, 2), int), np.ones((2, 0)), np.ones((2, 2, 1)), np.ones(2), np.array(1.0)):
        with pytest.raises(ValueError, match="expected floats of shape"):
            protocols.check_embeddings(odd, GALLERY[:2], "query")
    with pytest.raises(ValueError, match="row 1 is too long or too short for 32-bit floats"):
        protocols.check_embeddings(np.array([[1.0, 0], [1e200, 0]]), GALLERY[:2], "query")
    with pytest.raises(ValueError, match="no rows"):
        protocols.check_embeddings(np.ones((0, 2)), GALLERY[:0], "query")


def test_norms_other_than_one_are_named():
    with pytest.raises(ValueError, match="query: embedding of row 1 has norm 2, expected 1"):
        protocols.check_unit_norm(np.array([[1.0, 0], [0, 2]]), "query")


def check(query, gallery, rule=protocols.MARKET1501, query_size=2, gallery_size=2):
    rng = np.random.default_rng(0)
    arrays = [rng.random((len(each), d)) for each, d in ((query, query_size), (gallery, gallery_size))]
    protocols.check_pair(arrays[0], query, arrays[1], gallery, rule)


def test_data_of_one_camera_is_told_what_to_switch_off():
    one_camera = labels((7, 1), (8, 1))
    with pytest.raises(ValueError, match="switch same-camera exclusion off"):
        check(one_camera, one_camera[::-1])
    check(one_camera, one_camera[::-1], Rule(same_camera_is_junk=False))


def test_other_pairs_that_cannot_be_evaluated():
    with pytest.raises(ValueError, match="no person_id of query occurs in gallery"):
        check(labels((1, 1)), labels((2, 1)))
    with pytest.raises(ValueError, match="query: row 1 has person_id 0"):
        check(labels((7, 1), (0, 1)), GALLERY)
    with pytest.raises(ValueError, match="gallery: row 1 has person_id -7, which is nobody's: junk is -1"):
        check(labels((7, 1)), labels((7, 2), (-7, 1)))
    with pytest.raises(ValueError, match="query embeddings have 3 dimensions, those of the gallery 2"):
        check(labels((7, 1)), GALLERY, query_size=3)


def test_gallery_that_is_the_query_set_is_refused():
    both, embeddings = labels((7, 1), (7, 2)), np.eye(2)
    with pytest.raises(ValueError, match="the gallery is the query set"):
        protocols.check_pair(embeddings, both, embeddings, both, protocols.MARKET1501)
    protocols.check_pair(embeddings, both, embeddings, both, protocols.MARS)  # its gallery holds the queries
    with pytest.raises(ValueError, match="every query would meet itself"):
        protocols.check_pair(embeddings, both, embeddings, both, replace(protocols.MARS, same_camera_is_junk=False))


def test_multi_query_pools_same_person_and_camera_after_normalising():
    boxes = np.array([[2, 0], [0, 4], [5, 5], [0, 1]], np.float32)
    of = labels((7, 1), (7, 1), (7, 2), (8, 1))  # the query is person 7 in camera 1: boxes 0 and 1
    half = np.sqrt(0.5)
    assert protocols.pool_queries(boxes, of, labels((7, 1), (8, 1))) == pytest.approx(np.array([[half, half], [0, 1]]))
    negative = np.array([[1, 0], [-0.6, 0.8]], np.float32)
    largest = protocols.pool_queries(negative, labels((7, 1), (7, 1)), labels((7, 1)), pool="max")
    assert largest == pytest.approx(np.array([[1, 0.8]]) / np.hypot(1, 0.8))


def test_query_without_a_box_is_named():
    with pytest.raises(ValueError, match="query row 1 has no box to pool: none of person 8 in camera 2"):
        protocols.pool_queries(np.ones((1, 2), np.float32), labels((7, 1)), labels((7, 1), (8, 2)))


def test_tracklets_are_pooled_in_ascending_id_with_or_without_frame_norms():
    frames = np.array([[0, 3], [4, 0], [0, 1]], np.float32)
    tracklet = np.array([5, 2, 2])
    half = np.sqrt(0.5)
    pooled, first = protocols.pool_tracklets(frames, tracklet)
    assert pooled == pytest.approx(np.array([[half, half], [0, 1]]))
    assert first.tolist() == [1, 0]
    raw, _ = protocols.pool_tracklets(frames, tracklet, normalise_frames=False)
    assert raw[0] == pytest.approx(np.array([4, 1]) / np.sqrt(17))
    official, _ = protocols.pool_tracklets(frames, tracklet, pool="max", normalise_frames=False)
    assert official[0] == pytest.approx(np.array([4, 1]) / np.sqrt(17))


def test_pooling_in_blocks_equals_pooling_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    frames, tracklet = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(1, 9, 50)
    at_once, _ = protocols.pool_tracklets(frames, tracklet)
    monkeypatch.setattr(protocols, "_ROWS", 3)
    assert protocols.pool_tracklets(frames, tracklet)[0] == pytest.approx(at_once, abs=1e-6)
    by_hand = [frames[tracklet == t] / np.linalg.norm(frames[tracklet == t], axis=1)[:, None] for t in range(1, 9)]
    means = np.stack([each.mean(axis=0) for each in by_hand])
    assert at_once == pytest.approx(means / np.linalg.norm(means, axis=1)[:, None], abs=1e-6)


def test_overlap_and_its_threshold():
    box = np.array([0, 0, 10, 20])
    others = np.array([[0, 0, 10, 20], [5, 0, 10, 20], [10, 0, 10, 20], [2, 4, 5, 10]])
    assert protocols.overlap(others, box) == pytest.approx([1, 100 / 300, 0, 50 / 200])
    assert protocols.overlap_threshold(np.array([0, 0, 100, 200])) == 0.5
    assert protocols.overlap_threshold(box) == pytest.approx(200 / (20 * 30))  # small boxes need less


def test_the_most_similar_detection_is_the_hit_not_the_best_placed():
    boxes = np.array([[0, 0, 100, 200], [0, 20, 100, 200], [300, 0, 100, 200], [0, 0, 100, 200]])
    image = np.array([1, 1, 1, 2])
    similarity = np.array([0.5, 0.7, 0.9, 0.8])
    # image 1: detections 0 and 1 overlap the person, 1 is more similar; image 2 shows nobody; image 3 has no detection
    hits = protocols.detection_hits(
        boxes, image, similarity, np.array([[0, 0, 100, 200], [0, 0, 50, 50]]), np.array([1, 3])
    )
    assert hits.tolist() == [False, True, False, False]
