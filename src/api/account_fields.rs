//! The fields of accounts, with the validators of Django 5.2 for usernames, e-mail addresses and passwords.
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::Message;
use super::validation::fields::{CharField, Validator};
use crate::auth::password;
use crate::python_text;

/// Unique and case-sensitive.
pub const USERNAME: CharField = CharField {
    validators: &[
        Validator::Function(validate_username),
        Validator::MaxLength(150),
        Validator::NoNullCharacters,
    ],
    ..CharField::new("username")
};

pub const PASSWORD: CharField = CharField {
    validators: &[
        Validator::Function(validate_password),
        Validator::NoNullCharacters,
    ],
    ..CharField::new("password")
};

/// Must equal the password, to catch typing errors.
pub const PASSWORD_CONFIRMATION: CharField = CharField::new("password2");

/// Unique.
pub const EMAIL: CharField = CharField {
    invalid: INVALID_EMAIL,
    validators: &[
        Validator::MaxLength(254),
        Validator::NoNullCharacters,
        Validator::Function(validate_email),
    ],
    ..CharField::new("email")
};

pub const FIRST_NAME: CharField = CharField {
    required: false,
    allow_blank: true,
    validators: &[Validator::MaxLength(150), Validator::NoNullCharacters],
    ..CharField::new("first_name")
};

pub const LAST_NAME: CharField = CharField {
    name: "last_name",
    ..FIRST_NAME
};

/// The username of a sign-in, which need not satisfy the rules of a registration.
pub const CREDENTIALS_USERNAME: CharField = CharField::new("username");

/// The password of a sign-in, which need not satisfy the rules of a registration.
pub const CREDENTIALS_PASSWORD: CharField = CharField::new("password");

/// The password that a change of the account is confirmed with, which need not satisfy the rules of a registration.
pub const CURRENT_PASSWORD: CharField = CharField::new("current_password");

/// A token of any type.
pub const TOKEN: CharField = CharField::new("token");

/// A refresh token, to exchange for a new access token or to blacklist.
pub const REFRESH: CharField = CharField::new("refresh");

const INVALID_EMAIL: &str = "Enter a valid email address.";

/// Django's UnicodeUsernameValidator: letters and digits of any script, and `@.+-_`.
fn validate_username(username: &str) -> Vec<Message> {
    let is_allowed =
        |character| python_text::is_letter_or_number(character) || "@.+-_".contains(character);
    if username.chars().all(is_allowed) {
        return Vec::new();
    }
    let message = "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.";
    vec![message.into()]
}

fn validate_password(password: &str) -> Vec<Message> {
    let messages = password::validate(password).into_iter();
    messages.map(Cow::from).collect()
}

fn validate_email(email: &str) -> Vec<Message> {
    if is_valid_email(email) {
        Vec::new()
    } else {
        vec![INVALID_EMAIL.into()]
    }
}

/// Django's EmailValidator: before the @ a dot-atom or a quoted string in ASCII, after it a domain name with a dot,
/// `localhost`, or an IP address in brackets; at most 320 characters (RFC 3696 3).
fn is_valid_email(email: &str) -> bool {
    let Some((local, domain)) = email.rsplit_once('@') else {
        return false;
    };
    email.chars().count() <= 320
        && (is_dot_atom(local) || is_quoted_string(local))
        && (domain == "localhost" || is_domain_name(domain) || is_address_literal(domain))
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

/// At least two labels of at most 63 characters, without a hyphen at either end. The last label has at least two characters
/// and no digits, unless it is punycode. Letters are those of ASCII, and U+00A1 to U+FFFF.
fn is_domain_name(domain: &str) -> bool {
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
    fn email_addresses_that_django_accepts_are_valid() {
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
            assert!(is_valid_email(email), "{email}");
        }
    }

    #[test]
    fn email_addresses_that_django_rejects_are_invalid() {
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
            assert!(!is_valid_email(email), "{email}");
        }
    }

    #[test]
    fn usernames_consist_of_letters_and_digits_of_any_script_without_marks() {
        for username in ["Ann.Lee+1@x-y_z", "Жанна", "日本", "٣", "Ⅷ", "½", "²"] {
            assert!(validate_username(username).is_empty(), "{username}");
        }
        for username in ["a b", "e\u{301}", "🎬", "a\0", "a/b", "a\u{200b}"] {
            assert_eq!(validate_username(username).len(), 1, "{username}");
        }
    }
}
