"""The command with ReDirTrans: both variants from training to report, resuming, and what a user's mistakes lead to."""

import json
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision

from core import build
from core.files import file_sha256
from models import perceptual, stylegan2
from models.arcface import ArcFace
from models.e4e import E4EEncoder
from models.load_pretrained_model import build_estimator, estimator_checkpoint, load_e4e
from models.redirtrans import ReDirTransGAN
from models.stylegan2 import Generator
from preprocess.synthetic.dataset import make_dataset
from tests import test_train_st_ed
from tests.test_train_st_ed import equal
from tests.tiny import SIZE, tiny_pair
from train_st_ed import main

ROOT = Path(__file__).resolve().parent.parent
setup = test_train_st_ed.setup  # the fixture: a folder with data, estimators and config.json
PAIR = "pair.pt"


def write_pair(path: Path, seed: int = 0) -> None:
    """A random pair in the layout of e4e's release."""
    encoder, generator, average = tiny_pair(seed)
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    state |= {f"decoder.{k}": v for k, v in generator.state_dict().items()}
    torch.save({"state_dict": state, "latent_avg": average, "opts": {}}, path)


def align(path: Path) -> None:
    """Make a data file one of aligned faces: a patch is the middle of the face, a little turned."""
    with h5py.File(path, "a") as file:
        file.attrs.update({"view": "ffhq-aligned", "patch_size": SIZE})
        for group in file.values():
            count = len(group["labels"])
            homography = np.array([[1.4, 0.05, -14.0], [-0.05, 1.4, -12.0], [0.0, 0.0, 1.0]])
            group["homography"] = np.tile(homography, (count, 1, 1))
            points = np.array([[22, 28], [42, 28], [32, 38], [25, 48], [39, 48]], float)
            group["points"] = np.tile(points, (count, 1, 1))


@pytest.fixture
def gan(setup: Path) -> Path:
    """A folder with patches, aligned faces, a random pair, two estimators and gan.json; it is the working folder."""
    (setup / "faces.h5").write_bytes((setup / "gc.h5").read_bytes())
    align(setup / "faces.h5")
    write_pair(setup / PAIR)
    config = json.loads((setup / "config.json").read_text()) | {
        "redirector": "redirtrans-gan", "gazecapture_aligned_file": "faces.h5", "face_size": SIZE, "e4e_weights": PAIR,
        "projector_width": 8, "deprojector_width": 8, "coeff_disentangle_embedding_loss": 0, "coeff_l1_loss": 0,
        "coeff_l2_loss": 8, "coeff_latent_loss": 1, "coeff_delta_loss": 0.01, "coeff_gaze_loss": 1,
        "coeff_discriminator_loss": 0.1, "discriminator_warmup_steps": 0,
    }  # fmt: skip
    (setup / "gan.json").write_text(json.dumps(config))
    return setup


def trained(folder: Path, step: int = 6) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / f"{step}.pt", weights_only=True)
    parts = ("projector", "deprojector", "discriminator")
    return {f"{m}.{k}": v for m in parts for k, v in content[m].items()}


def test_the_first_variant_runs_resumes_and_reports(setup: Path) -> None:
    arguments = ["config.json", "--redirector", "redirtrans"]
    assert main(arguments) == 0
    assert main([*arguments, "--save-path", "parts"]) == 0
    (setup / "parts" / "checkpoints" / "6.pt").unlink()
    assert main([*arguments, "--save-path", "parts"]) == 0
    assert equal(trained(setup / "run"), trained(setup / "parts"))
    report = json.loads((setup / "run" / "report" / "6" / "report.json").read_text())
    assert {"gaze_redirection", "head_to_gaze", "l1_person_mean"} <= report["datasets"]["gc/test"].keys()
    assert "gaze_disentangle" not in report["datasets"]["gc/test"]  # there are no other factors
    assert main([*arguments, "--skip-training", "--load-step", "6"]) == 0


