"""A ceremony's result holds against its script, and nothing that was changed, left out or put in does; each by its own
sentence.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.ca import ceremony
from rootward.core import der, paperwork
from rootward.core.capture import assemble
from rootward.core.minutes import Transcript, good_signature, write
from rootward.core.paperwork import Result
from rootward.core.participants import participant_key
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import Present, Script, read_script, write_script
from rootward.core.transcript import read_signatures, verify_result
from rootward.keys import Key
from rootward.keys.participant import sign_transcript
from tests.support.ceremonies import (
    AT,
    Held,
    MemoryKeys,
    asked,
    hold,
    person_key,
    signature,
    signed_by,
    two_tier,
    witnessed,
)

change = msgspec.structs.replace


def refused(result: Result, why: str, **given: object) -> list[str]:
    """The sentences of the refusal, of which one has `why`."""
    with pytest.raises(Problem) as caught:
        verify_result(result, **given)  # type: ignore[arg-type]  # of many kinds, as the caller has them
    said = [reason.detail for reason in caught.value.reasons]
    assert any(why in text for text in said), said
    return said


def retold(held: Held, **changes: object) -> Result:
    """The result with another transcript, signed anew by Ada and Bob as if it were the true one."""
    transcript = msgspec.json.decode(held.result.transcript, type=Transcript)
    return resigned(change(held.result, transcript=write(change(transcript, **changes)).decode()))


def resigned(result: Result, *names: str) -> Result:
    roles = {one.name: one.role for one in read_script(result.script.encode()).participants}
    bare = change(result, signatures=())
    for name in names or ("Ada", "Bob"):
        made = sign_transcript(person_key(name), result.transcript, name=name, role=roles[name])
        bare = ceremony.signed(bare, made)
    return bare


@pytest.mark.invariant("I-37")
def test_a_witnessed_result_holds() -> None:
    held = witnessed()
    found = verify_result(held.result, script=held.script, requests=held.files)
    assert [(one.name, one.role) for one in found.signers] == [("Ada", "master"), ("Bob", "witness")]
    assert [step.spec.name for step, _ in found.made] == ["root", "issuing"]
    assert found.sha256 == hashlib.sha256(held.result.transcript.encode()).hexdigest()
    assert verify_result(held.result).signers == found.signers  # without the request at hand too
    whole = paperwork.read(paperwork.write(held.result), Result)
    assert verify_result(whole).sha256 == found.sha256


@pytest.mark.invariant("I-37")
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.P384, KeyAlgorithm.RSA_2048, KeyAlgorithm.ML_DSA_65])
def test_a_rehearsal_signs_the_same_but_for_the_key(algorithm: KeyAlgorithm) -> None:
    request = asked()
    script = two_tier(request, algorithm=algorithm)
    files = {paperwork.sha256(request): paperwork.write(request)}
    held = hold(script, files)
    rehearsed = ceremony.rehearse(script, files, clock=lambda: held.done[0].record.began_at)
    assert [one.record.masked for one in rehearsed] == [one.record.masked for one in held.done]
    assert sum(bool(one.record.masked) for one in rehearsed) == 3
    for one, other in zip(rehearsed, held.done, strict=True):
        if one.certificate is None or other.certificate is None:
            continue
        assert blanked(one.certificate) == blanked(other.certificate)
        assert one.certificate.certificate != other.certificate.certificate


def blanked(one: paperwork.Certified) -> bytes:
    """The TBS of a certificate without its key and the key identifiers, by another way than the ceremony's own."""
    certificate = x509.load_pem_x509_certificate(one.certificate.encode())
    tbs = certificate.tbs_certificate_bytes
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer is not None
    parts = {own, issuer} if one.kind != "root" else {own, issuer, spki(certificate)}
    assert all(part in tbs for part in parts)
    for part in parts:
        tbs = tbs.replace(part, b"\0" * len(part))
    return tbs


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_rehearsal_stands_in_for_a_root_that_is_there() -> None:
    held, keys, script = second_ceremony()
    rehearsed = ceremony.rehearse(script, held.files, clock=lambda: held.done[0].record.began_at)
    assert [one.record.masked for one in rehearsed] == [one.record.masked for one in held.done]
    (made, theirs) = (rehearsed[0].certificate, held.done[0].certificate)
    assert made is not None
    assert theirs is not None
    tbs = [x509.load_pem_x509_certificate(one.certificate.encode()).tbs_certificate_bytes for one in (made, theirs)]
    assert tbs[0] == tbs[1]
    assert len(keys.backend.list()) == 1  # the root's own; the rehearsal made none there


