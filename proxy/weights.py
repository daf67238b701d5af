"""Trained networks on disk, beside the calibration, and handed to the parts that use them.

The folder `weights` of a calibration holds one `NAME.safetensors` for each network and
`weights.json` with the digest and provenance of each. Never pickle. Written by `breakwater fit`;
what is missing, damaged or of another kind is refused when it is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from detectors import Detector
from proxy import __version__
from proxy.errors import ConfigError
from proxy.files import write_whole
from purifiers import Purifier
from purifiers.learned import Learned

FOLDER = "weights"
JSON_FILE = "weights.json"

Part = Detector | Purifier


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Plan(_Stored):
    """What decides how a training ends: two of the same plan give the same network."""

    recipe: str
    """Class of the recipe, with its module."""
    data_sha256: str
    """Digest of the benign data file."""
    samples: int
    """Images in it."""
    shape: tuple[int, ...]
    """Of one sample, as the model reads it."""
    classes: int
    """Answers of the model; 0 where they are not known."""
    seed: int
    steps: int
    batch: int
    """Samples in each step."""
    guided_by: str | None = None
    """Digest of the local copy of the model that a guided recipe was trained against."""


class Training(_Stored):
    """Where a trained network came from."""

    plan: Plan
    sha256: str
    """Digest of its safetensors file."""
    date: str
    """When it was finished, RFC 3339 in UTC."""
    breakwater: str = __version__
    """Version that trained it."""


class _File(_Stored):
    format: Literal[1] = 1
    networks: dict[str, Training]


@dataclass(frozen=True, slots=True)
class Trained:
    """A network ready for use, on its device and in evaluation mode."""

    network: nn.Module
    training: Training


def users(parts: Iterable[Part]) -> dict[str, tuple[Learned, ...]]:
    """The parts that need trained networks, by the name of the recipe.

    Looked for among the given parts, the views detectors ask for, and the members of combinations.
    """
    found: dict[str, list[Learned]] = {}
    for part in _all(parts):
        if isinstance(part, Learned):
            found.setdefault(part.recipe.name, []).append(part)
    return {name: tuple(learned) for name, learned in found.items()}


def _all(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        inner = part.views if isinstance(part, Detector) else part.members
        yield from _all(other for other in inner if other is not part)


def save(folder: Path, name: str, network: nn.Module, plan: Plan, date: str) -> Training:
    """Write a network into the weights of a calibration's folder, which is made if missing.

    Each file is written whole or not at all, and `weights.json` last.
    """
    # Copies, since safetensors refuses tensors that share memory.
    tensors = {key: t.detach().cpu().clone() for key, t in network.state_dict().items()}
    blob = save_tensors({key: t.contiguous() for key, t in tensors.items()})
    training = Training(plan=plan, sha256=hashlib.sha256(blob).hexdigest(), date=date)
    there = read(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_whole(_file(folder, name), blob)
    file = _File(networks=dict(sorted((there | {name: training}).items())))
    write_whole(folder / FOLDER / JSON_FILE, (file.model_dump_json(indent=2) + "\n").encode())
    return training


def _file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.safetensors"


def read(folder: Path) -> dict[str, Training]:
    """Provenance of the networks in a calibration's folder, by name; none where there are none.

    Raises:
        ConfigError: `weights.json` is damaged.
    """
    path = folder / FOLDER / JSON_FILE
    try:
        return _File.model_validate_json(path.read_bytes()).networks
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path} is damaged at {where}: {first['msg']}. Delete it and run `breakwater fit`"
        ) from error


def load(
    folder: Path, model: str, parts: Iterable[Part], device: torch.device
) -> dict[str, Trained]:
    """Read and verify the networks that the given parts need, by name of the recipe.

    Args:
        folder: the calibration's.
        model: name, for the command in the error's text.

    Raises:
        ConfigError: one is missing, damaged, or not of its recipe; the text says what to run.
    """
    there = read(folder)
    needed = users(parts)
    missing = [name for name in needed if name not in there]
    if missing:
        raise ConfigError(
            f"weights {folder / FOLDER}: {listed(needed, missing)} not trained. "
            + _remedy(folder, model, needed, missing)
        )
    return {
        name: _load(folder, model, needed, name, there[name], device) for name in sorted(needed)
    }


def listed(needed: Mapping[str, tuple[Learned, ...]], names: Iterable[str]) -> str:
    """Networks with the parts that use them, for a sentence that says what ails them."""
    phrases = []
    for name in names:
        parts = ", ".join(dict.fromkeys(part.name for part in needed[name]))
        phrases.append(name if parts == name else f"{name} (for {parts})")
    return f"{', '.join(phrases)} {'is' if len(phrases) == 1 else 'are'}"


def _remedy(
    folder: Path, model: str, needed: Mapping[str, tuple[Learned, ...]], names: Iterable[str]
) -> str:
    guided = any(needed[name][0].recipe.guided for name in names)
    return (
        f"Run `breakwater fit --config FILE --model {model} --data FILE.npz"
        f"{' --model-file FILE' if guided else ''} --out {folder}`, then calibrate"
    )


def _load(
    folder: Path,
    model: str,
    needed: Mapping[str, tuple[Learned, ...]],
    name: str,
    training: Training,
    device: torch.device,
) -> Trained:
    path = _file(folder, name)
    recipe = needed[name][0].recipe
    try:
        blob = path.read_bytes()
        if hashlib.sha256(blob).hexdigest() != training.sha256:
            raise ConfigError(f"it is not the file that {JSON_FILE} describes")
        network = recipe.build(training.plan.shape, training.plan.classes)
        network.load_state_dict(load_tensors(blob))
    # torch names what does not fit in a RuntimeError.
    except (OSError, ConfigError, SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"weights {path}: {error}. {_remedy(folder, model, needed, [name])}"
        ) from error
    return Trained(network.to(device).eval().requires_grad_(False), training)


def give(parts: Iterable[Part], networks: Mapping[str, Trained]) -> None:
    """Hand every part that needs a network its own; equal recipes share one.

    Raises:
        ConfigError: a network is not among those loaded.
    """
    needed = users(parts)
    missing = [name for name in needed if name not in networks]
    if missing:
        raise ConfigError(f"{listed(needed, missing)} not loaded; `breakwater fit` makes it")
    for name, learned in needed.items():
        for part in learned:
            part.use(networks[name].network)


def digests(parts: Iterable[Part], networks: Mapping[str, Trained]) -> dict[str, str]:
    """Digests of the networks that the given parts use, by name of the recipe."""
    return {name: networks[name].training.sha256 for name in sorted(users(parts))}


def changed(calibrated: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The networks used now that are not those a calibration was made with.

    Args:
        calibrated: digests recorded by the calibration.
        now: `digests` of the detectors it is to be used with.
    """
    return [name for name in sorted(now) if calibrated.get(name) != now[name]]
