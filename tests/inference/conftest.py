"""What the tests of learning share."""

from __future__ import annotations

import pytest_asyncio

from tests.inference.learning_support import Learning


@pytest_asyncio.fixture
async def learning(mongodb_url, tmp_path):
    opened = Learning(mongodb_url, tmp_path)
    yield opened
    await opened.database.client.drop_database(opened.name)
    opened.database.client.close()
