"""Open sets of a dataset: what the stage writes, and their table and figure in the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reid_done_right.artifacts import Embeddings, Index, InputError, write_embeddings, write_index
from reid_done_right.evaluation.open_set import OpenSet
from reid_done_right.reporting.figures import house_style, image
from reid_done_right.reporting.identification import error_rates, open_set_sheet, read_open_sets, tradeoff
from reid_done_right.reporting.markdown import sheet_markdown
from reid_done_right.stages.draw import draw
from reid_done_right.stages.identify import identify
from reid_done_right.stages.tabulate import tabulate
from test_draw import NAMES, PAPER, SETTINGS, inputs
from test_tabulate import planned

__all__ = ["inputs"]

NBSP = "\N{NO-BREAK SPACE}"
ABOUT = {"dataset": "market", "variant": "default", "backbone": "resnet10", "draw": 0}
HOW = {"run": ABOUT, "format": "market1501", "tracklets": "mean", "unknown": 0.5, "fpir": [0.25], "threads": 1}


# --- the stage


def circle(degrees: list[float]) -> Any:
    """Return unit vectors (N, 2) at angles."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def write_rows(folder: Path) -> dict[str, Path]:
    """Write an index and embeddings of persons 1 to 4, who have a query and an item near it each.

    Persons 4 and 3 have the least hashes. A distractor meets the query of person 3, and junk that of person 4.
    """
    rows = [("query", 1, 1, 0), ("query", 2, 1, 90), ("query", 3, 1, 180), ("query", 4, 1, 290)]
    rows += [("gallery", 1, 2, 10), ("gallery", 2, 2, 110), ("gallery", 3, 2, 190), ("gallery", 4, 2, 300)]
    rows += [("gallery", 0, 2, 180), ("gallery", -1, 2, 290)]
    split, person, camera, degrees = zip(*rows, strict=True)
    made = Index(
        root=Path("data"),
        path=np.array([f"{k}.jpg" for k in range(10)]),
        person_id=np.array(person),
        camera_id=np.array(camera),
        tracklet_id=np.zeros(10, np.int64),
        split=np.array(split),
        box=np.zeros((10, 4), np.int32),
    )
    write_index(folder / "index.parquet", made)
    about = {"collapsed": True, "numerics": "portable"}
    write_embeddings(folder / "e.safetensors", Embeddings(np.arange(10), circle(list(degrees)), about))
    return {"index": folder / "index.parquet", "embeddings": folder / "e.safetensors"}


