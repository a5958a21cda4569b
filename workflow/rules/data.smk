# From a source to an index: dataset -> index.


rule dataset:
    input:
        settings=settings("dataset"),
    output:
        manifest=f"results/{E}/dataset/{{job}}.json",
    log:
        f"results/{E}/logs/dataset/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/dataset/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("dataset"),
    conda:
        "../envs/numeric.yaml"
    threads: ask("dataset", "threads")
    resources:
        gpu=ask("dataset", "gpu"),
        mem_mb=ask("dataset", "mem_mb"),
        runtime=ask("dataset", "runtime"),
    params:
        images=f"results/{E}/dataset/{{job}}",
    shell:
        "REID_MEMORY_MB={resources.mem_mb} REID_GPUS={resources.gpu} reid dataset --settings {input.settings} --images {params.images} --out {output.manifest}"
        " --threads {threads} > {log} 2>&1"


rule index:
    input:
        settings=settings("index"),
        manifest=rules.dataset.output.manifest,
    output:
        index=f"results/{E}/index/{{job}}.parquet",
    log:
        f"results/{E}/logs/index/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/index/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("index"),
    conda:
        "../envs/numeric.yaml"
    threads: ask("index", "threads")
    resources:
        gpu=ask("index", "gpu"),
        mem_mb=ask("index", "mem_mb"),
        runtime=ask("index", "runtime"),
    shell:
        "REID_MEMORY_MB={resources.mem_mb} REID_GPUS={resources.gpu} reid index --settings {input.settings} --manifest {input.manifest} --out {output.index}"
        " --threads {threads} > {log} 2>&1"
