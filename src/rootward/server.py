"""The server process: three listeners and the worker on one event loop, from the first socket to the last answer.

All sockets are bound before anything else, so that a port that is taken is told at once and nothing is half started. It
stops on SIGTERM and SIGINT: no new connections, answers under way are finished within `limits.shutdown_seconds`, then
the store closes. A second signal does not wait.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.routing import BaseRoute

from rootward import telemetry
from rootward.ca import own, reading
from rootward.ca.authorities import settle as settle_authorities
from rootward.ca.certified import learn_new
from rootward.ca.freeze import look_again
from rootward.ca.installation import Installation
from rootward.ca.log import keep_head
from rootward.ca.publish import current_crl
from rootward.ca.publish import ready as crls_are_ready
from rootward.ca.reconcile import reconcile
from rootward.ca.responder import Responder
from rootward.ca.sequence import note_head, settle
from rootward.config import Config, address, secret_path
from rootward.core.issuer import Issuer
from rootward.core.problems import Problem
from rootward.fleet.gauges import Gauges
from rootward.home import keep_roots, ways
from rootward.keys import tls_private
from rootward.protocols import ops, pki
from rootward.protocols.acme.app import routes as acme_routes
from rootward.protocols.acme.call import Settings as AcmeSettings
from rootward.protocols.acme.validator import Validator
from rootward.protocols.edge import Edge
from rootward.protocols.http import HttpLimits
from rootward.protocols.listen import Listener, bind
from rootward.protocols.pulse import Pulse
from rootward.protocols.rest.app import routes as rest_routes
from rootward.protocols.rest.room import Rooms
from rootward.protocols.tls import ServerKey, TlsIdentity
from rootward.store.failpoint import failpoint
from rootward.worker import JOBS, Job, Worker, break_leases

log = structlog.get_logger()

_OCSP_BYTES: Final = 256 * 1024
_OWN_EVERY: Final = timedelta(seconds=30)
_HEAD_EVERY: Final = timedelta(seconds=1)
_AUTHORITIES_EVERY: Final = timedelta(seconds=1)
_VALIDATIONS_EVERY: Final = timedelta(seconds=1)
_CHAOS_SECONDS: Final = 2.0  # how long the test mode waits before each look at a challenge
_WORKER_SECONDS: Final = 5.0
_SHORTEST_TOKEN: Final = 16


def run(
    config: Config,
    open_installation: Callable[[], Awaitable[Installation]],
    *,
    announce: Callable[[], None],
    local: Mapping[str, Job] | None = None,
    environ: Mapping[str, str],
) -> None:
    """Opens the installation and serves it until a signal comes. `announce` is called once, when every listener
    accepts.
    """
    telemetry.configure_logging(config.log.format, config.log.level)

    async def main() -> None:
        inst = await open_installation()
        await serve(config, inst, announce=announce, local=local, environ=environ)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def serve(
    config: Config,
    inst: Installation,
    *,
    announce: Callable[[], None],
    local: Mapping[str, Job] | None = None,
    environ: Mapping[str, str],
) -> None:
    """Serves until SIGTERM or SIGINT and closes the installation's store. `local` are further jobs of this process.

    Problem RW-CONFIG when an address cannot be had, and whatever the authorities' keys and the store have to say.
    """
    sockets = {}
    listeners: list[Listener] = []
    try:
        for door in ("https", "mtls", "http"):
            sockets[door] = bind(f"listen.{door}", address(getattr(config.listen, door)))
        _more_files()
        own.register(inst)
        await break_leases(inst)
        await reconcile(inst)  # without a lease: each intent is closed by compare-and-set on its own
        await settle(inst)
        if inst.log is not None:
            await note_head(inst)
        failpoint("start.settled")
        responder = Responder(inst)
        await _renew_responders(responder)
        own_jobs: dict[str, Job] = {
            "responders": Job(_OWN_EVERY, lambda *_: responder.renew()),
            "tls": Job(_OWN_EVERY, lambda inst, _: tls.renew(inst)),
            "revocations": Job(timedelta(seconds=reading.EVERY), lambda *_: responder.count.refresh()),
            "head": Job(_HEAD_EVERY, keep_head),
            "authorities": Job(_AUTHORITIES_EVERY, lambda inst, _: _learn(inst, responder)),
        }
        validator = Validator(inst, ways(config), slow=_CHAOS_SECONDS if config.acme.chaos else 0.0)
        own_jobs["acme-validations"] = Job(_VALIDATIONS_EVERY, validator.take_up)
        worker = Worker(inst, shared=JOBS, local=own_jobs | dict(local or {}))
        await _publish_what_is_due(inst, worker)
        failpoint("start.published")
        tls = await Tls.begin(inst, config.home)
        state = ops.State()
        rooms = Rooms(config.limits.import_bytes)
        scrape_token = _scrape_token(config, environ)
        doors = _doors(inst, responder, state, Gauges(inst), scrape_token, rooms, _acme(config), validator)
        limits = _limits(config)
        listeners = [
            Listener(
                name,
                sockets[name],
                Edge(name, doors[name], requests=config.limits.requests),
                limits=limits,
                tls=tls.identities.get(name),
                connections=config.limits.connections,
                connections_per_address=config.limits.connections_per_address,
                handshake_seconds=config.limits.handshake_seconds,
            )
            for name in sockets
        ]
        stop, hurry = _signals()
        pulse = Pulse()
        pulse.start()
        for listener in listeners:
            listener.start()
        worker.start()
        if config.acme.chaos:
            log.warning("acme.chaos")
        log.info("server.start", https=config.listen.https, mtls=config.listen.mtls, http=config.listen.http)
        _spare_the_collector()
        failpoint("start.listening")
        announce()
        await stop.wait()
        log.info("server.stop")
        state.stopping = True
        pulse.stop()
        await _unless(hurry, _close(inst, listeners, worker, validator, config.limits.shutdown_seconds))
        log.info("server.stopped")
    finally:
        for sock in sockets.values():
            sock.close()
        inst.db.close()


async def _publish_what_is_due(inst: Installation, worker: Worker) -> None:
    """CRLs that are due, before anybody can ask, under the job's lease: another replica may be making them. One that
    cannot be made now must not keep the others from being served: the worker goes on trying.
    """
    await worker.begin("publish", partial(crls_are_ready, inst))


async def _renew_responders(responder: Responder) -> None:
    """One that cannot be had now must not keep CRLs and the others' answers from being served: the worker goes on."""
    try:
        await responder.renew()
    except Exception:
        log.exception("ocsp.responder-failed")


