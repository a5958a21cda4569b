"""The store: results computed once, identified by their inputs, and traced back to the images.

keys      digests of everything a result depends on
objects   results, computed once and linked into place: `make`
notes     what computes now, and where
ledger    one entry per job: what it read, wrote and computed with
trace     `reid why` and `reid verify`
"""

from reid_done_right.store.objects import make

__all__ = ["make"]
