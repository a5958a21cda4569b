"""A complete Slurm on this machine: nodes with simulated GPUs, no systemd, no accounting, run by root.

A node is a slurmd in namespaces of its own: it has a host name, sees only its own processes, and they die with it.
The programs come with Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from tempfile import gettempdir

PROGRAMS = ("unshare", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scancel")
SITE = Path("/etc/slurm")  # the only place where job steps look
SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket/munge.sock,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdTimeout=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
SlurmdParameters=config_overrides
SchedulerParameters=defer_batch,sched_interval=2
MinJobAge=3600
KillWait=30
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cores} RealMemory=16000 Gres=gpu:{gpus}\n"
)
PROLOG = """\
#!/bin/sh
sed 's/^/export /' {folder}/environment.$SLURMD_NODENAME
"""
NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full")  # a GPU must be some device
COLUMNS = {
    **{"JobID": 12, "State": 16, "MinMemory": 16, "TimeLimit": 16, "tres-per-job": 24, "Comment": 200},
    **{"NodeList": 16, "RestartCnt": 16},
}


@dataclass(frozen=True)
class Job:
    """What squeue tells of a job, also when it has ended."""

    number: str
    state: str
    memory: str
    time: str
    gpus: str
    comment: str  # Snakemake's: the rule, or the group, and the wildcards
    node: str  # the last that it ran on
    restarts: str  # by Slurm


def missing() -> list[str]:
    """Name the programs that are not installed."""
    return [name for name in PROGRAMS if not shutil.which(name)]


@dataclass(frozen=True)
class Node:
    """What a node is said to have, and what its processes find in their environment."""

    name: str
    cores: int = 2
    gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, port: int) -> None:
        """Add the node to a configuration."""
        host = socket.gethostname().split(".")[0]
        with (folder / "slurm.conf").open("a") as file:
            file.write(NODE.format(**vars(self), host=host, port=port))
        with (folder / "gres.conf").open("a") as file:
            file.writelines(f"NodeName={self.name} Name=gpu File={device}\n" for device in DEVICES[: self.gpus])
        lines = [f"{name}={value}\n" for name, value in self.environment.items()]
        (folder / f"environment.{self.name}").write_text("".join(lines))


class Slurm:
    """A running one: its folder, its nodes and their processes."""

    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        self.nodes = {node.name: node for node in nodes}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a daemon; without a command, a node, also one that was lost."""
        if not command:
            (self.folder / name).mkdir(mode=0o755, exist_ok=True)
            slurmd = f"hostname {name} && exec slurmd -D -f {self.folder}/slurm.conf -N {name}"
            command = (*NAMESPACES, "sh", "-c", slurmd)
        with (self.folder / f"{name}.printed").open("ab") as output:
            started = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        self.daemons[name] = started

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a node; with SIGKILL, it is lost."""
        space = Path(f"/proc/{self.daemons[name].pid}/ns/pid_for_children").readlink()
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (place / "ns/pid").readlink() == space:
                    os.kill(int(place.name), number)

    def wait(self, until: Callable[[], bool], trouble: str, seconds: float = 300) -> None:
        """Wait until something is so. Raises RuntimeError with the ends of all logs if it takes too long."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                logs = [
                    path.read_text()[-2000:] for path in (*self.folder.glob("*.log"), *self.folder.glob("*.printed"))
                ]
                raise RuntimeError("\n".join([trouble, *logs]))
            time.sleep(0.1)

    def end(self) -> None:
        """Cancel what runs, end the daemons, and kill what is left of the jobs."""
        if said("sinfo", "-h", "-o", "%T"):
            said("scancel", "--user=root", "--signal=KILL", "--full")
            said("scancel", "--user=root")
        for name, daemon in reversed(self.daemons.items()):
            daemon.send_signal(signal.SIGKILL if name in self.nodes else signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        kill(self.folder)


def state(node: str) -> str:
    """Return what Slurm says of a node; if that does not respond, with a star."""
    return said("sinfo", "-h", "-N", "-n", node, "-o", "%T")


@contextmanager
def slurm(folder: Path, nodes: list[Node]) -> Iterator[Slurm]:
    """Run a Slurm with its files in a folder; afterwards there is neither a process nor a file of it.

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
    folder.chmod(0o755)
    for name, mode in (("munge", 0o711), ("munge/socket", 0o755), ("state", 0o755)):
        (folder / name).mkdir(mode=mode)
    key = folder / "munge/munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    controller, *ports = free_ports(1 + len(nodes))
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(SLURM.format(host=host, controller=controller, folder=folder))
    for node, port in zip(nodes, ports, strict=True):
        node.write(folder, port)
    (folder / "prolog").write_text(PROLOG.format(folder=folder))
    (folder / "prolog").chmod(0o755)
    munge = {
        "key-file": key,
        "socket": folder / "munge/socket/munge.sock",
        "pid-file": folder / "munge/munged.pid",
        "log-file": folder / "munge/munged.log",
        "seed-file": folder / "munge/munged.seed",
    }
    existed = SITE.is_dir()
    running = Slurm(folder, nodes)
    try:
        SITE.mkdir(exist_ok=True)
        for place in placed:
            place.symlink_to(folder / place.name)
        running.start(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items())
        )
        running.wait(munge["socket"].exists, "munged does not listen")
        running.start("slurmctld", "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        for node in nodes:
            running.start(node.name)
        running.wait(lambda: all(state(node.name) == "idle" for node in nodes), "a node does not get idle")
        yield running
    finally:
        running.end()
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
