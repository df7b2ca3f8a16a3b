"""A quorum: m of n custodians who together, and only together, have the key that opens something.

What is split is a wrapping key, 32 random bytes made here, never the thing itself. It is a `Kek` like any other, so it
seals an offline root's key files (`open_file`, `reseal`) or the PIN of the root's token (`seal_pin`). In a ceremony:

    made = make_quorum("root", {"Ada": "her passphrase", …}, 3)  Quorum: kek, set, files by custodian's name
    paths = write_shares(folder, made)                            each custodian takes one of these files
    kek = open_quorum([open_share(file, passphrase), …])          the same wrapping key, from m or more shares
    found = check_shares([(file, passphrase), …], opens=[…])      the yearly check: each share alone, then the quorum
    seal_pin(pin, kek, name="root"), unseal_pin(sealed, kek, name="root")

and for a change of custodians, in this order, each step durable before the next:

    old, made = change_custodians(old_shares, {…}, 3)             the old wrapping key, and the new quorum
    write_shares(folder, made)
    change_keys(keys_folder, old=old, new=made.kek)               where the key is in files
    change_pin(path, name="root", old=old, new=made.kek, set_pin=…, works=…)   where its PIN is sealed in a file, which
                                                                  `read_pin` opens, also after a change that was cut off

A change of custodians makes a new wrapping key with new shares for the same root key, and takes the old wrapped copies
away. It cannot take away copies that somebody made before: a copy of an old key file opens, for ever, with m shares of
the old set. `OLD_COPIES` says so to those who take part. For a token the change also sets a new PIN, so an old sealed
PIN opens nothing any more.

Every refusal is Problem RW-SHARE with the custodian's name, or RW-KEK where it is about what is sealed.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rootward.core.problems import Problem
from rootward.core.shares import BYTES, Share, check_custodians, combine, faults, random_bytes, split
from rootward.keys import disk, envelope, sealing
from rootward.keys.backend import check_label
from rootward.keys.file import key_files, reseal
from rootward.keys.keepsake import OLD, shred
from rootward.keys.kek import Argon2, Kek, kek_from_bytes
from rootward.keys.sealing import Sealer
from rootward.keys.share_file import seal, unseal

OLD_COPIES: Final = (
    "A copy of an old key file still opens with enough shares of the old set. Have the old custodians destroy their "
    "old shares, on paper and in files, and destroy every copy of the old key files and backups. Where enough old "
    "shares and an old copy may be in one hand, the root key itself must be replaced."
)
_NEXT = ".next"  # behind the name of a sealed PIN that the token may have already
_OLDER: Final = "use the shares of the custodians before it. Nothing was changed."
_NEWER: Final = "use the shares of the custodians whom it made. Nothing was changed."


@dataclass(frozen=True)
class Quorum:
    """`kek` is the wrapping key, `set` the id of its shares, `files` each custodian's sealed share by name."""

    label: str
    set: str
    kek: Kek
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Checked:
    """What a check of shares found: the custodians whose shares are sound by themselves, and what is wrong, as
    sentences. `opened` says that these shares gave the wrapping key, and that it is the one that opens what it should.
    """

    set: str
    sound: tuple[str, ...]
    findings: tuple[str, ...]
    opened: bool


def make_quorum(label: str, custodians: Mapping[str, str], threshold: int, *, cost: Argon2 | None = None) -> Quorum:
    """A new wrapping key, and its shares for `custodians` (name to passphrase), any `threshold` of whom have it.

    `label` (1 to 64 of a-z, 0-9 and dash) says what it opens. The share files are opened again, and the wrapping key
    made from them in two ways, before this returns: nothing is sealed under a key that cannot come back. Problems:
    RW-FIELD the label; RW-SHARE the names, the threshold, a short passphrase, or one that two custodians chose.
    """
    check_label(label)
    check_custodians(list(custodians), threshold)
    if len(set(custodians.values())) != len(custodians):
        raise Problem("RW-SHARE", "Two custodians have the same passphrase. Each chooses one alone.")
    secret = os.urandom(BYTES)
    shares = split(secret, list(custodians), threshold, label=label, random=os.urandom(random_bytes(threshold)))
    files = {share.custodian: seal(share, custodians[share.custodian], cost=cost) for share in shares}
    kek = _kek(secret)
    again = [unseal(file, custodians[name]) for name, file in files.items()]
    for some in (again[:threshold], again[-threshold:]):
        if open_quorum(some).id != kek.id:
            raise Problem("RW-SHARE", "The shares do not give the wrapping key back. Nothing was sealed with it.")
    return Quorum(label, shares[0].set, kek, files)


