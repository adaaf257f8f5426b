"""ST-ED: a transforming encoder-decoder with self-learned factors (NeurIPS 2020)."""

from dataclasses import replace

from torch import Tensor

from core.command import UserError
from models.decoder import Decoder
from models.encoder import Encoder
from models.redirector import Encoding, Factor, Redirector


def st_ed_factors(size_0d: int, num_1d: int, size_1d: int, num_2d: int, size_2d: int) -> tuple[Factor, ...]:
    """Appearance, 1-dof extras, 2-dof extras, head, gaze: the order fixes the checkpoint layout.

    Raises UserError with fewer than two 2-dof factors, since the last two are head and gaze.
    """
    if num_2d < 2:
        raise UserError(f"expected at least 2 two-dof factors (head and gaze), found {num_2d}.")
    extras_1d = [Factor(f"extra_1d_{i}", 1, size_1d) for i in range(num_1d)]
    extras_2d = [Factor(f"extra_2d_{i}", 2, size_2d) for i in range(num_2d - 2)]
    head_and_gaze = (Factor("head", 2, size_2d), Factor("gaze", 2, size_2d))
    return (Factor("appearance", 0, size_0d), *extras_1d, *extras_2d, *head_and_gaze)


class STED(Redirector):
    """Trainable encoder and decoder; appearance is a factor, so there is no remainder, unless `carry_colour`.

    carry_colour: the image's mean colour is the remainder, and is added to what the decoder makes. Not published: after
    InstanceNorm in every layer the decoder's images all have nearly the same mean colour.
    """

    def __init__(
        self,
        factors: tuple[Factor, ...],
        image_size: int,
        growth: int,
        blocks: int,
        fc_width: int = 0,
        output_gain: float = 1.0,
        carry_colour: bool = False,
    ) -> None:
        super().__init__()
        self.factors = factors
        self.image_size, self.carry_colour = image_size, carry_colour
        self.encoder = Encoder(factors, image_size, growth, blocks, fc_width)
        self.decoder = Decoder(factors, image_size, growth, blocks, output_gain)

    def encode(self, image: Tensor) -> Encoding:
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"image is {tuple(image.shape)}, expected {self.image_size} px square.")
        encoding = self.encoder(image)
        return replace(encoding, remainder={"colour": image.mean(dim=(2, 3))}) if self.carry_colour else encoding

    def decode(self, encoding: Encoding) -> Tensor:
        image = self.decoder(encoding)
        return image + encoding.remainder["colour"][:, :, None, None] if self.carry_colour else image
