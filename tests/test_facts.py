"""What two notes on how something was made differ in, and what is said of it."""

import pytest

from core.command import UserError
from core.facts import differences, refuse_differences, say_differences

BEFORE = {"seed": 0, "flip": True, "old": 1}
NOW = {"new": None, "flip": False, "seed": 0}


def test_what_one_of_both_lacks_differs() -> None:
    assert differences(BEFORE, NOW) == ["new", "flip", "old"]
    assert differences(BEFORE, BEFORE) == []


def test_a_note_of_an_earlier_revision_knows_no_later_settings() -> None:
    assert differences(BEFORE, NOW, only_known=True) == ["flip"]


def test_other_values_are_refused_by_name_and_remedy() -> None:
    with pytest.raises(UserError, match=r"^pair.pt: was trained with other values of new, flip\. Remove it\.$"):
        refuse_differences(["new", "flip"], "pair.pt", "was trained", "Remove it.")
    refuse_differences([], "pair.pt", "was trained", "Remove it.")


def test_nothing_is_said_where_nothing_differs(capsys: pytest.CaptureFixture[str]) -> None:
    say_differences([], "the training goes on")
    assert capsys.readouterr().out == ""
    say_differences(["seed"], "the training goes on")
    assert capsys.readouterr().out == "It was trained with other values of seed; the training goes on.\n"
