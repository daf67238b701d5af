"""Every candidate by what it costs and what it leaves to attackers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # writes files; no screen is needed
import matplotlib.pyplot as plt

from tuning.search.front import Choice
from tuning.search.optimise import Limits, Trial

_COLOURS = {"observe": "#7a7a7a", "flag": "#b58900", "purify": "#1f77b4", "block": "#b3261e"}


def draw(
    path: Path, trials: Sequence[Trial], choices: Sequence[Choice], limits: Limits, title: str
) -> None:
    """Write the picture: a panel for each threat model, harm over added p99."""
    figure, axes = plt.subplots(
        1, len(choices), figsize=(5.8 * len(choices), 5), layout="constrained", squeeze=False
    )
    for axis, choice in zip(axes[0], choices, strict=True):
        attacks = choice.threat.attacks
        for action, colour in _COLOURS.items():
            for kept, alpha in ((True, 0.75), (False, 0.2)):
                shown = [
                    t for t in trials if t.candidate.action == action and t.keeps(limits) is kept
                ]
                axis.scatter(
                    [t.predicted.added_p99_ms for t in shown],
                    [t.outcome.harm(attacks) for t in shown],
                    s=22,
                    color=colour,
                    alpha=alpha,
                    linewidths=0,
                    label=action if kept else None,
                )
        axis.step(
            [t.predicted.added_p99_ms for t in choice.front],
            [t.outcome.harm(attacks) for t in choice.front],
            where="post",
            color="black",
            linewidth=1,
            label="within the limits, best",
        )
        axis.plot(
            choice.taken.predicted.added_p99_ms,
            choice.taken.outcome.harm(attacks),
            "*",
            markersize=17,
            color="#2b7a3d",
            label="recommended",
        )
        axis.axvline(limits.added_p99_ms, color="black", linestyle=":", linewidth=1)
        axis.set_xlabel("added p99, ms (dotted: the limit)")
        axis.set_ylabel("harm: wrong answers served, flagged ones at half")
        axis.set_ylim(-0.02, 1.02)
        axis.set_title(choice.threat.name)
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(f"{title}; faint: outside the limits")
    figure.savefig(path, dpi=120)
    plt.close(figure)
