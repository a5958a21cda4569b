"""Commands for embeddings and scores: score, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from reid_done_right.cli.options import Numerics, Rerank, file, folder, written

N = TypeVar("N", int, float)


def compare(
    ours: Annotated[
        str, typer.Argument(help="A file or folder of per-query scores, or a name such as embedded/market-default.")
    ],
    theirs: Annotated[str, typer.Argument(help="What to compare it with, in the same form.")],
    metrics: Annotated[
        str, typer.Option(help="Metrics to compare: mAP, mINP and rank-k, separated by commas.")
    ] = "mAP,rank-1",
    results: Annotated[Path, folder("Folder in which names are looked up.")] = Path("results"),
    csv: Annotated[Path | None, written("Also write the numbers, as fractions (.csv).")] = None,
) -> None:
    """Compare two variants, runs, experiments or checkouts query by query: OURS minus THEIRS, interval and p-value.

    \b
      reid compare embedded/market-default embedded/market-flip      two variants, over the draws that both have
      reid compare results/embedded ../other/results/embedded      two experiments: all runs of one name
      reid compare a.parquet b.parquet       two files of `reid score --per-query`

    Interval (95 %) and p speak of other draws, by Student's t, and of other persons where draws share their queries; of
    a single draw, of other persons alone. Each draw's difference is shown as well.
    """
    from reid_done_right.artifacts import InputError
    from reid_done_right.stages.compare import compare as compare_sides

    if wrong := [
        name
        for name in metrics.split(",")
        if name not in ("mAP", "mINP") and not name.removeprefix("rank-").isdecimal()
    ]:
        raise InputError(f"--metrics {wrong[0]!r}: expected mAP, mINP or rank-k, as in mAP,rank-1,rank-5")
    typer.echo(compare_sides(ours, theirs, metrics=metrics.split(","), results=results, csv=csv))


def score(
    query: Annotated[Path, file("Embeddings of the queries, .npz or .safetensors.")],
    gallery: Annotated[Path, file("Embeddings of the gallery, junk and distractors included.")],
    out: Annotated[Path, written("Where to write the scores (.json), fractions in [0, 1].")],
    protocol: Annotated[
        str,
        typer.Option(
            help="market1501, market1501-500k, dukemtmc, dukemtmc-official, mars, person-search, prw, "
            "msmt17, cuhk03-labelled, cuhk03-detected, veri776 or vehicleid-800, -1600, -2400."
        ),
    ] = "market1501",
    per_query: Annotated[
        Path | None, written("Where to write AP by both rules and the rank of the first hit of every query (.parquet).")
    ] = None,
    ranks: Annotated[str, typer.Option(help="More CMC ranks besides 1, 5 and 10, such as 20,50 or 1-50.")] = "",
    open_set: Annotated[
        bool,
        typer.Option(
            "--open-set",
            help="Queries whose person the gallery lacks are for strangers: report error rates and thresholds.",
        ),
    ] = False,
    false_alarms: Annotated[
        str, typer.Option(help="--open-set: shares of strangers for whom something may be returned.")
    ] = "0.01,0.1",
    multi_query: Annotated[
        Path | None, file("More images of the query persons; each query is pooled from those of its person and camera.")
    ] = None,
    pool: Annotated[Literal["mean", "max"], typer.Option(help="How to pool those, or the frames of mars.")] = ("mean"),
    normalise_frames: Annotated[
        bool, typer.Option(help="Normalise the frames of mars before pooling; its official code does not.")
    ] = True,
    distractors: Annotated[
        Path | None,
        typer.Option(
            help="Embeddings of distractor images, which show none of the benchmark's persons; a folder of files is "
            "counted one file at a time, and may be of any size."
        ),
    ] = None,
    sizes: Annotated[
        str, typer.Option(help="Numbers of distractors to add, each scored, such as 0,100000,500000.")
    ] = "",
    orders: Annotated[int, typer.Option(help="Number of random orders of the distractors.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of these orders and of the confidence interval of mAP.")] = 0,
    rerank: Rerank = "none",
    query_neighbours: Annotated[
        int | None, typer.Option(min=0, help="qe-dba: neighbours averaged with a query.  [default: 5]")
    ] = None,
    database_neighbours: Annotated[
        int | None, typer.Option(min=0, help="qe-dba: neighbours averaged with a gallery item.  [default: 10]")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, help="qe-dba: power of the similarity as a weight.  [default: 0, equal weights]"),
    ] = None,
    self_counts: Annotated[
        bool | None, typer.Option("--self-counts", help="qe-dba: count the item itself as one of its neighbours.")
    ] = None,
    order: Annotated[
        Literal["database-first", "query-first"] | None,
        typer.Option(help="qe-dba: average queries with augmented or with raw items.  [default: database-first]"),
    ] = None,
    k1: Annotated[
        int | None, typer.Option(min=1, help="k-reciprocal: size of the neighbourhoods.  [default: 20]")
    ] = None,
    k2: Annotated[int | None, typer.Option(help="k-reciprocal: neighbours averaged afterwards.  [default: 6]")] = None,
    lambda_value: Annotated[
        float | None,
        typer.Option("--lambda", min=0, max=1, help="k-reciprocal: weight of the original distance.  [default: 0.3]"),
    ] = None,
    variant: Annotated[
        Literal["matlab", "python", "squared-twice"] | None,
        typer.Option(help="k-reciprocal: the authors' code or one of its ports.  [default: matlab]"),
    ] = None,
    same_camera_is_junk: Annotated[
        bool | None,
        typer.Option(
            "--same-camera-is-junk/--same-camera-counts",
            help="Rule: ignore what a query's camera saw of its person. With one camera, use --same-camera-counts.",
        ),
    ] = None,
    junk_id: Annotated[
        str | None, typer.Option(metavar="<int|none>", help="Rule: ignore gallery items with this id.")
    ] = None,
    distractor_id: Annotated[
        str | None, typer.Option(metavar="<int|none>", help="Rule: gallery items with this id are distractors.")
    ] = None,
    cut: Annotated[int | None, typer.Option(help="Rule: matches beyond this rank do not count.")] = None,
    ap_rule: Annotated[
        Literal["trapezoid", "step"] | None,
        typer.Option(help="Rule: definition of AP behind mAP; both are always reported."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads.  [default: all cores]")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="PyTorch device, such as cuda.  [default: compiled loops on the CPU]"),
    ] = None,
    numerics: Numerics = "portable",
) -> None:
    """Score embeddings of any framework by a benchmark's official protocol, exactly and in bounded memory.

    Each file holds arrays with one row per image:

    \b
      embeddings   (N, D) floats, normalised if necessary
      person_id    (N,) integers; in the gallery -1 is junk, 0 a distractor
      camera_id    (N,) integers
      tracklet_id  (N,) mars: rows are frames, and the gallery holds the queries
      image_id     (N,) person-search, prw: the photo of each box; in the query file
                   also lists and pointers, each query's gallery of photos

    \b
      np.savez("query.npz", embeddings=features, person_id=ids, camera_id=cams)
      reid score --query query.npz --gallery gallery.npz --out scores.json

    docs/scoring.md has an example of every protocol, and a Python function that does the same on arrays. Options
    whose help starts with "Rule" adapt the protocol to your own benchmark.
    """
    from reid_done_right.artifacts import read_json
    from reid_done_right.stages.score import score as score_files

    rules = {"same_camera_is_junk": same_camera_is_junk, "cut": cut, "ap_rule": ap_rule}
    changes: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
    ids = {"junk_id": junk_id, "distractor_id": distractor_id}
    changes |= {name: _id(name, text) for name, text in ids.items() if text is not None}
    options: dict[str, dict[str, Any]] = {
        "qe-dba": {
            "query_neighbours": query_neighbours,
            "database_neighbours": database_neighbours,
            "alpha": alpha,
            "self_counts": self_counts,
            "order": order,
        },
        "k-reciprocal": {"k1": k1, "k2": k2, "lambda_value": lambda_value, "variant": variant},
    }
    score_files(
        query,
        gallery,
        out,
        protocol=protocol,
        changes=changes,
        multi_query=multi_query,
        pool=pool,
        normalise_frames=normalise_frames,
        rerank=rerank,
        options=_chosen(options, rerank),
        distractors=distractors,
        sizes=_numbers("--sizes", sizes, int, "0,100000"),
        orders=orders,
        ranks=_ranks(ranks),
        false_alarms=_numbers("--false-alarms", false_alarms, float, "0.01,0.1") if open_set else None,
        seed=seed,
        per_query=per_query,
        threads=threads,
        device=device,
    )
    _print_scores(read_json(out))
    typer.echo(f"score: wrote {out}" + (f" and {per_query}" if per_query else ""), err=True)


def _id(name: str, text: str) -> int | None:
    from reid_done_right.artifacts import InputError

    try:
        return None if text == "none" else int(text)
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')} {text!r}: expected an integer or none") from None


def _chosen(options: Mapping[str, Mapping[str, Any]], rerank: str) -> dict[str, Any]:
    """Return the options given for this re-ranking; reject those of another one, which would have no effect."""
    from reid_done_right.artifacts import InputError

    for name, members in options.items():
        given = [option for option, value in members.items() if value is not None]
        if given and name != rerank:
            option = "lambda" if given[0] == "lambda_value" else given[0].replace("_", "-")
            raise InputError(f"--{option} belongs to --rerank {name}, but it is {rerank}")
    return {option: value for option, value in options.get(rerank, {}).items() if value is not None}


def _print_scores(found: Mapping[str, Any]) -> None:
    ranks = [name for name in found if name.removeprefix("rank").isdigit()]
    typer.echo("  ".join(f"{name} {100 * found[name]:.2f}" for name in ("mAP", "mAP_step", *ranks, "mINP")))
    low, high = found["mAP_interval"]["low"], found["mAP_interval"]["high"]
    sure = "" if low is None else f", 95 % interval over queries {100 * low:.2f} to {100 * high:.2f}"
    typer.echo(f"score: {found['queries']} queries, mAP by the {found['ap_rule']} rule{sure}", err=True)
    if found["queries_without_match"]:
        missing = f"{found['queries_without_match']} of them have no match in the gallery and score 0"
        typer.echo(f"score: {missing} (in the mean, as the official code does)", err=True)
    _print_open_set(found.get("open_set"))
    swept = found.get("distractors", {"sizes": []})
    for i, size in enumerate(swept["sizes"]):
        means = (f"{name} {100 * sum(swept[name][i]) / swept['orders']:.2f}" for name in ("mAP", "mAP_step", "rank1"))
        typer.echo(f"{size:,} distractors: {'  '.join(means)}")


def _print_open_set(found: Mapping[str, Any] | None) -> None:
    """Print the threshold and the error rates at each rate of false alarms."""
    for one in found["at"] if found else []:
        low, high = (f"{one[end]:.3f}" if one[end] is not None else "unknown" for end in ("low", "high"))
        typer.echo(
            f"{one['false_alarms']:.2%} false alarms: similarity above {one['threshold']:.3f} (95 % interval {low} to "
            f"{high}), FPIR {one['fpir']:.2%}, FNIR {one['fnir']:.2%}, at rank 1 {one['fnir_rank1']:.2%}"
        )
    if found:
        typer.echo(
            f"score: {found['unknown_queries']} queries of {found['unknown_persons']} persons are for strangers; they "
            "count as queries without a match in mAP, mINP and ranks",
            err=True,
        )


def _ranks(text: str) -> list[int]:
    """Read ranks, and ranges of them such as 1-50."""
    parts = [part.split("-") if "-" in part.strip("-") else [part] for part in text.split(",")]
    bounds = [_numbers("--ranks", ",".join(part), int, "20,50 or 1-50") for part in parts]
    return list(dict.fromkeys(rank for ends in bounds if ends for rank in range(ends[0], ends[-1] + 1)))


def _numbers(option: str, text: str, kind: Callable[[str], N], example: str) -> list[N]:
    from reid_done_right.artifacts import InputError

    try:
        return [kind(number) for number in text.split(",") if number]
    except ValueError:
        raise InputError(f"{option} {text!r}: expected numbers separated by commas, as in {example}") from None
