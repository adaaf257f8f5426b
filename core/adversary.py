"""The optional adversary of ReDirTrans-GAN: are redirected codes like those of the generator's mapping network?

Source: e4e, section 3.3 and its release.
"""

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import losses
from core.runtime import step_generator
from models.discriminator import LatentDiscriminator, LatentPool
from models.stylegan2 import Generator

R1_WEIGHT, R1_EVERY = 10.0, 16  # the penalty is taken every so many steps, and so many times as much
STREAM = 2  # of the step's random numbers


class LatentAdversary:
    """What a step needs of a latent discriminator: its two costs and the redirector's. It owns no optimiser.

    The pools of earlier codes are part of the state of a training.
    """

    def __init__(self, discriminator: LatentDiscriminator, generator: Generator, seed: int) -> None:
        self.discriminator, self.generator, self.seed = discriminator, generator, seed
        shared = random.Random(seed)
        self.pools = {"real": LatentPool(random=shared), "fake": LatentPool(random=shared)}

    @torch.no_grad()
    def codes(self, latent: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Real and redirected codes (B, D) for the discriminator's step, some of them of earlier steps.

        latent: (B, rows, D), redirected.
        """
        z = self.generator.draw_z(len(latent), step_generator(self.seed, step, STREAM)).to(latent.device)
        return self.pools["real"].exchange(self.generator.mapping(z)), self.pools["fake"].exchange(latent.detach())

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cost of taking real codes for redirected ones and the other way round."""
        on_real = losses.latent_adversarial_real(self.discriminator(real))
        return on_real + losses.latent_adversarial_fake(self.discriminator(fake))

    def penalty(self, real: Tensor, step: int) -> Tensor | None:
        """R1 on real codes; None in the steps that do without."""
        if step % R1_EVERY:
            return None
        real = real.detach().requires_grad_()
        return R1_WEIGHT / 2 * R1_EVERY * losses.r1_penalty(self.discriminator(real), real)

    def redirector_loss(self, latent: Tensor) -> Tensor:
        """Cost of redirected codes (B, rows, D) that are not taken for real, row by row."""
        return losses.latent_adversarial_real(self.discriminator(latent))

    def state(self) -> dict[str, Any]:
        """Plain data and tensors; `load_state` goes on from it."""
        return {name: pool.state() for name, pool in self.pools.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, pool in self.pools.items():
            pool.load_state(state[name])
