"""What an evaluation leaves behind: report.json, report.md, pictures and videos."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from core.batches import evaluation_pairs
from core.evaluator import Measurements
from core.files import file_name, write_text
from core.tracking import say
from dataset import PersonImages
from models.redirector import Redirector
from utils import batch_to_device, image_grid, image_to_uint8, write_png, write_video

TILE = 128
VIDEO_SIDE = 256
COLUMNS = ("source", "target", "redirected", "all factors")
PARTS = ("warp", "mirror", "paint", "shares")  # of the redirected image; shares of these three in red, green, blue
WALK_YAWS_DEG = (-25, -12.5, 0, 12.5, 25)
MEANINGS = {
    "gaze_redirection": "asked-for against measured gaze, degrees",
    "head_redirection": "asked-for against measured head direction, degrees",
    "l1": "mean absolute pixel difference to the target, images in [-1, 1]",
    "lpips": "perceptual distance to the target",
    "l1_all": "the same with all factors taken from the target",
    "lpips_all": "the same with all factors taken from the target",
    "gaze_a": "the encoder's gaze condition against the label, degrees",
    "head_a": "the encoder's head condition against the label, degrees",
    "identity_similarity": "cosine of ArcFace's embeddings of redirected and target face",
    "head_to_gaze": "how far gaze moves when the head condition is perturbed, degrees",
    "gaze_to_head": "how far the head moves when the gaze condition is perturbed, degrees",
    "gaze_disentangle": "how far gaze moves when another factor is perturbed, degrees",
    "head_disentangle": "how far the head moves when another factor is perturbed, degrees",
    "identity_kept": "share of redirected images whose nearest other image shows the right person",
    "identity_real_target": "the same for the real target: what the measure can reach",
    "l1_person_mean": "baseline: the person's mean image instead of the redirected one",
    "l1_no_redirection": "baseline: the source image handed back",
    "gaze_pair_angle": "angle between the labels of source and target, degrees",
    "head_pair_angle": "angle between the labels of source and target, degrees",
    "gaze_no_redirection": "baseline: the source image handed back, degrees",
    "head_no_redirection": "baseline: the source image handed back, degrees",
    "gaze_label_blind": "baseline: always the mean direction, degrees",
    "head_label_blind": "baseline: always the mean direction, degrees",
    "gaze_real_target": "the estimator's own error on the real target, degrees",
    "head_real_target": "the estimator's own error on the real target, degrees",
}


def write_report(folder: Path, results: Sequence[Measurements], facts: Mapping[str, object]) -> Path:
    """Write report.json and report.md; facts (step, seed, files, ...) go into both. Returns report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        **facts,
        "ratios": {result.name: _ratios(result) for result in results},
        "datasets": {result.name: result.summary() for result in results},
    }
    for name, text in (("report.json", json.dumps(content, indent=2) + "\n"), ("report.md", _markdown(results, facts))):
        write_text(folder / name, text)
    return folder / "report.md"


def _ratios(result: Measurements) -> dict[str, float]:
    """Errors relative to the mean angle between the labels of source and target."""
    kinds = ("redirection", "no_redirection", "label_blind", "real_target")
    return {f"{a}_{kind}": result.ratio(f"{a}_{kind}", f"{a}_pair_angle") for a in ("gaze", "head") for kind in kinds}


