"""ArcFace's iresnet50, whose embedding tells whether two faces are one person's, and the crops it expects.

State-dict keys of the published backbone. Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep
Face Recognition", 2019.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.freezable import Freezable
from models.geometry import at_least_float32, constants
from models.shortcut import ShortcutConv

# Eyes, tip of the nose, corners of the mouth in a crop of 112 px; x, y of pixel centres, the image's left first.
REFERENCE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
CROP_SIZE = 112


class _Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.prelu = nn.PReLU(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        if stride > 1:
            self.downsample = nn.Sequential(ShortcutConv(c_in, c_out, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(residual)) + (self.downsample(x) if hasattr(self, "downsample") else x)


class ArcFace(Freezable):
    """Face (B, 3, S, S) RGB in [-1, 1] to an embedding (B, embedding_size), not normalised, in at least float32.

    input_size: S, a multiple of 16; 112 as published.  width, depths: channels of the first of four stages, doubled
    in each of the next, and residual blocks of each.  Compare embeddings by their cosine.
    Raises ValueError for an image of another size.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 14, 3),
        input_size: int = CROP_SIZE,
        embedding_size: int = 512,
    ) -> None:
        super().__init__()
        if input_size < 16 or input_size % 16:
            raise ValueError(f"ArcFace's input_size is {input_size}; expected a multiple of 16.")
        self.input_size = input_size
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        c_in = width
        for i, depth in enumerate(depths):
            c_out = width * 2**i
            blocks = [_Block(c_in, c_out, 2), *(_Block(c_out, c_out, 1) for _ in range(depth - 1))]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            c_in = c_out
        self.bn2 = nn.BatchNorm2d(c_in)
        self.fc = nn.Linear(c_in * (input_size // 16) ** 2, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.features.weight.requires_grad_(False)  # fixed at 1, as published

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(
                f"ArcFace's image is {tuple(image.shape)}; expected (B, 3, {self.input_size}, {self.input_size}). "
                "Crop it with face_crop or aligned_crop."
            )
        x = self.prelu(self.bn1(self.conv1(image)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        with torch.autocast(x.device.type, enabled=False):
            hidden = at_least_float32(self.bn2(x)).flatten(1)
            return self.features(self.fc(hidden))


def align_points(points: Tensor) -> Tensor:
    """Similarity that takes five points of a face nearest to where ArcFace expects them, in least squares.

    points: (B, 5, 2) x and y of the eyes, the nose's tip and the mouth's corners, the image's left first, in pixels
    with the first pixel's centre at 0.  Returns (B, 2, 3): image pixels to pixels of a 112 px crop.
    Five equal points have none: NaN.
    """
    points = at_least_float32(points)
    reference = constants(REFERENCE_POINTS, points)
    centre, reference_centre = points.mean(dim=1), reference.mean(dim=0)
    (x, y), (u, v) = (points - centre[:, None]).unbind(-1), (reference - reference_centre).unbind(-1)
    # A rotation with a scale is one complex factor: the quotient of two inner products.
    spread = (x.square() + y.square()).sum(dim=1)
    real, imaginary = (x * u + y * v).sum(dim=1) / spread, (x * v - y * u).sum(dim=1) / spread
    linear = torch.stack((real, -imaginary, imaginary, real), dim=1).unflatten(1, (2, 2))
    offset = reference_centre - (linear * centre[:, None]).sum(dim=2)  # not @: autocast would round it
    return torch.cat((linear, offset[..., None]), dim=2)


def face_crop(image: Tensor, transforms: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Image warped by an affine map and interpolated linearly; black, which is -1, where the image ends.

    image: (B, 3, H, W) in [-1, 1].  transforms: (B, 2, 3) from `align_points`: pixels of the image to pixels of a
    112 px crop.  Returns (B, 3, size, size): the same crop at another resolution if size is not 112.
    Gradients flow to the image and to the transforms. A map that shrinks by much more than 2 skips pixels: make
    the image smaller first.
    """
    image, transforms = at_least_float32(image), at_least_float32(transforms)
    line = (torch.arange(size, dtype=transforms.dtype, device=transforms.device) + 0.5) * (CROP_SIZE / size) - 0.5
    target = torch.stack(torch.meshgrid(line, line, indexing="xy")).flatten(1)
    # _ex: not asked whether a map can be undone, for which a GPU would have to be waited for.
    source = torch.linalg.solve_ex(transforms[:, :, :2], target - transforms[:, :, 2:]).result
    height, width = image.shape[2:]
    extent = constants([[width], [height]], source)
    grid = ((2 * source + 1) / extent - 1).unflatten(2, (size, size)).permute(0, 2, 3, 1)
    return F.grid_sample(image + 1, grid.to(image.dtype), align_corners=False) - 1
