"""Experiments that follow from others:  python experiments/write.py

writes `study`, the embedded experiment on other draws, whose report README.md quotes; `across`, which tests some of
what the study trains on Market and Duke on the other of the two as well, and trains nothing itself after it; and
`readings` (around the paper's experiment) and `readings-embedded` (around the embedded one): on Market-1501 alone, the
default, and a variant for every other value of every parameter of the classification and the ranking stage that
docs/choices.md names as the setting of an open point; and `herd`, the embedded experiment with animals for people.
"""

from pathlib import Path
from typing import Any

import yaml

from reid_done_right.params import load

ROOT = Path(__file__).parents[1]
DRAWS = [2, 3, 4, 5, 6, 7, 8, 9]
"""Of the study: none on which anything was tried out. `make` takes draw 0."""
AROUND = {"readings": ROOT / "experiments/paper/params.yaml", "readings-embedded": ROOT / "params.yaml"}

ACROSS = {"market": "Market", "duke": "Duke"}
MOVED = {"default": "cut-out", "all-augmentations": "flips, crops and cut-out"}
"""Variants of the experiment across datasets, and the groups of its table."""

HERD = {"herd": ("Individuals", "identity"), "flanks": ("Flanks", "flank")}
"""Datasets of the herd, the same photos: title of the columns of each, and what of the table is the identity."""
HERD_DRAWS = [2, 3, 4]
HERD_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("cut-out", {}),
    "no-augmentation": ("none", {"cutout": 0.0}),
    "flip": ("flips, in both trainings", {"cutout": 0.0, "flip": True, "pretrain": {"flip": True}}),
    "no-pretraining": ("cut-out, no classification", {"pretrain": False}),
}
"""Variants of the herd, and what each is augmented by, in words."""

READINGS: dict[
    str, dict[str, Any]
] = {  # parameter -> its readings, in words: those that differ from the default are run
    "train.reduction": {"loss: mean over the batch": "mean", "loss: sum over the batch": "sum"},
    "train.batch_norm": {
        "batch norm: scale and bias frozen": "frozen",
        "batch norm: scale and bias train": "affine",
        "batch norm: statistics of each image train too": "statistics",
    },
    "train.bias": {"linear layer: bias": True, "linear layer: no bias": False},
    "train.head_rate": {"linear layer: the backbone's rate": 1.0, "linear layer: ten times the rate": 10.0},
    "train.views": {"repeated image: two augmentations": "independent", "repeated image: one": "shared"},
    "train.decay": {"rate: continuous": "continuous", "rate: in steps": "steps"},
    "train.warm_up": {"warm-up: none": 0.0, "warm-up: a tenth of the updates": 0.1},
    "train.average": {"model: the last": 0.0, "model: mean over the last eighth": 0.125},
    "train.pool_of": {"pool: of images": "images", "pool: of identities": "identities"},
    "train.mining": {"mining: of the hardest": "hardest", "mining: random triplets": "random"},
    "train.satisfied": {"no loss: drawn again": "redraw", "no loss: kept": "keep"},
    "train.positives": {"positives: any camera": "any", "positives: other cameras": "other-camera"},
    "train.cutout": {"cut-out: to 0.25": 0.25, "cut-out: to 0.5": 0.5, "cut-out: to 0.75": 0.75},
    "train.cutout_least": {"cut-out: sides from 0": 0.0, "cut-out: sides from half": 0.5},
    "train.cutout_growth": {
        "cut-out: constant": 0.0,
        "cut-out: grows for an eighth": 0.125,
        "cut-out: grows for a half": 0.5,
        "cut-out: grows to the end": 1.0,
    },
    "train.cutout_regions": {"cut-out: one region": 1, "cut-out: three regions": 3},
    "pretrain.decay": {
        "classification rate: linear": "linear",
        "classification rate: exponential": "exponential",
        "classification rate: two steps": "steps",
    },
    "pretrain.pooling": {"classification: average pooling": "average", "classification: max pooling": "max"},
    "pretrain.crop_aspect": {"crops: aspect in pixels": "pixels", "crops: aspect of the image": "image"},
    "pretrain.crop_area": {"crops: from 8 %": 0.08, "crops: from 40 %": 0.4},
    "pretrain.flip": {"classification: no flips": False, "classification: flips": True},
    "pretrain.cutout": {"classification: no cut-out": 0.0, "classification: cut-out to 0.5": 0.5},
    "pretrain.passes": {"classification: 20 passes": 20.0, "classification: 60 passes": 60.0},
}
WITH: dict[Any, dict[str, Any]] = {"statistics": {"batching": "sequential"}}
"""What a value needs beside it, which changes no number by itself."""

