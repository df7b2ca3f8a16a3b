"""Bytes to and from one vetted address, plain or by TLS, counted.

Only an address that was just vetted is dialled, and the peer is compared with it once the connection stands. TLS is
done over memory (`ssl.MemoryBIO`), so that every byte of a handshake is counted before OpenSSL sees it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import lru_cache
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from rootward.egress.errors import EgressError, refused
from rootward.egress.rules import Address

_CHUNK: Final = 16 * 1024
_ENDED: Final = "The connection ended in the TLS handshake."


class TooMuch(Exception):
    """More came than a connection may bring."""


class Wire:
    """An open connection to one address. Leaving its `async with` drops it, without a word to the other side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int) -> None:
        self._reader, self._writer = reader, writer
        self._left = budget

    @classmethod
    async def open(cls, address: Address, port: int, budget: int) -> Self:
        """`budget` is how many bytes may come in all. OSError where nobody answers there. The address is dialled as it
        is: no name is looked up on the way.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        reader, writer = await asyncio.open_connection(str(address), port, family=family, limit=_CHUNK)
        wire = cls(reader, writer, budget)
        peer = writer.get_extra_info("peername")
        if peer is None or ip_address(peer[0]) != address or peer[1] != port:
            wire.drop()
            raise refused()
        return wire

    async def send(self, data: bytes) -> None:
        """OSError where the connection is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """What has come, up to 16 KiB; empty at the end. TooMuch, OSError."""
        data = await self._reader.read(_CHUNK)
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch
        return data

    def drop(self) -> None:
        """Closes at once; what was not sent is not sent any more."""
        self._writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


@lru_cache(maxsize=8)
def _context(alpn: str) -> ssl.SSLContext:
    """A client's context that takes every certificate: what is asked is who answers, not who vouches for it. TLS 1.2 at
    least (RFC 8737 4).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn])
    return context


class TlsWire:
    """TLS on an open connection."""

    def __init__(self, wire: Wire, server_name: str | None, alpn: str) -> None:
        self._wire = wire
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(alpn).wrap_bio(self._in, self._out, server_hostname=server_name)

    async def handshake(self) -> None:
        """EgressError `tls` where it fails, ends, or is too large."""
        try:
            while not self._shaken():
                await self._flush()
                data = await self._wire.receive()
                if not data:
                    raise EgressError("tls", _ENDED)
                self._in.write(data)
            await self._flush()
        except TooMuch:
            raise EgressError("tls", "The TLS handshake is too large.", again=False) from None
        except ssl.SSLError:
            await self._last_words()
            raise EgressError("tls", "The TLS handshake failed.") from None
        except OSError:
            raise EgressError("tls", _ENDED) from None

    def _shaken(self) -> bool:
        """Whether the handshake is done with what has come; ssl.SSLError."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    @property
    def leaf(self) -> bytes:
        """The peer's own certificate in DER; empty where it showed none."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def alpn(self) -> str | None:
        """The protocol that the peer took."""
        return self._tls.selected_alpn_protocol()

    async def send(self, data: bytes) -> None:
        """As `Wire.send`; the data are a few hundred bytes, one record."""
        self._tls.write(data)
        await self._flush()

    async def receive(self) -> bytes:
        """As `Wire.receive`, but an end without TLS's own sign is an end too; EgressError `tls` where it is no TLS any
        more.
        """
        while True:
            try:
                return self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()  # an answer to a new key or the like
                data = await self._wire.receive()
                if not data:
                    return b""
                self._in.write(data)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError:
                raise EgressError("tls", "The TLS connection broke.") from None

    async def _flush(self) -> None:
        data = self._out.read()
        if data:
            await self._wire.send(data)

    async def _last_words(self) -> None:
        try:
            await self._flush()  # the alert that says why
        except OSError:
            return
