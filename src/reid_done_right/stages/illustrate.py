"""Draw Figures 1, 4, 5 and 6 for one run: ranked lists, and heat maps of the regions behind its embeddings.

The settings (as YAML):

    experiment: embedded      # named in the subtitles
    synthetic: true           # say that it is rendered
    format: market1501        # of the dataset; with protocol: {...} if it is one's own
    activations: value        # which dimensions are the strongest; or absolute
    threads: 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_done_right.artifacts import Index, read_index, read_weights, replacing
from reid_done_right.evaluation.rules import rule_of
from reid_done_right.images.decode import load
from reid_done_right.images.pixels import ahead
from reid_done_right.images.transforms import render, whole
from reid_done_right.models.device import set_up
from reid_done_right.models.embedder import embedder_of
from reid_done_right.models.saliency import Heat, maps_and_embeddings, shared
from reid_done_right.reporting.figures import house_style, image
from reid_done_right.reporting.pictures import List_, Row, figure4, gallery
from reid_done_right.reporting.showing import extremes, most_seen, spread

LISTS, PAIRS, PEOPLE, SHOTS, DIMENSIONS = 4, 6, 3, 6, 5
"""Ranked lists of each kind, pairs, people, images of each; dimensions of Figures 1 and 5."""
DPI = 100  # of the PNG: the pictures in it have fewer pixels


def illustrate(
    *, settings: Mapping[str, Any], index: Path, embedder: Path, places: Path, queries: Path, out: Path
) -> list[Path]:
    """Write figure1, figure4, figure5 and figure6 as .svg and .png into the folder `out`; return their paths.

    places: Parquet of `retrieve`; queries: Parquet of `evaluate`, both from the run that trained `embedder`.
    `reid_done_right.reporting.showing` selects queries, pairs and people by rules, which the subtitles state.
    """
    device = set_up(settings["threads"])
    rows = read_index(index)
    weights = read_weights(embedder)
    network = embedder_of(weights, str(embedder)).to(device).eval()
    seen = Seen(rows, Heat(network, settings["activations"]), weights.about["largest_side"], device)
    scored = pd.read_parquet(queries)
    headline = scored["protocol"].iloc[0]
    scored = scored[(scored["protocol"] == headline) & (scored["rerank"] == "none")].sort_values("query")
    lists = pd.read_parquet(places)
    rule = rule_of(settings["format"], settings.get("protocol")).ap_rule
    precision = scored["ap" if rule == "trapezoid" else "ap_step"].to_numpy(float)
    relevant, person = scored["relevant"].to_numpy(), rows.person_id[rows.query]
    where = f"{settings['experiment']} {'rendered benchmark' if settings['synthetic'] else 'experiment'}, {places.stem}"
    where += " (COLLAPSED in training)" if weights.about["collapsed"] else ""

    def chosen(best: bool) -> list[int]:
        return extremes(precision, relevant, person, LISTS, best)

    def ranked(query: int) -> List_:
        first = lists[lists["query"] == query].sort_values("place")
        pictures = load(rows, np.array([rows.query[query], *first["gallery_row"]]))
        right = first["relevant"].tolist()
        return List_(pictures[0], precision[query], int(relevant[query]), list(zip(pictures[1:], right, strict=True)))

    first = lists[lists["place"] == 1].set_index("query")
    right = np.zeros(len(person), bool)
    right[first.index[first["relevant"]]] = True
    pairs = [
        (int(rows.query[query]), int(first.loc[query, "gallery_row"]))  # type: ignore[arg-type]
        for query in spread(precision, person, right, PAIRS)
    ]
    gallery_rows = np.concatenate([rows.query, rows.gallery])
    people = [
        [int(gallery_rows[i]) for i in members]
        for members in most_seen(rows.person_id[gallery_rows], rows.camera_id[gallery_rows], PEOPLE, SHOTS)
    ]
    most = "people whom most cameras saw" if rows.camera_id.any() else "people with most images"
    maps = seen.about_maps(int(rows.query[0]))
    strength = "greatest absolute values" if settings["activations"] == "absolute" else "greatest values"
    with house_style():
        figures = {
            "figure1": gallery(
                seen.dimensions([int(rows.query[query]) for query in chosen(best=True)]),
                2,
                "Figure 1. Dimensions of the embedding respond to regions",
                f"{where}; the queries of Figure 4's best lists and their {DIMENSIONS} dimensions of {strength}, by "
                f"number (Grad-CAM, bright where strong). {maps}",
            ),
            "figure4": figure4(
                [
                    ("Highest AP", [ranked(query) for query in chosen(best=True)]),
                    ("Lowest AP", [ranked(query) for query in chosen(best=False)]),
                ],
                "Figure 4. Ranked lists: the query, then its first 10 places",
                f"{where}; in brackets how many images are relevant. Whole green frame, ✓: same person; broken red "
                "frame, ✗: another. One query a person, of equal AP those with more to find",
            ),
            "figure5": gallery(
                seen.matches(pairs),
                2,
                f"Figure 5. Matching regions: the {DIMENSIONS} dimensions that contribute most to a similarity",
                f"{where}; queries whose first place is right, evenly from the highest AP to the lowest. {maps}",
            ),
            "figure6": gallery(
                seen.attention(people),
                1,
                "Figure 6. Implicit attention",
                f"{where}; Grad-CAM of the {seen.heat.many} of {network.dimension} dimensions of {strength} together; "
                f"{most}. {maps}",
            ),
        }
        files = {
            f"{name}.{kind}": image(figure, kind, DPI) for name, figure in figures.items() for kind in ("svg", "png")
        }
    for name, content in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(content)
    return [out / name for name in files]


@dataclass(frozen=True)
class Seen:
    """The images of an index, as seen by a network."""

    index: Index
    heat: Heat
    largest_side: int
    device: torch.device

    def about_maps(self, row: int) -> str:
        """Say what maps of an image can show: how many cells there are, and how far each looks."""
        _, image = self._prepared(row)
        of, (height, width) = self.heat.cells(image), image.shape[2:]
        down, across = (round(2 * reach) for reach in of.reach)
        return (
            f"Each of the {len(of.rows)} × {len(of.columns)} cells of a map is drawn at the centre of what it sees, "
            f"about {down} × {across} of {height} × {width} pixels; nothing smaller is told apart"
        )

    def _prepared(self, row: int) -> tuple[NDArray[np.uint8], Tensor]:
        """Return an image as stored, and resized and normalised for the network (1, 3, H, W)."""
        (images,) = ahead(self.index, np.array([row]), self.device)
        image, _ = render(images, np.array([0]), whole(images.sizes, self.largest_side, self.heat.network.square))
        return load(self.index, [row])[0], image

    def _embedding(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            return maps_and_embeddings(self.heat.network, image)[1]

    def dimensions(self, rows: Sequence[int]) -> list[Row]:
        """Return each image with the heat maps of its strongest dimensions, one by one."""
        found: list[Row] = []
        for row in rows:
            picture, image = self._prepared(row)
            found.append(("", self._beside(picture, image, self.heat.strongest(image, DIMENSIONS))))
        return found

    def matches(self, pairs: Sequence[tuple[int, int]]) -> list[Row]:
        """Return both images of each pair with the heat maps of the dimensions that make them similar."""
        found: list[list[Row]] = []
        for pair in pairs:
            (left, a), (right, b) = (self._prepared(row) for row in pair)
            one, other = self._embedding(a), self._embedding(b)
            which = shared(one, other, DIMENSIONS)
            name = f"similarity {float((one * other).sum()):.2f}"
            found.append([(name, self._beside(left, a, which)), ("", self._beside(right, b, which))])
        columns: list[Row] = []  # two pairs side by side, the images of a pair stacked
        for i in range(0, len(found), 2):
            both = found[i : i + 2]
            columns += [pair[0] for pair in both] + [pair[1] for pair in both]
        return columns

    def attention(self, people: Sequence[Sequence[int]]) -> list[Row]:
        """Return images of each person, each with the joint heat map of its strongest dimensions."""
        found: list[Row] = []
        for rows in people:
            pictures: list[tuple[NDArray[np.uint8], NDArray[np.float32] | None, str]] = []
            for row in rows:
                picture, image = self._prepared(row)
                camera = self.index.camera_id[row]
                pictures.append((picture, None, f"camera {camera}" if camera else ""))
                pictures.append((picture, self.heat.attention(image, picture.shape[:2]), ""))
            found.append((f"person {self.index.person_id[rows[0]]}", pictures))
        return found

    def _beside(
        self, picture: NDArray[np.uint8], image: Tensor, which: Tensor
    ) -> list[tuple[NDArray[np.uint8], NDArray[np.float32] | None, str]]:
        heat = self.heat.over(image, which, picture.shape[:2])
        numbers = [str(number) for number in which[0].tolist()]
        return [(picture, None, ""), *((picture, each, n) for each, n in zip(heat, numbers, strict=True))]
