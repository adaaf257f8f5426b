"""What `--compile` compiles, on a CPU, but for the code it would write: PyTorch's tracing and derivatives alone."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from core.adversary import ImageAdversary
from core.trainer import RedirectionTrainer
from models.discriminator import PatchDiscriminator
from tests.tiny import (
    GAN_WEIGHTS,
    WEIGHTS,
    PoolEstimator,
    assembled,
    random_batch,
    random_faces,
    tiny_flow,
    tiny_gan_trainer,
    tiny_trainer,
)

pytestmark = pytest.mark.slow  # half a minute each
OF_PIXELS = {"eyes": 5.0, "gradient": 2.0, "warp": 2.0, "paint": 1.0, "mask": 1.0, "flow": 1.0}


def flow_trainer(**given: object) -> RedirectionTrainer:
    redirector, adversary = tiny_flow(), ImageAdversary(PatchDiscriminator(2))  # in this order, after a seed
    return assembled(redirector, adversary, WEIGHTS | OF_PIXELS, estimator=PoolEstimator(), **given)


KINDS: dict[str, Callable[..., RedirectionTrainer]] = {
    "st-ed": partial(tiny_trainer, mirror=True, vary=True, gradient_clip=1.0),
    "st-ed, semi-supervised": partial(tiny_trainer, semi_supervised=True),
    "st-ed-flow": partial(flow_trainer, to_labels=True),
    "redirtrans-gan": partial(tiny_gan_trainer, weights=GAN_WEIGHTS),
}


def batch_of(trainer: RedirectionTrainer, step: int) -> dict[str, Tensor]:
    if trainer.redirector.wants_codes:
        return random_faces(trainer.redirector, seed=step)  # type: ignore[arg-type]
    return random_batch(seed=step)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """Those that are made, of which a function is to be one; in float64, so that rounding is not what differs."""
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        made.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)  # a discriminator, which is one network
    torch.set_default_dtype(torch.float64)
    yield made
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("made", KINDS.values(), ids=KINDS)
def test_the_terms_are_one_graph_made_once_and_are_those_of_before(
    made: Callable[..., RedirectionTrainer], graphs: list[torch.fx.GraphModule]
) -> None:
    """Each graph that a step falls into, and each that is made anew, would be time on a GPU."""
    ours, compiled = made(), made(compiled=True)
    for step in range(3):
        batch = {name: value.double() for name, value in batch_of(ours, step).items()}
        wanted, found = (one.train_step(batch, step) for one in (ours, compiled))
        assert {name: value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in wanted.items()}, rel=1e-6
        )
    assert len(graphs) == 1
    for (name, weight), other in zip(ours.redirector.named_parameters(), compiled.redirector.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-6), name  # a step of Adam is 1e-3
