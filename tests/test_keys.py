"""Keys depend on content and computing code; not on messages, on modules, or on unused code."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_done_right.artifacts import InputError
from reid_done_right.dag import COMMANDS, STAGES
from reid_done_right.params import Params
from reid_done_right.plan import plan
from reid_done_right.store import keys
from reid_done_right.store.keys import code_key, digest
from tiny import changed


def forget() -> None:
    """Have everything read again."""
    for value in vars(keys).values():
        getattr(value, "cache_clear", lambda: None)()


@pytest.fixture(autouse=True)
def read_again() -> Iterator[None]:
    yield
    forget()


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text(), f"{path} does not say {old!r}"
    path.write_text(path.read_text().replace(old, new))
    forget()


# --- digests


def test_digest_of_equal_content_is_equal_in_any_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0})  # 1 and 1.0 are different settings
    assert digest([1, 2]) != digest([2, 1])


# --- a small package

SMALL = {
    "stages/index.py": '''
"""A stage."""
import numpy as np
from tqdm import tqdm
from reid_done_right.data import readers, shapes  # ours
from reid_done_right.data.readers import READERS
from reid_done_right.data.shapes import corners
RATE = 0.5
SPARE = 7
def index(settings: dict, rows: list[int]) -> float:
    """Do it."""
    from reid_done_right.lazy import late
    if not rows:
        told = f"{settings} has no rows"
        raise ValueError(f"{told}; give some")
    assert rows, "no rows"
    print("go on", rows)
    for row in tqdm(rows, desc="count", unit="row"):
        RATE + row
    width: int = shapes.width(settings)
    page = "page.html"
    return RATE * corners(settings) + late() + READERS[settings["format"]](width) + readers.RULES["first"]
''',
    "stages/page.html": "<p>",
    "stages/page.css": "p {}",
    "data/__init__.py": "",
    "data/shapes.py": '''
from dataclasses import dataclass
SIDES = 4
@dataclass
class Shape:
    """A shape."""
    sides: int = SIDES
def corners(settings):
    return Shape().sides
def width(settings):
    return 3
def height(settings):
    return 2
''',
    "data/readers.py": """
