"""The supervisor over real processes: most are a line of Python, some are the databases themselves."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from server.launcher.logs import Follower, summary
from server.rooms import load_settings
from tests.server.processes import is_alive, until
from tests.timing import PATIENCE, within

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]

# Starts the stages of children given as JSON: [{name: source of a Python program}, ...]
SUPERVISE = """
import asyncio, json, sys
from pathlib import Path
from server.launcher.supervisor import Supervisor, program

folder, stages = Path(sys.argv[1]), json.loads(sys.argv[2])

async def bring_up(supervisor):
    for stage in stages:
        await supervisor.start(", ".join(stage), *(child(name, source) for name, source in stage.items()))
    supervisor.publish({"API": "http://127.0.0.1:1/docs"})
    print("UP", flush=True)

def child(name, source):
    async def ready():
        return (folder / name).exists()
    seconds = 60 if "touch" in source else 3  # what never says that it is ready is not waited for as long
    patience = 10_000 if "SIG_IGN" in source else 10
    command = [sys.executable, "-c", source, folder, name]
    return program(name, command, ready=ready, ready_seconds=seconds, stop_seconds=patience)

sys.exit(asyncio.run(Supervisor(folder).run(bring_up)))
"""

# A well-behaved child: says that it is ready by a file of its name, and adds its name to "ended" when told to end.
GOOD = """
import signal, sys, time
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
def end(*_):
    with (folder / "ended").open("a") as file:
        print(name, file=file)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
(folder / name).touch()
time.sleep(60)
"""
STUBBORN = GOOD.replace("signal.SIGTERM, end)", "signal.SIGTERM, signal.SIG_IGN)").replace("(60)", "(10_000)")


class Supervised:
    """A supervisor in a process of its own, and what it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.output = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        while chunk := await self.process.stdout.read(4096):
            self.output += chunk.decode()

    async def prints(self, text: str) -> None:
        """Wait until it has printed ``text``."""
        try:
            await until(lambda: text in self.output or self.process.returncode is not None)
        except TimeoutError:
            pytest.fail(f"{text!r} was not printed in {PATIENCE:g} s, but:\n{self.output}")
        assert text in self.output

    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "state.json").read_text())  # type: ignore[no-any-return]

    def pids(self) -> dict[str, int]:
        return self.state()["processes"]  # type: ignore[no-any-return]

    async def ends(self, units: float = 1000) -> int:
        """Wait for its end, 20 s on a usual machine; answers the exit status."""
        with within(units, time.monotonic):
            async with asyncio.timeout(PATIENCE):
                status = await self.process.wait()
                await self._reading
        return status

    async def stops(self, number: int = signal.SIGINT) -> None:
        """Tell it to stop and see that it does, with status 0 and nothing left behind."""
        pids = self.pids()
        self.process.send_signal(number)
        assert await self.ends() == 0, self.output
        assert not [name for name, pid in pids.items() if is_alive(pid)]
        assert not (self.folder / "run" / "state.json").exists()