def second_ceremony() -> tuple[Held, MemoryKeys, Script]:
    """A further issuing CA under a root that a first ceremony made, and the root's next CRL."""
    keys, request = MemoryKeys(), asked()
    first = hold(two_tier(request), {paperwork.sha256(request): paperwork.write(request)}, keys=keys)
    again = asked("req-2")
    script = two_tier(again)
    root = first.result.certificates[0].certificate
    script = change(script, steps=script.steps[2:], authorities={"root": Present(root, "root")})
    held = hold(script, {paperwork.sha256(again): paperwork.write(again)}, keys=keys)
    held.result = signed_by(held, "Ada", "Bob")
    return held, keys, script


def test_a_second_ceremony_holds_under_the_first_ones_root() -> None:
    held, _, _ = second_ceremony()
    found = verify_result(held.result, requests=held.files)
    assert [step.spec.name for step, _ in found.made] == ["issuing"]
    assert held.result.certificates[0].request == "req-2"


@pytest.mark.invariant("I-37")
def test_who_has_signed_is_looked_at_one_by_one() -> None:
    held = witnessed()
    bare = signed_by(replace(held, result=change(held.result, signatures=())))
    one = signed_by(replace(held, result=bare), "Ada")
    refused(bare, "0 participants have signed")
    refused(one, "1 participants have signed")
    twice = ceremony.signed(one, signature(bare, "Ada", "master"))
    refused(twice, "Ada has signed twice")
    stranger = ceremony.signed(one, signature(bare, "Eve", "witness"))
    refused(stranger, "Eve has signed, and is no participant")
    borrowed = ceremony.signed(one, signature(bare, "Bob", "witness", key="Ada"))
    refused(borrowed, "Bob has signed with another key")
    promoted = ceremony.signed(one, signature(bare, "Bob", "master"))
    refused(promoted, "Bob has signed as master")
    elsewhere = hold(held.reviewed, held.files)
    moved = ceremony.signed(one, signature(elsewhere.result, "Bob", "witness"))
    refused(moved, "The signature of Bob is not over this transcript")


@pytest.mark.invariant("I-37")
def test_a_valid_signature_of_somebody_who_took_no_part_is_refused() -> None:
    request = asked()
    script = two_tier(request)
    held = hold(script, {paperwork.sha256(request): paperwork.write(request)}, here=("Ada", "Bob"))
    refused(signed_by(held, "Ada", "Cyd"), "Cyd has signed, and took no part")
    assert len(verify_result(signed_by(held, "Ada", "Bob")).signers) == 2


def test_keys_that_are_known_otherwise_go_before_the_scripts() -> None:
    held = witnessed()
    ids = {one.name: one.key_id for one in verify_result(held.result).signers}
    assert verify_result(held.result, participants=ids).signers
    refused(held.result, "Bob has signed with another key", participants=ids | {"Bob": "0" * 64})
    refused(held.result, "Bob has signed with another key", participants={"Ada": ids["Ada"]})


@pytest.mark.invariant("I-37")
def test_an_old_result_or_another_scripts_transcript_is_named() -> None:
    held = witnessed()
    other = hold(change(held.reviewed, title="Another"), held.files)
    refused(held.result, "another script", script=other.script)
    mixed = change(other.result, transcript=held.result.transcript)
    refused(resigned(mixed), "The transcript is of another script")


