-- Answers whether what was set at the connection's start is still in force: a pooler that gives each transaction
-- another connection keeps none of it.
select coalesce(current_setting('movies_api.session', true) = 'kept', false) as keeps_session;
