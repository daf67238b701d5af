"""Everything a defence meets in an evaluation: benign images, and attacks by what they know."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from detectors.benign import variations
from proxy.errors import ConfigError
from proxy.weights import users
from purifiers import Chain
from tuning.attacks import FAMILIES
from tuning.batches import seeded
from tuning.evaluate import sizes as threat
from tuning.evaluate.adaptive import attack as adaptive_attack
from tuning.evaluate.attacks import ATTACKS, Attacked, cached
from tuning.evaluate.network import Network
from tuning.evaluate.sizes import Sizes
from tuning.evaluate.store import code, digest
from tuning.evaluate.subject import Subject
from tuning.evaluate.surrogate import surrogate_of
from tuning.evaluate.targets import Either, Through
from tuning.evaluate.unseen import out_of_distribution, unseen

BENIGN, UNSEEN, OOD, ATTACK = "benign", "unseen", "ood", "attack"

TRAINED_LIKE = {
    "gradient_linf": "linf",
    "minimal_l2": "l2",
    "query": "l2",
    "block": "blocks",
    "patch": "patch",
    "smooth": "smooth",
}
"""Family of an attack here -> kind of `tuning.attacks.FAMILIES` that leaves like traces."""

_LEAST = 10
"""Images the model must get right for attacks to mean anything."""
_CANDIDATES = 3
"""So many times the images to attack are asked about, at most: most models get a third right."""


@dataclass(frozen=True)
class Images:
    """One set of images, all met alike."""

    x: Tensor
    """(N, C, H, W), rounded to 8 bits."""
    y: Tensor | None = None
    """True labels, (N,); None where the images are of no class."""
    clean: Tensor | None = None
    """What attacked ones were made from."""
    threat: str = ""
    attack: str = ""
    """The kind of attack, of `ATTACKS` or `eot`; empty for benign images."""
    family: str = ""
    tuned_on: bool = False
    """Whether some part of the defence learned from attacks like it."""


@dataclass(frozen=True)
class Split:
    """The data in parts that share no image."""

    benign: Tensor
    labels: Tensor
    """Of the benign ones."""
    targets: Images
    """Images to attack, all of which the served model gets right."""
    rest: Tensor
    """For the attacker to learn from."""


def split(subject: Subject, sizes: Sizes) -> Split:
    """Deal the images out.

    Raises:
        ConfigError: the model gets too few of them right.
    """
    order = torch.randperm(len(subject.x), generator=seeded(subject.seed, "split"))
    count = min(sizes.benign, len(order) // 2)
    benign, rest = order[:count], order[count:]
    asked = rest[: _CANDIDATES * sizes.attacked]
    x, y = subject.x[asked], subject.y[asked]
    right = (subject.answers(x, "asking what is right").argmax(1) == y).nonzero()[:, 0]
    if len(right) < min(_LEAST, sizes.attacked):
        raise ConfigError(
            f"model {subject.name} gives the right class to {len(right)} of {len(asked)} images: "
            f"attacks need {min(_LEAST, sizes.attacked)}. Check that y holds the classes in the "
            "model's order and that the input's range and layout are configured as it was trained, "
            "or give more images"
        )
    chosen = right[: sizes.attacked]
    kept = torch.ones(len(subject.x), dtype=torch.bool)
    kept[asked[chosen]] = False
    free = order[kept[order]]
    return Split(
        subject.x[benign],
        subject.y[benign],
        Images(x[chosen], y[chosen]),
        subject.x[free[-sizes.surrogate :]],
    )


def benign_sets(subject: Subject, given: Split, sizes: Sizes) -> dict[str, Images]:
    """Fresh images of the calibrated groups, of kinds unseen, and of no class: ROLE/NAME -> images.

    Sample i of every set with labels is made from benign image i.
    """
    generator = seeded(subject.seed, "benign")
    known = variations(given.benign, generator)
    calibrated = set(subject.artifact.provenance.groups)
    found = {
        f"{BENIGN if name in calibrated else UNSEEN}/{name}": Images(x, given.labels)
        for name, x in known.items()
    }
    others = unseen(given.benign, generator)
    found |= {f"{UNSEEN}/{name}": Images(x, given.labels) for name, x in others.items()}
    strange = out_of_distribution(given.benign, min(sizes.ood, len(given.benign)), generator)
    return found | {f"{OOD}/{name}": Images(x) for name, x in strange.items()}


@dataclass
class Attackers:
    """Makes the attacks, each kept as soon as it is made.

    Args:
        chosen: names of `ATTACKS`.
        threats: what attackers know, of `sizes.THREATS`.
    """

    subject: Subject
    given: Split
    sizes: Sizes
    chosen: tuple[str, ...]
    threats: Collection[str]
    _learned: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._learned = _learned(self.subject)

    def sets(self) -> dict[str, Images]:
        """ROLE/NAME -> the attacked images, those that fool nobody included."""
        found: dict[str, Images] = {}
        copy = self.subject.copy
        if copy is not None and threat.OBLIVIOUS in self.threats:
            found |= self._made(Network(copy), copy.sha256, self.chosen, threat.OBLIVIOUS, "")
        if threat.TRANSFER in self.threats:
            names = tuple(name for name in threat.TRANSFERRED if name in self.chosen)
            if names:
                network, told = surrogate_of(
                    self.subject, self.given.rest, self.sizes.surrogate_steps
                )
                found |= self._made(network, told, names, threat.TRANSFER, "transfer_")
        if copy is not None and threat.GREY_BOX in self.threats and self.subject.purifiers:
            found |= self._grey(Network(copy), copy.sha256)
        return found

    def _made(
        self, network: nn.Module, identity: str, names: tuple[str, ...], knows: str, prefix: str
    ) -> dict[str, Images]:
        task = self.subject.progress.add_task(f"attacks: {knows}", total=len(names))
        x, y = self.given.targets.x, self.given.targets.y
        assert y is not None  # noqa: S101 (targets have labels)
        found = {}
        for name in names:
            self.subject.progress.update(task, description=f"{knows}: {name}")
            made = cached(
                *(self.subject.store, name, network, x, y),
                seed=self.subject.seed,
                identity=identity,
            )
            found[f"{ATTACK}/{prefix}{name}"] = self._images(name, made, knows)
            self.subject.progress.advance(task)
        return found

    def _images(self, name: str, made: Attacked, knows: str) -> Images:
        family = ATTACKS[name].family
        tuned = TRAINED_LIKE[family] in self._learned
        return Images(made.x, made.y, made.clean, knows, name, family, tuned)

    def _grey(self, network: nn.Module, identity: str) -> dict[str, Images]:
        subject, sizes = self.subject, self.sizes
        x, y = self.given.targets.x[: sizes.grey], self.given.targets.y
        assert y is not None  # noqa: S101 (targets have labels)
        y = y[: sizes.grey]
        chain = Chain(subject.purifiers)
        task = subject.progress.add_task("attacks: grey-box", total=len(sizes.bounds))
        found = {}
        for bound in sizes.bounds:
            key = (
                f"{identity} {chain.key} {code(Either, *chain.members)} {digest(x, y)} "
                f"{bound} {sizes.grey_steps} {subject.seed}"
            )

            def make(bound: int = bound) -> dict[str, Tensor]:
                through = Through(chain, seeded(subject.seed, "grey"))
                made = adaptive_attack(
                    *(Either(network, through), x, y),
                    eps=bound / 255,
                    steps=sizes.grey_steps,
                    seed=subject.seed,
                )
                return {"x": made}

            made = subject.store.tensors(f"grey{bound}", key, make)["x"]
            found[f"{ATTACK}/grey{bound}"] = Images(
                made, y, x, threat.GREY_BOX, "eot", "gradient_linf", "linf" in self._learned
            )
            subject.progress.advance(task)
        return found


def _learned(subject: Subject) -> frozenset[str]:
    """The kinds of attack that some part of the defence learned from."""
    every = users([*subject.detectors, *subject.purifiers]).values()
    guided = any(learned[0].recipe.guided for learned in every)
    names = {detector.name for detector in subject.detectors}
    scored = any(set(each.names) <= names for each in subject.artifact.calibration.learners)
    return frozenset(FAMILIES) if guided or scored else frozenset()
