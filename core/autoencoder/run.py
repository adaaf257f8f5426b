"""The small encoder and generator that redirtrans-gan is built around, trained where they are missing."""

from collections.abc import Sequence
from pathlib import Path

import torch

from core import sources
from core.autoencoder.train import other_settings, train_autoencoder
from core.autoencoder.trainer import AutoencoderSettings
from core.command import UserError
from core.config_default import Config
from core.estimator.build import needs_training_estimator
from core.estimator.run import prepare_estimators
from core.estimator.spec import EstimatorSpec
from core.files import require_writable
from core.owner import own_when_free
from core.runtime import stop_on_signal
from core.tracking import say
from dataset_aligned import AlignedDataset
from models.gazeheadnet import Estimator
from models.redirtrans import check_prior
from models.stylegan2 import num_rows


def train_missing_autoencoder(config: Config, wanted: Sequence[EstimatorSpec], device: torch.device) -> None:
    """Train encoder and generator into e4e_weights; of what is there it is said if it is not what would be trained.

    wanted: the estimators that the redirector will need, which are to be there before anything takes long.
    Raises UserError, OSError or FloatingPointError; KeyboardInterrupt, with the state saved, if the user asks to stop.
    """
    if Path(config.e4e_weights).is_file():
        _say_other_settings(config)
        return
    _check(config)
    require_writable(Path(config.e4e_weights).parent, "e4e_weights")
    sources.make_missing_data(config, faces=True)
    faces = sources.open_faces(config, sources.TRAIN)
    sources.build_batches(config, faces, 0, device)  # too few samples is found out now
    estimator = prepare_estimators(config, wanted, device).get("gazenet")
    with own_when_free(Path(config.e4e_weights).parent, "e4e_weights", of=Path(config.e4e_weights).name):
        if Path(config.e4e_weights).is_file():  # of another process, meanwhile
            return
        _train(config, faces, estimator, device)


def _check(config: Config) -> None:
    """Raises UserError if it cannot be trained, or the redirector not be built around it then."""
    check_prior(config.layer_weights_prior, num_rows(config.face_size))
    if config.gazenet_backbone == "resnet50" and needs_training_estimator(config, wants_codes=True):
        raise UserError(
            "gazenet_backbone: is resnet50, which has no feature maps for the training of e4e_weights "
            "(train_missing_pair). Set another."
        )


def _settings(config: Config) -> AutoencoderSettings:
    return AutoencoderSettings(
        size=config.face_size,
        channel_multiplier=config.face_size / 2048,  # a resolution has as many channels whatever the size
        num_steps=config.pair_num_steps,
        seed=config.seed,
        precision=config.precision,
    )


def _say_other_settings(config: Config) -> None:
    """Say if the networks at e4e_weights are not those that these settings would train; they are used as they are."""
    different = other_settings(Path(config.e4e_weights), _settings(config))
    if different:
        say(f"warning: {config.e4e_weights} {different}; it is used as it is. To train another, set another path.")


def _train(config: Config, faces: AlignedDataset, estimator: Estimator | None, device: torch.device) -> None:
    held_out = sources.open_faces(config, sources.VALIDATION)
    with stop_on_signal() as stop:
        done = train_autoencoder(
            faces,
            estimator,
            _settings(config),
            Path(config.e4e_weights),
            patch_size=config.image_size,
            device=device,
            held_out=held_out,
            stop=stop,
            num_workers=config.num_data_loaders,
        )
    if not done:
        raise KeyboardInterrupt("Stopped in the training of the autoencoder; the same command continues from there.")
