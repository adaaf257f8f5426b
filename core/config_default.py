"""Every setting with its type, default and meaning."""

import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", title="auto, cpu, cuda or cuda:N")]
AsTuple = BeforeValidator(lambda value: tuple(value) if type(value) is list else value)
Backbone = Literal["vgg16", "resnet50", "compact", "compact-residual"]


def _key(default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, **limits)


class Config(BaseModel):
    """All settings of a run. Frozen; the types are strict, but for a whole number where a float is expected.

    Raises pydantic's ValidationError (a ValueError) on an unknown key, a wrong type or a value out of range.
    What contradicts what is only checked by `load_config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Data
    gazecapture_file: str = _key(".", "GazeCapture in the ST-ED HDF5 layout: training, gc/val and gc/test")
    gazecapture_split: str = _key("gazecapture_split.json", "person split; also looked for beside the data")
    mpiigaze_file: str = _key(".", "MPIIFaceGaze in the same layout, for evaluation; '.' leaves it out")
    columbia_file: str = _key(".", "Columbia in the same layout, for evaluation; '.' leaves it out")
    eyediap_file: str = _key(".", "EYEDIAP in the same layout, for evaluation; '.' leaves it out")
    gazecapture_is_bgr: bool | None = _key(None, "blue first; null: the file's color_order, else RGB")
    mpiigaze_is_bgr: bool | None = _key(None, "blue first; null: the file's color_order, else RGB")
    columbia_is_bgr: bool | None = _key(None, "blue first; null: the file's color_order, else BGR")
    eyediap_is_bgr: bool | None = _key(None, "blue first; null: the file's color_order, else BGR")
    image_size: Literal[64, 128, 256] = _key(128, "side of the square images, pixels")
    mirror_augmentation: bool = _key(False, "mirror half of the training pairs and their yaw labels")
    semi_supervised: bool = _key(False, "use the labels of num_labeled_samples images only")
    num_labeled_samples: Natural = _key(0, "labelled training images when semi_supervised")
    pick_at_least_per_person: int | None = _key(None, "leave out persons with fewer images; null: none", ge=1)
    test_subsample: Share = _key(0.05, "share of a data set that is evaluated during training")
    num_data_loaders: Natural = _key(12, "loader processes; 0: load in the training process")

    # Embedded data set
    synthetic_data: bool = _key(False, "make the embedded data set where gazecapture_file is missing")
    synthetic_persons: int = _key(48, "persons in the embedded data set", ge=6)
    synthetic_samples: int = _key(150, "images a person in the embedded data set", ge=2)
    synthetic_variation: Literal["calm", "full"] = _key("calm", "how much light and background vary")

    # Aligned faces, for redirtrans-gan
    gazecapture_aligned_file: str = _key(".", "FFHQ-aligned faces of gazecapture_file; '.': its patches, enlarged")
    mpiigaze_aligned_file: str = _key(".", "those of mpiigaze_file")
    columbia_aligned_file: str = _key(".", "those of columbia_file")
    eyediap_aligned_file: str = _key(".", "those of eyediap_file")
    face_size: Literal[64, 128, 256] = _key(256, "side of the aligned faces, pixels")
    inversions_path: str = _key(".", "folder of the cached W+ codes; '.': inversions, beside the data")
    relabel_inversions: bool = _key(True, "train with gaze and head as the training estimator sees the inversions")

    # Model
    redirector: Literal["st-ed", "redirtrans", "redirtrans-gan"] = _key(
        "st-ed", "redirtrans: in the latent code of ST-ED's encoder and decoder; redirtrans-gan: of e4e and StyleGAN2"
    )
    projector_width: Count = _key(96, "hidden width of ReDirTrans' projector")
    deprojector_width: Count = _key(128, "hidden width of its deprojectors")
    layer_weights_prior: dict[str, list[float]] = _key(
        {}, "start of the weight of each row of W+, by factor (head, gaze); 1 where not given",
        title='numbers by factor, e.g. {"head": [1, 1, ...], "gaze": [...]}',
    )  # fmt: skip
    e4e_weights: str = _key(".", "e4e's encoder and its StyleGAN2: e4e_ffhq_encode.pt, or a pair trained here")
    stylegan2_weights: str = _key(".", "another StyleGAN2 in place of the one in e4e_weights")
    checkpoint_generator: bool = _key(False, "in training keep less of the generator in memory and compute it again")
    arcface_weights: str = _key(".", "r50_backbone.pth, for coeff_identity_loss")
    train_missing_pair: bool = _key(False, "train a small encoder and generator first where e4e_weights is missing")
    pair_num_steps: Count = _key(2400, "training steps of that pair")
    densenet_blocks: Count = _key(5, "dense blocks in the encoder and in the decoder")
    growth_rate: Count = _key(12, "channels that a DenseNet layer adds")
    fc_embedding_width: Natural = _key(0, "hidden width of the embedding head; 0: its input's, as published")
    output_init_gain: Positive = _key(1.0, "scale of the decoder's last layer before training; 1: as published")
    carry_colour: bool = _key(False, "add the source's mean colour to the decoder's image; not published")
    size_0d_unit: Count = _key(512, "size of the appearance embedding")
    num_1d_units: Natural = _key(16, "extraneous factors of one angle")
    size_1d_unit: Count = _key(16, "size of a one-angle factor's embedding, each of its 2 rows")
    num_2d_units: Natural = _key(0, "factors of two angles; the last two are head and gaze, so at least 2")
    size_2d_unit: Count = _key(16, "size of a two-angle factor's embedding, each of its 3 rows")
    discriminator_width: Count = _key(64, "channels of the discriminator's first layer")

    # Losses
    coeff_l1_loss: Weight = _key(200.0, "weight of the L1 distance to the target image")
    coeff_gaze_loss: Weight = _key(2.0, "weight of the encoder's gaze and head errors")
    coeff_embedding_consistency_loss: Weight = _key(1.0, "weight of equal canonical embeddings in a pair")
    coeff_discriminator_loss: Weight = _key(0.5, "weight of the adversarial terms")
    coeff_disentangle_embedding_loss: Weight = _key(0.0, "weight of embeddings surviving use_mixing")
    coeff_disentangle_pseudo_label_loss: Weight = _key(0.0, "weight of conditions surviving use_mixing")
    coeff_redirection_feature_loss: Weight = _key(0.0, "weight of the training estimator's features")
    coeff_redirection_gaze_loss: Weight = _key(1.0, "weight of the training estimator's angles")
    coeff_l2_loss: Weight = _key(0.0, "weight of the squared distance to the target image")
    coeff_lpips_loss: Weight = _key(0.0, "weight of LPIPS to the target image")
    coeff_identity_loss: Weight = _key(0.0, "weight of ArcFace's distance to the target, for redirtrans-gan")
    coeff_latent_loss: Weight = _key(0.0, "weight of the squared distance to the target's code, for redirtrans-gan")
    coeff_delta_loss: Weight = _key(0.0, "weight of rows of W+ staying near the first, for redirtrans-gan")
    use_mixing: bool = _key(True, "also decode and re-encode randomly mixed conditions of a pair")
    discriminator_warmup_steps: Natural = _key(20000, "steps in which the adversarial weight rises from 0")

    # Training
    batch_size: Count = _key(32, "image pairs a step and process")
    base_learning_rate: Positive = _key(5e-5, "learning rate a sample; lr = batch_size x base_learning_rate")
    num_training_steps: Count = _key(206865, "steps of a whole training")
    l2_reg: Weight = _key(1e-4, "Adam's L2 penalty")
    lr_schedule: Literal["step", "cosine"] = _key("step", "step: see decay; cosine: down to 0")
    lr_warmup_steps: Natural = _key(0, "steps in which the learning rate rises from 0")
    decay: Share = _key(0.8, "factor of the learning rate every decay_steps")
    decay_steps: Count = _key(34480, "steps between two decays of the learning rate")
    load_step: Natural = _key(0, "start from this step's checkpoint in save_path; 0: none")
    resume: bool = _key(True, "continue from the newest checkpoint in save_path; false: refuse to")

    # Machine
    device: Device = _key("auto", "auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bfloat16"] = _key("float32", "bfloat16: autocast of the networks")
    compile: bool = _key(False, "compile the networks before the first step")
    num_threads: Natural = _key(0, "CPU threads; 0: PyTorch's choice")
    seed: Seed = _key(0, "seed of every random draw")
    use_apex: bool = _key(False, "no effect of its own; true is read as precision bfloat16")

    # Gaze and head estimators
    gazenet_savepath: str = _key(".", "the estimator of the training losses")
    eval_gazenet_savepath: str = _key(".", "the estimator that measures; it must take no part in training")
    gazenet_backbone: Backbone = _key("vgg16", "network of the training estimator")
    eval_gazenet_backbone: Backbone = _key("resnet50", "network of the measuring estimator")
    train_missing_estimators: bool = _key(False, "train an estimator first where its weights are missing")
    estimator: Literal["gazenet", "eval_gazenet"] = _key("gazenet", "the one that train_facenet.py works on")
    evaluate_only: bool = _key(False, "train_facenet.py: measure the estimator that is there")
    estimator_init: str = _key("imagenet", "imagenet (torchvision's), none, or a file of torchvision's weights")
    estimator_batch_size: Count = _key(64, "images a step when an estimator is trained")
    estimator_learning_rate: Positive = _key(1e-4, "an estimator's (highest) learning rate")
    estimator_num_steps: Count = _key(100000, "training steps of an estimator")
    estimator_lr_schedule: Literal["step", "one-cycle"] = _key("step", "its learning rate over time")
    estimator_decay: Share = _key(0.5, "factor of its learning rate every estimator_decay_steps")
    estimator_decay_steps: Count = _key(50000, "steps between two decays of its learning rate")
    estimator_flip: bool = _key(False, "mirror half of an estimator's training images and their yaw labels")
    estimator_num_labeled_samples: Count = _key(50000, "labelled images an estimator is trained on, at most")
    estimator_real_share: float | None = _key(
        None, "share of a batch that real images fill beside redirected ones; null: mixed as they come", gt=0, lt=1
    )
    estimator_test_interval: Natural = _key(5000, "steps between two validations of an estimator; 0: at the end only")
    estimator_save_interval: Natural = _key(5000, "steps between two saves of its training state; 0: at the end only")

    # Run folder
    save_path: str = _key(".", "the run folder: checkpoints, metrics, pictures; must be given")
    save_interval: Count = _key(50000, "steps between two checkpoints")
    keep_checkpoints: Natural = _key(0, "newest checkpoints to keep; 0: all")
    print_freq_train: Count = _key(200, "steps between two lines of training losses")
    print_freq_test: Count = _key(4000, "steps between two evaluations on test_subsample")
    save_freq_images: Count = _key(4000, "steps between two sets of pictures")
    use_tensorboard: bool = _key(False, "write TensorBoard events")
    num_sample_persons: Count = _key(24, "persons in the pictures")
    walk_frames: Natural = _key(24, "frames of a latent-walk video; 0: no videos")

    # Evaluation
    skip_training: bool = _key(False, "evaluate the checkpoint of load_step only")
    eval_batch_size: Count = _key(128, "images a batch in evaluation")
    compute_full_result: bool = _key(True, "evaluate every data set in full at the end")
    eval_disentanglement: bool = _key(True, "also measure what perturbing a factor does to gaze and head")
    lpips_weights: str = _key("", "torchvision's AlexNet weights for LPIPS; empty: torch hub's cache")
    allow_downloads: bool = _key(True, "fetch missing weights of torchvision: LPIPS' AlexNet, estimator_init's")

    # Redirected data set
    store_redirect_dataset: bool = _key(False, "redirect the labelled images after the training, into a data set")
    redirected_file: str = _key(".", "it; '.': Redirected_samples.h5 in save_path, and none for train_facenet.py")
    redirected_use: Literal["both", "real", "redirected"] = _key("both", "its images that train_facenet.py trains with")
    redirected_per_sample: Count = _key(1, "redirected images made from each")
    redirected_unlabeled_samples: Natural = _key(0, "images without a label to redirect as well")
    redirected_images: Literal["uint8", "float32"] = _key("uint8", "their pixels; float32: [-1, 1], as published")
    redirected_bandwidth: Positive = _key(1.0, "factor of the bandwidth (Scott's) of the targets' density estimate")
    redirected_truncated: bool = _key(False, "draw targets only inside the range of the labels")
    redirected_max_error: float | None = _key(None, "leave out what the training estimator sees further off, deg", gt=0)

    # Augmentation experiment
    augmentation_labels: Annotated[tuple[Count, ...], AsTuple] = _key(
        (), "numbers of labels for which train_facenet.py compares estimators without and with redirected data",
        title="a list of whole numbers, e.g. [200, 1000]",
    )  # fmt: skip
    augmentation_seeds: Annotated[tuple[Seed, ...], AsTuple] = _key(
        (0,), "seeds of the comparison", title="a list of whole numbers of at least 0, e.g. [0, 1, 2]"
    )
    augmentation_variants: dict[str, dict[str, Any]] = _key(
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


def show(value: Any) -> str:
    """A value as it is spelled in a JSON file, cut short."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def is_set(path: str) -> bool:
    """Whether a path setting was given: '.' and '' mean that it was not."""
    return os.path.normpath(path) != "."
