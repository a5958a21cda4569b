"""The plan: number of jobs, shared files, and which settings a change affects."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from reid_done_right import plan as planning
from reid_done_right.artifacts import InputError, write_text
from reid_done_right.dag import STAGES
from reid_done_right.dvc import pipeline
from reid_done_right.params import Params, load
from reid_done_right.plan import clear_places, fingerprint, plan, rules, write_settings
from reid_done_right.store import keys
from tiny import MISSING, changed

SHIPPED = [ROOT / "params.yaml", *sorted(ROOT.glob("experiments/*/params.yaml"))]


def jobs_of(changes: dict[str, Any] | None = None) -> dict[str, planning.Jobs]:
    return plan(Params.model_validate(changed(changes or {})))


def touched(changes: dict[str, Any], tmp_path: Path) -> set[str]:
    """Return the jobs, group/name, whose settings files a change writes; two stand for both draws."""
    write_settings(jobs_of(), tmp_path)
    return {
        path.relative_to(tmp_path).with_suffix("").as_posix() for path in write_settings(jobs_of(changes), tmp_path)
    }


def drawn(*names: str) -> set[str]:
    return {f"{name}-draw{draw}" for name in names for draw in (0, 1)}


# --- the jobs


def test_jobs_of_the_tiny_experiment() -> None:
    jobs = jobs_of()
    assert {group: len(members) for group, members in jobs.items()} == {
        "dataset": 3 * 2,
        "index": 3 * 2,
        "join": 0,
        "initialise": 2 * 2,
        "pretrain": (2 + 1) * 2,  # market: both backbones, duke: the shallow one
        "train": (4 + 2) * 2,
        "embed": (4 + 2) * 2,
        "embed_distractors": 2 * 2 * 3,
        "evaluate": (4 + 2) * 2,
        "follow": 2,
        "distract": 2 * 2,
        "retrieve": 2,
        "inspect": 0,
        "identify": 0,
        "tabulate": 1,
        "illustrate": 1,
        "draw": 1,
        "publish": 1,
    }


def test_jobs_of_the_embedded_experiment() -> None:
    params = load(ROOT / "params.yaml")
    counts = {group: len(members) for group, members in plan(params).items()}
    runs = sum(len(params.variants_of(name)) for name in params.datasets) * len(params.draws)
    assert counts["train"] == counts["embed"] == counts["evaluate"] == runs
    assert counts["dataset"] == counts["index"] == len(params.datasets) * len(params.draws)
    assert counts["distract"] == len(params.distract.variants) * len(params.draws)
    assert counts["embed_distractors"] == counts["distract"] * params.distract.shards
    assert counts["retrieve"] == len(params.report.shown.datasets)
    assert all(counts[name] == 1 for name in ("tabulate", "illustrate", "draw", "publish"))
    assert len(params.variants_of("market")) == len(params.variants)


@pytest.mark.parametrize(
    ("dropped", "kept"),
    [(["duke"], {"market", "crowd"}), (["market"], {"duke"}), (["market", "duke"], set())],
    ids=["one of two", "with its distractors", "all"],
)
def test_plan_without_variants_has_nothing_of_a_dataset(dropped: list[str], kept: set[str]) -> None:
    params = Params.model_validate(changed({f"datasets/{name}/variants": [] for name in dropped}))
    jobs = plan(params)
    assert set(params.used) == kept
    assert {job.rpartition("-draw")[0] for stage in ("dataset", "index") for job in jobs[stage]} == kept
    places = [path for members in jobs.values() for job in members.values() for path in job.outputs.values()]
    gone = {"market", "duke", "crowd"} - kept
    assert not [path for path in places if any(name in path for name in gone)]
    last = [job.parameters for stage in ("draw", "tabulate", "publish") for job in jobs[stage].values()]
    asked = json.dumps([{**parameters, "tables": "which have columns for them"} for parameters in last])
    assert not [name for name in gone if f'"{name}' in asked]
    assert ("contact_sheet" in jobs["draw"]["figures"].parameters) == ("market" in kept)


def test_plan_without_variants_of_the_curves_has_no_distractors() -> None:
    jobs = plan(Params.model_validate(changed({"distract/variants": []})))
    assert (
        {job.rpartition("-draw")[0] for job in jobs["dataset"]} == {"market", "duke"}
        and not jobs["distract"]
        and not jobs["embed_distractors"]
    )


def test_market_is_the_papers_experiment_on_one_dataset() -> None:
    alone, paper = (load(ROOT / f"experiments/{name}/params.yaml") for name in ("market", "paper"))
    assert (alone.train, alone.pretrain, alone.evaluate) == (paper.train, paper.pretrain, paper.evaluate)
    assert alone.datasets == {"market": paper.datasets["market"].model_copy(update={"variants": ["default"]})}
    jobs = plan(alone)
    assert [len(jobs[stage]) for stage in ("index", "initialise", "pretrain", "train", "evaluate")] == [1] * 5


def test_own_photos_on_a_cpu_differ_in_network_and_length_only() -> None:
    small, own = (load(ROOT / f"experiments/{name}/params.yaml") for name in ("own-cpu", "own"))
    assert (small.datasets, small.evaluate) == (own.datasets, own.evaluate)
    rendered = load(ROOT / "params.yaml")
    assert small.backbones["resnet10"] == rendered.backbones["resnet10"]
    assert (small.train, small.pretrain) == (rendered.train, rendered.pretrain)
    assert all(resources.gpu == 0 for resources in small.resources.values())
    assert {stage: len(jobs) for stage, jobs in plan(small).items()} == {
        stage: len(jobs) for stage, jobs in plan(own).items()
    }
    assert sum(map(len, plan(small).values())) == 12


def test_run_starts_from_its_classifier_or_from_the_first_weights() -> None:
    jobs = jobs_of()["train"]
    assert jobs["duke-default-draw1"].inputs["weights"] == "results/tiny/pretrain/duke-shallow-draw1.safetensors"
    assert jobs["market-deep-draw0"].inputs["weights"] == "results/tiny/pretrain/market-deep-draw0.safetensors"
    assert jobs["duke-raw-draw1"].inputs["weights"] == "results/tiny/initialise/shallow-draw1.safetensors"


def test_random_first_weights_and_their_classifier_are_jobs_of_their_own() -> None:
    jobs = jobs_of({"variants/raw": {"initial": "random"}})
    assert jobs["initialise"]["shallow-random-draw1"].parameters.keys() == {"backbone", "seed", "threads", "numerics"}
    started = {name: jobs["train"][f"duke-{name}-draw1"].inputs["weights"] for name in ("default", "raw")}
    classifiers = {
        name: f"results/tiny/pretrain/duke-{job}-draw1.safetensors"
        for name, job in (("default", "shallow"), ("raw", "raw"))
    }
    assert started == classifiers
    assert jobs["pretrain"]["duke-raw-draw1"].inputs["weights"].endswith("/initialise/shallow-random-draw1.safetensors")
    assert jobs["pretrain"]["duke-shallow-draw1"].inputs["weights"].endswith("/initialise/shallow-draw1.safetensors")


def test_models_are_kept_along_the_training_only_where_convergence_is_drawn() -> None:
    kept = jobs_of()["train"]["market-flip-draw0"]
    assert kept.outputs["snapshots"] == "results/tiny/train/market-flip-draw0.snapshots.safetensors"
    without = jobs_of({"follow": MISSING})
    assert "snapshots" not in without["train"]["market-flip-draw0"].outputs
    assert not without["follow"]
    assert "convergence.svg" not in without["draw"]["figures"].outputs


def test_tests_on_another_dataset_train_nothing_and_leave_every_job_as_it_is(tmp_path: Path) -> None:
    changes = {"datasets/market/test_on": ["duke"], "datasets/market/variants": ["default", "flip", "deep"]}
    before, jobs = (jobs_of({key: changes[key] for key in keys}) for keys in ([*changes][1:], changes))
    moved = drawn("market-default-on-duke", "market-flip-on-duke", "market-deep-on-duke")
    for stage, members in before.items():
        added = moved if stage in ("embed", "evaluate") else set()
        assert set(jobs[stage]) == set(members) | added, stage
        if stage not in ("tabulate", "publish"):  # the report has other tables, and the picture other numbers of jobs
            assert {name: jobs[stage][name] for name in members} == members, stage
    embed, evaluate = (jobs[stage]["market-deep-on-duke-draw1"] for stage in ("embed", "evaluate"))
    assert embed.inputs == {
        "index": "results/tiny/index/duke-draw1.parquet",
        "embedder": "results/tiny/train/market-deep-draw1.safetensors",
    }
    assert evaluate.inputs == {
        "index": "results/tiny/index/duke-draw1.parquet",
        "embeddings": "results/tiny/embed/market-deep-on-duke-draw1.safetensors",
    }
    about = {"dataset": "duke", "variant": "deep", "backbone": "deep", "draw": 1, "trained_on": "market"}
    assert evaluate.parameters["run"] == about and evaluate.parameters["format"] == "dukemtmc"
    assert moved < set(jobs["tabulate"]["tables"].parameters["runs"])


def test_dataset_may_be_there_to_test_on_alone() -> None:
    jobs = jobs_of({"datasets/market/test_on": ["duke"], "datasets/duke/variants": []})
    assert set(jobs["index"]) == drawn("market", "duke", "crowd") and not [
        name for name in jobs["train"] if "duke" in name
    ]
    assert "market-raw-on-duke-draw0" in jobs["evaluate"]
    params = Params.model_validate(changed({"datasets/market/test_on": ["duke"], "datasets/market/variants": []}))
    assert params.used == ["duke"]


JOINT = {"both": {"train_on": ["market", "duke"], "test_on": ["duke", "market"], "variants": ["default", "raw"]}}


def test_joint_training_reads_the_joined_index_and_leaves_every_job_as_it_is() -> None:
    before, jobs = jobs_of(), jobs_of({"joint": JOINT})
    tested = {f"both-{variant}-on-{name}" for variant in ("default", "raw") for name in ("market", "duke")}
    added = {"join": ["both"], "pretrain": ["both-shallow"], "train": ["both-default", "both-raw"]}
    for stage, members in before.items():
        more = drawn(*added.get(stage, tested if stage in ("embed", "evaluate") else []))
        assert set(jobs[stage]) == set(members) | more, stage
        if stage not in ("tabulate", "draw", "publish"):
            assert {name: jobs[stage][name] for name in members} == members, stage
    joined = jobs["join"]["both-draw1"]
    parts = ["market-draw1", "duke-draw1"]
    assert joined.parameters == {"indexes": parts, "numerics": "portable"}
    assert joined.inputs == {"indexes": [f"results/tiny/index/{part}.parquet" for part in parts]}
    for stage, name in (("pretrain", "both-shallow-draw1"), ("train", "both-raw-draw1")):
        assert jobs[stage][name].inputs["index"] == joined.outputs["out"] == "results/tiny/join/both-draw1.parquet"
    embed, evaluate = (jobs[stage]["both-raw-on-duke-draw1"] for stage in ("embed", "evaluate"))
    assert embed.inputs["index"] == evaluate.inputs["index"] == "results/tiny/index/duke-draw1.parquet"
    assert embed.inputs["embedder"] == "results/tiny/train/both-raw-draw1.safetensors"
    about = {"dataset": "duke", "variant": "raw", "backbone": "shallow", "draw": 1, "trained_on": "both"}
    assert evaluate.parameters["run"] == about and evaluate.parameters["format"] == "dukemtmc"


def test_curves_of_a_joint_training_are_marked_by_its_scores_on_the_first_test_set() -> None:
    alone = jobs_of()["draw"]["figures"].parameters
    assert alone["scored"] == alone["runs"]
    figures = jobs_of({"joint": JOINT})["draw"]["figures"]
    scored = dict(zip(figures.parameters["runs"], figures.parameters["scored"], strict=True))
    assert scored["both-raw-draw0"] == "both-raw-on-duke-draw0" and scored["duke-raw-draw0"] == "duke-raw-draw0"
    assert figures.inputs["scores"] == [f"results/tiny/evaluate/{name}.json" for name in scored.values()]


def test_joint_training_brings_its_datasets_and_its_digest() -> None:
    def params(changes: dict[str, Any]) -> Params:
        return Params.model_validate(
            changed({f"datasets/{name}/variants": [] for name in ("market", "duke")} | changes)
        )

    both = {"train_on": ["market", "duke"], "test_on": ["duke"], "variants": ["default"]}
    assert params({"joint": {"both": both}}).used == ["market", "duke"]
    assert params({"joint": {"both": both | {"variants": []}}}).used == []
    digests = [jobs_of({"joint": joint})["tabulate"]["tables"].parameters["parameters_digest"] for joint in ({}, JOINT)]
    assert digests[0] == jobs_of()["tabulate"]["tables"].parameters["parameters_digest"] != digests[1]


def test_joint_index_of_folders_is_one_for_all_draws() -> None:
    folders = {f"datasets/{name}/source": {"folder": f"data/{name}"} for name in ("market", "duke")}
    rest = {"distract": MISSING, "report/contact_sheet": MISSING}
    assert set(jobs_of({"joint": JOINT, **folders, **rest})["join"]) == {"both"}
    mixed = {"datasets/duke/source": {"folder": "data/duke"}}
    assert {name: job.parameters["indexes"] for name, job in jobs_of({"joint": JOINT, **mixed})["join"].items()} == {
        f"both-draw{draw}": [f"market-draw{draw}", "duke"] for draw in (0, 1)
    }


def test_what_the_experiment_across_datasets_trains_is_in_the_study() -> None:
    across, study = (plan(load(ROOT / f"experiments/{name}/params.yaml")) for name in ("across", "study"))
    assert len(across["dataset"]) == 8 * 2
    for name, made in across["dataset"].items():  # where images lie, and how they are read, is all that an index holds
        assert made.parameters["root"] == study["dataset"][name].parameters["root"]
        assert across["index"][name].parameters == study["index"][name].parameters
    for stage in ("initialise", "pretrain", "train", "follow"):
        for name, job in across[stage].items():
            assert job.parameters == study[stage][name].parameters, f"{stage} {name}"
    assert len(across["train"]) == 8 * 4 and len(across["evaluate"]) == 8 * 8


def test_folder_with_a_draw_in_its_path_is_one_a_draw() -> None:
    jobs = jobs_of({"datasets/duke/source": {"folder": "splits/{draw}/duke"}})
    roots = {name: job.parameters["root"] for name, job in jobs["dataset"].items() if name.startswith("duke")}
    assert roots == {f"duke-draw{draw}": f"splits/{draw}/duke" for draw in (0, 1)}
    assert jobs["dataset"]["duke-draw1"].parameters["source"]["folder"] == "splits/1/duke"
    assert jobs["train"]["duke-default-draw1"].inputs["index"].endswith("index/duke-draw1.parquet")


def test_job_of_the_distractors_is_a_shard_of_one_run() -> None:
    jobs = jobs_of()
    shard = jobs["embed_distractors"]["market-deep-draw1-2"]
    assert shard.parameters == {"threads": 1, "shard": 2, "shards": 3, "numerics": "portable"}
    assert shard.inputs == {
        "index": "results/tiny/index/crowd-draw1.parquet",
        "embedder": "results/tiny/train/market-deep-draw1.safetensors",
    }
    assert shard.outputs == {"out": "results/tiny/distractors/market-deep-draw1/2.safetensors"}
    assert jobs["distract"]["market-deep-draw1"].parameters["run"] == {
        "dataset": "market",
        "variant": "deep",
        "backbone": "deep",
        "draw": 1,
    }


def test_a_report_that_shows_no_queries_needs_no_pictures_of_them() -> None:
    jobs = jobs_of({"report/shown": MISSING})
    assert not jobs["illustrate"] and not jobs["retrieve"]
    figures = jobs["publish"]["page"].inputs["figures"]
    drawn = [*jobs["draw"].values(), *jobs["tabulate"].values()]
    assert figures and set(figures) <= {path for job in drawn for path in job.outputs.values()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_every_path_of_a_job_is_written_by_another_job(path: Path) -> None:
    jobs = plan(load(path))
    written = {"reports/paper.csv"}
    for stage, members in jobs.items():
        for job in members.values():
            for read in job.inputs.values():
                assert {read} <= written if isinstance(read, str) else set(read) <= written, stage
        outputs = [path for job in members.values() for path in job.outputs.values()]
        assert len(outputs) == len(set(outputs)) and not set(outputs) & written, stage
        written |= set(outputs)


@pytest.mark.parametrize(
    ("backbone", "architecture"),
    [
        ({"block": "bottleneck", "blocks": [3, 4, 23, 3]}, "resnet101"),
        ({"block": "bottleneck", "blocks": [3, 4, 6, 3], "groups": 32, "width_per_group": 4}, "resnext50_32x4d"),
        ({"block": "basic", "blocks": [2, 2, 2, 2], "last_stride": 1}, "resnet18"),
        ({"family": "densenet121"}, "densenet121"),
        ({"family": "inception_v3"}, "inception_v3"),
    ],
)
def test_imagenet_weights_are_those_of_the_published_network(backbone: dict[str, Any], architecture: str) -> None:
    published = {"initialise": {"imagenet": "IMAGENET1K_V1"}, "backbones/shallow": backbone}
    published |= {"train/largest_side": 96, "pretrain/crop_height": 96, "pretrain/crop_width": 96}
    without_deep = {"variants/deep": MISSING, "distract/variants": ["default"], "report/table3": []}
    parameters = jobs_of(published | without_deep)["initialise"]["shallow"].parameters
    assert parameters["architecture"] == architecture
    assert backbone.items() <= parameters["backbone"].items()
    assert None not in parameters["backbone"].values()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbones/shallow": {"block": "basic", "blocks": [2, 2, 2, 2], "width": 32}},
        {"backbones/shallow": {"block": "bottleneck", "blocks": [3, 4, 6, 3], "groups": 2}},
    ],
)
def test_network_without_imagenet_weights_is_reported(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"backbones\.shallow: torchvision publishes no ImageNet weights for it; use"):
        jobs_of({"initialise": {"imagenet": "IMAGENET1K_V1"}, **changes})


@pytest.mark.parametrize("changes", [{"draws": list(range(20_000))}, {"distract/shards": 10**12}])
def test_plan_of_more_jobs_than_an_engine_could_run_is_reported_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="ask for more than 20,000 jobs"):
        jobs_of(changes)


def test_two_runs_of_one_name_are_reported() -> None:
    both = changed({"variants/hard-flip": {"margin": 0.2}})
    both["datasets"]["market-hard"] = both["datasets"]["duke"] | {"variants": ["flip"]}
    with pytest.raises(
        InputError, match="train market-hard-flip-draw0: two jobs have this name; rename a dataset, a backbone or"
    ):
        plan(Params.model_validate(both))


# --- whose settings a change touches

REPORT = {"tabulate/tables"}  # its settings hold a digest of all the parameters


def test_nothing_changed_writes_nothing(tmp_path: Path) -> None:
    assert touched({}, tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        ({"variants/flip": {"flip": True, "crop": 0.5}}, drawn("train/market-flip") | REPORT),
        ({"pretrain/updates": 3}, drawn("pretrain/market-shallow", "pretrain/market-deep", "pretrain/duke-shallow") | REPORT),
        ({"backbones/deep/width": 8}, drawn("initialise/deep") | REPORT),
        ({"initialise/seed": 1}, drawn("initialise/deep", "initialise/shallow") | REPORT),
        ({"datasets/duke/source/render/world": 7}, drawn("dataset/duke") | REPORT),
        ({"datasets/duke/counts/train_images": 8}, drawn("index/duke") | REPORT),
        ({"distract/orders": 9}, drawn("distract/market-default", "distract/market-deep") | REPORT),
        ({"report/table2/0/label": "side 32"}, REPORT),
        ({"report/contact_sheet/identities": 2}, {"draw/figures"}),
        ({"report/shown/images": False}, {"publish/page"}),
        ({"report/title": "Another"}, REPORT),
        ({"resources/embed": {"mem_mb": 5000, "runtime": 60}}, set()),
        (
            {"resources/train/threads": 1},
            {f"train/{run}-draw{draw}" for run in ("market-default", "market-flip", "market-deep", "market-raw", "duke-default", "duke-raw") for draw in (0, 1)},
        ),
    ],
)  # fmt: skip
def test_change_touches_its_own_jobs_only(tmp_path: Path, changes: dict[str, Any], jobs: set[str]) -> None:
    assert touched(changes, tmp_path) == jobs


def test_evaluation_settings_touch_no_training(tmp_path: Path) -> None:
    groups = {job.split("/")[0] for job in touched({"evaluate/k_reciprocal/k1": 3}, tmp_path)}
    assert groups == {"evaluate", "tabulate"}


def test_only_runs_that_there_are_can_be_shown() -> None:
    for changes, message in (
        ({"report/shown/draw": 7}, r"report\.shown\.draw: no run has draw 7; give one of \[0, 1\]"),
        ({"report/shown/datasets": ["crowd"]}, r"report\.shown\.datasets: variant default is trained on none of them"),
        ({"report/shown/variant": "fipl"}, r"report\.shown\.variant: unknown name 'fipl'; did you mean 'flip'\?"),
    ):
        with pytest.raises(ValueError, match=message):
            Params.model_validate(changed(changes))
    assert list(jobs_of({"report/shown/variant": "flip"})["retrieve"]) == ["market-flip-draw0"]  # not trained on duke


def test_variants_of_one_rendered_dataset_are_inspected_in_every_draw() -> None:
    section = {"dataset": "duke", "variants": ["default", "raw"], "blanked": 0.5}
    jobs = jobs_of({"inspect": section, "report/shown/activations": "absolute"})
    assert {f"inspect/{job}" for job in jobs["inspect"]} == drawn("inspect/duke-default", "inspect/duke-raw")
    job = jobs["inspect"]["duke-raw-draw1"]
    assert job.inputs == {
        "index": "results/tiny/index/duke-draw1.parquet",
        "embedder": "results/tiny/train/duke-raw-draw1.safetensors",
        "embeddings": "results/tiny/embed/duke-raw-draw1.safetensors",
        "queries": "results/tiny/evaluate/duke-raw-draw1.parquet",
    }
    rendered = jobs["dataset"]["duke-draw1"].parameters["source"]["render"]
    assert job.parameters["render"] == rendered and rendered["world"] == 2 + planning.DRAWS_APART
    assert (job.parameters["blanked"], job.parameters["activations"]) == (0.5, "absolute")
    assert jobs["tabulate"]["tables"].parameters["inspected"] == list(jobs["inspect"])
    assert (
        jobs_of({"inspect": section, "report/shown": MISSING})["inspect"]["duke-raw-draw1"].parameters["activations"]
        == "value"
    )


def test_inspecting_touches_only_itself_and_the_report(tmp_path: Path) -> None:
    section = {"dataset": "market", "variants": ["default"]}
    assert touched({"inspect": section}, tmp_path) == drawn("inspect/market-default") | {
        "tabulate/tables",
        "publish/page",
    }


def test_open_sets_are_made_in_every_draw_and_touch_only_themselves_and_the_report(tmp_path: Path) -> None:
    changes = {"identify": {"dataset": "duke", "variants": ["raw"], "unknown": 0.25}}
    assert touched(changes, tmp_path) == drawn("identify/duke-raw") | {
        "tabulate/tables",
        "draw/figures",
        "publish/page",
    }
    jobs = jobs_of(changes)
    job = jobs["identify"]["duke-raw-draw1"]
    assert job.inputs == {
        "index": "results/tiny/index/duke-draw1.parquet",
        "embeddings": "results/tiny/embed/duke-raw-draw1.safetensors",
    }
    assert (job.parameters["format"], job.parameters["unknown"], job.parameters["fpir"]) == (
        "dukemtmc",
        0.25,
        [0.01, 0.1],
    )
    for stage, name in (("tabulate", "tables"), ("draw", "figures"), ("publish", "page")):
        assert jobs[stage][name].parameters["identified"] == ["duke-raw-draw0", "duke-raw-draw1"]
    assert {"open_set.svg", "open_set.png", "open_set.csv"} <= set(jobs["draw"]["figures"].outputs)
    assert "reports/tiny/open_set.svg" in jobs["publish"]["page"].inputs["figures"]
    without = jobs_of()
    digests = [each["tabulate"]["tables"].parameters["parameters_digest"] for each in (jobs, without)]
    assert digests[0] != digests[1] and "open_set.svg" not in without["draw"]["figures"].outputs


def test_parameters_without_open_sets_or_joint_trainings_keep_their_digest() -> None:
    """It stands below every table, and was there before these were."""
    params = Params.model_validate(changed({}))
    unused = {name: {"test_on"} for name in params.datasets}
    left_out = dict.fromkeys(("report", "resources", "identify", "joint"), True)
    content = params.model_dump(exclude=left_out | {"datasets": unused})
    assert jobs_of()["tabulate"]["tables"].parameters["parameters_digest"] == keys.digest(content)[:12]


def test_further_draw_touches_only_itself_and_the_report(tmp_path: Path) -> None:
    more = touched({"draws": [0, 1, 2]}, tmp_path)
    assert {job for job in more if "draw2" not in job} == {"tabulate/tables", "draw/figures", "publish/page"}


def test_renaming_a_variant_leaves_its_training_as_it_is() -> None:
    renamed = changed(
        {"variants/mirror": {"flip": True}, "variants/flip": MISSING, "report/table1/0/variant": "mirror"}
    )
    old, new = jobs_of(), plan(Params.model_validate(renamed))
    for group in ("train", "embed"):
        assert old[group]["market-flip-draw0"].parameters == new[group]["market-mirror-draw0"].parameters
    scored = old["evaluate"]["market-flip-draw0"], new["evaluate"]["market-mirror-draw0"]
    assert scored[0].parameters != scored[1].parameters  # scores name their run


def test_training_settings_hold_only_training_parameters() -> None:
    settings = jobs_of()["train"]["market-deep-draw1"].parameters
    assert set(settings) == {"train", "seed", "snapshots", "threads", "workers", "numerics"}
    assert not {"backbone", "pretrain"} & set(settings["train"])


# --- settings files


def test_settings_files_say_whose_they_are_and_vanish_with_their_jobs(tmp_path: Path) -> None:
    write_settings(jobs_of(), tmp_path)
    shard = json.loads((tmp_path / "embed_distractors" / "market-deep-draw1-2.json").read_text())
    assert (shard["stage"], shard["job"], shard["parameters"]["shard"]) == ("embed", "market-deep-draw1-2", 2)
    assert shard["code"] == keys.code_key("embed")
    write_settings(jobs_of({"draws": [0]}), tmp_path)
    assert not list(tmp_path.glob("*/*draw1*"))


def test_manifest_without_its_images_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = plan(load(ROOT / "experiments/smoke/params.yaml"))
    kept, gone = (Path(jobs["dataset"][f"{name}-draw0"].outputs["out"]) for name in ("market", "duke"))
    for manifest in (kept, gone):
        write_text(manifest, "{}")
    kept.with_suffix("").mkdir()
    assert list(clear_places(jobs)) == [f"{gone}: {gone.with_suffix('')} is missing; both are made again"]
    assert kept.exists() and not gone.exists()
    assert list(clear_places(jobs)) == []


def test_unchanged_settings_keep_their_time(tmp_path: Path) -> None:
    for path in write_settings(jobs_of(), tmp_path):
        os.utime(path, (1, 1))
    write_settings(jobs_of({"variants/flip": {"margin": 0.2}}), tmp_path)
    fresh = {path.stem for path in tmp_path.glob("*/*.json") if path.stat().st_mtime != 1}
    assert fresh == {"market-flip-draw0", "market-flip-draw1", "tables"}


# --- folders of the user's own


def test_folder_is_known_by_names_sizes_and_times(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "query").mkdir(parents=True)
    (root / "query" / "1.jpg").write_bytes(b"x")
    first = fingerprint(root)
    assert fingerprint(root) == first
    shutil.copytree(root, tmp_path / "moved")  # copytree keeps times: moving a folder changes nothing
    assert fingerprint(tmp_path / "moved") == first
    os.utime(root / "query" / "1.jpg", (5, 5))
    second = fingerprint(root)
    (root / "query" / "2.jpg").write_bytes(b"")
    assert len({first, second, fingerprint(root), fingerprint(tmp_path / "none")}) == 4
    assert fingerprint(tmp_path / "none") == "absent"


def test_changed_folder_touches_its_dataset(tmp_path: Path) -> None:
    root = tmp_path / "duke"
    own = {"datasets/duke/source": {"folder": str(root)}}
    write_settings(jobs_of(own), tmp_path / "settings")
    root.mkdir()
    (root / "a.jpg").write_bytes(b"x")
    written = write_settings(jobs_of(own), tmp_path / "settings")
    assert [path.relative_to(tmp_path / "settings").as_posix() for path in written] == ["dataset/duke.json"]


# --- what the engines read


def test_rules_have_paths_and_resources_but_no_settings() -> None:
    params = Params.model_validate(changed({}))
    listed = rules(params, plan(params))
    train = listed["rules"]["train"]
    assert train["resources"] == {"threads": 2, "gpu": 0, "mem_mb": 100, "runtime": 5}
    assert train["jobs"]["duke-raw-draw0"] == {
        "settings": "results/tiny/settings/train/duke-raw-draw0.json",
        "index": "results/tiny/index/duke-draw0.parquet",
        "weights": "results/tiny/initialise/shallow-draw0.safetensors",
    }
    assert listed["rules"]["embed_distractors"]["wildcards"]["shard"] == ["0", "1", "2"]
    assert "parameters" not in json.dumps(listed)


def test_resources_of_unknown_stage_are_reported() -> None:
    with pytest.raises(InputError, match=r"resources: unknown name 'tran'; did you mean 'train'\?"):
        jobs_of({"resources/tran": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"report/table3/0/paper": "ResNet101"},
            "report.table3.rows.paper, table 3 of reports/paper.csv: unknown name 'ResNet101'; did you mean 'ResNet-101'?",
        ),
        (
            {"report/tables/table6/columns/0/paper": "markt"},
            "report.tables.table6.columns.paper, table 3 of reports/paper.csv: unknown name 'markt'; did you mean 'market'?",
        ),
        (
            {"report/tables/table6/paper": "7"},
            "report.tables.table6.paper: reports/paper.csv has no table '7'; give the number of one",
        ),
    ],
)
def test_what_the_papers_tables_lack_is_reported(changes: dict[str, Any], message: str) -> None:
    column = {"title": "Market", "dataset": "market", "protocol": "single-query", "paper": "market"}
    table = {"caption": "x", "paper": "3", "columns": [column], "rows": [{"variant": "default", "label": "x"}]}
    with pytest.raises(InputError, match=re.escape(message)):
        jobs_of({"report/tables": {"table6": table}} | changes)


def test_table_of_an_experiments_own_is_written_and_named_under_both_engines() -> None:
    column = {"title": "Market", "dataset": "market", "protocol": "single-query"}
    table = {"caption": "x", "columns": [column], "rows": [{"variant": "default", "label": "x"}]}
    params = Params.model_validate(changed({"report/tables": {"table6": table}}))
    jobs = plan(params)
    asked = jobs["tabulate"]["tables"]
    assert asked.parameters["claims"] == "the paper's claims"
    assert list(asked.parameters["tables"]) == ["table1", "table2", "table3", "table4", "table6"]  # 5 has no rows
    assert asked.outputs["table6.tex"] == "reports/tiny/table6.tex"
    assert rules(params, jobs)["rules"]["tabulate"]["outputs"]["table6.tex"] == "reports/tiny/table6.tex"
    assert "reports/tiny/table6.tex" in pipeline(params, jobs, Path("params.yaml"))
    claim = {
        "report/tables/table6/claims": [{"text": "x", "better": "flip"}],
        "report/tables/table6/rows/0/variant": "flip",
    }
    jobs = jobs_of({"report/tables": {"table6": table}} | claim)
    assert jobs["tabulate"]["tables"].parameters["claims"] == jobs["publish"]["page"].parameters["claims"] == "claims"


def test_dvc_yaml_equals_plan() -> None:
    params = load(ROOT / "params.yaml")
    text = pipeline(params, plan(params), Path("params.yaml"))
    assert (ROOT / "dvc.yaml").read_text() == text, "run: reid plan params.yaml --dvc"


def test_jobs_of_a_network_say_whose_it_is() -> None:
    jobs = jobs_of({"backbones/deep": {"family": "timm:test_vit"}})
    libraries = {
        stage: {job.parameters.get("library") for job in members.values() if job.places.get("variant") == "deep"}
        for stage, members in jobs.items()
    }
    assert libraries["train"] == libraries["embed"] == {"timm"}
    assert [job.parameters.get("library") for job in jobs["initialise"].values()].count("timm") == 2
    assert [name for name, job in jobs["train"].items() if "library" in job.parameters] == [
        "market-deep-draw0",
        "market-deep-draw1",
    ]


def test_imagenet_weights_of_another_library_are_a_file_of_the_users() -> None:
    advice = r"initialise.checkpoints: {shallow: FILE}, or objects"
    with pytest.raises(
        InputError, match=rf"backbones.shallow: no ImageNet weights are known for timm:test_vit; give {advice}"
    ):
        jobs_of({"initialise": {"imagenet": "IMAGENET1K_V1"}, "backbones/shallow": {"family": "timm:test_vit"}})


def test_every_job_with_a_network_says_whose_it_is() -> None:
    foreign = {"family": "timm:test_vit"}
    looked = {"inspect": {"dataset": "market", "variants": ["default"]}}
    jobs = jobs_of({"backbones/shallow": foreign, "backbones/deep": foreign, **looked})
    command = {stage: STAGES[stage].command or stage for stage in jobs}
    running = {
        stage for stage, name in command.items() if keys.code_key(name) != keys.code_key(name, {"library": "timm"})
    }
    assert running >= {"initialise", "pretrain", "train", "embed", "embed_distractors", "illustrate", "inspect"}
    assert jobs["inspect"]
    for stage in running:
        assert {job.parameters.get("library") for job in jobs[stage].values()} <= {"timm"}, stage
    assert not any("library" in job.parameters for job in jobs["dataset"].values())
