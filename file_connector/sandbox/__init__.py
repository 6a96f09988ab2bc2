"""Two local stand-ins, Google Drive v3 and Autodesk Platform Services, over loopback HTTP.

This package imports nothing of the rest of the product, so that a shared mistake cannot hide. The
real client libraries talk to it.

    from file_connector.sandbox import Sandbox, faults

    with Sandbox() as sandbox:
        root = sandbox.drive.add_folder("Watched", shared_with=[ACCOUNT])
        file = sandbox.drive.add_file("plan.pdf", root, modified="2019-01-01T00:00:00Z")
        sandbox.faults.add(faults.status(503), kind="drive.files.list", nth=2, times=3)
        ...                       # real clients against sandbox.drive_api_endpoint, aps_base_url
        sandbox.drive.truth(root, ACCOUNT)      # what a complete observer sees: id -> resource
        sandbox.log.count("drive.files.list")   # what was asked

Sandbox            drive_api_endpoint, aps_base_url, token_uri, environ, drive, aps, clock, faults,
                   log, google_credentials(account, subject), authorized_user_credentials(account),
                   aps_credentials("two_legged" | "three_legged" | "ssa"), secrets, revoke_google
drive: DriveWorld  add_user, add_drive, add_member, remove_member, add_folder, add_file, add_files,
                   add_shortcut, edit, rename, move, backdate, trash, restore, delete, view, share,
                   unshare, restrict, override, forbid, unlogged, hold/release, truth, get, below
aps: ApsWorld      add_hub, add_project, project_files, top_folder, add_folder, add_item, add_items,
                   upload, process, rename, move, delete, restore, backdate, override, silent, deny,
                   grant, refuse, exclude, set_status, set_provisioned, truth, item, folder
clock: Clock       stands still, moves one second per mutation; advance(seconds), set, now
log: RequestLog    mark, calls(kind, since=...), count(kind, since=...), counters
faults             add(fault, kind=..., path=..., nth=..., times=...); the module's functions make
                   faults: status, html, google_error, drive_throttle, aps_throttle, aps_error,
                   expired_token, reject_page_token, reject_change_token, error_in_200, truncate,
                   reset, close_early, delay, hang, drop, repeat, empty_page, empty_world,
                   empty_multi_parent, incomplete_search, without_included, stale_changes, mangle,
                   before, after

``living`` serves a world that keeps changing, for people. ``python -m file_connector.sandbox``
serves it alone.
"""

from __future__ import annotations

from file_connector.sandbox import faults
from file_connector.sandbox.aps_world import CLIENT_ID, CLIENT_SECRET, ApsWorld
from file_connector.sandbox.drive_world import (
    DOCUMENT,
    FOLDER,
    OWNER,
    SHORTCUT,
    SPREADSHEET,
    DriveWorld,
)
from file_connector.sandbox.server import ACCOUNT, SERVICE_ACCOUNT, Sandbox
from file_connector.sandbox.wire import Call, RequestLog
from file_connector.sandbox.world import Clock, SandboxError

__all__ = [
    "ACCOUNT",
    "CLIENT_ID",
    "CLIENT_SECRET",
    "DOCUMENT",
    "FOLDER",
    "OWNER",
    "SERVICE_ACCOUNT",
    "SHORTCUT",
    "SPREADSHEET",
    "ApsWorld",
    "Call",
    "Clock",
    "DriveWorld",
    "RequestLog",
    "Sandbox",
    "SandboxError",
    "faults",
]
