"""A redirector as an ONNX file: the same as PyTorch's, used without this project, mistakes with a sentence."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import redirect
from checkpoints_manager import save_checkpoint
from core.build import build_redirector
from core.command import UserError
from core.config_default import Config
from core.redirection import export as room
from core.redirection.equalizing import Equalized
from core.redirection.export import PARTS, Whole, about, export
from core.redirection.faces import PhotoFace
from core.redirection.fade import EXTENT, MAP_SIDE
from core.redirection.load import load
from core.redirection.paste import carried, paste
from models.redirector import Redirector
from tests import photos
from tests.photos import TINY
from tests.tiny import SIZE, random_batch, tiny_flow, tiny_redirector, tiny_redirtrans

ROOT = Path(__file__).resolve().parent.parent
NEEDED = [pytest.importorskip(name, reason="needs requirements-export.txt") for name in room.PACKAGES]
ort = NEEDED[-1]
ANGLES = np.float32([[0.1, -0.3], [np.nan, np.nan], [0.0, 0.2], [-0.2, 0.1]])


def stirred(redirector: Redirector) -> Redirector:
    """One whose flows and shares are not those before training."""
    for name, layer in redirector.named_modules():
        if name in ("decoder.coarse", "decoder.fine.out", "eyes.net.out"):
            nn.init.normal_(layer.weight, std=0.02)
    return redirector.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the redirector that carries pixels."""
    folder, config = tmp_path_factory.mktemp("run"), Config(redirector="st-ed-flow", **TINY)
    torch.manual_seed(0)
    redirector = stirred(build_redirector(config))
    save_checkpoint(folder, 3, dict(redirector.named_children()), {}, {"config": config.to_json()})
    return folder


@pytest.fixture(scope="module")
def run(trained: Path) -> Path:
    """With model.onnx of it, which takes half a minute."""
    assert redirect.main(["--export", str(trained / "model.onnx"), "--checkpoint", str(trained)]) == 0
    return trained


