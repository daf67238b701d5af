"""The rules between fields; the defaults that keep a first deployment harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy import configfile
from proxy.config import INT32_MAX, Config, Input, Model
from proxy.errors import ConfigError

GRID = {"name": "grid"}


def test_defaults_are_a_pass_through_that_can_stop_nothing() -> None:
    config = Config()
    assert config.rpc.allow == ()
    assert config.shared_memory == "deny"
    assert config.admin.startswith("127.0.0.1:")
    assert config.models == {}
    model = Model()
    assert (model.mode, model.action, model.annotate) == ("observe", "flag", False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean": (0.5,)}, "mean and std go together"),
        ({"std": (0.5,)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.5,), "range": (0, 1)}, "either range or mean/std"),
        ({"range": (1, 1)}, "black < white"),
        ({"mean": (0.5,), "std": (0,)}, "std must be positive"),
        ({"encoded": True}, "encoded inputs need size"),
        ({"max_pixels": 0}, "greater than 0"),
        ({"layout": "CNHW"}, "NCHW"),
        ({"layout": "NCT"}, "kind: image is one of NCHW, NHWC, CHW, HWC"),
        ({"kind": "vector", "layout": "NT"}, "kind: vector is one of ND, D"),
        ({"kind": "waveform", "layout": "CHW"}, "kind: waveform is one of NCT, NT, CT, T"),
        (
            {"kind": "vector", "range": (0, 1)},
            "kind: vector takes no range; it takes inspect, kind",
        ),
        ({"kind": "waveform", "mean": (0.5,), "std": (0.5,)}, "kind: waveform takes no mean, std"),
        ({"kind": "waveform", "encoded": True, "size": (8, 8)}, "takes no encoded, size"),
        ({"kind": "vector", "max_pixels": 9, "range_tolerance": 1}, "takes no max_pixels, range_t"),
        ({"kind": "video"}, "'image', 'vector' or 'waveform'"),
    ],
)
def test_contradictory_inputs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Input(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [{"name": "a"}, {"name": "b"}]}, "only one input can be inspected"),
        ({"action": "purify"}, "at least one entry under purifiers"),
        ({"detectors": [GRID]}, "detectors need a calibration"),
        ({"detectors": [GRID, GRID], "calibration": "x"}, "listed twice"),
        ({"aggregate": {}}, "aggregate goes with action: purify"),
        (
            {"aggregate": {}, "action": "purify", "purifiers": [GRID], "output": {"kind": "none"}},
            "aggregate needs the model's class scores",
        ),
        (
            {"aggregate": {"copies": 1}, "action": "purify", "purifiers": [GRID]},
            "greater than or equal to 2",
        ),
        ({"fpr": 0}, "greater than 0"),
        ({"fpr": 1}, "less than 1"),
        ({"budget_ms": 0}, "greater than 0"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_contradictory_models_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Model(**fields)


def test_one_inspected_input_among_others_is_fine() -> None:
    model = Model.model_validate({"inputs": [{"name": "a"}, {"name": "b", "inspect": False}]})
    assert [i.inspect for i in model.inputs] == [True, False]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ([], "image"),
        ([{"kind": "vector"}], "vector"),
        ([{"name": "text", "inspect": False}, {"kind": "waveform", "range": (-2, 2)}], "waveform"),
        ([{"name": "text", "inspect": False, "kind": "vector"}], "image"),
    ],
)
def test_a_model_is_of_the_kind_of_its_inspected_input(
    inputs: list[dict[str, Any]], kind: str
) -> None:
    assert Model.model_validate({"inputs": inputs}).kind == kind


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:port", ":1"])
def test_addresses_need_host_and_port(address: str) -> None:
    with pytest.raises(ValidationError):
        Config(listen=address)


def test_message_size_is_bounded_by_the_wire() -> None:
    assert Config(max_message_bytes=INT32_MAX).max_message_bytes == INT32_MAX
    with pytest.raises(ValidationError):
        Config(max_message_bytes=INT32_MAX + 1)


def test_metadata_keys_are_lower_case_on_the_wire() -> None:
    assert Config(principal_header="X-User").principal_header == "x-user"
    assert Config(principal_header="").principal_header is None


def test_configuration_cannot_change_under_a_running_request() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().listen = "a:1"


@pytest.mark.parametrize(("word", "meant"), [(False, "off"), ("off", "off"), ("system", "system")])
def test_off_is_a_word_although_yaml_reads_a_boolean(word: object, meant: str) -> None:
    config = Config.model_validate({"upstream_shared_memory": word})
    assert config.upstream_shared_memory == meant


@pytest.mark.parametrize(
    "url",
    [
        *("redis://eve:s3cret@redis:6379/0", "rediss://:s3cret@redis", "unix://e:s3cret@/run/r.s"),
        *("redis://redis?password=s3cret", "redis://redis/0?db=1&password=", "redis://eve:@redis"),
    ],
)
def test_a_password_in_an_address_would_be_shown_and_is_refused(tmp_path: Path, url: str) -> None:
    path = tmp_path / "breakwater.yaml"
    text = f'history: {{key_file: k, shared: {{url: "{url}"}}}}\n'
    with pytest.raises(ConfigError, match="use username and password_file") as caught:
        configfile.parse(path, text)
    assert "s3cret" not in str(caught.value)
    history = {"key_file": "k", "shared": {"url": "redis://redis:6379/0", "username": "eve"}}
    assert Config.model_validate({"history": history}).history.shared is not None
