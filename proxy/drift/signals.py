"""Which signals of live traffic can be compared with the calibration's."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.base import Detector, Need
from detectors.drift_inputs import IMAGE_NAMES, VECTOR_NAMES, WAVEFORM_NAMES
from detectors.drift_reference import CLASSES, SCORE, Reference
from detectors.rule import Cascade
from proxy.cascade import Stage, levels_of, stage_of
from proxy.config import InputKind

STATISTICS: dict[InputKind, tuple[str, ...]] = {
    "image": IMAGE_NAMES,
    "vector": VECTOR_NAMES,
    "waveform": WAVEFORM_NAMES,
}
"""Names of the input statistics by kind of input, in the order of `detectors.input_statistics`."""


def comparable(
    reference: Reference, parts: Sequence[Detector], cascade: Cascade | None
) -> Reference:
    """The reference without what live traffic shows a part of only.

    With a cascade, only the samples in doubt get as far as the dearer detectors, and look unlike
    the benign ones for that alone. What the history says depends on who asks, not on the inputs.

    Args:
        parts: the model's detectors.
        cascade: when samples stop; None: all detectors look at all samples.
    """
    looking = [d for d in parts if d.needs is not Need.HISTORY]
    levels, stops = levels_of(looking, cascade)
    reached: set[str] = set()
    for level, stop in zip(levels, [*stops, None], strict=True):
        reached |= set(level)
        if stop is not None and stop.clean < 1:
            break
    shows_class = cascade is None or any(
        stage_of(d) is Stage.ANSWER for d in looking if d.name in reached
    )
    kept = {
        name: signal
        for name, signal in reference.signals.items()
        if (name.removeprefix(SCORE) in reached if name.startswith(SCORE) else True)
        and (name != CLASSES or shows_class)
    }
    return Reference(kept)
