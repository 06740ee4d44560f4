//! Reads a URL, part by part.
//!
//! Invariant: no message repeats a part of the text in which a password can stand, wherever a `/`, `?`, `#` or `@` that was not
//! escaped has cut it. Deliberately absent: host names that are not ASCII, which have an ASCII form.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::options::{FORMS, OPTIONS, OptionOf, Sets, Shape, UrlForm, UrlOption};
use super::{Endpoint, LinkUrl, Login, Sentinels, Target, Transport};
use crate::error::{Error, Result};
use crate::tls::{TlsOptions, Verification};

/// The port of a server for which none is named.
const SERVER_PORT: u16 = 6379;
/// The port of a sentinel for which none is named.
const SENTINEL_PORT: u16 = 26379;
/// The host of a server for which none is named.
const DEFAULT_HOST: &str = "127.0.0.1";
/// How many hosts one URL may name.
const MAX_HOSTS: usize = 128;

pub(super) fn parse(text: &str) -> Result<LinkUrl> {
    let text = text.trim();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::config("a URL has no blanks and no control characters; a blank is written %20"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Error::config("this is not a URL, which has a :// in it; write redis://host:port/db"));
    };
    let form = form_of(scheme)?;
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let outside = [path, query.unwrap_or_default(), fragment.unwrap_or_default()];
    if form.shape != Shape::Unix && outside.iter().any(|part| part.contains('@')) {
        return Err(Error::config(
            "there is an @ after the first /, ? or #; within a user or password write / as %2F, ? as %3F, # as %23 and @ as \
             %40, and an @ elsewhere as %40 too",
        ));
    }
    let mut url = LinkUrl {
        target: Target::Cluster(Vec::new()),
        login: Login::default(),
        db: 0,
        tls: form.tls.then(TlsOptions::default),
    };
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            url.login = login(credentials)?;
            hosts
        }
        None => authority,
    };
    url.target = match form.shape {
        Shape::Server => {
            url.db = database(form, one_slash_off(path))?;
            Target::Server(Transport::Tcp(server(form, hosts)?))
        }
        Shape::Unix => Target::Server(Transport::Unix(socket(form, hosts, path)?)),
        Shape::Sentinel => {
            let (service, db) = cut(one_slash_off(path), '/');
            url.db = database(form, db.unwrap_or_default())?;
            let service = decoded(service)?;
            if service.is_empty() {
                return Err(malformed(
                    form,
                    "the path has no name of a service, as sentinel.conf's monitor line gives it",
                ));
            }
            let endpoints = endpoints(form, hosts, SENTINEL_PORT)?;
            Target::Sentinel(Sentinels { endpoints, service, login: Login::default() })
        }
        Shape::Cluster => {
            if !matches!(one_slash_off(path), "" | "0") {
                return Err(malformed(form, "a cluster has database 0 alone"));
            }
            Target::Cluster(endpoints(form, hosts, SERVER_PORT)?)
        }
    };
    apply(form, &mut url, query)?;
    apply_fragment(&mut url, fragment)?;
    checked(url)
}

fn form_of(scheme: &str) -> Result<&'static UrlForm> {
    let known = FORMS.iter().find(|form| form.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)));
    known.ok_or_else(|| {
        let schemes: Vec<String> = FORMS.iter().map(|form| format!("{}://", form.schemes[0])).collect();
        Error::config(format!("the URL's scheme is not known; there are {}", schemes.join(", ")))
    })
}

fn malformed(form: &UrlForm, what: &str) -> Error {
    Error::config(format!("{what}; the form is {}", form.form))
}

fn login(credentials: &str) -> Result<Login> {
    let Some((user, password)) = credentials.split_once(':') else {
        if credentials.is_empty() {
            return Ok(Login::default());
        }
        // redis-cli takes it for the password, others for the user.
        return Err(Error::config(
            "what stands before the @ has no colon; write user:password@, or :password@ for the default user",
        ));
    };
    let (user, password) = (decoded(user)?, decoded(password)?);
    let user = Some(user).filter(|user| !user.is_empty());
    // A user without a password may log in with any, an empty one too.
    let password = Some(password).filter(|password| user.is_some() || !password.is_empty());
    Ok(Login { user, password })
}

