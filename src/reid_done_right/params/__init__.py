"""The parameters of an experiment: one frozen, validated model per section of `params.yaml`.

Nothing else parses YAML. An unknown, missing or mistyped key and an impossible combination are errors of one line
each that name the key and the fix, raised before anything runs.
"""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from reid_done_right.artifacts import InputError
from reid_done_right.numerics import Numerics
from reid_done_right.params.datasets import OWN, SEARCHED, Dataset, Joint
from reid_done_right.params.evaluation import Distract, Evaluate, Follow, Identify, Inspect
from reid_done_right.params.messages import check_known, lines_of
from reid_done_right.params.networks import SMALLEST, Backbone, Initialise
from reid_done_right.params.reading import parse_json, read_yaml
from reid_done_right.params.report import Report, Rerank, Shown, Table, paper_table
from reid_done_right.params.section import Name, Natural, Positive, Section
from reid_done_right.params.training import Pretrain, Train


class Resources(Section):
    """What one job of a stage asks of the scheduler; `threads` also fixes the order of its sums."""

    threads: Positive = Field(
        default=1, description="CPU threads. They determine the order of sums, and so the last digits of results."
    )
    gpu: Natural = Field(default=0, description="GPUs.")
    mem_mb: Positive = Field(default=1500, description="Memory in MB.")
    runtime: Positive = Field(default=30, description="Time limit in minutes.")


