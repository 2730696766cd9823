//! What a registry asks for with status 401: the `WWW-Authenticate` header (RFC 9110, 11.6.1).
//! Pure.

use std::collections::BTreeMap;

/// The kinds of authorisation that registries ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user's name and password with every request.
    Basic,
    /// A token that an authorisation server gives.
    Bearer {
        /// Its URL.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The first challenge that can be met, a token before a password.
    pub(super) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for (scheme, mut parameters) in headers.into_iter().flat_map(parse) {
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameters.remove("realm")
            {
                return Some(Challenge::Bearer {
                    realm,
                    service: parameters.remove("service"),
                    scope: parameters.remove("scope"),
                });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
        basic
    }
}

/// Schemes with their parameters, as far as the header makes sense.
fn parse(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest
            .find(|c: char| c.is_ascii_whitespace() || c == '=' || c == ',')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(after) = after.trim_start().strip_prefix('=') else {
            found.push((word.to_owned(), BTreeMap::new()));
            rest = after;
            continue;
        };
        let Some((value, after)) = value(after.trim_start()) else {
            return found;
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.insert(word.to_ascii_lowercase(), value);
        }
        rest = after;
    }
}

/// A token, or a string in quotes, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c.is_ascii_whitespace() || c == ',')
            .unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_send() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::choose([hub]),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        let basic = r#"Basic realm="a \"quoted\", registry""#;
        assert_eq!(Challenge::choose([basic]), Some(Challenge::Basic));
        let both = Challenge::choose(["basic realm=x, BEARER Realm = \"https://a/\", service=s"]);
        assert!(
            matches!(both, Some(Challenge::Bearer { ref realm, ref service, scope: None })
                if realm == "https://a/" && service.as_deref() == Some("s")),
            "{both:?}"
        );
    }

    #[test]
    fn rubbish_is_no_challenge() {
        for text in [
            "",
            ",,,",
            "=",
            "Bearer",
            "Negotiate abc==",
            "Bearer realm=\"open",
            "\"\"",
        ] {
            assert_eq!(Challenge::choose([text]), None, "{text}");
        }
    }
}
