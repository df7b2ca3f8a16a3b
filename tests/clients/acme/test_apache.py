"""Apache's mod_md gets its certificate itself and serves with it from the next graceful restart on."""

from __future__ import annotations

import pytest

from tests.clients.acme.servers import apache, reload_apache, visit
from tests.clients.acme.world import World, assert_good
from tests.support.programs import SECONDS, until


@pytest.mark.slow
def test_apache_serves_with_a_certificate_of_ours(acme: World) -> None:
    with apache(acme, "apache.test") as folder:
        until((folder / "md" / "staging" / "apache.test" / "pubcert.pem").exists, seconds=SECONDS)
        until(
            lambda: "The Managed Domain apache.test has been setup" in (folder / "error.log").read_text(),
            seconds=SECONDS,
        )
        assert visit(acme, "apache.test") is None  # a certificate of its own making until then
        reload_apache(folder)
        assert until(lambda: visit(acme, "apache.test"), seconds=SECONDS) == "hello from apache.test"
        domain = folder / "md" / "domains" / "apache.test"
        assert_good(acme, domain / "pubcert.pem", "DNS:apache.test", key=domain / "privkey.pem")
