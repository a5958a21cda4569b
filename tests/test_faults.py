"""Fault injection: the same command ends with the bytes of an undisturbed run, and nothing is lost.

A sample of each kind, the same every time, runs with the other tests; `make soak` goes on for minutes with random ones
(docs/robustness.md). The seed is printed with the counts, and `REID_FAULTS_SEED` repeats it.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import damages
from conftest import ROOT, Checkout, copy_of_the_project
from faults import (
    ENGINES,
    ERRORS,
    ORDER,
    REFUSAL,
    SNAKEMAKE,
    Engine,
    Job,
    Server,
    Tally,
    Tree,
    damage,
)
from reid_done_right.artifacts import remove

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
LATE = ("retrieve", "inspect", "identify", "tabulate", "illustrate", "draw", "publish")
KINDS = [
    r"dataset/[\w-]+\.json",
    r"index/.*",
    r"initialise/.*",
    r"pretrain/.*s",
    r"train/.*s",
    r"train/.*\.csv",
    r"embed/.*",
]
KINDS += [r"distractors/.*", r"evaluate/.*json", r"evaluate/.*parquet", r"distract/.*json", r"distract/.*parquet"]
KINDS += [r"retrieve/.*parquet", r"retrieve/.*json", r"inspect/.*json", r"identify/.*json"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(ROOT / "src", tmp_path_factory.mktemp("server") / "log.txt")
    yield started
    started.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Tree:
    return Tree(Checkout(copy_of_the_project(tmp_path_factory.mktemp("tree") / "project")), server)


# --- a stage, by hand


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_survives(tree: Tree, tally: Tally, chance: random.Random, stage: str) -> None:
    """In turn: a signal at some moment, a kill between two changes of files, a disk that is full, fails or is read-only."""
    job = chance.choice([job for job in tree.jobs if job.stage == stage])
    befalls = [killed_in_time, killed_between_changes, refused_by_the_system]
    befalls[ORDER.index(stage) % len(befalls)](tree, tally, chance, job)


def killed_in_time(tree: Tree, tally: Tally, chance: random.Random, job: Job) -> None:
    number = chance.choice(SIGNALS)
    with tally.trying(f"{number.name} at a random moment, {job.stage}"):
        tree.lose(job)
        status = tree.start(job).kill(number, chance.uniform(0, job.seconds))
        assert status in (0, -number, 128 + number), tree.said.read_text()  # 128: a training ends by itself
        tree.check_nothing_half_done(job)
        tree.check_again(job)


def killed_between_changes(tree: Tree, tally: Tally, chance: random.Random, job: Job) -> None:
    with tally.trying(f"SIGKILL between two changes of files, {job.stage}"):
        tree.lose(job)
        status, said = tree.run(job, at=chance.randrange(job.changes), fault="SIGKILL")
        assert status in (0, -signal.SIGKILL), said  # 0: some folders were there, so there were fewer changes
        tree.check_nothing_half_done(job)
        tree.check_again(job)


def refused_by_the_system(tree: Tree, tally: Tally, chance: random.Random, job: Job) -> None:
    fault = chance.choice(list(ERRORS))
    with tally.trying(f"{fault} from some change of a file on, {job.stage}"):
        tree.lose(job)
        status, said = tree.run(job, at=chance.randrange(job.changes), fault=fault)
        assert status in (0, 1), said
        if status:
            check_told(said, fault)
        tree.check_nothing_half_done(job)
        tree.check_again(job)


def check_told(said: str, fault: str) -> None:
    """The error is one line that names the file, the reason and what to do."""
    last = said.splitlines()[-1]
    assert re.fullmatch(rf"reid: error: (results|reports|/|\.store)\S*: {os.strerror(ERRORS[fault])}; .+", last), said
    assert "Traceback" not in said


def test_two_processes_at_once_compute_once(tree: Tree, tally: Tally, chance: random.Random) -> None:
    two_at_once(tree, tally, chance, chance.choice(tree.jobs))


def two_at_once(tree: Tree, tally: Tally, chance: random.Random, job: Job) -> None:
    with tally.trying("the same command twice at once"):
        tree.lose(job)
        files = [str(tree.said), f"{tree.said}.too"]
        started = [tree.start(job, said=file) for file in files]
        statuses = [each.wait() for each in started]
        said = [Path(file).read_text(errors="replace") for file in files]
        assert statuses == [0, 0], said
        assert sum("computed in" in each for each in said) == 1, said
        assert sum("found in the store" in each for each in said) == 1, said
        tree.check_whole(job)


# --- disks, really mounted


@pytest.fixture(scope="module")
def disk(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not server.may_mount:
        pytest.skip("needs the right to mount, at least in a namespace of its own")
    return tmp_path_factory.mktemp("disk")


@pytest.mark.parametrize("stage", ["dataset", "train", "evaluate", "tabulate"])
def test_full_disk_is_reported_and_loses_nothing(
    tree: Tree, tally: Tally, chance: random.Random, disk: Path, stage: str
) -> None:
    full_disk(tree, tally, chance, disk, chance.choice([job for job in tree.jobs if job.stage == stage]))


def full_disk(tree: Tree, tally: Tally, chance: random.Random, disk: Path, job: Job) -> None:
    """The store on a disk that has some pages fewer than the job needs, then enough."""
    with tally.trying(f"a disk that is full, {job.stage}"):
        pages = chance.randrange(1, tree.pages(job))
        tree.server.shell(f"mount -t tmpfs -o size={4 * pages}k none {disk}")
        try:
            tree.lose(job)
            status, said = tree.run(job, environment={"REID_STORE": str(disk)})
            assert status == 1, f"{pages} pages of {tree.pages(job)}\n{said}"
            check_told(said, "ENOSPC")
            tree.check_nothing_half_done(job)
            tree.server.shell(f"mount -o remount,size=64m {disk}")
            status, said = tree.run(job, environment={"REID_STORE": str(disk)})
            assert status == 0, said
            tree.check_whole(job)
        finally:
            tree.server.shell(f"umount {disk}")
        tree.check_again(job)


@pytest.mark.parametrize("stage", ["index", "train", "draw"])
def test_read_only_disk_is_reported(tree: Tree, tally: Tally, chance: random.Random, disk: Path, stage: str) -> None:
    read_only(tree, tally, chance, disk, chance.choice([job for job in tree.jobs if job.stage == stage]))


def read_only(tree: Tree, tally: Tally, chance: random.Random, disk: Path, job: Job) -> None:
    place = chance.choice(["store", "results"])
    with tally.trying(f"a read-only folder for the {place}, {job.stage}"):
        folder = disk if place == "store" else tree.folder / Path(job.writes[-1]).parent
        environment = {"REID_STORE": str(disk)} if place == "store" else {}
        tree.lose(job)
        tree.server.shell(f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}")
        try:
            status, said = tree.run(job, environment=environment)
        finally:
            tree.server.shell(f"umount {folder}")
        assert status == 1, said
        check_told(said, "EROFS")
        tree.check_nothing_half_done(job)
        tree.check_again(job)


# --- damage


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_artifact_is_found_before_it_is_used(
    tree: Tree, tally: Tally, chance: random.Random, kind: str
) -> None:
    damaged(tree, tally, chance, kind)


def damaged(tree: Tree, tally: Tally, chance: random.Random, kind: str) -> None:
    """And in the store, too: the stage that reads it names it and sets it aside; the stage that wrote it repeats it."""
    made = [(job, name) for job in tree.jobs for name in job.writes if re.fullmatch(f"results/smoke/{kind}", name)]
    writer, name = chance.choice(made)
    reader = next(job for job in tree.jobs if name in job.reads)
    how = damage(tree.folder / name, chance)
    with tally.trying(f"{how}, {kind}"):
        status, said = tree.run(reader)
        assert status == 1 and f"reid: error: {name}: damaged or changed since a stage wrote it" in said, said
        assert "Traceback" not in said and not (tree.folder / name).exists()
        tree.check_again(writer)
        tree.check_again(reader)
        remove(tree.folder / f"{name}.damaged")


def test_damaged_store_object_is_recomputed(tree: Tree, tally: Tally, chance: random.Random) -> None:
    damaged_store(tree, tally, chance, chance.choice(tree.jobs))


def damaged_store(tree: Tree, tally: Tally, chance: random.Random, job: Job) -> None:
    """A result is gone, and what the store has of it is damaged, or the digests that the store knows it by."""
    kept = [path for path in (tree.folder / ".store" / job.stage).glob("??/*/*") if path.is_file()]
    path = chance.choice([*kept, *(tree.folder / ".store/ledger").glob("*.json")])
    with tally.trying(f"{damage(path, chance)}, the store"):
        for name in job.writes:
            remove(tree.folder / name)
        tree.check_again(job)
        for other in tree.jobs:  # of whom the damage may have been
            tree.check_again(other)


def test_damaged_checkpoint_is_set_aside(tree: Tree, tally: Tally, chance: random.Random) -> None:
    damaged_checkpoint(tree, tally, chance)


def damaged_checkpoint(tree: Tree, tally: Tally, chance: random.Random) -> None:
    (job,) = (job for job in tree.jobs if job.stage == "train")
    tree.lose(job)
    often = {"REID_CHECKPOINT_UPDATES": "1"}
    at = 0
    while not (kept := list((tree.folder / ".store/partial").glob("*/checkpoint.safetensors"))):
        at += 3  # fewer changes than between the first checkpoint and the end
        tree.run(job, at=at, fault="SIGKILL", environment=often)
    with tally.trying(f"{damage(kept[0], chance)}, a training's checkpoint"):
        status, said = tree.run(job)
        assert status == 1, said
        assert "checkpoint.safetensors: damaged and set aside; run the same command again to start over" in said
        tree.check_again(job)


# --- an engine


@pytest.fixture(scope="module")
def engines(tree: Tree) -> dict[str, Engine]:
    return {name: Engine(name, tree) for name in ENGINES}


@pytest.mark.parametrize("name", ENGINES)
def test_killed_engine_resumes(
    tree: Tree, engines: dict[str, Engine], tally: Tally, chance: random.Random, name: str
) -> None:
    """Near the end of the graph, where little follows; `test_workflow.py` has a training killed, the soak all."""
    killed_engine(tally, chance, engines[name], chance.choice([job for job in tree.jobs if job.stage in LATE]))


def killed_engine(tally: Tally, chance: random.Random, engine: Engine, job: Job) -> None:
    number = chance.choice(SIGNALS)
    with tally.trying(f"{number.name} to {engine.name} and its jobs, in {job.stage}"):
        engine.lose(job)
        started = engine.start()
        engine.wait_for_a_job(started)
        time.sleep(chance.uniform(0, 2 * job.seconds))
        engine.kill(started, number)
        engine.tree.check_nothing_half_done(job)
        engine.check_again()


@pytest.mark.parametrize("name", ENGINES)
def test_second_engine_in_the_same_folder_is_rejected(
    tree: Tree, engines: dict[str, Engine], tally: Tally, name: str
) -> None:
    (job,) = (job for job in tree.jobs if job.stage == "draw")
    engine_twice(tally, engines[name], job)


def engine_twice(tally: Tally, engine: Engine, job: Job) -> None:
    with tally.trying(f"{engine.name} twice at once"):
        engine.lose(job)
        first = engine.start()
        engine.wait_for_a_job(first)
        assert first.poll() is None, engine.printed.read_text()
        os.killpg(first.pid, signal.SIGSTOP)  # so that it cannot end before the second looks
        try:
            second = engine.tree.checkout.start(engine.command)
            said, _ = second.communicate(timeout=900)
        finally:
            os.killpg(first.pid, signal.SIGCONT)
        assert second.returncode != 0 and re.search(REFUSAL[engine.name], said), said
        assert first.wait(1800) == 0, engine.printed.read_text()
        engine.tree.check_whole(*engine.tree.jobs)


def test_clock_that_jumps_loses_nothing(engines: dict[str, Engine], tally: Tally, chance: random.Random) -> None:
    jumped_clock(tally, chance, engines["Snakemake"])


def jumped_clock(tally: Tally, chance: random.Random, engine: Engine) -> None:
    """Some files bear a time years ahead or ago, as after a clock was set; a job runs after that."""
    tree = engine.tree
    with tally.trying(f"a clock that jumps, {engine.name}"):
        for job in tree.jobs:
            for name in job.writes:
                years = chance.choice([-10, 0, 0, 10])
                now = time.time() + years * 365 * 86400
                os.utime(tree.folder / name, (now, now))
        engine.lose(chance.choice([job for job in tree.jobs if job.stage in ("retrieve", "illustrate", "draw")]))
        engine.check_again()


def test_stale_locks_are_reported_or_ignored(engines: dict[str, Engine], tally: Tally) -> None:
    stale_locks(tally, engines)


def stale_locks(tally: Tally, engines: dict[str, Engine]) -> None:
    """Of processes that are no more: Snakemake says how to unlock, DVC and the store pass them over."""
    tree = engines["DVC"].tree
    (job,) = (job for job in tree.jobs if job.stage == "publish")
    with tally.trying("a stale lock of Snakemake"):
        held = tree.folder / ".snakemake/locks"
        held.mkdir(parents=True, exist_ok=True)
        (held / "0.output.lock").write_text("\n".join(job.writes))
        engines["Snakemake"].lose(job)
        status, said = engines["Snakemake"].finish()
        assert status != 0 and "--unlock" in said, said
        engines["Snakemake"].unlock()
        engines["Snakemake"].check_again()
    with tally.trying("a stale lock of DVC"):
        gone = [{"pid": 2**22 + 1, "cmd": "dvc repro"}]
        lock = {"write": {str(tree.folder / name): gone[0] for name in job.writes}, "read": {}}
        (tree.folder / ".dvc/tmp").mkdir(exist_ok=True)
        (tree.folder / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
        engines["DVC"].lose(job)
        engines["DVC"].check_again()
    with tally.trying("a stale lock of the store"):
        tree.lose(job)
        status, said = tree.run(job, at=job.changes // 2, fault="SIGKILL")  # in the midst of computing
        assert status == -signal.SIGKILL and list((tree.folder / ".store/partial").glob("*.lock")), said
        tree.check_again(job)
        assert not list((tree.folder / ".store/partial").iterdir())


def test_interrupted_push_or_pull_completes(
    engines: dict[str, Engine], tally: Tally, chance: random.Random, tmp_path: Path
) -> None:
    interrupted_exchange(tally, chance, engines["DVC"], tmp_path)


def interrupted_exchange(tally: Tally, chance: random.Random, engine: Engine, folder: Path) -> None:
    """All of DVC's cache, which has no images, goes to a folder and comes back, each way killed once and asked again."""
    tree, cache = engine.tree, engine.tree.folder / ".dvc/cache"
    engine.check_again()
    # DVC takes a result that a job outside of it made again for unchanged, though its cache has lost it
    tree.checkout.run("dvc commit --force experiments/smoke/dvc.yaml")
    remote = folder / "remote"
    tree.checkout.run(f"dvc remote add --local --default --force kept {remote}")
    kept = [name for job in tree.jobs if job.stage != "dataset" for name in job.writes if name.startswith("results")]
    for way in ("push", "pull"):
        with tally.trying(f"SIGKILL to dvc {way}"):
            if way == "pull":
                for path in (cache, tree.folder / "results/smoke/settings", *(tree.folder / name for name in kept)):
                    remove(path)  # as in a new clone
            started = tree.checkout.start(f"exec dvc {way} -R experiments/smoke")
            time.sleep(chance.uniform(0, 4))
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
            again = f"dvc {way} -R experiments/smoke"
            if way == "pull":  # DVC may find objects that were cut off, drop them, and ask to be called again
                again = f"{again} || {again} --force"
            said = tree.checkout.run(again)
            assert remote.is_dir(), f"{again} ended well and transferred nothing: {said}"
            engine.check_again()  # DVC believes a cached file that the kill cut off; the next repro does not
    shutil.rmtree(remote)


