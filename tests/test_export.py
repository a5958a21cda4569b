"""Exported models: run by onnxruntime and PyTorch at any size, verified, documented; no leftovers on failure."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import reid_done_right
from models import NARROW, write_model
from reid_done_right.artifacts import InputError, Weights, read_weights, write_json, write_weights
from reid_done_right.cli import app
from reid_done_right.evaluation.ranking import Ranking
from reid_done_right.evaluation.statistics import mean_interval
from reid_done_right.models import export as exporting
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.export import OPSET, Deployed, Form, export, largest_difference, runner
from reid_done_right.reporting.card import Card, write_card
from reid_done_right.stages.evaluate import write_queries
from reid_done_right.stages.export import export as export_model
from test_photos import picture

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
DEEP = {"block": "bottleneck", "blocks": [1, 1, 1, 1], "width": 4, "last_stride": 2, "groups": 1, "width_per_group": 64}
EXPORTED: dict[tuple[object, ...], bytes] = {}
SIZES = [(1, 64, 32), (3, 47, 80), (2, 9, 5), (1, 1, 1), (5, 65, 33)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model beside the files of its run, as the pipeline leaves them."""
    root = tmp_path_factory.mktemp("results")
    (root / "train").mkdir()
    rng, queries = np.random.default_rng(0), 40
    relevant = np.full(queries, 3)
    ranks = np.sort(rng.permuted(np.tile(np.arange(1, 21), (queries, 1)), axis=1)[:, :3], axis=1).ravel()
    ranking = Ranking(np.arange(0, 3 * queries + 1, 3), ranks, np.zeros(3 * queries, np.float32), relevant)
    named = {"protocol": "single-query", "rerank": "none"}
    who = {"dataset": "market", "variant": "default", "backbone": "tiny", "draw": 3}
    results = [{**named, **ranking.scores("trapezoid")}]
    write_json(root / "evaluate/market-default-draw3.json", {"run": who, "collapsed": False, "results": results})
    write_queries(
        root / "evaluate/market-default-draw3.parquet", [{**named, "ranking": ranking, "person_id": np.arange(queries)}]
    )
    manifest = {"dataset": "market", "format": "market1501", "root": "r", "files": 1234, "bytes": 5, "sha256": "d" * 64}
    write_json(root / "dataset/market.json", manifest)
    write_json(root / "settings/dataset/market.json", {"parameters": {"source": {"folder": "data/Market"}}})
    write_json(root / "settings/initialise/tiny.json", {"parameters": {"imagenet": {}}})
    return write_model(root / "train/market-default-draw3.safetensors")


def once(
    embedder: Embedder, form: Form, about: Mapping[str, object], opset: int = OPSET, size: tuple[int, int] | None = None
) -> bytes:
    """Export a network once in each form and opset: it takes seconds."""
    weights = b"".join(tensor.numpy().tobytes() for tensor in embedder.state_dict().values())
    key = (hash(weights), embedder.pool.kind, form, opset, size)
    if key not in EXPORTED:
        EXPORTED[key] = export(embedder, form, about, opset, size)
    return EXPORTED[key]


def exported(model: Path, form: Form) -> bytes:
    embedder = reid_done_right.load_embedder(model)
    return once(embedder.module, form, {"largest_side": 64, "model": embedder.digest})


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_done_right.stages.export.to_bytes", once)


@pytest.mark.parametrize(
    "form, backbone, pooling",
    [
        ("onnx", NARROW, "max"),
        ("onnx", DEEP, "gem"),
        ("torch-export", NARROW, "max"),
        ("torch-export", DEEP, "average"),
    ],
)
def test_any_number_and_size_of_images_is_embedded_as_by_the_module(
    tmp_path: Path, form: Form, backbone: dict[str, object], pooling: str
) -> None:
    model = write_model(tmp_path / "m.safetensors", backbone=backbone, pooling=pooling)
    content = exported(model, form)
    assert 0 <= largest_difference(reid_done_right.load_embedder(model).module, content, form, SIZES) < 1e-5
    assert str(Path(reid_done_right.__file__).parent).encode() not in content and sys.prefix.encode() not in content


