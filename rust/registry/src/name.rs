//! What may be asked for: names of repositories and tags. They end up in the paths of requests.

use crate::error::{RegistryError, quote};

/// `<name>` of the distribution specification, section pulling manifests.
pub(crate) fn check_repository(name: &str) -> Result<(), RegistryError> {
    let expected = "expected lower-case letters and digits, joined by '.', '_', '__' or dashes, in parts between slashes";
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().copied().is_some_and(alphanumeric)
            && bytes.last().copied().is_some_and(alphanumeric);
        let joined = part
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
        ends && joined.into_iter().all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        })
    };
    if name.len() <= 255 && name.split('/').all(part) {
        Ok(())
    } else {
        Err(RegistryError::Malformed {
            what: "repository name",
            name: quote(name),
            expected,
        })
    }
}

/// `<reference>` of the same section, where it is a tag.
pub(crate) fn check_tag(tag: &str) -> Result<(), RegistryError> {
    let expected =
        "expected at most 128 letters, digits, '_', '.' and '-', the first neither '.' nor '-'";
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(RegistryError::Malformed {
            what: "tag",
            name: quote(tag),
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for name in [
            "debian",
            "library/debian",
            "a/b/c",
            "a.b",
            "a_b",
            "a__b",
            "a---b",
            "0/1",
        ] {
            assert!(check_repository(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a.-b",
            ".a",
            "a-",
            "../etc",
            "a b",
            "a\r\nb",
            "a?b",
            "\u{e9}",
            &"a".repeat(256),
        ] {
            assert!(check_repository(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn tags() {
        for tag in ["latest", "1.2-3_x", "_x", "A"] {
            assert!(check_tag(tag).is_ok(), "{tag}");
        }
        for tag in ["", ".", "-a", "a/b", "a b", "..", "a\n", &"a".repeat(129)] {
            assert!(check_tag(tag).is_err(), "{tag:?} was accepted");
        }
    }
}
