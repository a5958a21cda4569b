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
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid dataset --settings {input.settings:q} --images {params.images:q} --out {output.manifest:q}"
        " --threads {threads} > {log:q} 2>&1"


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
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid index --settings {input.settings:q} --manifest {input.manifest:q} --out {output.index:q}"
        " --threads {threads} > {log:q} 2>&1"
