"""The certificate of a run's HTTPS."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True)
class Certificate:
    """The two PEM files of a certificate."""

    cert: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate for 127.0.0.1 with a P-256 key, the kind that users get by default.

    :arg folder: where to write its files.
    """
    issued = trustme.CA().issue_cert("127.0.0.1")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    made.key.write_bytes(
        key.private_bytes(  # Granian reads only this form
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made
