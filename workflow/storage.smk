# Where jobs share no file system: what no job makes goes into the storage from which all jobs read.

if workflow.storage_settings.default_storage_provider:

    if (
        workflow.is_main_process
        and workflow.storage_settings.default_storage_provider == "s3"
    ):
        check_bucket()

    rule send:
        input:
            local("{file}"),
        output:
            "{file}",
        wildcard_constraints:
            file=rf"results/{E}/settings/.+\.json|reports/paper\.csv",
        shell:
            "cp {input} {output}"
