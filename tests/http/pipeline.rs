//! Pipelined requests: the responses do not depend on how the bytes are split on the way.

use std::net::SocketAddr;

use crate::support::{Client, echo, limits, start};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A valid request, and what is needed to parse its response.
#[derive(Clone, Debug)]
struct Sent {
    bytes: Vec<u8>,
    method: &'static str,
    /// Where the body begins, if the request expects 100 Continue.
    continues_at: Option<usize>,
}

/// The framing of a body.
#[derive(Clone, Debug)]
enum Body {
    None,
    Length,
    /// The maximum size of a chunk, whether chunks have an extension, and whether there are trailers.
    Chunks(usize, bool, bool),
}

fn bodies() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::None),
        Just(Body::Length),
        (1_usize..2_000, any::<bool>(), any::<bool>()).prop_map(
            |(most, is_extended, has_trailers)| Body::Chunks(most, is_extended, has_trailers)
        ),
    ]
}

fn requests() -> impl Strategy<Value = Sent> {
    let methods = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);
    let fields = vec("[A-Z][a-z-]{0,20}: ?[ -~]{0,40}", 0..5);
    let data = prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 0..5_000)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let target = "/[a-z0-9/.%-]{0,30}(\\?[a-z=&]{0,20})?";
    (methods, target, fields, bodies(), data, flags).prop_map(
        |(method, target, fields, body, data, (is_old, expects, is_padded))| {
            // HTTP/1.0 has no chunks, and keeps connections open only on request.
            let is_old = is_old && !matches!(body, Body::Chunks(..));
            let version = if is_old { "1.0" } else { "1.1" };
            let padding = if is_padded { "\r\n" } else { "" };
            let mut head = format!("{padding}{method} {target} HTTP/{version}\r\nHost: a\r\n");
            for field in fields {
                // With a prefix, so that the name is never one that concerns the framing.
                head.push_str(&format!("X-{field}\r\n"));
            }
            if is_old {
                head.push_str("Connection: keep-alive\r\n");
            }
            let mut sent_body = Vec::new();
            match body {
                Body::None => {}
                Body::Length => {
                    head.push_str(&format!("Content-Length: {}\r\n", data.len()));
                    sent_body = data;
                }
                Body::Chunks(most, is_extended, has_trailers) => {
                    head.push_str("Transfer-Encoding: chunked\r\n");
                    let extension = if is_extended { ";a=\"b\"" } else { "" };
                    for chunk in data.chunks(most) {
                        let size = format!("{:x}{extension}\r\n", chunk.len());
                        sent_body.extend([size.as_bytes(), chunk, b"\r\n"].concat());
                    }
                    let trailers = if has_trailers {
                        "A: b\r\nHost: c\r\n"
                    } else {
                        ""
                    };
                    sent_body.extend(format!("0{extension}\r\n{trailers}\r\n").bytes());
                }
            }
            let continues = expects && !is_old && !sent_body.is_empty();
            if continues {
                head.push_str("Expect: 100-continue\r\n");
            }
            head.push_str("\r\n");
            Sent {
                method,
                continues_at: continues.then_some(head.len()),
                bytes: [head.into_bytes(), sent_body].concat(),
            }
        },
    )
}

/// Sends the requests in pieces that end at these places, and returns the responses without Date.
fn ask(address: SocketAddr, requests: &[Sent], places: &[usize]) -> Vec<String> {
    let bytes: Vec<u8> = requests
        .iter()
        .flat_map(|sent| sent.bytes.clone())
        .collect();
    let mut client = Client::connect(address);
    let mut from = 0;
    for to in places {
        client.send(&bytes[from..*to]);
        // Sometimes the server reads before the next piece arrives, sometimes not.
        std::thread::yield_now();
        from = *to;
    }
    client.send(&bytes[from..]);
    client.send_no_more();
    let mut responses = Vec::new();
    for sent in requests {
        let response = loop {
            let response = client
                .receive_for(sent.method == "HEAD")
                .expect("an response");
            // It is not sent if the body has arrived already, which depends on the splitting (RFC 9110 10.1.1).
            if response.status != 100 {
                break response;
            }
            assert!(sent.continues_at.is_some());
        };
        let fields = response.headers.iter().filter(|(name, _)| name != "Date");
        let fields: Vec<_> = fields.collect();
        responses.push(format!(
            "{} {fields:?} {}",
            response.status,
            response.text()
        ));
    }
    assert!(client.is_closed(), "more than {} responses", requests.len());
    responses
}

#[test]
fn pipeline_split_anywhere_returns_the_same_responses() {
    let server = start(limits(), echo);
    let pipelines = (
        vec(requests(), 1..8),
        vec(any::<Index>(), 0..12),
        any::<bool>(),
    );
    proptest!(ProptestConfig::with_cases(400), |((requests, places, is_whole_at_ends) in pipelines)| {
        let whole = ask(server.address, &requests, &[]);
        for response in &whole {
            prop_assert!(response.starts_with("200 "), "{response}");
        }
        let length = requests.iter().map(|sent| sent.bytes.len()).sum::<usize>();
        let mut places: Vec<_> = places.iter().map(|place| place.index(length)).collect();
        // Splits at the ends of requests and of heads are the most likely to be mishandled.
        if is_whole_at_ends {
            let mut end = 0;
            for sent in &requests {
                places.extend(sent.continues_at.map(|at| end + at));
                end += sent.bytes.len();
                places.extend([end - 1, end]);
            }
        }
        places.sort_unstable();
        prop_assert_eq!(ask(server.address, &requests, &places), whole);
    });
}