from reid_done_right.data import one, two
READERS = {"one": one.read, "two": two.read}
RULES = {"first": 1, "second": 2}
""",
    "data/one.py": "def read(width):\n    return width + 1\n",
    "data/two.py": "def read(width):\n    return width + 2\n",
    "lazy.py": "def late():\n    return 1\n",
    "unrelated.py": "SIZE = 1\n",
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "reid_done_right"
    for name, code in SMALL.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(code)
    monkeypatch.setattr(keys, "SOURCE", tmp_path)
    forget()
    return root


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stages/index.py", "# ours", "# ours, with a reason"),
        ("stages/index.py", "A stage.", "Another description."),
        ("stages/index.py", '    """Do it."""\n', ""),
        ("stages/index.py", "RATE = 0.5\n", "\n\nRATE  =  (\n    0.5\n)\n"),
        ("stages/index.py", "RATE = 0.5\n", 'RATE = 0.5\n"""Of learning."""\n'),
        ("stages/index.py", "RATE = 0.5\n", "RATE: float = 0.5\n"),
        ("stages/index.py", "rows: list[int]) -> float:", "rows: list) -> int:"),
        ("stages/index.py", "width: int =", "width ="),
        ("stages/index.py", "; give some", "; there must be one"),
        ("stages/index.py", "has no rows", "is empty"),
        ("stages/index.py", '        told = f"{settings} has no rows"\n', ""),
        ("stages/index.py", ', "no rows"', ""),
        ("stages/index.py", '"go on"', '"go on", settings'),
        ("stages/index.py", '    print("go on", rows)\n', ""),
        ("stages/index.py", 'desc="count"', 'desc="count the rows"'),
        ("stages/index.py", "SPARE = 7", "SPARE = 8"),
        ("data/shapes.py", "return 3", "return (3)  # of them"),
        ("data/shapes.py", "return 2", "return 5"),
        ("data/shapes.py", '    """A shape."""\n', ""),
        ("data/readers.py", '"second": 2', '"second": 3, "third": 4'),
        ("unrelated.py", "1", "2"),
    ],
)
def test_code_key_is_the_same_where_nothing_computes(small: Path, name: str, old: str, new: str) -> None:
    before = code_key("index")
    edit(small / name, old, new)
    assert code_key("index") == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("stages/index.py", "0.5", "0.25"),
        ("stages/index.py", "+ late()", "- late()"),
        ("stages/index.py", "if not rows", "if rows"),
        ("stages/index.py", "raise ValueError", "raise KeyError"),
        ("stages/index.py", "assert rows", "assert settings"),
        ("stages/index.py", "in tqdm(rows", "in tqdm(rows[1:]"),
        ("stages/index.py", "import numpy as np\nfrom", "import os\nos.umask(0)\nfrom"),
        ("stages/index.py", "from tqdm import tqdm", "from other import tqdm"),
        ("stages/index.py", "shapes.width", "shapes.height"),
        ("stages/index.py", "shapes.width(settings)", 'getattr(shapes, "wid" + "th")(settings)'),
        ("stages/index.py", "shapes.width(settings)", 'globals()["shapes"].width(settings)'),
        ("stages/page.html", "<p>", "<div>"),
        ("stages/page.css", "{}", "{color: red}"),
        ("data/__init__.py", "", "print(1)[0]\n"),
        ("data/shapes.py", "SIDES = 4", "SIDES = 5"),
        ("data/shapes.py", "sides: int", "sides: float"),
        ("data/shapes.py", "@dataclass\n", "@dataclass(frozen=True)\n"),
        ("data/shapes.py", "return 3", "return 4"),
        ("data/shapes.py", "SIDES = 4", "SIDES = 4\nif SIDES:\n    SIDES = 6"),
        ("data/readers.py", '"first": 1', '"first": 2'),
        ("data/readers.py", '{"one": one.read, "two": two.read}', '{"one": two.read, "two": one.read}'),
        ("data/readers.py", "RULES =", "READERS['one'] = two.read\nRULES ="),
        ("data/readers.py", "RULES =", "READERS.update({name: two.read for name in 'ab'})\nRULES ="),
        ("data/shapes.py", "SIDES = 4", "SIDES = 4\nfor SIDES in (5, 6):\n    pass"),
        ("stages/index.py", "shapes.width(settings)", "shapes.Shape.sides.real"),
        ("data/one.py", "1", "3"),
        ("lazy.py", "return 1", "return 2"),
    ],
)
def test_code_key_changes_with_computation(small: Path, name: str, old: str, new: str) -> None:
    before = code_key("index")
    edit(small / name, old, new)
    assert code_key("index") != before


def test_code_key_follows_an_import_below_its_use(small: Path) -> None:
    """A nested function may be called after an import that stands below it."""
    edit(small / "stages/index.py", "    from reid_done_right.lazy import late\n", "    later = lambda: late()\n")
    edit(small / "stages/index.py", "    page =", "    from reid_done_right.lazy import late\n    page =")
    before = code_key("index")
    edit(small / "lazy.py", "return 1", "return 2")
    assert code_key("index") != before


def test_code_key_distinguishes_class_attributes(small: Path) -> None:
    edit(small / "stages/index.py", "shapes.width(settings)", "shapes.Shape.sides.real")
    before = code_key("index")
    edit(small / "stages/index.py", "sides.real", "area.real")
    assert code_key("index") != before


def test_code_key_of_a_function_that_moved_is_the_same(small: Path) -> None:
    before = code_key("index")
    moved = "def width(settings):\n    return 3\n"
    edit(small / "data/shapes.py", moved, "")
    (small / "data/sizes.py").write_text(moved)
    edit(small / "stages/index.py", "readers, shapes ", "readers, sizes ")
    edit(small / "stages/index.py", "shapes.width", "sizes.width")
    assert code_key("index") == before


def test_code_key_distinguishes_same_names(small: Path) -> None:
    """Both are reached either way; what changes is which one is meant where."""
    edit(small / "data/readers.py", "RULES =", "EITHER = one.read(1), two.read(2)\nRULES =")
    edit(small / "stages/index.py", "RATE = 0.5", "RATE = readers.EITHER[0]")
    before = code_key("index")
    edit(small / "data/readers.py", "one.read(1), two.read(2)", "two.read(1), one.read(2)")
    assert code_key("index") != before


@pytest.mark.parametrize(
    "code", ['__import__("x")', 'importlib.import_module("x")', "importlib.import_module(settings)"]
)
def test_code_key_with_import_by_name_covers_everything(small: Path, code: str) -> None:
    edit(small / "stages/index.py", "import numpy as np", "import importlib")
    edit(small / "stages/index.py", "late() +", f"{code} +")
    before = code_key("index")
    edit(small / "unrelated.py", "1", "2")
    assert code_key("index") != before


def test_code_key_of_a_job_has_the_reader_of_its_format_only(small: Path) -> None:
    before = {name: code_key("index", {"format": name}) for name in ("one", "two", "three")}
    edit(small / "data/two.py", "2", "3")
    after = {name: code_key("index", {"format": name}) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["two"]  # there is no "three" to be read


@pytest.mark.parametrize("stage", ["nothing", "../lazy"])
def test_code_key_of_no_stage_is_an_error(small: Path, stage: str) -> None:
    with pytest.raises(InputError, match=rf"module reid_done_right.stages.{stage}: no such file in"):
        code_key(stage)


# --- the package as it is


def jobs() -> dict[str, str]:
    """Return the code key of every job of the smallest experiment."""
    forget()
    return {
        f"{stage}/{name}": code_key(STAGES[stage].command or stage, job.parameters)
        for stage, members in plan(Params.model_validate(changed({}))).items()
        for name, job in members.items()
    }


@pytest.fixture(scope="module")
def original() -> dict[str, str]:
    return jobs()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package whose code may be changed."""
    for name in keys.PACKAGES:
        shutil.copytree(keys.SOURCE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(keys, "SOURCE", tmp_path)
    return tmp_path / "reid_done_right"


def touched(original: dict[str, str]) -> set[str]:
    """Return the stages of the jobs whose code is another one now."""
    return {name.split("/")[0] for name, key in jobs().items() if key != original[name]}


NETWORKS = {"initialise", "pretrain", "train", "embed", "embed_distractors", "follow", "illustrate"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "old", "new", "stages"),
    [
        ("training/losses.py", "(margin +", "(2 * margin +", {"train"}),
        ("models/resnet.py", "relu", "gelu", NETWORKS),
        ("evaluation/reciprocal.py", "exp(", "expm1(", {"evaluate", "distract", "follow", "retrieve"}),
        ("reporting/page.html", "<main", "<main id='all'", {"publish"}),
        ("reporting/latex.py", "toprule", "hline", {"tabulate"}),
        ("models/saliency.py", "relu", "gelu", {"illustrate"}),
        ("data/readers/market1501.py", "def read(", "def read(*_: int, ", {"dataset", "index"}),
    ],
    ids=lambda value: value if str(value).endswith((".py", ".html")) else "",
)
def test_changed_code_changes_the_stages_that_use_it(
    original: dict[str, str], package: Path, module: str, old: str, new: str, stages: set[str]
) -> None:
    edit(package / module, old, new)
    assert touched(original) == stages


