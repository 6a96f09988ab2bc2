-- For those who read `files`: project members by their token, and Supabase's Realtime.

set local lock_timeout = '5s';  -- not for long, while everybody else waits behind us

create index if not exists files_project_idx on public.files (project_id);

-- Who carries project ids in the claim app_metadata.project_ids of their token reads the rows of those
-- projects as well. Only your server can put it there (never read user_metadata: users write it
-- themselves). Without the claim, or if it is anything but a list, nothing changes. In a sub-select, so
-- that it is unfolded once per statement and not once per row.
drop policy if exists files_members_read on public.files;
create policy files_members_read on public.files for select to public
    using (
        project_id = any (array(
            select jsonb_array_elements_text(
                case jsonb_typeof(c.claims #> '{app_metadata,project_ids}')
                    when 'array' then c.claims #> '{app_metadata,project_ids}'
                    else '[]'
                end
            )
            from (
                select nullif(current_setting('request.jwt.claims', true), '')::jsonb as claims
            ) c
        ))
    );

-- Realtime tells what is published. Rows of `files` never go, they are marked, so the primary key is
-- all the identity it needs (the default).
do $$
begin
    if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables)
        and not exists (
            select from pg_publication_tables
            where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'files'
        )
    then
        alter publication supabase_realtime add table public.files;
    end if;
exception when insufficient_privilege then
    raise notice 'files is not published to Realtime: %', sqlerrm;
end
$$;

insert into public.file_connector_migrations (name)
values ('20260202090000_readers') on conflict do nothing;

notify pgrst, 'reload schema';
