"""What it costs to know who calls and what they may do."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time

import grpc

from scripts.benchlib.figures import Figure, at_least, paired_ratio
from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc

_CALLERS = 32
_CALLS = 100
"""Calls of each caller in a round."""
_ROUNDS = 7


async def authorization() -> list[Figure]:
    """Unary calls behind authentication, authorization, limits and audit, against the same call without them."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as directory:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scripts.benchlib.gate_end",
            directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        bare_port, gated_port, token = (await process.stdout.readline()).decode().split()
        bare: list[float] = []
        gated: list[float] = []
        try:
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{bare_port}") as without,
                grpc.aio.insecure_channel(f"127.0.0.1:{gated_port}") as behind,
            ):
                for number in range(_ROUNDS + 1):
                    rates = [await _rate(channel, token) for channel in (without, behind)]
                    if number:  # the first one warms up
                        bare.append(rates[0])
                        gated.append(rates[1])
        finally:
            process.terminate()
            await process.communicate()
    ratio = paired_ratio(gated, bare)
    rate, ceiling = sorted(gated)[_ROUNDS // 2], sorted(bare)[_ROUNDS // 2]
    return [
        Figure(
            f"unary calls, {_CALLERS} callers, behind the gate",
            f"{rate:.0f}/s",
            f"{ceiling:.0f}/s",
            ratio,
            at_least(0.85, ratio, " x"),
        )
    ]


async def _rate(channel: grpc.aio.Channel, token: str) -> float:
    stub = auth_service_pb2_grpc.AuthServiceStub(channel)
    request = auth_service_pb2.GetPrincipalRequest()
    metadata = (("authorization", f"Bearer {token}"),)

    async def caller() -> None:
        for _ in range(_CALLS):
            await stub.GetPrincipal(request, metadata=metadata)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(caller())
    return _CALLERS * _CALLS / (time.perf_counter() - began)
