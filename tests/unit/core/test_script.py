"""Scripts of ceremonies: read strictly, everything that does not fit together named at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.core import plain_yaml
from rootward.core.problems import Problem
from rootward.core.script import LARGEST, Script, inputs_of, read_script, write_script
from tests.support.ceremonies import asked, person_key, public_hex, two_tier


@cache
def good() -> str:
    return write_script(two_tier(asked())).decode()


def tree() -> dict[str, Any]:
    found = plain_yaml.read(good())
    assert isinstance(found, dict)
    return found


def pem(name: str) -> str:
    """The participant's key as PEM."""
    public = person_key(name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read(value: dict[str, Any]) -> Script:
    return read_script(plain_yaml.write(value).encode())


def test_a_script_reads_as_it_was_written() -> None:
    script = read_script(good().encode())
    assert write_script(script).decode() == good()
    assert [one.file for one in inputs_of(script)] == ["issuing.request"]


def test_comments_change_the_file_and_not_the_script() -> None:
    assert read_script(("# read by two\n" + good()).encode()) == read_script(good().encode())


def test_what_every_certificate_says_is_written_out() -> None:
    assert all("lifetime" in step["spec"] for step in tree()["steps"] if "spec" in step)


def copied(script: dict[str, Any], to: str) -> None:
    script["steps"].append({"do": "back-up-key", "key": "root", "to": to})


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, tuple[Change, str]] = {
    "an unknown field": (lambda s: s.update(colour="red"), "unknown field"),
    "an unknown field of a step": (lambda s: s["steps"][0].update(colour="red"), "unknown field"),
    "an unknown step": (lambda s: s["steps"][0].update(do="dance"), "dance"),
    "another format": (lambda s: s.update(format="x"), "format"),
    "another version": (lambda s: s.update(version="2"), "version"),
    "no steps": (lambda s: s.update(steps=[]), "no step"),
    "a date that is none": (lambda s: s.update(at="2026-02-30T00:00:00Z"), "not a time"),
    "a date without zone": (lambda s: s.update(at="2026-02-20T00:00:00"), "regex"),
    "a serial that is negative": (lambda s: s["steps"][1].update(serial="f" * 40), "regex"),
    "a short serial": (lambda s: s["steps"][1].update(serial="40"), "regex"),
    "a serial twice": (lambda s: s["steps"][2].update(serial=s["steps"][1]["serial"]), "earlier step"),
    "a file with a path": (lambda s: s["steps"][2]["request"].update(file="../x"), "regex"),
    "a key that is nowhere": (lambda s: s["steps"][0].update(key="other"), "no key other"),
    "a key that is not made": (lambda s: s["steps"].pop(0), "not made"),
    "a key made twice": (lambda s: s["steps"].insert(1, s["steps"][0]), "is there by then"),
    "an authority too early": (lambda s: s["steps"].insert(0, s["steps"].pop()), "no authority root by then"),
    "one root twice": (lambda s: s["steps"].insert(2, s["steps"][1] | {"serial": "4" * 40}), "authority root by then"),
    "a CRL number that falls": (lambda s: s["steps"].append(s["steps"][3] | {"number": "1"}), "not above"),
    "a CRL that ends first": (lambda s: s["steps"][3].update(next_update="2020-01-01T00:00:00Z"), "not after"),
    "a request without its key": (lambda s: s["steps"][2].pop("public_key"), "SHA-256 of its public key"),
    "no master": (lambda s: s["participants"].pop(0), "one master"),
    "a lab without a master": (lambda s: (s.update(lab="true"), s["participants"].pop(0)), "one master"),
    "two masters": (lambda s: s["participants"][1].update(role="master"), "one master"),
    "no witness": (lambda s: s.update(participants=s["participants"][:1]), "witness"),
    "one name twice": (lambda s: s["participants"][1].update(name="ada"), "same name"),
    "one key twice": (lambda s: s["participants"][1].update(key=public_hex("Ada")), "same key"),
    "one key": (lambda s: [one.pop("key", None) for one in s["participants"][1:]], "two sign"),
    "a custodian from elsewhere": (
        lambda s: s["keys"]["root"].update(custodians=["Ada", "Eve"], threshold="2"),
        "Eve",
    ),
    "a threshold of one": (lambda s: s["keys"]["root"].update(custodians=["Ada", "Bob"], threshold="1"), "two or more"),
    "a PIN in a script": (
        lambda s: s["keys"].update(root={"in": "pkcs11", "uri": "pkcs11:token=x?pin-value=1234"}),
        "PIN never",
    ),
    "a token's folder without custodians": (
        lambda s: s["keys"].update(root={"in": "pkcs11", "uri": "pkcs11:token=x", "folder": "pin"}),
        "a folder is for nothing else",
    ),
    "a token's custodians without a folder": (
        lambda s: s["keys"].update(
            root={"in": "pkcs11", "uri": "pkcs11:token=x", "custodians": ["Ada", "Bob"], "threshold": "2"}
        ),
        "needs a folder",
    ),
    "a copy in the new key's folder": (lambda s: copied(s, "a/../keys/"), "in the folder of a new key"),
    "a copy below the new key's folder": (lambda s: copied(s, "keys/copy"), "in the folder of a new key"),
    "a copy where the new key is made": (lambda s: copied(s, "./keys.making/copy"), "in the folder of a new key"),
    "an address with a slash": (lambda s: s.update(pki_url="http://a/"), "regex"),
    "a key used after its end": (
        lambda s: s["steps"].insert(2, {"do": "destroy-key", "key": "root", "public": "0" * 64, "why": "x"}),
        "destroyed by then",
    ),
    "names that look the same": (lambda s: s["participants"][1].update(name="\uff21da"), "look the same"),
    "a name in another form": (lambda s: s["participants"][1].update(name="Zoe\u0308"), "its usual form"),
    "a name that no share can have": (lambda s: s["participants"][1].update(name="\u00e9" * 60), "64 bytes"),
    "one key in two spellings": (lambda s: s["participants"][1].update(key=pem("Ada")), "same key"),
    "a key that is none": (lambda s: s["participants"][1].update(key="zz"), "no public key"),
    "two keys in one folder": (lambda s: s["keys"].update(more={"in": "file", "folder": "./keys"}), "one of its own"),
    "a key among the shares": (lambda s: s["keys"]["root"].update(folder="x/../shares"), "for the files of custodians"),
    "a key among new shares": (
        lambda s: s["keys"]["root"].update(folder="shares.making"),
        "for the files of custodians",
    ),
    "one file twice": (lambda s: s["steps"].insert(3, s["steps"][2] | {"serial": "4" * 40}), "make the file"),
    "a truth value that is a number": (lambda s: s.update(lab="0"), "written as false"),
    "a number that is a fraction": (lambda s: s["steps"][3].update(number="1e3"), "written as 1000"),
    "a CRL number that is too large": (lambda s: s["steps"][3].update(number=str(2**159)), "20 octets"),
    "a check of shares without any": (lambda s: s["steps"].append({"do": "check-shares", "key": "root"}), "custodians"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_does_not_fit_is_said(what: str) -> None:
    change, why = WRONG[what]
    changed = tree()
    change(changed)
    with pytest.raises(Problem) as caught:
        read(changed)
    assert why in caught.value.detail, caught.value.detail
    assert caught.value.code == "RW-CEREMONY"


@pytest.mark.parametrize("to", ["keys-copy", "elsewhere/keys", "keys.old/copy"])
def test_a_copy_beside_a_new_key_is_well(to: str) -> None:
    changed = tree()
    copied(changed, to)
    assert len(read(changed).steps) == 5


def test_all_reasons_are_said_at_once() -> None:
    changed = tree()
    changed["participants"].pop(0)
    changed["steps"].pop(0)
    with pytest.raises(Problem) as caught:
        read(changed)
    assert len(caught.value.reasons) >= 2


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a: [", b"[]", b"x"])
def test_what_is_no_script_is_refused(data: bytes) -> None:
    with pytest.raises(Problem, match=r"cannot be read|not UTF-8"):
        read_script(data)


def test_a_script_has_a_bound() -> None:
    with pytest.raises(Problem, match="RW-TOO-LARGE"):
        read_script(b"#" * (LARGEST + 1))
