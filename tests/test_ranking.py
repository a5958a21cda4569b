import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oracles
from oracles import labels
from reid_done_right.evaluation import detections, distractors, ranking, rules
from reid_done_right.evaluation.backend import backend
from reid_done_right.evaluation.embedded import Embedded, Labels, normalised
from reid_done_right.evaluation.metrics import average_precision
from reid_done_right.evaluation.rules import MARKET1501, Rule
from reid_done_right.evaluation.task import Task


def by_scores(scores, query, gallery, rule=MARKET1501, **options):
    """Rank by a matrix of scores written by hand."""
    scores = np.asarray(scores, dtype=np.float32)

    def scorer(rows, columns, out):
        out[:] = scores[rows, columns]

    return ranking.rank_by(scorer, query, gallery, rule, **options)


def by_products(query, query_labels, gallery, gallery_labels, rule=MARKET1501, threads=None, device=None, **options):
    """Rank by dot products of embeddings of any norm."""
    there = backend(threads, device)
    scorer = ranking.dot_scorer(query, gallery, there)
    return ranking.rank_by(scorer, query_labels, gallery_labels, rule, backend=there, **options)


def ranks(result):
    return [result.ranks[a:b].tolist() for a, b in zip(result.pointers[:-1], result.pointers[1:], strict=True)]


GALLERY = labels((1, 1), (1, 2), (2, 2), (0, 1))
QUERY = labels((1, 1), (1, 2), (2, 1), (2, 2))
# rows: queries; columns: person 1 in camera 1, person 1 in camera 2, person 2 in camera 2, a distractor
SCORES = [
    [0.9, 0.6, 0.7, 0.1],  # item 0 is junk (same camera); left are 2, 1, 3: the match comes second
    [0.9, 0.8, 0.1, 0.2],  # item 1 is junk; the match (item 0) comes first
    [0.5, 0.5, 0.5, 0.6],  # all four count; the match (item 2) ties with 0 and 1 before it, and 3 beats it: fourth
    [0.1, 0.2, 0.3, 0.4],  # the only item of person 2 is from the same camera: nothing to find
]


def test_four_by_four_by_hand():
    result = by_scores(SCORES, QUERY, GALLERY)
    assert ranks(result) == [[2], [1], [4], []]
    assert result.first_hit_rank.tolist() == [2, 1, 4, 0]
    assert result.similarity == pytest.approx([0.6, 0.9, 0.5])
    assert result.average_precision("step") == pytest.approx([1 / 2, 1, 1 / 4, 0])
    assert result.average_precision("trapezoid") == pytest.approx([1 / 4, 1, 1 / 8, 0])
    assert result.scores() == {
        "mAP": pytest.approx((1 / 4 + 1 + 1 / 8) / 4),
        "mAP_trapezoid": pytest.approx((1 / 4 + 1 + 1 / 8) / 4),
        "mAP_step": pytest.approx((1 / 2 + 1 + 1 / 4) / 4),
        "ap_rule": "trapezoid",
        "rank1": 1 / 4,
        "rank5": 3 / 4,
        "rank10": 3 / 4,
        "queries": 4,
        "queries_without_match": 1,
    }


def test_tie_keeps_gallery_order():
    scores = [[0.5, 0.5, 0.5, 0.5]]
    for place in range(4):
        gallery = labels(*[(1, 2) if j == place else (0, 1) for j in range(4)])
        assert ranks(by_scores(scores, labels((1, 1)), gallery)) == [[place + 1]]


def test_two_matches_of_equal_score_take_two_positions():
    assert ranks(by_scores([[0.5, 0.7, 0.5]], labels((1, 1)), labels((1, 2), (0, 1), (1, 3)))) == [[2, 3]]


def test_minus_one_is_deleted_but_zero_counts():
    scores = [[0.9, 0.8, 0.7]]
    assert ranks(by_scores(scores, labels((1, 1)), labels((-1, 1), (-1, 2), (1, 2)))) == [[1]]
    assert ranks(by_scores(scores, labels((1, 1)), labels((0, 1), (0, 2), (1, 2)))) == [[3]]


