"""The two servers: requests over raw HTTP, and the start of a fresh reference."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NO_UUID = "00000000-0000-4000-8000-000000000000"
TIMEOUT_S = 60
START_S = 60
DROPPED = 0
"""The status of a request that got no answer: the connection was dropped, or nothing came in time."""
JSON = "application/json"


class Server:
    """One side. Collections have UUIDs of their own on each side, and one logical name on both."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.connection: http.client.HTTPConnection | None = None
        self.ids: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def learn(self, uuid: str, name: str) -> str:
        """The logical name of a collection: that by which it is known, else `name`."""
        name = self.names.setdefault(uuid, name)
        self.ids[name] = uuid
        return name

    def path(self, path: str) -> str:
        """`path` with each `{collection}` replaced by its UUID here."""
        return "/api/v2" + re.sub(r"\{([^}]*)\}", lambda found: self.ids.get(found[1], NO_UUID), path)

    def send(self, method: str, path: str, body: Any = None, raw: bytes | None = None, content_type: str = JSON):
        """Status and JSON of the answer; what is not JSON is under `_text`."""
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
        headers = {"Content-Type": content_type} if raw is not None else {}
        for last_try in (False, True):
            try:
                connection = self.connected()
                connection.request(method, self.path(path), body=raw, headers=headers)
                answer = connection.getresponse()
                text = answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                self.connection = None  # perhaps only because it was idle
                if last_try:
                    return DROPPED, {"error": f"dropped: {type(error).__name__}"}
            except (OSError, http.client.HTTPException) as error:
                self.connection = None
                return DROPPED, {"error": f"no answer: {type(error).__name__}"}
            else:
                return answer.status, parsed(text)

    def connected(self) -> http.client.HTTPConnection:
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection

    def normalised(self, value: Any) -> Any:
        """`value` with logical names for UUIDs."""
        if isinstance(value, dict):
            return {key: self.normalised(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.normalised(inner) for inner in value]
        if isinstance(value, str):
            return UUID.sub(lambda found: self.names.get(found[0], "<uuid>"), value)
        return value


def parsed(text: bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return {"_text": text.decode("utf8", "replace")[:300]}


class Reference:
    """A real Chroma server with nothing in it, as a context; its package is in the Python that runs this."""

    def __enter__(self) -> str:
        self.directory = tempfile.TemporaryDirectory(prefix="opal-differential-")
        directory, port = Path(self.directory.name), free_port()
        config = directory / "config.yaml"
        config.write_text(f'port: {port}\nlisten_address: "127.0.0.1"\npersist_path: "{directory}/data"\n')
        command = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run", str(config)]
        with open(directory / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while Server(url).send("GET", "/heartbeat")[0] != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (directory / "log").read_text(errors="replace")[-2000:]
                self.__exit__()
                raise RuntimeError(f"the reference did not start; its log ends:\n{tail}")
            time.sleep(0.1)
        return url

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
