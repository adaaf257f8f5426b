"""Several processes, one run: `torchrun --nproc-per-node N train_st_ed.py CONFIG.json`, on torch.distributed.

Every process draws what one alone would draw for the whole batch and takes its own rows of it, in equal shares; what is
no mean over the batch asks here for the sums of all. So the number of processes changes nothing but rounding.
Where there is one process, everything here hands back what it was given.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core import tracking
from core.command import FAILED, STOPPED, UNUSABLE, UserError, is_foreseen, sentence
from models.geometry import at_least_float32

T = TypeVar("T")
_LONG = timedelta(days=7)  # one process may prepare data and estimators while the others wait
_LOST = ("gloo", "NCCL", "onnection", "ProcessGroup")  # in what is raised where another process has gone


@dataclass(frozen=True)
class _Group:
    """rank: of this process.  waiting: a group on CPUs, whose members wait as long as it takes."""

    rank: int = 0
    size: int = 1
    waiting: dist.ProcessGroup | None = None


_group = _Group()


def rank() -> int:
    """The number of this process; the first, which alone writes, has 0."""
    return _group.rank


def size() -> int:
    """The number of processes that train together; 1 while one prepares what the others then find."""
    return _group.size


def is_first() -> bool:
    return _group.rank == 0


# Coming and going


def wanted_size() -> int:
    """How many processes torchrun started, or another that sets its variables."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def require_one_process(what: str) -> None:
    """Raises UserError for what is not shared out among processes."""
    if wanted_size() > 1:
        raise UserError(what, f"runs in one process, not in {wanted_size()}", remedy="Start it without torchrun.")


def own_device(device: torch.device, named: str) -> torch.device:
    """The GPU of this process: that of its number on its machine. A CPU is shared.

    named: the setting.  Raises UserError where one GPU is named for all, or there are fewer than processes.
    """
    if wanted_size() == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError("device", f"{named}, for {wanted_size()} processes", "auto, cuda or cpu")
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UserError("device", f"{there} GPUs, and a process number {local + 1} on this machine", "a GPU for each")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def join(device: torch.device) -> None:
    """Meet the other processes, if there are any; all but the first say nothing from now on."""
    global _group
    if wanted_size() == 1 or size() > 1:
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    waiting = dist.new_group(backend="gloo", timeout=_LONG)
    assert isinstance(waiting, dist.ProcessGroup)
    _group = _Group(dist.get_rank(), dist.get_world_size(), waiting)
    if not is_first():
        tracking.be_quiet()


def leave() -> None:
    """Wait until all are done, and part: who ends early would have the others ended."""
    global _group
    if size() > 1:
        dist.barrier(_group.waiting)
        dist.destroy_process_group()
        _group = _Group(rank=rank())


@contextmanager
def telling_who_failed() -> Iterator[None]:
    """The error of another process in a sentence, and that of this one, unless it is the first, without a file.

    Raises ConnectionError in the first where another has gone; SystemExit in the others whatever goes wrong.
    """
    try:
        yield
    except Exception as error:
        if size() == 1:
            raise
        is_lost = isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
        gone = ConnectionError(f"another of the {size()} processes ended: it says why, or was killed")
        if is_first() and is_lost:
            raise gone from error
        if is_first():
            raise
        if not is_lost and not is_foreseen(error):
            traceback.print_exc()
        print(f"error in process {rank() + 1} of {size()}: {gone if is_lost else sentence(error)}", file=sys.stderr)
        raise SystemExit(FAILED) from error


def first_then_others(make: Callable[[], T]) -> T:
    """Have the first process make something, as if it were alone, and then the others, who find there what it made.

    Raises what the first one's raises; SystemExit in the others then.
    """
    global _group
    if size() == 1:
        return make()
    together, has_made = _group, False
    if not is_first() and not _of_first(None):
        raise SystemExit(UNUSABLE)
    _group = replace(together, size=1)
    try:
        made = make()
        has_made = True
    finally:
        _group = together
        if is_first():
            _of_first(has_made)
    return made


def _of_first(said: bool | None) -> bool | None:
    box = [said]
    dist.broadcast_object_list(box, src=0, group=_group.waiting)
    return box[0]


