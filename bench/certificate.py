"""The certificate of a run's HTTPS."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


def make_certificate(folder: Path) -> dict[str, str]:
    """Make a certificate for 127.0.0.1 with a P-256 key, the kind that users get by default.

    :arg folder: where to write its files.
    :return: the paths of the PEM files ``cert`` and ``key``.
    """
    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(
        private.private_bytes(  # Granian reads only this form
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {"cert": str(cert), "key": str(key)}
