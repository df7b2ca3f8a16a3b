"""Every relative link of every document leads somewhere, to a heading where it names one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.markdown import ROOT, anchors, documents, links, read

# A form to be copied: its links are filled in there.
FORM = ROOT / "docs" / "adr" / "template.md"


def broken(document: Path, text: str) -> list[str]:
    """The links in `text`, which stands in `document`, that lead nowhere."""
    return [link for link in links(text) if not leads(document, text, link)]


def leads(document: Path, text: str, link: str) -> bool:
    """Whether there is something at a link; what is not ours is taken for granted."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (document.parent / parts.path).resolve() if parts.path else document
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not parts.fragment or parts.fragment in anchors(text if target == document else read(target))


@pytest.mark.parametrize(
    "document", [path for path in documents() if path != FORM], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert broken(document, read(document)) == []


def test_the_documents_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in documents()}
    assert {"README.md", "docs/architecture.md", "docs/adr/0001-record-decisions.md", "docs/reference/cli.md"} <= names


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](README.md)", []),
        ("[a](docs/)", []),
        ("[a](https://example.org/x)", []),
        ("[a](gone.md)", ["gone.md"]),
        ("![a](gone.png)", ["gone.png"]),
        ("[a](../outside.md)", ["../outside.md"]),
        ("`[a](gone.md)`", []),
        ("```text\n[a](gone.md)\n```", []),
        ("[a](#a-heading-1)\n# A heading\n# A heading", []),
        ("[a](#b)\n# A", ["#b"]),
        ("[a](docs/adr/template.md#weighed)", []),
        ("[a](docs/adr/template.md#nothing)", ["docs/adr/template.md#nothing"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, wrong: list[str]) -> None:
    assert broken(ROOT / "README.md", text) == wrong
