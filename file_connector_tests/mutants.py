"""The deliberate bugs we guard against, and a way to see each of them caught.

    python -m file_connector_tests.mutants            all of them (some minutes)
    python -m file_connector_tests.mutants cursor     those with "cursor" in the name

Each mutant is planted in a copy of the checkout; the named tests must then fail. The suite itself
checks that every planting place still exists (test_mutants.py). docs/mutants.md is this list.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RUN = "file_connector/sync/run.py"
RUNS = "file_connector/orchestration/runs.py"
DRIVE = "file_connector/connectors/google_drive/"
ACC = "file_connector/connectors/autodesk/"
STORE = "file_connector/destination/"
RIM = "file_connector/orchestration/"
CONNECTORS = STORE + "supabase/migrations/20260119090000_connectors.sql"
MET = STORE + "supabase/migrations/20260209090000_met.sql"
APPLYING = STORE + "applying.py"
CHANGING = STORE + "changing.py"
OWED = STORE + "supabase/migrations/20260316090000_owed.sql"
AUDIT = "file_connector_tests/faults/test_audit.py"
STORE_TESTS = "file_connector_tests/destination/"
MAILBOX = STORE_TESTS + "test_connectors_schema.py"
ENGINE_TESTS = "file_connector_tests/sync/test_run.py"
WATCH_TESTS = "file_connector_tests/orchestration/test_watch.py"
TICK_TESTS = "file_connector_tests/orchestration/test_ticks.py"


class Mutant(NamedTuple):
    """``old`` occurs exactly once in ``file``; ``tests`` are arguments for pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "cursor stored before the data",
        RUN,
        "            self._store_batch(batch, replace(self._state, cursor=cursor))\n",
        "            self._put(replace(self._state, cursor=cursor))\n"
        "            self._store_batch(batch, self._state)\n",
        ENGINE_TESTS,
    ),
    Mutant(
        "a complete pass believes what it did not see",
        RUN,
        "batches = chain(looks, self._connector.resolve(rest, self._known))",
        "batches = iter([_all_gone(seeable, GoneReason.DELETED)])",
        ENGINE_TESTS,
    ),
    Mutant(
        "no breaker against a mass disappearance",
        RUN,
        "if mass and not accepted and not self._are_elsewhere(sample, looks):",
        "if False:",
        ENGINE_TESTS,
    ),
    Mutant(
        "passes that one outage explains agree with each other",
        RUN,
        "again = state.held_back > 0 and not plan.independent(",
        "again = False and not plan.independent(",
        f"{ENGINE_TESTS} -k s23",
    ),
    Mutant(
        "a pass that does not count puts the next one off",
        RUN,
        "swept_at = state.swept_at if held_back and again else self._now()",
        "swept_at = self._now()",
        f"{ENGINE_TESTS} -k s23",
    ),
    Mutant(
        "a new baseline that left out what is there is the last word for a day",
        RUN,
        "if left_out and state.cursor is None:",
        "if False:",
        f"{ENGINE_TESTS} -k s18",
    ),
    Mutant(
        "Drive: a folder that only a window met stays a stranger",
        DRIVE + "connector.py",
        "if f.folder_id not in held and f.folder_id != root.id",
        "if False",
        "file_connector_tests/connectors/test_google_drive.py -k only_a_window_met",
    ),
    Mutant(
        "Autodesk: a folder that only a window met stays a stranger",
        ACC + "connector.py",
        "if folder.id not in held:",
        "if False:",
        "file_connector_tests/connectors/test_autodesk.py -k only_a_window_met",
    ),
    Mutant(
        "Autodesk: what may not be seen above a file is taken for the file's fate",
        ACC + "places.py",
        "if at not in self._above_roots():",
        "if True:",
        "file_connector_tests/connectors/test_autodesk.py -k s03",
    ),
    Mutant(
        "Autodesk: a sweep keeps the rollup of a folder whose listing had a hole",
        ACC + "connector.py",
        "            tree.holed(found.parent_id)\n",
        "",
        "file_connector_tests/connectors/test_autodesk_faults.py -k shown_too_little",
    ),
    Mutant(
        "who resumes a pass does not know that it is another account's",
        RUN,
        'self._new_account = bool(state.sweep.get("new_account"))',
        "self._new_account = False",
        f"{ENGINE_TESTS} -k s40",
    ),
    Mutant(
        "each file of a mass disappearance's sample is looked at twice",
        RUN,
        "if f.external_id not in looked_at]",
        "]",
        f"{ENGINE_TESTS} -k looked_at_once",
    ),
    Mutant(
        "files below a blind folder are tombstoned",
        RUN,
        "seeable = _seeable(chunk, blind)",
        "seeable = list(chunk)",
        ENGINE_TESTS,
    ),
    Mutant(
        "what the feed adds during a pass is not seen by the pass",
        RUN,
        "mark_seen=state.sweep is not None,",
        "mark_seen=False,",
        ENGINE_TESTS,
    ),
    Mutant(
        "a rejected cursor is answered with a new one and no listing",
        RUN,
        "            self._pass()\n            self._fast_way()\n            return\n",
        "            self._put(replace(self._state, cursor='now'))\n"
        "            self._fast_way()\n            return\n",
        ENGINE_TESTS,
    ),
    Mutant(
        "the pass is opened before its root was listed",
        RUN,
        "        opening = state is not self._state\n",
        "        self._put(replace(state, cursor=None, scope=self._connector.scope))\n"
        "        opening = False\n",
        ENGINE_TESTS,
    ),
    Mutant(
        "rows keep their old tenant when the endpoint changes hands",
        RUN,
        "        if plan.tenant_changed(self._identity, self._state):",
        "        if False:",
        ENGINE_TESTS,
    ),
    Mutant(
        "an entry given to another customer hands over rows of the first",
        RUN,
        "        if plan.relists(self._connector, self._state):",
        "        if False:",
        f"{ENGINE_TESTS} -k s37",
    ),
    Mutant(
        "a backfill moves the cursor",
        RUN,
        "self._store_batch(replace(batch, cursor=None, sweep=None), self._state)",
        "self._store_batch(batch, replace(self._state, cursor='moved'))",
        ENGINE_TESTS,
    ),
    Mutant(
        "misses of the fast way are not counted",
        RUN,
        "return len(self._tally.swept_changes - self._tally.fast_ids)",
        "return 0",
        ENGINE_TESTS,
    ),
    Mutant(
        "chosen days of another folder are compared with the rows of the old one",
        RUN,
        "if plan.baseline_missing(self._connector, state):",
        "if False:",
        f"{ENGINE_TESTS} -k s40",
    ),
    Mutant(
        "a time noted by a clock that was wrong is waited for",
        "file_connector/sync/plan.py",
        "return now < moment <= now + at_most",
        "return now < moment",
        f"{TICK_TESTS} -k s17",
    ),
    Mutant(
        "a lease taken by a clock that was wrong holds",
        STORE + "sql_store.py",
        "return now < expires_at <= now + longest + timedelta(minutes=1)",
        "return now < expires_at",
        f"{STORE_TESTS}test_store.py -k 's41 and sqlite'",
    ),
    Mutant(
        "a lock that some earlier run left frees a living run's endpoint",
        STORE + "sql_store.py",
        "elif lease.run_id == dead:",
        "elif dead:",
        f"{STORE_TESTS}test_store.py -k 's41 and sqlite'",
    ),
    Mutant(
        "a page with an item that cannot be read passes for complete",
        DRIVE + "client.py",
        " or len(items) < len(told)",
        "",
        "file_connector_tests/connectors/test_google_drive_faults.py -k stays_odd",
    ),
    Mutant(
        "a folder that is there but not listed passes for seen",
        DRIVE + "connector.py",
        "sorted(missing - gone)",
        "sorted(missing - gone - missing)",
        "file_connector_tests/connectors/test_google_drive.py -k never_listed",
    ),
    Mutant(
        "a lease taken by a clock that was wrong holds, over REST",
        MET,
        "expires_at <= moment + greatest(longest",
        "expires_at <= expires_at + greatest(longest",
        f"{STORE_TESTS}test_rest_contract.py -k s41_a_lease",
    ),
    Mutant(
        "a job whose instance is gone stays claimed",
        MET,
        "            and connectors.owner_of(j.instance_id) is null\n",
        "            and false\n",
        f"{STORE_TESTS}test_connectors_schema.py -k gone",
    ),
    Mutant(
        "what a listing met in one commit is forgotten with the next",
        STORE + "sql_store.py",
        '"part": commit.state.version,',
        '"part": 0,',
        f"{STORE_TESTS}test_store.py -k 'sqlite and unseen'",
    ),
    Mutant(
        "runs that die without a verdict follow each other every tick",
        RUNS,
        "retry_at = now + backoff(failures) if failures else now",
        "retry_at = now",
        f"{TICK_TESTS} -k s44",
    ),
    Mutant(
        "a run without a process keeps its endpoint",
        RUNS,
        "if abs(now.timestamp() - newest) >= patience.total_seconds():",
        "if False:",
        f"{WATCH_TESTS} -k s41",
    ),
    Mutant(
        "a run at work is declared dead",
        RUNS,
        "if any(_at_work(run, endpoint_id, store) for endpoint_id in _endpoints_of(run)):",
        "if False:",
        f"{WATCH_TESTS} -k s41",
    ),
    Mutant(
        "a run that waits for a dead one's lease is declared dead",
        RUNS,
        "turn.free_for is None or turn.free_for >= SILENCE",
        "turn.free_for is None or turn.free_for",
        f"{WATCH_TESTS} -k s41",
    ),
    Mutant(
        "other people's silent runs are declared dead",
        RUNS,
        " or not _is_ours_alone(run):",
        ":",
        f"{WATCH_TESTS} -k other",
    ),
    Mutant(
        "each evaluation opens Dagster's storages",
        RIM + "storage.py",
        "if context.instance_ref is not None and context._instance is None:",
        "if False:",
        f"{WATCH_TESTS} -k s42",
    ),
    Mutant(
        "a tick launches a run into a writer beyond Dagster",
        "file_connector/orchestration/schedules.py",
        "if writer := other_writer(endpoint.id, store, instance):",
        "if writer := None:",
        f"{TICK_TESTS} -k s41",
    ),
    Mutant(
        "a run marks today, whatever it caught up with",
        "file_connector/orchestration/schedules.py",
        "return min(max(start, today - timedelta(days=MAX_DAYS - 1)), today), today",
        "return today, today",
        f"{TICK_TESTS} -k 's45 or s51'",
    ),
    Mutant(
        "an older version overwrites a newer one",
        STORE + "rows.py",
        "return ours is not None and theirs is not None and ours < theirs",
        "return False",
        "file_connector_tests/destination -k 'sqlite or Sqlite'",
    ),
    Mutant(
        "identical rows are written again",
        STORE + "rows.py",
        "        news_of(row) != held.news\n        or (version",
        "        True\n        or (version",
        ENGINE_TESTS,
    ),
    Mutant(
        "no compare-and-set on the cursor",
        STORE + "sql_store.py",
        "if version is not None and held.version != version:",
        "if False:",
        ENGINE_TESTS,
    ),
    Mutant(
        "a run that lost its lease goes on writing",
        STORE + "sql_store.py",
        "        if holder != run_id:\n            taken",
        "        if False:\n            taken",
        "file_connector_tests/destination -k 'sqlite or Sqlite'",
    ),
    Mutant(
        "numbers of changes are given out like those of a sequence",
        CHANGING,
        '    last: int = conn.execute(_RESERVE, {"count": count}).scalar_one()\n',
        "    with conn.engine.begin() as other:\n"
        '        last: int = other.execute(_RESERVE, {"count": count}).scalar_one()\n',
        f"{STORE_TESTS}test_change_seq.py -k 'polling and postgres_18'",
    ),
    Mutant(
        "a table of the application is taken for ours",
        STORE + "postgres.py",
        '            execution_options={"schema_translate_map": {None: SCHEMA}},\n',
        "",
        f"{STORE_TESTS}test_faults.py -k change_nothing",
    ),
    Mutant(
        "bytes of one encoding are sent as those of another",
        STORE + "postgres.py",
        '    "client_encoding": "utf8",\n',
        "",
        f"{STORE_TESTS}test_faults.py -k change_nothing",
    ),
    Mutant(
        "one refused row costs its batch",
        STORE + "sql_store.py",
        "        except RefusedError:\n",
        "        except ZeroDivisionError:\n",
        "file_connector_tests/destination/test_rows.py -k 'refused and sqlite'",
    ),
    Mutant(
        "audit: a state goes by two versions",
        STORE + "sql_store.py",
        "version=state.version + 1)",
        "version=state.version + 2)",
        AUDIT,
    ),
    Mutant(
        "audit: the cursor is not stored with its rows",
        STORE + "sql_store.py",
        '        row["blind"] = [dict(b) for b in stored.blind]\n',
        '        row["cursor"] = None\n        row["blind"] = [dict(b) for b in stored.blind]\n',
        AUDIT,
    ),
    Mutant(
        "what a change in pieces owes is forgotten by the next run",
        STORE + "sql_store.py",
        "            if held.owed:\n                return CommitResult(commit.state)",
        "            if False:\n                return CommitResult(commit.state)",
        f"{STORE_TESTS}test_owed.py -k sqlite",
    ),
    Mutant(
        "over REST, what a change in pieces owes is forgotten by the next run",
        OWED,
        "    if held.owed is not null then\n        return '{",
        "    if false then\n        return '{",
        f"{STORE_TESTS}test_rest_contract.py -k 's17 or s37'",
    ),
    Mutant(
        "a tenant's change in pieces forgets whose rows it was about",
        STORE + "owed.py",
        '"user_id": state.user_id, "after": ""}',
        '"user_id": None, "after": ""}',
        f"{STORE_TESTS}test_rows.py -k 's37 and sqlite'",
    ),
    Mutant(
        "audit: a row that is gone is removed",
        APPLYING,
        "        self.tombstoned += len(ids or ())\n",
        "        self.tombstoned += len(ids or ())\n"
        "        self._conn.execute(delete(files).where(files.c.gone_at.is_not(None)))\n",
        AUDIT,
    ),
    Mutant(
        "audit: a tombstone has no change_seq of its own",
        CHANGING,
        'for name in (*own, "change_seq")',
        "for name in own",
        AUDIT,
    ),
    Mutant(
        "audit: change_seq falls",
        CHANGING,
        "    return last - count + 1\n",
        "    return -last\n",
        AUDIT,
    ),
    Mutant(
        "audit: counts are not those of the database",
        STORE + "sql_store.py",
        "                inserted=change.inserted,\n",
        "                inserted=len(change.told),\n",
        AUDIT,
    ),
    Mutant(
        "audit: a row is stamped with somebody else",
        STORE + "rows.py",
        '        "user_id": identity.user_id,\n',
        '        "user_id": identity.project_id,\n',
        AUDIT,
    ),
    Mutant(
        "audit: first seen is when last seen",
        STORE + "sql_store.py",
        'keep=("first_seen_at",)',
        'keep=("created_at",)',
        AUDIT,
    ),
    Mutant(
        "audit: an older version is written over a newer one",
        STORE + "rows.py",
        "return ours is not None and theirs is not None and ours < theirs",
        "return False",
        AUDIT,
    ),
    Mutant(
        "audit: one gone file takes the others along",
        CHANGING,
        "files.c.endpoint_id == endpoint_id, which, files.c.gone_at",
        "files.c.endpoint_id == endpoint_id, files.c.gone_at",
        AUDIT,
    ),
    Mutant(
        "what users write about themselves makes them members",
        STORE + "supabase/migrations/20260202090000_readers.sql",
        "select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims",
        "select jsonb_build_object('app_metadata', nullif(current_setting("
        "'request.jwt.claims', true), '')::jsonb -> 'user_metadata') as claims",
        "file_connector_tests/destination/test_row_level_security.py",
    ),
    Mutant(
        "a setting outlives its transaction behind a pooler",
        STORE + "postgres.py",
        'f"set local lock_timeout = {lock_seconds',
        'f"set lock_timeout = {lock_seconds',
        "file_connector_tests/destination/test_faults.py -k outlives",
    ),
    Mutant(
        "Drive: the change token is taken after the listing",
        DRIVE + "connector.py",
        'yield pile.take(sweep=base, cursor=root.cursor(base["token"]), done=True)\n\n',
        "token = self._client.start_token(root.drive_id)\n"
        "        yield pile.take(sweep=base, cursor=root.cursor(token), done=True)\n\n",
        "file_connector_tests/connectors -k 's16 and google'",
    ),
    Mutant(
        "Drive: an empty answer about several parents is believed",
        DRIVE + "walk.py",
        "self._alone.extend(p for p in parents if p not in self._answered and together)",
        "step.listed = list(parents)",
        "file_connector_tests/connectors -k 's15'",
    ),
    Mutant(
        "Drive: incompleteSearch is ignored",
        DRIVE + "walk.py",
        "self._incomplete = self._incomplete or page.incomplete or homeless",
        "self._incomplete = False",
        "file_connector_tests/connectors -k 's13'",
    ),
    Mutant(
        "Drive: a folder that entered is not walked",
        DRIVE + "feed.py",
        "                placed.enter.append(folder_id)",
        "                pass",
        "file_connector_tests/connectors -k 's02 and (google or drive)'",
    ),
    Mutant(
        "Drive: trashed files are records",
        DRIVE + "feed.py",
        "            reason = GoneReason.TRASHED\n        elif not",
        "            pass\n        elif not",
        "file_connector_tests/connectors -k 's05 or trash'",
    ),
    Mutant(
        "Drive: what was moved out stays",
        DRIVE + "feed.py",
        "        elif live and reason is not None:",
        "        elif False:",
        "file_connector_tests/connectors -k 's03'",
    ),
    Mutant(
        "Drive: an answer without a list of files counts as an empty page",
        DRIVE + "client.py",
        """        raise _odd(f"'{key}' is not a list")""",
        "        return []",
        "file_connector_tests/connectors -k 's22 and google'",
    ),
    Mutant(
        "Drive: a refused change token is answered with a new one and no listing",
        DRIVE + "connector.py",
        "            page = self._client.changes(token, root.drive_id)\n            placed",
        "            try:\n"
        "                page = self._client.changes(token, root.drive_id)\n"
        "            except CursorRejectedError:\n"
        "                token = self._client.start_token(root.drive_id)\n"
        "                page = self._client.changes(token, root.drive_id)\n"
        "            placed",
        "file_connector_tests/connectors -k 's18 and google'",
    ),
    Mutant(
        "Drive: a stored page token is used with another query",
        DRIVE + "walk.py",
        'if query != position["query"] or not',
        "if not",
        "file_connector_tests/connectors -k 's19 and google'",
    ),
    Mutant(
        "Drive: throttling is taken for a lack of permission",
        DRIVE + "answers.py",
        "if status == 429 or (status == 403 and reasons & _THROTTLED):",
        "if status == 429:",
        "file_connector_tests/connectors -k 's21 and google'",
    ),
    Mutant(
        "Drive: the cursor moves before the folders that entered are walked",
        DRIVE + "connector.py",
        """yield replace(batch, folders=[*batch.folders, *tree.flagged("open", True)])""",
        """yield replace(
                    batch,
                    folders=[*batch.folders, *tree.flagged("open", True)],
                    cursor=root.cursor(token),
                )""",
        "file_connector_tests/connectors -k 's17 and google'",
    ),
    Mutant(
        "Drive: a folder's version says nothing about a time out of sight",
        DRIVE + "feed.py",
        "return bool(after - before > explained)",
        "return False",
        "file_connector_tests/connectors -k 'google and out_of_sight'",
    ),
    Mutant(
        "Drive: a root that was out of sight is not compared when it is back",
        DRIVE + "feed.py",
        "if self._was_away(held, now):\n            now",
        "if False:\n            now",
        "file_connector_tests/connectors -k 'google and s04'",
    ),
    Mutant(
        "Drive: a folder that was merely renamed is listed again (>= for >)",
        DRIVE + "feed.py",
        "return bool(after - before > explained)",
        "return bool(after - before >= explained)",
        "file_connector_tests/connectors -k 's07 and google'",
    ),
    Mutant(
        "Drive: a backfilled day lacks its first instant (> for >=)",
        DRIVE + "connector.py",
        "start <= moment < end",
        "start < moment < end",
        "file_connector_tests/connectors -k 's50 and google'",
    ),
    Mutant(
        "Drive: the root is not looked at before its files are dropped",
        DRIVE + "connector.py",
        "if placed.root or (placed.losses and not root_is_there):",
        "if False:",
        "file_connector_tests/connectors -k 's20 and google'",
    ),
    Mutant(
        "Drive: a probe says no although more pages follow",
        DRIVE + "connector.py",
        "if page.new_start is not None:\n                    seen",
        "if True:\n                    seen",
        "file_connector_tests/connectors -k 's37 and google'",
    ),
    Mutant(
        "Drive: a shared drive is followed through the user's log",
        DRIVE + "connector.py",
        "return Root(root_id, in_drive, in_drive), client.start_token(in_drive)",
        "return Root(root_id, None, in_drive), client.start_token(None)",
        "file_connector_tests/connectors -k 's12 and google'",
    ),
    Mutant(
        "Drive: what one query of a whole drive did not search counts as searched",
        DRIVE + "connector.py",
        "                return False\n            pages.ahead()\n"
        "            for item in page.items:\n                if not",
        "                pass\n            pages.ahead()\n"
        "            for item in page.items:\n                if not",
        "file_connector_tests/connectors -k 's13 and google'",
    ),
    Mutant(
        "Drive: one connection for all threads",
        DRIVE + "client.py",
        "self._local = threading.local()\n        self._lock",
        'self._local = type("Shared", (), {})()\n        self._lock',
        "file_connector_tests/connectors -k 's52 and google'",
    ),
    Mutant(
        "Drive: an account waits longer than a run may",
        "file_connector/connectors/retry.py",
        " or state.upcoming_sleep > self._left",
        "",
        "file_connector_tests/connectors -k 's21 and google'",
    ),
    Mutant(
        "Drive: a mask without nextPageToken",
        DRIVE + "mapping.py",
        'LIST_FIELDS = f"nextPageToken,incompleteSearch,',
        'LIST_FIELDS = f"incompleteSearch,',
        "file_connector_tests/connectors -k 's10 and google'",
    ),
    Mutant(
        "Drive: constants of a query are not escaped",
        DRIVE + "walk.py",
        """escaped = value.replace("\\\\", "\\\\\\\\").replace("'", "\\\\'")""",
        "escaped = value",
        "file_connector_tests/connectors -k 'escaped and google'",
    ),
    Mutant(
        "ACC: a folder is listed only when its rollup is later, not when it differs",
        ACC + "tree.py",
        'return entry.rollup is None or state.get("rollup") != entry.rollup',
        'return entry.rollup is None or entry.rollup > str(state.get("rollup", ""))',
        "file_connector_tests/connectors -k 'autodesk'",
    ),
    Mutant(
        "ACC: a rollup is kept before its folder is stored",
        ACC + "tree.py",
        'kept = {key: value for key, value in state.items() if key not in ("rollup", "tried")}',
        "kept = dict(state)",
        "file_connector_tests/connectors -k 'autodesk'",
    ),
    Mutant(
        "ACC: a rollup of this very second is trusted",
        ACC + "tree.py",
        "return moment != served_at.replace(microsecond=0)",
        "return True",
        "file_connector_tests/connectors -k 'autodesk'",
    ),
    Mutant(
        "ACC: deleted folders stay",
        ACC + "descent.py",
        "            if entry.hidden:\n                self._answered(entry.id)",
        "            if False:\n                self._answered(entry.id)",
        "file_connector_tests/connectors -k 'autodesk'",
    ),
    Mutant(
        "ACC: what a listing lacks is not asked about",
        ACC + "descent.py",
        "            if file.external_id not in node.shown:",
        "            if False:",
        "file_connector_tests/connectors -k 'autodesk'",
    ),
    Mutant(
        "ACC: what a listing lacks is gone without a look at it",
        ACC + "places.py",
        "        return look(identifier)\n",
        "        return GoneReason.DELETED\n",
        "file_connector_tests/connectors -k 'autodesk and (s14 or moved)'",
    ),
    Mutant(
        "ACC: a file in a deleted folder is still there",
        ACC + "places.py",
        "            if seen.hidden:\n",
        "            if False:\n",
        "file_connector_tests/connectors -k 'autodesk and s29'",
    ),
    Mutant(
        "ACC: the fast way believes a mass disappearance",
        ACC + "descent.py",
        "        limit = max(VANISHED_FILES, VANISHED_SHARE * self._known.live_count())",
        '        limit = float("inf")',
        "file_connector_tests/connectors -k 'autodesk and s23'",
    ),
    Mutant(
        "ACC: what moved between two pages is not looked for",
        ACC + "connector.py",
        "            if descent.blind or not (descent.paged or descent.doubtful):",
        "            if True:",
        "file_connector_tests/connectors -k 'autodesk and (s28 or s14)'",
    ),
    Mutant(
        "ACC: an entry that comes twice is no sign of motion",
        ACC + "api.py",
        "                stable = stable and seen.isdisjoint(ids)",
        "                stable = True",
        "file_connector_tests/connectors -k 'autodesk and s28'",
    ),
    Mutant(
        "ACC: a rollup is kept although a folder below was refused",
        ACC + "descent.py",
        "        node.doubt(restless=False)\n        self._release(node)\n        blind = ",
        "        self._release(node)\n        blind = ",
        "file_connector_tests/connectors -k 'autodesk and s20'",
    ),
    Mutant(
        "how a run ended is undone by who mirrors the endpoints file",
        STORE + "sql_store.py",
        "        locked = in_order.with_for_update()  # ",
        "        locked = in_order  # ",
        STORE_TESTS + "test_store.py -k 'while_the_yaml and postgres_18'",
    ),
    Mutant(
        "what somebody's trigger says passes for the database's own words",
        STORE + "failures.py",
        "if state is None and not refuses_rows(error) else",
        "if state is None else",
        STORE_TESTS + "test_rows.py -k 'refused_row and sqlite'",
    ),
    Mutant(
        "what a refused row holds passes for the database's own words",
        STORE + "failures.py",
        "if state is None and not refuses_rows(error) else",
        "if True else",
        STORE_TESTS + "test_rows.py -k 'refused_row and postgres_18'",
    ),
    Mutant(
        "ACC: a folder forbidden for ever calls for a run every tick",
        ACC + "tree.py",
        'and (start.rollup is None or state.get("tried") != start.rollup)',
        "",
        "file_connector_tests/connectors/test_autodesk_engine.py -k few_runs",
    ),
    Mutant(
        "ACC: what may be restless is not looked at again, because something else is forbidden",
        ACC + "tree.py",
        "        self.restless = self.restless or restless\n",
        "",
        "file_connector_tests/connectors/test_autodesk_engine.py -k few_runs",
    ),
    Mutant(
        "ACC: a sweep keeps the rollup of what it did not see",
        ACC + "sweep.py",
        '        return not listed or state.get("next", state.get("rollup")) is None',
        "        return False",
        "file_connector_tests/connectors -k 'autodesk and (sweep or s16 or s20 or older_than)'",
    ),
    Mutant(
        "ACC: a killed sweep lists everything again",
        ACC + "sweep.py",
        '            if state.get("seen") == self._pass_no != state.get("pass"):',
        '            if state.get("seen") == self._pass_no:',
        "file_connector_tests/connectors -k 'autodesk and s46'",
    ),
    Mutant(
        "ACC: an answer that is no JSON document is an empty folder",
        ACC + "transport.py",
        "        except (ValueError, RecursionError):\n            return None",
        '        except (ValueError, RecursionError):\n            return {"data": []}',
        "file_connector_tests/connectors -k 'autodesk and s22'",
    ),
    Mutant(
        "ACC: the name of a deleted version becomes a title",
        ACC + "mapping.py",
        '    if deleted or dig(item_attributes, "hidden") is True:',
        "    if False:",
        "file_connector_tests/connectors -k 'autodesk and s29'",
    ),
    Mutant(
        "Autodesk: one look brings back what was accepted as gone",
        ACC + "descent.py",
        "            if self._abandoned(folder, node):\n",
        "            if False:\n",
        "file_connector_tests/connectors -k 'autodesk and s23'",
    ),
    Mutant(
        "Autodesk: a folder that is still full is let go unasked",
        ACC + "descent.py",
        " and not self._held_below(folder.folder_id)\n",
        "\n",
        "file_connector_tests/connectors -k 'autodesk and (s14 or s23)'",
    ),
    Mutant(
        "Autodesk: one unreadable folder ends every run",
        ACC + "api.py",
        "        except UNCLEAR as error:\n",
        "        except BadInputError as error:\n",
        "file_connector_tests/connectors -k 'autodesk and s22'",
    ),
    Mutant(
        "Autodesk: a project that moved to another hub is never found again",
        ACC + "start.py",
        "                if self._details.hub is not None:\n",
        "                if hub is not None:\n",
        "file_connector_tests/connectors/test_autodesk.py -k hub",
    ),
    Mutant(
        "Autodesk: where the project is now is found out by every tick",
        ACC + "connector.py",
        '        if start.hub != memory.get("hub"):\n',
        "        if False:\n",
        "file_connector_tests/connectors/test_autodesk.py -k hub",
    ),
    Mutant(
        "Autodesk: a token renewed by another process, refused as well, means connect again",
        ACC + "auth.py",
        "                return ready, False\n",
        "                return ready, True\n",
        "file_connector_tests/connectors/test_autodesk_auth.py -k s34",
    ),
    Mutant(
        "a tick for which our own budget is used up is a failure of its endpoint",
        "file_connector/sync/plan.py",
        "    except BudgetError as error:\n",
        "    except ZeroDivisionError as error:\n",
        "file_connector_tests/sync/test_plan.py -k s43",
    ),
    Mutant(
        "a caller in haste takes slots reserved far ahead for a clock set back",
        "file_connector/destination/lent.py",
        "            if held - now > LONGEST_WAIT + slack + spacing:\n",
        "            if held - now > longest + slack + spacing:\n",
        "file_connector_tests/destination/test_lent.py -k hurry",
    ),
    Mutant(
        "Autodesk: a file that no listing shows any more costs a run at every tick",
        ACC + "tree.py",
        "times >= MAX_LOOKS",
        "times > 10**6",
        "file_connector_tests/connectors/test_autodesk_faults.py -k s14",
    ),
    Mutant(
        "Autodesk: a file shown in two folders is written twice by every sweep",
        ACC + "descent.py",
        "replace(item.record, parent_id=item.home) if stays else item.record",
        "item.record",
        "file_connector_tests/connectors/test_autodesk_faults.py -k s26",
    ),
    Mutant(
        "Autodesk: the listing of another folder is believed",
        ACC + "api.py",
        "                if mapping.is_of_another(document, folder_id):\n",
        "                if False:\n",
        "file_connector_tests/connectors/test_autodesk_faults.py -k s52",
    ),
    Mutant(
        "Autodesk: a later page that is refused is a lost folder",
        ACC + "api.py",
        "                    if params:\n",
        "                    if True:\n",
        "file_connector_tests/connectors/test_autodesk_faults.py -k s28",
    ),
    Mutant(
        "Autodesk: one slow answer is enough to list several folders at once",
        ACC + "walk.py",
        "        return sum(self._late) > 1\n",
        "        return sum(self._late) > 0\n",
        "file_connector_tests/connectors/test_autodesk_mapping.py -k s46",
    ),
    Mutant(
        "Autodesk: an outage makes one folder after the other blind",
        ACC + "transport.py",
        "            if self._retrier.budget_left_seconds > MAX_BACKOFF_SECONDS:\n",
        "            if True:\n",
        "file_connector_tests/connectors -k 'autodesk and s22'",
    ),
    Mutant(
        "Autodesk: what cannot be looked at is gone",
        ACC + "places.py",
        "            self.unclear[identifier] = error.message\n            return None\n",
        "            return GoneReason.DELETED\n",
        "file_connector_tests/connectors -k 'autodesk and s20'",
    ),
    Mutant(
        "Autodesk: a next page nobody can read is no next page",
        ACC + "api.py",
        'self._transport.next_url(href, answer.url) if href else "", {}',
        'self._transport.next_url(href, answer.url) if isinstance(href, str) else "", {}',
        "file_connector_tests/connectors -k 'autodesk and s22'",
    ),
    Mutant(
        "a date to wait for is read by our own clock",
        "file_connector/connectors/retry.py",
        "(until - (since or now))",
        "(until - now)",
        "file_connector_tests/connectors/test_retry.py",
    ),
    Mutant(
        "a forbidden folder counts as a mass disappearance",
        RUN,
        "        if not blind:\n            return self._store.unseen_count",
        "        if True:\n            return self._store.unseen_count",
        "file_connector_tests/connectors -k 'autodesk and s20'",
    ),
    Mutant(
        "nobody is told that a connection will end",
        RIM + "forecasts.py",
        "        if told:\n",
        "        if False:\n",
        "file_connector_tests/orchestration/test_forecasts.py",
    ),
    Mutant(
        "ACC: the user is left out of a call",
        ACC + "transport.py",
        "        if data_call and self._user_id:",
        "        if not data_call and self._user_id:",
        "file_connector_tests/connectors -k 'autodesk and s33'",
    ),
    Mutant(
        "ACC: the next refresh token is used before it is stored",
        ACC + "auth.py",
        "            self._vault.save(self._key, fresh)",
        "            pass",
        "file_connector_tests/connectors -k 'autodesk and (rotates or s34)'",
    ),
    Mutant(
        "ACC: two processes refresh one token at once",
        ACC + "auth.py",
        "        with self._vault.locked(self._key, patience):",
        "        with threading.Lock():",
        "file_connector_tests/connectors -k 'autodesk and s34'",
    ),
    Mutant(
        "jobs: claimers wait for each other",
        MET,
        "        limit max_jobs\n        for update skip locked",
        "        limit max_jobs\n        for update",
        f"{MAILBOX} -k 'do_not_wait'",
    ),
    Mutant(
        "jobs: two claimers get the same job",
        MET,
        "        limit max_jobs\n        for update skip locked",
        "        limit max_jobs",
        f"{MAILBOX} -k 'do_not_wait or two_hundred'",
    ),
    Mutant(
        "jobs: a stale claimer completes somebody else's claim",
        CONNECTORS,
        "        and j.claim_token = complete_connector_job.claim_token;\n    perform",
        ";\n    perform",
        f"{MAILBOX} -k 'stale'",
    ),
    Mutant(
        "jobs: a dead claimer keeps its job",
        MET,
        "j.status in ('queued', 'claimed') and j.due_at <= moment\n            and j.attempts",
        "j.status in ('queued') and j.due_at <= moment\n            and j.attempts",
        f"{MAILBOX} -k 'stale'",
    ),
    Mutant(
        "jobs: a living lease is not respected",
        MET,
        "        due_at = moment + make_interval(secs => greatest(lease_seconds, 1))\n    from",
        "        due_at = moment\n    from",
        f"{MAILBOX} -k 'living'",
    ),
    Mutant(
        "jobs: claimers that always die are fed for ever",
        MET,
        "and j.due_at <= moment and j.attempts >= j.max_attempts",
        "and j.due_at <= moment and false",
        f"{MAILBOX} -k 'always_die'",
    ),
    Mutant(
        "jobs: the same request is another job",
        CONNECTORS,
        "create unique index if not exists jobs_waiting_key",
        "create index if not exists jobs_waiting_key",
        f"{MAILBOX} -k 'same_request'",
    ),
    Mutant(
        "jobs: a retry stands in the way of a new request",
        CONNECTORS,
        "    where status = 'queued' and attempts = 0;\ncreate index",
        "    where status = 'queued';\ncreate index",
        f"{MAILBOX} -k 'same_request'",
    ),
    Mutant(
        "jobs: a user asks for anybody's instance",
        CONNECTORS,
        "for insert to public\n    with check (\n",
        "for insert to public\n    with check (true or\n",
        STORE_TESTS + "test_row_level_security.py -k 'change_nothing'",
    ),
    Mutant(
        "jobs: a run that failed completes its job",
        RIM + "mailbox.py",
        "    if run.is_success or (",
        "    if True or (",
        "file_connector_tests/orchestration/test_mailbox.py",
    ),
    Mutant(
        "jobs: nobody renews the lease of a run that waits",
        RIM + "mailbox.py",
        "        control.renew(job, LEASE_SECONDS)\n",
        "",
        "file_connector_tests/orchestration/test_mailbox.py",
    ),
    Mutant(
        "jobs: the run of an earlier claim speaks for a later one",
        RIM + "mailbox.py",
        'return f"{job.id}.{job.attempts}"',
        'return f"{job.id}.1"',
        "file_connector_tests/orchestration/test_mailbox.py",
    ),
    Mutant(
        "control plane: a dead database takes all schedules with it",
        "file_connector/deployment_control.py",
        "        kept = copy.load()\n",
        "        kept = None\n",
        "file_connector_tests/endpoints/test_instances.py",
    ),
    Mutant(
        "control plane: a database that says nothing stops everything",
        "file_connector/deadline.py",
        "if not wait([answer], seconds).done:",
        "if not wait([answer]).done:",
        "file_connector_tests/endpoints/test_instances.py",
    ),
    Mutant(
        "control plane: the copy of another database is used",
        "file_connector/deployment_control.py",
        '            if held["of"] == self._of:\n',
        "            if True:\n",
        "file_connector_tests/endpoints/test_instances.py",
    ),
    Mutant(
        "secrets: one tenant's row serves another's name",
        STORE + "secrets.py",
        '        if held.get("name") != name:\n',
        '        if not held.get("name"):\n',
        STORE_TESTS + "test_secrets.py",
    ),
    Mutant(
        "secrets: the table is asked although there is Vault",
        STORE + "secrets.py",
        "return Vault(store) if has_vault else",
        "return Vault(store) if not has_vault else",
        STORE_TESTS + "test_secrets.py",
    ),
    Mutant(
        "endpoints: a bad entry gives its id away",
        "file_connector/endpoints/loader.py",
        "        endpoint_id = self._claim_id(draft, data)\n",
        "        endpoint_id = None if draft.problems else self._claim_id(draft, data)\n",
        "file_connector_tests/endpoints/test_loader.py",
    ),
    Mutant(
        "endpoints: one broken entry takes the whole file along",
        "file_connector/endpoints/loader.py",
        "            return self._read_apart(text, error)\n",
        "            return self._unreadable(error)\n",
        "file_connector_tests/endpoints/test_loader_mistakes.py",
    ),
    Mutant(
        "endpoints: a variable nobody replaces becomes a tenant",
        "file_connector/endpoints/schema.py",
        "    if _REFERENCE.search(value):\n",
        "    if False:\n",
        "file_connector_tests/endpoints/test_loader_mistakes.py",
    ),
    Mutant(
        "endpoints: a secret in the place of a name is repeated",
        "file_connector/endpoints/credentials.py",
        "    if _SECRETIVE.search(name):\n",
        "    if False:\n",
        "file_connector_tests/endpoints/test_credentials.py",
    ),
    Mutant(
        "messages: a title can forge a line",
        "file_connector/errors.py",
        "    if text.isprintable():\n",
        "    if True:\n",
        "file_connector_tests/test_cli.py -k preview",
    ),
    Mutant(
        "rim: a run repeats what is wrong with others",
        RIM + "build.py",
        "    if not _in_a_run():\n",
        "    if True:\n",
        "file_connector_tests/orchestration/test_definitions.py -k repeat",
    ),
    Mutant(
        "rim: who opens a new history first is left to chance",
        RIM + "storage.py",
        "        lock(door.fileno(), wait=True)\n",
        "",
        "file_connector_tests/orchestration/test_instance.py -k moment",
    ),
    Mutant(
        "rim: an asset downstream gets the rows of all days",
        RIM + "io_manager.py",
        "        if context.step_context.has_partitions and context.has_asset_partitions:\n",
        "        if False:\n",
        "file_connector_tests/orchestration/test_io_manager.py -k frame",
    ),
    Mutant(
        "command line: preview shows links that would not be stored",
        "file_connector/cli.py",
        "clean_link(f.link)",
        "f.link",
        "file_connector_tests/test_cli.py -k s49",
    ),
    Mutant(
        "command line: a closed terminal keeps the endpoint",
        "file_connector/cli.py",
        '("SIGTERM", "SIGHUP")',
        '("SIGTERM",)',
        "file_connector_tests/test_cli.py -k ended",
    ),
    Mutant(
        "command line: a reader that goes away is a mistake of ours",
        "file_connector/cli.py",
        "click.Abort, BrokenPipeError)",
        "click.Abort)",
        "file_connector_tests/test_cli_sandbox.py -k goes_away",
    ),
]


def plant(mutant: Mutant, checkout: Path) -> None:
    """Put the bug into a copy of the checkout."""
    path = checkout / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name!r}: its place in {mutant.file} is not there exactly once")
    path.write_text(text.replace(mutant.old, mutant.new))


def caught(mutant: Mutant) -> bool:
    """Whether the named tests fail with the bug in place."""
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        ignore = shutil.ignore_patterns(".venv", ".git", ".file_connector", "*cache*", "docs")
        shutil.copytree(ROOT, checkout, ignore=ignore)
        plant(mutant, checkout)
        command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {mutant.tests}"
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: pytest could not run\n{done.stdout[-2000:]}")
        return done.returncode == 1


def main() -> int:
    chosen = [m for m in MUTANTS if not sys.argv[1:] or any(a in m.name for a in sys.argv[1:])]
    if not chosen:
        raise SystemExit(f"no bug of the list is named so: {' '.join(sys.argv[1:])}")
    survivors = []
    for mutant in chosen:
        fine = caught(mutant)
        print(f"{'caught  ' if fine else 'SURVIVED'}  {mutant.name}", flush=True)
        if not fine:
            survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
