"""Sections of the datasets: format, source, how photos of one's own are read and scored, expected counts."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from reid_done_right.params.messages import check_known
from reid_done_right.params.section import Fraction, Name, Natural, Positive, Section

Format = Literal[
    "market1501",
    "dukemtmc",
    "mars",
    "person-search",
    "distractors",
    "prw",
    "msmt17",
    "cuhk03-labelled",
    "cuhk03-detected",
    "veri776",
    "vehicleid-800",
    "vehicleid-1600",
    "vehicleid-2400",
    "folder",
    "csv",
]
Column = Literal["path", "person_id", "camera_id", "tracklet_id", "split", "date"]
DRAW = "{draw}"
OWN = ("folder", "csv")
"""Formats of own photos."""
SEARCHED = ("person-search", "prw")
"""Formats in which every query has a gallery of its own."""
SEEDED = ("vehicleid-800", "vehicleid-1600", "vehicleid-2400")
"""Formats of releases whose protocol draws the gallery, by `read.seed`."""


RENDERED: dict[str, dict[str, bool]] = {
    "market1501": {"train_ids": True, "test_ids": True, "cameras": False, "distractors": True, "junk": True},
    "dukemtmc": {"train_ids": True, "test_ids": True, "cameras": False, "distractor_ids": True},
    "mars": {
        **{"train_ids": True, "test_ids": True, "cameras": False, "frames": True},
        **{"distractor_tracklets": True, "junk_tracklets": True},
    },
    "person-search": {
        **{"train_ids": True, "test_ids": True, "train_scenes": True, "test_scenes": True, "gallery_sizes": False},
    },
    "distractors": {"images": True, "first": False, "cameras": False},
    "csv": {"train_ids": True, "test_ids": True, "photos": True},
}
"""Format -> keys of `render` that its writer in `pedestrians` takes, and whether it needs them. `csv` is the herd."""


class Render(Section):
    """A rendered release; the keys beside `world` and `hardness` are those of its writer in `pedestrians`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, list[Positive] | Natural]
    world: Natural = Field(
        description="Seed of the rendered release: its people or animals, what they wear, and its cameras or places."
    )
    hardness: Fraction = Field(description="Difference between its cameras, or its photos, from 0 (none) to 1.")


class Archive(Section):
    """An archive of a release: a file, or addresses (mirrors, in order) to fetch it from."""

    path: str | None = Field(default=None, description="Path of the archive. With `urls`, where the download is put.")
    urls: list[str] = Field(
        default=[], description="Addresses to download it from: mirrors, tried in order. http without s needs `sha256`."
    )
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of the file. If omitted, the first download is trusted and its digest recorded.",
    )
    bytes: Positive | None = Field(
        default=None, description="Size of the file in bytes. A download may exceed it by 1 %."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.path is None and not self.urls:
            raise ValueError("give path: FILE, or urls: [https://...]")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"urls: {url!r} is not an address; write https://..., or path: for a file")
            if url.startswith("http://") and self.sha256 is None:
                raise ValueError(f"urls: {url} is not https, so anybody on the way can change it; give its sha256 too")
            if self.path is None and not url.rpartition("/")[2]:
                raise ValueError(f"urls: {url} does not end in a file name; give path: FILE, where to put it")
        return self


