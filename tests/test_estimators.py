"""The gaze and head estimators: published numbers and files, refusals, freezing, training and measuring them."""

import json
import shutil
from pathlib import Path
from urllib.error import URLError

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core import batches, sources
from core.command import UserError
from core.config_default import Config
from core.estimator.report import Estimates, angle_figure, binned, error_figure, measure, statistics, write_evaluation
from core.estimator.spec import EstimatorSettings, stored_facts
from core.estimator.trainer import EstimatorTrainer, Validate, training_state, vary_colours
from core.files import file_sha256
from core.schedules import Cadence
from core.tracking import Tracker
from dataset import GazeDataset
from models import load_pretrained_model
from models.gazeheadCompact import to_compact_size
from models.load_pretrained_model import (
    BACKBONES,
    best_checkpoint,
    build_estimator,
    estimator_checkpoint,
    facts_file,
    find_estimator_checkpoint,
    find_imagenet_weights,
    load_estimator,
    load_imagenet_weights,
)
from tests.formula import assert_golden, fill, uniform

GOLDENS = Path(__file__).parent / "goldens"
PUBLISHED = {"vgg16": "gazeheadnet_vgg", "resnet50": "gazehead_resnet50"}
COMPACT = ("compact", "compact-residual")
CPU = torch.device("cpu")
SETTINGS = dict(num_steps=60, batch_size=16, learning_rate=3e-3, lr_schedule="one-cycle", flip=True)


def _golden(name: str) -> dict:
    return json.loads((GOLDENS / f"{name}.json").read_text())


