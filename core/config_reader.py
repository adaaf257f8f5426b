"""The configuration of a command line: defaults, JSON files and flags merged into one Config.

    train_st_ed.py config/ST-ED.json mine.json --batch-size 8 --no-use-tensorboard

Later files win over earlier ones, flags over files. All problems are reported in one message.
"""

import argparse
import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from core.command import UserError
from core.config_default import KEYS, Config, show
from core.config_rules import contradictions
from core.files import read_text

_DERIVED = {"lr": "lr is derived: batch_size x base_learning_rate; set base_learning_rate."}
_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
_SHOWN, _LONGEST = 50, 200  # problems and letters of a name from which on no nearest is looked for
_LIMIT_NAMES = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}


def flag_of(key: str) -> str:
    return "--" + key.replace("_", "-")


def _kinds(info: FieldInfo) -> tuple[Any, ...]:
    """The types a key may have; a Literal, a list and an object are left whole."""
    whole = get_origin(info.annotation) in (None, Literal, tuple, dict)
    return (info.annotation,) if whole else get_args(info.annotation)


def expected_by(info: FieldInfo) -> str:
    if info.title:
        return info.title
    if get_origin(info.annotation) is Literal:
        return "one of " + ", ".join(show(choice) for choice in get_args(info.annotation))
    limits = [
        f"{words} {getattr(limit, name)}"
        for limit in info.metadata
        for name, words in _LIMIT_NAMES.items()
        if getattr(limit, name, None) is not None
    ]
    kinds = [_KIND_NAMES[kind] for kind in _kinds(info)]
    return ", or ".join([" ".join([kinds[0], " and ".join(limits)]).strip(), *kinds[1:]])


def _from_text(text: str, info: FieldInfo) -> Any:
    """A flag's text as its key's type; text that does not fit is left for the check to refuse."""
    for kind in _kinds(info):
        if kind is NoneType and text in ("none", "null"):
            return None
        if get_origin(kind) in (tuple, dict):
            try:
                return json.loads(text)
            except ValueError:
                return text
        number = type(get_args(kind)[0]) if get_origin(kind) is Literal else kind
        if number in (int, float):
            try:
                return number(text)
            except ValueError:
                pass
    return text


def _help(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog, f"{prog} [CONFIG.json ...] [--flag value ...]", description)
    parser.add_argument("config_files", nargs="*", metavar="CONFIG.json", help="later files win")
    groups = {name: parser.add_argument_group(name) for name in dict.fromkeys(known.group for known in KEYS.values())}
    for key, info in Config.model_fields.items():
        text = f"{info.description} (default {show(info.default)})".replace("%", "%%")
        style: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if bool not in _kinds(info):
            choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
            name = "JSON" if get_origin(info.annotation) in (tuple, dict) else _kinds(info)[0].__name__.upper()
            kind = "{" + ",".join(map(str, choices)) + "}" if choices else name
            style = {"metavar": kind}
        groups[KEYS[key].group].add_argument(flag_of(key), default=argparse.SUPPRESS, help=text, **style)
    return parser


@dataclass
class _Given:
    """What the files and flags say, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unusable: set[str] = field(default_factory=set)

    def take(self, key: str, value: Any, source: str) -> None:
        self.values[key], self.sources[key] = value, source

    def refuse(self, name: str, path: str = "") -> None:
        """Report a file's key, or a flag if there is no path, that does not exist; name the nearest."""
        key = name.lstrip("-").replace("-", "_")
        is_shown = len(self.problems) < _SHOWN and len(key) < _LONGEST
        near = difflib.get_close_matches(key, Config.model_fields, 1) if is_shown else []  # each takes a millisecond
        self.unusable.update(near)
        where, spell, shown = (f"{path}: ", repr, repr(name)) if path else ("", flag_of, name)
        hint = f"did you mean {spell(near[0])}?" if near else "--help lists them all."
        self.problems.append(where + (_DERIVED.get(key) or f"unknown setting {shown}; {hint}"))


def _read_file(path: str, given: _Given) -> None:
    """Take a file's settings. What cannot be read at all leaves every key of it in doubt."""
    try:
        text = read_text(Path(path), errors="strict")
        content = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path, given))
        problem = f"holds {show(content)}, expected an object of settings: {{...}}."
    except FileNotFoundError:
        content, problem = None, "no such config file; give the path of one, e.g. config/quickstart.json."
    except json.JSONDecodeError as error:
        content = None
        problem = f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}; correct it there."
    except UnicodeDecodeError as error:
        content, problem = None, f"cannot be read as a JSON file: {error}; save it as UTF-8."
    except (OSError, ValueError, RecursionError) as error:
        content, problem = None, f"cannot be read as a JSON file: {error}."
    if not isinstance(content, dict):
        given.problems.append(f"{path}: {problem}")
        given.unusable.update(Config.model_fields)
        return
    for key, value in content.items():
        if key in Config.model_fields:
            given.take(key, value, path)
        else:
            given.refuse(key, path)


