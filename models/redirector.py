"""What every redirector shares: factors, their encoding, and rotation from one condition to another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from models.geometry import at_least_float32, rotation_matrix

if TYPE_CHECKING:
    from models.stylegan2 import Generator


class Factor(NamedTuple):
    """One disentangled variation: `dof` angles steer an embedding of (dof + 1) x `size` values.

    dof 0 is the appearance: an embedding that no condition rotates.
    """

    name: str
    dof: int
    size: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.dof + 1, self.size


@dataclass(frozen=True)
class Encoding:
    """An image as factors. conditions: name -> (B, dof) radians; embeddings: name -> (B, dof + 1, size).

    remainder: what else of the image the decoder gets, by name, the first axis the batch; no rotation changes it.
    """

    conditions: Mapping[str, Tensor]
    embeddings: Mapping[str, Tensor]
    remainder: Mapping[str, Tensor] = field(default_factory=dict)

    def with_own(self, conditions: Mapping[str, Tensor]) -> "Encoding":
        """Other conditions of the source itself, where the remainder holds copies of them for the decoder."""
        own = {f"own_{name}": value for name, value in conditions.items() if f"own_{name}" in self.remainder}
        return replace(self, remainder={**self.remainder, **own})

    def with_factor(self, name: str, other: "Encoding") -> "Encoding":
        """The same with one factor as another encoding has it."""
        return replace(
            self,
            conditions={**self.conditions, name: other.conditions[name]},
            embeddings={**self.embeddings, name: other.embeddings[name]},
        )

    def halves(self) -> tuple["Encoding", "Encoding"]:
        """The first and the second half of the batch; backwards that is one operation, where two slices are three."""
        first, second = zip(*(_halves(part) for part in vars(self).values()), strict=True)
        return Encoding(*first), Encoding(*second)

    def __getitem__(self, rows: slice | Tensor) -> "Encoding":
        """The same encoding for some images of the batch: a slice, or their numbers."""
        return Encoding(
            {name: value[rows] for name, value in self.conditions.items()},
            {name: value[rows] for name, value in self.embeddings.items()},
            {name: value[rows] for name, value in self.remainder.items()},
        )


@dataclass(frozen=True)
class Decoded:
    """A decoded image (B, 3, S, S), and the parts it was made of, by name, of a redirector that has any.

    The first axis of each part is the batch.
    """

    image: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    def halves(self) -> tuple["Decoded", "Decoded"]:
        """As `Encoding.halves`."""
        images, (first, second) = self.image.chunk(2), _halves(self.parts)
        return Decoded(images[0], first), Decoded(images[1], second)


class Redirector(nn.Module):
    """Encodes an image into factors, rotates some of them and decodes. Source: ST-ED, section 3.

    What a redirector is like it says here, so that nobody asks for its class:
    wants_faces: its images are aligned faces; else they are normalised patches.
    wants_codes: it is trained on the latent codes of its images, which `invert` finds once for all.
    carries_pixels: the parts of what it decodes say how the source's pixels are moved (`flow`, `mirror_flow`), shared
    out (`shares`) and painted over (`paint`); it takes images of any multiple of its size and gives that size back.
    frozen_files: the files of the frozen networks that it is built around, by configuration key; whoever builds it
    says so, for the weights that are trained mean nothing around others.
    """

    factors: tuple[Factor, ...]
    wants_faces = False
    wants_codes = False
    carries_pixels = False
    frozen_files: Mapping[str, Path] = {}

    def encode(self, image: Tensor) -> Encoding:
        """image: (B, 3, S, S) in [-1, 1]."""
        raise NotImplementedError

    def decode(self, encoding: Encoding) -> Tensor:
        """(B, 3, S, S), nominally in [-1, 1], not clamped."""
        raise NotImplementedError

    def decode_parts(self, encoding: Encoding) -> Decoded:
        """The decoded image with the parts that it was made of, where there are such parts."""
        return Decoded(self.decode(encoding))

    def encode_pair(self, batch: Mapping[str, Tensor]) -> tuple[Encoding, Encoding]:
        """Source and target of a batch, encoded in one call (InstanceNorm keeps them apart).

        batch: image_a, image_b (B, 3, S, S) in [-1, 1].
        """
        return self.encode(torch.cat((batch["image_a"], batch["image_b"]))).halves()

    def code(self, encoding: Encoding) -> Tensor:
        """(B, rows, D): the latent code that an encoding stands for, of a redirector that has one."""
        raise NotImplementedError

    def invert(self, image: Tensor) -> Tensor:
        """image (B, 3, S, S) in [-1, 1] to its latent code (B, rows, D), of one that wants codes; no gradient."""
        raise NotImplementedError

    def generate(self, code: Tensor) -> Tensor:
        """Latent code (B, rows, D) to its image (B, 3, S, S), of one that wants codes."""
        raise NotImplementedError

    def code_source(self) -> "Generator | None":
        """The generator whose mapping network draws codes of the kind that is redirected; None: there is none.

        An adversary then judges codes rather than images.
        """
        return None

    def row_weights(self) -> Mapping[str, Tensor]:
        """Factor -> (rows,), how much each row of a code is edited; {} where that is not learned."""
        return {}

    def rotate(self, encoding: Encoding, targets: Mapping[str, Tensor], canonical: Encoding | None = None) -> Encoding:
        """Redirect the named factors: embedding' = R(target) R(condition)^T embedding.

        targets: name -> (B, dof) radians. Factors that are not named stay untouched, to the bit.
        canonical: of this encoding, where it has been made already.
        """
        if canonical is None:
            named = {name: encoding.conditions[name] for name in targets}
            before: Mapping[str, Tensor] = _rotated(encoding.embeddings, named, inverse=True)
        else:
            before = canonical.embeddings
        embeddings = {**encoding.embeddings, **_rotated(before, targets)}
        return replace(encoding, conditions={**encoding.conditions, **targets}, embeddings=embeddings)

    def canonical(self, encoding: Encoding) -> Encoding:
        """Embeddings with their own conditions rotated out; appearance is canonical as it is."""
        embeddings = {**encoding.embeddings, **_rotated(encoding.embeddings, encoding.conditions, inverse=True)}
        zeros = {name: torch.zeros_like(value) for name, value in encoding.conditions.items()}
        return replace(encoding, conditions=zeros, embeddings=embeddings)

    def redirect(self, image: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Image with the named factors at the given angles; (B, 3, S, S)."""
        return self.decode(self.rotate(self.encode(image), targets))

    def walk(self, image: Tensor, factor: str, angles: Tensor) -> Tensor:
        """One factor moved through given conditions, all else kept.

        image: (B, 3, S, S).  angles: (T, dof) radians.  Returns (T, B, 3, S, S).
        """
        encoding = self.encode(image)
        frames = [self.decode(self.rotate(encoding, {factor: row.expand(len(image), -1)})) for row in angles]
        return torch.stack(frames)


