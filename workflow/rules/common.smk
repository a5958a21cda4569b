# What all the rules need: the plan of the jobs, the environment, the resources. No science here.
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

SOURCE = Path(workflow.basedir) / "src"


def choose_environment():
    """Run `reid` from this checkout: in each rule's conda environment if asked for and there is conda, else in ours."""
    deployment = workflow.deployment_settings
    with_conda = DeploymentMethod.CONDA in deployment.deployment_method
    if with_conda and shutil.which("conda") is None:
        with_conda = False
        deployment.deployment_method = set(deployment.deployment_method) - {
            DeploymentMethod.CONDA
        }
        if workflow.is_main_process:
            logger.warning(
                "--use-conda: there is no conda here, so all rules run in the present environment."
            )
    python = "python" if with_conda else shlex.quote(sys.executable)
    shell.prefix(
        # `reid` lets the system refuse more memory than the rule states; what a GPU's driver maps cannot be told apart
        "allow() {{ [ $2 -gt 0 ] || export REID_MEMORY_MB=$1; }}; "
        "trap : TERM; "  # outlive a training that is asked to end, for the job is over when its shell is
        f"export PYTHONPATH={shlex.quote(str(SOURCE))}; "
        # what goes to the job's log: show its warnings and, after a failure, its last line on the terminal, too
        "exec 3>&2; "
        f'reid() {{{{ {python} -m reid_done_right "$@" 3>&-; status=$?; [ ! -f /dev/fd/2 ] || '
        '{{ grep "^reid: warning: " /dev/fd/2; [ $status -eq 0 ] || tail -n 1 /dev/fd/2; }} >&3; '
        "return $status; }}; "
    )


def ask_reid(*arguments):
    """Give what a command prints that reads the parameters; where it fails, say what it says and stop."""
    asked = subprocess.run(
        [sys.executable, "-m", "reid_done_right", *arguments],
        input=json.dumps(config),
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        sys.exit(asked.stderr)
    return asked.stdout


def make_plan():
    """Validate the parameters, write each job's settings where they changed, and give the jobs."""
    return json.loads(ask_reid("plan", "-"))


def check_datasets():
    """Look at the folders, names and counts of the datasets that are to be read, before any job starts."""
    jobs = workflow.dag.needrun_jobs()
    names = sorted({job.wildcards.job for job in jobs if job.rule.name == "dataset"})
    if names:
        ask_reid("check", "-", "--quick", "--only", ",".join(names))


choose_environment()
JOBS = make_plan()
E = JOBS["experiment"]


def settings(group, job="{job}"):
    return f"results/{E}/settings/{group}/{job}.json"


def indexed(group):
    """The index of the dataset of a job."""
    return (
        lambda wildcards: f"results/{E}/index/{JOBS[group][wildcards.job]['dataset']}.parquet"
    )


def of_job(group, key):
    """A path that the plan gives for a job."""
    return lambda wildcards: JOBS[group][wildcards.job][key]


def every(group, kind):
    """The files of a kind of all jobs of a group."""
    return expand(f"results/{E}/{group}/{{job}}.{kind}", job=JOBS[group])


def artifacts():
    """All that lies between the datasets and the report, so that what is lost or was set aside is made again."""
    groups = ("dataset", "index", "initialise", "pretrain", "train", "embed")
    groups += ("evaluate", "distract", "retrieve")
    made = [expand(getattr(rules, group).output, job=JOBS[group]) for group in groups]
    return made + [job["out"] for job in JOBS["shard"].values()]


def folder(files, group):
    """The folder of the files of a group, wherever a storage has put them; there may be none."""
    return os.path.dirname(files[0]) if files else f"results/{E}/{group}"


def one_of(group):
    """The pattern of the group's job names, so that a wildcard matches nothing else."""
    return "|".join(JOBS[group]) or "none"


def ask(stage, resource):
    """What a job of a stage asks of the scheduler: after a kill, which may have been for want of it, more memory and time."""
    stated = JOBS["resources"][stage][resource]
    return (
        (lambda wildcards, attempt: stated * attempt)
        if resource in ("mem_mb", "runtime")
        else stated
    )
