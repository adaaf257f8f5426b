"""ST-ED against numbers of the published code, in float64, all weights and inputs by formula.

Float32 is no test here beyond the first step: Adam's first updates amplify rounding.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.adversary import ImageAdversary
from core.evaluator import measure
from core.trainer import RedirectionTrainer
from models.discriminator import PatchDiscriminator
from models.gazeheadnet import GazeHeadNet
from models.gazeheadResnet import GazeHeadResNet
from models.redirector import flat_embeddings
from models.st_ed import STED, st_ed_factors
from tests.formula import assert_golden, fill
from tests.tiny import assembled

GOLDENS = Path(__file__).parent / "goldens"
GOLDEN = json.loads((GOLDENS / "st_ed.json").read_text())
TOLERANCE = 1e-7
# TensorBoard name -> weight in the published ST-ED.json.
WEIGHTS = {
    "l1": 200, "gaze_a": 5, "head_a": 5, "generator": 1, "embedding_consistency": 2, "embedding_disentangle": 2,
    "label_disentangle": 2, "redirection_feature_loss": 200, "gaze_redirection": 2, "head_redirection": 2,
}  # fmt: skip


def redirector() -> STED:
    model = STED(st_ed_factors(1024, 4, 16, 4, 16), 128, growth=32, blocks=5)
    fill(model.encoder, "float64")
    fill(model.decoder, "float64")
    return model.double()


def discriminator() -> nn.Module:
    return fill(PatchDiscriminator(), "float64").double()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    random = np.random.RandomState(1234)
    draw = lambda low, high, *shape: torch.from_numpy(  # noqa: E731
        random.uniform(low, high, shape).astype("float32")
    ).double()
    images = {name: draw(-1, 1, 4, 3, 128, 128) for name in ("image_a", "image_b")}
    return images | {name: draw(-0.5, 0.5, 4, 2) for name in ("gaze_a", "head_a", "gaze_b", "head_b")}


def close(value: float, wanted: float) -> bool:
    return value == pytest.approx(wanted, rel=TOLERANCE)


@torch.no_grad()
def test_encoder_decoder_and_redirection(batch: dict[str, Tensor]) -> None:
    model = redirector().eval()
    encoding = model.encode(batch["image_a"])
    conditions = torch.cat(list(encoding.conditions.values()), dim=1)
    assert_golden(conditions, GOLDEN["encoder.pseudo_labels"], 1e-7, TOLERANCE)
    assert_golden(flat_embeddings(encoding), GOLDEN["encoder.embeddings"], 1e-7, TOLERANCE)
    assert_golden(model.decode(encoding), GOLDEN["decoder.image"], 1e-7, TOLERANCE)
    image = model.redirect(batch["image_a"], {"gaze": batch["gaze_b"], "head": batch["head_b"]})
    assert_golden(image, GOLDEN["redirect"], 1e-7, TOLERANCE)


@torch.no_grad()
def test_discriminator(batch: dict[str, Tensor]) -> None:
    assert_golden(discriminator().eval()(batch["image_b"]), GOLDEN["discriminator.eval"], 1e-7, TOLERANCE)


@torch.no_grad()
def test_estimators(batch: dict[str, Tensor]) -> None:
    vgg = fill(GazeHeadNet(), "float64").double().freeze()(batch["image_a"])
    assert_golden(vgg.gaze, GOLDEN["vgg.gaze"], 1e-7, TOLERANCE)
    assert_golden(vgg.head, GOLDEN["vgg.head"], 1e-7, TOLERANCE)
    for features, wanted in zip(vgg.features, GOLDEN["vgg.feature_l2"], strict=True):
        assert close(features.norm().item(), wanted)
    resnet = fill(GazeHeadResNet(), "float64").double().freeze()(batch["image_a"])
    assert_golden(resnet.gaze, GOLDEN["resnet.gaze"], 1e-7, TOLERANCE)
    assert_golden(resnet.head, GOLDEN["resnet.head"], 1e-7, TOLERANCE)


@pytest.mark.parametrize("perturbed", [("gaze", "head"), pytest.param(None, marks=pytest.mark.slow)])
def test_evaluation_metrics(perturbed: tuple[str, ...] | None, batch: dict[str, Tensor]) -> None:
    """Of what perturbing gaze and head tells, and in a minute more, perturbing every factor."""
    lpips = pytest.importorskip("models.perceptual").build_lpips(None)
    fill(lpips.net, "float64", prefix="net.")
    resnet = fill(GazeHeadResNet(), "float64").double().freeze()
    model = redirector()
    delta = torch.full((4, 2), (0.75 - 0.5) * 0.2 * np.pi, dtype=torch.float64)
    noise = {factor.name: delta[:, : factor.dof] for factor in model.factors if factor.dof}
    noise = noise if perturbed is None else {name: noise[name] for name in perturbed}
    with torch.no_grad():
        values = measure(model, resnet, batch, noise=noise, lpips=lpips.double())
    golden = GOLDEN["evaluate.losses"]
    assert set(golden) - set(values) == (set() if perturbed is None else {"gaze_disentangle", "head_disentangle"})
    for name in set(golden) & set(values):
        relative = 1e-6 if "lpips" in name else TOLERANCE
        assert values[name].mean().item() == pytest.approx(golden[name], rel=relative), name
    assert_golden(values["image_b_hat"], GOLDEN["evaluate.image_b_hat"], 1e-7, TOLERANCE)
    assert_golden(values["image_b_hat_all"], GOLDEN["evaluate.image_b_hat_all"], 1e-7, TOLERANCE)


@pytest.mark.parametrize("count", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_training_steps(count: int, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of the first step; then those of three, and the weights after them, which the published code gave."""
    model, patch_gan = redirector(), discriminator()
    trainer = assembled(
        model,
        ImageAdversary(patch_gan),
        WEIGHTS,
        estimator=fill(GazeHeadNet(), "float64").double().freeze(),
        learning_rate=lambda _: 4 * 5e-5,
        weight_decay=1e-4,
        adversarial_warmup_steps=20000,
    )
    names = [factor.name for factor in model.factors]
    rows = torch.arange(4)[:, None]
    mask = {name: (i + rows) % 2 == 1 for i, name in enumerate(names) if i}
    monkeypatch.setattr(RedirectionTrainer, "mixing_mask", lambda *_: mask)
    for golden in GOLDEN["train"]["steps"][:count]:
        terms = trainer.train_step(batch, golden["current_step"])
        for name, wanted in golden["losses"].items():
            if name != "discrim_coeff":
                assert close(terms[name].item(), wanted), (golden["current_step"], name)
    modules = {"encoder": model.encoder, "decoder": model.decoder, "discriminator": patch_gan}
    for name, norms in GOLDEN["train"]["after"].items() if count == 3 else ():
        state = modules[name].state_dict()
        for key, wanted in norms.items():
            assert close(state[key].norm().item(), wanted), (name, key)


def test_state_dict_keys_and_shapes_are_the_published_ones() -> None:
    model = STED(st_ed_factors(1024, 4, 16, 4, 16), 128, growth=32, blocks=5)
    ours = {
        "encoder": model.encoder, "decoder": model.decoder, "discriminator": PatchDiscriminator(),
        "GazeHeadNet_train": GazeHeadNet(), "GazeHeadNet_eval": GazeHeadResNet(),
    }  # fmt: skip
    published = json.loads((GOLDENS / "st_ed_keys.json").read_text())
    for name, module in ours.items():
        state = {key: list(value.shape) for key, value in module.state_dict().items()}
        assert state == {key: shape for key, shape, _ in published[name]}, name
