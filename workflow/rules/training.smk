# From first weights to embeddings: initialise -> pretrain -> train -> embed.


rule initialise:
    input:
        settings=settings("initialise"),
    output:
        weights=f"results/{E}/initialise/{{job}}.safetensors",
    log:
        f"results/{E}/logs/initialise/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/initialise/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("initialise"),
    priority: 100
    conda:
        "../envs/torch.yaml"
    threads: ask("initialise", "threads")
    resources:
        gpu=ask("initialise", "gpu"),
        mem_mb=ask("initialise", "mem_mb"),
        runtime=ask("initialise", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid initialise --settings {input.settings:q} --out {output.weights:q} > {log:q} 2>&1"


rule pretrain:
    input:
        settings=settings("pretrain"),
        index=indexed("pretrain"),
        weights=of_job("pretrain", "weights"),
    output:
        weights=f"results/{E}/pretrain/{{job}}.safetensors",
        log=f"results/{E}/pretrain/{{job}}.csv",
    log:
        f"results/{E}/logs/pretrain/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/pretrain/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("pretrain"),
    priority: 50
    conda:
        "../envs/torch.yaml"
    threads: ask("pretrain", "threads")
    resources:
        gpu=ask("pretrain", "gpu"),
        mem_mb=ask("pretrain", "mem_mb"),
        runtime=ask("pretrain", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid pretrain --settings {input.settings:q} --index {input.index:q} --weights {input.weights:q}"
        " --out {output.weights:q} --log {output.log:q} > {log:q} 2>&1"


rule train:
    input:
        settings=settings("train"),
        index=indexed("train"),
        weights=of_job("train", "weights"),
    output:
        embedder=f"results/{E}/train/{{job}}.safetensors",
        log=f"results/{E}/train/{{job}}.csv",
    log:
        f"results/{E}/logs/train/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/train/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("train"),
    priority: 20
    conda:
        "../envs/torch.yaml"
    threads: ask("train", "threads")
    resources:
        gpu=ask("train", "gpu"),
        mem_mb=ask("train", "mem_mb"),
        runtime=ask("train", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid train --settings {input.settings:q} --index {input.index:q} --weights {input.weights:q}"
        " --out {output.embedder:q} --log {output.log:q} > {log:q} 2>&1"


rule embed:
    input:
        settings=settings("embed"),
        index=indexed("embed"),
        embedder=rules.train.output.embedder,
    output:
        embeddings=f"results/{E}/embed/{{job}}.safetensors",
    log:
        f"results/{E}/logs/embed/{{job}}.log",
    benchmark:
        f"results/{E}/benchmarks/embed/{{job}}.tsv"
    wildcard_constraints:
        job=one_of("embed"),
    conda:
        "../envs/torch.yaml"
    threads: ask("embed", "threads")
    resources:
        gpu=ask("embed", "gpu"),
        mem_mb=ask("embed", "mem_mb"),
        runtime=ask("embed", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid embed --settings {input.settings:q} --index {input.index:q} --embedder {input.embedder:q}"
        " --out {output.embeddings:q} > {log:q} 2>&1"


rule embed_distractors:
    input:
        settings=settings("shard", "{run}-{shard}"),
        index=lambda w: f"results/{E}/index/{JOBS['shard'][f'{w.run}-{w.shard}']['dataset']}.parquet",
        embedder=f"results/{E}/train/{{run}}.safetensors",
    output:
        embeddings=f"results/{E}/distractors/{{run}}/{{shard}}.safetensors",
    log:
        f"results/{E}/logs/shard/{{run}}-{{shard}}.log",
    benchmark:
        f"results/{E}/benchmarks/shard/{{run}}-{{shard}}.tsv"
    wildcard_constraints:
        run=one_of("distract"),
        shard=r"\d+",
    conda:
        "../envs/torch.yaml"
    threads: ask("embed", "threads")
    resources:
        gpu=ask("embed", "gpu"),
        mem_mb=ask("embed", "mem_mb"),
        runtime=ask("embed", "runtime"),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid embed --settings {input.settings:q} --index {input.index:q} --embedder {input.embedder:q}"
        " --out {output.embeddings:q} > {log:q} 2>&1"
