"""Batches: which entries make one up, as a function of the seed and the step, and what is made of them."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from core.command import UserError
from core.loading import PatientLoader
from models.geometry import constants

# Which entries, in which order


class Samples(Protocol):
    """What is drawn from. path: of the file, for messages."""

    @property
    def path(self) -> Path: ...

    def __len__(self) -> int: ...


class PersonSamples(Samples, Protocol):
    """Samples that lie person by person.

    person_of: (N,) person of each.  person_start: (P + 1,) those of person p are `person_start[p]` up to
    `person_start[p + 1]`.  groups: (N,) or None, see `dataset.PersonImages`.
    """

    @property
    def person_of(self) -> np.ndarray: ...

    @property
    def person_start(self) -> np.ndarray: ...

    def groups(self) -> np.ndarray | None: ...


def labeled_subset(num_entries: int, num_labeled: int, seed: int = 0) -> np.ndarray:
    """(num_labeled,) int64, sorted: the entries whose labels semi-supervised training may use.

    Raises UserError if there are fewer entries.  Source: the published choice, which seed 0 reproduces.
    """
    if num_labeled > num_entries:
        raise UserError(
            f"{num_labeled} labelled samples asked for, {num_entries} in the data. Lower num_labeled_samples."
        )
    order = list(range(num_entries))
    random.Random(seed).shuffle(order)
    return np.sort(np.array(order[:num_labeled], np.int64))


def _random_partners(dataset: PersonSamples, entries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each entry another one of the same person, uniformly; itself where the person has no other."""
    person = dataset.person_of[entries]
    return _random_others(dataset.person_start[person], dataset.person_start[person + 1], entries, rng)


def _random_others(start: np.ndarray, stop: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each place another one from start up to stop, uniformly; itself where there is no other. All (N,)."""
    others = start + rng.integers(np.maximum(stop - start - 1, 1))
    return np.where(stop - start > 1, others + (others >= places), places)


class Groups:
    """Which samples of a person differ in gaze and head alone. num_alone: samples with no other in their group."""

    def __init__(self, person_of: np.ndarray, groups: np.ndarray) -> None:
        self._entries = np.lexsort((groups, person_of))  # group by group
        self._places = np.argsort(self._entries)  # of each entry among them
        person, group = person_of[self._entries], groups[self._entries]
        starts = np.flatnonzero(np.append(True, (person[1:] != person[:-1]) | (group[1:] != group[:-1])))
        sizes = np.diff(starts, append=len(group))
        self._start, self._size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
        self.num_alone = int((sizes == 1).sum())

    def random_partners(self, entries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each entry another one of its group, uniformly; itself where the group has no other."""
        places = self._places[entries]
        start = self._start[places]
        return self._entries[_random_others(start, start + self._size[places], places, rng)]


def find_groups(dataset: PersonSamples) -> Groups | None:
    """The groups of a data set, None where it has none. Raises UserError where its file is damaged."""
    groups = dataset.groups()
    return None if groups is None else Groups(dataset.person_of, groups)


def evaluation_pairs(
    dataset: PersonSamples, *, seed: int, fraction: float = 1.0, alone: bool = True, within_group: bool = False
) -> np.ndarray:
    """(M, 2) int64: source entries, sorted, each with one random partner of the same person.

    fraction: of the entries to use as a source, at least one; an entry's partner does not depend on it.
    alone: use a person's only sample, too, as its own partner.
    within_group: partners of the same group, where there are groups and the entry is not alone in its own.
    """
    assert 0 < fraction <= 1, fraction
    entries, rng = np.arange(len(dataset)), np.random.default_rng([seed, 0])
    partners = _random_partners(dataset, entries, rng)
    if within_group and (groups := find_groups(dataset)):
        mates = groups.random_partners(entries, rng)
        partners = np.where(mates != entries, mates, partners)
    sources = entries if alone else entries[partners != entries]
    chosen = np.random.default_rng([seed, 1]).permutation(sources)[: max(1, round(fraction * len(sources)))]
    return np.stack([entries, partners], axis=1)[np.sort(chosen)]


class IndexSampler(Sampler[list[Any]]):
    """Batches of entries, endlessly shuffled: each entry once an epoch, incomplete batches dropped.

    The batch of a step is a pure function of (seed, step), so that a run can start in the middle.
    candidates: the entries to draw from; None for all.  share: what of each batch is dealt here, see
    `core.distributed`.  Yields the batches of `start_step` up to `num_steps`.
    Raises UserError if there are fewer candidates than `batch_size`.
    """

    def __init__(
        self,
        dataset: Samples,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        num_steps: int,
        candidates: np.ndarray | None = None,
        share: slice = slice(None),
    ) -> None:
        self.share = share
        self.batch_size, self.seed = batch_size, seed
        self.steps = range(start_step, num_steps)
        self.candidates = np.arange(len(dataset)) if candidates is None else np.asarray(candidates, np.int64)
        if len(self.candidates) < batch_size:
            raise UserError(
                f"{dataset.path}: {len(self.candidates)} samples to draw from, fewer than a batch of "
                f"{batch_size}. Lower batch_size or use more data."
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Any]]:
        return (self.batch(step)[self.share] for step in self.steps)

    def batch(self, step: int) -> list[Any]:
        """Entries of the batch of this step."""
        return self._rows(step).tolist()

    def _rows(self, step: int) -> np.ndarray:
        epoch, batch = divmod(step, len(self.candidates) // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(np.random.default_rng([self.seed, epoch]))
        return self._order[batch * self.batch_size :][: self.batch_size]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.candidates)