def _save(state: dict[str, Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def _draw_faces(path: Path, num_persons: int = 3, num_samples: int = 24) -> Path:
    """Discs that move with the head, with a dot that moves with the gaze."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for person in range(num_persons):
            labels = rng.uniform(-0.5, 0.5, (num_samples, 4)).astype(np.float32)
            pixels = np.full((num_samples, 64, 64, 3), 40, np.uint8)
            for image, label in zip(pixels, labels.tolist(), strict=True):
                gaze_pitch, gaze_yaw, head_pitch, head_yaw = label
                x, y = 32 - 24 * head_yaw, 32 - 24 * head_pitch
                cv2.circle(image, (round(x), round(y)), 20, (180 + 10 * person, 150, 120), -1)
                cv2.circle(image, (round(x - 20 * gaze_yaw), round(y - 20 * gaze_pitch)), 4, (0, 0, 0), -1)
            file[f"{person:05d}/pixels"], file[f"{person:05d}/labels"] = pixels, labels
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> GazeDataset:
    return GazeDataset(_draw_faces(tmp_path_factory.mktemp("data") / "faces.h5"))


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_published_estimators_give_the_published_numbers(backbone: str):
    golden = _golden(f"golden_{PUBLISHED[backbone]}")["outputs"]
    with torch.no_grad():
        estimate = fill(build_estimator(backbone)).eval()(uniform((2, 3, 128, 128)))
    assert_golden(estimate.gaze, golden["gaze"])
    assert_golden(estimate.head, golden["head"])
    assert len(estimate.features) == sum(name.startswith("feature") for name in golden)
    for i, feature in enumerate(estimate.features):
        assert_golden(feature, golden[f"feature{i}"])


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_state_dict_has_the_published_entries_in_their_order(backbone: str):
    state = build_estimator(backbone).state_dict()
    found = [[key, list(value.shape), str(value.dtype)[len("torch.") :]] for key, value in state.items()]
    assert found == _golden(f"keys_{PUBLISHED[backbone]}")["entries"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_estimator_sees_64_and_128_pixels(backbone: str):
    estimator = build_estimator(backbone).eval()
    for size in (64, 128):
        with torch.no_grad():
            estimate = estimator(torch.zeros(1, 3, size, size))
        assert estimate.gaze.shape == estimate.head.shape == (1, 2)
        assert all(feature.ndim == 4 for feature in estimate.features)


@pytest.mark.parametrize("backbone", COMPACT)
def test_compact_estimators_are_small_and_have_maps_for_a_perceptual_loss(backbone: str):
    estimator = build_estimator(backbone).eval()
    assert sum(parameter.numel() for parameter in estimator.parameters()) < 400_000
    assert [feature.shape[-1] for feature in estimator(torch.zeros(1, 3, 64, 64)).features] == [32, 16, 8]


def test_large_images_are_averaged_for_a_compact_estimator():
    image = torch.arange(4.0).view(1, 1, 2, 2).repeat(1, 3, 64, 64)  # every 2x2 block holds 0, 1, 2, 3
    assert torch.equal(to_compact_size(image), torch.full((1, 3, 64, 64), 1.5))
    with pytest.raises(ValueError, match="multiple of 64 px"):
        to_compact_size(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize("backbone", COMPACT)
def test_gradient_reaches_every_pixel_and_no_weight(backbone: str, tmp_path: Path):
    _save(build_estimator(backbone).state_dict(), tmp_path / "estimator.tar")
    estimator = load_estimator(tmp_path / "estimator.tar", backbone, key="gazenet_savepath")
    image = uniform((1, 3, 128, 128)).requires_grad_()
    estimate = estimator(image)
    (estimate.gaze.square().sum() + estimate.head.square().sum()).backward()
    assert (image.grad != 0).all()
    assert all(parameter.grad is None for parameter in estimator.parameters())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_loads_a_file_or_the_highest_step_of_a_folder(prefix: str, tmp_path: Path):
    wanted = build_estimator("compact").state_dict()
    _save({key: torch.zeros_like(value) for key, value in wanted.items()}, estimator_checkpoint(tmp_path, 0))
    file = _save({prefix + key: value for key, value in wanted.items()}, estimator_checkpoint(tmp_path, 1200))
    estimator_checkpoint(tmp_path, 1300).with_suffix(".tmp").touch()
    assert find_estimator_checkpoint(tmp_path) == find_estimator_checkpoint(file) == file
    for path in (tmp_path, file):
        found = load_estimator(str(path), "compact", key="gazenet_savepath").state_dict()
        assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_a_folder_with_a_best_checkpoint_means_that_one(tmp_path: Path):
    wanted = build_estimator("compact").state_dict()
    _save({key: torch.zeros_like(value) for key, value in wanted.items()}, estimator_checkpoint(tmp_path, 900))
    _save(wanted, best_checkpoint(tmp_path))
    found = load_estimator(tmp_path, "compact", key="gazenet_savepath").state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())


def test_missing_weights_name_the_key_the_file_and_the_remedies(tmp_path: Path):
    where = "^gazenet_savepath: .*'vgg16'.*vgg/checkpoints/at_step_0000000.pth.tar"
    remedies = ".*train_facenet.py CONFIG.json;.*train_missing_estimators.*baseline_estimator_vgg.tar"
    with pytest.raises(UserError, match=where + remedies):
        load_estimator(tmp_path / "vgg", "vgg16", key="gazenet_savepath")
    with pytest.raises(UserError, match="train_facenet.py CONFIG.json --estimator eval_gazenet") as caught:
        load_estimator(tmp_path, "compact", key="eval_gazenet_savepath")
    assert "download" not in str(caught.value)


def test_weights_of_another_architecture_are_refused_by_their_keys(tmp_path: Path):
    _save(build_estimator("compact").state_dict(), tmp_path / "estimator.tar")
    where, remedy = "^gazenet_savepath: .*estimator.tar", "Check gazenet_savepath and its backbone"
    with pytest.raises(ValueError, match=f"{where}.*missing .*unexpected .*{remedy}"):
        load_estimator(tmp_path / "estimator.tar", "compact-residual", key="gazenet_savepath")


def test_unknown_backbone_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="'vgg19'.*vgg16, resnet50, compact, compact-residual"):
        build_estimator("vgg19")


class _RunsOnUnpickling:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path):
    torch.save({"FC1.weight": _RunsOnUnpickling(tmp_path / "ran")}, tmp_path / "estimator.tar")
    with pytest.raises(ValueError, match="gazenet_savepath: .*estimator.tar"):
        load_estimator(tmp_path / "estimator.tar", "vgg16", key="gazenet_savepath")
    assert not (tmp_path / "ran").exists()


def test_a_frozen_estimator_ignores_its_parents_training_mode(tmp_path: Path):
    _save(build_estimator("compact").state_dict(), tmp_path / "estimator.tar")
    estimator = load_estimator(tmp_path / "estimator.tar", "compact", key="gazenet_savepath")
    before = {key: value.clone() for key, value in estimator.state_dict().items()}
    nn.ModuleList([estimator]).train()
    estimator(uniform((4, 3, 64, 64)))
    assert not any(module.training for module in estimator.modules())
    assert all(torch.equal(before[key], value) for key, value in estimator.state_dict().items())


def test_a_fresh_estimator_can_be_trained():
    assert all(module.training for module in build_estimator("compact").eval().train().modules())


def test_colours_vary_by_image_in_contrast_and_by_channel_in_brightness():
    image = uniform((2, 3, 4, 4))
    varied = vary_colours(image, 0.2, torch.Generator().manual_seed(0))
    assert torch.equal(image, vary_colours(image, 0.0, torch.Generator()))
    contrast = varied.std(dim=(2, 3)) / image.std(dim=(2, 3))
    assert torch.allclose(contrast, contrast[:, :1].expand(2, 3), atol=1e-5)
    assert len((varied.mean(dim=(2, 3)) - contrast * image.mean(dim=(2, 3))).unique()) == 6


def _torchvision_state(backbone: str) -> dict[str, Tensor]:
    """Weights under torchvision's keys, every value its own, with a head; without BatchNorm's counts, as old files."""
    part = build_estimator(backbone).state_dict()
    if backbone == "vgg16":
        state = {k.replace("vgg16.", "features."): v for k, v in part.items() if k.startswith("vgg16.")}
        return state | {"classifier.6.weight": torch.zeros(1000, 8), "classifier.6.bias": torch.zeros(1000)}
    state = {k.removeprefix("resnet50."): v + 1 for k, v in part.items() if not k.endswith("num_batches_tracked")}
    return state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_torchvisions_weights_fill_the_convolutions_and_leave_the_head(backbone: str, tmp_path: Path):
    state = _torchvision_state(backbone)
    file = _save(state, tmp_path / "weights.pth")
    settings = EstimatorSettings(backbone, 1, 1, 1e-4, seed=3)
    fresh, found = (EstimatorTrainer(settings, CPU, weights).estimator.state_dict() for weights in (None, file))
    theirs = {"vgg16": "features.", "resnet50": ""}[backbone]
    for key, value in found.items():
        name = key.replace(f"{backbone}.", theirs)
        in_file = name in state and "fc" not in name
        assert in_file or name.startswith(("FC", "fc")) or name.endswith("num_batches_tracked"), name
        assert torch.equal(value, state[name] if in_file else fresh[key]), name


def test_a_file_that_is_not_torchvisions_is_refused_by_its_keys(tmp_path: Path):
    state = _torchvision_state("vgg16")
    state["features.28.weights"] = state.pop("features.28.weight")
    file = _save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"estimator_init: .*weights.pth.*missing \(features.28.weight\).*unexpected"):
        load_imagenet_weights(build_estimator("vgg16"), "vgg16", file)
    with pytest.raises(ValueError, match="estimator_init: .*resnet50.*missing .*(vgg16-397923af|resnet50-0676ba61)"):
        load_imagenet_weights(build_estimator("resnet50"), "resnet50", file)


def test_missing_torchvision_weights_name_the_link_and_the_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    link = "https://download.pytorch.org/models/vgg16-397923af.pth .*its path, or set estimator_init to none"
    with pytest.raises(UserError, match=f"^estimator_init: imagenet.*could not be fetched.*{link}"):
        find_imagenet_weights("imagenet", "vgg16", allow_downloads=True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads are not allowed"))
    with pytest.raises(UserError, match=f"allow_downloads is false.*{link}"):
        find_imagenet_weights("imagenet", "vgg16", allow_downloads=False)
    with pytest.raises(UserError, match="^estimator_init: here.pth: no such file.*none for random weights"):
        find_imagenet_weights("here.pth", "vgg16", allow_downloads=True)
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_text("cut off")
    with pytest.raises(ValueError, match="vgg16-397923af.pth: sha256 .* expected 397923af"):
        find_imagenet_weights("imagenet", "vgg16", allow_downloads=False)


def test_no_torchvision_weights_for_none_and_for_compact_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_imagenet_weights("none", "vgg16", allow_downloads=True) is None
    assert find_imagenet_weights("imagenet", "compact", allow_downloads=True) is None
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = _save({}, tmp_path / "checkpoints" / "own-00000000.pth")
    right = file.rename(file.with_name(f"own-{file_sha256(file)[:8]}.pth"))
    monkeypatch.setitem(load_pretrained_model.IMAGENET_URLS, "vgg16", f"https://some.where/{right.name}")
    assert find_imagenet_weights("imagenet", "vgg16", allow_downloads=False) == right


def _no_validation(_: nn.Module) -> dict:
    return {}


def _train(
    data: GazeDataset,
    folder: Path,
    backbone: str = "compact",
    *,
    cadence: Cadence = Cadence(),  # noqa: B008
    validate: Validate = _no_validation,
    stop: list[int] | None = None,
    **changes: object,
) -> EstimatorTrainer:
    """Trains in `folder`, from its state if there is one."""
    trainer = EstimatorTrainer(EstimatorSettings(backbone, **(SETTINGS | changes)), CPU)
    folder.mkdir(exist_ok=True)
    if training_state(folder).is_file():
        trainer.restore(folder)
    tracker = Tracker(folder, use_tensorboard=False, start_step=trainer.step)
    trainer.fit(data, folder, cadence, validate=validate, tracker=tracker, stop=[] if stop is None else stop)
    return trainer


def _weights(folder: Path, step: int) -> dict[str, Tensor]:
    return torch.load(estimator_checkpoint(folder, step), weights_only=True)


def _equal(u: dict[str, Tensor], v: dict[str, Tensor]) -> bool:
    return u.keys() == v.keys() and all(torch.equal(u[key], v[key]) for key in u)


@pytest.mark.parametrize("backbone", COMPACT)
def test_a_compact_estimator_learns_in_seconds(backbone: str, faces: GazeDataset, tmp_path: Path):
    before, after = (
        measure(_train(faces, tmp_path / str(n), backbone, num_steps=n).estimator, faces, CPU) for n in (1, 60)
    )
    assert after.means()["head_deg"] < 0.5 * before.means()["head_deg"]
    assert after.means()["gaze_deg"] < 0.7 * before.means()["gaze_deg"]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", PUBLISHED)
def test_a_published_network_learns_and_is_saved_under_the_published_keys(backbone: str, tmp_path: Path):
    num_steps, size, rate = {"vgg16": (16, 4, 3e-4), "resnet50": (12, 8, 1e-4)}[backbone]
    faces = GazeDataset(_draw_faces(tmp_path / "faces.h5", 1, size), image_size=32)
    changes = {"num_steps": num_steps, "batch_size": size, "learning_rate": rate, "lr_schedule": "step", "flip": False}
    _train(faces, tmp_path / "out", backbone, cadence=Cadence(log=1), **changes)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines]
    assert len(losses) == num_steps and np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    found = [
        [k, list(v.shape), str(v.dtype)[len("torch.") :]] for k, v in _weights(tmp_path / "out", num_steps).items()
    ]
    assert found == _golden(f"keys_{PUBLISHED[backbone]}")["entries"]
    load_estimator(tmp_path / "out", backbone, key="gazenet_savepath")


def test_training_writes_what_the_loader_reads_and_the_facts_beside_it(faces: GazeDataset, tmp_path: Path):
    trainer = _train(faces, tmp_path, num_steps=3, validate=lambda net: {"gc/val": measure(net, faces, CPU).means()})
    path = estimator_checkpoint(tmp_path, 3)
    facts = json.loads(facts_file(path).read_text())
    assert (facts["backbone"], facts["step"], facts["seed"], facts["samples"]) == ("compact", 3, 0, 72)
    assert (facts["image_size"], facts["initialisation"]) == (64, "random")
    for file in (path, best_checkpoint(tmp_path)):
        loaded = load_estimator(file, "compact", key="gazenet_savepath")
        assert facts["validation"]["gc/val"] == pytest.approx(measure(loaded, faces, CPU).means(), rel=1e-4)
    assert trainer.estimator.training
    names = {"at_step_0000003.json", "at_step_0000003.pth.tar", "best.json", "best.pth.tar"}
    assert {file.name for file in path.parent.iterdir()} == names  # the training state is gone


def test_facts_carry_the_names_of_those_in_files_that_are_there(faces: GazeDataset):
    facts = EstimatorTrainer(EstimatorSettings("compact", **SETTINGS), CPU).facts(faces)
    assert set(facts) == {
        "backbone", "num_steps", "batch_size", "learning_rate", "seed", "init", "lr_schedule", "decay_steps", "decay",
        "flip", "vary_framing", "num_labeled_samples", "precision", "real_share", "colour_jitter", "data", "file",
        "samples", "image_size", "initialisation",
    }  # fmt: skip


def test_a_damaged_note_beside_weights_is_named(tmp_path: Path):
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(UserError, match="best.json: not a JSON file .* Remove it"):
        stored_facts(tmp_path / "best.pth.tar")


def test_the_best_weights_are_those_of_the_lowest_error_on_gc_val(faces: GazeDataset, tmp_path: Path):
    gaze_errors = iter([5.0, 3.0, 4.0])

    def validate(_: nn.Module) -> dict:
        gaze_deg = next(gaze_errors)
        return {
            "mpi": {"gaze_deg": 9 - gaze_deg, "head_deg": 0.0},
            "gc/val": {"gaze_deg": gaze_deg, "head_deg": 1.0},
        }

    _train(faces, tmp_path / "1", num_steps=6, cadence=Cadence(test=2), validate=validate, lr_schedule="step")
    _train(faces, tmp_path / "2", num_steps=4, lr_schedule="step")
    best = torch.load(best_checkpoint(tmp_path / "1"), weights_only=True)
    assert _equal(best, _weights(tmp_path / "2", 4)) and not _equal(best, _weights(tmp_path / "1", 6))
    facts = json.loads(facts_file(best_checkpoint(tmp_path / "1")).read_text())
    assert (facts["step"], facts["num_steps"], facts["validation"]["gc/val"]["gaze_deg"]) == (4, 6, 3.0)
    # Without gc/val nothing can be chosen by: the last weights are the best.
    assert _equal(torch.load(best_checkpoint(tmp_path / "2"), weights_only=True), _weights(tmp_path / "2", 4))


@pytest.mark.parametrize("backbone", COMPACT)
def test_a_stopped_training_ends_with_the_weights_of_an_uninterrupted_one(
    backbone: str, faces: GazeDataset, tmp_path: Path
):
    stop: list[int] = []

    def run(folder: Path, stop_at: int = 0) -> EstimatorTrainer:
        def validate(_: nn.Module) -> dict:
            if trainer.step == stop_at:
                stop.append(2)
            return {"gc/val": {"gaze_deg": {4: 3.0, 8: 5.0}[trainer.step], "head_deg": 0.0}}

        trainer = EstimatorTrainer(EstimatorSettings(backbone, **(SETTINGS | {"num_steps": 8})), CPU)
        folder.mkdir(exist_ok=True)
        if training_state(folder).is_file():
            trainer.restore(folder)
            assert trainer.stored == trainer.facts(faces)
        tracker = Tracker(folder, use_tensorboard=False, start_step=trainer.step)
        done = trainer.fit(faces, folder, Cadence(log=2, test=4), validate=validate, tracker=tracker, stop=stop)
        assert done == (not stop)
        return trainer

    run(tmp_path / "whole")
    assert run(tmp_path / "parts", stop_at=4).step == 4
    assert not estimator_checkpoint(tmp_path / "parts", 8).exists()
    stop.clear()
    run(tmp_path / "parts")
    assert _equal(_weights(tmp_path / "whole", 8), _weights(tmp_path / "parts", 8))
    best = [torch.load(best_checkpoint(tmp_path / name), weights_only=True) for name in ("whole", "parts")]
    assert _equal(*best)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    whole, parts = ([json.loads(line) | {"train/images_per_s": 0} for line in lines] for lines in logs)
    assert whole == parts and [line["step"] for line in whole] == [2, 4, 6, 8]


def test_a_state_of_another_network_or_of_something_else_is_refused(faces: GazeDataset, tmp_path: Path):
    trainer = EstimatorTrainer(EstimatorSettings("compact", **SETTINGS), CPU)
    trainer.save(tmp_path, trainer.facts(faces))
    with pytest.raises(ValueError, match="training_state.pt: does not fit.*another folder"):
        EstimatorTrainer(EstimatorSettings("compact-residual", **SETTINGS), CPU).restore(tmp_path)
    torch.save({"step": 3}, training_state(tmp_path))
    with pytest.raises(ValueError, match="training_state.pt: not the state of an estimator"):
        trainer.restore(tmp_path)


def test_training_is_a_function_of_its_seed_and_moves_no_other(
    faces: GazeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    _train(faces, tmp_path / "1", num_steps=3)
    torch.manual_seed(6)
    _train(faces, tmp_path / "2", num_steps=3)
    torch.set_rng_state(state)
    monkeypatch.setattr(batches, "IN_MEMORY_BYTES", 0)  # as for data too large for the memory
    _train(faces, tmp_path / "3", num_steps=3, validate=lambda net: {"gc/val": measure(net, faces, CPU).means()})
    assert torch.equal(state, torch.get_rng_state())
    _train(faces, tmp_path / "4", num_steps=3, seed=1)
    first, *same, other = (_weights(tmp_path / str(i), 3) for i in range(1, 5))
    assert all(_equal(first, weights) for weights in same)
    assert not torch.equal(first["fc.1.weight"], other["fc.1.weight"])


def test_at_most_the_labelled_samples_are_used_and_too_few_are_refused(faces: GazeDataset, tmp_path: Path):
    used = EstimatorTrainer(EstimatorSettings("compact", **SETTINGS, num_labeled_samples=40), CPU).facts(faces)[
        "samples"
    ]
    every = EstimatorTrainer(EstimatorSettings("compact", **SETTINGS, num_labeled_samples=9999), CPU).facts(faces)[
        "samples"
    ]
    assert (used, every) == (40, 72)
    with pytest.raises(ValueError, match="10 labelled images.* a batch of 16.*estimator_batch_size"):
        _train(faces, tmp_path / "out", num_labeled_samples=10)


class Mixed:
    """Twenty real entries among sixty; the gaze pitch of an entry is its index."""

    name, path, image_size = "mixed", Path("mixed.h5"), 64
    is_real = np.arange(60) % 3 == 0

    def __len__(self) -> int:
        return len(self.is_real)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        gaze = torch.tensor([float(index), 0])
        return {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "gaze": gaze, "head": gaze}


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_share_of_real_images_holds_in_every_batch(
    in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[np.ndarray] = []

    def note(self: EstimatorTrainer, batch: dict[str, Tensor]) -> dict[str, float]:
        seen.append(batch["gaze"][:, 0].numpy().astype(int))
        self.step += 1
        return {"loss": 0.0}

    monkeypatch.setattr(EstimatorTrainer, "train_step", note)
    monkeypatch.setattr(batches, "IN_MEMORY_BYTES", 1_000_000_000 * in_memory)
    _train(Mixed(), tmp_path / "out", num_steps=5, real_share=0.25)
    assert [Mixed.is_real[batch].sum() for batch in seen] == [4] * 5  # of 16
    assert sorted(i for batch in seen for i in batch if i % 3 == 0) == list(range(0, 60, 3))  # each once an epoch
    with pytest.raises(ValueError, match="20 real images, fewer than the 29 .* estimator_real_share 0.9 asks for"):
        _train(Mixed(), tmp_path / "other", batch_size=32, real_share=0.9)


@pytest.mark.parametrize("label", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(label: float, faces: GazeDataset):
    trainer = EstimatorTrainer(EstimatorSettings("compact", **SETTINGS), CPU)
    batch = {name: value[None].repeat(16, *[1] * value.ndim) for name, value in faces[0].items()}
    before = {name: value.clone() for name, value in trainer.estimator.named_parameters()}
    batch["gaze"][3, 1] = label
    with pytest.raises(FloatingPointError, match="not finite at step 0 .gaze=nan.*No update.*estimator_learning_rate"):
        trainer.train_step(batch)
    assert trainer.step == 0 and not trainer.optimizer.state
    assert all(torch.equal(before[name], value) for name, value in trainer.estimator.named_parameters())


def test_bfloat16_trains_to_finite_float32_weights(faces: GazeDataset, tmp_path: Path):
    _train(faces, tmp_path, num_steps=2, precision="bfloat16")
    assert all(v.isfinite().all() for v in _weights(tmp_path, 2).values())
    assert {v.dtype for v in _weights(tmp_path, 2).values()} == {torch.float32, torch.int64}


def test_a_measurement_does_not_depend_on_the_batch_size(faces: GazeDataset):
    estimator = fill(build_estimator("compact")).eval()
    whole, parts = (measure(estimator, faces, CPU, batch_size=size) for size in (72, 50))
    assert np.allclose(whole.angles, parts.angles, atol=1e-6) and whole.angles.shape == (72, 4)
    some = measure(estimator, faces, CPU, entries=np.array([70, 3]))
    assert np.allclose(some.angles, whole.angles[[70, 3]], atol=1e-6)
    assert np.array_equal(some.labels, whole.labels[[70, 3]]) and some.person.tolist() == [2, 0]


def _estimates(num: int = 40) -> Estimates:
    """Of two persons; gaze is off by 1 degree for the first and 3 for the second in pitch, the head by nothing."""
    labels = np.random.default_rng(0).uniform(-0.4, 0.4, (num, 4))
    person = np.arange(num) % 2
    angles = labels.copy()
    angles[:, 0] += np.deg2rad(np.where(person == 0, 1.0, 3.0))
    return Estimates("gc/test", ["00007", "00009"], person, labels, angles)


def test_errors_are_summed_up_over_all_and_by_person():
    summary = _estimates().summary()
    assert summary["gaze"] == pytest.approx({"mean": 2.0, "median": 2.0, "p95": 3.0})
    assert summary["head"] == pytest.approx({"mean": 0.0, "median": 0.0, "p95": 0.0}, abs=1e-6)
    assert summary["by_person"]["00009"]["gaze"]["median"] == pytest.approx(3.0)
    assert (summary["samples"], summary["persons"], summary["by_person"]["00007"]["samples"]) == (40, 2, 20)
    assert statistics(np.arange(101.0)) == {"mean": 50.0, "median": 50.0, "p95": 95.0}


def test_one_who_does_not_look_is_off_by_the_spread_of_the_labels():
    labels = np.zeros((2, 4))
    labels[:, 1] = np.deg2rad([-10, 10])
    estimates = Estimates("", ["a"], np.zeros(2, int), labels, labels)
    assert estimates.blind_errors_deg("gaze") == pytest.approx([10, 10])
    assert estimates.errors_deg("gaze") == pytest.approx([0, 0], abs=1e-6)


def test_bins_with_too_few_samples_are_left_out():
    x = np.array([0.0] * 8 + [7.0] * 4 + [15.0] * 5)  # bins of width 1; 4 samples are too few
    y = np.array([1.0, 3.0] * 4 + [100.0] * 4 + [2.0] * 5)
    centres, means, low, high = binned(x, y)
    assert (centres.tolist(), means.tolist()) == ([0.5, 14.5], [2.0, 2.0])
    assert (low.tolist(), high.tolist()) == ([1.0, 2.0], [3.0, 2.0])


@pytest.mark.parametrize("num", [1, 40, 4000])
def test_the_evaluation_writes_tables_and_plots_for_few_and_many_images(num: int, tmp_path: Path):
    estimates = _estimates(num)
    report = write_evaluation(tmp_path, [estimates], {"checkpoint": "best.pth.tar"})
    text = report.read_text()
    assert "- checkpoint: best.pth.tar" in text and "| 00007 |" in text and "](gc-test_errors.png)" in text
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["datasets"]["gc/test"]["samples"] == num
    for kind in ("errors", "angles"):
        picture = cv2.imread(str(tmp_path / f"gc-test_{kind}.png"))
        assert picture.shape[0] > 500 and picture.std() > 10
    titles = [panel.get_xlabel() for panel in error_figure(estimates).axes if panel.get_xlabel()]
    wanted = [f"true {factor} {angle} (degrees)" for factor in ("gaze", "head") for angle in ("yaw", "pitch")]
    assert titles == wanted == [panel.get_xlabel() for panel in angle_figure(estimates).axes]


def test_the_colour_order_of_a_file_does_not_change_what_is_seen(tmp_path: Path):
    rgb = _draw_faces(tmp_path / "rgb.h5", 1, 6)
    for name, order in (("bgr", "BGR"), ("published", None)):
        shutil.copy(rgb, tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            file["00000/pixels"][:] = file["00000/pixels"][()][..., ::-1]
            if order:
                file.attrs["color_order"] = order
    estimator = fill(build_estimator("compact")).eval()
    wanted = measure(estimator, GazeDataset(rgb), CPU).angles
    assert np.array_equal(measure(estimator, GazeDataset(tmp_path / "bgr.h5"), CPU).angles, wanted)
    published = str(tmp_path / "published.h5")
    config = Config(columbia_file=published, eyediap_file=published, mpiigaze_file=str(rgb), image_size=64)
    for dataset in sources.build_test_sets(config):
        assert np.array_equal(measure(estimator, dataset, CPU).angles, wanted), dataset.name
    swapped = GazeDataset(published, is_bgr=False)
    assert not np.allclose(measure(estimator, swapped, CPU).angles, wanted)
