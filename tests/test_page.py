"""The report page: its content, and that it works offline in a real browser."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chromium import CHROMIUM, Tab, browse
from conftest import committed, needs
from reid_done_right.artifacts import Index, InputError, write_index
from reid_done_right.dag import STAGES, drawing, edges
from reid_done_right.reporting.markdown import FIGURES
from reid_done_right.reporting.page import TAKEAWAYS, heading, summary
from reid_done_right.reporting.pipeline import picture
from reid_done_right.reporting.templates import marked
from reid_done_right.stages.publish import publish

RUN = "market-default-draw0"
in_chromium = needs("Chromium", CHROMIUM is not None)


def text(words: str, bold: bool = False, source: str = "") -> dict[str, Any]:
    return {"text": words, "bold": bold, "source": source}


REPORT = {
    "about": {
        "experiment": "toy",
        "title": "Results of <toy>",
        "synthetic": True,
        "command": "make",
        "parameters_digest": "3f9c41d2",
        "claims": "the paper's claims",
        "draws": [0],
        "runs": [RUN],
        "missing": [],
        "collapsed": [],
        "native": [],
    },
    "findings": [
        {
            "claim": "Cut-out helps",
            "source": "Table 1",
            "benchmark": "Market",
            "here": "default − plain",
            "paper": "+5.3",
            "mean": 2.0,
            "low": 1.0,
            "high": 3.0,
            "p": 0.0004,
            "adjusted": 0.0008,
            "smallest": 1.4,
            "bound": None,
            "by_draw": [1.9, 2.1],
            "verdict": "supported",
            "why": "",
            "sources": ["market/default", "market/plain"],
        },
    ],
    "tables": [
        {
            "name": "table1",
            "caption": "Table 1. Toys",
            "warning": "**Not** comparable",
            "grids": [
                {
                    "title": "",
                    "header": ["Row", "Market"],
                    "labels": 1,
                    "body": [
                        [text("published", bold=True)],
                        [text("nine"), text("9.1")],
                        [text("ten"), text("10.0")],
                        [text("none"), text("-")],
                        [text("ours", bold=True)],
                        [text("default"), text("59.0 ± 1.4", True, "market/default")],
                    ],
                }
            ],
            "notes": ["From `report.json`."],
        }
    ],
    "runs": [
        {
            "name": RUN,
            "dataset": "market",
            "variant": "default",
            "draw": 0,
            "collapsed": False,
            "protocol": "single-query",
            "mAP": 0.59,
            "rank1": 0.71,
        }
    ],
    "scores": {},
}
PIPELINE = drawing(dict.fromkeys(STAGES, 1))
SETTINGS = {
    "images": True,
    "queries": 9,
    "claims": "the paper's claims",
    "contact_sheet": False,
    "allow_missing": False,
    "curves": [RUN],
    "followed": [RUN],
    "identified": [RUN],
    "shown": {
        RUN: {
            "dataset": "market",
            "index": "market",
            "format": "market1501",
            "variants": {"default": RUN, "flip": "market-flip-draw0"},
        }
    },
    "pipeline": PIPELINE,
}
AP = [0.9, 0.1, 0.5]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Three queries, of persons 1, 2 and 2, and a gallery of four; each list has three places."""
    for row in range(7):
        Image.new("RGB", (8, 16), (30 * row, 0, 0)).save(tmp_path / f"{row}.png")
    index = Index(
        root=tmp_path,
        path=np.array([f"{row}.png" for row in range(7)]),
        person_id=np.array([1, 2, 2, 1, 2, 0, 2]),
        camera_id=np.array([1, 1, 2, 2, 3, 1, 4]),
        tracklet_id=np.zeros(7, np.int64),
        split=np.array(["query"] * 3 + ["gallery"] * 4),
        box=np.zeros((7, 4), np.int32),
    )
    write_index(tmp_path / "market.parquet", index)
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    places = [
        {"query": q, "query_row": q, "place": k + 1, "gallery_row": row, "similarity": 0.9 - k / 10, "relevant": right}
        for q, rows in enumerate([(3, 5, 4), (3, 4, 6), (4, 6, 5)])
        for k, row in enumerate(rows)
        for right in [bool(index.person_id[row] == index.person_id[q])]
    ]
    (tmp_path / "places").mkdir()
    pd.DataFrame(places).to_parquet(tmp_path / "places" / f"{RUN}.parquet")
    for name, gain in ((RUN, 0.0), ("market-flip-draw0", 0.05)):
        rows = {"protocol": "single-query", "rerank": "none", "query": [0, 1, 2], "ap": np.array(AP) + gain}
        rows |= {"ap_step": 0.0, "first_hit_rank": [1, 2, 1], "relevant": [1, 2, 1]}
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    drawn = "<svg xmlns='http://www.w3.org/2000/svg' width='90' height='60'><rect width='90' height='60'/></svg>"
    for name in FIGURES:
        (tmp_path / name).write_text(drawn)
    return {
        "report": tmp_path / "report.json",
        "figures": [tmp_path / name for name in FIGURES],
        "indexes": [tmp_path / "market.parquet"],
        "places": [tmp_path / "places" / f"{RUN}.parquet"],
        "queries": [tmp_path / f"{name}.parquet" for name in (RUN, "market-flip-draw0")],
        "out": tmp_path / "report.html",
    }