def _markdown(results: Sequence[Measurements], facts: Mapping[str, object]) -> str:
    lines = ["# Evaluation", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += ["Mean and standard error over samples; n is the number of redirected images.", ""]
    for result in results:
        summary = result.summary()
        count = next(iter(summary.values()))["count"]
        lines += [f"## {result.name} (n = {count})", "", "| metric | mean | s.e. | what it is |", "|---|---|---|---|"]
        for name in sorted(summary, key=lambda name: _order(name)):
            row = summary[name]
            lines.append(f"| {name} | {row['mean']:.4g} | {row['standard_error']:.2g} | {MEANINGS.get(name, '')} |")
        lines += [
            "",
            "Relative to the angle between source and target labels:",
            "",
            "| | gaze | head |",
            "|---|---|---|",
        ]
        ratios = _ratios(result)
        for kind in ("redirection", "no_redirection", "label_blind", "real_target"):
            lines.append(f"| {kind} | {ratios['gaze_' + kind]:.3f} | {ratios['head_' + kind]:.3f} |")
        lines += ["", f"![{result.name}]({picture_name(result.name)})", ""]
    return "\n".join(lines)


def print_result(results: Sequence[Measurements]) -> None:
    """The figures that matter, a line a data set."""
    say("\nredirection error in degrees (relative to the angle between source and target labels)")
    for result in results:
        summary = result.summary()
        parts = []
        for name in ("gaze", "head"):
            relative, blind = (
                result.ratio(f"{name}_{kind}", f"{name}_pair_angle") for kind in ("redirection", "label_blind")
            )
            mean = summary[f"{name}_redirection"]["mean"]
            parts.append(f"{name} {mean:.2f} ({relative:.3f}, label-blind {blind:.3f})")
        means = {name: summary[name]["mean"] for name in ("l1", "l1_person_mean")}
        parts.append(f"L1 {means['l1']:.3f} (person's mean image {means['l1_person_mean']:.3f})")
        if "identity_kept" in summary:
            parts.append(f"identity kept {summary['identity_kept']['mean']:.0%}")
        say(f"  {result.name:9} {'; '.join(parts)}")


def _order(name: str) -> int:
    return list(MEANINGS).index(name) if name in MEANINGS else len(MEANINGS)


def picture_name(dataset: str) -> str:
    return dataset.replace("/", "-") + ".png"


def sample_pairs(dataset: PersonImages, num_persons: int, seed: int, within_group: bool = False) -> np.ndarray:
    """(P, 2) one fixed pair a person, for up to `num_persons` persons spread over the data set."""
    pairs = evaluation_pairs(dataset, seed=seed, within_group=within_group)
    count = min(num_persons, len(dataset.person_ids))
    chosen = np.linspace(0, len(dataset.person_ids) - 1, count).round().astype(int)
    return pairs[dataset.person_start[chosen]]


class Pictures:
    """The same few pairs of one data set, redirected again and again as the training goes on."""

    def __init__(self, dataset: PersonImages, pairs: np.ndarray, device: torch.device) -> None:
        self.persons = [dataset.person_ids[p] for p in dataset.person_of[pairs[:, 0]]]
        items = [dataset[int(a), int(b)] for a, b in pairs]
        self.batch = batch_to_device({name: torch.stack([item[name] for item in items]) for name in items[0]}, device)

    @torch.no_grad()
    def comparison(self, redirector: Redirector) -> dict[str, Tensor]:
        """Title -> (P, 3, S, S): source, target, gaze and head redirected to the target's labels, all factors; and of
        what the third is made, where the redirector makes it of parts."""
        redirector.eval()
        batch = self.batch
        a, b = redirector.encode_pair(batch)
        to_labels = redirector.decode_parts(redirector.rotate(a, {"gaze": batch["gaze_b"], "head": batch["head_b"]}))
        to_all = redirector.decode(redirector.rotate(a, b.conditions))
        images = batch["image_a"], batch["image_b"], to_labels.image, to_all
        parts = {name: to_labels.parts[name] for name in PARTS if name in to_labels.parts}
        if "shares" in parts:
            parts["shares"] = 2 * parts["shares"] - 1
        return dict(zip(COLUMNS, images, strict=True)) | parts

    @torch.no_grad()
    def walk(self, redirector: Redirector, factor: str, angles: Tensor) -> Tensor:
        """(P, T, 3, S, S): each source image with one factor moved through `angles` (T, dof)."""
        redirector.eval()
        return redirector.walk(self.batch["image_a"], factor, angles.to(self.batch["image_a"].device)).transpose(0, 1)

    def comparison_picture(self, redirector: Redirector) -> np.ndarray:
        """The comparison with a heading, (H, W, 3) uint8."""
        columns = self.comparison(redirector)
        return _headed(image_grid(_enlarged(torch.stack(list(columns.values()), dim=1))), tuple(columns))

    def walk_picture(self, redirector: Redirector, factor: str) -> np.ndarray:
        """The source and five yaws of gaze or head side by side, with a heading."""
        angles = torch.tensor([[0.0, np.deg2rad(yaw)] for yaw in WALK_YAWS_DEG], dtype=torch.float32)
        frames = torch.cat((self.batch["image_a"][:, None], self.walk(redirector, factor, angles)), dim=1)
        return _headed(image_grid(_enlarged(frames)), ("source", *(f"{factor} {yaw:+g}" for yaw in WALK_YAWS_DEG)))

    def write_samples(self, redirector: Redirector, folder: Path, walk_frames: int) -> None:
        """A folder a person (`file_name`) with a PNG a title of `comparison` and, if walk_frames, a video a factor."""
        for name, images in self.comparison(redirector).items():
            for person, image in zip(self.persons, images, strict=True):
                path = folder / file_name(person) / f"{name.replace(' ', '_')}.png"
                write_png(path, image_to_uint8(image).permute(1, 2, 0).cpu().numpy())
        steered = [factor for factor in redirector.factors if factor.dof] if walk_frames else []
        for factor in steered:
            frames = self.walk(redirector, factor.name, walk_path(factor.dof, walk_frames))
            for person, row in zip(self.persons, frames, strict=True):
                write_video(folder / file_name(person) / f"walk_{factor.name}.mp4", _video_frames(row))


def layer_weights_picture(weights: Mapping[str, Tensor]) -> np.ndarray:
    """Bars of each factor's weight of the rows of W+, the coarsest row on the left; (H, W, 3) uint8.

    weights: factor -> (rows,).
    """
    side, lines = 40, []
    for name, values in weights.items():
        line = np.full((3 * side, side * len(values), 3), 255, np.uint8)
        values = values.detach()
        largest = max(float(values.abs().max()), 1e-6)
        for i, value in enumerate(values.tolist()):
            top = 3 * side - 1 - round(abs(value) / largest * 2 * side)
            colour = (60, 90, 200) if value >= 0 else (200, 60, 60)
            cv2.rectangle(line, (i * side + 4, top), ((i + 1) * side - 4, 3 * side - 1), colour, -1)
            cv2.putText(line, f"{value:.2g}", (i * side + 2, top - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1)
        lines.append(_headed(line, [f"{name}: weight of each row"]))
    return np.concatenate(lines)


def walk_path(dof: int, frames: int) -> Tensor:
    """(T, dof) a closed walk of a factor's condition: up and down in yaw (or its one angle), then in pitch."""
    swing = 0.6 * np.sin(np.linspace(0, 2 * np.pi, max(frames // dof, 2), endpoint=False))
    path = np.zeros((dof * len(swing), dof), np.float32)
    for i in range(dof):
        path[i * len(swing) : (i + 1) * len(swing), dof - 1 - i] = swing
    return torch.from_numpy(path)


def _enlarged(images: Tensor) -> Tensor:
    """(R, C, 3, S, S) enlarged to a size that can be looked at."""
    if images.shape[-1] >= TILE:
        return images
    flat = nn.functional.interpolate(images.flatten(0, 1), size=TILE, mode="bicubic", align_corners=False)
    return flat.unflatten(0, images.shape[:2])


def _video_frames(images: Tensor) -> list[np.ndarray]:
    frames = image_to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.resize(frame, (VIDEO_SIDE, VIDEO_SIDE), interpolation=cv2.INTER_CUBIC) for frame in frames]


def _headed(picture: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    strip = np.full((20, picture.shape[1], 3), 255, np.uint8)
    for i, title in enumerate(titles):
        at = i * picture.shape[1] // len(titles) + 4, 14
        cv2.putText(strip, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((strip, picture))
