# Re-ID done right, from photos to the paper's tables:  snakemake --cores all [--use-conda]
# Another experiment:  snakemake --cores all --configfile experiments/paper/params.yaml
from snakemake.utils import min_version

min_version("9.0")


if (
    not workflow.overwrite_configfiles
):  # --configfile would be merged into the default otherwise

    configfile: "params.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/storage.smk"
include: "workflow/rules/stages.smk"


onstart:
    check_datasets()
    look_when_a_job_ends()


rule all:
    default_target: True
    input:
        PLAN["targets"],
