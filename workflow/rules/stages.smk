# One rule per stage, from the plan. For `train`, for example, the loop below makes
#
#   rule train:
#       input:
#           settings="results/embedded/settings/train/{job}.json",
#           index="results/embedded/index/<the job's dataset>.parquet",
#           weights="results/embedded/pretrain/<the job's classifier>.safetensors",
#       output:
#           out="results/embedded/train/{job}.safetensors",
#           log="results/embedded/train/{job}.csv",
#       ...
#       shell:
#           "reid train --settings {input.settings:q} --index {input.index:q} --weights {input.weights:q}"
#           " --out {output.out:q} --log {output.log:q} > {log:q} 2>&1"

SHOWN = {  # in Snakemake's own report: file -> caption, category, labels
    "forest.svg": ("forest", "Figures", {"figure": "Verdicts"}),
    "findings.html": ("findings", "Tables", {"table": "Findings"}),
    "table1.html": ("tables", "Tables", {"table": "1. Augmentation"}),
    "table2.html": ("tables", "Tables", {"table": "2. Image size"}),
    "table3.html": ("tables", "Tables", {"table": "3. Pooling, backbone, pretraining"}),
    "table4.html": ("tables", "Tables", {"table": "4. State of the art"}),
    "table5.html": ("tables", "Tables", {"table": "5. What is argued in words"}),
    "figure1.svg": ("pictures", "Figures", {"figure": "1. Dimensions and regions"}),
    "figure4.svg": ("pictures", "Figures", {"figure": "4. Ranked lists"}),
    "figure5.svg": ("pictures", "Figures", {"figure": "5. Matching regions"}),
    "figure6.svg": ("pictures", "Figures", {"figure": "6. Implicit attention"}),
    "training_curves.svg": ("figures", "Figures", {"figure": "Training curves"}),
    "convergence.svg": ("figures", "Figures", {"figure": "Convergence"}),
    "open_set.svg": ("figures", "Figures", {"figure": "Open set"}),
    "figure7.svg": ("figures", "Figures", {"figure": "7. Distractors"}),
    "similarities.svg": ("figures", "Figures", {"figure": "Similarities"}),
    "contact_sheet.png": ("sheet", "Figures", {"figure": "The rendered people"}),
    "report.html": (
        "page",
        "The whole report",
        {"page": "Tables, figures and queries"},
    ),
}

OTHERS = {  # tables of the experiment's own
    file: ("tables", "Tables", {"table": file.removesuffix(".html")})
    for file in RULES["tabulate"]["outputs"]
    if file.startswith("table") and file.endswith(".html")
}

# Snakemake evaluates `shell` again when a job runs; there, `rule` is its own variable, the name of the job's rule.
for rule in RULES:

    rule:
        name:
            rule
        input:
            unpack(inputs(rule)),
        output:
            **{
                name: shown(path, OTHERS | SHOWN)
                for name, path in RULES[rule]["outputs"].items()
            },
        log:
            f"results/{E}/logs/{rule}/{RULES[rule]['job']}.log",
        benchmark:
            f"results/{E}/benchmarks/{rule}/{RULES[rule]['job']}.tsv"
        wildcard_constraints:
            **{
                field: "|".join(names)
                for field, names in RULES[rule]["wildcards"].items()
            },
        priority: RULES[rule]["priority"]
        conda:
            f"../envs/{RULES[rule]['environment']}.yaml"
        threads: RULES[rule]["resources"]["threads"]
        resources:
            **asked(rule),
        params:
            **folders(rule),
        shell:
            command(rule)
