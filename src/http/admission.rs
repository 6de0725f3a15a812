//! Admission of requests to handlers: permits, the waiting lines of the classes, and load shedding. Does not depend on what
//! a connection is.
use std::collections::VecDeque;
use std::sync::Arc;
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

/// Pipelined requests may have one of this many permits. Measured on two cores beside 200 clients that pipeline reads: the
/// median of another client's read is 0.4 ms, and 1.4 ms without this limit.
const PIPELINED_SHARE: usize = 8;

/// The right to run one handler. Must be given back by [`AdmissionQueue::release`].
pub struct Permit {
    class: Class,
    is_pipelined: bool,
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
/// would cost two switches between threads. So each request waits for the end of a handler, and is started by the worker
/// that ran it.
pub struct AdmissionQueue<C> {
    queue_timeout: Duration,
    stats: Arc<Stats>,
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
    max_in_flight: usize,
    /// The limit of `Write` and `SignIn` together. It leaves an eighth of the permits, and one if there are several, to
    /// reads.
    max_writes_and_sign_ins: usize,
    in_flight: usize,
    /// The limit of pipelined requests, whatever their class.
    max_pipelined_in_flight: usize,
    pipelined_in_flight: usize,
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
    /// Creates an empty queue.
    pub fn new(limits: &Limits, stats: Arc<Stats>) -> Self {
        AdmissionQueue {
            queue_timeout: limits.queue_timeout.min(limits.request_timeout),
            stats,
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
        match self.start_next(&mut state) {
            Some(admitted) => Admission::Run(admitted),
            None => Admission::Queued,
        }
    }

    /// Takes back a permit, enqueues the following request of the same connection, if there is one, and starts the request
    /// that is next, if one may start. If the result's second part is true, one more may start: another thread has to call
    /// [`AdmissionQueue::try_start`].
    pub fn release(
        &self,
        permit: Permit,
        following: Option<PendingRequest<C>>,
    ) -> (Option<Admitted<C>>, bool) {
        let Permit {
            class,
            is_pipelined,
        } = permit;
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.line(class).in_flight -= 1;
        state.pipelined_in_flight -= usize::from(is_pipelined);
        // Otherwise each waiting request waits for something of which the permit gave back one, and the next takes it.
        let may_leave_another = following.is_some() || is_pipelined;
        if let Some(pending) = following {
            let line = state.line(pending.class);
            line.queue(pending.is_pipelined).push_back(pending);
        }
        let started = self.start_next(&mut state);
        (started, may_leave_another && state.has_startable())
    }

    /// Starts the next request, if one may start. The result is that of [`AdmissionQueue::release`].
    pub fn try_start(&self) -> (Option<Admitted<C>>, bool) {
        let mut state = self.state.lock();
        (self.start_next(&mut state), state.has_startable())
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

    fn start_next(&self, state: &mut State<C>) -> Option<Admitted<C>> {
        let started = state.start();
        self.publish(state);
        started
    }

    fn publish(&self, state: &State<C>) {
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
            max_in_flight,
            max_writes_and_sign_ins: (max_in_flight - (max_in_flight / 8).max(1)).max(1),
            in_flight: 0,
            max_pipelined_in_flight: (max_in_flight / PIPELINED_SHARE).max(1),
            pipelined_in_flight: 0,
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

    /// Whether a request waits whose class may start a handler.
    fn has_startable(&self) -> bool {
        self.next_class(false).is_some() || self.next_class(true).is_some()
    }

    /// Starts the next request, if one may start.
    fn start(&mut self) -> Option<Admitted<C>> {
        let next = |is_pipelined| Some((self.next_class(is_pipelined)?, is_pipelined));
        let preferred = !self.last_was_pipelined;
        let (class, is_pipelined) = next(preferred).or_else(|| next(!preferred))?;
        let line = self.line(class);
        let pending = line.queue(is_pipelined).pop_front()?;
        line.in_flight += 1;
        self.in_flight += 1;
        self.pipelined_in_flight += usize::from(is_pipelined);
        self.last_was_pipelined = is_pipelined;
        let permit = Permit {
            class,
            is_pipelined,
        };
        Some((pending, permit))
    }

    /// Returns the class that may start a handler and whose first request has waited longest.
    fn next_class(&self, is_pipelined: bool) -> Option<Class> {
        let is_full = self.in_flight >= self.max_in_flight;
        if is_full || is_pipelined && self.pipelined_in_flight >= self.max_pipelined_in_flight {
            return None;
        }
        let [_, _, write, sign_in] = &self.lines;
        let may_change = write.in_flight + sign_in.in_flight < self.max_writes_and_sign_ins;
        let may_start = |line: &&Line<C>| {
            line.in_flight < line.limits.max_in_flight.max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHED_AFTER: Duration = Duration::from_secs(1);

    /// Returns a queue and a moment. The connection of a request is its number.
    fn make_queue(limits: Limits) -> (AdmissionQueue<u64>, Instant) {
        (AdmissionQueue::new(&limits, Arc::default()), Instant::now())
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
    fn next_request_of_a_connection_queues_behind_those_of_others() {
        let (queue, began) = make_queue(limits(1, 1));
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        let ahead = pending(1, began, Class::Ordinary);
        let (started, may_start_more) = queue.release(permit, Some(ahead));
        assert_eq!(number(started), Some(2));
        assert!(!may_start_more);
    }

    #[test]
    fn next_request_of_a_connection_may_start_beside_the_one_that_its_handler_let_in() {
        let (queue, began) = make_queue(limits(4, 1));
        let (_, permit) = admit_as(Class::Heavy, &queue, 1, began).unwrap();
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        let ahead = pending(1, began + Duration::from_millis(1), Class::Ordinary);
        let (started, may_start_more) = queue.release(permit, Some(ahead));
        assert_eq!(number(started), Some(2));
        assert!(may_start_more);
        let (started, may_start_more) = queue.try_start();
        assert_eq!(number(started), Some(1));
        assert!(!may_start_more);
    }

    #[test]
    fn pipelined_requests_start_every_other_time_while_others_wait() {
        let (queue, began) = make_queue(limits(1, 1));
        let (_, mut permit) = admit(&queue, 1, began).unwrap();
        for number in 10..16 {
            let admission = queue.admit(pipelined(number, began));
            assert!(matches!(admission, Admission::Queued));
        }
        for number in 2..5 {
            assert!(admit(&queue, number, began).is_none());
        }
        let mut begun = Vec::new();
        while let Some((pending, next)) = queue.release(permit, None).0 {
            begun.push(pending.connection);
            permit = next;
        }
        assert_eq!(begun, [10, 2, 11, 3, 12, 4, 13, 14, 15]);
    }

    #[test]
    fn pipelined_requests_have_at_most_an_eighth_of_the_permits() {
        let (queue, began) = make_queue(limits(16, 16));
        let admit_pipelined = |number| match queue.admit(pipelined(number, began)) {
            Admission::Run((_, permit)) => Some(permit),
            _ => None,
        };
        let permits = [1, 2].map(|number| admit_pipelined(number).unwrap());
        assert!(admit_pipelined(3).is_none());
        assert!(admit_pipelined(4).is_none());
        assert!(admit(&queue, 5, began).is_some());
        let next = permits.map(|permit| number(queue.release(permit, None).0));
        assert_eq!(next, [Some(3), Some(4)]);
    }

    #[test]
    fn pipelined_request_may_start_beside_the_one_that_another_pipelined_let_in() {
        let (queue, began) = make_queue(limits(8, 1));
        let mut first = pipelined(1, began);
        first.class = Class::Heavy;
        let Admission::Run((_, permit)) = queue.admit(first) else {
            panic!("the first was not started");
        };
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        assert!(matches!(
            queue.admit(pipelined(3, began)),
            Admission::Queued
        ));
        let (started, may_start_more) = queue.release(permit, None);
        assert_eq!(number(started), Some(2));
        assert!(may_start_more);
        assert_eq!(number(queue.try_start().0), Some(3));
    }

    #[test]
    fn full_class_does_not_delay_other_classes() {
        for class in [Class::Heavy, Class::Write, Class::SignIn] {
            let (queue, began) = make_queue(limits(8, 3));
            let max = match class {
                Class::Write => 4,
                _ => 3,
            };
            let permits: Vec<_> = (0..max)
                .map(|number| admit_as(class, &queue, number, began).unwrap().1)
                .collect();
            // However long they run.
            let later = began + Duration::from_millis(45);
            assert!(admit_as(class, &queue, 10, later).is_none());
            assert!(admit_as(class, &queue, 11, later).is_none());
            let (passing, permit) = admit(&queue, 12, later).unwrap();
            assert_eq!(passing, 12, "{class:?}");
            assert!(number(queue.release(permit, None).0).is_none());
            let ends = permits
                .into_iter()
                .map(|permit| queue.release(permit, None).0);
            let begun: Vec<_> = ends.filter_map(number).collect();
            assert_eq!(begun, [10, 11], "{class:?}");
        }
    }

    #[test]
    fn stuck_writes_and_sign_ins_leave_an_eighth_of_the_permits_to_reads() {
        for workers in [2, 3, 8, 9, 16, 96, 1024] {
            let (queue, began) = make_queue(limits(workers, 1));
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
        let (queue, began) = make_queue(limits(1, 1));
        let (_, permit) = admit(&queue, 1, began).unwrap();
        let moment = |milliseconds| began + Duration::from_millis(milliseconds);
        assert!(admit_as(Class::Heavy, &queue, 2, moment(1)).is_none());
        assert!(admit_as(Class::SignIn, &queue, 3, moment(2)).is_none());
        assert!(admit(&queue, 4, moment(3)).is_none());
        assert!(admit_as(Class::Write, &queue, 5, moment(4)).is_none());
        let mut permit = Some(permit);
        let mut begun = Vec::new();
        while let Some(ended) = permit.take() {
            if let Some((pending, next)) = queue.release(ended, None).0 {
                begun.push(pending.connection);
                permit = Some(next);
            }
        }
        assert_eq!(begun, [2, 3, 4, 5]);
    }

    #[test]
    fn only_the_class_whose_requests_wait_too_long_is_shed() {
        let (queue, began) = make_queue(limits(1, 1));
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        assert!(admit_as(Class::Heavy, &queue, 3, began).is_none());
        let late = began + SHED_AFTER + Duration::from_millis(5);
        assert!(admit(&queue, 4, late).is_none());
        let new = queue.admit(pending(5, late, Class::Heavy));
        assert!(matches!(new, Admission::Shed(_)));
        assert_eq!(shed(&queue, late), [3]);
    }

    #[test]
    fn sign_ins_are_shed_after_four_seconds_and_expire_after_five() {
        let (queue, began) = make_queue(limits(1, 1));
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
