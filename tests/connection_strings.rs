//! Misspelt connection strings: each error names the rule that was broken, and repeats nothing of the string.

#![allow(clippy::unwrap_used)] // a failed one is a failed test
use movies_api::db::Database;

#[test]
fn an_error_names_the_rule_and_repeats_nothing_of_the_string() {
    for (text, rule) in [
        ("", "blank"),
        ("  ", "blank"),
        ("hunter2", "a name has no =value"),
        (
            "'postgres://u:hunter2@host/db?sslmode=require'",
            "quotation mark",
        ),
        (
            "\"postgres://u:hunter2@host/db?sslmode=require\"",
            "quotation mark",
        ),
        ("\"host=a password=hunter2\"", "quotation mark"),
        (
            "POSTGRES://u:hunter2@host/db",
            "begin a URL with postgresql://",
        ),
        (
            "postgres:/u:hunter2@host/db",
            "begin a URL with postgresql://",
        ),
        (
            "postgresql+psycopg://u:hunter2@host/db",
            "begin a URL with postgresql://",
        ),
        (
            "jdbc:postgresql://host/db?user=u&password=hunter2",
            "parameter 1 is none of host, ",
        ),
        (
            "postgresql//u:hunter2@host/db?sslmode=require",
            "parameter 1 is none of host, ",
        ),
        (
            "DATABASE_URL=postgres://u:hunter2@host/db",
            "parameter 1 is none of host, ",
        ),
        // A password whose marks are not encoded.
        ("postgres://u:a@hunter2@host/db", "write %40 for @"),
        ("postgres://u:a@hunter2/b@host/db", "write %40 for @"),
        ("postgres://u:hunter2/x@host/db", "write %40 for @"),
        ("postgres://u:12/hunter2@host/db", "write %40 for @"),
        (
            "postgres://u:a@b?hunter2@host/db",
            "after the ? has no value",
        ),
        (
            "postgres://u:a@b?hunter2=x@host/db",
            "parameter 1 is none of host, ",
        ),
        ("postgres://u:a@b#hunter2/x", "host is a name"),
        ("postgres://u:a@[hunter2/x", "IPv6"),
        ("postgres://u:a@b,c:hunter2/x", "port is a number"),
        ("postgres://u:100%hunter2@host/db", "write %25 for %"),
        ("postgres://u:hunter2%@host/db", "write %25 for %"),
        ("postgres://u:hunter2%FF@host/db", "not UTF-8"),
        ("postgres://u:hunter2%00@host/db", "write %25 for %"),
        // The marks between the parts are missing, or encoded.
        ("postgres://u:hunter2", "port is a number"),
        ("postgres://u:hunter2/db", "port is a number"),
        ("postgres://u:hunter2%40host/db", "port is a number"),
        ("postgres://u%3Ahunter2%40host/db", "host is a name"),
        ("postgres://u%3Ahunter2@host/db", "user is a name"),
        ("postgres://host?password=hunter2@x", "user is a name"),
        ("postgres://u@host:hunter2/db", "port is a number"),
        ("postgres://u@host:5432:hunter2/db", "port is a number"),
        (
            "postgres://u@host:0/db?password=hunter2",
            "port is a number",
        ),
        (
            "postgres://u@host/db&password=hunter2",
            "dbname is the name",
        ),
        (
            "postgres://u@host/db;password=hunter2",
            "dbname is the name",
        ),
        (
            "postgres://u@host/db password=hunter2",
            "dbname is the name",
        ),
        (
            "postgres://u@host/db?pass=hunter2",
            "parameter 1 is none of host, ",
        ),
        (
            "postgres://u@host/db?sslmode=require&hunter2=x",
            "parameter 2 is none of host, ",
        ),
        (
            "postgres://u@host/db?sslmode=require password=hunter2",
            "sslmode is disable, ",
        ),
        (
            "postgres://u@host/db?sslmode=require?password=hunter2",
            "sslmode is disable, ",
        ),
        // Pairs whose quotes are missing or in the wrong place.
        ("host=a password=my hunter2", "a name has no =value"),
        (
            "host=a password=my hunter2 dbname=b",
            "parameter 3 is none of host, ",
        ),
        ("host=a password='hunter2", "a quote is not closed"),
        (
            "password='my'hunter2' host=a",
            "parameter 2 is none of host, ",
        ),
        ("host=a pasword=hunter2", "parameter 2 is none of host, "),
        ("host=a password = = hunter2", "a name has no =value"),
        ("host=a port=hunter2", "port is a number"),
        ("host=a hostaddr=hunter2", "hostaddr is an IP address"),
        ("host=u:hunter2@a", "host is a name"),
        ("host=postgres://u:hunter2@a/db", "host is a name"),
        (
            "host=a dbname=postgres://u:hunter2@a/db",
            "dbname is the name",
        ),
        ("host=a dbname=u:hunter2@a/db", "dbname is the name"),
        ("dbname='host=a password=hunter2'", "dbname is the name"),
        ("host=a user='u password=hunter2'", "user is a name"),
        ("host=a user=u:hunter2", "user is a name"),
        (
            "host=a options='-c b=c password=hunter2'",
            "options are settings",
        ),
        ("host=a options=hunter2", "options are settings"),
        ("host=a sslmode=hunter2", "sslmode is disable, "),
        (
            "host=a connect_timeout=hunter2",
            "connect_timeout is a number",
        ),
        (
            "host=a tcp_user_timeout=hunter2",
            "tcp_user_timeout is a number",
        ),
        (
            "host=a keepalives_count=hunter2",
            "keepalives_count is a number",
        ),
        (
            "host=a target_session_attrs=hunter2",
            "target_session_attrs is any, ",
        ),
        ("host=a,b port=1,2,3 password=hunter2", "not as many ports"),
        (
            "host=a passfile=/nowhere/at/all",
            "passfile /nowhere/at/all: No such file",
        ),
    ] {
        let error = text.parse::<Database>().map(|_| ()).unwrap_err();
        assert!(error.contains(rule), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}
