"""README and docs: commands run, tables and graph are current, and the changes to copy apply.

`python tests/test_readme.py` pastes the report's tables and the graph into them again.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT, Checkout, Reid, committed, copy_of_the_project
from photos import shrink, write_photos
from reid_done_right.dag import STAGES, Read, Write, edges
from reid_done_right.readiness.page import duration

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLES = ("table1", "table3")
ELSEWHERE = {
    "make": "the main job",
    "make test": "this",
    "make coverage": "this, half as long again",
    "make setup": "the tests run in what it installs",
    "make check": "a part of this",
    "make soak": "minutes",
    "make lock": "needs the package index",
    "make licences": "test_packages.py makes the page and compares it",
    "make audit": "needs the advisory database of the package index",
    "make test-oldest": "needs the package index",
    "make fuzz": "minutes; test_hostile.py tries the same parsers",
    'make fuzz SECONDS=3600 TARGETS="image archive"': "hours",
    "pytest --hypothesis-profile soak tests/test_hostile.py": "an hour",
    ". .venv/bin/activate": "the tests put the environment on PATH",
    "reid check experiments/paper/params.yaml": "test_readiness.py; its status is 1 without the datasets",
    "snakemake --cores all --configfile experiments/paper/params.yaml": "needs the real datasets",
    "dvc repro experiments/paper/dvc.yaml": "needs the real datasets",
    "reid fetch experiments/paper/params.yaml": "needs the real datasets",
    "snakemake --cores all results/paper/evaluate/market-default-draw0.json --configfile experiments/paper/params.yaml": (
        "needs the real datasets"
    ),
    "dvc repro": "the main job through DVC; test_workflow.py runs the smoke experiment so",
    "dvc status dvc.yaml": "needs the runs",
    "dvc metrics show reports/embedded/metrics.json": "test_workflow.py",
    "dvc commit --force dvc.yaml": "needs the runs; test_workflow.py does so with the smoke experiment's",
    "dvc params diff --all": "test_workflow.py",
    "dvc plots show": "test_workflow.py",
    "dvc dag --md train@market-flip-draw0": "test_workflow.py",
    "reid verify results/embedded": "needs the runs; test_workflow.py does so with the smoke experiment's",
    "reid why reports/embedded/table1.md": "needs the runs; test_workflow.py",
    "reid compare embedded/market-default embedded/market-flip": "needs the runs; test_compare.py",
    "reid compare results/embedded ../other/results/embedded": "needs the runs; test_compare.py",
    "dvc exp run -S train.margin=0.2": "all trainings again",
    "snakemake --workflow-profile profiles/slurm --configfile experiments/paper/params.yaml": "needs the real datasets",
    "snakemake --cores all --resources gpu=8 --configfile experiments/paper/params.yaml": "needs the real datasets",
    "snakemake --cores all --configfile experiments/herd/params.yaml": "minutes; test_herd.py scores a small one",
    "make test-slurm": "test_slurm.py, which it runs",
    "make test-gpu": "needs a GPU",
    "python benchmarks/device.py --json device.json": "needs a GPU; test_device_benchmark.py runs it on a CPU",
    "python benchmarks/gpu.py --json gpu.json": "needs a GPU; test_gpu_benchmark.py runs it on a CPU",
    "snakemake --dry-run --workflow-profile profiles/kubernetes --container-image registry.example.org/reid:1 "
    "--default-storage-prefix s3://bucket/reid --kubernetes-persistent-volumes data:/workdir/data "
    "images:/workdir/results/paper/dataset store:/workdir/.store --configfile experiments/paper/params.yaml": (
        "test_kubernetes.py"
    ),
    "pip install --no-deps --require-hashes --target .dvc-s3 --requirement dvc-s3.lock": "make test-kubernetes",
    "dvc remote add --local kept s3://bucket/dvc": "test_s3.py",
    "PYTHONPATH=.dvc-s3 dvc push --remote kept dvc.yaml": "test_s3.py",
    "PYTHONPATH=.dvc-s3 dvc pull --remote kept dvc.yaml": "test_s3.py",
    "PYTHONPATH=.dvc-s3 dvc gc --workspace --cloud --remote kept": "test_s3.py",
}


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return language and content of a page's fenced blocks in these languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, content) for language, content in found if language in languages]


def commands(page: Path) -> list[str]:
    """Return the lines of its shell blocks, without comments."""
    return [line for _, content in blocks(page, "sh") for line in lines_to_run(content)]


def lines_to_run(content: str) -> list[str]:
    return [line.split("#")[0].strip() for line in content.splitlines()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for all pages, several of which train the same model first."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.workflow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run_in_their_order(page: Path, tmp_path: Path, reid: Reid, store: Path) -> None:
    todo = [
        (language, part)
        for language, content in blocks(page, "python", "sh", *(["diff"] if page.name in CHANGED else []))
        for part in (lines_to_run(content) if language == "sh" else [content])
        if part not in ELSEWHERE
    ]
    if not todo:
        return
    checkout = Checkout(copy_of_the_project(tmp_path), clusters=page.name == "engines.md")
    PREPARED.get(page.name, lambda folder: None)(checkout.folder)
    for language, part in todo:
        if language == "python":
            subprocess.run([sys.executable, "-c", part], cwd=checkout.folder, check=True)
        elif language == "diff":
            checkout.edit(*change(part))
        elif part.startswith("reid score "):
            assert reid(checkout.folder, *shlex.split(part)[1:]).returncode == 0, part
        else:
            # REID_DEVICE: where an experiment asks for a GPU
            assert checkout.run(part, REID_DEVICE="cpu", REID_STORE=str(store)), part


def photos_of_ones_own(folder: Path) -> None:
    """Put photos where docs/own_data.md has them, and make its experiment tiny."""
    write_photos(folder / "data/photos")
    shrink(folder / "experiments/own/params.yaml")


PREPARED = {"own_data.md": photos_of_ones_own}
CHANGED = ("own_data.md", "report.md", "first_experiment.md")  # pages whose changes are applied


def change(diff: str) -> tuple[str, str, str]:
    """Return the file of a change, and its text before and after."""
    _, file, *rest = diff.splitlines()
    old, new = ("".join(f"{line[1:]}\n" for line in rest if line[0] != left) for left in "+-")
    return file.removeprefix("+++ b/"), old, new


def test_commands_run_elsewhere_are_still_there() -> None:
    assert {command for page in PAGES for command in commands(page)} >= set(ELSEWHERE)


def test_quick_start_is_two_commands() -> None:
    assert commands(README)[:2] == ["make", "make test"]
    assert blocks(README, "sh")[0][1].count("\n") == 2


def excerpt(content: str) -> str:
    """Return heading and first table of a report's file."""
    heading, *lines = content.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join([heading, "", *lines[start:end]])


