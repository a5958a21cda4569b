"""Cache keys: digests of contents, and of the code that computes results.

The code of a stage is its function and every function, class and constant of this project that it reaches, independent
of the modules they are in. Whatever does not compute is left out: comments, docstrings, type annotations, error
messages, printed text, labels of progress bars. A changed message or type re-runs nothing, a changed constant re-runs
the stages that reach it.

Names are resolved without importing anything. Where they cannot be resolved, everything they may refer to counts: a
whole module if it is passed around, and all modules for `import_module`. Code that runs on import counts as well, and
so do files that the code names, such as templates.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from reid_done_right.artifacts import InputError, file_digest

SOURCE = Path(__file__).parents[2]
PACKAGES = ("reid_done_right", "pedestrians")

CHOSEN_BY = {"READERS": "format", "WRITERS": "format", "RULES": "format", "FOREIGN": "library"}
"""Tables of which a job uses only the entry for a parameter of its, or nothing if there is none for it. Without a
`format` it may use all, without a `library` none."""

PRINTING = {"print", "warnings.warn", "bar.set_postfix"}
TELLING = {"InputError", "ValueError", "TypeError", "LookupError", "KeyError", "IndexError", "RuntimeError"}
"""Errors that only carry a message for people."""
DESCRIBED = {"Field": {"description", "title", "examples"}}
"""Calls whose arguments are only text for people, and the names of these arguments."""

WHOLE, EFFECTS = "*", ""
"""Of a module: all that it defines and imports; what it does when it is imported."""


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON-able value, whatever the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, or of the paths and contents of all files below a folder."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])


def code_key(stage: str, parameters: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of a stage's code, for a job with these parameters.

    Raises InputError for an unknown stage.
    """
    given = parameters or {}
    return _code_key(stage, tuple((name, str(given.get(name, ""))) for name in ("format", "library")))


@cache
def _code_key(stage: str, choices: tuple[tuple[str, str], ...]) -> str:
    start = Place(f"reid_done_right.stages.{stage}", stage)
    if stage not in _module(start.module).defined:
        raise InputError(f"module {start.module}: it defines no function {stage}")
    nodes = _reached(start, dict(choices))
    digests: dict[Any, str] = {place: digest(node.text) for place, node in nodes.items()}
    while True:  # until no two that reach different code have the same digest
        finer = {
            place: digest([digests[place], [(name, digests.get(to, to)) for name, to in node.references]])
            for place, node in nodes.items()
        }
        if len(set(finer.values())) == len(set(digests.values())):
            break
        digests = finer
    return digest([finer[start], sorted({finer[place] for place, node in nodes.items() if node.text})])


class Place(NamedTuple):
    """A definition: of a table, maybe one entry only."""

    module: str
    name: str
    entry: str = ""


@dataclass(frozen=True)
class Node:
    """A definition without what does not compute.

    text         its syntax tree, as text
    references   (name, what it stands for): a definition of ours, or the full name of something else
    imported     modules of ours that are imported where it is
    """

    text: str
    references: tuple[tuple[str, Place | str], ...] = ()
    imported: tuple[str, ...] = ()


def _reached(start: Place, choices: Mapping[str, str]) -> dict[Place, Node]:
    nodes: dict[Place, Node] = {}
    waiting = [start]
    while waiting:
        place = waiting.pop()
        if place in nodes:
            continue
        node = _node(place)
        chosen = [(name, _chosen(to, choices) if isinstance(to, Place) else to) for name, to in node.references]
        nodes[place] = Node(node.text, tuple(chosen))
        waiting += [to for _, to in chosen if isinstance(to, Place)]
        waiting += [Place(module, EFFECTS) for module in (place.module, *node.imported)]
    return nodes


def _chosen(place: Place, choices: Mapping[str, str]) -> Place | str:
    parameter = CHOSEN_BY.get(place.name, "")
    chosen = choices.get(parameter, "")
    if chosen and not place.entry and _module(place.module).entries(place.name):
        return place._replace(entry=chosen)
    return "" if parameter == "library" and not chosen else place


# --- modules


