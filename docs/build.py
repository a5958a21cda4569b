"""What `mkdocs build` does besides: README.md as home page, files of the repository, commands, API, mathematics.

Pages are written for the repository, where readers also meet them: they link to its files by relative paths. On the
site, a link to a module leads to its page of the API, one to another file to a copy of that file: Markdown as a page,
other text as a listing, a notebook as its cells, the rest as it is. Formulas become MathML, which browsers draw by
themselves; the graph of the pipeline becomes a picture. So the site needs no network.
"""

import ast
import json
import posixpath
import re
from functools import cache
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LAYERS = {  # of the API, in the order of a reader's interest
    "evaluation": "arrays in, ranks and scores out",
    "images": "decoding, transforms, randomness",
    "data": "readers, files of arrays, evaluation tasks",
    "models": "networks",
    "training": "the two training loops",
    "photos": "a trained model on photos of one's own",
    "stages": "one for each rule of the pipeline",
    "readiness": "what `reid check` looks at",
    "artifacts": "file formats",
    "params": "parameters",
    "dag": "the graph, once",
    "plan": "parameters to jobs",
    "store": "content-addressed results",
}
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".cff": "yaml",
    ".json": "json",
    ".toml": "toml",
    ".csv": "text",
    "": "text",
}
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API to the reference, name headings as GitHub does, and hand over to MathML."""
    (reference,) = (part["Reference"] for part in config.nav if "Reference" in part)
    reference.append({"API": ["api/index.md", *({layer: entries(layer)} for layer in LAYERS)]})
    config.mdx_configs["toc"]["slugify"] = slug
    math = {"name": "math", "class": "math", "format": lambda tex, *_, **__: convert(tex, display="block")}
    graph = {"name": "mermaid", "class": "mermaid", "format": lambda *_, **__: pipeline()}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [math, graph]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, the pages of the API, and every file of the repository that a page leads to."""
    for layer in LAYERS:
        for module in modules(layer):
            files.append(File.generated(config, f"api/{module}.md", content=f"::: {module}\n"))
    files.append(File.generated(config, "api/index.md", content=overview()))
    files.append(File.generated(config, "commands.md", content=commands()))
    todo = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for path in todo:  # grows
        if not files.get_file_from_path(place(path)):
            files.append(file_of(path, config))
        if path.suffix == ".md":
            todo += [there for there in targets(path) if there not in todo]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links of a page of the repository to where their targets are on the site."""
    path = origin(page.file.src_uri)
    return LINK.sub(lambda link: moved(link, path), markdown) if path.is_file() and path.suffix == ".md" else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    r"""Draw formulas within lines, which the Markdown extension leaves as `\(...\)`."""
    return re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda found: convert(unescaped(found[1])), html)


def place(path: Path) -> str:
    """Return the name on the site of a file or folder of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name.startswith("src/reid_done_right") and path.is_dir():
        return "api/index.md"
    if name.startswith("src/reid_done_right") and any(dotted(path) in modules(layer) for layer in LAYERS):
        return f"api/{dotted(path)}.md"
    return f"repository/{name}" + (".md" if path.suffix in (*LANGUAGES, ".ipynb") else "")


def origin(place: str) -> Path:
    """Return the file of the repository that a Markdown page of the site is."""
    if place == "index.md":
        return ROOT / "README.md"
    return ROOT / (place.removeprefix("repository/") if place.startswith("repository/") else f"docs/{place}")


def file_of(path: Path, config: MkDocsConfig) -> File:
    """Return the site's file of a file of the repository: a listing if it is text without markup."""
    if path.suffix in LANGUAGES:
        listing = f"# {path.name}\n\n````{LANGUAGES[path.suffix]}\n{path.read_text()}\n````\n"
        return File.generated(config, place(path), content=f"---\nsearch: {{exclude: true}}\n---\n{listing}")
    if path.suffix == ".ipynb":
        return File.generated(config, place(path), content=notebook(path))
    return File.generated(config, place(path), abs_src_path=str(path))


def notebook(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells)


