"""The script of a ceremony: one reviewed YAML file that is the whole of it (I-37).

Every decision stands in it: who takes part, where keys live, what is signed with which serial, number and date. Its
hash, SHA-256 of the file's bytes, is what all participants confirm. The reader is strict (`plain_yaml`), fields that it
does not know are refused, and what does not fit together is said at once with every reason (Problem RW-CEREMONY). What
a step may sign is not decided here: that is `hierarchy` and `crl`, as for everything that is signed.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from rootward.core import plain_yaml
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.paperwork import Hex, Sha256
from rootward.core.participants import Participant, Person, participant_faults
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import RsaSignature
from rootward.core.times import parse_time

LARGEST = 256 * 1024
MOST_CUSTODIANS = 16
SHARES = "shares"  # the folder beside the script that new shares are written into
MAKING = ".making"  # behind the name of a folder that is made by a ceremony, until that is done

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")]
Moment = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
SerialHex = Annotated[str, msgspec.Meta(pattern=r"^[4-7][0-9a-f]{39}\Z")]  # 20 octets, positive (I-04)


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every part of a script is."""


class FileKey(_Struct, frozen=True, tag_field="in", tag="file"):
    """A key in a folder on a medium. One passphrase opens it, or `threshold` of the `custodians`, who hold shares."""

    folder: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    custodians: tuple[Person, ...] = ()
    threshold: int = 0


class TokenKey(_Struct, frozen=True, tag_field="in", tag="pkcs11"):
    """A key in a token (RFC 7512 `uri`, without a PIN). Its PIN is typed in, or sealed in `folder` for `custodians`."""

    uri: Annotated[str, msgspec.Meta(pattern=r"^pkcs11:", max_length=1000)]
    folder: Annotated[str, msgspec.Meta(max_length=400)] = ""
    custodians: tuple[Person, ...] = ()
    threshold: int = 0


KeyPlace = FileKey | TokenKey


class Present(_Struct, frozen=True):
    """An authority that there is already: its certificate (PEM, and the CAs above it after it), the entry of `keys`
    that is its key, and how that signs if it is RSA.
    """

    certificate: str
    key: Word
    rsa_signature: RsaSignature = "pkcs1"


class Input(_Struct, frozen=True):
    """A file that lies beside the script, known by its SHA-256."""

    file: FileName
    sha256: Sha256


class Entry(_Struct, frozen=True):
    """A line of a CRL: the serial as DER content octets in hex, and an RFC 5280 name as reason."""

    serial: Hex
    revoked_at: Moment
    reason: str


class MakeKey(_Struct, frozen=True, tag_field="do", tag="make-key"):
    """Make a key where `keys` says, and look that it opens."""

    key: Word
    algorithm: KeyAlgorithm


class CertifyRoot(_Struct, frozen=True, tag_field="do", tag="certify-root"):
    """Certify a root by itself."""

    key: Word
    serial: SerialHex
    spec: AuthoritySpec


class Certify(_Struct, frozen=True, tag_field="do", tag="certify"):
    """Certify an authority by the key of `by`: from a `request` file or CSR, whose public key has the SHA-256
    `public_key` (SubjectPublicKeyInfo), or with the key `made` in an earlier step. What the certificate says is `spec`
    alone.
    """

    by: Word
    serial: SerialHex
    spec: AuthoritySpec
    request: Input | None = None
    public_key: Sha256 | None = None
    made: Word | None = None


class CrossSign(_Struct, frozen=True, tag_field="do", tag="cross-sign"):
    """Certify the name and key of another CA's `certificate` (PEM) by the key of `by`. `request` is the file that asked
    for it, where one did.
    """

    by: Word
    certificate: str
    serial: SerialHex
    spec: AuthoritySpec
    request: Input | None = None


class SignCrl(_Struct, frozen=True, tag_field="do", tag="sign-crl"):
    """Sign the CRL of `by`, with the entries that stand here or, with `request`, those of a request file."""

    by: Word
    number: Annotated[int, msgspec.Meta(ge=1)]
    this_update: Moment
    next_update: Moment
    entries: tuple[Entry, ...] = ()
    request: Input | None = None


