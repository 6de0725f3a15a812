//! `serve`: the database (migrated), the server, until a signal ends it.
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::{BadSetting, START_DEADLINE, make_keys};
use crate::api::{self, App};
use crate::auth::bcrypt_cost::check_cost;
use crate::auth::password::{Cost, Hasher};
use crate::auth::throttle::Throttle;
use crate::cli::command_line::InForce;
use crate::config::Settings;
use crate::db::{self, MAX_BATCH, Options, Store, Timeouts};
use crate::http::{self, ClassLimits, Limits, Server, ShutdownHandle};
use crate::telemetry::logging;

/// Heavy requests have this part of the pool's connections at the most, so that all others soon find one: a fourth.
/// Measured on two cores, eight searches at once are answered faster than sixteen, and than four.
const HEAVY_SHARE: u32 = 4;

/// Serves until SIGTERM or SIGINT; a second one ends the process at once.
pub fn serve(settings: Settings, in_force: &[InForce], warnings: &[String]) -> anyhow::Result<()> {
    check_cost(settings.passwords.bcrypt_cost).map_err(BadSetting)?;
    logging::start(settings.log_level.clone(), settings.log_format).context("the log")?;
    log::info!("movies-api {} starts", env!("CARGO_PKG_VERSION"));
    for setting in in_force {
        log::info!("{}={} ({})", setting.name, setting.value, setting.source);
    }
    for warning in warnings {
        log::warn!("{warning}");
    }
    // A second signal ends the process at once; the first one is told to the server once there is one.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stopper: Arc<OnceLock<ShutdownHandle>> = Arc::default();
    let told = Arc::clone(&stopper);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_none() {
                return;
            }
            log::info!("stopping");
            match told.get() {
                Some(stopper) => stopper.shut_down(),
                // It waits for its database, or for another instance's migrations: nothing has to be finished.
                None => process::exit(0),
            }
        })?;
    let workers = usize::try_from(settings.workers)?;
    let fitting = http::raise_open_file_limit(settings.db_pool_size.into())?;
    let connections = match settings.max_connections {
        Some(wanted) => usize::try_from(wanted)?,
        None => fitting,
    };
    if connections > fitting {
        log::warn!("MAX_CONNECTIONS={connections}, but the limit of open files leaves {fitting}");
    }
    if settings.db_pool_size >= settings.workers {
        log::warn!(
            "DB_POOL_SIZE is not below WORKERS: a database that hangs can hold every worker"
        );
    }
    let app = Arc::new(open_app(&settings, MAX_BATCH)?);
    let defaults = Limits::for_workers(workers);
    let limits = Limits {
        heavy: ClassLimits {
            max_in_flight: usize::try_from(settings.db_pool_size / HEAVY_SHARE)?.max(1),
            ..defaults.heavy
        },
        max_connections: connections,
        idle_timeout: settings.idle_timeout,
        ..defaults
    };
    let visibility = settings.movies_visibility;
    let handled = Arc::clone(&app);
    let server = Server::bind(
        settings.bind,
        limits,
        move |request| api::classify(request, visibility),
        move |request, deadline| api::handle(request, &handled, deadline),
    )
    .with_context(|| format!("listening on {}", settings.bind))?;
    let origins = settings.cors_origins.clone();
    server.set_error_renderer(move |error, lookup| api::render_http_error(error, lookup, &origins));
    app.counters.get_or_init(|| server.stats());
    drop(app);
    log::info!("listening on http://{}", server.local_address());
    stopper.get_or_init(|| server.shutdown_handle());
    server.run().context("serving")?;
    log::info!("stopped");
    Ok(())
}

/// What the handlers share, with the database reached and migrated. A statement answers at most so many requests.
///
/// # Errors
/// If the database does not answer in time or refuses, or the system gives no randomness.
pub fn open_app(settings: &Settings, max_batch: usize) -> anyhow::Result<App> {
    let database = settings.database.database_url.clone();
    db::migrate(&database, START_DEADLINE)?;
    let store = Store::open(Options {
        database,
        pool_size: settings.db_pool_size,
        timeouts: Timeouts {
            checkout: Duration::from_secs(3),
            statement: Duration::from_secs(5),
            lock: Duration::from_secs(1),
        },
        max_batch,
    });
    Ok(App {
        readiness: store.start_checks()?,
        store,
        keys: make_keys(&settings.tokens),
        hasher: Hasher::new(Cost {
            rounds_log2: settings.passwords.bcrypt_cost,
            // Some workers are left for readers however many sign in at once.
            waiting_limit: usize::try_from(settings.workers)? * 7 / 8,
        }),
        visibility: settings.movies_visibility,
        trusted_proxies: settings.trusted_proxies.clone(),
        account_failures: Throttle::new(settings.login_failures, settings.login_wait),
        address_failures: Throttle::each_hour(settings.login_failures_per_hour),
        registrations: Throttle::each_hour(settings.registrations_per_hour),
        request_ids: AtomicU64::new(getrandom::u64()?),
        cors_origins: settings.cors_origins.clone(),
        server_timing: settings.server_timing,
        counters: OnceLock::new(),
    })
}
