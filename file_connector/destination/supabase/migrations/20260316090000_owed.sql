-- What concerns very many rows is done in pieces: a folder with all in it is renamed or lost, an entry
-- gets another tenant. The transaction that finds more rows than a piece stores the new tree (or the
-- new tenant) and notes in `owed` which rows have to follow; those after it change one piece each.
-- Nothing else is stored for the endpoint before all is settled, whoever holds it then. So no
-- transaction keeps the change counter for long, and killed in between it ends as one would have.

alter table public.sync_state add column if not exists owed jsonb;
comment on column public.sync_state.owed is
    'Rows that still have to follow a change of very many, in parts; null if there are none.';

create or replace function public.file_connector_state(endpoint text) returns jsonb
language sql stable security definer set search_path = '' set timezone = 'UTC' as $$
    select to_jsonb(s) - array['commit_id', 'answer', 'stored_at', 'owed']
    from public.sync_state s where s.endpoint_id = endpoint
$$;

-- Folders as parts of what is owed, five hundred in each, with what else each of them `says`.
create or replace function public.file_connector_parts(key text, ids text[], says jsonb)
returns jsonb
language sql immutable security definer set search_path = '' as $$
    select jsonb_agg(jsonb_build_object(key, p.ids) || says order by p.part)
    from (
        select (i.n - 1) / 500, jsonb_agg(i.id order by i.n)
        from unnest(ids) with ordinality as i (id, n)
        group by 1
    ) p (part, ids)
$$;

create or replace function public.file_connector_owe(
    endpoint text, parts jsonb, commit text, says jsonb
) returns void
language sql security definer set search_path = '' as $$
    update public.sync_state s set
        owed = nullif(parts, '[]'), commit_id = commit, answer = says
    where s.endpoint_id = endpoint
$$;

-- Up to `most` live files whose path does not follow from their folder, one of `inside` that is known;
-- and the right paths. By id.
create or replace function public.file_connector_misplaced(
    endpoint text, inside text[], most integer, out ids text[], out paths text[]
)
language sql stable security definer set search_path = '' as $$
    select
        array_agg(m.external_id order by m.external_id), array_agg(m.path order by m.external_id)
    from (
        select f.external_id, p.prefix || f.title as path
        from public.file_connector_prefixes(endpoint, inside) p
        join public.files f on f.endpoint_id = endpoint and f.parent_id = p.folder_id
        where f.parent_id = any (inside)  -- says what the join says, and uses the index
            and f.gone_at is null and f.path <> p.prefix || f.title
        limit most
    ) m
$$;

-- Up to `most` live files in the folders `inside`, by id.
create or replace function public.file_connector_live_in(
    endpoint text, inside text[], most integer
) returns text[]
language sql stable security definer set search_path = '' as $$
    select coalesce(array_agg(l.external_id order by l.external_id), '{}')
    from (
        select f.external_id from public.files f
        where f.endpoint_id = endpoint and f.parent_id = any (inside) and f.gone_at is null
        limit most
    ) l
$$;

-- Applies one commit, all or nothing, and answers its counts, changed ids and refused rows. Called
-- again with the same commit_id it changes nothing and answers the same. Refuses with PT409 if the run
-- lost its lease or the stored state is not the one the commit was derived from. An answer with
-- `stopped` has not come to the state: before it began (-1), after its folders (0) or after so many of
-- the folders gone there are rows owed. Settle, then commit what is left.
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
    piece constant integer := payload ->> 'piece';
    owed jsonb;
    lost integer := 0;
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
    if held.owed is not null then
        return '{"stopped": -1, "changed_ids": []}';
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
        if cardinality(inside) <= 500 then  -- or even to ask what is in all of them takes too long
            select m.ids, m.paths into ids, paths
            from public.file_connector_misplaced(endpoint, inside, piece + 1) m;
        end if;
        if cardinality(inside) > 500 or cardinality(ids) > piece then
            perform public.file_connector_owe(
                endpoint, public.file_connector_parts('moved', inside, '{}'),
                payload ->> 'commit_id', '{"stopped": 0}'
            );
            return '{"stopped": 0, "changed_ids": []}';
        end if;
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
        ids := public.file_connector_live_in(endpoint, inside, piece + 1);
        if cardinality(ids) > piece then
            owed := public.file_connector_parts(
                'gone', inside, jsonb_build_object('reason', leaving ->> 1)
            );
            ids := '{}';
        end if;
        select b.before, b.buried into before, buried
        from public.file_connector_bury(
            endpoint, ids, array_fill(leaving ->> 1, array[cardinality(ids)]), moment
        ) b;
        first := coalesce(first, before + 1);
        gone := gone + buried;
        delete from public.sync_folders f
        where f.endpoint_id = endpoint and f.folder_id = any (inside);
        lost := lost + 1;
        if owed is not null then
            answer := jsonb_build_object(
                'inserted', fresh, 'updated', newer, 'unchanged', same, 'tombstoned', gone,
                'first', first, 'refused', refused, 'stopped', lost
            );
            perform public.file_connector_owe(endpoint, owed, payload ->> 'commit_id', answer);
            perform public.file_connector_tally(payload ->> 'run_id', answer);
            return public.file_connector_answer(endpoint, answer);
        end if;
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

