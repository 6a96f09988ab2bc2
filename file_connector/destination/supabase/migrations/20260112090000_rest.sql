-- The store over REST: what File Connector asks of the tables, one function each.
--
-- PostgREST runs a call in one transaction, so rows, folder tree and cursor commit together. The
-- functions are SECURITY DEFINER because the tables of cursors, folder trees, leases and tokens are
-- closed to every role of REST and stay so: service_role may do with them what is written here and
-- nothing else; nobody else may call anything. Answers are single JSON values, so that a limit on
-- rows cannot cut them. Lock order of every writer: state row, change counter, rows of files by id.
--
-- Settings of every function: names resolve in no schema but pg_catalog; times are spelled in UTC;
-- waiting for a lock ends before the caller gives up; plans are made for the sizes of now and not for
-- the empty tables a long-lived connection saw first.
-- `moment` is the caller's clock, for tests; without it the database's clock counts.

alter table public.sync_state add column if not exists answer jsonb;
comment on column public.sync_state.answer is
    'What the commit named by commit_id answered, for a caller whose answer was lost.';

-- -- parts ----------------------------------------------------------------------------------------

-- The state of an endpoint, its row locked until the transaction ends.
create or replace function public.file_connector_locked(endpoint text) returns public.sync_state
language plpgsql security definer set search_path = '' as $$
declare
    held public.sync_state;
begin
    select * into held from public.sync_state s where s.endpoint_id = endpoint for update;
    if not found then
        insert into public.sync_state
            (endpoint_id, version, pass_no, rescoped, held_back, confirmed, blind)
        values (endpoint, 0, 0, false, 0, false, '[]') on conflict do nothing;
        select * into held from public.sync_state s where s.endpoint_id = endpoint for update;
    end if;
    return held;
end
$$;

-- Refuses (PT409) a run that does not hold the endpoint's lease.
create or replace function public.file_connector_hold(endpoint text, run text) returns void
language plpgsql security definer set search_path = '' as $$
declare
    holder text;
begin
    select l.run_id into holder from public.sync_leases l where l.endpoint_id = endpoint;
    if holder is distinct from run then
        raise exception using errcode = 'PT409', message = format(
            'run %s no longer holds the endpoint (%s); nothing was written', run,
            coalesce('run ' || holder || ' took it over', 'nobody holds it')
        );
    end if;
end
$$;

-- Takes `count` values of change_seq; the one before the first. The counter stays locked until the
-- transaction ends, so that no later number can be seen before an earlier one.
create or replace function public.file_connector_reserve(count bigint) returns bigint
language sql security definer set search_path = '' as $$
    update public.change_counter c set value = c.value + count returning c.value - count
$$;

-- Adds what a commit did to its run.
create or replace function public.file_connector_tally(run text, answer jsonb) returns void
language sql security definer set search_path = '' as $$
    update public.sync_runs r set
        inserted = r.inserted + coalesce((answer ->> 'inserted')::bigint, 0),
        updated = r.updated + coalesce((answer ->> 'updated')::bigint, 0),
        unchanged = r.unchanged + coalesce((answer ->> 'unchanged')::bigint, 0),
        tombstoned = r.tombstoned + coalesce((answer ->> 'tombstoned')::bigint, 0)
    where r.run_id = run and r.ended_at is null
$$;

-- Replaces an endpoint's state; its version rises by one.
create or replace function public.file_connector_put(
    state jsonb, commit text, answer jsonb, moment timestamptz
) returns void
language sql security definer set search_path = '' as $$
    update public.sync_state s set
        version = n.version + 1, cursor = n.cursor, sweep = n.sweep, pass_no = n.pass_no,
        pass_started_at = n.pass_started_at, swept_at = n.swept_at, scope = n.scope,
        principal = n.principal, rescoped = n.rescoped, synced_at = n.synced_at,
        held_back = n.held_back, confirmed = n.confirmed, blind = n.blind,
        project_id = n.project_id, user_id = n.user_id,
        commit_id = commit, answer = file_connector_put.answer, stored_at = moment
    from jsonb_to_record(state) as n (
        endpoint_id text, version bigint, cursor jsonb, sweep jsonb, pass_no integer,
        pass_started_at timestamptz, swept_at timestamptz, scope text, principal text,
        rescoped boolean, synced_at timestamptz, held_back integer, confirmed boolean,
        blind jsonb, project_id text, user_id text
    )
    where s.endpoint_id = n.endpoint_id
