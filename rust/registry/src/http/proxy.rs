//! HTTP proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in either case.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::connection::{Connection, Patient, Trouble};
use super::head::Head;
use super::url::{Url, is_loopback};

/// The proxies of this process.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    https: Option<Result<Proxy, String>>,
    http: Option<Result<Proxy, String>>,
    exempt: Vec<String>,
}

/// One proxy, itself spoken to over plain http.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of Proxy-Authorization.
    pub(crate) authorization: Option<String>,
}

impl Proxies {
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(|name| {
            std::env::var(name)
                .or_else(|_| std::env::var(name.to_ascii_lowercase()))
                .ok()
        })
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let proxy = |name: &str| {
            let value = variable(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| {
                Proxy::parse(value)
                    .map_err(|cause| format!("{name} is not a usable proxy: {cause}"))
            })
        };
        // A CGI server sets HTTP_PROXY from a request header.
        let http = if variable("REQUEST_METHOD").is_some() {
            None
        } else {
            proxy("HTTP_PROXY")
        };
        let exempt = variable("NO_PROXY").unwrap_or_default();
        let exempt = exempt
            .split(',')
            .map(|entry| entry.trim().to_ascii_lowercase())
            .filter(|entry| !entry.is_empty())
            .collect();
        Self {
            https: proxy("HTTPS_PROXY"),
            http,
            exempt,
        }
    }

    /// The proxy to use for a URL; an error where one is set that cannot be used.
    pub(crate) fn for_url(&self, url: &Url) -> Result<Option<Proxy>, String> {
        let chosen = if url.https { &self.https } else { &self.http };
        match chosen {
            Some(_)
                if is_loopback(&url.host)
                    || self.exempt.iter().any(|entry| exempts(entry, url)) =>
            {
                Ok(None)
            }
            Some(proxy) => proxy.clone().map(Some),
            None => Ok(None),
        }
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err("only http:// proxies are supported"),
            None => text,
        };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let url = Url::parse(&format!("http://{rest}"))?;
        let authorization =
            credentials.map(|pair| format!("Basic {}", STANDARD.encode(decode_percent(pair))));
        Ok(Self {
            host: url.host,
            port: url.port,
            authorization,
        })
    }

    pub(crate) fn authorization_line(&self) -> Option<String> {
        let value = self.authorization.as_ref()?;
        Some(format!("Proxy-Authorization: {value}"))
    }

    /// Ask for a tunnel to the URL's host and port.
    pub(crate) fn tunnel(&self, stream: Patient, url: &Url) -> Result<Patient, Trouble> {
        let target = url.host_port();
        let mut lines = vec![
            format!("CONNECT {target} HTTP/1.1"),
            format!("Host: {target}"),
        ];
        lines.extend(self.authorization_line());
        lines.extend([String::new(), String::new()]);
        let request = lines.join("\r\n");
        let mut connection = Connection::plain(stream);
        connection.send(request.as_bytes())?;
        let status = loop {
            if let Some((head, length)) = Head::parse(connection.buffered())? {
                connection.consume(length);
                break head.status;
            }
            if connection.fill()? == 0 {
                return Err(Trouble::Connect(format!(
                    "the proxy {}:{} closed the connection",
                    self.host, self.port
                )));
            }
        };
        if status / 100 != 2 {
            return Err(Trouble::Connect(format!(
                "the proxy {}:{} answered {status} to CONNECT {target}",
                self.host, self.port
            )));
        }
        connection.into_plain().ok_or(Trouble::Protocol(
            "the proxy sent bytes before the TLS handshake",
        ))
    }
}

/// Whether an entry of `NO_PROXY` covers the URL's host: `*`, a domain with or without leading dot,
/// an address, a network in CIDR form, each with an optional port.
fn exempts(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let host = url.host.to_ascii_lowercase();
    if let (Some((network, bits)), Ok(address)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
        return in_network(network, bits, address);
    }
    let (entry, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse::<u16>().ok())
        }
        _ => (entry, None),
    };
    if port.is_some_and(|port| port != url.port) {
        return false;
    }
    let entry = entry
        .trim_start_matches('[')
        .trim_end_matches(']')
        .trim_start_matches('*')
        .trim_start_matches('.');
    host == entry
        || host
            .strip_suffix(entry)
            .is_some_and(|head| head.ends_with('.') && host.parse::<IpAddr>().is_err())
}

fn in_network(network: &str, bits: &str, address: IpAddr) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (network.to_bits() ^ address.to_bits()) & mask == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (network.to_bits() ^ address.to_bits()) & mask == 0
        }
        _ => false,
    }
}

fn decode_percent(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn chosen(pairs: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let proxy = proxies(pairs).for_url(&Url::parse(url).unwrap())?;
        Ok(proxy.map(|proxy| format!("{}:{}", proxy.host, proxy.port)))
    }

    #[test]
    fn chooses_by_scheme() {
        let both = [
            ("HTTPS_PROXY", "http://s.example:3128"),
            ("HTTP_PROXY", "p.example:8080/"),
        ];
        assert_eq!(
            chosen(&both, "https://r.example/"),
            Ok(Some("s.example:3128".into()))
        );
        assert_eq!(
            chosen(&both, "http://r.example/"),
            Ok(Some("p.example:8080".into()))
        );
        assert_eq!(chosen(&both, "http://127.0.0.1:5000/"), Ok(None));
        assert_eq!(
            chosen(&[("HTTPS_PROXY", "")], "https://r.example/"),
            Ok(None)
        );
        assert!(chosen(&[("HTTPS_PROXY", "socks5://x:1")], "https://r.example/").is_err());
        assert_eq!(
            chosen(
                &[("HTTP_PROXY", "p:1"), ("REQUEST_METHOD", "GET")],
                "http://r.example/"
            ),
            Ok(None)
        );
    }

    #[test]
    fn exemptions() {
        for (entry, url, exempt) in [
            ("*", "https://a.example/", true),
            ("example", "https://a.example/", true),
            (".example", "https://a.example/", true),
            ("*.example", "https://a.example/", true),
            ("a.example", "https://ba.example/", false),
            ("a.example:443", "https://a.example/", true),
            ("a.example:444", "https://a.example/", false),
            ("10.0.0.0/8", "https://10.200.3.4/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("0.0.0.0/0", "https://11.0.0.1/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("10.0.0.1", "https://10.0.0.1/", true),
            ("0.0.1", "https://10.0.0.1/", false),
            ("other, b.example", "https://b.example/", true),
        ] {
            let found = chosen(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", entry)], url).unwrap();
            assert_eq!(found.is_none(), exempt, "NO_PROXY={entry} for {url}");
        }
    }

    #[test]
    fn credentials_of_a_proxy() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw@proxy:3128").unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNAZXI6cDp3"));
    }
}