def test_messages_comments_and_docstrings_change_no_stage(original: dict[str, str], package: Path) -> None:
    for source in package.rglob("*.py"):
        text = re.sub(r'((InputError\(|desc=|print\()\s*f?")', r"\1Really: ", source.read_text())
        source.write_text(f'"""New words."""\n{text}\n# a comment\n')
    assert touched(original) == set()


def test_network_of_another_library_changes_only_the_jobs_that_train_it(
    original: dict[str, str], package: Path
) -> None:
    def codes() -> dict[str, str]:
        forget()
        return {library: code_key("train", {"library": library}) for library in ("", "timm", "torchvision")}

    before = codes()
    assert (
        before[""] == next(code for name, code in original.items() if name.startswith("train/"))
        and len(set(before.values())) == 3
    )
    edit(package / "models/libraries.py", "dynamic_img_size=True", "dynamic_img_size=False")
    assert {name for name, code in codes().items() if code != before[name]} == {"timm"}
    edit(package / "models/libraries.py", 'mode="bilinear"', 'mode="bicubic"')
    edit(package / "models/build.py", '{"timm": of_timm, ', '{"own": of_timm, "timm": of_timm, ')
    assert {name for name, code in codes().items() if code != before[name]} == {"timm", "torchvision"}
    assert touched(original) == set()


def test_new_format_changes_no_job_but_the_report(original: dict[str, str], package: Path) -> None:
    own = {stage: code_key(stage, {"format": "csv"}) for stage in ("dataset", "index", "evaluate", "retrieve")}
    readers = package / "data/readers/__init__.py"
    (package / "data/readers/campus.py").write_text((package / "data/readers/dukemtmc.py").read_text())
    edit(readers, "    cuhk03,\n", "    campus,\n    cuhk03,\n")
    edit(readers, '    "dukemtmc": dukemtmc.read,', '    "dukemtmc": dukemtmc.read,\n    "campus": campus.read,')
    edit(readers, '    "dukemtmc": dukemtmc.COUNTS,', '    "dukemtmc": dukemtmc.COUNTS,\n    "campus": campus.COUNTS,')
    edit(package / "params/datasets.py", "Format = Literal[", 'Format = Literal["campus", ')
    edit(
        package / "evaluation/rules.py",
        '    "dukemtmc": DUKEMTMC,',
        '    "dukemtmc": DUKEMTMC,\n    "campus": Rule(),',
    )
    assert touched(original) <= {"publish"}
    assert own == {stage: code_key(stage, {"format": "csv"}) for stage in own}


def test_every_stage_has_a_code_key_of_its_own() -> None:
    assert len({code_key(stage) for stage in COMMANDS}) == len(COMMANDS) >= 13
