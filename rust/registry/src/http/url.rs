//! The URLs that a registry conversation needs: absolute http and https ones.

use std::fmt;

/// An absolute URL without user information or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) https: bool,
    /// A name or an address; IPv6 without its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query as they go into the request line; begins with `/`.
    pub(crate) target: String,
}

impl Url {
    /// Parse an absolute URL; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("its scheme is neither http nor https"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = split_authority(authority, https)?;
        Ok(Self {
            https,
            host,
            port,
            target: clean_target(target)?,
        })
    }

    /// Resolve a `Location` header against this URL (RFC 3986, section 5, without dot segments).
    pub(crate) fn join(&self, location: &str) -> Result<Self, &'static str> {
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let target = if location.starts_with('/') {
            clean_target(location)?
        } else if location.starts_with('?') {
            clean_target(&format!("{path}{location}"))?
        } else {
            let directory = &path[..=path.rfind('/').unwrap_or(0)];
            clean_target(&format!("{directory}{location}"))?
        };
        Ok(Self {
            target,
            ..self.clone()
        })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// `host[:port]` as the Host header wants it: the scheme's own port is left out.
    pub(crate) fn authority(&self) -> String {
        let default = if self.https { 443 } else { 80 };
        if self.port == default {
            self.bracketed()
        } else {
            self.host_port()
        }
    }

    /// `host:port`, always with the port.
    pub(crate) fn host_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }

    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.https == other.https
            && self.port == other.port
            && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Whether the host is this machine itself, by name or address.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl fmt::Display for Url {
    /// The URL without its query, which may carry signatures that belong in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or("/");
        write!(f, "{}://{}{path}", self.scheme(), self.authority())
    }
}

/// Whether a host name or address (IPv6 without brackets) means this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn split_authority(authority: &str, https: bool) -> Result<(String, u16), &'static str> {
    if authority.contains('@') {
        return Err("it carries a user name");
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or("its IPv6 address lacks the closing bracket")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("its IPv6 address is malformed");
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err("its port is malformed"),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
        return Err("its host name is malformed");
    }
    let port = match port {
        None => {
            if https {
                443
            } else {
                80
            }
        }
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or("its port is out of range")?,
        Some(_) => return Err("its port is malformed"),
    };
    Ok((host.to_owned(), port))
}

/// A request target with its leading slash and without fragment; nothing that could end the request line.
fn clean_target(target: &str) -> Result<String, &'static str> {
    let target = target.split('#').next().unwrap_or("");
    if target.len() > 16 * 1024 {
        return Err("it is longer than 16 KiB");
    }
    if !target.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err("it has a character that a URL may not have");
    }
    Ok(if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    })
}

/// Percent-encode one query parameter's value (RFC 3986, unreserved characters stay).
pub(crate) fn encode_query(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_registries_use() {
        for (text, https, host, port, target) in [
            (
                "https://registry-1.docker.io/v2/",
                true,
                "registry-1.docker.io",
                443,
                "/v2/",
            ),
            (
                "http://127.0.0.1:5001/v2/a/blobs/b?x=1#f",
                false,
                "127.0.0.1",
                5001,
                "/v2/a/blobs/b?x=1",
            ),
            ("https://[::1]:8443", true, "::1", 8443, "/"),
            (
                "HTTPS://cdn.example?sig=a%20b",
                true,
                "cdn.example",
                443,
                "/?sig=a%20b",
            ),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.https, url.host.as_str(), url.port, url.target.as_str()),
                (https, host, port, target),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_could_deceive() {
        for text in [
            "ftp://a/b",
            "//a/b",
            "https://",
            "https://user:pass@host/",
            "https://host:0/",
            "https://host:99999/",
            "https://host:1x/",
            "https://ho st/",
            "https://host/a b",
            "https://host/a\r\nX: y",
            "https://[::1/",
            "https://[::1]x/",
            "https://[zz]/",
            "https://h\u{f6}st/",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn joins_locations() {
        let base = Url::parse("https://r.example:444/v2/a/blobs/x?y=z").unwrap();
        for (location, joined) in [
            ("/b?c=d", "https://r.example:444/b?c=d"),
            ("other", "https://r.example:444/v2/a/blobs/other"),
            ("?q", "https://r.example:444/v2/a/blobs/x?q"),
            ("//cdn.example/x", "https://cdn.example:443/x"),
            (
                "http://cdn.example/x?u=https://y",
                "http://cdn.example:80/x?u=https://y",
            ),
        ] {
            let url = base.join(location).unwrap();
            assert_eq!(
                format!("{}://{}{}", url.scheme(), url.host_port(), url.target),
                joined,
                "{location}"
            );
        }
    }

    #[test]
    fn tells_loopback() {
        for (host, yes) in [
            ("localhost", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("a.localhost", true),
            ("127.0.0.1.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), yes, "{host}");
        }
    }

    #[test]
    fn display_hides_the_query() {
        assert_eq!(
            Url::parse("https://h/p?signature=secret")
                .unwrap()
                .to_string(),
            "https://h/p"
        );
    }

    #[test]
    fn encodes_queries() {
        assert_eq!(
            encode_query("repository:a/b:pull,push &\u{e9}"),
            "repository%3Aa/b%3Apull%2Cpush%20%26%C3%A9"
        );
    }
}
