"""Both engines on one tree: the smoke experiment, what a change recomputes, kills, conda, and that they agree.

A computation is a new object in the store; what was there before is only linked into place. Every test leaves the
store with everything that the tree's parameters and code ask for, so each also runs alone.
"""

import ast
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from conftest import HAS_GIT, ROOT, Checkout, copy_of_the_project, needs_git
from reid_done_right import numerics
from reid_done_right.dag import COMMANDS, STAGES
from reid_done_right.store import keys
from traces import traces

if TYPE_CHECKING:
    from dvc.stage import Stage

pytestmark = pytest.mark.workflow

SMOKE = "experiments/smoke/params.yaml"
SNAKEMAKE = f"snakemake --cores 2 --configfile {SMOKE}"
DVC = "dvc repro experiments/smoke/dvc.yaml"
ENGINES = pytest.mark.parametrize("engine", [SNAKEMAKE, DVC], ids=["snakemake", "dvc"])
IN_EITHER_ORDER = pytest.mark.parametrize(
    ("engine", "other"), [(SNAKEMAKE, DVC), (DVC, SNAKEMAKE)], ids=["snakemake-first", "dvc-first"]
)
EXPERIMENTS = {"embedded": "."} | {name: f"experiments/{name}" for name in ("smoke", "paper", "own")}
SIDE_48 = "market-side-48-seed0"
FIGURES = ("figure1", "figure4", "figure5", "figure6", "figure7", "training_curves", "similarities")
REPORT = [f"table{number}.{kind}" for number in (1, 2, 3, 4) for kind in ("md", "html", "tex", "csv")]
REPORT += [
    "findings.md",
    "findings.html",
    "README.md",
    "metrics.json",
    "report.json",
    "report.html",
    "figure7.csv",
    "contact_sheet.png",
]
REPORT += ["training_curves.csv"]
REPORT += [f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")]


@pytest.fixture(scope="module")
def through_dvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkout, "subprocess.Popen[str]"]]:
    """A smaller smoke experiment, on its way from nothing through DVC beside the other tests."""
    other = Checkout(copy_of_the_project(tmp_path_factory.mktemp("through_dvc")))
    shrink(other)
    if HAS_GIT:
        other.run("git -c user.name=other -c user.email=other@localhost commit --quiet --all --message fewer")
    started = other.start(f"reid plan {SMOKE} --dvc && exec {DVC} > dvc.log 2>&1")
    yield other, started
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, through_dvc: tuple[Checkout, "subprocess.Popen[str]"]) -> Checkout:
    """The smoke experiment, computed once through Snakemake."""
    checkout = Checkout(copy_of_the_project(tmp_path_factory.mktemp("ran")))
    covered = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    checkout.run(SNAKEMAKE, **covered)
    checkout.run(f"reid plan {SMOKE} --dvc")
    return checkout


def shrink(checkout: Checkout) -> None:
    """Leave two runs of the smoke experiment, every rule still at least once."""
    datasets = yaml.safe_load((checkout.folder / SMOKE).read_text())["datasets"]
    datasets["market"]["variants"] = ["default", "side-48"]
    checkout.change(SMOKE, "datasets", {name: datasets[name] for name in ("market", "market-500k")})


def reports(checkout: Checkout) -> dict[str, bytes]:
    return {name: (checkout.folder / "reports/smoke" / name).read_bytes() for name in REPORT}


def remove(checkout: Checkout, *names: str) -> None:
    for name in names:
        path = checkout.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


# --- what is computed


def test_the_smoke_experiment_runs_every_rule(ran: Checkout) -> None:
    assert all(reports(ran).values())
    logs = {path.name for path in (ran.folder / "results/smoke/logs").iterdir()}
    assert logs == set(STAGES)


