//! Admission of requests to handlers: permits, the waiting lines of the classes, load shedding, and the limit on recent
//! starts. Does not depend on what a connection is.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rouille::Request;

use super::limits::{Class, ClassLimits, Limits};
use super::stats::{Stats, set_gauge};

/// A complete request that waits for a permit or has one. It owns the connection on which the response is sent.
pub struct PendingRequest<C> {
    pub connection: C,
    pub request: Request,
    /// When the request was complete.
    pub received: Instant,
    /// Any class but [`Class::Immediate`].
    pub class: Class,
    /// The client sent the request before it had the response to the previous one (RFC 9112 9.3.2).
    pub is_pipelined: bool,
}

/// The right to run one handler. Must be given back by [`AdmissionQueue::release`].
pub struct Permit {
    class: Class,
    /// The slice of time in which the handler started. Of all classes but [`Class::Write`].
    start_slice: Option<u64>,
}

/// A request whose handler the caller must run now.
pub type Admitted<C> = (PendingRequest<C>, Permit);

/// What [`AdmissionQueue::admit`] decided.
pub enum Admission<C> {
    /// The caller runs a handler: that of its request, or of one that waited longer.
    Run(Admitted<C>),
    /// The request waits; a worker that is free takes it.
    Queued,
    /// Others of its class have waited too long already: the caller answers it 503.
    Shed(PendingRequest<C>),
}

/// Admits requests within the limits of all handlers and of their class. The others wait in the line of their class.
///
/// A worker that finishes a handler continues with the next request at once. Starting that one on another thread instead
/// would cost two switches between threads, and what handlers share (caches of the cores, processes of the database)
/// serves few at a time better than many. That is why the number of handlers that started within the last 5 to 10 ms is
/// limited, too. A handler that runs longer usually waits for something; it no longer counts, and others start beside
/// it.
///
/// Writes start at once, whatever the number of recent starts, and do not count among them: most of their time is the
/// wait for a commit, which all of them share. Measured with 32 clients on two cores: a third more creates a second.
pub struct AdmissionQueue<C> {
    max_recent_starts: usize,
    queue_timeout: Duration,
    stats: Arc<Stats>,
    /// Whether a request waits only for recent starts to become old. Written under the lock of `state`, read without it.
    /// All other requests wait for a handler's end, and the worker that ends it takes them.
    awaits_time: AtomicBool,
    /// No other lock is taken under this one.
    state: Mutex<State<C>>,
}

/// The number of handlers in flight and the waiting requests, by class. Of the classes that may start a handler, the one
/// whose first request has waited longest is next, so a full class does not delay others.
///
/// Pipelined requests wait in lines of their own, and start at most every other time while others wait: a client that
/// pipelines always has a request in line, and with two hundred such clients each request of another client would wait for
/// two hundred of theirs.
struct State<C> {
    window: StartWindow,
    max_in_flight: usize,
    /// The limit of `Write` and `SignIn` together. It leaves an eighth of the permits, and one if there are several, to
    /// reads.
    max_writes_and_sign_ins: usize,
    in_flight: usize,
    /// Whether the last request to start was pipelined.
    last_was_pipelined: bool,
    /// Of `Ordinary`, `Heavy`, `Write` and `SignIn`.
    lines: [Line<C>; 4],
}

/// One class. Both queues are in the order of arrival.
struct Line<C> {
    class: Class,
    limits: ClassLimits,
    in_flight: usize,
    waiting: VecDeque<PendingRequest<C>>,
    pipelined: VecDeque<PendingRequest<C>>,
}

impl<C> AdmissionQueue<C> {
    /// Creates an empty queue. Of the handlers that run, at most `max_recent_starts` started recently.
    pub fn new(limits: &Limits, max_recent_starts: usize, stats: Arc<Stats>) -> Self {
        AdmissionQueue {
            max_recent_starts,
            queue_timeout: limits.queue_timeout.min(limits.request_timeout),
            stats,
            awaits_time: AtomicBool::new(false),
            state: Mutex::new(State::new(limits)),
        }
    }

