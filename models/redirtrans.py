"""ReDirTrans: redirection in the latent space of an encoder-decoder pair (CVPR 2023).

A projector finds conditions and embeddings of head and gaze in a latent code, a deprojector turns embeddings back into
residuals: those of the old status are subtracted, those of the new one added, and nothing else of the code is touched.
Layer sizes are the paper's where it names them (3 x 16 embeddings); the others are ours.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from core.command import UserError
from models.decoder import Decoder
from models.e4e import E4EEncoder
from models.encoder import DenseNetEncoder, bottleneck_side
from models.geometry import at_least_float32
from models.redirector import Encoding, Factor, Redirector
from models.stylegan2 import Generator

CONDITION_WIDTH = 96
EDITED = (Factor("head", 2, 16), Factor("gaze", 2, 16))  # size 16: the paper's


class Projector(nn.Module):
    """Latent code (B, rows, width) to the conditions and embeddings of the factors.

    hidden: width of the hidden layer of the embeddings.
    """

    def __init__(self, factors: Sequence[Factor], rows: int, width: int, hidden: int) -> None:
        super().__init__()
        self.factors = tuple(factors)
        values = sum(math.prod(factor.shape) for factor in self.factors)
        self.conditions = nn.Sequential(
            nn.Linear(rows * width, CONDITION_WIDTH), nn.LeakyReLU(0.01),
            nn.Linear(CONDITION_WIDTH, sum(factor.dof for factor in self.factors)),
        )  # fmt: skip
        self.embeddings = nn.Sequential(nn.Linear(rows * width, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, values))

    def forward(self, latent: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        flat = at_least_float32(latent.flatten(1))
        with torch.autocast(flat.device.type, enabled=False):  # bfloat16 angles would be steps of 0.1 degrees
            angles = self.conditions(flat).tanh() * (math.pi / 2)
            values = self.embeddings(flat)
        names = [factor.name for factor in self.factors]
        conditions = angles.split([factor.dof for factor in self.factors], dim=1)
        parts = values.split([math.prod(factor.shape) for factor in self.factors], dim=1)
        embeddings = [part.unflatten(1, factor.shape) for factor, part in zip(self.factors, parts, strict=True)]
        return dict(zip(names, conditions, strict=True)), dict(zip(names, embeddings, strict=True))


class Deprojector(nn.Module):
    """Embeddings to the residual (B, rows, width) that they stand for: a sum over the factors.

    prior: factor -> start of its learned weight of each row; all 1 for a factor that is not named. In W+ the coarse
    rows move the head, finer ones the eyes.
    Raises UserError if a prior has another number of rows.
    """

    def __init__(
        self,
        factors: Sequence[Factor],
        rows: int,
        width: int,
        hidden: int,
        prior: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.rows, self.width = rows, width
        self.parts = nn.ModuleDict(
            {
                factor.name: nn.Sequential(
                    nn.Linear(math.prod(factor.shape), hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, rows * width)
                )
                for factor in factors
            }
        )
        self.layer_weights = nn.ParameterDict()
        check_prior(prior or {}, rows)
        for factor in factors:
            start = list((prior or {}).get(factor.name, [1.0] * rows))
            self.layer_weights[factor.name] = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        residuals = []
        for name, part in self.parts.items():
            flat = at_least_float32(embeddings[name].flatten(1))
            with torch.autocast(flat.device.type, enabled=False):
                rows = part(flat).unflatten(1, (self.rows, self.width))
                residuals.append(self.layer_weights[name].unsqueeze(1) * rows)
        return sum(residuals[1:], residuals[0])


class ReDirTrans(Redirector):
    """What both variants share. In the remainder of an encoding is the latent code without the old status.

    Source: ReDirTrans, section 3.
    """

    factors = EDITED
    projector: Projector
    deprojector: Deprojector

    def encode_latent(self, latent: Tensor) -> Encoding:
        """latent: (B, rows, width)."""
        conditions, embeddings = self.projector(latent)
        return Encoding(conditions, embeddings, {"code": latent - self.deprojector(embeddings)})

    def code(self, encoding: Encoding) -> Tensor:
        """(B, rows, width): the code with the new status added; what was encoded, where nothing was rotated."""
        return encoding.remainder["code"] + self.deprojector(encoding.embeddings)


class LatentEncoder(nn.Module):
    """ST-ED's encoder with one embedding of `width` values, the latent code, and no conditions.

    fc_width: as ST-ED's Encoder.
    """

    def __init__(self, width: int, image_size: int, growth: int, blocks: int, fc_width: int = 0) -> None:
        super().__init__()
        self.encoder = DenseNetEncoder(growth, blocks)
        features = self.encoder.c_out * bottleneck_side(image_size, blocks) ** 2
        self.fc1 = nn.Linear(features, fc_width or features)
        self.fc2 = nn.Linear(fc_width or features, width)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, image: Tensor) -> Tensor:
        """image (B, 3, S, S) to (B, 1, width)."""
        return at_least_float32(self.fc2(self.act(self.fc1(self.encoder(image).flatten(1))))).unsqueeze(1)


class ReDirTransSTED(ReDirTrans):
    """The first variant: inside ST-ED's encoder and decoder, which are trained with it.

    width: values of the latent code.  *_hidden: as Projector's and Deprojector's.
    carry_colour: as ST-ED's.
    """

    def __init__(
        self,
        width: int,
        image_size: int,
        growth: int,
        blocks: int,
        *,
        fc_width: int = 0,
        projector_hidden: int = 96,
        deprojector_hidden: int = 128,
        output_gain: float = 1.0,
        carry_colour: bool = False,
    ) -> None:
        super().__init__()
        self.image_size, self.width, self.carry_colour = image_size, width, carry_colour
        self.encoder = LatentEncoder(width, image_size, growth, blocks, fc_width)
        self.projector = Projector(self.factors, 1, width, projector_hidden)
        self.deprojector = Deprojector(self.factors, 1, width, deprojector_hidden)
        self.decoder = Decoder((Factor("latent", 0, width),), image_size, growth, blocks, output_gain)

    def encode(self, image: Tensor) -> Encoding:
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"image is {tuple(image.shape)}, expected {self.image_size} px square.")
        encoding = self.encode_latent(self.encoder(image))
        if not self.carry_colour:
            return encoding
        return replace(encoding, remainder={**encoding.remainder, "colour": image.mean(dim=(2, 3))})

    def decode(self, encoding: Encoding) -> Tensor:
        image = self.decoder(Encoding({}, {"latent": self.code(encoding)}))
        return image + encoding.remainder["colour"][:, :, None, None] if self.carry_colour else image


class ReDirTransGAN(ReDirTrans):
    """The second variant: in the W+ space of a frozen e4e encoder and StyleGAN2 generator; W+ (B, rows, D).

    latent_avg: (rows, D), added to what the encoder finds.  image_size: of the images given and returned; they are
    resized to the encoder's, and from the generator's, by averaging where they shrink.
    *_hidden, prior: as Projector's and Deprojector's.
    """

    wants_faces = True
    wants_codes = True

    def __init__(
        self,
        encoder: E4EEncoder,
        generator: Generator,
        latent_avg: Tensor,
        image_size: int,
        *,
        projector_hidden: int = 96,
        deprojector_hidden: int = 128,
        prior: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.encoder, self.decoder = encoder.freeze(), generator.freeze()
        self.register_buffer("latent_avg", latent_avg, persistent=False)
        rows, width = generator.num_rows, generator.style_dim
        self.projector = Projector(self.factors, rows, width, projector_hidden)
        self.deprojector = Deprojector(self.factors, rows, width, deprojector_hidden, prior)

    def encode(self, image: Tensor) -> Encoding:
        return self.encode_latent(self.invert(image))

    def encode_pair(self, batch: Mapping[str, Tensor]) -> tuple[Encoding, Encoding]:
        """From `w_plus_a` and `w_plus_b` (B, rows, D) where the batch has them, in place of the images."""
        if "w_plus_a" not in batch:
            return super().encode_pair(batch)
        return self.encode_latent(torch.cat((batch["w_plus_a"], batch["w_plus_b"]))).halves()

    def code_source(self) -> Generator:
        return self.decoder

    def row_weights(self) -> Mapping[str, Tensor]:
        return dict(self.deprojector.layer_weights)

    def decode(self, encoding: Encoding) -> Tensor:
        return self.generate(self.code(encoding))

    @torch.no_grad()
    def invert(self, image: Tensor) -> Tensor:
        """image (B, 3, image_size, image_size) to W+ (B, rows, D); no gradient."""
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"image is {tuple(image.shape)}, expected {self.image_size} px square.")
        return self.encoder(resized(image, self.encoder.input_size)) + self.latent_avg

    def generate(self, code: Tensor) -> Tensor:
        """W+ (B, rows, D) to (B, 3, image_size, image_size), the same image each time; gradients flow to the code."""
        return resized(self.decoder.synthesis(code, noise="stored"), self.image_size)


def check_prior(prior: Mapping[str, Sequence[float]], rows: int) -> None:
    """Raises UserError if a factor's prior is not one weight a row."""
    for factor, weights in prior.items():
        if len(weights) != rows:
            raise UserError(f"layer_weights_prior: {len(weights)} weights of '{factor}', expected {rows}, one a row.")


def resized(image: Tensor, size: int) -> Tensor:
    """(B, C, S, S) to (B, C, size, size): averaged down, or enlarged bilinearly."""
    if image.shape[-1] == size:
        return image
    if image.shape[-1] > size:
        return nn.functional.adaptive_avg_pool2d(image, size)
    return nn.functional.interpolate(image, size=size, mode="bilinear", align_corners=False)