def test_the_gan_leaves_everything_it_promises(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan.json"]) == 0
    run = gan / "run"
    content = torch.load(run / "checkpoints" / "6.pt", weights_only=True)
    assert not {"encoder", "decoder"} & content.keys() and len(content["frozen"]["e4e_weights"]) == 64
    names = {path.name for path in (run / "samples").glob("*.png")}
    assert {"step_6.png", "layer_weights_6.png"} <= names
    report = json.loads((run / "report" / "6" / "report.json").read_text())
    assert report["datasets"]["gc/test"]["gaze_redirection"]["count"] == 6
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"train/l2", "train/latent", "train/delta", "train/generator"} <= lines[0].keys()
    assert list((gan / "inversions").glob("faces-*/*.h5"))
    capsys.readouterr()
    assert main(["gan.json", "--skip-training", "--load-step", "6"]) == 0
    assert "Loaded run/checkpoints/6.pt (step 6)" in capsys.readouterr().out


def test_a_resumed_gan_equals_an_uninterrupted_one_with_its_pools(gan: Path) -> None:
    assert main(["gan.json"]) == 0
    assert main(["gan.json", "--save-path", "parts"]) == 0
    for step in (6, 4):
        (gan / "parts" / "checkpoints" / f"{step}.pt").unlink()
    assert main(["gan.json", "--save-path", "parts", "--num-data-loaders", "2"]) == 0
    assert equal(trained(gan / "run"), trained(gan / "parts"))


