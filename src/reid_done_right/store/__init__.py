"""Results computed once, known by what made them, and traced back to the images.

keys      what a result depends on, as digests
objects   results, computed once and linked to where they are wanted: `make`
ledger    one entry a job: what it read, wrote and computed with
trace     `reid why` and `reid verify`
"""

from reid_done_right.store.objects import make

__all__ = ["make"]