def test_wrong_network_is_seen(tmp_path: Path) -> None:
    content = exported(write_model(tmp_path / "0.safetensors", 0), "onnx")
    other = reid_done_right.load_embedder(write_model(tmp_path / "1.safetensors", 1)).module
    assert largest_difference(other, content, "onnx", SIZES[:1]) > 1e-2


def test_pixels_are_normalised_inside(run: Path) -> None:
    embedder = reid_done_right.load_embedder(run)
    image = picture(1, 64, 32)  # at its largest side already: nothing is resized
    with torch.inference_mode():
        found = Deployed(embedder.module)(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
    np.testing.assert_allclose(found.numpy(), embedder.embed([image]), atol=1e-6)


@pytest.mark.parametrize("opset", [18, 25])
def test_exported_file_has_requested_opset_and_metadata(run: Path, tmp_path: Path, opset: int) -> None:
    export_model(run, tmp_path / "m.onnx", opset=opset)
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [each.version for each in model.opset_import if not each.domain] == [opset]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["reid"])
    assert about["largest_side"] == 64 and about["model"] == reid_done_right.load_embedder(run).digest
    (pixels,), (embeddings,) = model.graph.input, model.graph.output
    assert (pixels.name, embeddings.name) == ("pixels", "embeddings")
    assert [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]


def test_export_of_a_fixed_size_takes_what_trackers_give(run: Path, tmp_path: Path) -> None:
    assert export_model(run, tmp_path / "m.onnx", size=(64, 32)) < 1e-5
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    (images,) = model.graph.input
    assert images.name == "images" and images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim] == ["batch", 3, 64, 32]
    card = (tmp_path / "m.onnx.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    image = picture(2, 64, 32)  # of that size already: nothing is resized
    Image.fromarray(image).save(tmp_path / "person.png")
    scope: dict[str, np.ndarray] = {}
    script = code[1].replace('"m.onnx"', repr(str(tmp_path / "m.onnx")))
    exec(script.replace('"person.jpg"', repr(str(tmp_path / "person.png"))), scope)
    np.testing.assert_allclose(scope["embeddings"], reid_done_right.load_embedder(run).embed([image]), atol=1e-5)


def test_tracker_that_prepares_crops_itself_gets_what_embed_boxes_gives(run: Path, tmp_path: Path) -> None:
    """The steps of BoxMOT's loader: names from the session, BGR frames, crops scaled to one size, any number at once."""
    import cv2
    import onnxruntime

    export_model(run, tmp_path / "m.onnx", size=(64, 32))
    frame = picture(3, 200, 300)
    boxes = np.array([[10.2, 5.0, 42.1, 69.0], [100.0, 50.4, 132.0, 114.3], [60.0, 80.0, 92.0, 144.0]])
    crops = []
    for left, top, right, bottom in boxes.round().astype(int):
        crop = cv2.resize(frame[top:bottom, left:right, ::-1], (32, 64), interpolation=cv2.INTER_LINEAR)
        scaled = cv2.cvtColor(crop, cv2.COLOR_BGR2RGB).transpose(2, 0, 1) / np.float32(255)
        mean, deviation = (
            np.array(of, np.float32).reshape(3, 1, 1) for of in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        crops.append((scaled - mean) / deviation)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: np.stack(crops)})
    np.testing.assert_allclose(found, reid_done_right.load_embedder(run).embed_boxes(frame, boxes), atol=1e-5)


@pytest.mark.parametrize("form, name", [("onnx", "m.onnx"), ("torch-export", "m.pt2")])
def test_example_on_the_card_embeds_a_photo_as_we_do(run: Path, tmp_path: Path, form: str, name: str) -> None:
    export_model(run, tmp_path / name, form=form)  # type: ignore[arg-type]
    Image.fromarray(picture(2, 130, 70)).save(tmp_path / "person.jpg", quality=95)
    (example,) = re.findall(r"```python\n(.*?)```", (tmp_path / f"{name}.md").read_text(), re.DOTALL)
    code = f"{example}\nnp.save('found.npy', np.asarray(embeddings))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    (found,), (ours,) = (
        np.load(tmp_path / "found.npy"),
        reid_done_right.load_embedder(run).embed([tmp_path / "person.jpg"]),
    )
    assert found @ ours > 0.9999