@contextmanager
def together() -> Iterator[None]:
    """Each does its share in here, and none goes on before all are through; where one is asked to stop, all stop.

    Raises KeyboardInterrupt in the first then, SystemExit in the others.
    """
    stopped = None
    try:
        yield
    except KeyboardInterrupt as error:
        stopped = error
    if any_of(stopped is not None):
        if not is_first():
            raise SystemExit(STOPPED)
        raise stopped or KeyboardInterrupt("Stopped; the same command continues from there.")


def require_shares(batch_size: int) -> None:
    """Raises UserError where a batch cannot be dealt out equally."""
    if batch_size % wanted_size():
        fitting = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
        found = f"{batch_size} is that of all processes together, and does not divide by {wanted_size()} of them"
        raise UserError("batch_size", found, remedy=f"Start {fitting} processes, or set another batch_size.")


def require_same(where: str, found: object, remedy: str) -> None:
    """Raises UserError, in all processes, where they did not find the same."""
    if len(others := {str(other) for other in of_all(found)}) > 1:
        raise UserError(where, f"the processes found {' and '.join(sorted(others))}", remedy=remedy)


# What is exchanged


def own_rows(count: int) -> slice:
    """The rows of this process, of a whole that has `count` for each."""
    return slice(rank() * count, (rank() + 1) * count) if size() > 1 else slice(count)


def own_share(items: Sequence[T]) -> list[T]:
    """Those of this process, where each is done by one."""
    return list(items[rank() :: size()] if size() > 1 else items)


def of_all(mine: T) -> list[T]:
    """What each process has, in their order: any object."""
    if size() == 1:
        return [mine]
    everyones: list[Any] = [None] * size()
    dist.all_gather_object(everyones, mine, _group.waiting)
    return everyones


def any_of(mine: bool) -> bool:
    """Whether it holds in some process; does not wait for a GPU."""
    if size() == 1:
        return mine
    found = torch.tensor(int(mine))
    dist.all_reduce(found, dist.ReduceOp.MAX, _group.waiting)
    return bool(found)


def whole_batch(own: Tensor) -> Tensor:
    """(B, ...) of each process to (N * B, ...), in their order; without a gradient."""
    if size() == 1:
        return own
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(size())]
    dist.all_gather(parts, own.detach().contiguous())
    return torch.cat(parts)


def averaged(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Means over the processes of tensors of one number each, without a gradient; not finite where one of them is."""
    if size() == 1:
        return values
    together = _Mean.apply(torch.stack([value.detach().double() for value in values.values()]))
    return dict(zip(values, together.unbind(), strict=True))


def mean_of_all(own: Tensor) -> Tensor:
    """The mean over the processes; a gradient flows to all of them."""
    return own if size() == 1 else _Mean.apply(own)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, own: Tensor) -> Tensor:
        mean = own.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(mean)
        return mean / size()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _Mean.apply(gradient)


class SharedGradients:
    """A module whose gradients are the means over all processes after each `backward`, by DistributedDataParallel.

    Called with any function of the module, which returns all tensors that a loss is made of, in containers.
    To be made in all processes at the same time; they then have the weights of the first.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parallel: nn.Module | None = None
        if size() > 1:
            # Terms without weight leave parameters without a gradient; buffers are the same everywhere as they are.
            self._parallel = DistributedDataParallel(
                _AnyFunction(module), broadcast_buffers=False, find_unused_parameters=True
            )

    def __call__(self, function: Callable[[], T]) -> T:
        return function() if self._parallel is None else self._parallel(function)

    def each(self, values: Iterator[T]) -> Iterator[T]:
        """The values of an iterator that computes one when it is asked for it, and after whose every one is a step."""
        while True:
            try:
                yield self(lambda: next(values))
            except StopIteration:
                return


class _AnyFunction(nn.Module):
    """A module whose forward is what it is given: ours have several methods."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], T]) -> T:
        return function()


class BatchNorm2d(nn.BatchNorm2d):
    """Of the batch of all processes. PyTorch's SyncBatchNorm is the same for GPUs alone."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if size() == 1 or not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        with torch.autocast(x.device.type, enabled=False):
            mean = mean_of_all(at_least_float32(x).mean(dim=(0, 2, 3)))
            centred = at_least_float32(x) - mean[:, None, None]
            variance = mean_of_all(centred.square().mean(dim=(0, 2, 3)))
            scale = (self.weight / torch.sqrt(variance + self.eps))[:, None, None]
            normed = centred * scale + self.bias[:, None, None]
        count = size() * x.numel() / x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum or 0.1)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.1)
        return normed.to(x.dtype)
