//! The fields of accounts, with the validators of Django 5.2 for usernames, e-mail addresses and passwords.
use std::net::IpAddr;

use super::options::inside_brackets;
use super::validation::fields::CharField;
use crate::auth::password;
use crate::python_text;

/// Unique and case-sensitive.
pub const USERNAME: CharField = CharField {
    max_length: Some(150),
    validate_first: validate_username,
    ..CharField::new("username")
};

pub const PASSWORD: CharField = CharField {
    validate_first: password::validate,
    ..CharField::new("password")
};

/// Must equal the password, to catch typing errors.
pub const PASSWORD_CONFIRMATION: CharField = CharField::new("password2");

/// Unique.
pub const EMAIL: CharField = CharField {
    invalid: INVALID_EMAIL,
    max_length: Some(254),
    validate_last: validate_email,
    ..CharField::new("email")
};

pub const FIRST_NAME: CharField = CharField {
    required: false,
    allow_blank: true,
    max_length: Some(150),
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

pub const INVALID_EMAIL: &str = "Enter a valid email address.";

/// Django's UnicodeUsernameValidator: letters and digits of any script, and `@.+-_`.
fn validate_username(username: &str) -> Vec<&'static str> {
    let is_allowed =
        |character| python_text::is_letter_or_number(character) || "@.+-_".contains(character);
    match username.chars().all(is_allowed) {
        true => Vec::new(),
        false => vec![
            "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters.",
        ],
    }
}

fn validate_email(email: &str) -> Vec<&'static str> {
    match is_valid_email(email) {
        true => Vec::new(),
        false => vec![INVALID_EMAIL],
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

/// ASCII in quotation marks, without NUL and line ends; a backslash precedes white space, quotation marks and backslashes.
fn is_quoted_string(local: &str) -> bool {
    let inner = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut is_escaped = false;
    let mut is_allowed = |character: char| {
        let follows_backslash = is_escaped;
        is_escaped = character == '\\' && !follows_backslash;
        character.is_ascii()
            && !"\0\n\r".contains(character)
            && (follows_backslash || !"\t \"".contains(character))
    };
    inner.is_some_and(|inner| inner.chars().all(&mut is_allowed)) && !is_escaped
}

/// At least two labels of at most 63 characters, without a hyphen at either end. The last label has at least two characters
/// and no digits, unless it is punycode. Letters are those of ASCII, and U+00A1 to U+FFFF.
fn is_domain_name(domain: &str) -> bool {
    let is_label_character = |character: char| {
        character.is_ascii_alphanumeric()
            || character == '-'
            || ('\u{a1}'..='\u{ffff}').contains(&character)
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_label_character)
    };
    let Some((rest, last)) = domain.rsplit_once('.') else {
        return false;
    };
    let is_punycode = last
        .to_ascii_lowercase()
        .strip_prefix("xn--")
        .is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
    let has_digit = last.contains(|character: char| character.is_ascii_digit());
    rest.split('.').all(is_label)
        && is_label(last)
        && (is_punycode || last.chars().count() >= 2 && !has_digit)
}

fn is_address_literal(domain: &str) -> bool {
    inside_brackets(domain).is_some_and(|address| address.parse::<IpAddr>().is_ok())
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
