"""The experiments of readings: as written, one factor at a time, and none of the open points of training left out."""

import re
from runpy import run_path

import pytest

from conftest import ROOT
from reid_done_right.params import load

WRITER = run_path(str(ROOT / "experiments/write.py"))
ROUNDING = {f"train.{key}" for key in ("at_once", "batching", "precision", "execution", "deterministic")}
STATED = {  # in the paper, or varied by its tables; not readings of what it leaves open
    *(
        f"train.{key}"
        for key in ("batch", "embedding", "margin", "updates", "halve_every", "pool", "hardest", "refresh")
    ),
    *(f"train.{key}" for key in ("pooling", "largest_side", "momentum", "weight_decay", "flip", "crop")),
    *(f"pretrain.{key}" for key in ("final_learning_rate", "crop_height", "crop_width", "precision", "updates")),
}


@pytest.mark.parametrize("experiment", WRITER["AROUND"])
def test_readings_are_as_written(experiment: str) -> None:
    committed = (ROOT / f"experiments/{experiment}/params.yaml").read_text(encoding="utf-8")
    assert committed == WRITER["around"](experiment, WRITER["AROUND"][experiment]), "run experiments/write.py"


def test_study_is_the_embedded_experiment_on_other_draws() -> None:
    committed = (ROOT / "experiments/study/params.yaml").read_text(encoding="utf-8")
    assert committed == WRITER["study"](ROOT / "params.yaml"), "run experiments/write.py"
    study, embedded = (load(ROOT / path) for path in ("experiments/study/params.yaml", "params.yaml"))
    assert not set(study.draws) & set(embedded.draws)
    same = {"experiment": "", "draws": [0], "report": study.report}
    assert study.model_copy(update=same) == embedded.model_copy(update=same)


def test_experiment_across_datasets_is_as_written() -> None:
    committed = (ROOT / "experiments/across/params.yaml").read_text(encoding="utf-8")
    assert committed == WRITER["across"](ROOT / "params.yaml"), "run experiments/write.py"


def test_herd_is_as_written_and_the_same_photos_under_two_labels() -> None:
    committed = (ROOT / "experiments/herd/params.yaml").read_text(encoding="utf-8")
    assert committed == WRITER["herd"](ROOT / "params.yaml"), "run experiments/write.py"
    datasets = load(ROOT / "experiments/herd/params.yaml").datasets
    assert datasets["herd"].source == datasets["flanks"].source
    assert [each.read.columns for each in datasets.values() if each.read] == [
        {"person_id": "identity"},
        {"person_id": "flank"},
    ]


@pytest.mark.parametrize("experiment", WRITER["AROUND"])
def test_each_reading_changes_one_key_of_the_default(experiment: str) -> None:
    params = load(ROOT / f"experiments/{experiment}/params.yaml")
    baseline, *readings = [row.variant for row in params.report.tables["table6"].rows]
    assert [baseline, *readings] == params.variants_of("market") and baseline == "default"
    default = params.variant("default")
    first = params.classification(default)
    assert first is not None
    for name in readings:
        variant = params.variant(name)
        second = params.classification(variant)
        assert second is not None
        ranking = [key for key, value in variant.model_dump().items() if value != default.model_dump()[key]]
        ranking = [key for key in ranking if f"train.{key}" not in ROUNDING]
        classification = [key for key, value in second.model_dump().items() if value != first.model_dump()[key]]
        if ranking == ["pretrain"]:
            assert len(set(classification) - {"updates"}) == 1, name
        else:
            assert len(ranking) == 1 and not classification, name


def test_every_open_point_of_training_is_varied() -> None:
    decisions = (ROOT / "docs/choices.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:train|pretrain)\.\w+)`", decisions))
    assert named - ROUNDING - STATED == set(WRITER["READINGS"])