def test_only_the_same_person_in_the_same_camera_is_deleted():
    """Another person in the query's camera stays, and counts against the match."""
    assert ranks(by_scores([[0.9, 0.8]], labels((1, 1)), labels((2, 1), (1, 2)))) == [[2]]


def test_duke_cut_counts_positions_before_deletion_and_keeps_n():
    gallery = labels((1, 1), (1, 2), (2, 1), (1, 3))  # junk, match, negative, match
    full = by_scores([[0.9, 0.8, 0.7, 0.6]], labels((1, 1)), gallery)
    assert ranks(full) == [[1, 3]]
    cut = by_scores([[0.9, 0.8, 0.7, 0.6]], labels((1, 1)), gallery, Rule(cut=3))  # the last match is in place 4
    assert ranks(cut) == [[1]]
    assert cut.relevant.tolist() == [2]
    assert cut.average_precision("step") == pytest.approx([1 / 2])
    nothing = by_scores([[0.9, 0.8, 0.7, 0.6]], labels((1, 1)), gallery, Rule(cut=1))
    assert nothing.first_hit_rank.tolist() == [0]
    assert nothing.scores()["queries_without_match"] == 0


def test_gallery_lists_limit_each_query():
    query, gallery = labels((1, 0), (1, 0)), labels((1, 0), (2, 0), (1, 0), (-1, 0))
    scores = [[0.4, 0.5, 0.3, 0.9]] * 2
    rule = rules.PERSON_SEARCH
    lists = [np.array([0, 1]), np.array([3, 2, 1])]
    assert ranks(by_scores(scores, query, gallery, rule, lists=lists)) == [[2], [3]]


def test_detections_are_scored_by_precision_times_recall():
    """Hits at ranks 1 and 3 of the detections, and a third person box that nobody detected."""
    similarity, hits = np.array([0.2, 0.9, 0.5, 0.7]), np.array([False, True, True, False])
    result = detections.rank_detections([similarity, np.empty(0)], [hits, np.empty(0, bool)], [3, 1])
    assert ranks(result) == [[1, 3], []]
    assert result.average_precision("step") == pytest.approx([2 / 3 * (1 + 2 / 3) / 2, 0])
    assert result.cmc([1]).tolist() == [1 / 2]


coarse = arrays(np.float32, st.tuples(st.integers(2, 12), st.just(3)), elements=st.sampled_from([-1, 0, 1, 2]))


@st.composite
def benchmarks(draw):
    """Embeddings of few small integers, whose products are exact and often equal, with labels of every kind."""
    query, gallery = draw(coarse), draw(coarse)
    query[~query.any(axis=1)] = 1
    gallery[~gallery.any(axis=1)] = 1

    def column(rows, low, high):
        return draw(arrays(np.int64, rows, elements=st.integers(low, high)))

    query_labels = Labels(column(len(query), 1, 4), column(len(query), 1, 2))
    gallery_labels = Labels(column(len(gallery), -1, 4), column(len(gallery), 1, 3))
    gallery_labels.person_id[0], gallery_labels.camera_id[0] = query_labels.person_id[0], 3  # one match at least
    return query, query_labels, gallery, gallery_labels


@settings(max_examples=200, deadline=None)
@given(
    benchmarks(), st.sampled_from([Rule(), Rule(cut=3), Rule(junk_id=None), Rule(same_camera_is_junk=False)]), st.data()
)
def test_equals_the_walk_of_the_sorted_list(benchmark, rule, data):
    query, query_labels, gallery, gallery_labels = benchmark
    block = data.draw(st.integers(1, 40))
    lists = None
    if data.draw(st.booleans()):
        lists = [data.draw(st.lists(st.integers(0, len(gallery) - 1), unique=True).map(np.array)) for _ in query]
        lists = [each.astype(np.int64) for each in lists]
    device = data.draw(st.sampled_from([None, "cpu"]))
    options = {"lists": lists, "block": block, "threads": 1, "device": device}
    result = by_products(query, query_labels, gallery, gallery_labels, rule, **options)
    expected = oracles.evaluate(query @ gallery.T, query_labels, gallery_labels, rule, lists)
    assert ranks(result) == [row["ranks"] for row in expected]
    assert result.first_hit_rank.tolist() == [row["first"] for row in expected]
    for ap_rule in ("trapezoid", "step"):
        assert result.average_precision(ap_rule) == pytest.approx([row[ap_rule] for row in expected])


