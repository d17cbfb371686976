"""The test district's data: made by the product's own services once a process, copied for every further district."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, IndexModel

from accounts.models import NewStaff, Unit
from accounts.roles import starting_roles
from accounts.staff import StaffService
from core.clock import clock
from core.config import Settings
from core.services import Services
from places.importer import import_areas
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue, starting_categories
from reports.models import RoutingRule
from server.services import open_services
from tests import ROOT
from tests.clock import unmoved_clock

DEMO_DATA = ROOT / "server" / "demo" / "data"
PASSWORD = "Right-Password-1"
UNITS = ("sanitation", "roads")
# Categories that a rule of the test district sends to a unit; "other" has none and waits for a dispatcher.
RULES = {"exposed_garbage": "sanitation", "road_damage": "roads"}

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


@dataclass(frozen=True)
class Snapshot:
    """All collections of a database: their documents as bytes, and their indexes."""

    documents: dict[str, list[RawBSONDocument]] = field(default_factory=dict)
    indexes: dict[str, list[IndexModel]] = field(default_factory=dict)

    @classmethod
    async def of(cls, url: str, name: str) -> Snapshot:
        """What the database ``name`` at ``url`` holds."""
        snapshot = cls()
        async with AsyncMongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
            database = client[name]
            for collection in await database.list_collection_names(filter={"type": "collection"}):
                raw = database.get_collection(collection, codec_options=_RAW)
                snapshot.documents[collection] = [document async for document in raw.find()]
                described = [dict(i) async for i in await database[collection].list_indexes()]
                snapshot.indexes[collection] = [_model(i) for i in described if i["name"] != "_id_"]
        return snapshot

    async def lay(self, url: str, name: str) -> None:
        """Make the database ``name`` hold the same."""
        async with AsyncMongoClient[RawBSONDocument](url, document_class=RawBSONDocument) as client:
            for collection, indexes in self.indexes.items():
                if indexes:
                    await client[name][collection].create_indexes(indexes)
            for collection, documents in self.documents.items():
                if documents:
                    await client[name][collection].insert_many(documents)


def _model(described: dict[str, Any]) -> IndexModel:
    """The index that ``listIndexes`` describes."""
    options = {key: value for key, value in described.items() if key not in {"v", "key", "ns"}}
    return IndexModel(list(described["key"].items()), **options)


_snapshots: dict[str, Snapshot] = {}
"""By the district's number (reports.division): a test may have a district of another."""


async def lay_district(settings: Settings) -> None:
    """Have the database of ``settings`` hold a seeded district: the first of a process is made, others are copies."""
    url, name, division = settings.mongodb.url, settings.mongodb.database, settings.reports.division
    assert url is not None
    if (snapshot := _snapshots.get(division)) is None:
        with unmoved_clock():
            clock.offset = timedelta(0)  # whenever the one that opens it says it is: others copy it
            async with open_services(settings) as services:
                await _seed(services)
        _snapshots[division] = await Snapshot.of(url, name)
    else:
        await snapshot.lay(url, name)


async def _seed(services: Services) -> None:
    """Areas, roles, units, staff of every role, categories and rules."""
    for level in Level:
        name = {"district": "district", "street": "streets", "community": "communities", "grid": "grids"}[level]
        await import_areas(services.database, DEMO_DATA / f"{name}.geojson", level=level)
    roles = starting_roles()
    for role in roles:
        await services[StaffService].put_role(role)
    for unit in UNITS:
        await services[StaffService].put_unit(Unit(key=unit, name=f"{unit}所", short_name=unit))
    for category in starting_categories():
        await services[Catalogue].put_category(category)
    for order, (key, unit) in enumerate(RULES.items()):
        rule = RoutingRule(key=f"rule_{key}", order=order, name=f"{key} 归口", categories=(key,), unit=unit)
        await services[Catalogue].put_rule(rule)
    district = services.settings.reports.division
    street = (await services[PlaceService].areas(Level.STREET))[0].code
    centre = {role.key: role.name for role in roles if role.key != "unit"}
    people = [
        *(NewStaff(username=key, name=name, roles=[key], areas=[district]) for key, name in centre.items()),
        *(NewStaff(username=f"unit-{u}", name=u, roles=["unit"], areas=[district], unit_id=u) for u in UNITS),
        NewStaff(username="street-dispatcher", name="街道派遣员", roles=["dispatcher"], areas=[street]),
        NewStaff(username="street-centre", name="街道中心", roles=["street_dispatcher"], areas=[street]),
    ]
    for person in people:
        await services[StaffService].create(person, PASSWORD)
