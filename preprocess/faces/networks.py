"""The networks that find a face and its landmarks, in PyTorch; their weights are in `data`, see NOTICE there.

Two detectors that propose boxes (BlazeFace; one for faces that are near, one for those that are far), and one network
that sees a crop around a face and returns its 478 landmarks. They were published as TensorFlow Lite files; the layers
are listed here in the order of those files, which is how `convert.py` fits the weights to them.
Sources: Bazarevsky et al., "BlazeFace" (2019); Grishchenko et al., "Attention Mesh" (2020).
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
DATA = Path(__file__).resolve().parent / "data"


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: with a stride of 2, the odd pixel goes right and to the bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            before, after = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
            x = F.pad(x, (before, after, before, after))
        return super().forward(x)


class Block(nn.Module):
    """A residual block: depthwise and pointwise convolution; further channels are added to nothing."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, leaky: bool = False) -> None:
        super().__init__()
        self.depthwise = Same(inputs, inputs, 3, stride, inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs) if leaky else nn.ReLU(inplace=True)
        self.stride, self.kept = stride, inputs

    def forward(self, x: Tensor) -> Tensor:
        change = self.pointwise(self.depthwise(x))
        kept = F.max_pool2d(x, 2) if self.stride == 2 else x
        change[:, : self.kept] += kept
        return self.activation(change)


def _blocks(channels: tuple[int, ...], halved: tuple[int, ...], leaky: bool = False) -> Iterator[nn.Module]:
    """Blocks from one number of channels to the next; those whose index is in `halved` have a stride of 2."""
    for i, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        yield Block(inputs, outputs, 2 if i in halved else 1, leaky)


class Bottleneck(nn.Module):
    """Two depthwise and pointwise convolutions, by fewer channels in between; residual where the shape stays."""

    def __init__(self, inputs: int, between: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.spread = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs)
        self.squeeze = nn.Conv2d(inputs, between, 1)
        self.spread_again = nn.Conv2d(between, between, 3, padding=1, groups=between)
        self.expand = nn.Conv2d(between, outputs, 1)
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        change = self.expand(self.spread_again(F.relu(self.squeeze(self.spread(x)))))
        return F.relu(x + change if self.residual else change)


class NearDetector(nn.Module):
    """Image (B, 3, 128, 128) in [-1, 1] -> 896 proposals: (B, 896, 16) box and 6 key points, (B, 896) logits.

    The first 512 belong to a grid of 16 x 16, two a cell, the others to one of 8 x 8, six a cell.
    """

    SIZE, GRIDS = 128, ((16, 2), (8, 6))
    LEAST = 0.5  # of a score

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Same(3, 24, 5, stride=2), nn.ReLU(inplace=True))
        self.fine = nn.Sequential(*_blocks((24, 24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88), halved=(2, 5)))
        self.coarse = nn.Sequential(*_blocks((88, 96, 96, 96, 96, 96), halved=(0,)))
        self.boxes = nn.ModuleList([nn.Conv2d(88, 2 * 16, 1), nn.Conv2d(96, 6 * 16, 1)])
        self.logits = nn.ModuleList([nn.Conv2d(88, 2, 1), nn.Conv2d(96, 6, 1)])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.stem(image))
        grids = (fine, self.coarse(fine))
        boxes = [_listed(head(grid), 16) for head, grid in zip(self.boxes, grids, strict=True)]
        logits = [_listed(head(grid), 1) for head, grid in zip(self.logits, grids, strict=True)]
        return torch.cat(boxes, 1), torch.cat(logits, 1).squeeze(2)


class Stage(nn.Module):
    """Bottlenecks, the first of which halves the grid -> their result, and that with fewer channels, for the way up."""

    def __init__(self, inputs: int, between: int, outputs: int, aside: int, count: int) -> None:
        super().__init__()
        more = (Bottleneck(outputs, between, outputs) for _ in range(count - 1))
        self.blocks = nn.Sequential(Bottleneck(inputs, between, outputs, stride=2), *more)
        self.aside = _pointwise(outputs, aside)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, self.aside(x)