def benchmark(seed=0, queries=40, gallery=300, size=16):
    rng = np.random.default_rng(seed)
    query_labels = Labels(rng.integers(1, 20, queries), rng.integers(1, 4, queries))
    gallery_labels = Labels(rng.integers(-1, 30, gallery), rng.integers(1, 4, gallery))
    embeddings = [rng.standard_normal((rows, size)).astype(np.float32) for rows in (queries, gallery)]
    return embeddings[0], query_labels, embeddings[1], gallery_labels


def test_order_of_the_gallery_does_not_matter_without_ties():
    query, query_labels, gallery, gallery_labels = benchmark()
    shuffled = np.random.default_rng(1).permutation(len(gallery))
    plain = by_products(query, query_labels, gallery, gallery_labels, MARKET1501)
    other = by_products(query, query_labels, gallery[shuffled], gallery_labels[shuffled], MARKET1501)
    assert ranks(plain) == ranks(other)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_do_not_matter(threads):
    query, query_labels, gallery, gallery_labels = benchmark()
    plain = by_products(query, query_labels, gallery, gallery_labels, MARKET1501)
    small = by_products(query, query_labels, gallery, gallery_labels, MARKET1501, block=400, threads=threads)
    assert ranks(plain) == ranks(small)


def test_long_runs_of_deleted_rows_are_skipped_and_memory_maps_are_read(tmp_path):
    query, query_labels, gallery, gallery_labels = benchmark()
    junk = np.ones((3000, gallery.shape[1]), np.float32)
    np.save(tmp_path / "gallery.npy", np.concatenate([gallery, junk, gallery[::-1]]))
    minus_one = Labels(np.full(3000, -1), np.full(3000, 1))
    person, camera = (
        np.concatenate([getattr(each, name) for each in (gallery_labels, minus_one, gallery_labels[::-1])])
        for name in ("person_id", "camera_id")
    )
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    result = by_products(query, query_labels, mapped, Labels(person, camera), MARKET1501)
    expected = oracles.evaluate(query @ mapped.T, query_labels, Labels(person, camera), MARKET1501)
    assert ranks(result) == [row["ranks"] for row in expected]


def test_half_precision_storage_changes_little():
    query, query_labels, gallery, gallery_labels = benchmark()
    gallery = normalised(gallery)
    full = by_products(query, query_labels, gallery, gallery_labels, MARKET1501)
    half = by_products(query, query_labels, gallery.astype(np.float16), gallery_labels, MARKET1501)
    assert half.scores()["mAP"] == pytest.approx(full.scores()["mAP"], abs=2e-3)


def test_score_checks_its_input_and_ranks_by_dot_products():
    query, query_labels, gallery, gallery_labels = benchmark()
    query, gallery = normalised(query), normalised(gallery)
    result = ranking.score(query, query_labels, gallery, gallery_labels, MARKET1501)
    assert ranks(result) == ranks(by_products(query, query_labels, gallery, gallery_labels))
    task = Task(Embedded(query, query_labels), Embedded(gallery, gallery_labels), MARKET1501)
    assert ranks(ranking.rank_gallery(task)) == ranks(result)
    with pytest.raises(ValueError, match="options k1 belong to a re-ranking, but there is none"):
        ranking.rank_gallery(task, options={"k1": 3})
    gallery[17] = np.nan
    with pytest.raises(ValueError, match="gallery: embedding of row 17"):
        ranking.score(query, query_labels, gallery, gallery_labels, MARKET1501)


