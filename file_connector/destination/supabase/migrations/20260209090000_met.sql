-- What a complete listing has met is stored as one row per commit and not as one per file: a listing
-- of a million files that finds nothing new writes a thousand rows. And three things that never came
-- to an end: a lease and a token's lock that were taken by a clock that was wrong, and a job whose
-- instance is gone.

create table if not exists public.sync_met (
    endpoint_id text collate "C" not null,
    pass_no integer not null,
    part bigint not null,
    ids jsonb not null,
    constraint sync_met_pkey primary key (endpoint_id, pass_no, part)
);
comment on column public.sync_met.part is
    'The version of the state that the commit was derived from; negative: from before this table.';

do $$
declare
    its_role text;
begin
    alter table public.sync_met enable row level security;
    revoke all on table public.sync_met from public;
    for its_role in
        select rolname from pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    loop
        execute format('revoke all on table public.sync_met from %I', its_role);
    end loop;
    if to_regclass('public.sync_seen') is not null then
        lock table public.sync_seen;  -- what is marked while we copy would be lost
        insert into public.sync_met (endpoint_id, pass_no, part, ids)
        select s.endpoint_id, s.pass_no, -1 - s.n / 10000, jsonb_agg(s.external_id)
        from (
            select s.*, row_number() over (partition by s.endpoint_id, s.pass_no) - 1 as n
            from public.sync_seen s
        ) s
        group by 1, 2, 3
        on conflict do nothing;
        drop table public.sync_seen;
    end if;
end
$$;

-- Ids beyond `after` of live files that the pass has not met.
create or replace function public.file_connector_unmet(endpoint text, pass integer, after text)
returns setof text
language sql stable security definer set search_path = '' as $$
    select f.external_id
    from public.files f
    where f.endpoint_id = endpoint and f.gone_at is null and f.external_id > after
    except
    select e.id collate "C"
    from public.sync_met m cross join lateral jsonb_array_elements_text(m.ids) e (id)
    where m.endpoint_id = endpoint and m.pass_no = pass
$$;

-- Whether what was taken for at most `longest` still holds. What ends later than that was taken by a
-- clock that was wrong, and is not renewed: a living holder's would be right again by now.
create or replace function public.file_connector_living(
    expires_at timestamptz, moment timestamptz, longest interval
) returns boolean
language sql immutable security definer set search_path = '' as $$
    select moment < expires_at
        and expires_at <= moment + greatest(longest, interval '90 seconds') + interval '1 minute'
$$;

-- Applies one commit, all or nothing, and answers its counts, changed ids and refused rows. Called
-- again with the same commit_id it changes nothing and answers the same. Refuses with PT409 if the run
-- lost its lease or the stored state is not the one the commit was derived from.
create or replace function public.file_connector_commit(payload jsonb) returns jsonb
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s'
set plan_cache_mode = force_custom_plan as $$
declare
    endpoint constant text := payload ->> 'endpoint_id';
    held public.sync_state;
    moment timestamptz;
    moved text[];
    ids text[];
    paths text[];
    inside text[];
    leaving jsonb;
    before bigint;
    first bigint;  -- the first change_seq of this commit
    repathed bigint := 0;
    fresh bigint := 0;
    newer bigint := 0;
    same bigint := 0;
    gone bigint := 0;
    buried bigint;
    refused jsonb;
    answer jsonb;
