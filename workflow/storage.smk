# Where jobs share no file system: what no job makes goes into the storage from which all jobs read.


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
