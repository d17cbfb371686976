"""``python -m sandbox [--port P] [--push-url URL] ...``: run the stand-in until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys

from pydantic import ValidationError

from sandbox.application import Sandbox
from sandbox.settings import Settings


async def run(settings: Settings) -> None:
    """Listen, say where on one line, and go on until SIGINT or SIGTERM."""
    told_to_stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    sandbox = await Sandbox.start(settings)
    print(f"sandbox listening on {sandbox.url}", flush=True)
    await told_to_stop.wait()
    await sandbox.stop()


def main() -> int:
    """Run; a setting or port that will not do is said on stderr and gives exit status 2."""
    try:
        asyncio.run(run(Settings(_cli_parse_args=True)))
    except ValidationError as error:
        for item in error.errors():
            print(f"sandbox: {'.'.join(map(str, item['loc']))}: {item['msg']}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
