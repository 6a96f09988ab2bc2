-- The control plane: what an application reads and writes to offer connections to its own users.
--
--   connectors.definitions   which source types there are, and what each wants to know
--   connectors.instances     the endpoints, if FILE_CONNECTOR_SOURCE is control_plane
--   connectors.jobs          a mailbox: "synchronize this instance now"
--   connectors.runs, .state  how it went and how it stands: views of what the runs write
--   connectors.secrets       credentials at rest, encrypted, where there is no Vault
--
-- A schema of its own: nothing here is reachable over REST until `connectors` is added to the
-- exposed schemas. What happens to jobs is written here and not in a client, so that every claimer,
-- ours or the application's, plays by the same rules.

create schema if not exists connectors;
comment on schema connectors is 'The control plane of File Connector: docs/control-plane.md.';

-- -- tables ---------------------------------------------------------------------------------------

create table if not exists connectors.definitions (
    type text collate "C" not null,
    title text not null,
    details_schema jsonb not null,
    streams text[] not null,
    minimum_interval_minutes integer not null,
    updated_at timestamptz not null default now(),
    constraint definitions_pkey primary key (type)
);
comment on table connectors.definitions is
    'Source types of the deployment that migrated last; written by `file-connector migrate`.';
comment on column connectors.definitions.details_schema is
    'JSON schema of instances.endpoint_details for this type, to build a form from.';

create table if not exists connectors.instances (
    id text collate "C" not null,
    name text not null,
    endpoint_type text not null,
    project_id text not null,
    user_id text not null,
    endpoint_details jsonb not null default '{}',
    credentials text,
    schedule jsonb,
    start_date date,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint instances_pkey primary key (id),
    constraint instances_id_check
        check (id ~ '^[a-z0-9]+(_[a-z0-9]+)*$' and length(id) <= 50),
    constraint instances_details_check check (jsonb_typeof(endpoint_details) = 'object'),
    constraint instances_credentials_check check (
        credentials ~ '^([A-Za-z0-9][A-Za-z0-9_-]{0,63}|vault:[A-Za-z0-9][A-Za-z0-9_.-]{0,126})$'
    )
);
create index if not exists instances_user_project_idx
    on connectors.instances (user_id, project_id);
comment on table connectors.instances is
    'Endpoints: the columns are the keys of an entry of endpoints.yaml, null as if left out.';
comment on column connectors.instances.id is
    'The identity, column endpoint_id elsewhere; never changes. Left out, it is made of the name.';
comment on column connectors.instances.user_id is
    'The user of your application who owns the instance: the "sub" of their JSON web token.';
comment on column connectors.instances.credentials is
    'The name of a credential set, or vault:NAME. Never a secret.';

create table if not exists connectors.jobs (
    id bigint generated always as identity,
    instance_id text collate "C" not null,
    user_id text,
    kind text not null default 'sync',
    payload jsonb not null default '{}',
    status text not null default 'queued',
    due_at timestamptz not null default now(),
    attempts integer not null default 0,
    max_attempts integer not null default 5,
    claimed_by text,
    claim_token uuid,
    requested_at timestamptz not null default now(),
    claimed_at timestamptz,
    finished_at timestamptz,
    result jsonb,
    error text,
    constraint jobs_pkey primary key (id),
    constraint jobs_kind_check check (kind in ('sync', 'sweep', 'window')),
    constraint jobs_payload_check
        check (jsonb_typeof(payload) = 'object' and octet_length(payload::text) <= 4000),
    constraint jobs_window_check check (
        kind <> 'window' or coalesce(
            payload ->> 'from' ~ '^\d{4}-\d\d-\d\d$'
            and coalesce(payload ->> 'to', payload ->> 'from') ~ '^\d{4}-\d\d-\d\d$',
            false
        )
    ),
    constraint jobs_status_check check (status in ('queued', 'claimed', 'completed', 'failed')),
    constraint jobs_claim_check check (status <> 'claimed' or claim_token is not null),
    constraint jobs_finished_check
        check ((finished_at is not null) = (status in ('completed', 'failed')))
);
-- The same request is one job while it waits for its first claim. Once claimed it may have looked
-- away already from what the next request is about.
create unique index if not exists jobs_waiting_key
    on connectors.jobs (instance_id, user_id, kind, jsonb_hash_extended(payload, 0))
    where status = 'queued' and attempts = 0;
