"""Keys in this process's memory: for tests. They are gone when it ends, and `load` then says that they are missing."""

from __future__ import annotations

from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys.backend import (
    SOFTWARE_ALGORITHMS,
    Backend,
    KeySettings,
    Listing,
    check_algorithm,
    check_id,
    check_label,
    generate_private,
    missing,
)
from rootward.keys.key import Key, PrivateKey


class MemoryBackend(Backend):
    """A dict."""

    name = "memory"
    algorithms = SOFTWARE_ALGORITHMS

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], Key] = {}

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        return None

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)
        key = Key(generate_private(algorithm), label=label)
        self._keys[label, key.public.id] = key
        return key

    def take_in(self, label: str, private: PrivateKey) -> Key:
        """Keep a key that was elsewhere before."""
        check_label(label)
        key = Key(private, label=label)
        self._keys[label, key.public.id] = key
        return key

    def load(self, label: str, public_id: str) -> Key:
        self._check(label, public_id)
        return self._keys[label, public_id]

    def expect(self, label: str, public: PublicKey) -> Key:
        return self.load(label, public.id)

    def delete(self, label: str, public_id: str) -> None:
        self._check(label, public_id)
        del self._keys[label, public_id]

    def list(self) -> Listing:
        return sorted(self._keys)

    def _check(self, label: str, public_id: str) -> None:
        check_label(label)
        check_id(public_id)
        if (label, public_id) not in self._keys:
            raise missing(label, public_id, where="memory")


def open_memory(_settings: KeySettings) -> MemoryBackend:
    """An empty one: two of them share nothing."""
    return MemoryBackend()
