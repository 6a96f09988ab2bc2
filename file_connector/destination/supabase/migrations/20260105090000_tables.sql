-- The tables of File Connector.
--
-- `supabase db push` applies this file, and so does `file-connector migrate`. Every statement may be
-- repeated. Nothing needs an extension, a superuser or a role that plain Postgres lacks: Supabase's
-- roles are served where they exist.

create table if not exists public.files (
    endpoint_id text collate "C" not null,
    external_id text collate "C" not null,
    source text not null,
    project_id text not null,
    user_id text not null,
    title text not null,
    link text,
    created_at timestamptz,
    updated_at timestamptz,
    mime_type text,
    size_bytes bigint,
    version bigint,
    path text not null,
    parent_id text collate "C",
    gone_at timestamptz,
    gone_reason text,
    first_seen_at timestamptz not null,
    changed_at timestamptz not null,
    change_seq bigint not null,
    raw jsonb not null,
    constraint files_pkey primary key (endpoint_id, external_id),
    constraint files_gone_reason_check
        check (gone_reason in ('trashed', 'deleted', 'out_of_scope', 'access_lost')),
    constraint files_gone_check check ((gone_at is null) = (gone_reason is null))
);
create unique index if not exists files_change_seq_key on public.files (change_seq);
create index if not exists files_endpoint_change_seq_idx on public.files (endpoint_id, change_seq);
create index if not exists files_endpoint_parent_idx on public.files (endpoint_id, parent_id);
create index if not exists files_user_project_idx on public.files (user_id, project_id);

comment on table public.files is
    'One row per endpoint and file of its provider. Live rows have gone_at null.';
comment on column public.files.user_id is
    'The user of your application who owns the row: the "sub" of the JSON web token that may read it.';
comment on column public.files.change_seq is
    'Rises in commit order: a reader that asks for change_seq > N, ordered, never misses a change.';

create table if not exists public.change_counter (
    id integer not null,
    value bigint not null,
    constraint change_counter_pkey primary key (id),
    constraint change_counter_one_row_check check (id = 1)
);
insert into public.change_counter (id, value) values (1, 0) on conflict do nothing;

create table if not exists public.sync_state (
    endpoint_id text collate "C" not null,
    version bigint not null,
    cursor jsonb,
    sweep jsonb,
    pass_no integer not null,
    pass_started_at timestamptz,
    swept_at timestamptz,
    scope text,
    principal text,
    rescoped boolean not null,
    synced_at timestamptz,
    held_back integer not null,
    confirmed boolean not null,
    blind jsonb not null,
    project_id text,
    user_id text,
    commit_id text,
    stored_at timestamptz,
    constraint sync_state_pkey primary key (endpoint_id)
);

create table if not exists public.sync_folders (
    endpoint_id text collate "C" not null,
    folder_id text collate "C" not null,
    parent_id text collate "C",
    name text not null,
    state jsonb not null,
    constraint sync_folders_pkey primary key (endpoint_id, folder_id)
);
create index if not exists sync_folders_parent_idx on public.sync_folders (endpoint_id, parent_id);

create table if not exists public.sync_seen (
    endpoint_id text collate "C" not null,
    pass_no integer not null,
    external_id text collate "C" not null,
    constraint sync_seen_pkey primary key (endpoint_id, pass_no, external_id)
);

create table if not exists public.sync_runs (
    run_id text not null,
    endpoint_id text collate "C" not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    mode text not null,
    outcome text,
    inserted bigint not null,
    updated bigint not null,
    unchanged bigint not null,
    tombstoned bigint not null,
    api_calls bigint not null,
    missed_by_fast_path bigint not null,
    reason text not null,
    constraint sync_runs_pkey primary key (run_id),
    constraint sync_runs_mode_check check (mode in ('incremental', 'sweep', 'window')),
    constraint sync_runs_outcome_check check (outcome in ('complete', 'partial', 'failed')),
    constraint sync_runs_ended_check check ((ended_at is null) = (outcome is null))
);
create index if not exists sync_runs_endpoint_started_idx
    on public.sync_runs (endpoint_id, started_at);

create table if not exists public.sync_leases (
    endpoint_id text collate "C" not null,
    run_id text not null,
    acquired_at timestamptz not null,
    expires_at timestamptz not null,
    constraint sync_leases_pkey primary key (endpoint_id)
);

create table if not exists public.endpoints (
    endpoint_id text collate "C" not null,
    name text not null,
    endpoint_type text not null,
    project_id text not null,
    user_id text not null,
    status text not null,
    last_success_at timestamptz,
    failing_since timestamptz,
    failures integer not null,
    retry_at timestamptz,
    message text not null,
    constraint endpoints_pkey primary key (endpoint_id)
);

create table if not exists public.rate_limits (
    key text collate "C" not null,
    free_at timestamptz not null,
    constraint rate_limits_pkey primary key (key)
);

create table if not exists public.tokens (
    key text collate "C" not null,
    secret text not null,
    saved_at timestamptz not null,
    constraint tokens_pkey primary key (key)
);

create table if not exists public.token_locks (
    key text collate "C" not null,
    holder text not null,
    expires_at timestamptz not null,
    constraint token_locks_pkey primary key (key)
);

create table if not exists public.file_connector_migrations (
    name text collate "C" not null,
    checksum text,
    applied_at timestamptz not null default now(),
    constraint file_connector_migrations_pkey primary key (name)
);

-- Who may do what. A table in the schema `public` is reachable over REST unless this says otherwise:
-- row-level security on every table, every grant taken away, and then only what is meant given.
--   authenticated   reads own rows of `files`
--   service_role    reads and writes what the application shows: files, sync_runs, endpoints
--   anon            nothing
-- Cursors, folder trees, leases, tokens are nobody's over REST.
do $$
declare
    its_table text;
    its_role text;
begin
    foreach its_table in array array[
        'files', 'change_counter', 'sync_state', 'sync_folders', 'sync_seen', 'sync_runs',
        'sync_leases', 'endpoints', 'rate_limits', 'tokens', 'token_locks',
        'file_connector_migrations'
    ] loop
        execute format('alter table public.%I enable row level security', its_table);
        execute format('revoke all on table public.%I from public', its_table);
        for its_role in
            select rolname from pg_roles
            where rolname in ('anon', 'authenticated', 'service_role')
        loop
            execute format('revoke all on table public.%I from %I', its_table, its_role);
        end loop;
    end loop;

    if exists (select from pg_roles where rolname = 'service_role') then
        grant select, insert, update, delete
            on table public.files, public.sync_runs, public.endpoints to service_role;
    end if;
    if exists (select from pg_roles where rolname = 'authenticated') then
        grant select on table public.files to authenticated;
    end if;
end
$$;

-- The claims are those auth.jwt() gives, read from where PostgREST puts them: user ids are text here,
-- and auth.uid() fails on every "sub" that is no uuid (third-party sign-in). In a sub-select, so that
-- it is evaluated once per statement and not once per row.
drop policy if exists files_owner_reads on public.files;
create policy files_owner_reads on public.files for select to public
    using (
        user_id
        = (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
    );

insert into public.file_connector_migrations (name)
values ('20260105090000_tables') on conflict do nothing;

notify pgrst, 'reload schema';
