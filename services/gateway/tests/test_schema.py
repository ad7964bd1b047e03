"""A stranger's sweep: schemathesis makes requests from /openapi.json and checks every answer against it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

# The id that the document's own examples name, so that these do what they say.
MERCHANT = "mrc_abc"

# JSON Schema cannot say all of it: to it 5.0 is an integer, and it knows no checksum, no asset that is configured, no
# cursor that was given out, no id that is known with another body. Such requests are refused, as documented; so the
# check that takes every refusal of a schema-valid request for an error is told of those.
CONFIG = f"""
[parameters]
"query.merchant_id" = "{MERCHANT}"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 422, 429]
"""

# Random merchants would end at 403 and random assets at 400, before anything else is looked at. And whether what a POST
# has made is there afterwards can be asked only of operations with parameters: to the check an operation that has none,
# since its ids are in the body, is about what was made last, whatever id the body names.
HOOKS = f"""
import re
import schemathesis
from schemathesis.specs.openapi.checks import ensure_resource_availability

@schemathesis.check
def what_was_made_is_there(ctx, response, case):
    if any(True for _ in case.operation.iter_parameters()):
        return ensure_resource_availability(ctx, response, case)

@schemathesis.hook
def map_body(context, body):
    for name, valid, known in (
        ("merchant_id", "[A-Za-z0-9_.:-]{{1,64}}", "{MERCHANT}"), ("asset", "[A-Z0-9]{{2,12}}", "USDT")
    ):
        if isinstance(body, dict) and isinstance(body.get(name), str) and re.fullmatch(valid, body[name]):
            body = body | {{name: known}}
    return body
"""


@pytest.mark.timeout(240)
async def test_no_answer_is_outside_the_contract(suite, client, tmp_path: Path) -> None:
    """All phases, with and without keys: no 5xx, no undocumented status, header, type or body."""
    made = await client.post(
        "/merchants",
        {"id": MERCHANT, "name": "Swept", "merchant_wallet_address": "0x" + "12" * 20},
        X_Admin_Key=suite.admin_key,
    )
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "hooks.py").write_text(HOOKS)
    child = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{suite.url}/openapi.json",
        "--phases=examples,coverage,fuzzing,stateful",
        "--checks=all",
        "--exclude-checks=ensure_resource_availability",
        "--max-examples=30",
        "--max-time=30",
        "--workers=1",  # two threads that parse Python at once trip over each other in CPython 3.11
        "--generation-database=none",
        f"--header=X-API-Key: {made.body['api_key']}",
        f"--header=X-Admin-Key: {suite.admin_key}",
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1", "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), 180)
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, output.decode()
    assert '"level":"error"' not in suite.log("gateway").replace(" ", "")
