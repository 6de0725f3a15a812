#!/usr/bin/env bash
# Builds, runs, operates, backs up, restores, tests and measures the service. Unless DATABASE_URL is set, it runs a
# PostgreSQL cluster for the service.
set -euo pipefail

ROOT=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/release/movies-api
# The oldest Rust that builds the program: rust-version in Cargo.toml.
MIN_RUST=1.88
# Root's DATA_DIR where the default is below a folder that only root can enter.
SYSTEM_DATA_DIR=/var/lib/movies-api
# Disk space of a first build, and of a new cluster with its first data.
BUILD_MEGABYTES=1500
CLUSTER_MEGABYTES=200

usage() {
    cat <<'END'
usage: ./run.sh [COMMAND] [FLAGS]

  serve         build the service, start a PostgreSQL cluster in DATA_DIR unless DATABASE_URL is set, and serve (the
                default command); './run.sh serve --help' lists the flags
  stop          stop what `serve` started for this DATA_DIR
  backup FILE   write all users and movies to FILE, whether the service runs or not; replaces FILE only when complete
  restore FILE  load a backup into an empty database while the service is stopped; 'restore --replace FILE' replaces the
                users and movies in the database
  psql          open psql on the service's database
  test          build the service, and run all tests with servers and a PostgreSQL cluster of their own
  bench         measure the service beside other servers, or another build of it; './run.sh bench --help' lists the options
  help          show this; so does --help after a command of run.sh itself
  --version     show the version of the program

  check, completions, import-django, migrate, print, recount, token, users
                commands of the program itself, with the database and the secret key of DATA_DIR

Settings are environment variables or flags; `./run.sh serve --help` lists them. run.sh itself also reads:
  DATA_DIR   folder of the cluster and the secret key (default ./.data; for root /var/lib/movies-api if ./.data is below
             a folder that only root can enter)
If root starts run.sh, PostgreSQL runs as the user postgres and the service as the unprivileged user 65534.
END
}

