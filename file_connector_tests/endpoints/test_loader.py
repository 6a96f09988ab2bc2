"""What endpoints.yaml means when it is right, and that reading it never fails."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from file_connector.endpoints.catalog import Catalog
from file_connector.endpoints.loader import load_endpoints
from file_connector.endpoints.schema import CronSchedule, IntervalSchedule, ManualSchedule
from file_connector.models import Identity
from file_connector_tests.endpoints.fakes import Details, a_registry, an_entry, load


def dump(*entries: object, **top: object) -> str:
    return yaml.safe_dump({**top, "endpoints": list(entries)}, sort_keys=False)


def ids(catalog: Catalog) -> list[str]:
    return [e.id for e in catalog.endpoints]


def test_a_full_entry(tmp_path: Path) -> None:
    catalog = load(
        tmp_path,
        """\
        endpoints:
          # a comment

          - name: Tower 42 models
            id: tower_42
            endpoint_type: fake
            project_id: tower-42
            user_id: 42
            endpoint_details:
              folder_id: root-1
              file_types: [rvt, dwg]
            credentials: acme
            schedule: {type: cron, cron: "0  6 * * mon-fri"}
            start_date: 2026-01-01
            enabled: false
        """,
    )
    assert not catalog.problems
    (endpoint,) = catalog.endpoints
    assert endpoint.name == "Tower 42 models"
    assert endpoint.identity == Identity("tower_42", "fake", "tower-42", "42", "Tower 42 models")
    assert isinstance(endpoint.details, Details)
    assert endpoint.details.file_types == ["rvt", "dwg"]
    assert endpoint.endpoint_details == {"folder_id": "root-1", "file_types": ["rvt", "dwg"]}
    assert endpoint.schedule == CronSchedule(type="cron", cron="0 6 * * mon-fri")
    assert endpoint.start_date == date(2026, 1, 1)
    assert (endpoint.credentials, endpoint.enabled, endpoint.line) == ("acme", False, 4)
    assert catalog.get("tower_42") is endpoint
    assert catalog.get("other") is None


def test_what_is_left_out_has_defaults(tmp_path: Path) -> None:
    (endpoint,) = load(tmp_path, dump(an_entry("Tower 42: models!"))).endpoints
    assert endpoint.id == "tower_42_models"
    assert endpoint.schedule == IntervalSchedule(type="interval", interval_minutes=5)
    assert (endpoint.credentials, endpoint.start_date, endpoint.enabled) == (None, None, True)


def test_defaults_fill_gaps_key_by_key(tmp_path: Path) -> None:
    catalog = load(
        tmp_path,
        dump(
            an_entry("A"),
            an_entry("B", user_id=None, credentials="own", schedule={"interval_minutes": 30}),
            an_entry("C", schedule={"type": "manual"}, endpoint_details={"drive_id": "d"}),
            {**an_entry("D"), "credentials": None, "schedule": None},
            defaults={
                "user_id": "shared",
                "credentials": "acme",
                "schedule": {"type": "interval", "interval_minutes": 15},
                "endpoint_details": {"recursive": False, "file_types": ["pdf"]},
            },
        ),
    )
    assert not catalog.problems
    a, b, c, d = catalog.endpoints
    assert (a.user_id, a.credentials) == ("ana", "acme")
    assert a.schedule == IntervalSchedule(interval_minutes=15)
    assert (b.user_id, b.credentials) == ("shared", "own")
    assert b.schedule == IntervalSchedule(interval_minutes=30)
    assert c.schedule == ManualSchedule(type="manual")
    assert c.endpoint_details == {"drive_id": "d", "recursive": False, "file_types": ["pdf"]}
    assert d.credentials is None
    assert d.schedule == IntervalSchedule(interval_minutes=5)


def test_a_mistake_in_defaults_is_told_once(tmp_path: Path) -> None:
    text = "defaults:\n  user_id: no\nendpoints:\n"
    for name in "ABC":
        text += f"  - {{name: {name}, endpoint_type: fake, project_id: p, endpoint_details: "
        text += f"{{folder_id: r}}{', user_id: ana' if name == 'B' else ''}}}\n"
    catalog = load(tmp_path, text)
    assert [(p.line, p.entry) for p in catalog.problems] == [(2, "defaults")]
    assert ids(catalog) == ["b"]
    assert [q.id for q in catalog.quarantined] == ["a", "c"]
    assert all(q.problems for q in catalog.quarantined)


def test_anchors_aliases_and_merge_keys(tmp_path: Path) -> None:
    catalog = load(
        tmp_path,
        """\
        endpoints:
          - &first
            name: A
            endpoint_type: fake
            project_id: p
            user_id: u
            endpoint_details: &details {folder_id: r}
          - <<: *first
            name: B
            user_id: other
          - {name: C, endpoint_type: fake, project_id: p, user_id: u, endpoint_details: *details}
          - <<: [{name: D, user_id: merged first}, *first]
        """,
    )
    assert not catalog.problems
    assert [(e.id, e.user_id) for e in catalog.endpoints] == [
        ("a", "u"), ("b", "other"), ("c", "u"), ("d", "merged first"),
    ]  # fmt: skip


def test_an_alias_bomb_is_one_bad_entry(tmp_path: Path) -> None:
    rows = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 12)]
    bomb = "  - name: bomb\n    " + "\n    ".join(rows) + "\n"
    catalog = load(tmp_path, "endpoints:\n" + bomb + "  - " + str(an_entry("Good")) + "\n")
    assert ids(catalog) == ["good"]
    assert any("aliases unfold to more than" in str(p) for p in catalog.problems)


def test_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    text = dump(an_entry(), an_entry("Bad", user_id=True)).replace("\n", "\r\n")
    catalog = load(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert ids(catalog) == ["tower_42"]
    assert [p.line for p in catalog.problems] == [11]


@pytest.mark.parametrize("text", ["endpoints: []\n", "endpoints:\n", "endpoints: ~\n"])
def test_no_endpoints_is_fine(tmp_path: Path, text: str) -> None:
    catalog = load(tmp_path, text)
    assert catalog.readable
    assert not catalog.problems
    assert not catalog.endpoints


def test_missing_file(tmp_path: Path) -> None:
    catalog = load_endpoints(tmp_path / "endpoints.yaml", a_registry())
    assert not catalog.readable
    assert "FILE_CONNECTOR_ENDPOINTS" in str(catalog.problems[0])


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    catalog = load_endpoints(tmp_path, a_registry())
    assert not catalog.readable
    assert "cannot be read" in str(catalog.problems[0])


def test_s38_one_bad_entry_among_a_hundred(tmp_path: Path) -> None:
    entries = [an_entry(f"Endpoint {i}") for i in range(100)]
    entries[41]["endpoint_type"] = "dropbox"
    del entries[41]["user_id"]
    catalog = load(tmp_path, dump(*entries))
    assert len(catalog.endpoints) == 99
    (bad,) = catalog.quarantined
    assert (bad.id, bad.name, bad.endpoint_type) == ("endpoint_41", "Endpoint 41", "dropbox")
    assert {p.field for p in bad.problems} == {"endpoint_type", "user_id"}
    assert bad.problems == catalog.problems


def test_s38_an_entry_that_is_not_even_yaml_keeps_its_place(tmp_path: Path) -> None:
    entries = [an_entry(f"Endpoint {i}") for i in range(100)]
    text = dump(*entries, defaults={"credentials": "acme"})
    text = text.replace("name: Endpoint 41", "name: 'Endpoint 41")
    text += "- {name: endpoint-41, endpoint_type: fake, project_id: p, user_id: u}\n"
    catalog = load(tmp_path, text)
    assert len(catalog.endpoints) == 99
    assert {e.credentials for e in catalog.endpoints} == {"acme"}
    broken, late = catalog.quarantined
    assert (broken.id, broken.name) == ("endpoint_41", "Endpoint 41")
    assert late.id is None, "the broken entry keeps its id"
    lines = text.splitlines()
    assert lines[(broken.line or 0) - 1] == "- name: 'Endpoint 41"
    assert lines[(catalog.problems[0].line or 0) - 1] == "- name: 'Endpoint 41"


def test_s38_an_unset_credential_is_told_but_the_endpoint_loads(tmp_path: Path) -> None:
    text = dump(
        an_entry("A", credentials="acme"),
        an_entry("B", credentials="acme", enabled=False),
        an_entry("C", credentials="sandbox"),
    )
    catalog = load(tmp_path, text, {})
    assert ids(catalog) == ["a", "b", "c"]
    (problem,) = catalog.problems
    assert "FAKE_CREDENTIALS__ACME" in str(problem)
    assert (problem.line, problem.quarantines) == (8, False)
    assert not load(tmp_path, text, {"FAKE_CREDENTIALS__ACME": "{}"}).problems
    assert not load(tmp_path, text).problems


def test_the_first_of_two_equal_ids_keeps_it_even_when_it_is_bad(tmp_path: Path) -> None:
    """Otherwise breaking one entry would hand its rows to another tenant."""
    first = an_entry("Tower", user_id="ana", schedule={"type": "never"})
    second = an_entry("tower!", user_id="bob")
    catalog = load(tmp_path, dump(first, second))
    assert not catalog.endpoints
    assert [(q.id, q.name) for q in catalog.quarantined] == [("tower", "Tower"), (None, "tower!")]


def test_problems_come_in_the_order_of_their_lines(tmp_path: Path) -> None:
    bad = [an_entry(f"E{i}", user_id=None, colour="red", id="X") for i in range(5)]
    lines = [p.line or 0 for p in load(tmp_path, dump(*bad)).problems]
    assert len(lines) == 15
    assert lines == sorted(lines)


def test_s39_order_comments_and_other_entries_do_not_touch_identity(tmp_path: Path) -> None:
    entries = [an_entry(f"Büro {i} – Pläne", user_id=f"u{i}") for i in range(20)]
    before = {e.id: (e.identity, e.details) for e in load(tmp_path, dump(*entries)).endpoints}
    random.Random(7).shuffle(entries)
    text = dump(an_entry("New"), *entries).replace("- name:", "# moved\n- name:")
    after = {e.id: (e.identity, e.details) for e in load(tmp_path, text).endpoints}
    after.pop("new")
    assert after == before
    assert "buro_3_plane" in before


def test_five_hundred_endpoints_load_quickly(tmp_path: Path) -> None:
    catalog = load(tmp_path, dump(*(an_entry(f"E {i}") for i in range(500))))
    assert len(catalog.endpoints) == 500


WORDS = (
    "endpoints: defaults: name: id: schedule: type: credentials: user_id: endpoint_type: fake cron "
    "null ~ { } [ ] ' \" &a *a <<: !x !!int !!bool !!timestamp ? : | > # --- % 0x1 0o7 1e999 -.inf "
    "2026-99-99 2026-01-01 \u2028 é \ud800 a - ,"
)
PIECES = st.sampled_from([*WORDS.split(" "), "\n", "\n  ", "\n    ", "- ", "\t"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(PIECES, max_size=25))
def test_reading_never_raises_on_pieces_of_yaml(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    text = "endpoints:\n  - " + " ".join(pieces)
    catalog = load(tmp_path_factory.getbasetemp(), text.encode("utf-8", "surrogatepass"))
    assert catalog.endpoints or catalog.problems or catalog.readable
    for problem in catalog.problems:
        assert "\n" not in str(problem)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([*an_entry(), "id", "schedule", "credentials", "start_date", "enabled"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(KEYS, VALUES, max_size=4), shared=st.dictionaries(KEYS, VALUES))
def test_reading_never_raises_on_any_value_anywhere(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object], shared: dict[str, object]
) -> None:
    """And what loads is complete: an identity of clean texts and a valid id."""
    text = dump({**an_entry(), **changes}, an_entry("Good", id="good_one"), defaults=shared)
    catalog = load(tmp_path_factory.getbasetemp(), text)
    assert len(catalog.endpoints) + len(catalog.quarantined) == 2
    for endpoint in catalog.endpoints:
        identity = endpoint.identity
        assert identity.endpoint_id.replace("_", "").isalnum()
        assert identity.project_id.isprintable()
        assert identity.user_id.strip() == identity.user_id != ""


SNIPPETS = st.sampled_from(
    ["'", '"', "{", "]", ": ", "\n", "\t", "- ", "#", "&x ", "*x", "\n- ", "|\n"]
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_s38_whatever_happens_to_one_entry_no_other_changes_its_meaning(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    entries = [an_entry(f"E {i}", id=f"e_{i}", user_id=f"it's {i}") for i in range(5)]
    text = dump(*entries, defaults={"schedule": {"type": "manual"}})
    before = {e.id: e for e in load(folder, text).endpoints}
    victim = data.draw(st.integers(0, 4))
    begin = text.index(f"- name: E {victim}")
    end = text.index("- name:", begin + 1) if victim < 4 else len(text)
    at = data.draw(st.integers(begin + 1, end - 1))
    catalog = load(folder, text[:at] + data.draw(SNIPPETS) + text[at:])
    for endpoint in catalog.endpoints:
        if endpoint.id != f"e_{victim}" and endpoint.id in before:
            was = before[endpoint.id]
            assert endpoint.model_copy(update={"line": was.line}) == was
    if catalog.readable and not catalog.problems:
        assert len(catalog.endpoints) >= 5