class ChangeCustodians(_Struct, frozen=True, tag_field="do", tag="change-custodians"):
    """New shares for `custodians`, any `threshold` of whom open the key from then on; the old copies are destroyed."""

    key: Word
    custodians: tuple[Person, ...]
    threshold: int


class CheckShares(_Struct, frozen=True, tag_field="do", tag="check-shares"):
    """Open every custodian's share and put them together, without using the key."""

    key: Word


class BackUpKey(_Struct, frozen=True, tag_field="do", tag="back-up-key"):
    """Copy the sealed key to the folder `to` on another medium, and look that the copy is whole."""

    key: Word
    to: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]


class DestroyKey(_Struct, frozen=True, tag_field="do", tag="destroy-key"):
    """Destroy the private key with the public key `public` (SHA-256). `why` goes into the transcript."""

    key: Word
    public: Sha256
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


Step = MakeKey | CertifyRoot | Certify | CrossSign | SignCrl | ChangeCustodians | CheckShares | BackUpKey | DestroyKey


class Script(_Struct, frozen=True):
    """The whole file. `at` is notBefore of every certificate; `pki_url` is where what is signed points to."""

    format: Literal["rootward-ceremony"]
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    lab: bool
    at: Moment
    pki_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+[^/]\Z", max_length=400)]
    participants: tuple[Participant, ...]
    keys: dict[Word, KeyPlace]
    steps: tuple[Step, ...]
    authorities: dict[Word, Present] = {}


def sha256_of(data: bytes) -> str:
    """Of a file, lower-case hex: what a script, a request or a result is known by."""
    return hashlib.sha256(data).hexdigest()


def read_script(data: bytes) -> Script:
    """The script that the file is; Problem RW-TOO-LARGE, RW-CEREMONY with every reason that `script_faults` finds."""
    if len(data) > LARGEST:
        raise Problem("RW-TOO-LARGE", f"A script has at most {LARGEST} bytes; many entries belong into a request file.")
    try:
        text = plain_yaml.read(data.decode())
        script = msgspec.convert(text, Script, strict=False)
    except UnicodeDecodeError:
        raise Problem("RW-CEREMONY", "The script is not UTF-8.") from None
    except plain_yaml.NotPlain as error:
        raise Problem("RW-CEREMONY", f"The script cannot be read. {error}") from None
    except msgspec.ValidationError as error:
        raise Problem("RW-CEREMONY", f"The script cannot be read: {shown(str(error), 300)[1:-1]}.") from None
    faults = [
        Reason("RW-CEREMONY", f"{shown(found)} is written as {meant}, in that form alone.", field)
        for field, found, meant in plain_yaml.respelled(text, msgspec.to_builtins(script))
    ]
    faults += [Reason("RW-CEREMONY", text, field) for field, text in script_faults(script)]
    if faults:
        raise Problem.of(faults)
    return script


def write_script(script: Script) -> bytes:
    """A file that reads as this script. People may add comments; the hash is of the file as they leave it.

    Of a specification, what certificates always say is written out, also where it is the default.
    """
    whole = msgspec.to_builtins(script)
    for step, written in zip(script.steps, whole["steps"], strict=True):
        if isinstance(step, CertifyRoot | Certify | CrossSign):
            spec = {name: value for name, value in written["spec"].items() if name not in _ALWAYS}
            written["spec"] = spec | {name: getattr(step.spec, name) for name in _ALWAYS}
    return plain_yaml.write(msgspec.to_builtins(whole)).encode()


_ALWAYS = ("key_algorithm", "lifetime", "path_length")


