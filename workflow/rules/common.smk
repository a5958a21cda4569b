# Shared by all rules: the plan, the environment, the resources. No science here.
import hashlib
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

# The checkout's code; of the installed package, which has its own, the workflow lies in a folder without it.
SOURCE = (
    Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1] / "src"
)
FROM_SOURCE = {"PYTHONPATH": str(SOURCE)} if SOURCE.is_dir() else {}


def choose_environment():
    """Run `reid` from this checkout, in the rule's conda environment if requested and available."""
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
    source = f"export PYTHONPATH={shlex.quote(str(SOURCE))}; " if FROM_SOURCE else ""
    shell.prefix(
        # `reid` limits its memory to the rule's request, except on a GPU, whose driver maps memory of its own
        "allow() {{ [ $2 -gt 0 ] || export REID_MEMORY_MB=$1; }}; "
        "trap : TERM; "  # wait for a training that handles SIGTERM: the job ends with its shell
        f"{source}"
        # from the job's log, also show warnings and, after a failure, the last line on the terminal
        "exec 3>&2; "
        f'reid() {{{{ {python} -m reid_done_right "$@" 3>&-; status=$?; [ ! -f /dev/fd/2 ] || '
        '{{ grep "^reid: warning: " /dev/fd/2; [ $status -eq 0 ] || tail -n 1 /dev/fd/2; }} >&3; '
        "return $status; }}; "
    )


def look_when_a_job_ends():
    """Have Snakemake look for work when a job ends; with a limit of jobs a second, every look orders another one.

    Those of all jobs so far add up, to hundreds a second at the end. A cluster, which needs the limit, keeps it.
    """
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


def ask_reid(*arguments):
    """Return the output of a command that reads the parameters; stop if it fails."""
    asked = subprocess.run(
        [sys.executable, "-m", "reid_done_right", *arguments],
        input=json.dumps(config),
        env=os.environ | FROM_SOURCE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if asked.returncode:
        sys.exit(asked.returncode)
    return asked.stdout


def make_plan():
    """Validate the parameters, update the settings of all jobs, and return rules and jobs.

    Snakemake has read their files, and taken the last of a key that is there twice. It starts anew for each job of a
    cluster, where making the plan again would take as long as some jobs: it is kept, and found where the folder is shared.
    """
    name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    kept = Path(f".snakemake/plans/{name}.json")
    if not workflow.is_main_process and kept.is_file():
        return json.loads(kept.read_text())
    files = workflow.configfiles if workflow.is_main_process else []
    files = [f"--of={os.path.relpath(file)}" for file in files]
    plan = ask_reid("plan", "-", *files)
    if workflow.is_main_process:
        kept.parent.mkdir(parents=True, exist_ok=True)
        written = kept.with_suffix(f".{os.getpid()}.tmp")
        written.write_text(plan)
        written.replace(kept)
    return json.loads(plan)


def check_datasets():
    """Check folders, names and counts of the datasets to be read, before any job starts."""
    jobs = workflow.dag.needrun_jobs()
    names = sorted(
        {job.wildcards.job for job in jobs if job.rule.name == "dataset"}
        & config["datasets"].keys()
    )
    if names:  # a rendered one has the name of its draw, too
        ask_reid("check", "-", "--quick", "--only", ",".join(names))


def provide_paper():
    """Copy the paper's values, to which reports link, into a folder that is not the workflow's own."""
    path = Path("reports/paper.csv")
    if workflow.is_main_process and not path.is_file():
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(workflow.source_path("../../reports/paper.csv"), path)


choose_environment()
provide_paper()
PLAN = make_plan()
E, RULES = PLAN["experiment"], PLAN["rules"]


def asked(rule):
    """Resources of a job: more memory and time on each retry, in case a lack of them caused the kill."""
    stated = RULES[rule]["resources"]

    def more(resource):
        return lambda wildcards, attempt: stated[resource] * attempt

    return {
        "gpu": stated["gpu"],
        "mem_mb": more("mem_mb"),
        "runtime": more("runtime"),
    }


def shown(path, captions):
    """An output file, in Snakemake's report if it belongs there."""
    if os.path.basename(path) not in captions:
        return path
    caption, category, labels = captions[os.path.basename(path)]
    return report(
        path, caption=f"../report/{caption}.rst", category=category, labels=labels
    )


def inputs(rule):
    """Inputs of a job of the rule, by name."""
    name, jobs = RULES[rule]["job"], RULES[rule]["jobs"]
    return lambda wildcards: jobs[name.format(**dict(wildcards.items()))]


def folders(rule):
    """Folders among the command's options, wherever a storage plugin has put their files."""

    def of(option, place):
        def found(wildcards, input, output):
            files = getattr(input, option, output if option == "out" else [])
            return (
                os.path.dirname(files[0])
                if files
                else place.format(**dict(wildcards.items()))
            )

        return found

    return {
        option: of(option, place) for option, place in RULES[rule]["folders"].items()
    }


def command(rule):
    """The command of the rule; `reid` limits its memory to the rule's request."""
    options = "".join(
        f" {option} {{{value}:q}}" for option, value in RULES[rule]["options"].items()
    )
    return f"allow {{resources.mem_mb}} {{resources.gpu}}; {RULES[rule]['command']}{options} > {{log:q}} 2>&1"


def check_bucket():
    """Ask for the bucket before anything is planned: the plugin takes one that it may not see for an empty one."""
    from botocore.exceptions import BotoCoreError, ClientError

    provider = workflow.storage_registry.default_storage_provider
    prefix = workflow.storage_settings.default_storage_prefix
    bucket = prefix.removeprefix("s3://").split("/")[0]
    variable = "SNAKEMAKE_STORAGE_S3_"
    try:
        provider.s3c.meta.client.head_bucket(Bucket=bucket)
    except ClientError as error:
        told = {
            "403": f"access denied; correct {variable}ACCESS_KEY and {variable}SECRET_KEY, or what they permit",
            "404": "no such bucket; create it, or correct --default-storage-prefix",
        }
        sys.exit(f"s3://{bucket}: {told.get(error.response['Error']['Code'], error)}")
    except BotoCoreError as error:
        sys.exit(
            f"s3://{bucket}: {error}; try again, or correct {variable}ENDPOINT_URL"
        )