# --- memory


@pytest.mark.parametrize(("stage", "megabytes"), [("retrieve", 100), ("train", 300)])
def test_job_that_needs_more_memory_than_its_rule_states_is_rejected_it(
    tree: Tree, engines: dict[str, Engine], tally: Tally, stage: str, megabytes: int
) -> None:
    (job,) = (job for job in tree.jobs if job.stage == stage)
    with tally.trying(f"too little memory, {stage}"):
        tree.lose(job)
        target = next(name for name in job.writes if (tree.folder / name).suffix)
        stated = f"snakemake {target} --set-resources {stage}:mem_mb={megabytes} {SNAKEMAKE.removeprefix('snakemake ')}"
        tree.checkout.run(stated, status=1)
        tree.check_nothing_half_done(job)
        tree.check_again(job)


# --- something else in the place of an artifact


@pytest.mark.parametrize("kind", damages.KINDS)
def test_stage_with_something_else_as_its_input_brings_it_back(
    tree: Tree, tally: Tally, chance: random.Random, kind: str
) -> None:
    something_else(tree, tally, chance, kind)


def something_else(tree: Tree, tally: Tally, chance: random.Random, kind: str) -> None:
    # other tests make the store forget all jobs of a stage but one
    stored = [(job, name) for job, name in damages.inputs(tree) if (tree.folder / name).stat().st_nlink > 1]
    job, name = chance.choice(stored)
    with tally.trying(f"{kind}, in the place of an artifact"):
        damages.check_brought_back(tree, job, name, kind, chance, also_lost=chance.random() < 0.5)


