-- Another user of an endpoint takes over no row that an earlier tenant left behind.

-- Puts project and user on the rows of the tenant that the state names (all rows, if it names none);
-- how many that changed.
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
            and f.project_id = coalesce(held.project_id, f.project_id)
            and f.user_id = coalesce(held.user_id, f.user_id)
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

insert into public.file_connector_migrations (name)
values ('20260302090000_tenants') on conflict do nothing;

notify pgrst, 'reload schema';
