# An experiment of its own folder, by the workflow of reid-done-right:  snakemake --cores all
# params.yaml says what to run, `reid check` what is missing and how long it takes here.
from reid_done_right.experiments import home

if (
    not workflow.overwrite_configfiles
):  # --configfile would be merged into the default otherwise

    configfile: "params.yaml"


module reid:
    snakefile:
        str(home() / "workflow/Snakefile")
    config:
        config


use rule * from reid


onstart:
    reid.check_datasets()
    reid.look_when_a_job_ends()
