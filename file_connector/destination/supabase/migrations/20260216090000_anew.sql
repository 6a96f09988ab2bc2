-- An endpoint whose state somebody deleted begins anew: what its listings have met goes with it, or
-- files that are gone would be taken for met.

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
        if found then
            delete from public.sync_met m where m.endpoint_id = endpoint;
        end if;
        select * into held from public.sync_state s where s.endpoint_id = endpoint for update;
    end if;
    return held;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260216090000_anew') on conflict do nothing;

notify pgrst, 'reload schema';
