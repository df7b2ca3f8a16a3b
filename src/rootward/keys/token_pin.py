"""A PKCS#11 token's user PIN, changed and tried (C_SetPIN, C_Login), for a change of custodians (`quorum.py`)."""

from __future__ import annotations

from typing import Any

from rootward.core.problems import Problem, shown


def set_token_pin(module: str, token: str, old: bytes, new: bytes) -> None:
    """Change the user PIN of the token with that label, in the PKCS#11 library at the path `module`.

    Problem RW-KEK: it refused, and has the old PIN still. Any other exception: it may have either.
    """
    import pkcs11.exceptions as refused

    found = _token(module, token)
    try:
        with found.open(rw=True, user_pin=old.decode()) as session:
            session.set_pin(old.decode(), new.decode())
    except (refused.PinIncorrect, refused.PinLocked, refused.PinExpired) as error:
        raise Problem("RW-KEK", f"The token {shown(token)} refuses its old PIN ({type(error).__name__}).") from error
    except (refused.PinInvalid, refused.PinLenRange, refused.PinTooWeak) as error:
        raise Problem("RW-KEK", f"The token {shown(token)} refuses the new PIN ({type(error).__name__}).") from error


def token_pin_works(module: str, token: str, pin: bytes) -> bool:
    """Whether it is the token's user PIN. A wrong one counts as a try: tokens lock themselves after some."""
    import pkcs11.exceptions as refused

    found = _token(module, token)
    try:
        with found.open(user_pin=pin.decode()):
            return True
    except (refused.PinIncorrect, refused.PinLenRange):
        return False


def _token(module: str, label: str) -> Any:
    """The token; Problem RW-CONFIG where the library does not load, RW-KEY-UNAVAILABLE where it has no such token."""
    try:
        import pkcs11.exceptions

        from rootward.keys import cryptoki
    except ImportError as error:
        raise Problem(
            "RW-CONFIG", "PKCS#11 needs the package python-pkcs11: pip install 'rootward[pkcs11]'."
        ) from error
    try:
        with cryptoki.module(module).calls() as library:  # the process's one start of it, the key store's too
            return library.get_token(token_label=label)
    except pkcs11.exceptions.NoSuchToken as error:
        raise Problem("RW-KEY-UNAVAILABLE", f"There is no token {shown(label)}.") from error
    except (OSError, cryptoki.Away, pkcs11.exceptions.PKCS11Error) as error:
        raise Problem("RW-CONFIG", f"{shown(module, 400)} cannot be loaded: {shown(str(error))}.") from error
