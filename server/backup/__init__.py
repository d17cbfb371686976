"""Backing up and restoring everything that the product keeps: the database at one moment, and the stores of files.

A backup is a folder that appears whole, by a rename, and never changes afterwards:

* ``manifest.json``: of which moment it is, what is in it, and the SHA-256 of each part
* ``manifest.seal.json``: the SHA-256 of the manifest, and its HMAC with ``keys.audit``
* ``dump/<database>/<collection>.bson`` and ``.metadata.json``: as mongodump writes them and mongorestore reads them
* ``stores/<store>/…`` and ``stores/<store>.jsonl``: the files as the store calls them, and a list of them with hashes

Why it is done this way: ``docs/decisions/0101-backups.md``. How to use it: ``docs/operations.md``.
"""

from server.backup.making import backup
from server.backup.manifest import BackupError, Manifest
from server.backup.restoring import Checked, Restored, check, restore

__all__ = ["BackupError", "Checked", "Manifest", "Restored", "backup", "check", "restore"]
