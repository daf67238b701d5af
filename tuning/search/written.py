"""What a search leaves behind: the policy as a configuration file with its calibration."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from proxy import configfile
from proxy.config import Config, Model
from proxy.errors import ConfigError
from proxy.files import write_whole
from tuning.narrow import Whole

FILE = "policy.yaml"
CALIBRATION = "calibration"
_CHOSEN = ("mode", "action", "dispatch", "fpr", "cascade", "detectors", "purifiers", "aggregate")
"""What a recommended policy decides; everything else of the model's entry stays as it is."""


def write_policy(out: Path, config_file: Path, config: Config, whole: Whole, model: Model) -> Path:
    """Write `policy.yaml` and the calibration it names; returns the file.

    The configuration file with one entry changed: comments and everything else stay. Paths in it
    are absolute: relative ones started at another folder, and `breakwater policy set` puts the text
    where the configuration was.

    Args:
        config_file: where the configuration was read from.
        config: as read, its paths absolute.
        whole: what the calibration is narrowed from.
        model: the recommended policy.

    Raises:
        ConfigError: the file has changed meanwhile, or cannot be written.
    """
    folder = out / CALIBRATION / whole.name
    whole.write(folder, model)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines of the user's own are not to be wrapped
    try:
        document = yaml.load(config_file.read_text(encoding="utf-8"))
        entry = _entry(document, whole.name)
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{config_file}: cannot be read any more: {error}") from error
    _absolute(document, config)
    _decide(entry, model)
    entry["calibration"] = str(folder.absolute())
    text = io.StringIO()
    yaml.dump(document, text)
    file = out / FILE
    write_whole(file, text.getvalue().encode())
    configfile.load(file)  # what is recommended can be served
    return file


def _entry(document: Any, name: str) -> Any:
    """The model's part; a name that YAML takes for a number or a truth value is text here."""
    models = document["models"]
    for key in models:
        if str(key) == name:
            return models[key]
    raise KeyError(name)


def _decide(entry: Any, model: Model) -> None:
    """Set what the policy decides, and leave out what is at its default and was not there."""
    plain = model.model_dump(mode="json", exclude_defaults=True)
    for name in _CHOSEN:
        if name in plain:
            entry[name] = _block(plain[name])
        elif name in entry:
            default = type(model).model_fields[name].default
            if default is None or default == ():
                del entry[name]
            else:
                entry[name] = default


def _block(value: Any) -> Any:
    """Mappings within lists on lines of their own, short ones on one."""
    if isinstance(value, list):
        return [_flow(item) if isinstance(item, Mapping) else item for item in value]
    return value


def _flow(item: Mapping[str, Any]) -> Any:
    made = CommentedMap(item)
    made.fa.set_flow_style()
    return made


def _absolute(document: Any, value: Any) -> None:
    """Replace every relative path in a document by what it stands for."""
    if isinstance(value, BaseModel) and isinstance(document, dict):
        for name in value.model_fields_set:
            own = getattr(value, name)
            if isinstance(own, Path) and name in document:
                document[name] = str(own)
            elif name in document:
                _absolute(document[name], own)
    elif isinstance(value, Mapping) and isinstance(document, dict):
        for key, inner in document.items():
            if str(key) in value:
                _absolute(inner, value[str(key)])
    elif isinstance(value, Sequence) and isinstance(document, list) and not isinstance(value, str):
        for inner, own in zip(document, value, strict=False):
            _absolute(inner, own)
