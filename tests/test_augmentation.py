"""The augmentation experiment: its stages, what is not done again, and its table."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

import augmentation
from core import sources
from core.batches import labeled_subset
from core.config_default import unused_by
from core.config_reader import load_config
from core.estimator import report as estimator_report
from core.estimator import trainer as estimation
from core.experiment import run as experiment
from core.experiment.report import BASELINE, Outcome, differences, spread, write_augmentation_report
from dataset import GazeDataset
from dataset_augmented import FILE_NAME, RedirectedDataset
from tests.once import once
from tests.tiny import write_dataset
from train_facenet import main


def outcome(seed: int, variant: str, gaze: float, num_labels: int = 8) -> Outcome:
    return Outcome(num_labels, seed, variant, {"gc/test": {"gaze": gaze, "head": 1.0}})


def test_the_spread_is_the_standard_error_over_seeds() -> None:
    assert str(spread([1.0, 3.0])) == "2.00 ± 1.00"  # sd sqrt(2), over sqrt(2)
    assert str(spread([1.5])) == "1.50"


def test_differences_are_of_the_same_seed_and_labels() -> None:
    outcomes = [outcome(0, BASELINE, 5.0), outcome(1, BASELINE, 7.0), outcome(0, "both", 4.5), outcome(1, "both", 6.0)]
    outcomes += [outcome(0, BASELINE, 50.0, num_labels=99), outcome(2, "both", 1.0)]  # others' labels; no baseline
    assert differences(outcomes, "gc/test", "gaze", 8, "both") == [-0.5, -1.0]


def test_a_variant_without_its_baseline_has_no_difference(tmp_path: Path) -> None:
    alone = Outcome(8, 0, "both", {"gc/test": {"gaze": 4.5, "head": 1.0}, "mpi": {"gaze": 6.0, "head": 2.0}})
    path = write_augmentation_report(tmp_path, [outcome(0, BASELINE, 5.0), alone], {})
    assert "| 8 | 0 | - | 6.00 |" in path.read_text()


def test_the_report_has_means_differences_and_a_plot(tmp_path: Path) -> None:
    outcomes = [outcome(0, "both", 4.5), outcome(0, BASELINE, 5.0), outcome(1, BASELINE, 7.0), outcome(1, "both", 6.0)]
    path = write_augmentation_report(tmp_path, outcomes, {"data": "gc.h5"})
    assert "| labels | seeds | labels alone | both |" in path.read_text()
    assert "| 8 | 2 | 6.00 ± 1.00 | 5.25 ± 0.75 (-0.75 ± 0.25) |" in path.read_text()
    means = json.loads((tmp_path / "augmentation.json").read_text())["means"]
    row = next(row for row in means if row["variant"] == "both" and row["angle"] == "gaze")
    assert row["difference_deg"] == pytest.approx(-0.75) and row["seeds"] == 2
    assert (tmp_path / "augmentation.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """See `write_setup`; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    draw_little(monkeypatch)
    return write_setup(tmp_path)


def draw_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("error_figure", "angle_figure"):  # half a second each
        monkeypatch.setattr(estimator_report, name, lambda _: Figure((0.1, 0.1)))


