"""What a redirector is trained for, term by term, in one frozen value. Sources: ST-ED, section 3.3; ReDirTrans, 3.3.

    a, b = encode(source, target)          conditions c and embeddings z of both
    x^_b = decode(rotate(a, c_b))          the source with the conditions that are estimated of the target

| term | what it asks for |
|---|---|
| l1, l2, lpips, identity | x^_b is the target: pixels, perception, ArcFace |
| gradient | neighbouring pixels of x^_b differ as those of the target |
| eyes | l1 and gradient again, where the target's head has its eyes |
| warp, paint | the warped source alone, the paint alone are the target |
| mask, flow | little is painted; the flow is smooth |
| gaze_a, head_a | c is the label |
| embedding_consistency | z without its condition is the same of a and b |
| embedding_disentangle, label_disentangle | z and c survive being mixed, decoded and encoded again |
| redirection_feature_loss, gaze_redirection, head_redirection | an estimator sees in x^_b what it sees in x_b |
| latent, delta | the redirected code is the target's; its rows are near one another |
| generator | an adversary takes x^_b, or its code, for real: `core/adversary.py` |
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import losses
from models.arcface import ArcFace, align_points, face_crop
from models.recrop import look
from models.redirector import Decoded, Encoding, Redirector, flat_embeddings, joined

MIXED = {"embedding_disentangle", "label_disentangle"}
SEEN = {"redirection_feature_loss", "gaze_redirection", "head_redirection"}
OF_CODES = {"gaze_a", "head_a", "embedding_consistency", "latent", "delta"}  # these need no image of the redirected


@dataclass(frozen=True)
class Redirected:
    """A step's redirected batch: its encoding, and the image (B, 3, S, S) if any term needs one."""

    encoding: Encoding
    image: Tensor | None


