import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import oracles
from reid_done_right.artifacts import InputError
from reid_done_right.evaluation.embedded import Embedded, Labels
from reid_done_right.evaluation.expansion import expand
from reid_done_right.evaluation.pooling import pool_queries, pool_tracklets
from reid_done_right.evaluation.ranking import score as rank
from reid_done_right.evaluation.reciprocal import k_reciprocal
from reid_done_right.evaluation.rules import MARKET1501, MARS, PERSON_SEARCH, Rule
from reid_done_right.evaluation.shards import Orders
from reid_done_right.evaluation.statistics import mean_interval
from reid_done_right.stages.score import score


def people(seed, rows, size=8, low=1):
    rng = np.random.default_rng(seed)
    return {
        "embeddings": oracles.unit(rng.standard_normal((rows, size))).astype(np.float32),
        "person_id": rng.integers(low, 10, rows),
        "camera_id": rng.integers(1, 4, rows),
    }


@pytest.fixture
def files(tmp_path):
    """Write arrays and give their paths."""

    def write(**given):
        paths = []
        for name, arrays in given.items():
            paths.append(tmp_path / f"{name}.npz")
            np.savez(paths[-1], **arrays)
        return paths

    return write


QUERY, GALLERY = people(0, 12), people(1, 80, low=-1)
LABELS = [Labels(each["person_id"], each["camera_id"]) for each in (QUERY, GALLERY)]


def plain(query=QUERY["embeddings"], gallery=GALLERY["embeddings"], rule=MARKET1501):
    return rank(query, LABELS[0], gallery, LABELS[1], rule)


def run(query, gallery, out, **options):
    score(query, gallery, out, **options)
    return json.loads(out.read_text())


def test_scores_and_rows_of_every_query(files, tmp_path):
    rows = tmp_path / "rows.parquet"
    found = run(*files(query=QUERY, gallery=GALLERY), tmp_path / "scores.json", per_query=rows)
    expected = plain()
    assert found["protocol"] == "market1501" and found["ap_rule"] == "trapezoid"
    assert found.items() >= expected.scores().items()
    table = pq.read_table(rows).to_pydict()
    assert table["ap"] == expected.average_precision("trapezoid").tolist()
    assert table["ap_step"] == expected.average_precision("step").tolist()
    assert table["ap_trapezoid"] == table["ap"]
    assert table["first_hit_rank"] == expected.first_hit_rank.tolist()
    assert table["person_id"] == QUERY["person_id"].tolist()
    assert table["query"] == list(range(12)) and table["relevant"] == expected.relevant.tolist()


def test_further_ranks_and_the_interval_of_map(files, tmp_path):
    found = run(*files(query=QUERY, gallery=GALLERY), tmp_path / "a.json", ranks=[1, 3, 40], seed=5)
    expected = plain()
    assert [found["rank3"], found["rank40"]] == expected.cmc([3, 40]).tolist()
    interval = mean_interval(expected.average_precision(), np.random.default_rng(5))
    assert found["mAP_interval"] == {
        "low": interval.low,
        "high": interval.high,
        "level": 0.95,
        "resamples": 2000,
        "seed": 5,
    }
    alone = {name: values[:1] for name, values in QUERY.items()}
    found = run(*files(query=alone, gallery=GALLERY), tmp_path / "b.json")
    assert found["mAP_interval"]["low"] is None and found["queries"] == 1


@pytest.mark.parametrize("kind", ["f2", "f8", ">f4"])
def test_files_of_other_frameworks(files, tmp_path, kind):
    expected = run(*files(query=QUERY, gallery=GALLERY), tmp_path / "a.json")
    other = {
        "embeddings": np.asfortranarray(GALLERY["embeddings"].astype(kind)),
        "person_id": GALLERY["person_id"].astype(float),
        "camera_id": GALLERY["camera_id"].astype(np.uint8),
        "paths": np.array(["a", None], dtype=object),  # of no use here, and never loaded
    }
    assert run(*files(query=QUERY, gallery=other), tmp_path / "b.json") == expected