def open_share(data: bytes, passphrase: str) -> Share:
    """One custodian's share from its file, checked by itself."""
    share = unseal(data, passphrase)
    for sentence in faults(share):
        raise Problem("RW-SHARE", sentence)
    return share


def open_quorum(shares: Sequence[Share]) -> Kek:
    """The wrapping key, from at least m shares. A wrong, foreign or doubled share is named before it is made."""
    return _kek(combine(shares))


def check_shares(held: Sequence[tuple[bytes, str]], *, opens: Sequence[bytes] = ()) -> Checked:
    """Open each share (file, passphrase) alone, then the quorum if enough are sound; no private key is used.

    A finding about one share begins with its place in `held`, for a file that is too damaged to say whose it is.
    `opens` are key files or sealed PINs that the wrapping key should open: only their first lines are looked at.
    """
    shares: list[Share] = []
    findings: list[str] = []
    for at, (data, passphrase) in enumerate(held, start=1):
        try:
            shares.append(open_share(data, passphrase))
        except Problem as problem:
            findings += [f"Share {at}: {reason.detail}" for reason in problem.reasons]
    names = tuple(share.custodian for share in shares)
    try:
        kek = open_quorum(shares)
    except Problem as problem:
        findings += [reason.detail for reason in problem.reasons]
        return Checked(shares[0].set if shares else "", names, tuple(findings), opened=False)
    closed = [data for data in opens if not _opens(data, kek)]
    findings += [f"The quorum {shares[0].set} is not the one that {_what(data)} was sealed for." for data in closed]
    return Checked(shares[0].set, names, tuple(findings), opened=not closed)


def change_custodians(
    old: Sequence[Share], custodians: Mapping[str, str], threshold: int, *, cost: Argon2 | None = None
) -> tuple[Kek, Quorum]:
    """The old wrapping key, from the old shares, and a new quorum for what it opens. Nothing is sealed anew yet."""
    kek = open_quorum(old)
    return kek, make_quorum(old[0].label, custodians, threshold, cost=cost)


def write_shares(folder: Path, made: Quorum) -> list[Path]:
    """Write each share file, mode 0600, durably, under a name that nothing has: LABEL-SET-INDEX.share, in the order of
    the custodians. Problem RW-SHARE where one cannot be written.
    """
    paths = []
    for index, file in enumerate(made.files.values(), start=1):
        path = folder / f"{made.label}-{made.set[:8]}-{index}.share"
        try:
            disk.write_new(path, file, mode=0o600)
        except OSError as error:
            raise Problem("RW-SHARE", f"{disk.quoted(path)} cannot be written: {error.strerror}.") from error
        paths.append(path)
    return paths


def seal_pin(pin: bytes, kek: Kek, *, name: str) -> bytes:
    """What may lie beside the token: the PIN of `name`, opened by the quorum alone."""
    return Sealer(kek).seal(pin, purpose=_purpose(name))


def unseal_pin(sealed: bytes, kek: Kek, *, name: str) -> bytes:
    """The PIN. Problem RW-KEK: another quorum's, another token's, or changed since."""
    return Sealer(kek).unseal(sealed, purpose=_purpose(name))


def change_keys(folder: Path, *, old: Kek, new: Kek) -> list[str]:
    """Seal every key file in `folder` with `new` and overwrite the old copies; the names of those that were changed.

    A run that was cut off is finished by the same call. `OLD_COPIES` says what this cannot do.
    """
    for path in key_files(folder):
        held = path.with_name(f"{OLD}{path.name}")
        if not held.exists():
            os.link(path, held)  # what `reseal` puts aside, so that it can be overwritten
    try:
        return reseal(folder, old=old, new=new)
    finally:
        for held in sorted(folder.glob(f"{OLD}*.key")):
            if held.stat().st_nlink == 1:
                shred(held)
            else:
                held.unlink()  # the key file itself by another name: it was not sealed anew, now or at all
        if folder.exists():
            disk.flush_folder(folder)