def script_faults(script: Script) -> Iterator[tuple[str, str]]:
    """What does not fit together, as (field, sentence)."""
    yield from participant_faults(script.participants, lab=script.lab)
    for name, place in script.keys.items():
        yield from _custody(script, f"keys.{name}", place.custodians, place.threshold)
        if isinstance(place, TokenKey) and "pin-value" in place.uri:
            yield f"keys.{name}", "A PIN never stands in a script; take it out of the URI."
        if isinstance(place, TokenKey) and bool(place.custodians) != bool(place.folder):
            yield f"keys.{name}", "A PIN that is sealed for custodians needs a folder; a folder is for nothing else."
    for name, present in script.authorities.items():
        if present.key not in script.keys:
            yield f"authorities.{name}", f"There is no key {present.key}."
    yield from _times(script)
    yield from _places(script)
    if not script.steps:
        yield "steps", "There is no step."
    yield from _steps(script)


def _custody(script: Script, field: str, custodians: tuple[str, ...], threshold: int) -> Iterator[tuple[str, str]]:
    if not custodians:
        if threshold:
            yield field, "A threshold without custodians says nothing."
        return
    if not 2 <= threshold <= len(custodians) <= MOST_CUSTODIANS:
        yield field, f"Of at most {MOST_CUSTODIANS} custodians two or more are needed, and no more than there are."
    if len(set(custodians)) != len(custodians):
        yield field, "A custodian is named twice."
    for name in sorted(set(custodians) - {person.name for person in script.participants}):
        yield field, f"The custodian {shown(name)} is no participant."


def _places(script: Script) -> Iterator[tuple[str, str]]:
    """Each key has a folder of its own, and what comes out of each step a name of its own."""
    folders = [posixpath.normpath(place.folder) for place in script.keys.values() if place.folder]
    for folder in sorted({one for one in folders if folders.count(one) > 1}):
        yield "keys", f"Two keys are in the folder {shown(folder)}: each has one of its own."
    if {SHARES, SHARES + MAKING} & set(folders):
        yield "keys", f"The folder {SHARES} is for the files of custodians; a key is in another one."
    made = {step.key for step in script.steps if isinstance(step, MakeKey)}
    new = [posixpath.normpath(place.folder) for name, place in script.keys.items() if name in made and place.folder]
    inside = tuple(f"{folder}{end}/" for folder in new for end in ("", MAKING))
    for at, step in enumerate(script.steps, start=1):
        if isinstance(step, BackUpKey) and f"{posixpath.normpath(step.to)}/".startswith(inside):
            yield f"steps[{at}]", f"A copy in {shown(step.to)} would be in the folder of a new key: it goes elsewhere."
    names = [certificate_name(step) for step in script.steps if isinstance(step, CertifyRoot | Certify | CrossSign)]
    for name in sorted({one for one in names if names.count(one) > 1}):
        yield "steps", f"Two steps would both make the file {shown(name)}: hold a ceremony for each."


def _times(script: Script) -> Iterator[tuple[str, str]]:
    moments = [("at", script.at)]
    for at, step in enumerate(script.steps, start=1):
        if isinstance(step, SignCrl):
            moments += [(f"steps[{at}]", step.this_update), (f"steps[{at}]", step.next_update)]
            moments += [(f"steps[{at}]", entry.revoked_at) for entry in step.entries]
            if step.this_update >= step.next_update:
                yield f"steps[{at}]", "next_update is not after this_update."
    for field, text in moments:
        try:
            parse_time(text, field=field)
        except Problem as problem:
            yield field, problem.detail