def test_stage_writes_the_open_set_of_half_of_the_persons(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    identify(settings=HOW, **rows, out=tmp_path / "o.json")
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["run"] == ABOUT and found["collapsed"] is True and found["protocol"] == "single-query"
    assert (found["unknown"], found["gallery_items"], found["gallery_persons"]) == (0.5, 3, 2)
    assert [found[f"{who}_{what}"] for who in ("known", "unknown") for what in ("queries", "persons")] == [2, 2, 2, 2]
    assert found["curve"]["threshold"] == pytest.approx([1, np.cos(np.radians(80))])  # from 290 to 10 degrees
    assert found["curve"] == found["curve"] | {"fpir": [0, 0.5], "fnir": [1, 0], "fnir_rank1": [1, 0]}
    (point,) = found["at"]
    assert point["threshold"] == pytest.approx(1) and (point["fpir"], point["fnir"]) == (0, 1)
    identify(settings=HOW, **rows, out=tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "o.json").read_bytes()


def test_share_of_nobody_is_an_error_that_names_the_index(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    with pytest.raises(InputError, match=r"^index of data: 0.1 of 4 persons with a match is 0; leave out one person"):
        identify(settings=HOW | {"unknown": 0.1}, **rows, out=tmp_path / "o.json")
    assert not (tmp_path / "o.json").exists()


# --- the report


def told(variant: str, number: int, mates: list[float], collapsed: bool = False) -> dict[str, Any]:
    """Return what the stage tells of 20 strangers, whose scores are 0.05 to 1.00, and of persons with these mates."""
    alarm = np.arange(20, 0, -1, dtype=np.float32) / 20
    found = OpenSet(alarm, np.array(mates, np.float32), np.arange(1, len(mates) + 1), 20, len(mates))
    about = {"run": ABOUT | {"variant": variant, "draw": number}, "collapsed": collapsed, "unknown": 0.5}
    return about | {"gallery_items": 100 + number} | found.report([0.01, 0.1])


FILES = {
    "market-default-draw0": told("default", 0, [0.97, 0.92, 0.5, 0.4]),
    "market-default-draw1": told("default", 1, [0.97, 0.5, 0.5, 0.4]),
    "market-other-draw0": told("other", 0, [0.5] * 4),
    "market-other-draw1": told("other", 1, [0.92] * 4, collapsed=True),
}


def read(names: list[str], allow_missing: bool = False, **changed: Any) -> Any:
    contents = [(Path(f"x/{name}.json"), FILES[name] | changed) for name in names if name in FILES]
    return read_open_sets(contents, names, allow_missing)


def test_table_is_of_means_over_draws() -> None:
    """At most 1 % of 20 is nobody: the threshold is 1. At most 10 % is two: it is 0.9."""
    sheet = open_set_sheet(read([*FILES]), {"draws": [0, 1], "baseline": "default"})
    assert (
        sheet_markdown(sheet).replace(NBSP, " ")
        == """\
### Open set: searches for persons whom the gallery does not hold

`default` on Market: of the searches for persons who are not in the gallery, at most 1 % raise an alarm; then 100.0 % \
of the searches for those who are in it miss them, 62.5 % at 10 %.

| Benchmark   | Variant   | FPIR at most   |          FNIR |   rank-1 FNIR |         Threshold |
|:------------|:----------|:---------------|--------------:|--------------:|------------------:|
| Market      | default   | 1 %            |   100.0 ± 0.0 |   100.0 ± 0.0 |   1.0000 ± 0.0000 |
| Market      | default   | 10 %           |   62.5 ± 17.7 |    75.0 ± 0.0 |   0.9000 ± 0.0000 |
| Market      | other     | 1 %            | 100.0 ± 0.0 † | 100.0 ± 0.0 † | 1.0000 ± 0.0000 † |
| Market      | other     | 10 %           | 50.0 ± 70.7 † | 87.5 ± 17.7 † | 0.9000 ± 0.0000 † |

- 50 % of the test persons are left out of the gallery, chosen by a hash of their numbers: 20 searches for 20 persons \
should return nobody, and 4 for 4 persons should return an item of theirs, of 100 to 101 items.
- FPIR, false-positive identification rate: share of the former that return anything. FNIR, false-negative: share of \
the latter that return no own item; rank-1: none in the first place. A search returns what is more similar than the \
threshold, the lowest that keeps the FPIR. Rates in percent, mean ± sample standard deviation over draws; without \
re-ranking.
- A threshold holds for queries and a gallery like these, and of this size.
- So few searches resolve no rate of 1 %: none raises an alarm.
- † Some of these runs collapsed in training; they count.
"""
    )


def test_table_of_one_draw_has_the_intervals_over_persons() -> None:
    found = read(["market-default-draw0"])
    sheet = open_set_sheet(found, {"draws": [0], "baseline": "default"})
    low, high = (100 * getattr(found[0].at[1], f"fnir_{end}") for end in ("low", "high"))
    assert sheet.grids[0].body[1][3].text.replace(NBSP, " ") == f"50.0 [{low:.1f}, {high:.1f}]"
    assert "in brackets the 95 % interval over persons" in sheet.notes[1]
    assert open_set_sheet([], {"draws": [0], "baseline": "default"}).grids == ()


def test_sentence_is_of_the_first_variant_where_the_baseline_is_not_scored() -> None:
    sheet = open_set_sheet(read(["market-other-draw0"]), {"draws": [0], "baseline": "default"})
    assert sheet.grids[0].title.startswith("`other` on Market: of the searches for persons who are not in the gallery")


def test_missing_or_foreign_file_is_an_error() -> None:
    absent = ["market-default-draw0", "market-none-draw0"]
    with pytest.raises(
        InputError, match=r"^market-none-draw0\.json: no open set of this planned run; run `reid identify` for it"
    ):
        read(absent)
    assert len(read(absent, allow_missing=True)) == 1
    for changed, message in (
        ({"at": []}, r"at: List should have at least 1 item.*"),
        ({"curve": {"fpir": [0.1, 0], "fnir": [1, 0], "fnir_rank1": [1, 0]}}, r"curve: fpir does not ascend from 0"),
        (
            {"curve": {"fpir": [0, 0.1], "fnir": [1], "fnir_rank1": [1, 0]}},
            r"curve: fpir, fnir and .* differ in length",
        ),
    ):
        with pytest.raises(InputError, match=rf"^x/market-default-draw0\.json: {message}; run `reid identify` again$"):
            read(["market-default-draw0"], **changed)
    other = OpenSet(np.ones(1, np.float32), np.ones(1, np.float32), np.ones(1, np.int64), 1, 1).report([0.2])
    contents = [(Path(f"{name}.json"), FILES[name]) for name in NAMES[:1]]
    contents.append((Path("market-default-draw1.json"), FILES["market-default-draw1"] | other))
    with pytest.raises(
        InputError, match=r"^market-default-draw1\.json: rates \[0\.2\], those of another run are \[0\.01, 0\.1\]; run"
    ):
        read_open_sets(contents, NAMES[:2], False)


def test_lines_are_the_least_fnir_at_each_rate_pooled_over_draws() -> None:
    lines = error_rates(read(["market-default-draw0", "market-default-draw1"]))
    assert lines["fpir"].is_monotonic_increasing and lines["fpir"].iloc[0] == pytest.approx(0.05)
    assert lines["fpir"].iloc[-1] == 1 and (lines["runs"] == 2).all()
    for _, line in lines.iterrows():
        missed = []
        for name in ("market-default-draw0", "market-default-draw1"):
            curve = FILES[name]["curve"]
            reached = [
                fnir for fpir, fnir in zip(curve["fpir"], curve["fnir"], strict=True) if fpir <= line["fpir"] + 1e-9
            ]
            missed.append(100 * min(reached))
        assert [line[f"fnir{end}"] for end in ("", "_min", "_max")] == pytest.approx(
            [np.mean(missed), min(missed), max(missed)]
        )
    assert lines.loc[lines["asked"], "fpir"].tolist() == [0.1]  # 20 searches resolve no 1 %


def test_figure_names_every_variant_and_says_its_values() -> None:
    with house_style():
        figure = tradeoff(error_rates(read([*FILES])), "Title", "subtitle")
        (axes,) = figure.axes
        assert [text.get_text() for text in axes.texts] == ["50.0  other", "62.5  default"]
        low, high = sorted(text.get_position()[1] for text in axes.texts)
        assert high - low >= 7 and axes.get_xscale() == "log"
        assert len({line.get_marker() for line in axes.lines if line.get_linestyle() == "None"}) == 2
        assert image(figure, "png") == image(tradeoff(error_rates(read([*FILES])), "Title", "subtitle"), "png")
        empty = tradeoff(error_rates([]), "Title", "subtitle")
        assert [text.get_text() for axes in empty.axes for text in axes.texts] == ["nothing to show"]


def write_files(folder: Path) -> list[Path]:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return [folder / f"{name}.json" for name in FILES]


def test_report_has_the_table_and_the_figure(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    files = write_files(tmp_path / "identified")
    given = {"scores": [], "queries": [], "curves": [], "decays": [], "inspections": [], "identified": files}
    settings = planned(allow_missing=True, identified=[*FILES])
    tabulate(**given, paper=PAPER, settings=settings, out=tmp_path / "report")
    page = (tmp_path / "report/README.md").read_text(encoding="utf-8")
    assert "of the searches for persons who are not in the gallery, at most" in page
    assert "](open_set.svg)" in page
    sheets = {sheet["name"]: sheet for sheet in json.loads((tmp_path / "report/report.json").read_text())["tables"]}
    assert sheets["identification"]["grids"][0]["body"][0][3]["source"] == "market/default"
    paths = draw(
        **inputs | {"identified": files},
        paper=PAPER,
        settings=SETTINGS | {"identified": [*FILES]},
        out=tmp_path / "out",
    )
    assert {"open_set.svg", "open_set.png", "open_set.csv"} <= {path.name for path in paths}
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "out/open_set.csv"), error_rates(read([*FILES])), rtol=1e-4, check_dtype=False
    )
    assert b"mean of 2 draws" in (tmp_path / "out/open_set.svg").read_bytes()


def test_figure_names_what_was_not_run(inputs: dict[str, list[Path]], tmp_path: Path) -> None:
    files = write_files(tmp_path / "identified")[:3]
    how = {"identified": [*FILES], "allow_missing": True}
    draw(**inputs | {"identified": files}, paper=PAPER, settings=SETTINGS | how, out=tmp_path / "out")
    assert b"not run yet and left out: market-other-draw1" in (tmp_path / "out/open_set.svg").read_bytes()
