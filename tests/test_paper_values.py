"""reports/paper.csv against the paper: number of values, selected cells, and consistency of tables."""

from collections import Counter
from pathlib import Path

import pytest

from reid_done_right.artifacts import InputError
from reid_done_right.reporting.paper import parse_paper

FILE = Path(__file__).parents[1] / "reports" / "paper.csv"
PAPER = parse_paper(FILE, FILE.read_text(encoding="utf-8"))
TABLE4 = {key[1:]: value for key, value in PAPER.values.items() if key[0] == "4"}

# Values printed in each row of Table 4, counted by eye from left to right, in the paper's order.
COUNTED = {
    "MG [41]": 4,
    "CRAFT [7]": 4,
    "SpindleNet [49]": 2,
    "Zheng et al. [51]": 3,
    "Part-Aligned [50]": 3,
    "OL-MANS [58]": 2,
    "HydraPlus-Net [25]": 2,
    "MSCAN [21]": 7,
    "OIM [43]": 3,
    "PDC [37]": 3,
    "Verif-Identif. [54]": 6,
    "LSRO [56]": 6,
    "SVDNet [39]": 6,
    "SSM [1]": 4,
    "DPFL [6]": 5,
    "DML[48]*": 4,
    "APR [46]*": 5,
    "PAN [55]*": 6,
    "PBF [52]*": 3,
    "TriNet [17]*": 9,
    "Ours": 13,
    "Improvement": 13,
    "Re-ranking [57]": 4,
    "TriNet (re-rank) [17]*": 9,
    "Ours (re-rank)": 12,
}


def test_every_table_has_its_number_of_values():
    assert Counter(table for table, *_ in PAPER.values) == {"1": 10, "2": 6, "3": 14, "4": 138}


def test_rows_of_table_4_are_all_there_in_order():
    assert [row for table, row in PAPER.types if table == "4"] == list(COUNTED)
    assert Counter(row for row, _, _ in TABLE4) == COUNTED


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("P", ["SpindleNet [49]", "MSCAN [21]", "PDC [37]", "PBF [52]*"]),
        ("A", ["Part-Aligned [50]", "HydraPlus-Net [25]", "PAN [55]*"]),
        ("At", ["APR [46]*"]),
    ],
)
def test_types_of_table_4(kind, rows):
    assert [row for (table, row), type_ in PAPER.types.items() if table == "4" and type_ == kind] == rows


@pytest.mark.parametrize(
    ("table", "row", "dataset", "metric", "printed"),
    [
        ("1", "- - -", "market", "mAP", "75.9"),
        ("1", "✓ - -", "duke", "mAP", "69.7"),
        ("1", "- ✓ -", "market", "mAP", "76.8"),
        ("1", "✓ ✓ ✓", "duke", "mAP", "72.9"),
        ("2", "256 pixels", "duke", "mAP", "69.2"),
        ("2", "640 pixels", "duke", "mAP", "73.1"),
        ("3", "average", "market", "mAP", "80.1"),
        ("3", "ResNet-50", "duke", "mAP", "67.6"),
        ("3", "ResNet-152", "duke", "mAP", "74.0"),
        ("3", "no", "market", "mAP", "77.1"),
        ("4", "OL-MANS [58]", "market-mq", "rank-1", "66.8"),
        ("4", "Zheng et al. [51]", "mars", "rank-5", "82.6"),
        ("4", "OIM [43]", "person-search", "mAP", "77.9"),
        ("4", "SVDNet [39]", "duke", "rank-5", "86.4"),
        ("4", "TriNet [17]*", "market-sq", "mAP", "69.1"),
        ("4", "Re-ranking [57]", "mars", "rank-1", "73.9"),
        ("4", "Ours (re-rank)", "market-mq", "rank-5", "96.9"),
    ],
)
def test_hand_picked_values(table, row, dataset, metric, printed):
    assert PAPER.value(table, row, dataset, metric) == printed


def test_default_setting_has_one_value_in_tables_1_to_3():
    rows = [("1", "- - ✓"), ("2", "416 pixels"), ("3", "max"), ("3", "ResNet-101"), ("3", "yes")]
    for dataset, printed in (("market", "81.2"), ("duke", "72.9")):
        assert {PAPER.value(table, row, dataset, "mAP") for table, row in rows} == {printed}


def test_table_4_duke_default_is_a_tenth_less():
    assert PAPER.value("4", "Ours", "duke", "mAP") == "72.8"


@pytest.mark.parametrize(("dataset", "metric"), [key[1:] for key in TABLE4 if key[0] == "Improvement"])
def test_improvement_is_ours_less_the_best_published_before(dataset, metric):
    before = list(COUNTED)[: list(COUNTED).index("Ours")]
    best = max(float(TABLE4[row, dataset, metric]) for row in before if (row, dataset, metric) in TABLE4)
    difference = float(TABLE4["Ours", dataset, metric]) - best
    assert TABLE4["Improvement", dataset, metric] == f"{difference:+.1f}"


def test_section_4_3_names_the_same_improvements():
    assert TABLE4["Improvement", "market-sq", "mAP"] == "+8.1"
    assert TABLE4["Improvement", "mars", "mAP"] == "+12.0"
    assert TABLE4["Improvement", "duke", "mAP"] == "+12.2"
    assert TABLE4["Improvement", "person-search", "mAP"] == "+14.7"
    ours, rival = (float(TABLE4[f"{row}", "market-sq", "mAP"]) for row in ("Ours (re-rank)", "TriNet (re-rank) [17]*"))
    assert ours - rival == pytest.approx(8.9)


def test_ranks_rise_with_k():
    for (row, dataset, metric), value in TABLE4.items():
        if metric == "rank-5" and row != "Improvement":
            assert float(TABLE4[row, dataset, "rank-1"]) < float(value) < 100


HEAD = "table,row,type,dataset,metric,value\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table,row,value\n1,max,3\n", r"p\.csv: columns"),
        (HEAD + "3,max,,duke,mAP,1\n3,max,,duke,mAP,2\n", r"p\.csv, line 3: .* stands twice"),
    ],
)
def test_damaged_file_is_named(text, message):
    with pytest.raises(InputError, match=message):
        parse_paper(Path("p.csv"), text)


def test_unknown_value_is_named():
    with pytest.raises(InputError, match=r"paper\.csv: no mAP on duke in row 'ResNet-34' of table 3"):
        PAPER.value("3", "ResNet-34", "duke", "mAP")