fn server(form: &UrlForm, hosts: &str) -> Result<Endpoint> {
    if hosts.contains(',') {
        return Err(malformed(form, "several hosts need a scheme of sentinels or a cluster"));
    }
    endpoint(form, hosts, SERVER_PORT, Some(DEFAULT_HOST))
}

fn endpoints(form: &UrlForm, hosts: &str, port: u16) -> Result<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for host in hosts.split(',') {
        let endpoint = endpoint(form, host, port, None)?;
        if endpoints.contains(&endpoint) {
            continue;
        }
        if endpoints.len() == MAX_HOSTS {
            return Err(malformed(form, &format!("there are more than {MAX_HOSTS} hosts")));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn endpoint(form: &UrlForm, text: &str, port: u16, default_host: Option<&str>) -> Result<Endpoint> {
    let (host, after) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err(malformed(form, "the ] after an IPv6 address is missing"));
        };
        let Ok(address) = address.parse::<Ipv6Addr>() else {
            return Err(malformed(form, "what stands in brackets is not an IPv6 address"));
        };
        (address.to_string(), after)
    } else {
        let (host, after) = text.split_at(text.find(':').unwrap_or(text.len()));
        if after.matches(':').count() > 1 {
            return Err(malformed(
                form,
                "there is more than one colon in a host; an IPv6 address stands in [brackets]",
            ));
        }
        if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
            return Err(malformed(
                form,
                "a host has letters, digits, dots and hyphens only; a name in another script has an ASCII form",
            ));
        }
        (host.to_owned(), after)
    };
    let host = match default_host {
        Some(default) if host.is_empty() => default.to_owned(),
        None if host.is_empty() => return Err(malformed(form, "a host is missing")),
        _ => host,
    };
    let port = match after.strip_prefix(':') {
        None if after.is_empty() => port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(port @ 1..) => port,
            _ => return Err(malformed(form, "a port is a number from 1 to 65535")),
        },
        // Not repeated: it may be a password whose @ was forgotten.
        _ => return Err(malformed(form, "what follows a host's colon is not a port")),
    };
    Ok(Endpoint { host, port })
}

fn socket(form: &UrlForm, hosts: &str, path: &str) -> Result<PathBuf> {
    if !hosts.is_empty() {
        return Err(malformed(form, "a Unix socket has no host; its path begins with a third slash"));
    }
    let path = decoded(path)?;
    if path.trim_matches('/').is_empty() {
        return Err(malformed(form, "the path of the socket is missing"));
    }
    Ok(PathBuf::from(path))
}

fn database(form: &UrlForm, text: &str) -> Result<u16> {
    match text.strip_suffix('/').unwrap_or(text) {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| malformed(form, &format!("a database is a number up to {}", u16::MAX)))
        }
        _ => Err(malformed(form, "what stands where the database belongs is not a number")),
    }
}

fn apply(form: &UrlForm, url: &mut LinkUrl, query: Option<&str>) -> Result<()> {
    let mut seen = Vec::new();
    for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
        let (name, value) = cut(pair, '=');
        let option = option_of(form, name)?;
        let value = value.unwrap_or_default();
        if value.contains('+') {
            return Err(Error::config(format!(
                "the value of {} has a +, which some take for a blank; write %2B for a plus and %20 for a blank",
                option.name
            )));
        }
        let value = decoded(value)?;
        if value.is_empty() {
            return Err(Error::config(format!("the option {} has no value", option.name)));
        }
        if seen.contains(&option.sets) {
            return Err(Error::config(format!("the option {} is named twice", option.name)));
        }
        seen.push(option.sets);
        set(form, url, option, value)?;
    }
    Ok(())
}