def test_tensors_of_half_the_bits(files, tmp_path):
    rows = np.eye(8, dtype=np.float32)[np.arange(80) % 8] * 1.5  # exact in bfloat16, and ties
    save_file({**GALLERY, "embeddings": rows}, tmp_path / "exact.safetensors")
    columns = {"embeddings": ("BF16", (rows.view(np.uint32) >> 16).astype(np.uint16))}
    columns |= {name: ("I64", GALLERY[name].astype(np.int64)) for name in ("person_id", "camera_id")}
    about, data = {}, b""
    for name, (kind, values) in columns.items():
        end = len(data) + values.nbytes
        about[name], data = (
            {"dtype": kind, "shape": values.shape, "data_offsets": [len(data), end]},
            data + values.tobytes(),
        )
    header = json.dumps(about).encode()
    (tmp_path / "half.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (query,) = files(query=QUERY)
    found = [run(query, tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json") for name in ("exact", "half")]
    assert found[0] == found[1]


def test_rows_are_normalised_and_safetensors_say_the_same(files, tmp_path):
    longer = {**GALLERY, "embeddings": GALLERY["embeddings"] * np.arange(1, 81, dtype=np.float32)[:, None]}
    from_npz = run(*files(query=QUERY, gallery=longer), tmp_path / "a.json")
    paths = [tmp_path / "q.safetensors", tmp_path / "g.safetensors"]
    for path, arrays in zip(paths, (QUERY, GALLERY), strict=True):
        save_file(arrays, path)
    assert run(*paths, tmp_path / "b.json") == from_npz
    assert from_npz["mAP"] == plain().scores()["mAP"]


def test_re_rankings(files, tmp_path):
    paths = files(query=QUERY, gallery=GALLERY)
    expanded = run(*paths, tmp_path / "a.json", rerank="qe-dba")
    assert expanded["mAP"] == pytest.approx(plain(*expand(QUERY["embeddings"], GALLERY["embeddings"])).scores()["mAP"])
    reranked = run(*paths, tmp_path / "b.json", rerank="k-reciprocal")
    distance = k_reciprocal(QUERY["embeddings"], GALLERY["embeddings"]).distance(slice(0, 12), slice(0, 80))
    rows = oracles.evaluate(-distance, *LABELS, MARKET1501)
    assert reranked["mAP"] == pytest.approx(np.mean([row["trapezoid"] for row in rows]))
    other = {"query_neighbours": 2, "alpha": 3.0, "self_counts": True, "order": "query-first"}
    found = run(*paths, tmp_path / "c.json", rerank="qe-dba", options=other)
    assert found["mAP"] == plain(*expand(QUERY["embeddings"], GALLERY["embeddings"], **other)).scores()["mAP"]
    assert found["options"] == {"database_neighbours": 10, **other}
    assert reranked["options"] == {"k1": 20, "k2": 6, "lambda_value": 0.3, "variant": "matlab"}


def test_multiple_queries_are_pooled(files, tmp_path):
    boxes = {name: np.concatenate([values, values]) for name, values in QUERY.items()}
    boxes["embeddings"] = people(7, 24)["embeddings"]
    paths = files(query=QUERY, gallery=GALLERY, boxes=boxes)
    found = run(*paths[:2], tmp_path / "scores.json", multi_query=paths[2], pool="max")
    pooled = pool_queries(
        Embedded(boxes["embeddings"], Labels(boxes["person_id"], boxes["camera_id"])), LABELS[0], "max"
    )
    assert found["mAP"] == plain(pooled).scores()["mAP"] != plain().scores()["mAP"]


def test_distractors_are_swept(files, tmp_path):
    extra = people(2, 60)["embeddings"]
    paths = files(query=QUERY, gallery=GALLERY, distractors={"embeddings": extra})
    found = run(*paths[:2], tmp_path / "scores.json", distractors=paths[2], sizes=[0, 20, 60], orders=2)["distractors"]
    assert found["mAP"][0] == [plain().scores()["mAP"]] * 2
    nobody = Labels(np.zeros(60, int), np.zeros(60, int))
    grown = Labels(
        np.concatenate([LABELS[1].person_id, nobody.person_id]), np.concatenate([LABELS[1].camera_id, nobody.camera_id])
    )
    everything = rank(QUERY["embeddings"], LABELS[0], np.concatenate([GALLERY["embeddings"], extra]), grown, MARKET1501)
    assert found["mAP"][2] == pytest.approx([everything.scores()["mAP"]] * 2)
    (longer,) = files(longer={"embeddings": 3 * extra})
    again = run(*paths[:2], tmp_path / "scores.json", distractors=longer, sizes=[0, 20, 60], orders=2)["distractors"]
    assert again == found
    (zeros,) = files(zeros={"embeddings": np.where(np.arange(60)[:, None] == 50, 0, extra)})
    with pytest.raises(InputError, match=r"zeros\.npz: embedding of row 50 is all zeros"):
        run(*paths[:2], tmp_path / "scores.json", distractors=zeros, sizes=[0, 20, 60])


def test_frames_of_mars_are_pooled(files, tmp_path):
    frames = people(3, 120)
    tracklet = np.random.default_rng(4).integers(1, 40, 120)
    _, first, inverse = np.unique(tracklet, return_index=True, return_inverse=True)
    for name in ("person_id", "camera_id"):
        frames[name] = frames[name][first][inverse]
    frames["tracklet_id"] = tracklet
    queries = {name: values[tracklet < 9] for name, values in frames.items()}
    paths = files(query=queries, gallery=frames)
    found = run(*paths, tmp_path / "scores.json", protocol="mars")
    pooled, rows = pool_tracklets(frames["embeddings"], tracklet)
    labels = Labels(frames["person_id"][rows], frames["camera_id"][rows])
    is_query = tracklet[rows] < 9
    expected = rank(pooled[is_query], labels[is_query], pooled, labels, MARS)
    assert found["mAP"] == expected.scores()["mAP"]
    assert found["queries"] == is_query.sum()
    rows = tmp_path / "rows.parquet"
    run(
        *files(query=frames, gallery=frames), tmp_path / "scores.json", protocol="mars", per_query=rows
    )  # all are queries
    assert pq.read_table(rows)["tracklet_id"].to_pylist() == np.unique(tracklet).tolist()
    frames["person_id"] = frames["person_id"] + np.eye(120, dtype=int)[7]
    with pytest.raises(InputError, match=r"gallery.npz: row \d+ has another person or camera than its tracklet"):
        run(*files(query=queries, gallery=frames), tmp_path / "scores.json", protocol="mars")


def person_search():
    query = {**people(5, 3), "person_id": np.array([1, 2, 3])}
    gallery = {**people(6, 30), "person_id": np.tile([1, 2, 3, -1, 4], 6), "image_id": np.repeat(np.arange(10, 20), 3)}
    query["lists"], query["pointers"] = np.array([10, 11, 12, 13, 14, 15, 19, 18, 17, 16]), np.array([0, 4, 6, 10])
    return query, gallery, [np.arange(0, 12), np.arange(12, 18), np.arange(18, 30)]


def test_each_query_of_person_search_has_its_own_gallery(files, tmp_path):
    query, gallery, lists = person_search()
    found = run(*files(query=query, gallery=gallery), tmp_path / "scores.json", protocol="person-search")
    labels = [Labels(each["person_id"], np.zeros(len(each["person_id"]), int)) for each in (query, gallery)]
    scores = query["embeddings"] @ gallery["embeddings"].T
    rows = oracles.evaluate(scores, *labels, PERSON_SEARCH, lists)
    assert found["mAP"] == pytest.approx(np.mean([row["step"] for row in rows]))
    assert found["ap_rule"] == "step"


def test_gallery_of_all_photos_leaves_out_the_querys_own(files, tmp_path):
    query, gallery, _ = person_search()
    del query["lists"], query["pointers"]
    query["image_id"] = np.array([10, 19, 500])
    found = run(*files(query=query, gallery=gallery), tmp_path / "scores.json", protocol="person-search")
    labels = [Labels(each["person_id"], np.zeros(len(each["person_id"]), int)) for each in (query, gallery)]
    lists = [np.flatnonzero(gallery["image_id"] != own) for own in query["image_id"]]
    rows = oracles.evaluate(query["embeddings"] @ gallery["embeddings"].T, *labels, PERSON_SEARCH, lists)
    assert found["mAP"] == pytest.approx(np.mean([row["step"] for row in rows]))


def test_prw_is_person_search_of_all_other_photos(files, tmp_path):
    query, gallery, _ = person_search()
    del query["lists"], query["pointers"]
    paths = files(query=query | {"image_id": np.array([10, 19, 500])}, gallery=gallery)
    found, same = (run(*paths, tmp_path / "scores.json", protocol=each) for each in ("prw", "person-search"))
    assert found["mAP"] == same["mAP"] > 0
    paths = files(query=query, gallery=gallery)
    with pytest.raises(InputError, match="no 'image_id' of the queries' own photos"):
        run(*paths, tmp_path / "scores.json", protocol="prw")
    with pytest.raises(InputError, match="qe-dba would mix the galleries of different queries; rank prw plainly"):
        run(*paths, tmp_path / "scores.json", protocol="prw", rerank="qe-dba")


def test_detections_that_are_the_true_boxes_score_as_those(files, tmp_path):
    query, gallery, _ = person_search()
    truth = run(*files(query=query, gallery=gallery), tmp_path / "truth.json", protocol="person-search")
    box = np.tile([[0, 0, 100, 200], [200, 0, 100, 200], [400, 0, 100, 200]], (10, 1))
    members = [
        np.flatnonzero((gallery["person_id"] == person) & np.isin(gallery["image_id"], images))
        for person, images in ((1, range(10, 14)), (2, range(14, 16)), (3, range(16, 20)))
    ]
    rows = np.concatenate(members)
    query |= {
        "truth_box": box[rows],
        "truth_image": gallery["image_id"][rows],
        "truth_pointers": np.cumsum([0, *map(len, members)]),
    }
    detected = {"embeddings": gallery["embeddings"], "image_id": gallery["image_id"], "box": box}
    found = run(*files(query=query, gallery=detected), tmp_path / "found.json", protocol="person-search")
    assert found["mAP"] == pytest.approx(truth["mAP"])
    detected["box"] = box + 1000
    missed = run(*files(query=query, gallery=detected), tmp_path / "missed.json", protocol="person-search")
    assert missed["mAP"] == 0 and missed["queries_without_match"] == 0


def test_rules_can_be_set_one_by_one(files, tmp_path):
    paths = files(query=QUERY, gallery=GALLERY)
    found = run(*paths, tmp_path / "scores.json", changes={"same_camera_is_junk": False, "ap_rule": "step"})
    expected = plain(rule=Rule(same_camera_is_junk=False)).scores("step")
    assert found["mAP"] == expected["mAP"] and found["ap_rule"] == "step"


def broken(**changes):
    return {**GALLERY, **changes}


def with_nan():
    embeddings = GALLERY["embeddings"].copy()
    embeddings[5, 0] = np.nan
    return embeddings


HUGE = np.where(np.arange(80) == 9, np.uint64(2**63), np.uint64(1))
GARBAGE = np.where(np.arange(80) == 9, np.iinfo(np.int64).min, 1)


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        (broken(embeddings=with_nan()), "embedding of row 5 holds a value that is not finite"),
        (
            broken(embeddings=np.where(np.arange(80)[:, None] == 3, 0, GALLERY["embeddings"])),
            "embedding of row 3 is all zeros",
        ),
        (broken(embeddings=np.ones((80, 3))), "embeddings of 8 dimensions, those of .*gallery.npz have 3"),
        (broken(embeddings=np.ones((80, 8), int)), "embeddings are int64 of shape"),
        (broken(embeddings=np.ones((80, 8, 1))), r"expected floats of shape \(N, D\)"),
        (broken(embeddings=np.float32(1)), "embeddings is a single value"),
        (broken(embeddings=np.full((80, 8), None)), "embeddings holds Python objects, which are not loaded"),
        (broken(embeddings=GALLERY["embeddings"][:9]), "9 embeddings but 80 labels"),
        ({name: values[:0] for name, values in GALLERY.items()}, "no rows"),
        (broken(person_id=GALLERY["person_id"][:-1]), "79 person_id but 80 camera_id"),
        (broken(person_id=GALLERY["person_id"] + 0.5), "person_id of row 0 is .*, not a whole number"),
        (broken(person_id=GALLERY["person_id"].astype(str)), "person_id holds text"),
        (broken(camera_id=GALLERY["camera_id"][:, None]), r"camera_id is int64 of shape \(80, 1\)"),
        (broken(person_id=HUGE), "person_id of row 9 is 9223372036854775808, too large"),
        (broken(person_id=GARBAGE), "row 9 has person_id -9223372036854775808, which is undefined"),
        (broken(person_id=GALLERY["person_id"] + 100), "no query has a match: no person_id of .*query.npz occurs in"),
        ({"embeddings": GALLERY["embeddings"]}, "no array 'person_id'; it holds embeddings"),
        ({}, "no array 'embeddings'; it holds nothing"),
        (QUERY, "the gallery is the query set"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(files, tmp_path, gallery, message):
    with pytest.raises(InputError, match=message) as error:
        refused(*files(query=QUERY, gallery=gallery), tmp_path)
    assert str(tmp_path / "gallery.npz") in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "cuhk"}, "protocol 'cuhk' is unknown: use one of market1501"),
        ({"protocol": "mars"}, "query.npz: no array 'tracklet_id'"),
        ({"protocol": "person-search"}, "gallery.npz: no array 'image_id'"),
        ({"changes": {"camera": 1}}, "rules are same_camera_is_junk, junk_id"),
        ({"changes": {"cut": 0}}, "cut is 0, expected a rank from 1 on"),
        ({"sizes": [1]}, "distractors and sizes belong together"),
        ({"distractors": "query.npz", "sizes": [0, 13]}, "query.npz: 12 distractors, but sizes ask for 13"),
        ({"distractors": "query.npz", "sizes": [3, 0]}, "sizes are 3, 0: expected ascending"),
        ({"distractors": "query.npz", "sizes": [3], "orders": 0}, "0 orders of 1 sizes"),
        ({"distractors": "query.npz", "sizes": [3], "rerank": "qe-dba"}, "added to a plain, uncut ranking"),
        (
            {"distractors": "query.npz", "sizes": [3], "protocol": "dukemtmc-official"},
            "added to a plain, uncut ranking",
        ),
        ({"multi_query": "none.npz"}, "none.npz: no such file"),
        ({"multi_query": "one.npz"}, "one.npz: query row .* has no box to pool"),
        ({"rerank": "best"}, "re-ranking 'best' is unknown"),
        (
            {"rerank": "k-reciprocal", "options": {"k1": 200}},
            "query.npz against .*gallery.npz: k1 is 200, but there are only 92 items",
        ),
        ({"options": {"k1": 20}}, "options k1 belong to a re-ranking"),
        ({"rerank": "qe-dba", "protocol": "person-search"}, "would mix the galleries"),
        ({"ranks": [0]}, "ranks are 0: expected integers from 1"),
        ({"per_query": "rows.csv"}, "rows.csv: expected a file name ending in .parquet"),
        ({"per_query": "query.npz/rows.parquet"}, "query.npz is not a writable folder"),
    ],
)
def test_bad_requests_are_named_and_nothing_is_written(files, tmp_path, options, message):
    one = {name: values[:1] for name, values in QUERY.items()}
    paths = files(query=QUERY, gallery=GALLERY, one=one)
    for name in ("distractors", "multi_query", "per_query"):
        if name in options:
            options = {**options, name: tmp_path / options[name]}
    with pytest.raises(InputError, match=message):
        refused(*paths[:2], tmp_path, **options)