@pytest.mark.invariant("I-37")
def test_steps_left_out_added_or_in_another_order_are_named() -> None:
    held = witnessed()
    steps = msgspec.json.decode(held.result.transcript, type=Transcript).steps
    said = refused(retold(held, steps=steps[:-1]), "Step 4 of the script is left out")
    assert not any("another order" in text for text in said)
    refused(retold(held, steps=(steps[1], steps[0], *steps[2:])), "another order")
    refused(retold(held, steps=(*steps, steps[-1])), "twice")
    foreign = change(steps[0], step="0" * 64)
    refused(retold(held, steps=(foreign, *steps[1:])), "Step 1 of the transcript is not in the script")
    refused(retold(held, steps=(change(steps[0], do="destroy-key"), *steps[1:])), "another word")
    refused(retold(held, steps=(change(steps[0], number=7), *steps[1:])), "not numbered")


TOLD_WRONG: dict[str, tuple[Callable[[Transcript], dict[str, object]], str]] = {
    "another title": (lambda _: {"title": "x"}, "another title"),
    "no lab": (lambda _: {"lab": True}, "another title"),
    "inputs": (lambda _: {"inputs": ()}, "input files"),
    "outputs": (lambda t: {"outputs": t.outputs[::-1]}, "outputs are not those"),
    "an output's hash": (
        lambda t: {"steps": (*t.steps[:3], change(t.steps[3], output="0" * 64))},
        "another hash of the CRL",
    ),
    "what was signed": (
        lambda t: {"steps": (*t.steps[:3], change(t.steps[3], masked="0" * 64))},
        "another hash of what was signed",
    ),
    "the key that was made": (lambda t: {"steps": (change(t.steps[0], key="0" * 64), *t.steps[1:])}, "another key"),
    "times": (lambda t: {"began_at": t.ended_at}, "do not go forward"),
    "a guest": (
        lambda t: {"participants": (*t.participants, change(t.participants[0], name="Eve"))},
        "the script has no master of that name",
    ),
    "one twice": (lambda t: {"participants": (*t.participants, t.participants[0])}, "in the transcript twice"),
}


@pytest.mark.parametrize("what", list(TOLD_WRONG))
def test_a_transcript_that_says_something_else_is_refused_even_if_it_is_signed(what: str) -> None:
    told, why = TOLD_WRONG[what]
    held = witnessed()
    refused(retold(held, **told(msgspec.json.decode(held.result.transcript, type=Transcript))), why)


def test_a_certificate_of_another_ceremony_is_refused() -> None:
    held, other = witnessed(), hold(witnessed().reviewed, witnessed().files)
    swapped = change(held.result, certificates=(held.result.certificates[0], other.result.certificates[1]))
    refused(swapped, "the certificate does not say what the script says")
    issuing = x509.load_pem_x509_certificate(held.result.certificates[1].certificate.encode())
    algorithm = der.children(issuing.public_bytes(Encoding.DER))[1].whole
    forged = x509.load_der_x509_certificate(assemble(issuing.tbs_certificate_bytes, algorithm, bytes(100)))
    pem = change(held.result.certificates[1], certificate=forged.public_bytes(Encoding.PEM).decode())
    swapped = change(held.result, certificates=(held.result.certificates[0], pem))
    refused(swapped, "signature is not the issuer's")
    refused(change(held.result, certificates=held.result.certificates[:1]), "not exactly the certificates")
    refused(change(held.result, crls=other.result.crls), "CRL does not say")
    renamed = change(held.result.certificates[1], authority="other")
    refused(change(held.result, certificates=(held.result.certificates[0], renamed)), "something else")
    answered = change(held.result.certificates[1], request="req-9")
    swapped = change(held.result, certificates=(held.result.certificates[0], answered))
    refused(swapped, "another request", requests=held.files)


def test_what_the_script_did_not_say_is_refused_even_if_it_is_well_signed() -> None:
    """The same keys, another lifetime: both certificates are good, and one of them is not of this script."""
    keys, request = MemoryKeys(), asked()
    script = two_tier(request)
    files = {paperwork.sha256(request): paperwork.write(request)}
    held = hold(script, files, keys=keys)
    longer = change(script.steps[2], spec=change(script.steps[2].spec, lifetime="9y"))  # type: ignore[union-attr]  # it certifies
    other_script = change(script, steps=(*script.steps[:2], longer, *script.steps[3:]))
    other = hold(other_script, files, keys=keys)
    swapped = change(held.result, certificates=(held.result.certificates[0], other.result.certificates[1]))
    refused(resigned(swapped), "Step 3 (certify)")


