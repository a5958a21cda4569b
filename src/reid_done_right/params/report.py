"""Sections of the report: its tables and claims, what it shows, what it says of itself."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from reid_done_right.params.messages import check_known
from reid_done_right.params.reading import read_yaml
from reid_done_right.params.section import Name, Natural, Positive, Section

Metric = Literal["mAP", "rank-1", "rank-5", "rank-10"]
Rerank = Literal["none", "qe-dba", "k-reciprocal"]
Effect = Literal["helps", "adds little", "costs", "measured"]
TableName = Annotated[str, Field(pattern=r"^table[0-9]+[a-z]?$")]


class TableRow(Section):
    """A row of a table: a variant, its label here, and the label of the paper's row that it stands beside."""

    variant: Name = Field(description="Variant whose scores are shown.")
    trained_on: str = Field(
        default="",
        description="Dataset that it was trained on, or the name of several (`joint`). If omitted, that of the column. "
        "Given for all rows of a table, it makes one of transfers: trained here, tested there (`datasets.*.test_on`).",
    )
    label: str = Field(description="Label of the row.")
    paper: str = Field(
        default="",
        description="Label of the paper's row to show beside it, as in `reports/paper.csv`. If omitted, none is.",
    )
    group: str = Field(default="", description="Heading above the row, in tables that have groups.")

    @field_validator("label", "paper", mode="before", json_schema_input_type=str | bool)
    @classmethod
    def _text(cls, value: Any) -> Any:
        """Take a bare yes or no, which YAML reads as a boolean and `dvc exp run -S` writes, as the text it was."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class TableColumn(Section):
    """Columns of a table: results of one dataset under one protocol."""

    title: str = Field(description="Title of the column.")
    dataset: Name = Field(description="Dataset whose scores are shown.")
    protocol: str = Field(
        description="Protocol of the scores: `single-query`, `multi-query` (Market-1501), `tracklet` (MARS) or "
        "`gallery-100` (Person Search; PRW: `gallery-all`)."
    )
    paper: str = Field(
        default="", description="The paper's column to show beside it, as in `reports/paper.csv`. If omitted, none is."
    )
    metrics: Annotated[list[Metric], Field(min_length=1)] = Field(
        default=["mAP"], description="Metrics to show, a column for each."
    )
    reranks: Annotated[list[Rerank], Field(min_length=1)] = Field(
        default=["none"],
        description="Re-rankings to show. Every row is there once for each that a column has; other columns print `-`.",
    )


class TableGroup(Section):
    """How the rows of a group are compared."""

    to: Literal["baseline", "previous"] = Field(
        description="Row from which the differences are: the baseline's of the group or, as well, the one before."
    )


class TableClaim(Section):
    """A claim of a table: how two of its rows differ in mAP, and what was said of it."""

    text: str = Field(description="The claim, in words.")
    better: str = Field(
        default="", description="Row that the claim speaks for: its `paper` or its variant. If omitted, the baseline."
    )
    worse: str = Field(
        default="",
        description="Row that it is compared with. If omitted, the baseline; in a table of transfers, the same variant "
        "trained on the column's dataset. If given there, both rows are of the same training data, for each in turn.",
    )
    rerank: Rerank = Field(default="none", description="Re-ranking of `better`; `worse` has none.")
    effect: Effect = Field(
        default="helps",
        description="What is claimed of `better` less `worse`: that it is positive, next to nothing, or negative; "
        "`measured` claims nothing.",
    )
    columns: list[str] = Field(default=[], description="Titles of the columns that it is about. If omitted, all.")
    trained_on: list[Name] = Field(
        default=[],
        description="In a table of transfers: datasets, or joint ones, that `better` was trained on. If omitted, all.",
    )
    paper: Annotated[list[str], Field(min_length=2, max_length=2)] | float | None = Field(
        default=None,
        description="The paper's difference in points, or the two rows of `reports/paper.csv` from which it follows. "
        "If omitted, it follows from `better` and `worse`, if these are rows of the paper.",
    )


class Table(Section):
    """A table: rows of variants, columns of datasets, and the claims that it is there to judge."""

    caption: str = Field(description="Caption, without the table's number, which its name has: `table6`.")
    headers: Annotated[list[str], Field(min_length=1)] = Field(
        default=[""],
        description="Headers of the rows' labels. With several, a label has a word for each; if the first is empty, "
        "the row's group stands there.",
    )
    columns: Annotated[list[TableColumn], Field(min_length=1)] = Field(
        description="Columns: datasets, protocols, metrics and re-rankings."
    )
    rows: list[TableRow] = Field(description="Rows: variants and their labels.")
    groups: dict[str, TableGroup] = Field(default={}, description="Options of groups of rows, by heading.")
    claims: list[TableClaim] = Field(default=[], description="Claims to judge, a family to Holm's method.")
    paper: str = Field(
        default="", description="Table of `reports/paper.csv` that `paper` of rows and columns refers to, if any."
    )
    published: bool = Field(
        default=False,
        description="Prints all rows of the paper's table above ours, and the paper's `type` as their second label.",
    )
    legend: str = Field(default="", description="What the table's signs and abbreviations mean.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for row in self.rows:
            if len(found := self.labels(row)) != len(self.headers):
                raise ValueError(
                    f"label {row.label!r} has {len(found)} words, write one for each of {tuple(self.headers)}"
                )
        if self.transfers and not all(row.trained_on for row in self.rows):
            raise ValueError("rows: some have trained_on and some not; give it to all, or none")
        named = [*(row.paper for row in self.rows), *(column.paper for column in self.columns)]
        if not self.paper and any(named):
            raise ValueError("rows or columns name the paper's, but not its table; add paper: NUMBER")
        titles = [column.title for column in self.columns]
        if twice := [title for title in titles if titles.count(title) > 1]:
            raise ValueError(f"columns: two have the title {twice[0]!r}; rename one")
        for claim in self.claims:
            check_known("claims.columns", claim.columns, titles)
            if claim.trained_on and not self.transfers:
                raise ValueError("claims.trained_on: the rows do not say what they were trained on; leave it out")
            check_known("claims.trained_on", claim.trained_on, [row.trained_on for row in self.rows])
        return self

    @property
    def transfers(self) -> bool:
        """Whether its rows say what they were trained on, which its columns need not be."""
        return any(row.trained_on for row in self.rows)

    def labels(self, row: TableRow) -> tuple[str, ...]:
        """Return what is printed to the left of a row."""
        if self.published:
            return row.label, "-"
        if len(self.headers) == 1:
            return (row.label,)
        group = (row.group,) if not self.headers[0] else ()
        one = len(group) + 1 == len(self.headers)
        return (*group, *([row.label] if one else row.label.split()))

    def variant_of(self, row: str, baseline: str) -> str | None:
        """Return the variant of a row that a claim names by its `paper` or its variant; None if it is not there."""
        named = {each.variant: each.variant for each in self.rows} | {each.paper: each.variant for each in self.rows}
        return named.get(row) if row else baseline


def title_of(name: str) -> str:
    """Return a table's name as it is printed: Table 5."""
    return f"Table {number_of(name)}"