HEAD = """\
# yaml-language-server: $schema=../../workflow/params.schema.json
# Written by `python experiments/write.py`; do not edit. {about}

"""


def variants(default: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the variants of an experiment's parameters that differ in one reading each, and what they are in words."""
    found: dict[str, Any] = {"default": {}}
    words: dict[str, str] = {}
    for parameter, readings in READINGS.items():
        section, key = parameter.split(".")
        for number, (word, value) in enumerate(readings.items()):
            if default[section][key] != value:
                name = f"{section}-{key}-{number}".replace("_", "-")
                found[name] = {key: value, **WITH.get(value, {})} if section == "train" else {"pretrain": {key: value}}
                words[name] = word
    return found, words


def around(experiment: str, source: Path) -> str:
    """Return the parameters of the readings around an experiment, as YAML."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    found, words = variants(load(source).model_dump())
    content |= {"experiment": experiment, "variants": found}
    content["datasets"] = {"market": content["datasets"]["market"] | {"variants": "all"}}
    content.pop("follow", None)
    title = "What each reading of the paper changes"
    table = {
        "caption": title,
        "headers": ["Reading"],
        "columns": [{"title": "Market", "dataset": "market", "protocol": "single-query", "metrics": ["mAP", "rank-1"]}],
        "rows": [{"variant": name, "label": words.get(name, "the default")} for name in found],
    }
    content["report"] = _report(content, title) | {"tables": {"table6": table}}
    return _written(_reduced(content), "What it is for: experiments/readings/README.md")


def across(source: Path) -> str:
    """Return the parameters of the experiment across datasets, as YAML: a part of the study, tested on more."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    content |= {"experiment": "across", "draws": DRAWS}
    content["variants"] = {name: content["variants"][name] for name in MOVED}
    content["datasets"] = {
        name: {
            "format": content["datasets"][name]["format"],
            "source": {"folder": f"results/study/dataset/{name}-draw{{draw}}"},  # an index names its folder
            "variants": "all",
            "test_on": [other for other in ACROSS if other != name],
        }
        for name in ACROSS
    }
    content["follow"]["variants"] = ["default"]  # its snapshots are kept by every training of the study
    table = {
        "caption": "Trained here, tested there",
        "headers": ["", "Trained on"],
        "columns": [
            {"title": title, "dataset": name, "protocol": "single-query", "metrics": ["mAP", "rank-1"]}
            for name, title in ACROSS.items()
        ],
        "rows": [
            {"group": group, "variant": variant, "trained_on": name, "label": title}
            for variant, group in MOVED.items()
            for name, title in ACROSS.items()
        ],
        "claims": [
            {"text": "Training elsewhere costs", "effect": "costs"},
            {
                "text": "Training elsewhere costs, with flips and crops",
                "better": "all-augmentations",
                "effect": "costs",
            },
            {
                "text": "Flips and crops beside cut-out",
                "better": "all-augmentations",
                "worse": "default",
                "effect": "measured",
            },
        ],
    }
    content["report"] = _report(content, "What is lost from one dataset to another") | {"tables": {"table6": table}}
    return _written(_reduced(content), "What it is for: docs/extending.md, across datasets.")


def herd(source: Path) -> str:
    """Return the parameters of the experiment with animals, as YAML: wide images, no cameras, two sides."""
    content = _reduced(yaml.safe_load(source.read_text(encoding="utf-8")))
    content |= {"experiment": "herd", "draws": HERD_DRAWS}
    render = {"world": 31, "hardness": 0.3, "train_ids": 120, "test_ids": 60, "photos": 16}
    content["datasets"] = {
        name: {
            "format": "csv",
            "source": {"render": dict(render)},
            "read": {"table": "metadata.csv", "columns": {"person_id": column}, "splits": "disjoint"},
            "protocol": {"same_camera_is_junk": False},
            "variants": "all" if name == "herd" else ["default"],
            "test_on": [other for other in HERD if other != name],
        }
        for name, (_, column) in HERD.items()
    }
    content["pretrain"] |= {"updates": 500, "crop_height": 48, "crop_width": 72, "flip": False}
    content["train"] |= {"largest_side": 72, "updates": 128, "halve_every": 26, "learning_rate": 0.05}
    content["variants"] = {name: changes for name, (_, changes) in HERD_VARIANTS.items()}
    content.pop("follow", None)
    table = {
        "caption": "Individuals, and their sides",
        "headers": ["", "Augmented by"],
        "columns": [
            {"title": title, "dataset": name, "protocol": "single-query", "metrics": ["mAP", "rank-1"]}
            for name, (title, _) in HERD.items()
        ],
        "rows": [
            {"group": f"labels: {title.lower()}", "variant": variant, "trained_on": name, "label": words}
            for name, (title, _) in HERD.items()
            for variant, (words, _) in HERD_VARIANTS.items()
            if name == "herd" or variant == "default"
        ],
        "claims": [
            {"text": "Classification first", "worse": "no-pretraining", "trained_on": ["herd"]},
            {"text": "Cut-out", "worse": "no-augmentation", "trained_on": ["herd"]},
            {"text": "Flips, which swap the sides", "better": "flip", "worse": "no-augmentation", "effect": "measured"},
            {"text": "Labels of the other kind", "effect": "measured"},
        ],
    }
    shown = {"datasets": ["herd"], "variant": "default", "draw": HERD_DRAWS[0], "images": True, "queries": 40}
    content["report"] = _report(content, "Animals and their coats") | {"shown": shown, "tables": {"table6": table}}
    return _written(content, "What it is for: docs/own_data.md, a rendered herd.")


def _report(content: dict[str, Any], title: str) -> dict[str, Any]:
    """Return the parameters of the report that every experiment here needs."""
    told = {key: content["report"][key] for key in ("synthetic", "baseline", "allow_missing")}
    command = f"snakemake --cores all --configfile experiments/{content['experiment']}/params.yaml"
    return {"title": title, "command": command, **told}


def _reduced(content: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's parameters with the default's backbone, and without what is measured beside the scores."""
    backbones = {name: each for name, each in content["backbones"].items() if name == content["train"]["backbone"]}
    content |= {"backbones": backbones}
    return {section: each for section, each in content.items() if section not in ("distract", "inspect", "identify")}


def study(source: Path) -> str:
    """Return the parameters of the study, as YAML: an experiment, draw by draw."""
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    content |= {"experiment": "study", "draws": DRAWS}
    content["report"] |= {"title": "Results of the study", "command": "make study"}
    content["report"]["shown"] |= {"draw": DRAWS[0]}
    return _written(content, "The embedded experiment, params.yaml, where every key is explained, on other draws.")


def _written(content: dict[str, Any], about: str) -> str:
    return HEAD.format(about=about) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    for experiment, source in AROUND.items():
        (ROOT / f"experiments/{experiment}/params.yaml").write_text(around(experiment, source), encoding="utf-8")
    for experiment, written in (("study", study), ("across", across), ("herd", herd)):
        (ROOT / f"experiments/{experiment}/params.yaml").write_text(written(ROOT / "params.yaml"), encoding="utf-8")
