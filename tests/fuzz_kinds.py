"""What the long drill of `tests.fuzz` damages and reads: whole files of each kind, small, and those who read them."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image

from checkpoints_manager import load_checkpoint, read_checkpoint
from core.config_reader import load_config
from core.redirection.load import _stored_settings
from core.redirection.photo_files import open_photo
from core.redirection.video_files import open_video
from core.torch_files import write_torch_file
from dataset import GazeDataset, knows_gaze, list_persons, load_person_split, read_person_split
from dataset_augmented import RedirectedDataset
from preprocess.datasets import columbia, eth_xgaze, eyediap_files, gazecapture, mpiifacegaze
from preprocess.face_model import GENERIC, load_face_model
from preprocess.image_files import read_exif, read_image
from preprocess.inspect.verify import verify
from preprocess.landmarks import BadLandmarks, read_landmarks
from preprocess.person_file import DamagedPerson
from preprocess.rechunk import convert
from tests.clips import write_clip
from tests.fuzz import Reader, damaged, odd_text
from tests.tiny import write_dataset
from utils import load_state, read_torch_file

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kind:
    """share: of all cases.  make: writes whole files into a folder.  readers: by the ends of names; '' of all.

    change: of the files' bytes.  foreseen: what readers document beside UserError and the machine's errors.
    """

    share: float
    make: Callable[[Path], object]
    readers: Mapping[str, Mapping[str, Reader]]
    change: Callable[[bytes, np.random.Generator], bytes] = damaged
    foreseen: tuple[type[Exception], ...] = ()

    def of(self, path: Path) -> list[tuple[str, Reader]]:
        """The readers of a file, by name."""
        return [item for end, readers in self.readers.items() if path.name.endswith(end) for item in readers.items()]


# Configurations and splits


def configurations(folder: Path) -> None:
    for path in (ROOT / "config").glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())


SPLIT = {"train": ["00000", "00001"], "val": ["00001"], "test": ["a person"], "note": None, "number": [1.5, -3]}


def splits(folder: Path) -> None:
    for name in ("split.json", "other.json"):
        (folder / name).write_text(json.dumps(SPLIT, indent=None if name == "split.json" else 2))
    path = write_dataset(folder / "split.h5", persons=1, samples=1, size=4)
    with h5py.File(path, "a") as file:
        file.attrs["split"] = json.dumps(SPLIT)


# HDF5


def data_sets(folder: Path) -> None:
    path = write_dataset(folder / "plain.h5", persons=2, samples=3, size=8)
    for libver in ("earliest", "latest"):
        with h5py.File(path) as old, h5py.File(folder / f"{libver}.h5", "w", libver=libver) as file:
            file.attrs.update(
                {**old.attrs, "note": "a text", "sizes": [1, 2], "split": json.dumps({"train": ["00000"]})}
            )
            for person in old:
                old.copy(person, file)
            file["00000"].attrs["note"] = "another"
    with h5py.File(path) as old, h5py.File(folder / "packed.h5", "w", libver="latest") as file:
        file.attrs.update({**old.attrs, **{f"note{i}": f"text {i}" for i in range(12)}})  # so many lie in a heap
        for person, group in old.items():
            for name, data in group.items():
                file.create_dataset(f"{person}/{name}", data=data, chunks=(1, *data.shape[1:]), compression="gzip")
    with h5py.File(folder / "redirected.h5", "w") as file:
        for person in ("00000", "00001"):
            file[f"{person}/real_labels"] = np.zeros((2, 4), np.float32)
            file[f"{person}/labels"] = np.zeros((2, 3, 4), np.float32)
            file[f"{person}/pixels"] = np.zeros((2, 3, 8, 8, 3), np.uint8)


def look(path: Path) -> object:
    knows_gaze(path)
    data = GazeDataset(path)
    return [data[i] for i in range(len(data))]


def look_at_redirected(path: Path) -> object:
    data = RedirectedDataset(path)
    return [data[i] for i in range(len(data))]


def convert_beside(path: Path) -> object:
    return convert([path], path.with_name("out.h5"), overwrite=True, progress=False)


# Weights


def weights(folder: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    config = json.loads((ROOT / "config" / "quickstart.json").read_text())
    content = {"encoder": model.state_dict(), "optimizers": {"encoder": optimizer.state_dict()}, "step": 3}
    content |= {"config": config, "format_version": 1, "code": "x"}
    write_torch_file(folder / "ours.pt", content)
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)


def damaged_weights(content: bytes, rng: np.random.Generator) -> bytes:
    """Of an archive mostly an entry, with its sum made anew; otherwise it is refused before it is looked at."""
    if not content.startswith(b"PK") or rng.integers(4) == 0:
        return damaged(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(out := io.BytesIO(), "w") as after:
        entries = before.infolist()
        pickle = next(i for i, entry in enumerate(entries) if entry.filename.endswith("data.pkl"))
        chosen = pickle if rng.integers(4) else rng.integers(len(entries))
        for i, entry in enumerate(entries):
            inside = before.read(entry)
            after.writestr(entry.filename, damaged(inside, rng) if i == chosen and inside else inside)
    return out.getvalue()


def load_all(path: Path) -> object:
    model = torch.nn.Linear(2, 2)
    return load_checkpoint(path, {"encoder": model}, {"encoder": torch.optim.Adam(model.parameters())})


def load_weights(path: Path) -> None:
    load_state(torch.nn.Linear(2, 2), read_torch_file(path), str(path), "Use another.")


def settings_inside(path: Path) -> object:
    return _stored_settings(read_checkpoint(path), path)


# Landmarks, images, videos


def landmarks(folder: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 100, (68, 2)).round(1)
    np.save(folder / "a.npy", points)
    np.save(folder / "b.npy", np.zeros((478, 3), np.float32) + 50)
    (folder / "a.json").write_text(json.dumps({"landmarks": points[:20].tolist()}))
    (folder / "b.json").write_text(json.dumps(points.tolist()))
    (folder / "a.csv").write_text("x,y\n" + "\n".join(f"{x},{y}" for x, y in points))


def changed_mixed(content: bytes, rng: np.random.Generator) -> bytes:
    """Text by its words mostly, others by bytes."""
    return odd_text(content, rng) if b"\0" not in content and rng.integers(4) else damaged(content, rng)


def images(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    exif = Image.Exif()
    exif.update({274: 6, 305: "a program"})
    picture, with_alpha = Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, pixels[..., :1]]))
    picture.save(folder / "a.jpg", exif=exif, quality=90)
    picture.save(folder / "b.jpg", progressive=True)
    picture.save(folder / "a.png", exif=exif)
    with_alpha.save(folder / "b.png")
    picture.convert("P").save(folder / "c.png", transparency=3)
    for end in ("webp", "bmp", "tiff", "gif"):
        picture.save(folder / f"a.{end}")
    Image.fromarray(pixels.astype(np.uint16)[..., 0] * 256).save(folder / "d.png")


def videos(folder: Path) -> None:
    frames = [np.full((32, 48, 3), 40 * i, np.uint8) for i in range(3)]
    write_clip(folder / "a.mp4", frames, turn=90)
    write_clip(folder / "b.mkv", frames, sound=None)
    write_clip(folder / "c.avi", frames, sound="mp3")


def play(path: Path) -> None:
    with open_video(path) as clip:
        for _ in clip:
            pass


def play_session(path: Path) -> None:
    for _ in eyediap_files.read_video(path, 1):
        pass


# Raw data sets


def raw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "focal.json").write_text(json.dumps({"iPhone 6": 1.2, "iPad Air": 1.0}))
    np.save(folder / "model.npy", GENERIC.points)
    np.save(folder / "all.model.npy", rng.uniform(-60, 60, (68, 3)))
    numbers = " ".join(f"{value:.3f}" for value in rng.uniform(-100, 100, 26))
    (folder / "p00.line").write_text(f"day01/0005.jpg {numbers} left")
    (folder / "subject.csv").write_text(
        "\n".join(",".join(["frame0000", "cam00.JPG", *[f"{v:.2f}" for v in rng.uniform(0, 900, 147)]]) for _ in "ab")
    )
    store = cv2.FileStorage(str(folder / "cam.xml"), cv2.FILE_STORAGE_WRITE)
    store.write("image_Width", 640)
    store.write("image_Height", 480)
    store.write("Camera_Matrix", np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]]))
    store.write("Distortion_Coefficients", np.zeros((5, 1)))
    store.release()
    (folder / "eyes.txt").write_text("\n".join(" ".join(map(str, row)) for row in rng.uniform(-60, 60, (50, 3))))
    (folder / "c.calibration").write_text(
        "[resolution]\n640;480;\n[intrinsics]\n600;0;320;\n0;600;240;\n0;0;1;\n[R]\n1;0;0;\n0;1;0;\n0;0;1;\n[T]\n0;0;1;\n"
    )
    (folder / "head.table").write_text("Frame;x\n" + "\n".join(f"{i};" + ";".join("1234567") for i in range(3)))
    (folder / "gaze.states").write_text("0\tOK\n1\tBLINK\n")
    (folder / "name").write_text("0001_2m_-15P_10V_-5H.jpg")
    for name, content in {
        "Camera": {"cameraMatrix": np.eye(3), "distCoeffs": np.zeros(5)},
        "screenSize": {name: 300.0 for name in ("width_mm", "width_pixel", "height_mm", "height_pixel")},
        "monitorPose": {"rvects": np.zeros(3), "tvecs": np.ones(3)},
    }.items():
        scipy.io.savemat(folder / f"{name}.mat", content, do_compression=name == "monitorPose")
    for name, entries in RECORDING.items():
        (folder / f"{name}.recording").write_text(json.dumps(entries))


RECORDING: dict[str, object] = {
    "frames": ["00000.jpg"],
    "info": {"Dataset": "train", "DeviceName": "iPhone 6"},
    "appleFace": {name: [1] for name in ("X", "Y", "W", "H", "IsValid")},
    **{name: {"IsValid": [1]} for name in ("appleLeftEye", "appleRightEye", "faceGrid")},
    "dotInfo": {"XCam": [0.5], "YCam": [2], "Time": [0]},
    "screen": {"Orientation": [1]},
}


def read_recording(path: Path) -> None:
    folder = path.parent / "00002"
    folder.mkdir(exist_ok=True)
    for name, entries in RECORDING.items():
        content = path.read_bytes() if name == path.stem else json.dumps(entries).encode()
        (folder / f"{name}.json").write_bytes(content)
    gazecapture.read_split(path.parent, ["00002"])
    gazecapture._read_recording(folder)


def each_line(parse: Callable[[str], object]) -> Reader:
    """A reader of text whose lines raise ValueError."""

    def read(path: Path) -> None:
        for line in path.read_text(errors="backslashreplace").splitlines() or [""]:
            try:
                parse(line)
            except ValueError:
                pass

    return read


def read_subject(path: Path) -> None:
    for _, cells in eth_xgaze._read_lines(path):
        try:
            eth_xgaze.parse_row(cells)
        except ValueError:
            pass


def read_camera(path: Path) -> None:
    try:
        eth_xgaze.read_camera(path)
    except ValueError:
        pass


def read_calibrations(path: Path) -> Iterator[object]:
    others = {"Camera", "screenSize", "monitorPose"} - {path.stem}
    for name in others:
        (path.parent / f"{name}.mat").write_bytes((path.parent.parent / "whole" / f"{name}.mat").read_bytes())
    return mpiifacegaze.read_calibration(path.parent)  # type: ignore[return-value]


HDF5_READERS = {
    "GazeDataset": look, "verify": verify, "convert": convert_beside, "RedirectedDataset": look_at_redirected,
    "list_persons": list_persons,
}  # fmt: skip
KINDS = {
    "configurations": Kind(
        0.2, configurations, {"": {"load_config": lambda path: load_config([str(path)])}}, changed_mixed
    ),
    "HDF5": Kind(0.2, data_sets, {"": HDF5_READERS}),
    "weights": Kind(
        0.15,
        weights,
        {"": {"load_state": load_weights, "load_checkpoint": load_all, "its settings": settings_inside}},
        damaged_weights,
    ),
    "splits": Kind(
        0.1,
        splits,
        {"": {"read": read_person_split, "load": lambda path: load_person_split(path, "train")}},
        changed_mixed,
    ),
    "landmarks": Kind(0.1, landmarks, {"": {"read_landmarks": read_landmarks}}, changed_mixed, (BadLandmarks,)),
    "images": Kind(
        0.1,
        images,
        {
            "": {
                "read_image": lambda path: read_image(path, path.name),
                "open_photo": open_photo,
                "read_exif": lambda path: read_exif(path, 274, 37386),
            }
        },
    ),  # fmt: skip
    "videos": Kind(
        0.03, videos, {"": {"open_video": play, "read_video": play_session}}, foreseen=(eyediap_files.DamagedSession,)
    ),  # fmt: skip
    "raw data": Kind(
        0.12,
        raw,
        {
            "focal.json": {"focal lengths": gazecapture.read_focal_lengths},
            "model.npy": {"face model": load_face_model},
            ".line": {"MPIIFaceGaze's lines": each_line(mpiifacegaze.parse_row)},
            "name": {"Columbia's names": each_line(columbia.parse_name)},
            ".csv": {"ETH-XGaze's lines": read_subject},
            ".xml": {"ETH-XGaze's cameras": read_camera},
            "eyes.txt": {"ETH-XGaze's eyes": eth_xgaze.read_eyes},
            ".calibration": {"EYEDIAP's cameras": eyediap_files.read_calibration},
            ".table": {"EYEDIAP's tables": lambda path: eyediap_files.read_table(path, 7, slice(0, 3))},
            ".states": {"EYEDIAP's states": eyediap_files.read_states},
            ".mat": {"MPIIFaceGaze's cameras": read_calibrations},
            ".recording": {"GazeCapture's recordings": read_recording},
        },
        changed_mixed,
        (DamagedPerson, eyediap_files.DamagedSession),
    ),
}
