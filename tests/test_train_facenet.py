"""The command that trains and measures estimators: its files, going on after a stop, and a user's mistakes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from core.command import UserError
from core.config_default import unused_by
from core.config_reader import load_config
from core.estimator import report as estimator_report
from core.estimator.build import training_estimator
from core.estimator.run import prepare_estimators
from core.estimator.spec import EstimatorSettings
from core.estimator.train import is_trained
from core.estimator.trainer import EstimatorTrainer, training_state
from models.load_pretrained_model import (
    best_checkpoint,
    build_estimator,
    estimator_checkpoint,
    find_estimator_checkpoint,
    load_estimator,
)
from tests.kills import kill_when
from tests.test_dataset_augmented import write_published
from tests.tiny import write_dataset
from train_facenet import main

ROOT = Path(__file__).resolve().parent.parent
STEPS = 6


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data of six persons, their split and config.json; it is the working folder. Plots are empty."""
    monkeypatch.chdir(tmp_path)
    for name in ("error_figure", "angle_figure"):  # half a second each
        monkeypatch.setattr(estimator_report, name, lambda _: Figure((0.1, 0.1)))
    write_dataset(tmp_path / "gc.h5", persons=6, samples=8)
    (tmp_path / "gazecapture_split.json").write_text(
        json.dumps({"train": ["00000", "00001", "00002"], "val": ["00003"], "test": ["00004", "00005"]})
    )
    config = {
        "gazecapture_file": "gc.h5", "gazenet_savepath": "gaze", "gazenet_backbone": "compact", "image_size": 64,
        "eval_gazenet_savepath": "eval", "eval_gazenet_backbone": "compact-residual", "test_subsample": 0.5,
        "estimator_num_steps": STEPS, "estimator_batch_size": 8, "estimator_num_labeled_samples": 20,
        "estimator_test_interval": 2, "estimator_save_interval": 2, "print_freq_train": 1, "num_data_loaders": 0,
        "estimator_learning_rate": 1e-3, "estimator_flip": True, "allow_downloads": False, "device": "cpu",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def _weights(folder: Path, step: int = STEPS) -> dict[str, Tensor]:
    return torch.load(estimator_checkpoint(folder, step), weights_only=True)


def _equal(u: dict[str, Tensor], v: dict[str, Tensor]) -> bool:
    return u.keys() == v.keys() and all(torch.equal(u[name], v[name]) for name in u)


def _stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's Ctrl-C comes while this step is made."""
    train_step = EstimatorTrainer.train_step

    def interrupted(self: EstimatorTrainer, batch: dict) -> dict:
        if self.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return train_step(self, batch)

    monkeypatch.setattr(EstimatorTrainer, "train_step", interrupted)


def test_a_run_leaves_everything_it_promises(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["config.json", "--use-tensorboard"]) == 0
    printed = capsys.readouterr().out
    assert "starts from random weights; there are no ImageNet weights of it" in printed
    assert "mpi: left out" in printed and "| gc/test | 16 |" in printed and "evaluation/report.md" in printed
    files = {path.name for path in (setup / "gaze" / "checkpoints").iterdir()}
    assert files == {"best.json", "best.pth.tar", "at_step_0000006.json", "at_step_0000006.pth.tar"}
    names = {"report.md", "report.json"} | {f"gc-{s}_{k}.png" for s in ("val", "test") for k in ("errors", "angles")}
    assert {path.name for path in (setup / "gaze" / "evaluation").iterdir()} == names
    report = json.loads((setup / "gaze" / "evaluation" / "report.json").read_text())
    assert set(report["datasets"]["gc/test"]["by_person"]) == {"00004", "00005"}
    assert report["checkpoint"] == "gaze/checkpoints/best.pth.tar" and report["training: samples"] == 20
    lines = [json.loads(line) for line in (setup / "gaze" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "gc/val/head_deg" in line] == [2, 4, 6]
    events = EventAccumulator(str(setup / "gaze" / "tensorboard"))
    events.Reload()
    tags = {"train/loss", "gc/val/gaze_deg", "gc/test/head_deg", "train/learning_rate", "train/images_per_s"}
    assert tags <= set(events.Tags()["scalars"])
    assert load_config(["gaze/config.json"], unused=unused_by("estimator")).estimator_num_steps == STEPS


@pytest.mark.slow
def test_a_run_from_a_notebooks_shell_draws_its_plots(setup: Path) -> None:
    command = [sys.executable, str(ROOT / "train_facenet.py"), "config.json", "--estimator-num-steps", "1"]
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(command, cwd=setup, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (setup / "gaze" / "evaluation" / "gc-test_angles.png").is_file()


def test_the_measuring_estimator_is_another_network_from_another_seed(setup: Path) -> None:
    assert main(["config.json", "--estimator", "eval_gazenet", "--seed", "3"]) == 0
    assert not (setup / "gaze").exists()
    load_estimator(setup / "eval", "compact-residual", key="eval_gazenet_savepath")
    facts = json.loads((setup / "eval" / "checkpoints" / "at_step_0000006.json").read_text())
    assert (facts["data"], facts["samples"], facts["seed"]) == ("gc/train", 20, 4)
    assert facts["validation"]["gc/val"]["samples"] == 4  # half of them


def test_a_finished_training_is_only_measured_again(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.json"]) == 0
    before = estimator_checkpoint(setup / "gaze", STEPS).read_bytes()
    (setup / "gaze" / "evaluation" / "report.json").unlink()
    assert main(["config.json", "--estimator-learning-rate", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "Training is complete" in printed and "other values of estimator_learning_rate; what was" in printed
    assert estimator_checkpoint(setup / "gaze", STEPS).read_bytes() == before
    assert (setup / "gaze" / "evaluation" / "report.json").is_file()


def test_a_stop_saves_and_the_same_command_goes_on(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config.json", "--gazenet-savepath", "whole"]) == 0
    with monkeypatch.context() as patched:
        _stop_at(3, patched)
        assert main(["config.json"]) == 130
    assert "Stopped at step 3; the same command continues" in capsys.readouterr().out
    assert main(["config.json", "--no-resume"]) == 2
    assert "resume is false, but gaze/checkpoints/training_state.pt is there" in capsys.readouterr().err
    (setup / "gaze" / "checkpoints" / ".best.pth.tar.1.tmp").touch()  # as a kill may leave it
    assert main(["config.json", "--estimator-test-interval", "3"]) == 0
    printed = capsys.readouterr().out
    assert "Continuing from gaze/checkpoints/training_state.pt (step 3)." in printed and "other values" not in printed
    assert _equal(_weights(setup / "whole"), _weights(setup / "gaze"))
    assert not list((setup / "gaze" / "checkpoints").glob(".*"))


def test_going_on_with_other_settings_is_said(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        _stop_at(3, patched)
        assert main(["config.json"]) == 130
    write_dataset(setup / "gc.h5", persons=6, samples=6)
    assert main(["config.json", "--seed", "1", "--no-estimator-flip"]) == 0
    printed = capsys.readouterr().out
    assert "other values of seed, estimator_flip, the number of samples; the training goes on" in printed


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(setup: Path) -> None:
    flags = ["--estimator-num-steps", "60", "--estimator-test-interval", "20", "--estimator-save-interval", "7"]
    assert main(["config.json", *flags, "--gazenet-savepath", "whole"]) == 0
    kill_when([str(ROOT / "train_facenet.py"), "config.json", *flags], setup, best_checkpoint(setup / "gaze").exists)
    assert not estimator_checkpoint(setup / "gaze", 60).exists() and training_state(setup / "gaze").is_file()
    assert main(["config.json", *flags]) == 0
    assert _equal(_weights(setup / "whole", 60), _weights(setup / "gaze", 60))
    metrics = [(setup / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "gaze")]
    steps = [[json.loads(line)["step"] for line in lines] for lines in metrics]
    assert steps[0] == steps[1]


def test_an_estimator_that_was_missing_goes_on_where_it_was_interrupted(
    setup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(["config.json", "--train-missing-estimators"], unused=unused_by("estimator"))
    wanted, folder = [training_estimator(config)], Path("gaze")
    with monkeypatch.context() as patched:
        _stop_at(3, patched)
        with pytest.raises(KeyboardInterrupt):
            prepare_estimators(config, wanted, torch.device("cpu"))
    # There are weights, the best of three steps: they must not pass for a trained estimator.
    assert find_estimator_checkpoint(folder) is not None and not is_trained(folder)
    later = config.model_copy(update={"train_missing_estimators": False})
    with pytest.raises(UserError, match="gazenet_savepath: the training of the estimator at gaze is not finished"):
        prepare_estimators(later, wanted, torch.device("cpu"))
    assert prepare_estimators(config, wanted, torch.device("cpu")).keys() == {"gazenet"}
    assert is_trained(folder)


def test_the_estimator_of_somebody_else_is_measured_where_it_lies(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_estimator("compact").state_dict(), "theirs.tar")
    assert main(["config.json", "--evaluate-only", "--gazenet-savepath", "theirs.tar"]) == 0
    assert "| gc/val | 8 |" in capsys.readouterr().out
    report = json.loads((setup / "theirs.tar_evaluation" / "evaluation" / "report.json").read_text())
    assert report["checkpoint"] == "theirs.tar" and len(report["sha256"]) == 64


def test_a_loss_that_is_not_finite_is_one_sentence(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.json", "--estimator-learning-rate", "1e38"]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: Loss is not finite at step") and "estimator_learning_rate" in message
    assert "details in gaze/error.txt" in message and (setup / "gaze" / "error.txt").is_file()
    assert not is_trained(Path("gaze"))


def test_the_embedded_data_set_is_made_where_it_is_missing(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--synthetic-data", "--synthetic-persons", "6", "--synthetic-samples", "4", "--mpiigaze-file"]
    flags += ["new/MPIIGaze_64.h5", "--gazecapture-file", "new/GazeCapture_64.h5", "--estimator-num-steps", "1"]
    flags += ["--gazecapture-split", "new/gazecapture_split.json"]
    assert main(["config.json", *flags]) == 0
    report = json.loads((setup / "gaze" / "evaluation" / "report.json").read_text())
    assert set(report["datasets"]) == {"gc/val", "gc/test", "mpi"}


def test_embedded_faces_are_made_along_with_the_patches_for_a_redirector_that_wants_them(setup: Path) -> None:
    flags = ["--synthetic-data", "--synthetic-persons", "6", "--synthetic-samples", "4", "--estimator-num-steps", "1"]
    flags += ["--gazecapture-file", "new/GazeCapture_64.h5", "--gazecapture-split", "new/gazecapture_split.json"]
    flags += ["--gazecapture-aligned-file", "new/GazeCapture_aligned_64.h5", "--redirector", "redirtrans-gan"]
    assert main(["config.json", *flags]) == 0  # later they could not be: the data set is made in one go
    assert (setup / "new" / "GazeCapture_aligned_64.h5").is_file()


def test_a_person_with_one_image_counts(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(setup / "single.h5", persons=2, samples=1)
    torch.save(build_estimator("compact").state_dict(), "theirs.tar")
    flags = ["--evaluate-only", "--gazenet-savepath", "theirs.tar", "--columbia-file", "single.h5"]
    assert main(["config.json", *flags]) == 0
    assert "| columbia | 2 |" in capsys.readouterr().out


def test_compile_is_said_to_have_no_effect(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.json", "--compile", "--estimator-num-steps", "1"]) == 0
    assert "warning: compile has no effect" in capsys.readouterr().out


def test_training_in_an_emulated_precision_is_warned_of(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert main(["config.json", "--precision", "bfloat16", "--estimator-num-steps", "1"]) == 0
    assert "warning: precision is bfloat16, and cpu here has no instructions" in capsys.readouterr().out


# A user's mistakes: what is done to the set-up, the flags, and what the message must say.


def _published_weights_there() -> None:
    estimator_checkpoint("gaze", 0).parent.mkdir(parents=True)
    torch.save(build_estimator("compact").state_dict(), estimator_checkpoint("gaze", 0))


def _a_state(content: object) -> None:
    training_state(Path("gaze")).parent.mkdir(parents=True)
    torch.save(content, training_state(Path("gaze")))


def _later_state() -> None:
    trainer = EstimatorTrainer(EstimatorSettings("compact", 9, 8, 1e-3), torch.device("cpu"))
    trainer.step = 9
    trainer.save(Path("gaze"), {"initialisation": "random"})


def _lose_person() -> None:
    with h5py.File("gc.h5", "a") as file:
        del file["00000/labels"]


MISTAKES = {
    "no folder": (lambda: None, ["--gazenet-savepath", "."], ["gazenet_savepath is not set", "name the folder"]),
    "no folder for the other": (lambda: None, ["--estimator", "eval_gazenet", "--eval-gazenet-savepath", "."],
                                ["eval_gazenet_savepath is not set"]),
    "no data": (lambda: None, ["--gazecapture-file", "."], ["gazecapture_file is not set"]),
    "missing data": (lambda: os.remove("gc.h5"), [], ["gc.h5", "no such file"]),
    "damaged data": (_lose_person, [], ["gc.h5", "00000", "'labels'"]),
    "a file for a folder": (lambda: Path("file").write_text(""), ["--gazenet-savepath", "file/x"],
                            ["gazenet_savepath", "file/x", "not a writable folder"]),
    "a folder that cannot be made": (lambda: None, ["--gazenet-savepath", "/proc/no/such"],
                                     ["gazenet_savepath", "/proc/no/such", "not a writable folder"]),
    "too few images for the share": (lambda: write_published(Path("r.h5"), a=9),
                                     ["--redirected-file", "r.h5", "--estimator-real-share", "0.25"],
                                     ["r.h5: 4 redirected images, fewer than the 6", "estimator_real_share 0.25"]),
    "fewer images than a batch": (lambda: None, ["--estimator-batch-size", "30"],
                                  ["20 labelled images", "30", "estimator_batch_size"]),
    "one image a batch": (lambda: None, ["--estimator-batch-size", "1"],
                          ["--estimator-batch-size is 1, but the compact networks normalise"]),
    "one image a batch, the other": (lambda: None, ["--estimator-batch-size", "1", "--estimator", "eval_gazenet"],
                                     ["--estimator-batch-size is 1, but the compact networks normalise"]),
    "one image a batch for two kinds": (lambda: write_published(Path("r.h5"), a=9),
                                        ["--redirected-file", "r.h5", "--estimator-real-share", "0.5",
                                         "--gazenet-backbone", "vgg16", "--estimator-batch-size", "1"],
                                        ["--estimator-real-share shares a batch"]),
    "no such weights": (lambda: None, ["--gazenet-backbone", "vgg16", "--estimator-init", "w.pth"],
                        ["estimator_init: w.pth", "no such file", "https://download.pytorch.org", "none"]),
    "bad weights": (lambda: torch.save({"conv.weight": torch.zeros(2)}, "w.pth"),
                    ["--gazenet-backbone", "vgg16", "--estimator-init", "w.pth"],
                    ["estimator_init: w.pth", "26 missing (features.0.bias", "1 unexpected (conv.weight)"]),
    "weights that are no PyTorch file": (lambda: Path("w.pth").write_text("no"),
                                         ["--gazenet-backbone", "vgg16", "--estimator-init", "w.pth"],
                                         ["w.pth", "not a PyTorch file"]),
    "nothing to measure": (lambda: None, ["--evaluate-only"],
                           ["gazenet_savepath", "at_step_0000000.pth.tar", "python train_facenet.py CONFIG.json"]),
    "nothing to measure, the other": (lambda: None, ["--evaluate-only", "--estimator", "eval_gazenet"],
                                      ["eval_gazenet_savepath", "CONFIG.json --estimator eval_gazenet"]),
    "nothing to measure on": (_published_weights_there, ["--evaluate-only", "--gazecapture-file", "."],
                              ["no data set to measure on", "mpiigaze_file"]),
    "weights of another training": (_published_weights_there, [],
                                    ["at_step_0000000.pth.tar is there", "another folder", "--evaluate-only"]),
    "state of something else": (lambda: _a_state({"epoch": 3}), [], ["training_state.pt", "Remove it"]),
    "state beyond the end": (_later_state, [], ["is at step 9, but estimator_num_steps is 6", "remove it"]),
    "no such GPU": (lambda: None, ["--device", "cuda:99"], ["cuda:99", "--device cpu"]),
    "the old flag": (lambda: None, ["--evaluator"], ["unknown setting --evaluator"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_message_and_nothing_is_written(
    mistake: str, setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, flags, fragments = MISTAKES[mistake]
    prepare()
    before = sorted(setup.rglob("*"))
    assert main(["config.json", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message and len(message.splitlines()) < 6
    for fragment in fragments:
        assert fragment in message, message
    assert sorted(setup.rglob("*")) == before


def test_the_shipped_files_are_the_published_settings() -> None:
    vgg, resnet, compact = (
        load_config([str(ROOT / "config" / f"estimator-{name}.json")], unused=unused_by("estimator"))
        for name in ("vgg", "resnet", "compact")
    )
    for config in (vgg, resnet):
        assert (config.estimator_batch_size, config.estimator_learning_rate) == (64, 1e-4)
        assert (config.estimator_lr_schedule, config.estimator_decay, config.estimator_decay_steps) == (
            "step",
            0.5,
            50000,
        )
        assert (config.estimator_num_labeled_samples, config.estimator_init) == (50000, "imagenet")
    assert (vgg.estimator, vgg.gazenet_backbone, vgg.gazenet_savepath) == (
        "gazenet", "vgg16", "pretrained_models/estimator_vgg",
    )  # fmt: skip
    assert (resnet.estimator, resnet.eval_gazenet_backbone, resnet.eval_gazenet_savepath) == (
        "eval_gazenet", "resnet50", "pretrained_models/estimator_resnet",
    )  # fmt: skip
    assert (compact.gazenet_backbone, compact.image_size, compact.synthetic_data) == ("compact", 64, True)
    flow = load_config([str(ROOT / "config" / "flow-quickstart.json")])  # whose faces are made otherwise
    assert Path(flow.gazecapture_file).parent != Path(compact.gazecapture_file).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_the_published_networks_train_by_their_shipped_files(name: str, setup: Path) -> None:
    flags = ["--gazecapture-file", "gc.h5", "--gazecapture-split", "gazecapture_split.json", "--estimator-init", "none"]
    flags += ["--estimator-num-steps", "2", "--estimator-batch-size", "4", "--num-data-loaders", "2"]
    flags += ["--gazenet-savepath", "gaze", "--eval-gazenet-savepath", "eval", "--device", "cpu"]
    assert main([str(ROOT / "config" / f"estimator-{name}.json"), *flags]) == 0
    folder = setup / {"vgg": "gaze", "resnet": "eval"}[name]
    assert best_checkpoint(folder).is_file() and (folder / "evaluation" / "gc-test_angles.png").is_file()
