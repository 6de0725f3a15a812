//! Bytes to the body of a request: of a known length, or chunked (RFC 9112 6 and 7). Does not depend on sockets.
use super::head::{Framing, is_token_byte, is_value_byte};
use super::response::HttpError;

/// Bytes of a chunk's size line, including extensions.
const MAX_SIZE_LINE_BYTES: usize = 256;

/// Digits of a chunk's size: those of a number of 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// Bytes of all chunk extensions of a body together, so that they cannot outweigh the body.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;

/// Bytes of the trailer section.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

const BAD_SIZE: HttpError = HttpError::BadRequest("A chunk's size is malformed.");

/// Decodes a body that arrives in pieces of any size. Allocates memory for bytes that arrived, not for an announced length.
#[derive(Debug)]
pub struct BodyDecoder {
    bytes: Vec<u8>,
    max_bytes: usize,
    /// Bytes that are missing of the body or chunk; while its size is read, the size so far.
    remaining: usize,
    /// Bytes of the chunk's size line so far.
    line_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    state: State,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Part of a body of known length.
    Fixed,
    /// Part of a chunk's size.
    Size,
    /// Part of the extensions after a chunk's size.
    Extensions(ExtensionPart),
    /// The line feed after a size line.
    SizeEnd,
    /// Part of a chunk.
    Data,
    /// The carriage return after a chunk's data.
    DataCr,
    /// The line feed after a chunk's data.
    DataLf,
    /// The first byte of a trailer's name, or the carriage return of the empty line.
    TrailerStart,
    /// Part of a trailer's name after its first byte, or the colon.
    TrailerName,
    /// Part of a trailer's value, or the carriage return after it.
    TrailerValue,
    /// The line feed after a trailer.
    TrailerEnd,
    /// The line feed of the empty line.
    EmptyLineLf,
    /// Not part of the body, which is complete.
    Complete,
}

/// The position of the next byte within a chunk's extensions (RFC 9112 7.1.1), each of which is
/// `BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtensionPart {
    /// White space before a semicolon: after the size, or after a value.
    BeforeSemicolon,
    /// After a semicolon.
    BeforeName,
    /// After the first byte of a name.
    Name,
    /// White space after a name.
    AfterName,
    /// After an equals sign.
    BeforeValue,
    /// After the first byte of a value that is a token.
    Token,
    /// Within a quoted string.
    Quoted,
    /// After the backslash of a quoted pair.
    QuotedPair,
    /// After the end of a quoted string.
    QuotedEnd,
}

impl ExtensionPart {
    /// Returns the position after this byte, or `None` if the byte is not allowed here.
    fn step(self, byte: u8) -> Option<ExtensionPart> {
        use ExtensionPart::*;
        Some(match (self, byte) {
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, _) if is_value_byte(byte) => Quoted,
            (BeforeValue, b'"') => Quoted,
            (BeforeSemicolon | BeforeName | AfterName | BeforeValue, b' ' | b'\t') => self,
            (Name, b' ' | b'\t') => AfterName,
            (Token | QuotedEnd, b' ' | b'\t') => BeforeSemicolon,
            (BeforeSemicolon | Name | AfterName | Token | QuotedEnd, b';') => BeforeName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeName | Name, _) if is_token_byte(byte) => Name,
            (BeforeValue | Token, _) if is_token_byte(byte) => Token,
            _ => return None,
        })
    }

    /// Whether the line may end here. It may not end in white space, after which the grammar requires more.
    fn may_end(self) -> bool {
        use ExtensionPart::*;
        matches!(self, Name | Token | QuotedEnd)
    }
}

impl BodyDecoder {
    /// Creates a decoder for a body of at most `max_bytes` bytes.
    pub fn new(framing: Framing, max_bytes: usize) -> BodyDecoder {
        let (state, remaining) = match framing {
            Framing::Length(0) => (State::Complete, 0),
            // A length that does not fit into a usize exceeds any limit.
            Framing::Length(length) => (State::Fixed, length.try_into().unwrap_or(usize::MAX)),
            Framing::Chunked => (State::Size, 0),
        };
        BodyDecoder {
            bytes: Vec::new(),
            max_bytes,
            remaining,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            state,
        }
    }

