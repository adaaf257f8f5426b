"""ReDirTrans: its invariants, that every term reaches the deprojector, and that frozen parts stay frozen."""

import pytest
import torch
from torch import Tensor, nn

import losses
from core.adversary import R1_EVERY
from models.redirector import Encoding
from models.redirtrans import EDITED, Deprojector, ReDirTrans
from tests.tiny import (
    GAN_WEIGHTS,
    SIZE,
    random_batch,
    random_faces,
    tiny_gan_trainer,
    tiny_pair,
    tiny_redirtrans,
    tiny_redirtrans_gan,
)

BOTH = pytest.mark.parametrize("make", [tiny_redirtrans, tiny_redirtrans_gan], ids=["in ST-ED", "GAN"])


class FakeArcFace(nn.Module):
    """Any differentiable description of a face."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(image, 4).flatten(1)


def code_of(redirector: ReDirTrans, image: Tensor) -> Tensor:
    """The latent code before anything is taken out of it."""
    return redirector.invert(image) if redirector.wants_codes else redirector.encoder(image)


@BOTH
def test_no_edit_is_plain_reconstruction(make: type) -> None:
    redirector, image = make().eval(), random_batch()["image_a"]
    with torch.no_grad():
        code, encoding = code_of(redirector, image), redirector.encode(image)
        residual = redirector.deprojector(encoding.embeddings)
        assert residual.abs().mean() > 0.01 * code.abs().mean()  # there is something to subtract
        assert torch.allclose(redirector.code(encoding), code, atol=1e-6)
        own = redirector.rotate(encoding, encoding.conditions)
        if redirector.wants_codes:
            plain = redirector.generate(code)
        else:
            plain = redirector.decoder(Encoding({}, {"latent": code}))
        assert torch.allclose(redirector.decode(encoding), plain, atol=1e-4)
        assert torch.allclose(redirector.decode(own), plain, atol=1e-4)


@BOTH
def test_redirecting_there_and_back_returns_the_latent(make: type) -> None:
    redirector, image = make().eval(), random_batch()["image_a"]
    with torch.no_grad():
        encoding = redirector.encode(image)
        there = redirector.rotate(encoding, {"gaze": torch.full((4, 2), 0.5), "head": torch.full((4, 2), -0.3)})
        back = redirector.rotate(there, encoding.conditions)
        code = code_of(redirector, image)
    assert not torch.allclose(redirector.code(there), code, atol=1e-3)
    assert torch.allclose(redirector.code(back), code, atol=1e-6)


@BOTH
def test_redirecting_gaze_takes_out_and_puts_in_gaze_alone(make: type) -> None:
    redirector, image = make().eval(), random_batch()["image_a"]
    with torch.no_grad():
        encoding = redirector.encode(image)
        turned = redirector.rotate(encoding, {"gaze": torch.full((4, 2), 0.5)})
        assert torch.equal(turned.embeddings["head"], encoding.embeddings["head"])
        gaze = redirector.deprojector.parts["gaze"]
        rows = [gaze(e.embeddings["gaze"].flatten(1)).unflatten(1, (redirector.deprojector.rows, -1))
                for e in (encoding, turned)]  # fmt: skip
        weight = redirector.deprojector.layer_weights["gaze"][:, None]
        expected = code_of(redirector, image) + weight * (rows[1] - rows[0])
        assert torch.allclose(redirector.code(turned), expected, atol=1e-6)


def test_a_layer_weight_of_0_leaves_its_row_alone() -> None:
    prior = {"gaze": [0.0, 1.0, 1.0, 0.0], "head": [0.0] * 4}
    deprojector = Deprojector(EDITED, 4, 6, hidden=8, prior=prior)
    embeddings = {factor.name: torch.randn(2, *factor.shape) for factor in EDITED}
    residual = deprojector(embeddings)
    assert not residual[:, [0, 3]].any() and residual[:, [1, 2]].all()


def test_a_prior_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="layer_weights_prior: 2 weights of 'gaze', expected 4"):
        Deprojector(EDITED, 4, 6, hidden=8, prior={"gaze": [1.0, 1.0]})


TERMS = ["l2", "gaze_redirection", "head_redirection", "identity", "lpips", "latent", "delta", "generator"]


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_reaches_the_deprojector(term: str) -> None:
    """Through the generated image: the release that others wrote detached it."""
    lpips = lambda u, v: (u - v).abs().mean((1, 2, 3))  # noqa: E731
    trainer = tiny_gan_trainer(weights={term: 1.0}, weight_decay=0.0, arcface=FakeArcFace(), lpips=lpips)
    deprojector, norms = trainer.redirector.deprojector, {}
    for name, parameter in deprojector.named_parameters():
        parameter.register_hook(lambda gradient, name=name: norms.update({name: gradient.norm().item()}))
    before = {name: parameter.clone() for name, parameter in deprojector.named_parameters()}
    trainer.train_step(random_faces(trainer.redirector), 1)
    for part in ("parts.gaze.0.weight", "parts.head.2.weight", "layer_weights.gaze", "layer_weights.head"):
        assert norms[part] > 0 and not torch.equal(before[part], dict(deprojector.named_parameters())[part]), part


@pytest.mark.parametrize(("term", "decodes"), [("latent", False), ("delta", False), ("generator", False), ("l2", True)])
def test_a_face_is_generated_only_if_a_term_looks_at_it(
    term: str, decodes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, calls = tiny_gan_trainer(weights={term: 1.0}), []
    batch, decode = random_faces(trainer.redirector), trainer.redirector.decode
    monkeypatch.setattr(trainer.redirector, "decode", lambda encoding: calls.append(1) or decode(encoding))
    trainer.train_step(batch, 1)
    assert bool(calls) == decodes


def test_terms_are_named_and_those_of_weight_0_left_out() -> None:
    trainer = tiny_gan_trainer()
    terms = trainer.train_step(random_faces(trainer.redirector), R1_EVERY)
    assert terms.keys() == GAN_WEIGHTS.keys() | {"discriminator", "r1", "total"}
    assert "r1" not in trainer.train_step(random_faces(trainer.redirector), R1_EVERY + 1)
    trainer = tiny_gan_trainer(weights={"l2": 1.0})
    assert trainer.train_step(random_faces(trainer.redirector), 0).keys() == {"l2", "total"}


def test_training_lowers_the_loss_and_moves_no_frozen_part() -> None:
    trainer = tiny_gan_trainer(learning_rate=lambda _: 3e-3, weights=GAN_WEIGHTS | {"generator": 0.0})
    redirector, batch = trainer.redirector, random_faces(trainer.redirector)
    frozen = {k: v.clone() for k, v in redirector.state_dict().items() if k.startswith(("encoder", "decoder"))}
    totals = [trainer.train_step(batch, step)["total"].item() for step in range(60)]
    assert totals[-1] < 0.7 * totals[0]
    assert all(torch.equal(value, redirector.state_dict()[key]) for key, value in frozen.items())
    assert set(trainer.modules) == {"projector", "deprojector", "discriminator"}  # what a checkpoint holds


def test_cached_codes_train_as_the_images_do() -> None:
    logs = []
    for cached in (True, False):
        trainer = tiny_gan_trainer(weights=GAN_WEIGHTS | {"generator": 0.0})
        batch = random_faces(trainer.redirector)
        if not cached:
            batch = {name: value for name, value in batch.items() if not name.startswith("w_plus")}
        logs.append(trainer.train_step(batch, 0)["total"].item())
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


@pytest.mark.parametrize("relabeled", [True, False])
def test_redirection_is_towards_the_labels_of_the_inversion_or_what_is_seen_in_the_real_target(relabeled: bool) -> None:
    trainer = tiny_gan_trainer(weights={"gaze_redirection": 1.0}, relabeled=relabeled)
    batch = random_faces(trainer.redirector)
    terms = trainer.train_step(batch, 0)
    trainer = tiny_gan_trainer(weights={"gaze_redirection": 1.0})
    estimator, redirector = trainer.objective.estimator, trainer.redirector
    with torch.no_grad():
        a, b = (redirector.encode_latent(batch[f"w_plus_{i}"]) for i in "ab")
        seen = estimator(redirector.decode(redirector.rotate(a, b.conditions)), batch["crop_b"]).gaze
        wanted = batch["gaze_b"] if relabeled else estimator(batch["image_b"], batch["crop_b"]).gaze
    assert terms["gaze_redirection"].item() == pytest.approx(losses.angles([(seen, wanted)])[0].item(), rel=1e-5)


def test_faces_are_resized_for_the_encoder_and_from_the_generator() -> None:
    redirector = tiny_redirtrans_gan()
    encoder, generator, average = tiny_pair()
    image = random_batch()["image_a"]
    with torch.no_grad():
        w_plus = encoder.eval()(nn.functional.avg_pool2d(image, 2)) + average
        assert torch.allclose(redirector.invert(image), w_plus, atol=1e-6)
        drawn = generator.synthesis(w_plus)
        assert drawn.shape[-1] == 32 and redirector.generate(w_plus).shape[-1] == SIZE
    with pytest.raises(ValueError, match=r"image is \(1, 3, 32, 32\), expected 64 px"):
        redirector.encode(torch.zeros(1, 3, 32, 32))