class Source(Section):
    """Where a dataset comes from: rendered here, a folder of the user's, or archives unpacked to that folder."""

    render: Render | None = Field(default=None, description="Renders the release instead of reading one.")
    folder: str | None = Field(
        default=None,
        description="Folder of a release, or of photos of your own. Archives are unpacked to it. With `{draw}` in its "
        "path, every draw has its own, such as one of ten random splits.",
    )
    archives: Annotated[list[Archive], Field(min_length=1)] | Literal["published"] | None = Field(
        default=None,
        description="Archives to unpack to the folder: paths, addresses, or sections with the keys below. "
        "`published` means those that `src/reid_done_right/data/sources.toml` lists, beside the folder.",
    )

    @field_validator(
        "archives",
        mode="before",
        json_schema_input_type=Annotated[list[Archive | str], Field(min_length=1)] | Literal["published"] | None,
    )
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Take a bare path or address for an archive of which no more is said."""
        if not isinstance(value, list):
            return value
        addresses = ("https://", "http://")
        return [
            entry
            if not isinstance(entry, str)
            else {"urls": [entry]}
            if entry.startswith(addresses)
            else {"path": entry}
            for entry in value
        ]

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.render is None) == (self.folder is None):
            raise ValueError("give either render: {...} or folder: PATH")
        if self.archives is not None and self.folder is None:
            raise ValueError("archives are unpacked to a folder; give folder: PATH too")
        if self.archives is not None and self.drawn:
            raise ValueError("archives are unpacked to one folder; give its path without {draw}")
        return self

    @property
    def drawn(self) -> bool:
        """Whether every draw has its own."""
        return self.folder is None or DRAW in self.folder

    def folder_of(self, draw: int) -> str | None:
        """Return the user's folder of a draw; None if it is rendered."""
        return self.folder and self.folder.replace(DRAW, str(draw))


class Read(Section):
    """How to read own photos: labels and splits."""

    pattern: str | None = Field(
        default=None, description="Format folder: pattern of the photos' paths. If omitted, `{person}/{camera}/{name}`."
    )
    table: str | None = Field(default=None, description="Format csv: file name of the table in the folder.")
    columns: dict[Column, str] | None = Field(
        default=None,
        description="Format csv: what the table calls its columns, if it differs, such as `{person_id: identity}`.",
    )
    splits: Literal["disjoint", "closed", "time-aware"] | None = Field(
        default=None,
        description="Format csv: `disjoint` checks that the table trains on no identity that it tests on; `closed` and "
        "`time-aware` test on identities that are trained on: some photos of each, or its first days (column `date`), "
        "are trained on and form the gallery, and the others are queries.",
    )
    unknown: list[str] = Field(
        default=[],
        description="Person labels that identify nobody. Their photos are in the gallery, but never trained on or "
        "queried.",
    )
    train: Fraction = Field(
        default=0.5,
        description="Fraction of the persons to train on, if the photos come without splits; with `closed` and "
        "`time-aware`, of the photos and days of each.",
    )
    seed: Natural = Field(default=0, description="Seed of the random splits; of VehicleID, of the gallery.")


class Protocol(Section):
    """Who counts for whom in one's own data: Market-1501's rule, if nothing else is said."""

    items: Literal["image", "tracklet"] = Field(
        default="image", description="What a query or a match is: one image or a whole tracklet."
    )
    same_camera_is_junk: bool = Field(
        default=True, description="Ignores matches from the query's own camera, as Market-1501 does."
    )
    ap_rule: Literal["trapezoid", "step"] = Field(
        default="trapezoid",
        description="Average precision of the headline: trapezoids (the official code of Market-1501) or steps.",
    )