class Params(Section):
    """A whole experiment."""

    experiment: Name = Field(description="Name of the experiment: that of its folders in `results/` and `reports/`.")
    numerics: Numerics = Field(
        default="portable",
        description="Arithmetic: the same bits on every x86-64 processor with AVX2, or whatever is fastest here "
        "(`docs/numerics.md`).",
    )
    draws: Annotated[list[Natural], Field(min_length=1)] = Field(
        description="Draws: everything that chance decides, once for each. Rendered worlds and weights learnt from "
        "objects are drawn anew (draw 0 has the `world` of the parameters), and so is the order of training; data and "
        "weights on disk stay. The paper reports one number per cell and no number of runs.",
    )
    datasets: dict[Name, Dataset] = Field(description="The datasets, under names of your choice.")
    joint: dict[Name, Joint] = Field(
        default={},
        description="Datasets to train on together, under names of your choice, by which the runs are called, too.",
    )
    backbones: dict[Name, Backbone] = Field(description="The networks, under names of your choice.")
    initialise: Initialise = Field(description="Initial weights of the backbones.")
    pretrain: Pretrain = Field(
        description="Classification of the training identities, which precedes ranking (section 4.1)."
    )
    train: Train = Field(description="The ranking stage of the default variant (sections 3 and 4.1).")
    variants: dict[Name, dict[str, Any]] = Field(
        description="Variants of the ranking stage, under names of your choice: the keys of `train` that differ."
    )
    evaluate: Evaluate = Field(description="Choices of the protocols, and the two re-rankings.")
    distract: Distract | None = Field(
        default=None, description="Figure 7, evaluation with distractors. If omitted, there is no such figure."
    )
    follow: Follow | None = Field(
        default=None, description="Convergence. If omitted, no models are kept from along the trainings."
    )
    inspect: Inspect | None = Field(
        default=None,
        description="What networks look at in rendered queries: a table of the report. If omitted, there is none.",
    )
    identify: Identify | None = Field(
        default=None,
        description="Open sets: searches for persons whom the gallery may not hold, and a threshold that says so. If "
        "omitted, the report has none.",
    )
    report: Report = Field(description="Contents of the report.")
    resources: dict[str, Resources] = Field(
        default={}, description="What a job of each stage requests from the scheduler."
    )

    def variant(self, name: str) -> Train:
        """Return the ranking stage's parameters for a variant: the default with the variant's differences."""
        return Train.model_validate(self.train.model_dump() | self.variants[name])

    def classification(self, variant: Train) -> Pretrain | None:
        """Return the classification stage that a variant starts from: the default with its differences; None if none.

        Raises ValidationError for differences that make no sense.
        """
        if variant.pretrain is False:
            return None
        differing = variant.pretrain if isinstance(variant.pretrain, dict) else {}
        default = self.pretrain.model_dump()
        if not differing.keys().isdisjoint({"updates", "passes"}):
            del default["updates"], default["passes"]
        return Pretrain.model_validate(default | differing)

    def check_sides(self, key: str, variant: Train, smallest: int) -> None:
        """Raise ValueError for sides that the variant's backbone cannot take.

        An image's shorter side is known when it is read.
        """
        family = self.backbones[variant.backbone].family
        sides = {f"{key}.largest_side": variant.largest_side}
        if (pretrain := self.classification(variant)) is not None:
            sides |= {f"pretrain.{side}": getattr(pretrain, side) for side in ("crop_height", "crop_width")}
        if self.initialise.objects is not None:
            sides["initialise.objects.crop"] = self.initialise.objects.crop
        for side, pixels in sides.items():
            if pixels < smallest:
                raise ValueError(f"{side}: {pixels} pixels are too few for {family}; give {smallest} or more")

    @property
    def training_sets(self) -> dict[str, Dataset | Joint]:
        """What variants may be trained on: the datasets, then those that are joined."""
        return {**self.datasets, **self.joint}

    def variants_of(self, trained_on: str) -> list[str]:
        """Return the names of the variants that are trained on a dataset, or on several."""
        names = self.training_sets[trained_on].variants
        return list(self.variants) if names == "all" else list(names)

    @property
    def curves(self) -> Distract | None:
        """Figure 7; None without variants to draw, or if nothing is trained on its dataset."""
        distract = self.distract
        return distract if distract and distract.variants and self.variants_of(distract.dataset) else None

    @property
    def followed(self) -> list[str]:
        """The variants whose convergence is drawn; none if nothing is trained on its dataset."""
        return self._of_trained(self.follow)

    @property
    def inspected(self) -> list[str]:
        """The variants that are inspected; none if nothing is trained on their dataset."""
        return self._of_trained(self.inspect)

    @property
    def identified(self) -> list[str]:
        """The variants that are scored on an open set; none if nothing is trained on its dataset."""
        return self._of_trained(self.identify)

    def _of_trained(self, section: Follow | Inspect | Identify | None) -> list[str]:
        return list(section.variants) if section and self.variants_of(section.dataset) else []

    @property
    def used(self) -> list[str]:
        """The datasets that the experiment reads: to train or test on, and for the curves."""
        others = {self.curves.dataset, self.curves.distractors} if self.curves else set()
        for name, each in self.training_sets.items():
            if self.variants_of(name):
                others |= {*each.test_on, *(each.train_on if isinstance(each, Joint) else [name])}
        return [name for name in self.datasets if name in others]

    def tests_of(self, trained_on: str) -> list[str]:
        """Return the datasets on whose test sets is scored what is trained on a dataset, or on several."""
        own = [trained_on] if trained_on in self.datasets else []
        return [*own, *self.training_sets[trained_on].test_on]

    def is_scored(self, variant: str, trained_on: str, tested_on: str) -> bool:
        """Return whether a variant is trained on one dataset and scored on the test set of another, or the same."""
        return variant in self.variants_of(trained_on) and tested_on in self.tests_of(trained_on)

    @property
    def shown(self) -> list[str]:
        """The datasets that the report shows queries of: of those asked for, the ones with the variant asked for."""
        shown = self.report.shown
        return [] if shown is None else [name for name in shown.datasets if shown.variant in self.variants_of(name)]

    def resources_of(self, stage: str) -> Resources:
        """Return what a job of a stage asks for."""
        return self.resources.get(stage, Resources())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.draws)) != len(self.draws):
            raise ValueError(f"draws: {self.draws} repeats a draw; list each once")
        for name in self.variants:
            try:
                variant = self.variant(name)
            except ValidationError as error:
                raise ValueError("; ".join(lines_of(error, f"variants.{name}", Train))) from None
            try:
                self.classification(variant)
            except ValidationError as error:
                raise ValueError("; ".join(lines_of(error, f"variants.{name}.pretrain", Pretrain))) from None
            check_known(f"variants.{name}.backbone", [variant.backbone], self.backbones)
            if variant.refresh > variant.updates:
                raise ValueError(f"variants.{name}.refresh: {variant.refresh} exceeds updates {variant.updates}")
            self.check_sides(
                f"variants.{name}", variant, SMALLEST.get(self.backbones[variant.backbone].family or "", 1)
            )
        check_known("initialise.checkpoints", self.initialise.checkpoints or {}, self.backbones)
        for name, dataset in self.datasets.items():
            if dataset.variants != "all":
                check_known(f"datasets.{name}.variants", dataset.variants, self.variants)
            if dataset.format == "distractors" and dataset.variants:
                raise ValueError(f"datasets.{name}.variants: distractors have no identities to train on; give []")
            if name in dataset.test_on:
                raise ValueError(
                    f"datasets.{name}.test_on: what is trained on {name} is tested on it anyway; leave it out"
                )
            self._check_tests(f"datasets.{name}.test_on", dataset.test_on)
        for name, joint in self.joint.items():
            self._check_joint(name, joint)
        if self.follow is not None:
            check_known("follow.dataset", [self.follow.dataset], self.datasets)
            if trained := self.variants_of(self.follow.dataset):
                check_known("follow.variants", self.follow.variants, trained)
        if self.inspect is not None:
            self._check_inspect(self.inspect)
        if self.identify is not None:
            self._check_identify(self.identify)
        rendered = None
        if self.distract is not None:
            self._check_distract(self.distract)
            rendered = self.datasets[self.distract.dataset].source.render
        if self.report.contact_sheet is not None and rendered is None:
            raise ValueError("report.contact_sheet: shows rendered people only; remove it, as these images are real")
        check_known("report.baseline", [self.report.baseline], self.variants)
        if self.report.shown is not None:
            self._check_shown(self.report.shown)
        for name, rows in self.report.of_the_paper.items():
            check_known(f"report.{name}.variant", [row.variant for row in rows], self.variants)
            try:
                paper_table(name, rows)
            except ValidationError as error:
                raise ValueError("; ".join(lines_of(error, f"report.{name}", Table))) from None
        for name, table in self.report.tables.items():
            self._check_table(name, table)
        return self

    def _check_joint(self, name: str, joint: Joint) -> None:
        if name in self.datasets:
            raise ValueError(f"joint.{name}: a dataset has this name; choose another")
        if joint.variants != "all":
            check_known(f"joint.{name}.variants", joint.variants, self.variants)
        self._check_tests(f"joint.{name}.test_on", joint.test_on)
        key = f"joint.{name}.train_on"
        self._check_datasets(key, joint.train_on)
        for trained in joint.train_on:
            if why := self.datasets[trained].untrained:
                raise ValueError(f"{key}: {trained} has no training images ({why}); leave it out")
        for one, other in combinations(joint.train_on, 2):
            if self.datasets[one].shows_people_of(self.datasets[other]):
                raise ValueError(f"{key}: {one} and {other} show the same people, who would be two; leave one out")

    def _check_datasets(self, key: str, names: Sequence[str]) -> None:
        check_known(key, names, self.datasets)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{key}: {twice[0]} is there twice; list each once")

    def _check_tests(self, key: str, test_on: Sequence[str]) -> None:
        self._check_datasets(key, test_on)
        for tested in test_on:
            if why := self.datasets[tested].untested:
                raise ValueError(f"{key}: {tested} has no test set ({why}); leave it out")

    def _check_table(self, name: str, table: Table) -> None:
        key = f"report.tables.{name}"
        if name in self.report.of_the_paper:
            raise ValueError(f"{key}: the paper has a table of this name; give rows in report.{name}, or another name")
        check_known(f"{key}.rows.variant", [row.variant for row in table.rows], self.variants)
        check_known(f"{key}.rows.trained_on", filter(None, (row.trained_on for row in table.rows)), self.training_sets)
        for row in table.rows:
            if row.trained_on and row.variant not in self.variants_of(row.trained_on):
                raise ValueError(
                    f"{key}.rows: {row.variant} is not trained on {row.trained_on}; leave {row.label!r} out, or add "
                    f"it to {'datasets' if row.trained_on in self.datasets else 'joint'}.{row.trained_on}.variants"
                )
        for column in table.columns:
            check_known(f"{key}.columns.dataset", [column.dataset], self.datasets)
            if not any(
                self.is_scored(row.variant, row.trained_on or column.dataset, column.dataset) for row in table.rows
            ):
                missing = "row is tested on" if table.transfers else "variant of its rows is trained on"
                raise ValueError(f"{key}.columns: no {missing} {column.dataset}; leave {column.title!r} out")
            protocols, reranks = self._scored(column.dataset)
            check_known(f"{key}.columns.protocol", [column.protocol], protocols)
            check_known(f"{key}.columns.reranks", column.reranks, reranks)
        known = [each for row in table.rows for each in (row.paper, row.variant) if each]
        for claim in table.claims:
            check_known(f"{key}.claims", filter(None, (claim.better, claim.worse)), known)
            sides = {table.variant_of(row, self.report.baseline) for row in (claim.better, claim.worse)}
            if claim.rerank == "none" and len(sides) == 1 and (claim.worse or not table.transfers):
                raise ValueError(f"{key}.claims: {claim.text!r} compares a row with itself; give better, worse or both")

    def _scored(self, dataset: str) -> tuple[Sequence[str], Sequence[str]]:
        """Return the protocols and the re-rankings by which a dataset is scored."""
        tested = self.datasets[dataset]
        if tested.format == "person-search":
            return [f"gallery-{self.evaluate.person_search_gallery}"], ["none"]
        if tested.format == "prw":
            return ["gallery-all"], ["none"]
        if tested.format == "mars" or (tested.format in OWN and tested.rule.items == "tracklet"):
            return ["tracklet"], get_args(Rerank)
        return ["single-query", *(["multi-query"] if tested.format == "market1501" else [])], get_args(Rerank)

    def _check_shown(self, shown: Shown) -> None:
        check_known("report.shown.datasets", shown.datasets, self.datasets)
        check_known("report.shown.variant", [shown.variant], self.variants)
        if shown.draw not in self.draws:
            raise ValueError(f"report.shown.draw: no run has draw {shown.draw}; give one of {self.draws}")
        for name in shown.datasets:
            dataset = self.datasets[name]
            if dataset.format == "mars" or (dataset.format in OWN and dataset.rule.items == "tracklet"):
                raise ValueError(f"report.shown.datasets: the gallery of {name} is tracklets, which no one image shows")
        if not self.shown and any(
            self.variants_of(name) or self.datasets[name].format == "distractors" for name in shown.datasets
        ):
            raise ValueError(
                f"report.shown.datasets: variant {shown.variant} is trained on none of them; give one it is"
            )

    def _check_inspect(self, inspect: Inspect) -> None:
        check_known("inspect.dataset", [inspect.dataset], self.datasets)
        dataset = self.datasets[inspect.dataset]
        if dataset.source.render is None or dataset.format not in ("market1501", "dukemtmc"):
            raise ValueError(
                f"inspect.dataset: {inspect.dataset} is not rendered in the format market1501 or dukemtmc, so nobody "
                "knows where its people are; give one that is, or remove the section"
            )
        if trained := self.variants_of(inspect.dataset):
            check_known("inspect.variants", inspect.variants, trained)

    def _check_identify(self, identify: Identify) -> None:
        name = identify.dataset
        check_known("identify.dataset", [name], self.datasets)
        dataset = self.datasets[name]
        if why := dataset.untested:
            raise ValueError(f"identify.dataset: {name} has no test set ({why}); give one that has")
        if dataset.format in SEARCHED:
            raise ValueError(
                f"identify.dataset: every query of {name} has a gallery of its own, so nobody can be left out of the "
                "gallery; give a dataset of another format"
            )
        if dataset.read is not None and dataset.read.splits in ("closed", "time-aware"):
            raise ValueError(
                f"identify.dataset: {name} tests on those whom it trains on (read.splits: {dataset.read.splits}), so "
                "nobody is unknown; give disjoint splits"
            )
        if trained := self.variants_of(name):
            check_known("identify.variants", identify.variants, trained)
        if identify.fpir != sorted(set(identify.fpir)):
            raise ValueError(f"identify.fpir: {identify.fpir} must be ascending, each rate once")

    def _check_distract(self, distract: Distract) -> None:
        check_known("distract.dataset", [distract.dataset], self.datasets)
        if self.datasets[distract.dataset].format != "market1501":
            raise ValueError(f"distract.dataset: {distract.dataset} is not of the format market1501")
        check_known("distract.distractors", [distract.distractors], self.datasets)
        if self.datasets[distract.distractors].format != "distractors":
            raise ValueError(f"distract.distractors: {distract.distractors} is not of the format distractors")
        if trained := self.variants_of(distract.dataset):
            check_known("distract.variants", distract.variants, trained)
        if distract.sizes != sorted(set(distract.sizes)):
            raise ValueError(f"distract.sizes: {distract.sizes} must be ascending, each size once")


def load(source: Path) -> Params:
    """Read and validate an experiment's parameters from a YAML file; `-` reads JSON from standard input.

    Raises InputError with one line per mistake, each naming the key and the fix.
    """
    content = read(source)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(*(f"{_named(source)}: {line}" for line in lines_of(error, "", Params))) from None


def read(source: Path) -> dict[str, Any]:
    """Read parameters, or some of them, without validating them. Raises InputError if they are not such a file."""
    name = _named(source)
    try:
        content = parse_json(sys.stdin) if str(source) == "-" else read_yaml(source)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; give the path of a params.yaml") from None
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError) as error:  # also of its types
        raise InputError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: expected the sections of an experiment, found {type(content).__name__}")
    return content


def _named(source: Path) -> str:
    return "params" if str(source) == "-" else str(source)
