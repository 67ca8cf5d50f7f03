"""tls:// with the stock peers, compression, and frames the scheduler passes on untouched."""

import datetime
import ipaddress
import ssl

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import wait
from distributed.security import Security
from harness import wait_until
from helpers import inc
from rawpeer import Peer


def make_certificates(folder):
    """A certificate authority and one certificate signed by it, as the stock tests have them."""

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def build(subject, issuer, key, issuer_key, authority):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def pem(key):
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = build("Test CA", "Test CA", ca_key, ca_key, True)
    certificate = build("localhost", "Test CA", key, ca_key, False)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(pem(key))
    return {"ca": str(folder / "ca.pem"), "cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_cluster(make_cluster, certificates):
    flags = ("--tls-ca-file", certificates["ca"], "--tls-cert", certificates["cert"], "--tls-key", certificates["key"])
    return make_cluster(2, scheduler_args=("--protocol", "tls", *flags), worker_args=flags)


@pytest.fixture
def security(certificates):
    return Security(
        tls_ca_file=certificates["ca"],
        tls_client_cert=certificates["cert"],
        tls_client_key=certificates["key"],
        require_encryption=True,
    )


def test_tls(tls_cluster, security):
    assert tls_cluster.address.startswith("tls://")
    with tls_cluster.client(security=security, set_as_default=True) as client:
        client.wait_for_workers(2, timeout=30)
        assert client.gather(client.map(inc, range(100))) == list(range(1, 101))
        assert client.run_on_scheduler(inc, 1) == 2
        x = client.submit(np.ones, 3_000_000, workers="w1")
        assert client.submit(np.sum, x, workers="w2").result(timeout=20) == 3_000_000
        assert client.gather(x, direct=False).nbytes == 24_000_000
        data = client.scatter(np.arange(1000))
        assert client.submit(np.sum, data).result() == 499500
        assert all(addr.startswith("tls://") for addr in client.ncores())
        assert len(client.get_versions()["workers"]) == 2


def test_tls_from_functions_on_the_scheduler(tls_cluster, security):
    async def ask(dask_scheduler):
        identity = [await dask_scheduler.rpc(address).identity() for address in dask_scheduler.workers]
        return [reply["type"] for reply in identity]

    with tls_cluster.client(security=security) as client:
        client.wait_for_workers(2)
        assert client.run_on_scheduler(ask) == ["Worker", "Worker"]


def test_tls_refuses_strangers(tls_cluster, tmp_path, security):
    port = tls_cluster.port
    with Peer(port, handshake=False) as plain:
        plain.send(b"\x2a" + b"\0" * 200)
        assert plain.closed()
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=other["ca"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for chain in (None, (other["cert"], other["key"])):
        if chain:
            context.load_cert_chain(*chain)
        with pytest.raises((ssl.SSLError, OSError, EOFError)):
            import socket

            with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as tls:
                tls.settimeout(10)
                tls.sendall(b"\0" * 8)
                if not tls.recv(1):
                    raise EOFError
    with tls_cluster.client(security=security) as client:
        assert client.submit(inc, 1).result(timeout=20) == 2


def test_tls_through_config(make_cluster, certificates, security):
    """Certificates from the environment, `tls://` from --protocol."""
    env = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": certificates["ca"]}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = certificates["cert"]
        env[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = certificates["key"]
    cluster = make_cluster(1, scheduler_args=("--protocol", "tls"), env=env)
    with cluster.client(security=security) as client:
        assert client.submit(inc, 1).result(timeout=20) == 2


@pytest.mark.parametrize("compression", ["auto", "lz4", "zstd", "snappy", "zlib", "None", "False"])
def test_s038_compression(make_cluster, compression):
    """Compressible data through client, scheduler and workers, with each setting of distributed.comm.compression."""
    import dask
    from dask.sizeof import sizeof

    cluster = make_cluster(2, config={"distributed.comm.compression": compression})
    setting = {"None": None, "False": False}.get(compression, compression)
    with dask.config.set({"distributed.comm.compression": setting}):
        with cluster.client() as client:
            client.wait_for_workers(2)
            zeros = client.scatter(np.zeros(500_000), workers=list(client.ncores())[:1], hash=False)
            moved = client.submit(lambda x: x + 1, zeros, workers=list(client.ncores())[1:])
            assert client.gather(moved, direct=False).sum() == 500_000
            text = "compressible " * 50_000
            assert client.submit(len, text).result(timeout=20) == len(text)
            assert client.submit(str.upper, text).result(timeout=20) == text.upper()
            assert client.run_on_scheduler(len, text) == len(text) and sizeof(text)


@pytest.mark.parametrize("name", ["lz4", "zstd", "snappy", "zlib"])
def test_compressed_frames_are_accepted(client, shared, name):
    """A peer on the same host that compresses all the same: the header says so, the receiver follows."""
    from distributed.protocol import Serialized
    from distributed.protocol.compression import compressions, maybe_compress
    from distributed.protocol.serialize import serialize

    value = "compressible text " * 20_000
    header, frames = serialize(value)
    kind, packed = maybe_compress(memoryview(frames[0]), compression=name)
    assert kind == name and compressions[name]
    header["compression"] = (name,)
    data = Serialized(header, [packed])

    async def send():
        scheduler = client.scheduler
        return await scheduler.scatter(data={f"packed-{name}": data}, workers=None, client=client.id, timeout=5)

    from distributed import Future

    future = Future(f"packed-{name}", client)
    client.sync(send)
    wait_until(lambda: future.status == "finished", 10)
    assert client.gather(future, direct=False) == value
    assert client.submit(len, future).result(timeout=10) == len(value)


def test_numpy_of_every_layout(client):
    x = np.arange(24).reshape(2, 3, 4)
    arrays = [x, x.T, x[:, ::2], np.asfortranarray(x), x.astype(">i4"), np.array("text"), np.zeros((0, 3))]
    arrays += [np.array(["a", None], dtype=object), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])]
    futures = client.scatter(arrays, hash=False)
    for future, array in zip(futures, arrays):
        np.testing.assert_array_equal(client.gather(future, direct=False), array)
    results = [client.submit(np.copy, f) for f in futures]
    wait(results)
    for future, array in zip(results, arrays):
        np.testing.assert_array_equal(future.result(), array)


def test_ws_or_unknown_protocol_is_refused_clearly():
    import subprocess

    from harness import environment, scheduler_command

    command = [*scheduler_command(), "--protocol", "carrier-pigeon", "--port", "0", "--no-dashboard"]
    out = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, cwd="/")
    assert out.returncode != 0 and "carrier-pigeon" in out.stdout + out.stderr
