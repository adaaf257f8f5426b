"""The command: a whole small run, its files, resuming after a kill, and what a user's mistakes lead to."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from checkpoints_manager import saved_steps
from core.config_default import Config
from core.redirection.load import load as load_redirector
from tests.kills import kill_when
from tests.once import once
from tests.test_checkpoints import flip_a_weight
from tests.tiny import write_dataset
from train_st_ed import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """See `write_setup`; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_setup(tmp_path)


@pytest.fixture
def finished(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`setup` after the command, whose run was made elsewhere, once for all tests."""
    shutil.copytree(run_once(tmp_path_factory) / "run", setup / "run")
    return setup


def run_once(factory: pytest.TempPathFactory, *flags: str) -> Path:
    """A folder of `write_setup` after the command with these flags; to be read or copied, never changed."""

    def make(folder: Path) -> None:
        write_setup(folder)
        assert main(["config.json", *flags]) == 0

    return once(factory, ("run", flags), make)


def write_setup(folder: Path) -> Path:
    """Data, split, two estimators that never trained, and config.json."""
    from models.load_pretrained_model import build_estimator, estimator_checkpoint

    write_dataset(folder / "gc.h5", persons=4, samples=6)
    (folder / "gazecapture_split.json").write_text(
        json.dumps({"train": ["00000", "00001"], "val": ["00002"], "test": ["00003"]})
    )
    for name, backbone in (("train", "compact"), ("eval", "compact-residual")):
        path = estimator_checkpoint(folder / name, 0)
        path.parent.mkdir(parents=True)
        torch.manual_seed(0)
        torch.save(build_estimator(backbone).state_dict(), path)
    config = {
        "gazecapture_file": "gc.h5", "save_path": "run", "gazenet_savepath": "train", "eval_gazenet_savepath": "eval",
        "gazenet_backbone": "compact", "eval_gazenet_backbone": "compact-residual", "image_size": 64,
        "densenet_blocks": 3, "growth_rate": 2, "size_0d_unit": 8, "num_1d_units": 1, "num_2d_units": 2,
        "fc_embedding_width": 16, "discriminator_width": 2, "batch_size": 4, "num_data_loaders": 0,
        "num_training_steps": 6, "save_interval": 2, "print_freq_train": 1, "print_freq_test": 3,
        "save_freq_images": 3, "test_subsample": 0.5, "walk_frames": 4, "use_tensorboard": True,
        "allow_downloads": False, "coeff_disentangle_embedding_loss": 1, "device": "cpu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def final_weights(folder: Path, step: int = 6) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints" / f"{step}.pt", weights_only=True)
    return {f"{m}.{k}": v for m in ("encoder", "decoder", "discriminator") for k, v in content[m].items()}


def equal(u: dict[str, torch.Tensor], v: dict[str, torch.Tensor]) -> bool:
    return u.keys() == v.keys() and all(torch.equal(u[name], v[name]) for name in u)


def test_a_run_leaves_everything_it_promises(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.json"]) == 0
    printed = capsys.readouterr().out
    assert "Report:" in printed and "run/report/6/report.md" in printed
    assert "mpi: left out, since mpiigaze_file is not set." in printed
    assert "LPIPS is left out" in printed
    run = setup / "run"
    assert [int(path.stem) for path in sorted((run / "checkpoints").iterdir())] == [2, 4, 6]
    assert json.loads((run / "config.json").read_text())["growth_rate"] == 2
    environment = json.loads((run / "environment.json").read_text())
    assert "torch" in environment["libraries"] and environment["threads"] == torch.get_num_threads()
    assert environment["device"] == "cpu"
    names = zipfile.ZipFile(run / "source.zip").namelist()
    assert "train_st_ed.py" in names and "core/trainer.py" in names
    report = json.loads((run / "report" / "6" / "report.json").read_text())
    assert report["datasets"]["gc/test"]["gaze_redirection"]["count"] == 6
    assert {path.name for path in (run / "report" / "6").iterdir()} >= {"gc-test.png", "walk_gaze.png", "report.md"}
    assert (run / "samples" / "00003" / "redirected.png").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/l1" in line] == [1, 2, 3, 4, 5, 6]
    assert any("gc/test/gaze_redirection" in line for line in lines)


def test_tensorboard_has_scalars_and_images_under_their_names(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "run" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/l1", "train/gaze_a", "train/generator", "gc/val/head_redirection"} <= set(tags["scalars"])
    assert {"samples/comparison", "full/gc/test"} <= set(tags["images"])
    assert [event.step for event in events.Scalars("train/l1")] == [1, 2, 3, 4, 5, 6]


def test_the_snapshot_never_holds_the_run_folder(setup: Path) -> None:
    from core.record import snapshot

    inside = ROOT / "config"
    snapshot(setup / "source.zip", inside)
    names = zipfile.ZipFile(setup / "source.zip").namelist()
    assert names and not [name for name in names if name.startswith("config/")]


def test_resuming_equals_an_uninterrupted_run_and_workers_change_nothing(finished: Path) -> None:
    shutil.copytree(finished / "run", finished / "parts")
    (finished / "parts" / "checkpoints" / "6.pt").unlink()
    (finished / "parts" / "checkpoints" / "4.pt").unlink()
    assert main(["config.json", "--save-path", "parts", "--num-data-loaders", "2"]) == 0
    assert equal(final_weights(finished / "run"), final_weights(finished / "parts"))


def add_groups(path: Path, numbers: list[int]) -> None:
    with h5py.File(path, "r+") as file:
        for person in file.values():
            person["group"] = numbers


def test_a_resumed_run_writes_the_same_bytes_and_a_damaged_checkpoint_names_the_flag_that_passes_it_over(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = finished / "run" / "checkpoints" / "6.pt"
    whole = last.read_bytes()
    last.unlink()
    assert main(["config.json"]) == 0
    assert last.read_bytes() == whole
    flip_a_weight(last)
    assert main(["config.json"]) == 2
    assert "4.pt: --load-step 4 takes it." in capsys.readouterr().err
    assert main(["config.json", "--load-step", "2"]) == 0
    assert "6.pt is damaged; the newest sound checkpoint is 4.pt" in capsys.readouterr().out
    assert equal(final_weights(finished / "run"), torch_weights(whole))


def torch_weights(content: bytes) -> dict[str, torch.Tensor]:
    stored = torch.load(io.BytesIO(content), weights_only=True)
    return {f"{m}.{k}": v for m in ("encoder", "decoder", "discriminator") for k, v in stored[m].items()}


def test_a_run_with_pairs_within_groups_resumes_to_the_same_weights(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_groups(setup / "gc.h5", [0, 1, 1, 2, 2, 2])
    within = ["config.json", "--pairs-within-group", "0.5", "--eval-pairs-within-group"]
    assert main([*within, "--save-path", "parts"]) == 0
    printed = capsys.readouterr().out
    for dataset, numbers in (("gc/train", "2 of 12"), ("gc/test", "1 of 6")):
        assert printed.count(f"{dataset}: {numbers} images are the only ones of their groups; their partners are") == 1
    assert "partners" in (setup / "parts" / "report" / "6" / "report.md").read_text(encoding="utf-8")
    assert main(["config.json"]) == 0
    assert not equal(final_weights(setup / "run"), final_weights(setup / "parts"))
    whole = final_weights(setup / "parts")
    for step in (4, 6):
        (setup / "parts" / "checkpoints" / f"{step}.pt").unlink()
    assert main([*within, "--save-path", "parts", "--num-data-loaders", "2"]) == 0
    assert equal(final_weights(setup / "parts"), whole)


def test_pairs_within_groups_that_the_file_does_not_have_end_the_run_before_it_starts(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config.json", "--pairs-within-group", "1"]) == 2
    assert "gc.h5: no data sets 'group' in it, but pairs_within_group is 1. Set it to 0" in capsys.readouterr().err
    assert not (setup / "run").exists()
    assert main(["config.json", "--eval-pairs-within-group", "--num-training-steps", "1"]) == 0
    assert "gc/test: no groups in it; partners are any other images of the person." in capsys.readouterr().out


def test_a_finished_run_is_not_trained_again_but_evaluated(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "run" / "checkpoints" / "6.pt").read_bytes()
    assert main(["config.json"]) == 0
    assert "Training is complete (6 steps)" in capsys.readouterr().out
    assert (finished / "run" / "checkpoints" / "6.pt").read_bytes() == before


def test_a_folder_with_checkpoints_is_continued_or_refused_never_mixed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = ["config.json", "--num-training-steps", "8", "--no-compute-full-result"]
    assert main([*longer, "--no-resume"]) == 2
    assert "6.pt is there" in capsys.readouterr().err
    assert main([*longer, "--load-step", "4"]) == 0
    assert "newest checkpoint, step 6, rather than from load_step 4" in capsys.readouterr().out
    for step in (6, 8):
        (finished / "run" / "checkpoints" / f"{step}.pt").unlink()
    assert main([*longer, "--load-step", "4", "--no-resume"]) == 0
    assert "Loaded run/checkpoints/4.pt" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_image_that_cannot_be_read_is_named_without_a_traceback(
    workers: str, setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("gc.h5", "a") as file:
        pixels = file["00000/pixels"][()]
        del file["00000/pixels"]
        file["00000"].create_dataset("pixels", data=pixels, chunks=(1, 64, 64, 3), compression="gzip")
        place = file["00000/pixels"].id.get_chunk_info(0)
    with open("gc.h5", "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    assert main(["config.json", "--num-data-loaders", workers]) == 1
    message = capsys.readouterr().err.split("error: ")[1]
    assert "gc.h5" in message and "00000" in message and "Traceback" not in message


@pytest.mark.parametrize("flags", [["--precision", "bfloat16"], ["--semi-supervised", "--num-labeled-samples", "6"]])
def test_other_ways_of_training_run_to_their_report(flags: list[str], setup: Path) -> None:
    assert main(["config.json", *flags]) == 0
    assert (setup / "run" / "report" / "6" / "report.md").is_file()


def test_a_checkpoint_is_used_with_the_colour_setting_it_was_trained_with(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config.json", "--carry-colour", "--no-compute-full-result"]) == 0
    assert main(["config.json", "--skip-training", "--load-step", "6"]) == 2
    assert "6.pt: was trained with carry_colour true" in capsys.readouterr().err
    assert main(["config.json", "--skip-training", "--load-step", "6", "--carry-colour"]) == 0


def test_a_missing_estimator_of_the_losses_learns_from_no_more_labels_than_the_redirector(setup: Path) -> None:
    flags = ["--train-missing-estimators", "--gazenet-savepath", "fresh", "--estimator-num-steps", "1"]
    flags += ["--estimator-batch-size", "4", "--semi-supervised", "--num-labeled-samples", "5"]
    assert main(["config.json", *flags, "--redirected-file", "elsewhere/r.h5", "--store-redirect-dataset"]) == 0
    assert json.loads((setup / "fresh/checkpoints/best.json").read_text())["samples"] == 5
    assert (setup / "elsewhere" / "r.h5").is_file()


def test_an_estimator_whose_training_is_not_finished_is_not_used(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (setup / "train" / "checkpoints" / "training_state.pt").touch()
    assert main(["config.json"]) == 2
    assert "gazenet_savepath: the training of the estimator at train is not finished" in capsys.readouterr().err


def test_a_test_set_without_pairs_is_left_out(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(setup / "mpi.h5", persons=2, samples=1)
    assert main(["config.json", "--mpiigaze-file", "mpi.h5"]) == 0
    assert "mpi: left out, since no person has two images" in capsys.readouterr().out
    assert list(json.loads((setup / "run/report/6/report.json").read_text())["datasets"]) == ["gc/val", "gc/test"]


def test_skip_training_evaluates_a_published_checkpoint(finished: Path) -> None:
    content = torch.load(finished / "run" / "checkpoints" / "6.pt", weights_only=True)
    published = {m: {f"module.{k}": v for k, v in content[m].items()} for m in ("encoder", "decoder", "discriminator")}
    (finished / "other" / "checkpoints").mkdir(parents=True)
    torch.save(published, finished / "other" / "checkpoints" / "206865.pt")
    assert main(["config.json", "--save-path", "other", "--skip-training", "--load-step", "206865"]) == 0
    reports = [json.loads((finished / f / "report.json").read_text()) for f in ("run/report/6", "other/report/206865")]
    assert reports[0]["datasets"] == reports[1]["datasets"]


def test_evaluating_an_older_checkpoint_takes_nothing_from_the_log(finished: Path) -> None:
    before = (finished / "run" / "metrics.jsonl").read_text()
    assert main(["config.json", "--skip-training", "--load-step", "2"]) == 0
    assert (finished / "run" / "metrics.jsonl").read_text().startswith(before)


def test_a_published_checkpoint_without_a_step_counts_as_the_step_in_its_name(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "run" / "checkpoints" / "6.pt"
    content = torch.load(path, weights_only=True)
    torch.save({m: content[m] for m in ("encoder", "decoder", "discriminator")}, path)
    assert main(["config.json", "--num-training-steps", "8", "--no-compute-full-result"]) == 0
    printed = capsys.readouterr().out
    assert "(step 6)" in printed and "no optimiser state" in printed
    assert saved_steps(finished / "run") == [2, 4, 6, 8]


def test_going_on_with_other_settings_or_another_estimator_is_said(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished / "train" / "checkpoints" / "at_step_0000000.pth.tar"
    torch.save({key: value * 1.01 for key, value in torch.load(weights).items()}, weights)
    assert main(["config.json", "--num-training-steps", "8", "--l2-reg", "0.5", "--no-compute-full-result"]) == 0
    printed = capsys.readouterr().out
    assert "other values of num_training_steps, l2_reg;" in printed
    assert "another estimator" in printed


@pytest.mark.slow
def test_kill_9_and_the_same_command_again(setup: Path) -> None:
    assert main(["config.json", "--num-training-steps", "60"]) == 0
    command = [str(ROOT / "train_st_ed.py"), "config.json", "--num-training-steps", "60", "--save-path", "killed"]
    kill_when(command, setup, (setup / "killed" / "checkpoints" / "20.pt").exists)
    assert not (setup / "killed" / "checkpoints" / "60.pt").exists()
    assert subprocess.run([sys.executable, *command], cwd=setup, capture_output=True).returncode == 0
    assert equal(final_weights(setup / "run", 60), final_weights(setup / "killed", 60))


@pytest.mark.slow
def test_the_published_sizes_train_resume_and_evaluate(tmp_path: Path) -> None:
    """config/ST-ED.json as it is: g = 32, 128 px, batch 20, VGG16 in the losses, ResNet-50 in the test."""
    from preprocess.synthetic.dataset import make_dataset

    make_dataset(tmp_path / "data", persons=6, samples=8, seed=0, workers=1, progress=False)
    (tmp_path / "data" / "gazecapture_split.json").write_text(
        json.dumps({"train": ["00000", "00001", "00002"], "val": ["00003"], "test": ["00004", "00005"]})
    )
    flags = ["--train-missing-estimators", "--estimator-num-steps", "2", "--estimator-batch-size", "4"]
    flags += ["--estimator-init", "none"]
    flags += ["--gazecapture-split", "data/gazecapture_split.json", "--num-data-loaders", "0", "--walk-frames", "0"]
    flags += ["--eval-batch-size", "8", "--save-path", "run", "--num-training-steps"]

    def run(config: str, *more: str) -> None:
        command = [sys.executable, str(ROOT / "train_st_ed.py"), str(ROOT / "config" / config), *flags, *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("ST-ED.json", "2", "--no-compute-full-result")
    run("ST-ED.json", "3", "--no-compute-full-result")
    assert saved_steps(tmp_path / "run") == [2, 3]
    run("eval.json", "3", "--load-step", "3")
    report = json.loads((tmp_path / "run" / "report" / "3" / "report.json").read_text())
    assert set(report["datasets"]) == {"gc/val", "gc/test", "mpi", "columbia", "eyediap"}
    assert report["datasets"]["gc/test"]["gaze_disentangle"]["count"] == 16


def test_ctrl_c_saves_and_says_how_to_go_on(setup: Path) -> None:
    command = [sys.executable, str(ROOT / "train_st_ed.py"), "config.json", "--num-training-steps", "5000"]
    process = subprocess.Popen(command, cwd=setup, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while not (setup / "run" / "checkpoints" / "2.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    step = int(printed.split("Stopped at step ")[1].split(";")[0])
    assert (setup / "run" / "checkpoints" / f"{step}.pt").is_file()


def test_a_folder_that_is_trained_in_is_closed_to_others_but_for_reading(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, str(ROOT / "train_st_ed.py"), "config.json", "--num-training-steps", "5000"]
    process = subprocess.Popen(command, cwd=setup, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (setup / "run" / "checkpoints" / "2.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        refused = f"save_path: {setup / 'run'}: is in use by process {process.pid} on "
        for flags in ([], ["--skip-training", "--load-step", "2"]):
            assert main(["config.json", *flags]) == 2
            assert refused in capsys.readouterr().err
        assert not (setup / "run" / "config_evaluation.json").exists()
        load_redirector(setup / "run", device="cpu")
    finally:
        process.kill()
        process.wait()
    assert main(["config.json", "--skip-training", "--load-step", "2"]) == 0
    assert not (setup / "run" / ".owner").exists()


# A user's mistakes: what is done to the set-up, and what the message must say.


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _photographs(path: Path) -> None:
    with h5py.File(write_dataset(path), "a") as file:
        file.attrs["gaze_known"] = False


def _narrow_labels(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["00001/labels"]
        file["00001/labels"] = np.zeros((6, 2), np.float32)


def _empty_person(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["00001/labels"], file["00001/pixels"]
        file["00001/labels"] = np.zeros((0, 4), np.float32)
        file["00001/pixels"] = np.zeros((0, 64, 64, 3), np.uint8)


class _Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def _checkpoint(content: object) -> None:
    Path("run/checkpoints").mkdir(parents=True)
    torch.save(content, "run/checkpoints/3.pt")


def _other_architecture() -> None:
    assert main(["config.json", "--growth-rate", "3", "--num-training-steps", "2", "--save-path", "run"]) == 0


def _vgg_for_other_size() -> None:
    from models.load_pretrained_model import build_estimator

    torch.save(build_estimator("vgg16").state_dict(), "train/checkpoints/at_step_0000000.pth.tar")


WEIGHT_FLAGS = [key.replace("_", "-") for key in Config.model_fields if key.startswith("coeff_")]
MISTAKES = {
    "unknown key": (lambda: Path("b.json").write_text('{"batchsize": 3}'), ["b.json"],
                    ["b.json", "batchsize", "did you mean 'batch_size'"]),
    "unknown flag": (lambda: None, ["--bach-size", "3"], ["--bach-size", "--batch-size"]),
    "wrong types": (lambda: Path("b.json").write_text('{"batch_size": "8", "decay": 3}'), ["b.json"],
                    ["b.json", "batch_size", "decay"]),
    "JSON syntax": (lambda: Path("b.json").write_text('{"batch_size": 8,}'), ["b.json"], ["b.json", "line 1"]),
    "missing configuration": (lambda: None, ["none.json"], ["none.json"]),
    "missing training data": (lambda: Path("gc.h5").unlink(), [], ["gc.h5"]),
    "truncated HDF5": (lambda: _cut(Path("gc.h5")), [], ["gc.h5", "HDF5"]),
    "labels of width 2": (lambda: _narrow_labels(Path("gc.h5")), [], ["gc.h5", "00001", "4 or more"]),
    "empty person": (lambda: _empty_person(Path("gc.h5")), [], ["gc.h5", "00001"]),
    "test file damaged": (lambda: Path("m.h5").write_text("no"), ["--mpiigaze-file", "m.h5"], ["m.h5", "HDF5"]),
    "photographs to train on": (lambda: _photographs(Path("own.h5")), ["--gazecapture-file", "own.h5"],
                                ["own.h5", "gaze_known"]),
    "photographs to evaluate": (lambda: _photographs(Path("own.h5")), ["--mpiigaze-file", "own.h5"],
                                ["own.h5", "gaze_known"]),
    "missing estimator": (lambda: Path("train/checkpoints/at_step_0000000.pth.tar").unlink(), [],
                          ["gazenet_savepath", "at_step_0000000.pth.tar", "train_facenet.py"]),
    "no estimator named": (lambda: None, ["--gazenet-savepath", ".", "--train-missing-estimators"],
                           ["gazenet_savepath is not set"]),
    "other estimator": (lambda: None, ["--gazenet-backbone", "compact-residual", "--eval-gazenet-backbone", "compact"],
                        ["gazenet_savepath", "missing", "unexpected"]),
    "unwritable save path": (lambda: Path("file").write_text(""), ["--save-path", "file/run"],
                             ["save_path", "file/run", "not a writable folder"]),
    "a checkpoint that runs code": (lambda: _checkpoint({"encoder": _Bomb()}), [], ["3.pt", "could run code"]),
    "a checkpoint of something else": (lambda: _checkpoint({"state_dict": {}}), [], ["3.pt", "expected the entries"]),
    "no such checkpoint": (lambda: None, ["--load-step", "77"], ["load_step", "77.pt", "no such file"]),
    "no such checkpoint among others": (lambda: _checkpoint({}), ["--load-step", "77"], ["There are steps 3."]),
    "no such GPU": (lambda: None, ["--device", "cuda:99"], ["cuda:99", "--device cpu"]),
    "no LPIPS weights there": (lambda: None, ["--lpips-weights", "alex.pth"], ["lpips_weights", "alex.pth"]),
    "estimator of another size": (_vgg_for_other_size, ["--gazenet-backbone", "vgg16"],
                                  ["gazenet_savepath", "128 px", "image_size is 64"]),
    "nothing to train": (lambda: None, [f"--{name}=0" for name in WEIGHT_FLAGS],
                         ["--coeff-l1-loss", "every other weight"]),
    "batch larger than the data": (lambda: None, ["--batch-size", "50"], ["gc.h5", "12", "50"]),
    "features of a network without": (lambda: None,
                                      ["--gazenet-backbone", "resnet50", "--coeff-redirection-feature-loss", "1"],
                                      ["--coeff-redirection-feature-loss is 1", "no feature maps"]),
    "an estimator of one image a batch": (lambda: None, ["--train-missing-estimators", "--estimator-batch-size", "1"],
                                          ["--estimator-batch-size is 1", "set 2 or more"]),
    "an estimator's folder for the run": (lambda: None, ["--save-path", "train"],
                                          ["--save-path is gazenet_savepath, too"]),
    "more labels than data": (lambda: None, ["--semi-supervised", "--num-labeled-samples", "99"], ["99", "12"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_message_and_nothing_is_written(
    mistake: str, setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, flags, fragments = MISTAKES[mistake]
    prepare()
    before = sorted(path for path in setup.rglob("*"))
    assert main(["config.json", *flags]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message and len(message.splitlines()) < 20
    for fragment in fragments:
        assert fragment in message, message
    assert sorted(path for path in setup.rglob("*")) == before


def test_compile_without_a_compiler_is_refused(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch._inductor import config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(setup / "cache"))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "/nowhere/g++"))
    assert main(["config.json", "--compile"]) == 2
    message = capsys.readouterr().err
    assert "error: compile: PyTorch cannot compile for cpu here" in message and "/nowhere/g++" in message
    assert not (setup / "run").exists()


def test_a_checkpoint_of_another_architecture_is_refused(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _other_architecture()
    assert main(["config.json"]) == 2
    message = capsys.readouterr().err
    assert "2.pt, entry 'encoder'" in message and "another save_path" in message


def test_a_failure_on_the_way_is_one_sentence_and_keeps_the_checkpoints(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config.json", "--base-learning-rate", "1e30"]) == 1
    message = capsys.readouterr().err
    assert "Loss is not finite at step" in message and "No update was made" in message
    assert len(message.strip().splitlines()[-1]) < 1000
    assert (setup / "run" / "error.txt").is_file()


def test_a_training_in_bfloat16_is_warned_of_where_the_processor_emulates_it(
    setup: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--num-training-steps", "1", "--no-compute-full-result", "--precision"]
    said = "warning: precision is bfloat16, and cpu here has no instructions for it"
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert main(["config.json", *flags, "float32"]) == 0
    assert said not in capsys.readouterr().out
    assert main(["config.json", *flags, "bfloat16"]) == 0  # the run is complete: nothing trains, and it is told
    assert said in capsys.readouterr().out
    assert main(["config.json", *flags, "bfloat16", "--skip-training", "--load-step", "1"]) == 0
    assert said not in capsys.readouterr().out
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert main(["config.json", *flags, "bfloat16"]) == 0
    assert said not in capsys.readouterr().out


def test_a_flag_of_another_command_is_said(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--estimator", "eval_gazenet", "--num-training-steps", "1", "--no-compute-full-result"]
    assert main(["config.json", *flags]) == 0
    assert "warning: no effect on train_st_ed.py: --estimator." in capsys.readouterr().out
    assert main(["config.json", *flags, "--evaluate-only"]) == 0
    assert "here --skip-training --load-step N evaluates a checkpoint" in capsys.readouterr().out


FOREIGN = {
    "optimizers of another kind": lambda content: content | {"optimizers": {"generator": {}}},
    "a configuration that is no JSON": lambda content: content | {"config": "{"},
    "a step that is no number": lambda content: content | {"step": "x"},
    "frozen files that are none": lambda content: content | {"frozen": None},
    "a version that is none": lambda content: content | {"format_version": "x"},
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_with_foreign_entries_is_one_sentence(
    change: Callable[[dict], dict], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = finished / "run" / "checkpoints" / "6.pt"
    torch.save(change(torch.load(file, weights_only=True)), file)
    assert main(["config.json"]) == 2
    assert "run/checkpoints/6.pt" in capsys.readouterr().err


def test_settings_of_the_autoencoder_do_nothing_for_another_redirector(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--train-missing-pair", "--e4e-weights", "pair.pt", "--num-training-steps", "1"]
    assert main(["config.json", *flags, "--no-compute-full-result"]) == 0
    assert "have no effect on st-ed" in capsys.readouterr().out
    assert not (setup / "pair.pt").exists()