def refused(query, gallery, folder, **options):
    """Score what should not be scored, and look that nothing was left behind."""
    before = sorted(folder.rglob("*"))
    try:
        score(query, gallery, folder / "scores.json", **{"per_query": folder / "rows.parquet", **options})
    finally:
        assert sorted(folder.rglob("*")) == before


def test_rows_are_not_left_without_scores(files, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reid_done_right.stages.score.write_json", full)
    with pytest.raises(InputError, match=r"scores\.json: cannot be written .*No space left"):
        refused(*files(query=QUERY, gallery=GALLERY), tmp_path)


def test_scores_never_overwrite_embeddings(files, tmp_path):
    query, gallery = files(query=QUERY, gallery=GALLERY)
    with pytest.raises(InputError, match=r"query\.npz: expected a file name ending in \.json"):
        score(query, gallery, query)
    assert np.load(query)["embeddings"].shape == (12, 8)


def without(arrays, *names, **others):
    return {name: values for name, values in {**arrays, **others}.items() if name not in names}


@pytest.mark.parametrize(
    ("drop", "change", "message"),
    [
        (("lists",), {}, "query.npz: no array 'lists' .* and no 'image_id' of the queries' own photos"),
        ((), {"pointers": np.array([0, 4, 10])}, "query.npz: 3 rows of pointers, expected 4"),
        ((), {"pointers": np.array([0, 4, 6, 11])}, "query.npz: pointers must ascend from 0 to 10"),
        ((), {"lists": np.arange(100, 110)}, "query.npz: no image of lists is an image_id of .*gallery.npz"),
    ],
)
def test_galleries_of_person_search_that_make_no_sense(files, tmp_path, drop, change, message):
    query, gallery, _ = person_search()
    paths = files(query=without(query, *drop, **change), gallery=gallery)
    with pytest.raises(InputError, match=message):
        refused(*paths, tmp_path, protocol="person-search")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth_box": np.zeros((1, 4))}, "query.npz: truth_box of row 0 is .*, expected x, y and positive w, h"),
        ({"truth_box": np.ones((1, 3))}, r"query.npz: truth_box is float64 of shape \(1, 3\)"),
        ({"truth_image": np.array([19])}, "truth_image of row 0 is 19, which is not in the list of its query 0"),
        ({"embeddings": np.ones((3, 5), np.float32)}, "query.npz: embeddings of 5 dimensions"),
    ],
)
def test_true_boxes_that_make_no_sense(files, tmp_path, change, message):
    query, gallery, _ = person_search()
    query |= {"truth_box": np.ones((1, 4)), "truth_image": np.array([10]), "truth_pointers": np.array([0, 1, 1, 1])}
    paths = files(query={**query, **change}, gallery={**gallery, "box": np.ones((30, 4))})
    with pytest.raises(InputError, match=message):
        refused(*paths, tmp_path, protocol="person-search")


