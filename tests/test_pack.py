"""A checkpoint packed to be given away."""

from pathlib import Path

import pytest
import torch

from checkpoints_manager import read_checkpoint, save_checkpoint
from core.build import build_redirector
from core.config_default import Config
from core.redirection.load import load
from core.redirection.pack import main
from models.redirector import Redirector
from models.st_ed_flow import STEDFlow

TINY = Config(
    redirector="st-ed-flow", image_size=64, growth_rate=2, densenet_blocks=3, fc_embedding_width=16, size_0d_unit=8,
    num_1d_units=0, num_2d_units=2, size_2d_unit=4, flow_width=4,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose redirector was trained by nobody, with an optimiser."""
    torch.manual_seed(0)
    redirector = build_redirector(TINY)
    optimizer = torch.optim.Adam(redirector.parameters())
    modules, facts = dict(redirector.named_children()), {"config": TINY.model_dump_json(), "code_revision": "abc"}
    save_checkpoint(tmp_path / "run", 7, modules | {"discriminator": torch.nn.Linear(2, 2)}, {"main": optimizer}, facts)
    return tmp_path / "run"


def redirected(redirector: Redirector) -> torch.Tensor:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    encoding = redirector.encode(image)
    return redirector.decode(redirector.rotate(encoding, {"head": torch.tensor([[0.1, 0.3]])}))


def test_a_packed_checkpoint_redirects_as_the_run_does(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.pt"
    assert main([str(run), str(out)]) == 0
    whole, small = load(run, device="cpu"), load(out, device="cpu")
    assert isinstance(small.redirector, STEDFlow) and small.settings == whole.settings
    assert torch.allclose(redirected(small.redirector), redirected(whole.redirector), atol=2e-2)


def test_it_holds_half_precision_weights_and_nothing_to_train_on_with(run: Path, tmp_path: Path) -> None:
    main([str(run), str(tmp_path / "small.pt")])
    content = read_checkpoint(tmp_path / "small.pt")
    assert not content.keys() & {"optimizers", "discriminator"}
    assert content["step"] == 7 and content["code_revision"] == "abc"
    assert {tensor.dtype for tensor in content["decoder"].values() if tensor.is_floating_point()} == {torch.float16}


def test_a_folder_without_a_checkpoint_is_told_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), str(tmp_path / "small.pt")]) == 2
    assert "no checkpoints/<step>.pt" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
