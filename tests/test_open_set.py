"""Open sets: every number against plain loops over all searches, intervals against simulation, and `reid score`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from typer.testing import CliRunner

import oracles
from reid_done_right.artifacts import InputError
from reid_done_right.cli import app
from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.open_set import (
    OpenSet,
    _binomial,
    leave_out,
    open_set,
    threshold_at,
    threshold_interval,
    wilson,
)
from reid_done_right.evaluation.ranking import rank_gallery
from reid_done_right.evaluation.rules import MARKET1501, Rule
from reid_done_right.evaluation.task import Task
from reid_done_right.stages.score import score


def task(seed: int, rule: Rule = MARKET1501, lists: bool = False) -> Task:
    """Return 14 queries of persons 1 to 9, of whom the gallery has 1 to 5, among junk and distractors."""
    rng = np.random.default_rng(seed)

    def some(rows: int, low: int, high: int, name: str) -> Embedded:
        grid = rng.integers(-2, 3, (rows, 3)) + 0.5  # few directions, so that scores tie
        labels = Labels(rng.integers(low, high, rows), rng.integers(1, 3, rows))
        return Embedded(oracles.unit(grid).astype(np.float32), labels, name)

    query, gallery = some(14, 1, 10, "query"), some(40, -1, 6, "gallery")
    own = [np.sort(rng.choice(40, 25, replace=False)) for _ in range(14)] if lists else None
    return Task(query, gallery, rule, own)


def searched(given: Task) -> list[tuple[int, bool, list[tuple[float, bool]]]]:
    """Walk all searches: person, whether enrolled, and score and whether it is the person's of what is ranked."""
    scores = (given.query.embeddings @ given.gallery.embeddings.T).tolist()
    found = []
    for i, person in enumerate(given.query.labels.person_id.tolist()):
        camera, allowed = given.query.labels.camera_id[i], None if given.lists is None else set(given.lists[i].tolist())
        ranked = []
        for j in sorted(range(len(given.gallery)), key=lambda j: (-scores[i][j], j)):
            same = given.gallery.labels.person_id[j] == person
            junk = given.rule.same_camera_is_junk and same and given.gallery.labels.camera_id[j] == camera
            if given.gallery.labels.person_id[j] != given.rule.junk_id and not junk and (not allowed or j in allowed):
                ranked.append((scores[i][j], bool(same)))
        found.append((person, any(own for _, own in ranked), ranked))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_rates_equal_a_walk_through_all_searches(seed: int, cameras: bool, lists: bool) -> None:
    given_task = task(seed, Rule(same_camera_is_junk=cameras), lists)
    found = open_set(given_task, rank_gallery(given_task), block=64)
    walked = searched(given_task)
    strangers = [ranked for _, enrolled, ranked in walked if not enrolled]
    known = [ranked for _, enrolled, ranked in walked if enrolled]
    assert (len(found.alarm), len(found.mate)) == (len(strangers), len(known))
    assert found.strangers == len({person for person, enrolled, _ in walked if not enrolled})
    middles = np.linspace(-0.99, 0.99, 12)  # between scores, where rounding is of no account
    for threshold in middles[np.abs(middles[:, None] - np.concatenate([found.alarm, found.mate])).min(axis=1) > 1e-4]:
        alarms = sum(any(score > threshold for score, _ in ranked) for ranked in strangers)
        missed = sum(not any(own and score > threshold for score, own in ranked) for ranked in known)
        first = sum(not (ranked[0][1] and ranked[0][0] > threshold) for ranked in known)
        assert found.fpir(threshold) == pytest.approx(alarms / len(strangers))
        assert found.fnir(threshold) == pytest.approx(missed / len(known))
        assert found.fnir(threshold, 1) == pytest.approx(first / len(known))


EXAMPLE = OpenSet(
    np.array([0.8, 0.6, 0.3], np.float32), np.array([0.7, 0.5], np.float32), np.array([1, 2]), strangers=3, known=2
)


def test_curve_of_the_example() -> None:
    curve = EXAMPLE.curve()
    assert curve["threshold"] == pytest.approx([0.8, 0.6, 0.3])
    assert curve["fpir"] == pytest.approx([0, 1 / 3, 2 / 3])
    assert curve["fnir"] == [1, 0.5, 0]
    assert curve["fnir_rank1"] == [1, 0.5, 0.5]  # one's own item of the second query is at rank 2


