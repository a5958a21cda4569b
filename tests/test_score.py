import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import oracles
from reid.artifacts import InputError
from reid.functional.expansion import expand
from reid.functional.protocols import MARKET1501, MARS, PERSON_SEARCH, Labels, Rule, pool_queries, pool_tracklets
from reid.functional.ranking import rank
from reid.functional.reciprocal import k_reciprocal
from reid.stages.score import score


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
    assert table["first_hit_rank"] == expected.first_hit_rank.tolist()


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


def test_multiple_queries_are_pooled(files, tmp_path):
    boxes = {name: np.concatenate([values, values]) for name, values in QUERY.items()}
    boxes["embeddings"] = people(7, 24)["embeddings"]
    paths = files(query=QUERY, gallery=GALLERY, boxes=boxes)
    found = run(*paths[:2], tmp_path / "scores.json", multi_query=paths[2], pool="max")
    pooled = pool_queries(boxes["embeddings"], Labels(boxes["person_id"], boxes["camera_id"]), LABELS[0], "max")
    assert found["mAP"] == plain(pooled).scores()["mAP"] != plain().scores()["mAP"]


def test_distractors_are_swept(files, tmp_path):
    extra = people(2, 60)["embeddings"]
    paths = files(query=QUERY, gallery=GALLERY, distractors={"embeddings": extra})
    found = run(*paths[:2], tmp_path / "scores.json", distractors=paths[2], sizes=[0, 20, 60], draws=2)["distractors"]
    assert found["mAP"][0] == [plain().scores()["mAP"]] * 2
    nobody = Labels(np.zeros(60, int), np.zeros(60, int))
    grown = Labels(
        np.concatenate([LABELS[1].person_id, nobody.person_id]), np.concatenate([LABELS[1].camera_id, nobody.camera_id])
    )
    everything = rank(QUERY["embeddings"], LABELS[0], np.concatenate([GALLERY["embeddings"], extra]), grown, MARKET1501)
    assert found["mAP"][2] == pytest.approx([everything.scores()["mAP"]] * 2)


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
    with pytest.raises(InputError, match="rules are same_camera_is_junk, junk_id"):
        run(*paths, tmp_path / "scores.json", changes={"camera": 1})


def broken(**changes):
    return {**GALLERY, **changes}


def with_nan():
    embeddings = GALLERY["embeddings"].copy()
    embeddings[5, 0] = np.nan
    return embeddings


@pytest.mark.parametrize(
    ("gallery", "options", "message"),
    [
        (broken(embeddings=with_nan()), {}, "gallery.npz: embedding of row 5 holds a value that is not finite"),
        (broken(person_id=GALLERY["person_id"][:-1]), {}, "gallery.npz: 79 person_id but 80 camera_id"),
        (broken(person_id=GALLERY["person_id"] + 0.5), {}, "gallery.npz: person_id is float64"),
        (broken(embeddings=np.ones((80, 3))), {}, "8 dimensions, those of the gallery 3"),
        (broken(person_id=GALLERY["person_id"] + 100), {}, "no person_id of the queries occurs in the gallery"),
        ({"embeddings": GALLERY["embeddings"]}, {}, "gallery.npz: no array 'person_id'; it holds embeddings"),
        (QUERY, {}, "the gallery is the query set"),
        (GALLERY, {"protocol": "cuhk"}, "protocol 'cuhk' is unknown: use one of market1501"),
        (GALLERY, {"protocol": "mars"}, "query.npz: no array 'tracklet_id'"),
        (GALLERY, {"sizes": [1]}, "distractors and sizes belong together"),
        (GALLERY, {"rerank": "best"}, "re-ranking 'best' is unknown"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(files, tmp_path, gallery, options, message):
    with pytest.raises(InputError, match=message):
        score(
            *files(query=QUERY, gallery=gallery),
            tmp_path / "scores.json",
            per_query=tmp_path / "rows.parquet",
            **options,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery.npz", "query.npz"]


def test_data_of_one_camera_says_what_to_do(files, tmp_path):
    paths = files(query={**QUERY, "camera_id": np.ones(12, int)}, gallery={**GALLERY, "camera_id": np.ones(80, int)})
    with pytest.raises(InputError, match="switch same-camera exclusion off"):
        score(*paths, tmp_path / "scores.json")


def test_unreadable_files(files, tmp_path):
    query, gallery = files(query=QUERY, gallery=GALLERY)
    gallery.write_bytes(gallery.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"gallery\.npz: not a readable"):
        score(query, gallery, tmp_path / "scores.json")
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        score(query, tmp_path / "none.npz", tmp_path / "scores.json")
    np.savez(gallery, **{**GALLERY, "embeddings": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(InputError, match=r"gallery\.npz: not a readable"):
        score(query, gallery, tmp_path / "scores.json")