$$;

-- `ids`, known or not, and all folders known below them.
create or replace function public.file_connector_below(endpoint text, ids text[])
returns setof text
language sql stable security definer set search_path = '' as $$
    with recursive inside (folder_id) as (
        select unnest(ids) collate "C"
        union
        select f.folder_id
        from inside
        join public.sync_folders f
            on f.endpoint_id = endpoint and f.parent_id = inside.folder_id
    )
    select folder_id from inside
$$;

-- What comes before a title in the paths of files inside each known folder of `ids`: the names from
-- below the start folder, each followed by "/". While a feed tells two moves one after the other, a
-- folder may seem to lie inside itself: then the way up ends where it has been before.
create or replace function public.file_connector_prefixes(endpoint text, ids text[])
returns table (folder_id text, prefix text)
language sql stable security definer set search_path = '' as $$
    with recursive up (asked, parent_id, prefix, passed) as (
        select
            f.folder_id, f.parent_id,
            case when f.parent_id is null then '' else f.name || '/' end, array[f.folder_id]
        from public.sync_folders f
        where f.endpoint_id = endpoint and f.folder_id = any (ids)
        union all
        select
            up.asked, f.parent_id,
            case when f.parent_id is null then '' else f.name || '/' end || up.prefix,
            up.passed || f.folder_id
        from up
        join public.sync_folders f on f.endpoint_id = endpoint and f.folder_id = up.parent_id
        where f.folder_id <> all (up.passed)
    )
    select distinct on (asked) asked, up.prefix from up order by asked, cardinality(passed) desc
$$;

-- Marks live files as gone, each with its reason, in the order given; the change_seq before theirs,
-- and how many there were. A tombstone keeps its first reason and time.
create or replace function public.file_connector_bury(
    endpoint text, ids text[], reasons text[], moment timestamptz, out before bigint, out buried bigint
)
language plpgsql security definer set search_path = '' as $$
begin
    select array_agg(g.id order by g.n), array_agg(g.reason order by g.n)
    into ids, reasons
    from unnest(ids, reasons) with ordinality as g (id, reason, n)
    join public.files f on f.endpoint_id = endpoint and f.external_id = g.id
    where f.gone_at is null;
    buried := coalesce(cardinality(ids), 0);
    if buried > 0 then
        before := public.file_connector_reserve(buried);
        update public.files f set
            gone_at = moment, gone_reason = g.reason, changed_at = moment, change_seq = before + g.n
        from unnest(ids, reasons) with ordinality as g (id, reason, n)
        where f.endpoint_id = endpoint and f.external_id = g.id;
    end if;
end
$$;

-- -- one commit -----------------------------------------------------------------------------------