create index if not exists jobs_due_idx on connectors.jobs (due_at, id)
    where status in ('queued', 'claimed');
create index if not exists jobs_instance_idx on connectors.jobs (instance_id, finished_at);
create index if not exists jobs_user_idx on connectors.jobs (user_id);
comment on table connectors.jobs is
    'Requests of the application: written by enqueue_connector_job, moved on by the functions below.';
comment on column connectors.jobs.kind is
    'sync: what changed. sweep: list everything and compare. window: re-read the days (UTC) '
    'payload.from to payload.to.';
comment on column connectors.jobs.due_at is
    'When it may be claimed: at once, after a back-off, or when the lease of its claim ends.';
comment on column connectors.jobs.user_id is 'The owner of the instance when the job was asked for.';

create table if not exists connectors.secrets (
    name text collate "C" not null,
    sealed text not null,
    saved_at timestamptz not null default now(),
    constraint secrets_pkey primary key (name)
);
comment on table connectors.secrets is
    'Stands in for Supabase Vault on plain Postgres: encrypted by File Connector, never plain.';

create or replace view connectors.runs with (security_invoker = true) as
    select
        r.run_id, r.endpoint_id as instance_id, r.started_at, r.ended_at, r.mode, r.outcome,
        r.inserted, r.updated, r.unchanged, r.tombstoned, r.api_calls, r.missed_by_fast_path,
        r.reason
    from public.sync_runs r;
comment on view connectors.runs is 'One row per run: public.sync_runs.';

create or replace view connectors.state with (security_invoker = true) as
    select
        e.endpoint_id as instance_id, e.name, e.endpoint_type, e.project_id, e.user_id, e.status,
        e.last_success_at, e.failing_since, e.failures, e.retry_at, e.message
    from public.endpoints e;
comment on view connectors.state is
    'How each endpoint does, of whichever source they are read from: public.endpoints.';

-- -- instances ------------------------------------------------------------------------------------

-- The id that endpoints.yaml would give an entry of this name; empty if nothing usable is left.
create or replace function connectors.slug(name text) returns text
language plpgsql immutable set search_path = '' as $$
declare
    slug text := regexp_replace(normalize(name, nfkd), '[^\x01-\x7f]', '', 'g');
begin
    slug := regexp_replace(lower(slug collate "C"), '[^a-z0-9]+', '_', 'g');
    slug := trim(both '_' from slug);
    if length(slug) > 50 then
        slug := rtrim(left(slug, 41), '_') || '_'
            || left(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 8);
    end if;
    return slug;
end
$$;

create or replace function connectors.prepare_instance() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    if tg_op = 'UPDATE' then
        if new.id <> old.id then
            raise exception using
                errcode = 'restrict_violation',
                message = format('the id of instance %s never changes', old.id),
                hint = 'Its rows and its cursor are stored under it. Insert another instance.';
        end if;
        new.updated_at := clock_timestamp();
    elsif new.id is null then
        new.id := connectors.slug(new.name);
        perform pg_advisory_xact_lock(hashtextextended(new.id, 5264820251));
        if new.id = '' or exists (select from connectors.instances i where i.id = new.id) then
            new.id := left(coalesce(nullif(new.id, ''), 'instance'), 41) || '_'
                || left(replace(gen_random_uuid()::text, '-', ''), 8);
            new.id := replace(new.id, '__', '_');
        end if;
    end if;
    return new;
end
$$;
create or replace trigger prepare_instance before insert or update on connectors.instances
    for each row execute function connectors.prepare_instance();

-- What still waits for an instance ends with it.
create or replace function connectors.drop_waiting_jobs() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    delete from connectors.jobs j where j.instance_id = old.id and j.status = 'queued';
    return null;
end
$$;
create or replace trigger drop_waiting_jobs after delete on connectors.instances
    for each row execute function connectors.drop_waiting_jobs();

-- All instances, as one value: a limit on rows over REST cuts nothing.
create or replace function connectors.list_instances() returns jsonb
language sql stable security definer set search_path = '' as $$
    select coalesce(jsonb_agg(to_jsonb(i) order by i.created_at, i.id), '[]')
    from connectors.instances i
