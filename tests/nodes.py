"""The smoke experiment on four nodes of a Slurm, which fail on the way; what it costs:  python tests/nodes.py

Writes the part `slurm` of benchmarks/results/scale.json.

| key | what |
|---|---|
| nodes | of a Slurm on this machine, with processors that ask for other kernels and numbers of threads |
| tried, survived, lost | faults; those after which what is `compared` had the bytes of a run without faults, and not |
| faults | which, in the runs with which profile |
| computing | CPU seconds of the experiment on one machine |
| submissions | with each profile, those after a fault included |
| overhead | CPU seconds of all processes that a submission takes more than on one machine, when there is nothing to compute |
| daemons | of these, of munged, slurmctld and the nodes' slurmd |
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import Any

import cluster
from conftest import ROOT, Checkout, copy_of_the_project
from reid_done_right.artifacts import write_json

RESULT = ROOT / "benchmarks/results/scale.json"
SMOKE = "experiments/smoke/params.yaml"
LOCAL = f"REID_DEVICE=cpu snakemake --configfile {SMOKE} --cores 2"  # the GPUs are simulated
PROFILES = ("slurm", "slurm-grouped")
THROUGH_SLURM = (
    f"snakemake --configfile {SMOKE} --cores 2 --slurm-no-account"
    " --slurm-status-command squeue --slurm-init-seconds-before-status-checks 2 --workflow-profile profiles/"
)
LONG, UPDATES = "market-side-48-draw0", 400  # a training that lasts long enough for two faults
FIRST, SECOND, EVERY = 20, 120, 20  # updates until the faults, and from one checkpoint to the next
ENVIRONMENT = {
    "REID_DEVICE": "cpu",
    "REID_CHECKPOINT_UPDATES": str(EVERY),
    "TQDM_MININTERVAL": "0.1",
}

NODES = [  # each asks for other kernels, as another processor would choose them, and for another number of threads
    cluster.Node("n1", gpus=2, environment={"ATEN_CPU_CAPABILITY": "avx512", "OPENBLAS_CORETYPE": "SkylakeX"}),
    cluster.Node(
        "n2",
        gpus=2,
        environment={
            **{"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Prescott"},
            **{"NUMBA_CPU_NAME": "generic", "OPENCV_IPP": "sse42", "OMP_NUM_THREADS": "3"},
        },
    ),
    cluster.Node("n3", gpus=2, environment={"OPENBLAS_CORETYPE": "Zen", "MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "7"}),
    cluster.Node("n4", environment={"NPY_DISABLE_CPU_FEATURES": "", "OPENBLAS_NUM_THREADS": "5"}),
]


class Run:
    """The experiment through a Slurm, started in a checkout."""

    def __init__(self, slurm: cluster.Slurm, checkout: Checkout, profile: str, target: str = "") -> None:
        self.slurm, self.checkout, self.profile = slurm, checkout, profile
        self.earlier, self.later = len(cluster.jobs()), list[cluster.Job]()
        self.given: list[dict[str, str]] = []
        self.printed = checkout.folder / f"printed-{profile}.txt"
        command = f"exec {THROUGH_SLURM}{profile} {target} > {self.printed} 2>&1"
        self.started = checkout.start(command, **ENVIRONMENT)

    def end(self) -> None:
        """Wait for the end, which must be a good one."""
        try:
            self.slurm.wait(lambda: self.started.poll() is not None, "no end", 1500)
            assert self.started.returncode == 0, self.printed.read_text()[-6000:]
            self.later = cluster.jobs()[self.earlier :]
        finally:
            if self.started.poll() is None:
                os.killpg(self.started.pid, signal.SIGKILL)

    def jobs(self, name: str = "") -> list[cluster.Job]:
        """Return its jobs when it has ended, or those of a rule, group or job."""
        return [job for job in self.later if name in job.comment]

    def progress(self) -> list[int]:
        """Return the updates that the progress bar of the long training has shown since its last start, but 0."""
        log = self.checkout.folder / f"results/smoke/logs/train/{LONG}.log"
        shown = log.read_text(errors="replace") if log.is_file() else ""
        return [int(done) for done in re.findall(rf"\b([1-9]\d*)/{UPDATES} \[", shown)]

    def reach(self, updates: int) -> dict[str, str]:
        """Wait until the long training has done so many; return the environment that its process was given."""

        def there() -> bool:
            assert self.started.poll() is None, f"it ended before it trained\n{self.printed.read_text()}"
            return max(self.progress(), default=0) >= updates

        self.slurm.wait(there, "no training", 900)
        found = next(filter(None, map(given, Path("/proc").glob("[0-9]*"))))
        self.given.append(found)
        return found


def given(process: Path) -> dict[str, str]:
    """Return the environment that a process of the long training was given; of another process, nothing."""
    with suppress(OSError):
        if (
            f"reid_done_right\0train\0--settings\0results/smoke/settings/train/{LONG}.json"
            in (process / "cmdline").read_text()
        ):
            lines = (process / "environ").read_text().split("\0")
            return {name: value for name, _, value in (line.partition("=") for line in lines)}
    return {}


def prepare(checkout: Checkout) -> None:
    """Have one training be long, and trainings ask for a GPU."""
    checkout.change(SMOKE, "variants/side-48", {"largest_side": 48, "updates": UPDATES})
    checkout.change(SMOKE, "resources", {"train": {"gpu": 1, "mem_mb": 2000, "runtime": 10}})


def scontrol(node: str, *change: str) -> None:
    subprocess.run(["scontrol", "update", f"nodename={node}", *change], check=True)


# --- faults: each function returns the node that it hits


def fill(run: Run) -> str:
    """Have somebody else's job take all of a node, for longer than the experiment's first jobs need."""
    command = ["sbatch", "--exclusive", "--nodelist=n4", "--wrap=sleep 60", "--output=/dev/null", "--comment=full"]
    subprocess.run(command, check=True, capture_output=True)
    return "n4"


def drain(run: Run) -> str:
    """Drain the node of the long training: this goes on, but nothing else begins there."""
    node = run.reach(FIRST)["SLURMD_NODENAME"]
    scontrol(node, "state=drain", "reason=test")
    return node


def cancel(run: Run) -> str:
    """Cancel the long training: Slurm sends SIGTERM."""
    found = run.reach(FIRST)
    subprocess.run(["scancel", found["SLURM_JOB_ID"]], check=True)
    run.slurm.wait(lambda: not run.progress(), "it does not start again")
    return found["SLURMD_NODENAME"]


def lose(run: Run) -> str:
    """Kill the node of the long training with all that it runs; it comes back when Slurm has given it up."""
    node = run.reach(SECOND)["SLURMD_NODENAME"]
    run.slurm.signal(node, signal.SIGKILL)
    run.slurm.wait(lambda: cluster.state(node).startswith("down"), "it is not missed")
    run.slurm.start(node)
    return node


def hang(run: Run) -> str:
    """Stop all of the node of the long training; it goes on after Slurm has given it up and started the job elsewhere."""
    found = run.reach(SECOND)
    node, number = found["SLURMD_NODENAME"], found["SLURM_JOB_ID"]
    run.slurm.signal(node, signal.SIGSTOP)

    def elsewhere() -> bool:
        (job,) = (job for job in cluster.jobs() if job.number == number)
        return job.state == "RUNNING" and job.node != node

    run.slurm.wait(elsewhere, "it does not start elsewhere")
    run.slurm.signal(node, signal.SIGCONT)
    return node


FAULTS: dict[str, list[Callable[[Run], str]]] = {"slurm": [fill, drain, cancel, lose], "slurm-grouped": [hang]}


def suffer(slurm: cluster.Slurm, checkout: Checkout, profile: str) -> tuple[Run, dict[str, str]]:
    """Run the experiment with the faults of a profile; return it, and the node that each of them hit."""
    run = Run(slurm, checkout, profile)
    try:
        hit = {fault.__name__: fault(run) for fault in FAULTS[profile]}
    finally:
        run.end()
    if "drain" in hit:
        scontrol(hit["drain"], "state=resume")
    return run, hit


def reports(checkout: Checkout) -> dict[str, bytes]:
    """Return the files of the experiment's report."""
    files = [path for path in (checkout.folder / "reports/smoke").iterdir() if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


# --- what is measured


def cpu_seconds() -> float:
    """Return the CPU time of all processes that were started and have ended, however deep."""
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def daemons() -> float:
    """Return the CPU seconds of Slurm's daemons so far."""
    ticks = 0
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, fields = (place / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            if name in ("munged", "slurmctld", "slurmd"):
                ticks += sum(map(int, fields.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def cost(folder: Path) -> dict[str, Any]:
    """Find the long training and what it needs in the store: on one machine, and through Slurm."""
    CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what outlives its parent is waited for here
    checkout = Checkout(copy_of_the_project(folder), clusters=True)
    prepare(checkout)
    target = f"results/smoke/train/{LONG}.safetensors"
    checkout.run(f"{LOCAL} {target}")

    def repeated(how: Callable[[], object]) -> float:
        shutil.rmtree(checkout.folder / "results")
        before = cpu_seconds()
        how()
        return cpu_seconds() - before

    def submitted() -> None:
        with tempfile.TemporaryDirectory() as place, cluster.slurm(Path(place), NODES) as slurm:
            run = Run(slurm, checkout, profile, target)
            run.end()
            count[profile], spent[profile] = len(run.jobs()), daemons()

    count: dict[str, int] = {}
    spent: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {"overhead": {}, "daemons": {}}
    alone = repeated(lambda: checkout.run(f"{LOCAL} {target}"))
    for profile in PROFILES:
        more = repeated(submitted) - alone
        found["overhead"][profile] = more / count[profile]
        found["daemons"][profile] = spent[profile] / count[profile]
    return found


def faults(folder: Path) -> dict[str, Any]:
    """Compare the reports of runs with faults with those of one machine."""
    checkouts = {name: Checkout(copy_of_the_project(folder / name), clusters=True) for name in ("local", *PROFILES)}
    for checkout in checkouts.values():
        prepare(checkout)
    before = cpu_seconds()
    checkouts["local"].run(LOCAL)
    computing = cpu_seconds() - before
    expected, survived, submissions = reports(checkouts["local"]), 0, {}
    with cluster.slurm(folder, NODES) as slurm:
        for profile, each in FAULTS.items():
            run, _ = suffer(slurm, checkouts[profile], profile)
            survived += len(each) * (reports(run.checkout) == expected)
            submissions[profile] = len(run.jobs("rule_"))
    names = {profile: [fault.__name__ for fault in each] for profile, each in FAULTS.items()}
    tried = sum(map(len, names.values()))
    counts = {"nodes": len(NODES), "tried": tried, "survived": survived, "lost": tried - survived}
    return {**counts, "compared": "all reports", "faults": names, "computing": computing, "submissions": submissions}


def main() -> None:
    """Measure, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="faults,cost", help="what to measure; the rest stays in the file")
    for part in parser.parse_args().parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measured = {"faults": faults, "cost": cost}[part](Path(folder))
        found = json.loads(RESULT.read_text())
        write_json(RESULT, found | {"slurm": found.get("slurm", {}) | measured})
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
