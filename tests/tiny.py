"""A minimal complete experiment, and helpers to change single keys of it."""

from copy import deepcopy
from typing import Any

import yaml

PARAMS: dict[str, Any] = yaml.safe_load("""
experiment: tiny
draws: [0, 1]
datasets:
  market:
    format: market1501
    source: {render: {world: 1, hardness: 0.5, train_ids: 3, test_ids: 2, cameras: 2, distractors: 1, junk: 1}}
    variants: all
  duke:
    format: dukemtmc
    source: {render: {world: 2, hardness: 0.5, train_ids: 3, test_ids: 2, cameras: 2, distractor_ids: 1}}
    counts: {train_images: 9}
    variants: [default, raw]
  crowd:
    format: distractors
    source: {render: {world: 3, hardness: 0.5, images: 6}}
backbones:
  shallow: {block: basic, blocks: [1, 1, 1, 1], width: 4}
  deep: {block: bottleneck, blocks: [1, 1, 2, 1], width: 4, last_stride: 1}
initialise:
  objects: {world: 9, classes: 3, per_class: 2, side: 32, crop: 24, updates: 2, batch: 4, learning_rate: 0.1}
pretrain:
  {updates: 2, batch: 4, learning_rate: 0.1, final_learning_rate: 0.001, decay: linear, warm_up: 0.0, momentum: 0.9,
   weight_decay: 0.0, pooling: max, crop_height: 32, crop_width: 16, crop_area: 0.5, crop_aspect: image, flip: true}
train:
  {backbone: shallow, pretrain: true, pooling: max, embedding: 8, largest_side: 32, margin: 0.1, updates: 4, batch: 2, at_once: 6,
   reduction: mean, learning_rate: 0.01, halve_every: 2, warm_up: 0.0, momentum: 0.9, weight_decay: 0.0, pool: 6,
   hardest: 5, refresh: 2, flip: false, crop: 0.0, views: shared, cutout: 0.5, cutout_growth: 1.0}
variants:
  default: {}
  flip: {flip: true}
  deep: {backbone: deep}
  raw: {pretrain: false}
evaluate:
  multi_query: mean
  tracklets: mean
  person_search_gallery: 100
  qe_dba: {query_neighbours: 1, database_neighbours: 1}
  k_reciprocal: {k1: 2, k2: 1, lambda_value: 0.3}
distract: {dataset: market, distractors: crowd, variants: [default, deep], sizes: [0, 3, 6], orders: 2, shards: 3}
follow: {dataset: market, variants: [default], snapshots: 2}
report:
  title: Tiny
  synthetic: true
  command: make
  baseline: default
  allow_missing: false
  contact_sheet: {identities: 1, lookalikes: 1}
  shown: {datasets: [market, duke], variant: default, draw: 0, images: true, queries: 2}
  table1: [{variant: flip, label: "✓ - -", paper: "✓ - -"}]
  table2: [{variant: default, label: "32", paper: 416 pixels}]
  table3: [{variant: deep, label: deep, paper: ResNet-101, group: backbone}]
  table4: [{variant: default, label: Default, paper: Ours}]
resources:
  train: {threads: 2, mem_mb: 100, runtime: 5}
""")

MISSING = object()


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the tiny experiment with other values at some paths such as "train/margin"; MISSING removes a key."""
    content = deepcopy(PARAMS)
    for path, value in changes.items():
        section: Any = content
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
        for part in parents:
            section = section[part]
        if value is MISSING:
            del section[last]
        else:
            section[last] = deepcopy(value)  # which a later path may change
    return content
