"""The picture of the verdicts: a line each, told apart without colour, nothing outside the picture unsaid."""

import pytest
from matplotlib.figure import Figure

from reid_done_right.reporting.claims import MEASURED, Finding
from reid_done_right.reporting.figures import house_style
from reid_done_right.reporting.forest import forest


def finding(claim: str, benchmark: str, verdict: str, mean: float | None, half: float, **more: object) -> Finding:
    ends = {} if mean is None else {"low": mean - half, "high": mean + half}
    return Finding(claim, "Table 1", benchmark, "a − b", "+5.3", mean, **ends, verdict=verdict, **more)


FOUND = [
    finding("Cut-out helps", "Market", "supported", 2.0, 0.5),
    finding("Cut-out helps", "Duke", "contradicted", -2.0, 0.5),
    finding("640 adds little", "Market", "undecided", 0.5, 0.4, bound=1.5),
    finding("640 adds little", "Duke", "undecided", 0.1, 90.0, bound=1.5),
    finding("Max beats average", "Market", "undecided", None, 0.0),
    finding("Cost of a doubling", "Market", MEASURED, -9.0, 0.1),
]


@pytest.fixture(scope="module")
def drawn() -> Figure:
    with house_style():
        return forest(FOUND, "title", "subtitle")


def test_forest_writes_each_claim_once_and_each_verdict_in_words(drawn):
    (axes,) = drawn.axes
    words = [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in axes.texts]
    assert [words.count(each) for each in ("Cut-out helps", "640 adds little", "Max beats average")] == [1, 1, 1]
    assert [word for word in words if word in ("supported", "contradicted", "undecided")] == [
        each.verdict for each in FOUND[:5]
    ]
    assert "+2.0 [+1.5, +2.5]" in words and "—" in words and "Cost of a doubling" not in words


def test_forest_tells_verdicts_apart_by_shape(drawn):
    (axes,) = drawn.axes
    marks = [(line.get_marker(), line.get_markerfacecolor()) for line in axes.lines if line.get_marker() in ("o", "X")]
    assert len(marks) == 4 and len(set(marks)) == 3
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"] == [5.3] * 5


def test_forest_ends_long_intervals_in_arrows(drawn):
    (axes,) = drawn.axes
    low, high = axes.get_xlim()
    assert -10 < low < -2.5 and 5.3 < high < 10
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("<", ">")] == [low, high]
    assert all(low <= x <= high for line in axes.lines if len(line.get_xdata()) == 2 for x in line.get_xdata()[:2])


def test_forest_wraps_what_would_run_into_the_benchmarks():
    long = "Growing cut-out beats constant cut-out"
    with house_style():
        figure = forest([finding(claim, "Market", "supported", 2.0, 0.5) for claim in (long, "Next")], "title", "")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    places = {text.get_text(): text.get_window_extent() for text in axes.texts}
    benchmarks = min(text.get_window_extent().x0 for text in axes.texts if text.get_text() == "Market")
    first, rest, following = places["Growing cut-out beats constant"], places["cut-out"], places["Next"]
    assert first.x1 < benchmarks and first.y0 > rest.y1 > rest.y0 > following.y1
    assert long not in places


def test_forest_without_verdicts_says_so():
    with house_style():
        (axes,) = forest(FOUND[-1:], "title", "subtitle").axes
    assert [text.get_text() for text in axes.texts] == ["nothing to show"]