@pytest.mark.parametrize("name", ENGINES)
def test_engine_with_something_else_in_many_places_brings_all_back(
    engines: dict[str, Engine], tally: Tally, chance: random.Random, name: str
) -> None:
    many_at_once(tally, chance, engines[name])


def many_at_once(tally: Tally, chance: random.Random, engine: Engine) -> None:
    """Every kind at once, each in the place of an artifact that only jobs without a network read; and things gone.

    Gone are a dataset's images, which the engines do not track, and at times the page.
    """
    tree = engine.tree
    engine.check_again()
    pairs = [*damages.inputs(tree)]
    network = {name for job, name in pairs if job.stage not in ("tabulate", "draw", "publish")}
    late = sorted({name for _, name in pairs} - network)
    changed = dict(zip(chance.sample(late, len(damages.KINDS)), damages.KINDS, strict=True))
    images = chance.choice([name for job in tree.jobs if job.stage == "dataset" for name in job.writes[:1]])
    assert (tree.folder / images).is_dir()
    page = [name for job in tree.jobs if job.stage == "publish" for name in job.writes]
    failed = damages.try_round(engine, changed, [images, *chance.choice([[], page])], chance).failed
    for name, kind in changed.items():
        with tally.trying(f"{kind}, among others, {engine.name}"):
            assert name not in failed, f"{name}: {failed[name]}"
    assert failed == {}