def reported(experiment: str, table: str) -> str:
    """Return heading and first table of a committed report's file."""
    return excerpt((ROOT / f"reports/{experiment}/{table}.md").read_text())


def pipeline() -> str:
    """Return the picture of the graph."""
    boxes = [f'    {name}["<b>{name}</b><br>{stage.brief}"]' for name, stage in STAGES.items()]
    arrows = [f"    {start} --> {end}" for start, end in edges()]
    return "\n".join(["```mermaid", "flowchart TD", *boxes, *arrows, "```"])


def stages() -> str:
    """Return the table of what each stage reads and writes."""
    rows = []
    for name, stage in STAGES.items():
        read, written = _files(stage.reads, "results/{experiment}/"), _files(stage.writes, "results/{experiment}/")
        outside = ["what is from outside, if anything"] if stage.fetches else []
        rows.append(f"| `{name}` | {', '.join([*read, *outside])} | {', '.join(written)} |")
    return "\n".join(["| rule | reads | writes |", "|---|---|---|", *rows])


def _files(files: Mapping[str, Read] | Mapping[str, Write], below: str) -> list[str]:
    """Name files, those that differ in their ending only together."""
    kinds: dict[str, list[str]] = {}
    for file in files.values():
        path = file.path.removeprefix(below).replace("{each}", "*")
        stem, dot, kind = re.sub(r"\{(\w+)\}", r"<\1>", path).partition(".")
        kinds.setdefault(stem, []).append(dot + kind)
    return [f"`{stem}{', '.join(found)}`" for stem, found in kinds.items()]


SCALE = ROOT / "benchmarks/results/scale.json"
CORES = 16  # of a node


