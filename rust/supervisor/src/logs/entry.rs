//! One entry of a log, whatever form it has on the disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{json, local};
use crate::streams::Stream;

/// How entries are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Format {
    /// Docker's json-file: a line of JSON each.
    #[serde(rename = "json-file")]
    JsonFile,
    /// Docker's local: a protobuf message between its length and its length.
    #[serde(rename = "local")]
    Local,
}

/// Where an entry stands in a line that is longer than one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// The same for all entries of the line.
    pub id: &'a str,
    /// From 1.
    pub ordinal: u32,
    /// Whether the line ends here.
    pub last: bool,
}

/// Some output of a container: a line without its end, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which output.
    pub stream: Stream,
    /// Nanoseconds since the epoch; of a line's first part for all of them.
    pub time: u64,
    /// The text.
    pub line: &'a [u8],
    /// None for a whole line.
    pub part: Option<Part<'a>>,
}

impl Entry<'_> {
    /// Whether a line ends with this entry.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.part.is_none_or(|part| part.last)
    }
}

/// Writes entries in one form, each with the same attributes.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    attributes: Vec<u8>,
    time: (u64, String),
}

impl Encoder {
    /// An encoder of entries that carry these attributes.
    #[must_use]
    pub fn new(format: Format, attributes: &BTreeMap<String, String>) -> Self {
        let attributes = match format {
            Format::JsonFile => json::attributes(attributes),
            Format::Local => local::attributes(attributes),
        };
        Self {
            format,
            attributes,
            time: (0, super::rfc3339(0)),
        }
    }

    /// Append an entry.
    pub fn write(&mut self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        match self.format {
            Format::JsonFile => {
                // Many entries come at once and have the same time.
                if self.time.0 != entry.time {
                    self.time = (entry.time, super::rfc3339(entry.time));
                }
                json::entry(out, entry, &self.attributes, &self.time.1);
            }
            Format::Local => local::entry(out, entry, &self.attributes),
        }
    }
}
