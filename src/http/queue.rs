//! Admission of requests to handlers: the permits, and the requests that wait for one.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::class::Class;
use super::counters::{Counters, show};
use super::limits::Limits;
use super::lines::{Lines, PendingRequest};
use super::pace::{Beginning, Pace};

/// The right to run one handler.
pub struct Permit {
    beginning: Option<Beginning>,
    class: Class,
}

/// A request whose handler is to run now.
pub type Turn = (PendingRequest, Permit);

/// What becomes of a request.
pub enum Admission {
    /// The caller has the permit, and runs the handler of this request: of this one or of the one that waited longest.
    Run(Turn),
    /// It waits; the worker that has time for it takes it.
    Queued,
    /// Others of its class have waited too long already.
    Shed(PendingRequest),
}

/// Handlers run within the limits of all and of their class. The other requests wait in the line of their class.
///
/// A worker that ends a quick handler goes on with the next request at once. To begin that one on another thread
/// instead would cost two switches between threads, and whatever the handlers share (the cores' caches, the database's
/// processes) serves few at a time better than many. A handler that is slow waits for something else, as a rule, and no
/// longer counts among the recent starts: then others begin beside it.
///
/// Writes start at once, whatever the number of recent starts, and do not count among them: most of their time is the
/// wait for a commit, which all that wait share. Measured with 32 clients on two cores: a third more creates a second.
pub struct AdmissionQueue {
    max_recent_starts: usize,
    /// The longest wait of any request in its line.
    queue_timeout: Duration,
    counters: Arc<Counters>,
    /// Whether a request waits for nothing but recent starts to become old; written under the lock of `state`. All
    /// others wait for a handler's end, and the worker that ends it takes them.
    has_startable: AtomicBool,
    state: Mutex<State>,
}

struct State {
    lines: Lines,
    pace: Pace,
}

impl State {
    fn release(&mut self, permit: &Permit) {
        self.lines.end(permit.class);
        if let Some(beginning) = &permit.beginning {
            self.pace.end(beginning);
        }
    }
}

impl AdmissionQueue {
    /// An empty queue; at most `max_recent_starts` of the handlers that run began a moment ago.
    pub fn new(limits: &Limits, max_recent_starts: usize, counters: Arc<Counters>) -> Self {
        AdmissionQueue {
            max_recent_starts,
            queue_timeout: limits.queue_timeout.min(limits.request_timeout),
            counters,
            has_startable: AtomicBool::new(false),
            state: Mutex::new(State {
                lines: Lines::new(limits),
                pace: Pace::new(Instant::now()),
            }),
        }
    }

    /// Asks for a permit.
    pub fn admit(&self, pending: PendingRequest) -> Admission {
        let mut state = self.lock();
        let now = pending.received;
        if state.lines.sheds(&pending) {
            return Admission::Shed(pending);
        }
        state.lines.push(pending);
        match self.begin(state, now) {
            Some(turn) => Admission::Run(turn),
            None => Admission::Queued,
        }
    }

    /// The next request whose handler may start, if there is one.
    pub fn next(&self, now: Instant) -> Option<Turn> {
        self.begin(self.lock(), now)
    }

    /// Gives a permit back, and takes the next turn if there is one.
    pub fn finish(&self, permit: Permit, now: Instant) -> Option<Turn> {
        let mut state = self.lock();
        state.release(&permit);
        self.begin(state, now)
    }

    /// The same behind a request that came on the same connection. It goes to the end of its line.
    pub fn exchange(&self, permit: Permit, pending: PendingRequest) -> Option<Turn> {
        let mut state = self.lock();
        state.release(&permit);
        let now = pending.received;
        state.lines.push(pending);
        self.begin(state, now)
    }

    /// Whether a request waits for nothing but recent starts to become old, so that somebody has to look again.
    pub fn has_startable(&self) -> bool {
        self.has_startable.load(Ordering::SeqCst)
    }