async def _learn(inst: Installation, responder: Responder) -> None:
    """An authority that another process, or another door of this one, has certified is served here too."""
    if await settle_authorities(inst) or await learn_new(inst):
        await responder.renew()


def _spare_the_collector() -> None:
    """What is there now stays, and requests leave few cycles behind: looking for them less often saves a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


async def _close(
    inst: Installation, listeners: list[Listener], worker: Worker, validator: Validator, seconds: float
) -> None:
    await asyncio.gather(
        *(listener.close(seconds) for listener in listeners), worker.stop(min(seconds, _WORKER_SECONDS))
    )
    await validator.close()
    try:
        await settle(inst)  # so that a stopped installation has no event outside its tree
        await keep_head(inst)
    except Problem as problem:
        log.warning("log.unsettled", error=str(problem))


async def _unless(event: asyncio.Event, work: Awaitable[None]) -> None:
    """Does the work, or as much of it as there is until the event."""
    doing, waiting = asyncio.ensure_future(work), asyncio.create_task(event.wait())
    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not doing.done():
        doing.cancel()
    await asyncio.gather(doing, waiting, return_exceptions=True)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first and by the second SIGTERM or SIGINT."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def asked() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked)
    return stop, hurry


def _doors(
    inst: Installation,
    responder: Responder,
    state: ops.State,
    gauges: Gauges,
    scrape_token: str | None,
    rooms: Rooms,
    acme: AcmeSettings,
    validator: Validator,
) -> dict[str, list[BaseRoute]]:
    """What is on which listener. Plain HTTP has nothing but what is signed."""
    crl = partial(current_crl, inst)
    public = partial(pki.routes, inst, crl=crl, ocsp=responder.answer)

    def private() -> list[BaseRoute]:
        about = ops.routes(inst, crl=crl, state=state, gauges=gauges, scrape_token=scrape_token)
        return [*public(tls=True), *about, *rest_routes(inst, rooms)]

    # ACME's clients have no certificate yet: theirs is the listener that everybody has (RFC 8555 6.1).
    return {"https": [*private(), *acme_routes(inst, acme, validator)], "mtls": private(), "http": public(tls=False)}


class Tls:
    """What the two TLS listeners show and whom they let in, kept up to date; and `root.pem` in the home, by which the
    commands of this machine check what is shown. Use `begin`.
    """

    def __init__(self, inst: Installation, home: Path) -> None:
        self._home = home
        self._under = _root_above(inst)
        self._refused: str | None = None
        self._roots = _client_roots(inst)
        self._shown = ""
        self.identities: dict[str, TlsIdentity] = {}

    @classmethod
    async def begin(cls, inst: Installation, home: Path) -> Tls:
        """The first material, with its root in place."""
        made = cls(inst, home)
        made._keep_roots(inst)
        first = await _first_material(inst)
        made._shown = first[0]
        made.identities = {"https": TlsIdentity(*first), "mtls": TlsIdentity(*first, client_roots=made._roots)}
        return made

    async def renew(self, inst: Installation) -> None:
        """A new certificate at half of the old one's life, or from the authority that took the place of its own; new
        client roots when authorities come or go. `root.pem` has a new root before, and a compromised one until after.
        """
        await look_again(inst)
        own.register(inst)
        self._keep_roots(inst)
        chain, key = await _material(inst)
        if chain != self._shown:
            for identity in self.identities.values():
                identity.replace(chain, key)
            self._shown = chain
            log.info("tls.replaced")
        self._under = _root_above(inst)
        if (roots := _client_roots(inst)) != self._roots:
            self.identities["mtls"].replace_roots(roots)
            self._roots = roots

    def _keep_roots(self, inst: Installation) -> None:
        why, path = None, str(self._home / "root.pem")
        try:
            if keep_roots(inst, self._home, *self._under, *_root_above(inst)):
                log.info("roots.replaced", path=path)
        except OSError as error:
            why = str(error.strerror)
        if why is not None and why != self._refused:
            log.warning("roots.not-written", path=path, why=why)
        self._refused = why


def _root_above(inst: Installation) -> list[Issuer]:
    """The root that the server's own chain ends under, if it is known here."""
    top, known = own.tls_authority(inst).issuer.chain[-1], inst.authorities.values()
    return [one.issuer for one in known if one.kind == "root" and one.issuer.certificate == top]


