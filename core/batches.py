"""Batches: what becomes of entries between a data set and a step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

# What is made of entries and batches

IN_MEMORY_BYTES = 1_000_000_000


class Entries(Protocol):
    """A data set: entries by name, `image` (3, S, S) uint8 among them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Tensor]: ...


class Chosen(Dataset[dict[str, Tensor]]):
    """Some entries of a data set, and of these the parts of some names."""

    def __init__(self, dataset: Entries, entries: Sequence[int], names: Sequence[str]) -> None:
        self.dataset, self.entries, self.names = dataset, entries, names

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        entry = self.dataset[self.entries[index]]
        return {name: entry[name] for name in self.names}


def training_batches(
    chosen: Chosen, order: Iterable[list[int]], num_workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """The batches of `order`, positions in what is chosen; under 1 GB is kept in memory, more is read by processes."""
    if len(chosen) * chosen[0]["image"].numel() < IN_MEMORY_BYTES:
        data = default_collate([chosen[i] for i in range(len(chosen))])
        yield from ({name: data[name][indices] for name in data} for indices in order)
    else:
        # A generator of its own: a loader draws a seed, and the global random state is not ours to move.
        own = torch.Generator()
        is_cuda = device.type == "cuda"
        yield from DataLoader(chosen, batch_sampler=order, num_workers=num_workers, pin_memory=is_cuda, generator=own)


def mirrored(batch: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """A batch turned left to right where `chosen` (B,) or (B, 1), all that is in it.

    batch: by name, of a pair with _a or _b behind it: image (B, 3, S, S); gaze, head (B, 2), whose yaw is negated;
    crop (B, 3, 3) and points (B, 5, 2) as AlignedDataset gives them.
    """
    turned = {name: _turned(name, batch) for name in batch}
    return {
        name: torch.where(chosen.view(-1, *[1] * (value.ndim - 1)), turned[name], value)
        for name, value in batch.items()
    }


def _turned(name: str, batch: Mapping[str, Tensor]) -> Tensor:
    kind, value = name.removesuffix("_a").removesuffix("_b"), batch[name]
    if kind == "image":
        return value.flip(-1)
    if kind in ("gaze", "head"):
        return value * torch.tensor([1.0, -1.0], device=value.device)
    if kind == "crop":  # from the mirrored patch to the patch, on to the image, on to the mirrored image
        turn = torch.tensor([-1.0, 1.0, 1.0], device=value.device)
        return turn[:, None] * value * turn
    if kind == "points":
        column, row = value[:, [1, 0, 2, 4, 3]].unbind(dim=-1)  # image left first again
        return torch.stack((batch[name.replace("points", "image")].shape[-1] - 1 - column, row), dim=-1)
    raise ValueError(f"{name}: nobody knows how to mirror that")
