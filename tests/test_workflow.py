"""Both engines on the smoke experiment: what they compute, what a change recomputes, kills, losses, conda.

A computation is a new object in the store; what was there before is only linked into place. The experiment is run once;
each test changes a copy of what that left. What needs no run is in test_engines.py.
"""

import ast
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from conftest import HAS_GIT, NOT_IN_SMOKE, ROOT, Checkout, copy_of_the_project, needs_git
from reid_done_right import numerics
from reid_done_right.artifacts import remove
from reid_done_right.dag import COMMANDS, STAGES
from reid_done_right.extras import PACKAGES
from reid_done_right.store import keys
from traces import traces

pytestmark = pytest.mark.workflow

SMOKE = "experiments/smoke/params.yaml"
SNAKEMAKE = f"snakemake --cores 2 --configfile {SMOKE}"
DVC = "dvc repro experiments/smoke/dvc.yaml"
ENGINES = pytest.mark.parametrize("engine", [SNAKEMAKE, DVC], ids=["snakemake", "dvc"])
IN_EITHER_ORDER = pytest.mark.parametrize(
    ("engine", "other"), [(SNAKEMAKE, DVC), (DVC, SNAKEMAKE)], ids=["snakemake-first", "dvc-first"]
)
RANKING = "src/reid_done_right/training/ranking.py"
SIDE_48 = "market-side-48-draw0"
UPDATES = 100  # of a training that is killed: time enough to see it begin
FIGURES = ("forest", "figure1", "figure4", "figure5", "figure6", "figure7")
FIGURES += ("training_curves", "similarities", "open_set")
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
REPORT += ["training_curves.csv", "open_set.csv"]
REPORT += [f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")]


class Finished(NamedTuple):
    """A tree in which an engine has nothing left to do, what its last run computed, and what that printed."""

    checkout: Checkout
    computed: list[str]
    printed: str


@pytest.fixture(scope="module")
def through_dvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkout, "subprocess.Popen[str]"]]:
    """A smaller smoke experiment, on its way from nothing through DVC beside the other tests; its lines count."""
    other = Checkout(copy_of_the_project(tmp_path_factory.mktemp("through_dvc")))
    shrink(other)
    if HAS_GIT:
        other.run("git -c user.name=other -c user.email=other@localhost commit --quiet --all --message fewer")
    covered = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    started = other.start(f"reid plan {SMOKE} --dvc && exec {DVC} > dvc.log 2>&1", **covered)
    yield other, started
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, through_dvc: tuple[Checkout, "subprocess.Popen[str]"]) -> Checkout:
    """The smoke experiment, computed once through Snakemake."""
    checkout = Checkout(copy_of_the_project(tmp_path_factory.mktemp("ran")))
    checkout.run(SNAKEMAKE)
    checkout.run(f"reid plan {SMOKE} --dvc")
    return checkout


