"""Config to estimators: which one is meant, what its weights are trained by, and the trained network."""

from pathlib import Path

from core.command import UserError
from core.config_default import Config, is_set
from core.estimator.spec import EstimatorSettings, EstimatorSpec, stored_facts
from core.tracking import say
from models.gazeheadnet import Estimator
from models.load_pretrained_model import IMAGENET_URLS, load_estimator


def training_estimator(config: Config) -> EstimatorSpec:
    """The one that the losses look through."""
    return EstimatorSpec(
        "gazenet",
        Path(config.gazenet_savepath),
        config.gazenet_backbone,
        config.image_size,
        max_labels=config.num_labeled_samples if config.semi_supervised else None,
    )


def measuring_estimator(config: Config) -> EstimatorSpec:
    """The one that measures, which no training has seen."""
    return EstimatorSpec(
        "eval_gazenet", Path(config.eval_gazenet_savepath), config.eval_gazenet_backbone, config.image_size
    )


def configured_estimator(config: Config) -> EstimatorSpec:
    """The one that train_facenet.py works on."""
    return training_estimator(config) if config.estimator == "gazenet" else measuring_estimator(config)


def needs_training_estimator(config: Config, wants_codes: bool) -> bool:
    """Whether a redirection term of the losses has a weight, or the labels are to be those of the inversions.

    wants_codes: the redirector is trained on inversions.
    """
    relabels = wants_codes and config.relabel_inversions
    return bool(config.coeff_redirection_feature_loss or config.coeff_redirection_gaze_loss or relabels)


def estimator_settings(config: Config, spec: EstimatorSpec) -> EstimatorSettings:
    """What decides its weights; the one that measures has another seed."""
    is_real = not is_set(config.redirected_file)
    return EstimatorSettings(
        backbone=spec.backbone,
        num_steps=config.estimator_num_steps,
        batch_size=config.estimator_batch_size,
        learning_rate=config.estimator_learning_rate,
        seed=config.seed + (spec.key == "eval_gazenet"),
        init=config.estimator_init if spec.backbone in IMAGENET_URLS else "none",
        lr_schedule=config.estimator_lr_schedule,
        decay_steps=config.estimator_decay_steps,
        decay=config.estimator_decay,
        flip=config.estimator_flip,
        vary_framing=config.estimator_vary_framing,
        # Of a redirected data set all is used: the number of labels was chosen when it was made.
        num_labeled_samples=config.estimator_num_labeled_samples if is_real else None,
        precision=config.precision,
        real_share=None if is_real else config.estimator_real_share,
    )


def build_estimator(spec: EstimatorSpec) -> Estimator:
    """The trained estimator, frozen; it sees patches.

    Raises UserError if it is not there, does not fit its backbone or was trained for another image size.
    """
    estimator, file = load_estimator(spec.path, spec.backbone, key=spec.path_key), spec.checkpoint()
    # The published files have no JSON and are for 128 px. The compact networks see 64 px whatever comes in.
    facts = stored_facts(file) if file else {}
    size, labels = facts.get("image_size", 128), facts.get("samples", 0)
    if spec.max_labels is not None and labels > spec.max_labels:
        say(
            f"warning: the estimator at {file} was trained with {labels} labels, more than num_labeled_samples "
            f"({spec.max_labels}): the redirector learns from them through it."
        )
    if spec.backbone in ("vgg16", "resnet50") and size != spec.image_size:
        raise UserError(
            f"{spec.path_key}: {file} was trained on images of {size} px, but image_size is {spec.image_size}. "
            "Train one for that size, or change image_size."
        )
    return estimator


def estimator_hashes(config: Config) -> dict[str, str]:
    """sha256 of each estimator's file, '' where there is none: frozen parts are named, not stored again."""
    return {spec.key: spec.sha256() for spec in (training_estimator(config), measuring_estimator(config))}
