"""The living world: the same for every process of a deployment, always moving, never growing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import requests
from googleapiclient.errors import HttpError

from file_connector.sandbox import ACCOUNT, Clock, Sandbox, SandboxError, living
from file_connector.sandbox.__main__ import main
from file_connector_tests.sandbox.conftest import METADATA, Aps, Drive, KeyFile

EPOCH = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)


def world_at(*moments: timedelta, seed: int = 42) -> Sandbox:
    sandbox = Sandbox(clock=Clock(EPOCH, step=timedelta(0)))
    life = living.LivingWorld(sandbox, seed, EPOCH)
    for moment in moments:
        life.catch_up(EPOCH + moment)
    return sandbox


def picture(sandbox: Sandbox) -> object:
    """Everything an endpoint could see, change tokens included."""
    log = sandbox.drive.log(f"user:{ACCOUNT}")
    return (
        sandbox.drive.truth(living.DRIVE_FOLDER, ACCOUNT, folders=True),
        list(log.after(0)),
        sandbox.aps.truth(living.ACC_PROJECT),
        sandbox.aps.folders,
    )


def test_history_is_the_same_however_it_is_replayed() -> None:
    late = world_at(timedelta(days=2))
    steps = world_at(*(timedelta(minutes=7 * n) for n in range(410)), timedelta(days=2))
    assert picture(late) == picture(steps)
    assert picture(late) != picture(world_at(timedelta(days=2), seed=43))


def test_something_happens_to_each_provider_every_minute_or_two() -> None:
    sandbox = world_at(timedelta(hours=1))
    log = sandbox.drive.log(f"user:{ACCOUNT}")
    before = world_at().drive.log(f"user:{ACCOUNT}").last
    assert 28 <= log.last - before <= 62
    times = [entry.time for entry in log.after(before)]
    assert times == sorted(times)
    top = sandbox.aps.project_files(living.ACC_PROJECT)
    assert EPOCH + timedelta(minutes=56) < sandbox.aps.folder(top).rollup
    assert sandbox.aps.folder(top).rollup <= EPOCH + timedelta(hours=1)


def test_there_is_a_past_to_backfill() -> None:
    sandbox = world_at()
    days = {file["createdTime"][:10] for file in picture_files(sandbox)}
    assert len(days) >= 8
    assert max(days) <= EPOCH.date().isoformat()


def picture_files(sandbox: Sandbox) -> list[dict[str, str]]:
    return list(sandbox.drive.truth(living.DRIVE_FOLDER, ACCOUNT).values())


def test_a_year_later_it_is_still_small_and_still_moving() -> None:
    sandbox = world_at(timedelta(days=200))
    assert len(picture_files(sandbox)) <= 91
    assert len(sandbox.aps.items) <= 91
    assert len(sandbox.drive.items) < 150
    newest = max(file["modifiedTime"] for file in picture_files(sandbox))
    assert newest > (EPOCH + timedelta(days=199)).isoformat()


def test_attach_is_idempotent_and_threadsafe(tmp_path: Path) -> None:
    home = tmp_path / "not yet" / "home"
    found: list[living.Addresses] = []
    threads = [threading.Thread(target=lambda: found.append(living.attach(home))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.drive_api_endpoint for one in found}) == 1
    assert living.attach(tmp_path / "other").aps_base_url != found[0].aps_base_url
    assert [path.name for path in home.iterdir()] == ["sandbox.json"]
    assert "private_key" not in repr(found[0])


def test_the_real_clients_sync_it(tmp_path: Path) -> None:
    addresses = living.attach(tmp_path)
    with requests.Session() as session:
        session.headers["x-test"] = "1"
        aps = Aps.__new__(Aps)
        aps.base, aps.session = addresses.aps_base_url, session
        aps.login(addresses.aps_credentials)
        (hub,) = aps.json("/project/v1/hubs")["data"]
        assert hub["id"] == living.ACC_HUB
        path = f"/project/v1/hubs/{hub['id']}/projects/{living.ACC_PROJECT}/topFolders"
        folders = {f["attributes"]["name"]: f["id"] for f in aps.json(path)["data"]}
        data, _ = aps.contents(living.ACC_PROJECT, folders["Project Files"])
        assert len(data) == 4
        lost = aps.get("/data/v1/projects/b.unknown/folders/urn:x/contents")
        assert (lost.status_code, living.ACC_PROJECT in lost.text) == (404, True)

    class Server:
        drive_api_endpoint = addresses.drive_api_endpoint

    keys = KeyFile.of(addresses.google_credentials, scopes=[METADATA])
    drive = Drive(Server, keys, 10)  # type: ignore[arg-type]
    assert drive.get(living.DRIVE_FOLDER)["name"] == "Tower 42"
    assert len(drive.walk(f"'{living.DRIVE_FOLDER}' in parents")) == 5
    with pytest.raises(HttpError, match=living.DRIVE_FOLDER):
        drive.page("'another-folder' in parents")
    drive.http.close()


SEE = """
import json, sys
from datetime import timedelta
from pathlib import Path
from file_connector.sandbox import ACCOUNT, Clock, Sandbox, living
seed, epoch = living._state(Path(sys.argv[1]))
sandbox = Sandbox(clock=Clock(epoch, step=timedelta(0)))
living.LivingWorld(sandbox, seed, epoch).catch_up(epoch + timedelta(hours=5))
log = sandbox.drive.log(f"user:{ACCOUNT}")
print(json.dumps([
    sandbox.drive.truth(living.DRIVE_FOLDER, ACCOUNT),
    sorted(sandbox.aps.truth(living.ACC_PROJECT)),
    [[entry.seq, entry.key, str(entry.time)] for entry in log.after(0)],
]))
"""


def test_all_processes_see_the_same(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SEE, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": str(n)},
        )
        for n in range(2)
    ]
    pictures = [run.communicate(timeout=60)[0] for run in runs]
    assert pictures[0] == pictures[1]
    assert len(json.loads(pictures[0])[2]) > 20


@pytest.mark.parametrize("text", ["", "{}", '{"seed": 1, "epoch": "soon"}', "[1]"])
def test_an_unreadable_state_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / living.STATE_FILE).write_text(text)
    with pytest.raises(SandboxError, match=r"delete it to begin anew"):
        living.attach(tmp_path)


def test_a_fork_starts_its_own_server(tmp_path: Path) -> None:
    living.attach(tmp_path)
    assert living._servers.running
    lock = living._servers.lock
    living._servers.forget()  # what runs in the child
    assert not living._servers.running
    assert living._servers.lock is not lock


def test_the_program_serves_until_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    stop.set()
    assert main(["--credentials", str(tmp_path / "keys")], stop) == 0
    told = capsys.readouterr().out
    assert "GOOGLE_DRIVE_API_ENDPOINT=http://127.0.0.1:" in told
    assert living.DRIVE_FOLDER in told
    key = tmp_path / "keys" / "google.json"
    assert json.loads(key.read_text())["client_email"] == ACCOUNT
    assert key.stat().st_mode & 0o077 == 0
