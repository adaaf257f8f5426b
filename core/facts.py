"""Made by what, and may I go on? Whatever takes long notes how it came about; here two such notes are compared."""

from collections.abc import Mapping, Sequence

from core.command import UserError
from core.tracking import say


def differences(before: Mapping[str, object], now: Mapping[str, object], *, only_known: bool = False) -> list[str]:
    """Names of the facts that are not what they were, in the order of `now`; what one of both lacks differs, too.

    only_known: pass over what one of both lacks, as what an earlier revision noted lacks later settings.
    """
    lacking = object()
    names = [name for name in now if before.get(name, lacking) != now[name] and not (only_known and name not in before)]
    return names if only_known else names + [name for name in before if name not in now]


def say_differences(names: Sequence[str], consequence: str) -> None:
    """A sentence if a training goes on with, or was finished with, other settings than those given now."""
    if names:
        say(f"It was trained with other values of {', '.join(names)}; {consequence}.")


def refuse_differences(names: Sequence[str], where: str, what: str, remedy: str) -> None:
    """Raises UserError if there are any: '<where>: <what> with other values of <names>. <remedy>'."""
    if names:
        raise UserError(f"{where}: {what} with other values of {', '.join(names)}. {remedy}")
