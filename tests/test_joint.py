"""Joint training data: indexes joined, and a tiny experiment trained on two datasets and tested on both."""

import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from reid_done_right import dag
from reid_done_right.artifacts import Index, InputError, read_index, read_json, read_weights, write_index
from reid_done_right.cli.stages import LOADERS
from reid_done_right.dag import STAGES
from reid_done_right.data.joining import join_training
from reid_done_right.data.readers import count
from reid_done_right.data.readers.layout import rows
from reid_done_right.images.decode import load
from reid_done_right.params import Params
from reid_done_right.plan import Jobs, plan, write_settings
from reid_done_right.readiness.datasets import examine_joint
from reid_done_right.running import run
from reid_done_right.store.trace import trace
from tiny import MISSING, changed

# --- indexes


def photos(root: Path, persons: list[int], cameras: list[int], tracklets: list[int], seed: int, **others: Any) -> Index:
    """Write photos and index them; the last one is a query."""
    rng = np.random.default_rng(seed)
    (root / "train").mkdir(parents=True)
    names = [f"train/{number}.png" for number in range(len(persons))]
    digests = []
    for name in names:
        Image.fromarray(rng.integers(0, 256, (6, 4, 3), np.uint8)).save(root / name)
        digests.append(rng.integers(0, 2**63))
    split = np.array([*["train"] * (len(persons) - 1), "query"])
    index = rows(root, names, persons, cameras, split, tracklets, box=others.pop("box", 0))
    return replace(index, content=np.array(digests, np.uint64), **others)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Index, Index]:
    """Return two indexes that share ids; neither is sorted."""
    first = photos(tmp_path / "a", [7, 2, 7, 2, 9], [1, 3, 3, 1, 1], [4, 4, 0, 5, 6], 1)
    return first, photos(tmp_path / "b", [2, 7, 2, 4], [0, 3, 0, 3], [5, 5, 5, 5], 2)


def test_join_numbers_persons_cameras_and_tracklets_apart(two: tuple[Index, Index]) -> None:
    joined = join_training(two)
    assert joined.person_id.tolist() == [2, 1, 2, 1, 3, 4, 3]
    assert joined.camera_id.tolist() == [1, 2, 2, 1, 0, 4, 0]  # 0: none, in either
    assert joined.tracklet_id.tolist() == [2, 2, 0, 3, 4, 4, 4]
    assert set(joined.split) == {"train"}


def test_join_of_one_dataset_keeps_who_is_who(two: tuple[Index, Index]) -> None:
    joined, train = join_training(two[:1]), two[0].train
    for name in ("person_id", "camera_id", "tracklet_id"):
        old, new = getattr(two[0], name)[train], getattr(joined, name)
        assert np.array_equal(old[:, None] == old, new[:, None] == new), name