def scale() -> str:
    """Return what shards cost, as measured."""
    found = json.loads(SCALE.read_text())
    rows = [f"| without | | | {100 * found['mAP'][0]:.1f} |"]
    parts = (found[name] for name in ("distractors", "seconds_per_million", "extra_gib"))
    for size, seconds, gib, score in zip(*parts, found["mAP"][1:], strict=True):
        rows.append(f"| {size:,} | {seconds:.1f} | {gib:.2f} | {100 * score:.1f} |")
    head = "| distractors | CPU seconds a million | extra GiB | mAP |\n|---:|---:|---:|---:|"
    searched, again = found["search"], found["k_reciprocal"]
    told = [
        f"- Embeddings of 2048 dimensions, the paper's: {found['seconds_per_million_2048']:.0f} CPU seconds a million.",
        f"- Search for the first {searched['top']} of every query, among {searched['distractors'][-1]:,}: "
        f"{searched['seconds_per_million'][-1]:.0f} CPU seconds a million, {searched['extra_gib'][-1]:.2f} GiB.",
        f"- k-reciprocal re-ranking of Market-1501 among distractors, {again['items']:,} items of {again['dimensions']} "
        f"dimensions, each compared with each: {again['seconds'] / 60:.0f} CPU minutes, {again['extra_gib']:.1f} GiB beside "
        f"the embeddings; mAP {100 * again['mAP'][0]:.1f} before, {100 * again['mAP'][1]:.1f} after.",
        f"- What a node sends: {found['node_bytes'] / 1e6:.0f} MB.",
        f"- {found['nodes']} processes sharing a smaller gallery, {found['tried']} of them killed at random moments and "
        f"begun again from their counts: the sum was right after {found['survived']} kills, wrong after {found['lost']}.",
    ]
    return "\n".join([head, *rows, "", *told])


def approximate() -> str:
    """Return what an index finds, and what searches cost, as measured."""
    found = json.loads(SCALE.read_text())["approximate"]
    rows = [
        f"| {visited} of {found['cells']:,} | {seconds:.2f} | "
        + " | ".join(f"{100 * share:.0f} %" for share in shares)
        + " |"
        for visited, seconds, shares in zip(*(found[name] for name in ("visited", "seconds", "recall")), strict=True)
    ]
    return "\n".join(
        [
            "| cells visited | CPU seconds of 1,000 queries | of the first 1 | of the first 10 | of the first 100 |",
            "|---:|---:|---:|---:|---:|",
            *rows,
            f"| exact search | {found['exact']:.2f} | 100 % | 100 % | 100 % |",
            "",
            f"{found['items']:,} items, indexed in {found['indexing']:.0f} CPU seconds, most of them to learn the cells.",
        ]
    )


def projection() -> str:
    """Return what follows for more distractors and nodes, from the cost after the last mark."""
    found = json.loads(SCALE.read_text())
    rows = []
    for millions in (100, 1000):
        for what, cost in (("128", found["seconds_per_million"][-1]), ("2048", found["seconds_per_million_2048"])):
            times = " | ".join(duration(millions * cost / (nodes * CORES)) for nodes in (1, 4, 16, 64))
            moved = millions * 1e6 * 4 * int(what) / 1e12
            rows.append(f"| {millions} million, {what} dimensions | {times} | {moved:.1f} TB |")
    head = (
        "| | 1 node | 4 nodes | 16 nodes | 64 nodes | embeddings, if they were kept |\n|---|---:|---:|---:|---:|---:|"
    )
    return "\n".join([head, *rows])


def calibration() -> str:
    """Return how far the verdicts of the study can be trusted."""
    found = json.loads((ROOT / "benchmarks/results/calibration.json").read_text())
    low, high = (100 * end for end in found["false_verdicts_interval"])
    halves = found["halves"]
    told = [
        f"- The default against itself, {found['comparisons']:,} comparisons of {found['draws']} draws, "
        f"{found['independent']} of them independent: {100 * found['false_verdicts']:.1f} % false verdicts "
        f"({low:.1f} to {high:.1f} %).",
        f"- Halves of the study, split {halves['splits']} times: of the verdicts that both give, "
        f"{100 * found['half_agreement']:.0f} % are equal; {100 * found['half_repeated']:.0f} % of what a half decides "
        "the other decides too, and equally.",
        f"- Of what {found['draws']} draws decide, "
        + ", ".join(f"{draws} decide {100 * share:.0f} %" for draws, share in list(found["power"].items())[:-1])
        + ".",
    ]
    return "\n".join(told)


def nodes() -> str:
    """Return what a Slurm of several nodes survived and cost."""
    found = json.loads(SCALE.read_text())["slurm"]
    named = "; ".join(f"`profiles/{profile}`: {', '.join(faults)}" for profile, faults in found["faults"].items())
    told = (
        f"{found['nodes']} nodes, {found['tried']} faults ({named}), each in `tests/nodes.py`: "
        f"{found['survived']} survived, {found['lost']} lost. Compared: {found['compared']}."
    )
    if "overhead" not in found:
        return told
    head = "| profile | submissions | CPU seconds of each | of these, Slurm's daemons | share of the experiment |"
    rows = []
    for profile, count in found["submissions"].items():
        each, daemons = found["overhead"][profile], found["daemons"][profile]
        share = 100 * count * each / found["computing"]
        rows.append(f"| `profiles/{profile}` | {count} | {each:.1f} | {daemons:.2f} | {share:.0f} % |")
    computing = f"The experiment itself takes {found['computing']:.0f} CPU seconds."
    return "\n".join([told, computing, "", head, "|---|---:|---:|---:|---:|", *rows])


