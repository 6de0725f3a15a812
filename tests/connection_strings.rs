//! Misspelt connection strings: the error names the rule that the string breaks, and repeats no part of the string.

#![allow(clippy::unwrap_used)] // a failed one is a failed test
use movies_api::db::ConnectionConfig;

#[test]
fn invalid_url_error_names_the_rule_and_hides_the_password() {
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
            "parameter 1 is unknown (known: host, ",
        ),
        (
            "postgresql//u:hunter2@host/db?sslmode=require",
            "parameter 1 is unknown (known: host, ",
        ),
        (
            "DATABASE_URL=postgres://u:hunter2@host/db",
            "parameter 1 is unknown (known: host, ",
        ),
        // A password with special characters that are not percent-encoded.
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
            "parameter 1 is unknown (known: host, ",
        ),
        ("postgres://u:a@b#hunter2/x", "host must be a name"),
        ("postgres://u:a@[hunter2/x", "IPv6"),
        ("postgres://u:a@b,c:hunter2/x", "port must be a number"),
        ("postgres://u:100%hunter2@host/db", "write %25 for %"),
        ("postgres://u:hunter2%@host/db", "write %25 for %"),
        ("postgres://u:hunter2%FF@host/db", "not UTF-8"),
        ("postgres://u:hunter2%00@host/db", "write %25 for %"),
        // A separator between the parts is missing, or percent-encoded.
        ("postgres://u:hunter2", "port must be a number"),
        ("postgres://u:hunter2/db", "port must be a number"),
        ("postgres://u:hunter2%40host/db", "port must be a number"),
        ("postgres://u%3Ahunter2%40host/db", "host must be a name"),
        ("postgres://u%3Ahunter2@host/db", "user must be a name"),
        ("postgres://host?password=hunter2@x", "user must be a name"),
        ("postgres://u@host:hunter2/db", "port must be a number"),
        ("postgres://u@host:5432:hunter2/db", "port must be a number"),
        (
            "postgres://u@host:0/db?password=hunter2",
            "port must be a number",
        ),
        (
            "postgres://u@host/db&password=hunter2",
            "dbname must be the name",
        ),
        (
            "postgres://u@host/db;password=hunter2",
            "dbname must be the name",
        ),
        (
            "postgres://u@host/db password=hunter2",
            "dbname must be the name",
        ),
        (
            "postgres://u@host/db?pass=hunter2",
            "parameter 1 is unknown (known: host, ",
        ),
        (
            "postgres://u@host/db?sslmode=require&hunter2=x",
            "parameter 2 is unknown (known: host, ",
        ),
        (
            "postgres://u@host/db?sslmode=require password=hunter2",
            "sslmode must be disable, ",
        ),
        (
            "postgres://u@host/db?sslmode=require?password=hunter2",
            "sslmode must be disable, ",
        ),
        // Pairs with a quote that is missing or in the wrong position.
        ("host=a password=my hunter2", "a name has no =value"),
        (
            "host=a password=my hunter2 dbname=b",
            "parameter 3 is unknown (known: host, ",
        ),
        ("host=a password='hunter2", "a quote is not closed"),
        (
            "password='my'hunter2' host=a",
            "parameter 2 is unknown (known: host, ",
        ),
        (
            "host=a pasword=hunter2",
            "parameter 2 is unknown (known: host, ",
        ),
        ("host=a password = = hunter2", "a name has no =value"),
        ("host=a port=hunter2", "port must be a number"),
        ("host=a hostaddr=hunter2", "hostaddr must be an IP address"),
        ("host=u:hunter2@a", "host must be a name"),
        ("host=postgres://u:hunter2@a/db", "host must be a name"),
        (
            "host=a dbname=postgres://u:hunter2@a/db",
            "dbname must be the name",
        ),
        ("host=a dbname=u:hunter2@a/db", "dbname must be the name"),
        (
            "dbname='host=a password=hunter2'",
            "dbname must be the name",
        ),
        ("host=a user='u password=hunter2'", "user must be a name"),
        ("host=a user=u:hunter2", "user must be a name"),
        (
            "host=a options='-c b=c password=hunter2'",
            "options must be settings",
        ),
        ("host=a options=hunter2", "options must be settings"),
        ("host=a sslmode=hunter2", "sslmode must be disable, "),
        (
            "host=a connect_timeout=hunter2",
            "connect_timeout must be a number",
        ),
        (
            "host=a tcp_user_timeout=hunter2",
            "tcp_user_timeout must be a number",
        ),
        (
            "host=a keepalives_count=hunter2",
            "keepalives_count must be a number",
        ),
        (
            "host=a target_session_attrs=hunter2",
            "target_session_attrs must be any, ",
        ),
        ("host=a,b port=1,2,3 password=hunter2", "not as many ports"),
        (
            "host=a passfile=/nowhere/at/all",
            "passfile /nowhere/at/all: No such file",
        ),
    ] {
        let error = text.parse::<ConnectionConfig>().map(|_| ()).unwrap_err();
        assert!(error.contains(rule), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}
