"""Config to networks and what trains them; `core/sources.py` does the data."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from core import sources
from core.adversary import Adversary, ImageAdversary, LatentAdversary
from core.autoencoder.train import other_settings, train_autoencoder
from core.autoencoder.trainer import AutoencoderSettings
from core.command import UserError
from core.config_default import Config, ignored_by, is_set
from core.estimator.spec import EstimatorSettings, EstimatorSpec, stored_facts
from core.files import file_sha256, require_writable
from core.inversion import InvertedDataset, inversion_facts, inversion_folder, invert_dataset
from core.objective import Objective
from core.runtime import stop_on_signal
from core.schedules import Cadence, redirector_rate
from core.tracking import say
from core.trainer import StepSettings
from dataset_aligned import AlignedDataset
from models.arcface import ArcFace
from models.discriminator import LatentDiscriminator, PatchDiscriminator
from models.encoder import embedding_width
from models.gazeheadnet import Estimator
from models.load_pretrained_model import (
    IMAGENET_URLS,
    load_arcface,
    load_e4e,
    load_estimator,
    load_stylegan2,
)
from models.perceptual import TRUNK_URL, build_lpips, find_trunk
from models.redirector import Redirector
from models.redirtrans import ReDirTransGAN, ReDirTransSTED
from models.st_ed import STED, st_ed_factors


def build_redirector(config: Config) -> Redirector:
    """ST-ED or ReDirTrans, what is trained with random weights drawn from the seed.

    Raises UserError if the frozen parts of redirtrans-gan cannot be loaded.
    """
    if config.redirector == "redirtrans-gan":
        return _build_redirtrans_gan(config)
    torch.manual_seed(config.seed)
    factors = st_ed_factors(
        config.size_0d_unit, config.num_1d_units, config.size_1d_unit, config.num_2d_units, config.size_2d_unit
    )
    if config.redirector == "redirtrans":
        return ReDirTransSTED(
            embedding_width(factors),  # so that the decoder is ST-ED's
            config.image_size,
            config.growth_rate,
            config.densenet_blocks,
            fc_width=config.fc_embedding_width,
            projector_hidden=config.projector_width,
            deprojector_hidden=config.deprojector_width,
            output_gain=config.output_init_gain,
            carry_colour=config.carry_colour,
        )
    return STED(
        factors,
        config.image_size,
        config.growth_rate,
        config.densenet_blocks,
        config.fc_embedding_width,
        config.output_init_gain,
        config.carry_colour,
    )


def _build_redirtrans_gan(config: Config) -> ReDirTransGAN:
    encoder, generator, latent_avg = load_e4e(config.e4e_weights)
    if is_set(config.stylegan2_weights):
        other = load_stylegan2(config.stylegan2_weights)
        if (other.num_rows, other.style_dim) != (generator.num_rows, generator.style_dim):
            raise UserError(
                f"stylegan2_weights: {config.stylegan2_weights} has W+ codes of {other.num_rows} x {other.style_dim}, "
                f"the encoder of e4e_weights gives {generator.num_rows} x {generator.style_dim}. Set one that fits."
            )
        generator = other
    generator.checkpointing = config.checkpoint_generator
    torch.manual_seed(config.seed)
    redirector = ReDirTransGAN(
        encoder,
        generator,
        latent_avg,
        config.face_size,
        projector_hidden=config.projector_width,
        deprojector_hidden=config.deprojector_width,
        prior=config.layer_weights_prior,
    )
    redirector.frozen_files = _frozen_files(config)
    return redirector


def _frozen_files(config: Config) -> dict[str, Path]:
    """The files of the frozen networks, by key."""
    keys = ("e4e_weights", "stylegan2_weights")
    return {key: Path(path) for key in keys if is_set(path := getattr(config, key))}


def build_discriminator(config: Config, redirector: Redirector) -> nn.Module:
    """Of images, or of the latent codes of a redirector that has a source of them."""
    torch.manual_seed(config.seed + 1)
    if source := redirector.code_source():
        return LatentDiscriminator(source.style_dim)
    return PatchDiscriminator(config.discriminator_width)


def build_adversary(config: Config, redirector: Redirector, discriminator: nn.Module) -> Adversary:
    """What the discriminator is asked in a step."""
    if source := redirector.code_source():
        return LatentAdversary(discriminator, redirector, source, config.seed)
    return ImageAdversary(discriminator, config.precision)


def build_objective(
    config: Config,
    redirector: Redirector,
    adversary: Adversary,
    estimator: nn.Module | None,
    lpips: nn.Module | None,
    arcface: ArcFace | None,
) -> Objective:
    return Objective(
        loss_weights(config),
        estimator,
        lpips,
        arcface,
        semi_supervised=config.semi_supervised,
        relabeled=redirector.wants_codes and config.relabel_inversions,
        needs_image=adversary.sees_images,
    )


def step_settings(config: Config, device: torch.device) -> StepSettings:
    return StepSettings(
        learning_rate=learning_rate_schedule(config),
        weight_decay=config.l2_reg,
        adversarial_warmup_steps=config.discriminator_warmup_steps,
        mirror=config.mirror_augmentation,
        precision=config.precision,
        seed=config.seed,
        device=device,
    )


def needs_training_estimator(config: Config, wants_codes: bool) -> bool:
    """Whether a redirection term of the losses has a weight, or the labels are to be those of the inversions.

    wants_codes: the redirector is trained on inversions.
    """
    relabels = wants_codes and config.relabel_inversions
    return bool(config.coeff_redirection_feature_loss or config.coeff_redirection_gaze_loss or relabels)


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


def _autoencoder_settings(config: Config) -> AutoencoderSettings:
    return AutoencoderSettings(
        size=config.face_size,
        channel_multiplier=config.face_size / 2048,  # a resolution has as many channels whatever the size
        num_steps=config.pair_num_steps,
        seed=config.seed,
        precision=config.precision,
    )


def check_autoencoder(config: Config) -> None:
    """Say if the networks at e4e_weights are not those that these settings would train; they are used as they are."""
    different = other_settings(Path(config.e4e_weights), _autoencoder_settings(config))
    if different:
        say(f"warning: {config.e4e_weights} {different}; it is used as it is. To train another, set another path.")


def train_missing_autoencoder(
    config: Config, faces: AlignedDataset, estimator: Estimator | None, device: torch.device
) -> None:
    """Train a small encoder and generator of `face_size` on these faces, into e4e_weights.

    Raises OSError, ValueError or FloatingPointError; KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    held_out = sources.open_faces(config, sources.VALIDATION)
    with stop_on_signal() as stop:
        done = train_autoencoder(
            faces,
            estimator,
            _autoencoder_settings(config),
            Path(config.e4e_weights),
            patch_size=config.image_size,
            device=device,
            held_out=held_out,
            stop=stop,
            num_workers=config.num_data_loaders,
        )
    if not done:
        say("Stopped in the training of the autoencoder; the same command continues from there.")
        raise KeyboardInterrupt