PASTED: dict[str, tuple[Path, Callable[[], str]]] = {
    "scale": (ROOT / "docs/scale.md", scale),
    "projection": (ROOT / "docs/scale.md", projection),
    "approximate": (ROOT / "docs/scale.md", approximate),
    "calibration": (ROOT / "docs/protocols.md", calibration),
    "nodes": (ROOT / "docs/scale.md", nodes),
    "pipeline": (ROOT / "docs/architecture.md", pipeline),
    "stages": (ROOT / "docs/architecture.md", stages),
    "across": (ROOT / "docs/extending.md", partial(reported, "across", "table6")),
    "modern": (ROOT / "docs/extending.md", partial(reported, "modern-embedded", "table13")),
    "herd": (ROOT / "docs/own_data.md", partial(reported, "herd", "table6")),
} | {table: (README, partial(reported, "study", table)) for table in TABLES}


def section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("table", TABLES)
def test_committed_table_is_the_committed_reports(table: str) -> None:
    readme, report = (committed(name).decode() for name in ("README.md", f"reports/study/{table}.md"))
    pasted = section(table).search(readme)
    assert pasted, f"README.md has no section <!-- {table} -->"
    assert pasted[2].strip() == excerpt(report), "run: python tests/test_readme.py, then commit"


@pytest.mark.parametrize("name", PASTED)
def test_pasted_sections_are_current(name: str) -> None:
    page, make = PASTED[name]
    pasted = section(name).search(page.read_text())
    assert pasted, f"{page.name} has no section <!-- {name} -->"
    assert pasted[2].strip() == make(), "run: python tests/test_readme.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists() and there.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    folders = "benchmarks|docs|experiments|profiles|src|tests|workflow"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


