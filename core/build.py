"""Config to networks and what trains them; `core/sources.py` does the data."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from core import sources
from core.adversary import LatentAdversary
from core.autoencoder.train import PairRecipe, other_settings, train_pair
from core.config_default import Config, is_set
from core.files import file_sha256, read_json, require_writable
from core.inversion import InvertedDataset, inversion_facts, inversion_folder, invert_dataset
from core.runtime import stop_on_signal
from core.tracking import say
from core.trainer import Cadence, RedirectionTrainer
from dataset_aligned import AlignedDataset
from models.arcface import ArcFace
from models.discriminator import LatentDiscriminator, PatchDiscriminator
from models.encoder import embedding_width
from models.gazeheadnet import Estimator
from models.load_pretrained_model import (
    facts_file,
    find_estimator_checkpoint,
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

    Raises FileNotFoundError or ValueError if the frozen parts of redirtrans-gan cannot be loaded.
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
            raise ValueError(
                f"stylegan2_weights: {config.stylegan2_weights} has W+ codes of {other.num_rows} x {other.style_dim}, "
                f"the encoder of e4e_weights gives {generator.num_rows} x {generator.style_dim}. Set one that fits."
            )
        generator = other
    generator.checkpointing = config.checkpoint_generator
    torch.manual_seed(config.seed)
    return ReDirTransGAN(
        encoder,
        generator,
        latent_avg,
        config.face_size,
        projector_hidden=config.projector_width,
        deprojector_hidden=config.deprojector_width,
        prior=config.layer_weights_prior,
    )


def build_discriminator(config: Config, redirector: Redirector) -> nn.Module:
    """Of images; of W+ codes for redirtrans-gan."""
    torch.manual_seed(config.seed + 1)
    if isinstance(redirector, ReDirTransGAN):
        return LatentDiscriminator(redirector.decoder.style_dim)
    return PatchDiscriminator(config.discriminator_width)


def needs_training_estimator(config: Config) -> bool:
    """Whether a redirection term of the losses has a weight, or the labels are to be those of the inversions."""
    relabels = config.redirector == "redirtrans-gan" and config.relabel_inversions
    return bool(config.coeff_redirection_feature_loss or config.coeff_redirection_gaze_loss or relabels)


def build_estimator(config: Config, which: str) -> Estimator:
    """The trained estimator of the losses ('gazenet') or of the metrics ('eval_gazenet'), frozen; it sees patches.

    Raises FileNotFoundError, or ValueError if it does not fit its backbone or was trained for another image size.
    """
    path, backbone = getattr(config, f"{which}_savepath"), getattr(config, f"{which}_backbone")
    estimator = load_estimator(path, backbone, key=f"{which}_savepath")
    file = find_estimator_checkpoint(path)
    # The published files have no JSON and are for 128 px. The compact networks see 64 px whatever comes in.
    facts = read_json(facts_file(file)) if facts_file(file).is_file() else {}
    size, labels = facts.get("image_size", 128), facts.get("samples", 0)
    if which == "gazenet" and config.semi_supervised and labels > config.num_labeled_samples:
        say(
            f"warning: the estimator at {file} was trained with {labels} labels, more than num_labeled_samples "
            f"({config.num_labeled_samples}): the redirector learns from them through it."
        )
    if backbone in ("vgg16", "resnet50") and size != config.image_size:
        raise ValueError(
            f"{which}_savepath: {file} was trained on images of {size} px, but image_size is {config.image_size}. "
            "Train one for that size, or change image_size."
        )
    return estimator


def _pair_recipe(config: Config) -> PairRecipe:
    return PairRecipe(
        size=config.face_size,
        channel_multiplier=config.face_size / 2048,  # a resolution has as many channels whatever the size
        num_steps=config.pair_num_steps,
        seed=config.seed,
        precision=config.precision,
    )


def check_pair(config: Config) -> None:
    """Say if the pair at e4e_weights is not the one that these settings would train; it is used as it is."""
    different = other_settings(Path(config.e4e_weights), _pair_recipe(config))
    if different:
        say(f"warning: {config.e4e_weights} {different}; it is used as it is. To train another, set another path.")


def train_missing_pair(
    config: Config, faces: AlignedDataset, estimator: Estimator | None, device: torch.device
) -> None:
    """Train a small encoder and generator of `face_size` on these faces, into e4e_weights.

    Raises OSError, ValueError or FloatingPointError; KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    held_out = sources.open_source(config, sources.VALIDATION, faces=True)
    with stop_on_signal() as stop:
        done = train_pair(
            faces,
            estimator,
            _pair_recipe(config),
            Path(config.e4e_weights),
            patch_size=config.image_size,
            device=device,
            held_out=held_out,
            stop=stop,
            num_workers=config.num_data_loaders,
        )
    if not done:
        say("Stopped in the training of the pair; the same command continues from there.")
        raise KeyboardInterrupt


