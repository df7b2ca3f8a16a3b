"""The whole way of a real PKI, as its people go it: a machine without a network, with nothing but the offline bundle;
the people who come to its ceremonies with their media; and an installation with its server.

Whatever is asked at a terminal is answered at one; what travels between the two sides lies in one folder, the medium.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from rootward.core.times import rfc3339
from tests.support.ceremony_room import from_paper, last_hash, script_group
from tests.support.programs import Done, run, said
from tests.support.site import COMMAND, Site
from tests.support.softhsm import MODULE, PIN, SO_PIN, make_token
from tests.support.terminal import Person, Rule

MASTER = "Ada Lovelace"
WITNESSES = ("Grace Hopper", "Alan Turing")
CUSTODIANS = ("Emmy Noether", "Hedy Lamarr", "Mary Jackson", "Karl Gauss", "Otto Hahn")
THRESHOLD = 3
PASSPHRASE = "the passphrase of the root's key"
OWN = "a passphrase of one's own"  # of everybody's own key
ROOT_TOKEN = f"pkcs11:token=example-root?module-path={MODULE}"
SOCKETS = re.compile(r"\b(?:socket|socketpair|connect|bind|listen|accept4?|sendto|sendmsg)\(")


@dataclass(frozen=True)
class AirGap:
    """A machine whose programs run behind `apart`, in a world without an interface; strace sees every call of theirs
    that has to do with sockets, and which programs they are.
    """

    folder: Path
    apart: Sequence[str]
    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | Path, cwd: Path, code: int = 0) -> str:
        """A command of the installed package that asks nothing."""
        return said(run(*self._traced(words), cwd=cwd, env=self.environment, codes=(code,)))

    def talk(self, *words: str | Path, cwd: Path, rules: Sequence[Rule]) -> str:
        """One that talks with people; the screen."""
        person = Person(self._traced(words), cwd, self.environment)
        screen = person.converse(rules)
        assert person.code == 0, screen
        return screen

    def calls(self) -> list[str]:
        """What strace has seen of all commands so far."""
        return [line for log in sorted(self.folder.glob("calls.*")) for line in log.read_text().splitlines()]

    def _traced(self, words: Iterable[str | Path]) -> list[str]:
        log = self.folder / f"calls.{len(list(self.folder.glob('calls.*'))):02}"
        strace = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=%network,execve", "-o", str(log))
        return [*self.apart, *strace, str(self.program), *map(str, words)]


@dataclass(frozen=True)
class People:
    """Who comes to ceremonies. Each has a folder below `folder`, for their key (`my.key`) or share (`my.share`), and
    something that opens it. `later` is who does not sign in the room.
    """

    folder: Path
    later: str = WITNESSES[-1]

    def of(self, person: str) -> Path:
        """What a person brings along."""
        return self.folder / person.split(maxsplit=1)[0].lower()

    def keys(self) -> list[Rule]:
        """Who is asked for the passphrase of a key of their own, and for nothing else."""
        return [(r"(?:Passphrase, .*|The same again|The key's passphrase):", lambda _m, _s: OWN)]

    def signing(self, screen: str) -> list[Rule]:
        """Who signs later: by the hash of the transcript that they wrote down from the ceremony's screen."""
        paper = last_hash(screen)
        group = r".+, from your paper, group (\d+) of 16, or its two words:"
        return [(group, lambda match, _: paper[int(match[1]) - 1]), *self.keys()]

    def answers(self, script: bytes, here: Iterable[str]) -> list[Rule]:
        """What those who are here answer in a ceremony by this script."""
        present, paper, last = set(here), script_group(script), [""]

        def secret(text: str) -> str:
            last[0] = text
            return text

        def key_of(person: str) -> str:
            return "" if person == self.later else str(self.of(person) / "my.key")

        return [
            (r"(.+) \(\w+\), your name:", lambda match, _: match[1] if match[1] in present else ""),
            (r"From your paper, group \d+ of 16, or its two words:", lambda _, screen: paper(screen)),
            (r".+, from your paper, group \d+ of 16, or its two words:", lambda _, screen: from_paper(screen)),
            (r'.+, type "yes" to do it:', lambda _m, _s: "yes"),
            (r'Passphrase (?:for|of) the key "root".*:', lambda _m, _s: secret(PASSPHRASE)),
            (r"(.+), a passphrase for your share, .*:", lambda match, _: secret(share_of(match[1]))),
            (r"The same again:", lambda _m, _s: last[0]),
            (r'PIN that the token of "root" has now, .*:', lambda _m, _s: PIN),
            (r"(.+), the file of your share:", lambda match, _: str(self.of(match[1]) / "my.share")),
            (r"(.+), the passphrase of your share:", lambda match, _: share_of(match[1])),
            (r"(.+), your key's file or pkcs11: URI \(Enter: sign later\):", lambda match, _: key_of(match[1])),
            (r"The key's passphrase:", lambda _m, _s: OWN),
        ]

    def take_shares(self, folder: Path) -> None:
        """Each custodian takes their share out of the folder, which is empty then."""
        for share in list(folder.iterdir()):
            custodian = json.loads(share.read_bytes().partition(b"\n")[0])["custodian"]
            self.of(custodian).mkdir(exist_ok=True)
            share.rename(self.of(custodian) / "my.share")


