//! A connection string in pieces: names and values, from either of libpq's two forms and back into it.
use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use postgres::Config;

/// The names and values of the string, and what of it is not such a pair: a URL up to its question mark.
pub fn split(text: &str) -> Result<(Vec<(String, String)>, String), String> {
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return Ok((split_pairs(text)?, String::new()));
    }
    // A password may hold a question mark.
    let host = text.find('@').unwrap_or(0);
    let query = text.get(host..).and_then(|rest| rest.find('?'));
    let (base, query) = match query {
        Some(at) => text.split_at(host + at),
        None => (text, ""),
    };
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(Cow::into_owned);
    let mut words = Vec::new();
    for pair in query.split(['?', '&']).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
            return Err("it is not UTF-8".into());
        };
        words.push((name, value));
    }
    Ok((words, base.to_owned()))
}

/// `name=value` with spaces between, values in quotes where they hold some; a backslash takes the next as it is.
fn split_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or("a value is missing")?;
        let value = value.trim_start();
        let is_quoted = value.starts_with('\'');
        let mut read = String::new();
        let mut letters = value.char_indices().skip(usize::from(is_quoted));
        let end = loop {
            match letters.next() {
                Some((_, '\\')) => read.extend(letters.next().map(|(_, letter)| letter)),
                Some((at, '\'')) if is_quoted => break at + 1,
                Some((at, letter)) if !is_quoted && letter.is_whitespace() => break at,
                Some((_, letter)) => read.push(letter),
                None if is_quoted => return Err("a quote is not closed".into()),
                None => break value.len(),
            }
        };
        words.push((name.trim_end().to_owned(), read));
        rest = value.get(end..).unwrap_or_default().trim_start();
    }
    Ok(words)
}

/// What the client library makes of the string without our words.
pub fn parse(base: &str, words: &[(String, String)]) -> Result<Config, String> {
    let told = |error: postgres::Error| {
        let cause = std::error::Error::source(&error);
        cause.map_or_else(|| error.to_string(), ToString::to_string)
    };
    let mut pairs = String::new();
    for (name, value) in words {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        pairs += &format!("{name}='{quoted}' ");
    }
    if base.is_empty() {
        return pairs.parse().map_err(told);
    }
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let query = words
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    let query: Vec<_> = query.collect();
    format!("{base}?{}", query.join("&")).parse().map_err(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        let read = |text| {
            let (words, base) = split(text)?;
            assert_eq!(base, "");
            Ok::<_, String>(
                words
                    .into_iter()
                    .map(|(name, value)| format!("{name}|{value}"))
                    .collect::<Vec<_>>(),
            )
        };
        let cases = [
            ("", vec![]),
            (" a=b  c = d ", vec!["a|b", "c|d"]),
            (r"a='b c' d=''", vec!["a|b c", "d|"]),
            (r"a='it\'s \\' b=c\ d", vec![r"a|it's \", "b|c d"]),
            ("a=é='1", vec!["a|é='1"]),
        ];
        for (text, words) in cases {
            assert_eq!(read(text).unwrap(), words, "{text}");
        }
        assert!(read("a='b").is_err());
        assert!(read("word").is_err());
    }

    #[test]
    fn a_password_in_a_url_may_hold_a_question_mark() {
        let (words, base) = split("postgres://me:a?b@host/db?c=d%20e&f").unwrap();
        assert_eq!(base, "postgres://me:a?b@host/db");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(words, [pair("c", "d e"), pair("f", "")]);
    }
}
