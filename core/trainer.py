"""Trains a redirector: the discriminator's phase, then the generator's. Source: ST-ED, section 3.3."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import losses
from core.adversary import LatentAdversary
from core.runtime import autocast, step_generator
from core.tracking import Tracker, progress_bar, say
from core.views import encode_pair, look
from models.arcface import ArcFace, align_points, face_crop
from models.redirector import Encoding, Redirector, flat_embeddings
from utils import batch_to_device


@dataclass(frozen=True)
class Cadence:
    """When the trainer does what, in steps.

    test_at_end: also test after the last step; not needed where a full evaluation follows.
    """

    num_steps: int
    log: int
    test: int
    pictures: int
    save: int
    test_at_end: bool = True


class RedirectionTrainer:
    """Owns the optimisers and the order of a step.

    weights: term name -> weight; a term that is absent or 0 is not computed.
    learning_rate: step -> rate of both optimisers.
    estimator: frozen; None only if no redirection term has a weight.
    lpips, arcface: frozen; None where their term has no weight.
    Source of the schedule and the terms: ST-ED, section 3.3 and supplementary; ReDirTrans, section 3.3.
    """

    lpips: nn.Module | None = None
    arcface: ArcFace | None = None
    latent_adversary: LatentAdversary | None = None  # in place of the discriminator of images
    relabeled = False  # are the labels what the estimator sees in the inversions, which the edits start from?

    def __init__(
        self,
        redirector: Redirector,
        discriminator: nn.Module,
        estimator: nn.Module | None,
        *,
        weights: Mapping[str, float],
        learning_rate: Callable[[int], float],
        weight_decay: float,
        adversarial_warmup_steps: int,
        semi_supervised: bool = False,
        mirror: bool = False,
        precision: str = "float32",
        seed: int = 0,
        device: torch.device = torch.device("cpu"),
    ) -> None:
        self.redirector, self.discriminator, self.estimator = redirector, discriminator, estimator
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.learning_rate = learning_rate
        self.adversarial_warmup_steps = adversarial_warmup_steps
        self.semi_supervised, self.mirror = semi_supervised, mirror
        self.precision, self.seed, self.device = precision, seed, device
        self.weight_decay = weight_decay
        self.optimizers = {
            name: torch.optim.Adam(
                [p for p in module.parameters() if p.requires_grad],
                lr=learning_rate(0),
                weight_decay=weight_decay,
                fused=True,
            )
            for name, module in (("generator", redirector), ("discriminator", discriminator))
        }

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, under the published names; what is frozen is in a file of its own."""
        parts = {**dict(self.redirector.named_children()), "discriminator": self.discriminator}
        return {name: part for name, part in parts.items() if any(p.requires_grad for p in part.parameters())}

    def fit(
        self,
        batches: Iterable[Mapping[str, Tensor]],
        cadence: Cadence,
        tracker: Tracker,
        *,
        start: int,
        test: Callable[[int], Mapping[str, float]],
        pictures: Callable[[int], None],
        save: Callable[[int], None],
        stop: list[int],
    ) -> int:
        """Train from step `start`; returns the steps done, fewer than asked for if `stop` was filled.

        Housekeeping comes before a step, so that a step is never split by a save.
        Raises FloatingPointError before an update whose loss is not finite.
        """
        bar = progress_bar(cadence.num_steps, start, "training")
        step = start
        if start:  # a kill may have come between the save and the test of this step
            self._housekeeping(start, cadence, tracker, test, pictures, lambda _: None)
        for batch in batches:
            if step > start:
                self._housekeeping(step, cadence, tracker, test, pictures, save)
            if stop:
                break
            moved = batch_to_device(batch, self.device)
            terms = self.train_step(moved, step)
            step += 1
            bar.update()
            if step % cadence.log == 0 or step == cadence.num_steps:
                values = {name: value.item() for name, value in terms.items()}
                images_per_s = (bar.format_dict["rate"] or 0) * 2 * len(moved["image_a"])
                bar.set_postfix(loss=f"{values['total']:.3g}", images_per_s=f"{images_per_s:.0f}")
                rate = {"learning_rate": self.learning_rate(step - 1), "images_per_s": images_per_s}
                tracker.log(step, {f"train/{name}": value for name, value in (values | rate).items()})
        bar.close()
        if step == cadence.num_steps:
            pictures(step)
            if cadence.test_at_end:
                self._test(step, tracker, test)
        save(step)
        return step

    def _housekeeping(
        self,
        step: int,
        cadence: Cadence,
        tracker: Tracker,
        test: Callable[[int], Mapping[str, float]],
        pictures: Callable[[int], None],
        save: Callable[[int], None],
    ) -> None:
        if step % cadence.save == 0:
            save(step)
        if step % cadence.test == 0:
            self._test(step, tracker, test)
        if step % cadence.pictures == 0:
            pictures(step)

    def _test(self, step: int, tracker: Tracker, test: Callable[[int], Mapping[str, float]]) -> None:
        tracker.log(step, metrics := test(step))
        shown = [name for name in metrics if name.endswith(("gaze_redirection", "head_redirection", "/l1"))]
        say(f"step {step}: " + ", ".join(f"{name} {metrics[name]:.3g}" for name in shown))

    def train_step(self, batch: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """One update of the discriminator and one of the redirector; the terms, detached.

        batch: image_a, image_b (B, 3, S, S) in [-1, 1]; gaze_a, head_a, gaze_b, head_b (B, 2) radians.
        Raises FloatingPointError if a term or a gradient is not finite: no update is made with it. (D takes its
        step first; what only D's own step makes not finite stops the redirector's.)
        """
        self.redirector.train()
        self.discriminator.train()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                # Set anew, for a checkpoint brings the values of the run that wrote it.
                group |= {"lr": self.learning_rate(step), "weight_decay": self.weight_decay}
        if self.mirror:
            batch = mirrored(batch, self._coins(step, 1, len(batch["image_a"]), stream=1)[0])
        with autocast(self.device, self.precision):
            terms, fake, redirected = self._redirector_terms(batch, step)
        log = {name: value.detach() for name, value in terms.items()}
        adversarial_weight = self.weights.get("generator", 0.0)
        if adversarial_weight:
            if self.latent_adversary is not None:
                log |= self._latent_phase(self.redirector.latent(redirected), terms, step)
            else:
                log |= self._discriminator_phase(batch["image_b"], fake.detach(), terms, step)
                with autocast(self.device, self.precision):
                    terms["generator"] = losses.adversarial(self.discriminator(fake), losses.REAL)
            adversarial_weight *= losses.adversarial_warmup(step, self.adversarial_warmup_steps)
        total = losses.weighted_sum(terms, self.weights | {"generator": adversarial_weight})
        self._update("generator", total, terms, step)
        return log | {"total": total.detach()}

    def _redirector_terms(
        self, batch: Mapping[str, Tensor], step: int
    ) -> tuple[dict[str, Tensor], Tensor | None, Encoding]:
        """Every term that needs no discriminator, the redirected image (B, 3, S, S) if any needs it, its encoding."""
        a, b = encode_pair(self.redirector, batch)
        redirected = self.redirector.rotate(a, b.conditions)
        fake = self.redirector.decode(redirected) if self._needs_image() else None
        terms = ({} if fake is None else self._image_terms(fake, batch)) | self._label_terms(a, b, batch)
        if "embedding_consistency" in self.weights:
            flat = [flat_embeddings(self.redirector.canonical(encoding)) for encoding in (a, b)]
            terms["embedding_consistency"] = losses.cosine_distance(*flat)
        if {"embedding_disentangle", "label_disentangle"} & self.weights.keys():
            terms |= self._mixing_terms(a, b, step)
        if {"redirection_feature_loss", "gaze_redirection", "head_redirection"} & self.weights.keys():
            terms |= self._redirection_terms(fake, batch)
        if {"latent", "delta"} & self.weights.keys():
            terms |= self._latent_terms(redirected, b)
        return terms, fake, redirected

    def _needs_image(self) -> bool:
        by_code = {"latent", "delta", "gaze_a", "head_a", "embedding_consistency"}
        by_code |= {"generator"} if self.latent_adversary is not None else set()
        return bool(self.weights.keys() - by_code)

    def _image_terms(self, fake: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the redirected image has to share with the target: pixels, perception, identity."""
        image_b, terms = batch["image_b"], {}
        if "l1" in self.weights:
            terms["l1"] = losses.l1(fake, image_b)
        if "l2" in self.weights:
            terms["l2"] = losses.l2(fake, image_b)
        if "lpips" in self.weights:
            terms["lpips"] = self.lpips(fake, image_b).mean()
        if "identity" in self.weights:
            place = align_points(batch["points_b"])
            with torch.no_grad():
                wanted = self.arcface(face_crop(image_b, place))
            terms["identity"] = losses.cosine_distance(self.arcface(face_crop(fake, place)), wanted)
        return terms

    def _latent_terms(self, redirected: Encoding, b: Encoding) -> dict[str, Tensor]:
        """The redirected code against the target's own (which the projector splits and puts together again)."""
        latent, terms = self.redirector.latent(redirected), {}
        if "latent" in self.weights:
            terms["latent"] = losses.l2(latent, self.redirector.latent(b).detach())
        if "delta" in self.weights:
            terms["delta"] = losses.delta_regularisation(latent)
        return terms

    def _label_terms(self, a: Encoding, b: Encoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {}
        for name in ("gaze", "head"):
            if f"{name}_a" not in self.weights:
                continue
            error_a = losses.angle(a.conditions[name], batch[f"{name}_a"])
            error_b = losses.angle(b.conditions[name], batch[f"{name}_b"])
            if self.semi_supervised:  # b has no label: it is logged, never trained on
                terms |= {f"{name}_a": error_a, f"{name}_a_unlabeled": error_b.detach()}
            else:
                terms[f"{name}_a"] = (error_a + error_b) / 2
        return terms

    def mixing_mask(self, step: int, size: int) -> dict[str, Tensor]:
        """Factor name -> (B, 1): does this image take b's condition? A fair coin each."""
        steered = [factor.name for factor in self.redirector.factors if factor.dof]
        return dict(zip(steered, self._coins(step, len(steered), size, stream=0), strict=True))

    def _coins(self, step: int, rows: int, size: int, stream: int) -> Tensor:
        """(rows, size, 1) fair coins, a function of the seed and the step."""
        generator = step_generator(self.seed, step, stream)
        return (torch.rand((rows, size, 1), generator=generator) < 0.5).to(self.device)

    def _mixing_terms(self, a: Encoding, b: Encoding, step: int) -> dict[str, Tensor]:
        mask = self.mixing_mask(step, len(a.conditions["gaze"]))
        targets = {name: torch.where(mask[name], b.conditions[name], a.conditions[name]) for name in a.conditions}
        mixed = self.redirector.rotate(a, targets)
        again = self.redirector.encode(self.redirector.decode(mixed))
        terms = {}
        if "embedding_disentangle" in self.weights:
            terms["embedding_disentangle"] = losses.cosine_distance(flat_embeddings(mixed), flat_embeddings(again))
        if "label_disentangle" in self.weights:
            terms["label_disentangle"] = losses.label_disentangle(mixed.conditions, again.conditions)
        return terms

    def _redirection_terms(self, fake: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the training estimator sees in the redirected image, against what it sees in the target."""
        crop, terms, wanted = batch.get("crop_b"), {}, None
        seen = look(self.estimator, fake, crop)
        if not self.relabeled or "redirection_feature_loss" in self.weights:
            with torch.no_grad():
                wanted = look(self.estimator, batch["image_b"], crop)
        if "redirection_feature_loss" in self.weights:
            terms["redirection_feature_loss"] = losses.redirection_feature(seen.features, wanted.features)
        # Not the real image's: conditions are those of inversions, so asking for it would teach to overshoot.
        gaze, head = (batch["gaze_b"], batch["head_b"]) if self.relabeled else (wanted.gaze, wanted.head)
        if "gaze_redirection" in self.weights:
            terms["gaze_redirection"] = losses.angle(seen.gaze, gaze)
        if "head_redirection" in self.weights:
            terms["head_redirection"] = losses.angle(seen.head, head)
        return terms

    def _latent_phase(self, latent: Tensor, terms: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Update the latent discriminator; adds the redirector's own term to `terms`."""
        adversary, weight = self.latent_adversary, self.weights["generator"]
        real, fake = adversary.codes(latent, step)
        loss = adversary.discriminator_loss(real, fake)
        self._update("discriminator", weight * loss, {**terms, "discriminator": loss}, step)
        log = {"discriminator": loss.detach()}
        if (penalty := adversary.penalty(real, step)) is not None:
            self._update("discriminator", weight * penalty, {"r1": penalty}, step)
            log["r1"] = penalty.detach()
        terms["generator"] = adversary.redirector_loss(latent)
        return log | {"generator": terms["generator"].detach()}

    def _discriminator_phase(
        self, real: Tensor, fake: Tensor, terms: Mapping[str, Tensor], step: int
    ) -> dict[str, Tensor]:
        """Update D on images that carry no gradient; the terms so far must be finite, too.

        The two images pass D one after the other: BatchNorm sees each batch alone, real first.
        """
        with autocast(self.device, self.precision):
            logits_real, logits_fake = self.discriminator(real), self.discriminator(fake)
            loss = losses.discriminator(logits_real, logits_fake)
            generator = losses.adversarial(logits_fake.detach(), losses.REAL)
        self._update("discriminator", self.weights["generator"] * loss, {**terms, "discriminator": loss}, step)
        return {"discriminator": loss.detach(), "generator": generator}

    def _update(self, name: str, loss: Tensor, terms: Mapping[str, Tensor], step: int) -> None:
        """One step of an optimiser, unless its loss, a term or a gradient is not finite."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None])
        values = {**terms, f"gradient of the {name}": norm}
        # Asked once for all of them, for the answer waits for the device.
        if not torch.isfinite(torch.stack([value.detach() for value in values.values()])).all():
            shown = ", ".join(f"{key}={value.item():.3g}" for key, value in values.items() if not value.isfinite())
            raise FloatingPointError(f"Loss is not finite at step {step} ({shown}). No update was made with it.")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def mirrored(batch: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """Pairs turned left to right where `chosen` (B, 1): both images flipped, every yaw negated."""
    flip = torch.tensor([1.0, -1.0], device=chosen.device)
    turned = {name: v.flip(-1) if name.startswith("image") else v * flip for name, v in batch.items()}
    return {
        name: torch.where(chosen.view(-1, *[1] * (value.ndim - 1)), turned[name], value)
        for name, value in batch.items()
    }
