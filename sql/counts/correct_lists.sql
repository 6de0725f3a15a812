-- Counts all long lists in parts anew.
delete from shelf_parts;
select cut_shelf_part(creator_id, 0) from movies group by creator_id having count(*) > 2000;
