"""Keys and certificates: each organization is its own root of trust.

X.509 with ECDSA P-256 keys. A certificate names its holder in a URI subject alternative name: ``vantage:`` and the
resource name, e.g. ``vantage:organizations/clara/nodes/clara-1`` or ``vantage:organizations/clara/users/rosa``. The
organization's authority signs its holders' certificates directly; its private key never leaves the organization.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from vantage.common import names
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, VantageError, error

URI_PREFIX = "vantage:"
HOLDER_KINDS = ("organizations/nodes", "organizations/users")
"""Kinds of names that an organization's authority certifies."""
AUTHORITY_LIFETIME = timedelta(days=3650)
HOLDER_LIFETIME = timedelta(days=365)
_BACKDATE = timedelta(minutes=5)
"""Certificates count from a little before they are made, so that a clock slightly behind does not refuse them."""
MAX_REQUEST_BYTES = 65_536
MALFORMED = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # what will be an error is one where warnings are
)
"""What the library raises for a stranger's bytes; it parses late, so any access may raise them."""
MAX_CHAIN = 4
"""Longest chain that is looked at: bounds the work that a stranger can cause."""

CA_KEY_FILE = "ca-key.pem"
CA_CERTIFICATE_FILE = "ca-cert.pem"


def create_key() -> ec.EllipticCurvePrivateKey:
    """A new ECDSA P-256 private key."""
    return ec.generate_private_key(ec.SECP256R1())


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read.

    Raises:
        ConflictError: when the file exists: a key is never overwritten.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise error(
            Reason.ALREADY_EXISTS, f"{path} exists: choose another place, or move it away first", path=str(path)
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> None:
    """Write a key as PKCS#8 PEM with mode 0600, encrypted when there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    write_private(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def read_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a key that ``write_key`` (or OpenSSL) wrote.

    Raises:
        InvalidArgumentError: not readable, not a P-256 key, passphrase missing or wrong.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as problem:
        raise error(Reason.KEY_INVALID, f"cannot read the key {path}: {problem.strerror}", path=str(path)) from problem
    except TypeError:
        hint = "has a passphrase: give it" if passphrase is None else "has no passphrase: leave it out"
        raise error(Reason.KEY_INVALID, f"the key {path} {hint}", path=str(path)) from None
    except ValueError:
        raise error(
            Reason.KEY_INVALID, f"{path} is not a private key in PEM, or its passphrase is wrong", path=str(path)
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise error(Reason.KEY_INVALID, f"the key {path} is not an ECDSA P-256 key", path=str(path))
    return key


def fingerprint(certificate: x509.Certificate) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the certificate's DER bytes."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def key_id(certificate: x509.Certificate) -> str:
    """Hexadecimal SHA-256 of the certificate's public key: the same for two certificates of one authority."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def load_certificates(pem: str | bytes) -> list[x509.Certificate]:
    """Parse one or more PEM certificates.

    Raises:
        InvalidArgumentError: when there is none or one is malformed.
    """
    try:
        return x509.load_pem_x509_certificates(pem.encode() if isinstance(pem, str) else pem)
    except MALFORMED:
        raise error(Reason.CERTIFICATE_INVALID, "not a certificate in PEM") from None


def to_pem(certificate: x509.Certificate) -> str:
    """The certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def create_request(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """A certificate signing request (PKCS#10) of the holder of ``key`` for the resource ``name``."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[-64:])]))
        .add_extension(_alternative_name(name), critical=False)
        .sign(key, hashes.SHA256())
    )


def requested_name(request: x509.CertificateSigningRequest) -> str:
    """The resource name that a signing request asks for.

    Raises:
        InvalidArgumentError: the request's signature is wrong, or it names no resource or several.
    """
    if not request.is_signature_valid:
        raise error(Reason.CERTIFICATE_INVALID, "the signing request is not signed with the key that it carries")
    return _name_in(request.extensions)


@dataclass(frozen=True)
class SigningRequest:
    """What a signing request asks for; only ``load_request`` builds it.

    Attributes:
        public_key: key to certify; whoever made the request holds its private key.
        name: resource name in the request, or empty when it carries none.
    """

    public_key: ec.EllipticCurvePublicKey
    name: str


def load_request(content: bytes) -> SigningRequest:
    """Read and check a signing request (PKCS#10, PEM or DER), ours or that of another tool.

    Raises:
        InvalidArgumentError: CERTIFICATE_INVALID, with what is wrong and what to do.
    """
    if len(content) > MAX_REQUEST_BYTES:
        raise error(Reason.CERTIFICATE_INVALID, f"a signing request has at most {MAX_REQUEST_BYTES} bytes")
    try:
        request = (
            x509.load_pem_x509_csr(content)
            if content.lstrip().startswith(b"-----")
            else x509.load_der_x509_csr(content)
        )
        key = request.public_key()
        valid = request.is_signature_valid
        extensions = request.extensions
        named = any(isinstance(each.value, x509.SubjectAlternativeName) for each in extensions)
    except MALFORMED:
        raise error(Reason.CERTIFICATE_INVALID, "not a certificate signing request in PEM or DER") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise error(
            Reason.CERTIFICATE_INVALID,
            "the signing request is for another kind of key: make it with an ECDSA P-256 key (prime256v1)",
        )
    if not valid:
        raise error(Reason.CERTIFICATE_INVALID, "the signing request is not signed with the key that it carries")
    return SigningRequest(key, _name_in(extensions) if named else "")


@dataclass(frozen=True)
class CertifiedName:
    """A resource name that a chain to a trusted authority vouches for; only ``verify_chain`` builds it.

    Attributes:
        name: the holder.
        organization: whose authority vouches for it.
        certificate: of the holder.
        authority: certificate of the authority.
    """

    name: str
    organization: str
    certificate: x509.Certificate
    authority: x509.Certificate


class CertificateAuthority:
    """The authority of one organization, kept in a directory: ``ca-key.pem`` (0600) and ``ca-cert.pem``."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock | None = None
    ) -> None:
        self.key = key
        self.certificate = certificate
        self.organization = _name_in(certificate.extensions)
        self._clock = clock or SystemClock()

    @classmethod
    def create(
        cls, directory: Path, organization: str, *, passphrase: bytes | None = None, clock: Clock | None = None
    ) -> CertificateAuthority:
        """Create the authority of an organization.

        Args:
            directory: made when missing, mode 0700.
            organization: ``organizations/{organization}``.
            passphrase: encrypts the private key.
            clock: for tests.

        Raises:
            ConflictError: the directory holds an authority already.
        """
        names.parse(organization, "organizations", field="organization")
        now = (clock or SystemClock()).now()
        key = create_key()
        certificate = self_signed(key, organization, now)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_key(directory / CA_KEY_FILE, key, passphrase)
        (directory / CA_CERTIFICATE_FILE).write_text(to_pem(certificate))
        return cls(key, certificate, clock)

    @classmethod
    def load(
        cls, directory: Path, *, passphrase: bytes | None = None, clock: Clock | None = None
    ) -> CertificateAuthority:
        """Open the authority in a directory.

        Raises:
            InvalidArgumentError: files missing or unreadable, passphrase missing or wrong.
        """
        key = read_key(directory / CA_KEY_FILE, passphrase)
        path = directory / CA_CERTIFICATE_FILE
        try:
            certificate = load_certificates(path.read_bytes())[0]
        except OSError as problem:
            raise error(Reason.CERTIFICATE_INVALID, f"cannot read {path}: {problem.strerror}", path=str(path)) from None
        if certificate.public_key() != key.public_key():
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"{path} is not the certificate of {directory / CA_KEY_FILE}",
                path=str(path),
            )
        return cls(key, certificate, clock)

    def issue(
        self, name: str, public_key: ec.EllipticCurvePublicKey, *, lifetime: timedelta = HOLDER_LIFETIME
    ) -> x509.Certificate:
        """Certify that the holder of a key is the resource ``name`` of this organization.

        Raises:
            InvalidArgumentError: the name belongs to another organization, or is no node or user.
        """
        if not any(names.is_valid(name, kind) for kind in HOLDER_KINDS):
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"{name[:120]!r} is not a node or a user of an organization: the name must be "
                "organizations/{organization}/nodes/{node} or organizations/{organization}/users/{user}",
            )
        if not name.startswith(f"{self.organization}/"):
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"the authority of {self.organization} cannot certify {name}: ask the authority of its organization",
                name=name,
            )
        now = self._clock.now()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[-64:])]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(min(now + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(_alternative_name(name), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def self_signed(
    key: ec.EllipticCurvePrivateKey, organization: str, now: datetime, lifetime: timedelta = AUTHORITY_LIFETIME
) -> x509.Certificate:
    """A certificate by which the holder of a key is the authority of an organization."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{organization} authority"[-64:])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_alternative_name(organization), critical=False)
        .sign(key, hashes.SHA256())
    )


