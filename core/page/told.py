"""What the page says: a line about a picture, a table of asked-for and measured angles, why something was not done."""

from core.command import is_foreseen, sentence
from core.page.sitting import Sitting
from core.redirection.edit import Degrees, Edit
from core.redirection.measure import measure
from core.redirection.photo import RedirectedPhoto

MOST_ROWS = 6
HEAD = (
    "| pitch, yaw in degrees | as the redirector sees it | asked for | measured before | measured now |\n"
    "|:--|--:|--:|--:|--:|\n"
)
EMPTY = HEAD + "| | | | | |\n"
FULL = "The memory is full. Take a smaller photograph, or end other programs; demo.py --device cpu needs no GPU."


def line(done: RedirectedPhoto, edit: Edit | None) -> str:
    """What was done to the picture, and what to know about it."""
    if edit is None:
        return "Move a dot to where the face is to look or to point, as you see it in the picture."
    told = [f"{face.name} is left as it is: {face.reason}; {face.detail}." for face in done.left_out]
    told += [f"face {one.face.number} {doubt}." for one in done.faces for doubt in one.doubts]
    return " ".join(text[:1].upper() + text[1:] for text in told) or "Redirected."


def fault(error: Exception) -> str:
    """A sentence for the visitor; '' of a fault of the program. A disk's is without the place on the server."""
    text = str(error)
    if not is_foreseen(error):
        return FULL if "Insufficient memory" in text else ""  # OpenCV's, which is an error of its own kind
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "memory" in text:
        return FULL
    if isinstance(error, OSError):
        reason = error.strerror or getattr(error.__cause__, "strerror", None)
        return f"{reason or 'A file cannot be read or written'}."
    return sentence(error)


def opened(sitting: Sitting) -> str:
    """What was found in a photograph."""
    height, width = sitting.photo.photo.pixels.shape[:2]
    count = len(sitting.photo.found)
    return f"{width} x {height} pixels, {count} face{'s' * (count > 1)} found. " + "".join(
        f"{face.name.capitalize()} stays as it is: {face.reason}. " for face in sitting.left_out
    )


def table(sitting: Sitting, done: RedirectedPhoto) -> str:
    """Markdown: pitch and yaw of each redirected face, as asked for and as the reference measures them."""
    rows = []
    for one in done.faces:
        before, after = sitting.measured(one.face.number), measure(done.pixels, one.face)
        for name in ("gaze", "head"):
            what = name if len(sitting.faces) == 1 else f"face {one.face.number}: {name}"
            asked = shown(one.after[name]) if one.after[name] != one.before[name] else "kept"
            measured = [shown((seen.angles if seen else {}).get(name)) for seen in (before, after)]
            rows.append(f"| {' | '.join([what, shown(one.before[name]), asked, *measured])} |\n")
    return HEAD + "".join(rows[:MOST_ROWS]) + ("| ... | | | | |\n" * (len(rows) > MOST_ROWS)) if rows else EMPTY


def shown(angles: Degrees | None) -> str:
    """'3, -12', or a dash for what is not known."""
    if angles is None:
        return "-"
    pitch, yaw = (round(angle) + 0 for angle in angles)
    return f"{pitch}, {yaw}"
