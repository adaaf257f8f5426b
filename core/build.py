"""Config to networks and what trains them; `core/sources.py` does the data."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from core.adversary import Adversary, ImageAdversary, LatentAdversary
from core.command import UserError
from core.config_default import Config, ignored_by, is_set
from core.estimator.build import training_estimator
from core.files import file_sha256, require_writable
from core.inversion import InvertedDataset, inversion_facts, inversion_folder, invert_dataset
from core.objective import Objective
from core.schedules import Cadence, redirector_rate
from core.tracking import say
from core.trainer import StepSettings
from dataset_aligned import AlignedDataset
from models.arcface import ArcFace
from models.discriminator import LatentDiscriminator, PatchDiscriminator
from models.encoder import embedding_width
from models.gazeheadnet import Estimator
from models.load_pretrained_model import (
    load_arcface,
    load_e4e,
    load_stylegan2,
)
from models.perceptual import TRUNK_URL, build_lpips, find_trunk
from models.redirector import Redirector
from models.redirtrans import ReDirTransGAN, ReDirTransSTED
from models.st_ed import STED, st_ed_factors
from models.st_ed_flow import STEDFlow


def build_redirector(config: Config) -> Redirector:
    """One of the redirectors, what is trained with random weights drawn from the seed.

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
    if config.redirector == "st-ed-flow":
        return STEDFlow(
            factors,
            config.flow_size or config.image_size,
            config.growth_rate,
            config.densenet_blocks,
            config.fc_embedding_width,
            config.flow_width,
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
        to_labels=config.redirect_to_labels,
    )


def step_settings(config: Config, device: torch.device) -> StepSettings:
    return StepSettings(
        learning_rate=learning_rate_schedule(config),
        weight_decay=config.l2_reg,
        gradient_clip=config.gradient_clip,
        adversarial_warmup_steps=config.discriminator_warmup_steps,
        mirror=config.mirror_augmentation,
        vary=config.vary_pairs,
        precision=config.precision,
        compiled=config.compile,
        seed=config.seed,
        device=device,
    )


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
    Raises UserError or OSError if the cache cannot be written or read, KeyboardInterrupt if the user asks to stop.
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
    """Term -> weight; the terms carry their TensorBoard names. Those of other redirectors have none."""
    keys = {
        "l1": "coeff_l1_loss",
        "l2": "coeff_l2_loss",
        "gradient": "coeff_gradient_loss",
        "eyes": "coeff_eye_loss",
        "warp": "coeff_warp_loss",
        "paint": "coeff_paint_loss",
        "mask": "coeff_mask_loss",
        "flow": "coeff_flow_loss",
        "lpips": "coeff_lpips_loss",
        "identity": "coeff_identity_loss",
        "latent": "coeff_latent_loss",
        "delta": "coeff_delta_loss",
        "gaze_a": "coeff_gaze_loss",
        "head_a": "coeff_gaze_loss",
        "generator": "coeff_discriminator_loss",
        "embedding_consistency": "coeff_embedding_consistency_loss",
        "embedding_disentangle": "coeff_disentangle_embedding_loss",
        "label_disentangle": "coeff_disentangle_pseudo_label_loss",
        "redirection_feature_loss": "coeff_redirection_feature_loss",
        "gaze_redirection": "coeff_redirection_gaze_loss",
        "head_redirection": "coeff_redirection_gaze_loss",
    }
    ignored = ignored_by(config.redirector)
    return {term: 0.0 if key in ignored else getattr(config, key) for term, key in keys.items()}


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
