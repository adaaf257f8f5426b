"""Every setting with all that is known of it: type, default, meaning, and what `core.config_types.Key` says."""

import json
import os
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator

from core.config_types import (
    AsTuple,
    Backbone,
    Command,
    Count,
    Device,
    Key,
    Natural,
    Positive,
    RedirectorName,
    Seed,
    Share,
    Threads,
    Weight,
    known_of,
    setting,
)

GAN: set[RedirectorName] = {"redirtrans-gan"}
REDIRTRANS: set[RedirectorName] = {"redirtrans", "redirtrans-gan"}
FLOW: set[RedirectorName] = {"st-ed-flow"}
DECODERS: set[RedirectorName] = {"st-ed", "redirtrans"}  # with ST-ED's decoder
PATCHES: set[RedirectorName] = {*DECODERS, *FLOW}  # redirectors of normalised patches
TRAIN: set[Command] = {"train"}
REDIRECT: set[Command] = {"train", "experiment"}  # what trains a redirector

# The groups, in the order of --help, with what most of their settings have in common.
_data = partial(setting, group="data", decides="weights")
_embedded = partial(setting, group="embedded data set", decides="weights")
_aligned = partial(setting, group="aligned faces", decides="weights", of=GAN, commands=TRAIN)
_model = partial(setting, group="model", decides="weights", commands=REDIRECT)
_pretrained = partial(setting, group="model", decides="weights", of=GAN, commands=TRAIN)
_patches = partial(setting, group="model", decides="weights", of=PATCHES, commands=REDIRECT)
_decoder = partial(setting, group="model", decides="weights", of=DECODERS, commands=REDIRECT)
_flow = partial(setting, group="losses", decides="weights", of=FLOW, commands=REDIRECT)
_loss = partial(setting, group="losses", decides="weights", commands=REDIRECT)
_training = partial(setting, group="training", decides="weights", commands=REDIRECT)
_machine = partial(setting, group="machine", decides="nothing")
_estimator = partial(setting, group="gaze and head estimators", decides="weights")
_run = partial(setting, group="run folder", decides="nothing", commands=REDIRECT)
_evaluation = partial(setting, group="evaluation", decides="nothing")
_redirected = partial(setting, group="redirected data set", decides="report", of=PATCHES, commands=REDIRECT)
_experiment = partial(setting, group="augmentation experiment", decides="nothing", commands={"experiment"})