def number_of(name: str) -> str:
    """Return what tells a table's name from others: 5 of table5."""
    return name.removeprefix("table")


@cache
def _paper() -> dict[str, dict[str, Any]]:
    """Return the paper's tables without rows, by name."""
    content: dict[str, dict[str, Any]] = read_yaml(Path(__file__).with_name("paper.yaml"))
    return content


def paper_table(name: str, rows: Sequence[Any]) -> Table:
    """Return a table of the paper with these rows. Raises ValidationError for rows that do not fit."""
    return Table.model_validate({"paper": number_of(name), **_paper()[name], "rows": rows})


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
    table5: list[TableRow] = Field(default=[], description="Rows of Table 5: what the paper argues without a table.")
    tables: dict[TableName, Table] = Field(
        default={},
        description="Tables beside the paper's, which are in `src/reid_done_right/params/paper.yaml` in the same form. "
        "Names are `table6`, `table7b` and so on.",
    )

    @property
    def of_the_paper(self) -> dict[str, list[TableRow]]:
        """The rows of each of the paper's tables."""
        return {name: getattr(self, name) for name in _paper()}

    @property
    def all_tables(self) -> dict[str, Table]:
        """The paper's tables that have rows, then the others."""
        return {name: paper_table(name, rows) for name, rows in self.of_the_paper.items() if rows} | self.tables
