"""Due dates and how near they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rootward.core.calendar import Due, dates, signs_until

END = datetime(2030, 1, 1, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("left", "stage"),
    [
        (90 * DAY + SECOND, None),
        (90 * DAY, 90),
        (30 * DAY + SECOND, 90),
        (30 * DAY, 30),
        (7 * DAY + SECOND, 30),
        (7 * DAY, 7),
        (DAY + SECOND, 7),
        (DAY, 1),
        (SECOND, 1),
        (timedelta(), 0),
        (-400 * DAY, 0),
    ],
    ids=str,
)
def test_the_countdown(left: timedelta, stage: int | None) -> None:
    assert Due(END, "root", "crl", END - 365 * DAY).stage(END - left) == stage


def test_the_key_is_used_until_what_it_signs_would_outlive_it() -> None:
    assert signs_until(END, 5 * 365 * DAY) + 5 * 365 * DAY == END


def test_an_authority_has_a_date_for_each_thing_that_ends() -> None:
    signed, crl, begin = END - 400 * DAY, END - 300 * DAY, END - 3650 * DAY
    found = list(dates("root", crl=(signed, crl), validity=(begin, END), longest=100 * DAY))
    assert sorted(found) == [
        Due(crl, "root", "crl", signed),
        Due(END - 100 * DAY, "root", "key", begin),
        Due(END, "root", "certificate", begin),
    ]
    online = list(dates("issuing", crl=None, validity=(begin, END), longest=DAY))
    assert {due.what for due in online} == {"certificate", "key"}


def test_nothing_is_near_its_end_in_the_first_half_of_its_life() -> None:
    due = Due(END, "root", "crl", END - 20 * DAY)
    assert [due.stage(END - left) for left in (20 * DAY, 8 * DAY, 7 * DAY, DAY, 0 * DAY)] == [None, None, 7, 1, 0]