def _unique(pairs: list[tuple[str, Any]], path: str, given: _Given) -> dict[str, Any]:
    content = dict(pairs)
    times = Counter(name for name, _ in pairs)
    twice = [name for name in content if times[name] > 1]
    given.problems += [f"{path}: {name!r} is there more than once; keep one." for name in twice]
    return content


def _flags() -> dict[str, tuple[str, bool | None]]:
    """Each flag's key, and the value it stands for if it is a switch."""
    flags: dict[str, tuple[str, bool | None]] = {}
    for key, info in Config.model_fields.items():
        flags[flag_of(key)] = (key, None)
        if bool in _kinds(info):
            flags[flag_of(key)], flags[flag_of("no_" + key)] = (key, True), (key, False)
    return flags


def _is_flag(argument: str) -> bool:
    return re.match(r"-[^\d.]", argument) is not None  # -3 is a value


def _read_arguments(argv: Sequence[str], given: _Given) -> tuple[list[str], list[tuple[str, Any, str]]]:
    """The config files of a command line, and (key, value, flag) of each flag."""
    # argparse writes the help, but would stop at its first problem; here all of them are collected.
    flags, fields, rest = _flags(), Config.model_fields, list(argv)
    files: list[str] = []
    taken: list[tuple[str, Any, str]] = []
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        key, switch = flags.get(name, ("", None))
        value_follows = not equals and bool(rest) and not _is_flag(rest[0])
        if not _is_flag(name):
            files.append(name + equals + text)
        elif not key:
            given.refuse(name)
            del rest[: value_follows and not rest[0].endswith(".json")]
        elif switch is None and not equals and not value_follows:
            given.problems.append(f"{name} has no value, expected {expected_by(fields[key])}; give it one.")
            given.unusable.add(key)
        elif switch is None:
            taken.append((key, _from_text(text if equals else rest.pop(0), fields[key]), name))
        elif equals or rest[:1] in (["true"], ["false"]):
            given.problems.append(f"{name} takes no value; write {flag_of(key)} or {flag_of('no_' + key)}.")
            given.unusable.add(key)
            del rest[: not equals]
        else:
            taken.append((key, switch, name))
    return files, taken


def _replace_apex(given: _Given) -> tuple[str, ...]:
    """Read use_apex as the precision it used to stand for; the warnings to give."""
    if given.values.get("use_apex") is not True:
        return ()
    where = _where("use_apex", given.sources)
    if "precision" in given.values:
        return (f"{where} has no effect: precision is given; leave use_apex out.",)
    given.take("precision", "bfloat16", given.sources["use_apex"])
    return (f"{where} is read as precision bfloat16; set precision instead.",)


def _where(key: str, sources: Mapping[str, str]) -> str:
    source = sources.get(key)
    if source is None:
        return f"{key!r} (not given)"
    return source if source.startswith("--") else f"{source}: {key!r}"


def _check(given: _Given, unused: Collection[str]) -> Config:
    """The Config of what is usable; problems of type, range and contradiction go to the others."""
    try:
        config = Config(**given.values)
    except ValidationError as error:
        wrong = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        for key in wrong:
            info = Config.model_fields[key]
            given.problems.append(
                f"{_where(key, given.sources)} is {show(given.values[key])}, expected {expected_by(info)};"
                f" correct it, or leave it out for the default {show(info.default)}."
            )
        given.unusable.update(wrong)
        config = Config(**{key: value for key, value in given.values.items() if key not in wrong})
    found = contradictions(config, given.unusable | set(unused))
    given.problems += [f"{_where(key, given.sources)} {problem}" for key, problem in found]
    return config


def load_config(
    argv: Sequence[str] | None = None,
    *,
    prog: str = "train_st_ed.py",
    description: str = "Train and evaluate ST-ED.",
    unused: Collection[str] = (),
) -> Config:
    """The defaults, changed by the JSON files and then by the flags of a command line.

    argv: its arguments, None for this process's own. `--help` prints and exits 0.
    unused: keys that mean nothing to this command, so that what they contradict does not matter.
    Raises UserError, whose text names every problem, its file or flag, and the remedy.
    """
    given = _Given()
    arguments = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(arguments):
        _help(prog, description).parse_args(["--help"])
    files, flags = _read_arguments(arguments, given)
    for path in files:
        _read_file(path, given)
    for key, value, flag in flags:
        given.take(key, value, flag)
    warnings = _replace_apex(given)
    config = _check(given, unused)
    if given.problems:
        start = [] if files else [f"No config file was given; start from one: {prog} config/quickstart.json"]
        raise UserError("\n".join(start + given.problems))
    config._sources, config._warnings = given.sources, warnings
    return config
