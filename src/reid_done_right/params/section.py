"""What all sections are: frozen, strict, without unknown keys; and the kinds of their values."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _counts(value: int) -> int:
    """Return an integer that floats and JSON keep. Raises ValueError for a larger one."""
    if value > 2**53:
        raise ValueError("expected a whole number of at most 2^53")
    return value


Natural = Annotated[int, Field(ge=0), AfterValidator(_counts)]
Positive = Annotated[int, Field(gt=0), AfterValidator(_counts)]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Key = Annotated[str, Field(pattern=r"^[a-z_]+$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Strict(BaseModel):
    """What is checked when it is read: frozen, strict types, no unknown keys, no number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Section(Strict):
    """A section of the parameters: frozen, strict types, no unknown keys.

    The descriptions of its fields are the only ones: `python docs/parameters.py` generates the documentation and the
    JSON schema from them.
    """
