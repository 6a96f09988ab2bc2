"""Every kind of mistake in endpoints.yaml: its exact line, helpful words, and the others load.

In each case one line ends in ``#!``: that is the line the problem must name.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from file_connector.endpoints.loader import load_endpoints
from file_connector_tests.endpoints.fakes import a_registry, load

GOOD = """\
  - {name: Good, endpoint_type: fake, project_id: p, user_id: u, endpoint_details: {folder_id: r}}
"""


def entry(text: str) -> str:
    """A file with the given entry before a good one."""
    return f"# the customers\nendpoints:\n{indent(dedent(text).strip(), '  ')}\n{GOOD}"


def plain(**values: str) -> str:
    """An entry, one key a line; ``~`` leaves a key out."""
    keys = {
        "name": "Tower 42",
        "endpoint_type": "fake",
        "project_id": "tower-42",
        "user_id": "ana",
        "endpoint_details": "{folder_id: root-1}",
        **values,
    }
    lines = [f"{k}: {v}" for k, v in keys.items() if v != "~"]
    return entry("- " + "\n  ".join(lines))


MISTAKES: dict[str, tuple[str, list[str]]] = {
    # -- missing and misspelt keys
    "missing field": (
        entry("""
            - name: Tower 42  #!
              endpoint_type: fake
              project_id: tower-42
              endpoint_details: {folder_id: root-1}
            """),
        ["endpoint 'tower_42'", "`user_id` is missing", "Add `user_id: ...`"],
    ),
    "missing name": (
        entry("""
            - endpoint_type: fake  #!
              project_id: p
              user_id: u
              endpoint_details: {folder_id: root-1}
            """),
        ["`name` is missing"],
    ),
    "misspelt key": (
        plain(shedule="{type: manual}  #!"),
        ["unknown key `shedule`", "Did you mean `schedule`?"],
    ),
    "extra key": (
        plain(colour="blue  #!"),
        ["unknown key `colour`", "Allowed keys: name, id,"],
    ),
    "key only the loader knows": (plain(line="3  #!"), ["unknown key `line`"]),
    "a secret in the YAML": (
        plain(client_secret="CANARY-abc  #!"),
        ["unknown key `client_secret`", "Secrets belong in the environment"],
    ),
    "duplicate key": (
        plain(user_id="ana\n  user_id: bob  #!"),
        ["`user_id` is given twice, first in line 6"],
    ),
    # -- types
    "unknown type": (
        plain(endpoint_type="fakke  #!"),
        ["endpoint_type 'fakke' is not known", "Did you mean 'fake'?", "broken, fake"],
    ),
    "type empty": (plain(endpoint_type="  #!"), ["is empty", "Known types: broken, fake"]),
    "type missing": (
        entry("- {name: A, project_id: p, user_id: u, endpoint_details: {folder_id: r}}  #!"),
        ["`endpoint_type` is missing. Add `endpoint_type: ...`. Known types: broken, fake."],
    ),
    "broken plug-in": (plain(endpoint_type="broken  #!"), ["cannot be loaded", "No module named"]),
    "octal trap": (
        plain(user_id="0123  #!"),
        ["`user_id` is 0123, which YAML reads as the number 83", "put it in quotes: '0123'"],
    ),
    "sexagesimal trap": (plain(project_id="1:30  #!"), ["1:30", "the number 90", "quotes"]),
    "boolean trap": (
        plain(user_id="no  #!"),
        ["`user_id` is no, but must be text", "Put it in quotes: 'no'"],
    ),
    "float trap": (plain(project_id="1.10  #!"), ["is 1.10, but must be text", "'1.10'"]),
    "date trap": (plain(user_id="2026-01-01  #!"), ["must be text", "'2026-01-01'"]),
    "impossible date": (plain(start_date="2026-02-30  #!"), ["2026-02-30, which is no date"]),
    "empty value": (plain(project_id="  #!"), ["`project_id` is empty, but must be text"]),
    "a comment for a value": (
        plain(user_id="#7  #!"),
        ["`user_id` is empty, but must be text", "begins with # or & needs quotes"],
    ),
    "a variable nobody replaces": (
        plain(user_id="${USER_ID}  #!"),
        ["`user_id` is '${USER_ID}'", "variables are not replaced"],
    ),
    "a template nobody fills": (plain(project_id="'{{ project }}'  #!"), ["not replaced"]),
    "a template without quotes": (plain(project_id="{{ project }}  #!"), ["into quotes"]),
    "an invisible character": (
        plain(user_id='"a\\u200bb"  #!'),
        ["`user_id` is 'a\\u200bb', but must not hold invisible characters"],
    ),
    "writing turned around": (plain(user_id='"a\\u202eb"  #!'), ["invisible characters"]),
    "empty text": (plain(project_id='""  #!'), ["must not be empty"]),
    "blank at the end": (plain(user_id="'ana '  #!"), ["must not begin or end with blanks"]),
    "line break in an id": (plain(user_id='"a\\nb"  #!'), ["line breaks"]),
    "list for text": (plain(user_id="[ana]  #!"), ["`user_id` is a list, but must be text"]),
    "enabled in words": (plain(enabled="'yes'  #!"), ["`enabled` is 'yes'", "true or false"]),
    "details not a mapping": (
        plain(endpoint_details="root-1  #!"),
        ["`endpoint_details` is 'root-1', but must be a mapping"],
    ),
    "entry is a text": (entry("- tower  #!"), ["an endpoint is text, not a mapping"]),
    "entry is a list": (entry("- [a]  #!"), ["an endpoint is a list, not a mapping"]),
    "entry is empty": (entry("-  #!"), ["an endpoint is empty, not a mapping"]),
    # -- details, by the model of the type
    "unknown detail": (
        plain(endpoint_details="{folder: root-1, drive_id: d}  #!"),
        ["unknown key `folder` in `endpoint_details`", "Did you mean `folder_id`?"],
    ),
    "detail in detail": (
        plain(endpoint_details="\n    drive_id: d\n    filter:\n      at_most: 3  #!"),
        ["unknown key `at_most` in `endpoint_details.filter`", "Allowed keys: at_least_bytes"],
    ),
    "detail of the wrong type": (
        plain(endpoint_details="\n    folder_id: 12  #!\n    recursive: true"),
        ["`endpoint_details.folder_id` is 12, but must be text", "quotes: '12'"],
    ),
    "detail in a list": (
        plain(endpoint_details="\n    drive_id: d\n    file_types:\n      - pdf\n      - 3  #!"),
        ["`endpoint_details.file_types.1` is 3, but must be text"],
    ),
    "detail breaks a pattern": (
        plain(endpoint_details='{folder_id: "a/b"}  #!'),
        ["`endpoint_details.folder_id` is 'a/b', but should match pattern"],
    ),
    "detail that should be a list": (
        plain(endpoint_details="{drive_id: d, file_types: pdf}  #!"),
        ["`endpoint_details.file_types` is 'pdf', but must be a list", "[a, b]"],
    ),
    "empty list": (
        plain(endpoint_details="{drive_id: d, mime_types: []}  #!"),
        ["`endpoint_details.mime_types` is a list, but must not be empty"],
    ),
    "a link for an id": (
        plain(endpoint_details="{drive_id: 'https://x/d'}  #!"),
        ["`endpoint_details.drive_id` ('https://x/d') is a link; write only the id."],
    ),
    "details contradict": (
        plain(endpoint_details="{folder_id: a, drive_id: b}  #!"),
        ["`endpoint_details`: give either folder_id or drive_id."],
    ),
    # -- ids
    "id in capitals": (
        plain(id="Tower-42  #!"),
        ["`id` is 'Tower-42', but may hold only a-z", "Write `id: tower_42`"],
    ),
    "id with double underscore": (plain(id="a__b  #!"), ["`id: a_b`"]),
    "id too long": (plain(id=f"{'x' * 51}  #!"), ["at most 50 characters"]),
    "no id from the name": (plain(name="東京  #!"), ["no id can be made of this name", "`id`"]),
    "duplicate id": (
        entry("- {name: One, id: good, endpoint_type: fake, project_id: p, user_id: u}").replace(
            "Good,", "Good,  #!\n     "
        ),
        ["the id 'good' (made of the name 'Good') is already taken by 'One' in line 3"],
    ),
    # -- schedules
    "interval zero": (
        plain(schedule="{type: interval, interval_minutes: 0}  #!"),
        ["`schedule.interval_minutes` is 0, but must be at least 1"],
    ),
    "interval too long": (
        plain(schedule="{type: interval, interval_minutes: 1441}  #!"),
        ["is 1441, but must be at most 1440"],
    ),
    "interval as text": (
        plain(schedule='{type: interval, interval_minutes: "5"}  #!'),
        ["is '5', but must be a whole number"],
    ),
    "interval denser than the type allows": (
        plain(schedule="{type: interval, interval_minutes: 1}  #!"),
        ["every 1 minute, but fake allows one every 2 minutes"],
    ),
    "cron denser than the type allows": (
        plain(schedule='\n    type: cron\n    cron: "* 6 * * *"  #!'),
        ["`schedule.cron` asks for a run every 1 minute"],
    ),
    "cron with six fields": (
        plain(schedule='{type: cron, cron: "0 0 6 * * *"}  #!'),
        ["it has 6 fields; cron needs five"],
    ),
    "cron macro": (plain(schedule='{type: cron, cron: "@daily"}  #!'), ["'0 0 * * *'"]),
    "cron on 30 February": (
        plain(schedule='{type: cron, cron: "0 0 30 2 *"}  #!'),
        ["no month has that day"],
    ),
    "cron in words": (plain(schedule="{type: cron, cron: every 5 min}  #!"), ["3 fields"]),
    "cron missing": (plain(schedule="{type: cron}  #!"), ["`schedule.cron` is missing"]),
    "unknown schedule": (
        plain(schedule="{type: intervall}  #!"),
        ["`schedule.type` is 'intervall'", "interval, cron, manual", "Did you mean 'interval'?"],
    ),
    "schedule type as a list": (
        plain(schedule="{type: [cron]}  #!"),
        ["`schedule.type` is a list", "interval, cron, manual"],
    ),
    "schedule type empty": (plain(schedule="{type: }  #!"), ["`schedule.type` is empty"]),
    "schedule without type": (
        plain(schedule="{interval_minutes: 5}  #!"),
        ["`schedule` needs a `type`"],
    ),
    "schedule as a word": (plain(schedule="manual  #!"), ["must be a mapping", "{type: manual}"]),
    "interval key on a cron": (
        plain(schedule='\n    type: cron\n    cron: "0 6 * * *"\n    interval_minutes: 5  #!'),
        ["unknown key `interval_minutes` in `schedule`", "Allowed keys: type, cron"],
    ),
    # -- dates, credentials
    "start in the future": (plain(start_date="2999-01-01  #!"), ["2999-01-01 is not between"]),
    "start as a number": (plain(start_date="20260101  #!"), ["must be a date", "2026-01-31"]),
    "start with a time": (plain(start_date="2026-01-01T00:00:00Z  #!"), ["must be a date"]),
    "credentials written out": (
        plain(credentials="{client_secret: CANARY-abc}  #!"),
        ["`credentials` must be the name of a credential set"],
    ),
    "credentials as a path": (plain(credentials="./CANARY-abc.json  #!"), ["must be the name"]),
    # -- YAML's own oddities, one entry only
    "a tag": (plain(user_id="!env CANARY-abc  #!"), ["`user_id` begins with a `!`", "quotes"]),
    "a python object": (
        plain(user_id="!!python/object/apply:os.system [x]  #!"),
        ["`user_id` begins with a `!`"],
    ),
    "a complex key": (entry("- {name: A, [1]: b}  #!"), ["a key must be a plain word"]),
    "a merge of nothing": (plain(user_id="u\n  <<: 3  #!"), ["`<<` needs a mapping"]),
    "an alias inside itself": (
        plain(endpoint_details="&loop  #!\n    folder_id: r\n    file_types: [*loop]"),
        ["an alias contains itself"],
    ),
    # -- not even YAML, one entry only
    "a tab": (entry("- name: A\n\tid: x  #!"), ["holds a tab", "Indent with spaces"]),
    "an unclosed quote": (
        entry("- name: A\n  user_id: 'x  #!\n  id: y"),
        ["endpoint 'y'", "a quoted text never ends"],
    ),
    "an unclosed bracket": (
        entry("- name: A\n  endpoint_details: {folder_id: x  #!\n  id: y"),
        ["endpoint 'y'", "not well formed"],
    ),
    "a Windows path in double quotes": (
        entry('- name: A\n  user_id: "C:\\Users\\ana"  #!'),
        ["holds a backslash that means nothing", "single quotes"],
    ),
    "a line that goes on": (
        entry("- name: A\n  user_id: x\n  goes on  #!\n  id: y"),
        ["no `key: value`"],
    ),
    "a colon in a text": (entry("- name: a: b  #!"), ["a ': ' stands where none may"]),
    "an at sign": (entry("- name: @x  #!"), ["'@'", "Put the text into quotes"]),
    "an unknown alias": (entry("- *CANARY-abc  #!"), ["an alias (*name) is used"]),
    "a key out of line": (
        entry("- name: A\n  user_id: x\n   project_id: y  #!"),
        ["endpoint 'a'"],
    ),
    "a key too far left": (
        entry("- name: A\n user_id: x  #!"),
        ["endpoint 'a'", "the indentation of this line fits no line above"],
    ),
    "defaults cannot name": (
        f"defaults:\n  id: x  #!\nendpoints:\n{GOOD}",
        ["defaults: `id` cannot be shared"],
    ),
    "defaults misspelt": (
        f"defaults:\n  crdentials: x  #!\nendpoints:\n{GOOD}",
        ["defaults: unknown key `crdentials`", "Did you mean `credentials`?"],
    ),
    "defaults not a mapping": (
        f"defaults: [a]  #!\nendpoints:\n{GOOD}",
        ["`defaults` is a list, not a mapping"],
    ),
    "unknown top key": (
        f"endpoint: []  #!\nendpoints:\n{GOOD}",
        ["unknown key `endpoint`", "Did you mean `endpoints`?"],
    ),
    "endpoints twice": (
        f"endpoints: []\nendpoints:  #!\n{GOOD}",
        ["`endpoints` is given twice, first in line 1"],
    ),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_s38_a_mistake_is_named_with_its_line_and_the_others_load(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "#!" in row)
    catalog = load(tmp_path, text)
    shown = [str(p) for p in catalog.problems]
    hits = [p for p in catalog.problems if all(word in str(p) for word in words)]
    assert hits, shown
    assert [p.line for p in hits] == [line], shown
    assert f":{line}: " in str(hits[0])
    assert "CANARY" not in "".join(shown)
    assert catalog.readable
    loaded = [e.id for e in catalog.endpoints]
    assert loaded == ([] if "is already taken" in str(hits[0]) else ["good"]), shown


WHOLE_FILE: dict[str, tuple[bytes, int | None, list[str]]] = {
    "empty": (b"", 1, ["the file is empty"]),
    "only comments": (b"# nothing\n", 1, ["the file is empty"]),
    "a list": (b"- name: x\n", 1, ["the file holds a list, not a mapping", "`endpoints:`"]),
    "a text": (b"hello\n", 1, ["the file holds text"]),
    "no endpoints": (b"\ndefaults: {}\n", 2, ["`endpoints` is missing"]),
    "latin-1": (b"endpoints:\n  - name: M\xfcller\n", 2, ["byte 0xfc is not UTF-8"]),
    "utf-16": ("endpoints: []".encode("utf-16"), 1, ["UTF-16", "Save it as UTF-8"]),
    "control character": (b"endpoints:\n  - name: \x07\n", 2, ["U+0007 may not stand in YAML"]),
    "tab before the list": (b"endpoints:\n\t- name: x\n", 2, ["holds a tab"]),
    "broken defaults": (b"defaults:\n  a: 'x\nendpoints:\n  - name: y\n", 2, ["never ends"]),
    "broken between": (b"endpoints:\n  name: x\n  - name: y\n", 3, ["stands among keys"]),
    "broken between and below": (
        b"endpoints:\n  name: x\n  - name: y\n  - name: 'z\n",
        3,
        ["stands among keys"],
    ),
    "two lists, one broken": (
        b"endpoints: [{name: w}]\nendpoints:\n  - name: 'z\n",
        3,
        ["never ends"],
    ),
    "broken flow list": (b"endpoints: [{name: x}, {name: y]\n", 1, ["not well formed"]),
    "two documents": (b"endpoints: []\n---\na: 1\n", 2, ["a second document"]),
    "too deep": (b"endpoints: " + b"[" * 100_000, 1, ["levels of nesting"]),
    "too big": (b"#" * 5_000_001, None, ["more than 5,000,000 bytes"]),
    "utf-32": ("endpoints: []".encode("utf-32"), 1, ["UTF-32", "Save it as UTF-8"]),
    "utf-16 without a mark": ("endpoints: []".encode("utf-16-le"), 1, ["UTF-16"]),
    "only a document mark": (b"---\n", 1, ["the file is empty"]),
    "no-break spaces": (
        "endpoints:\n\xa0\xa0- {name: x}\n".encode(),
        2,
        ["a blank that is no space (U+00A0)", "plain spaces"],
    ),
    "a merge conflict": (
        b"endpoints:\n  - name: x\n<<<<<<< HEAD\n    id: y\n=======\n>>>>>>> other\n",
        3,
        ["unresolved merge conflict"],
    ),
}


@pytest.mark.parametrize(("content", "line", "words"), WHOLE_FILE.values(), ids=WHOLE_FILE)
def test_a_file_that_cannot_be_read_says_where_and_why(
    tmp_path: Path, content: bytes, line: int | None, words: list[str]
) -> None:
    catalog = load(tmp_path, content)
    assert not catalog.readable
    assert not catalog.endpoints
    (problem,) = catalog.problems
    assert problem.line == line, str(problem)
    assert all(word in str(problem) for word in words), str(problem)
    assert "CANARY" not in str(problem)


def test_one_complaint_about_a_value_is_enough(tmp_path: Path) -> None:
    catalog = load(tmp_path, plain(endpoint_details="{drive_id: d, mime_types: [[pdf]]}"))
    assert [p.field for p in catalog.problems] == ["endpoint_details.mime_types.0"]


def test_a_name_may_hold_what_people_write(tmp_path: Path) -> None:
    for name in ("Müller\u00a0GmbH 1", "👷\u200d♀️ Site 2", "می\u200cخواهم 3", "Budget $100"):
        assert load(tmp_path, plain(name=f"'{name}'")).problems == (), name


def test_an_endless_file_ends(tmp_path: Path) -> None:
    endless = tmp_path / "endpoints.yaml"
    endless.symlink_to("/dev/zero")
    (problem,) = load_endpoints(endless, a_registry()).problems
    assert "more than 5,000,000 bytes" in str(problem)
