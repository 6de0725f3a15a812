//! Why a request or a connection is refused by the server itself: status and sentence. Knows no bytes.
/// Why the server answers in a handler's place. Each closes the connection, since what would follow on it is not
/// known to be a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the framing breaks a rule of RFC 9112 or 9110; with the rule.
    Malformed(&'static str),
    /// 408: the head or the body was not whole within its deadline (RFC 9110 15.5.9).
    Slow,
    /// 413 (RFC 9110 15.5.14).
    LargeBody,
    /// 414 (RFC 9110 15.5.15).
    LongTarget,
    /// 417: an expectation other than 100-continue (RFC 9110 10.1.1).
    Expectation,
    /// 431 (RFC 6585 5).
    LargeHead,
    /// 503: too many connections.
    Crowded,
    /// 503: no worker was free for too long.
    Busy,
    /// 503: the handler did not answer in time.
    Stuck,
    /// 505 (RFC 9110 15.6.6).
    Version,
}

impl Refusal {
    /// The answer's status code.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Slow => 408,
            Refusal::LargeBody => 413,
            Refusal::LongTarget => 414,
            Refusal::Expectation => 417,
            Refusal::LargeHead => 431,
            Refusal::Crowded | Refusal::Busy | Refusal::Stuck => 503,
            Refusal::Version => 505,
        }
    }

    /// The sentence for people. It needs no escaping in JSON.
    pub fn detail(&self) -> &'static str {
        match self {
            Refusal::Malformed(rule) => rule,
            Refusal::Slow => "The request took too long to arrive.",
            Refusal::LargeBody => "The body is too large.",
            Refusal::LongTarget => "The target is too long.",
            Refusal::Expectation => "Only 100-continue can be expected.",
            Refusal::LargeHead => "The head is too large.",
            Refusal::Crowded => "Too many connections, try again later.",
            Refusal::Busy => "Service temporarily unavailable, try again later.",
            Refusal::Stuck => "The answer took too long, try again later.",
            Refusal::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken.",
        }
    }
}