class FarDetector(nn.Module):
    """Image (B, 3, 192, 192) in [-1, 1] -> 2304 proposals as `NearDetector`'s, of a grid of 48 x 48."""

    SIZE, GRIDS = 192, ((48, 1),)
    LEAST = 0.6

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 32, 3, 2, padding=1)
        self.stem = nn.Sequential(first, nn.ReLU(), Bottleneck(32, 8, 32), Bottleneck(32, 8, 32))
        stages = ((32, 16, 64, 48, 3), (64, 32, 128, 64, 3), (128, 48, 192, 96, 3), (192, 96, 384, 96, 4))
        self.down, self.up = nn.ModuleList(Stage(*sizes) for sizes in stages), nn.ModuleList()
        for channels, outputs in ((96, 64), (64, 48)):
            blocks = (Bottleneck(channels, channels // 2, channels) for _ in range(2))
            self.up.append(nn.Sequential(*blocks, _pointwise(channels, outputs)))
        self.up.append(Bottleneck(48, 24, 48))
        self.boxes, self.logits = (
            nn.Sequential(nn.Conv2d(48, n, 1), nn.Conv2d(n, n, 3, 2, padding=1, groups=n)) for n in (64, 4)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x, asides = self.stem(image), []
        for stage in self.down:
            x, aside = stage(x)
            asides.append(aside)
        x = asides.pop()
        for up in self.up:
            x = up(asides.pop() + F.interpolate(x, scale_factor=2, mode="bilinear"))
        return _unfold(self.boxes(x)), _unfold(self.logits(x)).squeeze(2)


def _pointwise(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU())


def _listed(grid: Tensor, values: int) -> Tensor:
    """(B, n values, H, W) -> (B, H W n, values), row by row."""
    return grid.permute(0, 2, 3, 1).reshape(len(grid), -1, values)


def _unfold(grid: Tensor) -> Tensor:
    """(B, 4 n, H, W), whose channels are those of a square of four cells -> (B, 4 H W, n), row by row."""
    count, channels, height, width = grid.shape
    squares = grid.reshape(count, 2, 2, channels // 4, height, width)
    return squares.permute(0, 4, 1, 5, 2, 3).reshape(count, -1, channels // 4)


class Part(nn.Module):
    """Landmarks of a part of the face, more exact than the mesh's: early features around it are cut out upright.

    corners: landmarks of the mesh that are level in the cut-out.  rows: which landmarks of the mesh are in the part;
    they are kept with the weights.  counts: landmarks of each head.
    """

    GRID = 16  # cells of the cut-out each way, of four pixels
    MARGIN = 1.5  # side of the cut-out by that of the part

    def __init__(self, corners: tuple[int, int], *counts: int) -> None:
        super().__init__()
        channels = (32, 32, 32, 64, 64, 64, 128)
        self.corners, self.features = corners, nn.Sequential(*_blocks(channels, halved=(2, 5), leaky=True))
        self.heads = nn.ModuleList(self._head(count) for count in counts)
        self.rows: Tensor
        self.register_buffer("rows", torch.zeros(counts[0], dtype=torch.int64))

    @staticmethod
    def _head(count: int) -> nn.Module:
        blocks = _blocks((128,) * 6, halved=(2,), leaky=True)
        return nn.Sequential(*blocks, *_narrow(), nn.Conv2d(32, 2 * count, 2))

    def forward(self, early: Tensor, mesh: Tensor) -> list[Tensor]:
        """early: (B, 32, 48, 48).  mesh: (B, 468, 2) pixels. Returns (B, n, 2) pixels of each head."""
        turn, middle = self._place(mesh / 4)
        features = self.features(self._cut_out(early, turn, middle))
        return [head(features).reshape(len(mesh), -1, 2) @ turn.mT + 4 * middle for head in self.heads]

    def _place(self, mesh: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2, 2) turn and scale, (B, 1, 2) shift that take a cell of the cut-out to one of the early features."""
        x, y = (mesh[:, self.corners[1]] - mesh[:, self.corners[0]]).unbind(1)
        cos, sin = torch.stack([x, y]) / torch.hypot(x, y)
        rotation = torch.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2)
        level = mesh[:, self.rows] @ rotation  # turned back
        low, high = level.amin(1, keepdim=True), level.amax(1, keepdim=True)
        turn = rotation * (self.MARGIN / self.GRID * (high - low))
        middle = (low + high) / 2 @ rotation.mT
        return turn, middle - self.GRID / 2 * turn.sum(2)[:, None]

    def _cut_out(self, early: Tensor, turn: Tensor, shift: Tensor) -> Tensor:
        """(B, 32, 16, 16), zero outside of the features."""
        steps = torch.arange(self.GRID, device=early.device) + 0.5
        cells = torch.cartesian_prod(steps, steps).flip(1)  # column, row
        places = cells @ turn.mT + shift - 0.5
        last = early.shape[-1] - 1
        inside = ((places >= 0) & (places <= last)).all(2).reshape(-1, 1, self.GRID, self.GRID)
        grid = (2 / last * places - 1).reshape(-1, self.GRID, self.GRID, 2)
        return F.grid_sample(early, grid, align_corners=True) * inside


class MeshNetwork(nn.Module):
    """Image (B, 3, 192, 192) in [0, 1] of a face upright -> (B, 478, 2) landmarks, pixels of it; (B,) logit of a face.

    A mesh of 468 landmarks is found first, then lips and eyes anew, with five more landmarks for each iris.
    """

    SIZE = 192

    def __init__(self) -> None:
        super().__init__()
        early = _blocks((16, 16, 16, 32), halved=(2,), leaky=True)
        late = _blocks((32,) * 3 + (64,) * 3 + (128,) * 9, halved=(2, 5, 8, 11), leaky=True)
        self.early = nn.Sequential(Same(3, 16, 3, stride=2), nn.PReLU(16), *early)
        self.late = nn.Sequential(*late, *_narrow())
        self.mesh = nn.Conv2d(32, 3 * 468, 3)
        self.lips, self.left, self.right = Part((61, 291), 80), Part((33, 133), 71, 5), Part((362, 263), 71, 5)
        self.face = nn.Conv2d(32, 1, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        early = self.early(image)
        late = self.late(early)
        mesh = self.mesh(late).reshape(len(image), 468, 3)[..., :2]  # the third is depth
        (lips,), (left, left_iris), (right, right_iris) = (
            part(early, mesh) for part in (self.lips, self.left, self.right)
        )
        points = torch.cat([mesh, left_iris, right_iris], 1)
        for part, found in ((self.lips, lips), (self.left, left), (self.right, right)):
            points[:, part.rows] = found
        return points, self.face(late).flatten()


def _narrow() -> tuple[nn.Module, ...]:
    return nn.Conv2d(128, 32, 1), nn.PReLU(32), Block(32, 32, leaky=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks run without gradients and in one thread: sums depend on how many there are, and files would, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def load(network: Network, file: str) -> Network:
    """The network with its weights, ready to be used. file: of `data`, arrays by their names."""
    with np.load(DATA / file) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network.load_state_dict(weights)
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)