def published(inputs: dict[str, Any], **changed: Any) -> str:
    publish(**inputs, settings=SETTINGS | changed)
    return inputs["out"].read_text()


def queries_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])[RUN]


def test_page_needs_nothing_but_itself(inputs):
    page = published(inputs)
    assert not re.search(r'(src|href)="(https?:)?//', page) and "@import" not in page
    assert all(f'id="{Path(name).stem}"' in page for name in FIGURES)
    assert "Results of &lt;toy&gt;" in page and "<strong>Not</strong> comparable" in page
    assert '<a href="#runs-market-default"' in page and 'id="runs-market-default"' in page
    assert f'href="../../results/toy/evaluate/{RUN}.json"' in page
    told = re.search(r"The page holds everything it shows, ([\d.]+) MB", page)
    assert told and float(told[1]) == round(inputs["out"].stat().st_size / 1e6, 1)


def test_page_links_to_the_files_of_numbered_tables_alone(inputs):
    report = json.loads(inputs["report"].read_text())
    report["tables"] += [{**report["tables"][0], "name": "identification"}]
    inputs["report"].write_text(json.dumps(report))
    page = published(inputs)
    assert 'id="identification"' in page and 'href="table1.md"' in page and "identification.md" not in page


def test_page_shows_the_verdicts_first(inputs):
    page = published(inputs)
    assert page.index('id="forest"') < page.index('id="table1"') < page.index('id="figure7"')
    assert page.count('id="forest"') == 1 and '<td class="number">+1.9, +2.1</td>' in page
    assert 'id="forest"' not in published(inputs, claims="")


def test_every_query_has_its_list_and_its_scores(inputs):
    data = queries_of(published(inputs))
    first, second, third = data["queries"]
    assert first[:5] == [0, 0, 0.9, 1, 1] and second[2:5] == [0.1, 2, 2]
    assert [data["tiles"][tile] for tile, *_ in third[5]] == [["4.png", 2, 3], ["6.png", 2, 4], ["5.png", 0, 1]]
    assert [right for *_, right in third[5]] == [1, 1, 0]
    assert data["variants"] == {"default": [0.9, 0.1, 0.5], "flip": [0.95, 0.15, 0.55]}
    assert data["sheet"].startswith("data:image/webp;base64,")


def test_fewer_queries_are_spread_over_their_ap(inputs):
    page = published(inputs, queries=2)
    assert [query[2] for query in queries_of(page)["queries"]] == [0.9, 0.1]
    assert queries_of(page)["total"] == 3 and f"{RUN} (2 of 3 queries)" in page and "Not all of them are here" in page


def test_summary_counts_the_verdicts_and_what_they_rest_on():
    found = [{"verdict": verdict} for verdict in ("undecided", "supported", "undecided", "contradicted")]
    assert summary({**REPORT, "findings": found}) == (
        "Of 4 comparisons behind the paper's claims, 1 come out here too, 1 come out the other way and 2 remain undecided, "
        "by 1 run on 1 dataset."
    )
    assert summary({**REPORT, "findings": []}) == "1 run on 1 dataset; the claims of the paper are not judged here."


def test_heading_names_the_paper_and_the_data():
    assert heading(REPORT) == "Re-ID done right, reproduced on rendered people"
    real = {**REPORT, "about": {**REPORT["about"], "synthetic": False}}
    assert heading(real) == "Re-ID done right, reproduced on market"


def test_every_figure_has_a_sentence_on_how_to_read_it():
    assert {Path(name).stem for name in FIGURES} <= set(TAKEAWAYS)


def test_without_leave_to_show_people_no_image_of_them_is_in_the_page(inputs):
    page = published(inputs, images=False)
    data = queries_of(page)
    assert data["sheet"] is None and len(data["queries"]) == 3
    assert page.count("data:image/svg+xml") == len(FIGURES) - 4
    assert "data:image/webp" not in page and page.count("not to be passed on") == 4


def test_missing_file_is_named(inputs):
    with pytest.raises(
        InputError, match=r"figure5\.svg: no such figure among those given; run `reid tabulate`, `reid draw`"
    ):
        published(inputs | {"figures": [path for path in inputs["figures"] if path.stem != "figure5"]})
    with pytest.raises(InputError, match=r"market-flip-draw0: no such file"):
        published(inputs | {"queries": inputs["queries"][:1]})


