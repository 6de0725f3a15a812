//! Bytes to a request's body: of a known length, or chunked (RFC 9112 6 and 7). Knows no socket.
use super::refusal::Refusal;
use super::request::{Framing, is_field_byte, is_token_byte};

/// The most bytes of a chunk's size line, extensions included.
const SIZE_LINE_BYTES: usize = 256;

/// The most digits of a chunk's size: what 64 bits hold.
const SIZE_DIGITS: usize = 16;

/// The most bytes of all extensions of a body together, so that they cannot outweigh it.
const EXTENSION_BYTES: usize = 16 * 1024;

/// The most bytes of the trailer section.
const TRAILER_BYTES: usize = 16 * 1024;

/// Takes a body in pieces of any size. It holds what arrived, whatever was announced.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    limit_bytes: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    state: State,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body of known length.
    Fixed(usize),
    /// A chunk's size, of which so many bytes and this value are read.
    Size { line_bytes: usize, value: usize },
    /// The extensions behind a size.
    Extensions {
        line_bytes: usize,
        value: usize,
        part: ExtensionPart,
    },
    /// The line feed behind a size line.
    SizeEnd { value: usize },
    /// So many bytes of a chunk.
    Data(usize),
    /// The carriage return behind a chunk's data.
    DataReturn,
    /// The line feed behind it.
    DataEnd,
    /// A trailer's name, or the carriage return of the last line.
    TrailerStart,
    /// A trailer's name after its first byte.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The line feed behind a trailer.
    TrailerEnd,
    /// The line feed behind the last line.
    LastEnd,
    /// Nothing: the body is whole.
    Whole,
}

/// Where in a chunk's extensions the next byte stands (RFC 9112 7.1.1), each of which is
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
    /// What comes after this byte; none if it may not stand here.
    fn step(self, byte: u8) -> Option<ExtensionPart> {
        use ExtensionPart::*;
        Some(match (self, byte) {
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => QuotedPair,
            (Quoted | QuotedPair, _) if is_field_byte(byte) => Quoted,
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

    /// Whether the line may end here: not within white space, after which the grammar wants more.
    fn may_end(self) -> bool {
        use ExtensionPart::*;
        matches!(self, Name | Token | QuotedEnd)
    }
}

impl Decoder {
    /// For a body framed so, of at most `limit_bytes`.
    ///
    /// # Errors
    /// 413 if the announced length is past the limit (RFC 9110 15.5.14).
    pub fn new(framing: Framing, limit_bytes: usize) -> Result<Decoder, Refusal> {
        let state = match framing {
            Framing::Length(0) => State::Whole,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= limit_bytes => State::Fixed(length),
                _ => return Err(Refusal::LargeBody),
            },
            Framing::Chunked => State::Size {
                line_bytes: 0,
                value: 0,
            },
        };
        Ok(Decoder {
            bytes: Vec::new(),
            limit_bytes,
            extension_bytes: 0,
            trailer_bytes: 0,
            state,
        })
    }

    /// Takes what belongs to the body, and answers how many bytes that was. What follows the body is left.
    ///
    /// # Errors
    /// 400 for broken chunks, 413 past the limit, 431 for a large trailer section.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut rest = bytes;
        while self.state != State::Whole {
            let (State::Fixed(left) | State::Data(left)) = self.state else {
                let Some((byte, behind)) = rest.split_first() else {
                    break;
                };
                self.state = self.step(*byte)?;
                rest = behind;
                continue;
            };
            let (data, behind) = rest.split_at(left.min(rest.len()));
            if data.is_empty() {
                break;
            }
            self.reserve(data.len(), left);
            self.bytes.extend_from_slice(data);
            rest = behind;
            self.state = match (self.state, left - data.len()) {
                (State::Fixed(_), 0) => State::Whole,
                (State::Fixed(_), left) => State::Fixed(left),
                (_, 0) => State::DataReturn,
                (_, left) => State::Data(left),
            };
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether all of the body is there.
    pub fn is_complete(&self) -> bool {
        self.state == State::Whole
    }

    /// The memory that it takes by now.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The body as far as it is there, without its framing.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Room for what arrived. It grows twofold, as a vector does, but never past what is announced.
    fn reserve(&mut self, arrived_bytes: usize, left_bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < arrived_bytes {
            let twofold = self.bytes.len().max(arrived_bytes);
            self.bytes.reserve_exact(twofold.min(left_bytes));
        }
    }

    /// What comes after this byte of the chunks' framing (RFC 9112 7.1).
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        Ok(match (self.state, byte) {
            (State::Size { line_bytes, value }, b'\r') if line_bytes > 0 => {
                State::SizeEnd { value }
            }
            (State::Size { line_bytes, value }, b';' | b' ' | b'\t') if line_bytes > 0 => {
                self.step_extensions(line_bytes, value, ExtensionPart::BeforeSemicolon, byte)?
            }
            (State::Size { line_bytes, value }, _) if line_bytes < SIZE_DIGITS => {
                let digit = char::from(byte)
                    .to_digit(16)
                    .and_then(|digit| usize::try_from(digit).ok())
                    .ok_or(BAD_SIZE)?;
                State::Size {
                    line_bytes: line_bytes + 1,
                    // Sixteen digits fit; where they do not, the size is past any limit.
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
                if value > self.limit_bytes - self.bytes.len() {
                    return Err(Refusal::LargeBody);
                }
                State::Data(value)
            }
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size {
                line_bytes: 0,
                value: 0,
            },
            (State::DataReturn | State::DataEnd, _) => {
                return Err(Refusal::Malformed("A chunk does not end where it says."));
            }
            (State::LastEnd, b'\n') => State::Whole,
            (State::SizeEnd { .. } | State::LastEnd, _) => {
                return Err(Refusal::Malformed(
                    "A line of the chunks does not end in CR LF.",
                ));
            }
            (_, byte) => self.step_trailer(byte)?,
        })
    }

    /// Extensions are checked, and ignored (RFC 9112 7.1.1).
    fn step_extensions(
        &mut self,
        line_bytes: usize,
        value: usize,
        part: ExtensionPart,
        byte: u8,
    ) -> Result<State, Refusal> {
        self.extension_bytes += 1;
        if line_bytes >= SIZE_LINE_BYTES || self.extension_bytes > EXTENSION_BYTES {
            return Err(Refusal::Malformed("The chunk extensions are too long."));
        }
        Ok(State::Extensions {
            line_bytes: line_bytes + 1,
            value,
            part: part.step(byte).ok_or(BAD_EXTENSION)?,
        })
    }

    /// Trailers are checked, and dropped (RFC 9110 6.5.1).
    fn step_trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES {
            return Err(Refusal::LargeHead);
        }
        Ok(match (self.state, byte) {
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_field_byte(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            _ => return Err(Refusal::Malformed("A trailer field is malformed.")),
        })
    }
}

const BAD_SIZE: Refusal = Refusal::Malformed("A chunk's size is malformed.");
const BAD_EXTENSION: Refusal = Refusal::Malformed("A chunk's extension is malformed.");