say() { printf 'run.sh: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# Tests whether one of the arguments after $1 is among the words of $1.
has_argument() {
    local words=" $1 " argument
    shift
    for argument; do
        if [[ $argument != *' '* && $words == *" $argument "* ]]; then return 0; fi
    done
    return 1
}

# Sleeps $1 seconds. If run.sh is killed meanwhile, `sleep` holds none of its locks.
pause() { sleep "$1" 7>&- 8>&- 9>&-; }

# Prints $1 without the white space around it, which the program ignores in settings too.
trim() {
    local value=$1
    value=${value#"${value%%[![:space:]]*}"}
    printf '%s' "${value%"${value##*[![:space:]]}"}"
}

# Runs when run.sh exits. What uses the cluster has ended before.
clean_up() {
    # A second signal must not interrupt this.
    trap '' INT TERM HUP
    [ -z "$CARGO" ] || kill -- "-$CARGO" 2>/dev/null || true
    [ -z "$PARTIAL_FILE" ] || rm -f -- "$PARTIAL_FILE"
    [ -z "$USES_CLUSTER" ] || leave_cluster
    [ -z "$SERVES" ] || rm -f -- "$DATA_DIR/run.pid"
}

# The process group of the build, the file that becomes a backup, and what else clean_up has to end.
CARGO='' PARTIAL_FILE='' USES_CLUSTER='' SERVES=''

# --- The users that PostgreSQL and the service run as ------------------------------------------------------------------

# Sets DATABASE_USER and SERVICE_USER, and AS_DATABASE and AS_SERVICE, the prefixes of commands that run as these users.
# Unless the current user is root, both are the current user.
choose_users() {
    local cluster=$DATA_DIR/database/cluster
    DATABASE_USER=$(id -un) SERVICE_USER=$DATABASE_USER AS_DATABASE=() AS_SERVICE=()
    is_root || return 0
    SERVICE_USER=nobody
    # An existing cluster keeps its owner, which is SERVICE_USER if the user postgres did not exist when it was made.
    DATABASE_USER=$(stat -c %U -- "$cluster" 2>/dev/null || id -un postgres 2>/dev/null || echo "$SERVICE_USER")
    AS_DATABASE=(setpriv "--reuid=$DATABASE_USER" "--regid=$(id -g "$DATABASE_USER")" --init-groups --no-new-privs --)
    AS_SERVICE=(setpriv "--reuid=$SERVICE_USER" "--regid=$(id -g "$SERVICE_USER")" --clear-groups --no-new-privs --)
}

as_database() { (cd / && exec env LC_ALL=C "${AS_DATABASE[@]}" "$@" 7>&- 8>&- 9>&-); }

as_service() { (cd / && exec "${AS_SERVICE[@]}" "$@" 7>&- 8>&- 9>&-); }

# Tests whether both users can enter folder $1 or, if it does not exist, its nearest existing parent.
is_reachable() {
    local folder=$1
    until [ -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    as_database test -x "$folder" && as_service test -x "$folder"
}

# Makes DATA_DIR an absolute path, and sets it if it is not set.
choose_data_dir() {
    local default=$ROOT/.data chosen=${DATA_DIR:-}
    DATA_DIR=${chosen:-$default}
    case $DATA_DIR in /*) ;; *) DATA_DIR=$PWD/$DATA_DIR ;; esac
    # PostgreSQL's settings and connection strings cannot express these characters in a folder's name.
    [[ ! $DATA_DIR =~ [,\"\\[:cntrl:]] ]] || die "DATA_DIR=$(printf %q "$DATA_DIR") is not allowed: the path must not" \
        "contain a comma, a double quote, a backslash or a control character; set DATA_DIR to another folder"
    choose_users
    if ! is_root || is_reachable "$DATA_DIR"; then return 0; fi
    [ -z "$chosen" ] || die "the users $DATABASE_USER and $SERVICE_USER, as whom PostgreSQL and the service run, cannot" \
        "enter $DATA_DIR: move it to a folder that they can enter, and set DATA_DIR, to $SYSTEM_DATA_DIR for example"
    if [ -d "$default/database/cluster" ] && [ ! -e "$SYSTEM_DATA_DIR" ]; then
        # Made by an earlier version, which gave PostgreSQL the capability to pass closed folders.
        if process_matches "$(first_line "$default/server.pid")" movies-api || find_postmaster "$default/database/cluster" >/dev/null; then
            case $COMMAND in stop | backup) return 0 ;; esac
            die "an earlier version of the service is running with DATA_DIR $default: stop it with './run.sh stop'"
        fi
        copy_data "$default"
    fi
    DATA_DIR=$SYSTEM_DATA_DIR
    choose_users
}

# Copies folder $1 to SYSTEM_DATA_DIR and renames the original.
copy_data() {
    say "PostgreSQL's user $DATABASE_USER cannot enter $1: copying it to $SYSTEM_DATA_DIR"
    rm -rf -- "$SYSTEM_DATA_DIR.partial"
    if ! cp -a --reflink=auto -- "$1" "$SYSTEM_DATA_DIR.partial"; then
        rm -rf -- "$SYSTEM_DATA_DIR.partial"
        die "$1 cannot be copied: nothing was changed"
    fi
    mv -T -- "$SYSTEM_DATA_DIR.partial" "$SYSTEM_DATA_DIR"
    mv -T -- "$1" "$1.copied"
    say "the original folder is now $1.copied and can be deleted"
}

# --- Requirements ------------------------------------------------------------------------------------------------------

# Each need_* function checks one requirement. It calls `lack` for missing software, with a description, the packages of
# Debian and the packages of Fedora, and `problem` for what no package can solve.
lack() {
    MISSING+=("$1")
    DEBIAN+=" $2"
    FEDORA+=" $3"
}

problem() { PROBLEMS+=("$*"); }

need_rust() {
    local bin=${CARGO_HOME:-${HOME:-/}/.cargo}/bin version
    # Prefer rustup's cargo to the older one of the system.
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

# For TLS connections to the database.
need_openssl() {
    pkg-config --exists openssl 2>/dev/null || lack "OpenSSL's headers" "pkg-config libssl-dev" "pkgconf openssl-devel"
}

# Prints the major version of the PostgreSQL programs in folder $1.
major_of() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    LC_ALL=C "$1/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p'
}

# Prints the folder with the PostgreSQL programs of major version $1, or with the newest ones if $1 is empty.
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

# Sets POSTGRES to the folder with the programs of the cluster's major version, or for a new cluster with the newest ones.
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
    problem "the database in $DATA_DIR needs the programs of PostgreSQL $major. To move it to another version, install" \
        "PostgreSQL $major as well, or use a machine that has it, and run: ./run.sh backup movies.backup &&" \
        "mv $DATA_DIR/database $DATA_DIR/database.$major && ./run.sh restore movies.backup"
}

need_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || lack "python3 with virtual environments" python3-venv python3
}

# A test executes the commands of the README.
need_curl() { command -v curl >/dev/null || lack curl curl curl; }

need_wrk() { command -v wrk >/dev/null || lack "wrk, the load generator" wrk wrk; }

# Installs Debian packages if that is possible without a password. Fails if it is not.
install_packages() {
    local as_root=() hooks status=0
    command -v apt-get >/dev/null || return 1
    if ! is_root; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing $*"
    # Debian's postgresql package would create and start a cluster on port 5432 with pg_createcluster. A program of that
    # name that does nothing comes first on dpkg's PATH, which needs no change of the system's configuration.
    hooks=$(mktemp -d)
    ln -s /bin/true "$hooks/pg_createcluster"
    chmod 755 "$hooks"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o "DPkg::Path=$hooks:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@" >&2 </dev/null 7>&- 8>&- 9>&- || status=$?
    rm -rf -- "$hooks"
    return "$status"
}

# Prints the command that installs what is missing.
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

# Calls need_NAME for each NAME and installs the missing packages if it can; otherwise reports everything that is missing
# at once and exits.
require() {
    local need attempt list packages
    for attempt in first second; do
        MISSING=() PROBLEMS=() DEBIAN='' FEDORA='' INSTALL_RUST=''
        for need in "$@"; do "need_$need"; done
        [ "$((${#MISSING[@]} + ${#PROBLEMS[@]}))" -gt 0 ] || return 0
        # While anything is left that packages cannot solve, install nothing and report everything.
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

# Prints the value of flag --$1 in the following arguments, or nothing if the flag is absent.
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
    trim "$value"
}

# Tests whether a socket listens on port $2 of address $1, which is written as in /proc/net/tcp or empty for any address.
is_listening() {
    { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } | awk -v address="$1" -v port="$(printf '%04X' "$2")" '
        $4 == "0A" { split($2, own, ":") }
        $4 == "0A" && own[2] == port && (address == "" || own[1] == address || own[1] ~ /^0+$/) { found = 1 }
        END { exit !found }'
}

# Checks BIND_ADDRESS, on which the service will listen. Invalid addresses are left for the program to report.
need_port() {
    local host=${BIND_ADDRESS%:*} port=${BIND_ADDRESS##*:} a b c d address=''
    [[ $port =~ ^[0-9]{1,9}$ ]] && port=$((10#$port)) && [ "$port" -gt 0 ] || return 0
    if [[ $host =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$ ]] && [ "$host" != 0.0.0.0 ]; then
        IFS=. read -r a b c d <<<"$host"
        printf -v address '%02X%02X%02X%02X' "$d" "$c" "$b" "$a"
    fi
    ! is_listening "$address" "$port" || problem "$BIND_ADDRESS is in use by another program: stop it, or choose another" \
        "address with --bind, such as --bind 127.0.0.1:8001"
}

# Prints the free megabytes in folder $1 or, if it does not exist, in its nearest existing parent.
free_megabytes() {
    local folder=$1
    until [ -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    df -Pm -- "$folder" | awk 'NR == 2 { print $4 }'
}

need_disk_space() {
    local free
    free=$(free_megabytes "$(dirname -- "$BINARY")")
    [ -x "$BINARY" ] || [ "$free" -ge "$BUILD_MEGABYTES" ] ||
        problem "the build needs $BUILD_MEGABYTES MB of disk space in $(dirname -- "$BINARY"), where $free MB are free"
    [ -n "${DATABASE_URL:-}" ] && return 0
    free=$(free_megabytes "$DATA_DIR")
    [ -d "$DATA_DIR/database/cluster" ] || [ "$free" -ge "$CLUSTER_MEGABYTES" ] ||
        problem "a new database needs $CLUSTER_MEGABYTES MB of disk space in $DATA_DIR, where $free MB are free"
}

# Runs `cargo build` in folder $1 with the following arguments. Shows cargo's progress only on a terminal.
cargo_build() {
    local folder=$1 quiet=--quiet status=0
    shift
    [ ! -t 2 ] || quiet=''
    # In a process group of its own, which clean_up ends with all its compilers. Without the locks, so that none is held
    # after run.sh was killed.
    set -m
    # shellcheck disable=SC2086 # an empty value must add no argument
    (cd "$folder" && exec cargo build --release --locked $quiet "$@" </dev/null) 7>&- 8>&- 9>&- &
    CARGO=$!
    set +m
    wait "$CARGO" || status=$?
    CARGO=''
    [ "$status" = 0 ] || die "the build failed"
}

build() {
    [ -x "$BINARY" ] || say "building the service: the first build takes about two minutes on two cores"
    cargo_build "$ROOT"
    [ -x "$BINARY" ] || die "the build did not write $BINARY"
}

# Builds the program, and replaces run.sh by it with these arguments, which need no database.
exec_program() {
    choose_data_dir
    # Counts the disk space of the build alone.
    DATABASE_URL=${DATABASE_URL:-none} require rust compiler openssl disk_space
    build
    exec "$BINARY" "$@"
}

# --- The PostgreSQL cluster in DATA_DIR --------------------------------------------------------------------------------

first_line() { { head -n 1 -- "$1" | tr -d '\0'; } 2>/dev/null || true; }

# Prints the line of log $1 after byte $2 that says why a program failed.
find_cause() {
    local log=$1 lines cause
    # Skip the errors that clients get during a shutdown, or when the postmaster has ended.
    lines=$(tail -c "+$(($2 + 1))" -- "$log" 2>/dev/null | grep -vE 'the database system is|terminating connection|connection to client lost|does not exist') || true
    cause=$(grep -E '(FATAL|PANIC|error):' <<<"$lines" | tail -n 1 | sed -E 's/^.*(FATAL|PANIC): +/\1: /') || true
    # A few messages at startup have no level.
    [ -n "$cause" ] || cause=$(grep -vE '(LOG|WARNING|ERROR|DETAIL|HINT|STATEMENT|CONTEXT): |^\s' <<<"$lines" | tail -n 1) || true
    echo "${cause:-it was killed, or it logged no error} (log: $log)"
}

# Creates the cluster in $1 with superuser $2 unless it exists. The folder gets its final name once it is complete.
make_cluster() {
    local cluster=$1 superuser=$2 locale
    [ ! -f "$cluster/PG_VERSION" ] || return 0
    (umask 077 && mkdir -p -- "${cluster%/*}")
    ! is_root || chown "$DATABASE_USER" "${cluster%/*}"
    for locale in C.UTF-8 en_US.UTF-8 C; do
        as_database rm -rf -- "$cluster.new"
        if as_database "$POSTGRES/initdb" -D "$cluster.new" --username="$superuser" --auth-local=trust --auth-host=reject \
            --encoding=UTF8 --locale="$locale" --data-checksums >"$DATA_DIR/initdb.log" 2>&1; then
            [ "$locale" != C ] || say "there is no UTF-8 locale: searches will distinguish upper and lower case outside ASCII"
            # shellcheck disable=SC2016 # expanded by the inner shell
            as_database sh -c 'echo "include '\''movies-api.conf'\''" >>"$1/postgresql.conf" && mv -- "$1" "$2"' sh \
                "$cluster.new" "$cluster"
            return
        fi
        # Another locale solves no other error.
        grep -q 'invalid locale name' "$DATA_DIR/initdb.log" || break
    done
    die "the database cannot be created: $(find_cause "$DATA_DIR/initdb.log" 0)"
}

# Prints the process id of the postmaster of the cluster in $1; fails if none is running.
find_postmaster() {
    local postmaster
    postmaster=$(first_line "$1/postmaster.pid")
    process_matches "$postmaster" postgres && echo "$postmaster"
}

# Writes standard input to file $1 of a cluster as its owner, so that root follows no symbolic link in the owner's folder.
write_file() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_database sh -c 'cat >"$1.new" && mv -- "$1.new" "$1"' sh "$1"
}

# Creates the folder of the cluster's socket with mode $1, and sets SOCKETS to it.
make_socket_folder() {
    SOCKETS=$DATA_DIR/sockets
    # The path of a socket has at most 107 bytes, of which its file name takes 14.
    if [ "${#SOCKETS}" -gt 90 ]; then
        remove_socket_folder
        SOCKETS=$(mktemp -d /tmp/movies-api.XXXXXX)
        echo "$SOCKETS" >"$DATA_DIR/sockets.path"
    fi
    mkdir -p -- "$SOCKETS"
    ! is_root || chown "$DATABASE_USER" "$SOCKETS"
    chmod "$1" "$SOCKETS"
}

# Removes the socket folder in /tmp that this or an earlier start created.
remove_socket_folder() {
    local folder
    folder=$(first_line "$DATA_DIR/sockets.path")
    [[ ! $folder =~ ^/tmp/movies-api\.[A-Za-z0-9]{6}$ ]] || rm -rf -- "$folder"
    rm -f -- "$DATA_DIR/sockets.path"
}

# Starts the cluster in $1 with the settings in $2, and sets POSTMASTER to its process id. If it does not accept
# connections within two minutes, fails and sets CAUSE to the reason. The folder SOCKETS has to exist.
start_cluster() {
    local cluster=$1 settings=${2:-} log=$1/server.log offset old
    # A run.sh that was killed leaves its cluster running.
    stop_cluster "$cluster"
    old=$(first_line "$cluster/postmaster.pid")
    # PostgreSQL refuses to start while the old postmaster exists, even if it was killed and its parent has not reaped it.
    for _ in $(seq 100); do
        if [ -z "$old" ] || ! kill -0 "$old" 2>/dev/null || [ -n "$(command_line "$old")" ]; then break; fi
        pause 0.1
    done
    write_file "$cluster/movies-api.conf" <<END
listen_addresses = ''
unix_socket_directories = '"${SOCKETS//\'/\'\'}"'
$settings
END
    offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
    # In a process group of its own, so that Ctrl-C does not stop PostgreSQL before the service.
    set -m
    # shellcheck disable=SC2016 # expanded by the inner shell
    (cd / && exec env LC_ALL=C "${AS_DATABASE[@]}" sh -c 'exec "$0" -D "$1" >>"$1/server.log" 2>&1' \
        "$POSTGRES/postgres" "$cluster" </dev/null >/dev/null 2>&1) 7>&- 8>&- 9>&- &
    POSTMASTER=$!
    set +m
    STARTED=$SECONDS
    for _ in $(seq 1200); do
        [[ $(sed -n '1p;8p' "$cluster/postmaster.pid" 2>/dev/null | tr -d ' ') != "$POSTMASTER"$'\n'ready ]] || return 0
        kill -0 "$POSTMASTER" 2>/dev/null || break
        pause 0.1
    done
    CAUSE=$(find_cause "$log" "$offset")
    # PostgreSQL takes any process of its user for a postmaster, such as one that got the id of a postmaster that was killed.
    if [[ $CAUSE == *'lock file "postmaster.pid" already exists'* ]] && ! find_postmaster "$cluster" >/dev/null; then
        CAUSE+="; the file names process $old ($(first_line "/proc/$old/comm")), which is not PostgreSQL: unless a PostgreSQL"
        CAUSE+=" outside of this machine or container uses the folder, delete $cluster/postmaster.pid"
    fi
    return 1
}

# Stops the cluster in $1. If that takes longer than a minute, the next start does a crash recovery.
stop_cluster() {
    local postmaster
    postmaster=$(find_postmaster "$1") || return 0
    kill -INT "$postmaster" 2>/dev/null || return 0
    for _ in $(seq 600); do
        process_matches "$postmaster" postgres || return 0
        pause 0.1
    done
    kill -QUIT "$postmaster" 2>/dev/null || true
}

# Prints the connection string for database $3 as role $2 through the socket in folder $1.
conninfo() {
    local quoted=${1//\\/\\\\}
    echo "host='${quoted//\'/\\\'}' user=$2 dbname=$3"
}

query() { "$POSTGRES/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$1" -c "$2" </dev/null; }

# The role of the service, which owns the database and is not a superuser. The superuser is postgres, or movies in
# clusters of earlier versions, in which the service used that role.
SERVICE_ROLE=movies_api

# Writes the rules for which system user may connect to the cluster in $1 as which role (peer authentication).
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

# Makes SERVICE_ROLE the owner of the database and of everything in it that no extension owns, in one transaction.
CHANGE_OWNER="
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
        -- Since PostgreSQL 15 the owner of the database owns this schema from the beginning.
        select format('alter schema public owner to %s', role)
        from pg_namespace where nspname = 'public' and nspowner = 10
    loop
        execute statement;
    end loop;
    execute format('alter database %I owner to %s', current_database(), role);
end
\$\$"

# Creates the database in the running cluster unless it exists, and makes SERVICE_ROLE its owner.
prepare_database() {
    local superuser maintenance
    for superuser in postgres movies; do
        maintenance=$(conninfo "$SOCKETS" "$superuser" postgres)
        query "$maintenance" "select" >/dev/null 2>&1 && break
    done
    [ -n "$(query "$maintenance" "select oid from pg_roles where rolname = '$SERVICE_ROLE'")" ] ||
        query "$maintenance" "create role $SERVICE_ROLE login"
    [ -n "$(query "$maintenance" "select oid from pg_database where datname = 'movies'")" ] ||
        query "$maintenance" "create database movies"
    [ -n "$(query "$maintenance" "select oid from pg_database where datname = 'movies' and datdba = '$SERVICE_ROLE'::regrole")" ] ||
        query "$(conninfo "$SOCKETS" "$superuser" movies)" "$CHANGE_OWNER"
}

# Opens the locks of the cluster. Descriptor 7 is locked while the cluster is started or stopped, so that starts wait for a
# stop that is under way. Descriptor 8 is locked shared by each run.sh that uses the cluster. The programs that use it
# inherit descriptor 8, so that it stays locked while they run even if run.sh is killed.
open_cluster_locks() {
    local starting=$DATA_DIR/cluster.lock using=$DATA_DIR/cluster.users
    make_data_dir
    # A reader of the folder can lock existing files.
    { : >>"$starting" && : >>"$using"; } 2>/dev/null || { [ -r "$starting" ] && [ -r "$using" ]; } ||
        die "cannot write to $DATA_DIR: set DATA_DIR to a writable folder"
    exec 7<"$starting" 8<"$using"
}

# Starts the cluster of DATA_DIR unless it is running, and sets DATABASE_URL to its database. Creates what does not exist.
# The cluster runs until the last run.sh that uses it exits.
join_cluster() {
    open_cluster_locks
    flock 7
    flock -s 8
    USES_CLUSTER=1
    if find_postmaster "$DATA_DIR/database/cluster" >/dev/null; then
        connect_to_cluster
    else
        open_cluster
    fi
    flock -u 7
}

# Like join_cluster, but starts the cluster as a child of this run.sh, and therefore first waits until no other run.sh uses
# it.
own_cluster() {
    local waiting=''
    open_cluster_locks
    flock 7
    until flock -n 8; do
        flock -u 7
        [ -n "$waiting" ] || say "waiting for the end of other commands that use the database in $DATA_DIR"
        waiting=1
        pause 0.2
        flock 7
    done
    USES_CLUSTER=1
    open_cluster
    flock -s 8
    flock -u 7
}

# Stops the cluster unless another run.sh uses it.
leave_cluster() {
    flock 7
    flock -n 8 || return 0
    stop_cluster "$DATA_DIR/database/cluster"
    remove_socket_folder
}

# Sets DATABASE_URL to the database of the running cluster.
connect_to_cluster() {
    local role
    SOCKETS=$(sed -n 5p "$DATA_DIR/database/cluster/postmaster.pid")
    # A cluster that an earlier version started has only the role movies.
    for role in "$SERVICE_ROLE" movies; do
        DATABASE_URL=$(conninfo "$SOCKETS" "$role" movies)
        query "$DATABASE_URL" "select" >/dev/null 2>&1 && break
    done
    export DATABASE_URL
}

# Starts the cluster, and sets DATABASE_URL to its database. Creates what does not exist.
open_cluster() {
    local cluster=$DATA_DIR/database/cluster
    make_cluster "$cluster" postgres
    # Earlier versions had the socket in this folder.
    rm -rf -- "$DATA_DIR/database/sockets"
    # The service may run as another user, who has to enter the folder; peer authentication controls who can connect.
    make_socket_folder "$(is_root && echo 711 || echo 700)"
    write_access_rules "$cluster"
    for _ in $(seq 10); do
        ! start_own_cluster || break
        # The sessions of a postmaster that was killed exit soon after it.
        [[ $CAUSE == *'still in use'* ]] || die "the database does not start: $CAUSE"
        pause 1
    done
    prepare_database
    DATABASE_URL=$(conninfo "$SOCKETS" "$SERVICE_ROLE" movies)
    export DATABASE_URL
}

start_own_cluster() {
    local cluster=$DATA_DIR/database/cluster
    # By default autovacuum checks the tables once a minute. While movies are added at full speed, searches become up to
    # twice as slow in that time.
    start_cluster "$cluster" "hba_file = '${cluster//\'/\'\'}/movies-api.hba'
ident_file = '${cluster//\'/\'\'}/movies-api.ident'
autovacuum_naptime = 5s"
}

# --- serve and stop --------------------------------------------------------------------------------------------------

# Sets SECRET_KEY to the key in DATA_DIR, which is created once.
load_secret_key() {
    local file=$DATA_DIR/secret_key
    if [ ! -s "$file" ]; then
        (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$file.new" && mv -- "$file.new" "$file") ||
            die "the secret key cannot be written to $DATA_DIR"
    fi
    SECRET_KEY=$(cat -- "$file") || die "the secret key in $DATA_DIR cannot be read"
    export SECRET_KEY
}

# Prints the command line of process $1: nothing for a process that has ended and waits for its parent.
command_line() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline"; }

# Tests whether process $1 is alive and its command line contains $2. Without the second test, a process id in an old
# file might belong to another program.
process_matches() { [ -n "$1" ] && command_line "$1" | grep -qF -- "$2"; }

# Creates DATA_DIR.
make_data_dir() {
    # With root's own umask the other two users might be unable to enter the folder.
    (! is_root || umask 022; mkdir -p -- "$DATA_DIR") 2>/dev/null ||
        die "cannot create $DATA_DIR: set DATA_DIR to a writable folder"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    command -v flock >/dev/null || die "there is no flock command: install util-linux"
}

# Creates DATA_DIR, and locks it for `serve` or `restore`, only one of which can run, until run.sh exits.
lock_data_dir() {
    make_data_dir
    (: >>"$DATA_DIR/lock") 2>/dev/null || die "cannot write to $DATA_DIR: set DATA_DIR to a writable folder"
    exec 9>>"$DATA_DIR/lock"
    flock -n 9 || die "another run.sh is using $DATA_DIR: stop it with './run.sh stop'"
    ! process_matches "$(first_line "$DATA_DIR/server.pid")" movies-api ||
        die "process $(first_line "$DATA_DIR/server.pid") of an earlier run is still serving: stop it with './run.sh stop'"
}

# Sets PROGRAM to the executable that SERVICE_USER can run: BINARY, or a copy in DATA_DIR if that user cannot enter the
# folder of BINARY.
choose_program() {
    PROGRAM=$BINARY
    if is_root && ! as_service test -x "$BINARY"; then
        PROGRAM=$DATA_DIR/movies-api
        install -m 755 -- "$BINARY" "$PROGRAM.new"
        mv -- "$PROGRAM.new" "$PROGRAM"
    fi
    # Only a port below 1024 needs a privilege.
    if is_root && [[ ${BIND_ADDRESS##*:} =~ ^0*([1-9][0-9]{0,2}|10[01][0-9]|102[0-3])$ ]]; then
        AS_SERVICE=("${AS_SERVICE[@]:0:${#AS_SERVICE[@]}-1}" --inh-caps=+net_bind_service --ambient-caps=+net_bind_service --)
    fi
}

# Prints the TCP port on which process $1 listens; fails if there is none yet.
listening_port() {
    local sockets port
    sockets=$(find "/proc/$1/fd" -lname 'socket:*' -printf '%l ' 2>/dev/null | tr -dc '0-9 ')
    port=$({ cat /proc/net/tcp /proc/net/tcp6 2>/dev/null || true; } | awk -v sockets="$sockets" '
        BEGIN { count = split(sockets, inodes, " "); for (i = 1; i <= count; i++) own[inodes[i]] = 1 }
        $4 == "0A" && ($10 in own) && !found { found = 1; sub(/.*:/, "", $2); print $2 }')
    [ -n "$port" ] && echo "$((16#$port))"
}

# Waits until process $1 listens, and prints the address of the service.
announce() {
    local host=${BIND_ADDRESS%:*} port
    until port=$(listening_port "$1"); do
        kill -0 "$1" 2>/dev/null || return 0
        pause 0.1
    done
    case $host in 0.0.0.0 | '[::]') host=127.0.0.1 ;; esac
    say "ready; open http://$host:$port/api/v1/docs/"
}

# Restarts PostgreSQL after it has ended, unless the service (process $1) ended too. Fails after five restarts in a row;
# a minute of running resets the count.
restart_cluster() {
    [ "$((SECONDS - STARTED))" -lt 60 ] || RESTARTS=0
    while [ "$RESTARTS" -lt 5 ] && [ -z "$STOPPING" ] && kill -0 "$1" 2>/dev/null; do
        RESTARTS=$((RESTARTS + 1))
        say "PostgreSQL has ended: $CAUSE. Restarting it ($RESTARTS of 5)"
        flock 7
        if start_own_cluster; then
            flock -u 7
            return 0
        fi
        flock -u 7
        # The cause may pass: a full disk, or a child of the old postmaster that is still exiting.
        pause "$RESTARTS"
    done
    return 1
}

# Waits until the service (process $1) ends, and restarts PostgreSQL as needed. Fails if PostgreSQL cannot be restarted.
supervise() {
    local server=$1 log=$DATA_DIR/database/cluster/server.log offset
    RESTARTS=0
    offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
    while kill -0 "$server" 2>/dev/null; do
        if [ -z "$STOPPING" ] && [ -n "${POSTMASTER:-}" ] && ! kill -0 "$POSTMASTER" 2>/dev/null; then
            CAUSE=$(find_cause "$log" "$offset")
            restart_cluster "$server" || return 1
            offset=$(stat -c %s -- "$log" 2>/dev/null || echo 0)
        else
            # A signal interrupts the wait. No command may come between the checks above and the wait: at each command
            # bash forgets which children have ended.
            wait -n "$server" ${POSTMASTER:+"$POSTMASTER"} 2>/dev/null || true
        fi
    done
}

serve() {
    local server='' status=0
    ! has_argument '--version -V' "$@" || exec_program --version
    ! has_argument '--help -h' "$@" || exec_program serve --help
    BIND_ADDRESS=$(flag_value bind "$@")
    BIND_ADDRESS=${BIND_ADDRESS:-${BIND:-0.0.0.0:8000}}
    DATABASE_URL=${DATABASE_URL:-$(flag_value database-url "$@")}
    choose_data_dir
    lock_data_dir
    SERVES=1
    echo "$$" >"$DATA_DIR/run.pid"
    if [ -n "$DATABASE_URL" ]; then
        require rust compiler openssl port disk_space
    else
        require rust compiler openssl postgres port disk_space
        # The package that `require` installed may have created the user postgres.
        choose_users
    fi
    build
    [ -n "${SECRET_KEY:-}" ] || [ -n "$(flag_value secret-key "$@")" ] || load_secret_key
    if [ -z "$DATABASE_URL" ]; then
        own_cluster
    fi
    choose_program
    # By default glibc makes up to eight malloc arenas per core, each of which keeps the memory of its busiest moment.
    export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-4} DATABASE_URL
    STOPPING=''
    # The server ends at once at its second signal: two of `./run.sh stop` send it one, Ctrl-C twice sends it two.
    trap '[ -n "$STOPPING" ] || stop_server "$server"' TERM HUP
    trap 'stop_server "$server"' INT
    # In a process group of its own, so that Ctrl-C sends the server one signal, from here, and not another from the
    # terminal.
    set -m
    "${AS_SERVICE[@]}" "$PROGRAM" serve "$@" 7>&- 9>&- &
    server=$!
    set +m
    echo "$server" >"$DATA_DIR/server.pid"
    # A signal that came before the process id was known.
    [ -z "$STOPPING" ] || stop_server "$server"
    announce "$server"
    if ! supervise "$server" && [ -z "$STOPPING" ]; then
        say "PostgreSQL does not stay up: $CAUSE"
        kill -TERM "$server" 2>/dev/null || true
        STOPPING=failed
    fi
    while kill -0 "$server" 2>/dev/null; do
        wait "$server" || true
    done
    wait "$server" || status=$?
    rm -f -- "$DATA_DIR/server.pid"
    [ "$STOPPING" != failed ] || status=1
    exit "$status"
}

# Tells the server, process $1 if it was started, to stop.
stop_server() {
    STOPPING=1
    [ -z "$1" ] || kill -TERM "$1" 2>/dev/null || true
}

# Stops process $1 and waits up to 30 seconds for its end. Fails if no such process has $2 in its command line.
stop_process() {
    process_matches "$1" "$2" || return 1
    kill -TERM "$1" 2>/dev/null || true
    for _ in $(seq 300); do
        process_matches "$1" "$2" || return 0
        pause 0.1
    done
    die "process $1 did not end within 30 s"
}

stop() {
    choose_data_dir
    [ -d "$DATA_DIR" ] || die "nothing is running for $DATA_DIR, which does not exist"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    local stopped=()
    ! stop_process "$(first_line "$DATA_DIR/run.pid")" run.sh || stopped+=("the service")
    # These run without run.sh only if run.sh was killed.
    ! stop_process "$(first_line "$DATA_DIR/server.pid")" movies-api || stopped+=("its server")
    rm -f -- "$DATA_DIR/run.pid" "$DATA_DIR/server.pid"
    if find_postmaster "$DATA_DIR/database/cluster" >/dev/null; then
        # Other commands must not join the cluster meanwhile.
        open_cluster_locks
        flock 7
        stop_cluster "$DATA_DIR/database/cluster"
        stopped+=("its database")
    fi
    remove_socket_folder
    [ "${#stopped[@]}" -gt 0 ] || die "nothing is running for $DATA_DIR"
    printf -v stopped '%s, ' "${stopped[@]}"
    say "stopped ${stopped%, }"
}

# --- The program's own commands, psql, backup and restore --------------------------------------------------------------

# Unless DATABASE_URL is set, sets it to the database of DATA_DIR. Creates a missing cluster only if $1 is `create`.
connect_database() {
    [ -z "${DATABASE_URL:-}" ] || return 0
    [ -f "$DATA_DIR/database/cluster/PG_VERSION" ] || [ "${1:-}" = create ] ||
        die "there is no database in $DATA_DIR, and DATABASE_URL is not set: './run.sh' creates one"
    join_cluster
}

# Runs COMMAND, a command of the program, with these arguments and with the database and secret key of DATA_DIR.
run_program() {
    local status=0
    if has_argument '--help -h' "$@" || [ "$COMMAND" = print ] || [ "$COMMAND" = completions ]; then
        exec_program "$COMMAND" "$@"
    fi
    choose_data_dir
    DATABASE_URL=${DATABASE_URL:-$(flag_value database-url "$@")}
    if [ -n "$DATABASE_URL" ]; then
        require rust compiler openssl disk_space
        export DATABASE_URL
    else
        require rust compiler openssl postgres disk_space
        choose_users
    fi
    build
    case $COMMAND in
        migrate | import-django) connect_database create ;;
        *) connect_database ;;
    esac
    case $COMMAND in
        check | token)
            [ -n "${SECRET_KEY:-}" ] || [ -n "$(flag_value secret-key "$@")" ] || [ ! -d "$DATA_DIR" ] || load_secret_key
            ;;
    esac
    "$BINARY" "$COMMAND" "$@" 7>&- || status=$?
    exit "$status"
}

open_psql() {
    local status=0
    choose_data_dir
    require postgres
    ! has_argument '--help --version -V' "$@" || exec "$POSTGRES/psql" "$@"
    connect_database
    # Leave Ctrl-C to psql.
    trap : INT
    "$POSTGRES/psql" -d "$DATABASE_URL" "$@" 7>&- || status=$?
    exit "$status"
}

# Writes a backup to file $1, which is replaced only by a complete backup. Only its owner may read it, because it contains
# password hashes.
backup() {
    local file=$1
    [ ! -d "$file" ] || die "$file is a folder: give the name of a file"
    if [ -L "$file" ] || { [ -e "$file" ] && [ ! -f "$file" ]; }; then
        die "$file exists and is not a regular file, and a backup would replace it: give the name of a file"
    fi
    choose_data_dir
    require postgres
    connect_database
    PARTIAL_FILE=$file.new
    rm -f -- "$file.new"
    (umask 077 && exec "$POSTGRES/pg_dump" --format=custom --file="$file.new" --dbname="$DATABASE_URL" 7>&-) ||
        die "no backup was made"
    mv -T -- "$file.new" "$file"
    say "wrote $file"
}

# Exits if the service or any other client is connected to the database. PostgreSQL's own workers have no user name.
require_no_sessions() {
    local others
    others=$(query "$DATABASE_URL" "select count(*) from pg_stat_activity
        where datname = current_database() and usename is not null and pid <> pg_backend_pid()") || die "nothing was changed"
    [ "$others" = 0 ] || die "the database is in use ($others sessions): stop the service first"
}

# Prints the statements that drop what the migrations created, or nothing if the database is not the service's. Exits if
# it has users, unless $1 is --replace. Other objects stay: PostgreSQL refuses the statements if one depends on the
# service's tables.
print_drop_statements() {
    local users migrations=("$ROOT"/sql/migrations/V*.sql) tables routines newer
    [ "$(query "$DATABASE_URL" "select to_regclass('public.movie_counts') is not null")" = t ] || return 0
    users=$(query "$DATABASE_URL" "select count(*) from public.users") || return 1
    [ "$users" = 0 ] || [ "$1" = --replace ] ||
        die "the database has $users users: './run.sh restore --replace FILE' replaces them with those in FILE"
    newer=$(query "$DATABASE_URL" "select count(*) from public.refinery_schema_history where version > ${#migrations[@]}") || return 1
    [ "$newer" = 0 ] || die "the database has the schema of a newer version of the service, which this run.sh cannot" \
        "replace: use the run.sh of that version, or restore into an empty database"
    tables=$(created_names table "${migrations[@]}") routines=$(created_names function "${migrations[@]}")
    query "$DATABASE_URL" "
        select 'drop table ' || string_agg(oid::regclass::text, ', ') || ';'
        from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
            and relname = any ('{refinery_schema_history,$tables}')
        union all
        select 'drop routine ' || string_agg(oid::regprocedure::text, ', ') || ';'
        from pg_proc
        where pronamespace = 'public'::regnamespace and proname = any ('{$routines}')"
}

# Prints the names, with commas, of the objects of kind $1 that the following migrations create.
created_names() {
    local kind=$1
    shift
    sed -nE "s/^create $kind ([a-z_]+).*/\\1/p" "$@" | paste -sd ,
}

# Restores the backup $2; if $1 is --replace, it replaces the users and movies in the database. Everything happens in one
# transaction: psql ends at the first error, and gets the `commit` only after all of the file has been read. The rows come
# before the triggers, so that the counts of movies are those of the backup.
restore() {
    local replace=$1 file=$2 drop
    [ -e "$file" ] || die "there is no file $file"
    [ -f "$file" ] || die "$file is not a regular file: a restore reads the backup twice, so save it as a file first"
    choose_data_dir
    require postgres
    choose_users
    "$POSTGRES/pg_restore" --file=- -- "$file" | grep '^COPY public.movie_counts ' >/dev/null ||
        die "$file is not a complete backup of this service: nothing was changed"
    if [ -z "${DATABASE_URL:-}" ]; then
        lock_data_dir
        join_cluster
    fi
    require_no_sessions
    drop=$(print_drop_statements "$replace") || exit 1
    {
        echo "begin; set client_min_messages = warning; $drop"
        "$POSTGRES/pg_restore" --no-owner --no-privileges --no-comments --file=- -- "$file" && echo "commit;"
    } | "$POSTGRES/psql" -X -q -v ON_ERROR_STOP=1 -d "$DATABASE_URL" >/dev/null || die "nothing was changed"
    # A backup contains neither the planner's statistics nor the visibility map, which index-only scans need.
    query "$DATABASE_URL" "vacuum (analyze) users, movies"
    say "restored $(query "$DATABASE_URL" "select count(*) || ' users, ' || coalesce(sum(movie_count), 0) || ' movies' from users")"
}

# --- test --------------------------------------------------------------------------------------------------------------

# Starts a cluster with the settings $1 for a test or a benchmark, in a new DATA_DIR that is deleted with it.
start_throwaway_cluster() {
    DATA_DIR=$(mktemp -d /tmp/movies-api-test.XXXXXX)
    chmod 711 "$DATA_DIR"
    choose_users
    make_cluster "$DATA_DIR/database/cluster" movies
    make_socket_folder 700
    start_cluster "$DATA_DIR/database/cluster" "max_connections = 300
$1" || die "the database does not start: $CAUSE"
    TEST_DATABASE_URL=$(conninfo "$SOCKETS" movies postgres)
    MOVIES_API_BINARY=$BINARY
    export TEST_DATABASE_URL MOVIES_API_BINARY
}

remove_throwaway_cluster() {
    [ -z "${SERVER:-}" ] || kill "$SERVER" 2>/dev/null || true
    stop_cluster "$DATA_DIR/database/cluster"
    rm -rf -- "$DATA_DIR" "${SOCKETS:-$DATA_DIR}"
}

is_ci() { [ "${CI:-}" = true ]; }

# Adds the results of a stage to the totals. A stage without passed or failed tests did not run, which is a failure.
count_stage() {
    local name=$1 passed=${2:-0} failed=${3:-0} skipped=${4:-0}
    [ "$((passed + failed))" -gt 0 ] || failed=1
    PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    STAGES+="$(printf '%-28s %5d passed %3d failed %3d skipped' "$name" "$passed" "$failed" "$skipped")"$'\n'
}

# Prints the sum of the numbers before the word $2 in those lines of log $1 that match $3.
sum_counts() { (grep -E "$3" "$1" | grep -oE "[0-9]+ $2" || true) | awk '{ sum += $1 } END { print sum + 0 }'; }

test_rust() {
    local log=$DATA_DIR/rust.log status=0
    (cd "$ROOT" && cargo test --locked --no-fail-fast 2>&1) | tee "$log" || status=1
    count_stage "Rust" "$(sum_counts "$log" passed '^test result')" \
        "$(($(sum_counts "$log" failed '^test result') + status))" "$(sum_counts "$log" ignored '^test result')"
}

# Creates the virtual environment $1 with the packages of tests/$2 unless it exists and is up to date.
make_venv() {
    local venv=$1 requirements=$ROOT/tests/$2 wanted
    wanted=$(cat "$ROOT"/tests/requirements*.txt | cksum)
    [ "$(cat "$venv/wanted" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf -- "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
    echo "$wanted" >"$venv/wanted"
}

# Adds the results of stage $1 from the last line of pytest's log $2 and its exit status $3.
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

# Starts the service on a new database $1 of the throwaway cluster, with the following settings. Sets SERVER to its
# process id and BASE to its URL.
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
        pause 0.1
    done
    die "the service does not start: $(tail -n 1 "$log")"
}

stop_test_server() {
    kill "$SERVER"
    wait "$SERVER" || true
    SERVER=''
}

# Runs pytest as "Contributing" in README.md describes it, against a service with default settings. CI uses a new virtual
# environment and port 8000, as the README does; outside CI that port may be in use, so the service takes a free one.
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

# Runs the requests that were recorded from the Django service.
test_contract() {
    local visibility=$1 log=$DATA_DIR/contract.$1.log key=a-key-of-the-contract-alone-0123456789 cases
    start_test_server "contract_$visibility" BIND=127.0.0.1:0 "SECRET_KEY=$key" BCRYPT_COST=4 "MOVIES_VISIBILITY=$visibility"
    for cases in cases accounts; do
        python3 "$ROOT/tests/conformance/check.py" --base "$BASE" --secret-key "$key" --visibility "$visibility" \
            --cases "$ROOT/tests/conformance/$cases.json" | tee "$log" || true
        tail -n 1 "$log" >>"$log.end"
    done
    stop_test_server
    count_stage "contract, $visibility" "$(sum_counts "$log.end" passed .)" "$(sum_counts "$log.end" failed .)" \
        "$(sum_counts "$log.end" skipped .)"
}

run_tests() {
    ! is_ci || ! (: <>/dev/tcp/127.0.0.1/8000) 2>/dev/null ||
        die "port 8000 of 127.0.0.1 is in use, but CI tests a service on it: stop the program that listens there"
    # Disk space is checked where the throwaway cluster will be.
    DATA_DIR=/tmp BUILD_MEGABYTES=4000
    require rust compiler openssl postgres disk_space python curl
    build
    PASSED=0 FAILED=0 SKIPPED=0 STAGES=''
    trap remove_throwaway_cluster EXIT
    # Test data need not survive a power failure.
    start_throwaway_cluster 'fsync = off'
    test_rust
    test_python "$@"
    test_service
    test_contract own
    test_contract shared
    printf '\n%s\n%d passed, %d failed, %d skipped\n' "$STAGES" "$PASSED" "$FAILED" "$SKIPPED"
    ! is_ci || [ "$SKIPPED" = 0 ] || die "CI has to run every test, but $SKIPPED were skipped"
    [ "$FAILED" = 0 ]
}

# --- bench -------------------------------------------------------------------------------------------------------------

run_bench() {
    DATA_DIR=/tmp
    require rust compiler openssl postgres disk_space wrk
    build
    local bench=$ROOT/target/bench
    cargo_build "$ROOT/tests/bench" --target-dir "$bench"
    ! has_argument '--help -h' "$@" || exec "$bench/release/movies-bench" "$@"
    trap remove_throwaway_cluster EXIT
    # The bench runs vacuum and checkpoints between measurements, so that none runs during one. For the measurement of
    # autovacuum (--only decay) it turns autovacuum on, with the naptime that `serve` sets. Full-page writes are off: a
    # server spreads them over the minutes between checkpoints, here they would all fall into the first two seconds.
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

# Exits after printing the usage, and $* as the last line.
usage_error() {
    usage >&2
    say "$@"
    exit 2
}

# Checks that the arguments of COMMAND are the name of one file.
require_file() {
    if [ "$#" != 1 ] || [ -z "$1" ]; then
        usage_error "$COMMAND needs the name of one file"
    elif [[ $1 == -* ]]; then
        usage_error "$COMMAND needs the name of a regular file: write ./$1 if you mean a file named $1"
    fi
}

main() {
    # White space around a setting is ignored, and a blank one counts as unset.
    [ -n "$(trim "${DATA_DIR:-}")" ] || unset DATA_DIR
    BIND=$(trim "${BIND:-}") DATABASE_URL=$(trim "${DATABASE_URL:-}") SECRET_KEY=$(trim "${SECRET_KEY:-}")
    trap clean_up EXIT
    trap 'exit 143' INT TERM HUP
    case ${1:-} in
        -h | --help) set -- help ;;
        '' | -*) set -- serve "$@" ;;
    esac
    COMMAND=$1
    shift
    case $COMMAND in
        stop | backup | restore | test)
            if has_argument '--help -h' "$@"; then
                usage
                return
            fi
            ;;
    esac
    case $COMMAND in
        serve) serve "$@" ;;
        test) run_tests "$@" ;;
        bench) run_bench "$@" ;;
        stop)
            [ "$#" = 0 ] || usage_error "stop takes no argument"
            stop
            ;;
        check | completions | import-django | migrate | print | recount | token | users) run_program "$@" ;;
        psql) open_psql "$@" ;;
        backup)
            require_file "$@"
            backup "$1"
            ;;
        restore)
            [ "${1:-}" = --replace ] || set -- '' "$@"
            require_file "${@:2}"
            restore "$@"
            ;;
        help) usage ;;
        *) usage_error "$COMMAND is no command" ;;
    esac
}

main "$@"