def build_inverted(
    config: Config,
    dataset: AlignedDataset,
    redirector: Redirector,
    frozen: Mapping[str, str],
    estimator: Estimator | None,
    device: torch.device,
) -> InvertedDataset:
    """The training faces with their W+ codes, which are computed now where they are not cached yet.

    frozen: key -> sha256 of the files that the redirector is built around.
    Raises OSError or ValueError if the cache cannot be written or read, KeyboardInterrupt if the user asks to stop.
    """
    facts = inversion_facts(
        dataset,
        patch_size=config.image_size,
        weights_sha256=frozen.get("e4e_weights", ""),
        generator_sha256=frozen.get("stylegan2_weights", ""),
        estimator_sha256=training_estimator(config).sha256() if config.relabel_inversions else "",
    )
    parent = Path(config.inversions_path) if is_set(config.inversions_path) else dataset.path.parent / "inversions"
    require_writable(parent, "inversions_path")
    folder = inversion_folder(parent, dataset, facts)
    invert_dataset(
        dataset,
        folder,
        facts,
        invert=redirector.invert,
        generate=redirector.generate,
        estimator=estimator if config.relabel_inversions else None,
        patch_size=config.image_size,
        batch_size=config.eval_batch_size,
        device=device,
        workers=config.num_data_loaders,
    )
    return InvertedDataset(dataset, folder, relabel=config.relabel_inversions)