    /// Enqueues a request, and starts the one that is next.
    pub fn admit(&self, pending: PendingRequest<C>) -> Admission<C> {
        let mut state = self.state.lock();
        let now = pending.received;
        let line = state.line(pending.class);
        let shed_after = line.limits.shed_after;
        let queue = line.queue(pending.is_pipelined);
        if has_waited(queue, shed_after, now) {
            return Admission::Shed(pending);
        }
        queue.push_back(pending);
        match self.start_next(&mut state, now) {
            Some(admitted) => Admission::Run(admitted),
            None => Admission::Queued,
        }
    }

    /// Starts the next request, if one may start.
    pub fn try_start(&self, now: Instant) -> Option<Admitted<C>> {
        self.start_next(&mut self.state.lock(), now)
    }

    /// Takes back a permit, enqueues the following request of the same connection, if there is one, and starts the request
    /// that is next, if one may start.
    pub fn release(
        &self,
        permit: Permit,
        following: Option<PendingRequest<C>>,
        now: Instant,
    ) -> Option<Admitted<C>> {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.line(permit.class).in_flight -= 1;
        if let Some(slice) = permit.start_slice {
            state.window.remove(slice);
        }
        if let Some(pending) = following {
            let line = state.line(pending.class);
            line.queue(pending.is_pipelined).push_back(pending);
        }
        self.start_next(&mut state, now)
    }

    /// Whether a request waits only for time to pass, so that a thread has to call [`AdmissionQueue::try_start`] within
    /// [`SLICE`].
    pub fn awaits_time(&self) -> bool {
        self.awaits_time.load(Ordering::SeqCst)
    }

    /// Removes the requests that have waited too long. The caller answers them 503.
    pub fn shed(&self, now: Instant) -> Vec<PendingRequest<C>> {
        let mut state = self.state.lock();
        let mut shed = Vec::new();
        for line in &mut state.lines {
            for queue in [&mut line.waiting, &mut line.pipelined] {
                while has_waited(queue, self.queue_timeout, now) {
                    shed.extend(queue.pop_front());
                }
                if has_waited(queue, line.limits.shed_after, now) {
                    let kept = queue.len().div_ceil(2);
                    shed.extend(queue.drain(kept..));
                }
            }
        }
        self.publish(&state);
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.in_flight == 0 && state.waiting() == 0
    }

    fn start_next(&self, state: &mut State<C>, now: Instant) -> Option<Admitted<C>> {
        let only_writes = state.window.recent_starts(now) >= self.max_recent_starts;
        let started = state.start(only_writes);
        self.publish(state);
        started
    }

    fn publish(&self, state: &State<C>) {
        let has_startable = |is_pipelined| state.next_class(is_pipelined, false).is_some();
        let awaits_time = has_startable(false) || has_startable(true);
        if self.awaits_time.load(Ordering::Relaxed) != awaits_time {
            self.awaits_time.store(awaits_time, Ordering::SeqCst);
        }
        set_gauge(&self.stats.in_flight, state.in_flight);
        set_gauge(&self.stats.queued, state.waiting());
    }
}

impl<C> State<C> {
    fn new(limits: &Limits) -> Self {
        let max_in_flight = limits.workers.max(1);
        let classes = [
            (Class::Ordinary, limits.ordinary),
            (Class::Heavy, limits.heavy),
            (Class::Write, limits.write),
            (Class::SignIn, limits.sign_in),
        ];
        State {
            window: StartWindow::new(Instant::now()),
            max_in_flight,
            max_writes_and_sign_ins: (max_in_flight - (max_in_flight / 8).max(1)).max(1),
            in_flight: 0,
            last_was_pipelined: false,
            lines: classes.map(|(class, limits)| Line {
                class,
                limits,
                in_flight: 0,
                waiting: VecDeque::new(),
                pipelined: VecDeque::new(),
            }),
        }
    }