def share_of(person: str) -> str:
    """What opens a custodian's share."""
    return f"what only {person} knows"


def key_in(screen: str) -> str:
    """The public key that a participant was told."""
    return re.findall(r"key: ([0-9a-f]{64})", screen)[0]


@dataclass(frozen=True)
class Room:
    """Where ceremonies are held: `medium` is what comes and goes, `safe` what stays. `quorum`: the root's key is in a
    token that custodians open, else in a file under a passphrase.
    """

    folder: Path
    gap: AirGap
    quorum: bool
    public: dict[str, str] = field(default_factory=dict)

    @property
    def medium(self) -> Path:
        return self.folder / "medium"

    @property
    def safe(self) -> Path:
        return self.folder / "safe"

    @property
    def people(self) -> People:
        return People(self.folder)

    def invite(self) -> None:
        """Everybody who will sign makes a key at home, and tells its public half."""
        for folder in (self.medium, self.safe):
            folder.mkdir()
        for person in (MASTER, *WITNESSES):
            self.people.of(person).mkdir()
            words = (*COMMAND, "ceremony", "participant", person, "--out", "my.key")
            home = Person(words, self.people.of(person))
            self.public[person] = key_in(home.converse(self.people.keys()))
            assert home.code == 0, home.screen

    def plan(self, name: str, *words: str | Path) -> None:
        """The draft of a script on the medium, by whoever is at the online side, and its rehearsal."""
        people = ["--at", rfc3339(datetime.now(UTC)), f"--master={MASTER}={self.public[MASTER]}"]
        people += [f"--witness={one}={self.public[one]}" for one in WITNESSES]
        where = ["--folder", str(self.safe / "root-key")]
        if self.quorum:
            people += [f"--custodian={one}" for one in CUSTODIANS]
            where += ["--token", ROOT_TOKEN, "--threshold", str(THRESHOLD)]
        run(*COMMAND, "ceremony", "plan", f"{name}.yaml", *people, *where, *words, cwd=self.medium)

    def hold(self, name: str, *requests: str, custodians: Iterable[str] = CUSTODIANS) -> Path:
        """Rehearse the script, carry it out and verify what came of it, on the machine without a network; the master
        and the first witness sign in the room, the second one later. The result file.
        """
        script, rehearsal, here = f"{name}.yaml", f"{name}.rehearsal.json", [MASTER, *WITNESSES]
        here += custodians if self.quorum else ()
        self.gap("ceremony", "rehearse", script, "--out", rehearsal, cwd=self.medium)
        rules = self.people.answers((self.medium / script).read_bytes(), here)
        words = ("ceremony", "run", script, "--out", name, "--rehearsal", rehearsal)
        screen = self.gap.talk(*words, cwd=self.medium, rules=rules)
        assert "No network interface is up, there is no route and no address." in screen
        if (self.medium / "shares").exists():
            self.people.take_shares(self.medium / "shares")
        result, later = self.medium / name / "result.json", self.people.later
        signing = ("ceremony", "sign", result, "--key", self.people.of(later) / "my.key", "--name", later)
        self.gap.talk(*signing, cwd=self.medium, rules=self.people.signing(screen))
        verified = self.verify(result, script, *requests)
        assert all(f"{one} (witness)" in verified for one in WITNESSES)
        return result

    def verify(self, result: Path, script: str, *requests: str, code: int = 0) -> str:
        """Anybody, with the script and the requests that they know."""
        asked = [word for one in requests for word in ("--request", one)]
        return self.gap("ceremony", "verify", result, "--script", script, *asked, cwd=self.medium, code=code)


