"""`sign_tbs` and keys that live elsewhere: a subclass of `cryptography`'s type is all that a device needs to be."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from rootward import keys
from rootward.core.signature import verifies

TBS = b"to be signed"


class Remote(ec.EllipticCurvePrivateKey):
    """As a backend for a device would write it: only the public key is here."""

    def __init__(self, answer=None):
        self.inner = ec.generate_private_key(ec.SECP256R1())
        self.answer = answer
        self.asked = []

    def public_key(self):
        return self.inner.public_key()

    def sign(self, data, signature_algorithm):
        self.asked.append((data, signature_algorithm.algorithm.name))
        if self.answer is not None:
            raise self.answer
        return self.inner.sign(data, signature_algorithm)

    curve = key_size = property(lambda self: self.inner.curve)

    def _none(self, *_args):
        raise NotImplementedError

    exchange = private_bytes = private_numbers = __copy__ = __deepcopy__ = _none


def test_a_remote_key_signs_and_is_slow():
    device = Remote()
    key = keys.Key(device, label="issuing", remote=True)
    assert verifies(key.public, keys.sign_tbs(key, TBS), TBS)
    assert device.asked == [(TBS, hashes.SHA256.name)]
    assert key.slow
    assert not keys.Key(Remote(), label="issuing").slow


@pytest.mark.parametrize("answer", [keys.NotSigned("no"), keys.SignatureUnknown("lost"), OSError("cable")], ids=repr)
def test_what_the_device_says_goes_through_unchanged(answer):
    with pytest.raises(type(answer)) as caught:
        keys.sign_tbs(keys.Key(Remote(answer), label="issuing"), TBS)
    assert caught.value is answer


def test_a_message_over_the_limit_never_reaches_the_device():
    device = Remote()
    key = keys.Key(device, label="issuing", max_message=len(TBS))
    with pytest.raises(keys.NotSigned, match="13 bytes"):
        keys.sign_tbs(key, TBS + b"!")
    assert device.asked == []
    assert verifies(key.public, keys.sign_tbs(key, TBS), TBS)


def test_certainly_not_and_perhaps_are_never_taken_for_each_other():
    assert not issubclass(keys.NotSigned, keys.SignatureUnknown)
    assert not issubclass(keys.SignatureUnknown, keys.NotSigned)
