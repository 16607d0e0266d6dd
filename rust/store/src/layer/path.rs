//! Paths of archives, made into paths below a root.

use super::LayerProblem;

/// What a path means, by its last name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// The root directory itself.
    Root,
    /// An ordinary object: its directory and its name.
    Object(&'a [u8], &'a [u8]),
    /// A whiteout: its directory and the name that it hides.
    Whiteout(&'a [u8], &'a [u8]),
    /// A directory that hides all below it.
    Opaque(&'a [u8]),
    /// Another driver's bookkeeping.
    Ignored,
}

/// Names joined by single slashes, none of them empty, "." or ".."; "" is the root.
pub(crate) fn clean(path: &[u8], limit: usize) -> Result<Vec<u8>, LayerProblem> {
    let mut cleaned: Vec<u8> = Vec::with_capacity(path.len());
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if cleaned.is_empty() => return Err(LayerProblem::Escape),
            b".." => cleaned.truncate(split(&cleaned).0.len()),
            _ if name.len() > 255 => return Err(LayerProblem::TooLong(limit)),
            _ => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(name);
            }
        }
    }
    // The kernel counts the terminating NUL.
    if cleaned.len() < limit {
        Ok(cleaned)
    } else {
        Err(LayerProblem::TooLong(limit))
    }
}

/// A clean path's directory and last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A clean directory and a name in it.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    if !directory.is_empty() {
        path.extend_from_slice(directory);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Tells whiteouts from objects in a clean path.
pub(super) fn meaning(path: &[u8]) -> Result<Meaning<'_>, LayerProblem> {
    const PREFIX: &[u8] = b".wh.";
    if path.is_empty() {
        return Ok(Meaning::Root);
    }
    let (directory, name) = split(path);
    for above in directory.split(|&byte| byte == b'/') {
        if above.starts_with(b".wh..wh.") {
            return Ok(Meaning::Ignored);
        }
        if above.starts_with(PREFIX) {
            return Err(LayerProblem::Reserved);
        }
    }
    let Some(hidden) = name.strip_prefix(PREFIX) else {
        return Ok(Meaning::Object(directory, name));
    };
    match hidden {
        b".wh..opq" => Ok(Meaning::Opaque(directory)),
        _ if hidden.starts_with(PREFIX) => Ok(Meaning::Ignored),
        b"" | b"." | b".." => Err(LayerProblem::Whiteout),
        _ => Ok(Meaning::Whiteout(directory, hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let cases: [(&str, Option<&str>); 15] = [
            ("a/b", Some("a/b")),
            ("/a//b/", Some("a/b")),
            ("./a/./b", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/b/../../c", Some("c")),
            (".", Some("")),
            ("/", Some("")),
            ("a/..", Some("")),
            ("...", Some("...")),
            ("..a/b..", Some("..a/b..")),
            ("..", None),
            ("../a", None),
            ("/../a", None),
            ("a/../../b", None),
            ("a/b/../../../etc/passwd", None),
        ];
        for (path, expected) in cases {
            let cleaned = clean(path.as_bytes(), 4096).ok();
            assert_eq!(cleaned.as_deref(), expected.map(str::as_bytes), "{path}");
        }
        assert!(clean(&[b'a'; 256], 4096).is_err());
        assert!(clean(&b"a/".repeat(2048), 4096).is_ok());
        assert!(clean(&b"a/".repeat(2049), 4096).is_err());
    }

    #[test]
    fn whiteouts_are_told_from_objects() {
        let cases: [(&[u8], Option<Meaning<'_>>); 14] = [
            (b"", Some(Meaning::Root)),
            (b"a", Some(Meaning::Object(b"", b"a"))),
            (b"a/b", Some(Meaning::Object(b"a", b"b"))),
            (b"a/.wh.b", Some(Meaning::Whiteout(b"a", b"b"))),
            (b".wh.b", Some(Meaning::Whiteout(b"", b"b"))),
            (b"a/.wh..wh..opq", Some(Meaning::Opaque(b"a"))),
            (b".wh..wh..opq", Some(Meaning::Opaque(b""))),
            (b".wh..wh.plnk", Some(Meaning::Ignored)),
            (b".wh..wh.plnk/1.2", Some(Meaning::Ignored)),
            (b".wh..wh.aufs", Some(Meaning::Ignored)),
            (b"a/.wh.", None),
            (b"a/.wh..", None),
            (b"a/.wh...", None),
            (b".wh.a/b", None),
        ];
        for (path, expected) in cases {
            assert_eq!(
                meaning(path).ok(),
                expected,
                "{:?}",
                String::from_utf8_lossy(path)
            );
        }
    }
}
