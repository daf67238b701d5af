"""The demo's picture: original, adversarial and purified digits with what the model said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")  # writes files; no screen is needed
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

_PASS, _ALARM = "#2b7a3d", "#b3261e"


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of the picture."""

    image: npt.NDArray[np.float32]
    """(1, H, W)."""
    caption: str
    is_alarm: bool


def draw(path: Path, title: str, rows: list[tuple[str, list[Panel]]]) -> None:
    """Write the picture: one labelled row of panels after the other."""
    columns = max(len(panels) for _, panels in rows)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1.75 * columns, 2.15 * len(rows) + 0.5), squeeze=False
    )
    for line, (label, panels) in zip(axes, rows, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].text(
            -0.28, 0.5, label, rotation=90, va="center", ha="center",
            transform=line[0].transAxes, fontsize=11, fontweight="bold",
        )  # fmt: skip
        for axis, panel in zip(line, panels, strict=False):
            axis.imshow(panel.image[0], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            colour = _ALARM if panel.is_alarm else _PASS
            axis.set_title(panel.caption, fontsize=9, color=colour)
            axis.add_patch(
                Rectangle(
                    (0, 0), 1, 1, transform=axis.transAxes, fill=False, edgecolor=colour, lw=2
                )
            )
    figure.suptitle(title, fontsize=12)
    figure.tight_layout(rect=(0.02, 0, 1, 0.97))
    figure.savefig(path, dpi=120)
    plt.close(figure)
