"""Whether an address is one of this host's own, as the kernel sees it (rtnetlink(7), RTM_GETROUTE).

The kernel's routing decides: secondary addresses, loopback and whole networks that are routed to this host are all of
the type RTN_LOCAL. Asking sends nothing to anybody.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from rootward.egress.rules import Address

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port: struct nlmsghdr
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, two lengths, …, type, flags: struct rtmsg
_GET, _NEW = 26, 24  # RTM_GETROUTE, RTM_NEWROUTE
_REQUEST: Final = 1  # NLM_F_REQUEST
_DESTINATION: Final = 1  # RTA_DST
_LOCAL: Final = 2  # RTN_LOCAL


def is_here(address: Address) -> bool:
    """Also where the kernel may not be asked: what is shut for ourselves then stays shut."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where = struct.pack("=HH", 4 + len(address.packed), _DESTINATION) + address.packed
    route = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + where
    question = _HEADER.pack(_HEADER.size + len(route), _GET, _REQUEST, 1, 0) + route
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
            kernel.setblocking(False)  # the answer is there when `sendto` returns
            kernel.sendto(question, (0, 0))
            answer = kernel.recv(8192)
    except OSError:
        return True
    if _HEADER.unpack_from(answer)[1] != _NEW:
        return False  # there is no way to it
    return bool(_ROUTE.unpack_from(answer, _HEADER.size)[7] == _LOCAL)
