"""Config to objects: the only reader of Config below the entry scripts."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from core.adversary import LatentAdversary
from core.config_default import Config, is_set
from core.generation import Generation, plan_generation
from core.inversion import InvertedDataset, inversion_folder, inversion_recipe, invert_dataset
from core.pair import PairRecipe, other_settings, train_pair
from core.runtime import stop_on_signal
from core.tracking import say
from core.trainer import Cadence, RedirectionTrainer
from dataset import GazeDataset, PairSampler, labeled_subset, load_person_split
from dataset_aligned import AlignedDataset
from dataset_augmented import FILE_NAME, RedirectedDataset
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
from preprocess.synthetic import make_dataset, output_names
from utils import file_sha256, require_writable


@dataclass(frozen=True)
class Source:
    """A data set by configuration key; part of the person split, or None for all persons."""

    name: str
    key: str
    part: str | None = None
    published_as_bgr: bool = False


TRAIN = Source("gc/train", "gazecapture", "train")
VALIDATION = Source("gc/val", "gazecapture", "val")
TESTS = (
    VALIDATION,
    Source("gc/test", "gazecapture", "test"),
    Source("mpi", "mpiigaze"),
    Source("columbia", "columbia", published_as_bgr=True),
    Source("eyediap", "eyediap", published_as_bgr=True),
)


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


def make_missing_data(config: Config) -> None:
    """Make the embedded data set if `synthetic_data` is set and gazecapture_file is not there.

    Raises ValueError if its name is none of the embedded files', or another of them is there; OSError if the folder
    cannot be written.
    """
    path, aligned = Path(config.gazecapture_file), Path(config.gazecapture_aligned_file)
    with_faces = config.redirector == "redirtrans-gan" and is_set(config.gazecapture_aligned_file)
    if not config.synthetic_data or (path.exists() and (aligned.exists() or not with_faces)):
        return
    size = _embedded_size("gazecapture_file", path, "GazeCapture_{}.h5")
    aligned_size = None
    if with_faces:
        aligned_size = _embedded_size("gazecapture_aligned_file", aligned, "GazeCapture_aligned_{}.h5")
        if aligned.parent != path.parent:
            raise ValueError(
                f"gazecapture_aligned_file: to have it made, put it beside gazecapture_file, in {path.parent}."
            )
    present = [path.parent / name for name in output_names(size, aligned_size) if (path.parent / name).exists()]
    if present:
        missing = path if not path.exists() else aligned
        raise ValueError(f"{missing} is not there, but {present[0]} is. Remove it, or set another folder.")
    require_writable(path.parent, "gazecapture_file")
    say(f"Making the embedded data set in {path.parent} ...")
    make_dataset(
        path.parent,
        persons=config.synthetic_persons,
        samples=config.synthetic_samples,
        seed=config.seed,
        image_size=size,
        aligned_size=aligned_size,
        variation=config.synthetic_variation,
    )


def _embedded_size(key: str, path: Path, pattern: str) -> int:
    """The size in the name of a file of the embedded data set."""
    sizes = {pattern.format(size): size for size in (64, 128, 256)}
    if path.name not in sizes:
        raise ValueError(f"{key}: {path} is not there; to have it made, call it one of {', '.join(sizes)}.")
    return sizes[path.name]


def build_training_set(config: Config, *, faces: bool = False) -> GazeDataset:
    """The training persons. Raises FileNotFoundError or ValueError: without it there is no training.

    faces: as aligned faces, an AlignedDataset.
    """
    return open_source(config, TRAIN, faces)


def build_estimator_training_set(config: Config) -> GazeDataset | RedirectedDataset:
    """What an estimator is trained on: the redirected data set where one is named, else the training persons.

    Raises FileNotFoundError or ValueError if it cannot be read.
    """
    if not is_set(config.redirected_file):
        return build_training_set(config)
    path, use = Path(config.redirected_file), config.redirected_use
    name = {"both": "real and redirected", "real": "real of redirected", "redirected": "redirected"}[use]
    dataset = RedirectedDataset(path, use, image_size=config.image_size, name=f"gc/train, {name}")
    say(f"{dataset.name}: {len(dataset)} images of {len(dataset.person_ids)} persons from {path}.")
    return dataset


def build_test_sets(config: Config, *, in_pairs: bool = True, faces: bool = False) -> list[GazeDataset]:
    """Every configured data set that is there; one sentence for each that is not.

    in_pairs: images are redirected to others of the same person, so single ones are of no use.
    faces: as aligned faces, AlignedDatasets.

    Raises ValueError if a configured file is there and cannot be read.
    """
    sets = []
    for source in TESTS:
        key = _key_of(config, source, faces)
        path = getattr(config, key)
        if not is_set(path):
            say(f"{source.name}: left out, since {key} is not set.")
        elif not Path(path).is_file():
            patches = f" Set it to '.' to use the patches of {source.key}_file." if "aligned" in key else ""
            say(f"{source.name}: left out, since {key} ({path}) is not there.{patches}")
        else:
            dataset = open_source(config, source, faces)
            if not in_pairs or _can_be_evaluated(dataset):
                sets.append(dataset)
    return sets


def _can_be_evaluated(dataset: GazeDataset) -> bool:
    """Whether some person has two images; says how many images have no other to be redirected to."""
    alone = int((np.diff(dataset.person_start) == 1).sum())
    if alone == len(dataset.person_ids):
        say(f"{dataset.name}: left out, since no person has two images to redirect from and to.")
    elif alone:
        say(f"{dataset.name}: {alone} images are not evaluated, for they are the only ones of their persons.")
    return alone < len(dataset.person_ids)


def open_source(config: Config, source: Source, faces: bool = False) -> GazeDataset:
    """One data set; says how many images and persons it has and which persons it lacks.

    faces: as aligned faces, from their own file if that is set.
    Raises FileNotFoundError or ValueError if the file or its person split cannot be read.
    """
    key = _key_of(config, source, faces)
    path = Path(getattr(config, key))
    if "aligned" in key and not path.is_file():
        raise FileNotFoundError(
            f"{key}: {path}: no such file. Correct the path, or set it to '.' to use the patches of {source.key}_file."
        )
    persons = load_person_split(_split_file(config), source.part) if source.part else None
    dataset = (AlignedDataset if faces else GazeDataset)(
        path,
        name=source.name,
        persons=persons,
        is_bgr=getattr(config, f"{source.key}_is_bgr"),
        default_is_bgr=source.published_as_bgr,
        image_size=config.face_size if faces else config.image_size,
        pick_at_least_per_person=config.pick_at_least_per_person if source is TRAIN else None,
    )
    for persons, reason in (
        (dataset.missing_persons, "in the person split but not in the file"),
        (dataset.dropped_persons, f"with fewer than {config.pick_at_least_per_person} images left out"),
    ):
        if persons:
            some = ", ".join(persons[:5]) + ", ..." * (len(persons) > 5)
            say(f"{source.name}: {len(persons)} persons {reason} ({some}).")
    if faces and not dataset.is_aligned:
        say(
            f"{source.name}: normalised patches, enlarged to {config.face_size} px, stand for aligned faces: they show "
            f"less than a face generator knows, its codes of them are worse, and fine detail is lost; "
            f"{source.key}_aligned_file is better."
        )
    order = "BGR" if dataset.is_bgr else "RGB"
    say(f"{source.name}: {len(dataset)} images of {len(dataset.person_ids)} persons from {path} ({order}).")
    return dataset


def _key_of(config: Config, source: Source, faces: bool) -> str:
    """The configuration key of the file that is read."""
    aligned = f"{source.key}_aligned_file"
    return aligned if faces and is_set(getattr(config, aligned)) else f"{source.key}_file"


def _split_file(config: Config) -> Path:
    given = Path(config.gazecapture_split)
    beside = Path(config.gazecapture_file).parent / given.name
    if given.is_file() or not beside.is_file():
        return given
    return beside


def build_batches(
    config: Config, dataset: GazeDataset, start_step: int, device: torch.device
) -> torch.utils.data.DataLoader:
    """Training pairs from `start_step` on, the same for any number of workers."""
    candidates = (
        labeled_subset(len(dataset), config.num_labeled_samples, config.seed) if config.semi_supervised else None
    )
    sampler = PairSampler(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        num_steps=config.num_training_steps,
        candidates=candidates,
    )
    return torch.utils.data.DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.num_data_loaders,
        pin_memory=device.type == "cuda",
        persistent_workers=False,
    )


def plan_redirected(config: Config, dataset: GazeDataset) -> Generation:
    """The redirected data set to write: all random draws are made.

    Raises ValueError if there are fewer labels than asked for, or too few or too alike to draw targets.
    """
    num_labeled = config.num_labeled_samples if config.semi_supervised else len(dataset)
    labeled, unlabeled = labeled_subset(len(dataset), num_labeled, config.seed), None
    if more := config.redirected_unlabeled_samples:
        if num_labeled + more > len(dataset):
            raise ValueError(
                f"redirected_unlabeled_samples: {more} asked for beside {num_labeled} labelled ones, "
                f"{len(dataset)} samples in the data. Set at most {len(dataset) - num_labeled}."
            )
        # The next ones of the same shuffle.
        unlabeled = np.setdiff1d(labeled_subset(len(dataset), num_labeled + more, config.seed), labeled)
    return plan_generation(
        Path(config.redirected_file) if is_set(config.redirected_file) else Path(config.save_path) / FILE_NAME,
        dataset,
        labeled,
        seed=config.seed,
        unlabeled=unlabeled,
        per_sample=config.redirected_per_sample,
        images=config.redirected_images,
        bandwidth=config.redirected_bandwidth,
        truncated=config.redirected_truncated,
        max_error=config.redirected_max_error,
    )


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
    facts = json.loads(facts_file(file).read_text()) if facts_file(file).is_file() else {}
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
    held_out = open_source(config, VALIDATION, faces=True)
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
    recipe = inversion_recipe(
        dataset,
        patch_size=config.image_size,
        weights_sha256=file_sha256(Path(config.e4e_weights)),
        generator_sha256=file_sha256(Path(config.stylegan2_weights)) if is_set(config.stylegan2_weights) else "",
        estimator_sha256=estimator_hashes(config)["gazenet"] if config.relabel_inversions else "",
    )
    parent = Path(config.inversions_path) if is_set(config.inversions_path) else dataset.path.parent / "inversions"
    require_writable(parent, "inversions_path")
    folder = inversion_folder(parent, dataset, recipe)
    invert_dataset(
        dataset,
        folder,
        recipe,
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