def build_inverted(
    config: Config,
    dataset: AlignedDataset,
    redirector: ReDirTransGAN,
    estimator: Estimator | None,
    device: torch.device,
) -> InvertedDataset:
    """The training faces with their W+ codes, which are computed now where they are not cached yet.

    Raises OSError or ValueError if the cache cannot be written or read, KeyboardInterrupt if the user asks to stop.
    """
    facts = inversion_facts(
        dataset,
        patch_size=config.image_size,
        weights_sha256=file_sha256(Path(config.e4e_weights)),
        generator_sha256=file_sha256(Path(config.stylegan2_weights)) if is_set(config.stylegan2_weights) else "",
        estimator_sha256=estimator_hashes(config)["gazenet"] if config.relabel_inversions else "",
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


def frozen_hashes(config: Config) -> dict[str, str]:
    """sha256 of the frozen files that a redirector is built around: they are named, not stored again."""
    keys = ("e4e_weights", "stylegan2_weights") if config.redirector == "redirtrans-gan" else ()
    return {key: file_sha256(Path(getattr(config, key))) for key in keys if is_set(getattr(config, key))}


def estimator_hashes(config: Config) -> dict[str, str]:
    """sha256 of each estimator's file, '' where there is none: frozen parts are named, not stored again."""
    files = {
        which: find_estimator_checkpoint(getattr(config, f"{which}_savepath")) for which in ("gazenet", "eval_gazenet")
    }
    return {which: file_sha256(file) if file else "" for which, file in files.items()}


def build_perceptual_metric(config: Config) -> nn.Module | None:
    """LPIPS, or None with one sentence where its weights are not to be had.

    Raises FileNotFoundError where they are needed for training, ValueError if they are others.
    """
    trunk = find_trunk(config.lpips_weights, config.allow_downloads)
    if trunk is None:
        if config.coeff_lpips_loss and not config.skip_training:
            raise FileNotFoundError(
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

    Raises FileNotFoundError if it is missing in a training that weighs identity, ValueError if it does not fit.
    """
    if not is_set(config.arcface_weights):
        return None
    if not Path(config.arcface_weights).is_file() and not (config.coeff_identity_loss and not config.skip_training):
        say(f"identity_similarity is left out: arcface_weights ({config.arcface_weights}) is not there.")
        return None
    return load_arcface(config.arcface_weights)


def learning_rate_schedule(config: Config) -> Callable[[int], float]:
    """Step -> learning rate: linear warm-up, then steps of `decay` as published, or a cosine down to 0."""

    def rate(step: int) -> float:
        warmup = min((step + 1) / config.lr_warmup_steps, 1.0) if config.lr_warmup_steps else 1.0
        if config.lr_schedule == "cosine":
            return config.lr * warmup * (1 + math.cos(math.pi * step / config.num_training_steps)) / 2
        return config.lr * warmup * config.decay ** (step // config.decay_steps)

    return rate


def build_trainer(
    config: Config, redirector: Redirector, discriminator: nn.Module, estimator: nn.Module | None, device: torch.device
) -> RedirectionTrainer:
    trainer = RedirectionTrainer(
        redirector,
        discriminator,
        estimator,
        weights=loss_weights(config),
        learning_rate=learning_rate_schedule(config),
        weight_decay=config.l2_reg,
        adversarial_warmup_steps=config.discriminator_warmup_steps,
        semi_supervised=config.semi_supervised,
        mirror=config.mirror_augmentation,
        precision=config.precision,
        seed=config.seed,
        device=device,
    )
    if isinstance(redirector, ReDirTransGAN):
        trainer.latent_adversary = LatentAdversary(discriminator, redirector.decoder, config.seed)
        trainer.relabeled = config.relabel_inversions
    return trainer


def cadence(config: Config) -> Cadence:
    return Cadence(
        num_steps=config.num_training_steps,
        log=config.print_freq_train,
        test=config.print_freq_test,
        pictures=config.save_freq_images,
        save=config.save_interval,
        test_at_end=not config.compute_full_result,
    )
