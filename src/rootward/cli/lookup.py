"""What a command line calls by a name of its own: certificates by id or serial, principals by what they are called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rootward.cli.failure import Failure
from rootward.cli.options import Session

if TYPE_CHECKING:
    from rootward.cli.client import Answer

_CERTIFICATES = "/api/v1/certificates"
_SERIAL = re.compile(r"(?:0[xX])?[0-9A-Fa-f]+")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def certificate(session: Session, which: str) -> Answer:
    """The certificate of this id or serial. Failure where there is none, or where it is neither."""
    with naming(which):
        return session.client.get(path(which))


def path(which: str) -> str:
    """Where a certificate is: an id as it is, or a serial in the contract's form, lower-case hex without colons and
    with an even number of digits.
    """
    from rootward.cli.client import segment

    bare = which.strip().replace(":", "")
    if _SERIAL.fullmatch(bare) and (":" in which or bare.upper() == bare or bare[:2] == "0x"):
        bare = bare.lower().removeprefix("0x")
        return f"{_CERTIFICATES}/{bare if len(bare) % 2 == 0 else f'0{bare}'}"
    return f"{_CERTIFICATES}/{segment(which.strip())}"


@contextmanager
def naming(which: str) -> Iterator[None]:
    """Says of a certificate that is not there what was looked for."""
    try:
        yield
    except Failure as failure:
        if failure.status != 404:
            raise
        text = which.strip()
        if _ID.fullmatch(text) or _SERIAL.fullmatch(text.replace(":", "")):
            failure.what = f"There is no certificate {text}, or you may not see it."
            failure.next = "rootward cert list shows those that you may see."
        else:
            failure.what = f"{text} is neither an id nor a serial."
            query = f" --q {shlex.quote(text)}" if len(text) > 2 else ""  # the server wants three characters
            failure.next = f"rootward cert list{query}"
        failure.why = ()
        raise


def principals(session: Session) -> dict[str, str]:
    """The names of all principals by their ids; none where the caller may not see who there is."""
    try:
        items = session.client.pages("/api/v1/principals", {}, limit=None)["items"]
    except Failure as failure:
        if failure.status == 403:
            return {}
        raise
    return {str(item.get("id")): str(item.get("name")) for item in items}
