"""Every message to a user that the code has: it says where, what was found, and what was expected or what to do."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from core.command import UserError

ROOT = Path(__file__).resolve().parent.parent
FILLED_IN = "…"
PARTS = ("where", "found", "expected", "remedy")
# A sentence, or what follows a colon, semicolon or comma, that begins so, tells what to do.
VERBS = (
    "Use Set Name Choose Make Remove Move Re-run Run Give Get Lower Raise Correct Change Check Copy Convert Download "
    "Update Install Pass Leave Let Train Finish Write Unpack Add Rename Call Put Save Try Take Wait Have"
)
TO_DO = re.compile(rf"(?:^|[.;:,(…] |\b(?:or|and|so) )(?:{VERBS.replace(' ', '|')})\b", re.IGNORECASE)


class Message(NamedTuple):
    """Where it is raised, and its parts, with … for what is filled in."""

    place: str
    parts: dict[str, str]

    @property
    def text(self) -> str:
        """As `UserError` puts it together, about."""
        found, expected = (self.parts.get(name, "") for name in ("found", "expected"))
        text = self.parts["where"] + f": {found}" * bool(found) + f", expected {expected}" * bool(expected)
        return f"{text}. {self.parts['remedy']}" if self.parts.get("remedy") else text


def written(node: ast.expr) -> str:
    """A text of the code, with … for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(written, node.values))
    if isinstance(node, ast.BinOp):
        return written(node.left) + written(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else FILLED_IN


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@cache
def messages() -> list[Message]:
    """All of the code, found once, by the first test that asks: looking takes seconds."""
    return list(_found())


def _found() -> Iterator[Message]:
    paths = [path for path in ROOT.glob("**/*.py") if path.relative_to(ROOT).parts[0] not in ("tests", ".venv")]
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(paths)}
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    classes = [node for _, node in nodes if isinstance(node, ast.ClassDef)]
    kinds = {"UserError"}
    for _ in range(3):  # as deep as classes are derived
        kinds |= {node.name for node in classes if kinds & set(map(name_of, node.bases))}
    for path, node in nodes:
        if isinstance(node, ast.Call) and name_of(node.func) in kinds:
            given = dict(zip(PARTS, map(written, node.args), strict=False))
            given |= {keyword.arg: written(keyword.value) for keyword in node.keywords if keyword.arg}
            yield Message(f"{path}:{node.lineno}", given)


def test_there_are_many() -> None:
    assert len(messages()) > 200
    assert {"core/hdf5.py", "dataset.py", "preprocess/rechunk.py"} <= {m.place.split(":")[0] for m in messages()}


def tells_what_to_do(message: Message) -> bool:
    text = message.text
    passed_on = not re.sub(r"[\s…:.\-()]", "", text) or re.search(r"[.…] …$|\n\s*…$|: …\.?$", text)
    return bool(message.parts.get("remedy") or "xpected " in text or TO_DO.search(text) or passed_on)


def test_each_says_what_was_expected_or_what_to_do() -> None:
    assert [f"{m.place}: {m.text}" for m in messages() if not tells_what_to_do(m)] == []


def test_each_says_where_before_what() -> None:
    """A file, setting or flag, or a whole sentence that names it."""
    said = messages()
    wrong = [m for m in said if not m.parts["where"].strip() or ("expected" in m.parts and "found" not in m.parts)]
    wrong += [m for m in said if "found" in m.parts and m.parts["where"].endswith((".", ":"))]
    assert [f"{m.place}: {m.parts}" for m in wrong] == []


def test_what_is_written_is_short_and_plain() -> None:
    for message in messages():
        assert len(message.text) <= 480, message
        assert message.text.isprintable() or "\n" in message.text, message


@pytest.mark.parametrize("part", PARTS)
def test_none_is_longer_than_a_screen_whatever_is_filled_in(part: str) -> None:
    for odd in ("x" * 10**6, "x\n" * 10**5, "\x1b[2J" * 10**5):
        text = str(UserError(**({"where": "x.h5", "remedy": "Do something."} | {part: odd})))
        assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) < 6000 and "\x1b" not in text
        assert part == "remedy" or text.endswith("Do something.")
