"""`python tests/shared_steps.py KIND` trains a tiny model for 20 steps, in float64, and prints its losses.

In one of several processes it takes its share of each batch.
"""

import json
import sys
from typing import Any

import torch
from torch import Tensor

from core import distributed
from core.trainer import RedirectionTrainer
from tests.tiny import (
    GAN_WEIGHTS,
    WEIGHTS,
    ImageAdversary,
    PatchDiscriminator,
    PoolEstimator,
    assembled,
    random_batch,
    random_faces,
    tiny_flow,
    tiny_gan_trainer,
    tiny_trainer,
)

BATCH, STEPS = 4, 20
OF_PIXELS = {"eyes": 5.0, "gradient": 2.0, "warp": 2.0, "paint": 1.0, "mask": 1.0, "flow": 1.0}


def made(kind: str, **given: Any) -> RedirectionTrainer:
    """given: as `tests.tiny.assembled` takes it."""
    if kind == "st-ed":  # BatchNorm in the discriminator, random masks, mirroring and variation, clipping
        return tiny_trainer(mirror=True, vary=True, gradient_clip=1.0, **given)
    if kind == "st-ed-flow":  # `eyes` is a ratio of sums over the batch
        flow, adversary = tiny_flow(), ImageAdversary(PatchDiscriminator(2))
        return assembled(flow, adversary, WEIGHTS | OF_PIXELS, estimator=PoolEstimator(), **given)
    return tiny_gan_trainer(
        weights=GAN_WEIGHTS, **given
    )  # a pool of codes, R1 as a step of its own, parameters without use


def batch_of(trainer: RedirectionTrainer, step: int) -> dict[str, Tensor]:
    """In float64."""
    if trainer.redirector.wants_codes:
        batch = random_faces(trainer.redirector, BATCH, step)  # type: ignore[arg-type]
    else:
        batch = random_batch(BATCH, step)
    return {name: value.double() for name, value in batch.items()}


def main(kind: str) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    distributed.join(torch.device("cpu"))
    trainer, rows = made(kind), distributed.own_rows(BATCH // distributed.size())
    found = []
    for step in range(STEPS):
        terms = trainer.train_step({name: value[rows] for name, value in batch_of(trainer, step).items()}, step)
        found.append({name: value.item() for name, value in distributed.averaged(terms).items()})
    print(json.dumps(found))
    distributed.leave()


if __name__ == "__main__":
    main(sys.argv[1])
