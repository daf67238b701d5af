"""What every detector and every way to answer make of every image, kept from run to run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from detectors.base import Detector, Evidence, Need
from detectors.chains import FEATURES
from detectors.rule import Rule
from proxy.evaluation import NO_PURIFIER, SCORES_FILE, Evaluation, Kind, dump
from proxy.files import write_whole
from proxy.upstream import Upstream
from proxy.weights import users
from purifiers import Chain, Purifier
from purifiers.aggregate import majority_vote, mean_of_probabilities
from tuning.batches import seeded
from tuning.evaluate.attacks import ATTACKS
from tuning.evaluate.samples import ATTACK, Attackers, Images, Split, benign_sets, split
from tuning.evaluate.sizes import THREATS, Sizes
from tuning.evaluate.store import code, digest
from tuning.evaluate.subject import Subject
from tuning.model_client import ModelClient, as_seen
from tuning.witness import Witness

_CHUNK = 128

Ways = Mapping[str, Sequence[Purifier]]
"""Name of a way to answer -> the purifiers it applies in turn, with their networks."""


@dataclass(frozen=True)
class Scored:
    """One set of images and what was made of them."""

    images: Images
    scores: Tensor
    """(N, D) float32, a column for each detector; may be non-finite."""
    right: Tensor
    """(N, W) bool: whether the answer is right by each way; all False without labels."""

    @property
    def kept(self) -> Tensor:
        """Those that count as an attack, (N,) bool: the undefended model is fooled. Else all."""
        if not self.images.threat:
            return torch.ones(len(self.scores), dtype=torch.bool)
        return ~self.right[:, 0]

    def fused(self, rule: Rule, detectors: Sequence[str]) -> Tensor:
        """Fused scores by a rule over some of the detectors, (N,); NaN where one is not finite."""
        columns = dict(zip(detectors, self.scores.T, strict=True))
        return rule.score({name: columns[name] for name in rule.names})


@dataclass(frozen=True)
class Recording:
    """All sets under one list of detectors and ways."""

    detectors: tuple[str, ...]
    ways: tuple[str, ...]
    """`none` first."""
    sets: Mapping[str, Scored]
    """ROLE/NAME -> what was made of the images."""

    def of(self, role: str) -> dict[str, Scored]:
        """The sets of one role, by name."""
        split = (key.partition("/") for key in self.sets)
        return {name: self.sets[f"{r}/{name}"] for r, _, name in split if r == role}


def record(
    subject: Subject,
    sizes: Sizes,
    *,
    detectors: Sequence[Detector] | None = None,
    ways: Ways | None = None,
    threats: Collection[str] = THREATS,
    given: Split | None = None,
    extra: Mapping[str, Images] | None = None,
) -> Recording:
    """Make the images and have them scored; what was kept is not made again.

    Args:
        detectors: fitted ones; the configured by default.
        ways: ways to answer besides the model's own; the configured one by default.
        threats: what the attackers know, of `THREATS`.
        given: the data as `split` deals it out; dealt anew by default.
        extra: further sets, ROLE/NAME -> images.

    Raises:
        ConfigError: the model cannot be asked, or gets too few images right.
    """
    given = given or split(subject, sizes)
    chosen = sizes.attacks if sizes.attacks is not None else tuple(ATTACKS)
    sets = benign_sets(subject, given, sizes)
    sets |= Attackers(subject, given, sizes, chosen, threats).sets()
    sets |= extra or {}
    parts = subject.detectors if detectors is None else tuple(detectors)
    return scored(subject, sets, parts, configured_way(subject) if ways is None else ways)


def configured_way(subject: Subject) -> Ways:
    """The configured purifiers under the name of their chain; none where there are none."""
    return {Chain(chain).key[:100]: chain} if (chain := subject.purifiers) else {}


def scored(
    subject: Subject, sets: Mapping[str, Images], detectors: Sequence[Detector], ways: Ways
) -> Recording:
    """Scores and answers for sets of images, each kept as soon as it is there."""
    recorder = _Recorder(subject, detectors, ways)
    task = subject.progress.add_task("scoring", total=len(sets))
    found = {}
    for key, images in sets.items():
        found[key] = recorder.one(key, images)
        subject.progress.advance(task)
    names = tuple(detector.name for detector in detectors)
    return Recording(names, (NO_PURIFIER, *ways), found)


class _Recorder:
    """Scores one set after the other."""

    def __init__(self, subject: Subject, detectors: Sequence[Detector], ways: Ways) -> None:
        self._subject, self._detectors, self._ways = subject, detectors, ways
        states = [
            digest(d.name, *(f"{k} {digest(v)}" for k, v in sorted(d.state().items())))
            for d in detectors
        ]
        members = [member for chain in ways.values() for each in chain for member in each.members]
        learned = users([*detectors, *members]).values()
        networks = [digest(*_weights(each[0].network)) for each in learned]
        self._about = (
            f"{subject.identity} {states} {networks} {subject.model.aggregate} {subject.seed} "
            f"{[(name, Chain(chain).key) for name, chain in ways.items()]} "
            f"{code(*detectors, *(v for d in detectors for v in d.views), *members)}"
        )

    def one(self, key: str, images: Images) -> Scored:
        safe = "".join(c if c.isalnum() else "_" for c in key)
        about = f"{self._about} {digest(images.x)}"
        kept = self._subject.store.tensors(f"scores-{safe}", about, lambda: self._made(images.x))
        right = torch.zeros(kept["classes"].shape, dtype=torch.bool)
        if images.y is not None:
            right = kept["classes"] == images.y[:, None]
        return Scored(images, kept["scores"], right)

    def _made(self, x: Tensor) -> dict[str, Tensor]:
        evidence, answers = self._subject.ask(lambda upstream: self._asked(upstream, x))
        pieces = [_piece(evidence, start) for start in range(0, len(x), _CHUNK)]
        columns = [torch.cat([d.score(each) for each in pieces]) for d in self._detectors]
        classes = torch.stack([each.argmax(1) for each in answers], dim=1)
        return {"scores": torch.stack(columns, dim=1), "classes": classes}

    async def _asked(self, upstream: Upstream, x: Tensor) -> tuple[Evidence, list[Tensor]]:
        """Evidence for the detectors, and the answers by each way."""
        subject = self._subject
        generator = seeded(subject.seed, "views")
        witness = Witness(
            upstream, subject.spec, self._detectors, Progress(disable=True), generator
        )
        found = (await witness.evidence({"": x}, ""))[""]
        client = ModelClient(upstream, subject.spec)
        seen = as_seen(subject.spec, x)
        output = found.output
        if output is None:
            output = await client.answers(seen, _nothing)
        served = [await self._by(client, chain, seen) for chain in self._ways.values()]
        nothing = torch.zeros(len(x), len(FEATURES))
        chains = nothing if any(d.needs is Need.HISTORY for d in self._detectors) else None
        return Evidence(found.x, output, found.views, chains), [output, *served]

    async def _by(self, client: ModelClient, chain: Sequence[Purifier], x: Tensor) -> Tensor:
        """Answers to purified copies; of several, where the model is configured so."""
        aggregate = self._subject.model.aggregate
        purifier = Chain(chain)
        generator = seeded(self._subject.seed, "purify", purifier.key)
        count = aggregate.copies if aggregate is not None and purifier.is_random else 1
        copies = torch.stack(
            [await client.answers(purifier.purify(x, generator), _nothing) for _ in range(count)]
        )
        if count == 1 or aggregate is None:
            return copies[0]
        return {"mean": mean_of_probabilities, "vote": majority_vote}[aggregate.rule](copies)


def _weights(network: nn.Module | None) -> list[Tensor]:
    return [] if network is None else list(network.state_dict().values())


def _nothing(count: int) -> None:
    """Progress is told set by set."""


def _piece(evidence: Evidence, start: int) -> Evidence:
    rows = slice(start, start + _CHUNK)
    return Evidence(
        evidence.x[rows],
        None if evidence.output is None else evidence.output[rows],
        {key: view[rows] for key, view in evidence.views.items()},
        None if evidence.chain is None else evidence.chain[rows],
    )


def evaluation(
    recording: Recording, rule: Rule, about: Mapping[str, object], report: Mapping[str, object]
) -> Evaluation:
    """The recording as it is stored: successful attacks only, and samples with finite scores."""
    kinds = []
    for key, each in recording.sets.items():
        role, _, name = key.partition("/")
        fused = each.fused(rule, recording.detectors)
        rows = each.kept & each.scores.isfinite().all(1)
        right = None if each.images.y is None else each.right[rows].to(torch.uint8).numpy()
        kind = Kind(role, name, each.scores[rows].numpy(), fused[rows].numpy(), right)
        kinds.append(kind)
    return Evaluation(recording.detectors, tuple(kinds), recording.ways, about, report)


def write(path: Path, recording: Recording, rule: Rule, about: Mapping[str, object]) -> Evaluation:
    """Write `scores.safetensors` into a folder."""
    whole = {**about_of(recording), **about}
    stored = evaluation(recording, rule, json.loads(json.dumps(whole)), {})
    write_whole(path / SCORES_FILE, dump(stored))
    return stored


def about_of(recording: Recording) -> dict[str, object]:
    """What is known of the attacks, for the file's metadata."""
    attacks = recording.of(ATTACK)
    return {
        "threats": {name: each.images.threat for name, each in attacks.items()},
        "trained_on": {name: each.images.tuned_on for name, each in attacks.items()},
        "families": {name: each.images.family for name, each in attacks.items()},
        "tried": {name: len(each.scores) for name, each in attacks.items()},
        "failed": {
            key: int((~each.scores.isfinite().all(1)).sum()) for key, each in recording.sets.items()
        },
        # Which image each stored sample was made from: halves are to share none.
        "rows": {
            key: (each.kept & each.scores.isfinite().all(1)).nonzero()[:, 0].tolist()
            for key, each in recording.sets.items()
        },
    }
