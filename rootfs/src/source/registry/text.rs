//! What registries say, made fit to be repeated, and what they are sent in forms. Pure.

use serde::Deserialize;

/// Most characters of a registry's words that are repeated.
const WORDS: usize = 200;

/// A registry's explanation, out of its JSON if it is that, on one line and not long.
pub(super) fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { errors }) => {
            let each = errors
                .iter()
                .map(|Entry { code, message }| match message.as_str() {
                    "" => code.clone(),
                    message => message.to_owned(),
                });
            each.collect::<Vec<_>>().join("; ")
        }
        // Pages for people say nothing that the status does not.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = text.split_whitespace().collect::<Vec<_>>().join(" ");
    printable
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS)
        .collect()
}

/// `application/x-www-form-urlencoded`.
pub(super) fn form(fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_short_and_printable() {
        let json = br#"{"errors":[{"code":"DENIED","message":"no\n way"},{"code":"UNKNOWN"}]}"#;
        assert_eq!(words(json), "no way; UNKNOWN");
        assert_eq!(words(b"<html>Bad Gateway</html>"), "");
        assert_eq!(words(b"try \x1b[31mlater\n"), "try [31mlater");
        assert_eq!(words(&[b'x'; 1000]).len(), WORDS);
    }

    #[test]
    fn forms_are_escaped() {
        let fields = [
            ("scope", "repository:a/b:pull".to_owned()),
            ("x", "ä&".to_owned()),
        ];
        assert_eq!(form(&fields), "scope=repository%3Aa%2Fb%3Apull&x=%C3%A4%26");
    }
}
