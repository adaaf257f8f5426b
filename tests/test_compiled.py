"""What `--compile` compiles, on a CPU, but for the code it would write: PyTorch's tracing and derivatives alone."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.shared_steps import batch_of, made

pytestmark = pytest.mark.slow  # half a minute each


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """Those that are made, of which a function is to be one; in float64, so that rounding is not what differs."""
    found: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        found.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)  # a discriminator, which is one network
    torch.set_default_dtype(torch.float64)
    yield found
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("kind", "given"),
    [("st-ed", {}), ("st-ed", {"semi_supervised": True}), ("st-ed-flow", {"to_labels": True}), ("redirtrans-gan", {})],
)
def test_the_terms_are_one_graph_made_once_and_are_those_of_before(
    kind: str, given: dict[str, bool], graphs: list[torch.fx.GraphModule]
) -> None:
    """Each graph that a step falls into, and each that is made anew, would be time on a GPU."""
    ours, compiled = made(kind, **given), made(kind, compiled=True, **given)
    for step in range(3):
        wanted, found = (one.train_step(batch_of(ours, step), step) for one in (ours, compiled))
        assert {name: value.item() for name, value in found.items()} == pytest.approx(
            {name: value.item() for name, value in wanted.items()}, rel=1e-6
        )
    assert len(graphs) == 1
    for (name, weight), other in zip(ours.redirector.named_parameters(), compiled.redirector.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-6), name  # a step of Adam is 1e-3
