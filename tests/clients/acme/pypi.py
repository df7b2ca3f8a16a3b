"""An account in the hands of the `acme` library, for what no command line does."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import josepy as jose
import requests
from acme import challenges, client, crypto_util, jws, messages, standalone
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.clients.acme.world import World
from tests.support.programs import SECONDS, until

ERROR = "urn:ietf:params:acme:error:"
TRIES = 5  # of a nonce that a server with chaos may refuse


def new_key() -> jose.JWKEC:
    """A key for an account."""
    return jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def make_csr(*names: str) -> bytes:
    """A CSR with a key of its own, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return bytes(crypto_util.make_csr(pem, list(names)))


class Account:
    """A key, and the account that it has. `client` is the library's; `send` signs what the library has no word for."""

    def __init__(self, world: World, *, directory: str | None = None, eab: dict[str, Any] | None = None) -> None:
        self.world, self.key = world, new_key()
        network = client.ClientNetwork(self.key, alg=jose.ES256, verify_ssl=str(world.root))  # type: ignore[arg-type]  # a path does
        network.session.headers["Connection"] = "close"  # a server that stops waits for the goodbye of idle ones
        self.client = client.ClientV2(client.ClientV2.get_directory(directory or world.directory(), network), network)
        wanted = messages.NewRegistration(terms_of_service_agreed=True)
        if eab is not None:
            binding = messages.ExternalAccountBinding.from_data(
                self.key.public_key(), eab["kid"], eab["hmac_key"], self.client.directory
            )
            wanted = wanted.update(external_account_binding=binding)
        self.registration = self.client.new_account(wanted)

    @property
    def url(self) -> str:
        return str(self.registration.uri)

    def at(self, name: str) -> str:
        """A URL of the directory."""
        return str(self.client.directory[name])

    def send(
        self, url: str, payload: object = None, *, key: jose.JWK | None = None, kid: str | None = ""
    ) -> requests.Response:
        """A signed POST, None for POST-as-GET; whatever the answer is. `kid` None: signed with the key alone."""
        body = b"" if payload is None else json.dumps(payload).encode()
        for _ in range(TRIES):
            nonce = self.get(self.at("newNonce")).headers["Replay-Nonce"]
            signed = jws.JWS.sign(
                body,
                key=key or self.key,
                alg=jose.ES256,
                nonce=jose.b64decode(nonce),
                url=url,
                kid=self.url if kid == "" else kid,
            )
            answer = requests.post(
                url,
                data=signed.json_dumps(),
                headers={"Content-Type": "application/jose+json"},
                verify=str(self.world.root),
                timeout=30,
            )
            if error_of(answer) != "badNonce":
                return answer
        raise AssertionError(f"{TRIES} fresh nonces were refused")

    def get(self, url: str) -> requests.Response:
        """A GET, for the few things that need no signature."""
        return requests.get(url, verify=str(self.world.root), timeout=30)

    def order(self, *names: str, **fields: Any) -> requests.Response:
        """newOrder with whatever further fields."""
        identifiers = [{"type": "dns", "value": name} for name in names]
        return self.send(self.at("newOrder"), {"identifiers": identifiers, **fields})

    def obtain(self, *names: str, csr: bytes | None = None, **more: Any) -> messages.OrderResource:
        """A certificate by http-01; what is valid already is not proven again."""
        order = self.client.new_order(csr or make_csr(*names), **more)
        return self.finish(order)

    def finish(self, order: messages.OrderResource, *, chains: bool = False) -> messages.OrderResource:
        """Prove the names of an order and finalize it; with `chains`, get the alternate ones too."""
        statuses = self.prove(order)
        assert statuses == {messages.STATUS_VALID}
        return self._library(order) if chains else self._quickly(order)

    def prove(self, order: messages.OrderResource, *, rightly: bool = True) -> set[messages.Status]:
        """Answer http-01 for each name that is not proven yet, or answer it wrongly; what comes of the names."""
        with answering(self.world) as answers:
            for authorization in order.authorizations:
                if authorization.body.status == messages.STATUS_VALID:
                    continue
                (challenge,) = (one for one in authorization.body.challenges if one.typ == "http-01")
                response, validation = challenge.response_and_validation(self.client.net.key)
                validation = validation if rightly else "something else"
                answers.add(
                    standalone.HTTP01RequestHandler.HTTP01Resource(
                        chall=challenge.chall, response=response, validation=validation
                    )
                )
                self.client.answer_challenge(challenge, response)
            found = until(lambda: self._decided(order), seconds=SECONDS, every=0.05)
        assert found is not None
        return found

    def _decided(self, order: messages.OrderResource) -> set[messages.Status] | None:
        statuses = {self.client.poll(one)[0].body.status for one in order.authorizations}
        return None if messages.STATUS_PENDING in statuses else statuses

    def _quickly(self, order: messages.OrderResource) -> messages.OrderResource:
        """What the library does, without its seconds of sleep."""
        order = self.client.begin_finalization(order)
        body = until(lambda: self._settled(order), seconds=SECONDS, every=0.05)
        return order.update(body=body, fullchain_pem=self.send(body.certificate).text)

    def _settled(self, order: messages.OrderResource) -> messages.Order | None:
        body = messages.Order.from_json(self.send(order.uri).json())
        assert body.status in (messages.STATUS_PROCESSING, messages.STATUS_VALID), body
        return body if body.status == messages.STATUS_VALID else None

    def _library(self, order: messages.OrderResource) -> messages.OrderResource:
        deadline = datetime.now(UTC).astimezone().replace(tzinfo=None)  # the library's times are naive and local
        return self.client.finalize_order(order, deadline + timedelta(seconds=SECONDS), fetch_alternative_chains=True)


def error_of(answer: requests.Response) -> str | None:
    """The ACME name of the error that an answer is; None where it is none."""
    if answer.ok:
        return None
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.text
    return str(answer.json()["type"]).removeprefix(ERROR)


def certificate(order: messages.OrderResource) -> x509.Certificate:
    """The end-entity certificate of a finished order."""
    return x509.load_pem_x509_certificate(order.fullchain_pem.encode())


def serial_of(order: messages.OrderResource) -> str:
    """Its serial, as REST has it."""
    number = certificate(order).serial_number
    return number.to_bytes(number.bit_length() // 8 + 1).hex()


@contextlib.contextmanager
def answering(world: World) -> Iterator[set[challenges.HTTP01]]:
    """A web server that answers http-01 with what is put into the set."""
    answers: set[Any] = set()
    server = standalone.HTTP01Server(("127.0.0.1", world.http01_port), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
