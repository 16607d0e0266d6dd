//! Flags as Go's libraries take them: `-b X`, `--b X`, `--bundle=X`, all before the first plain argument.

use std::ffi::OsString;

use crate::error::{Kind, LaunchError};

/// One flag that a verb knows.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    name: &'static str,
    short: Option<char>,
    takes_value: bool,
}

impl Flag {
    /// A flag that is there or not.
    pub const fn switch(name: &'static str) -> Self {
        Self {
            name,
            short: None,
            takes_value: false,
        }
    }

    /// A flag with a value.
    pub const fn value(name: &'static str) -> Self {
        Self {
            name,
            short: None,
            takes_value: true,
        }
    }

    /// The same with a short name.
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }
}

/// Flags found, in order.
#[derive(Debug, Default)]
pub struct Args {
    found: Vec<(&'static str, String)>,
}

impl Args {
    /// The last value of a flag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.found
            .iter()
            .rev()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a flag.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.found
            .iter()
            .filter(move |(found, _)| *found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }
}

fn wrong(message: String) -> LaunchError {
    LaunchError::new(Kind::InvalidArgument, message)
}

/// Take flags off the front of the arguments: those found, and what follows them.
pub fn parse<'a>(
    known: &[Flag],
    arguments: &'a [OsString],
) -> Result<(Args, &'a [OsString]), LaunchError> {
    let mut args = Args::default();
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        let Some(text) = argument
            .to_str()
            .filter(|text| text.len() > 1 && text.starts_with('-'))
        else {
            break;
        };
        at += 1;
        if text == "--" {
            break;
        }
        let name = text.trim_start_matches('-');
        let (name, mut value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let flag = known
            .iter()
            .find(|flag| {
                flag.name == name || flag.short.is_some_and(|letter| name.chars().eq([letter]))
            })
            .ok_or_else(|| wrong(format!("unknown flag {text:?}")))?;
        if flag.takes_value && value.is_none() {
            let next = arguments
                .get(at)
                .ok_or_else(|| wrong(format!("flag {text:?} needs a value")))?;
            value = Some(
                next.to_str()
                    .ok_or_else(|| wrong(format!("the value of {text:?} is no UTF-8")))?
                    .to_owned(),
            );
            at += 1;
        }
        args.found
            .push((flag.name, value.unwrap_or_else(|| "true".to_owned())));
    }
    Ok((args, arguments.get(at..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Flag] = &[
        Flag::value("bundle").short('b'),
        Flag::switch("detach").short('d'),
        Flag::value("env").short('e'),
    ];

    fn parsed(text: &str) -> Result<(Args, Vec<String>), LaunchError> {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let (args, rest) = parse(KNOWN, &words)?;
        Ok((
            args,
            rest.iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
        ))
    }

    #[test]
    fn every_spelling() {
        for text in [
            "-b /x -d id",
            "--bundle /x --detach id",
            "--bundle=/x -d=true id",
            "-b=/x --detach=true -- id",
        ] {
            let (args, rest) = parsed(text).expect(text);
            assert_eq!(
                (args.get("bundle"), args.has("detach"), rest),
                (Some("/x"), true, vec!["id".to_owned()]),
                "{text}"
            );
        }
        let (args, rest) = parsed("-e A=1 --env=B=2 id -d").expect("repeated");
        assert_eq!(args.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(rest, ["id", "-d"]);
        assert!(!parsed("--detach=false id").expect("off").0.has("detach"));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert!(parsed("--nonsense").is_err());
        assert!(parsed("--bundle").is_err());
    }
}