def test_one_camera_error_names_remedy(files, tmp_path):
    paths = files(query={**QUERY, "camera_id": np.ones(12, int)}, gallery={**GALLERY, "camera_id": np.ones(80, int)})
    with pytest.raises(InputError, match="switch same-camera exclusion off"):
        score(*paths, tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npz", lambda content: content[:1000]),
        (".npz", lambda content: b""),
        (".npz", lambda content: content[:900] + b"no" + content[902:]),
        (".safetensors", lambda content: content[:1000]),
        (".safetensors", lambda content: b""),
        (".safetensors", lambda content: b"\xff" * 100 + content),
    ],
)
def test_damaged_files(files, tmp_path, suffix, damage):
    query, gallery = files(query=QUERY, gallery=GALLERY)
    if suffix == ".safetensors":
        gallery = tmp_path / "gallery.safetensors"
        save_file(GALLERY, gallery)
    gallery.write_bytes(damage(gallery.read_bytes()))
    with pytest.raises(InputError, match=rf"gallery\{suffix}: not a readable \{suffix} file"):
        refused(query, gallery, tmp_path)


def test_non_image_files_are_rejected(files, tmp_path):
    query, gallery = files(query=QUERY, gallery=GALLERY)
    np.save(tmp_path / "gallery.npy", GALLERY["embeddings"])
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
        ("none.npz", "no such file"),
        ("gallery.npy", "expected .npz"),
        ("folder.npz", "not a readable .npz file"),
    ):
        with pytest.raises(InputError, match=f"{name}: {message}"):
            refused(query, tmp_path / name, tmp_path)
    gallery.write_bytes((tmp_path / "gallery.npy").read_bytes())
    with pytest.raises(InputError, match=r"gallery\.npz: not a readable \.npz file"):
        refused(query, gallery, tmp_path)