def test_rank_gallery_with_lists_rejects_re_ranking():
    query, query_labels, gallery, gallery_labels = benchmark()
    pair = normalised(query), query_labels, normalised(gallery), gallery_labels
    lists = [np.arange(300)] * 40
    with pytest.raises(ValueError, match="qe-dba would mix the galleries of different queries"):
        ranking.score(*pair, MARKET1501, lists=lists, rerank="qe-dba")
    with pytest.raises(ValueError, match="query: 39 lists of gallery rows, expected 40"):
        ranking.score(*pair, MARKET1501, lists=lists[1:])


class Counted(np.ndarray):
    """Embeddings that note how many of their rows are read."""

    read: list[int]

    def __getitem__(self, rows):
        self.read.append(len(np.arange(len(self))[rows]))
        return np.asarray(self)[rows]


def counted(embeddings):
    gallery = embeddings.view(Counted)
    gallery.read = []
    return gallery


@pytest.mark.parametrize("junk_id", [None, -1])
def test_score_reads_a_mapped_gallery_once(junk_id):
    query, query_labels, gallery, gallery_labels = benchmark()
    gallery = counted(normalised(gallery))
    ranking.score(normalised(query), query_labels, gallery, gallery_labels, Rule(junk_id=junk_id))
    assert sum(gallery.read) == len(gallery)


def test_count_beating_reads_mapped_distractors_once():
    query, query_labels, gallery, gallery_labels = benchmark()
    query, nobody = normalised(query), np.zeros(90, int)
    ranked = ranking.score(query, query_labels, normalised(gallery), gallery_labels, MARKET1501)
    extra = counted(normalised(np.random.default_rng(1).standard_normal((90, 16))))
    shard = Embedded(extra, Labels(nobody, nobody), late=True)
    distractors.count_beating(query, ranked, shard, np.arange(90)[:, None], [0, 90], block=400)
    assert sum(extra.read) == 90


@pytest.mark.parametrize("row", [0, 2999])
def test_score_names_a_row_that_is_not_of_norm_one_whether_it_counts_or_not(row):
    query, query_labels, _, _ = benchmark()
    person = np.full(3000, -1)  # junk for all, which no product needs
    person[:300] = 1 + np.arange(300) % 8
    gallery = normalised(np.random.default_rng(1).standard_normal((3000, 16)))
    gallery[row] *= 2
    with pytest.raises(ValueError, match=f"gallery: embedding of row {row} has norm 2, expected 1"):
        ranking.score(normalised(query), query_labels, gallery, Labels(person, np.full(3000, 9)), Rule())


def test_rank_gallery_checked_late_normalises_and_rejects_the_query_set():
    query, query_labels, gallery, gallery_labels = benchmark()
    longer = (3 * gallery).astype(np.float32)
    asked = Embedded(query, query_labels, "query", normalise=True)
    there = Embedded(longer, gallery_labels, "gallery", normalise=True, late=True)
    ranked = ranking.rank_gallery(Task(asked, there, MARKET1501))
    expected = ranking.score(asked.embeddings, query_labels, normalised(longer), gallery_labels, MARKET1501)
    assert ranked.ranks.tolist() == expected.ranks.tolist()
    itself = Embedded(query, query_labels, "itself", normalise=True, late=True)
    with pytest.raises(ValueError, match="itself: the gallery is the query set"):
        ranking.rank_gallery(Task(asked, itself, Rule(same_camera_is_junk=False)))


