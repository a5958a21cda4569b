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
        f"export PYTHONPATH={shlex.quote(str(SOURCE))}; "
        f'reid() {{{{ {python} -m reid "$@"; }}}}; '
    )


def make_plan():
    """Validate the parameters, write each job's settings where they changed, and give the jobs."""
    planned = subprocess.run(
        [sys.executable, "-m", "reid", "plan", "-"],
        input=json.dumps(config),
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    if planned.returncode:
        sys.exit(planned.stderr)
    return json.loads(planned.stdout)


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


def every(group, pattern):
    """A path for every job of a group."""
    return expand(pattern, job=JOBS[group])


def one_of(group):
    """The pattern of the group's job names, so that a wildcard matches nothing else."""
    return "|".join(JOBS[group]) or "none"


def ask(stage, resource):
    """What a job of a stage asks of the scheduler."""
    return JOBS["resources"][stage][resource]
