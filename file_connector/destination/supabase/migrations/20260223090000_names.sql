-- An endpoint that runs before the endpoints file was mirrored has its own name at once, not its id.

-- Notes how a run ended: a failure with what was `said`, or, without it, a success; the new status.
-- `again`: the answer to the same call may have been lost, so it must not count twice.
drop function if exists public.file_connector_note(
    text, text, text, text, timestamptz, text, timestamptz, boolean
);
create or replace function public.file_connector_note(
    endpoint text, source text, project text, owner text, at timestamptz, said text default null,
    retry timestamptz default null, again boolean default false, called text default null
) returns jsonb
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    noted jsonb;
begin
    insert into public.endpoints as e (
        endpoint_id, name, endpoint_type, project_id, user_id, status, last_success_at,
        failing_since, failures, retry_at, message
    ) values (
        endpoint, coalesce(called, endpoint), source, project, owner,
        case when said is null then 'ok' else 'failing' end,
        case when said is null then at end, case when said is not null then at end,
        case when said is null then 0 else 1 end, retry, coalesce(said, '')
    )
    on conflict (endpoint_id) do update set
        status = case
            when e.status in ('new', 'ok', 'failing') then excluded.status else e.status
        end,
        last_success_at = coalesce(excluded.last_success_at, e.last_success_at),
        failing_since = case when said is not null then coalesce(e.failing_since, at) end,
        failures = case
            when said is null then 0
            when again and (e.message, e.retry_at) is not distinct from (said, retry)
                then e.failures
            else e.failures + 1
        end,
        retry_at = retry, message = excluded.message
    returning to_jsonb(e) into noted;
    return noted;
end
$$;

do $$
declare
    its_role text;
    roles text[] := (
        select coalesce(array_agg(rolname), '{}') from pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    );
begin
    revoke all on function public.file_connector_note from public;
    foreach its_role in array roles loop
        execute format('revoke all on function public.file_connector_note from %I', its_role);
    end loop;
    if 'service_role' = any (roles) then
        grant execute on function public.file_connector_note to service_role;
    end if;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260223090000_names') on conflict do nothing;

notify pgrst, 'reload schema';
