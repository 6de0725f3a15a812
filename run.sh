#!/usr/bin/env bash
# Builds and runs the service, with a PostgreSQL cluster of its own unless DATABASE_URL is set; operates, backs up,
# restores, tests and measures it.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/release/movies-api
# The oldest Rust that builds the program: rust-version in Cargo.toml.
MIN_RUST=1.88
# Root's data, where the default folder is below one that only root can enter.
SYSTEM_DATA_DIR=/var/lib/movies-api
# What a first build and a new cluster take, with some room to begin with.
BUILD_MEGABYTES=1500
CLUSTER_MEGABYTES=200

usage() {
    cat <<'END'
usage: ./run.sh [COMMAND] [FLAGS]

  serve         build, start a PostgreSQL cluster under DATA_DIR unless DATABASE_URL is set, and serve (the default);
                './run.sh serve --help' lists the flags
  stop          stop what `serve` started for this DATA_DIR
  backup FILE   write users and movies to FILE, whether the service runs or not; an older FILE is replaced at the end
  restore FILE  bring back what FILE holds, with the service stopped; 'restore --replace FILE' in the place of others
  psql          open psql on the service's database
  test          build, and run all tests against servers and a throwaway cluster of their own
  bench         measure the service beside its peers; './run.sh bench --help' tells its options
  help          show this

  check, completions, import-django, migrate, print, recount, token, users
                the program's own commands, on the database and with the key of this DATA_DIR

Settings are environment variables or flags; `./run.sh serve --help` lists them. Besides:
  DATA_DIR   where the cluster and the secret key are kept (default ./.data; for root /var/lib/movies-api if ./.data is
             below a folder that only root can enter)
Started by root, PostgreSQL runs as the user postgres and the service as nobody.
END
}

