"""Trains a small face encoder and a generator of faces together, as an autoencoder: e4e and StyleGAN2 in small.

ReDirTrans-GAN edits the W+ codes of a frozen pair. The published pair is of 1024 px, learned from natural faces in
weeks; this one learns drawn or few faces in minutes, and its file is laid out like the published one's. It stands in
where that cannot be had. It is no GAN: the generator draws what the encoder codes, and knows nothing else of faces.
The recipe is ours. Source of the parts: `models/e4e.py` and `models/stylegan2.py`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from core.autoencoder.trainer import PairRecipe, PairTrainer
from core.batches import IndexSampler
from core.estimator.trainer import training_batches
from core.files import atomic_write
from core.tracking import progress_bar, say
from dataset_aligned import AlignedDataset
from models.gazeheadnet import Estimator
from models.geometry import angular_error_deg
from models.recrop import estimator_view
from utils import batch_to_device, image_to_float, read_torch_file

LOG_EVERY = SAVE_EVERY = 200  # steps
MEAN_IMAGE_SAMPLES = 2000


def train_pair(
    dataset: AlignedDataset,
    estimator: Estimator | None,
    recipe: PairRecipe,
    path: Path,
    *,
    patch_size: int,
    device: torch.device,
    held_out: AlignedDataset | None = None,
    stop: Sequence[int] = (),
    num_workers: int = 0,
) -> bool:
    """Train a pair and write it to `path`, for `load_e4e`; False if `stop` was filled before the last step.

    A training that was stopped or killed goes on from `<path>.training` exactly as if it had not been. A pair that
    is there already and came about in the same way is left as it is.
    estimator, patch_size: see `PairTrainer`.  held_out: faces of other persons, to measure the pair on at the end.
    num_workers: processes that read data which is too large for the memory.
    Raises ValueError if the data does not fit the recipe or what is there is of another training, OSError if it
    cannot be written, FloatingPointError if the loss is not finite.
    """
    facts = _facts(dataset, estimator, recipe, patch_size)
    if path.is_file():
        _require_same(path, read_torch_file(path), facts)
        say(f"The pair is complete ({path}).")
        return True
    trainer, state = PairTrainer(recipe, estimator, patch_size, device), training_state(path)
    if state.is_file():
        content = read_torch_file(state)
        _require_same(state, content, facts)
        trainer.load(content, str(state))
        say(f"Continuing from {state} (step {trainer.step}).")
    path.parent.mkdir(parents=True, exist_ok=True)
    order = IndexSampler(
        dataset,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        start_step=trainer.step,
        num_steps=recipe.num_steps,
    )
    _write(state, trainer.state() | {"facts": facts})  # finds out at once if it cannot be written
    with progress_bar(recipe.num_steps, trainer.step, f"pair of {recipe.size} px") as bar:
        for batch in training_batches(dataset, ("image", "crop", "points"), order, num_workers, device):
            values = trainer.train_step(batch)
            bar.update()
            bar.set_postfix_str(f"l1 {values['l1']:.3f}", refresh=False)
            if trainer.step % LOG_EVERY == 0:
                say(f"step {trainer.step}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()))
            if stop or trainer.step % SAVE_EVERY == 0:
                _write(state, trainer.state() | {"facts": facts})
            if stop:
                break
    if trainer.step < recipe.num_steps:
        return False
    measured = {} if held_out is None else _measure_and_say(trainer, held_out, mean_image(dataset))
    _write(path, trainer.content() | {"facts": facts, "held_out": measured})
    state.unlink(missing_ok=True)
    return True


def training_state(path: Path) -> Path:
    """Beside the pair's file, as long as its training is not finished."""
    return path.with_name(path.name + ".training")


def _write(path: Path, content: Mapping[str, object]) -> None:
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def _measure_and_say(trainer: PairTrainer, held_out: AlignedDataset, mean: Tensor) -> dict[str, float]:
    trainer.parts.eval()
    measured = measure_pair(trainer.reconstruct, held_out, mean, trainer.device)
    say(
        f"The pair on {measured['samples']} faces of persons it has not seen: L1 {measured['l1']:.4f}; of the mean "
        f"image {measured['mean_image_l1']:.4f}."
    )
    return measured


@torch.no_grad()
def measure_pair(
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
        for prefix, shown in (("", image_hat), ("image_", image)) if estimator is not None else ():
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
    dataset: AlignedDataset, estimator: Estimator | None, recipe: PairRecipe, patch_size: int
) -> dict[str, object]:
    """What decides the weights, as plain data. Raises ValueError if the images are not of the recipe's size."""
    if dataset.image_size != recipe.size:
        raise ValueError(
            f"{dataset.path}: images of {dataset.image_size} px, but the pair is to be of {recipe.size} px. Choose one "
            "size for both."
        )
    digest = hashlib.sha256()
    for value in estimator.state_dict().values() if estimator is not None else ():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return {
        "recipe": asdict(recipe),
        "data": dataset.name,
        "file": dataset.path.name,
        "samples": len(dataset),
        "estimator": "none" if estimator is None else digest.hexdigest(),
        "patch_size": patch_size,
    }


def other_settings(path: Path, recipe: PairRecipe) -> str:
    """What is to be said of a pair that is there, '' if it was trained by this recipe.

    Raises FileNotFoundError or ValueError if the file cannot be read.
    """
    content = read_torch_file(path)
    facts = content.get("facts") if isinstance(content, Mapping) else None
    if not isinstance(facts, Mapping):
        return "was not trained here"
    before, now = facts["recipe"], asdict(recipe)
    different = [name for name in now if before.get(name) != now[name]]
    return f"was trained with other values of {', '.join(different)}" if different else ""


def _require_same(path: Path, content: object, facts: Mapping[str, object]) -> None:
    """Raises ValueError if a file does not say that it is of a training with these facts."""
    found = content.get("facts") if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: not of a pair that was trained here. Choose another path, or remove it.")
    if found != facts:
        flat = [{**side, **side.get("recipe", {})} for side in (found, facts)]
        names = [name for name in flat[1] if name != "recipe" and flat[0].get(name) != flat[1][name]]
        raise ValueError(
            f"{path}: was trained with other values of {', '.join(names)}. Use those again, choose another path, or "
            "remove it to train anew."
        )
