"""Parameters: shipped files are valid; every mistake is one line that names the file, the key and the fix."""

import io
import json
from copy import deepcopy
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from reid_done_right.artifacts import InputError
from reid_done_right.params import Params, load
from reid_done_right.params.datasets import RENDERED
from reid_done_right.params.training import Train
from reid_done_right.plan import plan
from reid_done_right.stages.dataset import WRITERS
from tiny import MISSING, PARAMS, changed

ROOT = Path(__file__).parents[1]
SHIPPED = [ROOT / "params.yaml", *sorted(ROOT.glob("experiments/*/params.yaml"))]


def mistake(tmp_path: Path, changes: dict[str, Any]) -> str:
    """Return the message about the tiny experiment with some changes, without the file's name."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(changes)))
    with pytest.raises(InputError) as raised:
        load(path)
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return "\n".join(line.removeprefix(f"{path}: ") for line in lines)


# --- what is right


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_parameters_are_valid(path: Path) -> None:
    assert load(path).experiment


def test_yaml_and_json_on_standard_input_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(PARAMS)))
    assert load(tmp_path / "params.yaml") == load(Path("-"))


def test_variant_is_the_default_with_its_differences() -> None:
    params = Params.model_validate(PARAMS)
    assert params.variant("default") == Train.model_validate(PARAMS["train"])
    assert params.variant("deep") == params.train.model_copy(update={"backbone": "deep"})


def test_all_variants_or_those_listed_are_trained() -> None:
    params = Params.model_validate(PARAMS)
    assert params.variants_of("market") == ["default", "flip", "deep", "raw"]
    assert params.variants_of("duke") == ["default", "raw"]
    assert params.variants_of("crowd") == []


def test_stage_that_asks_for_nothing_gets_one_thread() -> None:
    params = Params.model_validate(PARAMS)
    assert params.resources_of("train").threads == 2
    assert params.resources_of("embed").threads == 1


def test_parameters_are_frozen() -> None:
    params = Params.model_validate(PARAMS)
    with pytest.raises(ValidationError, match="frozen"):
        params.train.margin = 0.2  # type: ignore[misc]


# --- what is wrong: one line, the key and the fix


def archives(*entries: Any) -> dict[str, Any]:
    return {"datasets/duke/source": {"folder": "data/duke", "archives": list(entries)}}


OWN_TABLE: dict[str, Any] = {
    "caption": "Flips",
    "columns": [{"title": "Market", "dataset": "market", "protocol": "single-query"}],
    "rows": [{"variant": "default", "label": "no"}, {"variant": "flip", "label": "yes"}],
    "claims": [{"text": "Flips help", "better": "flip"}],
}


def own_table(changes: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with a table of its own, in which some keys differ."""
    return {"report/tables": {"table6": deepcopy(OWN_TABLE)}} | {
        f"report/tables/table6/{key}": at for key, at in changes.items()
    }


