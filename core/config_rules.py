"""Which settings do not go together, or say nothing sensible."""

import os
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from core.config_default import DECODERS, Config, ignored_by, is_set

_SAME_IN_ALL_VARIANTS = {"redirected_file", "estimator_num_labeled_samples", "estimator_test_interval"}


def _wrong_variants(variants: Mapping[str, Mapping[str, Any]]) -> str:
    """'name: key, ...' of settings that a variant of the augmentation experiment cannot have."""
    problems = []
    for name, settings in variants.items():
        wrong = {key for key in settings if not key.startswith(("redirected_", "estimator_"))}
        wrong |= settings.keys() & _SAME_IN_ALL_VARIANTS
        try:
            Config(**settings)
        except ValidationError as error:
            wrong |= {str(problem["loc"][0]) for problem in error.errors()}
        problems += [f"{name}: {', '.join(sorted(wrong))}"] * bool(wrong)
    return "; ".join(problems)


def contradictions(config: Config, unusable: Collection[str] = ()) -> list[tuple[str, str]]:
    """(key, problem) of settings that do not go together; rules that read an `unusable` key are left out."""
    c = config
    is_gan, latent_terms = c.redirector == "redirtrans-gan", (c.coeff_latent_loss, c.coeff_delta_loss)
    seen = (c.redirector == "st-ed-flow" and c.flow_size) or c.image_size  # by the encoder
    side, rest = divmod(seen, 2 ** min(c.densenet_blocks + 1, 64))
    folders = {key: os.path.normpath(getattr(c, key)) for key in ("gazenet_savepath", "eval_gazenet_savepath")}
    same_path = folders["gazenet_savepath"] == folders["eval_gazenet_savepath"]
    holds_estimator = [key for key, path in folders.items() if is_set(path) and path == os.path.normpath(c.save_path)]
    embedding = c.size_0d_unit + 2 * c.num_1d_units * c.size_1d_unit + 3 * c.num_2d_units * c.size_2d_unit
    training = not c.skip_training
    compact = {which for which in ("gazenet", "eval_gazenet") if getattr(c, f"{which}_backbone").startswith("compact")}
    batch_of_one = "is 1, but the compact networks normalise over the images of a batch; set 2 or more."
    shares_batch = c.estimator_real_share is not None and is_set(c.redirected_file) and not c.evaluate_only
    one_by_one = c.synthetic_group_size == 1 or (c.synthetic_group_size is None and c.synthetic_look == "drawn")
    weights = [key for key in Config.model_fields.keys() - ignored_by(c.redirector) if key.startswith("coeff_")]
    no_mixing = "but use_mixing is false; set use_mixing to true, or the weight to 0."
    rules: list[tuple[str, str, bool, str]] = [  # key, the other keys it depends on, broken?, problem
        ("save_path", "", not is_set(c.save_path), "names no folder; set the run's, e.g. runs/mine."),
        ("save_path", "gazenet_savepath eval_gazenet_savepath", bool(holds_estimator),
         f"is {' and '.join(holds_estimator)}, too: checkpoints of the run and an estimator's would mix; set another."),
        ("num_2d_units", "redirector", c.num_2d_units < 2 and not is_gan,
         f"is {c.num_2d_units}, expected at least 2: the last two are head and gaze (ST-ED.json: 4)."),
        ("flow_size", "image_size redirector", c.flow_size > c.image_size and c.redirector == "st-ed-flow",
         f"is {c.flow_size}, more than image_size ({c.image_size}); set at most that, or 0."),
        ("densenet_blocks", "image_size flow_size redirector", (side < 2 or rest > 0) and not is_gan,
         (f"is {c.densenet_blocks}, which halves an image of {seen} px {c.densenet_blocks + 1} times,"
          " to less than 2 px; set fewer blocks or a larger image_size.")),
        ("gazecapture_file", "skip_training synthetic_data",
         training and not c.synthetic_data and not is_set(c.gazecapture_file),
         "names no file, but training needs one; set it, or synthetic_data for the embedded data set."),
        ("synthetic_data", "gazecapture_file", c.synthetic_data and not is_set(c.gazecapture_file),
         "is true, but gazecapture_file does not say where to keep the data set; set gazecapture_file."),
        ("skip_training", "load_step", c.skip_training and c.load_step == 0,
         "is true, but load_step is 0; set load_step to the step of the checkpoint to evaluate."),
        ("semi_supervised", "num_labeled_samples", c.semi_supervised and c.num_labeled_samples == 0,
         "is true, but num_labeled_samples is 0; set it to the number of labelled images, e.g. 5000."),
        ("redirect_to_labels", "semi_supervised", c.redirect_to_labels and c.semi_supervised,
         "is true, but with semi_supervised targets have no labels; set it to false."),
        ("synthetic_still_heads", "synthetic_data synthetic_look synthetic_group_size",
         c.synthetic_data and c.synthetic_still_heads > 0 and one_by_one,
         f"is {c.synthetic_still_heads:g}, but samples come one by one; set synthetic_group_size, e.g. 5."),
        ("coeff_disentangle_embedding_loss", "use_mixing",
         c.coeff_disentangle_embedding_loss > 0 and not c.use_mixing,
         f"is {c.coeff_disentangle_embedding_loss:g}, {no_mixing}"),
        ("coeff_disentangle_pseudo_label_loss", "use_mixing",
         c.coeff_disentangle_pseudo_label_loss > 0 and not c.use_mixing,
         f"is {c.coeff_disentangle_pseudo_label_loss:g}, {no_mixing}"),
        ("lr_warmup_steps", "num_training_steps", c.lr_warmup_steps > c.num_training_steps,
         f"is {c.lr_warmup_steps}, more than num_training_steps ({c.num_training_steps}); set fewer."),
        ("eval_gazenet_savepath", "gazenet_savepath",
         is_set(c.eval_gazenet_savepath) and same_path,
         ("is gazenet_savepath: an estimator that took part in training must not judge its result, and a folder"
          " holds one estimator; set eval_gazenet_savepath to another.")),
        ("coeff_redirection_feature_loss", "gazenet_backbone skip_training",
         training and c.coeff_redirection_feature_loss > 0 and c.gazenet_backbone == "resnet50",
         (f"is {c.coeff_redirection_feature_loss:g}, but gazenet_backbone is resnet50, which has no feature maps to"
          " compare; set the weight to 0, or another backbone.")),
        ("estimator_batch_size", "train_missing_estimators gazenet_backbone eval_gazenet_backbone",
         c.estimator_batch_size == 1 and c.train_missing_estimators and bool(compact), batch_of_one),
        ("estimator_batch_size", "estimator evaluate_only gazenet_backbone eval_gazenet_backbone",
         c.estimator_batch_size == 1 and not c.evaluate_only and c.estimator in compact, batch_of_one),
        ("estimator_real_share", "redirected_file evaluate_only estimator_batch_size",
         shares_batch and c.estimator_batch_size == 1,
         "shares a batch among real and redirected images, but estimator_batch_size is 1; set 2 or more."),
        ("estimator_real_share", "redirected_file evaluate_only redirected_use",
         shares_batch and c.redirected_use != "both",
         (f"shares a batch among real and redirected images, but redirected_use is {c.redirected_use}; set it to both,"
          " or estimator_real_share to null.")),
        ("coeff_l1_loss", "skip_training redirector", training and not any(getattr(c, key) for key in weights),
         "and every other weight are 0, so nothing would be learned; set at least one."),
        ("size_0d_unit", "num_1d_units size_1d_unit num_2d_units size_2d_unit densenet_blocks image_size redirector",
         side >= 2 and embedding < side**2 and c.redirector in DECODERS,
         (f"and the other factors give {embedding} embedding values, fewer than the {side} x {side} innermost map"
          " of the decoder; set more, or more densenet_blocks.")),
        ("e4e_weights", "redirector", is_gan and not is_set(c.e4e_weights),
         "names no file, but redirtrans-gan needs e4e_ffhq_encode.pt (pretrained_models/README.md); set it."),
        ("arcface_weights", "coeff_identity_loss", c.coeff_identity_loss > 0 and not is_set(c.arcface_weights),
         f"names no file, but coeff_identity_loss is {c.coeff_identity_loss:g}; set r50_backbone.pth, or no weight."),
        ("layer_weights_prior", "", bool(c.layer_weights_prior.keys() - {"head", "gaze"}),
         f"names {', '.join(sorted(c.layer_weights_prior.keys() - {'head', 'gaze'}))}, expected head and gaze."),
        ("use_mixing", "redirector coeff_disentangle_embedding_loss coeff_disentangle_pseudo_label_loss",
         is_gan and bool(c.coeff_disentangle_embedding_loss or c.coeff_disentangle_pseudo_label_loss),
         "re-encodes images, through which redirtrans-gan's frozen encoder does not train; set coeff_disentangle_* 0."),
        ("mirror_augmentation", "redirector", c.mirror_augmentation and is_gan,
         "is true, but redirtrans-gan trains on cached codes, which cannot be mirrored; set it to false."),
        ("vary_pairs", "redirector", c.vary_pairs and is_gan,
         "is true, but redirtrans-gan trains on cached codes, which cannot be varied; set it to false."),
        ("store_redirect_dataset", "redirector", c.store_redirect_dataset and is_gan,
         "is true, but redirtrans-gan makes aligned faces, not the patches of that data set; set it to false."),
        ("redirector", "coeff_identity_loss coeff_latent_loss coeff_delta_loss",
         not is_gan and bool(c.coeff_identity_loss or any(latent_terms)),
         (f"is {c.redirector}, but coeff_identity_loss, coeff_latent_loss and coeff_delta_loss are redirtrans-gan's;"
          " set them 0.")),
        ("augmentation_labels", "redirector", bool(c.augmentation_labels) and is_gan,
         "is set, but redirtrans-gan makes aligned faces, not patches for estimators; set another redirector."),
        ("augmentation_variants", "", bool(wrong := _wrong_variants(c.augmentation_variants)),
         f"has what no variant can set ({wrong}); settings of redirected data and of estimators can be set."),
    ]  # fmt: skip
    return [
        (key, problem)
        for key, others, broken, problem in rules
        if broken and not {key, *others.split()} & set(unusable)
    ]