    fn begin(&self, mut state: MutexGuard<State>, now: Instant) -> Option<Turn> {
        let mut turn = None;
        let only_writes = state.pace.young(now) >= self.max_recent_starts;
        if let Some(pending) = state.lines.start(only_writes) {
            let beginning = (pending.class != Class::Write).then(|| state.pace.begin());
            let class = pending.class;
            turn = Some((pending, Permit { beginning, class }));
        }
        self.publish(&state);
        turn
    }

    /// Takes out the requests that have waited too long, to be answered 503.
    pub fn shed(&self, now: Instant) -> Vec<PendingRequest> {
        let mut state = self.lock();
        let shed = state.lines.shed(self.queue_timeout, now);
        self.publish(&state);
        shed
    }

    /// Whether no handler runs and no request waits.
    pub fn is_empty(&self) -> bool {
        let state = self.lock();
        state.lines.in_flight() == 0 && state.lines.waiting() == 0
    }

    fn publish(&self, state: &State) {
        let has_startable = state.lines.has_startable();
        if self.has_startable.load(Ordering::Relaxed) != has_startable {
            self.has_startable.store(has_startable, Ordering::SeqCst);
        }
        show(&self.counters.in_flight, state.lines.in_flight());
        show(&self.counters.queued, state.lines.waiting());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rouille::Request;

    use super::super::pace::SLICE;
    use super::super::table::Key;
    use super::*;

    const SHED_AFTER: Duration = Duration::from_secs(1);

    /// A queue, and the moment at which its first slice began.
    fn make_queue(limits: Limits, max_recent_starts: usize) -> (AdmissionQueue, Instant) {
        let queue = AdmissionQueue::new(&limits, max_recent_starts, Arc::default());
        let began = Instant::now();
        queue.lock().pace = Pace::new(began);
        (queue, began)
    }

    fn limits(workers: usize, max_heavy: usize) -> Limits {
        let mut limits = Limits::for_workers(workers);
        limits.heavy.max_in_flight = max_heavy;
        limits
    }

    fn pending(number: u64, received: Instant, class: Class) -> PendingRequest {
        let peer = ([127, 0, 0, 1], 1).into();
        PendingRequest {
            key: Key::from(number),
            request: Request::fake_http_from(peer, "GET", "/", vec![], vec![]),
            received,
            class,
            was_sent_ahead: false,
        }
    }

    fn sent_ahead(number: u64, received: Instant) -> PendingRequest {
        PendingRequest {
            was_sent_ahead: true,
            ..pending(number, received, Class::Ordinary)
        }
    }

    /// The number of the request that runs, if one does.
    fn admit(queue: &AdmissionQueue, number: u64, received: Instant) -> Option<(u64, Permit)> {
        admit_as(Class::Ordinary, queue, number, received)
    }

    fn admit_as(
        class: Class,
        queue: &AdmissionQueue,
        number: u64,
        received: Instant,
    ) -> Option<(u64, Permit)> {
        match queue.admit(pending(number, received, class)) {
            Admission::Run((pending, permit)) => Some((pending.key.into(), permit)),
            Admission::Queued => None,
            Admission::Shed(_) => panic!("{number} was shed"),
        }
    }

    fn number(turn: Option<Turn>) -> Option<u64> {
        turn.map(|(pending, _)| pending.key.into())
    }

    fn shed(queue: &AdmissionQueue, now: Instant) -> Vec<u64> {
        let shed = queue.shed(now);
        shed.iter().map(|pending| pending.key.into()).collect()
    }

    #[test]
    fn one_more_than_the_recent_starts_waits_for_one_of_them_to_end() {
        let (queue, began) = make_queue(limits(4, 4), 2);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_some());
        assert!(admit(&queue, 3, began).is_none());
        assert!(queue.has_startable());
        assert!(number(queue.next(began)).is_none());
        assert_eq!(number(queue.finish(permit, began)), Some(3));
        assert!(!queue.has_startable());
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
        // Nobody has to look before a handler ends.
        assert!(!queue.has_startable());
    }

    #[test]
    fn writes_start_whatever_the_number_of_recent_starts_and_do_not_count_among_them() {
        let (queue, began) = make_queue(limits(8, 8), 1);
        assert!(admit_as(Class::Write, &queue, 1, began).is_some());
        assert_eq!(admit(&queue, 2, began).unwrap().0, 2);
        assert!(admit(&queue, 3, began).is_none());
        assert_eq!(admit_as(Class::Write, &queue, 4, began).unwrap().0, 4);
    }