begin
    held := public.file_connector_locked(endpoint);
    if held.commit_id = payload ->> 'commit_id' then
        return public.file_connector_answer(endpoint, held.answer);
    end if;
    perform public.file_connector_hold(endpoint, payload ->> 'run_id');
    if held.version <> (payload #>> '{state,version}')::bigint then
        raise exception using errcode = 'PT409', message = format(
            'the stored state is at version %s, this run started from %s; nothing was written',
            held.version, payload #>> '{state,version}'
        );
    end if;
    moment := coalesce((payload ->> 'moment')::timestamptz, clock_timestamp());

    -- Folders, and the paths of files below those that are new, renamed or moved.
    if (payload ->> 'forget_folders')::boolean then
        delete from public.sync_folders f where f.endpoint_id = endpoint;
    end if;
    with news as materialized (
        select
            t.*,
            f.folder_id is null
            or (t.name, t.parent_id) is distinct from (f.name, f.parent_id) as elsewhere
        from jsonb_to_recordset(payload -> 'folders') as t (
            folder_id text, parent_id text, name text, state jsonb
        )
        left join public.sync_folders f
            on f.endpoint_id = endpoint and f.folder_id = t.folder_id
        where
            f.folder_id is null
            or (t.name, t.parent_id, t.state) is distinct from (f.name, f.parent_id, f.state)
    ), saved as (
        insert into public.sync_folders (endpoint_id, folder_id, parent_id, name, state)
        select endpoint, n.folder_id, n.parent_id, n.name, n.state from news n
        order by n.folder_id collate "C"
        on conflict (endpoint_id, folder_id) do update set
            parent_id = excluded.parent_id, name = excluded.name, state = excluded.state
    )
    select array_agg(n.folder_id) filter (where n.elsewhere) into moved from news n;
    if moved is not null then
        inside := array(select public.file_connector_below(endpoint, moved));
        select
            array_agg(f.external_id order by f.external_id),
            array_agg(p.prefix || f.title order by f.external_id)
        into ids, paths
        from public.file_connector_prefixes(endpoint, inside) p
        join public.files f on f.endpoint_id = endpoint and f.parent_id = p.folder_id
        where f.parent_id = any (inside)  -- says what the join says, and uses the index
            and f.gone_at is null and f.path <> p.prefix || f.title;
        repathed := coalesce(cardinality(ids), 0);
    end if;
    if repathed > 0 then
        first := public.file_connector_reserve(repathed) + 1;
        update public.files f set
            path = w.path, changed_at = moment, change_seq = first - 1 + w.n
        from unnest(ids, paths) with ordinality as w (id, path, n)
        where f.endpoint_id = endpoint and f.external_id = w.id;
    end if;

    -- Records.
    select s.fresh, repathed + s.newer - s.again, s.same, s.before, s.refused
    into fresh, newer, same, before, refused
    from public.file_connector_sift(payload, payload -> 'records', first, moment) s;
    first := coalesce(first, before + 1);

    -- Folders that left, each with all below it; then files that left.
    for leaving in
        select e.value from jsonb_array_elements(payload -> 'folders_gone') with ordinality e
        order by e.ordinality
    loop
        inside := array(select public.file_connector_below(endpoint, array[leaving ->> 0]));
        ids := array(
            select f.external_id from public.files f
            where f.endpoint_id = endpoint and f.parent_id = any (inside) and f.gone_at is null
            order by f.external_id
        );
        select b.before, b.buried into before, buried
        from public.file_connector_bury(
            endpoint, ids, array_fill(leaving ->> 1, array[cardinality(ids)]), moment
        ) b;
        first := coalesce(first, before + 1);
        gone := gone + buried;
        delete from public.sync_folders f
        where f.endpoint_id = endpoint and f.folder_id = any (inside);
    end loop;
    select b.before, b.buried into before, buried
    from (
        select
            array_agg(e.value ->> 0 order by e.ordinality) as ids,
            array_agg(e.value ->> 1 order by e.ordinality) as reasons
        from jsonb_array_elements(payload -> 'gone') with ordinality e
    ) g
    cross join lateral public.file_connector_bury(endpoint, g.ids, g.reasons, moment) b;
    first := coalesce(first, before + 1);
    gone := gone + buried;

    if (payload ->> 'mark_seen')::boolean then
        insert into public.sync_met (endpoint_id, pass_no, part, ids)
        select
            endpoint, (payload #>> '{state,pass_no}')::integer, held.version,
            coalesce(jsonb_agg(s.id order by s.id collate "C"), '[]')
        from (
            select r ->> 'external_id' from jsonb_array_elements(payload -> 'records') r
            union
            select jsonb_array_elements_text(payload -> 'seen')
        ) s (id);
    end if;

    answer := jsonb_build_object(
        'inserted', fresh, 'updated', newer, 'unchanged', same, 'tombstoned', gone, 'first', first,
        'refused', refused
    );
    perform public.file_connector_put(
        payload -> 'state', payload ->> 'commit_id', answer, moment
    );
    perform public.file_connector_tally(payload ->> 'run_id', answer);
    return public.file_connector_answer(endpoint, answer);
end
$$;

-- Replaces the state if its stored version is the one it was derived from; with `idle`, only if no run
-- holds the endpoint, for `lease` at most. `forget`: folders and what a listing has met go as well.
drop function if exists public.file_connector_put_state(jsonb, text, boolean, boolean, timestamptz);
create or replace function public.file_connector_put_state(
    state jsonb, commit text, idle boolean, forget boolean, moment timestamptz default null,
    lease interval default '90 seconds'
) returns boolean
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    endpoint constant text := state ->> 'endpoint_id';
    held constant public.sync_state := public.file_connector_locked(state ->> 'endpoint_id');
begin
    if held.commit_id = commit then
        return true;
    end if;
    moment := coalesce(moment, clock_timestamp());
    if held.version <> (state ->> 'version')::bigint or (idle and exists (
        select from public.sync_leases l where l.endpoint_id = endpoint
            and public.file_connector_living(l.expires_at, moment, lease)
    )) then
        return false;
    end if;
    perform public.file_connector_put(state, commit, null, moment);
    if forget then
        delete from public.sync_folders f where f.endpoint_id = endpoint;
        delete from public.sync_met s where s.endpoint_id = endpoint;
    end if;
    return true;
end
$$;

create or replace function public.file_connector_forget_seen(endpoint text) returns void
language sql security definer set search_path = '' set lock_timeout = '20s' as $$
    delete from public.sync_met s where s.endpoint_id = endpoint
$$;

-- Held files, ordered by id, in pages: those with `ids`, tombstones included; or else live ones: inside
-- `parent`, not met by pass `unseen`, updated in [since, until), or all that meet several of these.
create or replace function public.file_connector_files(
    endpoint text, ids text[] default null, parent text default null, unseen integer default null,
    since timestamptz default null, until timestamptz default null, after text default '',
    page integer default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set timezone = 'UTC' set plan_cache_mode = force_custom_plan as $$
begin
    if unseen is not null then
        ids := array(
            select u.id from public.file_connector_unmet(endpoint, unseen, after) u (id)
            order by u.id limit page
        );
    end if;
    return coalesce(jsonb_agg(to_jsonb(picked) order by picked.external_id), '[]')
    from (
        select f.external_id, f.title, f.parent_id, f.version, f.updated_at, f.gone_reason
        from public.files f
        where f.endpoint_id = endpoint
            and (ids is null or f.external_id = any (ids))
            and (ids is not null or f.gone_at is null)
            and (parent is null or f.parent_id = parent)
            and (since is null or f.updated_at >= since)
            and (until is null or f.updated_at < until)
            and f.external_id > after
        order by f.external_id
        limit page
    ) picked;
end
$$;

-- How many live files are held, or of these not met by pass `unseen`.
create or replace function public.file_connector_count(endpoint text, unseen integer default null)
returns bigint
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = force_custom_plan as $$
begin
    if unseen is not null then
        return count(*) from public.file_connector_unmet(endpoint, unseen, '');
    end if;
    return count(*) from public.files f where f.endpoint_id = endpoint and f.gone_at is null;
end
$$;

-- Takes the endpoint's lease and opens the run's row; the lease, if a living run holds it. `again`: the
-- answer to the same call may have been lost.
create or replace function public.file_connector_begin_run(
    endpoint text, run text, run_mode text, lease interval, again boolean default false,
    moment timestamptz default null
) returns jsonb
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    holder public.sync_leases;
begin
    perform public.file_connector_locked(endpoint);
    moment := coalesce(moment, clock_timestamp());
    select * into holder from public.sync_leases l where l.endpoint_id = endpoint;
    if again and holder.run_id = run then
        return null;
    end if;
    if public.file_connector_living(holder.expires_at, moment, lease) then
        return to_jsonb(holder);
    end if;
    update public.sync_runs r set
        ended_at = moment, outcome = 'failed', reason = 'lost: ' || coalesce(
            'its process stopped answering, the lease ran out at '
            || to_char(holder.expires_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'it ended without closing its row'
        )
    where r.endpoint_id = endpoint and r.ended_at is null;
    insert into public.sync_runs (
        run_id, endpoint_id, started_at, mode, inserted, updated, unchanged, tombstoned,
        api_calls, missed_by_fast_path, reason
    ) values (run, endpoint, moment, run_mode, 0, 0, 0, 0, 0, 0, '');
    insert into public.sync_leases (endpoint_id, run_id, acquired_at, expires_at)
    values (endpoint, run, moment, moment + lease)
    on conflict (endpoint_id) do update set
        run_id = excluded.run_id, acquired_at = excluded.acquired_at,
        expires_at = excluded.expires_at;
    return null;
end
$$;

-- Locks a token for `holder`; the moment since when, or null if somebody else holds it.
create or replace function public.file_connector_take_token(
    token text, taker text, hold interval, moment timestamptz default null
) returns timestamptz
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    held public.token_locks;
begin
    insert into public.token_locks (key, holder, expires_at)
    values (token, taker, coalesce(moment, clock_timestamp())) on conflict do nothing;
    select * into held from public.token_locks l where l.key = token for update;
    moment := coalesce(moment, clock_timestamp());
    if public.file_connector_living(held.expires_at, moment, hold) and held.holder <> taker then
        return null;
    end if;
    update public.token_locks l set holder = taker, expires_at = moment + hold where l.key = token;
    return moment;
end
$$;

-- The owner of what a job is about: an endpoint that runs (whichever source it comes from), or an
-- instance that has not been loaded yet. Null if there is neither.
create or replace function connectors.owner_of(instance text) returns text
language sql stable security definer set search_path = '' as $$
    select coalesce(
        (
            select e.user_id from public.endpoints e
            where e.endpoint_id = instance and e.status <> 'removed'
        ),
        (select i.user_id from connectors.instances i where i.id = instance)
    )
$$;

create or replace function connectors.stamp_job() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    new.user_id := connectors.owner_of(new.instance_id);
    return new;
end
$$;

-- Hands out up to `max_jobs` due jobs, the longest due first; each to one claimer at a time, for
-- `lease_seconds` (then it is due again), at most max_attempts times. Keep `claim_token`: only it
-- renews, completes and fails this claim. Due jobs of instances that are gone fail.
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
    with due as materialized (
        select j.id from connectors.jobs j
        where j.status in ('queued', 'claimed') and j.due_at <= moment
            and connectors.owner_of(j.instance_id) is null
        for update skip locked
    )
    update connectors.jobs j set
        status = 'failed', finished_at = moment,
        error = format('there is no instance %L any more', j.instance_id)
    from due where j.id = due.id;
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

-- Only other functions call the new ones.
do $$
declare
    its_function regprocedure;
    its_role text;
    roles text[] := (
        select coalesce(array_agg(rolname), '{}') from pg_roles
        where rolname in ('anon', 'authenticated', 'service_role')
    );
begin
    for its_function in
        select p.oid::regprocedure from pg_proc p
        where (p.pronamespace, p.proname) in (
            ('public'::regnamespace, 'file_connector_unmet'),
            ('public'::regnamespace, 'file_connector_living'),
            ('public'::regnamespace, 'file_connector_put_state'),
            ('connectors'::regnamespace, 'owner_of')
        )
    loop
        execute format('revoke all on function %s from public', its_function);
        foreach its_role in array roles loop
            execute format('revoke all on function %s from %I', its_function, its_role);
        end loop;
    end loop;
    if 'service_role' = any (roles) then
        grant execute on function public.file_connector_put_state to service_role;
    end if;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260209090000_met') on conflict do nothing;

notify pgrst, 'reload schema';