@pytest.fixture(scope="module")
def fewer(ran: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same with two runs only."""
    checkout = copied(ran, tmp_path_factory.mktemp("fewer"))
    shrink(checkout)
    return Finished(checkout, *computing(checkout, SNAKEMAKE))


@pytest.fixture(scope="module")
def taken_over(fewer: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same after DVC, which reads dvc.yaml before it can know that it is old, and so has to be asked twice."""
    checkout = copied(fewer.checkout, tmp_path_factory.mktemp("taken_over"))
    said = checkout.run(DVC, 255)
    assert "dvc.yaml: the parameters ask for other jobs; it is updated, run the same again" in said
    return Finished(checkout, *computing(checkout, DVC))


@pytest.fixture
def tree(fewer: Finished, tmp_path: Path) -> Checkout:
    """A copy to change of what Snakemake finished."""
    return copied(fewer.checkout, tmp_path / "tree")


@pytest.fixture
def tree_of_both(taken_over: Finished, tmp_path: Path) -> Checkout:
    """A copy to change of what both engines finished."""
    return copied(taken_over.checkout, tmp_path / "tree")


@pytest.fixture
def tree_of(request: pytest.FixtureRequest) -> Callable[[str], Checkout]:
    """Copy what the engine finished, and for DVC what it took over."""
    return lambda engine: request.getfixturevalue("tree" if engine == SNAKEMAKE else "tree_of_both")


def copied(checkout: Checkout, folder: Path) -> Checkout:
    """Copy a tree with its times and with its hard links among each other."""
    subprocess.run(["cp", "--archive", f"{checkout.folder}/.", folder], check=True)
    return Checkout(folder)


def computing(checkout: Checkout, command: str) -> tuple[list[str], str]:
    """Run a command; return what it computed and printed."""
    printed: list[str] = []
    return checkout.computed(lambda: printed.append(checkout.run(command))), printed[0]


def shrink(checkout: Checkout) -> None:
    """Leave two runs of the smoke experiment, every rule still at least once."""
    datasets = yaml.safe_load((checkout.folder / SMOKE).read_text())["datasets"]
    datasets["market"]["variants"] = ["default", "side-48"]
    checkout.change(SMOKE, "datasets", {name: datasets[name] for name in ("market", "market-500k")})


def reports(checkout: Checkout) -> dict[str, bytes]:
    return {name: (checkout.folder / "reports/smoke" / name).read_bytes() for name in REPORT}


def lose(checkout: Checkout, *names: str) -> None:
    for name in names:
        remove(checkout.folder / name)


# --- what is computed


def test_smoke_experiment_runs_every_rule_but_one(ran: Checkout) -> None:
    assert all(reports(ran).values())
    logs = {path.name for path in (ran.folder / "results/smoke/logs").iterdir()}
    assert logs == set(STAGES) - NOT_IN_SMOKE


@pytest.mark.skipif(not numerics.supported(), reason="needs x86-64 with AVX2 under Linux")
def test_smoke_artifacts_are_those_of_every_other_machine(ran: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from digests import digests, first_difference

    known = json.loads((ROOT / "benchmarks/results/digests.json").read_text())["smoke"]
    assert first_difference(known, digests(ran.folder, "smoke", STAGES)) == ""


def test_all_artifacts_are_whole_and_a_table_is_traced_to_the_images(ran: Checkout, tmp_path: Path) -> None:
    tree = copied(ran, tmp_path / "tree")
    assert re.search(r"verify: (\d+) of \1 artifacts are whole", tree.run("reid verify results/smoke"))
    manifest = json.loads((tree.folder / "results/smoke/dataset/market-draw0.json").read_text())
    assert manifest["sha256"] in tree.run("reid why reports/smoke/table1.md")
    table = tree.folder / "reports/smoke/table1.md"
    table.write_text(table.read_text().replace("|", "||"))
    assert "changed reports/smoke/table1.md: not as a stage wrote it" in tree.run("reid verify results/smoke", status=1)


def test_fewer_runs_recompute_the_report(fewer: Finished) -> None:
    assert fewer.computed == ["draw", "publish report", "tabulate"]


def test_dvc_takes_over_without_computing(fewer: Finished, taken_over: Finished, tree_of_both: Checkout) -> None:
    assert taken_over.computed == []
    assert reports(tree_of_both) == reports(fewer.checkout)
    assert "Nothing to be done" in tree_of_both.run(SNAKEMAKE)
    assert ran_through_dvc(tree_of_both.run(DVC)) == ["plan"]


def ran_through_dvc(printed: str) -> list[str]:
    """Return the stages that were not skipped; the plan always runs."""
    return re.findall(r"^Running stage '.*:(.*)':$", printed, re.MULTILINE)


@IN_EITHER_ORDER
def test_a_killed_run_starts_again_and_computes_what_changed_once(
    tree_of_both: Checkout, engine: str, other: str, tmp_path: Path
) -> None:
    """Killed in the training of a changed variant, which alone is trained and embedded; then each run is evaluated."""
    tree = tree_of_both
    tree.change(SMOKE, "variants/side-48", {"largest_side": 40, "updates": UPDATES})
    assert tree.computed(lambda: kill_in_training(tree, engine, tmp_path / "printed.txt")) == []
    assert not [path for path in (tree.folder / "results/smoke/train").iterdir() if SIDE_48 in path.name]
    if engine == SNAKEMAKE:
        assert "--unlock" in tree.run(engine, status=1)
        tree.run(f"{engine} --unlock")
    tree.change(SMOKE, "evaluate/k_reciprocal/k1", 6)
    dependants = ["draw", f"embed {SIDE_48}", "evaluate market-default-draw0", f"evaluate {SIDE_48}"]
    dependants += ["illustrate", "inspect market-default-draw0", "publish report", "tabulate", f"train {SIDE_48}"]
    assert tree.computed(lambda: tree.run(engine)) == dependants
    assert not list((tree.folder / ".store/partial").iterdir())
    assert tree.computed(lambda: tree.run(other)) == []


def kill_in_training(checkout: Checkout, command: str, printed: Path) -> None:
    """Start a command and kill it and all its children between two updates of a training."""
    started = checkout.start(f"exec {command} > {printed} 2>&1", TQDM_MININTERVAL="0.1")
    logs = [printed, checkout.folder / f"results/smoke/logs/train/{SIDE_48}.log"]
    wanted = re.compile(rf"\b[1-9]\d*/{UPDATES} \[")  # of the progress bar
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
    """Return whether no process holds the open lock file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_a_title_recomputes_the_tables_and_the_page(tree: Checkout) -> None:
    """Also where Snakemake remembers nothing, as in a tree that DVC made."""
    lose(tree, ".snakemake")
    tree.change(SMOKE, "report/title", "A smoke experiment")
    tree.edit(SMOKE, "48 pixels (paper: 256)", "48 pixels, the fewest")
    assert tree.computed(lambda: tree.run(SNAKEMAKE)) == ["publish report", "tabulate"]
    assert "48 pixels, the fewest" in (tree.folder / "reports/smoke/table2.md").read_text()
    assert "A smoke experiment" in (tree.folder / "reports/smoke/README.md").read_text()
    assert "48 pixels, the fewest" in (tree.folder / "reports/smoke/report.html").read_text()


def test_a_printed_value_recomputes_the_report(tree: Checkout) -> None:
    tree.edit("reports/paper.csv", "1,- - -,,market,mAP,75.9", "1,- - -,,market,mAP,12.3")
    assert tree.computed(lambda: tree.run(SNAKEMAKE)) == ["draw", "publish report", "tabulate"]
    assert "12.3" in (tree.folder / "reports/smoke/table1.md").read_text()


def test_a_comment_or_docstring_recomputes_nothing(tree: Checkout) -> None:
    tree.edit(RANKING, "optimizer.descend(rate)\n", "optimizer.descend(rate)  # downhill\n")
    tree.edit(RANKING, '"""The ranking loop: ', '"""The loop of the ranking stage: ')
    assert "Nothing to be done" in tree.run(SNAKEMAKE)


def test_a_caption_in_the_code_recomputes_what_prints_it(tree_of_both: Checkout) -> None:
    tree = tree_of_both
    tree.edit(
        "src/reid_done_right/reporting/tables.py", "One draw says nothing of others", "A draw says nothing of others"
    )
    tree.edit("src/reid_done_right/reporting/markdown.py", "Training of every run", "How every run trained")
    assert tree.computed(lambda: tree.run(DVC)) == ["publish report", "tabulate"]
    assert "How every run trained" in (tree.folder / "reports/smoke/report.html").read_text()


def test_the_ranking_loop_recomputes_the_trainings_and_what_follows(tree: Checkout) -> None:
    """All that Snakemake would run again; of those, the jobs of one run are run."""
    tree.edit(RANKING, "optimizer.descend(rate)", "optimizer.descend(1.01 * rate)")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", tree.run(f"{SNAKEMAKE} --dry-run"), re.MULTILINE))
    assert {rule: int(count) for rule, count in counts.items() if rule not in ("all", "total")} == {
        **dict.fromkeys(("train", "embed", "embed_distractors", "evaluate"), 2),
        **dict.fromkeys(("follow", "distract", "retrieve", "inspect", "identify", "tabulate"), 1),
        **dict.fromkeys(("illustrate", "draw", "publish"), 1),
    }
    scores = f"results/smoke/evaluate/{SIDE_48}.json"
    expected = [f"{stage} {SIDE_48}" for stage in ("embed", "evaluate", "train")]
    assert tree.computed(lambda: tree.run(f"{SNAKEMAKE} -- {scores}")) == expected


@ENGINES
def test_lost_results_come_back_from_the_store(tree_of: Callable[[str], Checkout], engine: str) -> None:
    tree = tree_of(engine)
    before = reports(tree)
    lose(tree, "results", "reports/smoke", ".snakemake", "experiments/smoke/dvc.lock")
    assert tree.computed(lambda: tree.run(engine)) == []
    assert reports(tree) == before
    images = tree.folder / "results/smoke/dataset/market-draw0/bounding_box_train"
    assert len(list(images.iterdir())) > 16


def test_snakemake_over_a_changed_report_restores_it_in_one_go(tree: Checkout) -> None:
    """As `git checkout` of a former report leaves it."""
    before = reports(tree)
    for name in REPORT:
        (tree.folder / "reports/smoke" / name).write_text("of another commit")
    warned = "".join(re.findall(r"^reid: warning: .*; restored from the store\n", tree.run(SNAKEMAKE), re.MULTILINE))
    assert all(f"reports/smoke/{name}" in warned for name in REPORT if name != "report.html")
    assert reports(tree) == before
    assert not list(tree.folder.rglob("*.damaged"))


def test_snakemake_over_an_empty_model_restores_it_in_one_go(tree: Checkout) -> None:
    before, name = reports(tree), f"results/smoke/train/{SIDE_48}.safetensors"
    (tree.folder / name).unlink()
    (tree.folder / name).touch()
    warning = f"reid: warning: {name}: missing or not as a stage wrote it; restored from the store"
    assert warning in tree.run(SNAKEMAKE).splitlines()
    assert reports(tree) == before and (tree.folder / name).stat().st_size


def test_snakemake_over_damage_in_the_store_tells_it_and_repairs_it_when_run_again(tree: Checkout) -> None:
    before = reports(tree)
    name = f"results/smoke/embed/{SIDE_48}.safetensors"
    embeddings = tree.folder / name
    embeddings.chmod(0o644)
    with embeddings.open("r+b") as opened:  # the store's file, too
        opened.truncate(100)
    printed = tree.run(SNAKEMAKE, status=1)
    assert f"reid: error: {name}: damaged or changed since a stage wrote it, and the store has no copy" in printed
    tree.run(SNAKEMAKE)
    assert reports(tree) == before and embeddings.stat().st_size > 100


@needs_git
def test_two_cold_runs_give_the_same_bytes(
    fewer: Finished, through_dvc: tuple[Checkout, "subprocess.Popen[str]"]
) -> None:
    one, (other, started) = fewer.checkout, through_dvc
    assert started.wait(timeout=1800) == 0, (other.folder / "dvc.log").read_text()[-6000:]
    first, second = reports(one), reports(other)
    assert [name for name in REPORT if first[name] != second[name]] == []
    assert one.run("git rev-parse HEAD") != other.run("git rev-parse HEAD")
    digest = json.loads(first["report.json"])["about"]["parameters_digest"]
    assert {name: found for name in REPORT if (found := traces(one.folder / "reports/smoke" / name, digest))} == {}
    made, lock = "?? experiments/smoke/dvc.yaml", "?? experiments/smoke/dvc.lock"  # DVC wants neither ignored
    assert one.run("git status --porcelain").splitlines() == [f" M {SMOKE}", made]  # the first by `shrink`
    assert other.run("git status --porcelain").splitlines() == ["?? dvc.log", lock, made]  # the log is ours


def test_dvc_commit_adopts_what_snakemake_finished(tree: Checkout) -> None:
    """In one process, without starting a command; afterwards nothing is left to run."""
    before = reports(tree)
    tree.run(f"reid plan {SMOKE} --dvc")
    assert tree.computed(lambda: tree.run("dvc commit --force experiments/smoke/dvc.yaml")) == []
    assert ran_through_dvc(tree.run(DVC)) == ["plan"]
    assert reports(tree) == before


@needs_git
def test_dvc_shows_the_experiment(tree: Checkout) -> None:
    assert f"train@{SIDE_48}" in tree.run("dvc dag --md experiments/smoke/dvc.yaml")
    ancestors = tree.run(f"dvc dag --md experiments/smoke/dvc.yaml:train@{SIDE_48}")
    assert "pretrain@" in ancestors and "evaluate@" not in ancestors
    assert "market.single-query mAP" in tree.run("dvc metrics show --md reports/smoke/metrics.json")
    tree.change(SMOKE, "train/margin", 0.2)
    assert re.search(r"train\.margin.*0\.1.*0\.2", tree.run(f"dvc params diff --targets {SMOKE} --md"))
    page = tree.folder / "results/plots"
    tree.run(f"dvc plots show --out {page} 'smoke: mAP among distractors' 'smoke: triplet loss'")
    shown = (page / "index.html").read_text()
    assert shown.count("vegaEmbed(") == 2 and '"mAP": "0.' in shown and '"loss": "0.' in shown
    assert all(f'"field": "{column}"' in shown for column in ("distractors", "mAP", "variant", "update", "dataset"))
    log = f"results/smoke/train/{SIDE_48}.csv"
    tree.run(f"dvc plots show --out {page} -x update -y loss {log}")
    shown = (page / "index.html").read_text()
    header, *rows = (row.split(",") for row in (tree.folder / log).read_text().splitlines())
    assert '"field": "loss"' in shown
    assert len(rows) == 16 and all(row[header.index("loss")] in shown for row in rows)


# --- conda


def test_without_conda_the_present_environment_serves(tree: Checkout) -> None:
    folders = tree.environment["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not (Path(folder) / "conda").exists())
    lose(tree, "results/smoke/index/market-draw0.parquet")
    printed = tree.run(f"{SNAKEMAKE} --use-conda results/smoke/index/market-draw0.parquet", PATH=path)
    assert printed.count("there is no conda here, so all rules run in the present environment") == 1
    assert (tree.folder / "results/smoke/index/market-draw0.parquet").exists()


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


def test_with_conda_reid_runs_from_the_checkout_in_the_rules_environment(tree: Checkout, tmp_path: Path) -> None:
    """With a stand-in for conda: its environments hold a python that writes down that it was used, and for what."""
    (tmp_path / "bin").mkdir()
    log = tmp_path / "used.txt"
    conda = tmp_path / "bin/conda"
    conda.write_text(CONDA.format(root=str(tmp_path), log=log, python=sys.executable))
    conda.chmod(0o755)
    (tmp_path / "bin/activate").write_text('export PATH="$1/bin:$PATH"\n')
    tree.run(f"{SNAKEMAKE} --use-conda --forceall", PATH=f"{tmp_path}/bin{os.pathsep}{tree.environment['PATH']}")
    used = [line.split("|") for line in log.read_text().splitlines()]
    assert {source for _, source, _ in used} == {f"{tree.folder}/src"}
    environments = {(stage, (Path(prefix) / "environment.yaml").read_text()) for prefix, _, stage in used}
    envs = ROOT / "workflow/envs"
    expected = {(stage, (envs / name).read_text()) for stage, name in environments_of_stages().items()}
    assert {stage for stage, _ in expected - environments} == NOT_IN_SMOKE and environments < expected


def environments_of_stages() -> dict[str, str]:
    """Return the environment file of each stage."""
    return {stage: f"{STAGES[stage].environment}.yaml" for stage in COMMANDS}


NAMES = PACKAGES | {"urllib3": "requests"}


def test_conda_environments_cover_imports() -> None:
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
    """Return the packages of others that running a stage can import, in functions too."""
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
            if name in ("reid_done_right.artifacts", "reid_done_right.gpus"):
                # weights are read and written, and GPUs asked for, by stages that import torch themselves
                names = [each for each in names if each.split(".")[0] != "torch"]
            waiting += [each for each in names if each.startswith(tuple(f"{package}." for package in keys.PACKAGES))]
            packages |= {each.split(".")[0] for each in names[:1]}
    return packages - set(sys.stdlib_module_names) - set(keys.PACKAGES)
