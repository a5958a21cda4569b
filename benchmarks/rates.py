"""At what rate does each backbone of experiments/modern-embedded rank? mAP on a validation world, which no report uses.

    python benchmarks/rates.py --json benchmarks/results/rates.json

docs/extending.md has the protocol, written before the first run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import yaml

from reid_done_right import numerics
from reid_done_right.artifacts import read_json, read_weights, write_text

EXPERIMENT = Path("experiments/modern-embedded/params.yaml")
PARAMS, RESULTS = Path("results/rates.yaml"), Path("results/rates")
WORLD, OBJECTS = 1021, 1029
BACKBONES = ("convnext", "vit")
RATES = (2e-3, 5e-4, 1.25e-4)


def main() -> None:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    asked = parser.parse_args()
    content = yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8"))
    content["experiment"] = RESULTS.name
    content["datasets"]["market"]["source"]["render"]["world"] = WORLD
    content["initialise"]["objects"]["world"] = OBJECTS
    tried = {f"{name}-{place}": (name, rate) for name in BACKBONES for place, rate in enumerate(RATES)}
    content["variants"] = {
        key: content["variants"][name] | {"learning_rate": rate} for key, (name, rate) in tried.items()
    }
    told = {name: content["report"][name] for name in ("title", "synthetic", "command", "allow_missing")}
    content["report"] = told | {"baseline": next(iter(tried))}
    write_text(PARAMS, yaml.safe_dump(content, sort_keys=False))
    runs = {key: f"market-{key}-draw0" for key in tried}
    targets = [f"{RESULTS}/evaluate/{run}.json" for run in runs.values()]
    subprocess.run(["snakemake", "--cores", "all", *targets, "--configfile", PARAMS], check=True)
    found = []
    for key, (name, rate) in tried.items():
        scores = read_json(RESULTS / f"evaluate/{runs[key]}.json")
        about = read_weights(RESULTS / f"train/{runs[key]}.safetensors").about
        measured = {"collapsed": about["collapsed"], "mAP": scores["results"][0]["mAP"]}
        found.append({"backbone": name, "learning_rate": rate, **measured})
        print(found[-1])
    chosen = {name: max((each for each in found if each["backbone"] == name), key=_merit) for name in BACKBONES}
    text = {"processor": numerics.processor().get("model name", ""), "tried": found}
    text["chosen"] = {name: each["learning_rate"] for name, each in chosen.items()}
    print(text["chosen"])
    if asked.json:
        asked.json.write_text(json.dumps(text, indent=1) + "\n")


def _merit(tried: dict[str, float]) -> tuple[bool, float]:
    return not tried["collapsed"], tried["mAP"]


if __name__ == "__main__":
    main()
