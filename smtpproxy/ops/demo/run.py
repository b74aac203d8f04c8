"""Run the demo until it is over or a signal ends it, and say how it went."""

from __future__ import annotations

import asyncio
import signal
from typing import Final, TextIO

from smtpproxy.ops.demo.errors import DemoError
from smtpproxy.ops.demo.show import Demo, Options

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run(options: Options, out: TextIO) -> int:
    """Show the demo on `out`; return 0 if all messages arrived intact and everything ended well, else 1.

    SIGINT, SIGTERM and SIGHUP end it in good order.
    """
    demo = Demo(options, out)
    work = asyncio.ensure_future(demo.run())
    for number in _STOP_SIGNALS:
        # Once only: a second Ctrl-C must not cut the cleaning up short, which has its own time limit.
        asyncio.get_running_loop().add_signal_handler(number, lambda: work.cancelling() or work.cancel())
    try:
        await work
    except asyncio.CancelledError:
        demo.say("", "Stopped." if demo.intact else "Stopped before all messages had been sent.")
    except DemoError as error:
        demo.fail(str(error))
    finally:
        demo.clean_up()
    return 0 if demo.intact else 1
