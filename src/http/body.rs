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

/// Decodes a body that arrives in pieces of any size. Allocates memory for bytes that arrived, not for an announced length.
#[derive(Debug)]
pub struct BodyDecoder {
    bytes: Vec<u8>,
    max_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    state: State,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// One of this number of bytes, the rest of a body of known length.
    Fixed(usize),
    /// Part of a chunk's size, of which `line_bytes` digits with this value were read.
    Size { line_bytes: usize, value: usize },
    /// Part of the extensions after a chunk's size.
    Extensions {
        line_bytes: usize,
        value: usize,
        part: ExtensionPart,
    },
    /// The line feed after a size line.
    SizeEnd { value: usize },
    /// One of this number of bytes, the rest of a chunk.
    Data(usize),
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
    ///
    /// # Errors
    /// [`HttpError::BodyTooLarge`] if the announced length exceeds the limit (RFC 9110 15.5.14).
    pub fn new(framing: Framing, max_bytes: usize) -> Result<BodyDecoder, HttpError> {
        let state = match framing {
            Framing::Length(0) => State::Complete,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= max_bytes => State::Fixed(length),
                _ => return Err(HttpError::BodyTooLarge),
            },
            Framing::Chunked => State::Size {
                line_bytes: 0,
                value: 0,
            },
        };
        Ok(BodyDecoder {
            bytes: Vec::new(),
            max_bytes,
            extension_bytes: 0,
            trailer_bytes: 0,
            state,
        })
    }

    /// Decodes the bytes that belong to the body, and returns how many they are; further bytes follow the body.
    ///
    /// # Errors
    /// 400 for malformed chunks, 413 beyond the limit, 431 for a large trailer section.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while self.state != State::Complete {
            let (State::Fixed(remaining) | State::Data(remaining)) = self.state else {
                let Some((byte, after)) = rest.split_first() else {
                    break;
                };
                self.state = self.step(*byte)?;
                rest = after;
                continue;
            };
            let (data, after) = rest.split_at(remaining.min(rest.len()));
            if data.is_empty() {
                break;
            }
            self.reserve(data.len(), remaining);
            self.bytes.extend_from_slice(data);
            rest = after;
            self.state = match (self.state, remaining - data.len()) {
                (State::Fixed(_), 0) => State::Complete,
                (State::Fixed(_), remaining) => State::Fixed(remaining),
                (_, 0) => State::DataCr,
                (_, remaining) => State::Data(remaining),
            };
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

    /// Returns the bytes of the body that arrived, without framing.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reserves memory for bytes that arrived. Doubles the capacity as a vector does, but not beyond the announced length.
    fn reserve(&mut self, new_bytes: usize, remaining_bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < new_bytes {
            let doubled = self.bytes.len().max(new_bytes);
            self.bytes.reserve_exact(doubled.min(remaining_bytes));
        }
    }

    /// Returns the state after one byte of the framing of chunks (RFC 9112 7.1).
    fn step(&mut self, byte: u8) -> Result<State, HttpError> {
        Ok(match (self.state, byte) {
            (State::Size { line_bytes, value }, b'\r') if line_bytes > 0 => {
                State::SizeEnd { value }
            }
            (State::Size { line_bytes, value }, b';' | b' ' | b'\t') if line_bytes > 0 => {
                self.step_extensions(line_bytes, value, ExtensionPart::BeforeSemicolon, byte)?
            }
            (State::Size { line_bytes, value }, _) if line_bytes < MAX_SIZE_DIGITS => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .and_then(|digit| usize::try_from(digit).ok())
                    .ok_or(BAD_SIZE)?;
                State::Size {
                    line_bytes: line_bytes + 1,
                    // Where sixteen digits do not fit into a usize, the size exceeds any limit.
                    value: value.saturating_mul(16).saturating_add(digit),
                }
            }
            (State::Size { .. }, _) => return Err(BAD_SIZE),
            (State::Extensions { value, part, .. }, b'\r') if part.may_end() => {
                State::SizeEnd { value }
            }
            (
                State::Extensions {
                    line_bytes,
                    value,
                    part,
                },
                _,
            ) => self.step_extensions(line_bytes, value, part, byte)?,
            (State::SizeEnd { value: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { value }, b'\n') => {
                if value > self.max_bytes - self.bytes.len() {
                    return Err(HttpError::BodyTooLarge);
                }
                State::Data(value)
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size {
                line_bytes: 0,
                value: 0,
            },
            (State::DataCr | State::DataLf, _) => {
                return Err(HttpError::BadRequest("A chunk is longer than its size."));
            }
            (State::EmptyLineLf, b'\n') => State::Complete,
            (State::SizeEnd { .. } | State::EmptyLineLf, _) => {
                return Err(HttpError::BadRequest(
                    "A line between chunks does not end in CR LF.",
                ));
            }
            (_, byte) => self.step_trailer(byte)?,
        })
    }

    /// Validates chunk extensions, which are ignored (RFC 9112 7.1.1).
    fn step_extensions(
        &mut self,
        line_bytes: usize,
        value: usize,
        part: ExtensionPart,
        byte: u8,
    ) -> Result<State, HttpError> {
        self.extension_bytes += 1;
        if line_bytes >= MAX_SIZE_LINE_BYTES || self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(HttpError::BadRequest("The chunk extensions are too long."));
        }
        Ok(State::Extensions {
            line_bytes: line_bytes + 1,
            value,
            part: part.step(byte).ok_or(BAD_EXTENSION)?,
        })
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

const BAD_SIZE: HttpError = HttpError::BadRequest("A chunk's size is malformed.");
const BAD_EXTENSION: HttpError = HttpError::BadRequest("A chunk's extension is malformed.");
