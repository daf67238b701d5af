"""Errors in the file name line, column and key; the schema and the example stay up to date."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.config import Config
from proxy.configfile import MAX_ERRORS, load, parse, schema
from proxy.errors import ConfigError
from proxy.parts import build_detectors, build_purifiers

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).replace(f"{path}", "c.yaml")


def test_an_empty_file_is_the_default_pass_through(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing yet\n")) == Config()


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    text = """
        models:
          a: {calibration: calibration/a, detectors: [{name: grid}]}
          b: {calibration: /elsewhere/b}
        audit: {path: audit.jsonl}
    """
    config = load(write(tmp_path, text))
    assert config.models["a"].calibration == tmp_path / "calibration/a"
    assert config.models["b"].calibration == Path("/elsewhere/b")
    assert config.audit.path == tmp_path / "audit.jsonl"
    assert config.models["a"].detectors[0].name == "grid"


@pytest.mark.parametrize("name", ["1", "on", "null", "1e3", "2024-01-01"])
def test_model_names_are_text_as_written(tmp_path: Path, name: str) -> None:
    assert list(load(write(tmp_path, f"models: {{{name}: {{}}}}")).models) == [name]


def test_merge_keys_and_anchors(tmp_path: Path) -> None:
    text = "models:\n  a: &base {mode: enforce, budget_ms: 5}\n  b: {<<: *base, budget_ms: 7}\n"
    models = load(write(tmp_path, text)).models
    assert (models["b"].mode, models["b"].budget_ms) == ("enforce", 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("upstrem: a:1", "c.yaml:1:1: upstrem: unknown key; did you mean 'upstream'?"),
        ("zzz: 1", "c.yaml:1:1: zzz: unknown key"),
        (  # in a section that may be absent
            "control: {token: a}",
            "c.yaml:1:11: control.token: unknown key; did you mean 'token_file'?",
        ),
        (
            "models:\n  cnn:\n    mode: enforc\n",
            "c.yaml:3:11: models.cnn.mode: input should be 'observe' or 'enforce' "
            "(got 'enforc'); did you mean 'enforce'?",
        ),
        (
            "models:\n  cnn:\n    inputs:\n      - name: x\n        layot: NCHW\n",
            "c.yaml:5:9: models.cnn.inputs[0].layot: unknown key; did you mean 'layout'?",
        ),
        (
            "models:\n  cnn:\n    detectors: [{nam: grid}]\n    calibration: x\n",
            "c.yaml:3:17: models.cnn.detectors[0].name: this key is required\n"
            "c.yaml:3:18: models.cnn.detectors[0].nam: unknown key; did you mean 'name'?",
        ),
        (
            "models:\n  cnn:\n    action: purify\n",
            "c.yaml:2:3: models.cnn: action: purify needs at least one entry under purifiers",
        ),
        ("audit: 3", "c.yaml:1:8: audit: input should be a valid dictionary or instance of Audit"),
        (
            "models:\n  a: {}\n  b: {}\n  a: {}\n",
            "c.yaml:4:3: a: key given twice (first on line 2)",
        ),
        ("models: {a: {}\n", "c.yaml:2:1: not valid YAML: expected ',' or '}'"),
        ("listen: !!python/object:os.system {}", "c.yaml:1:9: not valid YAML: could not determine"),
        ("? [a, b]\n: 1\n", "c.yaml:1:3: not valid YAML: a key must be text"),
        ("- a\n", "c.yaml:1:1: not a mapping of keys"),
        ("a: \x07", "c.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_errors_name_line_column_and_key(tmp_path: Path, text: str, expected: str) -> None:
    assert refusal(tmp_path, text).startswith(expected)


def test_a_recursive_alias_ends(tmp_path: Path) -> None:
    assert "c.yaml:1:" in refusal(tmp_path, "models: &a {x: *a}")


def test_a_few_lines_cannot_stand_for_billions(tmp_path: Path) -> None:
    bomb = "a: &a [1]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, after in pairwise("abcdefghij")
    )
    assert "aliases stand for more than 100,000 values" in refusal(tmp_path, bomb)


@pytest.mark.parametrize(
    "text", ["[" * 5000, "models: {cnn: {purifiers: [{name: jpeg, params: &a {x: *a}}]}}"]
)
def test_endless_nesting_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).endswith("nested too deeply")


def test_a_text_is_checked_in_the_place_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    assert parse(path, "audit: {path: a.jsonl}").audit.path == tmp_path / "a.jsonl"
    with pytest.raises(ConfigError, match=r"c.yaml:2:1: lissen: unknown key; did you mean 'li"):
        parse(path, "# a comment\nlissen: x\n")


def test_long_lists_of_errors_and_long_values_are_cut(tmp_path: Path) -> None:
    text = refusal(tmp_path, "".join(f"k{i}: 1\n" for i in range(MAX_ERRORS + 5)))
    assert text.splitlines()[-1] == "... and 5 more"
    assert "..." in refusal(tmp_path, f"device: {'x' * 500}")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"listen: \xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "latin.yaml")


def test_schema_in_deploy_is_up_to_date() -> None:
    assert json.loads((DEPLOY / "config.schema.json").read_text()) == schema()


def test_schema_describes_every_field() -> None:
    described = schema()
    for name, kind in {"Config": described, **described["$defs"]}.items():
        assert kind["additionalProperties"] is False, name
        for field, spec in kind["properties"].items():
            assert "description" in spec or "$ref" in spec, f"{name}.{field}"


def test_example_loads_and_shows_every_field() -> None:
    path = DEPLOY / "config.example.yaml"
    assert load(path).models
    text = path.read_text()
    described = schema()
    fields = set(described["properties"])
    for kind in described["$defs"].values():
        fields |= set(kind["properties"])
    assert not [field for field in sorted(fields) if f"{field}:" not in text]


def test_example_names_detectors_and_purifiers_that_exist() -> None:
    config = load(DEPLOY / "config.example.yaml")
    for model in config.models.values():
        built = build_detectors(model)
        assert [part.name for part in built] == [part.name for part in model.detectors]
        assert len(build_purifiers(model)) == len(model.purifiers)