-- Applies one commit, all or nothing, and answers its counts and changed ids. Called again with the
-- same commit_id it changes nothing and answers the same. Refuses with PT409 if the run lost its lease
-- or the stored state is not the one the commit was derived from.
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

    -- Records: a row is written if a reader could tell it from the stored one, and never by an older
    -- version. In one statement, so that the batch is read and compared once.
    ids := array(
        select distinct r ->> 'parent_id' from jsonb_array_elements(payload -> 'records') r
        where r ->> 'parent_id' is not null
    );
    with judged as materialized (
        select
            t.*, v.*, f.external_id is null as is_fresh,
            coalesce(f.change_seq >= first, false) as is_repathed,
            row_number() over (
                partition by v.is_news order by f.external_id is not null, t.external_id collate "C"
            ) as n
        from jsonb_to_recordset(payload -> 'records') as t (
            external_id text, title text, link text, created_at timestamptz,
            updated_at timestamptz, mime_type text, size_bytes bigint, version bigint,
            parent_id text, raw jsonb, version_is_content boolean
        )
        left join public.file_connector_prefixes(endpoint, ids) p on p.folder_id = t.parent_id
        left join public.files f on f.endpoint_id = endpoint and f.external_id = t.external_id
        cross join lateral (
            select
                coalesce(p.prefix, '') || t.title as path,
                f.external_id is null or (
                    coalesce(t.version >= f.version, true) and (
                        (
                            t.title, t.link, t.created_at, t.updated_at, t.mime_type, t.size_bytes,
                            t.parent_id, coalesce(p.prefix, '') || t.title, t.raw,
                            payload ->> 'source', payload ->> 'project_id', payload ->> 'user_id'
                        ) is distinct from (
                            f.title, f.link, f.created_at, f.updated_at, f.mime_type, f.size_bytes,
                            f.parent_id, f.path, f.raw,
                            f.source, f.project_id, f.user_id
                        )
                        or (t.version_is_content and t.version is distinct from f.version)
                        or f.gone_at is not null
                    )
                ) as is_news
        ) v
    ), counts as materialized (
        select
            count(*) filter (where j.is_fresh) as fresh,
            count(*) filter (where j.is_news and not j.is_fresh) as newer,
            count(*) filter (where j.is_news and not j.is_fresh and j.is_repathed) as again,
            count(*) filter (where not j.is_news and not j.is_repathed) as same
        from judged j
    ), counter as (
        update public.change_counter c set value = c.value + n.fresh + n.newer
        from counts n where n.fresh + n.newer > 0
        returning c.value - n.fresh - n.newer as before
    ), saved as (
        insert into public.files (
            endpoint_id, external_id, source, project_id, user_id, title, link, created_at,
            updated_at, mime_type, size_bytes, version, path, parent_id, first_seen_at,
            changed_at, change_seq, raw
        )
        select
            endpoint, j.external_id, payload ->> 'source', payload ->> 'project_id',
            payload ->> 'user_id', j.title, j.link, j.created_at, j.updated_at, j.mime_type,
            j.size_bytes, j.version, j.path, j.parent_id, moment, moment, c.before + j.n, j.raw
        from judged j cross join counter c
        where j.is_news
        order by j.external_id collate "C"
        on conflict (endpoint_id, external_id) do update set
            source = excluded.source, project_id = excluded.project_id,
            user_id = excluded.user_id, title = excluded.title, link = excluded.link,
            created_at = excluded.created_at, updated_at = excluded.updated_at,
            mime_type = excluded.mime_type, size_bytes = excluded.size_bytes,
            version = excluded.version, path = excluded.path, parent_id = excluded.parent_id,
            gone_at = null, gone_reason = null, changed_at = excluded.changed_at,
            change_seq = excluded.change_seq, raw = excluded.raw
    )
    select n.fresh, repathed + n.newer - n.again, n.same, (select c.before from counter c)
    into fresh, newer, same, before
    from counts n;
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
        insert into public.sync_seen (endpoint_id, pass_no, external_id)
        select endpoint, (payload #>> '{state,pass_no}')::integer, s.id
        from (
            select r ->> 'external_id' from jsonb_array_elements(payload -> 'records') r
            union
            select jsonb_array_elements_text(payload -> 'seen')
        ) s (id)
        order by s.id collate "C"
        on conflict do nothing;
    end if;

    answer := jsonb_build_object(
        'inserted', fresh, 'updated', newer, 'unchanged', same, 'tombstoned', gone, 'first', first
    );
    perform public.file_connector_put(
        payload -> 'state', payload ->> 'commit_id', answer, moment
    );
    perform public.file_connector_tally(payload ->> 'run_id', answer);
    return public.file_connector_answer(endpoint, answer);
end
$$;

-- A commit's answer with the ids it changed: only the holder of the endpoint's state changes its rows,
-- so they are those that carry its numbers.
create or replace function public.file_connector_answer(endpoint text, answer jsonb) returns jsonb
language sql stable security definer set search_path = '' as $$
    select answer || jsonb_build_object('changed_ids', coalesce(jsonb_agg(f.external_id), '[]'))
    from public.files f
    where f.endpoint_id = endpoint and f.change_seq >= (answer ->> 'first')::bigint
$$;

-- Puts project and user on every row of the endpoint that differs; how many did.
create or replace function public.file_connector_restamp(
    endpoint text, project text, owner text, run text, commit text, moment timestamptz default null
) returns bigint
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    held public.sync_state;
    ids text[];
    before bigint;
    answer jsonb;
begin
    held := public.file_connector_locked(endpoint);
    if held.commit_id = commit then
        return (held.answer ->> 'updated')::bigint;
    end if;
    perform public.file_connector_hold(endpoint, run);
    moment := coalesce(moment, clock_timestamp());
    ids := array(
        select f.external_id from public.files f
        where f.endpoint_id = endpoint and (f.project_id <> project or f.user_id <> owner)
        order by f.external_id
    );
    if cardinality(ids) > 0 then
        before := public.file_connector_reserve(cardinality(ids));
        update public.files f set
            project_id = project, user_id = owner, changed_at = moment, change_seq = before + w.n
        from unnest(ids) with ordinality as w (id, n)
        where f.endpoint_id = endpoint and f.external_id = w.id;
    end if;
    answer := jsonb_build_object('updated', cardinality(ids));
    perform public.file_connector_put(
        to_jsonb(held) || jsonb_build_object('project_id', project, 'user_id', owner),
        commit, answer, moment
    );
    perform public.file_connector_tally(run, answer);
    return cardinality(ids);
end
$$;

-- Replaces a state that is still at its version; false if it is not, or, with `idle`, if a living run
-- holds the endpoint. `forget` also drops the folder tree and the marks of the open pass.
create or replace function public.file_connector_put_state(
    state jsonb, commit text, idle boolean, forget boolean, moment timestamptz default null
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
        select from public.sync_leases l where l.endpoint_id = endpoint and l.expires_at > moment
    )) then
        return false;
    end if;
    perform public.file_connector_put(state, commit, null, moment);
    if forget then
        delete from public.sync_folders f where f.endpoint_id = endpoint;
        delete from public.sync_seen s where s.endpoint_id = endpoint;
    end if;
    return true;
