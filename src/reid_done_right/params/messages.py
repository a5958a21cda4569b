"""The lines that say which key of the parameters is wrong, and how to mend it."""

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reid_done_right.artifacts import InputError

WIDEST = 200
"""Letters of a wrong value that a message shows."""


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], content: Any, what: str, advice: str) -> Model:
    """Return what a file says of itself as its schema has it. Raises InputError: `what`, each wrong key, `advice`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = " ".join("; ".join(lines_of(error, "", model)).split())
        raise InputError(f"{what}: {wrong}; {advice}") from None


def check_known(key: str, names: Any, known: Any) -> None:
    """Raise ValueError for a name that is not among the known ones, with the one that is nearest."""
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: unknown name {name!r}{_nearest(name, known)}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def lines_of(error: ValidationError, prefix: str, model: type[BaseModel]) -> list[str]:
    """Turn each of pydantic's errors into a line `key: what is wrong; the fix`."""
    lines = []
    found = {tuple(part for part in item["loc"] if not _is_branch(part)): item for item in error.errors()}
    for parts, item in found.items():
        if any(other[: len(parts)] == parts for other in found if other != parts):
            continue  # another branch of the same union got further
        location = [part for part in parts if part != "[key]"]
        key = ".".join([prefix] * bool(prefix) + [str(part) for part in location])
        match item["type"]:
            case "extra_forbidden":
                fields = _fields(model, location[:-1])
                lines.append(f"{key}: unknown key{_nearest(str(location[-1]), fields)}")
            case "missing":
                lines.append(f"{key}: missing; add it")
            case "value_error":
                message = str(item["ctx"]["error"]) if "ctx" in item else item["msg"]
                lines.append(f"{key}: {message}" if key else message)
            case "float_type" if isinstance(item["input"], str) and "e" in item["input"]:
                lines.append(f"{key}: {item['input']!r} is text in YAML; write a point, as in 1.0e-3")
            case _:
                lines.append(f"{key}: {item['msg']}, not {_shown(item['input'])}")
    return lines


def _shown(value: Any) -> str:
    """Return a value as it is written, as far as that fits into a line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= WIDEST else f"{text[:WIDEST]}..."


def _is_branch(part: str | int) -> bool:
    """Tell pydantic's names of a union's branches, such as list[str] or bool, from keys."""
    return isinstance(part, str) and ("[" in part or part == "bool") and part != "[key]"


def _fields(model: type[BaseModel], location: list[Any]) -> list[str]:
    """Return the keys that the section at a location may have."""
    for part in location:
        field = model.model_fields.get(str(part))
        candidates = _models(field.annotation) if field is not None else [model]
        if candidates:
            model = candidates[0]
    return list(model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Find the section models inside an annotation such as dict[str, Dataset] or Render | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models(argument)]
