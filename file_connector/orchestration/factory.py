"""One endpoint -> one asset and its job. Partitions, names, owners, tags: all decided here."""

import re
from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.definitions.utils import is_valid_owner

from file_connector.deployment import Deployment
from file_connector.endpoints.catalog import Catalog, Problem
from file_connector.endpoints.schema import Endpoint
from file_connector.errors import FileConnectorError, one_line
from file_connector.models import Mode
from file_connector.orchestration.failures import told_to_dagster
from file_connector.orchestration.guards import Unopened
from file_connector.orchestration.io_manager import ChangeSet
from file_connector.orchestration.resources import resource_key
from file_connector.orchestration.runs import ENDPOINT_TAG, MODE_TAG

FIRST_DAY = date(2026, 1, 1)
"""First daily partition (UTC) of an endpoint that names none."""

IO_MANAGER_KEY = "supabase_io_manager"
QUARANTINE = "quarantined"


def asset_key(endpoint_id: str) -> dg.AssetKey:
    return dg.AssetKey(["files", endpoint_id])


def partitions(endpoint: Endpoint) -> dg.DailyPartitionsDefinition:
    """UTC days of ``updated_at``; today is one of them."""
    return dg.DailyPartitionsDefinition(
        start_date=(endpoint.start_date or FIRST_DAY).isoformat(), end_offset=1
    )


def build_asset(
    endpoint: Endpoint, file: Path | None, deployment: Deployment
) -> dg.AssetsDefinition:
    """The asset ``files/<id>``. Computing it finds what changed; its IO manager stores it."""
    connector_key = resource_key(endpoint)

    @dg.asset(
        key=asset_key(endpoint.id),
        description=_describe(endpoint, deployment),
        group_name=group_name(endpoint.project_id),
        partitions_def=partitions(endpoint),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=endpoint.id,
        owners=[owner(endpoint.user_id)],
        kinds={deployment.spec(endpoint).kind, "supabase"},
        tags=_tags(endpoint),
        metadata=_metadata(endpoint, file),
        io_manager_key=IO_MANAGER_KEY,
        required_resource_keys={connector_key, "supabase"},
        output_required=True,
    )
    def files(context: dg.AssetExecutionContext) -> ChangeSet:
        with told_to_dagster(endpoint.id):
            store = context.resources.supabase.store()
            connectors = getattr(context.resources, connector_key)
            try:
                connector = connectors.connector(endpoint, store)
            except FileConnectorError as error:
                connector = Unopened(error, store.state(endpoint.id))
            chosen = context.has_partition_key or context.has_partition_key_range
            mode = _mode(context.run.tags.get(MODE_TAG), chosen)
            window = context.partition_time_window if mode is Mode.WINDOW else None
            return ChangeSet(
                identity=endpoint.identity,
                connector=connector,
                mode=mode,
                window=(_utc(window.start), _utc(window.end)) if window else None,
            )

    return files


def build_job(endpoint: Endpoint, asset: dg.AssetsDefinition) -> UnresolvedAssetJobDefinition:
    """The job the schedule launches: this one asset, in one process."""
    return dg.define_asset_job(
        f"{endpoint.id}_sync",
        selection=[asset],
        executor_def=dg.in_process_executor,
        tags={ENDPOINT_TAG: endpoint.id},
        description=f"Brings table `files` up to date for {one_line(endpoint.name)}.",
    )


def quarantined_asset(
    name: str, title: str, problems: Sequence[Problem], catalog: Catalog, line: int | None
) -> dg.AssetSpec:
    """An entry that cannot run, as an asset that cannot be materialized and says why."""
    file = catalog.path
    told = "\n".join(f"- {_markdown(str(problem))}" for problem in problems)
    return dg.AssetSpec(
        key=asset_key(name),
        group_name=QUARANTINE,
        kinds={"quarantined"},
        description=(
            f"**{_markdown(title)}** does not run. Mend {_markdown(catalog.place(line))}, then"
            f" reload the code location.\n\n{told}"
        ),
        metadata={
            "file": dg.MetadataValue.path(f"{file}:{line}" if file else catalog.name),
            "problems": len(problems),
            "reason": " ".join(p.message for p in problems)[:2000],
            "remedy": " ".join(p.remedy for p in problems if p.remedy)[:2000],
            **_code_reference(file, line),
        },
    )


def group_name(project_id: str) -> str:
    """A project id in the characters Dagster allows for groups."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", project_id).strip("_") or "project"


def owner(user_id: str) -> str:
    """Dagster's owners are e-mail addresses or teams; a SaaS user may be neither."""
    return user_id if is_valid_owner(user_id) else f"team:{user_id}"


def tag_value(text: str) -> str:
    """``text`` in the characters Dagster allows for tag values."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63].strip("-_.")


def _mode(asked: str | None, chosen: bool) -> Mode:
    """A person's click re-reads the days that were chosen, or with none chosen does what a
    scheduled run does."""
    if asked is not None and asked in {m.value for m in Mode}:
        return Mode(asked)
    return Mode.WINDOW if chosen else Mode.INCREMENTAL


def _describe(endpoint: Endpoint, deployment: Deployment) -> str:
    what = _markdown(deployment.describe(endpoint))
    return (
        f"**{_markdown(endpoint.name)}**: {what}\n\nOne row per file in table `files`, where"
        f" `endpoint_id = '{endpoint.id}'`. A partition is the UTC day on which files were last"
        " changed; Materialize and backfills read the chosen days once more."
    )


def _tags(endpoint: Endpoint) -> dict[str, str]:
    tags = {
        ENDPOINT_TAG: endpoint.id,
        "file_connector/source": tag_value(endpoint.endpoint_type),
        "file_connector/project": tag_value(endpoint.project_id),
        "file_connector/user": tag_value(endpoint.user_id),
    }
    return {key: value for key, value in tags.items() if value}


def _metadata(endpoint: Endpoint, file: Path | None) -> dict[str, object]:
    return {
        "project_id": endpoint.project_id,
        "user_id": endpoint.user_id,
        **_code_reference(file, endpoint.line),
    }


def _code_reference(file: Path | None, line: int | None) -> dict[str, object]:
    """Lets the UI open the entry in an editor, if it stands in a file."""
    if file is None or line is None:
        return {}
    reference = dg.LocalFileCodeReference(
        file_path=str(file), line_number=line, label=f"{file.name}:{line}"
    )
    value = dg.CodeReferencesMetadataValue(code_references=[reference])
    return {"dagster/code_references": value}


def _markdown(text: str) -> str:
    """``text`` as literal markdown."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", one_line(text))


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc)