def _steps(script: Script) -> Iterator[tuple[str, str]]:
    """What each step needs must be there when its turn comes."""
    usable = {present.key for present in script.authorities.values()}
    authorities = dict.fromkeys(script.authorities, 0)
    made: set[str] = set()
    gone: set[str] = set()
    serials: set[str] = set()
    for at, step in enumerate(script.steps, start=1):
        field = f"steps[{at}]"
        name = _key_of(script, step, authorities)
        if name is not None:
            if name not in script.keys:
                yield field, f"There is no key {name}."
            elif name in gone:
                yield field, f"The key {name} is destroyed by then."
            elif isinstance(step, MakeKey) and name in made | usable:
                yield field, f"The key {name} is there by then."
            elif not isinstance(step, MakeKey | DestroyKey) and name not in made | usable:
                yield field, f"The key {name} is not made by then, and no authority has it."
        if isinstance(step, MakeKey):
            made.add(step.key)
        if isinstance(step, DestroyKey):
            gone.add(step.key)
        if isinstance(step, CertifyRoot | Certify | CrossSign):
            if step.serial in serials:
                yield field, "The serial stands in an earlier step."
            serials.add(step.serial)
        if isinstance(step, CertifyRoot) and step.key in script.keys:
            if step.key not in made:
                yield field, f"The key {step.key} is not made in this script: a root is certified with a new key."
            if step.spec.name in authorities:
                yield field, f"There is an authority {step.spec.name} by then."
            authorities[step.spec.name] = 0
        if isinstance(step, Certify):
            yield from _certify(field, step, made - gone, authorities)
        if isinstance(step, Certify | CrossSign | SignCrl) and step.by not in authorities:
            yield field, f"There is no authority {step.by} by then."
        if isinstance(step, SignCrl):
            if step.number <= authorities.get(step.by, 0):
                yield field, "The CRL number is not above that of an earlier step."
            if step.number.bit_length() >= 8 * 20:
                yield field, "A CRL number has at most 20 octets (RFC 5280 5.2.3)."
            authorities[step.by] = step.number
            if step.entries and step.request is not None:
                yield field, "The entries stand here or in a request file, not in both."
        if isinstance(step, ChangeCustodians):
            yield from _custody(script, field, step.custodians, step.threshold)
            if not step.custodians:
                yield field, "There are no custodians."
        if isinstance(step, ChangeCustodians | CheckShares):
            place = script.keys.get(step.key)
            if place is not None and not place.custodians:
                yield field, f"The key {step.key} has no custodians."


def _certify(field: str, step: Certify, made: set[str], authorities: dict[str, int]) -> Iterator[tuple[str, str]]:
    if step.made is None:
        if step.request is None or step.public_key is None:
            yield field, "A request needs its file and the SHA-256 of its public key."
        return
    if step.request is not None or step.public_key is not None:
        yield field, "The key comes from a request or from an earlier step, not from both."
    if step.made not in made:
        yield field, f"The key {step.made} is not made by then."
    if step.spec.name in authorities:
        yield field, f"There is an authority {step.spec.name} by then."
    authorities[step.spec.name] = 0


def _key_of(script: Script, step: Step, authorities: dict[str, int]) -> str | None:
    """The entry of `keys` that the step uses, None where its authority is not there."""
    if not isinstance(step, Certify | CrossSign | SignCrl):
        return step.key
    return key_of(script, step.by) if step.by in authorities else None


def key_of(script: Script, authority: str) -> str:
    """The entry of `keys` that is the key of an authority which the script has or makes."""
    if authority in script.authorities:
        return script.authorities[authority].key
    for step in script.steps:
        key = step.key if isinstance(step, CertifyRoot) else step.made if isinstance(step, Certify) else None
        if key is not None and isinstance(step, CertifyRoot | Certify) and step.spec.name == authority:
            return key
    raise Problem("RW-CEREMONY", f"The script has no authority {authority}.")


def kind_of(step: Step) -> str:
    """The step's word behind `do`."""
    return str(type(step).__struct_config__.tag)


def certificate_name(step: CertifyRoot | Certify | CrossSign) -> str:
    """The file that the step's certificate is for people."""
    return f"{step.spec.name}-by-{step.by}.pem" if isinstance(step, CrossSign) else f"{step.spec.name}.pem"


def list_name(step: SignCrl) -> str:
    """The file that the step's CRL is for people."""
    return f"{step.by}-{step.number}.crl"


def inputs_of(script: Script) -> tuple[Input, ...]:
    """The files that the script needs, each once, in the order of their steps."""
    named = [step.request for step in script.steps if isinstance(step, Certify | CrossSign | SignCrl)]
    return tuple(dict.fromkeys(one for one in named if one is not None))