class Config(BaseModel):
    """All settings of a run. Frozen; the types are strict, but for a whole number where a float is expected.

    Raises pydantic's ValidationError (a ValueError) on an unknown key, a wrong type or a value out of range.
    What contradicts what is only checked by `load_config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Data
    gazecapture_file: str = _data(".", "GazeCapture in the ST-ED HDF5 layout: training, gc/val and gc/test")
    gazecapture_split: str = _data("gazecapture_split.json", "person split; also looked for beside the data")
    mpiigaze_file: str = _data(".", "MPIIFaceGaze in the same layout, for evaluation; '.': none", decides="report")
    columbia_file: str = _data(".", "Columbia in the same layout, for evaluation; '.' leaves it out", decides="report")
    eyediap_file: str = _data(".", "EYEDIAP in the same layout, for evaluation; '.' leaves it out", decides="report")
    gazecapture_is_bgr: bool | None = _data(None, "blue first; null: the file's color_order, else RGB")
    mpiigaze_is_bgr: bool | None = _data(None, "blue first; null: the file's color_order, else RGB", decides="report")
    columbia_is_bgr: bool | None = _data(None, "blue first; null: the file's color_order, else BGR", decides="report")
    eyediap_is_bgr: bool | None = _data(None, "blue first; null: the file's color_order, else BGR", decides="report")
    image_size: Literal[64, 128, 256] = _data(128, "side of the square images, pixels")
    mirror_augmentation: bool = _data(
        False, "mirror half of the training pairs and their yaw labels", of=PATCHES, commands=REDIRECT
    )
    vary_pairs: bool = _data(
        False, "vary colours, light, shadows, sharpness, framing of a pair alike", of=PATCHES, commands=REDIRECT
    )
    pairs_within_group: float = _data(
        0.0, "share of the training pairs drawn within a group, so that they share light; needs a file with groups",
        ge=0, le=1, commands=REDIRECT,
    )  # fmt: skip
    semi_supervised: bool = _data(False, "use the labels of num_labeled_samples images only", commands=TRAIN)
    num_labeled_samples: Natural = _data(0, "labelled training images when semi_supervised", commands=TRAIN)
    pick_at_least_per_person: int | None = _data(None, "leave out persons with fewer images; null: none", ge=1)
    test_subsample: Share = _data(0.05, "share of a data set that is evaluated during training", decides="report")
    num_data_loaders: Threads = _data(12, "loader processes; 0: load in the training process", decides="nothing")

    # Embedded data set
    synthetic_data: bool = _embedded(False, "make the embedded data set where gazecapture_file is missing")
    synthetic_persons: int = _embedded(48, "persons in the embedded data set", ge=6)
    synthetic_samples: int = _embedded(150, "images a person in the embedded data set", ge=2)
    synthetic_variation: Literal["calm", "full"] = _embedded("calm", "how much light and background vary")
    synthetic_look: Literal["drawn", "rendered"] = _embedded("drawn", "drawn or rendered faces")
    synthetic_group_size: int | None = _embedded(
        None, "images in turn that share light, camera, background and expression; null: the look's own", ge=1
    )
    synthetic_framing: Literal["", "exact", "detected"] = _embedded(
        "", "detected: patches lie as detected landmarks place them; empty: the look's own"
    )
    synthetic_still_heads: float = _embedded(0.0, "share of a group's images whose head is its first's", ge=0, le=1)

    # Aligned faces, for redirtrans-gan
    gazecapture_aligned_file: str = _aligned(
        ".", "FFHQ-aligned faces of gazecapture_file; '.': its patches, enlarged", commands={"train", "estimator"}
    )
    mpiigaze_aligned_file: str = _aligned(".", "FFHQ-aligned faces of mpiigaze_file", decides="report")
    columbia_aligned_file: str = _aligned(".", "FFHQ-aligned faces of columbia_file", decides="report")
    eyediap_aligned_file: str = _aligned(".", "FFHQ-aligned faces of eyediap_file", decides="report")
    face_size: Literal[64, 128, 256] = _aligned(256, "side of the aligned faces, pixels")
    inversions_path: str = _aligned(
        ".", "folder of the cached W+ codes; '.': inversions, beside the data", decides="nothing"
    )
    relabel_inversions: bool = _aligned(True, "train with gaze and head as the training estimator sees the inversions")

    # Model
    redirector: RedirectorName = _model(
        "st-ed",
        "st-ed-flow: carries the source's pixels; redirtrans: in the latent code of ST-ED's encoder and decoder; "
        "redirtrans-gan: of e4e and StyleGAN2",
        commands=None,
    )
    projector_width: Count = _model(96, "hidden width of ReDirTrans' projector", of=REDIRTRANS)
    deprojector_width: Count = _model(128, "hidden width of ReDirTrans' deprojectors", of=REDIRTRANS)
    layer_weights_prior: dict[str, list[float]] = _pretrained(
        {}, "start of the weight of each row of W+, by factor (head, gaze); 1 where not given",
        title='numbers by factor, e.g. {"head": [1, 1, ...], "gaze": [...]}',
    )  # fmt: skip
    e4e_weights: str = _pretrained(".", "e4e's encoder and its StyleGAN2: e4e_ffhq_encode.pt, or a pair trained here")
    stylegan2_weights: str = _pretrained(".", "another StyleGAN2 in place of the one in e4e_weights")
    checkpoint_generator: bool = _pretrained(
        False, "in training keep less of the generator in memory and compute it again", decides="nothing"
    )
    arcface_weights: str = _pretrained(".", "r50_backbone.pth, for coeff_identity_loss")
    train_missing_pair: bool = _pretrained(
        False, "train a small encoder and generator first where e4e_weights is missing", decides="nothing"
    )
    pair_num_steps: Count = _pretrained(2400, "training steps of the pair of train_missing_pair", decides="nothing")
    densenet_blocks: Count = _patches(5, "dense blocks in the encoder, and in ST-ED's decoder")
    growth_rate: Count = _patches(12, "channels that a DenseNet layer adds")
    fc_embedding_width: Natural = _patches(0, "hidden width of the embedding head; 0: its input's, as published")
    output_init_gain: Positive = _decoder(1.0, "scale of the decoder's last layer before training; 1: as published")
    carry_colour: bool = _decoder(False, "add the source's mean colour to the decoder's image; not published")
    flow_size: Literal[0, 64, 128] = _patches(0, "side of what sees all but the eyes; 0: image_size", of=FLOW)
    flow_width: Count = _patches(16, "channels of the decoder of flow, mask and paint at full size", of=FLOW)
    size_0d_unit: Count = _patches(512, "size of the appearance embedding")
    num_1d_units: Natural = _patches(16, "extraneous factors of one angle")
    size_1d_unit: Count = _patches(16, "size of a one-angle factor's embedding, each of its 2 rows")
    num_2d_units: Natural = _patches(0, "factors of two angles; the last two are head and gaze, so at least 2")
    size_2d_unit: Count = _patches(16, "size of a two-angle factor's embedding, each of its 3 rows")
    discriminator_width: Count = _patches(64, "channels of the discriminator's first layer")

    # Losses
    coeff_l1_loss: Weight = _loss(200.0, "weight of the L1 distance to the target image")
    coeff_gaze_loss: Weight = _loss(2.0, "weight of the encoder's gaze and head errors")
    coeff_embedding_consistency_loss: Weight = _loss(1.0, "weight of equal canonical embeddings in a pair")
    coeff_discriminator_loss: Weight = _loss(0.5, "weight of the adversarial terms")
    coeff_disentangle_embedding_loss: Weight = _loss(0.0, "weight of embeddings surviving use_mixing", of=PATCHES)
    coeff_disentangle_pseudo_label_loss: Weight = _loss(0.0, "weight of conditions surviving use_mixing", of=PATCHES)
    coeff_redirection_feature_loss: Weight = _loss(0.0, "weight of the training estimator's features")
    coeff_redirection_gaze_loss: Weight = _loss(1.0, "weight of the training estimator's angles")
    coeff_l2_loss: Weight = _loss(0.0, "weight of the squared distance to the target image")
    coeff_lpips_loss: Weight = _loss(0.0, "weight of LPIPS to the target image")
    coeff_identity_loss: Weight = _loss(0.0, "weight of ArcFace's distance to the target", of=GAN, commands=TRAIN)
    coeff_latent_loss: Weight = _loss(
        0.0, "weight of the squared distance to the target's code, for redirtrans-gan", of=GAN, commands=TRAIN
    )
    coeff_delta_loss: Weight = _loss(
        0.0, "weight of rows of W+ staying near the first, for redirtrans-gan", of=GAN, commands=TRAIN
    )
    coeff_gradient_loss: Weight = _loss(0.0, "weight of the L1 distance between differences of neighbouring pixels")
    coeff_eye_loss: Weight = _loss(0.0, "weight of the L1 distance of pixels and gradients around the eyes", of=PATCHES)
    redirect_to_labels: bool = _loss(False, "ask for the target's labels in training, not for what the encoder sees")
    coeff_warp_loss: Weight = _flow(0.0, "weight of the L1 distance of the warped source alone")
    coeff_paint_loss: Weight = _flow(0.0, "weight of the L1 distance of the paint alone")
    coeff_mask_loss: Weight = _flow(0.0, "weight of the share that is painted, and a fifth of the mirrored one")
    coeff_flow_loss: Weight = _flow(0.0, "weight of the flow's total variation")
    use_mixing: bool = _loss(True, "for coeff_disentangle_*: decode and re-encode randomly mixed conditions of a pair")
    discriminator_warmup_steps: Natural = _loss(20000, "steps in which the adversarial weight rises from 0")

    # Training
    batch_size: Count = _training(32, "image pairs a step, of all processes together")
    base_learning_rate: Positive = _training(5e-5, "learning rate a sample; lr = batch_size x base_learning_rate")
    num_training_steps: Count = _training(206865, "steps of a whole training")
    l2_reg: Weight = _training(1e-4, "Adam's L2 penalty")
    gradient_clip: Weight = _training(0.0, "norm that a gradient is scaled down to where it is larger; 0: never")
    lr_schedule: Literal["step", "cosine"] = _training("step", "step: see decay; cosine: down to 0")
    lr_warmup_steps: Natural = _training(0, "steps in which the learning rate rises from 0")
    decay: Share = _training(0.8, "factor of the learning rate every decay_steps")
    decay_steps: Count = _training(34480, "steps between two decays of the learning rate")
    load_step: Natural = _training(
        0, "start from this step's checkpoint in save_path; 0: none", decides="nothing", commands=TRAIN
    )
    resume: bool = _training(
        True, "continue from the newest checkpoint in save_path; false: refuse to", decides="nothing", commands=None
    )

    # Machine
    device: Device = _machine("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bfloat16"] = _machine(
        "float32", "bfloat16: autocast of the networks", decides="weights"
    )
    compile: bool = _machine(False, "compile what a step computes, at the first step", commands=REDIRECT)
    num_threads: Threads = _machine(0, "CPU threads; 0: PyTorch's choice")
    deterministic: bool = _machine(False, "refuse operations whose result may differ from one time to the next")
    seed: Seed = _machine(0, "seed of every random draw", decides="weights")
    use_apex: bool = _machine(False, "no effect of its own; true is read as precision bfloat16")

    # Gaze and head estimators
    gazenet_savepath: str = _estimator(".", "the estimator of the training losses", commands={"train", "estimator"})
    eval_gazenet_savepath: str = _estimator(
        ".", "the estimator that measures; it must take no part in training", decides="report"
    )
    gazenet_backbone: Backbone = _estimator("vgg16", "network of the training estimator")
    eval_gazenet_backbone: Backbone = _estimator("resnet50", "network of the measuring estimator", decides="report")
    train_missing_estimators: bool = _estimator(
        False, "train an estimator first where its weights are missing", decides="nothing", commands=REDIRECT
    )
    estimator: Literal["gazenet", "eval_gazenet"] = _estimator(
        "gazenet", "the one that train_facenet.py works on", decides="nothing", commands={"estimator"}
    )
    evaluate_only: bool = _estimator(
        False, "train_facenet.py: measure the estimator that is there", decides="nothing", commands={"estimator"}
    )
    estimator_init: str = _estimator("imagenet", "imagenet (torchvision's), none, or a file of torchvision's weights")
    estimator_batch_size: Count = _estimator(64, "images a step when an estimator is trained")
    estimator_learning_rate: Positive = _estimator(1e-4, "an estimator's (highest) learning rate")
    estimator_num_steps: Count = _estimator(100000, "training steps of an estimator")
    estimator_lr_schedule: Literal["step", "one-cycle"] = _estimator("step", "its learning rate over time")
    estimator_decay: Share = _estimator(0.5, "factor of its learning rate every estimator_decay_steps")
    estimator_decay_steps: Count = _estimator(50000, "steps between two decays of its learning rate")
    estimator_flip: bool = _estimator(False, "mirror half of an estimator's training images and their yaw labels")
    estimator_vary_framing: bool = _estimator(False, "zoom and shift an estimator's training images a little")
    estimator_num_labeled_samples: Count = _estimator(50000, "labelled images an estimator is trained on, at most")
    estimator_real_share: float | None = _estimator(
        None, "share of a batch that real images fill beside redirected ones; null: mixed as they come", gt=0, lt=1,
        commands={"estimator", "experiment"},
    )  # fmt: skip
    estimator_test_interval: Natural = _estimator(
        5000, "steps between two validations of an estimator; 0: at the end only"
    )
    estimator_save_interval: Natural = _estimator(
        5000, "steps between two saves of its training state; 0: at the end only", decides="nothing"
    )

    # Run folder
    save_path: str = _run(".", "the run folder: checkpoints, metrics, pictures; must be given")
    save_interval: Count = _run(50000, "steps between two checkpoints")
    keep_checkpoints: Natural = _run(0, "newest checkpoints to keep; 0: all")
    print_freq_train: Count = _run(200, "steps between two lines of training losses", commands=None)
    print_freq_test: Count = _run(4000, "steps between two evaluations on test_subsample")
    save_freq_images: Count = _run(4000, "steps between two sets of pictures")
    use_tensorboard: bool = _run(False, "write TensorBoard events", commands=None)
    num_sample_persons: Count = _run(24, "persons in the pictures")
    walk_frames: Natural = _run(24, "frames of a latent-walk video; 0: no videos")

    # Evaluation
    skip_training: bool = _evaluation(False, "evaluate the checkpoint of load_step only", commands=TRAIN)
    eval_batch_size: Count = _evaluation(128, "images a batch in evaluation")
    compute_full_result: bool = _evaluation(True, "evaluate every data set in full at the end", commands=REDIRECT)
    eval_disentanglement: bool = _evaluation(
        True, "also measure what perturbing a factor does to gaze and head", commands=REDIRECT
    )
    eval_pairs_within_group: bool = _evaluation(
        False, "redirect to partners of the image's group, where there are groups", decides="report", commands=REDIRECT
    )
    lpips_weights: str = _evaluation(
        "", "torchvision's AlexNet weights for LPIPS; empty: torch hub's cache", commands=REDIRECT
    )
    allow_downloads: bool = _evaluation(True, "fetch missing weights of torchvision: LPIPS' AlexNet, estimator_init's")

    # Redirected data set
    store_redirect_dataset: bool = _redirected(
        False, "redirect the labelled images after the training, into a data set", commands=TRAIN
    )
    redirected_file: str = _redirected(
        ".",
        "the redirected data set; '.': Redirected_samples.h5 in save_path, none for train_facenet.py",
        of=None,
        commands={"train", "estimator"},
    )
    redirected_use: Literal["both", "real", "redirected"] = _redirected(
        "both", "its images that train_facenet.py trains with", of=None, commands={"estimator", "experiment"}
    )
    redirected_per_sample: Count = _redirected(1, "redirected images made from each image")
    redirected_unlabeled_samples: Natural = _redirected(0, "images without a label to redirect as well")
    redirected_images: Literal["uint8", "float32"] = _redirected(
        "uint8", "pixels of the redirected images; float32: [-1, 1], as published"
    )
    redirected_bandwidth: Positive = _redirected(
        1.0, "factor of the bandwidth (Scott's) of the targets' density estimate"
    )
    redirected_truncated: bool = _redirected(False, "draw targets only inside the range of the labels")
    redirected_max_error: float | None = _redirected(
        None, "leave out what the training estimator sees further off, deg", gt=0
    )

    # Augmentation experiment
    augmentation_labels: Annotated[tuple[Count, ...], AsTuple] = _experiment(
        (), "numbers of labels for which train_facenet.py compares estimators without and with redirected data",
        title="a list of whole numbers, e.g. [200, 1000]",
    )  # fmt: skip
    augmentation_seeds: Annotated[tuple[Seed, ...], AsTuple] = _experiment(
        (0,), "seeds of the comparison", title="a list of whole numbers of at least 0, e.g. [0, 1, 2]"
    )
    augmentation_variants: dict[str, dict[str, Any]] = _experiment(
        {"real and redirected": {}}, "ways to train with redirected data: name -> settings that differ",
        title='settings by name, e.g. {"gated": {"redirected_max_error": 5.0}}',
    )  # fmt: skip

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("image_size", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        # A Literal compares by ==, which would let 64.0 pass.
        if type(value) is float:
            raise ValueError("not a whole number")
        return value

    @property
    def lr(self) -> float:
        """Adam's learning rate before any schedule."""
        return self.batch_size * self.base_learning_rate

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each given key came from: a file, as it was spelled, or a flag. Defaults are not in it."""
        return MappingProxyType(self._sources)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should be told although the settings are usable."""
        return self._warnings

    def describe(self) -> str:
        """What differs from the defaults, one line a key: key = value (default X) from SOURCE."""
        return "\n".join(
            f"{key} = {show(getattr(self, key))} (default {show(info.default)}) from {self._sources.get(key, 'code')}"
            for key, info in Config.model_fields.items()
            if getattr(self, key) != info.default
        )

    def to_json(self) -> str:
        """All keys, as a config file that loads back to an equal Config."""
        return json.dumps(self.model_dump(), indent=2, allow_nan=False) + "\n"

    # Two configurations are equal if their settings are, wherever these came from.
    def __eq__(self, other: object) -> bool:
        return self.model_dump() == other.model_dump() if isinstance(other, Config) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_json())