@pytest.mark.skipif(not numerics.supported(), reason="needs x86-64 with AVX2 under Linux")
def test_smoke_artifacts_are_those_of_every_other_machine(ran: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from digests import digests, first_difference

    known = json.loads((ROOT / "benchmarks/results/digests.json").read_text())["smoke"]
    assert first_difference(known, digests(ran.folder, "smoke", STAGES)) == ""


def test_all_artifacts_are_whole_and_a_table_is_traced_to_the_images(ran: Checkout) -> None:
    ran.run(SNAKEMAKE)
    assert re.search(r"verify: (\d+) of \1 artifacts are whole", ran.run("reid verify results/smoke"))
    manifest = json.loads((ran.folder / "results/smoke/dataset/market.json").read_text())
    assert manifest["sha256"] in ran.run("reid why reports/smoke/table1.md")
    table = ran.folder / "reports/smoke/table1.md"
    whole = table.read_text()
    table.write_text(whole.replace("|", "||"))
    assert "changed reports/smoke/table1.md: not as a stage wrote it" in ran.run("reid verify results/smoke", status=1)
    table.write_text(whole)


def test_fewer_runs_recompute_the_report(ran: Checkout) -> None:
    shrink(ran)
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == ["draw", "publish report", "tabulate"]


def test_dvc_takes_over_without_computing(ran: Checkout) -> None:
    """But it reads dvc.yaml before it can know that it is old, and so has to be asked twice."""
    shrink(ran)
    ran.run(SNAKEMAKE)
    before = reports(ran)
    assert "dvc.yaml: the parameters ask for other jobs; it is updated, run the same again" in ran.run(DVC, 255)
    assert ran.computed(lambda: ran.run(DVC)) == []
    assert reports(ran) == before
    assert "Nothing to be done" in ran.run(SNAKEMAKE)
    assert "Data and pipelines are up to date" in ran.run(DVC)


@IN_EITHER_ORDER
def test_a_killed_run_starts_again_and_computes_what_changed_once(
    ran: Checkout, engine: str, other: str, tmp_path: Path
) -> None:
    """Killed in the training of a changed variant, which alone is trained and embedded; then each run is evaluated."""
    updates, side, k1 = (150, 40, 6) if engine == SNAKEMAKE else (151, 56, 7)
    shrink(ran)
    ran.run(f"reid plan {SMOKE} --lists experiments/smoke/plan.yaml --quiet || true")  # 1 where DVC did not know them
    ran.change(SMOKE, "variants/side-48", {"largest_side": side, "updates": updates})
    assert ran.computed(lambda: kill_in_training(ran, engine, updates, tmp_path / "printed.txt")) == []
    assert not [path for path in (ran.folder / "results/smoke/train").iterdir() if SIDE_48 in path.name]
    if engine == SNAKEMAKE:
        assert "--unlock" in ran.run(engine, status=1)
        ran.run(f"{engine} --unlock")
    ran.change(SMOKE, "evaluate/k_reciprocal/k1", k1)
    dependants = ["draw", f"embed {SIDE_48}", "evaluate market-default-seed0", f"evaluate {SIDE_48}"]
    dependants += ["illustrate", "publish report", "tabulate", f"train {SIDE_48}"]
    assert ran.computed(lambda: ran.run(engine)) == dependants
    assert not list((ran.folder / ".store/partial").iterdir())
    assert ran.computed(lambda: ran.run(other)) == []


def kill_in_training(checkout: Checkout, command: str, updates: int, printed: Path) -> None:
    """Start a command and kill it and all its children between two updates of a training."""
    started = checkout.start(f"exec {command} > {printed} 2>&1", TQDM_MININTERVAL="0.1")
    logs = [printed, checkout.folder / f"results/smoke/logs/train/{SIDE_48}.log"]
    wanted = re.compile(rf"\b[1-9]\d*/{updates} \[")  # of the progress bar
    deadline = time.monotonic() + 600
    while not any(log.is_file() and wanted.search(log.read_text(errors="replace")) for log in logs):
        assert started.poll() is None, f"it ended before it trained\n{printed.read_text()}"
        assert time.monotonic() < deadline, f"no training within ten minutes\n{printed.read_text()}"
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    (lock,) = checkout.folder.glob(".store/partial/*.lock")
    handle = os.open(lock, os.O_RDONLY)
    while not free(handle):  # a child that outlived the kill would hold it until it had trained
        assert time.monotonic() < deadline, "a child outlived its killed parent"
        time.sleep(0.05)
    os.close(handle)


def free(handle: int) -> bool:
    """Tell whether no process holds the open lock file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_title_recomputes_the_tables_and_the_page(ran: Checkout) -> None:
    """Also where Snakemake remembers nothing, as in a tree that DVC made."""
    remove(ran, ".snakemake")
    ran.change(SMOKE, "report/title", "A smoke experiment")
    ran.edit(SMOKE, "48 pixels (paper: 256)", "48 pixels, the fewest")
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == ["publish report", "tabulate"]
    assert "48 pixels, the fewest" in (ran.folder / "reports/smoke/table2.md").read_text()
    assert "A smoke experiment" in (ran.folder / "reports/smoke/README.md").read_text()
    assert "<h1>A smoke experiment</h1>" in (ran.folder / "reports/smoke/report.html").read_text()


def test_a_printed_value_recomputes_the_report(ran: Checkout) -> None:
    ran.edit("reports/paper.csv", "1,- - -,,market,mAP,75.9", "1,- - -,,market,mAP,12.3")
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == ["draw", "publish report", "tabulate"]
    assert "12.3" in (ran.folder / "reports/smoke/table1.md").read_text()


def test_a_comment_or_docstring_recomputes_nothing(ran: Checkout) -> None:
    ran.run(SNAKEMAKE)
    ran.edit(
        "src/reid_done_right/training/ranking.py", "optimizer.descend(rate)\n", "optimizer.descend(rate)  # downhill\n"
    )
    ran.edit("src/reid_done_right/training/ranking.py", '"""The ranking loop: ', '"""The loop of the ranking stage: ')
    assert "Nothing to be done" in ran.run(SNAKEMAKE)


def test_a_caption_in_the_code_recomputes_what_prints_it(ran: Checkout) -> None:
    ran.edit(
        "src/reid_done_right/reporting/tables.py", "left out of every mean, no finding: ", "in no mean, no finding: "
    )
    ran.edit("src/reid_done_right/reporting/markdown.py", "Training of every run", "How every run trained")
    assert ran.computed(lambda: ran.run(DVC)) == ["publish report", "tabulate"]
    assert "How every run trained" in (ran.folder / "reports/smoke/report.html").read_text()


def test_the_ranking_loop_recomputes_the_trainings_and_what_follows(ran: Checkout) -> None:
    shrink(ran)
    ran.run(SNAKEMAKE)
    ran.edit("src/reid_done_right/training/ranking.py", "optimizer.descend(rate)", "optimizer.descend(1.01 * rate)")
    runs = ["market-default-seed0", SIDE_48]
    expected = ["distract market-default-seed0", "draw", "embed 0", "embed 1", "tabulate"]
    expected += ["retrieve market-default-seed0", "illustrate", "publish report"]
    expected += [f"{stage} {run}" for stage in ("train", "embed", "evaluate") for run in runs]
    assert ran.computed(lambda: ran.run(SNAKEMAKE)) == sorted(expected)


@ENGINES
def test_lost_results_come_back_from_the_store(ran: Checkout, engine: str) -> None:
    before = reports(ran)
    remove(ran, "results", "reports/smoke", ".snakemake", "experiments/smoke/dvc.lock")
    assert ran.computed(lambda: ran.run(engine)) == []
    assert reports(ran) == before
    images = ran.folder / "results/smoke/dataset/market/bounding_box_train"
    assert len(list(images.iterdir())) > 16


def test_snakemake_over_a_changed_report_restores_it_in_one_go(ran: Checkout) -> None:
    """As `git checkout` of a former report leaves it."""
    shrink(ran)
    ran.run(SNAKEMAKE)
    before = reports(ran)
    for name in REPORT:
        (ran.folder / "reports/smoke" / name).write_text("of another commit")
    warned = "".join(re.findall(r"^reid: warning: .*; restored from the store\n", ran.run(SNAKEMAKE), re.MULTILINE))
    assert all(f"reports/smoke/{name}" in warned for name in REPORT if name != "report.html")
    assert reports(ran) == before
    assert not list(ran.folder.rglob("*.damaged"))


def test_snakemake_over_an_empty_model_restores_it_in_one_go(ran: Checkout) -> None:
    shrink(ran)
    ran.run(SNAKEMAKE)
    before, name = reports(ran), f"results/smoke/train/{SIDE_48}.safetensors"
    (ran.folder / name).unlink()
    (ran.folder / name).touch()
    warning = f"reid: warning: {name}: missing or not as a stage wrote it; restored from the store"
    assert warning in ran.run(SNAKEMAKE).splitlines()
    assert reports(ran) == before and (ran.folder / name).stat().st_size


def test_snakemake_over_damage_in_the_store_tells_it_and_repairs_it_when_run_again(ran: Checkout) -> None:
    shrink(ran)
    ran.run(SNAKEMAKE)
    before = reports(ran)
    name = f"results/smoke/embed/{SIDE_48}.safetensors"
    embeddings = ran.folder / name
    embeddings.chmod(0o644)
    with embeddings.open("r+b") as opened:  # the store's file, too
        opened.truncate(100)
    printed = ran.run(SNAKEMAKE, status=1)
    assert f"reid: error: {name}: damaged or changed since a stage wrote it, and the store has no copy" in printed
    ran.run(SNAKEMAKE)
    assert reports(ran) == before and embeddings.stat().st_size > 100
    embeddings.with_name(f"{embeddings.name}.damaged").unlink()


@needs_git
def test_two_cold_runs_give_the_same_bytes(
    ran: Checkout, through_dvc: tuple[Checkout, "subprocess.Popen[str]"]
) -> None:
    other, started = through_dvc
    assert started.wait(timeout=1800) == 0, (other.folder / "dvc.log").read_text()[-6000:]
    ran.run("git checkout --quiet .")
    remove(ran, "experiments/smoke/dvc.lock")
    shrink(ran)
    ran.run(SNAKEMAKE)
    first, second = reports(ran), reports(other)
    assert [name for name in REPORT if first[name] != second[name]] == []
    assert ran.run("git rev-parse HEAD") != other.run("git rev-parse HEAD")
    digest = json.loads(first["report.json"])["about"]["parameters_digest"]
    assert {name: found for name in REPORT if (found := traces(ran.folder / "reports/smoke" / name, digest))} == {}
    made, lock = "?? experiments/smoke/dvc.yaml", "?? experiments/smoke/dvc.lock"  # DVC wants neither ignored
    assert ran.run("git status --porcelain").splitlines() == [f" M {SMOKE}", made]  # the first by this test
    assert other.run("git status --porcelain").splitlines() == ["?? dvc.log", lock, made]  # the log is ours


@needs_git
def test_dvc_shows_the_experiment(ran: Checkout) -> None:
    assert f"train@{SIDE_48}" in ran.run("dvc dag --md experiments/smoke/dvc.yaml")
    assert "market.single-query mAP" in ran.run("dvc metrics show --md reports/smoke/metrics.json")
    ran.change(SMOKE, "train/margin", 0.2)
    assert re.search(r"train\.margin.*0\.1.*0\.2", ran.run(f"dvc params diff --targets {SMOKE} --md"))
    ran.change(SMOKE, "train/margin", 0.1)
    page = ran.folder / "results/plots"
    ran.run(f"dvc plots show --out {page} 'smoke: mAP among distractors' 'smoke: triplet loss'")
    shown = (page / "index.html").read_text()
    assert shown.count("vegaEmbed(") == 2 and '"mAP": "0.' in shown and '"loss": "0.' in shown
    assert all(f'"field": "{column}"' in shown for column in ("distractors", "mAP", "variant", "update", "dataset"))
    log = f"results/smoke/train/{SIDE_48}.csv"
    ran.run(f"dvc plots show --out {page} -x update -y loss {log}")
    shown = (page / "index.html").read_text()
    header, *rows = (row.split(",") for row in (ran.folder / log).read_text().splitlines())
    assert '"field": "loss"' in shown
    assert len(rows) == 16 and all(row[header.index("loss")] in shown for row in rows)


# --- that the engines agree


def planned(checkout: Checkout, experiment: str) -> dict[str, tuple[set[str], set[str]]]:
    """Give Snakemake's commands, without the redirection to their logs, and the files that each reads and writes."""
    configfile = f"--configfile {EXPERIMENTS[experiment]}/params.yaml" if experiment != "embedded" else ""
    printed = checkout.run(f"snakemake --cores 64 --forceall --dry-run --printshellcmds {configfile}")
    job = r"^ +input: (.*)\n +output: (.*)\n(?: +.*\n)*Shell command: .*?(reid .*?) > .*$"
    return {
        " ".join(command.split()): (set(read.split(", ")), set(written.split(", ")))
        for read, written, command in re.findall(job, printed, re.MULTILINE)
    }


@pytest.fixture(scope="module")
def stages_of_dvc(checkout: Checkout) -> "list[Stage]":
    from dvc.repo import Repo

    for folder in EXPERIMENTS.values():
        checkout.run(f"reid plan {folder}/params.yaml --dvc")
    return list(Repo(checkout.folder).index.stages)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_engines_agree_on_every_command_and_file(
    checkout: Checkout, stages_of_dvc: "list[Stage]", experiment: str
) -> None:
    file = f"{EXPERIMENTS[experiment]}/dvc.yaml".removeprefix("./")
    stages = [stage for stage in stages_of_dvc if stage.path_in_repo == file]
    (plan,) = (stage for stage in stages if stage.name == "plan")
    jobs = planned(checkout, experiment)
    assert {" ".join(stage.cmd.split()) for stage in stages if stage is not plan} == set(jobs)
    assert len(stages) == len(jobs) + 1
    for stage in stages:
        if stage is not plan:
            read, written = jobs[" ".join(stage.cmd.split())]
            deps = {dep.def_path for dep in stage.deps}  # a folder stands for the files in it
            assert {out.def_path for out in stage.outs} == written, stage.name
            assert all(deps & {name, *map(str, Path(name).parents)} for name in read), stage.name
            assert all(any(Path(name).is_relative_to(dep) for name in read) for dep in deps), stage.name
    check, listing = plan.cmd.split(" && ")
    checkout.run(listing)  # fails if the file is not of the parameters
    checkout.run(check, status=int(experiment in ("paper", "own")))  # whose data are not here


def test_the_papers_experiment_is_drawn_whole(checkout: Checkout) -> None:
    printed = checkout.run("snakemake --dry-run --configfile experiments/paper/params.yaml")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE))
    runs = 2 * 11 + 2
    assert counts["train"] == counts["embed"] == counts["evaluate"] == str(3 * runs)
    assert counts["pretrain"] == str(3 * (2 * 3 + 2))
    assert counts["embed_distractors"] == str(3 * 2 * 8)
    assert not re.search(r"(results|reports)/(embedded|smoke)/", printed)


