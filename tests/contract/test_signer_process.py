"""The signer as a process: who may ask, what a hostile peer can do to it, what the kernel shows of it and of the web
process beside it, and what is left when it dies at the worst moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from rootward.ca import own as ours
from rootward.ca import reconcile
from rootward.ca.issue import issue
from rootward.core import grounds as words
from rootward.core.plan import Policy, make_serial
from rootward.core.problems import Problem
from rootward.core.times import whole_second
from rootward.keys import KeySettings, SignatureUnknown, open_signer
from rootward.signer import door
from rootward.signer import home as homes
from rootward.signer.desk import Desk
from rootward.signer.journal import Entry, Journal
from rootward.signer.settings import Settings, read_settings
from rootward.store import certificates
from tests.support.rights import without
from tests.support.signer import Process, SignerLab, certify, signer_home, signer_lab
from tests.support.world import ask, issued

NOBODY = Settings(Path("/nowhere"), Path("/nowhere/s.sock"), frozenset(), None, 1, "", None, {})
LIST = words.frame(words.ListKeys())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerLab]:
    """Shared by what harms nobody."""
    with signer_lab(tmp_path_factory.mktemp("signer")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Process]:
    """A signer of the test's own, not started."""
    with signer_home(tmp_path) as made:
        yield made


def call(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))  # waits where the kernel's queue is full
    made.settimeout(30)
    return made


def heard(line: socket.socket) -> words.Reply | None:
    """The next reply; None where the signer hangs up."""
    data = b""
    while (left := (4 if len(data) < 4 else 4 + int.from_bytes(data[:4], "big")) - len(data)) > 0:
        try:
            part = line.recv(left)
        except ConnectionResetError:
            part = b""
        if not part:
            assert not data
            return None
        data += part
    return words.read_reply(data[4:])


def serves(signer: Process) -> bool:
    with call(signer.socket) as line:
        line.sendall(LIST)
        return isinstance(heard(line), words.HeldKeys)


# Who may ask