def test_card_has_data_licence_and_scores_with_intervals(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "--model", str(run), "--out", str(tmp_path / "m.onnx")])
    assert result.exit_code == 0 and "differs from the module by at most" in result.stderr
    card = (tmp_path / "m.onnx.md").read_text()
    for heading in (
        "Model",
        "Input and output",
        "Data",
        "Licence",
        "Scores",
        "Intended use",
        "Limits",
        "Responsible use",
    ):
        assert f"\n## {heading}\n" in card
    assert "ResNet-10, 4 channels wide, last stride 1, max pooling, a linear layer to 8" in card
    assert "Market-1501: https://" in card and "1,234 files, SHA-256 `dddddddddddd`" in card and "draw 3" in card
    assert "Market-1501: research only, no redistribution" in card and "the terms of ImageNet" in card
    import pandas as pd

    precision = pd.read_parquet(run.parents[1] / "evaluate/market-default-draw3.parquet")["ap"].to_numpy()
    expected = mean_interval(precision, np.random.default_rng(0))
    assert f"| {100 * expected.mean:.1f} ({100 * expected.low:.1f} to {100 * expected.high:.1f}) |" in card
    assert "`reid why` on the weights says" in card and str(tmp_path) not in card


def test_card_of_a_joint_model_binds_it_to_the_terms_of_every_dataset(run: Path, tmp_path: Path) -> None:
    """Trained on a release, another one and one's own photos, and tested on the first."""
    kept, root = run.parents[1], tmp_path / "results"
    shutil.copytree(kept, root)
    (root / "train/market-default-draw3.safetensors").rename(root / "train/all-default-draw3.safetensors")
    for kind in ("json", "parquet"):
        (root / f"evaluate/market-default-draw3.{kind}").rename(root / f"evaluate/all-default-on-market-draw3.{kind}")
    scores = root / "evaluate/all-default-on-market-draw3.json"
    content = json.loads(scores.read_text())
    content["run"]["trained_on"] = "all"
    write_json(scores, content)
    for name, layout in (("msmt", "msmt17"), ("yard-draw3", "folder")):
        manifest = {"dataset": name, "format": layout, "root": "r", "files": 7, "bytes": 5, "sha256": name[0] * 64}
        write_json(root / f"dataset/{name}.json", manifest)
        write_json(root / f"settings/dataset/{name}.json", {"parameters": {"source": {"folder": "data"}}})
    write_json(root / "settings/join/all-draw3.json", {"parameters": {"indexes": ["market", "msmt", "yard-draw3"]}})
    model = root / "train/all-default-draw3.safetensors"
    export_model(model, tmp_path / "hub", form="hub")
    card = (tmp_path / "hub/README.md").read_text()
    for name, layout, files in (("market", "market1501", "1,234"), ("msmt", "msmt17", "7"), ("yard", "folder", "7")):
        assert f"- Training images: those of `{name}` (format {layout}; {files} files, SHA-256" in card
    assert "Market-1501: research only" in card and "MSMT17: " in card and "Photos of the trainer's own" in card
    _, head, _ = card.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["datasets"] == ["market1501", "msmt17", "own-photos", "imagenet-1k"] and told["license"] == "other"
    assert told["provenance"]["training images of yard"] == "y" * 64
    assert told["model-index"][0]["results"][0]["dataset"]["type"] == "market"  # not what it was trained on
    with pytest.raises(InputError, match=r"scores of all-default-draw3, but .*other\.safetensors is another run's"):
        other = model.with_name("other.safetensors")
        shutil.copyfile(model, other)
        export_model(other, tmp_path / "hub", form="hub", scores=scores)