def commands() -> str:
    """Return the page of all commands: the help of each."""
    from click import Context
    from typer.main import get_command

    from reid_done_right.cli import app

    group = get_command(app)
    lines = ["# Every command", "", "What `reid COMMAND --help` prints."]
    for name, command in group.commands.items():
        context = Context(command, info_name=f"reid {name}", terminal_width=100)
        lines += ["", f"## {name}", "", "```text", command.get_help(context), "```"]
    return "\n".join(lines)


def targets(page: Path) -> list[Path]:
    """Return the files of the repository that a page links to and that are no page of the API."""
    links = (page.parent / target for target, _ in LINK.findall(page.read_text()))
    found = (link.resolve() for link in links)
    return [
        path for path in found if path.is_file() and path.is_relative_to(ROOT) and not place(path).startswith("api/")
    ]


def moved(link: re.Match[str], page: Path) -> str:
    """Return a repository page's link as a link of the site; a broken link unchanged, so that it is reported."""
    there = (page.parent / link[1]).resolve()
    if not there.exists() or not there.is_relative_to(ROOT):
        return link[0]
    return posixpath.relpath(place(there), posixpath.dirname(place(page)) or ".") + (link[2] or "")


def slug(heading: str, separator: str) -> str:
    """Name a heading as GitHub does."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def unescaped(tex: str) -> str:
    """Undo the escapes of HTML in a formula."""
    return tex.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def dotted(path: Path) -> str:
    """Return the name of the module in a file of `src`."""
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


@cache
def modules(layer: str) -> list[str]:
    """Return the modules of a layer, except packages that define nothing."""
    folder = ROOT / "src/reid_done_right" / layer
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [dotted(path) for path in files if len(ast.parse(path.read_text()).body) > 1]


def entries(layer: str) -> list[dict[str, str]] | str:
    """Return a layer's part of the navigation."""
    names = modules(layer)
    if names == [f"reid_done_right.{layer}"]:
        return f"api/reid_done_right.{layer}.md"
    return [{name.removeprefix(f"reid_done_right.{layer}."): f"api/{name}.md"} for name in names]


def overview() -> str:
    """Return the first page of the API: each module in its own words."""
    lines = ["# API", "", "Every module by its layer; a layer imports only from those below it "]
    lines += ["([architecture](../architecture.md#layers))."]
    for layer, purpose in LAYERS.items():
        lines += ["", f"## {layer}", "", f"{purpose[0].upper()}{purpose[1:]}.", "", "| module | |", "|---|---|"]
        for module in modules(layer):
            lines.append(f"| [{module}]({module}.md) | {summary(module)} |")
    return "\n".join(lines)


def summary(module: str) -> str:
    """Return the first line of a module's docstring."""
    path = ROOT / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0].replace("|", r"\|")


def pipeline() -> str:
    """Draw the rules of the pipeline and what feeds what, as the page of the report does."""
    from reid_done_right.dag import STAGES, drawing
    from reid_done_right.reporting.pipeline import picture

    drawn = picture(drawing(dict.fromkeys(STAGES, 1)))
    wide, tall = drawn["wide"], drawn["tall"]
    head = '<defs><marker id="head" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    head += '<path d="M0 0L8 4L0 8z"/></marker></defs>'
    arrows = "".join(f'<path class="arrow" d="{arrow["path"]}" marker-end="url(#head)"/>' for arrow in drawn["arrows"])
    boxes = "".join(
        f'<g transform="translate({box["x"]},{box["y"]})"><rect width="{wide}" height="{tall}" rx="6"/>'
        f'<text x="{wide / 2}" y="19">{box["rule"]}</text>'
        f'<text class="does" x="{wide / 2}" y="36">{box["does"]}</text></g>'
        for box in drawn["boxes"]
    )
    right, bottom = (max(box[side] for box in drawn["boxes"]) for side in "xy")
    return (
        f'<svg class="pipeline" role="img" aria-label="The rules of the pipeline, and what feeds what" '
        f'viewBox="-4 -40 {right + wide + 8} {bottom + tall + 48}">{head}{arrows}{boxes}</svg>'
    )