class PairSampler(IndexSampler):
    """Like IndexSampler, but each entry comes with a random partner: (a, b), two samples of one person.

    b is uniform over all other samples of the person, candidates or not; a itself where there is no other.
    within_group: the share of the pairs whose b is uniform over the other samples of a's group, where it has others.
    Raises UserError, too, if that is asked for and the data set has no groups.
    """

    def __init__(
        self,
        dataset: PersonSamples,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        num_steps: int,
        candidates: np.ndarray | None = None,
        within_group: float = 0.0,
        share: slice = slice(None),
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            num_steps=num_steps,
            candidates=candidates,
            share=share,
        )
        self.dataset, self.within_group = dataset, within_group
        self._groups = find_groups(dataset) if within_group else None
        if within_group and self._groups is None:
            raise UserError(
                f"{dataset.path}: no data sets 'group' in it, but pairs_within_group is {within_group:g}. Set it to 0, "
                "or add them (docs/data.md)."
            )

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Pairs of entries of the batch of this step."""
        return list(map(tuple, self._rows(step).tolist()))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        entries = super()._draw(rng)
        partners = _random_partners(self.dataset, entries, rng)
        if self._groups is not None:  # after the draws of all partners, which so stay those of a share of 0
            mates = self._groups.random_partners(entries, rng)
            is_within = (rng.random(len(entries)) < self.within_group) & (mates != entries)
            partners = np.where(is_within, mates, partners)
        return np.stack([entries, partners], axis=1)


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
        yield from PatientLoader(
            chosen, batch_sampler=order, num_workers=num_workers, pin_memory=is_cuda, generator=own
        )


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
        return value * constants([1.0, -1.0], value)
    if kind == "crop":  # from the mirrored patch to the patch, on to the image, on to the mirrored image
        turn = constants([-1.0, 1.0, 1.0], value)
        return turn[:, None] * value * turn
    if kind == "points":
        column, row = value[:, [1, 0, 2, 4, 3]].unbind(dim=-1)  # image left first again
        return torch.stack((batch[name.replace("points", "image")].shape[-1] - 1 - column, row), dim=-1)
    raise ValueError(f"{name}: nobody knows how to mirror that")
