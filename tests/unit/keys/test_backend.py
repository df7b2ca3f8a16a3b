"""What is asked of a backend before an authority is made in it."""

import pytest

from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys.backend import CRL_ROOM, check_fits


class Limited:
    """A service that hashes Ed25519 messages itself and takes few bytes of them."""

    name = "limited"
    algorithms = frozenset({KeyAlgorithm.P256, KeyAlgorithm.ED25519})

    pss = False

    def __init__(self, most):
        self.most = most

    def max_message_of(self, algorithm):
        return self.most if algorithm is KeyAlgorithm.ED25519 else None


@pytest.mark.parametrize("most", [4096, CRL_ROOM - 1])
def test_a_key_that_cannot_take_a_crl_is_refused_with_the_reason(most):
    with pytest.raises(Problem, match=f"limited signs {most} bytes at most with an ed25519 key.*Choose") as caught:
        check_fits(Limited(most), KeyAlgorithm.ED25519)
    assert caught.value.code == "RW-KEY-TYPE"
    check_fits(Limited(most), KeyAlgorithm.P256)


def test_a_key_with_room_for_a_crl_is_taken():
    check_fits(Limited(CRL_ROOM), KeyAlgorithm.ED25519)


def test_a_backend_without_pss_refuses_an_authority_that_signs_so():
    some = Limited(None)
    some.algorithms = frozenset({KeyAlgorithm.RSA_3072})
    check_fits(some, KeyAlgorithm.RSA_3072)
    with pytest.raises(Problem, match="not with PSS") as caught:
        check_fits(some, KeyAlgorithm.RSA_3072, "pss")
    assert caught.value.code == "RW-KEY-TYPE"


def test_an_algorithm_that_is_not_there_is_refused():
    with pytest.raises(Problem, match="no p384 keys") as caught:
        check_fits(Limited(None), KeyAlgorithm.P384)
    assert caught.value.code == "RW-KEY-TYPE"
