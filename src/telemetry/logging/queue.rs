//! The queue of log lines between the threads that log and the thread that writes them.
//!
//! Threads that log never wait for the writer: a line that does not fit is dropped and counted. Once a line is dropped,
//! all further ones are until half of the queue is written, so that the log has one long gap instead of many short
//! ones. After the gap, the writer logs how many lines were lost. Lines stay in order, and a line is written whole.
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::output::{RawStderr, write_lines};
use crate::telemetry::metrics;

/// Bytes of all queued lines, including those being written: about 100,000 request lines, which a busy service logs in
/// 10 s.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes written by one system call: the capacity of a pipe.
const CHUNK_BYTES: usize = 64 * 1024;

/// Pause of the writer when the queue is empty, so that it writes several lines together. Measured with 16 clients on
/// two cores: a request answered with 404 costs 10 microseconds of CPU time, and 13 without the pause, since the writer
/// is then woken for most lines.
const PAUSE: Duration = Duration::from_millis(10);

/// The queue, shared by all threads that log and by the writer.
pub(super) struct LineQueue {
    max_bytes: usize,
    /// Held for no longer than it takes to copy a line or to take a chunk, never while writing.
    state: Mutex<QueueState>,
    /// Wakes the writer: a line was pushed while it was idle, or a [`LineQueue::drain`] began.
    is_filled: Condvar,
    /// Wakes [`LineQueue::drain`]: everything is written.
    is_written: Condvar,
}

#[derive(Default)]
struct QueueState {
    /// Whole lines, up to [`CHUNK_BYTES`] per chunk; a longer line has a chunk of its own.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of all chunks, including the one being written.
    bytes: usize,
    /// Whether the writer is writing a chunk or reporting lost lines.
    is_writing: bool,
    /// Whether further lines are dropped.
    is_full: bool,
    /// Lines dropped, or not written because of an error, since the last report.
    lost_lines: u64,
    /// Whether the writer waits for a line without a timeout, so that it has to be woken.
    is_writer_idle: bool,
    /// Threads in [`LineQueue::drain`]; the writer does not pause while there are any.
    drainers: usize,
}

impl LineQueue {
    pub fn new() -> Arc<LineQueue> {
        LineQueue::with_max_bytes(MAX_QUEUED_BYTES)
    }

    fn with_max_bytes(max_bytes: usize) -> Arc<LineQueue> {
        Arc::new(LineQueue {
            max_bytes,
            state: Mutex::default(),
            is_filled: Condvar::new(),
            is_written: Condvar::new(),
        })
    }

    /// Starts the thread `log`, which writes the lines to standard error. It calls `report_loss` after a gap, with the
    /// number of lost lines.
    ///
    /// # Errors
    /// If the system refuses another thread.
    pub fn start_writer(
        self: &Arc<LineQueue>,
        report_loss: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let queue = Arc::clone(self);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || queue.write_to(RawStderr, report_loss))?;
        Ok(())
    }

    /// Appends a line, which ends with a line feed, or drops it if the queue is full. Never waits for the writer.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        state.is_full |= state.bytes + line.len() > self.max_bytes;
        if state.is_full {
            state.count_lost(1);
            return;
        }
        state.bytes += line.len();
        match state.chunks.back_mut() {
            Some(chunk) if chunk.len() + line.len() <= CHUNK_BYTES => chunk.extend_from_slice(line),
            _ => state.chunks.push_back(line.to_vec()),
        }
        if std::mem::take(&mut state.is_writer_idle) {
            drop(state);
            self.is_filled.notify_one();
        }
    }

    /// Waits until all lines are written, for `timeout` at most.
    pub fn drain(&self, timeout: Duration) {
        let mut state = self.state.lock();
        state.drainers += 1;
        self.is_filled.notify_one();
        let is_pending = |state: &mut QueueState| state.bytes > 0 || state.is_writing;
        self.is_written
            .wait_while_for(&mut state, is_pending, timeout);
        state.drainers -= 1;
    }

    /// Writes lines for as long as the process lives. Lines that an error prevents from being written count as lost.
    fn write_to(&self, mut output: impl Write, report_loss: impl Fn(u64)) {
        let mut torn = Vec::new();
        loop {
            let chunk = self.next_chunk();
            let written = write_lines(&mut output, &mut torn, &chunk);
            if let Some(lost_lines) = self.finish_chunk(chunk.len(), written) {
                report_loss(lost_lines);
            }
        }
    }

    /// Removes the oldest chunk. Waits until there is one, and before the only one a moment for further lines.
    fn next_chunk(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.is_writing = false;
        if state.bytes == 0 {
            self.is_written.notify_all();
        }
        if state.chunks.len() < 2 {
            let may_pause = |state: &mut QueueState| state.drainers == 0;
            self.is_filled.wait_while_for(&mut state, may_pause, PAUSE);
        }
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.is_writing = true;
                return chunk;
            }
            state.is_writer_idle = true;
            self.is_filled.wait(&mut state);
        }
    }

    /// Frees the space of a chunk after it was written, or after that many of its lines were lost. Returns the number
    /// of lost lines if it is time to report them.
    fn finish_chunk(&self, chunk_bytes: usize, written: Result<(), u64>) -> Option<u64> {
        let mut state = self.state.lock();
        state.bytes -= chunk_bytes;
        state.is_full &= state.bytes > self.max_bytes / 2;
        if let Err(lines) = written {
            state.count_lost(lines);
            return None;
        }
        let may_report = !state.is_full && state.lost_lines > 0;
        may_report.then(|| std::mem::take(&mut state.lost_lines))
    }
}