$$;

-- Makes `definitions` what is given; how many rows changed.
create or replace function connectors.define_connectors(definitions jsonb) returns integer
language plpgsql security definer set search_path = '' as $$
declare
    gone integer;
    written integer;
begin
    delete from connectors.definitions d
    where not exists (
        select from jsonb_array_elements(definitions) g where g ->> 'type' = d.type
    );
    get diagnostics gone = row_count;
    insert into connectors.definitions as d
        (type, title, details_schema, streams, minimum_interval_minutes)
    select g.type, g.title, g.details_schema, g.streams, g.minimum_interval_minutes
    from jsonb_populate_recordset(null::connectors.definitions, definitions) g
    order by g.type
    on conflict (type) do update set
        title = excluded.title, details_schema = excluded.details_schema,
        streams = excluded.streams, updated_at = clock_timestamp(),
        minimum_interval_minutes = excluded.minimum_interval_minutes
    where (d.title, d.details_schema, d.streams, d.minimum_interval_minutes) is distinct from
        (excluded.title, excluded.details_schema, excluded.streams, excluded.minimum_interval_minutes);
    get diagnostics written = row_count;
    return gone + written;
end
$$;

-- -- jobs -----------------------------------------------------------------------------------------

-- Stamps a job with the owner of what it is about: an endpoint that runs (whichever source it comes
-- from), or an instance that has not been loaded yet. Null if there is neither.
create or replace function connectors.stamp_job() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    new.user_id := coalesce(
        (
            select e.user_id from public.endpoints e
            where e.endpoint_id = new.instance_id and e.status <> 'removed'
        ),
        (select i.user_id from connectors.instances i where i.id = new.instance_id)
    );
    return new;
end
$$;
create or replace trigger stamp_job before insert on connectors.jobs
    for each row execute function connectors.stamp_job();

-- Row-level security has spoken before this one looks, so nobody learns of others' instances.
create or replace function connectors.check_job() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    if new.user_id is null then
        raise exception using
            errcode = 'foreign_key_violation',
            message = format('there is no instance %L', new.instance_id),
            hint = 'It must be a row of connectors.instances, or of public.endpoints.';
    end if;
    if (
        select count(*) from connectors.jobs j
        where j.instance_id = new.instance_id and j.status = 'queued' and j.attempts = 0
    ) > 1000 then
        raise exception using
            errcode = 'PT429',
            message = format('too many jobs wait for instance %L', new.instance_id),
            hint = 'Is a claimer running? See docs/control-plane.md.';
    end if;
    return null;
end
$$;
create or replace trigger check_job after insert on connectors.jobs
    for each row execute function connectors.check_job();

-- Asks for one run of an instance; the id of the job. The same request that still waits is the same
-- job. Runs with the rights of the caller: who may insert the row may ask.
create or replace function connectors.enqueue_connector_job(
    instance_id text, kind text default 'sync', payload jsonb default '{}'
) returns bigint
language plpgsql set search_path = '' as $$
declare
    job bigint;
begin
    payload := coalesce(payload, '{}');
    for attempt in 1 .. 100 loop
        insert into connectors.jobs (instance_id, kind, payload)
        values (instance_id, coalesce(kind, 'sync'), payload)
        on conflict do nothing
        returning id into job;
        if job is null then
            select j.id into job
            from connectors.jobs j
            where j.instance_id = enqueue_connector_job.instance_id
                and j.kind = coalesce(enqueue_connector_job.kind, 'sync')
                and jsonb_hash_extended(j.payload, 0)
                    = jsonb_hash_extended(enqueue_connector_job.payload, 0)
                and j.status = 'queued' and j.attempts = 0
            limit 1;
        end if;
        if job is not null then
            return job;
        end if;  -- claimed between the two statements: then a new one is due
    end loop;
    raise exception using
        errcode = 'serialization_failure', message = 'the job was claimed as fast as it was asked for';
end
$$;

