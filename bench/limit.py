"""``python -m bench.limit PORT``: what this machine, Tornado, motor and MongoDB give at most.

For each measured endpoint a bare handler does nothing but the one thing that the endpoint cannot do without: the same
insert with the same write concern, the same find, the same files synced. No sign-in, no checks, no models, no log. The
distance between the two is the price of everything else.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from accounts.models import StaffSession
from core.clock import now
from core.database import Database
from core.ids import new_id
from core.services import Services
from photos.pictures import read_picture
from photos.store import PhotoStore
from reports.queries import Filters, ReportQueries
from reports.snapshots.services import SnapshotServices
from server.rooms import load_settings
from server.services import open_services

SUBMITTED = "limit_submitted"
"""The collection that holds one report as it is inserted."""
WHOLE_DISTRICT = StaffSession("", "", (), frozenset(), ("990101",), None)


class Bare(RequestHandler):
    """A handler without anything."""

    def initialize(self, services: Services) -> None:
        """Called by Tornado."""
        self.services = services
        self.database: Database = services.database

    def say(self, answer: Any) -> None:
        """Answer with JSON."""
        self.finish(orjson.dumps(answer, default=str))


class Health(Bare):
    """Whether it runs."""

    async def get(self) -> None:
        """Always."""
        self.say({})


class Reports(Bare):
    """Insert a report's document; find the newest, or the nearest."""

    async def post(self) -> None:
        """The document of a report as it is just after being submitted."""
        orjson.loads(self.request.body)
        settings = self.application.settings
        if "report" not in settings:
            settings["report"] = await self.database[SUBMITTED].find_one()
        number = new_id()
        await self.database["limit_reports"].insert_one({**settings["report"], "_id": number})
        self.say({"number": number})

    async def get(self) -> None:
        """The product's own queries."""
        near = self.get_argument("near", "")
        if near:
            longitude, latitude = map(float, near.split(","))
            self.say(await self.services[ReportQueries].near(longitude, latitude, metres=1000))
        else:
            self.say(await self.services[ReportQueries].public((), None, 20))


class Report(Bare):
    """Find one report; change it."""

    async def get(self, number: str) -> None:
        """Whole but for what the index alone needs."""
        self.say(await self.database["reports"].find_one({"_id": number}, {"grams": 0, "folded": 0}))

    async def post(self, number: str) -> None:
        """An update that adds an entry, with the document after it."""
        body = orjson.loads(self.request.body)
        change = {
            "$set": {"state": "dispatched", "updated_at": now()},
            "$push": {"timeline": body},
            "$inc": {"version": 1},
        }
        self.say(await self.database["reports"].find_one_and_update({"_id": number, "state": "filed"}, change))


class Cases(Bare):
    """Find the newest of a state and category."""

    async def get(self) -> None:
        """The product's own query."""
        filters = Filters(states=(self.get_argument("state"),), category=self.get_argument("category"))
        self.say((await self.services[ReportQueries].staff_list(WHOLE_DISTRICT, filters, None, 20))[0])


class Photos(Bare):
    """Keep a photo's files and its document, without looking at it."""

    async def post(self) -> None:
        """The three sizes were made once, from the first photo that came."""
        settings = self.application.settings
        if "sizes" not in settings:
            file = self.request.files["photo"][0].body
            settings["sizes"] = (await asyncio.to_thread(read_picture, file)).sizes
            settings["store"] = PhotoStore.from_url(self.services.settings.photos.store)
            settings["photo"] = await self.database["photos"].find_one()
        photo_id = new_id()
        await settings["store"].put(photo_id, settings["sizes"])
        await self.database["limit_photos"].insert_one({**settings["photo"], "_id": photo_id})
        self.say({"photo_id": photo_id})


class Snapshots(Bare):
    """Keep a snapshot's picture and its document, without looking at it."""

    async def post(self) -> None:
        """The document of one as it is when it has come in."""
        settings = self.application.settings
        if "snapshot" not in settings:
            settings["snapshot"] = await self.database["snapshots"].find_one()
        snapshot_id = new_id()
        picture = self.request.files["picture"][0].body
        await self.services[SnapshotServices].intake.files.keep(snapshot_id, "limit.img", picture)
        await self.database["limit_snapshots"].insert_one({**settings["snapshot"], "_id": snapshot_id})
        self.say({"snapshot_id": snapshot_id})


async def main(port: int) -> None:
    """Serve until ended."""
    async with open_services(load_settings()) as services:
        with_services = {"services": services}
        routes = [
            ("/healthz", Health, with_services),
            ("/api/v1/reports", Reports, with_services),
            (r"/api/v1/reports/(\d+)", Report, with_services),
            ("/admin/api/v1/reports", Cases, with_services),
            (r"/admin/api/v1/reports/(\d+)/actions/dispatch", Report, with_services),
            ("/api/v1/photos", Photos, with_services),
            ("/ingest/v1/snapshots", Snapshots, with_services),
        ]
        server = HTTPServer(Application(routes, log_function=lambda handler: None))
        server.add_sockets(bind_sockets(port, "127.0.0.1", reuse_port=True))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
