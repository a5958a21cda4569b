import numpy as np
import pytest

from reid_done_right.evaluation.embedded import Embedded, Labels, normalised

FOUR = Labels(np.array([7, -1, 7, 0]), np.array([1, 2, 2, 1]))


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
def test_labels_that_are_not_two_lists_of_integers_are_rejected(person, camera, message):
    with pytest.raises(ValueError, match=message):
        Labels(np.asarray(person), np.asarray(camera))


@pytest.mark.parametrize("kind", ["u1", "u2", ">i4", "f2", "f4", ">f8"])
def test_whole_numbers_of_any_type_are_labels(kind):
    person = Labels(np.array([3, 200], kind), np.array([1, 2], kind)).person_id
    assert person.dtype == np.int64 and person.tolist() == [3, 200]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_name_file_and_row(bad):
    embeddings = np.ones((4, 2), np.float32)
    embeddings[2, 1] = bad
    with pytest.raises(ValueError, match="gallery: embedding of row 2 holds a value that is not finite"):
        Embedded(embeddings, FOUR, "gallery")


def test_zero_rows_and_wrong_lengths_are_rejected():
    with pytest.raises(ValueError, match="query: embedding of row 1 is all zeros"):
        Embedded(np.array([[1.0, 0], [0, 0]]), FOUR[:2], "query")
    with pytest.raises(ValueError, match="query: 3 embeddings but 2 labels"):
        Embedded(np.ones((3, 2)), FOUR[:2], "query")
    for odd in (np.ones((2, 2), int), np.ones((2, 0)), np.ones((2, 2, 1)), np.ones(2)):
        with pytest.raises(ValueError, match="expected floats of shape"):
            Embedded(odd, FOUR[:2], "query")
    with pytest.raises(ValueError, match="row 1 is too long or too short for 32-bit floats"):
        Embedded(np.array([[1.0, 0], [1e200, 0]]), FOUR[:2], "query")
    with pytest.raises(ValueError, match="no rows"):
        Embedded(np.ones((0, 2)), FOUR[:0], "query")


def test_norms_other_than_one_are_named():
    with pytest.raises(ValueError, match="query: embedding of row 1 has norm 2, expected 1"):
        Embedded(np.array([[1.0, 0], [0, 2]]), FOUR[:2], "query")


def test_embedded_normalises_on_request_and_keeps_unit_norms():
    rows = normalised(np.random.default_rng(0).standard_normal((4, 3)))
    assert Embedded(rows, FOUR, normalise=True).embeddings is rows
    longer = rows * np.arange(1, 5, dtype=np.float32)[:, None]
    assert Embedded(longer, FOUR, normalise=True).embeddings == pytest.approx(rows, abs=1e-6)
    with pytest.raises(ValueError, match="embeddings: embedding of row 0 is all zeros"):
        Embedded(rows * 0, FOUR, normalise=True)