def test_card_of_lone_model_states_unknown_and_given_facts(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(run.read_bytes())
    export_model(alone, tmp_path / "a.pt2", form="torch-export")
    card = (tmp_path / "a.pt2.md").read_text()
    assert card.count("Not recorded beside the model") == 2 and "None were found beside the model" in card
    told = {
        "data": "Photos of our yard",
        "licence": "Ours",
        "scores": run.parents[1] / "evaluate/market-default-draw3.json",
    }
    export_model(alone, tmp_path / "b.pt2", form="torch-export", **told)  # type: ignore[arg-type]
    card = (tmp_path / "b.pt2.md").read_text()
    assert "- Photos of our yard\n" in card and "- Ours\n" in card and "| single-query |" in card


def test_card_states_rendered_data_and_collapse(run: Path, tmp_path: Path) -> None:
    about = {
        "backbone": {"family": "densenet121"},
        "embedding": 0,
        "pooling": "gem",
        "largest_side": 64,
        "collapsed": True,
    }
    text = write_card(Card("m.onnx", "onnx", "m", "0", about, 1024, 29, 1e-7))
    assert "**The training collapsed**" in text and "densenet121, gem pooling, no linear layer" in text
    assert "none below 29 pixels" in text
    settings = run.parents[1] / "settings/dataset/market.json"
    before = settings.read_text()
    write_json(settings, {"parameters": {"source": {"render": {}}}})
    try:
        export_model(run, tmp_path / "m.pt2", form="torch-export")
    finally:
        settings.write_text(before)
    assert "**Rendered people**" in (tmp_path / "m.pt2.md").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "m.onnx", "--opset", "17"], "opset 17 is not supported; use one from 18 to 25"),
        (["--out", "m.onnx", "--opset", "99"], "opset 99 is not supported"),
        (["--out", "m.onnx", "--tolerance", "0"], "m.onnx: not written, as the exported network differs from the module by"),
        (["--out", "m.pt2"], "m.pt2: expected a file name ending in .onnx for --format onnx"),
        (["--out", "m.onnx", "--format", "torch-export"], "m.onnx: expected a file name ending in .pt2"),
        (["--out", "m.onnx", "--model", "backbone.safetensors"], "backbone.safetensors: weights of a backbone, not of an"),
        (["--out", "m.onnx", "--model", "none.safetensors"], "none.safetensors: no such file"),
        (["--out", "m.onnx", "--size", "256"], "--size '256': expected HEIGHTxWIDTH in pixels, as in 256x128"),
        (["--out", "m.onnx", "--size", "0x9"], "--size 0x9: too small for the network; give sides of 1 or more"),
        (["--out", "m.onnx", "--scores", "none.json"], "none.json: no such file"),
        (["--out", "m.onnx", "--scores", "other.json"], "other.json: run: missing; add it; results: missing"),
        (["--out", "m.onnx", "--scores", "alone.json"], "alone.parquet: no such file, which has the queries"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    state = read_weights(run).state
    backbone = {name.removeprefix("backbone."): each for name, each in state.items() if name.startswith("backbone.")}
    write_weights(Path("backbone.safetensors"), Weights(backbone, {"backbone": NARROW}))
    write_json(Path("other.json"), {})
    alone = {"dataset": "market", "variant": "default", "backbone": "narrow", "draw": 3}
    write_json(Path("alone.json"), {"run": alone, "results": []})
    before = sorted(Path().iterdir())
    result = CliRunner().invoke(app, ["export", "--model", str(run), *arguments])
    assert isinstance(result.exception, InputError) and "\n" not in str(result.exception)
    assert str(result.exception).startswith(message)
    assert sorted(Path().iterdir()) == before


def test_missing_package_is_reported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = exported(run, "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        InputError, match="running ONNX needs onnxruntime, which is not installed: pip install onnxruntime"
    ):
        runner(content, "onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="ONNX needs onnxscript, which is not installed: pip install onnx onnxscript"):
        export(reid_done_right.load_embedder(run).module, "onnx", {})


def test_network_that_cannot_have_an_opset_is_rejected(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 18, PyTorch keeps to 18 and only warns."""
    monkeypatch.setattr(exporting, "OPSETS", range(7, 26))
    with pytest.raises(InputError, match=r"opset 17 cannot express this network \(it needs 18\)"):
        export(reid_done_right.load_embedder(run).module, "onnx", {}, 17)


def test_runner_maps_arrays_to_arrays(run: Path) -> None:
    content = exported(run, "onnx")
    found = runner(content, "onnx")(np.zeros((2, 3, 40, 20), np.uint8))
    assert found.shape == (2, 8) and found.dtype == np.float32
