"""Learning rates and the size of the cut-out as functions of the update, counted from 0."""

from __future__ import annotations


def warm_up(update: int, updates: float) -> float:
    """Ramp linearly to 1 over the first `updates` updates; a factor in (0, 1]."""
    return min(1.0, (update + 1) / updates) if updates >= 1 else 1.0


def halving(update: int, rate: float, halve_every: int, decay: str = "continuous") -> float:
    """Halve continuously: rate * 0.5^(update / halve_every) (section 4.1, "a logarithmic rate"), or in steps."""
    halves = update // halve_every if decay == "steps" else update / halve_every
    return float(rate * 0.5**halves)


def classification_rate(update: int, updates: int, rate: float, final: float, decay: str) -> float:
    """Decrease from `rate` to `final` over `updates` (section 4.1 gives only the end points).

    linear: along a line; exponential: by a constant factor an update; steps: two equal factors, at 1/2 and 3/4.
    """
    if decay == "linear":
        return rate + (final - rate) * update / updates
    if decay == "exponential":
        return float(rate * (final / rate) ** (update / updates))
    return float(rate * (final / rate) ** (0.5 * ((update >= updates // 2) + (update >= updates * 3 // 4))))


def cutout_largest(update: int, updates: int, cutout: float) -> float:
    """Grow the largest side of the cut-out linearly from 0 to `cutout` ("progressively", section 3.3)."""
    return cutout * update / updates
