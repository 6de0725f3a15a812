#!/usr/bin/env bash
# The one command: serves the movies, with a PostgreSQL of its own where none is given; keeps and brings back its data;
# tests; measures; stops.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
DATA_DIR=${DATA_DIR:-$ROOT/.data}
BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/release/movies-api

usage() {
    cat <<'END'
usage: ./run.sh [COMMAND]

  serve         build, start a PostgreSQL cluster under DATA_DIR unless DATABASE_URL is set, and serve (the default)
  test          build, and run all tests against servers and a throwaway cluster of their own
  bench         measure the service beside its peers; './run.sh bench --help' tells its options
  stop          stop what `serve` started for this DATA_DIR
  backup FILE   write users and movies to FILE, whether the service runs or not; an older FILE is replaced at the end
  restore FILE  bring back what FILE holds, with the service stopped; 'restore --replace FILE' in the place of others
  help          show this

Settings are environment variables; `target/release/movies-api --help` lists them. Besides:
  DATA_DIR   where the cluster and the secret key are kept (default ./.data)
END
}

say() { printf 'run.sh: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# --- What has to be installed ---------------------------------------------------------------------------------------

# Installs Debian packages if that is possible here without asking anybody.
install_packages() {
    command -v apt-get >/dev/null || return 1
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || true
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

need_cargo() {
    [ ! -d "$HOME/.cargo/bin" ] || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || die "cargo is missing. Install Rust 1.88 or later: on Debian, Fedora and macOS alike" \
        "'curl https://sh.rustup.rs -sSf | sh' (or Fedora 'dnf install cargo', macOS 'brew install rust')"
    command -v cc >/dev/null || install_packages gcc libc6-dev || die "a C compiler is missing. Debian: 'apt-get install gcc';" \
        "Fedora: 'dnf install gcc'; macOS: 'xcode-select --install'"
    # TLS to the database.
    pkg-config --exists openssl 2>/dev/null || install_packages pkg-config libssl-dev ||
        die "OpenSSL's headers are missing. Debian: 'apt-get install pkg-config libssl-dev'; Fedora: 'dnf install openssl-devel'"
}

# The newest of the folders that hold PostgreSQL's programs.
find_postgres() {
    local folder
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
        /usr/local/opt/postgresql@*/bin | sort -rV) "$(dirname -- "$(command -v initdb || echo /none/initdb)")"; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] && [ -x "$folder/postgres" ]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

need_postgres() {
    POSTGRES=$(find_postgres) && return
    # Debian would start a cluster of its own, with an open port, as soon as the package is there.
    if install_packages postgresql-common && [ "$(id -u)" = 0 ]; then
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
    install_packages postgresql || true
    POSTGRES=$(find_postgres) || die "PostgreSQL's programs are missing. Debian: 'apt-get install postgresql';" \
        "Fedora: 'dnf install postgresql-server postgresql-contrib'; macOS: 'brew install postgresql@16'"
}

build() {
    need_cargo
    (cd "$ROOT" && cargo build --release --locked --quiet) || die "the build failed"
    [ -x "$BINARY" ] || die "the build left no $BINARY"
}

# --- A PostgreSQL cluster of our own ---------------------------------------------------------------------------------

# Chooses whom the database runs as, since PostgreSQL refuses root: sets AS_OWNER, a prefix for its commands, and gives
# them their folder.
choose_owner() {
    local folder=$DATA_DIR/database owner
    mkdir -p -- "$folder"
    chmod 700 "$folder"
    AS_OWNER=()
    [ "$(id -u)" = 0 ] || return 0
    owner=$(id -un postgres 2>/dev/null || echo nobody)
    AS_OWNER=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --init-groups --)
    chown "$owner" "$folder"
    if ! (cd / && "${AS_OWNER[@]}" ls "$folder" >/dev/null 2>&1); then
        # A parent, such as root's home, is closed to others. The right to pass it is all that is added.
        AS_OWNER=(setpriv "--reuid=$owner" "--regid=$(id -g "$owner")" --init-groups
            --inh-caps=+dac_override --ambient-caps=+dac_override --)
        (cd / && "${AS_OWNER[@]}" ls "$folder" >/dev/null 2>&1) ||
            die "the user $owner, as whom PostgreSQL runs, cannot reach $folder: set DATA_DIR to a folder that it can"
    fi
}

as_owner() { (cd / && exec env LC_ALL=C "${AS_OWNER[@]}" "$@" 9>&-); }

