//! What a username, an e-mail address and a password may be: Django 5.2's validators, as fields of a body.
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::fields::{NOT_A_STRING, Rule, TextField};
use crate::auth::password;
use crate::python_text;

/// Unique, case-sensitive, kept as sent.
pub const USERNAME: TextField = TextField {
    name: "username",
    wrong_kind: NOT_A_STRING,
    may_be_blank: false,
    rules: &[
        Rule::Form(username_form),
        Rule::AtMost(150),
        Rule::WithoutNull,
    ],
};

/// Judged by the password validators.
pub const PASSWORD: TextField = TextField {
    name: "password",
    wrong_kind: NOT_A_STRING,
    may_be_blank: false,
    rules: &[Rule::Form(password_strength), Rule::WithoutNull],
};

/// The password once more, against slips.
pub const PASSWORD_AGAIN: TextField = TextField {
    name: "password2",
    ..PLAIN
};

/// Unique, kept as sent.
pub const EMAIL: TextField = TextField {
    name: "email",
    wrong_kind: INVALID_EMAIL,
    may_be_blank: false,
    rules: &[Rule::AtMost(254), Rule::WithoutNull, Rule::Form(email_form)],
};

/// May be left out or blank.
pub const FIRST_NAME: TextField = TextField {
    name: "first_name",
    wrong_kind: NOT_A_STRING,
    may_be_blank: true,
    rules: &[Rule::AtMost(150), Rule::WithoutNull],
};

/// May be left out or blank.
pub const LAST_NAME: TextField = TextField {
    name: "last_name",
    ..FIRST_NAME
};

/// The name of one who signs in: whatever was registered was judged then.
pub const SIGN_IN_NAME: TextField = TextField {
    name: "username",
    ..PLAIN
};

/// The password of one who signs in.
pub const SIGN_IN_PASSWORD: TextField = TextField {
    name: "password",
    ..PLAIN
};

/// The token that is exchanged for a new access token.
pub const REFRESH: TextField = TextField {
    name: "refresh",
    ..PLAIN
};

const PLAIN: TextField = TextField {
    name: "",
    wrong_kind: NOT_A_STRING,
    may_be_blank: false,
    rules: &[Rule::WithoutNull],
};

const INVALID_EMAIL: &str = "Enter a valid email address.";

/// UnicodeUsernameValidator: letters and digits of any script and `@.+-_`.
fn username_form(username: &str) -> Vec<Cow<'static, str>> {
    let is_allowed =
        |character| python_text::is_letter_or_number(character) || "@.+-_".contains(character);
    if username.chars().all(is_allowed) {
        return Vec::new();
    }
    let message = "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.";
    vec![message.into()]
}

fn password_strength(password: &str) -> Vec<Cow<'static, str>> {
    let weaknesses = password::find_weaknesses(password).into_iter();
    weaknesses.map(Cow::from).collect()
}

fn email_form(email: &str) -> Vec<Cow<'static, str>> {
    if is_email(email) {
        Vec::new()
    } else {
        vec![INVALID_EMAIL.into()]
    }
}

/// EmailValidator: a dot-atom or a quoted string in ASCII, and a domain with a dot, `localhost` or a bracketed
/// address; at most 320 characters (RFC 3696 3).
fn is_email(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else {
        return false;
    };
    email.chars().count() <= 320
        && (is_dot_atom(local) || is_quoted_string(local))
        && (domain == "localhost" || is_domain(domain) || is_address_literal(domain))
}

fn is_dot_atom(local: &str) -> bool {
    let is_atom_character = |character: char| {
        character.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{}|~-".contains(character)
    };
    local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_atom_character))
}

fn is_quoted_string(local: &str) -> bool {
    let inner = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return false;
    };
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let is_allowed = match character {
            '\\' => matches!(
                characters.next(),
                Some('\u{1}'..='\u{9}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{7f}')
            ),
            '\u{1}'..='\u{8}'
            | '\u{b}'
            | '\u{c}'
            | '\u{e}'..='\u{1f}'
            | '!'
            | '#'..='['
            | ']'..='\u{7f}' => true,
            _ => false,
        };
        if !is_allowed {
            return false;
        }
    }
    true
}

/// Two labels or more, none with a hyphen at an end, none over 63 characters; the last has two characters or more
/// and no digits, unless it is in punycode. Letters past ASCII are those of U+00A1 to U+FFFF.
fn is_domain(domain: &str) -> bool {
    let is_letter = |character: char| {
        character.is_ascii_alphabetic() || ('\u{a1}'..='\u{ffff}').contains(&character)
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| {
                is_letter(character) || character.is_ascii_digit() || character == '-'
            })
    };
    let Some((rest, last)) = domain.rsplit_once('.') else {
        return false;
    };
    let is_punycode = last
        .get(..4)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
        && last
            .bytes()
            .skip(4)
            .all(|byte| byte.is_ascii_alphanumeric())
        && last.len() > 4;
    rest.split('.').all(is_label)
        && is_label(last)
        && (is_punycode
            || (last.chars().count() >= 2
                && !last.contains(|character: char| character.is_ascii_digit())))
}

fn is_address_literal(domain: &str) -> bool {
    let inner = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner
        .is_some_and(|inner| inner.parse::<Ipv4Addr>().is_ok() || inner.parse::<Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_pass_as_django_s_validator_lets_them() {
        let longest = format!("a@{}.com", "b".repeat(63));
        for email in [
            "a@example.com",
            "a!#$%&'*+/=?^_`{}|~-.b@ex-ample.co",
            "\"a\\ b\"@example.com",
            "\"\"@example.com",
            "a@localhost",
            "a@[127.0.0.1]",
            "a@[::1]",
            "a@bücher.example",
            "a@例え.テスト",
            "a@1.com",
            "a@b.xn--p1ai",
            "a@b.c-d",
            &longest,
        ] {
            assert!(is_email(email), "{email}");
        }
    }

    #[test]
    fn addresses_are_refused_as_django_s_validator_refuses_them() {
        let too_long = format!("a@{}.com", "b".repeat(64));
        for email in [
            "",
            "a",
            "a@",
            "@example.com",
            "a@b",
            "a b@example.com",
            "\"a b\"@example.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a@b@example.com",
            "é@example.com",
            "a@example.c",
            "a@exa_mple.com",
            "a@-b.com",
            "a@b-.com",
            "a@b.-com",
            "a@b.com-",
            "a@b..com",
            "a@b.com.",
            "a@b.c0m",
            "a@[300.1.1.1]",
            "a@[127.0.0.01]",
            "a@[x]",
            "a@b.xn--",
            "a@😀.com",
            "a@LOCALHOST",
            &too_long,
        ] {
            assert!(!is_email(email), "{email}");
        }
    }

    #[test]
    fn names_hold_letters_and_digits_of_any_script_but_no_marks() {
        for username in ["Ann.Lee+1@x-y_z", "Жанна", "日本", "٣", "Ⅷ", "½", "²"] {
            assert!(username_form(username).is_empty(), "{username}");
        }
        for username in ["a b", "e\u{301}", "🎬", "a\0", "a/b", "a\u{200b}"] {
            assert_eq!(username_form(username).len(), 1, "{username}");
        }
    }
}
