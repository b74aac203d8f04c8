"""A stand-in for smtpproxy, just good enough for the demo's client: `python fake_proxy.py [FAULT] run -c FILE`.

So that the tests of the demo fail for the demo's own mistakes only, and can see what it does about the proxy's. It
offers what the proxy offers, answers in order, and asks the backend one thing at a time. Faults: see `FAULTS`.
"""

import asyncio
import signal
import sys
from pathlib import Path

import yaml

FAULTS = {
    "--damage": "a message sent by BDAT loses an octet",
    "--double": "a message sent by BDAT is delivered twice",
    "--hide": "no early pipelining is offered",
    "--hasty": "the backend gets DATA and the message at once",
    "--bad-end": "SIGTERM ends it with status 3",
    "--no-start": "it ends at once with status 4",
}
FAULT = sys.argv[1] if sys.argv[1] in FAULTS else ""
LIMIT = 1 << 20  # of a message, in octets
KEYWORDS = ["PIPELINING", "CHUNKING", *([] if FAULT == "--hide" else ["PIPECONNECT", "PIPE_CONNECT"])]


async def reply(reader: asyncio.StreamReader) -> bytes:
    """Return one reply, all its lines."""
    lines = b""
    while True:
        line = await reader.readline()
        lines += line
        if line[3:4] != b"-":
            return lines


class Relay:
    """One client and its backend."""

    def __init__(
        self, client: asyncio.StreamReader, backend: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> None:
        """Read from `client`, talk to `backend`."""
        self.client = client
        self.replies, self.backend = backend
        self.envelope: list[bytes] = []

    async def ask(self, data: bytes) -> bytes:
        """Send `data` to the backend, return its reply."""
        self.backend.write(data)
        return await reply(self.replies)

    async def command(self, line: bytes) -> bytes:
        """Return what the client gets for `line`."""
        verb = line.split()[0].upper()
        if verb == b"BDAT":
            return await self.last_chunk(await self.client.readexactly(int(line.split()[1])))
        answer = await self.ask(line)
        if verb == b"EHLO":
            lines = [line[4:] for line in answer.splitlines()] + [keyword.encode() for keyword in KEYWORDS]
            return b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1]
        if verb in (b"MAIL", b"RCPT"):
            self.envelope.append(line)
        return answer

    async def last_chunk(self, message: bytes) -> bytes:
        """Deliver `message` with DATA, return the reply to its end."""
        if FAULT == "--damage":
            message = message[:300] + message[301:]
        mail_data = message.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        if FAULT == "--hasty":
            return await self.ask(b"DATA\r\n" + mail_data)
        await self.ask(b"DATA\r\n")
        answer = await self.ask(mail_data)
        if FAULT == "--double":
            for line in (*self.envelope, b"DATA\r\n", mail_data):
                answer = await self.ask(line)
        return answer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Serve one client."""
    relay = Relay(reader, await asyncio.open_connection("127.0.0.1", port))
    writer.write(await reply(relay.replies))
    while line := await reader.readline():
        writer.write(await relay.command(line))
        if line.upper().startswith(b"DATA"):
            writer.write(await relay.ask(await reader.readuntil(b"\r\n.\r\n")))
        if line.upper().startswith(b"QUIT"):
            break
    relay.backend.close()
    writer.close()


async def main(configuration: str) -> None:
    """Serve until SIGTERM."""
    settings = yaml.safe_load(configuration)
    (listener,) = settings["listeners"]
    host, port = listener["listen"][0].split(":")
    backend = int(settings["backends"][listener["backend"]]["servers"][0].split(":")[1])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with await asyncio.start_server(lambda r, w: serve(r, w, backend), host, int(port), limit=LIMIT):
        await stop.wait()


if __name__ == "__main__":
    if FAULT == "--no-start":
        sys.stderr.write("no, I will not\n")
        sys.exit(4)
    asyncio.run(main(Path(sys.argv[-1]).read_text(encoding="utf-8")))
    sys.exit(3 if FAULT == "--bad-end" else 0)
