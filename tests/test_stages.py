"""From rendering to Figure 7 through the stage functions, with settings from a plan; scores by hand."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from chain import RUN, compute, settings
from reid_done_right import cli
from reid_done_right.artifacts import (
    Embeddings,
    Index,
    InputError,
    Weights,
    read_embeddings,
    read_index,
    read_json,
    read_weights,
    write_embeddings,
    write_index,
    write_json,
    write_weights,
)
from reid_done_right.models.resnet import ResNet
from reid_done_right.numerics import in_force
from reid_done_right.stages.distract import distract
from reid_done_right.stages.embed import embed
from reid_done_right.stages.evaluate import evaluate
from reid_done_right.stages.illustrate import illustrate
from reid_done_right.stages.initialise import initialise
from reid_done_right.stages.retrieve import retrieve
from reid_done_right.stages.train import train

# --- the whole chain on a rendered release


@dataclass(frozen=True)
class Chain:
    """A folder in which every stage of one run has written its outputs."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / (name if "." in name else f"{name}.safetensors")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("chain"))
    compute(made.folder)
    return made


def test_weights_are_handed_on_and_changed(chain: Chain) -> None:
    first, classifier, embedder = (read_weights(chain[name]) for name in ("first", "classifier", "embedder"))
    assert set(first.state) == set(classifier.state)
    assert set(embedder.state) == {f"backbone.{name}" for name in first.state} | {"fc.weight", "fc.bias"}
    assert not torch.equal(first.state["conv1.weight"], classifier.state["conv1.weight"])
    assert not torch.equal(classifier.state["conv1.weight"], embedder.state["backbone.conv1.weight"])
    # batch norm is frozen in the ranking stage
    assert torch.equal(classifier.state["bn1.running_var"], embedder.state["backbone.bn1.running_var"])
    assert {name: value for name, value in embedder.about.items() if name != "collapsed"} == {
        "backbone": {
            "block": "basic",
            "blocks": [1, 1, 1, 1],
            "width": 4,
            "last_stride": 2,
            "groups": 1,
            "width_per_group": 64,
        },
        "embedding": 8,
        "pooling": "max",
        "largest_side": 32,
        "numerics": in_force(),
    }


def test_logs_have_a_row_an_update(chain: Chain) -> None:
    assert len(chain["pretrain.csv"].read_text().splitlines()) == 1 + 2
    assert len(chain["train.csv"].read_text().splitlines()) == 1 + 4


def test_every_test_image_is_embedded_and_no_training_image(chain: Chain) -> None:
    rows, embedded = read_index(chain["market.parquet"]), read_embeddings(chain["embedded"])
    assert embedded.rows.tolist() == rows.rows("query", "gallery", "boxes").tolist()
    assert embedded.embeddings.shape == (len(embedded.rows), 8)
    np.testing.assert_allclose(np.linalg.norm(embedded.embeddings, axis=1), 1, atol=1e-6)


def test_shards_are_the_distractors_dealt_out(chain: Chain, tmp_path: Path) -> None:
    embed(settings={"threads": 1}, index=chain["crowd.parquet"], embedder=chain["embedder"], out=tmp_path / "whole")
    whole, shards = read_embeddings(tmp_path / "whole"), [read_embeddings(chain[f"shard{k}"]) for k in range(3)]
    assert [shard.rows.tolist() for shard in shards] == [[0, 3], [1, 4], [2, 5]]
    for shard in shards:
        np.testing.assert_allclose(shard.embeddings, whole.of(shard.rows), atol=1e-6)