@dataclass
class Module:
    """What a module of ours defines, imports and does when it is imported."""

    name: str
    source: Path
    defined: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)

    def add(self, statement: ast.stmt) -> None:
        """Note what a statement binds or does."""
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.imports |= _imported(statement)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.defined.setdefault(statement.name, []).append(statement)
                if any(self._is_ours(decorator) for decorator in statement.decorator_list):
                    self.effects.append(statement)  # it may register what it decorates
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for part in statement.orelse:
                    self.add(part)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                pass
            case _ if _is_text(statement):
                pass
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                parts = [part for target in targets for part in ast.walk(target)]
                for name in [part.id for part in parts if isinstance(part, ast.Name)]:
                    self.defined.setdefault(name, []).append(statement)
                if any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts):
                    self.effects.append(statement)
            case _:  # a call, or a branch or loop with all that it binds
                for node in ast.walk(statement):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        self.imports |= _imported(node)
                    bound = getattr(node, "id", None) or getattr(node, "name", None)
                    if isinstance(bound, str) and not isinstance(getattr(node, "ctx", None), ast.Load):
                        self.defined.setdefault(bound, []).append(statement)
                self.effects.append(statement)

    def _is_ours(self, decorator: ast.expr) -> bool:
        base = next(node for node in ast.walk(decorator) if isinstance(node, ast.Name))
        return base.id in self.defined or _is_ours(self.imports.get(base.id, ""))

    def entries(self, name: str) -> dict[str, ast.expr]:
        """Return the entries of a table: a constant that is a dict of texts to anything."""
        match self.defined.get(name):
            case [ast.Assign(value=ast.Dict() as table) | ast.AnnAssign(value=ast.Dict() as table)]:
                keys = [key.value if isinstance(key, ast.Constant) else None for key in table.keys]
                if all(isinstance(key, str) for key in keys):
                    return dict(zip(map(str, keys), table.values, strict=True))
        return {}


@cache
def _module(name: str) -> Module:
    source = _source(name)
    if source is None:
        raise InputError(f"module {name}: no such file in {SOURCE}; is the package installed whole?")
    module = Module(name, source)
    for statement in ast.parse(source.read_text(encoding="utf-8")).body:
        module.add(statement)
    return module


