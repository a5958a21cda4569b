"""What a network looks at: measured on a rendered release, with maps and tiles by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pedestrians.releases import query_silhouettes
from pedestrians.takes import Release
from reid_done_right.artifacts import InputError, Weights, read_index, read_json, write_weights
from reid_done_right.images.decode import load
from reid_done_right.models.build import build
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.saliency import Heat
from reid_done_right.params import Params
from reid_done_right.plan import plan
from reid_done_right.stages import inspect as stage
from reid_done_right.stages.dataset import dataset
from reid_done_right.stages.embed import embed
from reid_done_right.stages.evaluate import evaluate
from reid_done_right.stages.index import index
from reid_done_right.stages.inspect import inspect
from tiny import changed

RUN = "market-default-draw0"
RENDER = {"world": 1, "hardness": 0.5, "train_ids": 2, "test_ids": 9, "cameras": 4, "distractors": 2, "junk": 2}
JOBS = plan(
    Params.model_validate(
        changed(
            {
                "datasets/market/source/render": RENDER,
                "inspect": {"dataset": "market", "variants": ["default"], "queries": 7},
            }
        )
    )
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a run of an untrained network lies."""
    import torch

    folder = tmp_path_factory.mktemp("inspect")

    def settings(group: str, job: str) -> Any:
        return JOBS[group][job].parameters

    manifest, rows, embedded = folder / "market.json", folder / "index.parquet", folder / "embedded.safetensors"
    described = settings("dataset", "market-draw0") | {"root": str(folder / "market")}
    dataset(settings=described, images=folder / "market", out=manifest)
    index(settings=settings("index", "market-draw0"), manifest=manifest, out=rows)
    torch.manual_seed(0)
    backbone = {"block": "basic", "blocks": [1, 1, 1, 1], "width": 4, "last_stride": 1}
    about = {"backbone": backbone, "embedding": 8, "pooling": "max", "largest_side": 64, "collapsed": False}
    write_weights(folder / "embedder", Weights(Embedder(build(backbone), 8, "max").state_dict(), about))
    embed(settings=settings("embed", RUN), index=rows, embedder=folder / "embedder", out=embedded)
    evaluate(
        settings=settings("evaluate", RUN),
        index=rows,
        embeddings=embedded,
        out=folder / "scores.json",
        queries=folder / "queries.parquet",
    )
    return folder


def run(made: Path, out: Path, **changes: Any) -> tuple[dict[str, Any], pd.DataFrame]:
    """Inspect the run with changed settings; return the means and the rows of queries."""
    inspect(
        settings=JOBS["inspect"][RUN].parameters | changes,
        index=made / "index.parquet",
        embedder=made / "embedder",
        embeddings=made / "embedded.safetensors",
        queries=made / "queries.parquet",
        out=out / "out.json",
        measured=out / "out.parquet",
    )
    return read_json(out / "out.json"), pd.read_parquet(out / "out.parquet")


def test_inspection_agrees_with_the_scores_and_the_renderer(made: Path, tmp_path: Path) -> None:
    means, rows = run(made, tmp_path, occluded=0.02)
    found = read_index(made / "index.parquet")
    paths = found.path[found.query].tolist()
    truth = list(query_silhouettes(Release.MARKET1501, paths, **RENDER))
    assert rows.occluded.tolist() == [each.occluded for each in truth]
    assert rows.person_id.tolist() == found.person_id[found.query].tolist()
    scores = read_json(made / "scores.json")["results"][0]
    assert rows.ap.mean() == pytest.approx(scores["mAP"])

    hidden = np.array([each.occluded for each in truth]) > 0.02
    assert 0 < hidden.sum() == means["occluded"]["queries"] and means["clean"]["queries"] == (~hidden).sum()
    assert means["occluded"]["mAP"] == pytest.approx(rows.ap[hidden].mean())
    assert means["clean"]["mAP"] == pytest.approx(rows.ap[~hidden].mean())

    measured = rows[rows.person.notna()]
    assert measured["query"].tolist() == np.linspace(0, len(rows) - 1, 7).round().tolist()
    assert measured.person.tolist() == [truth[query].visible.mean() for query in measured["query"]]
    assert means["heat"]["queries"] + means["heat"]["without"] == 7
    assert means["heat"]["inside"] == pytest.approx(measured.heat.mean())
    assert means["mAP"]["whole"] == pytest.approx(measured.ap[measured.heat.notna()].mean())
    assert means["tiles"] == {"blanked": 8, "of": 32}


