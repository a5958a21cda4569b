"""Learning rates and the size of the cut-out as functions of the update, counting from 0."""

from __future__ import annotations

from reid_done_right.params.training import RankingStage


def warm_up(update: int, updates: float) -> float:
    """Ramp linearly to 1 over the first `updates` updates; a factor in (0, 1]."""
    return min(1.0, (update + 1) / updates) if updates >= 1 else 1.0


def halving(update: int, rate: float, halve_every: int, decay: str = "continuous") -> float:
    """Halve continuously: rate * 0.5^(update / halve_every) (section 4.1, "a logarithmic rate"), or in steps."""
    halves = update // halve_every if decay == "steps" else update / halve_every
    return float(rate * 0.5**halves)


def classification_rate(update: int, updates: int, rate: float, final: float, decay: str) -> float:
    """Decrease from `rate` to `final` over `updates` (section 4.1 gives only the end points).

    linear: linearly; exponential: by a constant factor per update; steps: two equal factors, at 1/2 and 3/4.
    """
    if decay == "linear":
        return rate + (final - rate) * update / updates
    if decay == "exponential":
        return float(rate * (final / rate) ** (update / updates))
    return float(rate * (final / rate) ** (0.5 * ((update >= updates // 2) + (update >= updates * 3 // 4))))


def ranking_rate(update: int, settings: RankingStage) -> float:
    """Give the learning rate of an update of the ranking stage."""
    rate = halving(update, settings.learning_rate, settings.halve_every, settings.decay)
    return rate * warm_up(update, settings.warm_up * settings.updates)


def cutout_largest(update: int, updates: int, cutout: float, growth: float = 1.0) -> float:
    """Grow the largest side of the cut-out linearly from 0 to `cutout` ("progressively", section 3.3), then keep it.

    growth  share of the updates until then; 0: `cutout` from the start
    """
    full = growth * updates
    return cutout * min(update, full) / full if full else cutout


def noise_share(settings: RankingStage) -> float:
    """Give the share of an image under noise that the network learns from: its mean, weighted by the learning rate.

    What regions of a cut-out share counts for each of them.
    """
    mean_side = (1 + settings.cutout_least) / 2
    total = weighted = 0.0
    for update in range(settings.updates):
        rate = ranking_rate(update, settings)
        largest = cutout_largest(update, settings.updates, settings.cutout, settings.cutout_growth)
        total += rate
        weighted += rate * (mean_side * largest) ** 2
    return weighted / total