KEYS: Mapping[str, Key] = MappingProxyType({name: known_of(info) for name, info in Config.model_fields.items()})


def decides_weights() -> frozenset[str]:
    """Settings that decide what a redirector learns: it is said if they are others when its training goes on."""
    return frozenset(name for name, key in KEYS.items() if key.decides == "weights" and "train" in key.commands)


def fixed_in_experiment() -> frozenset[str]:
    """Settings that decide the augmentation experiment's result: all starts of one must have the same."""
    return frozenset(name for name, key in KEYS.items() if key.decides != "nothing" and "experiment" in key.commands)


def ignored_by(redirector: str) -> frozenset[str]:
    """Settings that mean nothing to a redirector."""
    return frozenset(name for name, key in KEYS.items() if redirector not in key.of)


def unused_by(command: Command) -> frozenset[str]:
    """Settings that mean nothing to a command: what they contradict does not matter to it."""
    return frozenset(name for name, key in KEYS.items() if command not in key.commands)


def unused_flags(config: Config, command: Command) -> list[str]:
    """Flags given that mean nothing to a command. Settings of files do not count: one file serves several commands."""
    unused = unused_by(command)
    return [source for key, source in config.sources.items() if source.startswith("--") and key in unused]


def show(value: Any) -> str:
    """A value as it is spelled in a JSON file, cut short."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def is_set(path: str) -> bool:
    """Whether a path setting was given: '.' and '' mean that it was not."""
    return os.path.normpath(path) != "."