@pytest.mark.workflow
def test_graph_is_that_of_the_rules(checkout: Checkout, tmp_path: Path) -> None:
    """Of the embedded experiment with what it may leave out."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {
        "inspect": {"dataset": "market", "variants": ["default"]},
        "joint": {"both": {"train_on": ["market", "duke"], "test_on": ["market"], "variants": ["default"]}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    printed = checkout.run(f"snakemake --rulegraph mermaid-js --configfile {tmp_path}/params.yaml")
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", printed))
    graph = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", printed) if names[b] != "all"}
    assert graph == set(edges())
    assert set(names.values()) - {"all"} == set(STAGES)


@pytest.mark.parametrize("file", ["params.yaml", "experiments/paper/params.yaml"])
def test_numbers_of_jobs_are_the_plans(file: str) -> None:
    from reid_done_right.params import load
    from reid_done_right.plan import plan

    jobs = plan(load(ROOT / file))
    text = f"{sum(map(len, jobs.values()))} jobs, {len(jobs['train'])} of them trainings"
    assert text in README.read_text()


def test_documented_messages_are_printed_and_tested() -> None:
    """Of the symptoms in docs/engines.md, those that are words of ours."""
    table = (ROOT / "docs/engines.md").read_text().partition("## Troubleshooting")[2]
    quoted = re.findall(r"^\| (?:the page says )?`(.*?)`", table, re.MULTILINE)
    pieces = {piece.strip(" .") for quote in quoted for piece in quote.split("...")} - {"", "LockException", "dataset"}
    assert {"dvc.yaml: the parameters ask for other jobs; it is updated", "images are damaged"} <= pieces
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py") if path != Path(__file__))
    assert [piece for piece in pieces if piece not in tests] == []


def test_benchmark_is_described_as_it_is_rendered() -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"]
    page = (ROOT / "docs/benchmark.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w-]+) \| (\S+) \| (\S+) \| (\S+) \|", page, re.MULTILINE)
    assert [name for name, *_ in rows] == list(content)
    for name, *cells in rows:
        render = content[name]["source"]["render"]
        cameras = 6 if content[name]["format"] == "distractors" else render.get("cameras", "-")  # its writer's default
        expected = [content[name]["format"], render.get("train_ids", "-"), render.get("test_ids", "-"), cameras]
        assert cells == [str(value) for value in expected], name


def test_modern_networks_rank_at_the_rates_that_were_chosen() -> None:
    variants = yaml.safe_load((ROOT / "experiments/modern-embedded/params.yaml").read_text())["variants"]
    measured = json.loads((ROOT / "benchmarks/results/rates.json").read_text())
    page = (ROOT / "docs/extending.md").read_text()
    for name, rate in measured["chosen"].items():
        (best,) = (each for each in measured["tried"] if (each["backbone"], each["learning_rate"]) == (name, rate))
        assert variants[name]["learning_rate"] == rate and not best["collapsed"]
        assert f"({100 * best['mAP']:.1f}" in page


def test_changes_to_copy_apply(tmp_path: Path) -> None:
    from reid_done_right.params import load
    from reid_done_right.plan import plan

    changed: dict[str, str] = {}
    for _, content in blocks(ROOT / "docs/extending.md", "diff"):
        name, old, new = change(content)
        text = changed.get(name) or (ROOT / name).read_text()
        assert f"\n{text}".count(f"\n{old}") == 1, f"{name}:\n{old}"
        changed[name] = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
    for name, text in changed.items():
        if name.endswith(".py"):
            ast.parse(text)
    (tmp_path / "params.yaml").write_text(changed["params.yaml"])
    jobs = plan(load(tmp_path / "params.yaml"))
    assert {"market-wide-margin-draw0", "market-resnet18-draw0", "campus-default-draw0"} <= set(jobs["train"])
    tables = {f"reports/embedded/table{number}.md" for number in (6, 7, 8)}
    assert tables < {*jobs["tabulate"]["tables"].outputs.values()}
    moved = {"duke-default-on-market-draw0", "both-default-on-market-draw0", "both-default-on-duke-draw0"}
    assert moved <= set(jobs["evaluate"]) and "both-draw0" in jobs["join"]
    (tmp_path / "params.yaml").write_text(changed["experiments/paper/params.yaml"])
    first = plan(load(tmp_path / "params.yaml"))["initialise"]
    assert first["resnext50"].parameters["architecture"] == "resnext50_32x4d"
    assert {"densenet121", "inception-v3"} <= set(first)


def test_parameters_from_dvc_exp_run_load(tmp_path: Path) -> None:
    from dvc.utils.serialize import modify_yaml

    from reid_done_right.params import load

    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text())
    with modify_yaml(str(copy)) as content:  # as -S train.margin=0.2 does
        content["train"]["margin"] = 0.2
    before = load(ROOT / "params.yaml").model_dump()
    assert load(copy).model_dump() == {**before, "train": {**before["train"], "margin": 0.2}}


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and str(citation["version"]) == version[1]


def test_learning_claims_match_measurements() -> None:
    measured = json.loads(committed("benchmarks/results/learning.json"))
    assert {"market", "duke"} <= set(measured)
    for dataset in ("market", "duke"):
        for seed in measured[dataset].values():
            assert seed["untrained"] < seed["histogram"] < seed["classifier"] < seed["embedder"]


def test_learning_of_the_herd_is_what_its_page_says() -> None:
    measured = json.loads(committed("benchmarks/results/herd.json"))
    for draw in (draw for dataset in measured.values() for draw in dataset.values()):
        assert 4 * max(draw[kind] for kind in ("untrained", "objects", "histogram")) < draw["classifier"]
    page = " ".join(committed("docs/own_data.md").decode().split())
    for kind in ("histogram", "classifier"):
        values = [100 * draw[kind] for draw in measured["herd"].values()]
        assert f"{min(values):.1f} to {max(values):.1f}" in page


def test_figures_of_performance_are_the_files_and_within_their_bounds() -> None:
    page = committed("docs/performance.md").decode().split("\n## Figures\n")[1].split("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[2:-1]] for line in page.splitlines() if "`" in line]
    assert len(rows) > 10
    for file, key, least, most, measured in rows:
        value: Any = json.loads(committed(f"benchmarks/results/{file}.json"))
        for part in key.split("."):
            value = value[part]
        assert measured == f"{value:.3g}", f"docs/performance.md is not {file}.json: {key} is {value:.3g}"
        assert float(least or "-inf") <= value <= float(most or "inf"), key


def paste() -> None:
    for name, (page, make) in PASTED.items():
        text = page.read_text()
        page.write_text(section(name).sub(lambda match, make=make: f"{match[1]}{make()}\n{match[3]}", text))


if __name__ == "__main__":
    paste()
