"""Names of folders, photos and datasets never become commands: both engines run in a hostile path."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from conftest import ROOT, Checkout, copy_of_the_project
from photos import shrink, write_photos
from reid_done_right.dvc import pipeline
from reid_done_right.params import Params, load
from reid_done_right.plan import plan
from tiny import PARAMS

ODD = """a b;touch pwned;$(touch pwned)`touch pwned` 'q' "d" &|#*?[!\\é"""
PHOTOS = "data/$(touch pwned) ;'\"{x}"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in a folder, with photos in a folder, of odd names; the tiny network on them."""
    checkout = Checkout(copy_of_the_project(tmp_path_factory.mktemp("odd") / ODD))
    write_photos(checkout.folder / PHOTOS)
    for path in sorted((checkout.folder / PHOTOS).glob("anna/door/*.jpg"))[:1]:
        path.rename(path.with_name("$(touch pwned);'x' {y}.jpg"))
    shrink(checkout.folder / "experiments/own/params.yaml")
    checkout.change("experiments/own/params.yaml", "datasets/photos/source/folder", PHOTOS)
    return checkout


def unharmed(checkout: Checkout) -> bool:
    top = checkout.folder.parent
    return not [path for path in [*top.rglob("pwned*"), *Path.cwd().glob("pwned*")] if path.is_file()]


@pytest.mark.workflow
def test_snakemake_runs_in_a_folder_of_any_name(odd: Checkout) -> None:
    targets = "results/own/index/photos.parquet results/own/initialise/resnet50-draw0.safetensors"
    odd.run(f"snakemake {targets} --cores 1 --configfile experiments/own/params.yaml")
    printed = odd.run("snakemake --cores 1 --configfile experiments/own/params.yaml --dry-run --printshellcmds")
    assert "reid publish --settings results/own/settings/publish/page.json" in printed
    assert (odd.folder / "results/own/index/photos.parquet").is_file() and unharmed(odd)


@pytest.mark.workflow
def test_dvc_runs_in_a_folder_of_any_name(odd: Checkout) -> None:
    odd.run("reid plan experiments/own/params.yaml --dvc")
    odd.run("dvc repro experiments/own/dvc.yaml:index@photos experiments/own/dvc.yaml:initialise@resnet50-draw0")
    assert (odd.folder / "results/own/index/photos.parquet").is_file() and unharmed(odd)


def test_every_path_in_a_rules_command_is_quoted() -> None:
    (making,) = re.findall(
        r"^def command\(rule\):\n(.*?)^\S", (ROOT / "workflow/rules/common.smk").read_text() + "\n#", re.S | re.M
    )
    assert '" {option} {{{value}:q}}"' in making
    numbers = {"resources.mem_mb", "resources.gpu"}
    assert set(re.findall(r"\{\{([\w.:]+)\}\}", making)) - numbers == {"log:q"}


@pytest.mark.parametrize("odd_name", ["a b", "$(x)", "a;b", "../a", "a/b", "é", "a\n", "-a", "A", "", "{x}", "a'"])
@pytest.mark.parametrize("section", ["experiment", "datasets", "backbones", "variants", "tables"])
def test_name_among_the_parameters_is_plain_letters_and_digits(section: str, odd_name: str) -> None:
    """Names become parts of paths, which DVC puts into commands as they are."""
    content = json.loads(json.dumps(PARAMS))
    place = content["report"] if section == "tables" else content
    place[section] = odd_name if section == "experiment" else {**place.get(section, {}), odd_name: {}}
    with pytest.raises(ValidationError, match="should match pattern"):
        Params.model_validate(content)


@pytest.mark.parametrize("experiment", [".", "experiments/own", "experiments/paper"])
def test_dvc_commands_contain_only_names_and_paths(experiment: str) -> None:
    file = Path(experiment) / "params.yaml"
    params = load(ROOT / file)
    for name, stage in yaml.safe_load(pipeline(params, plan(params), file))["stages"].items():
        for job, item in stage.get("foreach", {}).items():
            assert all(re.fullmatch(r"[a-z0-9./-]+", text) for text in [job, *item.values()]), name
        known = {"key", *(f"item.{field}" for item in stage.get("foreach", {}).values() for field in item)}
        assert set(re.findall(r"\$\{(.*?)\}", str(stage))) <= known, name
