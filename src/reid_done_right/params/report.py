"""Sections of the report: rows of its tables, what it shows, what it says of itself."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from reid_done_right.params.section import Name, Natural, Positive, Section


class TableRow(Section):
    """A row of Tables 1-3: a variant, its label here, and the label of the paper's row that it stands beside."""

    variant: Name = Field(description="Variant whose scores are shown.")
    label: str = Field(description="Label of the row.")
    paper: str = Field(description="Label of the paper's row to show beside it, as in `reports/paper.csv`.")
    group: str = Field(default="", description="Heading above the row, in tables that have groups.")

    @field_validator("label", "paper", mode="before", json_schema_input_type=str | bool)
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Take a bare yes or no, which YAML reads as a boolean and `dvc exp run -S` writes, as the text it was."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class ContactSheet(Section):
    """How much of the rendered people the report shows."""

    identities: Positive = Field(description="Rows of people.")
    lookalikes: Natural = Field(description="Rows of people who resemble the last one.")


class Shown(Section):
    """Whose ranked lists and heat-maps the report shows: one run of each of some datasets."""

    datasets: Annotated[list[Name], Field(min_length=1)] = Field(
        description="Datasets whose ranked lists can be browsed. Figures 1, 4, 5 and 6 show the first."
    )
    variant: Name = Field(description="Variant to show.")
    draw: Natural = Field(description="Draw of the runs to show.")
    images: bool = Field(
        description="Embeds thumbnails of people in the page. Check that the dataset's licence allows it."
    )
    activations: Literal["value", "absolute"] = Field(
        default="value",
        description="The strongest activations of Figures 1 and 6: the greatest values, or absolute values.",
    )
    queries: Positive = Field(
        description="Queries per dataset, evenly spaced from the lowest average precision to the highest."
    )


class Report(Section):
    """Tables as lists of variants; what the report says of itself."""

    title: str = Field(description="Title of the report.")
    synthetic: bool = Field(description="States that the images are rendered.")
    command: str = Field(description="Command that reproduces the report.")
    baseline: Name = Field(description="Variant with which the others are compared.")
    allow_missing: bool = Field(
        description="Prints an em dash for a run without scores. Otherwise a missing run is an error."
    )
    contact_sheet: ContactSheet | None = Field(
        default=None, description="Contact sheet of rendered people. If omitted, there is none."
    )
    shown: Shown | None = Field(
        default=None, description="Queries with ranked lists and heat maps. If omitted, none are shown."
    )
    table1: list[TableRow] = Field(default=[], description="Rows of Table 1: augmentation.")
    table2: list[TableRow] = Field(default=[], description="Rows of Table 2: image size.")
    table3: list[TableRow] = Field(
        default=[], description="Rows of Table 3: pooling, backbone, classification before ranking."
    )
    table4: list[TableRow] = Field(default=[], description="Rows of Table 4: the state of the art.")
    readings: dict[Name, str] = Field(
        default={},
        description="Variants that read the paper otherwise, and how, in words: a table of what each changes.",
    )
