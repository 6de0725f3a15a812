//! The seats at the poller: which threads wait for events, and who sits down when one leaves. Knows no events.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// Leaders sit at the poller, as many as there are cores; followers wait here. A leader leaves its seat for a
/// handler, which may block, and takes one again behind it. Only when the last one leaves is a follower called: to
/// wake a thread costs more than a quick handler does, and it is needed only where handlers are slow.
pub struct Seats {
    seats: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// The last to come is called first: its caches are warm.
    followers: Vec<Thread>,
    is_over: bool,
}

impl Seats {
    /// So many, at least one.
    pub fn new(seats: usize) -> Seats {
        Seats {
            seats: seats.max(1),
            state: Mutex::default(),
        }
    }

    /// Takes a seat if one is free now.
    pub fn try_take(&self) -> bool {
        let mut state = self.lock();
        let is_free = state.taken < self.seats && !state.is_over;
        state.taken += usize::from(is_free);
        is_free
    }

    /// Takes a seat as soon as there is one; false once all is over.
    pub fn take(&self) -> bool {
        let me = thread::current();
        let mut state = self.lock();
        if state.taken < self.seats {
            state.taken += 1;
            return !state.is_over;
        }
        state.followers.push(me.clone());
        // Whoever calls a follower strikes it off, and leaves it the seat.
        while !state.is_over && state.followers.iter().any(|thread| thread.id() == me.id()) {
            drop(state);
            thread::park();
            state = self.lock();
        }
        !state.is_over
    }

    /// Leaves the seat; to a follower if nobody else sits, or if somebody has to look after what waits. Says whether
    /// there was a follower for it.
    pub fn leave(&self, is_needed: bool) -> bool {
        let mut state = self.lock();
        state.taken -= 1;
        if state.taken > 0 && !is_needed {
            return false;
        }
        let Some(follower) = state.followers.pop() else {
            return false;
        };
        state.taken += 1;
        drop(state);
        follower.unpark();
        true
    }

    /// Sends all away.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        state.followers.iter().for_each(Thread::unpark);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the kernel that a thread which is woken waits for its turn, on this thread and those that it starts
/// (SCHED_BATCH, sched(7)). A handler that wakes many others, as one does that answered a batch for them, would otherwise
/// be thrown off its core by each: measured, a tenth to a fifth more requests are answered without.
#[allow(unsafe_code)] // no crate has this call alone; it reads what it is given, and changes this thread's policy only
pub fn let_those_who_run_go_on() {
    let priority = libc::sched_param { sched_priority: 0 };
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const priority) } != 0 {
        let error = std::io::Error::last_os_error();
        log::debug!("the workers keep the usual scheduling policy: {error}");
    }
}
