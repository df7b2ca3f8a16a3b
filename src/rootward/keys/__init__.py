"""Where private keys live. What leaves this room is a `Key`, which is opaque, and what `sign_tbs` makes with it.

`BACKENDS` is the list of places; `tests/contract/test_keys.py` runs over it, so that listing one tests it.
"""

from rootward.keys.aws import open_aws
from rootward.keys.azure import open_azure
from rootward.keys.backend import Backend, KeySettings, Opener, check_fits
from rootward.keys.file import key_files, open_file, reseal
from rootward.keys.gcp import open_gcp
from rootward.keys.kek import (
    Argon2,
    Kek,
    create_kek_file,
    create_passphrase_file,
    kek_from_bytes,
    kek_from_credential,
    kek_from_file,
    kek_from_passphrase,
    kek_from_passphrase_file,
)
from rootward.keys.key import TLS_LABEL, Asker, Key, NotSigned, Refused, SignatureUnknown, sign_tbs, tls_private
from rootward.keys.memory import open_memory
from rootward.keys.pkcs11 import open_pkcs11
from rootward.keys.remote import RemoteBackend, open_signer
from rootward.keys.ring import Ring
from rootward.keys.sealing import Sealer

BACKENDS: dict[str, Opener] = {
    "file": open_file,
    "memory": open_memory,
    "pkcs11": open_pkcs11,
    "aws-kms": open_aws,
    "gcp-kms": open_gcp,
    "azure-kv": open_azure,
    "signer": open_signer,
}

__all__ = [
    "BACKENDS",
    "TLS_LABEL",
    "Argon2",
    "Asker",
    "Backend",
    "Kek",
    "Key",
    "KeySettings",
    "NotSigned",
    "Opener",
    "Refused",
    "RemoteBackend",
    "Ring",
    "Sealer",
    "SignatureUnknown",
    "check_fits",
    "create_kek_file",
    "create_passphrase_file",
    "kek_from_bytes",
    "kek_from_credential",
    "kek_from_file",
    "kek_from_passphrase",
    "kek_from_passphrase_file",
    "key_files",
    "open_file",
    "open_memory",
    "open_pkcs11",
    "open_signer",
    "reseal",
    "sign_tbs",
    "tls_private",
]
