"""What a password costs who guesses."""

from __future__ import annotations

from vantage.server.domain.passwords import Passwords


async def test_a_real_server_takes_what_rfc_9106_recommends_where_memory_is_scarce() -> None:
    passwords = Passwords()
    try:
        stored = await passwords.hash("correct horse battery staple")
        assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert await passwords.verify(stored, "correct horse battery staple")
        assert not await passwords.verify(stored, "wrong")
        assert not await passwords.verify(None, "nobody has this password")  # the decoy's own
    finally:
        passwords.close()