def transfers(changes: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with a table of what is trained on Market and Duke, in which some keys differ."""
    rows = [{"variant": "default", "trained_on": name, "label": name} for name in ("market", "duke")]
    columns = [{"title": name, "dataset": name, "protocol": "single-query"} for name in ("market", "duke")]
    table = {"caption": "Across", "columns": columns, "rows": rows, "claims": [{"text": "It costs", "effect": "costs"}]}
    tested = {"datasets/market/test_on": ["duke"], "report/tables": {"table6": table}}
    return tested | {
        key if key.startswith("datasets/") else f"report/tables/table6/{key}": at for key, at in changes.items()
    }


def opened(changes: dict[str, Any]) -> dict[str, Any]:
    """Return a change: an open set of Market, changed."""
    return {"identify": {"dataset": "market", "variants": ["raw"]} | changes}


def joint(changes: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment that trains on Market and Duke together, in which some keys differ."""
    both = {"train_on": ["market", "duke"], "test_on": ["market", "duke"], "variants": ["default"]}
    return {"joint": {"both": both | changes}}


MISTAKES = [
    # unknown and missing keys
    ({"trian": {}}, "trian: unknown key; did you mean 'train'?"),
    ({"train/halve_evry": 3}, "train.halve_evry: unknown key; did you mean 'halve_every'?"),
    ({"variants/flip": {"flop": True}}, "variants.flip.flop: unknown key; did you mean 'flip'?"),
    ({"resources/train/cpus": 2}, "resources.train.cpus: unknown key; known: threads, gpu, mem_mb, runtime"),
    ({"datasets/market/source/rendered": {}}, "datasets.market.source.rendered: unknown key; did you mean 'render'?"),
    ({"evaluate/k_reciprocal/k3": 1}, "evaluate.k_reciprocal.k3: unknown key; known: k1, k2, lambda_value, variant"),
    ({"report/table1/0/lable": "x"}, "report.table1.0.lable: unknown key; did you mean 'label'?"),
    ({"train/margin": MISSING}, "train.margin: missing; add it"),
    ({"pretrain": MISSING}, "pretrain: missing; add it"),
    ({"datasets/market/source/render/hardness": MISSING}, "datasets.market.source.render.hardness: missing; add it"),
    # wrong types and ranges
    ({"train/margin": "1e-3"}, "train.margin: '1e-3' is text in YAML; write a point, as in 1.0e-3"),
    ({"variants/flip": {"margin": "1e-3"}}, "variants.flip.margin: '1e-3' is text in YAML; write a point, as in 1.0e-3"),
    ({"train/updates": "4"}, "train.updates: Input should be a valid integer, not '4'"),
    ({"train/updates": 4.0}, "train.updates: Input should be a valid integer, not 4.0"),
    ({"train/updates": 0}, "train.updates: Input should be greater than 0, not 0"),
    ({"train/flip": 1}, "train.flip: Input should be a valid boolean, not 1"),
    ({"train/crop": 1.5}, "train.crop: Input should be less than or equal to 1, not 1.5"),
    ({"train/pooling": "mean"}, "train.pooling: Input should be 'max', 'average' or 'gem', not 'mean'"),
    ({"backbones/deep/last_stride": 3}, "backbones.deep.last_stride: Input should be 1 or 2, not 3"),
    ({"train/batch_norm": "train"}, "train.batch_norm: Input should be 'frozen', 'affine' or 'statistics', not 'train'"),
    ({"train/embedding": -1}, "train.embedding: Input should be greater than or equal to 0, not -1"),
    ({"variants/flip": None}, "variants.flip: Input should be a valid dictionary, not None"),
    ({"draws": 3}, "draws: Input should be a valid list, not 3"),
    ({"resources/train/threads": 0}, "resources.train.threads: Input should be greater than 0, not 0"),
    # names that are nowhere
    ({"datasets/duke/variants": ["raww"]}, "datasets.duke.variants: unknown name 'raww'; did you mean 'raw'?"),
    ({"variants/deep": {"backbone": "deeep"}}, "variants.deep.backbone: unknown name 'deeep'; did you mean 'deep'?"),
    ({"train/backbone": "shalow"}, "variants.default.backbone: unknown name 'shalow'; did you mean 'shallow'?"),
    ({"distract/dataset": "markt"}, "distract.dataset: unknown name 'markt'; did you mean 'market'?"),
    ({"distract/distractors": "crwd"}, "distract.distractors: unknown name 'crwd'; did you mean 'crowd'?"),
    ({"distract/variants": ["flp"]}, "distract.variants: unknown name 'flp'; did you mean 'flip'?"),
    ({"inspect": {"dataset": "markt", "variants": ["raw"]}}, "inspect.dataset: unknown name 'markt'; did you mean 'market'?"),
    ({"inspect": {"dataset": "duke", "variants": ["flip"]}}, "inspect.variants: unknown name 'flip'; known: default, raw"),
    ({"identify": {"dataset": "markt", "variants": ["raw"]}}, "identify.dataset: unknown name 'markt'; did you mean 'market'?"),
    ({"identify": {"dataset": "duke", "variants": ["flip"]}}, "identify.variants: unknown name 'flip'; known: default, raw"),
    ({"report/table3/0/variant": "dep"}, "report.table3.variant: unknown name 'dep'; did you mean 'deep'?"),
    ({"report/baseline": "defalt"}, "report.baseline: unknown name 'defalt'; did you mean 'default'?"),
    # tables
    ({"report/table1/0/label": "✓ ✓"}, "report.table1: label '✓ ✓' has 2 words, write one for each of ('flip', 'crop', 'cut-out')"),
    ({"report/tables": {"table1": OWN_TABLE}}, "report.tables.table1: the paper has a table of this name; give rows in report.table1, or another name"),
    ({"report/tables": {"flips": OWN_TABLE}}, "report.tables.flips: String should match pattern '^table[0-9]+[a-z]?$', not 'flips'"),
    (own_table({"columns": MISSING}), "report.tables.table6.columns: missing; add it"),
    (own_table({"headers": ["flip", "crop"]}), "report.tables.table6: label 'no' has 1 words, write one for each of ('flip', 'crop')"),
    (own_table({"rows/1/variant": "flp"}), "report.tables.table6.rows.variant: unknown name 'flp'; did you mean 'flip'?"),
    (own_table({"rows/1/paper": "max"}), "report.tables.table6: rows or columns name the paper's, but not its table; add paper: NUMBER"),
    (own_table({"columns/0/dataset": "mars"}), "report.tables.table6.columns.dataset: unknown name 'mars'; did you mean 'market'?"),
    (own_table({"columns/0/dataset": "crowd"}), "report.tables.table6.columns: no variant of its rows is trained on crowd; leave 'Market' out"),
    (own_table({"columns/0/protocol": "tracklet"}), "report.tables.table6.columns.protocol: unknown name 'tracklet'; known: single-query, multi-query"),
    (own_table({"columns/0/metrics": ["rank-2"]}), "report.tables.table6.columns.0.metrics.0: Input should be 'mAP', 'rank-1', 'rank-5' or 'rank-10', not 'rank-2'"),
    (own_table({"columns": OWN_TABLE["columns"] * 2}), "report.tables.table6: columns: two have the title 'Market'; rename one"),
    (own_table({"claims/0/better": "flop"}), "report.tables.table6.claims: unknown name 'flop'; did you mean 'flip'?"),
    (own_table({"claims/0/better": "default"}), "report.tables.table6.claims: 'Flips help' compares a row with itself; give better, worse or both"),
    (own_table({"claims/0/columns": ["Duke"]}), "report.tables.table6: claims.columns: unknown name 'Duke'; known: Market"),
    # tests on other datasets
    ({"datasets/market/test_on": ["duk"]}, "datasets.market.test_on: unknown name 'duk'; did you mean 'duke'?"),
    ({"datasets/market/test_on": ["market"]}, "datasets.market.test_on: what is trained on market is tested on it anyway; leave it out"),
    ({"datasets/market/test_on": ["duke", "duke"]}, "datasets.market.test_on: duke is there twice; list each once"),
    ({"datasets/market/test_on": ["crowd"]}, "datasets.market.test_on: crowd has no test set (distractors are nobody's queries); leave it out"),
    ({"datasets/market/test_on": ["duke"], "datasets/duke/source/render/test_ids": 0}, "datasets.market.test_on: duke has no test set (source.render.test_ids is 0); leave it out"),
    ({"datasets/market/test_on": ["mine"], "datasets/mine": {"format": "folder", "source": {"folder": "x"}, "read": {"train": 1.0}}}, "datasets.market.test_on: mine has no test set (read.train is 1); leave it out"),
    (transfers({"rows/1/trained_on": "duk"}), "report.tables.table6.rows.trained_on: unknown name 'duk'; did you mean 'duke'?"),
    (transfers({"rows/1/trained_on": MISSING}), "report.tables.table6: rows: some have trained_on and some not; give it to all, or none"),
    (transfers({"rows/1/variant": "flip"}), "report.tables.table6.rows: flip is not trained on duke; leave 'duke' out, or add it to datasets.duke.variants"),
    # joint training data
    (joint({"train_on": ["market", "duk"]}), "joint.both.train_on: unknown name 'duk'; did you mean 'duke'?"),
    (joint({"train_on": ["market", "market"]}), "joint.both.train_on: market is there twice; list each once"),
    (joint({"train_on": ["market", "crowd"]}), "joint.both.train_on: crowd has no training images (distractors have no identities); leave it out"),
    (joint({}) | {"datasets/duke/source/render/train_ids": 0}, "joint.both.train_on: duke has no training images (source.render.train_ids is 0); leave it out"),
    (joint({"train_on": ["market", "mine"]}) | {"datasets/mine": {"format": "folder", "source": {"folder": "x"}, "read": {"train": 0.0}}}, "joint.both.train_on: mine has no training images (read.train is 0); leave it out"),
    (joint({"train_on": ["market", "again"]}) | {"datasets/again": deepcopy(PARAMS["datasets"]["market"])}, "joint.both.train_on: market and again show the same people, who would be two; leave one out"),
    (joint({"train_on": ["mine", "again"]}) | {f"datasets/{name}": {"format": "folder", "source": {"folder": "x"}} for name in ("mine", "again")}, "joint.both.train_on: mine and again show the same people, who would be two; leave one out"),
    (joint({"test_on": ["crowd"]}), "joint.both.test_on: crowd has no test set (distractors are nobody's queries); leave it out"),
    (joint({"test_on": ["joint"]}), "joint.both.test_on: unknown name 'joint'; known: crowd, duke, market"),
    (joint({"test_on": ["duke", "duke"]}), "joint.both.test_on: duke is there twice; list each once"),
    (joint({"variants": ["defalt"]}), "joint.both.variants: unknown name 'defalt'; did you mean 'default'?"),
    ({"joint": {"market": {"train_on": ["market", "duke"], "test_on": ["duke"]}}}, "joint.market: a dataset has this name; choose another"),
    ({"joint": {"both": {"train_on": ["market", "duke"]}}}, "joint.both.test_on: missing; add it"),
    (joint({"variants": []}) | transfers({"rows/1/trained_on": "both"}), "report.tables.table6.rows: default is not trained on both; leave 'duke' out, or add it to joint.both.variants"),
    (transfers({"claims/0/trained_on": ["both"]}), "report.tables.table6: claims.trained_on: unknown name 'both'; known: market, duke"),
    (own_table({"claims/0/trained_on": ["market"]}), "report.tables.table6: claims.trained_on: the rows do not say what they were trained on; leave it out"),
    (transfers({"rows/1/trained_on": "market", "rows/1/variant": "raw", "datasets/market/test_on": []}), "report.tables.table6.columns: no row is tested on duke; leave 'duke' out"),
    (transfers({"columns/1/protocol": "multi-query"}), "report.tables.table6.columns.protocol: unknown name 'multi-query'; did you mean 'single-query'?"),
    (transfers({"claims/0/worse": "default"}), "report.tables.table6.claims: 'It costs' compares a row with itself; give better, worse or both"),
    # impossible combinations
    ({"backbones/deep": {"family": "densenet121", "width": 8}}, "backbones.deep: densenet121 has a shape of its own; remove width"),
    ({"backbones/deep/block": MISSING}, "backbones.deep: give block: and blocks: of a residual network, or family: of another"),
    ({"backbones/shallow/groups": 2}, "backbones.shallow: groups and width_per_group are for block: bottleneck"),
    ({"backbones/deep/width_per_group": 8}, "backbones.deep: width_per_group 8 leaves no channel at width 4; enlarge one"),
    ({"datasets/duke/source": {"folder": "duke/{draw}", "archives": ["a.zip"]}}, "datasets.duke.source: archives are unpacked to one folder; give its path without {draw}"),
    ({"datasets/duke/source": {}}, "datasets.duke.source: give either render: {...} or folder: PATH"),
    ({"datasets/duke/source/folder": "x"}, "datasets.duke.source: give either render: {...} or folder: PATH"),
    ({"datasets/duke/source/archives": ["a.zip"]}, "datasets.duke.source: archives are unpacked to a folder; give folder: PATH too"),
    (archives({}), "datasets.duke.source.archives.0: give path: FILE, or urls: [https://...]"),
    (archives({"urls": ["ftp://a.org/b.zip"]}), "datasets.duke.source.archives.0: urls: 'ftp://a.org/b.zip' is not an address; write https://..., or path: for a file"),
    (archives("http://a.org/b.zip"), "datasets.duke.source.archives.0: urls: http://a.org/b.zip is not https, so anybody on the way can change it; give its sha256 too"),
    (archives("https://a.org/"), "datasets.duke.source.archives.0: urls: https://a.org/ does not end in a file name; give path: FILE, where to put it"),
    (archives({"path": "b.zip", "sha256": "12ab"}), "datasets.duke.source.archives.0.sha256: String should match pattern '^[0-9a-fA-F]{64}$', not '12ab'"),
    (archives({"path": "b.zip", "md5": "12ab"}), "datasets.duke.source.archives.0.md5: unknown key; known: path, urls, sha256, bytes"),
    ({"datasets/duke/source": {"folder": "x", "archives": "publishd"}}, "datasets.duke.source.archives: Input should be 'published', not 'publishd'"),
    ({"initialise/checkpoints": {"shallow": "a.pth"}}, "initialise: give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}"),
    ({"initialise": {"checkpoints": {"shalow": "a.pth"}}}, "initialise.checkpoints: unknown name 'shalow'; did you mean 'shallow'?"),
    ({"initialise/imagenet": "IMAGENET1K_V1"}, "initialise: give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}"),
    ({"initialise/objects": MISSING}, "initialise: give one of objects: {...}, imagenet: IMAGENET1K_V1 and checkpoints: {BACKBONE: FILE}"),
    ({"draws": [0, 0]}, "draws: [0, 0] repeats a draw; list each once"),
    ({"variants/flip": {"refresh": 9}}, "variants.flip.refresh: 9 exceeds updates 4"),
    ({"datasets/crowd/variants": ["raw"]}, "datasets.crowd.variants: distractors have no identities to train on; give []"),
    ({"backbones/deep": {"family": "inception_v3"}}, "variants.deep.largest_side: 32 pixels are too few for inception_v3; give 75 or more"),
    ({"backbones/deep": {"family": "densenet121"}}, "pretrain.crop_width: 16 pixels are too few for densenet121; give 29 or more"),
    ({"backbones/deep": {"family": "densenet121"}, "pretrain/crop_width": 32}, "initialise.objects.crop: 24 pixels are too few for densenet121; give 29 or more"),
    ({"distract/distractors": "duke"}, "distract.distractors: duke is not of the format distractors"),
    ({"inspect": {"dataset": "crowd", "variants": ["raw"]}}, "inspect.dataset: crowd is not rendered in the format market1501 or dukemtmc, so nobody knows where its people are; give one that is, or remove the section"),
    ({"inspect": {"dataset": "market", "variants": ["raw"], "tiles": [8, 33]}}, "inspect.tiles.1: Input should be less than or equal to 32, not 33"),
    (opened({"unknown": 0}), "identify.unknown: Input should be greater than 0, not 0"),
    (opened({"unknown": 1.0}), "identify.unknown: Input should be less than 1, not 1.0"),
    (opened({"fpir": [0.1, 1]}), "identify.fpir.1: Input should be less than 1, not 1"),
    (opened({"fpir": [0.1, 0.01]}), "identify.fpir: [0.1, 0.01] must be ascending, each rate once"),
    (opened({"fpir": [0.1, 0.1]}), "identify.fpir: [0.1, 0.1] must be ascending, each rate once"),
    (opened({"dataset": "crowd"}), "identify.dataset: crowd has no test set (distractors are nobody's queries); give one that has"),
    (opened({"dataset": "scenes"}) | {"datasets/scenes": {"format": "person-search", "source": {"folder": "x"}}}, "identify.dataset: every query of scenes has a gallery of its own, so nobody can be left out of the gallery; give a dataset of another format"),
    (opened({"dataset": "scenes"}) | {"datasets/scenes": {"format": "prw", "source": {"folder": "x"}}}, "identify.dataset: every query of scenes has a gallery of its own, so nobody can be left out of the gallery; give a dataset of another format"),
    (opened({"dataset": "herd"}) | {"datasets/herd": {"format": "csv", "source": {"folder": "x"}, "read": {"table": "t.csv", "splits": "closed"}}}, "identify.dataset: herd tests on those whom it trains on (read.splits: closed), so nobody is unknown; give disjoint splits"),
    ({"distract/sizes": [3, 0]}, "distract.sizes: [3, 0] must be ascending, each size once"),
    ({"distract/variants": ["flip"], "datasets/market/variants": ["raw"], "follow": MISSING}, "distract.variants: unknown name 'flip'; known: raw"),
    ({"datasets/market/source": {"folder": "x"}}, "report.contact_sheet: shows rendered people only; remove it, as these images are real"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "line"), MISTAKES, ids=lambda value: ", ".join(value) if isinstance(value, dict) else ""
)
def test_mistake_is_a_line(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    assert mistake(tmp_path, changes) == line


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"draws": []}, "draws: List should have at least 1 item"),
        ({"distract/sizes": []}, "distract.sizes: List should have at least 1 item"),
        ({"backbones/deep/blocks": [1, 1, 1]}, "backbones.deep.blocks: List should have at least 4 items"),
        ({"backbones/deep": {"family": "densenet12"}}, "backbones.deep.family: Input should be 'densenet121', "),
        ({"experiment": "My run"}, "experiment: String should match pattern"),
        ({"datasets/duke/format": "duke"}, "datasets.duke.format: Input should be 'market1501', 'dukemtmc', "),
        ({"datasets/duke/variants": "every"}, "datasets.duke.variants: Input should be 'all', not 'every'"),
        ({"datasets/duke/counts": {"train_images": "9"}}, "datasets.duke.counts.train_images: Input should be a valid integer"),
        ({"datasets/duke/source": {"folder": "x"}, "datasets/duke/counts": MISSING, "inspect": {"dataset": "duke", "variants": ["raw"]}}, "inspect.dataset: duke is not rendered"),
        ({"distract/dataset": "duke", "distract/variants": ["raw"]}, "distract.dataset: duke is not of the format market1501"),
    ],
)  # fmt: skip
def test_mistake_begins_with_its_key(tmp_path: Path, changes: dict[str, Any], start: str) -> None:
    line = mistake(tmp_path, changes)
    assert line.startswith(start)
    assert "\n" not in line