def joined(encodings: Sequence[Encoding]) -> Encoding:
    """One encoding of the batches of several of one redirector, one after the other."""
    parts = zip(*(vars(encoding).values() for encoding in encodings), strict=True)
    return Encoding(*({name: torch.cat([one[name] for one in part]) for name in part[0]} for part in parts))


def _halves(values: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    halves = {name: value.chunk(2) for name, value in values.items()}
    return {name: half[0] for name, half in halves.items()}, {name: half[1] for name, half in halves.items()}


def flat_embeddings(encoding: Encoding) -> Tensor:
    """All embeddings of each image in factor order, flattened; (B, total)."""
    return torch.cat([value.flatten(1) for value in encoding.embeddings.values()], dim=1)


def _rotated(
    embeddings: Mapping[str, Tensor], conditions: Mapping[str, Tensor], inverse: bool = False
) -> dict[str, Tensor]:
    """The embeddings of the named factors, each rotated by its condition, or back.

    Those of one shape together: a rotation is many operations on a few numbers, whose starts are what it costs.
    """
    alike: dict[torch.Size, list[str]] = {}
    for name in conditions:
        alike.setdefault(embeddings[name].shape[1:], []).append(name)
    rotated: dict[str, Tensor] = {}
    for names in alike.values():
        rotation = rotation_matrix(torch.stack([conditions[name] for name in names]))
        before = at_least_float32(torch.stack([embeddings[name] for name in names]))
        with torch.autocast(before.device.type, enabled=False):
            after = (rotation.mT if inverse else rotation).to(before.dtype) @ before
        rotated |= zip(names, after.unbind(), strict=True)
    return rotated
