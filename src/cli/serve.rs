//! `serve`: migrates the database and runs the HTTP server until a signal stops it.
use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::args::EffectiveSetting;
use super::common::CONNECT_TIMEOUT;
use super::token::make_keys;
use crate::api::{self, AppState};
use crate::auth::bcrypt_cost::check_cost;
use crate::auth::password::{Hasher, HashingOptions};
use crate::auth::throttle::Throttle;
use crate::config::Settings;
use crate::db::{self, Database, MAX_BATCH, Options, Timeouts};
use crate::http::{self, ClassLimits, Limits, Server, ShutdownHandle};
use crate::telemetry::logging;

/// Heavy requests may use one in this many connections of the pool at once, so that other requests soon find a free
/// one. Measured on two cores with a pool of 32: eight searches at once complete faster than sixteen, and than four.
const HEAVY_SHARE: u32 = 4;

/// Serves until SIGTERM or SIGINT. A second signal ends the process at once.
pub fn serve(
    settings: Settings,
    effective_settings: &[EffectiveSetting],
    warnings: &[String],
) -> anyhow::Result<()> {
    check_cost(settings.passwords.bcrypt_cost)?;
    logging::start(settings.log_level.clone(), settings.log_format)
        .context("the log cannot be started")?;
    log::info!("movies-api {} starts", env!("CARGO_PKG_VERSION"));
    for setting in effective_settings {
        log::info!("{}={} ({})", setting.name, setting.value, setting.source);
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    // Set once the server listens. Until then nothing has to be drained.
    let shutdown_handle: Arc<OnceLock<ShutdownHandle>> = Arc::default();
    stop_on_signal(Arc::clone(&shutdown_handle))?;
    let limits = make_limits(&settings)?;
    let app = Arc::new(open_app(&settings, MAX_BATCH)?);
    let visibility = settings.movies_visibility;
    let handler_app = Arc::clone(&app);
    let server = Server::bind(
        settings.bind,
        limits,
        move |request| api::classify(request, visibility),
        move |request, deadline| api::handle(request, &handler_app, deadline),
    )
    .with_context(|| format!("cannot listen on BIND={}", settings.bind))?;
    let origins = settings.cors_origins.clone();
    server.set_error_renderer(move |error, lookup| api::render_http_error(error, lookup, &origins));
    app.server_stats.get_or_init(|| server.stats());
    drop(app);
    log::info!("listening on http://{}", server.local_address());
    shutdown_handle.get_or_init(|| server.shutdown_handle());
    server.run().context("the server failed")?;
    log::info!("stopped");
    Ok(())
}

/// Starts the thread that stops the server at the first SIGTERM or SIGINT.
fn stop_on_signal(shutdown_handle: Arc<OnceLock<ShutdownHandle>>) -> io::Result<()> {
    // The signal handler itself ends the process at the second signal, even if every thread is stuck.
    let is_stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_stopping))?;
        flag::register(signal, Arc::clone(&is_stopping))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stop_at_first = move || {
        if signals.forever().next().is_none() {
            return;
        }
        log::info!("stopping");
        match shutdown_handle.get() {
            Some(handle) => handle.shut_down(),
            // The process still waits for its database, or for another instance's migrations.
            None => process::exit(0),
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(stop_at_first)?;
    Ok(())
}

/// The server's limits for these settings, with warnings for settings that do not fit together. Raises the process's
/// limit of open files.
fn make_limits(settings: &Settings) -> anyhow::Result<Limits> {
    let allowed = http::raise_open_file_limit(settings.db_pool_size.into())
        .context("the limit of open files cannot be raised")?;
    let connections = match settings.max_connections {
        Some(max_connections) => usize::try_from(max_connections)?,
        None => allowed,
    };
    if connections > allowed {
        log::warn!(
            "MAX_CONNECTIONS={connections} exceeds the {allowed} connections that the limit of open files allows: \
             raise the limit (LimitNOFILE, ulimit -n) or lower MAX_CONNECTIONS"
        );
    }
    if settings.db_pool_size >= settings.workers {
        log::warn!(
            "DB_POOL_SIZE={} is not less than WORKERS={}: a database that does not respond can block every worker",
            settings.db_pool_size,
            settings.workers
        );
    }
    let defaults = Limits::for_workers(usize::try_from(settings.workers)?);
    Ok(Limits {
        heavy: ClassLimits {
            max_in_flight: usize::try_from(settings.db_pool_size / HEAVY_SHARE)?.max(1),
            ..defaults.heavy
        },
        max_connections: connections,
        idle_timeout: settings.idle_timeout,
        ..defaults
    })
}

/// Migrates and opens the database, and makes the state that all handlers share. At most `max_batch` requests are
/// combined into one statement.
///
/// # Errors
/// If the database cannot be reached in time or rejects the migrations, or the system has no randomness.
pub fn open_app(settings: &Settings, max_batch: usize) -> anyhow::Result<AppState> {
    let connection = settings.database.database_url.clone();
    db::migrate(&connection, CONNECT_TIMEOUT)?;
    let database = Database::open(Options {
        connection,
        pool_size: settings.db_pool_size,
        timeouts: Timeouts {
            checkout: Duration::from_secs(3),
            statement: Duration::from_secs(5),
            lock: Duration::from_secs(1),
        },
        max_batch,
    });
    database.start_deletions()?;
    Ok(AppState {
        readiness: database.start_checks()?,
        database,
        token_keys: make_keys(&settings.tokens),
        hasher: Hasher::new(HashingOptions {
            bcrypt_cost: settings.passwords.bcrypt_cost,
            // An eighth of the workers stays free for other requests, however many sign-ins wait for a core.
            max_waiting: usize::try_from(settings.workers)? * 7 / 8,
        }),
        visibility: settings.movies_visibility,
        trusted_proxies: settings.trusted_proxies.clone(),
        account_failures: Throttle::new(settings.login_failures, settings.login_cooldown),
        address_failures: Throttle::per_hour(settings.login_failures_per_hour),
        registrations: Throttle::per_hour(settings.registrations_per_hour),
        next_request_id: AtomicU64::new(getrandom::u64()?),
        cors_origins: settings.cors_origins.clone(),
        server_timing: settings.server_timing,
        server_stats: OnceLock::new(),
    })
}