@pytest.mark.invariant("I-38")
def test_another_user_than_the_peers_is_refused(tmp_path: Path) -> None:
    with signer_home(tmp_path, peer=os.geteuid() + 1) as signer:
        signer.start()
        with call(signer.socket) as line:
            reply = heard(line)
            assert isinstance(reply, words.Refused)
            assert f"The user {os.geteuid()} is not among the peers" in reply.reasons[0].detail
            assert heard(line) is None
        with (
            contextlib.closing(open_signer(KeySettings(store="vault", uri=signer.uri))) as store,
            pytest.raises(Problem) as caught,
        ):
            store.list()
        assert caught.value.code == "RW-KEY-UNAVAILABLE"
        assert "is not among the peers" in caught.value.detail
        assert "signer.peer" in signer.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_the_kernel_says_who_asks(lab: SignerLab) -> None:
    """A child that becomes nobody: its word does not count."""
    lab.signer.socket.chmod(0o777)
    for folder in lab.signer.socket.parents:
        if not folder.stat().st_mode & 0o001 and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(0o755)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        reply = heard(call(lab.signer.socket))
        os.write(write, repr(reply).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as file:
        assert "The user 65534 is not among the peers" in file.read()


# What a peer can do to it


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        (words.LARGEST_ORDER + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
        b"\x00\x00\x00\x01\x80",
        words.frame(words.ListKeys()).replace(b"keys", b"sign"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x10\x00" + b"\x91" * 0x1000,
    ],
    ids=["empty", "4 GiB", "just too long", "never used", "no type", "no verb", "HTTP", "deep"],
)
def test_what_is_no_order_is_refused_and_the_connection_ended(lab: SignerLab, sent: bytes) -> None:
    with call(lab.signer.socket) as line:
        line.sendall(sent)
        reply = heard(line)
        assert isinstance(reply, words.Refused)
        assert reply.reasons[0].code == "RW-MALFORMED"
        assert heard(line) is None
    assert serves(lab.signer)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_half_a_frame_is_nothing(lab: SignerLab, size: int) -> None:
    with call(lab.signer.socket) as line:
        line.sendall(LIST[:size])
        line.shutdown(socket.SHUT_WR)
        assert heard(line) is None
    assert serves(lab.signer)


@pytest.mark.invariant("I-15")
async def test_a_crl_that_stops_coming_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRLs come one after the other: whoever begins one and is stopped would keep all revocations from being told."""
    monkeypatch.setattr(door, "FRAME_SECONDS", 2)
    with contextlib.closing(Journal(tmp_path)) as journal:
        desk = Desk({}, journal)
        begun, whole = await asyncio.gather(*(_sent(desk, octets) for octets in (b"1234", b"12345")))
    assert isinstance(begun, TimeoutError)
    assert isinstance(whole, words.Refused)


async def _sent(desk: Desk, octets: bytes) -> words.Reply | TimeoutError:
    """What comes of a CRL of five octets of which these come, on a connection that stays."""
    mine, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    with mine, contextlib.closing(writer):
        mine.sendall(words.frame(words.SignCrl("0" * 64, 5)) + octets)
        try:
            await door.Door(NOBODY, desk)._one(reader, writer, 0)
        except TimeoutError as error:
            return error
        return await asyncio.to_thread(heard, mine) or TimeoutError()


def test_an_order_comes_in_pieces_too_and_one_after_the_other(lab: SignerLab) -> None:
    with call(lab.signer.socket) as line:
        for octet in LIST:
            line.sendall(bytes([octet]))
        assert isinstance(heard(line), words.HeldKeys)
        line.sendall(LIST + LIST)
        assert isinstance(heard(line), words.HeldKeys)
        assert isinstance(heard(line), words.HeldKeys)


def test_a_thousand_connections_are_bounded_and_those_that_are_there_go_on(lab: SignerLab) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    lines: list[socket.socket] = []
    try:
        lines = [call(lab.signer.socket) for _ in range(1000)]
        first, last = lines[0], lines[-1]
        first.sendall(LIST)
        assert isinstance(heard(first), words.HeldKeys)
        assert isinstance(heard(last), words.Failed)  # and so were all those before it: the queue is in order
        turned_away = [line for line in lines[1:-1] if _readable(line)]
        assert len(turned_away) >= 1000 - 64 - 1
        assert all(isinstance(heard(line), words.Failed) for line in turned_away)
    finally:
        for line in lines:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert _comes_back(lab.signer)


def _comes_back(signer: Process) -> bool:
    """Closed connections are given back by the signer's loop: asked until it has seen them."""
    for _ in range(2000):
        with call(signer.socket) as line:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be turned away before it asks
                line.sendall(LIST)
            if isinstance(heard(line), words.HeldKeys):
                return True
    return False


# Limits


def test_the_limits_of_rate_hold_also_over_a_restart(tmp_path: Path) -> None:
    limits = "[authorities.issuing]\ncertificates_per_hour = 3\nown_per_day = 2\n"
    with signer_lab(tmp_path, limits=limits) as lab:

        async def story() -> None:
            for _ in range(3):
                issued(await issue(lab.inst, ask(), lab.admin))
            await self_refused("The limit of 3 certificates an hour")
            lab.signer.stop()
            lab.signer.start()
            await self_refused("The limit of 3 certificates an hour")
            # Responders have a limit of their own; the lab has used one.
            for key_label, key_id in lab.inst.keys.list():
                lab.inst.keys.delete(key_label, key_id)
            await ours.obtain(lab.inst, "ocsp:issuing", "ocsp-issuing")
            for key_label, key_id in lab.inst.keys.list():
                lab.inst.keys.delete(key_label, key_id)
            with pytest.raises(Problem) as caught:
                await ours.obtain(lab.inst, "ocsp:issuing", "ocsp-issuing")
            assert "The limit of 2 certificates of our own" in caught.value.detail

        async def self_refused(says: str) -> None:
            with pytest.raises(Problem) as caught:
                await issue(lab.inst, ask(), lab.admin)
            assert caught.value.code == "RW-SIGNER-REFUSED"
            assert says in caught.value.detail
            assert caught.value.retry_after

        asyncio.run(story())


# The kernel's view


def test_no_core_is_written_and_no_debugger_of_the_same_user_gets_in(own: Process) -> None:
    """Root's right to trace everything is taken from all three; what is left is what a user has over its own."""
    prefix = without("sys_ptrace")
    own.start(prefix=prefix)
    assert own.process is not None
    pid = own.process.pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    other = subprocess.Popen([*prefix, sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        assert _reads(other.pid, prefix)  # not hardened: the way in works
        assert not _reads(pid, prefix)
        other.kill()


_READER = """
import sys
for line in open(f'/proc/{sys.argv[1]}/maps'):
    if ' r' in line:
        with open(f'/proc/{sys.argv[1]}/mem', 'rb') as file:
            file.seek(int(line.split('-')[0], 16))
            sys.exit(0 if file.read(1) else 1)
"""


def _reads(pid: int, prefix: tuple[str, ...]) -> bool:
    """Whether another process of this user can read its memory."""
    command = [*prefix, sys.executable, "-c", _READER, str(pid)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.invariant("I-35")
def test_the_web_process_has_neither_the_key_nor_what_opens_it(lab: SignerLab) -> None:
    """Its whole memory, after issuances: this process is the web process. A child knows what to look for."""
    asyncio.run(_some(lab))
    name, key_id = next(iter(lab.inst.stores["vault"].list()))
    searched = subprocess.run(
        [sys.executable, "-c", _SEARCH, str(lab.signer.home), name, key_id, str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert searched.returncode == 0, searched.stderr
    assert searched.stdout.split() == ["found", "bait"], searched.stdout


BAIT = b"this octet string is in the memory of " + b"the process that is searched"

_SEARCH = """
import sys
import tempfile
import threading
from pathlib import Path
from rootward.keys import KeySettings, kek_from_file
from rootward.keys.file import open_file
home, name, key_id, pid = Path(sys.argv[1]), *sys.argv[2:]
key = open_file(KeySettings(folder=home / 'keys', kek=kek_from_file(home / 'kek'))).load(name, key_id)
value = key._private.private_numbers().private_value
text = (home / 'kek').read_bytes().strip()
needles = {
    'scalar': value.to_bytes(32, 'big'), 'little': value.to_bytes(32, 'little'),
    'hex': value.to_bytes(32, 'big').hex().encode(), 'decimal': str(value).encode(),
    'kek': bytes.fromhex(text.decode()), 'kek in hex': text,
    'bait': b'this octet string is in the memory of ' + b'the process that is searched',
}
found = set()
with open(f'/proc/{pid}/mem', 'rb', 0) as memory:
    for line in open(f'/proc/{pid}/maps'):
        span, rights = line.split()[:2]
        if 'r' not in rights or '[v' in line:
            continue
        at, end = (int(part, 16) for part in span.split('-'))
        rest = b''
        while at < end:
            memory.seek(at)
            try:
                part = memory.read(min(1 << 22, end - at))
            except OSError:
                break
            if not part:
                break
            found |= {name for name, needle in needles.items() if needle in rest + part}
            rest, at = part[-128:], at + len(part)
print('found', *sorted(found))
"""


async def _some(lab: SignerLab) -> None:
    for _ in range(3):
        issued(await issue(lab.inst, ask(), lab.admin))


# The worst moments


_DIES = """
import os, signal
from rootward.signer import desk
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
desk.sign_soon = die
from rootward.cli.app import run
run(["signer", "run"])
"""


@pytest.mark.invariant("I-05", "I-38")
def test_killed_between_its_journal_and_its_reply_the_intent_becomes_an_orphan(tmp_path: Path) -> None:
    with signer_lab(tmp_path) as lab:
        lab.signer.stop()
        lab.signer.start(_DIES)

        async def story() -> None:
            with pytest.raises(Problem) as caught:
                await issue(lab.inst, ask("b.internal"), lab.admin)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            assert lab.signer.ended() == -signal.SIGKILL
            entry = lab.signer.journal("certificate")[0]
            # Away: nothing was signed, and that is known.
            with pytest.raises(Problem) as caught:
                await issue(lab.inst, ask("c.internal"), lab.admin)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            assert await reconcile.reconcile(lab.inst) == 1
            lab.signer.start()
            made = issued(await issue(lab.inst, ask("b.internal"), lab.admin))
            rows = {row.serial.hex(): row for row in await _rows(lab)}
            assert rows[entry.what].orphaned_at is not None
            assert rows[entry.what].signature is None
            assert made.serial.hex() != entry.what

        asyncio.run(story())


async def _rows(lab: SignerLab) -> list[Any]:
    return await lab.inst.db.read(
        lambda conn: [certificates.from_row(row) for row in conn.execute(sqlalchemy.select(*certificates.COLUMNS))]
    )


def test_two_signers_do_not_share_a_home(own: Process) -> None:
    own.start()
    second = subprocess.run(
        [sys.executable, "-m", "rootward", "signer", "run", "--home", str(own.home)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert second.returncode == 1
    assert "Another signer runs" in second.stderr
    assert serves(own)
    assert own.stop() == 0
    assert not own.socket.exists()


def test_two_homes_do_not_share_a_socket(own: Process, tmp_path: Path) -> None:
    own.start()
    (tmp_path / "other").mkdir()
    with signer_home(tmp_path / "other") as other:
        settings = other.home / "signer.toml"
        text = settings.read_text()
        settings.write_text(text.replace(str(other.socket), str(own.socket)))
        with pytest.raises(AssertionError, match="Another program listens"):
            other.start()
        assert other.ended() == 1
        assert serves(own)
        settings.write_text(text)
        other.start()
        other.stop(signal.SIGKILL)
        assert other.socket.exists()
        other.start()  # what one left that was killed is in nobody's way
        assert serves(other)
        other.socket.rename(other.socket.with_suffix(".away"))
        own.socket.rename(other.socket)
        assert other.stop() == 0
        assert other.socket.exists()  # it is the other's now


@pytest.mark.invariant("I-38")
async def test_a_signer_that_ends_hangs_up_on_those_who_wait_and_on_those_whom_it_answers(tmp_path: Path) -> None:
    """By itself, not by the loop's end: Python 3.12.1 and later would wait for each of them, and serve it meanwhile."""
    settings = dataclasses.replace(NOBODY, socket=tmp_path / "s.sock", peers=frozenset({os.geteuid()}), connections=2)
    with contextlib.closing(Journal(tmp_path)) as journal, door.listening(settings) as listening:
        serving = asyncio.create_task(door.Door(settings, Desk({}, journal)).serve(listening))
        idle, busy = [await asyncio.to_thread(call, settings.socket) for _ in range(2)]
        with idle, busy:
            idle.sendall(LIST)
            assert isinstance(await asyncio.to_thread(heard, idle), words.HeldKeys)
            busy.sendall(LIST + words.frame(words.SignCrl("0" * 64, 5)) + b"1234")
            assert isinstance(await asyncio.to_thread(heard, busy), words.HeldKeys)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            for line in (idle, busy):
                line.settimeout(5)
                assert await asyncio.to_thread(heard, line) is None


def test_what_the_journal_cannot_take_is_not_signed(own: Process) -> None:
    """A full disk: the entry fails, so the key is never asked."""

    async def story() -> None:
        journal = Journal(own.home)
        try:
            entry = Entry("certificate", datetime.now(UTC), "0" * 64, "40", b"\0" * 32, 0, "server 1")
            assert await journal.sign_certificate(entry, b"\x40" * 20, datetime.now(UTC))
            pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
            journal._db.execute(f"PRAGMA max_page_count = {pages}")
            reply = await Desk({}, journal)._guarded(_fill(journal, entry), "0" * 64, "40", 0, b"tbs")
            assert isinstance(reply, words.Failed)
            assert reply.unsigned
            assert "cannot be written" in reply.why
        finally:
            journal.close()

    asyncio.run(story())


async def _fill(journal: Journal, entry: Entry) -> words.Reply:
    """Whatever fits, and then no signature."""
    for number in range(1000):
        await journal.sign_certificate(entry, number.to_bytes(20, "big"), datetime.now(UTC))
    return words.Signed(b"")


def test_the_journal_is_append_only(own: Process) -> None:
    journal = Journal(own.home)
    try:
        asyncio.run(journal.note(Entry("refused", datetime.now(UTC), "0" * 64, "x")))
        for statement in ("DELETE FROM journal", "UPDATE journal SET why = 'other'"):
            with pytest.raises(Exception, match="append only"):
                journal._db.execute(statement)
    finally:
        journal.close()


def test_a_reply_that_never_comes_may_have_been_a_signature(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    line: Any = open_signer(KeySettings(store="vault", uri=f"unix:{tmp_path}/s"))._lines.orders
    taken: list[socket.socket] = []

    def hang_up() -> None:
        made, _ = listening.accept()
        made.recv(1 << 16)
        made.close()
        taken.append(made)

    thread = threading.Thread(target=hang_up)
    thread.start()
    with pytest.raises(SignatureUnknown):
        line.ask(LIST)
    thread.join()
    listening.close()


@pytest.mark.invariant("I-01")
def test_the_journal_is_on_the_disk_before_the_key_is_asked(own: Process, tmp_path: Path) -> None:
    """By the kernel's order of calls: between an order and its reply the journal is flushed."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not here")
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,sendto,sendmsg,write,recvfrom,recvmsg,read"
    certify(own)
    own.start(prefix=(strace, "-f", "-y", "-s", "4096", "-o", str(trace), "-e", calls, "-e", "signal=none"))
    with signer_orders(own) as (line, order):
        line.sendall(words.frame(order))
        assert isinstance(heard(line), words.Signed)
    assert own.process is not None
    tracer = own.process.pid
    child = Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split()[0]
    os.kill(int(child), signal.SIGTERM)  # the tracer itself does not hear it
    assert own.ended() == 0
    text = trace.read_text().splitlines()
    replies = [at for at, called in enumerate(text) if "sendto(" in called and "signature" in called]
    flushes = [at for at, called in enumerate(text) if "sync(" in called and "journal.db" in called]
    orders = [at for at, called in enumerate(text) if "grounds" in called and "recvfrom(" in called]
    assert (len(orders), len(replies)) == (1, 1)
    assert any(orders[0] < at < replies[0] for at in flushes)


@contextlib.contextmanager
def signer_orders(signer: Process) -> Iterator[tuple[socket.socket, words.SignCertificate]]:
    """A connection, and an honest order."""
    (found,) = homes.authorities(signer.home)
    issuer = homes.issuer_of(read_settings(signer.home), found)
    profile = next(one.profile for one in homes.accepted(signer.home) if one.profile.name == "server")
    wanted, at = ask(), whole_second(datetime.now(UTC))
    plan = Policy(profile, 1, issuer).admit(wanted, {})
    draft = plan.draft(make_serial(os.urandom(20)), at)
    with call(signer.socket) as line:
        yield line, words.SignCertificate(issuer.key_id, draft.tbs, words.grounds_of(wanted, plan, draft, {}, at))


@pytest.mark.invariant("I-05", "I-07", "I-38")
def test_a_signer_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """Asked all the time, killed three times: what was signed is in both books, and nothing is in one twice."""
    with signer_lab(tmp_path, limits="[authorities.issuing]\ncertificates_per_hour = 100000\n") as lab:
        outcomes: list[str] = []
        news = asyncio.Semaphore(0)

        async def askers(stop: asyncio.Event) -> None:
            while not stop.is_set():
                try:
                    outcomes.append(issued(await issue(lab.inst, ask(), lab.admin)).serial.hex())
                    news.release()
                except Problem as problem:
                    if problem.code != "RW-KEY-UNAVAILABLE":
                        raise
                    await asyncio.sleep(0.02)  # as a client that is told to come back

        async def story() -> None:
            for _ in range(3):
                stop = asyncio.Event()
                asking = [asyncio.create_task(askers(stop)) for _ in range(8)]
                for _ in range(20):  # it comes back by itself each time
                    await news.acquire()
                assert await asyncio.to_thread(lab.signer.stop, signal.SIGKILL) == -signal.SIGKILL
                await asyncio.to_thread(lab.signer.start)
                stop.set()
                await asyncio.gather(*asking)
            await reconcile.reconcile(lab.inst)
            rows = {row.serial.hex(): row for row in await _rows(lab)}
            signed = [entry.what for entry in lab.signer.journal("certificate")]
            assert len(signed) == len(set(signed))
            assert set(outcomes) <= set(signed)
            for serial in signed:  # every one of the signer's is known, as issued or as an orphan
                assert rows[serial].issued_at is not None or rows[serial].orphaned_at is not None
            for serial, row in rows.items():
                if row.profile == "server" and row.signature is not None:
                    assert serial in set(signed)

        asyncio.run(story())


def test_a_server_that_starts_while_its_signer_is_away_signs_when_it_is_there(tmp_path: Path) -> None:
    with signer_lab(tmp_path) as lab:

        async def story() -> None:
            lab.signer.stop()
            lab.inst.authorities.clear()
            await lab.inst.load_authorities()  # as a process that starts
            with pytest.raises(Problem) as caught:
                await issue(lab.inst, ask(), lab.admin)
            assert caught.value.code == "RW-KEY-UNAVAILABLE"
            lab.signer.start()
            issued(await issue(lab.inst, ask(), lab.admin))

        asyncio.run(story())


def _readable(line: socket.socket) -> bool:
    """Whether there is something to read, or its end; select would not take so many."""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))
