"""Numbers that two documents claim differently are listed; different things are not."""

from __future__ import annotations

from data_prep.consistency import contradictions


def test_the_same_sentence_with_another_number_is_found() -> None:
    """Two pages give two torques for the wheel nuts."""
    texts = {
        "wheels": "# Wheels\n\nTighten the wheel nuts to a torque of 140 Nm.",
        "tools": "Tighten the wheel nuts to a torque of 120 Nm.\n\nThe drain plug takes a torque of 25 Nm.",
    }
    found = contradictions(texts)
    assert [(first.value, second.value) for first, second in found] == [("120", "140")]
    assert {claim.document for claim in found[0]} == {"wheels", "tools"}


def test_equal_numbers_other_units_and_other_subjects_are_not() -> None:
    """Nothing is reported where the claims agree or speak of different things."""
    texts = {
        "a": "The tank of the washer holds 4 L of fluid.\nThe rear door opens to 75 degrees and weighs 30 kg.",
        "b": "The tank of the washer holds 4 L of fluid.\nThe tank of the washer weighs 2 kg of steel.",
    }
    assert contradictions(texts) == []
