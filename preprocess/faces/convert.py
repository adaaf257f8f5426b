"""`python -m preprocess.faces.convert MODULES`: the networks' weights out of MediaPipe's files, into `data`.

MODULES is the folder `mediapipe/modules` of the unpacked wheel mediapipe-0.10.21. Nobody who uses the project needs
this: the result comes along. It takes `pip install tflite==2.18.0`, which describes the format.

A TensorFlow Lite file is a list of operations on numbered tensors. What is learned are the constants of convolutions
and activations; those that an output needs, in the order of the file, are those of the network in its own order.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tflite
import torch
from flatbuffers import flexbuffers
from numpy import ndarray
from torch import nn

from preprocess.faces.networks import DATA, FarDetector, MeshNetwork, NearDetector

PARTS = ("mesh_identity", "lips", "left_eye", "left_iris", "right_eye", "right_iris")
MESH_OUTPUTS = (*(f"output_{part}" for part in PARTS), "conv_faceflag")
SOURCES: tuple[tuple[type[nn.Module], str, str, tuple[str, ...]], ...] = (
    (NearDetector, "near.npz", "face_detection/face_detection_short_range", ("regressors", "classificators")),
    (FarDetector, "far.npz", "face_detection/face_detection_full_range_sparse", ("Identity", "Identity_1")),
    (MeshNetwork, "mesh.npz", "face_landmark/face_landmark_with_attention", MESH_OUTPUTS),
)
# Operations with something learned, and how the axes of their kernels come to be PyTorch's.
LAYOUTS = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "PRELU": ()}


class LiteFile:
    """A TensorFlow Lite file, read."""

    def __init__(self, path: Path) -> None:
        self.model = tflite.Model.GetRootAs(path.read_bytes(), 0)
        self.graph = self.model.Subgraphs(0)
        self.operations = [self.graph.Operators(i) for i in range(self.graph.OperatorsLength())]
        self.made_by = {int(made): i for i, one in enumerate(self.operations) for made in one.OutputsAsNumpy()}

    def kind(self, operation: tflite.Operator) -> str:
        """The name of an operation, as the format has it."""
        code = self.model.OperatorCodes(operation.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = next(name for name, value in vars(tflite.BuiltinOperator).items() if value == number)
        return code.CustomCode().decode() if name == "CUSTOM" else name

    def constant(self, number: int) -> ndarray:
        """The values of a tensor that does not depend on the image, float16."""
        while number in self.made_by:  # from a smaller form
            number = int(self.operations[self.made_by[number]].Inputs(0))
        tensor = self.graph.Tensors(number)
        values = self.model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.float16)
        shape, sparsity = tensor.ShapeAsNumpy(), tensor.Sparsity()
        return values.reshape(shape) if sparsity is None else _dense(values, shape, sparsity)

    def needed(self, output: str) -> list[int]:
        """The operations that an output depends on, in order."""
        tensors = [n for n in self.graph.OutputsAsNumpy() if self.graph.Tensors(n).Name().decode() == output]
        found: set[int] = set()
        while tensors:
            made_by = self.made_by.get(int(tensors.pop()))
            if made_by is not None and made_by not in found:
                found.add(made_by)
                tensors.extend(self.operations[made_by].InputsAsNumpy())
        return sorted(found)

    def learned(self, outputs: tuple[str, ...]) -> Iterator[ndarray]:
        """Weights as PyTorch lays them out, for one output after the other."""
        for number in dict.fromkeys(number for output in outputs for number in self.needed(output)):
            operation = self.operations[number]
            kind = self.kind(operation)
            for place in operation.InputsAsNumpy()[1:] if kind in LAYOUTS else ():
                values = self.constant(int(place))
                yield values.transpose(LAYOUTS[kind]) if values.ndim == 4 else values.flatten()

    def rows(self) -> list[ndarray]:
        """Landmarks of each part that the network looks at again."""
        cut = [one for one in self.operations if self.kind(one) == "Landmarks2TransformMatrix"]
        options = [flexbuffers.Loads(bytes(one.CustomOptionsAsNumpy().tolist())) for one in cut]
        return [np.array(each["subset_idxs"], np.int64) for each in options]


def _dense(values: ndarray, shape: ndarray, sparsity: tflite.SparsityParameters) -> ndarray:
    """All values, of which those that are not zero are stored: their columns, and where each row begins."""
    columns = sparsity.DimMetadata(sparsity.DimMetadataLength() - 1)
    starts, places = (_whole_numbers(columns, name) for name in ("ArraySegments", "ArrayIndices"))
    dense = np.zeros((len(starts) - 1, shape[-1]), np.float16)
    for row, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        dense[row, places[start:end]] = values[start:end]
    return dense.reshape(shape)


def _whole_numbers(columns: tflite.DimensionMetadata, name: str) -> list[int]:
    kind, table = getattr(columns, f"{name}Type")(), getattr(columns, name)()
    vector = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}[kind]()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy().tolist()


def weights_of(network: nn.Module, file: LiteFile, outputs: tuple[str, ...]) -> dict[str, ndarray]:
    """Arrays by the network's names for them."""
    learned = list(file.learned(outputs))
    names = [name for name, _ in network.named_parameters()]
    weights = dict(zip(names, learned, strict=True))
    weights |= dict(zip((name for name, _ in network.named_buffers()), file.rows(), strict=True))
    network.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})  # or raise
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", type=Path)
    modules = parser.parse_args().modules
    for network, target, source, outputs in SOURCES:
        weights = weights_of(network(), LiteFile(modules / f"{source}.tflite"), outputs)
        np.savez_compressed(DATA / target, allow_pickle=False, **weights)


if __name__ == "__main__":
    main()