def test_inspection_of_all_queries_gives_the_same_bytes_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = run(made, tmp_path, queries=10_000)
    assert rows.person.notna().all()
    once = (tmp_path / "out.parquet").read_bytes()
    run(made, tmp_path, queries=10_000)
    assert (tmp_path / "out.parquet").read_bytes() == once
    _, other = run(made, tmp_path, queries=10_000, seed=1)
    assert (other.hottest == rows.hottest).all() and (other.random != rows.random).any()
    monkeypatch.setattr(stage, "CHUNK", 5)
    _, chunked = run(made, tmp_path, queries=10_000)
    pd.testing.assert_frame_equal(chunked, rows)


def test_blanking_nothing_leaves_every_score_as_it_was(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "blanked", lambda picture, tiles, which: picture)
    means, rows = run(made, tmp_path, queries=10_000)
    assert rows.hottest.tolist() == pytest.approx(rows.ap.tolist()) == rows.random.tolist()
    assert means["mAP"]["hottest"] == pytest.approx(means["mAP"]["whole"])


def test_hottest_tiles_of_a_map_by_hand_are_blanked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map is hot in the two tiles at the bottom right; a quarter of 2 x 4 tiles is two."""
    map_ = np.zeros((128, 64), np.float32)
    map_[64:, 32:48], map_[64:, 48:] = 2, 1
    asked: list[list[int]] = []

    def spying(picture: NDArray[np.uint8], tiles: tuple[int, int], which: NDArray[np.int64]) -> NDArray[np.uint8]:
        assert tiles == (2, 4)
        asked.append(which.tolist())
        return picture

    monkeypatch.setattr(Heat, "attention", lambda self, image, shown: map_)
    monkeypatch.setattr(stage, "blanked", spying)
    means, rows = run(made, tmp_path, tiles=[2, 4], blanked=0.25)
    hottest, random = asked[::2], asked[1::2]
    assert hottest == [[6, 7]] * 7
    assert all(len(set(each)) == 2 for each in random) and len({tuple(each) for each in random}) > 1
    found = read_index(made / "index.parquet")
    truth = list(query_silhouettes(Release.MARKET1501, found.path[found.query].tolist(), **RENDER))
    query = int(rows["query"][rows.heat.notna()].iloc[3])
    visible = truth[query].visible
    expected = (2 * visible[64:, 32:48].sum() + visible[64:, 48:].sum()) / map_.sum()
    assert rows.heat[query] == pytest.approx(expected)
    assert means["tiles"] == {"blanked": 2, "of": 8}


def test_heat_everywhere_lies_on_the_person_by_chance(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heat, "attention", lambda self, image, shown: np.ones(shown, np.float32))
    means, _ = run(made, tmp_path)
    assert means["heat"]["inside"] == pytest.approx(means["heat"]["person"])


def test_queries_without_heat_are_counted_and_left_out(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heat, "attention", lambda self, image, shown: np.zeros(shown, np.float32))
    means, rows = run(made, tmp_path)
    assert means["heat"] == {"queries": 0, "without": 7, "inside": None, "person": None}
    assert means["mAP"] == {"whole": None, "hottest": None, "random": None}
    assert rows.heat.isna().all() and rows.person.notna().sum() == 7


def test_blanked_queries_are_the_stored_images_at_their_own_size(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_index(made / "index.parquet")
    stored = {picture.tobytes() for picture in load(found, found.query)}
    seen: list[bytes] = []
    monkeypatch.setattr(stage, "blanked", lambda picture, tiles, which: seen.append(picture.tobytes()) or picture)
    run(made, tmp_path)
    assert len(seen) == 14 and set(seen) <= stored


def test_dataset_of_another_world_is_refused(made: Path, tmp_path: Path) -> None:
    message = r"index of .*: query/.*\.jpg: not a query of world 2 .*; render and index the dataset again"
    with pytest.raises(InputError, match=message):
        run(made, tmp_path, render=RENDER | {"world": 2})


def test_scores_of_other_queries_are_refused(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pd.read_parquet(made / "queries.parquet").iloc[1:].to_parquet(other)
    with pytest.raises(InputError, match=r"other\.parquet: not the scores of these queries; run `reid evaluate` again"):
        inspect(
            settings=JOBS["inspect"][RUN].parameters,
            index=made / "index.parquet",
            embedder=made / "embedder",
            embeddings=made / "embedded.safetensors",
            queries=other,
            out=tmp_path / "out.json",
            measured=tmp_path / "out.parquet",
        )
