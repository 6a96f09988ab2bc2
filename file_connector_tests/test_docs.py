"""The documents keep up with the code: what exists is described, what is linked exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

import file_connector
from file_connector import settings
from file_connector.cli import main as cli
from file_connector.connectors.registry import Registry
from file_connector.destination.tables import FILE_COLUMNS
from file_connector.endpoints.loader import load_endpoints
from file_connector.endpoints.schema import CronSchedule, Entry, IntervalSchedule, ManualSchedule
from file_connector.models import GoneReason
from file_connector.orchestration.storage import POSTGRES_VARIABLE

CHECKOUT = Path(file_connector.__file__).parent.parent
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")]


def text(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def everything() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert missing == []


def test_every_page_can_be_found_from_the_readme() -> None:
    found, ahead = set[Path](), [CHECKOUT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        for target in ((page.parent / link).resolve() for link in links):
            ahead += target.glob("*.md") if target.is_dir() else [target]
    assert {page.relative_to(CHECKOUT) for page in PAGES if page not in found} == set()


def test_every_column_of_files_is_described() -> None:
    [table] = re.findall(r"## The table `files`.*?(?=\n## )", text("docs/supabase.md"), re.DOTALL)
    described = set(re.findall(r"`(\w+)`", table))
    wanted = {*FILE_COLUMNS} | {reason.value for reason in GoneReason}
    assert wanted - described == set()


def test_every_key_of_an_entry_is_described() -> None:
    page = text("docs/endpoints.md")
    keys = set(Entry.model_fields)
    for model in (IntervalSchedule, CronSchedule, ManualSchedule):
        keys |= set(model.model_fields)
    assert {key for key in keys if key not in page} == set()


def test_every_detail_of_every_built_in_type_is_described() -> None:
    page = text("docs/endpoints.md")
    registry = Registry(plug_ins=())
    for name in registry.names():
        section = page.split(f"### endpoint_details of {name}")[1].split("###")[0]
        details = registry.get(name).details.model_fields
        assert {key for key in details if f"| `{key}` |" not in section} == set(), name


def test_every_variable_is_described() -> None:
    page = text("docs/deployment.md")
    variables = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    variables |= {POSTGRES_VARIABLE, "GOOGLE_DRIVE_API_ENDPOINT", "APS_BASE_URL"}
    assert {name for name in variables if f"`{name}`" not in page} == set()


def test_every_command_is_described() -> None:
    assert isinstance(cli, click.Group)
    docs = everything()
    assert {name for name in cli.commands if f"file-connector {name}" not in docs} == set()


def test_every_option_is_described() -> None:
    page = text("docs/cli.md")
    assert isinstance(cli, click.Group)
    options = {
        (name, param.opts[0])
        for name, command in cli.commands.items()
        for param in command.params
        if isinstance(param, click.Option)
    }
    rows = {name: page.split(f"`file-connector {name}")[1].split("\n")[0] for name in cli.commands}
    missing = {(c, o) for c, o in options if o not in rows[c] and o != "--json"}
    assert missing == set()
    assert "`--json`" in page


SHELL = re.compile(r"^(?:docker compose run --rm code )?(file-connector .*?)(?: #.*)?$")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_commands_in_the_documents_exist(page: Path) -> None:
    assert isinstance(cli, click.Group)
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    for words in (m[1].split() for m in map(SHELL.match, lines) if m):
        cli.commands[words[1]].make_context(words[1], words[2:])


def test_every_library_has_a_reason() -> None:
    block = re.findall(r"(?ms)^dependencies = \[(.*?)^\]", text("pyproject.toml"))[0]
    rows = re.findall(r"^\| (.*?) \|", text("docs/decisions/libraries.md"), re.MULTILINE)
    reasons = {name for row in rows for name in row.replace(" Core", "").split(", ")}
    assert set(re.findall(r'"([\w-]+)', block)) - reasons == set()


def test_every_promise_is_there() -> None:
    numbers = re.findall(r"\*\*S(\d\d)\*\*", text("docs/promises.md"))
    assert numbers == [f"{n:02d}" for n in range(1, 53)]


def test_every_metadata_key_is_described() -> None:
    source = text("file_connector/orchestration/io_manager.py")
    keys = set(re.findall(r'^        "([\w/]+)": ', source, re.MULTILINE))
    assert "rows_inserted" in keys
    page = text("docs/architecture.md")
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_the_compose_file_names_what_exists() -> None:
    blocks = re.findall(r"```yaml\n(# compose.*?)```", text("docs/deployment.md"), re.DOTALL)
    [compose] = [yaml.safe_load(block) for block in blocks]
    image, page = text("Dockerfile"), text("docs/deployment.md")
    for service in compose["services"].values():
        named = {v.split(":")[0] for v in service["volumes"]} - {"./config"}
        assert named == set(compose["volumes"])
        assert all(f"`{name}`" in page or "__" in name for name in service["environment"])
        assert service.get("command", "dagster code-server").split()[0] in image
    home = compose["services"]["code"]["environment"]["FILE_CONNECTOR_HOME"]
    assert f"VOLUME {home}" in image


def test_the_example_of_the_reference_is_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", text("docs/endpoints.md"), re.DOTALL)
    path = tmp_path / "endpoints.yaml"
    path.write_text(examples[0])
    assert load_endpoints(path, Registry()).problems == ()


def test_the_entries_of_getting_started_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", text("docs/getting-started.md"), re.DOTALL)
    entries = [entry for block in blocks for entry in yaml.safe_load(block)]
    path = tmp_path / "endpoints.yaml"
    path.write_text(yaml.safe_dump({"endpoints": entries}))
    catalog = load_endpoints(path, Registry())
    assert catalog.problems == ()
    assert [e.id for e in catalog.endpoints] == ["acme_documents", "acme_models"]


def test_the_project_speaks_of_itself_alone() -> None:
    """No machine paths in what we ship."""
    suspicious = re.compile(r"(?<![\w.])/(?:work|root|tmp)/")
    found = [
        f"{path.relative_to(CHECKOUT)}: {line.strip()}"
        for path in [*PAGES, *(CHECKOUT / "file_connector").rglob("*.py")]
        for line in path.read_text(encoding="utf-8").splitlines()
        if suspicious.search(line)
    ]
    assert found == []
