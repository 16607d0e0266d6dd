//! The version 1 device controller: rules written one after another.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Kind, LaunchError};
use crate::spec::DeviceRule;

/// A rule in the controller's words, with the file it goes to.
pub(super) fn line(rule: &DeviceRule) -> Result<(&'static str, String), LaunchError> {
    let file = if rule.allow {
        "devices.allow"
    } else {
        "devices.deny"
    };
    let part = |number: Option<i64>| {
        number
            .filter(|number| *number >= 0)
            .map_or_else(|| "*".to_owned(), |number| number.to_string())
    };
    if let Some(letter) = rule.access.chars().find(|letter| !"rwm".contains(*letter)) {
        return Err(LaunchError::new(
            Kind::InvalidArgument,
            format!("device rule: access {letter:?} is none of r, w and m"),
        ));
    }
    let access = if rule.access.is_empty() {
        "rwm"
    } else {
        &rule.access
    };
    let text = match rule.kind.as_str() {
        "" | "a"
            if rule.major.is_none_or(|major| major < 0)
                && rule.minor.is_none_or(|minor| minor < 0) =>
        {
            "a".to_owned()
        }
        "c" | "u" => format!("c {}:{} {access}", part(rule.major), part(rule.minor)),
        "b" => format!("b {}:{} {access}", part(rule.major), part(rule.minor)),
        other => {
            return Err(LaunchError::new(
                Kind::InvalidArgument,
                format!("device rule: type {other:?} is none of a, b and c"),
            ));
        }
    };
    Ok((file, text))
}

pub(super) fn set(directory: &Path, rules: &[DeviceRule]) -> Result<(), LaunchError> {
    let mut opened: Option<(&str, File)> = None;
    for rule in rules {
        let (name, text) = line(rule)?;
        let wrong = |error: &io::Error| {
            let errno = error.raw_os_error().unwrap_or(0);
            LaunchError::new(
                crate::plan::kind(errno),
                format!(
                    "write {text:?} to {}: {}",
                    directory.join(name).display(),
                    crate::plan::errno_text(errno)
                ),
            )
        };
        let mut file = match opened.take() {
            Some((before, file)) if before == name => file,
            _ => OpenOptions::new()
                .write(true)
                .open(directory.join(name))
                .map_err(|error| wrong(&error))?,
        };
        // One rule a write: the controller reads no further.
        file.write_all(text.as_bytes())
            .map_err(|error| wrong(&error))?;
        opened = Some((name, file));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_the_controllers_words() {
        let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
            allow,
            kind: kind.to_owned(),
            major,
            minor,
            access: access.to_owned(),
        };
        let cases = [
            (rule(false, "", None, None, "rwm"), "devices.deny", "a"),
            (
                rule(true, "c", Some(1), Some(3), "rwm"),
                "devices.allow",
                "c 1:3 rwm",
            ),
            (
                rule(true, "c", Some(136), None, "rw"),
                "devices.allow",
                "c 136:* rw",
            ),
            (
                rule(true, "b", Some(-1), Some(-1), "m"),
                "devices.allow",
                "b *:* m",
            ),
        ];
        for (rule, file, text) in cases {
            assert_eq!(line(&rule).expect(text), (file, text.to_owned()));
        }
        assert!(line(&rule(true, "c", None, None, "x")).is_err());
    }
}
