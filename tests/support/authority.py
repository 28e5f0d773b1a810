"""Certificates for tests: an authority, and PEM files of what it has signed."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Authority:
    """A certificate authority whose files are in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def certificate(self, name: str, password: str | None = None) -> tuple[Path, Path]:
        """Issue a certificate for a host name or an address; return the files of its chain and of its key (PKCS #8)."""
        issued = self._authority.issue_cert(name, common_name=name)
        chain, key = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption(),
            )
        )
        return chain, key

    def keystore(self, name: str) -> Path:
        """Issue a certificate as a broker wants it: the key and the chain in one file."""
        chain, key = self.certificate(name)
        file = self._folder / f"{name}-keystore.pem"
        file.write_bytes(key.read_bytes() + chain.read_bytes())
        return file
