"""An authority, and certificates that it and a stranger have signed, made by the openssl command."""

import subprocess
from pathlib import Path

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def authority(directory: Path, name: str) -> None:
    """NAME.pem and NAME-key.pem: a certificate that may sign others."""
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    openssl("req", "-x509", *KEY, *subject, "-keyout", directory / f"{name}-key.pem", "-out", directory / f"{name}.pem")


def certificate(directory: Path, name: str, signer: str, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
    """NAME.pem and NAME-key.pem, signed."""
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    openssl("req", *KEY, "-subj", f"/CN={name}", "-keyout", directory / f"{name}-key.pem", "-out", request)
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    signing = ["-CA", directory / f"{signer}.pem", "-CAkey", directory / f"{signer}-key.pem", "-CAcreateserial"]
    openssl(
        "x509",
        "-req",
        "-in",
        request,
        *signing,
        "-days",
        "2",
        "-extfile",
        extensions,
        "-out",
        directory / f"{name}.pem",
    )


def everything(directory: Path) -> None:
    """ca, server and client; stranger-ca and stranger."""
    for signer, names in (("ca", ("server", "client")), ("stranger-ca", ("stranger",))):
        authority(directory, signer)
        for name in names:
            certificate(directory, name, signer)