def outputs_of(path: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_like_pytorch(path: Path, redirector: Redirector) -> None:
    for rows in (slice(0, 1), slice(0, 4)):
        image, gaze, head = random_batch()["image_a"][rows], ANGLES[rows], ANGLES[::-1].copy()[rows]
        found = outputs_of(path, image=image.numpy(), gaze=gaze, head=head)
        with torch.no_grad():
            wanted = Whole(redirector)(image, torch.from_numpy(gaze), torch.from_numpy(head))
        for (name, value), expected in zip(found.items(), wanted, strict=True):
            assert np.abs(value - expected.numpy()).max() < 1e-3, name


@pytest.mark.parametrize(
    "make", [tiny_redirector, pytest.param(lambda: tiny_redirtrans(carry_colour=True), marks=pytest.mark.slow)]
)
def test_onnxruntime_gives_what_pytorch_gives_for_any_batch(make, tmp_path: Path):
    redirector = make().eval()
    assert export(photos.loaded(redirector), tmp_path / "model.onnx") < 1e-3
    assert_like_pytorch(tmp_path / "model.onnx", redirector)


@pytest.mark.slow
def test_the_command_writes_flows_shares_and_paint_of_a_redirector_that_carries_pixels(run: Path):
    assert_like_pytorch(run / "model.onnx", load(run, device="cpu").redirector)
    made = outputs_of(run / "model.onnx", image=random_batch()["image_a"].numpy(), gaze=ANGLES, head=ANGLES)
    warp, mirror, paint = (made[name] * made["shares"][:, i : i + 1] for i, name in enumerate(PARTS[2:5]))
    assert np.abs(warp + mirror + paint - made["redirected"]).max() < 1e-5
    assert np.abs(made["flow"][0]).max() > 0.01 > np.abs(made["flow"][1]).max()


def test_what_is_not_asked_for_stays_as_it_is():
    redirector, image = tiny_flow().eval(), random_batch()["image_a"]
    nan, gaze = torch.full((4, 2), torch.nan), torch.full((4, 2), 0.3)
    with torch.no_grad():
        redirected, source_gaze, source_head, *_ = Whole(redirector)(image, gaze, nan)
        assert torch.equal(Whole(redirector)(image, nan, nan)[0], image)
        assert torch.equal(redirected, Whole(redirector)(image, gaze, source_head)[0])
        assert torch.equal(source_gaze, redirector.encode(image).conditions["gaze"])


@pytest.mark.slow
def test_the_file_says_what_it_expects_and_nothing_of_this_machine(run: Path):
    session = ort.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    assert said == about(load(run, device="cpu"))
    assert said["redirector"] == "st-ed-flow" and said["image_size"] == "64" and "focal length 250 px" in said["camera"]
    named = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
    assert named == said.keys() - {"redirector", "image_size", "camera"}
    assert {value.shape[0] for value in session.get_inputs()} == {"batch"}
    content = (run / "model.onnx").read_bytes()
    assert str(ROOT).encode() not in content and b"site-packages" not in content


def test_the_page_names_every_input_and_output():
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    assert [name for name in room.MEANING if f"| `{name}`" not in page and f"`, `{name}`" not in page] == []


@pytest.mark.slow
def test_the_example_of_the_page_works_without_this_project(run: Path, tmp_path: Path):
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line]) <= 20
    (tmp_path / "model.onnx").write_bytes((run / "model.onnx").read_bytes())
    patch = cv2.resize(photos.photograph(photos.make_person())[150:330, 150:330], (192, 192))
    cv2.imwrite(str(tmp_path / "patch.png"), patch[:, :, ::-1])
    done = subprocess.run([sys.executable, "-c", "".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, asked = load(run, device="cpu"), torch.tensor([[0.0, float(np.radians(15))]], dtype=torch.float32)
    seen = Equalized(patch, SIZE)
    with torch.no_grad():
        source = loaded.redirector.encode(seen.tensor(loaded.device))
        decoded = loaded.redirector.decode_parts(loaded.redirector.rotate(source, {"gaze": asked}))
    small, large = (cv2.imread(str(tmp_path / f"{name}.png"))[:, :, ::-1] for name in ("redirected", "large"))
    expected = (decoded.image[0].permute(1, 2, 0).clip(-1, 1) + 1) * 127.5
    assert np.abs(small - expected.numpy()).max() < 1
    assert np.abs(large - _carried(patch, seen, decoded.parts)).mean() < 1
    assert np.abs(large - patch.astype(float)).mean() > 3


def _carried(patch: np.ndarray, seen: Equalized, parts) -> np.ndarray:
    """What redirect.py makes of a patch that is the whole photograph, without a fade."""
    ratio = 128 / len(patch)
    shift = ratio / 2 - 0.5
    to_patch = np.array([[ratio, 0, shift], [0, ratio, shift], [0, 0, 1]])
    face = PhotoFace(1, np.zeros((68, 2)), to_patch, np.eye(3), np.zeros(2), np.eye(3))
    everywhere = np.ones((MAP_SIDE, MAP_SIDE, 2), np.float32)
    assert EXTENT >= 1
    return paste(patch, face, everywhere, carried(patch, face, seen, parts)).astype(float)


def test_mistakes_get_one_clear_sentence(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    torch.save({"projector": {}, "config": Config(redirector="redirtrans-gan").to_json()}, tmp_path / "gan.pt")
    out = str(tmp_path / "model.onnx")
    for arguments, message in (
        (["--export", out, "--checkpoint", str(tmp_path / "gan.pt")], "redirtrans-gan, which redirects aligned faces"),
        (["--export", "model.pt", "--checkpoint", str(trained)], "model.pt is no name of an ONNX file"),
        (["--export", "/proc/model.onnx", "--checkpoint", str(trained)], "--export: /proc cannot be written"),
        (["--gaze", "0", "0", "--checkpoint", str(trained)], "name a photograph or a video, or give --webcam"),
    ):
        assert redirect.main(arguments) == 2, message
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    with pytest.raises(SystemExit):
        redirect.main(["in.png", "--gaze", "0", "0", "--export", out, "--checkpoint", str(trained)])
    assert "--export goes with --checkpoint and --config alone, leave out photo, gaze" in capsys.readouterr().err
    monkeypatch.setattr(room, "PACKAGES", ("onnx", "not_there"))
    assert redirect.main(["--export", out, "--checkpoint", str(trained)]) == 2
    said = "packages that are not installed: not_there. Install them: pip install -r requirements-export.txt"
    assert said in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_pytorch_that_cannot_export_is_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("no such operation")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert redirect.main(["--export", str(tmp_path / "model.onnx"), "--checkpoint", str(trained)]) == 2
    said = f"redirect.py: --export: PyTorch {torch.__version__} cannot export this network. Take newer ones: pip"
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_file_that_onnxruntime_cannot_run_is_said_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "_exported", lambda *_: _Program())  # an empty file
    with pytest.raises(UserError, match=f"onnxruntime {ort.__version__} cannot run what PyTorch .* writes. Take newer"):
        export(photos.loaded(tiny_redirector()), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "difference", lambda *_: float("nan"))
    monkeypatch.setattr(room, "_exported", lambda *_: _Program())
    with pytest.raises(ValueError, match="onnxruntime and PyTorch differ by nan"):
        export(photos.loaded(tiny_redirector()), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class _Program:
    """In place of PyTorch's, which takes seconds to make."""

    def __init__(self) -> None:
        self.model = self
        self.metadata_props: dict[str, str] = {}

    def save(self, path: Path) -> None:
        path.write_bytes(b"")