def test_computing_the_generator_again_changes_no_weight(gan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    again = stylegan2.checkpoint
    monkeypatch.setattr(stylegan2, "checkpoint", lambda *given, **how: calls.append(1) or again(*given, **how))
    assert main(["gan.json"]) == 0 and not calls
    assert main(["gan.json", "--save-path", "again", "--checkpoint-generator"]) == 0 and calls
    for name, value in trained(gan / "run").items():
        assert torch.allclose(value, trained(gan / "again")[name], rtol=1e-4, atol=1e-6), name


def test_patches_stand_in_for_aligned_faces_and_the_log_says_what_that_costs(
    gan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gan.json", "--gazecapture-aligned-file", ".", "--num-training-steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "gc/train: normalised patches, enlarged to 64 px, stand for aligned faces" in printed
    assert "gazecapture_aligned_file is better" in printed


def test_a_missing_aligned_file_is_named_with_the_way_out(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan.json", "--gazecapture-aligned-file", "none.h5"]) == 2
    assert "gazecapture_aligned_file: none.h5: no such file" in (error := capsys.readouterr().err)
    assert "set it to '.' to use the patches of gazecapture_file" in error
    flags = ["--mpiigaze-file", "gc.h5", "--mpiigaze-aligned-file", "none.h5", "--num-training-steps", "2"]
    assert main(["gan.json", *flags]) == 0
    assert "mpi: left out, since mpiigaze_aligned_file (none.h5) is not there. Set it" in capsys.readouterr().out


def test_faces_alone_are_evaluated_where_the_patches_are_missing(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gan / "gc.h5").unlink()
    assert main(["gan.json", "--num-training-steps", "2"]) == 0
    assert json.loads((gan / "run/report/2/report.json").read_text())["datasets"].keys() == {"gc/val", "gc/test"}


def test_an_evaluation_trains_no_pair(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--train-missing-pair", "--e4e-weights", "new.pt", "--skip-training", "--load-step", "2"]
    (gan / "run" / "checkpoints").mkdir(parents=True)
    (gan / "run" / "checkpoints" / "2.pt").touch()
    assert main(["gan.json", *flags]) == 2
    assert "e4e_weights: new.pt: no such file" in capsys.readouterr().err
    assert not (gan / "new.pt").exists()


def test_a_pair_of_other_settings_is_used_with_a_warning(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan.json", "--train-missing-pair", "--num-training-steps", "2"]) == 0
    assert "warning: pair.pt was not trained here; it is used as it is" in capsys.readouterr().out


def test_settings_of_other_redirectors_are_warned_of(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan.json", "--carry-colour", "--num-training-steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "carry_colour" in printed and "have no effect on redirtrans-gan." in printed
    flags = ["--redirector", "redirtrans", "--stylegan2-weights", "x.pt", "--num-training-steps", "2"]
    flags += ["--save-path", "other"]
    assert main(["config.json", *flags]) == 0
    assert "warning: stylegan2_weights has no effect on redirtrans." in capsys.readouterr().out


def test_no_memory_for_the_inversions_is_one_message(
    gan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(build, "invert_dataset", fail)
    assert main(["gan.json"]) == 2
    assert "error: CUDA out of memory" in capsys.readouterr().err


def test_weights_around_another_pair_are_refused(gan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan.json", "--num-training-steps", "2"]) == 0
    write_pair(gan / PAIR, seed=1)
    assert main(["gan.json"]) == 2
    assert "2.pt: was trained with another file at e4e_weights" in capsys.readouterr().err
    assert not (gan / "run" / "checkpoints" / "4.pt").exists()


@pytest.mark.slow
def test_the_published_sizes_train_two_steps_and_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/ReDirTrans-GAN.json as it is, around random weights of the published sizes: e4e, 1024 px, VGG16, ArcFace,
    LPIPS; batch 1."""
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "data", persons=6, samples=2, seed=0, aligned_size=256, workers=1, progress=False)
    split = {"train": ["00000", "00001", "00002"], "val": ["00003"], "test": ["00004", "00005"]}
    (tmp_path / "data" / "gazecapture_split.json").write_text(json.dumps(split))
    files = tmp_path / "pretrained_models"
    torch.manual_seed(0)
    for name, backbone in (("estimator_vgg", "vgg16"), ("estimator_resnet", "resnet50")):
        path = estimator_checkpoint(files / name, 0)
        path.parent.mkdir(parents=True)
        torch.save(build_estimator(backbone).state_dict(), path)
    torch.save(ArcFace().state_dict(), files / "r50_backbone.pth")
    torch.save(torchvision.models.alexnet().state_dict(), files / "alexnet.pth")
    digest = file_sha256(files / "alexnet.pth")
    monkeypatch.setattr(perceptual, "TRUNK_URL", f"https://some.where/alexnet-{digest[:8]}.pth")
    generator = Generator(1024)
    state = {f"encoder.{key}": value for key, value in E4EEncoder().state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in generator.state_dict().items()}
    latent_avg = generator.rows(generator.mean_w(100)[None])[0].clone()
    torch.save({"state_dict": state, "latent_avg": latent_avg, "opts": {}}, files / "e4e_ffhq_encode.pt")
    del generator, state
    built: list[ReDirTransGAN] = []
    original = build.build_redirector
    monkeypatch.setattr(build, "build_redirector", lambda config: built.append(original(config)) or built[-1])
    flags = ["--gazecapture-split", "data/gazecapture_split.json", "--num-data-loaders", "0", "--walk-frames", "0"]
    flags += ["--lpips-weights", str(files / "alexnet.pth"), "--batch-size", "1", "--eval-batch-size", "1"]
    for name in ("mpiigaze", "columbia", "eyediap"):
        flags += [f"--{name}-file", ".", f"--{name}-aligned-file", "."]
    flags += ["--no-eval-disentanglement"]
    flags += ["--num-sample-persons", "1"]
    assert main([str(ROOT / "config/ReDirTrans-GAN.json"), *flags, "--num-training-steps", "2"]) == 0
    run = tmp_path / "runs" / "ReDirTrans-GAN"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = {"l2", "lpips", "identity", "latent", "gaze_a", "head_a", "gaze_redirection", "embedding_consistency"}
    assert {f"train/{name}" for name in expected} <= lines[-2].keys() | lines[0].keys()
    assert (run / "checkpoints" / "2.pt").stat().st_size < 60e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory {peak / 1e9:.1f} GB")
    assert peak < 24e9
    encoder, generator, _ = load_e4e(files / "e4e_ffhq_encode.pt")
    for part, stored in ((built[0].encoder, encoder), (built[0].decoder, generator)):
        assert equal(part.state_dict(), stored.state_dict())
    evaluation = [str(ROOT / "config/ReDirTrans-GAN-eval.json"), *flags, "--load-step", "2"]
    assert main(evaluation) == 0
    assert (run / "report" / "2" / "report.json").is_file()


@pytest.mark.slow
def test_around_a_small_pair_the_gan_redirects_persons_it_never_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof without the published weights: config/ReDirTrans-GAN-quickstart.json with fewer steps and pictures."""
    monkeypatch.chdir(tmp_path)
    flags = ["--pair-num-steps", "1600", "--num-training-steps", "600", "--synthetic-persons", "300"]
    flags += ["--walk-frames", "0", "--no-eval-disentanglement", "--save-path", "run"]
    assert main([str(ROOT / "config/ReDirTrans-GAN-quickstart.json"), *flags]) == 0
    pair = torch.load(tmp_path / "runs/quickstart-pair/pair_64.pt", weights_only=True)
    assert pair["held_out"]["l1"] < 0.5 * pair["held_out"]["mean_image_l1"]
    report = json.loads((tmp_path / "run/report/600/report.json").read_text())
    ratios, means = report["ratios"]["gc/test"], report["datasets"]["gc/test"]
    assert ratios["gaze_redirection"] <= 0.60 < ratios["gaze_label_blind"]
    assert ratios["head_redirection"] <= 0.45 < ratios["head_label_blind"]
    assert means["l1"]["mean"] < means["l1_no_redirection"]["mean"]


NEW_PAIR = ["--train-missing-pair", "--e4e-weights", "new.pt"]
MISTAKES = {
    "no pair": (["--e4e-weights", "."], "--e4e-weights names no file, but redirtrans-gan needs e4e_ffhq_encode.pt"),
    "missing pair": (["--e4e-weights", "none.pt"], "e4e_weights: none.pt"),
    "no ArcFace": (
        ["--coeff-identity-loss", "5"],
        "'arcface_weights' (not given) names no file",
    ),
    "missing ArcFace": (
        ["--coeff-identity-loss", "5", "--arcface-weights", "r50.pth"],
        "arcface_weights: r50.pth",
    ),
    "no LPIPS": (["--coeff-lpips-loss", "5"], "lpips_weights: coeff_lpips_loss is 5, but LPIPS' AlexNet"),
    "mixing": (["--coeff-disentangle-embedding-loss", "1"], "re-encodes images"),
    "mirror": (["--mirror-augmentation"], "cannot be mirrored"),
    "redirected data": (["--store-redirect-dataset"], "makes aligned faces"),
    "prior": (["--layer-weights-prior", '{"gaze": [1, 1]}'], "layer_weights_prior: 2 weights of 'gaze', expected 8"),
    "prior for networks to be trained": (
        [*NEW_PAIR, "--layer-weights-prior", '{"gaze": [1, 1]}'],
        "layer_weights_prior: 2 weights of 'gaze', expected 10",
    ),
    "no features for networks to be trained": (
        [*NEW_PAIR, "--gazenet-backbone", "resnet50"],
        "gazenet_backbone: is resnet50, which has no feature maps",
    ),
    "too few samples for networks to be trained": ([*NEW_PAIR, "--batch-size", "50"], "fewer than a batch of 50"),
    "prior of whom": (["--layer-weights-prior", '{"nose": [1]}'], "--layer-weights-prior names nose, expected"),
    "GAN term elsewhere": (["--redirector", "st-ed"], "redirtrans-gan's; set them 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_with_one_message_and_leave_nothing(
    mistake: str, gan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(gan / "hub"))
    arguments, message = MISTAKES[mistake]
    assert main(["gan.json", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (gan / "run").exists() and not list(gan.glob("new.pt*"))