@cache
def _source(module: str) -> Path | None:
    """Find the file of a module of ours, without importing anything."""
    path = SOURCE.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _is_ours(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def _imported(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Return local name -> full name."""
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name: f"{statement.module}.{alias.name}" for alias in statement.names}
    tops = {alias.name.split(".")[0] for alias in statement.names if not alias.asname}
    return {alias.asname or alias.name: alias.name for alias in statement.names} | {top: top for top in tops}


def _resolved(name: str) -> Place | str:
    """Return what a full name refers to; the name itself if it is not ours."""
    parts = name.split(".")
    if not _is_ours(name):
        return name
    end = next(end for end in range(len(parts), 0, -1) if _source(".".join(parts[:end])) is not None)
    module, rest = _module(".".join(parts[:end])), parts[end:]
    if rest and rest[0] in module.defined:
        return Place(module.name, rest[0])
    if rest and rest[0] in module.imports:
        return _resolved(".".join([module.imports[rest[0]], *rest[1:]]))
    return Place(module.name, WHOLE)


# --- definitions


@cache
def _node(place: Place) -> Node:
    module = _module(place.module)
    definitions: list[Any] = []
    if place.entry:
        definitions = [entry] if (entry := module.entries(place.name).get(place.entry)) else []
    elif place.name != WHOLE:
        definitions = module.effects if place.name == EFFECTS else module.defined[place.name]
    reading = Reading(module, definitions)
    text = "\n".join(map(reading.text, definitions))
    if place.name == WHOLE:
        reading.found += [(name, Place(module.name, name)) for name in module.defined]
        reading.found += [(name, _resolved(full)) for name, full in module.imports.items()]
    imported = (name for full in reading.imports.values() for name in _modules_of(full))
    return Node(text, tuple(reading.found), tuple(imported))


def _modules_of(full: str) -> list[str]:
    """Return the modules of ours that importing a full name imports, packages above it included."""
    parts = full.split(".") if _is_ours(full) else []
    names = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return [name for name in names if _source(name) is not None]


class Reading:
    """Reads definitions of a module: their syntax trees as text, without what does not compute, and what they name."""

    def __init__(self, module: Module, definitions: list[ast.AST]) -> None:
        self.module, self.imports = module, dict(module.imports)
        self.found: list[tuple[str, Place | str]] = []
        for node in (node for definition in definitions for node in ast.walk(definition)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.imports |= _imported(node)

    def text(self, node: Any) -> str:
        """Return a tree as text; what the names in it stand for is added to `found`, in their order."""
        match node:
            case list():
                return f"[{','.join(filter(None, map(self.text, _useful(node))))}]"
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                parts = [self.text(part) for part in (node.args, node.decorator_list, node.body)]
                return f"{type(node).__name__}({','.join([node.name, *parts])})"
            case ast.ClassDef():
                parts = [self.text(part) for part in (node.bases, node.keywords, node.decorator_list)]
                fields = (self._field(part) for part in node.body if not _is_text(part))
                return f"Class({','.join([node.name, *parts, *fields])})"
            case ast.arg():
                return node.arg
            case ast.AnnAssign():
                return f"Assign([{self.text(node.target)}],{self.text(node.value)})" if node.value else ""
            case ast.Assign():
                return f"Assign({self.text(node.targets)},{self.text(node.value)})"
            case ast.Raise(exc=ast.Call(func=ast.Name() as kind)) if kind.id in TELLING:
                return f"Raise({self.text(kind)})"
            case ast.Assert():
                return f"Assert({self.text(node.test)})"
            case ast.Expr(value=ast.Call(func=function)) if _dotted(function) in PRINTING:
                return ""
            case ast.Expr() if _is_text(node):
                return ""
            case ast.Pass() | ast.Load() | ast.Store() | ast.Del():
                return ""
            case ast.Call():
                bar = "tqdm" in (_dotted(node.func), *map(_dotted, node.args[:1]))
                told = DESCRIBED.get(_dotted(node.func), set())
                kept = [] if bar else [given for given in node.keywords if given.arg not in told]
                return f"Call({self.text(node.func)},{self.text(node.args)},{self.text(kept)})"
            case ast.Import() | ast.ImportFrom():
                names = _imported(node)
                return "" if all(map(_is_ours, names.values())) else f"Import({sorted(names.items())})"
            case ast.Name():
                label, to = self._target(node)
                return self._noted(label, to)
            case ast.Attribute():
                label, to = self._target(node)
                if isinstance(to, Place):
                    return self._noted(label, to)
            case ast.Subscript(slice=ast.Constant(value=str() as entry)):
                label, to = self._target(node.value)
                if isinstance(to, Place) and entry in _module(to.module).entries(to.name):
                    return self._noted(f"{label}[{entry}]", to._replace(entry=entry))
            case ast.Constant():
                files = _files(self.module.source.parent)
                if isinstance(node.value, str) and node.value in files:
                    stem = files[node.value].stem  # of a page, its styles and scripts too
                    self._note_files({name: file for name, file in files.items() if file.stem == stem})
                return repr(node.value)
            case ast.AST():
                pass
            case _:
                return repr(node)
        return f"{type(node).__name__}({','.join([self.text(getattr(node, name)) for name in node._fields])})"

    def _field(self, part: ast.stmt) -> str:
        """Read a statement of a class, the types of fields included: they say how parameters are read."""
        return (self.text(part.annotation) if isinstance(part, ast.AnnAssign) else "") + self.text(part)

    def _target(self, node: ast.expr) -> tuple[str, Place | str]:
        """Return what to call a name, or a chain of attributes, and what it stands for; "" if nothing beyond it."""
        name, *attributes = _dotted(node).split(".")
        if name in self.imports:
            return ".".join(attributes) or name, _resolved(".".join([self.imports[name], *attributes]))
        if attributes:
            return "", ""
        if name in self.module.defined:
            return name, Place(self.module.name, name)
        if name in ("globals", "locals", "vars", "eval", "exec"):
            return name, Place(self.module.name, WHOLE)
        if name == "__file__":
            self._note_files(_files(self.module.source.parent))
        return name, name if name == "__import__" else ""

    def _note_files(self, files: Mapping[str, Path]) -> None:
        self.found += [(name, file_digest(file)) for name, file in files.items()]

    def _noted(self, label: str, to: Place | str) -> str:
        if to in ("importlib", "importlib.import_module", "__import__"):
            self.found += [(module, Place(module, WHOLE)) for module in _all_modules()]
        elif to:
            self.found.append((label, to))
        return label


@cache
def _all_modules() -> list[str]:
    files = [file for package in PACKAGES for file in sorted((SOURCE / package).rglob("*.py"))]
    return [".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in files]


@cache
def _files(folder: Path) -> dict[str, Path]:
    """Return what lies beside modules, as templates do, by name."""
    return {file.name: file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix not in (".py", "")}


def _dotted(node: ast.AST) -> str:
    """Return a chain of attributes of a name as text; empty if it is none."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}" if _dotted(value) else ""
    return ""


def _useful(block: list[Any]) -> list[Any]:
    """Leave out the texts that are made just before an error that tells them."""
    match block:
        case [*before, ast.Assign(targets=[ast.Name()], value=value), ast.Raise() as end] if _is_message(value):
            return _useful([*before, end])
    return block


def _is_message(value: ast.expr) -> bool:
    match value:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.IfExp(body=one, orelse=other):
            return _is_message(one) and _is_message(other)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr="join")):
            return True
    return False


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)
