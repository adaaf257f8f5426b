"""A redirector of another kind needs a class and nothing else: trainer, evaluator, data and command take it."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core import build
from models.redirector import Encoding, Factor, Redirector
from tests import test_train_redirtrans, test_train_st_ed
from tests.tiny import SIZE
from train_st_ed import main

setup, gan = test_train_st_ed.setup, test_train_redirtrans.gan  # fixtures: data, estimators, configuration
CELLS = 4


class Painter(Redirector):
    """In image space: the picture is carried through as the remainder, and what the embeddings say is painted on it."""

    factors = (Factor("head", 2, 4), Factor("gaze", 2, 4))

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3 * CELLS**2, 2 * 2 + 2 * 12)
        self.decoder = nn.Linear(2 * 12, 3 * CELLS**2)

    def encode(self, image: Tensor) -> Encoding:
        found = self.encoder(nn.functional.adaptive_avg_pool2d(image, CELLS).flatten(1))
        head, gaze, *embeddings = found.split((2, 2, 12, 12), dim=1)
        shaped = [embedding.unflatten(1, (3, 4)) for embedding in embeddings]
        named = dict(zip(("head", "gaze"), shaped, strict=True))
        return Encoding({"head": head, "gaze": gaze}, named, {"image": image - self._paint(named)})

    def decode(self, encoding: Encoding) -> Tensor:
        return encoding.remainder["image"] + self._paint(encoding.embeddings)

    def _paint(self, embeddings: dict[str, Tensor]) -> Tensor:
        flat = torch.cat([embeddings[name].flatten(1) for name in ("head", "gaze")], dim=1)
        return nn.functional.interpolate(self.decoder(flat).unflatten(1, (3, CELLS, CELLS)), size=SIZE)


class Mosaic(Redirector):
    """In a latent space: a code is a coarse picture of the face, found once for all; the projector alone is trained."""

    factors = (Factor("head", 2, 4), Factor("gaze", 2, 4))
    wants_faces = True
    wants_codes = True

    def __init__(self) -> None:
        super().__init__()
        self.projector = nn.Linear(3 * CELLS**2, 2 * 2 + 2 * 12)
        self.deprojector = nn.Linear(2 * 12, 3 * CELLS**2)

    @torch.no_grad()
    def invert(self, image: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(image, CELLS).flatten(2)

    def generate(self, code: Tensor) -> Tensor:
        return nn.functional.interpolate(code.unflatten(2, (CELLS, CELLS)), size=SIZE)

    def encode(self, image: Tensor) -> Encoding:
        return self._encode_code(self.invert(image))

    def encode_pair(self, batch: dict[str, Tensor]) -> tuple[Encoding, Encoding]:
        if "w_plus_a" not in batch:
            return super().encode_pair(batch)
        return self._encode_code(batch["w_plus_a"]), self._encode_code(batch["w_plus_b"])

    def _encode_code(self, code: Tensor) -> Encoding:
        head, gaze, *embeddings = self.projector(code.flatten(1)).split((2, 2, 12, 12), dim=1)
        shaped = [embedding.unflatten(1, (3, 4)) for embedding in embeddings]
        named = dict(zip(("head", "gaze"), shaped, strict=True))
        return Encoding({"head": head, "gaze": gaze}, named, {"code": code - self._residual(named)})

    def code(self, encoding: Encoding) -> Tensor:
        return encoding.remainder["code"] + self._residual(encoding.embeddings)

    def decode(self, encoding: Encoding) -> Tensor:
        return self.generate(self.code(encoding))

    def _residual(self, embeddings: dict[str, Tensor]) -> Tensor:
        flat = torch.cat([embeddings[name].flatten(1) for name in ("head", "gaze")], dim=1)
        return self.deprojector(flat).unflatten(1, (3, CELLS**2))


def use(redirector: type[Redirector], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a line in build_redirector would do."""

    def make(config: object) -> Redirector:
        torch.manual_seed(0)
        return redirector()

    monkeypatch.setattr(build, "build_redirector", make)


def trained(folder: Path, *flags: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The checkpoint after 6 steps and the report of gc/test."""
    assert main(["own.json", *flags]) == 0
    report = json.loads((folder / "run" / "report" / "6" / "report.json").read_text())
    return torch.load(folder / "run" / "checkpoints" / "6.pt", weights_only=True), report["datasets"]["gc/test"]


def test_one_of_images_trains_resumes_and_is_evaluated(setup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Painter, monkeypatch)
    own = json.loads((setup / "config.json").read_text()) | {"save_path": "run", "num_training_steps": 6}
    (setup / "own.json").write_text(json.dumps(own))
    assert main(["own.json", "--num-training-steps", "3"]) == 0
    content, report = trained(setup)
    start = torch.load(setup / "run" / "checkpoints" / "3.pt", weights_only=True)
    assert {"encoder", "decoder", "discriminator"} <= content.keys()
    assert not torch.equal(content["encoder"]["weight"], start["encoder"]["weight"])
    assert {"gaze_redirection", "head_to_gaze", "l1"} <= report.keys()
    assert list((setup / "run" / "samples").glob("*/walk_gaze.mp4"))


def test_one_of_codes_trains_on_cached_inversions_of_aligned_faces(gan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Mosaic, monkeypatch)
    own = json.loads((gan / "config.json").read_text()) | {
        "save_path": "run", "num_training_steps": 6, "gazecapture_aligned_file": "faces.h5", "face_size": SIZE,
        "coeff_disentangle_embedding_loss": 0, "coeff_disentangle_pseudo_label_loss": 0, "inversions_path": "codes",
    }  # fmt: skip
    (gan / "own.json").write_text(json.dumps(own))
    content, report = trained(gan)
    assert {"projector", "deprojector"} <= content.keys()
    assert list((gan / "codes").glob("*/*.h5"))
    assert {"gaze_redirection", "head_to_gaze", "l1"} <= report.keys()
