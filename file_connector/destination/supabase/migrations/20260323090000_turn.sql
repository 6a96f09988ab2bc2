-- A question that changes nothing: whose turn an endpoint is.

-- `holder`: the run that took the lease last, unless it gave it back; `since` when. `free_for`: for how
-- many seconds nobody has held the endpoint, zero while the holder lives, null if nobody is known to
-- have held it. What is still to come was noted by a clock that was wrong, and does not count.
create or replace function public.file_connector_turn(
    endpoint text, lease interval, moment timestamptz default null
) returns jsonb
language plpgsql stable security definer set search_path = '' set timezone = 'UTC' as $$
declare
    held public.sync_leases;
    latest timestamptz;
    living boolean;
begin
    moment := coalesce(moment, clock_timestamp());
    select * into held from public.sync_leases l where l.endpoint_id = endpoint;
    living := coalesce(public.file_connector_living(held.expires_at, moment, lease), false);
    select max(m.at) into latest
    from (
        select held.expires_at
        union all
        (
            select r.ended_at from public.sync_runs r
            where r.endpoint_id = endpoint and r.ended_at is not null
            order by r.started_at desc
            limit 5
        )
    ) m (at)
    where m.at <= moment;
    return jsonb_build_object(
        'holder', held.run_id, 'since', held.acquired_at,
        'free_for', case when living then 0 else extract(epoch from moment - latest) end
    );
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
    revoke all on function public.file_connector_turn from public;
    foreach its_role in array roles loop
        execute format('revoke all on function public.file_connector_turn from %I', its_role);
    end loop;
    if 'service_role' = any (roles) then
        grant execute on function public.file_connector_turn to service_role;
    end if;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260323090000_turn') on conflict do nothing;

notify pgrst, 'reload schema';
