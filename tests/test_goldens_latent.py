"""e4e, StyleGAN2 and ArcFace against numbers of the published code, in float32, weights and inputs by formula."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.arcface import ArcFace
from models.e4e import E4EEncoder
from models.freezable import Freezable
from models.stylegan2 import Generator
from tests.formula import assert_golden, fill_latent, uniform

GOLDENS = Path(__file__).parent / "goldens"
E4E_LAYERS = {
    "input_layer": "input_layer", "body.0": "body0", "body.6": "c1_body6", "body.20": "c2_body20",
    "body.23": "c3_body23", "styles.0": "styles0_out", "styles.1": "styles1_out", "styles.3": "styles3_out",
    "styles.7": "styles7_out",
}  # fmt: skip


def golden(name: str) -> dict:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def build(make: Callable[[], Freezable]) -> Freezable:
    """A frozen model filled by formula; its first random weights, which would take longer, are never drawn."""
    with torch.device("meta"):
        model = make()
    return fill_latent(model.to_empty(device="cpu")).freeze()


def record(model: nn.Module, names: dict[str, str], outputs: dict[str, Tensor]) -> None:
    """From now on, keep what the named layers return, as it is then: later layers may work in place."""
    for layer, name in names.items():
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.__setitem__(name, output.clone())
        )


def assert_goldens(outputs: dict[str, Tensor], wanted: dict[str, dict]) -> None:
    assert outputs.keys() == wanted.keys()
    for name, output in outputs.items():
        assert_golden(output, wanted[name])


@torch.no_grad()
def test_mapping_network() -> None:
    model, outputs, wanted = fill_latent(Generator(32)), {}, golden("golden_mapping")["outputs"]
    record(model, {f"style.{i}": f"style{i}" for i in (0, 1, 2, 4, 8)}, outputs)
    model.mapping(uniform((4, 512)))
    assert_goldens(outputs, wanted)


@torch.no_grad()
@pytest.mark.parametrize("size", [pytest.param(256, marks=pytest.mark.slow), 1024])
def test_synthesis(size: int) -> None:
    model, outputs, wanted = fill_latent(Generator(size)).freeze(), {}, golden(f"golden_stylegan2_{size}")["outputs"]
    w_plus = uniform((1, model.num_rows, 512))
    extra = {"image_zero_noise": model.synthesis(w_plus, "none")}
    if size == 256:
        extra["image_from_z"] = model(uniform((2, 512)), noise="stored")
        with torch.enable_grad():  # another order of the same product
            assert_golden(model.synthesis(w_plus.clone().requires_grad_()), wanted["image"])
    layers = ["conv1", "to_rgb1", "convs.0", "convs.1", *(f"to_rgbs.{i}" for i in range(len(model.to_rgbs)))]
    record(model, {layer: layer.replace(".", "") for layer in layers}, outputs)
    outputs["image"] = model.synthesis(w_plus)
    if size == 1024:
        outputs["image_facepool256"] = F.adaptive_avg_pool2d(outputs["image"], 256)
    assert_goldens(outputs | extra, wanted)


@torch.no_grad()
def test_e4e_and_its_progressive_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    model, outputs, heads, wanted = build(E4EEncoder), {}, {}, golden("golden_e4e_encoder")
    record(model, E4E_LAYERS, outputs)
    record(model, {f"styles.{i}": str(i) for i in range(18)}, heads)
    image = uniform((2, 3, 256, 256))
    features = model.features(image)
    # What the trunk and a head return does not depend on the stage: compute it once.
    monkeypatch.setattr(model, "features", lambda _image: features)
    outputs |= {"p2": features.middle, "p1": features.fine, "w": model(image)}
    assert_goldens(outputs, wanted["outputs"])
    for i, head in enumerate(model.styles):
        monkeypatch.setattr(head, "forward", lambda _map, output=heads[str(i)]: output)
    for name, stage in wanted["progressive_stage_outputs"].items():
        assert_golden(model(image, int(name.removeprefix("stage_"))), stage)


@torch.no_grad()
def test_arcface() -> None:
    model, outputs, wanted = build(ArcFace), {}, golden("golden_iresnet50")
    record(model, {name: name for name in wanted["outputs"]}, outputs)
    embedding = model(uniform((2, 3, 112, 112)))
    assert_goldens(outputs, wanted["outputs"])
    assert_golden(embedding, wanted["outputs"]["features"])
    assert F.cosine_similarity(*embedding, dim=0).item() == pytest.approx(wanted["cos_sample0_sample1"], abs=1e-6)


@pytest.mark.parametrize(
    ("make", "file", "prefix"),
    [
        (E4EEncoder, "keys_e4e_psp", "encoder."),
        (lambda: Generator(1024), "keys_e4e_psp", "decoder."),
        (lambda: Generator(256), "keys_stylegan2_256", ""),
        (ArcFace, "keys_iresnet50", ""),
    ],
)
def test_state_dict_keys_shapes_and_their_order_are_the_published_ones(
    make: Callable[[], nn.Module], file: str, prefix: str
) -> None:
    with torch.device("meta"):
        state = make().state_dict()
    published = golden(file)["entries"]
    wanted = [(key.removeprefix(prefix), shape) for key, shape, _ in published if key.startswith(prefix)]
    assert [(key, list(value.shape)) for key, value in state.items()] == wanted
