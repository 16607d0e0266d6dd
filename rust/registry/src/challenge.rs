//! The grammar of `WWW-Authenticate` (RFC 9110, section 11): several challenges may share one header.

/// One challenge: a scheme with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Every challenge of one header value. What is malformed ends the list; what came before it counts.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return challenges;
        }
        // A word before "=" is a parameter of the challenge at hand, any other word begins a challenge.
        let value = after
            .trim_start_matches([' ', '\t'])
            .strip_prefix('=')
            .filter(|value| !value.starts_with('='));
        match (value, challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = parameter_value(value.trim_start_matches([' ', '\t']))
                else {
                    return challenges;
                };
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
                rest = skip_token68(after);
            }
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)));
    text.split_at(end.unwrap_or(text.len()))
}

/// Some schemes carry one blob of base64 (`Negotiate abc==`) in place of parameters.
fn skip_token68(after: &str) -> &str {
    let text = after.trim_start_matches([' ', '\t']);
    let end = text.find([',', ' ']).unwrap_or(text.len());
    let word = &text[..end];
    let blob = !word.is_empty()
        && word
            .trim_end_matches('=')
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
        && (word.ends_with('=') || !word.contains('='))
        && !text[end..].trim_start().starts_with('=');
    if blob { &text[end..] } else { after }
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Unquoted values should be tokens; URLs and scopes are met all the same.
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> Vec<String> {
        let show = |challenge: &Challenge| {
            let parameters: Vec<_> = challenge
                .parameters
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("{} {}", challenge.scheme, parameters.join("|"))
        };
        parse(header).iter().map(show).collect()
    }

    #[test]
    fn table() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
                vec![
                    "bearer realm=https://auth.example/token|service=r.example|scope=repository:a/b:pull,push",
                ],
            ),
            (
                r#"Basic realm="x", Bearer realm="https://y/", service=z"#,
                vec!["basic realm=x", "bearer realm=https://y/|service=z"],
            ),
            (
                r#"Negotiate, BASIC Realm="a \"b\" c""#,
                vec!["negotiate ", r#"basic realm=a "b" c"#],
            ),
            (
                r#"Negotiate YWJj==, Basic realm="x""#,
                vec!["negotiate ", "basic realm=x"],
            ),
            (
                "Bearer realm=https://y/token,service=s",
                vec!["bearer realm=https://y/token|service=s"],
            ),
            (
                r#"Bearer realm = "https://y/" , service = "s""#,
                vec!["bearer realm=https://y/|service=s"],
            ),
            (r#"Basic realm="unterminated"#, vec!["basic "]),
            (r#"realm="x""#, vec![]),
            ("", vec![]),
            ("\u{f6}\u{f6}", vec![]),
            ("Basic", vec!["basic "]),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }

    #[test]
    fn ends_on_any_input() {
        let pieces = [
            "Bearer", " ", ",", "=", "\"", "\\", "realm", "a==", "\u{fc}", "\t",
        ];
        for a in pieces {
            for b in pieces {
                for c in pieces {
                    for d in pieces {
                        parse(&format!("{a}{b}{c}{d}"));
                    }
                }
            }
        }
    }
}
