-- Callers of the call budget may have less patience than others. How far ahead slots are reserved at
-- most, and so whether the clock was set back, does not depend on who asks.

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
    if held - moment > interval '120 s' + slack + spacing then
        held := moment;  -- further than anybody ever reserves: the clock was set back
    end if;
    wait := greatest(held - slack - moment, interval '0');
    if wait <= longest then
        update public.rate_limits r set free_at = greatest(held, moment) + spacing
        where r.key = bucket;
    end if;
    return extract(epoch from wait);
end
$$;

insert into public.file_connector_migrations (name)
values ('20260309090000_haste') on conflict do nothing;

notify pgrst, 'reload schema';