-- Hands out up to `max_jobs` due jobs, the longest due first; each to one claimer at a time, for
-- `lease_seconds` (then it is due again), at most max_attempts times. Keep `claim_token`: only it
-- renews, completes and fails this claim.
create or replace function connectors.claim_connector_job(
    worker text, lease_seconds integer default 300, max_jobs integer default 1,
    only_instances text[] default null
) returns setof connectors.jobs
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
declare
    moment timestamptz := clock_timestamp();
begin
    with lost as materialized (
        select j.id from connectors.jobs j
        where j.status = 'claimed' and j.due_at <= moment and j.attempts >= j.max_attempts
        for update skip locked
    )
    update connectors.jobs j set
        status = 'failed', finished_at = moment,
        error = format('claimed %s times, and no claimer came back', j.attempts)
    from lost where j.id = lost.id;
    return query
    with due as materialized (
        select j.id from connectors.jobs j
        where j.status in ('queued', 'claimed') and j.due_at <= moment
            and j.attempts < j.max_attempts
            and (only_instances is null or j.instance_id = any (only_instances))
        order by j.due_at, j.id
        limit max_jobs
        for update skip locked
    )
    update connectors.jobs j set
        status = 'claimed', attempts = j.attempts + 1, claimed_by = worker,
        claim_token = gen_random_uuid(), claimed_at = moment,
        due_at = moment + make_interval(secs => greatest(lease_seconds, 1))
    from due where j.id = due.id
    returning j.*;
end
$$;

-- What `worker` has claimed and not finished, leases run out included.
create or replace function connectors.held_connector_jobs(worker text)
returns setof connectors.jobs
language sql stable security definer set search_path = '' as $$
    select * from connectors.jobs j
    where j.status = 'claimed' and j.claimed_by = worker order by j.id
$$;

-- Of which instances other than `known` jobs are due and wait, at most twenty: for these a code
-- location must be reloaded.
create or replace function connectors.waiting_connector_jobs(known text[]) returns jsonb
language sql stable security definer set search_path = '' as $$
    select coalesce(jsonb_agg(w.instance_id order by w.instance_id), '[]')
    from (
        select distinct j.instance_id from connectors.jobs j
        where j.status in ('queued', 'claimed') and j.due_at <= clock_timestamp()
            and j.instance_id <> all (known)
        limit 20
    ) w
$$;

-- Heartbeat: the lease ends `lease_seconds` from now. False if the claim was lost.
create or replace function connectors.renew_connector_job(
    job_id bigint, claim_token uuid, lease_seconds integer default 300
) returns boolean
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
begin
    update connectors.jobs j set
        due_at = clock_timestamp() + make_interval(secs => greatest(lease_seconds, 1))
    where j.id = job_id and j.status = 'claimed'
        and j.claim_token = renew_connector_job.claim_token;
    return found;
end
$$;

-- False, changing nothing, if the claim was lost: then the job is somebody else's. Calling it twice
-- is the same as once.
create or replace function connectors.complete_connector_job(
    job_id bigint, claim_token uuid, result jsonb default '{}'
) returns boolean
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
begin
    update connectors.jobs j set
        status = 'completed', finished_at = clock_timestamp(), error = null,
        result = complete_connector_job.result
    where j.id = job_id and j.status = 'claimed'
        and j.claim_token = complete_connector_job.claim_token;
    perform connectors.forget_old_jobs(job_id);
    return exists (
        select from connectors.jobs j
        where j.id = job_id and j.status = 'completed'
            and j.claim_token = complete_connector_job.claim_token
    );
end
$$;

-- Where the job stands now: 'queued' to be tried again (after `retry_seconds`, or 30 s, 1 min, 2 min
-- and so on, at most an hour), or 'failed' for good: without `retry`, or after max_attempts. Null,
-- changing nothing, if the claim was lost. Calling it twice is the same as once.
create or replace function connectors.fail_connector_job(
    job_id bigint, claim_token uuid, reason text, retry boolean default true,
    retry_seconds integer default null
) returns text
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
declare
    moment timestamptz := clock_timestamp();