def finish_change(folder: Path, kek: Kek) -> None:
    """Destroy what a change of keys left that was cut off: copies that `kek` does not open, of key files that it does.

    For whoever has the quorum's key in hand anyway: until then enough of the old shares open such a copy.
    """
    for path in key_files(folder):
        held = path.with_name(f"{OLD}{path.name}")
        if not held.exists() or not envelope.opens(path.read_bytes(), kek=kek):
            continue
        if held.stat().st_nlink == 1:
            shred(held)
        else:
            held.unlink()  # the key file itself by another name
        disk.flush_folder(folder)


def change_pin(
    path: Path,
    *,
    name: str,
    old: Kek,
    new: Kek,
    set_pin: Callable[[bytes, bytes], None],
    works: Callable[[bytes], bool],
    pin: bytes | None = None,
) -> None:
    """Give the token a new PIN (24 random letters and digits if none is given) and seal it with `new` at `path`.

    `set_pin(old PIN, new PIN)` is C_SetPIN, `works(PIN)` says that the token takes it. The new sealed PIN is durable
    beside the old one, as `NAME.next`, before the token is asked; whatever `set_pin` raises leaves both. The next call
    finds out which one the token has, and destroys the other only then: it goes on with the old shares if the token has
    the old PIN, with the new ones if it has the new one. Problem RW-KEK names those that are needed.
    """
    following = path.with_name(path.name + _NEXT)
    if following.exists():
        _settle(path, following, name=name, kek=old, works=works)
    current = unseal_pin(_read_sealed(path), old, name=name)
    fresh = pin or base64.b32encode(os.urandom(15)).lower()
    try:
        disk.write_new(following, seal_pin(fresh, new, name=name), mode=0o600)
    except OSError as error:
        raise Problem("RW-KEK", f"{disk.quoted(following)} cannot be written: {error.strerror}.") from error
    set_pin(current, fresh)
    _take_over(path, following)


def read_pin(path: Path, kek: Kek, *, name: str) -> bytes:
    """The PIN sealed at `path`; of a change that was cut off, the one of the two that `kek` opens. Problem RW-KEK."""
    following = path.with_name(path.name + _NEXT)
    if following.exists():
        sealed = _read_sealed(following)
        if sealing.opens(sealed, kek=kek):
            return unseal_pin(sealed, kek, name=name)
    return unseal_pin(_read_sealed(path), kek, name=name)


def _settle(path: Path, following: Path, *, name: str, kek: Kek, works: Callable[[bytes], bool]) -> None:
    """End a change that was cut off, with the shares of either set. Only a PIN that the token took is taken for its."""
    sealed = _read_sealed(following)
    if sealing.opens(sealed, kek=kek):
        if not works(unseal_pin(sealed, kek, name=name)):
            raise Problem("RW-KEK", f"A change of the PIN of {name} was cut off before the token took it: {_OLDER}")
        _take_over(path, following)
    elif works(unseal_pin(_read_sealed(path), kek, name=name)):
        shred(following)
    else:
        raise Problem("RW-KEK", f"A change of the PIN of {name} was cut off after the token took it: {_NEWER}")


def _take_over(path: Path, following: Path) -> None:
    if path.exists():
        shred(path)
    following.rename(path)
    disk.flush_folder(path.parent)


def _read_sealed(path: Path) -> bytes:
    try:
        return disk.read(path, code="RW-KEK", limit=4096)
    except FileNotFoundError as error:
        raise Problem("RW-KEK", f"There is no sealed PIN at {disk.quoted(path)}.") from error


def _purpose(name: str) -> str:
    check_label(name)
    return f"pin:{name}"


def _kek(secret: bytes) -> Kek:
    return kek_from_bytes(secret.hex().encode(), "The quorum")


def _opens(data: bytes, kek: Kek) -> bool:
    return sealing.opens(data, kek=kek) if sealing.is_sealed(data) else envelope.opens(data, kek=kek)


def _what(data: bytes) -> str:
    return "the sealed PIN" if sealing.is_sealed(data) else f"the key file of {envelope.read_header(data).label}"
