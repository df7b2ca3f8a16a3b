"""Installations by the algorithm of their authorities, made when the first test asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rootward.core.pubkey import KeyAlgorithm
from tests.lint.shapes import Shapes

Of = Callable[[KeyAlgorithm], Shapes]


@pytest.fixture(scope="session")
def of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Of]:
    """`of(algorithm)` is the installation."""
    folder = tmp_path_factory.mktemp("lint")
    made: dict[KeyAlgorithm, Shapes] = {}

    def shapes(algorithm: KeyAlgorithm) -> Shapes:
        if algorithm not in made:
            made[algorithm] = Shapes(algorithm, folder)
        return made[algorithm]

    yield shapes
    for one in made.values():
        one.close()