@dataclass(frozen=True)
class Objective:
    """The weighted terms and the frozen networks that they look through.

    weights: term name -> weight; a term that is absent or 0 is not computed.
    estimator: None only if no term of SEEN has a weight.  lpips, arcface: None where their term has none.
    semi_supervised: only the source has labels.
    relabeled: the labels are what the estimator sees in the inversions, which the edits start from.
    needs_image: the adversary looks at images, so that one is decoded whatever the terms.
    to_labels: gaze and head of x^_b are the target's labels, in place of its conditions, and the head is turned from
    the source's label; not if semi_supervised.
    """

    weights: Mapping[str, float]
    estimator: nn.Module | None = None
    lpips: nn.Module | None = None
    arcface: ArcFace | None = None
    semi_supervised: bool = False
    relabeled: bool = False
    needs_image: bool = True
    to_labels: bool = False

    def has(self, *names: str) -> bool:
        """Whether any of these terms has a weight."""
        return any(self.weights.get(name) for name in names)

    def adversarial_weight(self) -> float:
        return self.weights.get("generator", 0.0)

    def terms(
        self, redirector: Redirector, batch: Mapping[str, Tensor], mask: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Redirected]:
        """Every term but the adversary's, and what it is to judge.

        batch: image_a, image_b (B, 3, S, S) in [-1, 1]; gaze_a, head_a, gaze_b, head_b (B, 2) radians.
        mask: factor -> (B, 1) bool, whether an image takes the target's condition; of use to the terms of MIXED alone.
        """
        a, b = redirector.encode_pair(batch)
        still = redirector.canonical(a)
        encoding = redirector.rotate(*self._edit(a, b, batch), still)
        mixed = redirector.rotate(a, _mixed(a.conditions, b.conditions, mask), still) if self.has(*MIXED) else None
        decoded, of_mixed = self._decoded(redirector, encoding, mixed)
        redirected = Redirected(encoding, None if decoded is None else decoded.image)
        terms: dict[str, Tensor] = {}
        if decoded is not None:
            terms |= self._image_terms(decoded.image, b, batch) | self._part_terms(decoded, batch)
        terms |= self._label_terms(a, b, batch)
        if self.has("embedding_consistency"):
            canonical = [flat_embeddings(one) for one in (still, redirector.canonical(b))]
            terms["embedding_consistency"] = losses.cosine_distance(*canonical)
        if mixed is not None:
            assert of_mixed is not None
            terms |= self._mixing_terms(mixed, redirector.encode(of_mixed))
        if self.has(*SEEN) and redirected.image is not None:
            terms |= self._estimator_terms(redirected.image, batch)
        if self.has("latent", "delta"):
            terms |= self._code_terms(redirector, encoding, b)
        return terms, redirected

    def _edit(self, a: Encoding, b: Encoding, batch: Mapping[str, Tensor]) -> tuple[Encoding, Mapping[str, Tensor]]:
        """What is edited, and to which conditions.

        To labels, a decoder that asks how far heads turn is told by labels from where, too: by an encoder that is
        degrees off it would learn turns that are none. The gaze stays as it is seen: labels did not help it.
        """
        if not self.to_labels:
            return a, b.conditions
        return a.with_own({"head": batch["head_a"]}), {**b.conditions, "gaze": batch["gaze_b"], "head": batch["head_b"]}

    def _decoded(
        self, redirector: Redirector, encoding: Encoding, mixed: Encoding | None
    ) -> tuple[Decoded | None, Tensor | None]:
        """The redirected, and the image of the mixed, each if any term needs it: of both in one call."""
        if mixed is None:
            return redirector.decode_parts(encoding) if self._wants_image() else None, None
        decoded, of_mixed = redirector.decode_parts(joined([encoding, mixed])).halves()
        return decoded, of_mixed.image

    def total(self, terms: Mapping[str, Tensor], adversarial_warmup: float) -> Tensor:
        """The weighted sum; adversarial_warmup: share of the adversary's weight at this step."""
        weights = {name: weight for name, weight in self.weights.items() if weight}
        return losses.weighted_sum(terms, weights | {"generator": self.adversarial_weight() * adversarial_warmup})

    def _wants_image(self) -> bool:
        of_images = self.weights.keys() - OF_CODES - {"generator"}
        return self.has(*of_images) or (self.needs_image and self.has("generator"))

    def _image_terms(self, image_hat: Tensor, b: Encoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the redirected image has to share with the target: pixels, perception, identity."""
        image_b = batch["image_b"]
        terms: dict[str, Tensor] = {}
        if self.has("l1"):
            terms["l1"] = losses.l1(image_hat, image_b)
        if self.has("l2"):
            terms["l2"] = losses.l2(image_hat, image_b)
        if self.has("gradient"):
            terms["gradient"] = losses.gradient(image_hat, image_b)
        if self.has("eyes"):
            head = b.conditions["head"].detach() if self.semi_supervised else batch["head_b"]
            terms["eyes"] = losses.around_eyes(image_hat, image_b, head)
        if self.has("lpips"):
            assert self.lpips is not None
            terms["lpips"] = self.lpips(image_hat, image_b).mean()
        if self.has("identity"):
            assert self.arcface is not None
            place = align_points(batch["points_b"])
            with torch.no_grad():
                wanted = self.arcface(face_crop(image_b, place))
            terms["identity"] = losses.cosine_distance(self.arcface(face_crop(image_hat, place)), wanted)
        return terms

    def _part_terms(self, decoded: Decoded, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is asked of the parts of a redirected image: warp, paint, mask and flow."""
        parts = decoded.parts
        terms: dict[str, Tensor] = {}
        if self.has("warp"):
            terms["warp"] = losses.nearest_l1((parts["warp"], parts["mirror"]), batch["image_b"])
        if self.has("paint"):
            terms["paint"] = losses.l1(parts["paint"], batch["image_b"])
        if self.has("mask"):
            terms["mask"] = losses.not_carried(parts["shares"])
        if self.has("flow"):
            terms["flow"] = losses.total_variation(parts["flow"])
        return terms

    def _label_terms(self, a: Encoding, b: Encoding, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The estimated conditions against the labels, of both images, or of the source alone."""
        terms: dict[str, Tensor] = {}
        names = [name for name in ("gaze", "head") if self.has(f"{name}_a")]
        if not names:
            return terms
        of_a = [(a.conditions[name], batch[f"{name}_a"]) for name in names]
        # Without a label b is logged, never trained on: not even by 0 times a label that is no number.
        seen_b = {name: b.conditions[name].detach() for name in names} if self.semi_supervised else b.conditions
        of_b = [(seen_b[name], batch[f"{name}_b"]) for name in names]
        errors = losses.angles(of_a + of_b)
        for name, error_a, error_b in zip(names, errors[: len(names)], errors[len(names) :], strict=True):
            if self.semi_supervised:
                terms |= {f"{name}_a": error_a, f"{name}_a_unlabeled": error_b}
            else:
                terms[f"{name}_a"] = (error_a + error_b) / 2
        return terms

    def _mixing_terms(self, mixed: Encoding, again: Encoding) -> dict[str, Tensor]:
        """Conditions of both images mixed, decoded and encoded again: they and the embeddings are to survive it."""
        terms: dict[str, Tensor] = {}
        if self.has("embedding_disentangle"):
            terms["embedding_disentangle"] = losses.cosine_distance(flat_embeddings(mixed), flat_embeddings(again))
        if self.has("label_disentangle"):
            terms["label_disentangle"] = losses.label_disentangle(mixed.conditions, again.conditions)
        return terms

    def _estimator_terms(self, image_hat: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the training estimator sees in the redirected image, against what it sees in the target."""
        assert self.estimator is not None
        crop = batch.get("crop_b")
        terms: dict[str, Tensor] = {}
        seen = look(self.estimator, image_hat, crop)
        # Not the real image's: conditions are those of inversions, so asking for it would teach to overshoot.
        gaze, head = batch["gaze_b"], batch["head_b"]
        if not self.relabeled or self.has("redirection_feature_loss"):
            with torch.no_grad():
                wanted = look(self.estimator, batch["image_b"], crop)
            if not self.relabeled:
                gaze, head = wanted.gaze, wanted.head
            if self.has("redirection_feature_loss"):
                terms["redirection_feature_loss"] = losses.redirection_feature(seen.features, wanted.features)
        pairs = {"gaze_redirection": (seen.gaze, gaze), "head_redirection": (seen.head, head)}
        asked = [name for name in pairs if self.has(name)]
        if asked:
            terms |= zip(asked, losses.angles([pairs[name] for name in asked]), strict=True)
        return terms

    def _code_terms(self, redirector: Redirector, redirected: Encoding, b: Encoding) -> dict[str, Tensor]:
        """The redirected code against the target's own (which the projector splits and puts together again)."""
        code = redirector.code(redirected)
        terms: dict[str, Tensor] = {}
        if self.has("latent"):
            terms["latent"] = losses.l2(code, redirector.code(b).detach())
        if self.has("delta"):
            terms["delta"] = losses.delta_regularisation(code)
        return terms


def _mixed(a: Mapping[str, Tensor], b: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each of b's conditions where its mask is set, else a's; (B, dof) each."""
    flat_a, flat_b = (torch.cat([conditions[name] for name in a], dim=1) for conditions in (a, b))
    masks = torch.cat([mask[name].expand_as(value) for name, value in a.items()], dim=1)
    parts = torch.where(masks, flat_b, flat_a).split([value.shape[1] for value in a.values()], dim=1)
    return dict(zip(a, parts, strict=True))