-- Changes the next `piece` rows of what is owed, and answers like a commit; `owed`: some are left.
create or replace function public.file_connector_settle(
    endpoint text, run text, commit text, piece integer, moment timestamptz default null
) returns jsonb
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s'
set plan_cache_mode = force_custom_plan as $$
declare
    held public.sync_state;
    part jsonb;
    folders text[];
    ids text[];
    paths text[];
    before bigint;
    many bigint;
    answer jsonb;
begin
    held := public.file_connector_locked(endpoint);
    if held.commit_id = commit then
        return public.file_connector_answer(endpoint, held.answer);
    end if;
    perform public.file_connector_hold(endpoint, run);
    if held.owed is null then
        return '{"updated": 0, "tombstoned": 0, "changed_ids": [], "owed": false}';
    end if;
    moment := coalesce(moment, clock_timestamp());
    part := held.owed -> 0;
    folders := array(
        select jsonb_array_elements_text(coalesce(part -> 'moved', part -> 'gone', '[]'))
    );
    if part ? 'moved' then
        select m.ids, m.paths into ids, paths
        from public.file_connector_misplaced(endpoint, folders, piece) m;
    elsif part ? 'gone' then
        ids := public.file_connector_live_in(endpoint, folders, piece);
    else
        ids := array(
            select f.external_id from public.files f
            where f.endpoint_id = endpoint and f.external_id > part ->> 'after'
                and (f.project_id <> held.project_id or f.user_id <> held.user_id)
                and f.project_id = coalesce(part ->> 'project_id', f.project_id)
                and f.user_id = coalesce(part ->> 'user_id', f.user_id)
            order by f.external_id
            limit piece
        );
    end if;
    many := coalesce(cardinality(ids), 0);
    if many > 0 then
        before := public.file_connector_reserve(many);
        update public.files f set
            path = coalesce(w.path, f.path),
            gone_at = case when part ? 'gone' then moment else f.gone_at end,
            gone_reason = case when part ? 'gone' then part ->> 'reason' else f.gone_reason end,
            project_id = case when part ? 'after' then held.project_id else f.project_id end,
            user_id = case when part ? 'after' then held.user_id else f.user_id end,
            changed_at = moment, change_seq = before + w.n
        from unnest(ids, paths) with ordinality as w (id, path, n)
        where f.endpoint_id = endpoint and f.external_id = w.id;
        if part ? 'after' then
            part := part || jsonb_build_object('after', ids[many]);
        end if;
    end if;
    held.owed := held.owed - 0;
    if many >= piece then
        held.owed := jsonb_build_array(part) || held.owed;
    end if;
    answer := jsonb_build_object(
        'updated', case when part ? 'gone' then 0 else many end,
        'tombstoned', case when part ? 'gone' then many else 0 end,
        'first', before + 1, 'owed', held.owed <> '[]'
    );
    perform public.file_connector_owe(endpoint, held.owed, commit, answer);
    perform public.file_connector_tally(run, answer);
    return public.file_connector_answer(endpoint, answer);
end
$$;

-- Makes project and user the tenant of the state, and owes them the rows of the tenant it named (all
-- rows, if it named none). False, changing nothing, if something is owed already: settle, and repeat.
drop function if exists public.file_connector_restamp(text, text, text, text, text, timestamptz);
create or replace function public.file_connector_change_tenant(
    endpoint text, project text, owner text, run text, commit text, moment timestamptz default null
) returns boolean
language plpgsql security definer
set search_path = '' set timezone = 'UTC' set lock_timeout = '20s' as $$
declare
    held constant public.sync_state := public.file_connector_locked(endpoint);
begin
    if held.commit_id = commit then
        return true;
    end if;
    perform public.file_connector_hold(endpoint, run);
    if held.owed is not null then
        return false;
    end if;
    perform public.file_connector_put(
        to_jsonb(held) || jsonb_build_object('project_id', project, 'user_id', owner),
        commit, null, coalesce(moment, clock_timestamp())
    );
    perform public.file_connector_owe(
        endpoint,
        jsonb_build_array(jsonb_build_object(
            'project_id', held.project_id, 'user_id', held.user_id, 'after', ''
        )),
        commit, null
    );
    return true;
end
$$;

-- The service calls two of the new functions; only other functions call the rest.
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
        where p.pronamespace = 'public'::regnamespace and p.proname in (
            'file_connector_parts', 'file_connector_owe', 'file_connector_misplaced',
            'file_connector_live_in', 'file_connector_settle', 'file_connector_change_tenant'
        )
    loop
        execute format('revoke all on function %s from public', its_function);
        foreach its_role in array roles loop
            execute format('revoke all on function %s from %I', its_function, its_role);
        end loop;
    end loop;
    if 'service_role' = any (roles) then
        grant execute on function public.file_connector_settle to service_role;
        grant execute on function public.file_connector_change_tenant to service_role;
    end if;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260316090000_owed') on conflict do nothing;

notify pgrst, 'reload schema';
