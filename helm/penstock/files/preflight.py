"""Before an install: are the Secrets there, does the database answer? Says all that is wrong."""

import asyncio
import os
import sys

NEEDED = ("INTERNAL_TOKEN", "ADMIN_KEY", "API_KEY", "RAY_TOKEN")
APART = "DATABASE_URL"
SHORTEST = {"INTERNAL_TOKEN": 16, "RAY_TOKEN": 16, "ADMIN_KEY": 8, "API_KEY": 8}


def secret_faults() -> list[str]:
    faults = []
    told = {v.removeprefix("NAME_") for v in os.environ if v.startswith("NAME_")}
    for name in (*NEEDED, *sorted(told - {*NEEDED, APART})):
        value, where = os.environ.get(f"CHECK_{name}", ""), os.environ.get(f"NAME_{name}", name)
        if not value:
            faults.append(f"the Secret {where} is missing or empty")
        elif len(value) < (shortest := SHORTEST.get(name, 1)):
            faults.append(f"the Secret {where} has fewer than {shortest} characters")
        elif value != value.strip() and not name.startswith("SOURCE_"):
            faults.append(f"the Secret {where} begins or ends with blanks or a line break")
    return faults


async def database_faults() -> list[str]:
    where = os.environ.get("NAME_DATABASE_URL")
    url = os.environ.get("CHECK_DATABASE_URL", "")
    if where is None:
        return []
    if not url.startswith("postgresql+asyncpg://"):
        return [f"the Secret {where} holds no URL of the form postgresql+asyncpg://user@server/db"]
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url, hide_parameters=True)
    try:
        async with asyncio.timeout(30), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as exc:  # noqa: BLE001, whatever it is, the operator has to see it
        return [f"the database of Secret {where} does not answer: {type(exc).__name__}"]
    finally:
        await engine.dispose()
    return []


faults = secret_faults() + asyncio.run(database_faults())
for fault in faults:
    print(f"error: {fault}", file=sys.stderr)
print("preflight: " + ("failed" if faults else "ok"))
sys.exit(1 if faults else 0)