    /// Starts the next request, if one may start; only a write if `only_writes`.
    fn start(&mut self, only_writes: bool) -> Option<Admitted<C>> {
        let next = |is_pipelined| {
            let class = self.next_class(is_pipelined, only_writes)?;
            Some((class, is_pipelined))
        };
        let preferred = !self.last_was_pipelined;
        let (class, is_pipelined) = next(preferred).or_else(|| next(!preferred))?;
        let line = self.line(class);
        let pending = line.queue(is_pipelined).pop_front()?;
        line.in_flight += 1;
        self.in_flight += 1;
        self.last_was_pipelined = is_pipelined;
        let start_slice = (class != Class::Write).then(|| self.window.add());
        Some((pending, Permit { class, start_slice }))
    }

    /// Returns the class that may start a handler and whose first request has waited longest.
    fn next_class(&self, is_pipelined: bool, only_writes: bool) -> Option<Class> {
        if self.in_flight >= self.max_in_flight {
            return None;
        }
        let [_, _, write, sign_in] = &self.lines;
        let may_change = write.in_flight + sign_in.in_flight < self.max_writes_and_sign_ins;
        let may_start = |line: &&Line<C>| {
            line.in_flight < line.limits.max_in_flight.max(1)
                && (line.class == Class::Write || !only_writes)
                && (may_change || !matches!(line.class, Class::Write | Class::SignIn))
        };
        let startable = self.lines.iter().filter(may_start);
        let with_arrival = startable.filter_map(|line| {
            let queue = match is_pipelined {
                true => &line.pipelined,
                false => &line.waiting,
            };
            Some((line.class, queue.front()?.received))
        });
        let first = with_arrival.min_by_key(|(_, received)| *received);
        first.map(|(class, _)| class)
    }

    fn waiting(&self) -> usize {
        let waiting = |line: &Line<C>| line.waiting.len() + line.pipelined.len();
        self.lines.iter().map(waiting).sum()
    }

    fn line(&mut self, class: Class) -> &mut Line<C> {
        let [ordinary, heavy, write, sign_in] = &mut self.lines;
        match class {
            Class::Immediate | Class::Ordinary => ordinary,
            Class::Heavy => heavy,
            Class::Write => write,
            Class::SignIn => sign_in,
        }
    }
}

impl<C> Line<C> {
    fn queue(&mut self, is_pipelined: bool) -> &mut VecDeque<PendingRequest<C>> {
        match is_pipelined {
            true => &mut self.pipelined,
            false => &mut self.waiting,
        }
    }
}

/// Whether the first request has waited longer than `wait`.
fn has_waited<C>(queue: &VecDeque<PendingRequest<C>>, wait: Duration, now: Instant) -> bool {
    let first = queue.front();
    first.is_some_and(|first| now.saturating_duration_since(first.received) > wait)
}

/// The unit of the age of handlers. A start is recent during its own slice of time and the next one.
pub const SLICE: Duration = Duration::from_millis(5);

/// Counts the running handlers that started recently.
struct StartWindow {
    /// Of those that started in the current slice and in the one before, how many still run.
    running: [usize; 2],
    slice: u64,
    slice_start: Instant,
}

impl StartWindow {
    fn new(now: Instant) -> StartWindow {
        StartWindow {
            running: [0, 0],
            slice: 0,
            slice_start: now,
        }
    }