fn option_of(form: &UrlForm, name: &str) -> Result<&'static UrlOption> {
    if let Some(option) = OPTIONS.iter().find(|option| option.name == name || option.also == Some(name)) {
        if applies(form, option.of) {
            return Ok(option);
        }
        return Err(Error::config(format!(
            "the option {} ({}) is not one of a {}:// URL but of {}",
            option.name,
            option.meaning,
            form.schemes[0],
            option.of.words()
        )));
    }
    let names: Vec<&str> =
        OPTIONS.iter().filter(|option| applies(form, option.of)).map(|option| option.name).collect();
    let there_are = match names.len() {
        0 => "there are none; the database stands in the path, user and password before the @".to_owned(),
        _ => format!("there are {}", names.join(", ")),
    };
    // The name is not repeated: after a ? that was not escaped it is part of a password.
    Err(Error::config(format!("a {}:// URL has an option that is not known; {there_are}", form.schemes[0])))
}

fn applies(form: &UrlForm, of: OptionOf) -> bool {
    match of {
        OptionOf::Unix => form.shape == Shape::Unix,
        OptionOf::Tls => form.tls,
        OptionOf::Sentinel => form.shape == Shape::Sentinel,
    }
}

fn set(form: &UrlForm, url: &mut LinkUrl, option: &UrlOption, value: String) -> Result<()> {
    match option.sets {
        Sets::Db => url.db = database(form, &value)?,
        Sets::User => url.login.user = Some(value),
        Sets::Password => url.login.password = Some(value),
        Sets::SentinelUser => sentinel_login(url, |login| login.user = Some(value)),
        Sets::SentinelPassword => sentinel_login(url, |login| login.password = Some(value)),
        Sets::CaFile => tls(url, |tls| tls.ca_file = Some(value.into())),
        Sets::CertFile => tls(url, |tls| tls.cert_file = Some(value.into())),
        Sets::KeyFile => tls(url, |tls| tls.key_file = Some(value.into())),
        Sets::ServerName => tls(url, |tls| tls.server_name = Some(value)),
        Sets::Insecure => match value.as_str() {
            "true" => tls(url, |tls| tls.verification = Some(Verification::None)),
            "false" => tls(url, |tls| tls.verification = Some(Verification::Full)),
            _ => {
                return Err(Error::config(
                    "the option insecure is true or false; true takes any certificate",
                ));
            }
        },
    }
    Ok(())
}

fn sentinel_login(url: &mut LinkUrl, change: impl FnOnce(&mut Login)) {
    if let Target::Sentinel(sentinels) = &mut url.target {
        change(&mut sentinels.login);
    }
}

fn tls(url: &mut LinkUrl, change: impl FnOnce(&mut TlsOptions)) {
    if let Some(tls) = &mut url.tls {
        change(tls);
    }
}

/// redis-rs' way of saying that any certificate will do.
fn apply_fragment(url: &mut LinkUrl, fragment: Option<&str>) -> Result<()> {
    match fragment {
        None | Some("") => Ok(()),
        Some("insecure") if url.tls.is_some() => {
            tls(url, |tls| tls.verification = Some(Verification::None));
            Ok(())
        }
        Some(_) => Err(Error::config(
            "there is a # in the URL; within a password write %23. At the end of a rediss:// URL, #insecure takes any certificate",
        )),
    }
}

fn checked(url: LinkUrl) -> Result<LinkUrl> {
    let logins = match &url.target {
        Target::Sentinel(sentinels) => [Some(&url.login), Some(&sentinels.login)],
        _ => [Some(&url.login), None],
    };
    if logins.into_iter().flatten().any(|login| login.user.is_some() && login.password.is_none()) {
        return Err(Error::config("there is a user and no password for it"));
    }
    Ok(url)
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn one_slash_off(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// Undoes percent-encoding, which names and passwords need for `@`, `:`, `/` and others.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => {
                return Err(Error::config(
                    "a % in the URL is not followed by two hex digits; write a bare % as %25",
                ));
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::config("the URL's escapes do not make UTF-8"))
}

/// Text as it may stand in any part of a URL.
pub(super) fn escaped(text: &str) -> String {
    escaped_but(text, |_| false)
}

/// A path, with its slashes.
pub(super) fn escaped_path(path: &str) -> String {
    escaped_but(path, |byte| byte == b'/')
}

fn escaped_but(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