class Dataset(Section):
    """A benchmark: its on-disk format, where it comes from, how many rows each split must have, what is trained."""

    format: Format = Field(
        description="Format on disk: that of a benchmark's release; `folder` and `csv` are for photos of your own "
        "(`docs/own_data.md`).",
    )
    source: Source = Field(description="Where the dataset comes from.")
    read: Read | None = Field(
        default=None, description="Photos of your own: how to read them. VehicleID: `{seed: NUMBER}`."
    )
    protocol: Protocol | None = Field(
        default=None, description="Photos of your own: the evaluation protocol. If omitted, that of Market-1501."
    )
    counts: dict[str, Natural] | Literal["published"] | None = Field(
        default=None,
        description="Expected counts, checked after reading: `published`, or numbers under the names that "
        "`reid_done_right.data.readers.count` returns.",
    )
    allow_damaged: list[str] = Field(
        default=[],
        description="Damaged images to leave out of the index, by their paths in the folder. Any other damaged image "
        "is an error.",
    )
    variants: list[Name] | Literal["all"] = Field(default=[], description="Variants to train on this dataset.")
    test_on: list[Name] = Field(
        default=[],
        description="Other datasets on whose test sets these variants are scored too, by the protocols of those.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source.render is not None:
            self._check_render(self.source.render)
        if self.format not in OWN:
            seeded = self.format in SEEDED and self.read is not None and self.read.model_fields_set == {"seed"}
            if (self.read is not None and not seeded) or self.protocol is not None:
                raise ValueError(
                    f"read and protocol are for the formats {' and '.join(OWN)}; {self.format} has its own"
                    + (", and takes read: {seed: NUMBER} only" if self.format in SEEDED else "")
                )
            return self
        if self.counts == "published":
            raise ValueError(
                f"format {self.format} is for photos of your own, which have no published counts; give numbers"
            )
        if self.format == "csv" and (self.read is None or self.read.table is None):
            raise ValueError("format csv needs read: {table: FILE}, a CSV file in source.folder")
        if self.read is not None:
            self._check_read(self.read)
        return self

    def _check_read(self, read: Read) -> None:
        if (read.pattern if self.format == "csv" else read.table) is not None:
            raise ValueError("read.pattern is for the format folder, read.table for the format csv")
        if self.format != "csv" and (read.columns is not None or read.splits is not None):
            raise ValueError("read.columns and read.splits are for the format csv")
        if read.splits in ("closed", "time-aware") and self.rule.items == "tracklet":
            raise ValueError(f"read.splits: {read.splits} splits single images; set protocol.items to image")

    def _check_render(self, render: Render) -> None:
        if self.format not in RENDERED:
            raise ValueError(f"source.render: no release of the format {self.format} is rendered; give source.folder")
        known, given = RENDERED[self.format], render.model_extra or {}
        check_known("source.render", given, known)
        for key, value in given.items():
            if isinstance(value, list) != (key == "gallery_sizes"):
                raise ValueError(f"source.render.{key}: expected {'a list' if key == 'gallery_sizes' else 'a number'}")
        if missing := [key for key, needed in known.items() if needed and key not in given]:
            raise ValueError(f"source.render: {self.format} needs {', '.join(missing)} too")

    @property
    def reading(self) -> dict[str, Any]:
        """Return the arguments of the format's reader beside the folder."""
        if self.format not in OWN:
            return {"seed": self.read.seed} if self.read is not None else {}
        read = (self.read or Read()).model_dump(exclude_none=True)
        return read | self.rule.model_dump(include={"items", "same_camera_is_junk"})

    @property
    def untrained(self) -> str:
        """Say why there are no images to train on; nothing if there are, as far as the parameters tell."""
        if self.format == "distractors":
            return "distractors have no identities"
        if self.source.render is not None and (self.source.render.model_extra or {}).get("train_ids") == 0:
            return "source.render.train_ids is 0"
        return "read.train is 0" if self.read is not None and self.read.train == 0 else ""

    def shows_people_of(self, other: Self) -> bool:
        """Return whether another dataset has the same people, as far as the parameters tell."""
        ours, theirs = self.source.render, other.source.render
        if ours is not None and theirs is not None:
            return self.format == other.format and ours.world == theirs.world
        return (self.source, self.read) == (other.source, other.read)

    @property
    def untested(self) -> str:
        """Say why there is no test set; nothing if there is one, as far as the parameters tell."""
        if self.format == "distractors":
            return "distractors are nobody's queries"
        if self.source.render is not None and (self.source.render.model_extra or {}).get("test_ids") == 0:
            return "source.render.test_ids is 0"
        return "read.train is 1" if self.read is not None and self.read.train == 1 else ""

    @property
    def rule(self) -> Protocol:
        """Return the protocol of own data."""
        return self.protocol or Protocol()


class Joint(Section):
    """Datasets whose training images are taken as one, what is trained on them, and where that is tested."""

    train_on: Annotated[list[Name], Field(min_length=2)] = Field(
        description="Datasets whose training images are joined. Their persons and cameras are taken for different ones."
    )
    test_on: Annotated[list[Name], Field(min_length=1)] = Field(
        description="Datasets on whose test sets the variants are scored, by the protocols of those."
    )
    variants: list[Name] | Literal["all"] = Field(default=[], description="Variants to train on them.")