    /// Decodes the bytes that belong to the body, and returns how many they are; further bytes follow the body.
    ///
    /// # Errors
    /// 400 for malformed chunks, 413 if the announced length (RFC 9110 15.5.14) or a chunk exceeds the limit, 431 for a large
    /// trailer section.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while self.state != State::Complete {
            let is_data = matches!(self.state, State::Fixed | State::Data);
            if is_data && self.remaining > self.max_bytes - self.bytes.len() {
                return Err(HttpError::BodyTooLarge);
            }
            let Some((byte, after)) = rest.split_first() else {
                break;
            };
            if is_data {
                let (data, after) = rest.split_at(self.remaining.min(rest.len()));
                self.append(data);
                rest = after;
            } else {
                self.state = self.step(*byte)?;
                rest = after;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the body is complete.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Returns the bytes of memory that are allocated.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the bytes of the body that arrived, without framing.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Appends a part of what remains. Doubles the capacity as a vector does, but not beyond the announced length.
    fn append(&mut self, data: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < data.len() {
            let doubled = self.bytes.len().max(data.len());
            self.bytes.reserve_exact(doubled.min(self.remaining));
        }
        self.bytes.extend_from_slice(data);
        self.remaining -= data.len();
        if self.remaining == 0 {
            self.state = match self.state {
                State::Fixed => State::Complete,
                _ => State::DataCr,
            };
        }
    }

    /// Returns the state after one byte of the framing of chunks (RFC 9112 7.1).
    fn step(&mut self, byte: u8) -> Result<State, HttpError> {
        Ok(match (self.state, byte) {
            (State::Size, b'\r') if self.line_bytes > 0 => State::SizeEnd,
            (State::Size, b';' | b' ' | b'\t') if self.line_bytes > 0 => {
                self.step_extensions(ExtensionPart::BeforeSemicolon, byte)?
            }
            (State::Size, _) if self.line_bytes < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(BAD_SIZE)?;
                self.line_bytes += 1;
                // Where sixteen digits do not fit into a usize, the size exceeds any limit.
                let sixteenfold = self.remaining.saturating_mul(16);
                self.remaining = sixteenfold.saturating_add(usize::try_from(digit).unwrap_or(0));
                State::Size
            }
            (State::Size, _) => return Err(BAD_SIZE),
            (State::Extensions(part), b'\r') if part.may_end() => State::SizeEnd,
            (State::Extensions(part), _) => self.step_extensions(part, byte)?,
            (State::SizeEnd, b'\n') if self.remaining == 0 => State::TrailerStart,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                State::Size
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(HttpError::BadRequest("A chunk is longer than its size."));
            }
            (State::EmptyLineLf, b'\n') => State::Complete,
            (State::SizeEnd | State::EmptyLineLf, _) => {
                return Err(HttpError::BadRequest(
                    "A line between chunks does not end in CR LF.",
                ));
            }
            (_, byte) => self.step_trailer(byte)?,
        })
    }

    /// Validates chunk extensions, which are ignored (RFC 9112 7.1.1).
    fn step_extensions(&mut self, part: ExtensionPart, byte: u8) -> Result<State, HttpError> {
        self.extension_bytes += 1;
        if self.line_bytes >= MAX_SIZE_LINE_BYTES || self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(HttpError::BadRequest("The chunk extensions are too long."));
        }
        self.line_bytes += 1;
        let malformed = HttpError::BadRequest("A chunk's extension is malformed.");
        part.step(byte).map(State::Extensions).ok_or(malformed)
    }

    /// Validates trailers, which are dropped (RFC 9110 6.5.1).
    fn step_trailer(&mut self, byte: u8) -> Result<State, HttpError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(HttpError::HeadersTooLarge);
        }
        Ok(match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::EmptyLineLf,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_value_byte(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            _ => return Err(HttpError::BadRequest("A trailer is malformed.")),
        })
    }
}
