-- One row that the database refuses, because of a constraint or a trigger that somebody put on
-- `files`, no longer costs its batch: it is left out and named in the answer, as over a direct
-- connection. And rows that are held are looked up by their key, whatever the statistics of a table
-- that grew a moment ago make the planner believe.

-- The records of a commit: a row is written if a reader could tell it from the stored one, and never
-- by an older version. In one statement, so that the batch is read and compared once. `first` is the
-- first change_seq of the commit so far; `before` the one before those taken here.
create or replace function public.file_connector_store(
    payload jsonb, records jsonb, first bigint, moment timestamptz,
    out fresh bigint, out newer bigint, out again bigint, out same bigint, out before bigint
)
language plpgsql security definer set search_path = '' set timezone = 'UTC'
set plan_cache_mode = force_custom_plan as $$
declare
    endpoint constant text := payload ->> 'endpoint_id';
    ids text[];
begin
    ids := array(
        select distinct r ->> 'parent_id' from jsonb_array_elements(records) r
        where r ->> 'parent_id' is not null
    );
    with judged as materialized (
        select
            t.*, v.*, f.external_id is null as is_fresh,
            coalesce(f.change_seq >= first, false) as is_repathed,
            row_number() over (
                partition by v.is_news order by f.external_id is not null, t.external_id collate "C"
            ) as n
        from jsonb_to_recordset(records) as t (
            external_id text, title text, link text, created_at timestamptz,
            updated_at timestamptz, mime_type text, size_bytes bigint, version bigint,
            parent_id text, raw jsonb, version_is_content boolean
        )
        left join public.file_connector_prefixes(endpoint, ids) p on p.folder_id = t.parent_id
        left join lateral (
            select * from public.files f
            where f.endpoint_id = endpoint and f.external_id = t.external_id
            offset 0
        ) f on true
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
    select n.fresh, n.newer, n.again, n.same, (select c.before from counter c)
    into fresh, newer, again, same, before
    from counts n;
end
$$;

-- The same, without the rows that the database refuses: they are found by halving, and told in
-- `refused`, each with the reason.
create or replace function public.file_connector_sift(
    payload jsonb, records jsonb, first bigint, moment timestamptz,
    out fresh bigint, out newer bigint, out again bigint, out same bigint, out before bigint,
    out refused jsonb
)
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
declare
    half integer;
    part record;
begin
    begin
        select * into fresh, newer, again, same, before
        from public.file_connector_store(payload, records, first, moment);
        refused := '{}';
        return;
    exception
        when data_exception or integrity_constraint_violation or program_limit_exceeded
            or raise_exception
        then
            fresh := 0; newer := 0; again := 0; same := 0; before := null; refused := '{}';
            half := jsonb_array_length(records) / 2;
            if half = 0 then
                refused := jsonb_build_object(
                    records #>> '{0,external_id}',
                    format('the database refuses what we sent (%s): %s', sqlstate, sqlerrm)
                );
                return;
            end if;
    end;
    for part in
        select s.* from (
            select jsonb_agg(e.value order by e.ordinality) as records
            from jsonb_array_elements(records) with ordinality e
            group by e.ordinality > half
            order by e.ordinality > half
        ) h
        cross join lateral public.file_connector_sift(payload, h.records, first, moment) s
    loop
        fresh := fresh + part.fresh;
        newer := newer + part.newer;
        again := again + part.again;
        same := same + part.same;
        before := coalesce(before, part.before);
        refused := refused || part.refused;
    end loop;
end
$$;

-- Applies one commit, all or nothing, and answers its counts, changed ids and refused rows. Called again with the
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

-- Only other functions call the new ones.
do $$
declare
    its_function regprocedure;
    its_role text;
begin
    for its_function in
        select p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'public'::regnamespace
            and p.proname in ('file_connector_store', 'file_connector_sift')
    loop
        execute format('revoke all on function %s from public', its_function);
        for its_role in
            select rolname from pg_roles
            where rolname in ('anon', 'authenticated', 'service_role')
        loop
            execute format('revoke all on function %s from %I', its_function, its_role);
        end loop;
    end loop;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260126090000_refused_rows') on conflict do nothing;

notify pgrst, 'reload schema';