def test_what_answers_one_request_does_not_pass_for_another_ones_answer() -> None:
    """Which request is answered stands beside the transcript: who carries the result could close another open one."""
    held = witnessed()
    other = asked("req-2")
    made = held.result.certificates[1]
    claimed = change(held.result, certificates=(held.result.certificates[0], change(made, request="req-2")))
    at_hand = {paperwork.sha256(other): paperwork.write(other)}
    refused(claimed, "another request than the script's", requests=at_hand)
    refused(claimed, "another request than the script's", requests=at_hand | held.files)
    assert verify_result(held.result, requests=at_hand).signers


def test_every_byte_of_a_result_counts() -> None:
    """Each 97th byte is changed, from another offset for each bit, and each digit of the signatures and their keys."""
    data = paperwork.write(witnessed().result)
    changes = [(at, data[at] ^ 1 << bit) for bit in range(8) for at in range(bit, len(data), 97)]
    for found in re.finditer(rb'"(?:public_key|signature)": "([0-9a-f]+)"', data[data.index(b'"signatures"') :]):
        begin = data.index(found[1])
        changes += [(at, data[at] ^ 1) for at in range(begin, begin + len(found[1]))]  # mostly another hex digit
    assert len(changes) > 8 * len(data) // 97 + 4 * 88
    for at, byte in changes:
        with pytest.raises(Problem):
            verify_result(paperwork.read(data[:at] + bytes([byte]) + data[at + 1 :], Result), script=witnessed().script)


@pytest.mark.parametrize("field", ["public_key", "signature"])
def test_every_bit_of_a_signature_counts(field: str) -> None:
    """Some make the key one of an algorithm that nobody knows, which is no ValueError of the parser."""
    held = witnessed()
    for good in read_signatures(held.result):
        data = bytes.fromhex(getattr(good, field))
        for bit in range(8 * len(data)):
            changed = (int.from_bytes(data) ^ 1 << bit).to_bytes(len(data))
            bad = change(good, **{field: changed.hex()})
            assert good_signature(bad, held.result.transcript) is None
        assert good_signature(good, held.result.transcript) is not None


def test_a_participants_key_of_an_unknown_algorithm_is_refused() -> None:
    data = person_key("Ada").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for bit in range(8 * len(data)):
        changed = (int.from_bytes(data) ^ 1 << bit).to_bytes(len(data))
        pem = f"-----BEGIN PUBLIC KEY-----\n{b64encode(changed).decode()}\n-----END PUBLIC KEY-----\n"
        with suppress(Problem):  # another key is a key
            assert participant_key(pem).spki == changed


@pytest.mark.invariant("I-41")
@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_was_not_rehearsed_is_not_signed(step: int) -> None:
    """The hash is compared before the key is even opened: what has been signed cannot be taken back."""
    request = asked()
    script, files = two_tier(request), {paperwork.sha256(request): paperwork.write(request)}
    expected = [one.record.masked for one in ceremony.rehearse(script, files, clock=lambda: AT)]
    expected[step] = "0" * 64
    keys = Opened()
    doing = ceremony.perform(script, keys, files, clock=lambda: AT, expected=expected)
    with pytest.raises(Problem, match="not what was rehearsed"):
        list(doing)
    assert keys.opened == step - 1


class Opened(MemoryKeys):
    """Counts how often a key was opened to sign."""

    opened = 0

    def open(self, name: str, public: PublicKey) -> Key:
        self.opened += 1
        return super().open(name, public)


def test_a_lab_is_signed_by_itself_and_says_so() -> None:
    request = asked()
    script = change(two_tier(request), lab=True)
    held = hold(script, {paperwork.sha256(request): paperwork.write(request)})
    assert verify_result(signed_by(held, "Ada")).script.lab
    refused(held.result, "0 participants have signed, and 1 are needed")


def test_a_script_in_a_result_is_read_as_strictly() -> None:
    held = witnessed()
    broken = write_script(held.reviewed).decode().replace("version: 1", "version: 2")
    with pytest.raises(Problem, match="cannot be read"):
        verify_result(change(held.result, script=broken))