def root_token(folder: Path, apart: Sequence[str]) -> dict[str, str]:
    """A token for the root on the machine without a network; the environment of those who see it."""
    (folder / "tokens").mkdir(parents=True)
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
    words = ("--init-token", "--free", "--label", "example-root", "--so-pin", SO_PIN, "--pin", PIN)
    run(*apart, "softhsm2-util", *words, env=environment)
    return environment


@dataclass
class Online(Site):
    """The installation, whose issuing authorities have their keys in a token of its own."""

    bob: Path = field(init=False)

    def begin(self, settings: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
        """A home without authorities that knows the token `hsm`, and whatever else its settings say. The environment
        of those who see the token.
        """
        self.init()
        token = make_token("issuing", self.folder)
        pin = self.folder / "hsm.pin"
        pin.write_text(PIN)
        pin.chmod(0o600)
        hsm = {"backend": "pkcs11", "uri": token.uri, "pin": f"file:{pin}"}
        toml = self.home / "rootward.toml"
        text = toml.read_text()
        for table, values in settings.items():
            lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
            text = text.replace(f"[{table}]\n", "\n".join([f"[{table}]", *lines, ""]))
        text += "\n".join(["", "[keys.hsm]", *(f"{name} = {json.dumps(value)}" for name, value in hsm.items()), ""])
        toml.write_text(text)
        return token.environment

    def second_person(self) -> None:
        """Bob may approve. His token is one that he made himself, with the one that he was invited by."""
        self("access", "person", "create", "bob")
        self("access", "grant", "create", "--principal", "bob", "--role", "approver")
        invitation, self.bob = self.folder / "invitation", self.folder / "bob.token"
        for path, words in (
            (invitation, ("--label", "invitation", "--principal", "bob")),
            (self.bob, ("--label", "mine", "--token-file", invitation)),
        ):
            path.touch(mode=0o600)
            path.write_text(self("access", "token", "create", "--lifetime", "1d", *words).stdout)

    def agreed(self, *words: str) -> Done:
        """What needs a second person: asked for, refused to whoever asked, approved by Bob."""
        waiting = said(self(*words, code=3))
        id = waiting.partition("rootward request approve ")[2].split(".")[0]
        assert "RW-SAME-PERSON" in said(self("request", "approve", id, code=1))
        return self("request", "approve", id, "--token-file", self.bob)


def chain_of(fullchain: Path, root: Path, *, revoked: bool = False) -> None:
    """`openssl verify` accepts a file's first certificate, or says that its chain is revoked, with the CRL of every CA
    from where the certificates say; also the root's own, which OpenSSL does not fetch by itself.
    """
    trust = ("-CAfile", root, "-no-CApath", "-no-CAstore", "-untrusted", fullchain, "-x509_strict")
    lists: list[str | Path] = []
    for at, certificate in enumerate(x509.load_pem_x509_certificates(fullchain.read_bytes())):
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        (name,) = points[0].full_name or ()
        path = fullchain.with_name(f"{fullchain.name}.{at}.crl")
        run("curl", "-sSf", "-o", path, name.value)
        lists += ["-CRLfile", path]
    told = run("openssl", "verify", *trust, "-crl_check_all", *lists, fullchain, codes=(2 if revoked else 0,))
    assert ("error 23 at 1 depth lookup: certificate revoked" in said(told)) is revoked, said(told)
