"""The report as one self-contained page: `page.html` with `page.css` and `page.js` inside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image as pillow

from reid_done_right.dag import stem_of
from reid_done_right.reporting.claims import Finding
from reid_done_right.reporting.encoding import data_uri, webp
from reid_done_right.reporting.markdown import METHOD, begun, finding_texts, lost_runs
from reid_done_right.reporting.paper import OF_THE_PAPER, whose
from reid_done_right.reporting.pipeline import picture
from reid_done_right.reporting.tables import signed
from reid_done_right.reporting.templates import render

TILE = (40, 80)  # width and height in pixels of a thumbnail
ACROSS = 40  # thumbnails in a line of the sheet that holds them
SIZE = "\N{REPLACEMENT CHARACTER}"  # stands for the size of the page until it is known
VERDICTS = {"supported": "✓", "contradicted": "✗", "undecided": "?", "measured": "="}

TAKEAWAYS = {
    "forest": "A line right of 0 speaks for the claim, left of it against; one that crosses 0 decides nothing.",
    "contact_sheet": "A row is a person as the cameras see them; the lookalikes below differ in details only.",
    "figure1": "Each dimension has its own images. Maps have few cells: a glow says which part, not which thing.",
    "figure4": "Where a frame is dashed, the embedding took another person for the one asked for.",
    "figure5": "The glow is where a match's similarity to its query comes from.",
    "figure6": "One person in several images: a map that moves between them follows the background, not the person.",
    "figure7": "The flatter a line, the less a gallery of strangers disturbs the embedding.",
    "similarities": "The less the two overlap, the better one threshold tells the same person from another.",
    "convergence": "Training persons above test persons: the distance between the panels is over-fitting.",
    "open_set": "Further left, fewer strangers raise an alarm, and more known persons are missed; lower is better.",
    "training_curves": "Mined triplets should stay active: at a share of 0 a run learns nothing more.",
}
"""Figure -> how to read it, in a sentence."""


@dataclass(frozen=True)
class Browsed:
    """The queries of one run to browse.

    queries    a row each: query, row (of the index), ap, relevant, first_hit_rank
    places     a row each place of their lists: query, place, gallery_row, similarity, relevant
    of_row     what is told of an index row: file, person and camera
    total      number of all queries of the run, of which these are some
    variants   AP of these queries (in this order) in the runs of other variants of the same draw
    sheet      all thumbnails as one picture, in the order of `tiles`; None leaves them out
    tiles      index rows
    """

    run: str
    queries: pd.DataFrame
    places: pd.DataFrame
    of_row: Mapping[int, tuple[str, int, int]]
    total: int
    variants: Mapping[str, NDArray[np.float64]]
    sheet: bytes | None
    tiles: Sequence[int]


def page(
    report: Mapping[str, Any],
    figures: Sequence[Mapping[str, Any]],
    browsed: Sequence[Browsed],
    pipeline: Mapping[str, Any],
) -> str:
    """Write the page.

    report: what `tabulate` wrote as report.json. figures: {"name", "caption", "files", "image", "absent"}, the image as
    bytes of an SVG or PNG file, None where there is none to embed, which `absent` explains. pipeline: see
    `reid_done_right.reporting.pipeline.picture`.
    """
    shown = [{**figure, "source": data_uri(figure["image"]) if figure["image"] else ""} for figure in figures]
    found = [{**each, **_finding_words(Finding(**each))} for each in report["findings"]]
    text = render(
        "page.html",
        **{**report, "findings": found},
        heading=heading(report),
        summary=summary(report),
        claims=whose(report["about"]),
        of_the_paper=OF_THE_PAPER,
        counts=_counts(report),
        takeaways=TAKEAWAYS,
        method=METHOD,
        lost=lost_runs(report["about"]),
        verdicts=[figure for figure in shown if figure["name"] == "forest"],
        figures=[figure for figure in shown if figure["name"] != "forest"],
        browsed=[
            {
                "run": each.run,
                "count": len(each.queries),
                "total": each.total,
                "collapsed": each.run in report["about"]["collapsed"],
            }
            for each in browsed
        ],
        data=_script_json({each.run: _browsed_json(each) for each in browsed}),
        pipeline=picture(pipeline),
        stem_of=stem_of,
        signs=VERDICTS,
        size=SIZE,
        results=f"../../results/{report['about']['experiment']}",
    )
    megabytes = f"{len(text.encode()) / 1e6:.1f} MB"
    return text.replace(SIZE, megabytes)


def heading(report: Mapping[str, Any]) -> str:
    """Return the title: the paper, and the data that its experiments ran on."""
    datasets = ", ".join(dict.fromkeys(run["dataset"] for run in report["runs"]))
    on = "rendered people" if report["about"]["synthetic"] else datasets or "data to come"
    return f"Re-ID done right, reproduced on {on}"


def summary(report: Mapping[str, Any]) -> str:
    """Return one sentence with the outcome: claims by verdict, and the runs behind them."""
    counts, runs = _counts(report), report["runs"]
    datasets = len({run["dataset"] for run in runs})
    on = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} on {datasets} {'dataset' if datasets == 1 else 'datasets'}"
    if not counts:
        return f"{begun(on)}; the claims of the paper are not judged here."
    told = {"supported": "come out here too", "contradicted": "come out the other way", "undecided": "remain undecided"}
    parts = [f"{count} {told.get(verdict, f'are {verdict}')}" for verdict, count in counts.items()]
    listed = ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1]
    return f"Of {sum(counts.values())} comparisons behind {whose(report['about'])}, {listed}, by {on}."


def _counts(report: Mapping[str, Any]) -> dict[str, int]:
    """Return verdict -> number of findings, in the order of `VERDICTS`, without those that nothing got."""
    found = Counter(finding["verdict"] for finding in report["findings"])
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def _finding_words(finding: Finding) -> dict[str, str]:
    text, p = finding_texts(finding)
    rows = " ".join(f"runs-{source.replace('/', '-')}" for source in finding.sources)
    return {"text": text, "p_text": p, "rows": rows, "draws_text": ", ".join(map(signed, finding.by_draw))}


def thumbnails(images: Sequence[NDArray[np.uint8]]) -> bytes:
    """Put images (h, w, 3) side by side in lines, each into a tile without distortion, as one WebP picture."""
    wide, tall = TILE
    lines = -(-len(images) // ACROSS)
    sheet = pillow.new("RGB", (ACROSS * wide, lines * tall), (128, 128, 128))
    for i, image in enumerate(images):
        small = pillow.fromarray(image)
        scale = min(wide / small.width, tall / small.height)
        size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        left, top = (i % ACROSS) * wide + (wide - size[0]) // 2, (i // ACROSS) * tall + (tall - size[1]) // 2
        sheet.paste(small.resize(size, pillow.Resampling.LANCZOS), (left, top))
    return webp(sheet, quality=60)


def _browsed_json(each: Browsed) -> dict[str, Any]:
    tile = {row: place for place, row in enumerate(each.tiles)}
    lists: dict[int, list[list[float]]] = {}
    for place in each.places.sort_values(["query", "place"]).to_dict("records"):
        shown = [tile[place["gallery_row"]], round(place["similarity"], 3), int(place["relevant"])]
        lists.setdefault(place["query"], []).append(shown)
    fields = ("ap", "relevant", "first_hit_rank")
    queries = [
        [query["query"], tile[query["row"]], *(round(query[name], 4) for name in fields), lists[query["query"]]]
        for query in each.queries.to_dict("records")
    ]
    return {
        "queries": queries,
        "total": each.total,
        "tiles": [each.of_row[row] for row in each.tiles],
        "sheet": data_uri(each.sheet) if each.sheet is not None else None,
        "tile": [*TILE, ACROSS],
        "variants": {name: np.round(values, 3).tolist() for name, values in each.variants.items()},
    }


def _script_json(content: Any) -> Markup:
    """Write JSON that cannot end the script element that holds it."""
    return Markup(json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"))
