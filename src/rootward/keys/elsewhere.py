"""A private key that lives elsewhere, as one of `cryptography`'s types: its public key is here, and `sign` asks.

One place for what every device, service and signer process needs: a backend gives the public key and a function, and
gets what `Key` wants. Whatever would need the private part itself is a NotImplementedError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys.key import PrivateKey

# The message, then what `cryptography`'s `sign` takes for the type: (padding, hash) for RSA, (ECDSA(hash),) for curves,
# nothing for the rest. The answer is in the form of that `sign` (ECDSA's as DER, RFC 3279 2.2.3), or NotSigned or
# SignatureUnknown is raised.
Ask = Callable[..., bytes]


def elsewhere(public: PublicKey, ask: Ask) -> PrivateKey:
    """The private key of `public`, whose every signature is `ask`'s."""
    return _TYPES[public.algorithm](public, ask)


class _Elsewhere:
    def __init__(self, public: PublicKey, ask: Ask) -> None:
        self._public = public
        self._ask = ask

    def sign(self, data: Any, *how: Any) -> bytes:
        return self._ask(bytes(data), *how)

    def public_key(self) -> Any:
        return self._public.key

    @property
    def key_size(self) -> int:
        key: Any = self._public.key
        size: int = key.key_size
        return size

    @property
    def curve(self) -> Any:
        key: Any = self._public.key
        return key.curve

    def _refuse(self, *_args: Any, **_more: Any) -> NoReturn:
        raise NotImplementedError("this key's private part is elsewhere")

    private_bytes = private_bytes_raw = private_numbers = decrypt = exchange = sign_mu = _refuse
    __copy__ = __deepcopy__ = _refuse


class _Rsa(_Elsewhere, rsa.RSAPrivateKey):
    pass


class _Ec(_Elsewhere, ec.EllipticCurvePrivateKey):
    pass


class _Ed25519(_Elsewhere, ed25519.Ed25519PrivateKey):
    pass


class _MlDsa44(_Elsewhere, mldsa.MLDSA44PrivateKey):
    pass


class _MlDsa65(_Elsewhere, mldsa.MLDSA65PrivateKey):
    pass


class _MlDsa87(_Elsewhere, mldsa.MLDSA87PrivateKey):
    pass


_TYPES: dict[KeyAlgorithm, Callable[[PublicKey, Ask], PrivateKey]] = {
    KeyAlgorithm.RSA_2048: _Rsa,
    KeyAlgorithm.RSA_3072: _Rsa,
    KeyAlgorithm.RSA_4096: _Rsa,
    KeyAlgorithm.P256: _Ec,
    KeyAlgorithm.P384: _Ec,
    KeyAlgorithm.P521: _Ec,
    KeyAlgorithm.ED25519: _Ed25519,
    KeyAlgorithm.ML_DSA_44: _MlDsa44,
    KeyAlgorithm.ML_DSA_65: _MlDsa65,
    KeyAlgorithm.ML_DSA_87: _MlDsa87,
}
