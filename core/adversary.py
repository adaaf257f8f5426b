"""Who is to take the redirected for real: a discriminator of images or of latent codes, behind one interface.

Sources: ST-ED, section 3.3 and supplementary; e4e, section 3.3 and its release.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import losses
from core.distributed import own_rows, size, whole_batch
from core.objective import Redirected
from core.runtime import autocast, step_generator
from models.discriminator import LatentPool
from models.redirector import Redirector
from models.stylegan2 import Generator

R1_WEIGHT, R1_EVERY = 10.0, 16  # the penalty is taken every so many steps, and so many times as much
STREAM = 2  # of the step's random numbers


class Adversary(Protocol):
    """What a step needs of a discriminator. It owns no optimiser: the trainer steps between the costs."""

    sees_images: bool  # else codes

    @property
    def discriminator(self) -> nn.Module: ...

    def shown(self, redirected: Redirected) -> Tensor:
        """What of the redirected it judges."""
        ...

    def costs(self, shown: Tensor, real: Tensor, step: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The discriminator's costs one by one, each to be followed by an update, with what is to be logged of it.

        real: (B, 3, S, S), the target images.
        """
        ...

    def redirector_cost(self, shown: Tensor) -> Tensor:
        """What the redirector pays for not being taken for real."""
        ...

    def state(self) -> dict[str, Any]:
        """What a training goes on from besides the weights, as plain data and tensors."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None: ...


class ImageAdversary:
    """A discriminator of image patches (PatchGAN). The images pass it one after the other: BatchNorm sees each alone.

    precision: of its forward passes.
    """

    sees_images = True

    def __init__(self, discriminator: nn.Module, precision: str = "float32") -> None:
        self.discriminator, self.precision = discriminator, precision

    def shown(self, redirected: Redirected) -> Tensor:
        assert redirected.image is not None
        return redirected.image

    def costs(self, shown: Tensor, real: Tensor, step: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """One: D sees fakes detached, for its step must not move the redirector; the real ones first."""
        with autocast(shown.device, self.precision):
            logits_real, logits_fake = self.discriminator(real), self.discriminator(shown.detach())
            cost = losses.discriminator(logits_real, logits_fake)
            generator = losses.adversarial(logits_fake.detach(), losses.REAL)
        yield cost, {"discriminator": cost, "generator": generator}

    def redirector_cost(self, shown: Tensor) -> Tensor:
        self.discriminator.requires_grad_(False)  # gradients of its weights would be for nothing here
        try:
            with autocast(shown.device, self.precision):
                return losses.adversarial(self.discriminator(shown), losses.REAL)
        finally:
            self.discriminator.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


class LatentAdversary:
    """A discriminator of latent codes: are the redirected ones like those of the generator's mapping network?

    redirector: whose codes are judged.  The pools of earlier codes are part of the state of a training.
    """

    sees_images = False

    def __init__(self, discriminator: nn.Module, redirector: Redirector, generator: Generator, seed: int) -> None:
        self.discriminator, self.seed = discriminator, seed
        self.redirector, self.generator = redirector, generator
        shared = random.Random(seed)
        self.pools = {"real": LatentPool(random=shared), "fake": LatentPool(random=shared)}

    def shown(self, redirected: Redirected) -> Tensor:
        """(B, rows, D)."""
        return self.redirector.code(redirected.encoding)

    def costs(self, shown: Tensor, real: Tensor, step: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Of taking mapped codes for redirected ones and the other way round; now and then R1 as a step of its own."""
        mapped, fake = self._codes(shown, step)
        on_real = losses.latent_adversarial_real(self.discriminator(mapped))
        cost = on_real + losses.latent_adversarial_fake(self.discriminator(fake))
        yield cost, {"discriminator": cost}
        if step % R1_EVERY == 0:
            mapped = mapped.detach().requires_grad_()
            penalty = R1_WEIGHT / 2 * R1_EVERY * losses.r1_penalty(self.discriminator(mapped), mapped)
            yield penalty, {"r1": penalty}

    @torch.no_grad()
    def _codes(self, code: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mapped and redirected codes (B, D) for the discriminator's step, some of them of earlier steps."""
        z = self.generator.draw_z(size() * len(code), step_generator(self.seed, step, STREAM)).to(code.device)
        mapped = self.pools["real"].exchange(self.generator.mapping(z))
        # Of the whole batch, so that the pools of all processes are those of one alone.
        fake, own = self.pools["fake"].exchange(whole_batch(code.detach())), own_rows(len(code))
        return mapped[own], fake[own]

    def redirector_cost(self, shown: Tensor) -> Tensor:
        """Row by row."""
        return losses.latent_adversarial_real(self.discriminator(shown))

    def state(self) -> dict[str, Any]:
        return {name: pool.state() for name, pool in self.pools.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, pool in self.pools.items():
            pool.load_state(state[name])