# --- for minutes


@pytest.mark.soak
def test_soak(
    tree: Tree, engines: dict[str, Engine], server: Server, tally: Tally, chance: random.Random, tmp_path: Path
) -> None:
    """All of the above in random order, on every job, for REID_SOAK_MINUTES."""
    minutes = float(os.environ.get("REID_SOAK_MINUTES", "10"))
    (disk := tmp_path / "disk").mkdir()
    sized = [job for job in tree.jobs if tree.pages(job) > 1]

    def any_engine() -> Engine:
        return engines[chance.choice(list(engines))]

    trials = {
        lambda: killed_in_time(tree, tally, chance, chance.choice(tree.jobs)): 12,
        lambda: killed_between_changes(tree, tally, chance, chance.choice(tree.jobs)): 12,
        lambda: refused_by_the_system(tree, tally, chance, chance.choice(tree.jobs)): 12,
        lambda: two_at_once(tree, tally, chance, chance.choice(tree.jobs)): 3,
        lambda: something_else(tree, tally, chance, chance.choice([*damages.KINDS])): 12,
        lambda: damaged(tree, tally, chance, chance.choice(KINDS)): 8,
        lambda: damaged_store(tree, tally, chance, chance.choice(tree.jobs)): 2,
        lambda: damaged_checkpoint(tree, tally, chance): 2,
        lambda: killed_engine(tally, chance, any_engine(), chance.choice(tree.jobs)): 4,
        lambda: engine_twice(tally, any_engine(), chance.choice([job for job in tree.jobs if job.seconds > 1])): 1,
        lambda: jumped_clock(tally, chance, any_engine()): 1,
        lambda: stale_locks(tally, engines): 1,
        lambda: many_at_once(tally, chance, any_engine()): 3,
        lambda: interrupted_exchange(tally, chance, engines["DVC"], tmp_path): 1,
    }
    if server.may_mount:
        trials[lambda: full_disk(tree, tally, chance, disk, chance.choice(sized))] = 6
        trials[lambda: read_only(tree, tally, chance, disk, chance.choice(tree.jobs))] = 3
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        (trial,) = chance.choices(list(trials), list(trials.values()))
        trial()
