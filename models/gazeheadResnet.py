"""The ResNet-50 estimator that ST-ED's metrics are measured with; never used in a training loss."""

from torch import Tensor, nn

from models.gazeheadnet import Estimate, Estimator


class GazeHeadResNet(Estimator):
    """ResNet-50 whose max-pooling keeps the size (64 x 64 into layer1 for 128 px); angles are not bounded.

    S from 32 on; published weights are for 128. features: none.
    Attribute names are those of the published checkpoint. Source: ST-ED, section 4, and its release.
    """

    def __init__(self) -> None:
        from torchvision.models import resnet50  # brings PyTorch's compiler along: a second to import

        super().__init__()
        self.resnet50 = resnet50(weights=None, num_classes=4)
        self.resnet50.maxpool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, image: Tensor) -> Estimate:
        angles = self.resnet50(image)
        gaze, head = angles.split(2, dim=1)
        return Estimate(gaze, head, [])