def write_setup(folder: Path) -> Path:
    """Data, split and config.json."""
    write_dataset(folder / "gc.h5", persons=4, samples=6)
    split = {"train": ["00000", "00001"], "val": ["00002"], "test": ["00003"]}
    (folder / "gazecapture_split.json").write_text(json.dumps(split))
    config = {
        "gazecapture_file": "gc.h5", "save_path": "run", "eval_gazenet_savepath": "eval", "image_size": 64,
        "gazenet_backbone": "compact", "eval_gazenet_backbone": "compact-residual", "train_missing_estimators": True,
        "estimator_num_steps": 2, "estimator_batch_size": 4, "estimator_learning_rate": 1e-3,
        "densenet_blocks": 3, "growth_rate": 2, "size_0d_unit": 8, "num_1d_units": 0, "num_2d_units": 2,
        "fc_embedding_width": 16, "discriminator_width": 2, "batch_size": 2, "num_data_loaders": 0,
        "num_training_steps": 2, "save_interval": 2, "compute_full_result": False, "allow_downloads": False,
        "device": "cpu", "augmentation_labels": [6, 8], "augmentation_seeds": [0, 1],
        "augmentation_variants": {"both": {}, "2 per label": {"redirected_per_sample": 2}},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_no_stage_of_the_shipped_experiment_is_refused() -> None:
    path = Path(__file__).resolve().parent.parent / "config" / "augmentation.json"
    config = load_config([str(path)], unused=unused_by("estimator"))
    assert experiment.refusals(config) == []
    for name in config.augmentation_variants:
        experiment.check_number_of_images(config, name, available=5000)


def test_every_stage_is_done_once_and_ends_in_a_table(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.json", "--augmentation-seeds", "[0]"]) == 0
    assert "# Estimators with redirected data" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in setup.glob("run/labels_*/**/*") if path.is_file()}
    for num_labels in (6, 8):
        cell = setup / "run" / f"labels_{num_labels}" / "seed_0"
        assert json.loads((cell / "baseline/checkpoints/best.json").read_text())["samples"] == num_labels
        for folder, copies in (("variant_both", 1), ("variant_2_per_label", 2)):
            facts = json.loads((cell / folder / "checkpoints/best.json").read_text())
            assert facts["samples"] == num_labels * (1 + copies)
            with h5py.File(cell / folder / FILE_NAME) as file:
                assert sum(int(group["real"][()].sum()) for group in file.values()) == num_labels
    assert augmentation.main(["config.json"]) == 0  # seed 1 is new
    assert all(path.stat().st_mtime_ns == time for path, time in files.items())
    outcomes = json.loads((setup / "run" / "augmentation.json").read_text())["outcomes"]
    assert len(outcomes) == 2 * 2 * 3
    assert {row["seed"] for row in outcomes} == {0, 1}


def test_every_stage_knows_the_same_labels(setup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def remember(*arguments: int) -> np.ndarray:
        chosen.append((arguments[0], labeled_subset(*arguments).tolist()))
        return labeled_subset(*arguments)

    for module in (estimation, sources):
        monkeypatch.setattr(module, "labeled_subset", remember)
    flags = ["--augmentation-seeds", "[5]", "--augmentation-labels", "[6]", "--augmentation-variants", '{"both": {}}']
    assert main(["config.json", *flags]) == 0
    of_train_persons = [entries for total, entries in chosen if total == 12 and len(entries) == 6]
    assert len(of_train_persons) >= 3  # the baseline, the redirector, the redirection
    assert all(entries == labeled_subset(12, 6, 5).tolist() for entries in of_train_persons)
    known = GazeDataset("gc.h5", persons=["00000", "00001"]).labels()[labeled_subset(12, 6, 5)]
    file = RedirectedDataset(f"run/labels_6/seed_5/variant_both/{FILE_NAME}", "real")
    assert np.array_equal(file.labels(), known)


def test_without_numbers_of_labels_there_is_no_experiment(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert augmentation.main(["config.json", "--augmentation-labels", "[]"]) == 2
    assert "error: augmentation_labels is not set" in capsys.readouterr().err
    assert not (setup / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-training-steps", "3"], "num_training_steps.*choose another save_path"),
        (["--augmentation-variants", '{"both": {"redirected_use": "real"}}'], "augmentation_variants\\['both'\\]"),
        (["--augmentation-labels", "[6, 900]"], "900.*12"),
        (["--augmentation-labels", "[6, 3]"], "3 labels do not fill a batch"),
        (["--augmentation-seeds", "[]"], "names no seed"),
        (["--augmentation-seeds", "[0, 0]"], "one twice"),
        (["--redirected-per-sample", "3"], "redirected_per_sample.*choose another save_path"),
        (["--augmentation-variants", '{"a<5": {}, "a>5": {}}'], "two names"),
        (["--augmentation-variants", '{"a": {"redirected_file": "x.h5"}}'], "a: redirected_file"),
        (["--evaluate-only"], "evaluate_only"),
        (["--estimator-batch-size", "1"], "--estimator-batch-size is 1"),
        (
            ["--augmentation-variants", '{"a": {"estimator_batch_size": 1}}'],
            "variants\\['a'\\]: 'estimator_batch_size' is",
        ),
        (["--augmentation-variants", '{"a": {"estimator_batch_size": 99}}'], "variants\\['a'\\]: 6 real and at most 6"),
        (["--augmentation-variants", '{"a": {"redirected_unlabeled_samples": 7}}'], "asked for beside 6 .* at most 6"),
        (["--augmentation-variants", '{"a": {"estimator_real_share": 0.5, "redirected_use": "real"}}'], "is real"),
        (["--skip-training", "--load-step", "2"], "skip_training, load_step: the experiment trains"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    flags: list[str],
    message: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(folder: Path) -> None:
        draw_little(monkeypatch)
        write_setup(folder)
        assert main(["config.json", "--augmentation-seeds", "[0]", "--augmentation-labels", "[6]"]) == 0

    done = once(tmp_path_factory, "augmentation", make)
    monkeypatch.chdir(done)
    before = sorted(done.rglob("*"))
    assert main(["config.json", "--augmentation-seeds", "[0]", *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(done.rglob("*")) == before
