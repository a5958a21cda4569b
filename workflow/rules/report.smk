# From scores to the report: tabulate, illustrate, draw, publish.

SHOWN = next(iter(JOBS["illustrate"]), None)
PICTURES = {
    "figure1": "1. Dimensions and regions",
    "figure4": "4. Ranked lists",
    "figure5": "5. Matching regions",
    "figure6": "6. Implicit attention",
}
DRAWINGS = {"training_curves": "Training curves"}
DRAWINGS |= {"figure7": "7. Distractors"} if JOBS["distract"] else {}
DRAWINGS |= {"similarities": "Similarities"} if SHOWN else {}
PICTURES = PICTURES if SHOWN else {}
SHEET = [f"reports/{E}/contact_sheet.png"] if JOBS["contact_sheet"] else []


rule tabulate:
    input:
        settings=settings("tabulate", "tables"),
        scores=every("evaluate", "json"),
        queries=every("evaluate", "parquet"),
        curves=every("distract", "json"),
        decays=every("distract", "parquet"),
        paper="reports/paper.csv",
    output:
        report(
            f"reports/{E}/findings.html",
            caption="../report/findings.rst",
            category="Tables",
            labels={"table": "Findings"},
        ),
        report(
            f"reports/{E}/table1.html",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "1. Augmentation"},
        ),
        report(
            f"reports/{E}/table2.html",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "2. Image size"},
        ),
        report(
            f"reports/{E}/table3.html",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "3. Pooling, backbone, pretraining"},
        ),
        report(
            f"reports/{E}/table4.html",
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "4. State of the art"},
        ),
        expand(
            f"reports/{E}/table{{number}}.{{kind}}",
            number=(1, 2, 3, 4),
            kind=("md", "tex", "csv"),
        ),
        f"reports/{E}/findings.md",
        f"reports/{E}/metrics.json",
        f"reports/{E}/README.md",
        report_json=f"reports/{E}/report.json",
    log:
        f"results/{E}/logs/tabulate.log",
    benchmark:
        f"results/{E}/benchmarks/tabulate.tsv"
    conda:
        "../envs/report.yaml"
    threads: ask("tabulate", "threads")
    resources:
        gpu=ask("tabulate", "gpu"),
        mem_mb=ask("tabulate", "mem_mb"),
        runtime=ask("tabulate", "runtime"),
    params:
        scores=lambda w, input: os.path.dirname(input.scores[0]),
        curves=lambda w, input: folder(input.curves, "distract"),
        out=lambda w, output: os.path.dirname(output[0]),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid tabulate --settings {input.settings:q} --scores {params.scores:q} --curves {params.curves:q}"
        " --paper {input.paper:q} --out {params.out:q} > {log:q} 2>&1"


if SHOWN:

    rule illustrate:
        input:
            settings=settings("illustrate", SHOWN),
            index=f"results/{E}/index/{JOBS['illustrate'][SHOWN]['dataset']}.parquet",
            embedder=f"results/{E}/train/{SHOWN}.safetensors",
            places=f"results/{E}/retrieve/{SHOWN}.parquet",
            queries=f"results/{E}/evaluate/{SHOWN}.parquet",
        output:
            [
                report(
                    f"reports/{E}/{name}.svg",
                    caption="../report/pictures.rst",
                    category="Figures",
                    labels={"figure": label},
                )
                for name, label in PICTURES.items()
            ],
            expand(f"reports/{E}/{{name}}.png", name=PICTURES),
        log:
            f"results/{E}/logs/illustrate.log",
        benchmark:
            f"results/{E}/benchmarks/illustrate.tsv"
        conda:
            "../envs/torch.yaml"
        threads: ask("illustrate", "threads")
        resources:
            gpu=ask("illustrate", "gpu"),
            mem_mb=ask("illustrate", "mem_mb"),
            runtime=ask("illustrate", "runtime"),
        params:
            out=lambda w, output: os.path.dirname(output[0]),
        shell:
            "allow {resources.mem_mb} {resources.gpu}; "
            "reid illustrate --settings {input.settings:q} --index {input.index:q} --embedder {input.embedder:q}"
            " --places {input.places:q} --queries {input.queries:q} --out {params.out:q} > {log:q} 2>&1"


rule draw:
    input:
        settings=settings("draw", "figures"),
        curves=every("distract", "json"),
        logs=every("train", "csv"),
        scores=every("evaluate", "json"),
        similarities=every("retrieve", "json"),
        paper="reports/paper.csv",
    output:
        [
            report(
                f"reports/{E}/{name}.svg",
                caption="../report/figures.rst",
                category="Figures",
                labels={"figure": label},
            )
            for name, label in DRAWINGS.items()
        ],
        expand(f"reports/{E}/{{name}}.png", name=DRAWINGS),
        [f"reports/{E}/figure7.csv"] if JOBS["distract"] else [],
        f"reports/{E}/training_curves.csv",
        [
            report(
                sheet,
                caption="../report/sheet.rst",
                category="Figures",
                labels={"figure": "The rendered people"},
            )
            for sheet in SHEET
        ],
    log:
        f"results/{E}/logs/draw.log",
    benchmark:
        f"results/{E}/benchmarks/draw.tsv"
    conda:
        "../envs/report.yaml"
    threads: ask("draw", "threads")
    resources:
        gpu=ask("draw", "gpu"),
        mem_mb=ask("draw", "mem_mb"),
        runtime=ask("draw", "runtime"),
    params:
        curves=lambda w, input: folder(input.curves, "distract"),
        logs=lambda w, input: os.path.dirname(input.logs[0]),
        scores=lambda w, input: os.path.dirname(input.scores[0]),
        similarities=lambda w, input: folder(input.similarities, "retrieve"),
        out=lambda w, output: os.path.dirname(output[0]),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid draw --settings {input.settings:q} --curves {params.curves:q} --logs {params.logs:q}"
        " --scores {params.scores:q} --similarities {params.similarities:q} --paper {input.paper:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule publish:
    input:
        settings=settings("publish", "page"),
        report=rules.tabulate.output.report_json,
        figures=expand(f"reports/{E}/{{name}}.svg", name=[*PICTURES, *DRAWINGS]) + SHEET,
        indexes=every("index", "parquet"),
        places=every("retrieve", "parquet"),
        queries=every("evaluate", "parquet"),
    output:
        page=report(
            f"reports/{E}/report.html",
            caption="../report/page.rst",
            category="The whole report",
            labels={"page": "Tables, figures and queries"},
        ),
    log:
        f"results/{E}/logs/publish.log",
    benchmark:
        f"results/{E}/benchmarks/publish.tsv"
    conda:
        "../envs/report.yaml"
    threads: ask("publish", "threads")
    resources:
        gpu=ask("publish", "gpu"),
        mem_mb=ask("publish", "mem_mb"),
        runtime=ask("publish", "runtime"),
    params:
        figures=lambda w, input: os.path.dirname(input.figures[0]),
        indexes=lambda w, input: os.path.dirname(input.indexes[0]),
        places=lambda w, input: folder(input.places, "retrieve"),
        queries=lambda w, input: os.path.dirname(input.queries[0]),
    shell:
        "allow {resources.mem_mb} {resources.gpu}; "
        "reid publish --settings {input.settings:q} --report {input.report:q} --figures {params.figures:q}"
        " --indexes {params.indexes:q} --places {params.places:q} --queries {params.queries:q}"
        " --out {output.page:q} > {log:q} 2>&1"