    #[test]
    fn a_slow_handler_s_end_gives_no_turn_while_there_are_enough_recent_starts() {
        let (queue, began) = make_queue(limits(4, 4), 1);
        let (_, slow) = admit(&queue, 1, began).unwrap();
        let later = began + 3 * SLICE;
        let (_, recent) = admit(&queue, 2, later).unwrap();
        assert!(admit(&queue, 3, later).is_none());
        assert!(number(queue.finish(slow, later)).is_none());
        assert!(queue.has_startable());
        assert_eq!(number(queue.finish(recent, later)), Some(3));
    }

    #[test]
    fn who_sends_ahead_has_the_last_turn() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        let (_, permit) = admit(&queue, 1, began).unwrap();
        assert!(admit(&queue, 2, began).is_none());
        let ahead = pending(1, began, Class::Ordinary);
        assert_eq!(number(queue.exchange(permit, ahead)), Some(2));
    }

    #[test]
    fn requests_sent_ahead_start_every_other_time_while_others_wait() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        let (_, mut permit) = admit(&queue, 1, began).unwrap();
        for number in 10..16 {
            let admission = queue.admit(sent_ahead(number, began));
            assert!(matches!(admission, Admission::Queued));
        }
        for number in 2..5 {
            assert!(admit(&queue, number, began).is_none());
        }
        let mut begun = Vec::new();
        while let Some((pending, next)) = queue.finish(permit, began) {
            begun.push(u64::from(pending.key));
            permit = next;
        }
        assert_eq!(begun, [10, 2, 11, 3, 12, 4, 13, 14, 15]);
    }

    #[test]
    fn a_full_class_lets_requests_of_other_classes_pass() {
        for class in [Class::Heavy, Class::Write, Class::SignIn] {
            let (queue, began) = make_queue(limits(8, 3), 8);
            let max = match class {
                Class::Write => 4,
                _ => 3,
            };
            let permits: Vec<_> = (0..max)
                .map(|number| admit_as(class, &queue, number, began).unwrap().1)
                .collect();
            // However slow they prove.
            let later = began + 9 * SLICE;
            assert!(admit_as(class, &queue, 10, later).is_none());
            assert!(admit_as(class, &queue, 11, later).is_none());
            assert!(!queue.has_startable(), "{class:?}");
            let (passing, permit) = admit(&queue, 12, later).unwrap();
            assert_eq!(passing, 12, "{class:?}");
            assert!(number(queue.finish(permit, later)).is_none());
            let ends = permits
                .into_iter()
                .map(|permit| queue.finish(permit, later));
            let begun: Vec<_> = ends.filter_map(number).collect();
            assert_eq!(begun, [10, 11], "{class:?}");
        }
    }

    #[test]
    fn writes_and_sign_ins_that_hang_leave_an_eighth_of_the_permits_to_reads() {
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
    fn where_several_classes_may_run_the_request_that_came_first_does() {
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
            if let Some((pending, next)) = queue.finish(ended, moment(5)) {
                begun.push(u64::from(pending.key));
                permit = Some(next);
            }
        }
        assert_eq!(begun, [2, 3, 4, 5]);
    }

    #[test]
    fn only_those_are_shed_whose_like_wait_too_long() {
        let (queue, began) = make_queue(limits(1, 1), 1);
        assert!(admit(&queue, 1, began).is_some());
        assert!(admit_as(Class::Heavy, &queue, 2, began).is_none());
        assert!(admit_as(Class::Heavy, &queue, 3, began).is_none());
        let late = began + SHED_AFTER + SLICE;
        assert!(admit(&queue, 4, late).is_none());
        let turned_away = queue.admit(pending(5, late, Class::Heavy));
        assert!(matches!(turned_away, Admission::Shed(_)));
        assert_eq!(shed(&queue, late), [3]);
    }

    #[test]
    fn sign_ins_are_shed_after_four_seconds_and_none_waits_longer_than_five() {
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
