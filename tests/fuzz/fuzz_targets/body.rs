//! Any bytes as a request's body, of any framing: the pieces in which they come change nothing, and what is held is
//! never more than came or than is allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use movies_api::server::body::Decoder;
use movies_api::server::refusal::Refusal;
use movies_api::server::request::Framing;

const LIMIT_BYTES: usize = 100;

fuzz_target!(|input: (Option<u8>, u8, &[u8])| {
    let (length, piece_bytes, bytes) = input;
    let framing = length.map_or(Framing::Chunked, |length| Framing::Length(length.into()));
    let whole = decode(framing, bytes, bytes.len().max(1));
    assert_eq!(whole, decode(framing, bytes, 1));
    assert_eq!(
        whole,
        decode(framing, bytes, usize::from(piece_bytes).max(1))
    );
    let Ok((taken, body, is_complete)) = whole else {
        return;
    };
    assert!(taken <= bytes.len() && body.len() <= taken && body.len() <= LIMIT_BYTES);
    assert!(is_complete || taken == bytes.len());
    match framing {
        Framing::Length(length) => {
            assert_eq!(body, bytes[..taken]);
            assert_eq!(is_complete, length == taken as u64);
        }
        Framing::Chunked if is_complete => {
            let one_chunk = [
                format!("{:x}\r\n", body.len()).as_bytes(),
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat();
            let sent = if body.is_empty() {
                &b"0\r\n\r\n"[..]
            } else {
                &one_chunk
            };
            assert_eq!(
                decode(framing, sent, sent.len()),
                Ok((sent.len(), body, true))
            );
        }
        Framing::Chunked => {}
    }
});

/// How many bytes were taken, the body, and whether it is complete, when the bytes come in pieces of this size.
fn decode(
    framing: Framing,
    bytes: &[u8],
    piece_bytes: usize,
) -> Result<(usize, Vec<u8>, bool), Refusal> {
    let mut decoder = Decoder::new(framing, LIMIT_BYTES)?;
    let mut taken = 0;
    for piece in bytes.chunks(piece_bytes) {
        let was_complete = decoder.is_complete();
        let more = decoder.decode(piece)?;
        assert!(more <= piece.len());
        assert!(!was_complete || more == 0, "what follows a body was taken");
        taken += more;
    }
    let is_complete = decoder.is_complete();
    Ok((taken, decoder.into_bytes(), is_complete))
}
