"""Opening a PKCS#11 token as a key store. The library that reaches it is an extra, and imported here alone."""

from __future__ import annotations

from rootward.core.problems import Problem, shown
from rootward.keys.backend import Backend, KeySettings
from rootward.keys.token_uri import parse_token_uri


def open_pkcs11(settings: KeySettings) -> Backend:
    """The token of `settings.uri`, with the PIN that `settings.pin` gives. Problem `RW-CONFIG` for a URI, a library or
    a module that is not as it must be; whether the token is there is not asked yet.
    """
    uri = parse_token_uri(settings.uri)
    try:
        from rootward.keys.cryptoki import Token
        from rootward.keys.token import TokenBackend
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] == "rootward":
            raise
        raise Problem(
            "RW-CONFIG",
            "A pkcs11 key store needs the library python-pkcs11, which is not installed. "
            "Run: pip install 'rootward[pkcs11]'",
        ) from error
    try:
        return TokenBackend(Token(uri, settings.pin))
    except OSError as error:
        raise Problem(
            "RW-CONFIG", f"The PKCS#11 module {shown(uri.module, 400)} cannot be loaded: {shown(str(error), 400)}."
        ) from error
