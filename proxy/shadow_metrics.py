"""What is counted of a shadow policy: the comparison, and nothing that looks like traffic."""

from __future__ import annotations

from proxy.model_metrics import ACTIONS, OTHER, VERDICTS, Families, ModelMetrics

SKIPPED_REASONS = ("full", "no_answer")
"""Why a request was not compared: too many at a time were, or its detectors look at the model's
answer, and the model is not to see the request."""


class ShadowMetrics(ModelMetrics):
    """The comparison of one model's policy with its shadow.

    Whoever scores for the shadow tells these metrics what scoring tells the model's own, where it
    would pass for the traffic's: none of that is counted.
    """

    __slots__ = ()

    def __init__(self, families: Families, model: str) -> None:
        self._families = families
        self._model = model
        for reason in SKIPPED_REASONS:  # 0 from the start, so that a first one shows in rates
            families.shadow_skipped.labels(model, reason)
        families.shadow_failures.labels(model)

    def compared(self, verdict: str, shadow: str) -> None:
        """Count a sample by the policy's verdict and the shadow's."""
        self._families.shadow_samples.labels(
            self._model, _known(verdict, VERDICTS), _known(shadow, VERDICTS)
        ).inc()

    def disagreed(self, action: str, shadow: str) -> None:
        """Count a sample with another verdict or action, by what either policy would do."""
        self._families.shadow_disagreements.labels(
            self._model, _known(action, ACTIONS), _known(shadow, ACTIONS)
        ).inc()

    def skipped(self, reason: str) -> None:
        """Count a request that was not compared, by one of `SKIPPED_REASONS`."""
        self._families.shadow_skipped.labels(self._model, _known(reason, SKIPPED_REASONS)).inc()

    def failed(self) -> None:
        """Count a request on which the shadow reached no verdict."""
        self._families.shadow_failures.labels(self._model).inc()

    # -- what is not counted ---------------------------------------------------------------------

    def request(self, action: str, outcome: str) -> None:
        """Not the shadow's."""

    def stage(self, stage: str, seconds: float) -> None:
        """Not the traffic's."""

    def added(self, seconds: float) -> None:
        """The shadow keeps nobody waiting."""

    def detector(self, name: str, seconds: float) -> None:
        """Not the policy's."""

    def p_value(self, detector: str, p: float) -> None:
        """Not the policy's."""

    def sample(self, verdict: str) -> None:
        """Counted by `compared`."""

    def detector_failure(self, reason: str) -> None:
        """Counted by `failed`."""

    def fail_open(self, reason: str) -> None:
        """The shadow lets nothing pass."""

    def aggregation(self, result: str) -> None:
        """The shadow answers nothing."""

    def unscored(self, reason: str) -> None:
        """Counted for the policy."""

    def stage_skipped(self, stage: str) -> None:
        """Not the traffic's."""

    def circuit(self, detector: str, *, is_open: bool) -> None:
        """In the log."""

    def observe_skipped(self) -> None:
        """Counted by `skipped`."""

    def bytes(self, in_: int, out: int) -> None:
        """Not the shadow's."""

    def upstream_error(self, code_name: str) -> None:
        """Not the client's."""

    def upstream_wasted(self, reason: str, seconds: float) -> None:
        """The shadow forwards nothing."""

    def dispatch(self, *, speculative: bool) -> None:
        """The shadow forwards nothing."""

    def history_alarm(self) -> None:
        """The shadow remembers nothing."""

    def shared_memory_passthrough(self) -> None:
        """Counted for the policy."""

    def threshold(self, evidence: str, value: float, fpr_upper: float) -> None:
        """Not in force."""

    def calibration(self, made_s: float) -> None:
        """Not in force."""

    def calibration_stale(self, reason: str, is_stale: bool) -> None:
        """Not in force; said in the log."""

    def retire_detector(self, detector: str) -> None:
        """There is no gauge to blank."""

    def retire(self) -> None:
        """There is no gauge to blank."""


def _known(value: str, values: tuple[str, ...]) -> str:
    return value if value in values else OTHER
