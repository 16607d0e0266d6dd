//! Names that clients give to containers and execs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The ID of a container or of an exec: 1 to 128 of `A-Za-z0-9_.-`, the first a letter or digit, so
/// that it is a file name and never a path. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Arc<str>);

impl Id {
    /// Parse an ID; the text back where it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric();
        let good = text.len() <= 128
            && text.bytes().next().is_some_and(letter)
            && text
                .bytes()
                .all(|byte| letter(byte) || b"_.-".contains(&byte));
        if good {
            Ok(Self(Arc::from(text)))
        } else {
            Err(text.to_owned())
        }
    }

    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|text| {
            serde::de::Error::custom(format!(
                "{text:?} is no ID: use 1 to 128 of A-Z a-z 0-9 _ . -, the first a letter or digit"
            ))
        })
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A process that clients can name: a container's first, or an exec.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Target {
    /// The container.
    pub container: Id,
    /// The exec within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Id>,
}

impl Target {
    /// A container's first process.
    #[must_use]
    pub fn container(container: Id) -> Self {
        Self {
            container,
            exec: None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "container {}", self.container),
            Some(exec) => write!(f, "exec {exec} of container {}", self.container),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "0", "web-1", "A_b.c", &"f".repeat(128)] {
            assert_eq!(Id::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a\0b",
            "a b",
            "\u{e4}",
            &"f".repeat(129),
        ] {
            assert!(Id::parse(bad).is_err(), "{bad:?}");
        }
    }
}
