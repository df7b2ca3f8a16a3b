"""Canaries: secrets in the forms in which they could be written down, and where to look for them: files, the memory of
a process, and what the kernel was told when programs were started.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

SHORTEST = 8  # octets of a needle: less could be there by chance
_PIECE = 4 << 20  # octets of memory that are looked at together
_EMPTY = bytes(4096)


def forms(secret: bytes) -> set[bytes]:
    """What of the secret stands in a text or file that has it: as it is, either end first, hexadecimal, decimal, and
    base64 wherever in a longer text it begins.
    """
    number = int.from_bytes(secret, "big")
    found = {secret, secret[::-1], str(number).encode()}
    for text in (secret.hex(), secret.hex(":"), secret.hex(" ")):
        found |= {text.encode(), text.upper().encode()}
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret)
        inside = text[-(-before * 4 // 3) : (before + len(secret)) * 4 // 3]  # what neighbours do not change
        found |= {inside, inside.translate(bytes.maketrans(b"+/", b"-_"))}
    if secret.isascii():
        found |= {quote(secret).encode(), json.dumps(secret.decode()).strip('"').encode()}
    return {form for form in found if len(form) >= SHORTEST}


def private_octets(private: Any) -> Iterator[bytes]:
    """What makes a private key private; its PKCS#8 and SEC 1 have these octets in them, and its PEM those."""
    if isinstance(private, ec.EllipticCurvePrivateKey):
        yield private.private_numbers().private_value.to_bytes((private.curve.key_size + 7) // 8, "big")
    elif isinstance(private, rsa.RSAPrivateKey):
        numbers = private.private_numbers()
        for part in (numbers.d, numbers.p, numbers.q):
            yield part.to_bytes((part.bit_length() + 7) // 8, "big")
    else:
        assert isinstance(private, ed25519.Ed25519PrivateKey)
        yield private.private_bytes_raw()


class Needles(dict[str, set[bytes]]):
    """The forms of each secret, by a name that says which."""

    def add(self, name: str, *secrets: bytes | str) -> None:
        """A secret of these parts."""
        for secret in secrets:
            data = secret.encode() if isinstance(secret, str) else secret
            assert len(data) >= SHORTEST, f"{name} is too short to be looked for"
            self.setdefault(name, set()).update(forms(data))

    def within(self, data: bytes) -> set[str]:
        """The names of the secrets that it has, also where lines are broken, as in PEM and in JSON."""
        texts = [data]
        if b"\n" in data or b"\\n" in data:
            texts.append(data.replace(b"\\n", b"").translate(None, b"\r\n"))
        return {name for name, known in self.items() for text in texts if any(form in text for form in known)}


def leaks(
    needles: Needles, artefacts: Mapping[str, bytes], places: Mapping[str, Iterable[str]] = {}
) -> set[tuple[str, str]]:
    """(secret, artefact) wherever one is but in its places. Each of the places must have it: the search can find."""
    found = {(name, where) for where, data in artefacts.items() for name in needles.within(data)}
    allowed = {(name, where) for name, known in places.items() for where in known}
    assert allowed <= found, f"not found where it is: {allowed - found}"
    return found - allowed


def files(folder: Path, *, prefix: str = "") -> dict[str, bytes]:
    """Every file below the folder, by its path in there; hidden and temporary ones too. Without the pages that are
    empty: the store has 64 MiB of them in reserve.
    """
    return {
        f"{prefix}{path.relative_to(folder)}": path.read_bytes().replace(_EMPTY, b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def in_memory(pid: int, needles: Needles) -> set[str]:
    """The names of the secrets that stand in any readable page of the process. For root, or its own parent's user."""
    found: set[str] = set()
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:  # vvar and vsyscall are the kernel's
                continue
            at, end = (int(part, 16) for part in span.split("-"))
            memory.seek(at)
            found |= _in_pieces(memory, end - at, needles)
    return found


def in_image(path: Path, needles: Needles) -> set[str]:
    """The same of a large file."""
    with path.open("rb", 0) as file:
        return _in_pieces(file, path.stat().st_size, needles)


def _in_pieces(file: BinaryIO, size: int, needles: Needles) -> set[str]:
    longest = max(len(form) for known in needles.values() for form in known)
    found, rest = set[str](), b""
    while size > 0:
        try:
            piece = file.read(min(_PIECE, size))
        except OSError:  # a page without a frame: of a device, or a guard
            break
        if not piece:
            break
        data = rest + piece.replace(_EMPTY, b"")
        found |= {name for name, known in needles.items() if name not in found and any(form in data for form in known)}
        rest, size = data[-longest:], size - len(piece)
    return found


def traced(log: Path) -> tuple[str, ...]:
    """Before a command: every program that it and its children start is noted in `log`, with all arguments and the
    whole environment. The command's process stays our child.
    """
    return (
        *("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-v", "-xx", "-s", "1000000", "-A"),
        *("-e", "trace=execve", "-e", "signal=none", "-o", str(log)),
    )


def started(log: Path) -> bytes:
    """What `traced` has noted, in the clear."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), log.read_bytes())


def core_limit(pid: int) -> list[str]:
    """The soft and the hard limit of a core file."""
    line = next(one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in one)
    return line.split()[4:6]
