"""The configuration: merging, strictness, and every message a user may meet."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from core.command import UserError
from core.config_default import (
    KEYS,
    Config,
    decides_weights,
    fixed_in_experiment,
    ignored_by,
    is_set,
    unused_by,
)
from core.config_page import configuration_page
from core.config_reader import load_config
from core.config_rules import contradictions

ROOT = Path(__file__).parents[1]
NOT_SET = {  # paths that the published files leave to their user
    key: "."
    for key in (
        "mpiigaze_file", "gazecapture_file", "save_path", "gazenet_savepath",
        "eval_gazenet_savepath", "eyediap_file", "columbia_file",
    )
}  # fmt: skip
PUBLISHED_DEFAULTS: dict[str, Any] = {
    "growth_rate": 12, "densenet_blocks": 5, "coeff_l1_loss": 200.0, "coeff_gaze_loss": 2.0,
    "coeff_embedding_consistency_loss": 1.0, "coeff_discriminator_loss": 0.5,
    "coeff_disentangle_embedding_loss": 0.0, "coeff_disentangle_pseudo_label_loss": 0.0,
    "coeff_redirection_feature_loss": 0.0, "coeff_redirection_gaze_loss": 1.0, "semi_supervised": False,
    "num_labeled_samples": 0, "pick_at_least_per_person": None, "use_apex": False, "batch_size": 32,
    "eval_batch_size": 128, "num_data_loaders": 12, "decay_steps": 34480, "decay": 0.8,
    "num_training_steps": 206865, "l2_reg": 1e-4, "print_freq_train": 200, "print_freq_test": 4000,
    "save_freq_images": 4000, "save_interval": 50000, "test_subsample": 0.05, "use_tensorboard": False,
    "skip_training": False, "use_mixing": True, "compute_full_result": True, "store_redirect_dataset": False,
    "load_step": 0, "size_0d_unit": 512, "num_1d_units": 16, "size_1d_unit": 16, "num_2d_units": 0,
    "size_2d_unit": 16, "base_learning_rate": 5e-5, **NOT_SET,
}  # fmt: skip
NEW_DEFAULTS: dict[str, Any] = {
    "image_size": 128, "gazecapture_split": "gazecapture_split.json", "gazecapture_is_bgr": None,
    "mpiigaze_is_bgr": None, "columbia_is_bgr": None, "eyediap_is_bgr": None, "mirror_augmentation": False,
    "vary_pairs": False,
    "synthetic_data": False, "synthetic_persons": 48, "synthetic_samples": 150, "synthetic_variation": "calm",
    "synthetic_look": "drawn", "synthetic_group_size": None, "synthetic_framing": "", "synthetic_still_heads": 0.0,
    "pairs_within_group": 0.0, "eval_pairs_within_group": False,
    "device": "auto", "precision": "float32", "compile": False, "num_threads": 0, "deterministic": False, "seed": 0,
    "resume": True,
    "fc_embedding_width": 0, "carry_colour": False, "output_init_gain": 1.0,
    "discriminator_width": 64, "discriminator_warmup_steps": 20000,
    "lr_schedule": "step", "lr_warmup_steps": 0, "gazenet_backbone": "vgg16",
    "eval_gazenet_backbone": "resnet50", "train_missing_estimators": False, "estimator_batch_size": 64,
    "estimator_learning_rate": 1e-4, "estimator_num_steps": 100000, "estimator_decay_steps": 50000,
    "estimator_decay": 0.5, "estimator_lr_schedule": "step", "estimator_flip": False, "estimator_vary_framing": False,
    "estimator_num_labeled_samples": 50000, "keep_checkpoints": 0, "num_sample_persons": 24,
    "walk_frames": 24, "eval_disentanglement": True, "lpips_weights": "", "allow_downloads": True,
    "estimator": "gazenet", "evaluate_only": False, "estimator_init": "imagenet", "estimator_test_interval": 5000,
    "estimator_save_interval": 5000, "redirected_file": ".", "redirected_use": "both", "redirected_per_sample": 1,
    "redirected_images": "uint8", "redirected_bandwidth": 1.0, "redirected_truncated": False,
    "redirected_max_error": None, "redirected_unlabeled_samples": 0, "estimator_real_share": None,
    "redirector": "st-ed", "projector_width": 96, "deprojector_width": 128, "layer_weights_prior": {},
    "gazecapture_aligned_file": ".", "mpiigaze_aligned_file": ".", "columbia_aligned_file": ".",
    "eyediap_aligned_file": ".", "face_size": 256, "inversions_path": ".", "relabel_inversions": True,
    "checkpoint_generator": False,
    "e4e_weights": ".", "stylegan2_weights": ".", "arcface_weights": ".", "train_missing_pair": False,
    "pair_num_steps": 2400, "coeff_l2_loss": 0.0, "coeff_lpips_loss": 0.0, "coeff_identity_loss": 0.0,
    "coeff_latent_loss": 0.0, "coeff_delta_loss": 0.0, "flow_size": 0, "flow_width": 16,
    "coeff_gradient_loss": 0.0, "gradient_clip": 0.0,
    "coeff_eye_loss": 0.0, "coeff_warp_loss": 0.0, "coeff_paint_loss": 0.0, "coeff_mask_loss": 0.0,
    "coeff_flow_loss": 0.0, "redirect_to_labels": False,
    "augmentation_labels": (), "augmentation_seeds": (0,),
    "augmentation_variants": {"real and redirected": {}},
}  # fmt: skip
ST_ED: dict[str, Any] = {
    "batch_size": 20, "growth_rate": 32, "eval_batch_size": 32, "num_data_loaders": 4,
    "use_tensorboard": True, "skip_training": False, "print_freq_train": 200, "test_subsample": 0.02,
    "print_freq_test": 5000,
    "save_freq_images": 5000, "save_interval": 10000, "size_0d_unit": 1024, "num_1d_units": 4,
    "size_1d_unit": 16, "num_2d_units": 4, "size_2d_unit": 16, "coeff_l1_loss": 200, "coeff_gaze_loss": 5,
    "coeff_discriminator_loss": 1, "coeff_embedding_consistency_loss": 2,
    "coeff_disentangle_embedding_loss": 2, "coeff_disentangle_pseudo_label_loss": 2,
    "coeff_redirection_feature_loss": 200, "coeff_redirection_gaze_loss": 2, "use_mixing": True,
    "densenet_blocks": 5, "base_learning_rate": 5e-5, "use_apex": False, "compute_full_result": True,
    "load_step": 0, "store_redirect_dataset": False, "semi_supervised": False,
}  # fmt: skip
PUBLISHED_FILES: dict[str, dict[str, Any]] = {
    "ST-ED.json": ST_ED,
    "eval.json": ST_ED | {"skip_training": True, "load_step": 206865},
    "semi-supervise.json": ST_ED
    | {
        "compute_full_result": False, "store_redirect_dataset": True, "semi_supervised": True,
        "num_labeled_samples": 5000,
    },
}  # fmt: skip
COMPACT = {"eval_gazenet_backbone": "compact-residual", "estimator_batch_size": 1}
NO_WEIGHTS = {key: 0 for key in Config.model_fields if key.startswith("coeff_")}
USABLE = {"save_path": "runs/test", "gazecapture_file": "data/some.h5", "num_2d_units": 2}


class Files:
    """Writes config files where the test runs, so that messages name them by their short name."""

    def __call__(self, name: str = "a.json", **settings: Any) -> str:
        return self.text(json.dumps(settings), name)

    def text(self, text: str, name: str = "a.json") -> str:
        Path(name).write_text(text, encoding="utf-8")
        return name


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    return Files()


def refusal(*argv: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(argv)
    return str(error.value)


def test_importing_loads_no_torch_and_writes_nothing(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import core; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_the_published_and_the_documented_ones() -> None:
    assert Config().model_dump() == PUBLISHED_DEFAULTS | NEW_DEFAULTS


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_our_files_equal_the_published_ones_but_for_paths(name: str) -> None:
    ours = json.loads((ROOT / "config" / name).read_text())
    assert ours.keys() - NOT_SET == PUBLISHED_FILES[name].keys()
    assert {key: value for key, value in ours.items() if key not in NOT_SET} == PUBLISHED_FILES[name]
    assert NOT_SET.keys() <= ours.keys()


@pytest.mark.parametrize("name", PUBLISHED_FILES)
def test_published_files_load_with_only_paths_edited(name: str, write: Files) -> None:
    paths = {key: f"/some/where/{key}" for key in NOT_SET}
    config = load_config([write(**PUBLISHED_FILES[name], **paths)])
    assert config == Config(**PUBLISHED_FILES[name], **paths)
    assert config.warnings == ()


def unused(path: Path) -> frozenset[str]:
    """Keys that mean nothing to the command which a shipped file is for."""
    return unused_by("estimator" if path.name.startswith(("estimator-", "augmentation")) else "train")


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.json")), ids=lambda path: path.name)
def test_shipped_files_load_alone(path: Path) -> None:
    config = load_config([str(path)], unused=unused(path))
    assert config.save_path.startswith("runs/") or "save_path" in unused(path)


def test_every_key_is_classified() -> None:
    assert list(KEYS) == list(Config.model_fields)
    for name, key in KEYS.items():
        assert Config.model_fields[name].description, name
        assert key.group and key.of and key.commands, name
        assert key.decides in ("weights", "report", "nothing"), name


def test_keys_of_one_kind_share_a_heading() -> None:
    groups = {name: key.group for name, key in KEYS.items()}
    assert groups["redirector"] == groups["e4e_weights"] == groups["growth_rate"] == "model"
    assert groups["synthetic_persons"] == "embedded data set"
    assert groups["face_size"] == groups["inversions_path"] == "aligned faces"
    assert {key.group for name, key in KEYS.items() if name.startswith("coeff_")} == {"losses"}


def test_what_is_learned_is_decided_by_some_keys_and_not_by_others() -> None:
    decisive = {"batch_size", "growth_rate", "coeff_l1_loss", "gazecapture_file", "seed", "precision", "e4e_weights"}
    harmless = {
        "device",
        "num_threads",
        "deterministic",
        "save_interval",
        "eval_gazenet_savepath",
        "mpiigaze_file",
        "redirected_file",
    }
    elsewhere = {"estimator", "evaluate_only", "augmentation_labels", "estimator_real_share"}  # other commands'
    assert decisive <= decides_weights()
    assert not decides_weights() & (harmless | elsewhere)


def test_the_experiment_fixes_what_its_figures_depend_on_and_nothing_more() -> None:
    fixed = {"eval_gazenet_savepath", "mpiigaze_file", "test_subsample", "redirected_max_error", "estimator_num_steps"}
    own = {"gazenet_savepath", "semi_supervised", "store_redirect_dataset", "redirected_file"}  # it sets them itself
    assert fixed <= fixed_in_experiment()
    assert not fixed_in_experiment() & (own | {"device", "save_path", "augmentation_labels", "walk_frames"})


def test_a_redirector_ignores_what_is_of_others() -> None:
    names = ("st-ed", "st-ed-flow", "redirtrans", "redirtrans-gan")
    st_ed, flow, redirtrans, gan = (ignored_by(name) for name in names)
    assert st_ed - redirtrans == {"projector_width", "deprojector_width"} and redirtrans < st_ed
    assert {"e4e_weights", "face_size", "pair_num_steps", "coeff_latent_loss"} <= redirtrans
    assert {"growth_rate", "discriminator_width", "carry_colour", "mirror_augmentation", "vary_pairs"} <= gan
    parts = {"flow_size", "flow_width", "coeff_warp_loss", "coeff_paint_loss", "coeff_mask_loss", "coeff_flow_loss"}
    assert gan & redirtrans == st_ed - flow == parts
    assert flow - st_ed == {"carry_colour", "output_init_gain"}
    assert "coeff_eye_loss" in gan
    assert not (st_ed | flow | gan) & {"image_size", "batch_size", "coeff_l2_loss", "coeff_gradient_loss"}
    assert not (st_ed | flow | gan) & {"redirected_file", "redirect_to_labels"}


def test_a_command_leaves_out_what_it_does_not_read() -> None:
    assert {"save_path", "load_step", "num_2d_units", "coeff_l1_loss", "train_missing_estimators"} <= unused_by(
        "estimator"
    )
    assert {"estimator", "evaluate_only", "redirected_use", "augmentation_seeds"} <= unused_by("train")
    assert not (unused_by("train") | unused_by("estimator")) & {"gazecapture_file", "device", "image_size", "seed"}


def test_variants_of_the_experiment_are_checked(write: Files) -> None:
    wrong = {"a": {"redirected_max_error": 5.0}, "b": {"batch_size": 4}, "c": {"estimator_num_steps": "many"}}
    message = refusal(write(**USABLE, augmentation_variants=wrong))
    assert "b: batch_size; c: estimator_num_steps" in message and "a:" not in message.replace("a.json", "")


def test_lists_and_objects_as_flags(write: Files) -> None:
    config = load_config([write(**USABLE), "--augmentation-labels", "[100, 400]", "--augmentation-variants={}"])
    assert config.augmentation_labels == (100, 400) and config.augmentation_variants == {}
    message = refusal(write(**USABLE), "--augmentation-labels", "100", "--augmentation-seeds", "[0.5]")
    assert "--augmentation-labels" in message and "[200, 1000]" in message and "--augmentation-seeds" in message


def test_later_files_win_and_flags_win_over_files(write: Files) -> None:
    first = write("first.json", **USABLE, batch_size=4, seed=1, use_tensorboard=True)
    second = write("second.json", batch_size=5, seed=2)
    config = load_config([first, "--seed", "3", second, "--no-use-tensorboard"])
    assert (config.batch_size, config.seed, config.use_tensorboard) == (5, 3, False)
    assert config.sources["batch_size"] == "second.json"
    assert config.sources["save_path"] == "first.json"
    assert config.sources["seed"] == "--seed"
    assert config.sources["use_tensorboard"] == "--no-use-tensorboard"
    assert "growth_rate" not in config.sources


def test_the_command_line_of_the_process_is_the_default(write: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", write(**USABLE), "--seed=9"])
    assert load_config().seed == 9


def test_flags_take_the_type_of_their_key(write: Files) -> None:
    numbers = ["--l2-reg", "1e-3", "--image-size", "64", "--densenet-blocks=3"]
    others = ["--columbia-is-bgr", "--no-mpiigaze-is-bgr", "--lpips-weights="]
    config = load_config([write(**USABLE, pick_at_least_per_person=3), *numbers, *others])
    assert (config.l2_reg, config.image_size, config.densenet_blocks) == (0.001, 64, 3)
    assert (config.columbia_is_bgr, config.mpiigaze_is_bgr, config.eyediap_is_bgr) == (True, False, None)
    assert config.pick_at_least_per_person == 3
    assert load_config(["a.json", "--pick-at-least-per-person", "none"]).pick_at_least_per_person is None


def test_a_whole_number_is_accepted_for_a_float(write: Files) -> None:
    value = load_config([write(**USABLE, coeff_l1_loss=150)]).coeff_l1_loss
    assert value == 150.0
    assert type(value) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"batch_size": "8"', "a.json: 'batch_size' is \"8\", expected a whole number of at least 1"),
        ('"batch_size": true', "'batch_size' is true, expected a whole number"),
        ('"batch_size": 1.0', "'batch_size' is 1.0, expected a whole number"),
        ('"batch_size": 0', "'batch_size' is 0, expected a whole number of at least 1"),
        ('"batch_size": null', "'batch_size' is null"),
        ('"use_mixing": 1', "'use_mixing' is 1, expected true or false; correct it, or leave"),
        ('"l2_reg": NaN', "'l2_reg' is NaN, expected a number of at least 0"),
        ('"l2_reg": Infinity', "'l2_reg' is Infinity"),
        ('"l2_reg": 1e999', "'l2_reg' is Infinity"),
        ('"l2_reg": true', "'l2_reg' is true, expected a number"),
        ('"decay": 1.5', "'decay' is 1.5, expected a number above 0 and at most 1"),
        ('"test_subsample": 0', "'test_subsample' is 0, expected a number above 0"),
        ('"image_size": 64.0', "'image_size' is 64.0, expected one of 64, 128, 256"),
        ('"image_size": 100', "'image_size' is 100, expected one of 64, 128, 256"),
        ('"precision": "half"', "'precision' is \"half\", expected one of \"float32\", \"bfloat16\""),
        ('"device": "gpu"', "'device' is \"gpu\", expected auto, cpu, cuda or cuda:N"),
        ('"save_path": 3', "'save_path' is 3, expected text"),
        ('"columbia_is_bgr": 0', "'columbia_is_bgr' is 0, expected true or false, or null"),
        ('"pick_at_least_per_person": 0', "is 0, expected a whole number of at least 1, or null"),
        ('"num_data_loaders": 10000', "is 10000, expected a whole number of at least 0 and at most 1024"),
        ('"num_threads": 10000000000', "is 10000000000, expected a whole number of at least 0 and at most 1024"),
        ('"estimator_real_share": 1.0', "is 1.0, expected a number above 0 and below 1, or null"),
        ('"pairs_within_group": 1.5', "is 1.5, expected a number of at least 0 and at most 1"),
        ('"synthetic_look": "real"', "'synthetic_look' is \"real\", expected one of \"drawn\", \"rendered\""),
        ('"synthetic_group_size": 0', "'synthetic_group_size' is 0, expected a whole number of at least 1, or null"),
        ('"synthetic_framing": null', "is null, expected one of \"\", \"exact\", \"detected\""),
        ('"synthetic_persons": 5', "'synthetic_persons' is 5, expected a whole number of at least 6"),
        ('"growth_rate": [1]', "'growth_rate' is [1], expected"),
        ('"lr": 0.1', "a.json: lr is derived: batch_size x base_learning_rate; set base_learning_rate"),
        ('"batchsize": 8', "a.json: unknown setting 'batchsize'; did you mean 'batch_size'?"),
        ('"zzz": 8', "a.json: unknown setting 'zzz'; --help lists them all"),
        ('"seed": 1, "seed": 2', "a.json: 'seed' is there more than once"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_the_only_problem_named(text: str, message: str, write: Files) -> None:
    write(**USABLE)
    found = refusal("a.json", write.text("{" + text + "}", "b.json"))
    assert message.replace("a.json", "b.json") in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3"])
def test_devices_are_accepted(device: str) -> None:
    assert Config(device=device).device == device


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch-size x", '--batch-size is "x", expected a whole number of at least 1'),
        ("--batch-size 8.0", '--batch-size is "8.0", expected a whole number'),
        ("--batch-size -8", "--batch-size is -8, expected a whole number"),
        ("--l2-reg -1e-4", "--l2-reg is -0.0001, expected a number of at least 0"),
        ("--l2-reg nan", "--l2-reg is NaN, expected a number"),
        ("--batch-size", "--batch-size has no value, expected a whole number of at least 1"),
        ("--batch-size --no-use-mixing", "--batch-size has no value"),
        ("--batch_size 8", "unknown setting --batch_size; did you mean --batch-size?"),
        ("--batch 8", "unknown setting --batch"),
        ("--zzz", "unknown setting --zzz; --help lists them all"),
        ("--lr 0.1", "lr is derived: batch_size x base_learning_rate; set base_learning_rate"),
        ("--use-mixing true", "--use-mixing takes no value; write --use-mixing or --no-use-mixing"),
        ("--no-use-mixing=false", "--no-use-mixing takes no value"),
    ],
)
def test_a_wrong_flag_is_the_only_problem_named(flags: str, message: str, write: Files) -> None:
    found = refusal(write(**USABLE), *flags.split())
    assert message in found
    assert len(found.splitlines()) == 1


def test_all_problems_come_in_one_message(write: Files) -> None:
    first = write("first.json", **USABLE, batch_size="8", semi_supervised=True, sed=1)
    second = write("second.json", decay=2, coeff_disentangle_embedding_loss=1)
    found = refusal(first, second, "--no-use-mixing", "--growth-rate", "0", "--frobnicate")
    for fragment in (
        "first.json: 'batch_size' is \"8\"",
        "first.json: 'semi_supervised' is true, but num_labeled_samples is 0",
        "first.json: unknown setting 'sed'; did you mean 'seed'?",
        "second.json: 'decay' is 2",
        "second.json: 'coeff_disentangle_embedding_loss' is 1, but use_mixing is false",
        "--growth-rate is 0",
        "unknown setting --frobnicate",
    ):
        assert fragment in found
    assert len(found.splitlines()) == 7


def test_a_bad_value_makes_no_second_problem_out_of_a_contradiction(write: Files) -> None:
    found = refusal(write(**USABLE, skip_training=True, load_step="206865"))
    assert "'load_step' is \"206865\"" in found
    assert "skip_training" not in found


def test_a_syntax_error_names_file_line_and_column(write: Files) -> None:
    found = refusal(write.text('{\n  "seed": 1,\n  "decay" 2\n}'))
    assert found.startswith("a.json: line 3, column 11: not JSON")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_read_in_utf_8_or_as_its_byte_order_mark_says(encoding: str, write: Files) -> None:
    Path("a.json").write_bytes(json.dumps({**USABLE, "save_path": "läufe/実験"}, ensure_ascii=False).encode(encoding))
    assert load_config(["a.json"]).save_path == "läufe/実験"
    Path("a.json").write_bytes('{\n  "save_path": "ä" 2\n}'.encode(encoding))
    assert refusal("a.json").startswith("a.json: line 2, column 20: not JSON")


def test_a_file_in_another_encoding_is_told_what_to_do(write: Files) -> None:
    Path("a.json").write_bytes('{"save_path": "läufe"}'.encode("latin-1"))
    assert refusal("a.json").startswith("a.json: cannot be read as a JSON file: 'utf-8' codec can't decode")
    assert "save it as UTF-8" in refusal("a.json")


def test_a_missing_file_is_named(write: Files) -> None:
    assert refusal("nowhere.json") == (
        "nowhere.json: no such config file; give the path of one, e.g. config/quickstart.json."
    )


def test_a_file_that_is_not_an_object_is_refused(write: Files) -> None:
    assert refusal(write.text("[1, 2]")) == "a.json: holds [1, 2], expected an object of settings: {...}."


def test_a_folder_or_binary_file_is_refused(write: Files) -> None:
    Path("folder").mkdir()
    Path("weights.pt").write_bytes(b"\x80\x02\xff")
    found = refusal("folder", "weights.pt").splitlines()
    assert found[0].startswith("folder: cannot be read as a JSON file")
    assert found[1].startswith("weights.pt: cannot be read as a JSON file")


def test_no_config_file_at_all_is_told_what_to_do() -> None:
    first, *problems = refusal().splitlines()
    assert first == "No config file was given; start from one: train_st_ed.py config/quickstart.json"
    assert [problem.split()[0] for problem in problems] == [
        "'save_path'",
        "'num_2d_units'",
        "'gazecapture_file'",
    ]


@pytest.mark.parametrize(
    ("settings", "key", "fragment"),
    [
        ({"save_path": "."}, "save_path", "names no folder"),
        ({"save_path": ""}, "save_path", "names no folder"),
        ({"num_2d_units": 1}, "num_2d_units", "is 1, expected at least 2: the last two are head and gaze"),
        ({"densenet_blocks": 6}, "densenet_blocks", "halves an image of 128 px 7 times, to less than 2 px"),
        ({"image_size": 64}, "densenet_blocks", "halves an image of 64 px 6 times"),
        ({"densenet_blocks": 10**9}, "densenet_blocks", "set fewer blocks"),
        ({"redirector": "st-ed-flow", "flow_size": 64}, "densenet_blocks", "halves an image of 64 px 6 times"),
        ({"redirector": "st-ed-flow", "flow_size": 128, "image_size": 64, "densenet_blocks": 3}, "flow_size",
         "is 128, more than image_size (64)"),
        ({"gazecapture_file": "."}, "gazecapture_file", "names no file, but training needs one"),
        ({"gazecapture_file": "", "synthetic_data": True}, "synthetic_data", "set gazecapture_file"),
        ({"skip_training": True}, "skip_training", "is true, but load_step is 0"),
        ({"semi_supervised": True}, "semi_supervised", "is true, but num_labeled_samples is 0"),
        ({"semi_supervised": True, "num_labeled_samples": 9, "redirect_to_labels": True}, "redirect_to_labels",
         "with semi_supervised targets have no labels"),
        ({"synthetic_data": True, "synthetic_still_heads": 0.5}, "synthetic_still_heads",
         "is 0.5, but samples come one by one; set synthetic_group_size"),
        ({"synthetic_data": True, "synthetic_still_heads": 0.5, "synthetic_look": "rendered",
          "synthetic_group_size": 1}, "synthetic_still_heads", "come one by one"),
        (NO_WEIGHTS | {"coeff_warp_loss": 1}, "coeff_l1_loss", "nothing would be"),  # st-ed makes no warp
        ({"coeff_disentangle_embedding_loss": 2, "use_mixing": False}, "coeff_disentangle_embedding_loss",
         "is 2, but use_mixing is false"),
        ({"coeff_disentangle_pseudo_label_loss": 0.5, "use_mixing": False},
         "coeff_disentangle_pseudo_label_loss", "is 0.5, but use_mixing is false"),
        ({"lr_warmup_steps": 11, "num_training_steps": 10}, "lr_warmup_steps",
         "is 11, more than num_training_steps"),
        ({"gazenet_savepath": "x/y", "eval_gazenet_savepath": "x//y/", "eval_gazenet_backbone": "vgg16"},
         "eval_gazenet_savepath", "an estimator that took part in training must not judge"),
        (NO_WEIGHTS, "coeff_l1_loss", "nothing would be"),
        ({"densenet_blocks": 1, "size_0d_unit": 8}, "size_0d_unit", "fewer than the 32 x 32 innermost map"),
        ({"gazenet_savepath": "runs//test"}, "save_path", "is gazenet_savepath, too"),
        ({"gazenet_backbone": "resnet50", "coeff_redirection_feature_loss": 2}, "coeff_redirection_feature_loss",
         "is 2, but gazenet_backbone is resnet50, which has no feature maps"),
        (COMPACT | {"estimator": "eval_gazenet"}, "estimator_batch_size", "normalise over the images of a batch"),
        (COMPACT | {"train_missing_estimators": True}, "estimator_batch_size", "set 2 or more"),
        ({"redirected_file": "r.h5", "estimator_real_share": 0.5, "estimator_batch_size": 1}, "estimator_real_share",
         "but estimator_batch_size is 1"),
        ({"redirected_file": "r.h5", "estimator_real_share": 0.5, "redirected_use": "real"}, "estimator_real_share",
         "but redirected_use is real"),
    ],
)  # fmt: skip
def test_contradictions_are_found(settings: dict[str, Any], key: str, fragment: str) -> None:
    [(found, problem)] = contradictions(Config(**(USABLE | settings)))
    assert found == key
    assert fragment in problem


@pytest.mark.parametrize(
    "settings",
    [
        {"skip_training": True, "load_step": 1, "gazecapture_file": "."},
        {"image_size": 64, "densenet_blocks": 4},
        {"image_size": 256, "densenet_blocks": 6},
        {"eval_gazenet_backbone": "vgg16"},  # neither estimator is given
        {"lr_warmup_steps": 10, "num_training_steps": 10},
        COMPACT,  # nobody trains the estimator that measures
        COMPACT | {"estimator": "eval_gazenet", "evaluate_only": True},
        {"estimator_batch_size": 1, "train_missing_estimators": True},  # of vgg16 and resnet50
        {"gazenet_backbone": "resnet50", "coeff_redirection_feature_loss": 2, "skip_training": True, "load_step": 1},
        {"estimator_real_share": 0.5, "redirected_use": "real"},  # there is no redirected data set
        NO_WEIGHTS | {"coeff_warp_loss": 1, "redirector": "st-ed-flow"},
        {"synthetic_data": True, "synthetic_still_heads": 0.5, "synthetic_group_size": 5},
        {"synthetic_data": True, "synthetic_still_heads": 0.5, "synthetic_look": "rendered"},  # in groups of its own
        {"synthetic_still_heads": 0.5},  # no data set is made
        {"estimator_real_share": 0.5, "redirected_use": "real", "redirected_file": "r.h5", "evaluate_only": True},
    ],
)
def test_what_only_looks_like_a_contradiction_is_accepted(settings: dict[str, Any]) -> None:
    assert contradictions(Config(**(USABLE | settings))) == []


def test_a_command_is_not_refused_for_what_only_another_does(write: Files) -> None:
    file = write(**USABLE, gazenet_backbone="compact", eval_gazenet_backbone="compact-residual", estimator_batch_size=1)
    assert load_config([file], unused=unused_by("train")).estimator_batch_size == 1  # no estimator is trained
    with pytest.raises(UserError, match="estimator_batch_size"):
        load_config([file], unused=unused_by("estimator"))
    run = {"save_path": ".", "lr_warmup_steps": 9, "num_training_steps": 1, "coeff_identity_loss": 1}
    assert load_config([write(**USABLE | run)], unused=unused_by("estimator")).lr_warmup_steps == 9


def test_use_apex_is_read_as_bfloat16_with_a_warning(write: Files) -> None:
    config = load_config([write(**USABLE, use_apex=True)])
    assert config.precision == "bfloat16"
    assert config.warnings == ("a.json: 'use_apex' is read as precision bfloat16; set precision instead.",)


def test_an_explicit_precision_wins_over_use_apex(write: Files) -> None:
    config = load_config([write(**USABLE, use_apex=True), "--precision", "float32"])
    assert config.precision == "float32"
    assert "has no effect: precision is given" in config.warnings[0]


def test_use_apex_false_is_silent(write: Files) -> None:
    config = load_config([write(**USABLE, use_apex=False)])
    assert (config.precision, config.warnings) == ("float32", ())


def test_lr_is_batch_size_times_base_learning_rate() -> None:
    assert Config(batch_size=20, base_learning_rate=5e-5).lr == pytest.approx(1e-3)


def test_describe_lists_what_differs_and_where_it_comes_from(write: Files) -> None:
    config = load_config([write(**USABLE, batch_size=20, decay=0.8), "--no-use-mixing"])
    assert config.describe().splitlines() == [
        'gazecapture_file = "data/some.h5" (default ".") from a.json',
        "num_2d_units = 2 (default 0) from a.json",
        "use_mixing = false (default true) from --no-use-mixing",
        "batch_size = 20 (default 32) from a.json",
        'save_path = "runs/test" (default ".") from a.json',
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.json")), ids=lambda path: path.name)
def test_to_json_loads_back_to_an_equal_config(path: Path, write: Files) -> None:
    config = load_config([str(path), "--seed", "7", "--use-apex"], unused=unused(path))
    again = load_config([write.text(config.to_json())], unused=unused(path))
    assert again == config
    assert hash(again) == hash(config)
    assert again != load_config([str(path)], unused=unused(path))


def test_a_config_survives_copies_and_other_processes(write: Files) -> None:
    config = load_config([write(**USABLE)])
    for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert twin == config
        assert twin.sources == config.sources


def test_a_config_is_frozen_strict_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 1  # type: ignore[misc]
    for settings in ({"batchsize": 8}, {"lr": 1.0}, {"batch_size": "8"}, {"image_size": 64.0}):
        with pytest.raises(ValidationError):
            Config(**settings)


def test_help_documents_every_key_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit_:
        load_config(["--unknown", "--help"], prog="some.py", description="What it does.")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert "usage: some.py [CONFIG.json ...]" in words
    assert "What it does." in words
    for key, info in Config.model_fields.items():
        assert info.description
        assert "--" + key.replace("_", "-") + " " in text.replace(",", " ")
        assert f"{info.description} (default {json.dumps(info.default)})" in words
    headings = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings[2:] == list(dict.fromkeys(key.group for key in KEYS.values()))
    model = text[text.index("\nmodel:\n") : text.index("\nlosses:\n")]
    assert "--redirector " in model and "--e4e-weights " in model


def test_the_configuration_page_is_the_one_that_the_keys_give() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == configuration_page()


def test_the_configuration_page_says_what_is_known_of_a_key() -> None:
    page = configuration_page()
    assert page.isascii() and all(f"| `{name}` |" in page for name in KEYS)
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert rows["face_size"].endswith("pixels | redirtrans-gan; `train_st_ed.py` | no |")
    assert rows["test_subsample"].endswith("training |  | not in an experiment |")
    assert rows["mpiigaze_aligned_file"].endswith("| yes |")  # of redirtrans-gan, which no experiment trains
    assert "| `null` | a number above 0 and below 1, or null |" in rows["estimator_real_share"]


def test_a_path_of_nothing_or_a_dot_is_not_set() -> None:
    assert [is_set(path) for path in ("", ".", "x.h5")] == [False, False, True]


def test_a_decoder_without_an_innermost_map_asks_for_no_embeddings_to_fill_it() -> None:
    few = ["--densenet-blocks", "1", "--size-0d-unit", "64"]
    assert load_config([str(ROOT / "config" / "flow-quickstart.json"), *few]).densenet_blocks == 1
    with pytest.raises(UserError, match="innermost map"):
        load_config([str(ROOT / "config" / "quickstart.json"), *few])


@pytest.mark.timeout(10)  # looking for the nearest name of each took so long
def test_a_file_of_20_000_unknown_settings_is_refused_at_once_and_on_one_screen(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({f"batch_siz{i}": i for i in range(20_000)} | {"x" * 9_999_999: 1}))
    with pytest.raises(UserError, match="did you mean 'batch_size'.*\n") as raised:
        load_config([str(tmp_path / "c.json")])
    assert str(raised.value).count("\n") < 24 and "... and 19,9" in str(raised.value)
