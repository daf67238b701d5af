"""Attackers who know the whole configured defence, against each way it may act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from purifiers import Chain
from tuning.batches import seeded
from tuning.evaluate.adaptive import Outcome, Target
from tuning.evaluate.confrontation import Confrontation, confront
from tuning.evaluate.network import Network
from tuning.evaluate.samples import ATTACK, Images, Split
from tuning.evaluate.sizes import ADAPTIVE, Sizes
from tuning.evaluate.store import Row, code, digest
from tuning.evaluate.subject import Subject
from tuning.evaluate.targets import Guarded, Provoked, Through, Undefended, Watch

QUIET, PROVOKED, EITHER = "unflagged", "flagged on purpose", "either"
"""Ways through a defence: unseen, or through the purifier, or what serves better."""


def adaptive(subject: Subject, given: Split, sizes: Sizes) -> tuple[list[Row], dict[str, Images]]:
    """Rows of who knows everything, and what they made; without a copy a row that says so."""
    peers = sorted({peer for part in subject.detectors for peer in part.peers})
    if subject.copy is None or peers:
        why = "it takes a copy of the model (--model-file)"
        if peers:
            why = f"there are no copies of {', '.join(peers)}, which a detector asks"
        return [{"kind": "adaptive", "threat": ADAPTIVE, "skipped": why}], {}
    x, y = given.targets.x[: sizes.adaptive], given.targets.y
    assert y is not None  # noqa: S101 (targets have labels)
    y = y[: sizes.adaptive]
    ways = _ways(subject)
    task = subject.progress.add_task("adaptive", total=len(ways) * len(sizes.bounds))
    rows: list[Row] = []
    sets: dict[str, Images] = {}
    for bound in sizes.bounds:
        found: list[Confrontation] = []
        for name, branch in ways:
            subject.progress.update(task, description=f"adaptive: {name}, {bound}/255")
            known = tuple(image for each in found for image in each.images)
            made = _one(subject, name, branch, x, y, bound, sizes.adaptive_steps, known)
            found.append(made)
            rows.append(_row(name, made))
            label = name.replace(" ", "_")
            sets[f"{ATTACK}/adaptive{bound}_{label}"] = Images(
                made.images[0], y, x, ADAPTIVE, "joint", "gradient_linf"
            )
            subject.progress.advance(task)
        if len(found) > 1:
            rows.append(_row(EITHER, _either(found)))
    return rows, sets


def _ways(subject: Subject) -> list[tuple[str, Target]]:
    """The ways through the configured defence, each as a target."""
    assert subject.copy is not None  # noqa: S101 (the caller looked)
    network = Network(subject.copy)
    rule = subject.rule
    watch = Watch(network, subject.detectors, rule.score, rule.threshold.value, seed=subject.seed)
    found: list[tuple[str, Target]] = [(QUIET, Guarded(watch))]
    if subject.purifiers:
        through = Through(Chain(subject.purifiers), seeded(subject.seed, "adaptive"))
        found.append((PROVOKED, Provoked(watch, through)))
    return found


def _one(
    subject: Subject,
    name: str,
    branch: Target,
    x: Tensor,
    y: Tensor,
    bound: int,
    steps: int,
    known: Sequence[Tensor],
) -> Confrontation:
    """One way through under one bound; with what was found before by another."""
    assert subject.copy is not None  # noqa: S101 (the caller looked)
    bare = Undefended(Network(subject.copy))
    parts = [*subject.detectors, *(v for d in subject.detectors for v in d.views)]
    chain = [member for each in subject.purifiers for member in each.members]
    key = (
        f"{subject.copy.sha256} {subject.artifact.provenance.model_dump_json()} "
        f"{subject.rule.threshold} {[p.key for p in subject.purifiers]} {bound} {steps} "
        f"{subject.seed} {digest(x, y, *known)} {code(branch, Confrontation, *parts, *chain)}"
    )

    def made() -> dict[str, Tensor]:
        found = confront(
            *([branch], bare, x, y), eps=bound / 255, steps=steps, seed=subject.seed, known=known
        )
        images = {f"image{i}": image for i, image in enumerate(found.images)}
        return images | _shares(found)

    kept = subject.store.tensors(f"adaptive{bound}-{name.replace(' ', '_')}", key, made)
    images = tuple(kept[f"image{i}"] for i in range(len(kept) - len(_SHARES)))
    return _confrontation(bound / 255, steps, kept, images)


_SHARES = ("wrong", "quiet", "won", "strongest", "bare", "bare_strongest")


def _shares(found: Confrontation) -> dict[str, Tensor]:
    every = (found.aimed.wrong, found.aimed.quiet, found.aimed.won)
    return dict(
        zip(_SHARES, (*every, found.strongest, found.bare, found.bare_strongest), strict=True)
    )


def _row(name: str, found: Confrontation) -> Row:
    head: Row = {"kind": "adaptive", "threat": ADAPTIVE, "tuned_on": False, "branch": name}
    return head | dict(found.row())


def _either(found: Sequence[Confrontation]) -> Confrontation:
    """A system that purifies when in doubt loses what is lost by the better of its ways."""
    shares = [_shares(each) for each in found]
    most = {name: torch.stack([each[name] for each in shares]).amax(0) for name in _SHARES}
    return _confrontation(found[0].eps, found[0].steps, most, ())


def _confrontation(
    eps: float, steps: int, shares: Mapping[str, Tensor], images: tuple[Tensor, ...]
) -> Confrontation:
    aimed = Outcome(shares["wrong"], shares["quiet"], shares["won"])
    strongest, bare, bare_strongest = (shares[name] for name in _SHARES[3:])
    return Confrontation(eps, steps, aimed, strongest, bare, bare_strongest, images)