def test_missing_and_collapsed_runs_are_reported_and_others_shown(inputs):
    report = json.loads(inputs["report"].read_text())
    report["about"] |= {"runs": [RUN, "market-flip-draw0"], "missing": ["market-flip-draw0"], "collapsed": [RUN]}
    inputs["report"].write_text(json.dumps(report))
    inputs["figures"] = [path for path in inputs["figures"] if path.stem not in ("figure5", "figure7")]
    inputs["queries"] = inputs["queries"][:1]
    page = published(inputs, allow_missing=True)
    assert "<strong>1 of 2 runs not run yet:</strong> market-flip." in page
    assert "<strong>1 of 2 runs collapsed in training; their scores count, marked †:</strong> market-def" in page
    assert f"{RUN} (3 queries, collapsed in training)" in page
    assert page.count("Not drawn yet.") == 2 and 'href="figure5.svg"' not in page and 'href="figure4.svg"' in page
    assert list(queries_of(page)["variants"]) == ["default"]
    inputs["places"] = []
    page = published(inputs, allow_missing=True)
    assert 'id="queries"' not in page and "Table 1. Toys" in page


def test_same_page_to_the_byte(inputs):
    assert published(inputs) == published(inputs)


def test_marks_of_notes_become_tags_and_nothing_else_does():
    assert marked("**a** `b` <c>") == "<strong>a</strong> <code>b</code> &lt;c&gt;"


def test_arrows_of_the_picture_are_the_edges():
    drawn = picture(PIPELINE)
    assert [(arrow["from"], arrow["to"]) for arrow in drawn["arrows"]] == edges()
    places = [(box["x"], box["y"]) for box in drawn["boxes"]]
    assert len(set(places)) == len(places) == len(STAGES)


# --- in a browser


def visited(page: Path, visit: Callable[[Tab], Any]) -> None:
    """Visit a page; afterwards nothing may have gone wrong on it and nothing been fetched."""
    tabs = []

    async def watched(tab: Tab) -> None:
        tabs.append(tab)
        await visit(tab)

    browse(page, watched)
    assert tabs[0].errors == []
    assert [url for url in tabs[0].requests if not url.startswith("data:")] == [page.resolve().as_uri()]


def on_the_page(visit: Callable[[Tab], Any]) -> Callable[[dict[str, Any]], None]:
    """Have pytest publish a report and visit its page."""

    @in_chromium
    def test(inputs: dict[str, Any]) -> None:
        published(inputs)
        visited(inputs["out"], visit)

    test.__doc__ = visit.__doc__
    return test


COLUMN = "[...document.querySelectorAll('#table1 tbody:first-of-type td')].map(cell => cell.textContent)"


@on_the_page
async def test_heading_sorts_its_column_by_number(tab: Tab) -> None:
    assert await tab.evaluate(COLUMN) == ["9.1", "10.0", "-"]
    await tab.evaluate("document.querySelector('#table1 th.number button').focus()")
    await tab.press("Enter")
    assert await tab.evaluate(COLUMN) == ["9.1", "10.0", "-"]
    await tab.press("Enter")
    assert await tab.evaluate(COLUMN) == ["10.0", "9.1", "-"]
    assert await tab.evaluate("document.querySelector('#table1 th.number').ariaSort") == "descending"


@on_the_page
async def test_queries_are_picked_by_keyboard_and_by_person(tab: Tab) -> None:
    told = "document.querySelector('#query-detail strong').textContent"
    signs = "[...document.querySelectorAll('.places b')].map(sign => sign.textContent).join('')"
    assert await tab.evaluate(told) == "Query 1: person 2, camera 1"  # the lowest AP first
    assert await tab.evaluate(signs) == "✗✓✓"
    await tab.evaluate("document.querySelector('#query-list').focus()")
    await tab.press("ArrowDown")
    assert await tab.evaluate(told) == "Query 2: person 2, camera 2"
    assert await tab.evaluate("document.querySelectorAll('#query-list [aria-selected]').length") == 1
    await tab.evaluate(
        "{const box = document.querySelector('#query-person'); box.value = '1'; box.oninput(); undefined}"
    )
    assert await tab.evaluate(told) == "Query 0: person 1, camera 1"
    assert await tab.evaluate("document.querySelector('#query-count').textContent") == "1 of 3 queries"
    assert await tab.evaluate("location.hash") == f"#query={RUN}/0"
    tile = "getComputedStyle(document.querySelector('.places .tile')).backgroundImage.slice(0, 20)"
    assert await tab.evaluate(tile) == 'url("data:image/webp'


