"""A user's keys: one that signs what they ask, and those that open what is answered.

A directory per server holds ``user-key.pem`` and ``user-cert.pem`` (the signing key with its certificate chain),
``user-cert.csr`` (the request for the certificate), ``seal-keys.txt`` (an ``age`` identity file, the newest key first),
``seal-keys.json`` (the list of keys that was signed last) and, if the organization wants one, ``recovery.txt`` (``age``
recipients that can open every answer, too). Private files have mode 0600 and never leave the machine; a passphrase, if
there is one, encrypts the signing key and the keys that open answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.client.seal_file import SealFile, SealKey, broken, check_private
from vantage.common import dsse, names, pki, sealing
from vantage.common.attestation import KEYS_LIFETIME, sign_keys
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.files import replace_private
from vantage.common.seen_versions import SeenVersions
from vantage.common.statements import KeyBundle

KEY_FILE = "user-key.pem"
CERTIFICATE_FILE = "user-cert.pem"
REQUEST_FILE = "user-cert.csr"
SECRETS_FILE = "seal-keys.txt"
PUBLISHED_FILE = "seal-keys.json"
RECOVERY_FILE = "recovery.txt"
SEEN_FILE = "seen-keys.json"
MAX_RECOVERY = 8
KIND = "organizations/users"

Passphrase = Callable[[], bytes | None]
"""Asked for the passphrase of the keys, and only when they have one; None when nobody knows it."""


class KeyFiles:
    """The directory, whether or not there is a certificate in it yet.

    Args:
        directory: where the files are.
        clock: the time.
        passphrase: see ``Passphrase``; it is asked once.
    """

    def __init__(self, directory: Path, clock: Clock | None = None, passphrase: Passphrase | None = None) -> None:
        self.directory = directory
        self._clock = clock or SystemClock()
        self._ask = passphrase
        self._passphrase: bytes | None = None
        self._secrets = SealFile(directory / SECRETS_FILE, self._clock, self._asked)

    @property
    def exists(self) -> bool:
        """Whether keys were made here."""
        return (self.directory / KEY_FILE).exists()

    def create(self, name: str, passphrase: bytes | None = None) -> Path:
        """Make a signing key, the request for its certificate, and a key that opens answers.

        All of it is there when this returns, or nothing.

        Args:
            name: whose, organizations/{organization}/users/{user}.
            passphrase: encrypts the secret keys.

        Returns:
            The file of the request.

        Raises:
            ConflictError: ALREADY_EXISTS, there are keys: they are never overwritten.
            InvalidArgumentError: the name will not do.
        """
        names.parse(name, KIND, field="name")
        if self.exists:
            raise error(
                Reason.ALREADY_EXISTS,
                f"there are keys in {self.directory}: 'vantage key rotate' makes a new one that opens answers; to "
                "begin anew, move the directory away",
                path=str(self.directory),
            )
        with _writing(self.directory):
            self.directory.mkdir(mode=0o700, exist_ok=True)
            key = pki.create_key()
            request = pki.create_request(key, name).public_bytes(serialization.Encoding.PEM)
            replace_private(self.directory / REQUEST_FILE, request.decode())
            self._secrets.create(passphrase)
            self._passphrase = passphrase
            # The signing key appears last and whole: until it is there, there are no keys.
            partial = self.directory / f".{KEY_FILE}.new"
            partial.unlink(missing_ok=True)
            pki.write_key(partial, key, passphrase)
            partial.replace(self.directory / KEY_FILE)
        return self.directory / REQUEST_FILE

    def name(self) -> str:
        """Whose keys these are, as the request for their certificate says.

        Raises:
            VantageError: there are no keys, or the request is not readable.
        """
        self._must_exist()
        try:
            return pki.load_request((self.directory / REQUEST_FILE).read_bytes()).name
        except OSError as problem:
            raise broken(f"{self.directory / REQUEST_FILE} cannot be read: {problem.strerror}") from problem

    def install(self, pem: bytes) -> x509.Certificate:
        """Keep the certificate that the organization issued, or a newer one.

        Args:
            pem: certificates, the user's own first; that of the organization's authority may follow.

        Raises:
            InvalidArgumentError: CERTIFICATE_INVALID, it is not for this key or of another name.
        """
        chain = pki.load_certificates(pem)
        _check_chain(chain, self.name(), self._clock.now())
        if chain[0].public_key() != pki.load_request((self.directory / REQUEST_FILE).read_bytes()).public_key:
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"the certificate is for another key than the one in {self.directory}: have {REQUEST_FILE} of that "
                "directory certified",
            )
        with _writing(self.directory):
            replace_private(self.directory / CERTIFICATE_FILE, "".join(pki.to_pem(each) for each in chain))
        return chain[0]

    def chain(self) -> list[x509.Certificate]:
        """The certificate chain; empty as long as there is none.

        Raises:
            VantageError: it is not readable.
        """
        try:
            return pki.load_certificates((self.directory / CERTIFICATE_FILE).read_bytes())
        except FileNotFoundError:
            return []
        except OSError as problem:
            raise broken(f"{self.directory / CERTIFICATE_FILE} cannot be read: {problem.strerror}") from problem

    def open(self, passphrase: Passphrase | None = None) -> Keyring:
        """The keys, ready for use, after checking that key, certificate and name fit.

        Args:
            passphrase: see ``Passphrase``; in place of the one before.

        Raises:
            VantageError: something is missing or does not fit; the message says which command helps.
        """
        if passphrase is not None:
            self._ask, self._passphrase = passphrase, None
        name, chain = self.name(), self.chain()
        if not chain:
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"your key has no certificate yet: send {self.directory / REQUEST_FILE} to the admin of your "
                "organization, who answers with 'vantage user issue', then run 'vantage key import FILE'",
                path=str(self.directory / CERTIFICATE_FILE),
            )
        _check_chain(chain, name, self._clock.now())
        path = self.directory / KEY_FILE
        check_private(path)
        encrypted = b"ENCRYPTED" in path.read_bytes()
        key = pki.read_key(path, self._asked() if encrypted else None)
        if key.public_key() != chain[0].public_key():
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"{CERTIFICATE_FILE} in {self.directory} is not for the key beside it: 'vantage key import FILE' puts "
                "the right one there",
            )
        return Keyring(name, key, tuple(chain), tuple(self.identities()), tuple(self.recovery()))

    def identities(self) -> list[str]:
        """The secret keys that open answers, the newest first."""
        self._must_exist()
        return self._secrets.identities()

    def seal_keys(self) -> list[SealKey]:
        """Their public halves, the newest first."""
        self._must_exist()
        return self._secrets.keys()

    def recovery(self) -> list[str]:
        """Recipients of the organization that can open every answer, too.

        Raises:
            VantageError: the file is not usable.
        """
        path = self.directory / RECOVERY_FILE
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as problem:
            raise broken(f"{path} cannot be read: {problem}") from problem
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if len(found) > MAX_RECOVERY:
            raise broken(f"{path} names {len(found)} recipients, at most {MAX_RECOVERY} are allowed")
        try:
            return [sealing.check_recipient(each) for each in found]
        except VantageError as problem:
            raise broken(f"{path}: {problem.message}") from problem

    def set_recovery(self, recipients: Sequence[str]) -> None:
        """Let the holders of these keys open every answer from now on, too; nobody when empty.

        Raises:
            InvalidArgumentError: KEY_INVALID.
        """
        self._must_exist()
        if len(recipients) > MAX_RECOVERY:
            raise error(Reason.KEY_INVALID, f"at most {MAX_RECOVERY} recovery keys are allowed")
        checked = dict.fromkeys(sealing.check_recipient(each) for each in recipients)
        with _writing(self.directory):
            replace_private(self.directory / RECOVERY_FILE, "".join(f"{each}\n" for each in checked))

    def rotate(self) -> str:
        """Make a new key for answers; the older ones go on to open what was sealed to them. Returns its public half."""
        self._must_exist()
        with _writing(self.directory):
            return self._secrets.rotate()

    def revoke(self, recipient: str) -> str:
        """Destroy a key for answers: what was sealed to it does not open here any more.

        When it was the newest, a new one takes its place. Returns the public half of the newest.

        Raises:
            NotFoundError: there is none like that.
        """
        self._must_exist()
        with _writing(self.directory):
            return self._secrets.revoke(recipient)

    def sign_list(self, keyring: Keyring, *, above: int = 0) -> bytes:
        """Sign the list of keys that others seal to, with a version above all before it, and keep it.

        Args:
            keyring: signs.
            above: the version must be higher than this one, too.
        """
        now = self._clock.now()
        # Seconds, so that the number grows even when this directory was lost.
        version = max(int(now.timestamp()), above + 1, self.published_version() + 1)
        bundle = KeyBundle(
            holder=keyring.name,
            version=version,
            recipients=(sealing.recipient_of(keyring.identities[0]),),
            created=now,
            expires=min(now + KEYS_LIFETIME, keyring.chain[0].not_valid_after_utc),
        )
        envelope = sign_keys(bundle, keyring.key, keyring.sent_chain)
        with _writing(self.directory):
            replace_private(self.directory / PUBLISHED_FILE, envelope.decode())
        return envelope

    def published_version(self) -> int:
        """Version of the list that was signed last; 0 for none."""
        try:
            return KeyBundle.decode(dsse.peek((self.directory / PUBLISHED_FILE).read_bytes())).version
        except (OSError, VantageError):
            return 0

    def seen(self) -> SeenVersions:
        """Versions of others' lists of keys that were seen."""
        return SeenVersions(self.directory / SEEN_FILE)

    def _asked(self) -> bytes | None:
        if self._passphrase is None and self._ask is not None:
            self._passphrase = self._ask()
        return self._passphrase

    def _must_exist(self) -> None:
        if not self.exists:
            raise error(
                Reason.KEY_INVALID, f"there are no keys in {self.directory}: make them with 'vantage key create'"
            )


