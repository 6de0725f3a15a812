//! HTTP and threads: takes an address and a handler, and knows nothing of movies. Behind this one function stands
//! rouille's own server.
use std::error::Error;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rouille::{Request, Response};

/// How often the server looks whether it is to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

/// How long requests in flight may take after the stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// Serves `handler` on `address` with this many threads until `stop` is set. `listening` is told the address, with
/// the port that the system chose for port 0.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(
    address: SocketAddr,
    workers: usize,
    stop: &AtomicBool,
    listening: impl FnOnce(SocketAddr),
    handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let handler = move |request: &Request| {
        // A panic costs its own request, and is told in JSON.
        catch_unwind(AssertUnwindSafe(|| handler(request))).unwrap_or_else(|_| {
            log::error!("a handler panicked");
            let body = r#"{"detail":"Internal server error."}"#;
            Response::from_data("application/json", body).with_status_code(500)
        })
    };
    let server = rouille::Server::new(address, handler)?.pool_size(workers);
    listening(server.server_addr());
    while !stop.load(Ordering::Relaxed) {
        server.poll_timeout(STOP_INTERVAL);
    }
    // rouille joins its threads without a deadline, and an idle connection may hold one of them.
    let server = Arc::new(server);
    let draining = Arc::clone(&server);
    let (done, drained) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        draining.join();
        _ = done.send(());
    });
    _ = drained.recv_timeout(DRAIN_DEADLINE);
    Ok(())
}