def _client_roots(inst: Installation) -> list[x509.Certificate]:
    return [one.issuer.certificate for _, one in sorted(inst.authorities.items()) if one.compromised_at is None]


async def _first_material(inst: Installation) -> tuple[str, ServerKey]:
    """At the start. A certificate that is not renewed now, because the authority's key is away, is shown until its end:
    the job goes on trying.
    """
    try:
        return await _material(inst)
    except Problem as problem:
        kept = await own.standing(inst, f"tls:{own.TLS}", own.TLS)
        if problem.code != "RW-KEY-UNAVAILABLE" or kept is None:
            raise
        log.warning("tls.not-renewed", until=str(kept.row.not_after), why=problem.detail)
        return _shown(inst, kept)


async def _material(inst: Installation) -> tuple[str, ServerKey]:
    """The server's own chain (PEM, without the root) and its key."""
    return _shown(inst, await own.obtain(inst, f"tls:{own.TLS}", own.TLS))


def _shown(inst: Installation, mine: own.Own) -> tuple[str, ServerKey]:
    issuers = [ca for ca in own.tls_authority(inst).issuer.chain if ca.subject != ca.issuer]
    chain = "".join(one.public_bytes(Encoding.PEM).decode() for one in (mine.certificate, *issuers))
    key = tls_private(mine.key)
    if not isinstance(key, ServerKey):
        raise Problem("RW-KEY-TYPE", "The server's own TLS key is of a type that TLS cannot use.")
    return chain, key


def _acme(config: Config) -> AcmeSettings:
    acme = config.acme
    return AcmeSettings(
        terms=acme.terms,
        profile=acme.profile,
        chaos=acme.chaos,
        orders_per_hour=acme.orders_per_hour,
        failures_per_hour=acme.failures_per_hour,
        accounts_per_hour=acme.accounts_per_hour,
    )


def _limits(config: Config) -> HttpLimits:
    limits = config.limits
    return HttpLimits(
        url_bytes=limits.url_bytes,
        header_bytes=limits.header_bytes,
        header_count=limits.header_count,
        body_bytes=limits.body_bytes,
        bodies=(
            (b"/ocsp/", _OCSP_BYTES),
            (b"/api/v1/imports", limits.import_bytes),
            (b"/api/v1/blocked-keys", limits.import_bytes),
            (b"/api/v1/ceremonies", limits.import_bytes),
        ),
        header_seconds=limits.header_seconds,
        body_seconds=limits.body_seconds,
        idle_seconds=limits.idle_seconds,
        write_seconds=limits.write_seconds,
    )


def _scrape_token(config: Config, environ: Mapping[str, str]) -> str | None:
    if not config.metrics.scrape_token:
        return None
    path: Path = secret_path(config.metrics.scrape_token, config.home, environ)
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        detail = f"metrics.scrape_token: {path} cannot be read ({type(error).__name__})."
        raise Problem("RW-CONFIG", detail, field="metrics.scrape_token") from error
    if len(token) < _SHORTEST_TOKEN:
        detail = f"metrics.scrape_token: the token in {path} must have at least {_SHORTEST_TOKEN} characters."
        raise Problem("RW-CONFIG", detail, field="metrics.scrape_token")
    return token


def _more_files() -> None:
    """As many open files as this user may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
