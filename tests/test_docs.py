"""The documentation builds without warnings and works offline."""

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from typer.main import get_command

from chromium import CHROMIUM, Tab, browse
from conftest import ROOT, needs
from reid_done_right.cli import app

pytestmark = pytest.mark.slow


class Links(HTMLParser):
    """What a page has: the names of its places, where its links lead, and what it loads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if "href" in found:
            loads = tag == "link" and found.get("rel") != "canonical"
            (self.loads if loads else self.leads).append(found["href"])
        self.loads += [found[name] for name in ("src", "data") if name in found]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    """Return every page of the site but those of reports, whose links to artifacts serve where they were made."""
    found = set(site.rglob("*.html")) - {site / "404.html", *site.glob("repository/reports/*/report.html")}
    return {page: Links(page) for page in found}


def test_every_page_is_in_the_navigation(site: Path, pages: dict[Path, Links]) -> None:
    there = {(site / urlsplit(link).path).resolve() for link in pages[site / "index.html"].leads}
    ours = {page for page in pages if page.relative_to(site).parts[0] != "repository"}
    assert ours - there == set()
    assert {page.with_suffix(".html").name for page in (ROOT / "docs").glob("*.md")} <= {page.name for page in there}


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        for link in links.leads:
            scheme, _, path, _, anchor = urlsplit(link)
            if scheme in ("https", "mailto"):
                continue
            assert not scheme, f"{page}: {link}"
            there = (page.parent / unquote(path)).resolve() if path else page
            assert there.is_file() and there.is_relative_to(site), f"{page.relative_to(site)}: {link}"
            if anchor and there in pages:
                assert unquote(anchor) in pages[there].names, f"{page.relative_to(site)}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        for link in links.loads:
            there = page.parent / unquote(urlsplit(link).path)
            assert not urlsplit(link).scheme and there.is_file(), f"{page.relative_to(site)}: {link}"


@needs("Chromium", CHROMIUM is not None)
@pytest.mark.parametrize("page", ["index.html", "repository/Snakefile.html"])
def test_search_finds_pages_without_a_server(site: Path, page: str) -> None:
    async def visit(tab: Tab) -> None:
        await tab.evaluate("document.querySelector('.md-search__input').focus()")
        await tab.call("Input.insertText", text="reciprocal")
        await tab.until("document.querySelectorAll('.md-search-result__link').length > 3")
        assert await tab.evaluate("document.querySelector('.md-search-result').innerText.includes('re-ranking')")
        link = "[...document.querySelectorAll('.md-search-result__link')].find(link => link.href.includes('protocols'))"
        there = await tab.evaluate(f"{link}.href")
        assert (site / urlsplit(there).path.removeprefix(f"{site}/")).is_file(), there
        assert tab.errors == []

    browse(site / page, visit)


def test_home_page_is_the_readme(site: Path, pages: dict[Path, Links]) -> None:
    home = pages[site / "index.html"]
    assert {"quick-start", "the-pipeline", "responsible-use"} <= home.names
    assert "publish" in pages[site / "architecture.html"].text, "the graph is drawn"
    assert any(link.startswith("repository/reports/study/figure7") for link in home.loads)


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    page = (site / "protocols.html").read_text()
    source = (ROOT / "docs/protocols.md").read_text()
    assert page.count('display="block"') == source.count("```math")
    assert page.count('display="inline"') == len(re.findall(r"\$[^$]+\$", source))


@pytest.mark.parametrize(
    "layer", ["evaluation", "images", "data", "models", "training", "photos", "stages", "artifacts"]
)
def test_api_pages_list_documented_names(site: Path, layer: str) -> None:
    for path in [*(ROOT / "src/reid_done_right" / layer).rglob("*.py"), ROOT / f"src/reid_done_right/{layer}.py"]:
        if not path.exists() or len(ast.parse(path.read_text()).body) == 1:
            continue
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        public = {
            f"{module}.{node.name}"
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        }
        assert public <= Links(site / f"api/{module}.html").names, module
        assert public or layer != "stages", module


def test_reference_has_every_command_with_its_options(site: Path, pages: dict[Path, Links]) -> None:
    page = pages[site / "commands.html"]
    text = "".join(page.text)
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # of a group
        assert name in page.names
        assert [option for each in command.params for option in each.opts if option not in text] == []


def test_navigation_is_grouped_by_the_four_kinds() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2].partition("\nnot_in_nav:")[0])
    home, *kinds = nav
    assert list(home) == ["Home"]
    assert [*chain(*kinds)] == ["Tutorials", "How-to guides", "Reference", "Explanation"]


def test_arguments_are_lists(site: Path) -> None:
    """Google's sections, and lists of `name  meaning`."""
    evaluate, index = (
        (site / f"api/reid_done_right.{name}.html").read_text() for name in ("evaluation.ranking", "stages.index")
    )
    assert "Parameters:" in evaluate and "Raises:" in evaluate
    assert "<li><code>manifest</code>" in " ".join(re.sub(r"<p>|</p>", "", index).split()).replace("<li> ", "<li>")
