"""Of what a setting is made: its types, and what is known of it besides type, default and meaning."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Threads = Annotated[int, Field(ge=0, le=1024)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$", title="auto, cpu, cuda or cuda:N")]
AsTuple = BeforeValidator(lambda value: tuple(value) if type(value) is list else value)
Backbone = Literal["vgg16", "resnet50", "compact", "compact-residual"]
RedirectorName = Literal["st-ed", "redirtrans", "redirtrans-gan", "st-ed-flow"]
Decides = Literal["weights", "report", "nothing"]
# train_st_ed.py, train_facenet.py, and the augmentation experiment that train_facenet.py runs with augmentation_labels
Command = Literal["train", "estimator", "experiment"]


@dataclass(frozen=True)
class Key:
    """What is known of a setting.

    group: its heading in --help and on the configuration page.
    of: the redirectors that it means something to.
    decides: 'weights' of a network; the 'report', that is a number that is measured or an image that is made; or
        'nothing' of these: where, how fast, how often, how much of it.
    commands: those to whose result it means something. The experiment sets some of the others itself.
    """

    group: str
    of: frozenset[str]
    decides: Decides
    commands: frozenset[str]


def setting(
    default: Any,
    text: str,
    *,
    group: str,
    decides: Decides,
    of: set[RedirectorName] | None = None,
    commands: set[Command] | None = None,
    **limits: Any,
) -> Any:
    """A setting with all that is known of it; of, commands: None for all.  limits: as of pydantic's Field."""
    everywhere = frozenset(of or get_args(RedirectorName)), frozenset(commands or get_args(Command))
    known: Any = {"known": Key(group, everywhere[0], decides, everywhere[1])}
    return Field(default, description=text, json_schema_extra=known, **limits)


def known_of(info: FieldInfo) -> Key:
    """What `setting` was told."""
    extra: Any = info.json_schema_extra
    return extra["known"]
