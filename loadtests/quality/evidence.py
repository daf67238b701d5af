"""What the model says to images and their copies, and what the detectors make of it; kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from rich.progress import Progress
from torch import Tensor

import detectors
from detectors.base import Detector, Evidence, peer_key
from loadtests.cifar import ResNet
from loadtests.quality.images import Images
from loadtests.quality.networks import GRADIENT, Networks
from proxy.weights import users
from purifiers.base import Purifier
from tuning.evaluate.store import Store, code

PEER = "resnet32"
"""Name the other model goes by."""
_CHUNK = 200

Scores = Mapping[str, Tensor]
"""Set of images, e.g. `fresh/clean` -> (N,) scores."""


def logits(model: ResNet, x: Tensor) -> Tensor:
    """(N, 10)."""
    with torch.inference_mode():
        return (
            torch.cat([model(part) for part in x.split(_CHUNK)]) if len(x) else x.new_empty(0, 10)
        )


class Witness:
    """Gathers evidence on all images of a study.

    Args:
        images: what is looked at.
        networks: trained for the parts that need some.
    """

    def __init__(
        self, images: Images, networks: Networks, store: Store, progress: Progress
    ) -> None:
        self.images = images
        self.networks = networks
        self._sets = images.sets()
        self._store = store
        self._progress = progress
        self._sizes = " ".join(f"{name}:{len(x)}" for name, x in self._sets.items())

    @property
    def sets(self) -> Mapping[str, Tensor]:
        """All images by role and name."""
        return self._sets

    def answers(self) -> dict[str, Tensor]:
        """The model's to every set."""
        return self._answers("raw", lambda x: logits(self.images.model, x))

    def view(self, purifier: Purifier, variant: str) -> dict[str, Tensor]:
        """The model's answers to a view of every set."""
        name = f"{purifier.key} {variant}" if _is_guided(purifier) else purifier.key

        def ask(x: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(5)
            return logits(self.images.model, purifier.purify(x, generator))

        return self._answers(name, ask, code(*purifier.members))

    def served(self, purifier: Purifier, variant: str) -> dict[str, Tensor]:
        """The model's answers to purified copies of the images whose labels matter."""
        keys = [key for key in self._sets if key.startswith(("attack/", "transfer/"))]

        def ask(x: Tensor) -> Tensor:
            return logits(self.images.model, purifier.purify(x, torch.Generator().manual_seed(5)))

        name = f"{purifier.key} {variant}" if _is_guided(purifier) else purifier.key
        about = f"served {code(*purifier.members)}"
        return self._answers(name, ask, about, ["fresh/clean", *keys])

    def peer(self) -> dict[str, Tensor]:
        """Another model's answers to every set."""
        return self._answers(PEER, lambda x: logits(self.images.peer, x))

    def scores(self, name: str, params: Mapping[str, object], variant: str = GRADIENT) -> Scores:
        """One detector's scores of every set, fitted on the benign images meant for that."""
        part = detectors.build(name, params)
        variant = variant if _is_guided(part) else ""
        key = f"{params} {variant} {self._sizes} {code(part, *part.views)}"
        return self._store.tensors(
            f"scores-{name}{variant and '-'}{variant}",
            key,
            lambda: self._score(name, params, variant),
        )

    def detector(
        self, name: str, params: Mapping[str, object], variant: str = GRADIENT
    ) -> Detector:
        """A detector with its networks, fitted."""
        part = detectors.build(name, params)
        self.networks.equip([part], variant)
        part.prepare(self.images.fit["clean"])
        fit = self.evidence([part], variant, [key for key in self._sets if key[:4] == "fit/"])
        part.fit({key.removeprefix("fit/"): each for key, each in fit.items()})
        return part

    def _score(self, name: str, params: Mapping[str, object], variant: str) -> dict[str, Tensor]:
        part = self.detector(name, params, variant)
        evidence = self.evidence([part], variant, list(self._sets))
        task = self._progress.add_task(f"scoring {part.name} {variant}", total=len(evidence))
        scores = {}
        for key, each in evidence.items():
            pieces = [part.score(piece) for piece in _pieces(each)]
            scores[key] = torch.cat(pieces) if pieces else torch.empty(0)
            self._progress.advance(task)
        return scores

    def evidence(
        self, parts: Sequence[Detector], variant: str, keys: Sequence[str]
    ) -> dict[str, Evidence]:
        """All evidence the detectors need, on some of the sets."""
        raw = self.answers()
        views = {v.key: self.view(v, variant) for part in parts for v in part.views}
        if any(part.peers for part in parts):
            views[peer_key(PEER)] = self.peer()
        return {
            key: Evidence(
                self._sets[key], raw[key], {name: view[key] for name, view in views.items()}
            )
            for key in keys
        }

    def _answers(
        self,
        name: str,
        ask: Callable[[Tensor], Tensor],
        about: str = "",
        keys: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        chosen = {key: self._sets[key] for key in keys or self._sets}
        safe = "".join(c if c.isalnum() else "_" for c in name)

        def make() -> dict[str, Tensor]:
            task = self._progress.add_task(f"asking about {name}", total=len(chosen))
            found = {}
            for key, x in chosen.items():
                found[key] = ask(x)
                self._progress.advance(task)
            return found

        return self._store.tensors(f"answers-{safe}", f"{name} {about} {self._sizes}", make)


def _is_guided(part: Detector | Purifier) -> bool:
    """Whether the part, or one it consists of or asks for, has learned from attacks."""
    return any(learned[0].recipe.guided for learned in users([part]).values())


def _pieces(evidence: Evidence) -> list[Evidence]:
    rows = [slice(start, start + _CHUNK) for start in range(0, len(evidence.x), _CHUNK)]
    assert evidence.output is not None
    return [
        Evidence(
            evidence.x[r], evidence.output[r], {k: view[r] for k, view in evidence.views.items()}
        )
        for r in rows
    ]
