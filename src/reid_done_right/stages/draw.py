"""Draw Figure 7, the curves of every training run and the histograms of similarities.

The settings (as YAML):

    experiment: embedded            # named in the subtitles
    synthetic: true                 # true: label as rendered; false: draw the paper's [17] in Figure 7
    margin: 0.1                     # of the triplet loss
    runs: [market-default-draw0]    # every planned run, in the order of the panels
    scored: [market-default-draw0]  # a scored run of each of them; its name differs after training on several datasets
    curves: [market-default-draw0]  # the runs of Figure 7, in the order of its lines
    shown: [market-default-draw0]   # the runs whose similarities are drawn
    followed: [market-default-draw0]  # the runs whose convergence is drawn; optional
    identified: [market-default-draw0]  # the runs whose open set is drawn; optional
    allow_missing: false            # true: name missing runs in the figures instead of failing
    contact_sheet:                  # optional: draw the rendered people of the market dataset
      {world: 1, cameras: 6, identities: 6, lookalikes: 2, hardness: 0.45}
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from pedestrians.contact_sheet import market_contact_sheet
from reid_done_right.artifacts import InputError, read_json, replacing
from reid_done_right.reporting.convergence import convergence, convergence_lines
from reid_done_right.reporting.curves import Training, distractor_lines, parse_log, training_means
from reid_done_right.reporting.figures import figure7, house_style, image, in_few_colours, training_curves
from reid_done_right.reporting.figures import similarities as histograms
from reid_done_right.reporting.identification import error_rates, read_open_sets, tradeoff
from reid_done_right.reporting.paper import Paper, parse_paper
from reid_done_right.reporting.runs import Runs, index_runs

TITLE = "Figure 7. Performance in the presence of distractors"
CURVES = "above the loss, black line: the margin; below the share of triplets with a loss"
PAIRS = "every pair of a query and a gallery image that counts, each outline of area 1"
RIVAL = "TriNet [17]"  # section 4.5: the best model with 500K distractors is on par with [17] without any


def draw(
    *,
    curves: list[Path],
    logs: list[Path],
    scores: list[Path],
    similarities: list[Path],
    followed: list[Path],
    identified: list[Path],
    paper: Path,
    settings: Mapping[str, Any],
    out: Path,
) -> list[Path]:
    """Write training_curves, figure7 and similarities as .svg and .png into `out`; return their paths.

    Also writes figure7.csv, training_curves.csv and, if the settings have them, convergence and open_set (each with
    a .csv) and contact_sheet.png. Without curves there is no Figure 7; without shown runs there are no similarities.

    curves: JSON of `distract`, one per run. logs: CSV of `train`, one per run and named after it. scores: JSON of
    `evaluate`, which mark collapsed runs. similarities: JSON of `retrieve`, one per shown run.
    followed: JSON of `follow`, one per followed run. identified: JSON of `identify`, likewise.
    paper: reports/paper.csv. settings: see the module docstring.
    Raises InputError naming the planned run whose scores, curve or log is missing, unless `allow_missing`.
    """
    runs = index_runs((path, read_json(path)) for path in scores)
    where = f"{settings['experiment']} {'rendered benchmark' if settings['synthetic'] else 'experiment'}"

    def absent(files: list[Path], wanted: list[str]) -> list[str]:
        """Return the runs that are missing, if that is allowed."""
        given = {path.stem for path in files}
        return [name for name in wanted if name not in given] if settings["allow_missing"] else []

    def subtitle(about: str, missing: list[str], collapsed: list[str] | None = None) -> str:
        counted = _named("collapsed in training, and counted", collapsed or [])
        return "\n".join(filter(None, [f"{where}; {about}", counted, _named("not run yet and left out", missing)]))

    scored = dict(zip(settings["runs"], settings["scored"], strict=True))
    unscored = absent(scores, list(scored.values()))
    lost = absent(logs, list(scored))
    untrained = sorted(name for name in scored if name in lost or scored[name] in unscored)
    planned = {name: test for name, test in scored.items() if name not in untrained}
    trainings = _trainings(logs, runs, planned)
    figures = {}
    tables = {
        "training_curves.csv": training_means(trainings).to_csv(index=False, float_format="%.5g", lineterminator="\n")
    }
    with house_style():
        if settings["curves"]:
            collapsed = [run.name for run in runs.values() if run.collapsed and run.name in settings["curves"]]
            uncurved = absent(curves, settings["curves"])
            lines = distractor_lines(((path, read_json(path)) for path in curves), settings["curves"], uncurved)
            rival = {} if settings["synthetic"] else _rival(parse_paper(paper, paper.read_text(encoding="utf-8")))
            about = subtitle(_legend(lines, settings), uncurved, collapsed)
            figures["figure7"] = figure7(lines, TITLE, about, rival, RIVAL)
            tables["figure7.csv"] = lines.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        figures["training_curves"] = training_curves(
            trainings,
            settings["margin"],
            "Training with the triplet loss, every run",
            subtitle(CURVES, untrained),
        )
        if settings.get("followed"):
            unfollowed = absent(followed, settings["followed"])
            along = convergence_lines(((path, read_json(path)) for path in followed), settings["followed"], unfollowed)
            about = subtitle(_spread(along), unfollowed)
            figures["convergence"] = convergence(along, "Convergence of the ranking stage", about)
            tables["convergence.csv"] = along.to_csv(index=False, float_format="%.3f", lineterminator="\n")
        if settings.get("identified"):
            found = ((path, read_json(path)) for path in identified)
            rates = error_rates(read_open_sets(found, settings["identified"], settings["allow_missing"]))
            about = subtitle(_spread(rates), absent(identified, settings["identified"]))
            figures["open_set"] = tradeoff(rates, "Open set: known persons missed, by false alarms", about)
            tables["open_set.csv"] = rates.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        if settings["shown"]:
            unseen = absent(similarities, settings["shown"])
            figures["similarities"] = histograms(
                [read_json(path) for path in similarities],
                "Similarities of queries to images of the same and of other people",
                subtitle(PAIRS, unseen),
            )
        files = {f"{name}.{kind}": image(figure, kind) for name, figure in figures.items() for kind in ("svg", "png")}
    files |= {name: text.encode() for name, text in tables.items()}
    if sheet := settings.get("contact_sheet"):
        files["contact_sheet.png"] = _contact_sheet(sheet)
    for name, content in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(content)
    return [out / name for name in files]


def _contact_sheet(people: Mapping[str, Any]) -> bytes:
    written = BytesIO()
    market_contact_sheet(**people).save(written, format="png")
    return in_few_colours(written.getvalue())


def _legend(lines: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Return the explanation of lines and bands."""
    text = "no line: no run can be shown"
    if not lines.empty:
        runs, values = lines["runs"].max(), lines["values"].max()
        draws = f"{runs} draw{'s' if runs > 1 else ''}"
        text = f"line: mean of {draws} x {values // runs} orders of the distractors, band: least to greatest"
    if not settings["synthetic"]:
        text += f"; dashed: {RIVAL} without distractors, as the paper prints it"
    return text


def _spread(lines: pd.DataFrame) -> str:
    """Return what the lines are means over."""
    draws = int(lines["runs"].max()) if len(lines) else 0
    over = f"mean of {draws} draws, band: least to greatest" if draws > 1 else "one draw"
    return f"{over}; without re-ranking"


def _named(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else ""


def _rival(paper: Paper) -> dict[str, float]:
    printed = {"mAP": "mAP", "rank1": "rank-1"}
    return {key: float(paper.value("4", f"{RIVAL}*", "market-sq", metric)) for key, metric in printed.items()}


def _trainings(logs: list[Path], runs: Runs, planned: Mapping[str, str]) -> list[Training]:
    """Read the logs of the planned runs, in order; `planned` has a scored run of each."""
    files = {path.stem: path for path in logs}
    trainings = []
    for name, scored in planned.items():
        if name not in files:
            raise InputError(f"{name}.csv: no training log of this planned run; run `reid train` for it")
        if scored not in runs:
            raise InputError(f"{scored}.json: no scores of this planned run; run `reid evaluate` for it")
        run, file = runs[scored], files[name]
        log = parse_log(file, file.read_text(encoding="utf-8"))
        trainings.append(Training(run.trained_on, run.variant, run.draw, run.collapsed, log))
    return trainings