end
$$;

create or replace function public.file_connector_forget_seen(endpoint text) returns void
language sql security definer set search_path = '' set lock_timeout = '20s' as $$
    delete from public.sync_seen s where s.endpoint_id = endpoint
$$;

-- -- reading --------------------------------------------------------------------------------------

create or replace function public.file_connector_state(endpoint text) returns jsonb
language sql stable security definer set search_path = '' set timezone = 'UTC' as $$
    select to_jsonb(s) - array['commit_id', 'answer', 'stored_at']
    from public.sync_state s where s.endpoint_id = endpoint
$$;

-- Folders of the known tree, ordered by id: those with `ids`, those inside `parent`, or all, in pages.
create or replace function public.file_connector_folders(
    endpoint text, ids text[] default null, parent text default null, after text default '',
    page integer default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(jsonb_agg(to_jsonb(picked) - 'endpoint_id' order by picked.folder_id), '[]')
    from (
        select * from public.sync_folders f
        where f.endpoint_id = endpoint
            and (ids is null or f.folder_id = any (ids))
            and (parent is null or f.parent_id = parent)
            and f.folder_id > after
        order by f.folder_id
        limit page
    ) picked;
end
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
            and (unseen is null or not exists (
                select from public.sync_seen s
                where s.endpoint_id = endpoint and s.pass_no = unseen
                    and s.external_id = f.external_id
            ))
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
    return count(*)
    from public.files f
    where f.endpoint_id = endpoint and f.gone_at is null and (unseen is null or not exists (
        select from public.sync_seen s
        where s.endpoint_id = endpoint and s.pass_no = unseen and s.external_id = f.external_id
    ));
end
$$;

-- Full rows: the one with `id`, or the live ones that changed last.
create or replace function public.file_connector_rows(
    endpoint text, id text default null, page integer default null
) returns jsonb
language plpgsql stable security definer
set search_path = '' set timezone = 'UTC' set plan_cache_mode = force_custom_plan as $$
begin
    return coalesce(jsonb_agg(to_jsonb(picked) order by picked.change_seq desc), '[]')
    from (
        select * from public.files f
        where f.endpoint_id = endpoint
            and (id is null or f.external_id = id) and (id is not null or f.gone_at is null)
        order by f.change_seq desc
        limit page
    ) picked;
end
$$;

-- -- runs and leases ------------------------------------------------------------------------------

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
    if holder.expires_at > moment then
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

-- Heartbeat; false if the lease was lost.
create or replace function public.file_connector_renew(
    endpoint text, run text, lease interval, moment timestamptz default null
) returns boolean
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
begin
    update public.sync_leases l set expires_at = coalesce(moment, clock_timestamp()) + lease
    where l.endpoint_id = endpoint and l.run_id = run;
    return found;
end
$$;

create or replace function public.file_connector_finish_run(
    run text, ending text, why text, calls bigint, missed bigint, moment timestamptz default null
) returns void
language sql security definer set search_path = '' set lock_timeout = '20s' as $$
    update public.sync_runs r set
        ended_at = coalesce(moment, clock_timestamp()), outcome = ending, reason = why,
        api_calls = calls, missed_by_fast_path = missed
    where r.run_id = run and r.ended_at is null;
    delete from public.sync_leases l where l.run_id = run
$$;

create or replace function public.file_connector_runs(endpoint text, page integer) returns jsonb
language sql stable security definer set search_path = '' set timezone = 'UTC' as $$
    select coalesce(jsonb_agg(to_jsonb(picked) order by picked.started_at desc, picked.run_id desc), '[]')
    from (
        select * from public.sync_runs r where r.endpoint_id = endpoint
        order by r.started_at desc, r.run_id desc
        limit page
    ) picked
$$;

-- -- endpoints ------------------------------------------------------------------------------------

-- The rows of `endpoints` that differ from the YAML's: what the YAML says, over how each is doing.
create or replace function public.file_connector_mirrored(listed jsonb)
returns setof public.endpoints
language sql stable security definer set search_path = '' as $$
    with wanted as (
        select
            t.endpoint_id, t.name, t.endpoint_type, t.project_id, t.user_id,
            case
                when e.endpoint_id is null or t.status in ('quarantined', 'disabled') then t.status
                when e.status in ('new', 'ok', 'failing') then e.status
                when e.failures > 0 then 'failing'
                when e.last_success_at is not null then 'ok'
                else 'new'
            end as status,
            e.last_success_at, e.failing_since, coalesce(e.failures, 0) as failures, e.retry_at,
            case
                when e.endpoint_id is null or t.status in ('quarantined', 'disabled')
                    then t.message
                when e.status in ('new', 'ok', 'failing') or e.failures > 0 then e.message
                else ''
            end as message
        from jsonb_populate_recordset(null::public.endpoints, listed) t
        left join public.endpoints e on e.endpoint_id = t.endpoint_id
        union all
        select
            e.endpoint_id, e.name, e.endpoint_type, e.project_id, e.user_id, 'removed',
            e.last_success_at, e.failing_since, e.failures, e.retry_at, e.message
        from public.endpoints e
        where not exists (
            select from jsonb_array_elements(listed) t where t ->> 'endpoint_id' = e.endpoint_id
        )
    )
    select w.* from wanted w left join public.endpoints e on e.endpoint_id = w.endpoint_id
    where (e.name, e.endpoint_type, e.project_id, e.user_id, e.status, e.message)
        is distinct from (w.name, w.endpoint_type, w.project_id, w.user_id, w.status, w.message)
$$;

create or replace function public.file_connector_mirror(listed jsonb) returns void
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
begin
    if not exists (select from public.file_connector_mirrored(listed)) then
        return;
    end if;
    perform from public.endpoints e order by e.endpoint_id for update;
    insert into public.endpoints (
        endpoint_id, name, endpoint_type, project_id, user_id, status, last_success_at,
        failing_since, failures, retry_at, message
    )
    select
        m.endpoint_id, m.name, m.endpoint_type, m.project_id, m.user_id, m.status,
        m.last_success_at, m.failing_since, m.failures, m.retry_at, m.message
    from public.file_connector_mirrored(listed) m
    order by m.endpoint_id
    on conflict (endpoint_id) do update set
        name = excluded.name, endpoint_type = excluded.endpoint_type,
        project_id = excluded.project_id, user_id = excluded.user_id, status = excluded.status,
        message = excluded.message;
end
$$;

create or replace function public.file_connector_status(endpoint text) returns jsonb
language sql stable security definer set search_path = '' set timezone = 'UTC' as $$
    select to_jsonb(e) from public.endpoints e where e.endpoint_id = endpoint
$$;

-- Notes how a run ended: a failure with what was `said`, or, without it, a success; the new status.
-- `again`: the answer to the same call may have been lost, so it must not count twice.
create or replace function public.file_connector_note(
    endpoint text, source text, project text, owner text, at timestamptz, said text default null,
    retry timestamptz default null, again boolean default false
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
        endpoint, endpoint, source, project, owner,
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

-- -- lent to connectors ---------------------------------------------------------------------------

-- Reserves the next free slot of a call budget; the seconds until it. If that is longer than `longest`,
-- nothing is reserved.
create or replace function public.file_connector_reserve_slot(
    bucket text, spacing interval, slack interval, longest interval,
    moment timestamptz default null
) returns numeric
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
declare
    held timestamptz;
    wait interval;
begin
    select r.free_at into held from public.rate_limits r where r.key = bucket for update;
    if not found then
        insert into public.rate_limits (key, free_at)
        values (bucket, coalesce(moment, clock_timestamp())) on conflict do nothing;
        select r.free_at into held from public.rate_limits r where r.key = bucket for update;
    end if;
    moment := coalesce(moment, clock_timestamp());
    if held - moment > longest + slack + spacing then
        held := moment;  -- further than we ever reserve: the clock was set back
    end if;
    wait := greatest(held - slack - moment, interval '0');
    if wait <= longest then
        update public.rate_limits r set free_at = greatest(held, moment) + spacing
        where r.key = bucket;
    end if;
    return extract(epoch from wait);
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
    if held.expires_at > moment and held.holder <> taker then
        return null;
    end if;
    update public.token_locks l set holder = taker, expires_at = moment + hold where l.key = token;
    return moment;
end
$$;

create or replace function public.file_connector_free_token(
    token text, taker text, since timestamptz
) returns void
language sql security definer set search_path = '' set lock_timeout = '20s' as $$
    update public.token_locks l set expires_at = since where l.key = token and l.holder = taker
$$;

-- The stored secret, as encrypted by the one who saved it.
create or replace function public.file_connector_load_token(token text) returns text
language sql stable security definer set search_path = '' as $$
    select t.secret from public.tokens t where t.key = token
$$;

-- False, storing nothing, if `taker` lost the lock it took at `since` and somebody saved meanwhile.
create or replace function public.file_connector_save_token(
    token text, sealed text, taker text default null, since timestamptz default null,
    moment timestamptz default null
) returns boolean
language plpgsql security definer set search_path = '' set lock_timeout = '20s' as $$
declare
    stored public.tokens;
begin
    select * into stored from public.tokens t where t.key = token for update;
    if stored.secret = sealed then
        return true;
    end if;
    if stored.saved_at >= since and not exists (
        select from public.token_locks l where l.key = token and l.holder = taker
    ) then
        return false;
    end if;
    insert into public.tokens as t (key, secret, saved_at)
    values (token, sealed, coalesce(moment, clock_timestamp()))
    on conflict (key) do update set secret = excluded.secret, saved_at = excluded.saved_at;
    return true;
end
$$;

-- -- who may call ---------------------------------------------------------------------------------

-- Names of the migrations this database has.
create or replace function public.file_connector_applied() returns jsonb
language sql stable security definer set search_path = '' as $$
    select coalesce(jsonb_agg(m.name order by m.name), '[]')
    from public.file_connector_migrations m
$$;

do $$
declare
    parts constant text[] := array[
        'locked', 'hold', 'reserve', 'tally', 'put', 'below', 'prefixes', 'bury', 'answer',
        'mirrored'
    ];
    its_function record;
    its_role text;
begin
    for its_function in
        select p.oid::regprocedure as signature, p.proname as name from pg_proc p
        where p.pronamespace = 'public'::regnamespace and p.proname like 'file\_connector\_%'
    loop
        execute format('revoke all on function %s from public', its_function.signature);
        for its_role in
            select rolname from pg_roles
            where rolname in ('anon', 'authenticated', 'service_role')
        loop
            execute format(
                'revoke all on function %s from %I', its_function.signature, its_role
            );
            if its_role = 'service_role'
                and replace(its_function.name, 'file_connector_', '') <> all (parts)
            then
                execute format(
                    'grant execute on function %s to %I', its_function.signature, its_role
                );
            end if;
        end loop;
    end loop;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260112090000_rest') on conflict do nothing;

notify pgrst, 'reload schema';