def check_authority(certificate: x509.Certificate, organization: str) -> None:
    """Check that a certificate may serve as the authority of an organization.

    Raises:
        InvalidArgumentError: it is not a self-signed authority certificate of that organization.
    """
    problem = None
    try:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca:
            problem = "is not an authority certificate"
        elif (holder := _name_in(certificate.extensions)) != organization:
            problem = f"belongs to {holder}, not to {organization}"
    except (*MALFORMED, InvalidSignature, x509.ExtensionNotFound):
        problem = "is not a self-signed authority certificate"
    if problem is not None:
        raise error(Reason.CERTIFICATE_INVALID, f"the certificate {fingerprint(certificate)} {problem}")


def verify_chain(chain: Sequence[bytes], roots: Sequence[x509.Certificate], at: datetime) -> CertifiedName:
    """Verify a certificate chain and return the name that it certifies.

    Checks: (1) the chain's length and form, (2) path validation to one of ``roots`` at a time (RFC 5280, the profile of
    ``cryptography.x509.verification``), (3) the leaf names exactly one resource, (4) that resource belongs to the
    organization of the root that vouches for it: an authority cannot certify another organization's node.

    Args:
        chain: DER certificates, leaf first.
        roots: trusted authorities.
        at: moment of the check.

    Raises:
        PermissionDeniedError: with reason CERTIFICATE_UNTRUSTED.
    """

    def untrusted(why: str) -> Exception:
        return error(Reason.CERTIFICATE_UNTRUSTED, f"the certificate is not trusted: {why}")

    # (1)
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise untrusted(f"the chain must have 1 to {MAX_CHAIN} certificates")
    try:
        leaf, *intermediates = [x509.load_der_x509_certificate(der) for der in chain]
    except MALFORMED:
        raise untrusted("the chain is malformed") from None
    if not roots:
        raise untrusted("its organization has no authority certificate: upload it with 'vantage organization add-ca'")
    # (2)
    verifier = PolicyBuilder().store(Store(list(roots))).time(at).max_chain_depth(MAX_CHAIN).build_client_verifier()
    try:
        verified = verifier.verify(leaf, intermediates)
    except VerificationError:
        raise untrusted(
            f"it does not chain to the organization's authority, or is expired ({_validity(leaf)})"
        ) from None
    except MALFORMED:
        raise untrusted("the chain is malformed") from None
    # (3)
    try:
        name = _name_in(leaf.extensions)
        authority = _name_in(verified.chain[-1].extensions)
    except (VantageError, *MALFORMED) as problem:
        raise untrusted("it names no resource") from problem
    # (4)
    if not name.startswith(f"{authority}/"):
        raise untrusted(f"the authority of {authority} cannot certify {name}")
    return CertifiedName(name, authority, leaf, verified.chain[-1])


