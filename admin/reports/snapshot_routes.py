"""Cameras and their snapshots: for staff."""

from admin import PREFIX
from admin.reports import cameras, snapshots
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/camera-sources", cameras.CameraSources, "Staff: cameras"),
    Route(f"{PREFIX}/camera-sources/{{source_key}}", cameras.CameraSource, "Staff: cameras"),
    Route(f"{PREFIX}/camera-sources/{{source_key}}/key", cameras.CameraSourceKey, "Staff: cameras"),
    Route(f"{PREFIX}/camera-sources/{{source_key}}/cameras", cameras.CameraImport, "Staff: cameras"),
    Route(f"{PREFIX}/cameras", cameras.Cameras, "Staff: cameras"),
    Route(f"{PREFIX}/cameras/{{camera_id}}", cameras.Camera, "Staff: cameras"),
    Route(f"{PREFIX}/snapshots", snapshots.Snapshots, "Staff: snapshots"),
    Route(f"{PREFIX}/snapshots/{{snapshot_id}}", snapshots.Snapshot, "Staff: snapshots"),
    Route(f"{PREFIX}/snapshots/{{snapshot_id}}/confirmation", snapshots.SnapshotConfirmation, "Staff: snapshots"),
    Route(f"{PREFIX}/snapshots/{{snapshot_id}}/rejection", snapshots.SnapshotRejection, "Staff: snapshots"),
)