def test_join_resolves_every_image_from_anywhere(
    two: tuple[Index, Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute roots from every folder; relative ones from the project's, as of any index."""
    monkeypatch.chdir(tmp_path)
    relative = replace(two[1], root=Path("b"))
    joined = replace(join_training([two[0], relative]), content=None)
    assert joined.path.tolist()[-1] == "b/train/2.png"
    expected = [load(replace(part, content=None), part.train) for part in two]
    assert all(map(np.array_equal, load(joined, joined.train), [*expected[0], *expected[1]]))
    write_index(Path("joined.parquet"), joined)
    read = read_index(Path("joined.parquet"))
    assert all(map(np.array_equal, load(read, read.train), [*expected[0], *expected[1]]))


def test_join_keeps_boxes_and_contents_in_order(tmp_path: Path) -> None:
    boxes = [[0, 0, 2, 2], [1, 1, 3, 4], [0, 0, 0, 0]]
    parts = [
        photos(tmp_path / name, [1, 1, 2], [1, 2, 1], [0, 0, 0], seed, box=boxes) for seed, name in enumerate("ab")
    ]
    joined, reverse = join_training(parts), join_training(parts[::-1])
    assert joined.box.tolist() == boxes[:2] * 2
    assert joined.content is not None and reverse.content is not None
    assert joined.content.tolist() == [*parts[0].content[:2], *parts[1].content[:2]]
    assert reverse.content.tolist() == [*joined.content[2:], *joined.content[:2]]


def test_join_of_an_index_without_training_images_names_it(two: tuple[Index, Index]) -> None:
    tested = replace(two[1], split=np.full(len(two[1]), "gallery"))
    with pytest.raises(InputError, match=r"/b: no images to train on; leave it out of train_on$"):
        join_training([two[0], tested])


@pytest.mark.parametrize("known", [True, False], ids=["by its content", "by its path"])
def test_join_of_an_image_that_is_in_two_names_both(two: tuple[Index, Index], known: bool) -> None:
    first, second = two
    assert first.content is not None and second.content is not None
    if known:
        content = second.content.copy()
        content[1] = first.content[2]
        second = replace(second, content=content)
        what = r"/b/train/1\.png: the same image as .*/a/train/2\.png, whose person would be two; leave one of"
    else:
        first = second = replace(first, content=None)
        what = r"/a/train/0\.png: the same image as .*/a/train/0\.png, whose person would be two; leave one of"
    with pytest.raises(InputError, match=what):
        join_training([first, second])


def test_join_turns_photos_only_where_no_other_image_would_turn(two: tuple[Index, Index]) -> None:
    upright = replace(two[1], upright=True)
    assert not join_training(two).upright and join_training([two[0], upright]).upright
    exif, turned = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(turned, "PNG", exif=exif)
    (two[0].root / "train/3.png").write_bytes(turned.getvalue())
    assert not join_training(two).upright
    with pytest.raises(InputError, match=r"/a/train/3\.png: states an EXIF orientation, which its dataset ignores"):
        join_training([two[0], upright])


def test_check_counts_what_is_joined_or_says_why_it_cannot_be(two: tuple[Index, Index]) -> None:
    first, second = two
    ready = examine_joint("both", {"a": first, "b": second})
    assert (ready.state, ready.told) == ("ready", "joins a, b: train 7 of 4 persons")
    later = examine_joint("both", {"a": first, "b": None})
    assert (later.state, later.told) == ("ready", "joins the training images of a, b, when all are there")
    twice = examine_joint("both", {"a": first, "b": first})
    assert twice.state == "wrong" and "the same image as" in twice.told
    (first.root / "train/0.png").write_bytes(b"")
    damaged = examine_joint("both", {"a": first, "b": replace(second, upright=True)})
    assert damaged.state == "wrong" and damaged.told.endswith(
        "/a/train/0.png: not an image (it is empty (0 bytes)); restore it"
    )


# --- an experiment

EXPERIMENT = {
    "draws": [0],
    "joint": {"both": {"train_on": ["duke", "market"], "test_on": ["market", "duke"], "variants": ["default", "raw"]}},
    "datasets/market/variants": ["default"],
    "datasets/duke/variants": [],
    "datasets/duke/counts": MISSING,
    "variants/raw": {"pretrain": False, "pool_of": "identities"},
    "report/tables": {
        "table6": {
            "caption": "Trained on one or both",
            "headers": ["Trained on"],
            "columns": [{"title": "Market", "dataset": "market", "protocol": "single-query"}],
            "rows": [
                {"variant": "default", "trained_on": name, "label": name.capitalize()} for name in ("market", "both")
            ],
            "claims": [{"text": "More people help", "trained_on": ["both"]}],
        }
    },
    **dict.fromkeys(("distract", "follow", "report/shown", "report/contact_sheet"), MISSING),
    **{f"report/table{number}": [] for number in (1, 2, 3, 4)},
}


def compute(jobs: Mapping[str, Jobs], experiment: str = "tiny") -> None:
    """Run all jobs in this process, by what the command line passes on."""
    write_settings(jobs, Path(f"results/{experiment}/settings"))
    for stage, members in jobs.items():
        for job in members.values():
            options = dag.options(STAGES[stage])
            places = {name: Path(option.path.format(**job.places)) for name, option in options.items()}
            run(STAGES[stage].command or stage, LOADERS[STAGES[stage].command or stage], Path(job.settings), places)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    (folder / "reports").mkdir()
    shutil.copyfile(ROOT / dag.PAPER.path, folder / dag.PAPER.path)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        compute(plan(Params.model_validate(changed(EXPERIMENT))))
    return folder


def test_joint_index_holds_the_training_images_of_both(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    duke, market, joined = (
        read_index(Path(f"results/tiny/{name}-draw0.parquet")) for name in ("index/duke", "index/market", "join/both")
    )
    assert len(joined) == len(joined.train) == len(duke.train) + len(market.train)
    persons = [count(part)["train_persons"] for part in (duke, market)]
    assert count(joined)["train_persons"] == sum(persons) == 6
    split = len(duke.train)
    assert joined.person_id[:split].max() < joined.person_id[split:].min()
    assert joined.camera_id[:split].max() < joined.camera_id[split:].min()
    expected = [load(part, part.train) for part in (duke, market)]
    assert all(map(np.array_equal, load(joined, joined.train), [*expected[0], *expected[1]]))


def test_joint_training_is_another_and_is_tested_on_both(trained: Path) -> None:
    weights = [
        read_weights(trained / f"results/tiny/train/{name}-default-draw0.safetensors").state["backbone.conv1.weight"]
        for name in ("market", "both")
    ]
    assert not np.array_equal(*weights)
    for name in ("market", "duke"):
        scores = read_json(trained / f"results/tiny/evaluate/both-default-on-{name}-draw0.json")
        assert scores["run"]["trained_on"] == "both" and scores["run"]["dataset"] == name and scores["results"]
    assert not (trained / "results/tiny/evaluate/both-default-draw0.json").exists()


def test_training_in_sequence_starts_from_the_backbone_of_another_experiment(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedder is a checkpoint as any; `reid why` follows it to the images that it was trained on."""
    monkeypatch.chdir(trained)
    ended = "results/tiny/train/both-raw-draw{draw}.safetensors"
    first = {
        "experiment": "then",
        "initialise": {"checkpoints": {"shallow": ended}},
        "datasets/market/variants": ["raw"],
    }
    jobs = plan(Params.model_validate(changed({**EXPERIMENT, **first, "joint": {}, "report/tables": {}})))
    assert list(jobs["initialise"]) == ["shallow-draw0"]
    compute({"initialise": jobs["initialise"]}, "then")
    started = Path("results/then/initialise/shallow-draw0.safetensors")
    before, after = (read_weights(Path(path)).state for path in (ended.format(draw=0), started))
    assert len(after) > 20 and all(np.array_equal(before[f"backbone.{name}"], value) for name, value in after.items())
    (weights,) = trace(started).inputs["weights"]
    assert (
        weights.entry is not None
        and weights.inputs["index"][0].path.as_posix() == "results/tiny/join/both-draw0.parquet"
    )


def test_report_compares_joint_training_with_training_on_one(trained: Path) -> None:
    table = (trained / "reports/tiny/table6.md").read_text()
    assert "| Market" in table and "| Both" in table and "Difference to training on the column's own dataset" in table
    findings = [found["claim"] for found in read_json(trained / "reports/tiny/report.json")["findings"]]
    assert findings[-1:] == ["More people help (trained on both)"]
    assert not [claim for claim in findings if "trained on market" in claim]
    curves = (trained / "reports/tiny/training_curves.csv").read_text()
    assert {line.split(",")[0] for line in curves.splitlines()[1:]} == {"market", "both"}
    assert 'data-rule="join"' in (trained / "reports/tiny/report.html").read_text()
