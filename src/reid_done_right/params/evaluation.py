"""Sections of the evaluation: the protocols' choices, the two re-rankings, distractors."""

from typing import Annotated, Literal

from pydantic import Field

from reid_done_right.params.section import Fraction, Name, Natural, Positive, Section, Share


class QeDba(Section):
    """Query expansion and database augmentation (footnote 2)."""

    query_neighbours: Natural = Field(
        description="Neighbours averaged with a query; 0 disables query expansion (footnote 2: 5)."
    )
    database_neighbours: Natural = Field(
        description="Neighbours averaged with a gallery item; 0 disables database augmentation (footnote 2: 10)."
    )
    self_counts: bool = Field(
        default=False,
        description="Whether the numbers of neighbours include the query or item itself, which always takes part.",
    )
    order: Literal["database-first", "query-first"] = Field(
        default="database-first",
        description="Whether queries are expanded by the augmented gallery, or by the gallery as it was.",
    )


class KReciprocal(Section):
    """k-reciprocal re-ranking (Zhong et al., 2017)."""

    k1: Positive = Field(description="Size of the neighbourhoods to compare.")
    k2: Positive = Field(description="Neighbours whose encodings are averaged.")
    lambda_value: Fraction = Field(
        description="Weight of the original distance; the rest is the weight of the Jaccard distance."
    )
    variant: Literal["matlab", "python", "squared-twice"] = Field(
        default="matlab",
        description="The original code, its port, or the port fed with squared distances, which it squares again.",
    )


class Evaluate(Section):
    """Protocol choices and the two re-rankings."""

    multi_query: Literal["mean", "max"] = Field(
        description="Pooling of the embeddings of a multi-query. The official script prints both; mean is the usual "
        "one.",
    )
    tracklets: Literal["mean", "max"] = Field(
        description="Pooling of the frames' embeddings. The official script of MARS takes the maximum, TriNet the mean."
    )
    person_search_gallery: Positive = Field(
        description="Scenes in the gallery of a Person Search query: a size for which the release has a list, such "
        "as 50 or 100.",
    )
    qe_dba: QeDba = Field(
        description="Query expansion and database augmentation: the re-ranking of Table 4, by footnote 2."
    )
    k_reciprocal: KReciprocal = Field(description="k-reciprocal re-ranking, which the text cites; reported beside it.")
    rerank_junk: bool = Field(
        default=True,
        description="Whether gallery items that count for no query (junk, -1) take part in the re-rankings. To leave "
        "them out, re-ranking must know labels.",
    )


class Follow(Section):
    """Convergence: which runs are scored along their training."""

    dataset: Name = Field(description="Dataset on which the runs are trained.")
    variants: list[Name] = Field(description="Variants to follow.")
    snapshots: Positive = Field(
        description="Models kept of a training beside its last, evenly spaced from before the first update on. Memory "
        "and checkpoints hold them."
    )


class Inspect(Section):
    """What networks look at: which runs are inspected, and how."""

    dataset: Name = Field(
        description="Dataset whose queries are inspected: a rendered one, of the format market1501 or dukemtmc."
    )
    variants: Annotated[list[Name], Field(min_length=1)] = Field(description="Variants to inspect.")
    occluded: Fraction = Field(
        default=0.1,
        description="A query is occluded if obstacles cover more than this share of its person; otherwise it is clean.",
    )
    queries: Positive = Field(
        default=200, description="Queries whose heat is measured, evenly spaced. More than there are means all."
    )
    tiles: Annotated[list[Annotated[Positive, Field(le=32)]], Field(min_length=2, max_length=2)] = Field(
        default=[8, 4], description="Rows and columns of tiles into which a query is divided for blanking."
    )
    blanked: Fraction = Field(
        default=0.25, description="Share of the tiles that are filled with the image's mean colour; at least one is."
    )
    seed: Natural = Field(default=0, description="Seed of the tiles that are blanked at random.")


class Identify(Section):
    """Open sets: which runs search for persons whom the gallery does not hold, too."""

    dataset: Name = Field(
        description="Dataset whose test set is opened. It has one gallery, and trains on nobody whom it tests on."
    )
    variants: Annotated[list[Name], Field(min_length=1)] = Field(description="Variants to score.")
    unknown: Share = Field(
        default=0.5,
        description="Share of the test persons to leave out of the gallery: those whose numbers have the least "
        "SHA-256. Searches for them should return nobody.",
    )
    fpir: Annotated[list[Share], Field(min_length=1)] = Field(
        default=[0.01, 0.1],
        description="False-positive identification rates, ascending: shares of these searches that may return "
        "somebody. A threshold is found for each.",
    )


class Distract(Section):
    """Figure 7: which runs face how many distractors."""

    dataset: Name = Field(description="Dataset whose queries and gallery are used; its format must be market1501.")
    distractors: Name = Field(description="Dataset to take the distractors from; its format must be distractors.")
    variants: list[Name] = Field(description="Variants to evaluate: the curves of Figure 7.")
    sizes: Annotated[list[Natural], Field(min_length=1)] = Field(
        description="Numbers of distractors, ascending. Smaller sets are subsets of larger ones."
    )
    orders: Positive = Field(description="Random orders of the distractors to average over.")
    shards: Positive = Field(description="Jobs among which the embedding of a run's distractors is divided.")
    seed: Natural = Field(default=0, description="Seed of the random orders.")