# Makes the cluster in $1 if there is none. A half-made one never has the final name.
make_cluster() {
    local cluster=$1 locale
    [ ! -f "$cluster/PG_VERSION" ] || return 0
    for locale in C.UTF-8 en_US.UTF-8 C; do
        rm -rf -- "$cluster.new"
        # Everybody who reaches the socket is let in: its folder is closed to all but its owner and root.
        if as_owner "$POSTGRES/initdb" -D "$cluster.new" --username=movies --auth-local=trust --auth-host=reject \
            --encoding=UTF8 --locale="$locale" --data-checksums >"$DATA_DIR/initdb.log" 2>&1; then
            [ "$locale" != C ] || say "there is no UTF-8 locale: searches will mind the case of letters past ASCII"
            echo "include 'movies-api.conf'" >>"$cluster.new/postgresql.conf"
            mv -- "$cluster.new" "$cluster"
            return
        fi
    done
    die "the database could not be made: $(tail -n 1 "$DATA_DIR/initdb.log")"
}

# Starts the cluster in $1, with the further settings in $2, and sets SOCKETS to its sockets' folder.
start_cluster() {
    local cluster=$1 further=${2:-} postmaster
    postmaster=$(head -n 1 "$cluster/postmaster.pid" 2>/dev/null || true)
    # PostgreSQL takes a postmaster that was killed and not reaped yet for one that runs.
    for _ in $(seq 100); do
        if [ -z "$postmaster" ] || ! kill -0 "$postmaster" 2>/dev/null || is_ours "$postmaster" ""; then
            break
        fi
        sleep 0.1
    done
    if as_owner "$POSTGRES/pg_ctl" -D "$cluster" status >/dev/null 2>&1; then
        # Left behind by a run.sh that was killed.
        SOCKETS=$(sed -n 5p "$cluster/postmaster.pid")
        return
    fi
    SOCKETS=$DATA_DIR/database/sockets
    # A socket's path has room for 107 bytes, and its name takes 14 of them.
    if [ "${#SOCKETS}" -gt 90 ]; then
        SOCKETS=$(mktemp -d /tmp/movies-api.XXXXXX)
    fi
    mkdir -p -- "$SOCKETS"
    chmod 700 "$SOCKETS"
    [ "$(id -u)" != 0 ] || chown --reference="$cluster" "$SOCKETS"
    cat >"$cluster/movies-api.conf" <<END
listen_addresses = ''
unix_socket_directories = '"${SOCKETS//\'/\'\'}"'
$further
END
    chmod 644 "$cluster/movies-api.conf"
    as_owner "$POSTGRES/pg_ctl" -D "$cluster" -w -t 120 -l "$cluster/server.log" start >/dev/null 2>&1 ||
        die "the database does not start: $(tail -n 1 "$cluster/server.log" 2>/dev/null)"
}

stop_cluster() {
    as_owner "$POSTGRES/pg_ctl" -D "$1" -m fast -w -t 60 stop >/dev/null 2>&1 || true
}