@on_the_page
async def test_failed_queries_are_shown_alone(tab: Tab) -> None:
    told = "document.querySelector('#query-detail strong').textContent"
    choose = "{const kind = document.querySelector('#query-kind'); kind.value = '%s'; kind.onchange(); undefined}"
    await tab.evaluate(choose % "failed")
    assert await tab.evaluate("document.querySelectorAll('.query').length") == 1
    assert await tab.evaluate(told) == "Query 1: person 2, camera 1"
    await tab.evaluate(choose % "found")
    assert await tab.evaluate("document.querySelectorAll('.query').length") == 2


@on_the_page
async def test_number_leads_to_its_runs_and_a_box_of_the_pipeline_to_its_arrows(tab: Tab) -> None:
    await tab.evaluate("document.querySelector('#findings td.number a').focus()")
    await tab.press("Enter")
    aimed = "document.querySelector('tr.aimed th')?.textContent.trim()"
    await tab.until(f"{aimed} === '{RUN}'")  # the page hears of its new address after the key
    await tab.evaluate("document.querySelector('#graph [data-rule=embed]').focus()")
    near = "[...document.querySelectorAll('#graph .arrow.near')].map(each => each.dataset.from + each.dataset.to)"
    assert set(await tab.evaluate(near)) == {a + b for a, b in edges() if "embed" in (a, b)}


@on_the_page
async def test_figure_is_enlarged_and_the_theme_switched(tab: Tab) -> None:
    open_ = "document.querySelector('dialog').open"
    paper = "getComputedStyle(document.body).backgroundColor"
    await tab.evaluate("document.querySelector('#figure7 button').focus()")
    await tab.press("Enter")
    assert await tab.evaluate(open_)
    wide = "document.querySelector('dialog img').clientWidth"
    await tab.evaluate("document.querySelector('dialog img').decode()")
    before = await tab.evaluate(wide)
    await tab.evaluate("document.querySelector('#nearer').click()")
    assert await tab.evaluate(wide) > 1.4 * before > 0
    await tab.press("Escape")
    assert not await tab.evaluate(open_)
    light = await tab.evaluate(paper)
    await tab.evaluate("document.querySelector('#theme').click()")
    assert await tab.evaluate(paper) != light


@on_the_page
async def test_every_control_has_a_name(tab: Tab) -> None:
    """What a screen reader reads of buttons, links and fields."""
    await tab.call("Accessibility.enable")
    nodes = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
    roles = {"button", "link", "combobox", "textbox", "img", "listbox", "option", "region"}
    named = [node for node in nodes if not node["ignored"] and node.get("role", {}).get("value") in roles]
    nameless = [node["role"]["value"] for node in named if not node.get("name", {}).get("value")]
    assert len(named) > 30 and nameless == []


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_page_is_photographed(inputs: dict[str, Any], width: int, scheme: str) -> None:
    """To be looked at: the pictures stay among the files of the last runs of pytest, such as /tmp/pytest-of-USER."""
    picture = inputs["out"].with_name(f"{scheme}-{width}.png")

    async def visit(tab: Tab) -> None:
        size = {"width": width, "deviceScaleFactor": 1, "mobile": False}
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await tab.call("Emulation.setDeviceMetricsOverride", height=900, **size)
        tall = await tab.evaluate("document.documentElement.scrollHeight")
        await tab.call("Emulation.setDeviceMetricsOverride", height=tall, **size)
        picture.write_bytes(b64decode((await tab.call("Page.captureScreenshot"))["data"]))

    published(inputs)
    visited(inputs["out"], visit)
    with Image.open(picture) as taken:
        assert taken.width == width and taken.height > 900
        assert (np.asarray(taken.convert("L"))[0, 0] > 128) == (scheme == "light")


@in_chromium
def test_page_with_long_names_of_runs_is_no_wider_than_a_phone(inputs: dict[str, Any]) -> None:
    async def visit(tab: Tab) -> None:
        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
        wide = "document.querySelector('#query-run').getBoundingClientRect().width"
        assert await tab.evaluate("innerWidth") == 390 and 200 < await tab.evaluate(wide) <= 350
        root = "document.documentElement"
        assert await tab.evaluate(f"{root}.scrollWidth === {root}.clientWidth")

    published(inputs)
    page = inputs["out"].read_text(encoding="utf-8")
    inputs["out"].write_text(page.replace(RUN, f"market-resnet22-{'same-compute-' * 4}draw0"), encoding="utf-8")
    visited(inputs["out"], visit)


@in_chromium
def test_committed_report_shows_all_its_images(tmp_path):
    async def visit(tab: Tab) -> None:
        assert await tab.evaluate("document.querySelectorAll('.query').length") > 50
        assert await tab.evaluate(
            "[...document.querySelectorAll('figure img')].every(image => image.complete && image.naturalWidth)"
        )

    (tmp_path / "report.html").write_bytes(committed("reports/embedded/report.html"))
    visited(tmp_path / "report.html", visit)