say() { printf 'run.sh: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# --- The users that PostgreSQL and the service run as ------------------------------------------------------------------

# Sets DATABASE_USER and SERVICE_USER, and AS_DATABASE and AS_SERVICE, the prefixes of their commands. For anybody but
# root both are the current user.
choose_users() {
    local cluster=$DATA_DIR/database/cluster
    DATABASE_USER=$(id -un) SERVICE_USER=$DATABASE_USER AS_DATABASE=() AS_SERVICE=()
    is_root || return 0
    # A cluster stays its owner's: nobody's, for example, if the package that makes the user postgres came later.
    DATABASE_USER=$(stat -c %U -- "$cluster" 2>/dev/null || id -un postgres 2>/dev/null || echo nobody)
    SERVICE_USER=nobody
    AS_DATABASE=(setpriv "--reuid=$DATABASE_USER" "--regid=$(id -g "$DATABASE_USER")" --init-groups --no-new-privs --)
    AS_SERVICE=(setpriv "--reuid=$SERVICE_USER" "--regid=$(id -g "$SERVICE_USER")" --clear-groups --no-new-privs --)
}

as_database() { (cd / && exec env LC_ALL=C "${AS_DATABASE[@]}" "$@" 9>&-); }

as_service() { (cd / && exec "${AS_SERVICE[@]}" "$@" 9>&-); }

# Whether both users can enter folder $1, or would be able to if it were made.
is_reachable() {
    local folder=$1
    until [ -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    as_database test -x "$folder" && as_service test -x "$folder"
}

# Makes DATA_DIR an absolute path, and chooses it if it is not set.
choose_data_dir() {
    local default=$ROOT/.data chosen=${DATA_DIR:-}
    DATA_DIR=${chosen:-$default}
    case $DATA_DIR in /*) ;; *) DATA_DIR=$PWD/$DATA_DIR ;; esac
    choose_users
    if ! is_root || is_reachable "$DATA_DIR"; then return 0; fi
    [ -z "$chosen" ] || die "the users $DATABASE_USER and $SERVICE_USER, as whom PostgreSQL and the service run, cannot" \
        "enter $DATA_DIR: move it to a folder that they can enter, and set DATA_DIR, to $SYSTEM_DATA_DIR for example"
    if [ -d "$default/database/cluster" ] && [ ! -e "$SYSTEM_DATA_DIR" ]; then
        # Made by an earlier version, whose PostgreSQL was allowed to pass closed folders.
        if is_ours "$(first_line "$default/server.pid")" movies-api || find_postmaster "$default/database/cluster" >/dev/null; then
            case $COMMAND in stop | backup) return 0 ;; esac
            die "the service runs on $default, as earlier versions had it: './run.sh stop' ends it"
        fi
        copy_data "$default"
    fi
    DATA_DIR=$SYSTEM_DATA_DIR
    choose_users
}

# Copies $1 to SYSTEM_DATA_DIR and leaves it under another name.
copy_data() {
    say "PostgreSQL's user $DATABASE_USER cannot enter $1: copying it to $SYSTEM_DATA_DIR"
    rm -rf -- "$SYSTEM_DATA_DIR.partial"
    if ! cp -a --reflink=auto -- "$1" "$SYSTEM_DATA_DIR.partial"; then
        rm -rf -- "$SYSTEM_DATA_DIR.partial"
        die "$1 could not be copied: nothing was changed"
    fi
    mv -T -- "$SYSTEM_DATA_DIR.partial" "$SYSTEM_DATA_DIR"
    mv -T -- "$1" "$1.copied"
    say "the former folder is now $1.copied, and can be deleted"
}

# --- What has to be installed ---------------------------------------------------------------------------------------

# Each need_* function calls `lack` for what is missing, with a name for people, Debian's packages and Fedora's packages,
# or `problem` for what no package mends.
lack() {
    MISSING+=("$1")
    DEBIAN+=" $2"
    FEDORA+=" $3"
}

problem() { PROBLEMS+=("$*"); }

need_rust() {
    local bin=${CARGO_HOME:-${HOME:-/}/.cargo}/bin version
    # rustup's cargo is newer than the system's.
    [ ! -x "$bin/cargo" ] || PATH=$bin:$PATH
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || version=''
    if [ -n "$version" ] && [ "$(printf '%s\n' "$MIN_RUST" "$version" | sort -V | head -n 1)" = "$MIN_RUST" ]; then
        return 0
    elif [ -x "$bin/rustup" ]; then
        INSTALL_RUST="rustup toolchain install stable && rustup default stable"
    else
        INSTALL_RUST="curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y"
        command -v curl >/dev/null || { DEBIAN+=" curl ca-certificates" FEDORA+=" curl"; }
    fi
    MISSING+=("Rust $MIN_RUST or later${version:+ ($(command -v cargo) is $version)}")
}

need_compiler() {
    command -v cc >/dev/null || lack "a C compiler" "gcc libc6-dev" gcc
}

# TLS to the database.
need_openssl() {
    pkg-config --exists openssl 2>/dev/null || lack "OpenSSL's headers" "pkg-config libssl-dev" "pkgconf openssl-devel"
}

# Prints the major version of the PostgreSQL whose programs are in folder $1.
major_of() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    LC_ALL=C "$1/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p'
}

# Prints the folder of PostgreSQL's programs: those of major version $1, or the newest if it is empty.
find_postgres() {
    local folder found
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) \
        "$(dirname -- "$(command -v initdb || echo /none/initdb)")"; do
        found=$(major_of "$folder") || continue
        if [ -n "$found" ] && [ "${1:-$found}" = "$found" ]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

# Sets POSTGRES to the programs that DATA_DIR's cluster was made with, or to the newest for a new one.
need_postgres() {
    local major
    major=$(first_line "$DATA_DIR/database/cluster/PG_VERSION")
    if POSTGRES=$(find_postgres "$major"); then
        return 0
    elif [ -z "$major" ]; then
        lack "PostgreSQL" postgresql "postgresql-server postgresql-contrib"
        return 0
    fi
    lack "PostgreSQL $major, which made the database in $DATA_DIR" "postgresql-$major" "postgresql$major-server"
    problem "the database in $DATA_DIR needs the programs of PostgreSQL $major. To bring it to another version, install" \
        "them beside it, or use a machine that has them, and run: ./run.sh backup movies.backup &&" \
        "mv $DATA_DIR/database $DATA_DIR/database.$major && ./run.sh restore movies.backup"
}

need_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || lack "python3 with virtual environments" python3-venv python3
}

# The README's tour is run as written.
need_curl() { command -v curl >/dev/null || lack curl curl curl; }

need_wrk() { command -v wrk >/dev/null || lack "wrk, the load generator" wrk wrk; }

# Installs Debian packages if that is possible here without asking anybody.
install_packages() {
    local as_root=() hooks status=0
    command -v apt-get >/dev/null || return 1
    if ! is_root; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing $*"
    # Debian's package would make and start a cluster of its own on port 5432. dpkg is given a PATH on which the program
    # that makes it does nothing: that changes no file of the system's.
    hooks=$(mktemp -d)
    ln -s /bin/true "$hooks/pg_createcluster"
    chmod 755 "$hooks"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o "DPkg::Path=$hooks:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@" >&2 </dev/null 9>&- || status=$?
    rm -rf -- "$hooks"
    return "$status"
}

# Prints the one command that installs what is missing, if one does.
install_command() {
    local commands=() sudo='sudo ' joined
    ! is_root || sudo=''
    if [ -z "$DEBIAN" ]; then
        :
    elif command -v dnf >/dev/null; then
        commands+=("${sudo}dnf install -y$FEDORA")
    else
        commands+=("${sudo}apt-get update" "${sudo}apt-get install -y --no-install-recommends$DEBIAN")
    fi
    [ -z "$INSTALL_RUST" ] || commands+=("$INSTALL_RUST")
    printf -v joined '%s && ' "${commands[@]}"
    echo "${joined% && }"
}

# Calls need_NAME for each NAME, installs what it can without asking, and ends with one message on all that is missing.
require() {
    local need attempt list packages
    for attempt in first second; do
        MISSING=() PROBLEMS=() DEBIAN='' FEDORA='' INSTALL_RUST=''
        for need in "$@"; do "need_$need"; done
        [ "$((${#MISSING[@]} + ${#PROBLEMS[@]}))" -gt 0 ] || return 0
        # Nothing is installed while something stays that no package mends: it is all told at once.
        if [ "$attempt" = second ] || [ -z "$DEBIAN" ] || [ -n "$INSTALL_RUST" ] || [ "${#PROBLEMS[@]}" -gt 0 ]; then
            break
        fi
        read -ra packages <<<"$DEBIAN"
        install_packages "${packages[@]}" || break
    done
    for need in "${PROBLEMS[@]}"; do say "$need"; done
    [ "${#MISSING[@]}" -gt 0 ] || exit 1
    printf -v list '%s, ' "${MISSING[@]}"
    die "missing: ${list%, }. Install with: $(install_command)"
}

# The value of flag --$1 among the arguments that follow; empty if it is not there.
flag_value() {
    local flag=--$1 value=''
    shift
    while [ "$#" -gt 0 ]; do
        case $1 in
            "$flag") value=${2:-} ;;
            "$flag"=*) value=${1#*=} ;;
        esac
        shift
    done
    printf '%s' "$value"
}

# Whether a socket listens on address $1, as /proc/net/tcp writes it or empty for any, and port $2.
is_listening() {
    { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } | awk -v address="$1" -v port="$(printf '%04X' "$2")" '
        $4 == "0A" { split($2, own, ":") }
        $4 == "0A" && own[2] == port && (address == "" || own[1] == address || own[1] ~ /^0+$/) { found = 1 }
        END { exit !found }'
}

# BIND_ADDRESS is where the service will listen; the program says what is wrong with an address that is none.
need_port() {
    local host=${BIND_ADDRESS%:*} port=${BIND_ADDRESS##*:} a b c d address=''
    [[ $port =~ ^[0-9]{1,5}$ ]] && [ "$port" -gt 0 ] || return 0
    if [[ $host =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$ ]] && [ "$host" != 0.0.0.0 ]; then
        IFS=. read -r a b c d <<<"$host"
        printf -v address '%02X%02X%02X%02X' "$d" "$c" "$b" "$a"
    fi
    ! is_listening "$address" "$port" || problem "$BIND_ADDRESS is in use by another program: end it, or choose another" \
        "address with --bind, such as --bind 127.0.0.1:8001"
}

# Free megabytes of the file system of folder $1, or of where it would be made.
free_megabytes() {
    local folder=$1
    until [ -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    df -Pm -- "$folder" | awk 'NR == 2 { print $4 }'
}

need_room() {
    local free
    free=$(free_megabytes "$(dirname -- "$BINARY")")
    [ -x "$BINARY" ] || [ "$free" -ge "$BUILD_MEGABYTES" ] ||
        problem "the build needs $BUILD_MEGABYTES MB in $(dirname -- "$BINARY"), where $free MB are free"
    [ -n "${DATABASE_URL:-}" ] && return 0
    free=$(free_megabytes "$DATA_DIR")
    [ -d "$DATA_DIR/database/cluster" ] || [ "$free" -ge "$CLUSTER_MEGABYTES" ] ||
        problem "a new database needs $CLUSTER_MEGABYTES MB in $DATA_DIR, where $free MB are free"
}

# On a terminal cargo's progress is seen.
cargo_build() {
    local quiet=--quiet
    [ ! -t 2 ] || quiet=''
    # shellcheck disable=SC2086 # no word if it is empty
    cargo build --release --locked $quiet "$@" </dev/null 9>&- || die "the build failed"
}

build() {
    [ -x "$BINARY" ] || say "building the program: the first build takes two to four minutes on two cores"
    (cd "$ROOT" && cargo_build)
    [ -x "$BINARY" ] || die "the build left no $BINARY"
}

# --- A PostgreSQL cluster of our own ---------------------------------------------------------------------------------

first_line() { { head -n 1 -- "$1" | tr -d '\0'; } 2>/dev/null || true; }

# Prints the line of log $1, from byte $2 on, that says why a program failed.
find_cause() {
    local log=$1 lines cause
    # What clients are told while it goes down is no cause.
    lines=$(tail -c "+$(($2 + 1))" -- "$log" 2>/dev/null | grep -vE 'the database system is|terminating connection|does not exist') || true
    cause=$(grep -E '(FATAL|PANIC|error):' <<<"$lines" | tail -n 1 | sed -E 's/^.*(FATAL|PANIC): +/\1: /') || true
    # A few messages of a start have no level.
    [ -n "$cause" ] || cause=$(grep -vE '(LOG|WARNING|ERROR|DETAIL|HINT|STATEMENT|CONTEXT): |^\s' <<<"$lines" | tail -n 1) || true
    echo "${cause:-it was killed, or logged no error} (log: $log)"
}

# Makes the cluster in $1 with superuser $2 if there is none. A half-made one never has the final name.
make_cluster() {
    local cluster=$1 superuser=$2 locale
    [ ! -f "$cluster/PG_VERSION" ] || return 0
    (umask 077 && mkdir -p -- "${cluster%/*}")
    ! is_root || chown "$DATABASE_USER" "${cluster%/*}"
    for locale in C.UTF-8 en_US.UTF-8 C; do
        as_database rm -rf -- "$cluster.new"
        if as_database "$POSTGRES/initdb" -D "$cluster.new" --username="$superuser" --auth-local=trust --auth-host=reject \
            --encoding=UTF8 --locale="$locale" --data-checksums >"$DATA_DIR/initdb.log" 2>&1; then
            [ "$locale" != C ] || say "there is no UTF-8 locale: searches will mind the case of letters past ASCII"
            # shellcheck disable=SC2016 # the inner shell's own
            as_database sh -c 'echo "include '\''movies-api.conf'\''" >>"$1/postgresql.conf" && mv -- "$1" "$2"' sh \
                "$cluster.new" "$cluster"
            return
        fi
        # Another locale mends nothing else.
        grep -q 'invalid locale name' "$DATA_DIR/initdb.log" || break
    done
    die "the database could not be made: $(find_cause "$DATA_DIR/initdb.log" 0)"
}

# The postmaster of the cluster in $1, if it runs.
find_postmaster() {
    local postmaster
    postmaster=$(first_line "$1/postmaster.pid")
    is_ours "$postmaster" postgres && echo "$postmaster"
}

# Writes standard input to file $1 of a cluster, as its owner: root follows no link that is there.
write_file() {
    # shellcheck disable=SC2016 # the inner shell's own
    as_database sh -c 'cat >"$1.new" && mv -- "$1.new" "$1"' sh "$1"
}

# Sets SOCKETS to the folder of the cluster's socket, which gets mode $1.
make_sockets() {
    SOCKETS=$DATA_DIR/sockets
    # A socket's path has room for 107 bytes, and its name takes 14 of them.
    if [ "${#SOCKETS}" -gt 90 ]; then
        remove_sockets
        SOCKETS=$(mktemp -d /tmp/movies-api.XXXXXX)
        echo "$SOCKETS" >"$DATA_DIR/sockets.path"
    fi
    mkdir -p -- "$SOCKETS"
    ! is_root || chown "$DATABASE_USER" "$SOCKETS"
    chmod "$1" "$SOCKETS"
}

# Removes the folder in /tmp that this or an earlier start made.
remove_sockets() {
    local folder
    folder=$(first_line "$DATA_DIR/sockets.path")
    [[ ! $folder =~ ^/tmp/movies-api\.[A-Za-z0-9]{6}$ ]] || rm -rf -- "$folder"
    rm -f -- "$DATA_DIR/sockets.path"
}

# Starts the cluster in $1 with the further settings in $2. Sets POSTMASTER to its process. Fails if it does
# not accept connections; CAUSE then says why. The sockets' folder is there already.
start_cluster() {
    local cluster=$1 further=${2:-} log=$1/server.log offset former
    # Left behind by a run.sh that was killed.
    stop_cluster "$cluster"
    former=$(first_line "$cluster/postmaster.pid")
    # PostgreSQL takes a postmaster that was killed and not reaped yet for one that runs.
    for _ in $(seq 100); do
        if [ -z "$former" ] || ! kill -0 "$former" 2>/dev/null || [ -n "$(command_line "$former")" ]; then break; fi
        sleep 0.1 9>&-
    done
    write_file "$cluster/movies-api.conf" <<END
listen_addresses = ''
unix_socket_directories = '"${SOCKETS//\'/\'\'}"'
$further
END
    offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
    # A process group of its own: a Ctrl-C reaches the service first.
    set -m
    # shellcheck disable=SC2016 # the inner shell's own
    (cd / && exec env LC_ALL=C "${AS_DATABASE[@]}" sh -c 'exec "$0" -D "$1" >>"$1/server.log" 2>&1' \
        "$POSTGRES/postgres" "$cluster" </dev/null >/dev/null 2>&1 9>&-) &
    POSTMASTER=$!
    set +m
    STARTED=$SECONDS
    for _ in $(seq 1200); do
        [[ $(sed -n '1p;8p' "$cluster/postmaster.pid" 2>/dev/null | tr -d ' ') != "$POSTMASTER"$'\n'ready ]] || return 0
        kill -0 "$POSTMASTER" 2>/dev/null || break
        sleep 0.1 9>&-
    done
    CAUSE=$(find_cause "$log" "$offset")
    return 1
}

# Ends the cluster in $1 within a minute; a crash recovery follows at the next start if it takes longer.
stop_cluster() {
    local postmaster
    postmaster=$(find_postmaster "$1") || return 0
    kill -INT "$postmaster" 2>/dev/null || return 0
    for _ in $(seq 600); do
        is_ours "$postmaster" postgres || return 0
        sleep 0.1 9>&-
    done
    kill -QUIT "$postmaster" 2>/dev/null || true
}

# How a client names database $3 as role $2 at the socket in folder $1.
conninfo() {
    local quoted=${1//\\/\\\\}
    echo "host='${quoted//\'/\\\'}' user=$2 dbname=$3"
}

query() { "$POSTGRES/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2" </dev/null; }

# The service's role: it owns its database and is no superuser. The superuser is postgres; in clusters that earlier
# versions made, whose service was the superuser, it is movies.
SERVICE_ROLE=movies_api

# Writes who may connect to the cluster in $1 as which role: the kernel tells PostgreSQL the user of each connection.
write_access_rules() {
    local cluster=$1 user
    write_file "$cluster/movies-api.hba" <<END
local all "postgres","movies" peer map=superuser
local "movies" "$SERVICE_ROLE" peer map=service
END
    {
        for user in root "$DATABASE_USER"; do
            printf 'superuser "%s" postgres\nsuperuser "%s" movies\n' "$user" "$user"
        done
        for user in root "$DATABASE_USER" "$SERVICE_USER"; do
            printf 'service "%s" %s\n' "$user" "$SERVICE_ROLE"
        done
    } | write_file "$cluster/movies-api.ident"
}

# Gives the database and everything in it that is no extension's to SERVICE_ROLE, in one transaction.
HAND_OVER="
do \$\$
declare
    role constant regrole := '$SERVICE_ROLE';
    statement text;
begin
    for statement in
        select format('alter %s %s owner to %s', case relkind when 'S' then 'sequence' when 'v' then 'view'
            when 'm' then 'materialized view' else 'table' end, oid::regclass, role)
        from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'S', 'v', 'm') and relowner <> role
            and not exists (select from pg_depend
                where classid = 'pg_class'::regclass and objid = pg_class.oid and deptype in ('a', 'e', 'i'))
        union all
        select format('alter routine %s owner to %s', oid::regprocedure, role)
        from pg_proc
        where pronamespace = 'public'::regnamespace and proowner <> role
            and not exists (select from pg_depend
                where classid = 'pg_proc'::regclass and objid = pg_proc.oid and deptype = 'e')
        union all
        -- Since PostgreSQL 15 it belongs to the database's owner as it is.
        select format('alter schema public owner to %s', role)
        from pg_namespace where nspname = 'public' and nspowner = 10
    loop
        execute statement;
    end loop;
    execute format('alter database %I owner to %s', current_database(), role);
end
\$\$"

# Makes the database in the running cluster if there is none, and sees to it that SERVICE_ROLE owns it. Sets
# SUPERUSER_URL to the database as the superuser reaches it.
prepare_database() {
    local superuser maintenance
    for superuser in postgres movies; do
        maintenance=$(conninfo "$SOCKETS" "$superuser" postgres)
        query "$maintenance" "select" >/dev/null 2>&1 && break
    done
    SUPERUSER_URL=$(conninfo "$SOCKETS" "$superuser" movies)
    [ -n "$(query "$maintenance" "select oid from pg_roles where rolname = '$SERVICE_ROLE'")" ] ||
        query "$maintenance" "create role $SERVICE_ROLE login"
    [ -n "$(query "$maintenance" "select oid from pg_database where datname = 'movies'")" ] ||
        query "$maintenance" "create database movies"
    [ -n "$(query "$maintenance" "select oid from pg_database where datname = 'movies' and datdba = '$SERVICE_ROLE'::regrole")" ] ||
        query "$SUPERUSER_URL" "$HAND_OVER"
    # A function that migration V7 makes has this setting, which only a superuser may give it, or who was granted it.
    is_before_15 || query "$SUPERUSER_URL" "grant set on parameter movies_api.cuts_shelf_parts to $SERVICE_ROLE"
}

# Whether the cluster's PostgreSQL cannot grant settings.
is_before_15() { [ "$(first_line "$DATA_DIR/database/cluster/PG_VERSION")" -lt 15 ]; }

# Applies the migrations, before PostgreSQL 15 alone, as the superuser, for the setting that V7 gives to a function.
migrate_before_15() {
    is_before_15 || return 0
    DATABASE_URL=$SUPERUSER_URL "$BINARY" migrate >&2 9>&- || die "the migrations could not be applied"
    query "$SUPERUSER_URL" "$HAND_OVER"
}

# Makes and starts the cluster of DATA_DIR until run.sh ends, and sets DATABASE_URL to its database, made if there is none.
open_cluster() {
    local cluster=$DATA_DIR/database/cluster
    make_cluster "$cluster" postgres
    trap 'stop_cluster "$DATA_DIR/database/cluster"; remove_sockets' EXIT
    # Where earlier versions had the sockets.
    rm -rf -- "$DATA_DIR/database/sockets"
    # The service may be another user; whoever connects is told from others by the kernel.
    make_sockets "$(is_root && echo 711 || echo 700)"
    write_access_rules "$cluster"
    for _ in $(seq 10); do
        ! start_own_cluster || break
        # Sessions of a postmaster that was killed end within moments.
        [[ $CAUSE == *'still in use'* ]] || die "the database does not start: $CAUSE"
        sleep 1
    done
    prepare_database
    DATABASE_URL=$(conninfo "$SOCKETS" "$SERVICE_ROLE" movies)
    export DATABASE_URL
}

start_own_cluster() {
    local cluster=$DATA_DIR/database/cluster
    # PostgreSQL looks once a minute by default which tables are due, time enough for searches to become twice as slow
    # while movies are added at full speed.
    start_cluster "$cluster" "hba_file = '${cluster//\'/\'\'}/movies-api.hba'
ident_file = '${cluster//\'/\'\'}/movies-api.ident'
autovacuum_naptime = 5s"
}

# --- serve and stop --------------------------------------------------------------------------------------------------

keep_secret_key() {
    local file=$DATA_DIR/secret_key
    if [ ! -s "$file" ]; then
        (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$file.new" && mv -- "$file.new" "$file") ||
            die "the secret key cannot be kept in $DATA_DIR"
    fi
    SECRET_KEY=$(cat -- "$file") || die "the secret key in $DATA_DIR cannot be read"
    export SECRET_KEY
}

# The command line of process $1. One that was killed and not reaped yet is dead: it has none.
command_line() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline"; }

# Whether process $1 is alive and its command line contains $2: a number in an old file may be anybody's by now.
is_ours() { [ -n "$1" ] && command_line "$1" | grep -qF -- "$2"; }

# Makes DATA_DIR, and locks it for as long as this run.sh runs.
prepare_data_dir() {
    # Root's umask may close what the two users have to enter.
    (! is_root || umask 022; mkdir -p -- "$DATA_DIR") 2>/dev/null ||
        die "cannot make $DATA_DIR: set DATA_DIR to a folder that can be written"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    (: >>"$DATA_DIR/lock") 2>/dev/null || die "cannot write in $DATA_DIR: set DATA_DIR to a folder that can be written"
    exec 9>>"$DATA_DIR/lock"
    ! command -v flock >/dev/null || flock -n 9 || die "another run.sh is using $DATA_DIR: './run.sh stop' ends it"
    ! is_ours "$(first_line "$DATA_DIR/server.pid")" movies-api ||
        die "a server (process $(first_line "$DATA_DIR/server.pid")) was left behind: './run.sh stop' ends it"
}

# Sets PROGRAM to what SERVICE_USER can run: a copy in DATA_DIR where the build is in a folder that it cannot enter.
choose_program() {
    PROGRAM=$BINARY
    if is_root && ! as_service test -x "$BINARY"; then
        PROGRAM=$DATA_DIR/movies-api
        install -m 755 -- "$BINARY" "$PROGRAM.new"
        mv -- "$PROGRAM.new" "$PROGRAM"
    fi
    # A port below 1024 is the one thing that needs a privilege.
    if is_root && [[ ${BIND_ADDRESS##*:} =~ ^([1-9][0-9]{0,2}|10[01][0-9]|102[0-3])$ ]]; then
        AS_SERVICE=("${AS_SERVICE[@]:0:${#AS_SERVICE[@]}-1}" --inh-caps=+net_bind_service --ambient-caps=+net_bind_service --)
    fi
}

# The port that process $1 listens on; fails if there is none yet.
listening_port() {
    local sockets port
    sockets=$(find "/proc/$1/fd" -lname 'socket:*' -printf '%l ' 2>/dev/null | tr -dc '0-9 ')
    port=$({ cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } | awk -v sockets="$sockets" '
        BEGIN { count = split(sockets, inodes, " "); for (i = 1; i <= count; i++) own[inodes[i]] = 1 }
        $4 == "0A" && ($10 in own) && !found { found = 1; sub(/.*:/, "", $2); print $2 }')
    [ -n "$port" ] && echo "$((16#$port))"
}

# Says where the service is, once process $1 listens.
announce() {
    local host=${BIND_ADDRESS%:*} port
    until port=$(listening_port "$1"); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1 9>&-
    done
    case $host in 0.0.0.0 | '[::]') host=127.0.0.1 ;; esac
    say "ready; open http://$host:$port/api/v1/docs/"
}

# Starts PostgreSQL again after it ended by itself, at most five times in a row; a minute of running ends the row.
revive_cluster() {
    [ "$((SECONDS - STARTED))" -lt 60 ] || RESTARTS=0
    while [ "$RESTARTS" -lt 5 ] && [ -z "$STOPPING" ] && kill -0 "$1" 2>/dev/null; do
        RESTARTS=$((RESTARTS + 1))
        say "PostgreSQL has ended: $CAUSE. Starting it again ($RESTARTS of 5)"
        ! start_own_cluster || return 0
        # A disk that was full for a moment, or a child of the former postmaster that still ends.
        sleep "$RESTARTS"
    done
    return 1
}

# Waits until the service, process $1, ends, and keeps PostgreSQL running meanwhile. Fails if that cannot be.
watch() {
    local server=$1 log=$DATA_DIR/database/cluster/server.log offset
    RESTARTS=0
    offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
    while kill -0 "$server" 2>/dev/null; do
        if [ -z "$STOPPING" ] && [ -n "${POSTMASTER:-}" ] && ! kill -0 "$POSTMASTER" 2>/dev/null; then
            CAUSE=$(find_cause "$log" "$offset")
            revive_cluster "$server" || return 1
            offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
        else
            # A signal ends the wait early. No command stands between the looks above and the wait, since bash forgets at
            # each that a child has ended.
            wait -n "$server" ${POSTMASTER:+"$POSTMASTER"} 2>/dev/null || true
        fi
    done
}

serve() {
    local server status=0
    BIND_ADDRESS=$(flag_value bind "$@")
    BIND_ADDRESS=${BIND_ADDRESS:-${BIND:-0.0.0.0:8000}}
    DATABASE_URL=${DATABASE_URL:-$(flag_value database-url "$@")}
    choose_data_dir
    prepare_data_dir
    if [ -n "$DATABASE_URL" ]; then
        require rust compiler openssl port room
    else
        require rust compiler openssl postgres port room
        # The package may just have made the user postgres.
        choose_users
    fi
    build
    case " $* " in *' --help '* | *' -h '* | *' --version '* | *' -V '*) exec "$BINARY" serve "$@" ;; esac
    [ -n "${SECRET_KEY:-}" ] || [ -n "$(flag_value secret-key "$@")" ] || keep_secret_key
    trap 'exit 143' INT TERM HUP
    if [ -z "$DATABASE_URL" ]; then
        open_cluster
        migrate_before_15
    fi
    choose_program
    # glibc would give the threads eight arenas a core, and each keeps what its busiest moment took.
    export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-4} DATABASE_URL
    STOPPING=''
    # A process group of its own: a Ctrl-C reaches the server once, from here, and not a second time from the terminal.
    set -m
    "${AS_SERVICE[@]}" "$PROGRAM" serve "$@" 9>&- &
    server=$!
    set +m
    trap 'STOPPING=1; kill -TERM "$server" 2>/dev/null || true' INT TERM HUP
    echo "$server" >"$DATA_DIR/server.pid"
    echo "$$" >"$DATA_DIR/run.pid"
    announce "$server"
    if ! watch "$server" && [ -z "$STOPPING" ]; then
        say "PostgreSQL does not stay up: $CAUSE"
        kill -TERM "$server" 2>/dev/null || true
        STOPPING=failed
    fi
    while kill -0 "$server" 2>/dev/null; do
        wait "$server" || true
    done
    wait "$server" || status=$?
    rm -f -- "$DATA_DIR/server.pid" "$DATA_DIR/run.pid"
    [ "$STOPPING" != failed ] || status=1
    exit "$status"
}

# Ends process $1, if its command line contains $2, within 30 seconds.
end_process() {
    is_ours "$1" "$2" || return 1
    kill -TERM "$1"
    for _ in $(seq 300); do
        is_ours "$1" "$2" || return 0
        sleep 0.1 9>&-
    done
    die "process $1 does not end"
}

stop() {
    choose_data_dir
    [ -d "$DATA_DIR" ] || die "nothing was started for $DATA_DIR"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    local stopped=()
    ! end_process "$(first_line "$DATA_DIR/run.pid")" run.sh || stopped+=("the service")
    # What only a killed run.sh leaves behind:
    ! end_process "$(first_line "$DATA_DIR/server.pid")" movies-api || stopped+=("its server")
    rm -f -- "$DATA_DIR/run.pid" "$DATA_DIR/server.pid"
    if find_postmaster "$DATA_DIR/database/cluster" >/dev/null; then
        stop_cluster "$DATA_DIR/database/cluster"
        stopped+=("its database")
    fi
    remove_sockets
    [ "${#stopped[@]}" -gt 0 ] || die "nothing runs for $DATA_DIR"
    printf -v stopped '%s, ' "${stopped[@]}"
    say "stopped ${stopped%, }"
}

# --- The program's own commands, psql, backup and restore ------------------------------------------------------------

# Sets DATABASE_URL, unless it is set, to the database of DATA_DIR, which is started for as long as this takes if the
# service does not run. It is made only if $1 says so.
reach_database() {
    [ -z "${DATABASE_URL:-}" ] || return 0
    local cluster=$DATA_DIR/database/cluster role
    [ -f "$cluster/PG_VERSION" ] || [ "${1:-}" = make ] ||
        die "there is no database in $DATA_DIR, and DATABASE_URL is not set: './run.sh' makes one"
    if find_postmaster "$cluster" >/dev/null; then
        SOCKETS=$(sed -n 5p "$cluster/postmaster.pid")
        # movies: the service was started by an earlier version.
        for role in "$SERVICE_ROLE" movies; do
            DATABASE_URL=$(conninfo "$SOCKETS" "$role" movies)
            query "$DATABASE_URL" "select" >/dev/null 2>&1 && break
        done
        export DATABASE_URL
    else
        prepare_data_dir
        open_cluster
    fi
}

# Runs the program's command COMMAND with these arguments on DATA_DIR's database and with its key.
run_program() {
    local status=0
    choose_data_dir
    case " $COMMAND $* " in
        ' print '* | ' completions '* | *' --help '* | *' -h '*)
            require rust compiler openssl room
            build
            exec "$BINARY" "$COMMAND" "$@"
            ;;
    esac
    DATABASE_URL=${DATABASE_URL:-$(flag_value database-url "$@")}
    if [ -n "$DATABASE_URL" ]; then
        require rust compiler openssl room
        export DATABASE_URL
    else
        require rust compiler openssl postgres room
        choose_users
    fi
    build
    trap 'exit 143' INT TERM HUP
    case $COMMAND in
        migrate | import-django) reach_database make ;;
        *) reach_database ;;
    esac
    [ -n "${SECRET_KEY:-}" ] || [ -n "$(flag_value secret-key "$@")" ] || [ ! -d "$DATA_DIR" ] || keep_secret_key
    [ "$COMMAND" != migrate ] || [ -z "${SUPERUSER_URL:-}" ] || migrate_before_15
    "$BINARY" "$COMMAND" "$@" 9>&- || status=$?
    exit "$status"
}

open_psql() {
    local status=0
    choose_data_dir
    require postgres
    reach_database
    # Ctrl-C is psql's own.
    trap : INT
    "$POSTGRES/psql" -d "$DATABASE_URL" "$@" 9>&- || status=$?
    exit "$status"
}

# FILE holds either all of the older backup or all of the new one, and is its owner's alone: password hashes are in it.
backup() {
    local file=$1
    [ ! -d "$file" ] || die "$file is a folder: name a file in it"
    choose_data_dir
    require postgres
    trap 'exit 143' INT TERM HUP
    reach_database
    rm -f -- "$file.new"
    if ! (umask 077 && "$POSTGRES/pg_dump" --format=custom --file="$file.new" --dbname="$DATABASE_URL" 9>&-); then
        rm -f -- "$file.new"
        die "no backup was made"
    fi
    mv -- "$file.new" "$file"
    say "wrote $file"
}

# Fails if the service, or anybody else, is at the database: PostgreSQL's own workers show no user.
refuse_company() {
    local others
    others=$(query "$DATABASE_URL" "select count(*) from pg_stat_activity
        where datname = current_database() and usename is not null and pid <> pg_backend_pid()") || die "nothing was changed"
    [ "$others" = 0 ] || die "the database is in use ($others sessions): stop the service first"
}

# Prints what empties the database, if there is something in it and, where it has users, if $1 says so.
emptying() {
    local users=0
    [ "$(query "$DATABASE_URL" "select to_regclass('users') is not null")" = t ] || return 0
    users=$(query "$DATABASE_URL" "select count(*) from users") || return 1
    [ "$users" = 0 ] || [ "$1" = --replace ] ||
        die "the database has $users users: './run.sh restore --replace FILE' gives them up for those in FILE"
    echo "drop schema public cascade; create schema public;"
}

# Brings back $2, with $1 `--replace` in the place of what is there. All of it in one transaction: psql is told to
# commit only after all of FILE was read, and at its own first error it ends. Rows come before triggers, so that the
# kept counts are those of the backup.
restore() {
    local replace=$1 file=$2 empty url
    choose_data_dir
    require postgres
    choose_users
    "$POSTGRES/pg_restore" --file=- -- "$file" | grep '^COPY public.movie_counts ' >/dev/null ||
        die "$file is not a whole backup of this service: nothing was changed"
    trap 'exit 143' INT TERM HUP
    if [ -z "${DATABASE_URL:-}" ]; then
        prepare_data_dir
        open_cluster
    fi
    url=$DATABASE_URL
    if [ -n "${SUPERUSER_URL:-}" ] && is_before_15; then url=$SUPERUSER_URL; fi
    refuse_company
    empty=$(emptying "$replace") || exit 1
    {
        echo "begin; set client_min_messages = warning; $empty"
        "$POSTGRES/pg_restore" --no-owner --no-privileges --no-comments --file=- -- "$file" && echo "commit;"
    } | "$POSTGRES/psql" -X -q -v ON_ERROR_STOP=1 -d "$url" >/dev/null || die "nothing was changed"
    [ "$url" = "$DATABASE_URL" ] || query "$url" "$HAND_OVER"
    # Statistics, and the pages that a list need not visit, are not in a backup.
    query "$DATABASE_URL" "vacuum (analyze) users, movies"
    say "brought back $(query "$DATABASE_URL" "select count(*) || ' users, ' || coalesce(sum(movie_count), 0) || ' movies' from users")"
}

# --- test --------------------------------------------------------------------------------------------------------------

# A cluster for the time of a test or a benchmark; DATA_DIR is then a folder that goes with it.
start_throwaway_cluster() {
    DATA_DIR=$(mktemp -d /tmp/movies-api-test.XXXXXX)
    chmod 711 "$DATA_DIR"
    choose_users
    make_cluster "$DATA_DIR/database/cluster" movies
    make_sockets 700
    start_cluster "$DATA_DIR/database/cluster" "max_connections = 300
$1" || die "the database does not start: $CAUSE"
    TEST_DATABASE_URL=$(conninfo "$SOCKETS" movies postgres)
    MOVIES_API_BINARY=$BINARY
    export TEST_DATABASE_URL MOVIES_API_BINARY
}

end_throwaway_cluster() {
    [ -z "${SERVER:-}" ] || kill "$SERVER" 2>/dev/null || true
    stop_cluster "$DATA_DIR/database/cluster"
    rm -rf -- "$DATA_DIR" "${SOCKETS:-$DATA_DIR}"
}

is_ci() { [ "${CI:-}" = true ]; }

# Adds what a stage counted, and says it. A stage that counted nothing did not run, which is a failure.
count_stage() {
    local name=$1 passed=${2:-0} failed=${3:-0} skipped=${4:-0}
    [ "$((passed + failed))" -gt 0 ] || failed=1
    PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    STAGES+="$(printf '%-28s %5d passed %3d failed %3d skipped' "$name" "$passed" "$failed" "$skipped")"$'\n'
}

# The sum of the numbers before word $2 in the closing lines of log $1 that match $3.
sum_counts() { (grep -E "$3" "$1" | grep -oE "[0-9]+ $2" || true) | awk '{ sum += $1 } END { print sum + 0 }'; }

test_rust() {
    local log=$DATA_DIR/rust.log status=0
    (cd "$ROOT" && cargo test --locked --no-fail-fast 2>&1) | tee "$log" || status=1
    count_stage "Rust" "$(sum_counts "$log" passed '^test result')" \
        "$(($(sum_counts "$log" failed '^test result') + status))" "$(sum_counts "$log" ignored '^test result')"
}

# Makes the virtual environment $1 with the packages of $2, a file in tests/, unless it has them.
make_venv() {
    local venv=$1 requirements=$ROOT/tests/$2 wanted
    wanted=$(cat "$ROOT"/tests/requirements*.txt | cksum)
    [ "$(cat "$venv/wanted" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf -- "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
    echo "$wanted" >"$venv/wanted"
}

# Counts a stage by the closing line of pytest's log $2, and by its exit status $3.
count_pytest() {
    local name=$1 log=$2 status=$3 failed
    tail -n 1 "$log" >"$log.end"
    failed=$(($(sum_counts "$log.end" failed .) + $(sum_counts "$log.end" 'errors?' .)))
    [ "$failed" -gt 0 ] || failed=$status
    count_stage "$name" "$(sum_counts "$log.end" passed .)" "$failed" \
        "$(($(sum_counts "$log.end" skipped .) + $(sum_counts "$log.end" xfailed .)))"
}

test_python() {
    local log=$DATA_DIR/python.log venv=$ROOT/target/test-venv status=0
    make_venv "$venv" requirements-own-servers.txt
    (cd "$ROOT/tests" && "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@" 2>&1) | tee "$log" || status=1
    count_pytest "pytest, own servers" "$log" "$status"
}

# Starts the service on a new database $1 of the throwaway cluster, with the settings that follow; sets SERVER and BASE.
start_test_server() {
    local name=$1 log=$DATA_DIR/$1.log
    shift
    query "$TEST_DATABASE_URL" "create database $name"
    : >"$log"
    env "$@" DATABASE_URL="$(conninfo "$SOCKETS" movies "$name")" "$BINARY" 2>"$log" &
    SERVER=$!
    BASE=''
    for _ in $(seq 100); do
        BASE=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$log")
        [ -z "$BASE" ] || return 0
        kill -0 "$SERVER" 2>/dev/null || break
        sleep 0.1 9>&-
    done
    die "the service does not start: $(tail -n 1 "$log")"
}

stop_test_server() {
    kill "$SERVER"
    wait "$SERVER" || true
    SERVER=''
}

# The suite as a user runs it, against a service with default settings: see "Contributing" in README.md. CI runs it in a new
# virtual environment on port 8000, exactly as the README says; elsewhere that port may be in use, so any free one is taken.
test_service() {
    local log=$DATA_DIR/suite.log venv=$ROOT/target/service-venv port=0 status=0 movies
    if is_ci; then
        port=8000
        rm -rf -- "$venv"
    fi
    make_venv "$venv" requirements.txt
    start_test_server service "BIND=127.0.0.1:$port" SECRET_KEY=a-key-of-the-suite-alone-0123456789
    (
        cd "$ROOT/tests"
        unset TEST_DATABASE_URL MOVIES_API_BINARY MOVIES_API_URL SECRET_KEY
        [ "$port" != 0 ] || export MOVIES_API_URL=$BASE
        "$venv/bin/python" -m pytest -q -p no:cacheprovider 2>&1
    ) | tee "$log" || status=1
    movies=$(query "$(conninfo "$SOCKETS" movies service)" "select count(*) from movies")
    if [ "$movies" != 0 ]; then
        say "the suite left $movies movies"
        status=1
    fi
    say "the suite left $(query "$(conninfo "$SOCKETS" movies service)" "select count(*) from users") users"
    stop_test_server
    count_pytest "pytest, service in use" "$log" "$status"
}

# The recorded cases of the service that this one replaces.
test_contract() {
    local visibility=$1 log=$DATA_DIR/contract.$1.log key=a-key-of-the-contract-alone-0123456789
    start_test_server "contract_$visibility" BIND=127.0.0.1:0 "SECRET_KEY=$key" BCRYPT_COST=4 "MOVIES_VISIBILITY=$visibility"
    python3 "$ROOT/tests/conformance/check.py" --base "$BASE" --secret-key "$key" --visibility "$visibility" | tee "$log" || true
    stop_test_server
    tail -n 1 "$log" >"$log.end"
    count_stage "contract, $visibility" "$(sum_counts "$log.end" passed .)" "$(sum_counts "$log.end" failed .)" \
        "$(sum_counts "$log.end" skipped .)"
}

run_tests() {
    ! is_ci || ! (: <>/dev/tcp/127.0.0.1/8000) 2>/dev/null ||
        die "port 8000 of 127.0.0.1 is in use, and CI runs the suite against a service on it: stop what listens there"
    # The throwaway cluster's folder will be there.
    DATA_DIR=/tmp BUILD_MEGABYTES=6000
    require rust compiler openssl postgres room python curl
    build
    PASSED=0 FAILED=0 SKIPPED=0 STAGES=''
    trap 'exit 143' INT TERM HUP
    trap end_throwaway_cluster EXIT
    # What a test writes need not outlive the machine.
    start_throwaway_cluster 'fsync = off'
    test_rust
    test_python "$@"
    test_service
    test_contract own
    test_contract shared
    printf '\n%s\n%d passed, %d failed, %d skipped\n' "$STAGES" "$PASSED" "$FAILED" "$SKIPPED"
    ! is_ci || [ "$SKIPPED" = 0 ] || die "CI has to run every test: $SKIPPED were skipped"
    [ "$FAILED" = 0 ]
}

# --- bench -------------------------------------------------------------------------------------------------------------

run_bench() {
    DATA_DIR=/tmp
    require rust compiler openssl postgres room wrk
    build
    local bench=$ROOT/target/bench
    (cd "$ROOT/tests/bench" && cargo_build --target-dir "$bench")
    case " $* " in *" --help "*) exec "$bench/release/movies-bench" "$@" ;; esac
    trap 'exit 143' INT TERM HUP
    trap end_throwaway_cluster EXIT
    # Nothing tidies up while a route is measured: the bench does it in between. What autovacuum does is measured too: for
    # that the bench turns it on, with the interval that `serve` gives a cluster of its own. Checkpoints run in between,
    # too, so full-page images, which a server spreads over minutes, would all be written within two seconds.
    start_throwaway_cluster "shared_preload_libraries = 'pg_stat_statements'
shared_buffers = 512MB
min_wal_size = 2GB
max_wal_size = 8GB
checkpoint_timeout = 1h
full_page_writes = off
autovacuum = off
autovacuum_naptime = 5s"
    BENCH_FOLDER=$DATA_DIR BENCH_COMMIT=$(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo none)
    export BENCH_FOLDER BENCH_COMMIT POSTGRES
    "$bench/release/movies-bench" "$@"
}

misused() {
    usage >&2
    exit 2
}

main() {
    case ${1:-} in
        -h | --help) set -- help ;;
        '' | -*) set -- serve "$@" ;;
    esac
    COMMAND=$1
    shift
    case $COMMAND in
        serve) serve "$@" ;;
        test) run_tests "$@" ;;
        bench) run_bench "$@" ;;
        stop) stop ;;
        check | completions | import-django | migrate | print | recount | token | users) run_program "$@" ;;
        psql) open_psql "$@" ;;
        backup)
            [ "$#" = 1 ] || misused
            backup "$1"
            ;;
        restore)
            [ "${1:-}" = --replace ] || set -- '' "$@"
            [ "$#" = 2 ] || misused
            restore "$@"
            ;;
        help) usage ;;
        *) misused ;;
    esac
}

main "$@"