begin
    update connectors.jobs j set
        status = case when again then 'queued' else 'failed' end,
        finished_at = case when not again then moment end,
        due_at = case
            when again then moment + make_interval(
                secs => coalesce(retry_seconds, least(30 * 2 ^ least(j.attempts - 1, 10), 3600))
            )
            else j.due_at
        end,
        error = left(reason, 2000)
    from (
        select j.id, retry and j.attempts < j.max_attempts as again
        from connectors.jobs j where j.id = job_id
    ) decided
    where j.id = decided.id and j.status = 'claimed'
        and j.claim_token = fail_connector_job.claim_token;
    perform connectors.forget_old_jobs(job_id);
    return (
        select j.status from connectors.jobs j
        where j.id = job_id and j.status in ('queued', 'failed')
            and j.claim_token = fail_connector_job.claim_token
    );
end
$$;

-- Finished jobs of the same instance are kept for thirty days.
create or replace function connectors.forget_old_jobs(job_id bigint) returns void
language sql security definer set search_path = '' as $$
    delete from connectors.jobs o
    using connectors.jobs j
    where j.id = job_id and o.instance_id = j.instance_id
        and o.finished_at < clock_timestamp() - interval '30 days'
$$;

-- -- who may do what ------------------------------------------------------------------------------

--   authenticated   reads definitions, own instances and own jobs; asks for jobs of own instances
--   service_role    the application's backend: writes instances, asks, claims, completes, fails
--   anon            nothing
-- A user may not write instances: naming another's credential set, or none, would read another's
-- files. Secrets are nobody's over REST.
do $$
declare
    its_object text;
    its_function regprocedure;
    its_role text;
    roles text[] := (
        select coalesce(array_agg(rolname), '{}') from pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    );
begin
    revoke all on schema connectors from public;
    foreach its_role in array roles loop
        execute format('revoke all on schema connectors from %I', its_role);
    end loop;

    foreach its_object in array array['definitions', 'instances', 'jobs', 'secrets'] loop
        execute format('alter table connectors.%I enable row level security', its_object);
    end loop;
    foreach its_object in array
        array['definitions', 'instances', 'jobs', 'secrets', 'runs', 'state']
    loop
        execute format('revoke all on table connectors.%I from public', its_object);
        foreach its_role in array roles loop
            execute format('revoke all on table connectors.%I from %I', its_object, its_role);
        end loop;
    end loop;
    for its_function in
        select oid::regprocedure from pg_proc where pronamespace = 'connectors'::regnamespace
    loop
        execute format('revoke all on function %s from public', its_function);
        foreach its_role in array roles loop
            execute format('revoke all on function %s from %I', its_function, its_role);
        end loop;
    end loop;

    if 'authenticated' = any (roles) then
        grant usage on schema connectors to authenticated;
        grant select on connectors.definitions, connectors.instances, connectors.jobs
            to authenticated;
        grant insert (instance_id, kind, payload) on connectors.jobs to authenticated;
        grant execute on function connectors.enqueue_connector_job to authenticated;
    end if;
    if 'service_role' = any (roles) then
        grant usage on schema connectors to service_role;
        grant select on connectors.definitions, connectors.jobs, connectors.runs, connectors.state
            to service_role;
        grant select, insert, update, delete on connectors.instances to service_role;
        grant insert (instance_id, kind, payload) on connectors.jobs to service_role;
        grant execute on function
            connectors.enqueue_connector_job, connectors.claim_connector_job,
            connectors.held_connector_jobs, connectors.waiting_connector_jobs,
            connectors.renew_connector_job,
            connectors.complete_connector_job, connectors.fail_connector_job,
            connectors.list_instances, connectors.define_connectors
            to service_role;
    end if;
end
$$;

-- The claims are read as in the policy of `files`.
drop policy if exists definitions_all_read on connectors.definitions;
create policy definitions_all_read on connectors.definitions for select to public using (true);

drop policy if exists instances_owner_reads on connectors.instances;
create policy instances_owner_reads on connectors.instances for select to public
    using (
        user_id
        = (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
    );

drop policy if exists jobs_owner_reads on connectors.jobs;
create policy jobs_owner_reads on connectors.jobs for select to public
    using (
        user_id
        = (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
    );

drop policy if exists jobs_owner_asks on connectors.jobs;
create policy jobs_owner_asks on connectors.jobs for insert to public
    with check (
        user_id
        = (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
    );

insert into public.file_connector_migrations (name)
values ('20260119090000_connectors') on conflict do nothing;

notify pgrst, 'reload schema';
