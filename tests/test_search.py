"""Search in the terminal and on a page in a real browser; every error is one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import reid_done_right
from chromium import CHROMIUM, Tab, browse
from conftest import needs
from models import write_model
from reid_done_right.artifacts import InputError
from reid_done_right.cli import app
from reid_done_right.data.gallery import read_gallery
from reid_done_right.stages.embed_photos import embed_photos
from test_photos import fill, picture

in_chromium = needs("Chromium", CHROMIUM is not None)


# --- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, photos and their gallery."""
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
    result = CliRunner().invoke(app, ["search", *arguments, "--gallery", "g.safetensors"])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_table_names_the_most_similar_photos() -> None:
    gallery = read_gallery(Path("g.safetensors"))
    query = "photos/a/c0/0.png"
    scores = gallery.embeddings @ reid_done_right.load_embedder("m.safetensors").embed([query])[0]
    best = np.argsort(-scores, kind="stable")[:4]
    lines = [line.split() for line in run(query, "photos/b/c1/1.png", "--top", "4").splitlines() if line.strip()]
    assert lines[0] == [query] and lines[1] == ["similarity", "likeness", "person", "camera", "photo"]
    for place, (line, row) in enumerate(zip(lines[3:7], best, strict=True), 1):
        path = gallery.path[row]
        assert [*line[:2], *line[-3:]] == [str(place), f"{scores[row]:.3f}", *path.split("/")[:2], f"photos/{path}"]
    assert lines[3][1] == "1.000" and lines[3][-1] == query, "a photo of the gallery finds itself"
    assert lines[7] == ["photos/b/c1/1.png"]


def test_search_for_a_folder_is_a_search_for_each_photo_in_it() -> None:
    printed = run("photos/a", "--top", "1")
    there = [path.as_posix() for path in sorted(Path("photos/a").rglob("*.png"))]
    assert [line for line in printed.splitlines() if line in there] == there


@pytest.mark.parametrize("rerank", ["qe-dba", "k-reciprocal"])
def test_re_ranked_places_have_both_numbers(rerank: str) -> None:
    printed = run("photos/a/c0/0.png", "--rerank", rerank, "--top", "3")
    assert "re-ranked" in printed and printed.count("photos/") == 4


def test_query_of_a_stranger_is_of_nobody(tmp_path: Path) -> None:
    """The picture of noise is as similar to photos as most are to those of others; a photo itself is in the gallery."""
    gallery = read_gallery(Path("g.safetensors"))
    printed = run("photos/a/c0/0.png", "--top", "1", "--false-alarms", "0.04")
    assert "nobody" not in printed, "it finds itself, which is more similar than any other photo"
    person = np.array(gallery.labels["person"])
    scores = gallery.embeddings @ gallery.embeddings.T
    others = np.sort(np.where(person[:, None] == person, -np.inf, scores).max(axis=1))[::-1]
    Image.fromarray(255 - picture(3, 64, 64)).save("negative.png")
    try:
        best = (gallery.embeddings @ reid_done_right.load_embedder("m.safetensors").embed(["negative.png"])[0]).max()
        verdicts = set()
        for rate in (0.04, 0.5, 0.96):
            limit = others[int(rate * 30)]
            out = run("negative.png", "--top", "1", "--false-alarms", str(rate), "--html", str(tmp_path / "p.html"))
            told = f"negative.png  nobody: no photo more similar than {limit:.3f}"
            assert (told in out) == (best <= limit) == ("<b>Nobody</b>" in (tmp_path / "p.html").read_text())
            verdicts.add(told in out)
        assert verdicts == {True, False}
    finally:
        Path("negative.png").unlink()


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "found.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Image.fromarray(picture(3, 64, 64)).save("<b>me.png")
        run("photos/a/c0/0.png", "<b>me.png", "--top", "5", "--html", str(out))
        Path("<b>me.png").unlink()
    return out


