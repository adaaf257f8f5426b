"""Making the redirected data set: its targets, its images, the gate, going on after a kill, and the command."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.batches import labeled_subset
from core.command import UserError
from core.experiment.redirected import Generation, draw_targets, plan_generation, redirect_batch, source_sha256
from dataset import GazeDataset
from dataset_augmented import FILE_NAME, TABLES, RedirectedDataset
from models.gazeheadnet import Estimate
from models.geometry import angular_error_deg
from models.redirector import Redirector
from tests import test_train_st_ed
from tests.kills import kill_when
from tests.tiny import PoolEstimator, tiny_redirector, write_dataset
from train_st_ed import main
from utils import image_to_float, image_to_uint8

ROOT = Path(__file__).resolve().parent.parent
LABELS = np.random.default_rng(1).uniform(-0.5, 0.5, (50, 4)).astype(np.float32)
setup = test_train_st_ed.setup  # the fixture: a folder with data, estimators and config.json


@pytest.fixture
def data(tmp_path: Path) -> GazeDataset:
    return GazeDataset(write_dataset(tmp_path / "gc.h5", persons=4, samples=6))


def generate(
    data: GazeDataset,
    path: Path,
    *,
    redirector: Redirector | None = None,
    estimator: nn.Module | None = None,
    num_labeled: int = 15,
    weights: bytes = b"weights",
    batch_size: int = 4,
    workers: int = 0,
    **settings: object,
) -> Generation:
    """Write the redirected data set of a tiny redirector; its checkpoint is a file of `weights`."""
    entries = labeled_subset(len(data), num_labeled)
    generation = plan_generation(path, data, entries, **{"seed": 3, **settings})
    write(generation, redirector, estimator, weights, batch_size, workers)
    return generation


def write(
    generation: Generation,
    redirector: Redirector | None = None,
    estimator: nn.Module | None = None,
    weights: bytes = b"weights",
    batch_size: int = 4,
    workers: int = 0,
) -> None:
    generation.path.parent.mkdir(exist_ok=True)
    checkpoint = generation.path.with_name("6.pt")
    checkpoint.write_bytes(weights)
    generation.write(
        redirector or tiny_redirector(), checkpoint, 6, estimator=estimator, estimator_sha256="e",
        batch_size=batch_size, device=torch.device("cpu"), workers=workers, code_revision="c",
    )  # fmt: skip


def content(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {f"{person}/{name}": file[person][name][()] for person in file for name in TABLES}


def equal(u: dict[str, np.ndarray], v: dict[str, np.ndarray]) -> bool:
    return u.keys() == v.keys() and all(np.array_equal(u[key], v[key]) for key in u)


# Targets


def test_targets_are_a_function_of_the_seed_and_none_is_dealt_twice() -> None:
    targets = draw_targets(LABELS, 2, seed=0)
    assert (targets.shape, targets.dtype) == ((50, 2, 4), np.float32)
    assert len(np.unique(targets.reshape(-1, 4), axis=0)) == 100
    assert np.array_equal(targets, draw_targets(LABELS, 2, seed=0))
    assert not np.array_equal(targets, draw_targets(LABELS, 2, seed=1))


def test_without_bandwidth_the_targets_are_the_labels() -> None:
    targets = draw_targets(LABELS, 4, seed=0, bandwidth=1e-9).reshape(-1, 4)
    distance = np.abs(targets[:, None] - LABELS[None]).max(-1).min(1)
    assert distance.max() < 1e-6
    assert len(np.unique(targets.round(4), axis=0)) > 40  # of all of them


@pytest.mark.parametrize("bandwidth", [1.0, 2.0])
def test_targets_spread_as_the_kernel_density_estimate_does(bandwidth: float) -> None:
    targets = draw_targets(LABELS, 2000, seed=0, bandwidth=bandwidth).reshape(-1, 4)
    scott = 50 ** (-1 / 8)  # n ** (-1 / (d + 4))
    expected = np.cov(LABELS.T, ddof=0) + np.cov(LABELS.T) * (bandwidth * scott) ** 2
    assert np.cov(targets.T) == pytest.approx(expected, abs=0.02 * expected.max())
    assert targets.mean(0) == pytest.approx(LABELS.mean(0), abs=0.01)


def test_truncated_targets_stay_in_the_range_of_the_labels_and_only_those_outside_are_redrawn() -> None:
    free, kept = (draw_targets(LABELS, 3, seed=0, truncated=t).reshape(-1, 4) for t in (False, True))
    low, high = LABELS.min(0), LABELS.max(0)
    inside = ((free >= low) & (free <= high)).all(1)
    assert 10 < inside.sum() < 140
    assert ((kept >= low) & (kept <= high)).all()
    assert np.array_equal(free[inside], kept[inside])


def test_a_hopeless_truncation_ends_with_a_remedy() -> None:
    with pytest.raises(UserError, match=r"of 50 targets are outside.*Lower redirected_bandwidth \(1e\+06\)"):
        draw_targets(LABELS, 1, seed=0, bandwidth=1e6, truncated=True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:4], "4 labelled samples, at least 5 are needed.*Raise num_labeled_samples"),
        (LABELS[:1].repeat(9, 0), "all 9 labelled samples have the same gaze pitch, gaze yaw, head pitch, head yaw"),
        (LABELS * [1, 1, 0, 1], "have the same head pitch, so"),
        (np.eye(4)[np.arange(40) % 4], "follow from one another"),
    ],
)
def test_labels_without_a_density_are_refused_with_a_remedy(labels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_targets(labels, 1, seed=0)


# The file


def test_a_redirected_image_is_what_the_redirector_makes_of_the_real_one_for_its_own_labels(
    data: GazeDataset, tmp_path: Path
) -> None:
    generation = generate(data, tmp_path / "r.h5")
    redirector, written = tiny_redirector().eval(), RedirectedDataset(tmp_path / "r.h5")
    assert len(written) == 30 and written.is_real.tolist() == [True, False] * 15
    for i, entry in enumerate(generation.entries):
        source, real, redirected = data[int(entry)], written[2 * i], written[2 * i + 1]
        assert all(torch.equal(source[name], real[name]) for name in source)
        assert torch.cat((redirected["gaze"], redirected["head"])).tolist() == generation.targets[i, 0].tolist()
        targets = {name: redirected[name][None] for name in ("gaze", "head")}
        with torch.no_grad():
            direct = redirector.redirect(image_to_float(real["image"])[None], targets)[0]
        assert (image_to_uint8(direct).int() - redirected["image"].int()).abs().max() <= 1  # rounding
    persons = [data.person_ids[p] for p in data.person_of[generation.entries]]
    assert [written.person_ids[p] for p in written.person_of[::2]] == persons and persons[0] == "00000"


def test_batch_size_and_workers_change_nothing(data: GazeDataset, tmp_path: Path) -> None:
    for name, how in {"a": {}, "b": {"batch_size": 1, "workers": 2}, "c": {"batch_size": 50}}.items():
        generate(data, tmp_path / name / "r.h5", **how)
    first, *others = (content(tmp_path / name / "r.h5") for name in "abc")
    for other in others:
        assert all(np.array_equal(first[key], other[key]) for key in first if not key.endswith("image"))
        differences = [np.abs(first[key].astype(int) - other[key]) for key in first if key.endswith("image")]
        assert max(difference.max() for difference in differences) <= 1


def test_several_redirected_images_of_each_follow_it(data: GazeDataset, tmp_path: Path) -> None:
    generation = generate(data, tmp_path / "r.h5", num_labeled=24, per_sample=3)
    written = content(tmp_path / "r.h5")
    assert written["00001/real"].tolist() == [1, 0, 0, 0] * 6
    assert np.array_equal(written["00001/head"].reshape(6, 4, 2)[:, 1:], generation.targets[6:12, :, 2:])
    images = written["00001/image"].reshape(6, 4, -1)
    assert not np.array_equal(images[:, 1], images[:, 2])


def test_images_without_a_label_are_redirected_to_targets_of_the_labelled_ones_and_stay_out_themselves(
    data: GazeDataset, tmp_path: Path
) -> None:
    labeled, unlabeled = np.arange(0, 24, 3), np.array([1, 7, 20])
    data.labels()  # reads them all
    data._labels._values[unlabeled] = 9.0  # labels that nobody may use
    generation = plan_generation(tmp_path / "r.h5", data, labeled, seed=3, unlabeled=unlabeled)
    assert np.array_equal(
        generation.targets, draw_targets(data.labels()[labeled], 1, seed=3, num_samples=len(labeled) + 3)
    )
    write(generation)
    written = RedirectedDataset(tmp_path / "r.h5")
    assert written.is_real.sum() == 8 and len(written) == 8 + 11
    assert np.array_equal(written.labels()[~written.is_real], generation.targets[:, 0])
    source = data[1]["image"]
    redirected = [written[i]["image"] for i in np.flatnonzero(~written.is_real)[:2]]
    assert generation.entries[:2].tolist() == [0, 1]
    targets = torch.from_numpy(generation.targets[1])
    with torch.no_grad():
        direct = redirect_batch(tiny_redirector().eval(), image_to_float(source)[None], targets[None])[0, 0]
    assert (image_to_uint8(direct).int() - redirected[1].int()).abs().max() <= 1
    with h5py.File(tmp_path / "r.h5") as file:
        assert file.attrs["num_labeled_samples"] == 8 and file.attrs["redirected_unlabeled_samples"] == 3


def test_float32_images_are_in_the_published_range(data: GazeDataset, tmp_path: Path) -> None:
    redirector = tiny_redirector()
    with torch.no_grad():
        for parameter in redirector.decoder.parameters():
            parameter *= 3  # far out of range before the clamp
    generation = generate(data, tmp_path / "r.h5", redirector=redirector, images="float32")
    image = content(tmp_path / "r.h5")["00000/image"]
    assert image.dtype == np.float32 and image.min() == -1 and image.max() == 1
    assert np.array_equal(image[0], image_to_float(data[int(generation.entries[0])]["image"]))


class Straight(nn.Module):
    """Sees everybody look straight ahead; of every fifth image it sees nothing."""

    def forward(self, image: Tensor) -> Estimate:
        gaze = torch.zeros(len(image), 2)
        gaze[torch.arange(len(image)) % 5 == 4] = torch.nan
        return Estimate(gaze, torch.zeros(len(image), 2), [])


def test_the_gate_leaves_out_what_misses_its_target_and_counts_why(
    data: GazeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generation = generate(data, tmp_path / "r.h5", estimator=Straight(), num_labeled=24, batch_size=6, max_error=20.0)
    targets = torch.from_numpy(generation.targets[:, 0])
    off_gaze, off_head = (angular_error_deg(a, torch.zeros(24, 2)) > 20 for a in (targets[:, :2], targets[:, 2:]))
    off_gaze[4::6] = True  # the fifth of each batch
    left_out = off_gaze | off_head
    assert 5 < left_out.sum() < 22 and off_gaze.sum() != off_head.sum()
    with h5py.File(tmp_path / "r.h5") as file:
        found = {name: int(value) for name, value in file.attrs.items() if name.startswith(("num_r", "left"))}
        assert file.attrs["redirected_max_error"] == 20
    gone, gaze, head = (int(flags.sum()) for flags in (left_out, off_gaze, off_head))
    expected = {"left_out": gone, "left_out_gaze": gaze, "left_out_head": head}
    assert found == {"num_real": 24, "num_redirected": 24 - gone, **expected}
    kept = RedirectedDataset(tmp_path / "r.h5", use="redirected").labels()
    assert np.array_equal(kept, targets[~left_out].numpy())
    said = f"{gone} of 24 redirected images were left out, more than 20 degrees off: gaze in {gaze}, head in {head}."
    assert said in capsys.readouterr().out


def test_a_gate_that_nothing_passes_leaves_the_real_images_and_warns(
    data: GazeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(data, tmp_path / "r.h5", estimator=PoolEstimator(), max_error=1e-6)
    assert RedirectedDataset(tmp_path / "r.h5").is_real.tolist() == [True] * 15
    assert "warning: no redirected image is left. Raise redirected_max_error" in capsys.readouterr().out


# Going on, starting over, refusing


class Failing(nn.Module):
    """A redirector that stops working after some batches, and counts those it does."""

    def __init__(self, batches: int = 1000) -> None:
        super().__init__()
        self.inner, self.left, self.done = tiny_redirector(), batches, 0

    def encode(self, image: Tensor) -> object:
        if self.done == self.left:
            raise RuntimeError("out of memory")
        self.done += 1
        assert not self.training and not torch.is_grad_enabled()
        return self.inner.encode(image)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name) if name in ("rotate", "decode") else super().__getattr__(name)


def fail_after(batches: int, data: GazeDataset, path: Path, **settings: object) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        generate(data, path, redirector=Failing(batches), batch_size=2, **settings)
    assert not path.exists()


def test_going_on_equals_an_uninterrupted_run_and_repeats_no_person(data: GazeDataset, tmp_path: Path) -> None:
    generate(data, tmp_path / "whole" / "r.h5", num_labeled=24, batch_size=2)
    fail_after(5, data, tmp_path / "parts" / "r.h5", num_labeled=24)  # in the middle of the second person
    parts = tmp_path / "parts" / ".r.h5.parts"
    (parts / ".00001.h5.77.tmp").write_bytes(b"of a kill")
    (parts / "whole").write_bytes(b"of a kill while they were joined")
    again = Failing()
    generate(data, tmp_path / "parts" / "r.h5", redirector=again, num_labeled=24, batch_size=2)
    assert again.done == 9  # three batches for each of the other persons
    assert equal(content(tmp_path / "whole" / "r.h5"), content(tmp_path / "parts" / "r.h5"))
    assert not parts.exists()


@pytest.mark.parametrize("change", [{"weights": b"trained on"}, {"seed": 4}, {"truncated": True}, {"num_labeled": 23}])
def test_what_another_run_left_is_not_mixed_in(
    change: dict[str, object], data: GazeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"num_labeled": 24, "batch_size": 2} | change
    generate(data, tmp_path / "whole" / "r.h5", **settings)
    fail_after(5, data, tmp_path / "parts" / "r.h5", num_labeled=24)
    generate(data, tmp_path / "parts" / "r.h5", **settings)
    assert "begun with other values of" in capsys.readouterr().out
    assert equal(content(tmp_path / "whole" / "r.h5"), content(tmp_path / "parts" / "r.h5"))


def test_a_complete_file_is_not_written_again_and_another_one_not_overwritten(
    data: GazeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, redirector = tmp_path / "r.h5", Failing()
    generate(data, path)
    before = path.read_bytes()
    generate(data, path, redirector=redirector)
    assert "r.h5 is complete; it is not written again" in capsys.readouterr().out and not redirector.done
    with pytest.raises(UserError, match="r.h5: this file was made with other values of redirector_sha256. Move or"):
        generate(data, path, weights=b"trained on")
    assert path.read_bytes() == before


def test_a_source_is_known_by_its_images_and_labels_wherever_it_lies(data: GazeDataset, tmp_path: Path) -> None:
    entries = np.arange(24)
    known = source_sha256(data, entries)
    (tmp_path / "moved.h5").write_bytes(data.path.read_bytes())
    assert source_sha256(GazeDataset(tmp_path / "moved.h5"), entries) == known
    assert source_sha256(data, entries[:-1]) != known
    assert source_sha256(GazeDataset(data.path, is_bgr=True), entries) != known
    with h5py.File(tmp_path / "moved.h5", "a") as file:
        file["00002/labels"][1] = 0
    assert source_sha256(GazeDataset(tmp_path / "moved.h5"), entries) != known


# The command

FLAGS = ["config.json", "--store-redirect-dataset", "--no-compute-full-result"]


def test_a_run_ends_with_its_redirected_data_set(setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FLAGS, "--semi-supervised", "--num-labeled-samples", "7"]) == 0
    printed = capsys.readouterr().out
    assert "7 labelled images" in printed and "no effect" not in printed
    path = setup / "run" / "Redirected_samples.h5"
    real = RedirectedDataset(path, use="real")
    labels = GazeDataset(setup / "gc.h5", persons=["00000", "00001"]).labels()[labeled_subset(12, 7)]
    assert len(RedirectedDataset(path)) == 14 and np.array_equal(real.labels(), labels)
    with h5py.File(path) as file:
        assert file.attrs["redirector_checkpoint"] == "run/checkpoints/6.pt" and file.attrs["redirector_step"] == 6
        assert file.attrs["source_file"] == "gc.h5" and file.attrs["code_revision"]
    before = path.read_bytes()
    assert main([*FLAGS, "--semi-supervised", "--num-labeled-samples", "7"]) == 0
    assert "Redirected_samples.h5 is complete" in capsys.readouterr().out and path.read_bytes() == before


def test_without_semi_supervision_every_training_image_is_redirected(setup: Path) -> None:
    assert main(FLAGS) == 0
    assert len(RedirectedDataset(setup / "run" / "Redirected_samples.h5", use="real")) == 12


def test_a_checkpoint_alone_makes_its_data_set_without_an_evaluation(setup: Path) -> None:
    assert main(["config.json", "--no-compute-full-result"]) == 0
    flags = [*FLAGS, "--skip-training", "--load-step", "4", "--eval-gazenet-savepath", "nowhere"]
    assert main([*flags, "--gazenet-savepath", "nowhere2"]) == 0  # no gate: neither estimator is needed
    with h5py.File(setup / "run" / "Redirected_samples.h5") as file:
        assert file.attrs["redirector_step"] == 4
    assert not (setup / "run" / "report").exists()
    (setup / "run" / "Redirected_samples.h5").unlink()
    assert main([*flags, "--redirected-max-error", "30"]) == 0
    with h5py.File(setup / "run" / "Redirected_samples.h5") as file:
        assert file.attrs["num_redirected"] + file.attrs["left_out"] == 12 and file.attrs["estimator_sha256"]


def test_the_same_with_an_evaluation_where_it_is_wanted(setup: Path) -> None:
    assert main(["config.json", "--no-compute-full-result"]) == 0
    assert main(["config.json", "--store-redirect-dataset", "--skip-training", "--load-step", "6"]) == 0
    assert (setup / "run" / "report" / "6" / "report.md").is_file()
    assert (setup / "run" / "Redirected_samples.h5").is_file()


def _same_labels() -> None:
    with h5py.File("gc.h5", "a") as file:
        for person in file:
            file[person]["labels"][:] = 0.1


def _mine() -> None:
    Path("run").mkdir()
    Path("run/Redirected_samples.h5").write_bytes(b"mine")


MISTAKES = {
    "more labels than data": (lambda: None, ["--semi-supervised", "--num-labeled-samples", "99"], ["99", "12"]),
    "too few labels": (lambda: None, ["--semi-supervised", "--num-labeled-samples", "4"], ["4 labelled", "at least 5"]),
    "identical labels": (_same_labels, [], ["12 labelled samples", "the same gaze pitch"]),
    "a file in the way": (_mine, [], ["run/Redirected_samples.h5", "Move or remove it"]),
    "no estimator for the gate": (lambda: None, ["--redirected-max-error", "5", "--gazenet-savepath", "none",
                                  "--coeff-redirection-gaze-loss", "0"], ["gazenet_savepath", "train_facenet.py"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_the_training(mistake: str, setup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, flags, fragments = MISTAKES[mistake]
    spoil()
    before = sorted(setup.rglob("*"))
    assert main([*FLAGS, *flags]) == 2
    message = capsys.readouterr().err
    assert all(fragment in message for fragment in fragments), message
    assert sorted(setup.rglob("*")) == before


def test_training_on_with_the_file_of_an_earlier_redirector_is_refused(
    setup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(FLAGS) == 0
    assert main([*FLAGS, "--num-training-steps", "8"]) == 2
    assert "another redirector than the one still to be trained" in capsys.readouterr().err
    assert main([*FLAGS, "--num-training-steps", "8", "--no-store-redirect-dataset"]) == 0


@pytest.mark.slow
def test_kill_9_in_the_middle_and_the_same_command_again(setup: Path) -> None:
    write_dataset(setup / "gc.h5", persons=80, samples=3)
    persons = [f"{i:05d}" for i in range(80)]
    split = {"train": persons[:70], "val": persons[70:75], "test": persons[75:]}
    (setup / "gazecapture_split.json").write_text(json.dumps(split))
    assert main(FLAGS) == 0
    whole = (setup / "run" / "Redirected_samples.h5").rename(setup / "whole.h5")
    parts = setup / "run" / f".{FILE_NAME}.parts"
    command = [str(ROOT / "train_st_ed.py"), *FLAGS, "--skip-training", "--load-step", "6"]
    kill_when(command, setup, lambda: list(parts.glob("[0-9]*.h5")))
    assert not (setup / "run" / "Redirected_samples.h5").exists() and len(list(parts.glob("[0-9]*.h5"))) < 70
    assert main([*FLAGS, "--skip-training", "--load-step", "6"]) == 0
    assert equal(content(whole), content(setup / "run" / "Redirected_samples.h5"))