def test_device_of_pytorch_counts_the_same_whatever_the_signs_and_ties():
    """Scores of both signs, both zeros and equal ones; the sweep's draws too."""
    query, query_labels, gallery, gallery_labels = benchmark(1)
    query, gallery = np.rint(query), np.rint(gallery)
    query[~query.any(axis=1)], gallery[~gallery.any(axis=1)] = 1, 1
    query[0], gallery[5:9] = -gallery[5], -0.0
    gallery[5:9, 0] = [0.0, -1, 1, -0.0]
    gallery[[5, 8], 1] = 1
    here, there = (
        by_products(query, query_labels, gallery, gallery_labels, MARKET1501, block=3000, device=device)
        for device in (None, "cpu")
    )
    assert ranks(here) == ranks(there)
    extra = np.rint(np.random.default_rng(2).standard_normal((90, 16))).astype(np.float32)
    positions = distractors.order_positions(90, DRAWS, np.random.default_rng(3))
    one, other = (
        distractors.count_beating(query, here, extra, positions, [0, 30, 90], block=900, device=device)
        for device in (None, "cpu")
    )
    assert (one == other).all() and one.sum() > 0


SIZES, DRAWS = [0, 10, 11, 60, 100], 3


def swept(shards):
    """Embeddings of integers: many equal scores, none of which may beat."""
    query, query_labels, gallery, gallery_labels = benchmark()
    query, gallery = np.rint(2 * query), np.rint(2 * gallery)
    extra = np.rint(2 * np.random.default_rng(2).standard_normal((100, gallery.shape[1]))).astype(np.float32)
    positions = distractors.order_positions(len(extra), DRAWS, np.random.default_rng(3))
    base = by_products(query, query_labels, gallery, gallery_labels, MARKET1501)
    parts = np.array_split(np.arange(len(extra)), shards)
    counts = sum(
        distractors.count_beating(query, base, extra[part], positions[part], SIZES, block=900) for part in parts
    )
    return base, counts, (query, query_labels, gallery, gallery_labels, extra, positions)


def test_sweep_equals_an_evaluation_for_each_size_and_draw():
    base, counts, (query, query_labels, gallery, gallery_labels, extra, positions) = swept(shards=1)
    curves = distractors.sweep(base, counts)
    for s, size in enumerate(SIZES):
        for draw in range(DRAWS):
            chosen = extra[np.argsort(positions[:, draw])[:size]]
            grown = Labels(
                np.concatenate([gallery_labels.person_id, np.zeros(size, np.int64)]),
                np.concatenate([gallery_labels.camera_id, np.zeros(size, np.int64)]),
            )
            alone = by_products(query, query_labels, np.concatenate([gallery, chosen]), grown, MARKET1501)
            assert curves.average_precision[s, draw] == pytest.approx(alone.scores()["mAP"])
            assert curves.average_precision_step[s, draw] == pytest.approx(alone.scores()["mAP_step"])
            assert curves.rank1[s, draw] == alone.scores()["rank1"]


def test_shards_add_up_and_the_curve_only_falls():
    base, counts, _ = swept(shards=1)
    assert (swept(shards=3)[1] == counts).all()
    curves = distractors.sweep(base, counts)
    for curve in (curves.average_precision, curves.average_precision_step, curves.rank1):
        assert (np.diff(curve, axis=0) <= 0).all()
    assert (np.diff(curves.average_precision[[0, -1]], axis=0) < 0).all()
    assert curves.average_precision[0] == pytest.approx(np.full(DRAWS, base.average_precision().mean()))


def test_sweep_reports_invalid_input():
    base, _, (query, _, _, _, extra, positions) = swept(shards=1)
    with pytest.raises(ValueError, match="distractors are"):
        distractors.count_beating(query, base, extra[:50], positions, SIZES)
    with pytest.raises(ValueError, match="expected ascending"):
        distractors.count_beating(query, base, extra, positions, [10, 5])


def test_average_precision_is_the_same_from_ranks_alone():
    base, _, _ = swept(shards=1)
    assert average_precision(base.ranks, base.pointers) == pytest.approx(base.average_precision())


def test_a_device_that_is_not_there_is_named():
    for device in ("meta", "cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
            backend(device=device)


def test_backend_on_a_gpu_that_is_not_there_says_so_and_how_to_go_on():
    with pytest.raises(ValueError, match=r"GPUs that PyTorch finds: \d+\): leave it out for the CPU"):
        backend(device="cuda:99")
