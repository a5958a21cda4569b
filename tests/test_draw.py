"""Figures from hand-made curves and logs: content, omissions, labels, equal bytes."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reid_done_right.artifacts import InputError
from reid_done_right.reporting.curves import Training, backbone_label, distractor_lines
from reid_done_right.reporting.figures import figure7, house_style, similarities, training_curves
from reid_done_right.stages.draw import draw

PAPER = Path(__file__).parents[1] / "reports" / "paper.csv"
NAMES = [f"market-{variant}-draw{draw}" for variant in ("default", "resnet22") for draw in (0, 1)]
SETTINGS = {
    "experiment": "embedded",
    "synthetic": True,
    "margin": 0.1,
    "runs": NAMES,
    "scored": NAMES,
    "curves": NAMES,
    "shown": NAMES[:1],
    "allow_missing": False,
}


def curve(variant: str, seed: int, maps: list[list[float]]) -> dict[str, object]:
    return {
        "run": {
            "dataset": "market",
            "variant": variant,
            "draw": seed,
            "backbone": {"default": "resnet10", "resnet22": "resnet22"}[variant],
        },
        "protocol": "single-query",
        "sizes": [0, 100],
        "gallery": 1525,
        "orders": 2,
        "mAP": maps,
        "rank1": [[value + 0.1 for value in draws] for draws in maps],
        "ap_rule": "trapezoid",
    }


CURVES = {
    "market-default-draw0": curve("default", 0, [[0.60, 0.60], [0.50, 0.54]]),
    "market-default-draw1": curve("default", 1, [[0.62, 0.62], [0.52, 0.52]]),
    "market-resnet22-draw0": curve("resnet22", 0, [[0.58, 0.58], [0.40, 0.42]]),
    "market-resnet22-draw1": curve("resnet22", 1, [[0.10, 0.10], [0.05, 0.05]]),
}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, list[Path]]:
    """Two backbones, two draws; the last run collapsed."""
    files: dict[str, list[Path]] = {"curves": [], "logs": [], "scores": [], "similarities": []}
    for folder in files:
        (tmp_path / folder).mkdir()
    for name, content in CURVES.items():
        scores = {"run": content["run"], "collapsed": name == NAMES[-1], "results": []}
        log = [
            "update,loss,active,learning_rate,cutout",
            *(f"{t},{0.2 - t / 1000},{1 - t / 200},0.1,0" for t in range(100)),
        ]
        for folder, suffix, text in (
            ("curves", "json", json.dumps(content)),
            ("scores", "json", json.dumps(scores)),
            ("logs", "csv", "\n".join(log) + "\n"),
        ):
            files[folder].append(tmp_path / folder / f"{name}.{suffix}")
            files[folder][-1].write_text(text)
    files |= {"followed": [], "identified": []}
    files["similarities"].append(tmp_path / "similarities" / f"{NAMES[0]}.json")
    files["similarities"][0].write_text(json.dumps(SIMILARITIES))
    return files


SIMILARITIES = {
    "run": {"dataset": "market", "variant": "default", "draw": 0},
    "collapsed": False,
    "edges": [-1.0, -0.5, 0.0, 0.5, 1.0],
    "positives": [0, 0, 1, 3],
    "negatives": [0, 5, 5, 0],
}


def test_similarities_are_drawn_as_densities():
    with house_style():
        (axes,) = similarities([SIMILARITIES], "title", "subtitle").axes
    outlines = [patch.get_data() for patch in axes.patches]
    assert [data.values.tolist() for data in outlines[::2]] == [[0, 0, 0.5, 1.5], [0, 1, 1, 0]]
    assert [text.get_text() for text in axes.texts] == ["same person: 4 pairs", "other people: 10 pairs"]
    assert axes.get_xlim() == (-0.5, 1) and axes.get_title("left") == "Market"


def lines(collapsed: set[str]) -> pd.DataFrame:
    return distractor_lines(((Path(name), content) for name, content in CURVES.items()), NAMES, collapsed)


def test_curves_are_pooled_over_draws_and_orders_without_lost_runs():
    pooled = lines({NAMES[-1]}).round(6)
    assert pooled[["label", "distractors", "gallery", "runs", "values"]].to_numpy().tolist() == [
        ["ResNet-10", 0, 1525, 2, 4],
        ["ResNet-10", 100, 1525, 2, 4],
        ["ResNet-22", 0, 1525, 1, 2],
        ["ResNet-22", 100, 1525, 1, 2],
    ]
    assert pooled[["mAP", "mAP_min", "mAP_max"]].to_numpy().tolist() == [
        [0.61, 0.60, 0.62],
        [0.52, 0.50, 0.54],
        [0.58, 0.58, 0.58],
        [0.41, 0.40, 0.42],
    ]
    assert pooled["rank1"].tolist() == [0.71, 0.62, 0.68, 0.51]


def test_figure_7_draws_the_means_the_bands_and_their_names():
    with house_style():
        figure = figure7(lines({NAMES[-1]}), "title", "subtitle", {}, "")
    for axes, means in zip(figure.axes, ([[61, 52], [58, 41]], [[71, 62], [68, 51]]), strict=True):
        assert np.allclose([line.get_ydata() for line in axes.lines], means)
        assert len(axes.collections) == 2 and axes.get_ylim()[0] == 0
    assert [text.get_text() for text in figure.axes[0].texts] == ["ResNet-22\n41.0", "ResNet-10\n52.0"]
    assert {text.get_text() for text in figure.texts} == {"title", "subtitle"}
    assert "1,525" in figure.axes[0].get_xlabel()


def test_labels_that_would_touch_are_moved_apart():
    with house_style():
        figure = figure7(lines(set()).assign(mAP=0.5, mAP_min=0.4, mAP_max=0.6), "", "", {"mAP": 50.0}, "rival")
    low, high = figure.axes[0].get_ylim()
    heights = [text.get_position()[1] for text in figure.axes[0].texts]
    assert len(heights) == 3 and np.diff(sorted(heights)).min() >= 0.11 * (high - low)


def test_draw_writes_the_convergence_of_followed_runs(inputs, tmp_path):
    about = {"dataset": "market", "variant": "default", "draw": 0}
    file = tmp_path / "followed" / f"{NAMES[0]}.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"run": about, "updates": [0, 4], "mAP": [0.1, 0.2], "mAP_train": [0.3, 0.9]}))
    followed = inputs | {"followed": [file]}
    paths = draw(**followed, paper=PAPER, settings=SETTINGS | {"followed": [NAMES[0]]}, out=tmp_path / "out")
    assert {"convergence.svg", "convergence.png", "convergence.csv"} <= {path.name for path in paths}
    assert (
        (tmp_path / "out/convergence.csv").read_text().splitlines()[1].startswith("default,0,1,10.000,10.000,10.000,30")
    )


def test_draw_writes_the_figures_and_their_numbers(inputs, tmp_path):
    paths = draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")
    assert [path.name for path in paths] == [
        "figure7.svg",
        "figure7.png",
        "training_curves.svg",
        "training_curves.png",
        "similarities.svg",
        "similarities.png",
        "training_curves.csv",
        "figure7.csv",
    ]
    assert paths[1].read_bytes()[:4] == b"\x89PNG" and b"<svg" in paths[0].read_bytes()
    assert paths[-1].read_text().splitlines()[:2] == [
        "variant,label,distractors,gallery,runs,values,mAP,mAP_min,mAP_max,rank1,rank1_min,rank1_max",
        "default,ResNet-10,0,1525,2,4,0.610000,0.600000,0.620000,0.710000,0.700000,0.720000",
    ]


def test_report_without_distractors_has_no_figure_7(inputs, tmp_path):
    settings = SETTINGS | {"curves": [], "shown": [], "synthetic": False}
    paths = draw(**inputs | {"curves": [], "similarities": []}, paper=PAPER, settings=settings, out=tmp_path / "out")
    assert [path.name for path in paths] == ["training_curves.svg", "training_curves.png", "training_curves.csv"]


@pytest.mark.parametrize("synthetic", [True, False])
def test_titles_name_measurement(inputs, tmp_path, synthetic):
    svg, *_ = draw(**inputs, paper=PAPER, settings=SETTINGS | {"synthetic": synthetic}, out=tmp_path / "out")
    text = svg.read_text(encoding="utf-8")  # matplotlib names each text it draws in a comment
    assert ("embedded rendered benchmark" in text) == synthetic
    assert ("TriNet [17]" in text and "69.1" in text and "84.9" in text) != synthetic
    assert "mean of 2 draws x 2 orders of the distractors" in text
    assert "collapsed in training, and counted: market-resnet22-draw1" in text


def test_training_curves_are_averaged_over_draws_without_the_collapsed(inputs, tmp_path):
    draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "training_curves.csv")
    assert list(rows.columns) == ["dataset", "variant", "update", "loss", "active"]
    assert rows["variant"].unique().tolist() == ["default", "resnet22", "resnet22 (collapsed, draw 1)"]
    first = rows.iloc[0]  # 100 updates in 32 bins: the first has updates 0, 1 and 2
    assert first["update"] == 1 and first["loss"] == pytest.approx(0.2 - 0.001)


def test_contact_sheet_is_drawn_on_request(inputs, tmp_path):
    people = {"world": 1, "cameras": 2, "identities": 1, "lookalikes": 1, "hardness": 0.45}
    paths = draw(**inputs, paper=PAPER, settings=SETTINGS | {"contact_sheet": people}, out=tmp_path / "out")
    assert paths[-1].name == "contact_sheet.png"
    assert paths[-1].read_bytes()[:4] == b"\x89PNG"


def test_training_curves_show_every_run_and_mark_the_collapsed():
    def log(loss: float) -> pd.DataFrame:
        return pd.DataFrame({"update": range(60), "loss": loss, "active": 0.5})

    runs = [
        Training("market", "default", 0, False, log(0.05)),
        Training("person-search", "default", 0, False, log(0.06)),
        Training("market", "flip", 1, True, log(0.12)),
    ]
    with house_style():
        figure = training_curves(runs, 0.1, "title", "subtitle")
    default, default_active, flip, _ = figure.axes
    assert (default.get_title("left"), flip.get_title("left")) == ("default", "flip")
    assert [line.get_ydata()[0] for line in default.lines] == pytest.approx([0.1, 0.05, 0.06])  # the margin first
    assert [line.get_ydata()[0] for line in default_active.lines] == [0.5, 0.5]
    assert [text.get_text() for text in flip.texts] == ["collapsed: Market, draw 1"]
    assert flip.lines[1].get_linestyle() == "--" and default.lines[1].get_linestyle() == "-"
    assert {"— Market", "— Person Search"} <= {text.get_text() for text in figure.texts}


@pytest.mark.slow
def test_equal_bytes_whenever_and_in_whatever_order(inputs, tmp_path, monkeypatch):
    first = draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "first")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    backwards = {name: files[::-1] for name, files in inputs.items()}
    again = draw(**backwards, paper=PAPER, settings=SETTINGS, out=tmp_path / "again")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    for path in first:
        assert not any(word in path.read_bytes() for word in (b"<dc:date>", b"Software", b"Matplotlib v"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("curves", r"market-default-draw0\.json: no distractor curve"),
        ("logs", r"market-default-draw0\.csv: no training log"),
        ("scores", r"market-default-draw0\.json: no scores"),
    ],
)
def test_missing_input_is_named(inputs, tmp_path, kind, message):
    with pytest.raises(InputError, match=message):
        draw(**inputs | {kind: inputs[kind][1:]}, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")


def test_damaged_curve_is_named(inputs, tmp_path):
    inputs["curves"][2].write_text(json.dumps({"run": CURVES[NAMES[2]]["run"]}))
    with pytest.raises(InputError, match=r"market-resnet22-draw0\.json: not a distractor curve, it lacks sizes"):
        draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")


def test_curves_of_other_sizes_are_named(inputs, tmp_path):
    inputs["curves"][1].write_text(json.dumps(CURVES[NAMES[1]] | {"sizes": [0, 200]}))
    with pytest.raises(InputError, match=r"default-draw1\.json: sizes differ from .*default-draw0\.json"):
        draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")


@pytest.mark.parametrize(("text", "message"), [("update,loss\n0,1\n", "no column active"), ("", "no columns")])
def test_damaged_log_is_named(inputs, tmp_path, text, message):
    inputs["logs"][0].write_text(text)
    with pytest.raises(InputError, match=rf"market-default-draw0\.csv: {message}"):
        draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")


def test_log_without_updates_is_named(inputs, tmp_path):
    inputs["logs"][0].write_text("update,loss,active,learning_rate,cutout\n")
    with pytest.raises(InputError, match=r"market-default-draw0\.csv: a training log without updates"):
        draw(**inputs, paper=PAPER, settings=SETTINGS, out=tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("synthetic", [True, False])
def test_where_every_run_collapsed_the_figures_say_so(inputs, tmp_path, synthetic):
    for path in inputs["scores"]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"collapsed": True}))
    inputs["similarities"][0].write_text(json.dumps(SIMILARITIES | {"collapsed": True}))
    out = tmp_path / "out"
    draw(**inputs, paper=PAPER, settings=SETTINGS | {"synthetic": synthetic}, out=out)
    figure = (out / "figure7.svg").read_text(encoding="utf-8")
    told = "".join(re.findall(r"<!-- (.*?) -->", figure, re.DOTALL)).replace("\n", " ")
    assert f"collapsed in training, and counted: {', '.join(NAMES)}" in told
    assert len((out / "figure7.csv").read_text().splitlines()) == 5  # two variants at two sizes
    assert "collapsed: Market, draws 0, 1" in (out / "training_curves.svg").read_text(encoding="utf-8")
    assert "Market, collapsed in training" in (out / "similarities.svg").read_text(encoding="utf-8")


def test_missing_run_is_named_if_allowed(inputs, tmp_path):
    settings, out = SETTINGS | {"allow_missing": True}, tmp_path / "out"
    some = inputs | {"curves": inputs["curves"][1:], "logs": inputs["logs"][1:], "similarities": []}
    draw(**some, paper=PAPER, settings=settings, out=out)
    for name in ("figure7", "training_curves", "similarities"):
        assert "not run yet and left out: market-default-draw0" in (out / f"{name}.svg").read_text(encoding="utf-8")
    draw(**{name: [] for name in inputs}, paper=PAPER, settings=settings, out=out)
    for name in ("figure7", "training_curves", "similarities"):
        assert "nothing to show" in (out / f"{name}.svg").read_text(encoding="utf-8")
    assert (out / "training_curves.csv").read_text() == "dataset,variant,update,loss,active\n"


@pytest.mark.parametrize(
    ("backbone", "label"),
    [
        ("resnet50", "ResNet-50"),
        ("resnext50", "ResNeXt-50"),
        ("densenet121", "DenseNet-121"),
        ("inception-v3", "Inception-v3"),
        ("my-net", "my-net"),
    ],
)
def test_backbones_are_printed_as_their_papers_do(backbone: str, label: str) -> None:
    assert backbone_label(backbone) == label
