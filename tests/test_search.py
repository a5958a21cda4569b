"""Search: against sorting all similarities; in the terminal, on a page in a real browser; every mistake in a line."""

import doctest
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import reid_done_right
from chromium import CHROMIUM, Tab, browse
from conftest import needs
from models import write_model
from reid_done_right.artifacts import InputError
from reid_done_right.cli import app
from reid_done_right.data.gallery import read_gallery
from reid_done_right.functional import search as searching
from reid_done_right.functional.approximate import build_graph, open_graph, rank_by_graph
from reid_done_right.functional.expansion import expand
from reid_done_right.functional.protocols import normalise
from reid_done_right.functional.reciprocal import k_reciprocal
from reid_done_right.functional.search import rank
from reid_done_right.stages.embed_photos import embed_photos
from reid_done_right.stages.search import search
from test_photos import fill, picture

in_chromium = needs("Chromium", CHROMIUM is not None)


def unit(rows: int, seed: int = 0, dimensions: int = 5) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32))


# --- arrays


@settings(max_examples=25, deadline=None)
@given(queries=st.integers(1, 9), gallery=st.integers(1, 40), top=st.integers(1, 50), seed=st.integers(0, 99))
def test_the_first_places_are_those_of_a_full_sort(queries: int, gallery: int, top: int, seed: int) -> None:
    left, right = unit(queries, seed), unit(gallery, seed + 1)
    right[gallery // 2 :] = right[: gallery - gallery // 2]  # equals
    found = rank(left, right, top)
    scores = left.astype(np.float64) @ right.T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    np.testing.assert_allclose(found.similarity, np.take_along_axis(scores, order, 1), atol=1e-6)
    assert found.items.shape == order.shape and (found.score == found.similarity).all()
    same = found.similarity[:, 1:] == found.similarity[:, :-1]
    assert (found.items[:, 1:] > found.items[:, :-1])[same].all(), "of equals the earlier item is first"
    np.testing.assert_allclose(np.take_along_axis(scores, found.items, 1), found.similarity, atol=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_re_ranked_places_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(searching, "_COLUMNS", block)
    monkeypatch.setattr(searching, "_QUERIES", 2)
    left, right = unit(5), unit(30, 1)
    options = {"k1": 6, "k2": 3}
    distance = k_reciprocal(left, right, **options).distance(slice(0, 5), slice(0, 30))
    found = rank(left, right, 8, rerank="k-reciprocal", options=options)
    assert found.items.tolist() == np.argsort(distance, axis=1, kind="stable")[:, :8].tolist()
    np.testing.assert_allclose(found.score, 1 - np.sort(distance, axis=1)[:, :8], atol=1e-6)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(left @ right.T, found.items, 1), atol=1e-6)

    expanded, augmented = expand(left, right)
    found = rank(left, right, 8, rerank="qe-dba")
    assert found.items.tolist() == np.argsort(-(expanded @ augmented.T), axis=1, kind="stable")[:, :8].tolist()
    np.testing.assert_allclose(found.similarity, np.take_along_axis(left @ right.T, found.items, 1), atol=1e-6)


def test_the_example_runs() -> None:
    assert doctest.testmod(searching).failed == 0 and doctest.testmod(searching).attempted == 4


@pytest.mark.parametrize(
    "left, right, how, message",
    [
        (unit(1)[0], unit(3), {}, r"query embeddings have shape \(5,\)"),
        (unit(1), unit(3)[:0], {}, r"gallery embeddings have shape \(0, 5\)"),
        (unit(1), unit(3, 0, 4), {}, "query embeddings have 5 dimensions, those of the gallery 4"),
        (unit(1) * 2, unit(3), {}, "query: embedding of row 0 has norm 2"),
        (unit(1), unit(3), {"top": 0}, "top is 0"),
        (unit(1), unit(3), {"rerank": "magic"}, "re-ranking 'magic' is unknown"),
        (unit(1), unit(3), {"options": {"k1": 2}}, "options k1 belong to a re-ranking, but there is none"),
        (unit(1), unit(3), {"rerank": "k-reciprocal"}, "k1 is 20, but there are only 4 items"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_told(
    left: np.ndarray, right: np.ndarray, how: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank(left, right, **how)  # type: ignore[arg-type]


def test_a_graph_finds_nearly_all(tmp_path: Path) -> None:
    left, right = unit(50, 0, 16), unit(3000, 1, 16)
    exact = rank(left, right, 10)
    found = rank_by_graph(left, open_graph(build_graph(right), right.shape), 10)
    recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact.items, found.items, strict=True)]) / 10
    assert recall > 0.95
    both = exact.items == found.items
    np.testing.assert_allclose(found.similarity[both], exact.similarity[both], atol=1e-6)
    narrow = rank_by_graph(left, open_graph(build_graph(right), right.shape), 10, width=10)
    assert narrow.items.shape == (50, 10)


def test_a_graph_of_another_gallery_or_without_faiss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build_graph(unit(20))
    with pytest.raises(ValueError, match=r"the graph is of 20 x 5 embeddings, the gallery has \(21, 5\)"):
        open_graph(graph, (21, 5))
    with pytest.raises(ValueError, match="query embeddings have 4 dimensions, those of the gallery 5"):
        rank_by_graph(unit(1, 0, 4), open_graph(graph, (20, 5)))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        ValueError, match="the approximate search needs faiss: pip install faiss-cpu, or search exactly"
    ):
        build_graph(unit(20))


# --- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a model, photos and their gallery."""
    folder = tmp_path_factory.mktemp("search")
    write_model(folder / "m.safetensors")
    fill(folder / "photos", 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        embed_photos(Path("photos"), Path("m.safetensors"), Path("g.safetensors"), pattern="{person}/{camera}/{name}")
    return folder


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def run(*arguments: str) -> str:
    files = ["--gallery", "g.safetensors", "--model", "m.safetensors"]
    result = CliRunner().invoke(app, ["search", *arguments, *files])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_a_table_names_the_most_similar_photos() -> None:
    gallery = read_gallery(Path("g.safetensors"))
    query = "photos/a/c0/0.png"
    scores = gallery.embeddings @ reid_done_right.load_embedder("m.safetensors").embed([query])[0]
    best = np.argsort(-scores, kind="stable")[:4]
    lines = [line.split() for line in run(query, "photos/b/c1/1.png", "--top", "4").splitlines() if line.strip()]
    assert lines[0] == [query] and lines[1] == ["similarity", "person", "camera", "photo"]
    for place, (line, row) in enumerate(zip(lines[3:7], best, strict=True), 1):
        path = gallery.path[row]
        assert line == [str(place), f"{scores[row]:.3f}", *path.split("/")[:2], f"photos/{path}"]
    assert lines[3][1] == "1.000" and lines[3][-1] == query, "a photo of the gallery finds itself"
    assert lines[7] == ["photos/b/c1/1.png"]


@pytest.mark.parametrize("rerank", ["qe-dba", "k-reciprocal"])
def test_re_ranked_places_have_both_numbers(rerank: str) -> None:
    printed = run("photos/a/c0/0.png", "--rerank", rerank, "--top", "3")
    assert "re-ranked" in printed and printed.count("photos/") == 4


def test_an_approximate_search_keeps_its_graph_until_the_gallery_changes(folder: Path, tmp_path: Path) -> None:
    exact = run("photos/a/c0/0.png")
    assert run("photos/a/c0/0.png", "--approximate") == exact
    first = Path("g.graph").stat().st_mtime_ns
    assert run("photos/a/c0/0.png", "--approximate") == exact
    assert Path("g.graph").stat().st_mtime_ns == first
    Path("g.graph").write_bytes(b"torn")
    assert run("photos/a/c0/0.png", "--approximate") == exact and Path("g.graph").stat().st_size > 1000
    embed_photos(Path("photos/a"), Path("m.safetensors"), tmp_path / "g.safetensors")
    (tmp_path / "g.graph").write_bytes(Path("g.graph").read_bytes())
    query = [Path("photos/a/c0/0.png")]
    (found,) = search(query, tmp_path / "g.safetensors", Path("m.safetensors"), approximate=True)
    assert {hit.path.split("/")[1] for hit in found.hits} == {"a"}


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "found.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Image.fromarray(picture(3, 64, 64)).save("<b>me.png")
        run("photos/a/c0/0.png", "<b>me.png", "--top", "5", "--html", str(out))
        Path("<b>me.png").unlink()
    return out


def test_the_page_holds_the_pictures_and_nothing_of_this_machine(page: Path, folder: Path) -> None:
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 2 * (5 + 1)
    assert "&lt;b&gt;me.png" in text and "<b>me" not in text
    assert "a/c0/0.png" in text and str(folder) not in text and "http" not in text.replace("http-equiv", "")


def test_a_photo_that_is_gone_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    Path("photos/b/c1/1.png").rename("away.png")
    try:
        run("away.png", "--top", "2", "--html", str(tmp_path / "p.html"))
    finally:
        Path("away.png").rename("photos/b/c1/1.png")
    assert (tmp_path / "p.html").read_text().count("the photo is no longer there") == 1


@in_chromium
def test_the_page_works_in_a_browser_without_network(page: Path) -> None:
    async def visit(tab: Tab) -> None:
        assert await tab.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert await tab.evaluate("document.querySelectorAll('.hits li').length") == 10
        before = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
        await tab.press("Tab")
        assert await tab.evaluate("document.activeElement.className") == "skip"
        await tab.press("Tab")
        assert await tab.evaluate("document.activeElement.id") == "theme"
        await tab.press("Enter")
        assert await tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
        await tab.press("Tab")
        assert await tab.evaluate("document.activeElement.hash") == "#query-1"
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [url for url in tab.requests if not url.startswith("data:")] == [page.resolve().as_uri()]
        assert tab.errors == []

    browse(page, visit)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["notes.txt"], "notes.txt: no image that can be searched for: it is no image that can be identified; give a photo"),
        (["none.png"], "none.png: no image that can be searched for: there is none"),
        (["photos"], "photos: no image that can be searched for"),
        (["photos/a/c0/0.png", "--top", "0"], "--top 0: expected how many places"),
        (["photos/a/c0/0.png", "--html", "page.txt"], "page.txt: expected the name of a page, ending in .html"),
        (["photos/a/c0/0.png", "--approximate", "--rerank", "qe-dba"], "re-ranking qe-dba needs exact neighbours"),
        (["photos/a/c0/0.png", "--model", "other.safetensors"], "g.safetensors: made by another model, m.safetensors (SHA-256 "),
        (["photos/a/c0/0.png", "--gallery", "m.safetensors"], "m.safetensors: not a gallery; give one that `reid embed"),
        (["photos/a/c0/0.png", "--gallery", "none.safetensors"], "none.safetensors: no such gallery; give one that"),
        (["photos/a/c0/0.png", "--gallery", "notes.txt"], "notes.txt: not a gallery"),
        (["photos/a/c0/0.png", "--model", "g.safetensors"], "g.safetensors: not a network's weights"),
        (["photos/a/c0/0.png", "--gallery", "few.safetensors", "--rerank", "k-reciprocal"], "few.safetensors: k1 is 20, but there are only 3 items"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(folder: Path, arguments: list[str], message: str) -> None:
    Path("notes.txt").write_text("no image")
    write_model(Path("other.safetensors"), seed=1)
    if not Path("few.safetensors").exists():
        (folder / "photos/few.csv").write_text("path\na/c0/0.png\nb/c1/1.png\n")
        embed_photos(Path("photos/few.csv"), Path("m.safetensors"), Path("few.safetensors"))
    before = sorted(Path().rglob("*"))
    files = ["--gallery", "g.safetensors", "--model", "m.safetensors", "--html", "p.html"]
    result = CliRunner().invoke(app, ["search", *files, *arguments])
    assert isinstance(result.exception, InputError) and "\n" not in str(result.exception)
    assert str(result.exception).startswith(message)
    assert sorted(Path().rglob("*")) == before
