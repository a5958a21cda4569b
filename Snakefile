# Re-ID done right, from photos to the paper's tables:  snakemake --cores all [--use-conda]
# Another experiment:  snakemake --cores all --configfile experiments/paper/params.yaml
from snakemake.utils import min_version

min_version("9.0")


if (
    not workflow.overwrite_configfiles
):  # --configfile would be merged into the default otherwise

    configfile: "params.yaml"


include: "workflow/Snakefile"


rule all:
    default_target: True
    input:
        PLAN["targets"],