def _validity(certificate: x509.Certificate) -> str:
    try:
        return f"valid {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
    except MALFORMED:
        return "its times are malformed"


def serial_text(certificate: x509.Certificate) -> str:
    """The serial number as people and tools write it: hexadecimal, lower case."""
    return f"{certificate.serial_number:x}"


def _alternative_name(name: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI_PREFIX + name)])


def certified_name(certificate: x509.Certificate) -> str:
    """The name in a certificate, whoever signed it.

    Raises:
        InvalidArgumentError: it names no resource or several.
    """
    try:
        extensions = certificate.extensions
    except MALFORMED:
        raise error(Reason.CERTIFICATE_INVALID, "the certificate is malformed") from None
    return _name_in(extensions)


def _name_in(extensions: x509.Extensions) -> str:
    try:
        value = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise error(Reason.CERTIFICATE_INVALID, "the certificate names no vantage resource") from None
    except MALFORMED:
        raise error(Reason.CERTIFICATE_INVALID, "the certificate's names are malformed") from None
    uris = [uri for uri in value.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(URI_PREFIX)]
    if len(uris) != 1:
        raise error(Reason.CERTIFICATE_INVALID, "the certificate must name exactly one vantage resource")
    return uris[0].removeprefix(URI_PREFIX)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
