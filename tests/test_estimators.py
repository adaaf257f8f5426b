"""The gaze and head estimators: published numbers and files, refusals, freezing, and training them."""

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train_facenet
from core import ConfigError
from dataset import GazeDataset
from models.gazeheadCompact import to_compact_size
from models.load_pretrained_model import (
    BACKBONES,
    build_estimator,
    estimator_checkpoint,
    find_estimator_checkpoint,
    load_estimator,
)
from tests.formula import assert_golden, fill, uniform
from train_facenet import lr_factor, main, measure_estimator, train_estimator, vary_colours

GOLDENS = Path(__file__).parent / "goldens"
PUBLISHED = {"vgg16": "gazeheadnet_vgg", "resnet50": "gazehead_resnet50"}
COMPACT = ("compact", "compact-residual")
TRAINING = dict(
    seed=0, num_steps=60, batch_size=16, learning_rate=3e-3, lr_schedule="one-cycle", decay_steps=100,
    decay=0.5, flip=True, device=torch.device("cpu"), progress=False,
)  # fmt: skip


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


def test_missing_weights_name_the_key_the_file_and_the_remedies(tmp_path: Path):
    where = "^gazenet_savepath: .*'vgg16'.*vgg/checkpoints/at_step_0000000.pth.tar"
    remedies = ".*train_facenet.py CONFIG.json;.*train_missing_estimators.*baseline_estimator_vgg.tar"
    with pytest.raises(FileNotFoundError, match=where + remedies):
        load_estimator(tmp_path / "vgg", "vgg16", key="gazenet_savepath")
    with pytest.raises(FileNotFoundError, match="train_facenet.py CONFIG.json --evaluator") as caught:
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


def test_learning_rate_schedules():
    steps = [lr_factor(step, 200, "step", 50, 0.5) for step in (0, 49, 50, 199)]
    assert steps == [1, 1, 0.5, 0.125]
    cycle = [lr_factor(step, 100, "one-cycle", 1, 0.5) for step in (0, 19, 20, 60, 99)]
    assert cycle == pytest.approx([0.05, 1, 1, 0.5, 0.0], abs=1e-3)


@pytest.mark.parametrize("backbone", COMPACT)
def test_a_compact_estimator_learns_in_seconds(backbone: str, faces: GazeDataset, tmp_path: Path):
    errors = []
    for num_steps in (1, 60):
        options = TRAINING | {"num_steps": num_steps}
        path = train_estimator(faces, backbone, tmp_path / str(num_steps), validation=faces, **options)
        errors.append(json.loads(path.with_name(f"at_step_{num_steps:07d}.json").read_text())["validation"])
    assert errors[1]["head_deg"] < 0.5 * errors[0]["head_deg"]
    assert errors[1]["gaze_deg"] < 0.7 * errors[0]["gaze_deg"]


def test_training_writes_what_the_loader_reads_and_the_facts_beside_it(faces: GazeDataset, tmp_path: Path):
    path = train_estimator(faces, "compact", tmp_path, validation=faces, **(TRAINING | {"num_steps": 3}))
    assert path == find_estimator_checkpoint(tmp_path) == estimator_checkpoint(tmp_path, 3)
    estimator = load_estimator(tmp_path, "compact", key="gazenet_savepath")
    facts = json.loads((tmp_path / "checkpoints" / "at_step_0000003.json").read_text())
    assert (facts["backbone"], facts["steps"], facts["seed"], facts["samples"]) == ("compact", 3, 0, 72)
    measured = measure_estimator(estimator, faces, torch.device("cpu"))
    assert facts["validation"] == pytest.approx(measured, rel=1e-4)
    assert sorted(file.name for file in path.parent.iterdir()) == ["at_step_0000003.json", path.name]


def test_training_is_a_function_of_its_seed_and_moves_no_other(faces: GazeDataset, tmp_path: Path):
    options = TRAINING | {"num_steps": 3}
    other = options | {"seed": 1}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = torch.load(train_estimator(faces, "compact", tmp_path / "1", validation=None, **options))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(6)
    second = torch.load(train_estimator(faces, "compact", tmp_path / "2", validation=None, **options))
    third = torch.load(train_estimator(faces, "compact", tmp_path / "3", validation=None, **other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["fc.1.weight"], third["fc.1.weight"])


def test_data_too_large_for_memory_trains_the_same(faces: GazeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = TRAINING | {"num_steps": 3, "num_labeled_samples": 40}
    in_memory = torch.load(train_estimator(faces, "compact", tmp_path / "1", validation=None, **options))
    monkeypatch.setattr(train_facenet, "IN_MEMORY_BYTES", 0)
    streamed = torch.load(train_estimator(faces, "compact", tmp_path / "2", validation=None, **options))
    assert all(torch.equal(in_memory[key], streamed[key]) for key in in_memory)


def test_a_measurement_does_not_depend_on_the_batch_size(faces: GazeDataset, monkeypatch: pytest.MonkeyPatch):
    estimator = fill(build_estimator("compact")).eval()
    whole = measure_estimator(estimator, faces, torch.device("cpu"))
    monkeypatch.setattr(train_facenet, "MEASURE_BATCH", 50)  # 72 samples: 50 and 22
    assert measure_estimator(estimator, faces, torch.device("cpu")) == pytest.approx(whole, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_before_anything_is_written(faces: GazeDataset, tmp_path: Path):
    options = TRAINING | {"learning_rate": 1e38}
    with pytest.raises(FloatingPointError, match="not finite at step .*estimator_learning_rate"):
        train_estimator(faces, "compact", tmp_path / "out", validation=None, **options)
    assert not (tmp_path / "out").exists()


def _config(tmp_path: Path, **changes: object) -> str:
    _draw_faces(tmp_path / "faces.h5")
    (tmp_path / "split.json").write_text(json.dumps({"train": ["00000", "00001"], "val": ["00002"]}))
    settings = {
        "gazecapture_file": str(tmp_path / "faces.h5"), "gazecapture_split": "split.json", "image_size": 64,
        "densenet_blocks": 3, "num_2d_units": 2, "device": "cpu", "save_path": str(tmp_path / "run"),
        "gazenet_backbone": "compact", "gazenet_savepath": str(tmp_path / "gaze"),
        "eval_gazenet_backbone": "compact-residual", "eval_gazenet_savepath": str(tmp_path / "eval"),
        "estimator_num_steps": 2, "estimator_batch_size": 8, "estimator_num_labeled_samples": 40,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings | changes))
    return str(tmp_path / "config.json")


def test_the_command_trains_either_estimator_on_the_train_persons(tmp_path: Path):
    config = _config(tmp_path)
    main([config])
    load_estimator(tmp_path / "gaze", "compact", key="gazenet_savepath")
    assert not (tmp_path / "eval").exists()
    main([config, "--evaluator", "--seed", "3"])
    load_estimator(tmp_path / "eval", "compact-residual", key="eval_gazenet_savepath")
    facts = json.loads((tmp_path / "eval" / "checkpoints" / "at_step_0000002.json").read_text())
    assert (facts["data"], facts["samples"], facts["seed"]) == ("gc/train", 40, 4)  # another seed than the first's
    assert facts["validation"]["samples"] == 24


def test_the_command_refuses_without_a_folder_to_write_to(tmp_path: Path):
    with pytest.raises(ConfigError, match="eval_gazenet_savepath is not set"):
        main([_config(tmp_path, eval_gazenet_savepath="."), "--evaluator"])