def test_every_mistake_gets_its_line(tmp_path: Path) -> None:
    changes = {"train/margin": "1e-3", "pretrain/batch": MISSING, "trian": {}}
    assert sorted(mistake(tmp_path, changes).splitlines()) == [
        "pretrain.batch: missing; add it",
        "train.margin: '1e-3' is text in YAML; write a point, as in 1.0e-3",
        "trian: unknown key; did you mean 'train'?",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not valid YAML: while parsing a flow node expected the node content"),
        ("\t", "not valid YAML: while scanning for the next token found character"),
        ("", "expected the sections of an experiment, found NoneType"),
        ("- 1", "expected the sections of an experiment, found list"),
        ("hello", "expected the sections of an experiment, found str"),
    ],
)
def test_file_that_is_not_a_parameters_is_a_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_missing_file_or_a_folder_is_a_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: .*give the path of a params.yaml$"):
            load(path)


def test_broken_json_on_standard_input_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("{"))
    with pytest.raises(InputError, match=r"^params: not valid YAML: "):
        load(Path("-"))


# --- variants of the classification stage


def test_a_variant_may_start_from_another_classification() -> None:
    params = Params.model_validate(changed({"variants/deep/pretrain": {"passes": 3.0, "flip": False}}))
    default, deep = (params.classification(params.variant(name)) for name in ("default", "deep"))
    assert default == params.pretrain and params.classification(params.variant("raw")) is None
    expected = params.pretrain.model_dump(exclude={"updates"}) | {"passes": 3.0, "flip": False}
    assert deep is not None and deep.model_dump() == expected | {"updates": None}
    assert list(plan(params)["pretrain"]) == [
        f"{job}-draw{draw}" for job in ("market-shallow", "market-deep", "duke-shallow") for draw in (0, 1)
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pasess": 3.0}, "variants.deep.pretrain.pasess: unknown key; did you mean 'passes'?"),
        ({"passes": 3.0, "updates": 5}, "variants.deep.pretrain: give either updates: NUMBER or passes: NUMBER"),
        ("yes", "variants.deep.pretrain: Input should be a valid boolean, not 'yes'"),
    ],
)
def test_another_classification_that_makes_no_sense_is_told(given: Any, message: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, {"variants/deep/pretrain": given}) == message


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_keys_of_a_format_are_those_of_its_writer(name: str) -> None:
    taken = signature(WRITERS[name]).parameters
    others = {
        key: parameter
        for key, parameter in taken.items()
        if key not in ("root", "world", "hardness", "workers", "progress")
    }
    assert RENDERED[name] == {key: parameter.default is Parameter.empty for key, parameter in others.items()}