def test_chunks_change_no_embedding(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_done_right.images.pixels.AHEAD", 3)
    embed(settings={"threads": 1}, index=chain["market.parquet"], embedder=chain["embedder"], out=tmp_path / "chunked")
    whole, chunked = read_embeddings(chain["embedded"]), read_embeddings(tmp_path / "chunked")
    assert np.array_equal(whole.rows, chunked.rows)
    np.testing.assert_allclose(whole.embeddings, chunked.embeddings, atol=1e-6)


def test_every_protocol_and_re_ranking_is_scored(chain: Chain) -> None:
    scores = read_json(chain["scores.json"])
    assert scores["run"] == {"dataset": "market", "variant": "default", "backbone": "shallow", "draw": 0}
    assert scores["collapsed"] is read_weights(chain["embedder"]).about["collapsed"]
    names = [(result["protocol"], result["rerank"]) for result in scores["results"]]
    reranks = ("none", "qe-dba", "k-reciprocal")
    assert names == [(protocol, rerank) for protocol in ("single-query", "multi-query") for rerank in reranks]
    queries = len(read_index(chain["market.parquet"]).query)
    assert all(result["queries"] == queries for result in scores["results"])


def test_rows_of_the_queries_average_to_the_scores(chain: Chain) -> None:
    by_query = pq.read_table(chain["queries.parquet"]).to_pandas()
    index = read_index(chain["market.parquet"])
    for result in read_json(chain["scores.json"])["results"]:
        chosen = by_query[(by_query.protocol == result["protocol"]) & (by_query.rerank == result["rerank"])]
        assert len(chosen) == result["queries"]
        assert chosen.person_id.tolist() == index.person_id[index.query].tolist()
        assert chosen.ap.mean() == pytest.approx(result["mAP"])
        assert chosen.ap_step.mean() == pytest.approx(result["mAP_step"])
        assert (chosen.first_hit_rank == 1).mean() == pytest.approx(result["rank1"])


def test_curve_starts_at_the_plain_score_and_falls(chain: Chain) -> None:
    curve = read_json(chain["curve.json"])
    plain = read_json(chain["scores.json"])["results"][0]
    average_precision = np.array(curve["mAP"])
    assert (curve["sizes"], average_precision.shape) == ([0, 3, 6], (3, 2))
    assert average_precision[0] == pytest.approx([plain["mAP"]] * 2)
    assert np.array(curve["rank1"])[0] == pytest.approx([plain["rank1"]] * 2)
    assert (np.diff(average_precision, axis=0) <= 1e-12).all()
    assert average_precision[2, 0] == pytest.approx(average_precision[2, 1])  # all distractors: the draw is no matter


@pytest.mark.slow
def test_pictures_of_a_collapsed_network_say_so(chain: Chain, tmp_path: Path) -> None:
    """It gives every image one embedding, so nobody's first place needs to be right."""
    trained = read_weights(chain["embedder"])
    state = {name: torch.zeros_like(t) if name == "fc.weight" else t.clone() for name, t in trained.state.items()}
    state["fc.bias"].fill_(1.0)
    write_weights(tmp_path / "embedder", Weights(state, {**trained.about, "collapsed": True}))
    market, embedded = chain["market.parquet"], tmp_path / "embedded"
    embed(settings=settings("embed", RUN), index=market, embedder=tmp_path / "embedder", out=embedded)
    scored, queries = tmp_path / "scores.json", tmp_path / "queries.parquet"
    evaluate(settings=settings("evaluate", RUN), index=market, embeddings=embedded, out=scored, queries=queries)
    places, similarities = tmp_path / f"{RUN}.parquet", tmp_path / "similarities.json"
    described = settings("retrieve", RUN)
    retrieve(settings=described, index=market, embeddings=embedded, out=places, similarities=similarities)
    assert read_json(scored)["collapsed"] and read_json(similarities)["collapsed"]
    illustrate(
        settings=settings("illustrate", RUN),
        index=market,
        embedder=tmp_path / "embedder",
        places=places,
        queries=queries,
        out=tmp_path,
    )
    for number in (1, 4, 5, 6):
        assert "COLLAPSED" in (tmp_path / f"figure{number}.svg").read_text(encoding="utf-8")


def test_same_seed_gives_same_bytes_other_seed_others(chain: Chain, tmp_path: Path) -> None:
    def again(name: str, **changes: Any) -> tuple[bytes, bytes]:
        train(
            settings=settings("train", RUN) | changes,
            index=chain["market.parquet"],
            weights=chain["classifier"],
            out=tmp_path / name,
            log=tmp_path / f"{name}.csv",
        )
        return (tmp_path / name).read_bytes(), (tmp_path / f"{name}.csv").read_bytes()

    first = chain["embedder"].read_bytes(), chain["train.csv"].read_bytes()
    assert again("same") == first
    other = again("other", seed=1)
    assert other[0] != first[0]
    assert other[1] != first[1]


def test_invalid_stage_input_is_reported(chain: Chain, tmp_path: Path) -> None:
    outputs = {"out": tmp_path / "out", "log": tmp_path / "log"}
    market = {"settings": settings("train", RUN), "index": chain["market.parquet"]}
    with pytest.raises(
        InputError, match=r"embedder\.safetensors: weights do not fit the network: missing conv1\.weight;"
    ):
        train(**market, weights=chain["embedder"], **outputs)
    with pytest.raises(InputError, match=r"classifier\.safetensors: weights of a backbone, not of an embedder"):
        embed(
            settings={"threads": 1},
            index=chain["market.parquet"],
            embedder=chain["classifier"],
            out=tmp_path / "out",
        )
    with pytest.raises(InputError, match=r"scores\.json: damaged safetensors"):
        train(**market, weights=chain["scores.json"], **outputs)
    assert list(tmp_path.iterdir()) == []


# --- first weights


def test_first_weights_depend_on_their_settings_alone(chain: Chain, tmp_path: Path) -> None:
    described = settings("initialise", "shallow-draw0")
    initialise(settings=described, out=tmp_path / "same")
    initialise(settings=described | {"seed": 1}, out=tmp_path / "other")
    assert (tmp_path / "same").read_bytes() == chain["first"].read_bytes()
    assert (tmp_path / "other").read_bytes() != chain["first"].read_bytes()


# --- evaluation by hand: everybody on a circle, the query at 0 degrees


def on_a_circle(degrees: list[float]) -> NDArray[np.float32]:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def benchmark(
    folder: Path,
    rows: list[tuple[str, int, int, int, float]],
    lists: Mapping[str, list[NDArray[np.int64]]] | None = None,
    **about: Any,
) -> dict[str, Path]:
    """Write an index and embeddings of rows (split, person, camera, tracklet, degrees)."""
    split, person, camera, tracklet, degrees = zip(*rows, strict=True)
    count = len(rows)
    made = Index(
        root=Path("data"),
        path=np.array([f"{k}.jpg" for k in range(count)]),
        person_id=np.array(person),
        camera_id=np.array(camera),
        tracklet_id=np.array(tracklet),
        split=np.array(split),
        box=np.zeros((count, 4), np.int32),
        gallery_lists=lists,
    )
    write_index(folder / "index", made)
    write_embeddings(folder / "embedded", Embeddings(np.arange(count), on_a_circle(list(degrees)), about))
    return {"index": folder / "index", "embeddings": folder / "embedded"}


def scored(
    folder: Path, form: str, inputs: Mapping[str, Path], **changes: Any
) -> dict[tuple[str, str], dict[str, Any]]:
    described = settings("evaluate", RUN) | {"format": form} | changes
    evaluate(settings=described, **inputs, out=folder / "s.json", queries=folder / "q.parquet")
    return {(result["protocol"], result["rerank"]): result for result in read_json(folder / "s.json")["results"]}


MARKET = [
    ("query", 1, 1, 0, 0.0),
    ("gallery", 1, 1, 0, 1.0),  # the same camera: deleted
    ("gallery", -1, 2, 0, 5.0),  # junk: deleted
    ("gallery", 0, 3, 0, 8.0),  # a distractor: rank 1
    ("gallery", 1, 2, 0, 20.0),  # rank 2, the only relevant one
    ("gallery", 2, 2, 0, 30.0),
]


def test_junk_left_out_of_re_rankings_is_a_gallery_without_it(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = [("query", k % 4 + 1, 1, 0, chance.uniform(0, 360)) for k in range(8)]
    rows += [("gallery", int(chance.integers(-1, 5)), 2, 0, chance.uniform(0, 360)) for _ in range(40)]
    lean = [row for row in rows if row[1] != -1]
    assert len(lean) < len(rows)
    wide = {"k_reciprocal": {"k1": 6, "k2": 3, "lambda_value": 0.3}}
    whole = benchmark(tmp_path, rows)
    seen, unseen = (scored(tmp_path, "market1501", whole, rerank_junk=junk, **wide) for junk in (True, False))
    assert unseen == scored(tmp_path, "market1501", benchmark(tmp_path, lean), **wide)
    assert {key for key in seen if seen[key] != unseen[key]} == {
        ("single-query", "qe-dba"),
        ("single-query", "k-reciprocal"),
    }


def test_junk_is_deleted_and_distractors_count(tmp_path: Path) -> None:
    results = scored(tmp_path, "market1501", benchmark(tmp_path, MARKET))
    assert {protocol for protocol, _ in results} == {"single-query"}
    plain = results["single-query", "none"]
    assert plain["mAP"] == pytest.approx(0.25)  # trapezoid from precision 0 at rank 1 to 1/2 at rank 2
    assert plain["mAP_step"] == pytest.approx(0.5)
    assert (plain["rank1"], plain["rank5"]) == (0, 1)


def test_boxes_make_multiple_queries(tmp_path: Path) -> None:
    boxes = [("boxes", 1, 1, 0, 20.0), ("boxes", 1, 1, 0, 24.0), ("boxes", 1, 2, 0, 300.0), ("boxes", 2, 1, 0, 300.0)]
    results = scored(tmp_path, "market1501", benchmark(tmp_path, [*MARKET, *boxes]))
    assert results["single-query", "none"]["rank1"] == 0
    assert results["multi-query", "none"]["rank1"] == 1  # their mean, at 22 degrees, is nearest to the one at 20


def test_mars_ranks_tracklets(tmp_path: Path) -> None:
    rows = [
        ("query+gallery", 1, 1, 4, 350.0),
        ("query+gallery", 1, 1, 4, 10.0),  # its mean is at 0 degrees
        ("gallery", 1, 2, 5, 90.0),
        ("gallery", 1, 2, 5, 290.0),  # mean at 10 degrees
        ("gallery", 2, 2, 6, 20.0),
        ("gallery", 2, 2, 6, 30.0),
    ]
    plain = scored(tmp_path, "mars", benchmark(tmp_path, rows))["tracklet", "none"]
    assert (plain["queries"], plain["rank1"], plain["mAP"]) == (1, 1, pytest.approx(1))


def test_person_search_ranks_within_the_list_of_each_query(tmp_path: Path) -> None:
    rows = [
        ("train", 9, 0, 0, 0.0),
        ("gallery", 2, 0, 0, 1.0),  # nearest, but in neither list
        ("query", 1, 0, 0, 0.0),
        ("query", 2, 0, 0, 0.0),
        ("gallery", -1, 0, 0, 5.0),  # an unlabelled pedestrian is a negative
        ("gallery", 1, 0, 0, 10.0),
        ("gallery", 2, 0, 0, 15.0),
    ]
    lists = {"100": [np.array([4, 5, 6]), np.array([5, 6])], "50": [np.array([5]), np.array([6])]}
    results = scored(tmp_path, "person-search", benchmark(tmp_path, rows, lists))
    assert list(results) == [("gallery-100", "none")]
    plain = results["gallery-100", "none"]
    assert (plain["queries"], plain["rank1"], plain["rank5"]) == (2, 0, 1)
    assert plain["mAP"] == pytest.approx(0.5)  # both at rank 2, by the step rule


def test_unscorable_index_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index of data: 0 queries, 5 gallery rows to score"):
        scored(tmp_path, "market1501", benchmark(tmp_path, MARKET[1:]))
    with pytest.raises(InputError, match="index of data: no gallery lists of size 100; it has 50"):
        lists = {"50": [np.array([1])]}
        scored(tmp_path, "person-search", benchmark(tmp_path, MARKET, lists))
    inputs = benchmark(tmp_path, MARKET)
    write_embeddings(inputs["embeddings"], Embeddings(np.arange(3), on_a_circle([0, 0, 0])))
    with pytest.raises(InputError, match="index row 3 has no embedding; run `reid embed` again"):
        scored(tmp_path, "market1501", inputs)


def test_collapsed_run_stays_marked(tmp_path: Path) -> None:
    inputs = benchmark(tmp_path, MARKET, collapsed=True)
    scored(tmp_path, "market1501", inputs)
    assert read_json(tmp_path / "s.json")["collapsed"] is True
    assert sweep(tmp_path, inputs, shards=1)["collapsed"] is True


# --- distractors by hand


def sweep(folder: Path, inputs: Mapping[str, Path], shards: int, sizes: list[int] | None = None) -> dict[str, Any]:
    """Add six distractors at 10 degrees, in so many shards."""
    files = []
    for shard in range(shards):
        rows = np.arange(6)[shard::shards]
        files.append(folder / f"shard{shard}")
        write_embeddings(files[-1], Embeddings(rows, on_a_circle([10.0] * len(rows))))
    described = settings("distract", RUN) | {"sizes": sizes or [0, 2, 6], "orders": 3}
    distract(settings=described, **inputs, shards=files, out=folder / "c.json", queries=folder / "c.parquet")
    return read_json(folder / "c.json")


def test_each_distractor_before_the_relevant_one_costs_a_rank(tmp_path: Path) -> None:
    curve = sweep(tmp_path, benchmark(tmp_path, MARKET), shards=1)
    # the relevant one is at rank 2 + the number of distractors
    np.testing.assert_allclose(curve["mAP_step"], [[1 / 2] * 3, [1 / 4] * 3, [1 / 8] * 3])
    np.testing.assert_allclose(curve["mAP"], [[1 / 4] * 3, [1 / 8] * 3, [1 / 16] * 3])
    assert curve["rank1"] == [[0] * 3] * 3
    assert curve["gallery"] == 5


def test_number_of_shards_changes_nothing(tmp_path: Path) -> None:
    inputs = benchmark(tmp_path, MARKET)
    assert sweep(tmp_path, inputs, shards=1) == sweep(tmp_path, inputs, shards=4)


def test_too_few_distractors_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"6 distractors, but distract\.sizes asks for 7"):
        sweep(tmp_path, benchmark(tmp_path, MARKET), shards=2, sizes=[0, 7])


def test_ranking_stages_on_a_device_write_the_same_numbers(tmp_path: Path) -> None:
    inputs = benchmark(tmp_path, MARKET)
    shard = tmp_path / "shard0"
    write_embeddings(shard, Embeddings(np.arange(6), on_a_circle([10.0] * 6)))
    found: dict[str | None, list[bytes]] = {}
    for device in (None, "cpu"):
        on = {"device": device} if device else {}
        how = {"format": "market1501", "sizes": [0, 2, 6], "orders": 3} | on
        out, queries = tmp_path / "s.json", tmp_path / "q.parquet"
        evaluate(settings=settings("evaluate", RUN) | how, **inputs, out=out, queries=queries)
        scores = read_json(out)
        assert scores.pop("numerics") == "native"  # of these embeddings, which do not say
        found[device] = [repr(scores).encode(), queries.read_bytes()]
        distract(settings=settings("distract", RUN) | how, **inputs, shards=[shard], out=out, queries=queries)
        found[device] += [out.read_bytes(), queries.read_bytes()]
        retrieve(settings=settings("retrieve", RUN) | how, **inputs, out=queries, similarities=out)
        found[device] += [repr(pq.read_table(queries)["gallery_row"].to_pylist()).encode(), out.read_bytes()]
    assert found[None] == found["cpu"]


# --- through the command line and the store


def test_command_computes_once_then_finds(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    described = {"stage": "evaluate", "job": RUN, "parameters": settings("evaluate", RUN)}
    write_json(Path("settings.json"), described)
    inputs = ["--index", str(chain["market.parquet"]), "--embeddings", str(chain["embedded"])]
    command = ["reid", "evaluate", "--settings", "settings.json", *inputs, "--out", "s.json", "--queries", "q.parquet"]
    for how in ("computed in ", "found in the store"):
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        assert capsys.readouterr().err.startswith(f"evaluate {RUN}: {how}")
    assert Path("s.json").read_bytes() == chain["scores.json"].read_bytes()
    monkeypatch.setattr(
        sys, "argv", [*command, "--device", "cpu"]
    )  # another order of sums: computed, under its own key
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and capsys.readouterr().err.startswith(f"evaluate {RUN}: computed in ")
    assert read_json(Path("s.json"))["numerics"] == "native"


def test_network_that_diverges_is_one_line(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_STORE", raising=False)
    state = ResNet("basic", [1, 1, 1, 1], width=4).state_dict()
    state["conv1.weight"][:] = 3e38
    write_weights(Path("huge"), Weights(state, read_weights(chain["first"]).about))
    write_json(Path("settings.json"), {"stage": "train", "job": RUN, "parameters": settings("train", RUN)})
    inputs = ["--index", str(chain["market.parquet"]), "--weights", "huge"]
    command = ["reid", "train", "--settings", "settings.json", *inputs, "--out", "embedder", "--log", "log.csv"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = "reid: error: --snapshots is not given, but settings.json asks for this file: give its path"
    assert capsys.readouterr().err.splitlines()[-1] == told
    monkeypatch.setattr(sys, "argv", [*command, "--snapshots", "snapshots"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("reid: error: ")
    assert {path.name for path in Path().iterdir()} == {"huge", "settings.json", ".store"}