    fn recent_starts(&mut self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.slice_start);
        if elapsed >= SLICE {
            let [current, _] = self.running;
            let is_next = elapsed < 2 * SLICE;
            self.running = [0, if is_next { current } else { 0 }];
            self.slice += if is_next { 1 } else { 2 };
            self.slice_start = now;
        }
        self.running.iter().sum()
    }

    /// Returns the slice in which the handler starts.
    fn add(&mut self) -> u64 {
        self.running[0] += 1;
        self.slice
    }

    fn remove(&mut self, start_slice: u64) {
        match self.slice - start_slice {
            0 => self.running[0] -= 1,
            1 => self.running[1] -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHED_AFTER: Duration = Duration::from_secs(1);

    /// Returns a queue, and the start of its first slice. The connection of a request is its number.
    fn make_queue(limits: Limits, max_recent_starts: usize) -> (AdmissionQueue<u64>, Instant) {
        let queue = AdmissionQueue::new(&limits, max_recent_starts, Arc::default());
        let began = Instant::now();
        queue.state.lock().window = StartWindow::new(began);
        (queue, began)
    }

    fn limits(workers: usize, max_heavy: usize) -> Limits {
        let mut limits = Limits::for_workers(workers);
        limits.heavy.max_in_flight = max_heavy;
        limits
    }

    fn pending(number: u64, received: Instant, class: Class) -> PendingRequest<u64> {
        let peer = ([127, 0, 0, 1], 1).into();
        PendingRequest {
            connection: number,
            request: Request::fake_http_from(peer, "GET", "/", vec![], vec![]),
            received,
            class,
            is_pipelined: false,
        }
    }

    fn pipelined(number: u64, received: Instant) -> PendingRequest<u64> {
        PendingRequest {
            is_pipelined: true,
            ..pending(number, received, Class::Ordinary)
        }
    }

    /// Returns the number of the request that starts, if one does.
    fn admit(queue: &AdmissionQueue<u64>, number: u64, received: Instant) -> Option<(u64, Permit)> {
        admit_as(Class::Ordinary, queue, number, received)
    }

    fn admit_as(
        class: Class,
        queue: &AdmissionQueue<u64>,
        number: u64,
        received: Instant,
    ) -> Option<(u64, Permit)> {
        match queue.admit(pending(number, received, class)) {
            Admission::Run((pending, permit)) => Some((pending.connection, permit)),
            Admission::Queued => None,
            Admission::Shed(_) => panic!("{number} was shed"),
        }
    }

    fn number(admitted: Option<Admitted<u64>>) -> Option<u64> {
        admitted.map(|(pending, _)| pending.connection)
    }

    fn shed(queue: &AdmissionQueue<u64>, now: Instant) -> Vec<u64> {
        let shed = queue.shed(now);
        shed.iter().map(|pending| pending.connection).collect()
    }

    #[test]
    fn request_beyond_recent_starts_waits_for_a_recent_handler_to_end() {
        let (queue, began) = make_queue(limits(4, 4), 2);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        assert!(queue.awaits_time());
        assert!(number(queue.try_start(began)).is_none());
        assert_eq!(number(queue.release(permit, None, began)), Some(3));
        assert!(!queue.awaits_time());
    }

    #[test]
    fn handlers_that_prove_slow_make_room_until_the_permits_are_gone() {
        let (queue, began) = make_queue(limits(3, 3), 2);
        assert!(admit(&queue, 1, began).is_some() && admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        // Still recent, though of the slice before.
        assert!(admit(&queue, 4, began + SLICE).is_none());
        // The one that waited longest begins.
        assert_eq!(admit(&queue, 5, began + 2 * SLICE).unwrap().0, 3);
        assert!(admit(&queue, 6, began + 5 * SLICE).is_none());
        // No thread has to look before a handler ends.
        assert!(!queue.awaits_time());
    }

    #[test]
    fn writes_ignore_the_limit_on_recent_starts_and_do_not_count() {
        let (queue, began) = make_queue(limits(8, 8), 1);
        assert!(admit_as(Class::Write, &queue, 1, began).is_some());
        assert_eq!(admit(&queue, 2, began).unwrap().0, 2);
        assert!(admit(&queue, 3, began).is_none());
        assert_eq!(admit_as(Class::Write, &queue, 4, began).unwrap().0, 4);
    }

    #[test]
    fn end_of_an_old_handler_starts_none_while_recent_starts_are_at_their_limit() {
        let (queue, began) = make_queue(limits(4, 4), 1);
        let (_, slow) = admit(&queue, 1, began).unwrap();
        let later = began + 3 * SLICE;
        let (_, recent) = admit(&queue, 2, later).unwrap();
        assert!(admit(&queue, 3, later).is_none());
        assert!(number(queue.release(slow, None, later)).is_none());
        assert!(queue.awaits_time());
        assert_eq!(number(queue.release(recent, None, later)), Some(3));
    }

    #[test]
    fn next_request_of_a_connection_queues_behind_those_of_others() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        let ahead = pending(1, began, Class::Ordinary);
        assert_eq!(number(queue.release(permit, Some(ahead), began)), Some(2));
    }

    #[test]
    fn pipelined_requests_start_every_other_time_while_others_wait() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        let (_, mut permit) = admit(&queue, 1, began).unwrap();
        for number in 10..16 {
            let admission = queue.admit(pipelined(number, began));
            assert!(matches!(admission, Admission::Queued));
        }
        for number in 2..5 {
            assert!(admit(&queue, number, began).is_none());
        }
        let mut begun = Vec::new();
        while let Some((pending, next)) = queue.release(permit, None, began) {
            begun.push(pending.connection);
            permit = next;
        }
        assert_eq!(begun, [10, 2, 11, 3, 12, 4, 13, 14, 15]);
    }

    #[test]
    fn full_class_does_not_delay_other_classes() {
        for class in [Class::Heavy, Class::Write, Class::SignIn] {
            let (queue, began) = make_queue(limits(8, 3), 8);
            let max = match class {
                Class::Write => 4,
                _ => 3,
            };
            let permits: Vec<_> = (0..max)
                .map(|number| admit_as(class, &queue, number, began).unwrap().1)
                .collect();
            // However long they run.
            let later = began + 9 * SLICE;
            assert!(admit_as(class, &queue, 10, later).is_none());
            assert!(admit_as(class, &queue, 11, later).is_none());
            assert!(!queue.awaits_time(), "{class:?}");
            let (passing, permit) = admit(&queue, 12, later).unwrap();
            assert_eq!(passing, 12, "{class:?}");
            assert!(number(queue.release(permit, None, later)).is_none());
            let ends = permits
                .into_iter()
                .map(|permit| queue.release(permit, None, later));
            let begun: Vec<_> = ends.filter_map(number).collect();
            assert_eq!(begun, [10, 11], "{class:?}");
        }
    }

    #[test]
    fn stuck_writes_and_sign_ins_leave_an_eighth_of_the_permits_to_reads() {
        for workers in [2, 3, 8, 9, 16, 96, 1024] {
            let (queue, began) = make_queue(limits(workers, 1), 2 * workers);
            let mut held = Vec::new();
            for number in 0..1024 {
                held.extend(admit_as(Class::Write, &queue, number, began));
                held.extend(admit_as(Class::SignIn, &queue, number, began));
            }
            let left = workers - held.len();
            assert!(left >= 1 && left * 8 >= workers, "{left} of {workers}");
            for number in 0..left {
                let number = u64::try_from(number).unwrap();
                assert!(admit(&queue, number, began).is_some());
            }
            assert!(admit(&queue, 0, began).is_none());
        }
    }

    #[test]
    fn of_several_startable_classes_the_oldest_request_starts() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_as(Class::Heavy, &queue, 2, moment(1)).is_none());
        assert!(admit_as(Class::SignIn, &queue, 3, moment(2)).is_none());
        assert!(admit(&queue, 4, moment(3)).is_none());
        assert!(admit_as(Class::Write, &queue, 5, moment(4)).is_none());
        let mut permit = Some(permit);
        let mut begun = Vec::new();
        while let Some(ended) = permit.take() {
            if let Some((pending, next)) = queue.release(ended, None, moment(5)) {
                begun.push(pending.connection);
                permit = Some(next);
            }
        }
        assert_eq!(begun, [2, 3, 4, 5]);
    }

    #[test]
    fn only_the_class_whose_requests_wait_too_long_is_shed() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        assert!(admit_as(Class::Heavy, &queue, 3, began).is_none());
        let late = began + SHED_AFTER + SLICE;
        assert!(admit(&queue, 4, late).is_none());
        let new = queue.admit(pending(5, late, Class::Heavy));
        assert!(matches!(new, Admission::Shed(_)));
        assert_eq!(shed(&queue, late), [3]);
    }

    #[test]
    fn sign_ins_are_shed_after_four_seconds_and_expire_after_five() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::SignIn, &queue, 2, began).is_none());
        assert!(admit_as(Class::SignIn, &queue, 3, began).is_none());
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_as(Class::SignIn, &queue, 4, moment(3_990)).is_none());
        assert!(shed(&queue, moment(4_000)).is_empty());
        assert_eq!(shed(&queue, moment(4_010)), [4]);
        assert_eq!(shed(&queue, moment(5_010)), [2, 3]);
    }
}
