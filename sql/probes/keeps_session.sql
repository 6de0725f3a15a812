-- Returns one row: whether the settings made when the connection was opened still apply. They do not behind a pooler
-- that gives each transaction another connection. If they do, switches off idle_session_timeout, unless the connection
-- string sets it: the server would end an idle connection of the pool, perhaps at the moment when a statement is sent,
-- whose effect would then be unknown.
with session as (
    select coalesce(current_setting('movies_api.session', true) = 'kept', false) as keeps_session
)
select
    keeps_session,
    case
        when keeps_session then (
            select set_config(name, '0', false)
            from pg_settings
            where name = 'idle_session_timeout' and source <> 'client'
        )
    end as idle_session_timeout
from session;
