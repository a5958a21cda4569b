"""Both engines on one tree: the smoke experiment, what a change recomputes, kills, conda, and that they agree.

A computation is a new object in the store; what was there before is only linked into place.
"""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, Checkout, copy_of_the_project
from reid import store

pytestmark = pytest.mark.workflow

SMOKE = "experiments/smoke/params.yaml"
SNAKEMAKE = f"snakemake --cores 2 --configfile {SMOKE}"
DVC = "dvc repro experiments/smoke/dvc.yaml"
EXPERIMENTS = {"embedded": ".", "smoke": "experiments/smoke", "paper": "experiments/paper"}
REPORT = ["table1.md", "table2.md", "table3.md", "table4.md", "README.md", "metrics.json", "figure7.csv"]
REPORT += ["figure7.svg", "figure7.png", "training_curves.svg", "training_curves.png", "contact_sheet.png"]


@pytest.fixture(scope="module")
def ran(checkout: Checkout) -> Checkout:
    """The smoke experiment, computed once through Snakemake."""
    checkout.run(SNAKEMAKE)
    return checkout


def reports(checkout: Checkout) -> dict[str, bytes]:
    return {name: (checkout.folder / "reports/smoke" / name).read_bytes() for name in REPORT}


def test_the_smoke_experiment_runs_every_rule(ran: Checkout) -> None:
    assert all(reports(ran).values())
    logs = {path.name for path in (ran.folder / "results/smoke/logs").iterdir()}
    rules = {"dataset", "index", "initialise", "pretrain", "train", "embed", "shard", "evaluate", "distract"}
    assert logs == rules | {"tabulate.log", "draw.log"}


def test_dvc_takes_over_without_computing(ran: Checkout) -> None:
    before = reports(ran)
    assert ran.computed(lambda: ran.run(DVC)) == []
    assert reports(ran) == before
    assert "Nothing to be done" in ran.run(SNAKEMAKE)
    assert "Data and pipelines are up to date" in ran.run(DVC)


@pytest.mark.parametrize("engines", [(SNAKEMAKE, DVC), (DVC, SNAKEMAKE)], ids=["snakemake-first", "dvc-first"])
def test_a_changed_setting_recomputes_its_dependants_once(ran: Checkout, engines: tuple[str, str]) -> None:
    old, new = ("48", "40") if engines[0] == SNAKEMAKE else ("40", "56")
    ran.edit(SMOKE, f"side-48: {{largest_side: {old}}}", f"side-48: {{largest_side: {new}}}")
    assert ran.computed(lambda: ran.run(engines[0])) == ["draw", "embed", "evaluate", "tabulate", "train"]
    assert ran.computed(lambda: ran.run(engines[1])) == []


def test_without_snakemakes_memory_a_change_is_still_seen(ran: Checkout) -> None:
    shutil.rmtree(ran.folder / ".snakemake")
    ran.edit(SMOKE, "side-48: {largest_side: 56}", "side-48: {largest_side: 48}")
    ran.edit(SMOKE, "title: Results of the smoke experiment", "title: Results of a smoke experiment")
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == ["tabulate"]  # side 48 is in the store, its caption is not
    assert "Results of a smoke experiment" in (ran.folder / "reports/smoke/README.md").read_text()


def test_a_comment_recomputes_nothing_and_code_its_stage(ran: Checkout) -> None:
    loop, words = "src/reid/training/rank.py", "src/reid/reporting/markdown.py"
    head = '"""Tables as GitHub Markdown'
    ran.edit(loop, "    log = []\n", "    log = []  # one row an update\n")
    ran.edit(words, head, '"""Tables, as GitHub Markdown')
    assert "Nothing to be done" in ran.run(SNAKEMAKE)
    (ran.folder / words).write_text((ran.folder / words).read_text() + "\n\nUNUSED = 1\n")
    assert ran.computed(lambda: ran.run(DVC)) == ["tabulate"]
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == []


def test_a_data_file_recomputes_what_reads_it(ran: Checkout) -> None:
    ran.edit("reports/paper.csv", "1,- - -,,market,mAP,75.9", "1,- - -,,market,mAP,75.8")
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == ["draw", "tabulate"]
    assert "75.8" in (ran.folder / "reports/smoke/table1.md").read_text()


@pytest.mark.parametrize("engine", [DVC, SNAKEMAKE])
def test_lost_results_come_back_from_the_store(ran: Checkout, engine: str) -> None:
    before = reports(ran)
    for name in ("results", "reports/smoke", ".snakemake", "experiments/smoke/dvc.lock"):
        path = ran.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    assert ran.computed(lambda: ran.run(engine)) == []
    assert reports(ran) == before
    images = ran.folder / "results/smoke/dataset/market/bounding_box_train"
    assert len(list(images.iterdir())) > 16