@asynccontextmanager
async def running(source: str, folder: Path, *arguments: str, **env: str) -> AsyncIterator[Supervised]:
    inherited = {key: value for key, value in os.environ.items() if key not in {"MONGODB_URL", "REDIS_URL"}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source, str(folder), *arguments),
        stdout=PIPE,
        stderr=STDOUT,
        cwd=ROOT,
        env={**inherited, **env},
    )
    try:
        yield Supervised(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def supervising(folder: Path, *stages: dict[str, str]):
    return running(SUPERVISE, folder, json.dumps(stages))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_all_in_reverse_order_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    async with supervising(tmp_path, {"database": GOOD}, {"worker": GOOD}, {"app": GOOD}) as it:
        await it.prints("UP")
        await it.stops(number)
        assert (tmp_path / "ended").read_text().split() == ["app", "worker", "database"]


async def test_a_child_that_dies_is_started_again_after_a_pause_that_doubles(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": GOOD}) as it:
        await it.prints("UP")
        first = it.pids()["app"]
        os.kill(first, signal.SIGKILL)
        await it.prints("app was ended by SIGKILL; it is started again in 0.5 s")
        await until(lambda: it.pids()["app"] != first)
        second = it.pids()["app"]
        assert is_alive(second)
        os.kill(second, signal.SIGKILL)
        await it.prints("it is started again in 1 s")
        await until(lambda: it.pids()["app"] != second)
        await it.stops()


async def test_stopping_while_a_child_waits_to_be_started_again_leaves_nothing(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": GOOD}) as it:
        await it.prints("UP")
        os.kill(it.pids()["app"], signal.SIGKILL)
        await it.prints("started again")
        await it.stops()


async def test_a_child_that_ends_before_it_is_ready_stops_the_start_and_shows_why(tmp_path: Path) -> None:
    broken = "import sys; sys.exit('keys.data: set it')"
    async with supervising(tmp_path, {"database": GOOD}, {"app": broken}) as it:
        assert await it.ends() == 1
        assert "app ended with status 1" in it.output
        assert "keys.data: set it" in it.output
        assert (tmp_path / "ended").read_text().split() == ["database"]


async def test_a_child_that_ends_while_others_still_start_stops_the_start(tmp_path: Path) -> None:
    short = GOOD.replace("time.sleep(60)", "time.sleep(0.3)")
    slow = GOOD.replace("(folder / name).touch()", "time.sleep(2); (folder / name).touch()")
    async with supervising(tmp_path, {"database": short}, {"app": slow}) as it:
        assert await it.ends() == 1
        assert "database ended with status 0" in it.output
        assert "UP" not in it.output


async def test_a_child_that_does_not_get_ready_in_time_stops_the_start(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": "import time; time.sleep(60)"}) as it:
        assert await it.ends() == 1
        assert "app did not get ready in 3 s" in it.output


async def test_a_signal_during_the_start_stops_what_has_started(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"database": GOOD}, {"app": "import time; time.sleep(60)"}) as it:
        await it.prints("database")
        await until(lambda: "app" in it.pids())
        await it.stops()


async def test_a_second_signal_kills_what_takes_its_time(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": STUBBORN}) as it:
        await it.prints("UP")
        it.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
        assert it.process.returncode is None, "the child ends by itself, so this test shows nothing"
        it.process.send_signal(signal.SIGINT)
        assert await it.ends(units=150) == 0


async def test_a_second_start_says_what_runs_and_leaves_it_alone(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": GOOD}) as first:
        await first.prints("UP")
        async with supervising(tmp_path, {"app": GOOD}) as second:
            assert await second.ends() == 0
            assert f"It runs already, as process {first.process.pid}" in second.output
            assert "http://127.0.0.1:1/docs" in second.output
            assert f"app {first.pids()['app']}" in second.output
        assert is_alive(first.pids()["app"])
        await first.stops()


async def test_killed_outright_it_takes_its_children_along_and_the_next_start_works(tmp_path: Path) -> None:
    async with supervising(tmp_path, {"app": GOOD}) as first:
        await first.prints("UP")
        pid = first.pids()["app"]
        first.process.kill()
        await first.ends()
        await until(lambda: not is_alive(pid))
    async with supervising(tmp_path, {"app": GOOD}) as second:
        await second.prints("UP")
        await second.stops()


async def test_warnings_reach_the_terminal_and_the_log_of_the_last_start_is_kept(tmp_path: Path) -> None:
    logging = GOOD + "\n".join(
        [
            "",
            """print('{"event": "slow query", "level": "warning", "ms": 730}', flush=True)""",
            """print('{"event": "GET /healthz", "level": "info"}', flush=True)""",
            "time.sleep(60)",
        ]
    )
    async with supervising(tmp_path, {"app": logging.replace("time.sleep(60)", "", 1)}) as it:
        await it.prints("app warning: slow query ms=730")
        await it.stops()
        assert "GET /healthz" not in it.output
    async with supervising(tmp_path, {"app": GOOD}) as it:
        await it.prints("UP")
        await it.stops()
    assert "GET /healthz" in (tmp_path / "log" / "app.log.1").read_text()
    assert not (tmp_path / "log" / "app.log").read_text()


def test_a_follower_waits_for_the_end_of_a_line_and_holds_back_a_flood(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    follower = Follower(log)
    assert list(follower.news()) == []
    log.write_text("WARNING: half a")
    assert list(follower.news()) == []
    with log.open("a") as file:
        file.write(" line\n" + "ERROR: again\n" * 30)
    lines = list(follower.news())
    assert lines[0] == "WARNING: half a line"
    assert len(lines) == 11
    assert lines[-1].startswith("… and 21 more in")
    assert list(follower.news()) == []


def test_a_log_line_is_summed_up_with_the_last_line_of_its_exception() -> None:
    entry = {
        "event": "push failed",
        "level": "error",
        "logger": "x",
        "exception": "Traceback\n  line\nOSError: no",
        "id": 7,
    }
    assert summary(json.dumps(entry).encode()) == "error: push failed id=7 OSError: no"


# What `make run` does, with an application of a few lines that is ready when both databases answer it.
RUN = """
import asyncio, json, os, sys
from pathlib import Path
from server.rooms import load_settings
from server.launcher.run import Programs, run

folder, port, application, sandbox = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
settings = load_settings(
    folders={"data": folder}, server={"port": port, "processes": 2}, sandbox={"enabled": bool(sandbox), "port": 0}
)
python = [sys.executable, "-c"]
programs = Programs([*python, application], [*python, "import time; time.sleep(99)"], [*python, sandbox])

async def prepare(addresses):
    from pymongo import AsyncMongoClient
    async with AsyncMongoClient(addresses.mongodb) as client:
        await client.demo.things.insert_one({"made": "before the application starts"})

def announce(addresses):
    print("ANNOUNCED", addresses.http, flush=True)

sys.exit(asyncio.run(run(settings, announce, prepare, programs)))
"""
APPLICATION = """
import asyncio, os
from pymongo import AsyncMongoClient
from redis.asyncio import Redis
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

class Ready(RequestHandler):
    async def get(self):
        await cache.ping()
        self.write({"things": await mongo.demo.things.count_documents({}), "pid": os.getpid(),
                    "wechat": os.environ.get("GONGZHI_WECHAT__BASE_URL")})

async def main():
    global mongo, cache
    mongo = AsyncMongoClient(os.environ["MONGODB_URL"], serverSelectionTimeoutMS=2000)
    cache = Redis.from_url(os.environ["REDIS_URL"])
    server = HTTPServer(Application([("/readyz", Ready)]))
    server.add_sockets(bind_sockets(int(os.environ["GONGZHI_SERVER__PORT"]), "127.0.0.1", reuse_port=True))
    await asyncio.Event().wait()

asyncio.run(main())
"""
SANDBOX = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(" ".join([os.environ["SANDBOX_APPID"], os.environ["SANDBOX_PUSH_URL"]]).encode())
HTTPServer.allow_reuse_port = os.environ["SANDBOX_SHARED_PORT"] == "true"
HTTPServer(("127.0.0.1", int(os.environ["SANDBOX_PORT"])), Page).serve_forever()
"""


async def answering_processes(client: httpx.AsyncClient, url: str) -> set[int]:
    """The processes that answer; each question goes over a new connection, which the kernel gives to one of them."""
    return {(await client.get(url, headers={"Connection": "close"})).json()["pid"] for _ in range(24)}


@pytest.mark.long
async def test_everything_comes_up_shares_a_port_and_survives_the_loss_of_each_part(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wished = taken.getsockname()[1]
        async with (
            running(RUN, tmp_path, str(wished), APPLICATION, SANDBOX) as it,
            httpx.AsyncClient(timeout=60) as client,
        ):
            await it.prints("ANNOUNCED http://127.0.0.1:")
            await it.prints("\n")
            http = it.output.partition("ANNOUNCED ")[2].split()[0]
            pids = it.pids()
            assert set(pids) == {"mongod", "valkey", "sandbox", "worker", "app-1", "app-2"}
            assert f"Port {wished} is taken by another program" in it.output
            assert await answering_processes(client, f"{http}/readyz") == {pids["app-1"], pids["app-2"]}

            ready = (await client.get(f"{http}/readyz")).json()
            assert ready["things"] == 1, "the data was not prepared before the application was ready"
            sandbox = await client.get(ready["wechat"])
            assert sandbox.text == f"{load_settings().wechat.appid} {http}/wechat/push"

            for name in ("mongod", "valkey", "app-1"):
                os.kill(pids[name], signal.SIGKILL)
                await until(lambda name=name: it.pids()[name] != pids[name])
            async with asyncio.timeout(PATIENCE):
                while True:  # the application finds the databases again under the addresses that it was given
                    try:
                        answer = await client.get(f"{http}/readyz", timeout=5)
                        if answer.status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
            assert answer.json()["things"] == 1
            await it.stops()


async def test_given_urls_nothing_is_embedded_and_passwords_are_not_shown(tmp_path: Path) -> None:
    async with running(RUN, tmp_path / "given", "0", APPLICATION, "") as embedded:
        await embedded.prints("ANNOUNCED")
        places = embedded.state()["addresses"]
        mongodb = places["MongoDB"]
        redis = places["Redis"].replace("redis://", "redis://default:correct-horse@")
        async with AsyncMongoClient(mongodb) as client:  # type: ignore[var-annotated]
            assert await client.demo.things.count_documents({}) == 1
        # Valkey without a password takes any password of the default user.
        async with running(RUN, tmp_path, "0", APPLICATION, "", MONGODB_URL=mongodb, REDIS_URL=redis) as it:
            await it.prints("ANNOUNCED")
            assert set(it.pids()) == {"worker", "app-1", "app-2"}
            assert "correct-horse" not in it.output + json.dumps(it.state())
            await it.stops()
        await embedded.stops()