# How a client names database $2 of the cluster whose sockets are in $1.
conninfo() {
    local quoted=${1//\\/\\\\}
    echo "host='${quoted//\'/\\\'}' user=movies dbname=$2"
}

query() { "$POSTGRES/psql" -X -q -A -t -d "$1" -c "$2" </dev/null; }

# Makes and starts the cluster of DATA_DIR until run.sh ends, and sets DATABASE_URL to its database, made if there is none.
open_cluster() {
    local cluster=$DATA_DIR/database/cluster maintenance
    choose_owner
    make_cluster "$cluster"
    trap 'stop_cluster "$DATA_DIR/database/cluster"' EXIT
    # PostgreSQL looks once a minute by default which tables are due, time enough for searches to become twice as slow
    # while movies are added at full speed.
    start_cluster "$cluster" "autovacuum_naptime = 5s"
    maintenance=$(conninfo "$SOCKETS" postgres)
    [ -n "$(query "$maintenance" "select oid from pg_database where datname = 'movies'")" ] ||
        query "$maintenance" "create database movies"
    DATABASE_URL=$(conninfo "$SOCKETS" movies)
    export DATABASE_URL
}

# --- serve and stop --------------------------------------------------------------------------------------------------

keep_secret_key() {
    local file=$DATA_DIR/secret_key
    if [ ! -s "$file" ]; then
        (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$file.new" && mv -- "$file.new" "$file") ||
            die "the secret key cannot be kept in $DATA_DIR"
    fi
    SECRET_KEY=$(cat -- "$file")
    export SECRET_KEY
}

# The command line of process $1. One that was killed and not reaped yet is dead: it has none.
command_line() {
    if [ -d /proc/self ]; then
        tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline"
    else
        ps -p "$1" -o stat=,args= | grep -v '^Z'
    fi
}

# Whether process $1 is alive and its command line contains $2: a number in an old file may be anybody's by now.
is_ours() { [ -n "$1" ] && command_line "$1" | grep -qF -- "$2"; }

prepare_data_dir() {
    mkdir -p -- "$DATA_DIR" 2>/dev/null || die "cannot make $DATA_DIR: set DATA_DIR to a folder that can be written"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    (: >>"$DATA_DIR/lock") 2>/dev/null || die "cannot write in $DATA_DIR: set DATA_DIR to a folder that can be written"
    exec 9>>"$DATA_DIR/lock"
    ! command -v flock >/dev/null || flock -n 9 || die "another run.sh is using $DATA_DIR: './run.sh stop' ends it"
    local server
    server=$(cat -- "$DATA_DIR/server.pid" 2>/dev/null || true)
    ! is_ours "$server" movies-api || die "a server (process $server) was left behind: './run.sh stop' ends it"
}

serve() {
    build
    prepare_data_dir
    local server status=0
    [ -n "${SECRET_KEY:-}" ] || keep_secret_key
    trap 'exit 143' INT TERM HUP
    if [ -z "${DATABASE_URL:-}" ]; then
        need_postgres
        open_cluster
    fi
    # glibc would give the threads eight arenas a core, and each keeps what its busiest moment took.
    export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-4}
    # A process group of its own: a Ctrl-C reaches the server once, from here, and not a second time from the terminal.
    set -m
    "$BINARY" 9>&- &
    server=$!
    set +m
    echo "$server" >"$DATA_DIR/server.pid"
    echo "$$" >"$DATA_DIR/run.pid"
    trap 'kill -TERM "$server" 2>/dev/null || true' INT TERM HUP
    # A signal ends the wait early; the second wait gives the status of a process that has ended.
    while kill -0 "$server" 2>/dev/null; do
        wait "$server" || true
    done
    wait "$server" || status=$?
    rm -f -- "$DATA_DIR/server.pid" "$DATA_DIR/run.pid"
    exit "$status"
}

# Ends process $1, if its command line contains $2, within 30 seconds.
end_process() {
    is_ours "$1" "$2" || return 1
    kill -TERM "$1"
    for _ in $(seq 300); do
        is_ours "$1" "$2" || return 0
        sleep 0.1
    done
    die "process $1 does not end"
}

stop() {
    [ -d "$DATA_DIR" ] || die "nothing was started for $DATA_DIR"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    local stopped=()
    ! end_process "$(cat -- "$DATA_DIR/run.pid" 2>/dev/null)" run.sh || stopped+=("the service")
    # What only a killed run.sh leaves behind:
    ! end_process "$(cat -- "$DATA_DIR/server.pid" 2>/dev/null)" movies-api || stopped+=("its server")
    rm -f -- "$DATA_DIR/run.pid" "$DATA_DIR/server.pid"
    if [ -f "$DATA_DIR/database/cluster/postmaster.pid" ] && POSTGRES=$(find_postgres); then
        choose_owner
        if as_owner "$POSTGRES/pg_ctl" -D "$DATA_DIR/database/cluster" status >/dev/null 2>&1; then
            stop_cluster "$DATA_DIR/database/cluster"
            stopped+=("its database")
        fi
    fi
    [ "${#stopped[@]}" -gt 0 ] || die "nothing runs for $DATA_DIR"
    printf -v stopped '%s, ' "${stopped[@]}"
    say "stopped ${stopped%, }"
}

# --- backup and restore ----------------------------------------------------------------------------------------------

# Sets DATABASE_URL, unless it is set, to the database of DATA_DIR, which is started for as long as this takes if the
# service does not run.
reach_database() {
    [ -z "${DATABASE_URL:-}" ] || return 0
    local cluster=$DATA_DIR/database/cluster
    [ -f "$cluster/PG_VERSION" ] || die "there is no database in $DATA_DIR, and DATABASE_URL is not set"
    DATA_DIR=$(cd -- "$DATA_DIR" && pwd)
    choose_owner
    if as_owner "$POSTGRES/pg_ctl" -D "$DATA_DIR/database/cluster" status >/dev/null 2>&1; then
        DATABASE_URL=$(conninfo "$(sed -n 5p "$DATA_DIR/database/cluster/postmaster.pid")" movies)
    else
        prepare_data_dir
        open_cluster
    fi
}

# FILE holds either all of the older backup or all of the new one, and is its owner's alone: password hashes are in it.
backup() {
    local file=$1
    [ ! -d "$file" ] || die "$file is a folder: name a file in it"
    need_postgres
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
    local replace=$1 file=$2 empty
    need_postgres
    "$POSTGRES/pg_restore" --file=- -- "$file" | grep '^COPY public.movie_counts ' >/dev/null ||
        die "$file is not a whole backup of this service: nothing was changed"
    trap 'exit 143' INT TERM HUP
    if [ -z "${DATABASE_URL:-}" ]; then
        prepare_data_dir
        open_cluster
    fi
    refuse_company
    empty=$(emptying "$replace") || exit 1
    {
        echo "begin; set client_min_messages = warning; $empty"
        "$POSTGRES/pg_restore" --no-owner --no-privileges --no-comments --file=- -- "$file" && echo "commit;"
    } | "$POSTGRES/psql" -X -q -v ON_ERROR_STOP=1 -d "$DATABASE_URL" >/dev/null || die "nothing was changed"
    # Statistics, and the pages that a list need not visit, are not in a backup.
    query "$DATABASE_URL" "vacuum (analyze) users, movies"
    say "brought back $(query "$DATABASE_URL" "select count(*) || ' users, ' || coalesce(sum(movie_count), 0) || ' movies' from users")"
}

# --- test --------------------------------------------------------------------------------------------------------------

# A cluster for the time of a test or a benchmark; DATA_DIR is then a folder that goes with it.
start_throwaway_cluster() {
    need_postgres
    DATA_DIR=$(mktemp -d /tmp/movies-api-test.XXXXXX)
    choose_owner
    make_cluster "$DATA_DIR/database/cluster"
    start_cluster "$DATA_DIR/database/cluster" "max_connections = 300
$1"
    TEST_DATABASE_URL=$(conninfo "$SOCKETS" postgres)
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
    python3 -m venv "$venv" 2>/dev/null || { install_packages python3-venv && python3 -m venv "$venv"; } ||
        die "python3 cannot make a virtual environment. Debian: 'apt-get install python3-venv'"
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
    env "$@" DATABASE_URL="$(conninfo "$SOCKETS" "$name")" "$BINARY" 2>"$log" &
    SERVER=$!
    BASE=''
    for _ in $(seq 100); do
        BASE=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$log")
        [ -z "$BASE" ] || return 0
        kill -0 "$SERVER" 2>/dev/null || break
        sleep 0.1
    done
    die "the service does not start: $(tail -n 1 "$log")"
}

stop_test_server() {
    kill "$SERVER"
    wait "$SERVER" || true
    SERVER=''
}

# The suite as a user runs it, against a service with default settings: see "Developing" in README.md. CI runs it in a new
# virtual environment on port 8000, exactly as the README says; elsewhere that port may be in use, so any free one is taken.
test_service() {
    local log=$DATA_DIR/service.log venv=$ROOT/target/service-venv port=0 status=0 movies
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
    movies=$(query "$(conninfo "$SOCKETS" service)" "select count(*) from movies")
    if [ "$movies" != 0 ]; then
        say "the suite left $movies movies"
        status=1
    fi
    say "the suite left $(query "$(conninfo "$SOCKETS" service)" "select count(*) from users") users"
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
    build
    PASSED=0 FAILED=0 SKIPPED=0 STAGES=''
    command -v python3 >/dev/null || die "python3 is missing"
    # The README's tour is run as written.
    command -v curl >/dev/null || install_packages curl || die "curl is missing. Debian: 'apt-get install curl'"
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
    command -v wrk >/dev/null || install_packages wrk ||
        die "wrk, the load generator, is missing. Debian: 'apt-get install wrk'; macOS: 'brew install wrk'"
    build
    local bench=$ROOT/target/bench
    (cd "$ROOT/tests/bench" && cargo build --release --locked --quiet --target-dir "$bench") || die "the build failed"
    case " $* " in *" --help "*) exec "$bench/release/movies-bench" "$@" ;; esac
    trap 'exit 143' INT TERM HUP
    trap end_throwaway_cluster EXIT
    # Nothing tidies up while a route is measured: the bench does it in between. What autovacuum does is measured too: for
    # that the bench turns it on, with the interval that `serve` gives a cluster of its own.
    start_throwaway_cluster "shared_preload_libraries = 'pg_stat_statements'
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 1h
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
    local command=${1:-serve}
    [ "$#" = 0 ] || shift
    case $command in
        serve) serve ;;
        test) run_tests "$@" ;;
        bench) run_bench "$@" ;;
        stop) stop ;;
        backup)
            [ "$#" = 1 ] || misused
            backup "$1"
            ;;
        restore)
            [ "${1:-}" = --replace ] || set -- '' "$@"
            [ "$#" = 2 ] || misused
            restore "$@"
            ;;
        help | -h | --help) usage ;;
        *) misused ;;
    esac
}

main "$@"