def killed_in_training(checkout: Checkout, command: str) -> None:
    """Start a command, and kill its whole process group when a training is under way."""
    started = checkout.start(f"exec {command}")  # no shell between, so that the dead process is reaped
    partial = checkout.folder / ".store/partial"
    deadline = time.monotonic() + 120
    while not any(partial.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any(partial.glob("*")), "no training started"
    time.sleep(3)  # past the imports, into the updates
    assert started.poll() is None
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


@pytest.mark.parametrize("engine", [SNAKEMAKE, DVC])
def test_a_killed_run_starts_again(ran: Checkout, engine: str) -> None:
    updates = "1500" if engine == SNAKEMAKE else "1501"
    line = next(row for row in (ran.folder / SMOKE).read_text().splitlines() if "average-pooling: {" in row)
    changed = f"  average-pooling: {{pooling: average, updates: {updates}}}"
    ran.edit(SMOKE, line, changed)
    before = ran.objects()
    killed_in_training(ran, engine)
    assert ran.objects() == before
    run = ran.folder / "results/smoke/train/market-average-pooling-seed0.safetensors"
    if run.exists():  # then it is the former one, whole
        inode = run.stat().st_ino
        assert any(path.stat().st_ino == inode for path in ran.folder.glob(".store/train/*/*/*.safetensors"))
    ran.edit(SMOKE, changed, changed.replace(updates, updates[-2:].replace("0", "2")))  # shorter, to finish soon
    if engine == SNAKEMAKE:
        ran.run(f"{SNAKEMAKE} --unlock")
    assert ran.computed(lambda: ran.run(engine)) == ["draw", "embed", "evaluate", "tabulate", "train"]


def test_two_cold_runs_give_the_same_bytes(ran: Checkout, tmp_path: Path) -> None:
    """Also the smoke experiment from nothing through DVC."""
    other = Checkout(copy_of_the_project(tmp_path))
    for name in ("params.yaml", "plan.yaml"):
        shutil.copy2(ran.folder / "experiments/smoke" / name, tmp_path / "experiments/smoke" / name)
    for name in ("reports/paper.csv", "src/reid/reporting/markdown.py", "src/reid/training/rank.py"):
        shutil.copy2(ran.folder / name, tmp_path / name)
    other.run(DVC)
    first, second = reports(ran), reports(other)
    commit = re.compile(rb"Commit [0-9a-f]+(-dirty)?")
    for name in REPORT:
        assert commit.sub(b"", first[name]) == commit.sub(b"", second[name]), name


def test_dvc_shows_the_experiment(ran: Checkout) -> None:
    assert "mAP" in ran.run("dvc metrics show --md")
    assert "figure7.csv" in ran.run("dvc plots show experiments/smoke/dvc.yaml --json || dvc plots show --json")
    assert "average-pooling" in ran.run("dvc params diff --targets experiments/smoke/params.yaml --md")
    assert "mermaid" in ran.run("dvc dag --md experiments/smoke/dvc.yaml")


def planned(checkout: Checkout, experiment: str) -> set[str]:
    """Give Snakemake's commands, without the redirection to their logs."""
    configfile = f"--configfile {EXPERIMENTS[experiment]}/params.yaml" if experiment != "embedded" else ""
    printed = checkout.run(f"snakemake --cores 64 --forceall --dry-run --printshellcmds {configfile}")
    found = re.findall(r"^Shell command: (reid .*)$", printed, re.MULTILINE)
    return {" ".join(command.split(" > ")[0].split()) for command in found}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_engines_agree_on_every_command(checkout: Checkout, experiment: str) -> None:
    from dvc.repo import Repo

    repo = Repo(checkout.folder)
    path = (checkout.folder / EXPERIMENTS[experiment] / "dvc.yaml").resolve()
    stages = [stage for stage in repo.index.stages if Path(stage.path_in_repo) == path.relative_to(checkout.folder)]
    commands = {" ".join(stage.cmd.split()) for stage in stages if stage.name != "plan"}
    assert commands == planned(checkout, experiment)
    assert len(stages) == len(commands) + 1
    for stage in (stage for stage in stages if stage.name != "plan"):
        files = {dep.def_path.removeprefix("../../") for dep in stage.deps}
        assert all(file in stage.cmd for file in files), stage.name
        made = {out.def_path.removeprefix("../../") for out in stage.outs}
        assert all(any(part in stage.cmd for part in (out, str(Path(out).parent))) for out in made), stage.name


@pytest.mark.parametrize("experiment", ["smoke", "paper"])
def test_dvc_files_of_the_experiments_are_the_top_one(experiment: str) -> None:
    folder = f"experiments/{experiment}"
    own = (ROOT / folder / "dvc.yaml").read_text()
    own = re.sub(r" +wdir: \.\./\.\.\n", "", own).replace(f"{folder}/", "")
    top = (ROOT / "dvc.yaml").read_text()
    without_sheet = [line for line in top.splitlines()[1:] if experiment == "smoke" or "contact_sheet" not in line]
    assert own.splitlines()[1:] == without_sheet


def test_the_papers_experiment_is_drawn_whole(checkout: Checkout) -> None:
    printed = checkout.run("snakemake --dry-run --configfile experiments/paper/params.yaml")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    runs = 2 * 11 + 2
    assert counts["train"] == counts["embed"] == counts["evaluate"] == str(3 * runs)
    assert counts["pretrain"] == str(3 * (2 * 3 + 2))
    assert counts["embed_distractors"] == str(3 * 2 * 8)
    assert not re.search(r"results/(embedded|smoke)/|reports/(embedded|smoke)/", printed)


def test_the_workflow_is_linted(checkout: Checkout) -> None:
    assert "good condition" in checkout.run("snakemake --lint")
    checkout.run("snakefmt --check Snakefile workflow")


def test_a_mistake_in_the_parameters_is_one_line_before_anything_runs(checkout: Checkout, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / SMOKE).read_text())
    content["train"]["margn"] = content["train"].pop("margin")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    printed = checkout.run(f"snakemake --dry-run --configfile {tmp_path}/params.yaml", status=1)
    assert "train.margn: unknown key; did you mean 'margin'?" in printed
    assert "Traceback" not in printed and "rule" not in printed


