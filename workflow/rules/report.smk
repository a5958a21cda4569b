# From scores to the report: tabulate, draw.
FIGURES = ("figure7", "training_curves") if JOBS["distract"] else ("training_curves",)


rule tabulate:
    input:
        settings=settings("tabulate", "tables"),
        scores=every("evaluate", rules.evaluate.output.scores),
        paper="reports/paper.csv",
    output:
        report(
            expand(f"reports/{E}/table{{number}}.md", number=(1, 2, 3, 4)),
            caption="../report/tables.rst",
            category="Tables",
        ),
        f"reports/{E}/metrics.json",
        f"reports/{E}/README.md",
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
        out=lambda w, output: os.path.dirname(output[0]),
    shell:
        "reid tabulate --settings {input.settings} --scores {params.scores} --paper {input.paper}"
        " --out {params.out} > {log} 2>&1"


rule draw:
    input:
        settings=settings("draw", "figures"),
        curves=every("distract", rules.distract.output.curve),
        logs=every("train", rules.train.output.log),
        scores=every("evaluate", rules.evaluate.output.scores),
        paper="reports/paper.csv",
    output:
        report(
            expand(f"reports/{E}/{{name}}.svg", name=FIGURES),
            caption="../report/figures.rst",
            category="Figures",
        ),
        expand(f"reports/{E}/{{name}}.png", name=FIGURES),
        [f"reports/{E}/figure7.csv"] if JOBS["distract"] else [],
        [f"reports/{E}/contact_sheet.png"] if JOBS["contact_sheet"] else [],
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
        curves=lambda w, input: (
            os.path.dirname(input.curves[0])
            if input.curves
            else f"results/{E}/distract"
        ),
        logs=lambda w, input: os.path.dirname(input.logs[0]),
        scores=lambda w, input: os.path.dirname(input.scores[0]),
        out=lambda w, output: os.path.dirname(output[0]),
    shell:
        "reid draw --settings {input.settings} --curves {params.curves} --logs {params.logs}"
        " --scores {params.scores} --paper {input.paper} --out {params.out} > {log} 2>&1"
