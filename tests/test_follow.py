"""Convergence: the models along a training, scored, and their figure."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reid_done_right.artifacts import InputError, Weights, read_index, read_weights, write_weights
from reid_done_right.evaluation.rules import MARKET1501, Rule
from reid_done_right.reporting.convergence import convergence, convergence_lines
from reid_done_right.reporting.figures import house_style, image
from reid_done_right.stages.follow import follow, training_task
from test_stages import RUN, Chain, chain, settings

__all__ = ["chain"]


def followed(chain: Chain, out: Path, snapshots: Path | None = None) -> dict[str, list[float]]:
    follow(
        settings=settings("follow", RUN),
        index=chain["market.parquet"],
        snapshots=snapshots or chain["snapshots"],
        embedder=chain["embedder"],
        out=out,
    )
    content: dict[str, list[float]] = json.loads(out.read_text())
    return content


def test_the_last_model_scores_as_evaluate_does(chain: Chain, tmp_path: Path) -> None:
    told = followed(chain, tmp_path / "follow.json")
    scores = json.loads(chain["scores.json"].read_text())["results"]
    plain = next(result for result in scores if result["rerank"] == "none")
    assert told["updates"] == [0, 2, 4]
    assert told["mAP"][-1] == pytest.approx(plain["mAP"], abs=1e-6)
    assert len(told["mAP"]) == len(told["mAP_train"]) == 3


def test_snapshots_of_no_updates_are_reported(chain: Chain, tmp_path: Path) -> None:
    whole = read_weights(chain["snapshots"])
    forged = tmp_path / "forged.safetensors"
    write_weights(forged, Weights(whole.state, {**whole.about, "updates": [-1]}))
    with pytest.raises(InputError, match=r"forged\.safetensors.*updates"):
        followed(chain, tmp_path / "follow.json", forged)


@pytest.mark.parametrize("rule", [MARKET1501, Rule(same_camera_is_junk=False)])
def test_training_images_are_ranked_as_test_images_are(chain: Chain, rule: Rule) -> None:
    rows = read_index(chain["market.parquet"])
    embeddings = np.random.default_rng(0).normal(size=(len(rows.train), 4)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    task = training_task(rows, embeddings, rule)
    person, camera = rows.person_id[rows.train], rows.camera_id[rows.train]
    first = [
        next(i for i in range(len(person)) if (person[i], camera[i]) == pair)
        for pair in sorted(set(zip(person.tolist(), camera.tolist(), strict=True)))
    ]
    assert task.query.labels.person_id.tolist() == person[first].tolist()
    assert np.array_equal(task.query.embeddings, embeddings[first])
    assert len(task.gallery) == (len(person) if rule.same_camera_is_junk else len(person) - len(first))


def test_lines_are_means_over_draws_in_percent() -> None:
    def of(variant: str, draw: int, values: list[float]) -> tuple[Path, dict[str, object]]:
        run = {"dataset": "market", "variant": variant, "draw": draw}
        return Path(f"{variant}.json"), {"run": run, "updates": [0, 8], "mAP": values, "mAP_train": [0.5, 1.0]}

    contents = [of("default", 0, [0.1, 0.4]), of("default", 1, [0.3, 0.8]), of("other", 0, [0.2, 0.2])]
    names = ["market-default-draw0", "market-default-draw1", "market-other-draw0"]
    lines = convergence_lines(contents, names)
    expected = pd.DataFrame(
        {
            "variant": ["default", "default", "other", "other"],
            "updates": [0, 8, 0, 8],
            "runs": [2, 2, 1, 1],
            "mAP": [20.0, 60.0, 20.0, 20.0],
            "mAP_min": [10.0, 40.0, 20.0, 20.0],
            "mAP_max": [30.0, 80.0, 20.0, 20.0],
            "mAP_train": [50.0, 100.0] * 2,
            "mAP_train_min": [50.0, 100.0] * 2,
            "mAP_train_max": [50.0, 100.0] * 2,
        }
    )
    pd.testing.assert_frame_equal(lines, expected, check_dtype=False)
    with pytest.raises(InputError, match=r"^market-none-draw0\.json: no convergence of this planned run"):
        convergence_lines(contents, [*names, "market-none-draw0"])
    assert convergence_lines([], ["market-none-draw0"], ["market-none-draw0"]).empty
    with pytest.raises(InputError, match=r"lacks mAP_train"):
        convergence_lines([(Path("x.json"), {"run": {}, "updates": [], "mAP": []})], [])


def test_figure_names_every_variant_at_its_end() -> None:
    lines = pd.DataFrame(
        {"variant": ["default"] * 2, "updates": [0, 8], "runs": [1, 1]}
        | {f"{metric}{end}": [10.0, 20.0] for metric in ("mAP", "mAP_train") for end in ("", "_min", "_max")}
    )
    with house_style():
        figure = convergence(lines, "Title", "subtitle")
        told = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert told == ["20.0  default"] * 2
        empty = convergence(convergence_lines([], []), "Title", "subtitle")
        assert [text.get_text() for axes in empty.axes for text in axes.texts] == ["nothing to show"] * 2
        assert image(figure, "png")[:4] == b"\x89PNG"
