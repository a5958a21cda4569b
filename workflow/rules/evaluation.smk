# From embeddings to scores: evaluate, retrieve, distract.


rule evaluate:
    input:
        settings=settings("evaluate"),
        index=indexed("evaluate"),
        embeddings=rules.embed.output.embeddings,
    output:
        scores=f"results/{E}/evaluate/{{job}}.json",
        queries=f"results/{E}/evaluate/{{job}}.parquet",
    log:
        f"results/{E}/logs/evaluate/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/evaluate/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("evaluate"),
    conda:
        "../envs/numeric.yaml"
    threads: ask("evaluate", "threads")
    resources:
        gpu=ask("evaluate", "gpu"),
        mem_mb=ask("evaluate", "mem_mb"),
        runtime=ask("evaluate", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid evaluate --settings {input.settings:q} --index {input.index:q} --embeddings {input.embeddings:q}"
        " --out {output.scores:q} --queries {output.queries:q} > {log:q} 2>&1"


rule retrieve:
    input:
        settings=settings("retrieve"),
        index=indexed("retrieve"),
        embeddings=rules.embed.output.embeddings,
    output:
        places=f"results/{E}/retrieve/{{job}}.parquet",
        similarities=f"results/{E}/retrieve/{{job}}.json",
    log:
        f"results/{E}/logs/retrieve/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/retrieve/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("retrieve"),
    conda:
        "../envs/numeric.yaml"
    threads: ask("retrieve", "threads")
    resources:
        gpu=ask("retrieve", "gpu"),
        mem_mb=ask("retrieve", "mem_mb"),
        runtime=ask("retrieve", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid retrieve --settings {input.settings:q} --index {input.index:q} --embeddings {input.embeddings:q}"
        " --out {output.places:q} --similarities {output.similarities:q} > {log:q} 2>&1"


rule distract:
    input:
        settings=settings("distract"),
        index=indexed("distract"),
        embeddings=rules.embed.output.embeddings,
        shards=lambda w: [
            job["out"]
            for name, job in JOBS["shard"].items()
            if name.rsplit("-", 1)[0] == w.job
        ],
    output:
        curve=f"results/{E}/distract/{{job}}.json",
        queries=f"results/{E}/distract/{{job}}.parquet",
    log:
        f"results/{E}/logs/distract/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/distract/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("distract"),
    conda:
        "../envs/numeric.yaml"
    threads: ask("distract", "threads")
    resources:
        gpu=ask("distract", "gpu"),
        mem_mb=ask("distract", "mem_mb"),
        runtime=ask("distract", "runtime"),
    params:
        shards=lambda w, input: os.path.dirname(input.shards[0]),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid distract --settings {input.settings:q} --index {input.index:q} --embeddings {input.embeddings:q}"
        " --shards {params.shards:q} --out {output.curve:q} --queries {output.queries:q} > {log:q} 2>&1"
