"""A model file as a function of pixels: what it takes, and whether it is the served model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from proxy.adapt import ModelSpec
from proxy.errors import ConfigError
from tests.images import benign
from tests.learning import DigitsLike, export
from tests.proxy.test_tensors import SPEC
from tuning.local_model import LocalModel, load

CPU = torch.device("cpu")
X = torch.from_numpy(benign(30, seed=4))


class Means(nn.Module):
    """Mean of each channel of an NCHW or NHWC wire tensor."""

    def __init__(self, axes: tuple[int, int]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes)


def wrapped(network: nn.Module, spec: ModelSpec = SPEC) -> LocalModel:
    return LocalModel(network, "ab", spec, CPU)


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_files_give_what_the_model_gives_with_gradients(tmp_path: Path, ending: str) -> None:
    original = DigitsLike().requires_grad_(False)
    copy = load(export(DigitsLike(), tmp_path / f"m{ending}"), SPEC, CPU)
    x = X.clone().requires_grad_()
    torch.testing.assert_close(copy(x), original(X))
    (gradient,) = torch.autograd.grad(copy(x).square().sum(), x)
    (expected,) = torch.autograd.grad(original(x).square().sum(), x)
    torch.testing.assert_close(gradient, expected)
    assert not copy(X).requires_grad
    copy.check(X, original(X), batch=7)


def test_onnx_gives_what_the_model_gives_with_gradients(tmp_path: Path) -> None:
    pytest.importorskip("onnx2fx", reason="needs the extra `onnx`")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 1, (6, 3, 3, 3)).astype("f4")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 6])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    copy = load(tmp_path / "m.onnx", SPEC, CPU)
    x = X.clone().requires_grad_()
    expected = torch.conv2d(x, torch.from_numpy(weights), padding=1).relu().mean((2, 3))
    torch.testing.assert_close(copy(x), expected)
    (gradient,) = torch.autograd.grad(copy(x).square().sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), x)[0])


def test_pixels_become_the_values_on_the_wire() -> None:
    scaled = replace(SPEC, low=(-1.0, 0.0, 2.0), high=(1.0, 255.0, 4.0))
    means = X.mean((2, 3))
    expected = means * torch.tensor([2.0, 255.0, 2.0]) + torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(wrapped(Means((2, 3)), scaled)(X), expected, rtol=1e-4, atol=1e-3)
    swapped = replace(scaled, layout="NHWC")
    torch.testing.assert_close(wrapped(Means((1, 2)), swapped)(X), expected, rtol=1e-4, atol=1e-3)


def test_probabilities_become_their_logarithms() -> None:
    spec = replace(SPEC, output_kind="probabilities")
    network = nn.Sequential(Means((2, 3)), nn.Softmax(1))
    torch.testing.assert_close(wrapped(network, spec)(X), X.mean((2, 3)).log_softmax(1))


class Packed(Means):
    def __init__(self, pack: str) -> None:
        super().__init__((2, 3))
        self.pack = pack

    def forward(self, x: Tensor) -> object:  # type: ignore[override]
        scores = super().forward(x)
        packs = {
            "tuple": (scores, x),
            "named": {"features": x, SPEC.output: scores},
            "nested": [{"any": [scores]}],
            "text": "no",
        }
        return packs[self.pack]


@pytest.mark.parametrize("pack", ["tuple", "named"])
def test_the_scores_are_found_in_what_is_returned(pack: str) -> None:
    torch.testing.assert_close(wrapped(Packed(pack))(X), X.mean((2, 3)))


def test_a_copy_that_returns_no_tensor() -> None:
    with pytest.raises(ConfigError, match="it returns str, not a tensor"):
        wrapped(Packed("text")).check(X, torch.zeros(30, 3), batch=8)


def test_another_model_is_refused_with_what_to_look_at() -> None:
    model = DigitsLike().requires_grad_(False)
    dark = replace(SPEC, low=(-3.0,), high=(-1.0,))
    with pytest.raises(ConfigError, match=r"for \d+% of 30 images.*Check that .* mean/std") as told:
        wrapped(model, dark).check(1 - X, model(X), batch=8)
    assert "digits_like" in str(told.value) or SPEC.model in str(told.value)


def test_one_image_in_a_hundred_may_differ() -> None:
    x = torch.rand(100, 3, 4, 4)
    answers = x.mean((2, 3))
    answers[0] = answers[0].roll(1)
    wrapped(Means((2, 3))).check(x, answers, batch=64)
    answers[1] = answers[1].roll(1)
    with pytest.raises(ConfigError, match="98%"):
        wrapped(Means((2, 3))).check(x, answers, batch=64)


def test_a_fixed_batch_is_told(tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(DigitsLike(), (torch.zeros(1, 3, 32, 32),)), file)
    copy = load(file, SPEC, CPU)
    with pytest.raises(ConfigError, match="export it with a free batch axis"):
        copy.check(X, torch.zeros(30, 10), batch=8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.h5", r"a model file ends in .pt, .pt2, .onnx"),
        ("m.pt", "cannot be read: .*Export the model anew"),
        ("m.pt2", "cannot be read: "),
        ("m.onnx", "m.onnx"),
    ],
)
def test_what_is_no_model(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load(tmp_path / name, SPEC, CPU)


def test_a_pickled_module_is_not_opened(tmp_path: Path) -> None:
    """What `torch.save(model)` writes would run code of its choice when loaded."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save(Trap(), tmp_path / "m.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "m.pt", SPEC, CPU)
    assert not (tmp_path / "sprung").exists()