def frozen_hashes(redirector: Redirector) -> dict[str, str]:
    """sha256 of the frozen files that a redirector is built around: they are named, not stored again."""
    return {key: file_sha256(path) for key, path in redirector.frozen_files.items()}


def estimator_hashes(config: Config) -> dict[str, str]:
    """sha256 of each estimator's file, '' where there is none: frozen parts are named, not stored again."""
    return {spec.key: spec.sha256() for spec in (training_estimator(config), measuring_estimator(config))}


def build_perceptual_metric(config: Config) -> nn.Module | None:
    """LPIPS, or None with one sentence where its weights are not to be had.

    Raises UserError where they are needed for training, or if they are others.
    """
    trunk = find_trunk(config.lpips_weights, config.allow_downloads)
    if trunk is None:
        if config.coeff_lpips_loss and not config.skip_training:
            raise UserError(
                f"lpips_weights: coeff_lpips_loss is {config.coeff_lpips_loss:g}, but LPIPS' AlexNet weights are not "
                f"here. Get {TRUNK_URL} and set lpips_weights to it, or set coeff_lpips_loss to 0."
            )
        say(f"LPIPS is left out: its AlexNet weights are not here. Get {TRUNK_URL} and set lpips_weights to it.")
        return None
    return build_lpips(trunk)


def loss_weights(config: Config) -> dict[str, float]:
    """Term -> weight; the terms carry their TensorBoard names."""
    return {
        "l1": config.coeff_l1_loss,
        "l2": config.coeff_l2_loss,
        "lpips": config.coeff_lpips_loss,
        "identity": config.coeff_identity_loss,
        "latent": config.coeff_latent_loss,
        "delta": config.coeff_delta_loss,
        "gaze_a": config.coeff_gaze_loss,
        "head_a": config.coeff_gaze_loss,
        "generator": config.coeff_discriminator_loss,
        "embedding_consistency": config.coeff_embedding_consistency_loss,
        "embedding_disentangle": config.coeff_disentangle_embedding_loss,
        "label_disentangle": config.coeff_disentangle_pseudo_label_loss,
        "redirection_feature_loss": config.coeff_redirection_feature_loss,
        "gaze_redirection": config.coeff_redirection_gaze_loss,
        "head_redirection": config.coeff_redirection_gaze_loss,
    }


def build_arcface(config: Config) -> ArcFace | None:
    """For the identity term and metric; None where no file is set, or where the one set is needed by neither.

    Raises UserError if it is missing in a training that weighs identity, or does not fit.
    """
    if not is_set(config.arcface_weights) or "arcface_weights" in ignored_by(config.redirector):
        return None
    if not Path(config.arcface_weights).is_file() and not (config.coeff_identity_loss and not config.skip_training):
        say(f"identity_similarity is left out: arcface_weights ({config.arcface_weights}) is not there.")
        return None
    return load_arcface(config.arcface_weights)


def learning_rate_schedule(config: Config) -> Callable[[int], float]:
    """Step -> learning rate."""
    return partial(
        redirector_rate,
        highest=config.lr,
        num_steps=config.num_training_steps,
        warmup_steps=config.lr_warmup_steps,
        schedule=config.lr_schedule,
        decay_steps=config.decay_steps,
        decay=config.decay,
    )


def cadence(config: Config) -> Cadence:
    return Cadence(
        log=config.print_freq_train,
        test=config.print_freq_test,
        pictures=config.save_freq_images,
        save=config.save_interval,
        test_at_end=not config.compute_full_result,
    )
