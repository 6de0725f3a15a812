//! Writes lines to standard error. After an error in the middle of a line, the rest of that line is written first.
use std::io::{self, ErrorKind, Write, stderr};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes `torn`, the rest of a line of which an earlier call wrote the beginning, and then the lines of `chunk`. If
/// that fails in the middle of a line, `torn` holds the rest of it afterwards.
///
/// # Errors
/// The number of lines that are lost.
pub(super) fn write_lines(
    output: &mut impl Write,
    torn: &mut Vec<u8>,
    chunk: &[u8],
) -> Result<(), u64> {
    let rest = write_all(output, torn);
    torn.drain(..torn.len() - rest);
    if rest > 0 {
        return Err(count_lines(chunk));
    }
    let rest = write_all(output, chunk);
    if rest == 0 {
        return Ok(());
    }
    let (written, mut lost) = chunk.split_at(chunk.len() - rest);
    if !written.is_empty() && !written.ends_with(b"\n") {
        let line_end = lost.iter().position(|byte| *byte == b'\n');
        let (rest_of_line, following) = lost.split_at(line_end.map_or(lost.len(), |end| end + 1));
        torn.extend_from_slice(rest_of_line);
        lost = following;
    }
    Err(count_lines(lost))
}

/// Returns the number of bytes at the end that could not be written.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) -> usize {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(written) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    bytes.len()
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Standard error without the lock of [`std::io::Stderr`]. The log may hold a lock for as long as its reader has
/// stopped, and other users of standard error, such as the standard library's message of a stack overflow, must not
/// wait for it.
pub(super) struct RawStderr;

impl Write for RawStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                // Another process has made the shared descriptor non-blocking.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts `free` bytes, and then fails as a full disk does.
    struct Disk {
        bytes: Vec<u8>,
        free: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.free);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.free -= taken;
            self.bytes.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failed_lines_are_counted_and_a_torn_line_is_completed() {
        for free in 0..=12 {
            let mut disk = Disk {
                bytes: Vec::new(),
                free,
            };
            let mut torn = Vec::new();
            let first = write_lines(&mut disk, &mut torn, b"one\ntwo\nsix\n");
            let lost = u64::try_from(3 - free.div_ceil(4)).unwrap();
            assert_eq!(first, if free == 12 { Ok(()) } else { Err(lost) }, "{free}");
            if free < 12 {
                disk.free = 0;
                assert_eq!(write_lines(&mut disk, &mut torn, b"ten\n"), Err(1));
            }
            disk.free = 100;
            assert_eq!(write_lines(&mut disk, &mut torn, b"end\n"), Ok(()));
            let kept = free.div_ceil(4) * 4;
            let expected = [&b"one\ntwo\nsix\n"[..kept], b"end\n"].concat();
            assert_eq!(disk.bytes, expected, "{free}");
        }
    }
}
