"""The yardstick of HTTP: starlette on uvicorn as they come (httptools, uvloop, no access log), one route that answers
as many bytes as an OCSP answer has. `python -m bench.hello PORT`.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BODY = b"x" * 900


async def _hello(request: Request) -> Response:
    await request.body()
    return Response(BODY, media_type="application/ocsp-response")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/ocsp/{authority}", _hello, methods=["POST"]), Route("/ocsp/{rest:path}", _hello)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", http="httptools")