# --- before anything runs


def test_the_workflow_is_linted(checkout: Checkout) -> None:
    assert "good condition" in checkout.run("snakemake --lint")
    checkout.run("snakefmt --check Snakefile workflow")


@pytest.mark.parametrize("command", ["snakemake --dry-run --configfile", "reid plan"])
def test_a_mistake_in_the_parameters_is_one_line(checkout: Checkout, command: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / SMOKE).read_text())
    content["train"]["margn"] = 0.1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    printed = checkout.run(f"{command} {tmp_path}/params.yaml", status=1)
    lines = [line for line in printed.splitlines() if line and not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1
    assert lines[0].endswith(": train.margn: unknown key; did you mean 'margin'?")


# --- conda


@pytest.mark.parametrize(
    "engine", ["snakemake --cores 2 --configfile experiments/own/params.yaml", "dvc repro experiments/own/dvc.yaml"]
)
def test_a_missing_folder_stops_an_engine_before_any_job(checkout: Checkout, engine: str) -> None:
    """Without photos the dry run still shows the graph; a job that reads none still runs."""
    checkout.run("reid plan experiments/own/params.yaml --dvc")
    printed = checkout.run(engine, status=1 if engine.startswith("snakemake") else 255)
    assert (
        "dataset photos is missing: data/photos: no such folder; these are photos of your own; put it to data/photos"
        in printed
    )
    assert "Traceback" not in printed and not (checkout.folder / "results/own/dataset").exists()
    checkout.run("snakemake --dry-run --configfile experiments/own/params.yaml")


def test_without_conda_the_present_environment_serves(ran: Checkout) -> None:
    folders = ran.environment["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "conda").exists())
    remove(ran, "results/smoke/index/market.parquet")
    printed = ran.run(f"{SNAKEMAKE} --use-conda results/smoke/index/market.parquet", PATH=path)
    assert printed.count("there is no conda here, so all rules run in the present environment") == 1
    assert (ran.folder / "results/smoke/index/market.parquet").exists()


CONDA = """#!{python}
import json, pathlib, shutil, sys
asked = sys.argv[1:]
if asked[:1] == ["info"]:
    print(json.dumps({{"conda_prefix": {root!r}, "platform": "linux-64", "conda_version": "25.1.0"}}))
elif asked == ["--version"]:
    print("conda 25.1.0")
elif asked[:1] == ["config"]:
    print(json.dumps({{"get": {{"channel_priority": "strict"}}}}))
elif asked[:2] == ["env", "create"]:
    prefix, file = (pathlib.Path(asked[asked.index(f"--{{word}}") + 1]) for word in ("prefix", "file"))
    (prefix / "bin").mkdir(parents=True)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "history").touch()
    shutil.copy(file, prefix / "environment.yaml")
    python = prefix / "bin" / "python"
    python.write_text(f'#!/bin/sh\\necho "{{prefix}}|$PYTHONPATH|$3" >> {log}\\nexec {python} "$@"\\n')
    python.chmod(0o755)
"""


def test_with_conda_reid_runs_from_the_checkout_in_the_rules_environment(ran: Checkout, tmp_path: Path) -> None:
    """With a stand-in for conda: its environments hold a python that writes down that it was used, and for what."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "used.txt"
    conda = tmp_path / "bin/conda"
    conda.write_text(CONDA.format(root=str(tmp_path), log=log, python=sys.executable))
    conda.chmod(0o755)
    (tmp_path / "bin/activate").write_text('export PATH="$1/bin:$PATH"\n')
    shrink(ran)
    ran.run(f"{SNAKEMAKE} --use-conda --forceall", PATH=f"{tmp_path}/bin{os.pathsep}{ran.environment['PATH']}")
    used = [line.split("|") for line in log.read_text().splitlines()]
    assert {source for _, source, _ in used} == {f"{ran.folder}/src"}
    environments = {(stage, (Path(prefix) / "environment.yaml").read_text()) for prefix, _, stage in used}
    envs = ROOT / "workflow/envs"
    assert environments == {(stage, (envs / name).read_text()) for stage, name in environments_of_stages().items()}


def environments_of_stages() -> dict[str, str]:
    """Return the environment file of each stage."""
    return {stage: f"{STAGES[stage].environment}.yaml" for stage in COMMANDS}


NAMES = {"PIL": "pillow", "urllib3": "requests", "cv2": "opencv-python-headless", "yaml": "pyyaml"}


def test_each_environment_names_what_its_stages_import() -> None:
    stages = environments_of_stages()
    for stage, name in stages.items():
        listed = yaml.safe_load((ROOT / f"workflow/envs/{name}").read_text())
        assert set(listed) == {"channels", "dependencies"}
        flat = [
            name for entry in listed["dependencies"] for name in (entry["pip"] if isinstance(entry, dict) else [entry])
        ]
        have = {re.split(r"[=<>]", name)[0] for name in flat}
        modules = [
            f"reid_done_right.stages.{stage}",
            *(["reid_done_right.stages.fetch"] if stage in ("dataset", "initialise") else []),
        ]
        need = {NAMES.get(name, name) for module in modules for name in imported(module)}
        assert need <= have, f"{name} lacks {sorted(need - have)} for {stage}"


OTHERS = {"reid_done_right.stages.fetch", "reid_done_right.training.workers"}
"""What only some stages need of `running`."""


def imported(module: str) -> set[str]:
    """Give the packages of others that running a stage can import, in functions too."""
    packages, waiting, seen = set(), [module, "reid_done_right.__main__", "reid_done_right.running"], set()
    while waiting:
        name = waiting.pop()
        source = keys._source(name)
        if source is None or name in seen:
            continue
        seen.add(name)
        tree = ast.parse(source.read_text())
        others = name.startswith("reid_done_right.cli")  # its functions import other commands, such as plan
        for node in tree.body if others else ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if name == "reid_done_right.running":
                names = [each for each in names if each not in OTHERS]
            if (
                name == "reid_done_right.artifacts"
            ):  # weights are read and written by stages that import torch themselves
                names = [each for each in names if each.split(".")[0] != "torch"]
            waiting += [each for each in names if each.startswith(tuple(f"{package}." for package in keys.PACKAGES))]
            packages |= {each.split(".")[0] for each in names[:1]}
    return packages - set(sys.stdlib_module_names) - set(keys.PACKAGES)
