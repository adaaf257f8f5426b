"""Videos as files: frames one after another with their times, sound as it stands in the file, H.264 out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.files import require_writable
from core.redirection.video_frames import Format, Frame, upright, upright_yuv, with_change

WRITTEN = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODER, OPTIONS = "libx264", {"crf": "18", "preset": "veryfast"}
COLOURS = ("color_range", "colorspace", "color_primaries", "color_trc")
MOST_DAMAGED = 1000  # packets, after which the rest of a file is given up
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"

Item = Any  # a Frame, or a packet of sound: PyAV has no types


def check_video_output(path: Path, source: Path | None = None) -> None:
    """Raises UserError if a video cannot be written there."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(f"-o: {path} is none of the formats that are written of videos: {', '.join(WRITTEN)}.")
    if path.is_dir():
        raise UserError(f"-o: {path} is a folder; name a file.")
    if source is not None and path.exists() and path.samefile(source):
        raise UserError(f"-o: {path} is the video itself; name another file.")
    require_writable(path.parent, "-o")
    try:
        av.codec.Codec(ENCODER, "w")
    except ValueError as error:
        raise UserError(
            f"{ENCODER}, which writes H.264, is missing in this build of PyAV. Install its wheel: pip install av."
        ) from error


@contextmanager
def open_video(path: Path) -> "Iterator[Clip]":
    """Raises UserError where it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such video.", remedy="Correct the path.")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as a video ({_reason(error)}).", remedy="Copy it again, or convert it to H.264."
        ) from error
    with container:
        yield Clip(path, container)


class Clip:
    """A video file that is open for reading, once; of a webcam see `webcam.Camera`, which has the same.

    format: of its frames.  sound: its streams of sound.  metadata: of the file.  damaged: packets that could not be
    decoded, so far.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.damaged = path, 0
        self.metadata: Mapping[str, str] = dict(container.metadata)
        self.sound = [stream for stream in container.streams.audio if stream.codec_context is not None]
        self._container, self._stream = container, _pictures(container, path)
        self._start = max(Fraction(container.start_time or 0, av.time_base), Fraction(0))
        self._turn, self._last = np.eye(2), -1
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.format = Format((0, 0), self._stream.time_base or 1 / rate, rate, self._count(rate))
        self._items = self._read()
        self._before: list[Item] = []
        self._look_at_first()

    def __iter__(self) -> Iterator[Item]:
        """Frames, and packets of sound, in the file's order."""
        yield from self._before
        self._before.clear()
        yield from self._items

    def _count(self, rate: Fraction) -> int:
        seconds = Fraction(self._container.duration or 0, av.time_base)
        return self._stream.frames or round(seconds * rate)

    def _look_at_first(self) -> None:
        for item in self._items:
            self._before.append(item)
            if isinstance(item, Frame):
                return
        raise UserError(
            f"{self.path}: cannot be read as a video (no frame of it can be decoded).",
            remedy="Copy it again, or convert it to H.264.",
        )

    def _read(self) -> Iterator[Item]:
        packets = self._container.demux(self._stream, *self.sound)
        while self.damaged < MOST_DAMAGED:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                decoded = packet.decode() if packet.stream is self._stream else []
            except av.FFmpegError:
                self.damaged += 1
                continue
            yield from map(self._frame, decoded)
            if packet.stream is not self._stream and packet.dts is not None:
                yield self._from_start(packet)

    def _from_start(self, packet: Any) -> Any:
        """A packet, its times counted from the start of the file, which may have another clock."""
        start = round(self._start / packet.time_base)
        packet.dts, packet.pts = packet.dts - start, packet.pts if packet.pts is None else packet.pts - start
        return packet

    def _frame(self, decoded: Any) -> Frame:
        if self._last < 0:
            self._learn(decoded)
        height, width = upright(np.empty(self.format.shape, bool), self._turn.T).shape
        plain = decoded.reformat(width, height, "yuv420p")
        yuv, pixels = plain.to_ndarray(), plain.to_ndarray(format="rgb24")
        if (self._turn != np.eye(2)).any():
            yuv, pixels = upright_yuv(yuv, self._turn), np.ascontiguousarray(upright(pixels, self._turn))
        base = self.format.time_base
        if decoded.pts is None:  # as of raw streams
            pts = self._last + max(round(1 / self.format.rate / base), 1) if self._last >= 0 else 0
        else:
            pts = decoded.pts - round(self._start / base)
        self._last = max(pts, self._last + 1)
        return Frame(pixels, yuv, self._last, float(self._last * base))

    def _learn(self, first: Any) -> None:
        """What the first frame says of all."""
        matrix = first.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            self._turn = np.sign(np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2]).astype(float)
        plain = first.reformat(format="yuv420p")
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        height, width = upright(np.empty((plain.height // 2 * 2, plain.width // 2 * 2), bool), self._turn).shape
        self.format = replace(
            self.format,
            shape=(height, width),
            colours={name: int(getattr(plain, name)) for name in COLOURS},
            aspect=aspect if self._turn[0, 0] else 1 / aspect,
        )


def _pictures(container: Any, path: Path) -> Any:
    """The stream of a file that is to be seen."""
    stream = container.streams.best("video")
    if stream is None:
        raise UserError(f"{path}: there are no pictures in it.", remedy="Choose another file.")
    if stream.codec_context is None:
        raise UserError(f"{path}: nothing here decodes its pictures. Convert it to H.264.")
    stream.thread_type = "AUTO"
    return stream


class Writer:
    """A video file that is being written.

    path: anything; suffix: says the format.  sound: streams whose packets will be copied.
    Raises UserError where the format cannot hold the sound.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        form: Format,
        sound: Sequence[Any],
        metadata: Mapping[str, str],
    ) -> None:
        self._format, self._to_yuv = form, form.to_yuv
        kind = WRITTEN[suffix.lower()]
        options = {} if kind == "matroska" else {"movflags": "+faststart"}
        self._container: Any = av.open(str(path), "w", kind, options=options)
        self._container.metadata.update(metadata)
        self._stream = self._pictures()
        try:
            self._sound = {stream.index: self._container.add_stream_from_template(stream) for stream in sound}
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            self._container.close()
            if not sound:
                raise UserError(
                    f"-o: this video cannot be written as {suffix} ({_reason(error)}).", remedy="Name a file .mkv."
                ) from error
            codecs = ", ".join(stream.codec_context.name for stream in sound)
            raise UserError(f"-o: {suffix} cannot hold this sound ({codecs}) as it is; name a file .mkv.") from error

    def _pictures(self) -> Any:
        form = self._format
        stream = self._container.add_stream(ENCODER, rate=form.rate, options=OPTIONS)
        stream.height, stream.width = form.shape
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = form.time_base
        stream.codec_context.sample_aspect_ratio = form.aspect
        for name, value in form.colours.items():
            setattr(stream.codec_context, name, value)
        return stream

    def write(self, frame: Frame, pixels: ndarray | None = None) -> None:
        """A frame, or what became of its pixels."""
        yuv = frame.yuv if pixels is None else with_change(frame, pixels, self._to_yuv)
        picture = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        picture.pts, picture.time_base = frame.pts, self._format.time_base
        for name, value in self._format.colours.items():
            setattr(picture, name, value)
        self._container.mux(self._stream.encode(picture))

    def copy(self, packet: Any) -> None:
        """A packet of sound, as it is."""
        packet.stream = self._sound[packet.stream.index]
        self._container.mux_one(packet)

    def finish(self) -> None:
        """What the encoder still holds is written."""
        self._container.mux(self._stream.encode())

    def close(self) -> None:
        """Without `finish` before, the file is not whole."""
        self._container.close()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