impl QueueState {
    fn count_lost(&mut self, lines: u64) {
        self.lost_lines += lines;
        metrics::count_lost_log_lines(lines);
    }
}

/// The output of the formatting logger: collects the parts of a line, and pushes the whole line to the queue.
pub(super) struct LineCollector {
    queue: Arc<LineQueue>,
    line: Vec<u8>,
}

impl LineCollector {
    pub fn new(queue: Arc<LineQueue>) -> LineCollector {
        LineCollector {
            queue,
            line: Vec::new(),
        }
    }
}

impl Write for LineCollector {
    /// A line feed occurs only as the last byte of a line's last part, since control characters in messages are
    /// escaped.
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(part);
        if part.ends_with(b"\n") {
            self.queue.push(&self.line);
            self.line.clear();
        }
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::mpsc::{self, Receiver, SyncSender};
    use std::time::Instant;

    use super::*;

    /// Sends each write to the test, and blocks until the test receives it.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn write_to_pipe(queue: &Arc<LineQueue>) -> Receiver<Vec<u8>> {
        let (pipe, received) = mpsc::sync_channel(0);
        let (writer, reporter) = (Arc::clone(queue), Arc::clone(queue));
        thread::spawn(move || {
            writer.write_to(Pipe(pipe), |lines| {
                reporter.push(format!("{lines} lost\n").as_bytes());
            });
        });
        received
    }

    /// Receives lines up to and including `last`.
    fn receive_until(received: &Receiver<Vec<u8>>, last: &str) -> Vec<String> {
        let mut text = String::new();
        while !text.ends_with(last) {
            text += &String::from_utf8(received.recv().unwrap()).unwrap();
        }
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn dropped_lines_are_counted_in_one_line_where_they_are_missing() {
        let queue = LineQueue::with_max_bytes(100);
        for number in 0..30 {
            queue.push(format!("line {number:04}\n").as_bytes());
        }
        queue.push(b"short\n");
        let received = write_to_pipe(&queue);
        let lines = receive_until(&received, "lost\n");
        let mut expected: Vec<_> = (0..10).map(|number| format!("line {number:04}")).collect();
        expected.push("21 lost".to_owned());
        assert_eq!(lines, expected);
        queue.push(b"next\n");
        assert_eq!(receive_until(&received, "next\n"), ["next"]);
    }

    #[test]
    fn drain_returns_when_everything_is_written_or_at_its_timeout() {
        let queue = LineQueue::new();
        queue.push(b"first\n");
        let received = write_to_pipe(&queue);
        queue.drain(Duration::from_millis(20));
        assert_eq!(queue.state.lock().bytes, 6);
        let reader = thread::spawn(move || receive_until(&received, "last\n"));
        queue.push(b"last\n");
        let (begun, timeout) = (Instant::now(), Duration::from_secs(20));
        queue.drain(timeout);
        assert!(begun.elapsed() < timeout);
        assert_eq!(queue.state.lock().bytes, 0);
        assert_eq!(reader.join().unwrap(), ["first", "last"]);
    }

    #[test]
    fn a_burst_of_100_000_lines_fits_and_lines_stay_whole_and_in_order() {
        let queue = LineQueue::new();
        let received = write_to_pipe(&queue);
        thread::scope(|scope| {
            for thread in 0..4 {
                let queue = &queue;
                scope.spawn(move || {
                    let mut collector = LineCollector::new(Arc::clone(queue));
                    for number in 0..25_000 {
                        write!(collector, "{thread} {number} {:120}", "").unwrap();
                        writeln!(collector).unwrap();
                    }
                });
            }
        });
        queue.push(b"last\n");
        let mut next = BTreeMap::new();
        for line in receive_until(&received, "last\n") {
            let mut words = line.split(' ');
            let (thread, number) = (words.next(), words.next());
            let expected = next.entry(thread.map(str::to_owned)).or_insert(0);
            if line != "last" {
                assert_eq!(
                    (number, line.len() > 120),
                    (Some(&*expected.to_string()), true)
                );
                *expected += 1;
            }
        }
        assert_eq!(next.values().sum::<usize>(), 100_000);
    }
}
