"""The study from beginning to end: what is measured, in which order, against which goals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

import detectors
import purifiers
from detectors.rule import Cascade
from detectors.secrecy import Secrecy
from loadtests.harness import Report, about
from loadtests.quality import page
from loadtests.quality.cost import report_costs
from loadtests.quality.detection import (
    Detection,
    Tier,
    report_alone,
    report_attacks,
    report_benign,
    share,
    variant_of,
)
from loadtests.quality.evidence import PEER, Witness
from loadtests.quality.goals import report_goals
from loadtests.quality.images import Images, Labelled, Sizes
from loadtests.quality.knowing import Branches, report_knowing
from loadtests.quality.networks import GRADIENT, Networks
from loadtests.quality.purification import (
    Purification,
    Served,
    System,
    report_purifiers,
    report_system,
)
from tuning.evaluate.adaptive import Target
from tuning.evaluate.store import Store, code
from tuning.evaluate.targets import Guarded, Provoked, Through, Undefended, Watch

PARTS: dict[str, tuple[str, dict[str, object]]] = {
    "residual": ("residual", {}),
    "chroma": ("chroma", {}),
    "high_frequency": ("high_frequency", {}),
    "flat_noise": ("flat_noise", {}),
    "srm": ("srm", {}),
    "patch": ("patch", {}),
    "denoiser_residual": ("denoiser_residual", {}),
    "residual_cnn": ("residual_cnn", {}),
    "margin": ("margin", {}),
    "energy": ("energy", {}),
    "entropy": ("entropy", {}),
    "feature_squeezing": ("feature_squeezing", {}),
    "jpeg_view": ("jpeg_view", {}),
    "mirror_view": ("mirror_view", {}),
    "denoised_view": ("denoised_view", {"purifier": "autoencoder"}),
    "noise_stability": ("noise_stability", {}),
    "surrogate": ("surrogate", {}),
    "mahalanobis": ("mahalanobis", {}),
    "nearest_neighbours": ("nearest_neighbours", {}),
    "lid": ("lid", {}),
    "ensemble": ("ensemble", {"models": [PEER]}),
}
"""Every detector for images, by label. No attack here has the backdoor triggers `strip` is for."""

INPUT = Tier("0: input only", ("srm", "high_frequency"), 0)
OUTPUT = Tier("1: + the model's answer", (*INPUT.parts, "margin", "energy"), 0)
VIEWS = Tier("2: + two copies", (*INPUT.parts, "jpeg_view", "mirror_view"), 2)
PEERS = Tier("3: + another model", (*VIEWS.parts, "ensemble"), 3)
LEARNED_INPUT = Tier("0 with residual_cnn", (*INPUT.parts, "residual_cnn"), 0)
LEARNED = Tier("2 with residual_cnn", (*VIEWS.parts, "residual_cnn"), 2)
TIERS = (INPUT, OUTPUT, VIEWS, PEERS, LEARNED_INPUT, LEARNED)
"""Few detectors each: those that agree on what is unusual raise the threshold for all."""

CLEANERS: dict[str, dict[str, object]] = {
    "bit_depth": {"bits": 4},
    "median": {},
    "jpeg": {},
    "wavelet": {},
    "tv": {},
    "non_local_means": {},
    "resize_pad": {},
    "mirror": {},
    "patch_suppression": {},
    "denoiser": {},
    "autoencoder": {},
    "guided_denoiser": {},
}


def _one(name: str, **params: object) -> Served:
    told = ", ".join(f"{key}={value}" for key, value in params.items())
    return Served(f"{name}({told})" if told else name, (((name, params),),))


_UNPATCHED: tuple[str, dict[str, object]] = ("patch_suppression", {})
_MIRRORED: tuple[tuple[str, dict[str, object]], ...] = (
    *(("mirror", {}), ("jpeg", {"subsample": True})),
    ("tv", {}),
)
WAYS = (
    *(_one(name, **params) for name, params in CLEANERS.items()),
    _one("jpeg", quality=50),
    Served("patch_suppression > jpeg", ((_UNPATCHED, ("jpeg", {})),)),
    Served("patch_suppression > guided_denoiser", ((_UNPATCHED, ("guided_denoiser", {})),)),
    Served("mirror > jpeg 4:2:0 > tv", (_MIRRORED,)),
    Served("patch_suppression > mirror > jpeg 4:2:0 > tv", ((_UNPATCHED, *_MIRRORED),)),
    Served(
        "mean of guided_denoiser, its mirror, and that",
        (
            (_UNPATCHED, ("guided_denoiser", {})),
            (_UNPATCHED, ("guided_denoiser", {}), ("mirror", {})),
            (_UNPATCHED, *_MIRRORED),
        ),
    ),
)
"""Ways to answer. Means are over copies of which patches have been painted over."""
UNTRAINED, BEST = WAYS[-2].name, WAYS[-1].name

SYSTEMS = (
    System("flag only", VIEWS, None, 0.01, "none"),
    System("jpeg when flagged (1 %)", VIEWS, None, 0.01, "jpeg"),
    System("jpeg in doubt (10 %)", VIEWS, None, 0.1, "jpeg"),
    System("untrained in doubt (10 %)", VIEWS, None, 0.1, UNTRAINED),
    System("block at 1 %, untrained in doubt (10 %)", VIEWS, 0.01, 0.1, UNTRAINED),
    System("guided in doubt (10 %)", VIEWS, None, 0.1, "guided_denoiser"),
    System("block at 1 %", VIEWS, 0.01, 0.01, "none"),
    System("block at 1 %, jpeg in doubt (10 %)", VIEWS, 0.01, 0.1, "jpeg"),
    System("block at 1 %, guided in doubt (10 %)", VIEWS, 0.01, 0.1, "guided_denoiser"),
    System("block at 1 %, best mean in doubt (30 %)", VIEWS, 0.01, 0.3, BEST),
    System("block at 1 %, best mean always", VIEWS, 0.01, 1, BEST),
    System("tier 3: block at 1 %, best mean always", PEERS, 0.01, 1, BEST),
    System("block at 1 %, untrained purifier always", VIEWS, 0.01, 1, UNTRAINED),
)

ANSWERED = Tier("2 and the model's answer", (*OUTPUT.parts, "jpeg_view", "mirror_view"), 2)
_LOUD = Cascade(clean=1.0)
CASCADES: dict[str, tuple[tuple[Tier, ...], tuple[Cascade, ...]]] = {
    **{f"clean {c:g}": ((INPUT, VIEWS), (Cascade(clean=c),)) for c in (0.5, 0.25)},
    **{
        f"answer first, clean {c:g}": ((INPUT, OUTPUT, ANSWERED), (_LOUD, Cascade(clean=c)))
        for c in (0.5, 0.7, 0.9)
    },
}
"""Tiers by cost, and when a sample stops at each but the last, as `proxy.cascade` has it."""
SECRETS = 5
"""Draws of detectors by a secret that are compared with the fixed set."""


def run(data: Path, out: Path, sizes: Sizes, progress: Progress) -> Report:
    """Measure everything, and write the page; what was worked out before is taken from `out`."""
    store = Store(out / "work")
    images = Images(data, sizes, store, progress)
    networks = Networks(images, sizes, store, progress)
    witness = Witness(images, networks, store, progress)
    detection = Detection(witness, PARTS)
    purification = Purification(witness, WAYS)
    report = Report("Quality: shares, 95 % intervals")
    report_attacks(detection, TIERS, report)
    report_benign(detection, TIERS, report)
    report_alone(detection, report)
    report_cascades(detection, report)
    report_secrets(detection, report)
    report_purifiers(purification, report)
    report_system(detection, purification, SYSTEMS, report)
    report_transfer(detection, purification, report)
    targets = Labelled(images.targets.x[: sizes.adaptive], images.targets.y[: sizes.adaptive])
    report_knowing(
        _defences(witness, detection),
        Undefended(images.model),
        targets,
        report,
        store,
        progress,
        about=f"{TIERS} {code(*(detectors.DETECTORS[name] for name, _ in PARTS.values()))}",
    )
    report_costs(PARTS, CLEANERS, report, progress)
    report_goals(report)
    page.write(
        out / "report.html", report.rows, _curves(detection), _pictures(purification), about()
    )
    return report


def report_cascades(detection: Detection, report: Report) -> None:
    """What stopping early saves in queries, and costs in detection, at 1 %."""
    keys = ("fresh/clean", *(f"attack/{name}" for name in detection.images.attacked))
    for name, (tiers, stops) in {"none": ((VIEWS,), ()), **CASCADES}.items():
        rule = detection.cascaded(tiers, 0.01, stops)
        for key in keys:
            fused = detection.fused(rule, GRADIENT, key)
            early = rule.settle(
                {
                    label: detection.scores(label, GRADIENT)[key]
                    for label in (tiers[-2].parts if stops else ())
                }
            )
            report.add(
                cascade=name,
                images=key,
                asked=1.0 if early is None else round(float(early.isnan().float().mean()), 4),
                **share(fused > rule.threshold.value),
            )


def report_secrets(detection: Detection, report: Report) -> None:
    """Share detected at 1 % by draws of a secret, beside the fixed set."""
    rules = {"fixed": detection.rule(VIEWS, GRADIENT, 0.01)}
    rules |= {
        f"draw {epoch}": detection.secret(VIEWS, 0.01, Secrecy(b"a key for the study", epoch))
        for epoch in range(SECRETS)
    }
    keys = ["fresh/clean", *(f"attack/{name}" for name in detection.images.attacked)]
    for name, rule in rules.items():
        row = {
            key.partition("/")[2]: round(
                float((detection.fused(rule, GRADIENT, key) > rule.threshold.value).float().mean()),
                3,
            )
            for key in keys
        }
        report.add(secret=name, **row)


def report_transfer(detection: Detection, purification: Purification, report: Report) -> None:
    """Attacks made on another model: accuracy of the served one, and share flagged at 1 %."""
    for attack in detection.images.transferred:
        key = f"transfer/{attack}"
        right = purification.right("none", key, GRADIENT, purification.labels(key))
        purified = purification.right("jpeg", key, GRADIENT, purification.labels(key))
        for tier in TIERS:
            rule = detection.rule(tier, GRADIENT, 0.01)
            flagged = detection.fused(rule, GRADIENT, key) > rule.threshold.value
            row = share(flagged)
            report.add(
                transfer=attack,
                tier=tier.name,
                samples=len(right),
                accuracy=round(float(right.float().mean()), 4),
                accuracy_jpeg=round(float(purified.float().mean()), 4),
                flagged=row["share"],
                low=row["low"],
                high=row["high"],
                wrong_flagged=share(flagged[~right])["share"],
            )


def _defences(witness: Witness, detection: Detection) -> list[tuple[str, Branches]]:
    """What the knowing attacker meets; a system that purifies in doubt has two ways through."""
    model, peer = witness.images.model, witness.images.peer

    def watch(tier: Tier) -> Watch:
        rule = detection.rule(tier, GRADIENT, 0.01)
        parts = [witness.detector(*PARTS[label]) for label in rule.names]
        return Watch(model, parts, rule.score, rule.threshold.value, peers={PEER: peer})

    def through(name: str) -> Through:
        purifier = purifiers.build(name)
        witness.networks.equip([purifier])
        return Through(purifier, torch.Generator().manual_seed(0))

    def in_doubt() -> Sequence[Target]:
        seen = watch(VIEWS)
        return [Guarded(seen), Provoked(seen, through("jpeg"))]

    return [
        ("tier 0 flags", lambda: [Guarded(watch(INPUT))]),
        ("tier 2 flags", lambda: [Guarded(watch(VIEWS))]),
        ("tier 2, jpeg when flagged", in_doubt),
        ("jpeg served always", lambda: [Undefended(model, through("jpeg"))]),
        (
            "guided denoiser served always",
            lambda: [Undefended(model, through("guided_denoiser"))],
        ),
    ]


def _curves(
    detection: Detection,
) -> dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """False-positive and detection rates of each tier and attack, benign images mixed."""
    shown = (INPUT, VIEWS, PEERS)
    found: dict[str, dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for tier in shown:
        found[tier.name] = {}
        for attack in detection.images.attacked:
            variant = variant_of(attack)
            rule = detection.rule(tier, variant, 0.01)
            benign = torch.cat(
                [detection.fused(rule, variant, f"fresh/{g}") for g in detection.images.fresh]
            )
            hostile = detection.fused(rule, variant, f"attack/{attack}")
            rates = np.geomspace(1e-3, 0.5, 60)
            levels = torch.quantile(benign, 1 - torch.from_numpy(rates).float())
            seen = (hostile[None] > levels[:, None]).double().mean(1).numpy()
            found[tier.name][attack] = (rates, seen)
    return found


def _pictures(
    purification: Purification,
) -> list[tuple[str, dict[str, NDArray[np.uint8]]]]:
    """One example of each attack: what it was, what was done, and what purifiers make of it."""
    images = purification.witness.images
    pictures = []
    for attack, sample in images.attacked.items():
        if not len(sample.x) or sample.clean is None:
            continue
        x, clean = sample.x[:1], sample.clean[:1]
        row = {"original": clean, "attacked": x, "difference x10": 0.5 + 10 * (x - clean)}
        for name in ("jpeg", "median", "autoencoder", "guided_denoiser"):
            cleaner = purifiers.build(name)
            purification.witness.networks.equip([cleaner])
            row[name] = cleaner.purify(x)
        pictures.append((attack, {caption: _bytes(each) for caption, each in row.items()}))
    return pictures


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = (x[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return levels
