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
    assert Due(END, "root", "crl").stage(END - left) == stage


def test_the_key_is_used_until_what_it_signs_would_outlive_it() -> None:
    assert signs_until(END, 5 * 365 * DAY) + 5 * 365 * DAY == END


def test_an_authority_has_a_date_for_each_thing_that_ends() -> None:
    crl = END - 300 * DAY
    found = list(dates("root", crl_until=crl, not_after=END, longest=100 * DAY))
    assert sorted(found) == [
        Due(crl, "root", "crl"),
        Due(END - 100 * DAY, "root", "key"),
        Due(END, "root", "certificate"),
    ]
    online = list(dates("issuing", crl_until=None, not_after=END, longest=DAY))
    assert {due.what for due in online} == {"certificate", "key"}
