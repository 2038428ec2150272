"""An MPyC program as one finds it anywhere: it knows nothing of vantage.

Reads this party's numbers from standard input and prints their sums over all parties:

    python program.py -P HOST:PORT -P HOST:PORT -P HOST:PORT -I INDEX < numbers.json
"""

from __future__ import annotations

import json
import sys

from mpyc.runtime import mpc

SCALE = 10**6


async def main() -> None:
    numbers = json.load(sys.stdin)
    # A sum of 2^96 is more than enough; the field is larger, so nothing wraps around.
    secure_integer = mpc.SecInt(96)
    await mpc.start()
    mine = [secure_integer(round(each * SCALE)) for each in numbers]
    shares = mpc.input(mine)  # each number split into random shares, one per party
    sums = [mpc.sum(list(column)) for column in zip(*shares, strict=True)]
    opened = await mpc.output(sums)  # only the sums are put together again
    await mpc.shutdown()
    json.dump([int(each) / SCALE for each in opened], sys.stdout)


if __name__ == "__main__":
    mpc.run(main())
