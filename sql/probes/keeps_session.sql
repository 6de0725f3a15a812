-- Answers whether what was set at the connection's start is still in force: a pooler that gives each transaction
-- another connection keeps none of it. If so, no timeout of the server's ends the session while it is idle in a pool,
-- unless the connection string itself sets one: a statement sent in the same moment would fail, and its effect be unknown.
with kept as (
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
from kept;
