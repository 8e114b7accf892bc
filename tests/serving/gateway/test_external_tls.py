"""The certificate of a server that others run is verified before a byte goes out."""

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway, chat, there
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

PATH = "/v1/chat/completions"


def certificate(folder: Path, host: str) -> Path:
    """A self-signed certificate with its key, for an address."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "penstock test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / f"{host}.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return file


@pytest.mark.parametrize(
    ("named", "trusted", "status"),
    [("127.0.0.1", True, 200), ("127.0.0.1", False, 503), ("127.0.0.2", True, 503)],
)
async def test_certificate_of_a_server_is_verified(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    settings: GatewaySettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    trusted: bool,
    status: int,
) -> None:
    file = certificate(tmp_path, named)
    if trusted:  # as an operator does it, with the variable of OpenSSL
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    engine = FakeEngine()
    engine.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    engine.tls.load_cert_chain(file)
    await engine.start()
    try:
        route = there(engine, url=f"https://127.0.0.1:{engine.port}")
        controller.set_routes(model("demo", route))
        within_s = 20.0 if status == 200 else 0.5
        gateway = make_gateway(settings.model_copy(update={"deadline_s": within_s}))
        await gateway.start()
        answer = await gateway.http.post(PATH, json=chat())
        assert answer.status_code == status
        assert len(engine.seen) == (status == 200)  # no byte of it, its key above all, went out
    finally:
        await engine.stop()