# --- distractors in a folder


def shards_of(folder, extra, ends):
    folder.mkdir()
    for number, part in enumerate(np.split(extra, ends)):
        np.savez(folder / f"{number}.npz", embeddings=part)
    (folder / "note.txt").write_text("no shard")
    return folder


def test_folder_of_distractors_is_scored_as_one_gallery(files, tmp_path):
    """Eleven files, so that names do not sort as numbers do; the largest gallery is the same in every order."""
    extra = people(2, 60)["embeddings"]
    paths = files(query=QUERY, gallery=GALLERY, distractors={"embeddings": extra})
    how = {"sizes": [0, 20, 60], "orders": 3}
    whole = run(*paths[:2], tmp_path / "scores.json", distractors=paths[2], **how)["distractors"]
    folder = shards_of(tmp_path / "shards", 2 * extra, range(5, 55, 5))
    found = run(*paths[:2], tmp_path / "scores.json", distractors=folder, **how)["distractors"]
    for name in ("mAP", "mAP_step", "rank1"):
        assert found[name][::2] == whole[name][::2] and len(set(found[name][2])) == 1
    positions = Orders(60, 3, 0).positions(0, 60)
    for order in range(3):
        chosen = extra[np.argsort(positions[:, order])[:20]]
        nobody = np.zeros(20, int)
        grown = Labels(*(np.concatenate([ids, nobody]) for ids in (LABELS[1].person_id, LABELS[1].camera_id)))
        alone = rank(QUERY["embeddings"], LABELS[0], np.concatenate([GALLERY["embeddings"], chosen]), grown, MARKET1501)
        assert found["mAP"][1][order] == pytest.approx(alone.scores()["mAP"])


def test_folder_without_distractors_or_with_too_few_is_rejected(files, tmp_path):
    paths = files(query=QUERY, gallery=GALLERY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \.npz or \.safetensors file in it"):
        run(*paths, tmp_path / "scores.json", distractors=tmp_path / "empty", sizes=[1])
    extra = people(2, 60)["embeddings"]
    folder = shards_of(tmp_path / "shards", extra, [30])
    with pytest.raises(InputError, match="shards: 60 distractors, but sizes ask for 61"):
        run(*paths, tmp_path / "scores.json", distractors=folder, sizes=[61])
    np.savez(folder / "1.npz", embeddings=np.where(np.arange(30)[:, None] == 7, 0, extra[30:]))
    with pytest.raises(InputError, match=r"1\.npz: embedding of row 7 is all zeros"):
        run(*paths, tmp_path / "scores.json", distractors=folder, sizes=[60])
    np.savez(folder / "1.npz", embeddings=extra[30:, :-1])
    with pytest.raises(InputError, match=r"1\.npz: embeddings of"):
        run(*paths, tmp_path / "scores.json", distractors=folder, sizes=[60])