@dataclass(frozen=True)
class Keyring:
    """Keys that are ready for use; ``KeyFiles.open`` builds it.

    Attributes:
        name: whose: organizations/{organization}/users/{user}.
        key: signs orders.
        chain: its certificate chain, leaf first.
        identities: secret keys that open answers, the newest first.
        recovery: recipients of the organization that can open every answer, too.
    """

    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    identities: tuple[str, ...]
    recovery: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Keyring({self.name!r})"

    @property
    def organization(self) -> str:
        """Whose authority certified the key."""
        return "/".join(self.name.split("/")[:2])

    @property
    def sent_chain(self) -> tuple[x509.Certificate, ...]:
        """The chain without the authority, which whoever trusts it has."""
        return tuple(each for each in self.chain if each.issuer != each.subject)

    @property
    def recipients(self) -> tuple[str, ...]:
        """Whom answers are sealed to."""
        return tuple(dict.fromkeys((sealing.recipient_of(self.identities[0]), *self.recovery)))


def _check_chain(chain: Sequence[x509.Certificate], name: str, now: datetime) -> None:
    leaf = chain[0]
    try:
        certified = pki.certified_name(leaf)
    except (VantageError, *pki.MALFORMED):
        certified = "nobody known here"
    if certified != name:
        raise error(
            Reason.CERTIFICATE_INVALID,
            f"the certificate is for {certified}, your key for {name}: 'vantage key import FILE' takes the right one",
        )
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise error(
            Reason.CERTIFICATE_INVALID,
            f"the certificate counts from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}: "
            f"send {REQUEST_FILE} to the admin of your organization again, who answers with 'vantage user issue', then "
            "run 'vantage key import FILE'",
        )


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Nobody else changes the directory meanwhile."""
    import filelock

    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filelock.FileLock(directory.parent / f".{directory.name}.lock", mode=0o600):
            yield
    except OSError as problem:
        raise broken(f"{directory} cannot be written: {problem.strerror or problem}") from problem
