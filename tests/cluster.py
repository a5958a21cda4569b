"""A complete Slurm on this machine: one node, simulated GPUs, no systemd, no accounting, run by root.

Its programs come with Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import gettempdir

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scancel")
SITE = Path("/etc/slurm")  # the only place where job steps look
SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=defer_batch,sched_interval=2
MinJobAge=3600
KillWait=30
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full")  # a GPU must be some device
COLUMNS = {"JobID": 12, "State": 16, "MinMemory": 16, "TimeLimit": 16, "tres-per-job": 24, "Comment": 200}


@dataclass(frozen=True)
class Job:
    """What squeue tells of a job, also when it has ended."""

    number: str
    state: str
    memory: str
    time: str
    gpus: str
    comment: str  # Snakemake's: the rule, or the group, and the wildcards


def missing() -> list[str]:
    """Name the programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@contextmanager
def slurm(folder: Path, cores: int = 2, memory: int = 16000, gpus: int = 2) -> Iterator[None]:
    """Run a Slurm of one node with its files in a folder; afterwards there is neither a process nor a file of it.

    cores, memory, gpus  what the node is said to have, memory in MB
    Raises RuntimeError if there is a configuration of Slurm already, or if it does not start.
    """
    folder = folder.resolve()
    placed = [SITE / "slurm.conf", SITE / "gres.conf"]
    for place in placed:
        if place.is_symlink() and place.readlink().is_relative_to(gettempdir()):  # of a test that was killed
            kill(place.readlink().parent)
            place.unlink()
        if place.exists():
            raise RuntimeError(f"{place}: Slurm is configured on this machine; the test would disturb it")
    host = socket.gethostname().split(".")[0]
    folder.chmod(0o755)
    for name, mode in (("munge", 0o711), ("munge/socket", 0o755), ("state", 0o755), ("spool", 0o755)):
        (folder / name).mkdir(mode=mode)
    key = folder / "munge/munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, node = free_ports(2)
    (folder / "slurm.conf").write_text(
        SLURM.format(host=host, controller=controller, node=node, folder=folder, cores=cores, memory=memory, gpus=gpus)
    )
    (folder / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={file}\n" for file in DEVICES[:gpus]))
    munge = {
        "key-file": key,
        "socket": folder / "munge/socket/munge.sock",
        "pid-file": folder / "munge/munged.pid",
        "log-file": folder / "munge/munged.log",
        "seed-file": folder / "munge/munged.seed",
    }
    daemons = [
        ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items())],
        ["slurmctld", "-D", "-f", f"{folder}/slurm.conf"],
        ["slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", host],
    ]
    existed = SITE.is_dir()
    running: list[subprocess.Popen[bytes]] = []
    try:
        SITE.mkdir(exist_ok=True)
        for place in placed:
            place.symlink_to(folder / place.name)
        for daemon in daemons:
            running.append(start(daemon, folder / f"{daemon[0]}.printed"))
            if daemon[0] == "munged":
                wait(munge["socket"].exists, "munged does not listen", folder)
        wait(lambda: said("sinfo", "-h", "-o", "%T") == "idle", "the node does not get idle", folder)
        yield
    finally:
        end(running, folder)
        for place in placed:
            place.unlink(missing_ok=True)
        if not existed:
            SITE.rmdir()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(command: list[str], printed: Path) -> "subprocess.Popen[bytes]":
    with printed.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def wait(until: Callable[[], bool], trouble: str, folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            logs = [path.read_text()[-2000:] for path in (*folder.glob("*.log"), *folder.glob("*.printed"))]
            raise RuntimeError("\n".join([trouble, *logs]))
        time.sleep(0.1)


def end(running: list["subprocess.Popen[bytes]"], folder: Path) -> None:
    """Cancel what runs, end the daemons, and kill what is left of the jobs."""
    if said("sinfo", "-h", "-o", "%T"):
        said("scancel", "--user=root", "--signal=KILL", "--full")
        said("scancel", "--user=root")
    for daemon in reversed(running):
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    kill(folder)


def kill(folder: Path) -> None:
    for number in processes(folder):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def processes(folder: Path) -> list[int]:
    """Return the daemons of a Slurm that has its files in the folder, and what its jobs started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{folder}/".encode() in (place / "cmdline").read_bytes() + (place / "environ").read_bytes():
                found.append(int(place.name))
    return sorted(set(found) - {os.getpid()})


def said(*command: str) -> str:
    """Return what a command of Slurm's prints; nothing if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def jobs() -> list[Job]:
    """Return all jobs since the start, in the order of their numbers."""
    columns = ",".join(f"{name}:{width}" for name, width in COLUMNS.items())
    found = []
    for line in said("squeue", "-h", "-a", "-t", "all", "-O", columns).splitlines():
        ends = list(accumulate(COLUMNS.values()))
        found.append(Job(*(line[end - width : end].strip() for end, width in zip(ends, COLUMNS.values(), strict=True))))
    return sorted(found, key=lambda job: int(job.number))
