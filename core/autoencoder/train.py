"""Trains a small face encoder and a generator of faces together, as an autoencoder: e4e and StyleGAN2 in small.

ReDirTrans-GAN edits the W+ codes of two frozen networks. The published ones are of 1024 px, learned from natural faces
in weeks; these learn drawn or few faces in minutes, and their file is laid out like the published one. It stands in
where that cannot be had. It is no GAN: the generator draws what the encoder codes, and knows nothing else of faces.
The recipe is ours. Source of the parts: `models/e4e.py` and `models/stylegan2.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from core.autoencoder.trainer import AutoencoderSettings, AutoencoderTrainer
from core.batches import Chosen, IndexSampler, training_batches
from core.command import UserError
from core.facts import differences, refuse_differences
from core.schedules import is_due
from core.torch_files import write_torch_file
from core.tracking import progress_bar, say
from dataset_aligned import AlignedDataset
from models.gazeheadnet import Estimator
from models.geometry import angular_error_deg
from models.recrop import estimator_view
from utils import batch_to_device, image_to_float, read_torch_file

LOG_EVERY = SAVE_EVERY = 200  # steps
MEAN_IMAGE_SAMPLES = 2000


def train_autoencoder(
    dataset: AlignedDataset,
    estimator: Estimator | None,
    settings: AutoencoderSettings,
    path: Path,
    *,
    patch_size: int,
    device: torch.device,
    held_out: AlignedDataset | None = None,
    stop: Sequence[int] = (),
    num_workers: int = 0,
) -> bool:
    """Train both networks and write them to `path`, for `load_e4e`; False if `stop` was filled before the last step.

    A training that was stopped or killed goes on from `<path>.training` exactly as if it had not been. A file that
    is there already and came about in the same way is left as it is.
    estimator, patch_size: see `AutoencoderTrainer`.  held_out: faces of other persons, to measure it on at the end.
    num_workers: processes that read data which is too large for the memory.
    Raises UserError if the data does not fit the settings or what is there is of another training, OSError if it
    cannot be written, FloatingPointError if the loss is not finite.
    """
    facts = _facts(dataset, estimator, settings, patch_size)
    if path.is_file():
        _read_of_same(path, facts)
        say(f"The autoencoder is complete ({path}).")
        return True
    trainer = AutoencoderTrainer(settings, estimator, patch_size, device)
    state = training_state(path)
    if state.is_file():
        trainer.load(_read_of_same(state, facts), str(state))
        say(f"Continuing from {state} (step {trainer.step}).")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _fit(trainer, dataset, state, facts, stop, num_workers):
        return False
    measured = {} if held_out is None else _measure_and_say(trainer, held_out, mean_image(dataset))
    write_torch_file(path, trainer.content() | {"facts": facts, "held_out": measured})
    state.unlink(missing_ok=True)
    return True


def _fit(
    trainer: AutoencoderTrainer,
    dataset: AlignedDataset,
    state: Path,
    facts: Mapping[str, object],
    stop: Sequence[int],
    num_workers: int,
) -> bool:
    """Train to the last step, and save on the way; False if `stop` was filled before."""
    settings = trainer.settings
    order = IndexSampler(
        dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        start_step=trainer.step,
        num_steps=settings.num_steps,
    )
    chosen = Chosen(dataset, range(len(dataset)), ("image", "crop", "points"))
    write_torch_file(state, trainer.state() | {"facts": facts})  # finds out at once if it cannot be written
    with progress_bar(settings.num_steps, trainer.step, f"autoencoder of {settings.size} px") as bar:
        for batch in training_batches(chosen, order, num_workers, trainer.device):
            values = trainer.train_step(batch)
            bar.update()
            bar.set_postfix_str(f"l1 {values['l1']:.3f}", refresh=False)
            if is_due(trainer.step, LOG_EVERY):
                say(f"step {trainer.step}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()))
            if stop or is_due(trainer.step, SAVE_EVERY):
                write_torch_file(state, trainer.state() | {"facts": facts})
            if stop:
                break
    return trainer.step == settings.num_steps


def training_state(path: Path) -> Path:
    """Beside the file, as long as the training is not finished."""
    return path.with_name(path.name + ".training")


def _measure_and_say(trainer: AutoencoderTrainer, held_out: AlignedDataset, mean: Tensor) -> dict[str, float]:
    trainer.parts.eval()
    measured = measure_autoencoder(trainer.reconstruct, held_out, mean, trainer.device)
    say(
        f"The autoencoder on {measured['samples']} faces of persons it has not seen: L1 {measured['l1']:.4f}; of the "
        f"mean image {measured['mean_image_l1']:.4f}."
    )
    return measured


@torch.no_grad()
def measure_autoencoder(
    reconstruct: Callable[[Tensor], Tensor],
    dataset: AlignedDataset,
    mean: Tensor,
    device: torch.device,
    *,
    estimator: Estimator | None = None,
    patch_size: int = 128,
    batch_size: int = 50,
) -> dict[str, float]:
    """How well faces survive the way into the code and back: means over all of a data set.

    reconstruct: images (B, 3, S, S) in [-1, 1] to as many.  mean: (3, S, S), the answer of one who does not look.
    estimator: the one that measures, of re-cropped images.  patch_size: of the patch that it sees.
    Returns `samples`, `l1`, `mean_image_l1` and, with an estimator, the angles to the labels `gaze_deg`, `head_deg`
    of the reconstructions and `image_gaze_deg`, `image_head_deg` of the images themselves.
    """
    found: dict[str, list[Tensor]] = {}
    for batch in DataLoader(dataset, batch_size=batch_size, generator=torch.Generator()):
        moved = batch_to_device(batch, device)
        image = moved["image"]
        image_hat = reconstruct(image)
        values = {
            "l1": (image_hat - image).abs().mean(dim=(1, 2, 3)),
            "mean_image_l1": (mean.to(device) - image).abs().mean(dim=(1, 2, 3)),
        }
        if estimator is not None:
            for prefix, shown in (("", image_hat), ("image_", image)):
                seen = estimator(estimator_view(shown, moved["crop"], patch_size))
                values[f"{prefix}gaze_deg"] = angular_error_deg(seen.gaze, moved["gaze"])
                values[f"{prefix}head_deg"] = angular_error_deg(seen.head, moved["head"])
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {"samples": len(dataset)} | {name: torch.cat(value).mean().item() for name, value in found.items()}


def mean_image(dataset: AlignedDataset) -> Tensor:
    """(3, S, S) in [-1, 1]: the mean of up to MEAN_IMAGE_SAMPLES faces spread evenly over the data."""
    chosen = np.linspace(0, len(dataset) - 1, min(MEAN_IMAGE_SAMPLES, len(dataset))).astype(int)
    total = torch.zeros(dataset[0]["image"].shape)
    for index in chosen:
        total += image_to_float(dataset[int(index)]["image"])
    return total / len(chosen)


def _facts(
    dataset: AlignedDataset, estimator: Estimator | None, settings: AutoencoderSettings, patch_size: int
) -> dict[str, object]:
    """What decides the weights, as plain data. Raises UserError if the images are not of the settings' size."""
    if dataset.image_size != settings.size:
        raise UserError(
            f"{dataset.path}: images of {dataset.image_size} px, but the autoencoder is to be of {settings.size} px. "
            "Choose one size for both."
        )
    digest = hashlib.sha256()
    for value in estimator.state_dict().values() if estimator is not None else ():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return {
        "recipe": asdict(settings),  # the name in files that are there
        "data": dataset.name,
        "file": dataset.path.name,
        "samples": len(dataset),
        "estimator": "none" if estimator is None else digest.hexdigest(),
        "patch_size": patch_size,
    }


def other_settings(path: Path, settings: AutoencoderSettings) -> str:
    """What is to be said of a file that is there, '' if it was trained by these settings.

    Raises UserError if the file cannot be read.
    """
    facts = _noted(read_torch_file(path))
    if facts is None:
        return "was not trained here"
    different = differences(facts["recipe"], asdict(settings))
    return f"was trained with other values of {', '.join(different)}" if different else ""


def _noted(content: object) -> dict[str, Any] | None:
    """The facts in a file's content; None if there are none."""
    facts = content.get("facts") if isinstance(content, dict) else None
    return facts if isinstance(facts, dict) and isinstance(facts.get("recipe"), dict) else None


def _read_of_same(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file. Raises UserError if it does not say that it is of a training with these facts."""
    content = read_torch_file(path)
    found = _noted(content)
    if not isinstance(content, dict) or found is None:
        raise UserError(f"{path}: not of an autoencoder that was trained here. Choose another path, or remove it.")
    remedy = "Use those again, choose another path, or remove it to train anew."
    refuse_differences(differences(_flat(found), _flat(facts)), str(path), "was trained", remedy)
    return content


def _flat(facts: Mapping[str, Any]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if name != "recipe"} | facts["recipe"]
