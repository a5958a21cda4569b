"""Python reads this where a `Checkout` starts it: Snakemake finds no cluster's plugins, of which each start takes a second."""

import pkgutil
from collections.abc import Iterable, Iterator

CLUSTERS = ("snakemake_executor_plugin_", "snakemake_storage_plugin_")
every_module = pkgutil.iter_modules


def without_clusters(path: Iterable[str] | None = None, prefix: str = "") -> Iterator[pkgutil.ModuleInfo]:
    return (module for module in every_module(path, prefix) if not module.name.startswith(CLUSTERS))


pkgutil.iter_modules = without_clusters