def test_without_conda_the_present_environment_serves(checkout: Checkout) -> None:
    path = os.pathsep.join(
        p for p in checkout.environment["PATH"].split(os.pathsep) if not (Path(p) / "conda").exists()
    )
    printed = checkout.run(f"{SNAKEMAKE} --use-conda --dry-run", PATH=path)
    assert printed.count("there is no conda here") == 1


CONDA = """#!/usr/bin/env python3
import json, pathlib, sys
root = pathlib.Path({root!r})
asked = sys.argv[1:]
if asked[:1] == ["info"]:
    print(json.dumps({{"conda_prefix": str(root), "platform": "linux-64", "conda_version": "25.1.0"}}))
elif asked == ["--version"]:
    print("conda 25.1.0")
elif asked[:1] == ["config"]:
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif asked[:2] == ["env", "create"]:
    prefix = pathlib.Path(next(later for word, later in zip(asked, asked[1:]) if word in ("--prefix", "-p")))
    (prefix / "bin").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "history").write_text("")
    python = prefix / "bin" / "python"
    python.write_text("#!/bin/sh\\necho ran with $PYTHONPATH >> {log}\\nexec {python} \\"$@\\"\\n")
    python.chmod(0o755)
"""


def test_with_conda_reid_runs_from_the_checkout_in_the_rules_environment(ran: Checkout, tmp_path: Path) -> None:
    """With a stand-in for conda: its environments hold a python that writes down that it was used."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "used.txt"
    conda = tmp_path / "bin/conda"
    conda.write_text(CONDA.format(root=str(tmp_path), log=log, python=sys.executable))
    conda.chmod(0o755)
    (tmp_path / "bin/activate").write_text('export PATH="$1/bin:$PATH"\n')
    path = f"{tmp_path}/bin{os.pathsep}{ran.environment['PATH']}"
    shutil.rmtree(ran.folder / "results/smoke/index")
    ran.run(f"{SNAKEMAKE} --use-conda results/smoke/index/market.parquet", PATH=path)
    assert log.read_text().splitlines() == [f"ran with {ran.folder}/src"]
    ran.run(SNAKEMAKE)


NAMES = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}


def test_each_environment_names_what_its_stages_import() -> None:
    for rules in (ROOT / "workflow/rules").glob("*.smk"):
        for block in rules.read_text().split("\nrule ")[1:]:
            environment = re.search(r"envs/(\w+)\.yaml", block)
            stage = re.search(r'"reid (\w+) ', block)
            assert environment and stage
            listed = yaml.safe_load((ROOT / f"workflow/envs/{environment[1]}.yaml").read_text())["dependencies"]
            flat = [name for entry in listed for name in (entry["pip"] if isinstance(entry, dict) else [entry])]
            have = {re.split(r"[=<>]", name)[0] for name in flat}
            need = {NAMES.get(name, name) for name in imported(f"reid.stages.{stage[1]}") | imported("reid.cli")}
            assert need <= have, f"{environment[1]}.yaml lacks {sorted(need - have)} for {stage[1]}"


def imported(module: str) -> set[str]:
    """Give the packages of others that importing a module of ours imports."""
    packages, waiting, seen = set(), [module], set()
    while waiting:
        name = waiting.pop()
        source = store._source(name)
        if source is None or name in seen:
            continue
        seen.add(name)
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            waiting += [each for each in names if each.startswith("reid.")]
            packages |= {each.split(".")[0] for each in names[:1]}
    return packages - set(sys.stdlib_module_names) - {"reid"}


def test_nothing_to_do_is_said_soon(ran: Checkout) -> None:
    start = time.monotonic()
    assert "Nothing to be done" in ran.run(SNAKEMAKE)
    assert time.monotonic() - start < 60  # seconds on a quiet machine; the bound only catches a hang


def test_plan_json_lists_every_job(checkout: Checkout) -> None:
    listed = json.loads(
        subprocess.run(
            ["reid", "plan", SMOKE], cwd=checkout.folder, env=checkout.environment, capture_output=True, check=True
        ).stdout
    )
    assert set(listed["train"]) == set(listed["embed"]) == set(listed["evaluate"])