def test_equal_alarms_are_one_point_of_the_curve() -> None:
    tied = OpenSet(np.array([0.5, 0.5, 0.2], np.float32), np.array([0.5], np.float32), np.array([1]), 3, 1)
    assert tied.curve() == {
        "threshold": pytest.approx([0.5, 0.2]),
        "fpir": pytest.approx([0, 2 / 3]),
        "fnir": [1, 0],  # the threshold itself is not returned
        "fnir_rank1": [1, 0],
    }


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.floats(0, 0.99))
def test_threshold_is_the_lowest_score_that_keeps_the_rate(scores: list[float], rate: float) -> None:
    alarm = np.sort(np.array(scores, np.float32))[::-1]
    kept = [score for score in alarm.tolist() if (alarm > score).mean() <= rate + 1e-9]
    assert threshold_at(alarm, rate) == min(kept)


def test_own_item_that_was_cut_off_is_missed_at_any_threshold() -> None:
    cut = task(3, Rule(cut=1))
    found = open_set(cut, rank_gallery(cut))
    assert found.fnir(-1) > 0 and found.fnir(-1) == float((found.mate == -np.inf).mean())


# --- made of a closed set

BY_HASH = [9, 8, 4, 3, 1, 7, 2, 6, 5]
"""Persons by SHA-256 of their numbers, as `printf 9 | sha256sum` prints it: 19581e27... for 9, ef2d127d... for 5."""


def closed(seed: int, rule: Rule = MARKET1501) -> Task:
    """Return 24 queries of persons 1 to 9, all of whom are in the gallery, among junk and distractors."""
    rng = np.random.default_rng(seed)
    person = np.concatenate([np.arange(1, 10), rng.integers(1, 10, 15)])
    shown = np.concatenate([np.arange(1, 10), rng.integers(-1, 10, 40)])

    def some(persons: Any, cameras: Any, name: str) -> Embedded:
        looks = oracles.unit(rng.normal(size=(len(persons), 4))).astype(np.float32)
        return Embedded(looks, Labels(persons, cameras), name)

    return Task(some(person, rng.integers(1, 3, 24), "query"), some(shown, rng.integers(3, 5, 49), "gallery"), rule)


@pytest.mark.parametrize(("share", "left_out"), [(0.12, BY_HASH[:1]), (0.5, BY_HASH[:4]), (0.9, BY_HASH[:8])])
def test_persons_of_the_least_hashes_are_left_out_of_the_gallery_alone(share: float, left_out: list[int]) -> None:
    whole = closed(0)
    opened = leave_out(whole, share)
    kept = [row for row in range(49) if whole.gallery.labels.person_id[row] not in left_out]
    assert opened.gallery.labels.person_id.tolist() == whole.gallery.labels.person_id[kept].tolist()
    assert np.array_equal(opened.gallery.embeddings, whole.gallery.embeddings[kept])
    assert opened.query is whole.query and opened.rule is whole.rule


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.06, 0.94), st.booleans())
def test_rates_of_an_open_set_equal_a_walk_past_those_who_are_left_out(seed: int, share: float, cameras: bool) -> None:
    whole = closed(seed, Rule(same_camera_is_junk=cameras))
    opened = leave_out(whole, share)
    found = open_set(opened, rank_gallery(opened))
    left_out = BY_HASH[: round(share * 9)]
    scores = whole.query.embeddings @ whole.gallery.embeddings.T
    best: dict[bool, list[float]] = {True: [], False: []}
    for i, person in enumerate(whole.query.labels.person_id.tolist()):
        counted = [
            (float(scores[i, j]), other == person)
            for j, other in enumerate(whole.gallery.labels.person_id.tolist())
            if other != -1 and other not in left_out
        ]  # no query and item share a camera
        known = person not in left_out
        best[known].append(max(score for score, own in counted if own or not known))
    assert (found.strangers, found.known) == (len(left_out), 9 - len(left_out))
    assert found.alarm == pytest.approx(np.array(sorted(best[False], reverse=True)), abs=1e-6)
    assert found.mate == pytest.approx(np.array(best[True]), abs=1e-6)


def test_person_whom_no_query_finds_is_neither_left_out_nor_counted() -> None:
    whole = closed(1)
    own_camera = np.where(whole.query.labels.person_id == 9, 3, 1)
    camera = np.where(whole.gallery.labels.person_id == 9, 3, 4)
    query, gallery = (
        Embedded(side.embeddings, Labels(side.labels.person_id, cameras), side.name)
        for side, cameras in ((whole.query, own_camera), (whole.gallery, camera))
    )
    opened = leave_out(Task(query, gallery, MARKET1501), 0.25)
    assert set(gallery.labels.person_id) - set(opened.gallery.labels.person_id) == {8, 4}


@pytest.mark.parametrize(("share", "count"), [(0.05, 0), (0.95, 9)])
def test_share_that_leaves_out_nobody_or_everybody_is_reported(share: float, count: int) -> None:
    with pytest.raises(
        ValueError, match=rf"^{share} of 9 persons with a match is {count}; leave out one person or more"
    ):
        leave_out(closed(0), share)