def test_page_holds_the_pictures_and_nothing_of_this_machine(page: Path, folder: Path) -> None:
    text = page.read_text()
    assert text.count("data:image/webp;base64,") == 2 * (5 + 1)
    assert "&lt;b&gt;me.png" in text and "<b>me" not in text
    assert "a/c0/0.png" in text and str(folder) not in text and "http" not in text.replace("http-equiv", "")


def test_search_page_marks_missing_photo(folder: Path, tmp_path: Path) -> None:
    Path("photos/b/c1/1.png").rename("away.png")
    try:
        run("away.png", "--top", "2", "--html", str(tmp_path / "p.html"))
    finally:
        Path("away.png").rename("photos/b/c1/1.png")
    assert (tmp_path / "p.html").read_text().count("the photo is no longer there") == 1


@in_chromium
def test_page_works_in_a_browser_without_network(page: Path) -> None:
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
        (["notes.txt"], "notes.txt: cannot be embedded: it is not a recognised image format"),
        (["none.png"], "none.png: cannot be embedded: there is none"),
        (["empty"], "empty: no image (.jpg, "),
        (["photos/a/c0/0.png", "--gallery", "moved.safetensors"], "moved.safetensors: made by gone/m.safetensors, which is not there any more; give where it is now by --model FILE"),
        (["photos/a/c0/0.png", "--top", "0"], "--top 0: expected a number of results"),
        (["photos/a/c0/0.png", "--false-alarms", "1"], "--false-alarms 1.0: expected a share between 0 and 1, as in 0.05"),
        (["photos/a/c0/0.png", "--false-alarms", "0.1", "--rerank", "qe-dba"], "--false-alarms is a threshold of similarities, which qe-dba"),
        (["photos/a/c0/0.png", "--false-alarms", "0.001"], "g.safetensors: too few of its people are there again for --false-alarms 0.001: at least 1000 photos of up to 1,000; raise it"),
        (["photos/a/c0/0.png", "--gallery", "few.safetensors", "--false-alarms", "0.1"], "few.safetensors: does not say whom its photos show, so --false-alarms has no threshold"),
        (["photos/a/c0/0.png", "--html", "page.txt"], "page.txt: expected a file name ending in .html"),
        (["photos/a/c0/0.png", "--model", "other.safetensors"], "g.safetensors: made by another model, m.safetensors (SHA-256 "),
        (["photos/a/c0/0.png", "--gallery", "m.safetensors"], "m.safetensors: not a gallery; give one that `reid embed"),
        (["photos/a/c0/0.png", "--gallery", "none.safetensors"], "none.safetensors: no such gallery; give one that"),
        (["photos/a/c0/0.png", "--gallery", "notes.txt"], "notes.txt: not a gallery"),
        (["photos/a/c0/0.png", "--model", "g.safetensors"], "g.safetensors: not a network's weights"),
        (["photos/a/c0/0.png", "--gallery", "few.safetensors", "--rerank", "k-reciprocal"], "few.safetensors: k1 is 20, but there are only 3 items"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_writes_nothing(folder: Path, arguments: list[str], message: str) -> None:
    Path("notes.txt").write_text("no image")
    write_model(Path("other.safetensors"), seed=1)
    if not Path("few.safetensors").exists():
        (folder / "photos/few.csv").write_text("path\na/c0/0.png\nb/c1/1.png\n")
        embed_photos(Path("photos/few.csv"), Path("m.safetensors"), Path("few.safetensors"))
        Path("gone").mkdir()
        Path("empty").mkdir()
        shutil.copy("m.safetensors", "gone/m.safetensors")
        embed_photos(Path("photos"), Path("gone/m.safetensors"), Path("moved.safetensors"))
        Path("gone/m.safetensors").unlink()
    before = sorted(Path().rglob("*"))
    files = ["--gallery", "g.safetensors", "--html", "p.html"]
    result = CliRunner().invoke(app, ["search", *files, *arguments])
    assert isinstance(result.exception, InputError) and "\n" not in str(result.exception)
    assert str(result.exception).startswith(message)
    assert sorted(Path().rglob("*")) == before