# --- intervals


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (20, 0.05), (750, 0.01), (5, 0.0)])
def test_binomial_probabilities_are_those_of_scipy(n: int, p: float) -> None:
    assert _binomial(n, p) == pytest.approx(binom.pmf(np.arange(n + 1), n, p), abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (2, 10), (7, 7), (10, 750)])
def test_wilson_interval_is_that_of_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("queries_each", [1, 4])
def test_threshold_interval_covers_the_true_threshold(queries_each: int) -> None:
    """Of 400 samples of 200 strangers, whose queries score alike, 95 % or more enclose the threshold of all."""
    rng, rate, covered = np.random.default_rng(0), 0.1, 0
    for _ in range(400):
        scores = np.repeat(rng.random(200), queries_each)
        low, high = threshold_interval(np.sort(scores)[::-1], rate, 200)
        assert low is not None and high is not None and low <= high
        covered += low <= 1 - rate <= high
    assert 0.94 <= covered / 400 <= 0.99


def test_few_strangers_leave_the_interval_open() -> None:
    alarm = np.linspace(0.9, 0.1, 100)
    low, high = threshold_interval(alarm, 0.01, 100)
    assert low == pytest.approx(alarm[3]) and high is None  # that nobody of 100 exceeds it has a chance of 37 %
    assert threshold_interval(alarm[:2], 0.9, 2) == (None, 0.9)
    assert threshold_interval(alarm[:2], 0.5, 2) == (None, None)


# --- the command


def photos(rng: np.random.Generator, person: Any, camera: int) -> dict[str, Any]:
    looks = np.random.default_rng(7).normal(size=(200, 16))
    embeddings = 3 * (looks[person] + 0.4 * rng.normal(size=(len(person), 16)))  # not of unit norm
    return {"embeddings": embeddings, "person_id": person, "camera_id": np.full(len(person), camera)}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "query.npz", **photos(rng, np.arange(1, 161), 1))
    np.savez(tmp_path / "gallery.npz", **photos(rng, np.tile(np.arange(1, 61), 2), 2))
    return ["--query", str(tmp_path / "query.npz"), "--gallery", str(tmp_path / "gallery.npz")]


def test_open_set_is_scored_and_printed(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    result = CliRunner().invoke(app, ["score", *files, "--out", str(out), "--open-set", "--false-alarms", "0.05,0.2", "--ranks", "2-4,20"])  # fmt: skip
    assert result.exit_code == 0, result.exception
    scores = json.loads(out.read_text())
    found = scores["open_set"]
    assert (found["known_queries"], found["unknown_queries"], found["unknown_persons"]) == (60, 100, 100)
    one, other = found["at"]
    assert one["fpir"] <= 0.05 and other["fpir"] <= 0.2 and one["threshold"] > other["threshold"]
    assert one["low"] <= one["threshold"] <= one["high"] and one["fnir_low"] <= one["fnir"] <= one["fnir_high"]
    assert len(found["curve"]["fpir"]) == 100 and found["curve"]["fpir"] == sorted(found["curve"]["fpir"])
    assert {"rank2", "rank3", "rank4", "rank20", "mINP"} < set(scores)
    assert f"5.00% false alarms: similarity above {one['threshold']:.3f}" in result.stdout
    plain = tmp_path / "plain.json"
    assert CliRunner().invoke(app, ["score", *files, "--out", str(plain)]).exit_code == 0
    assert "open_set" not in (written := json.loads(plain.read_text()))
    assert {name: scores[name] for name in written} == written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--false-alarms", "1"], "false alarms are 1.0: expected rates from 0 to below 1, as in 0.01"),
        (["--false-alarms", "5%"], "--false-alarms '5%': expected numbers separated by commas, as in 0.01,0.1"),
        (["--false-alarms", ""], "false alarms are none: expected rates"),
        (["--rerank", "qe-dba"], "qe-dba changes similarities by what else is searched for; rank an open set plainly"),
        (["--ranks", "5-x"], "--ranks '5,x': expected numbers separated by commas, as in 20,50 or 1-50"),
    ],
)
def test_wrong_option_of_an_open_set_is_reported(
    files: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["score", *files, "--out", str(tmp_path / "s.json"), "--open-set", *options])
    assert isinstance(result.exception, InputError) and str(result.exception).startswith(message)
    assert not (tmp_path / "s.json").exists()


def test_open_set_without_strangers_is_reported(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"gallery.npz: every query shows somebody in .*query.npz, so that there are no"
    ):
        score(Path(files[3]), Path(files[1]), tmp_path / "s.json", false_alarms=[0.1], changes={"same_camera_is_junk": True})  # fmt: skip
