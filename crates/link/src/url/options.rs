//! The table of URL forms, and the table of what may follow their `?`.
//!
//! Invariant: the parser accepts exactly what is here, and [docs/connections.md](../../../../docs/connections.md) shows it; a test
//! compares. Deliberately absent: what the options do.

/// One form of URL.
#[derive(Clone, Copy, Debug)]
pub struct UrlForm {
    /// Its schemes; the first is the one that is shown.
    pub schemes: &'static [&'static str],
    /// The form, as documentation shows it.
    pub form: &'static str,
    /// What it leads to.
    pub leads_to: &'static str,
    pub(super) shape: Shape,
    /// TLS is spoken.
    pub(super) tls: bool,
}

/// What stands between the `://` and the `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Server,
    Unix,
    Sentinel,
    Cluster,
}

/// One option behind the `?`.
#[derive(Clone, Copy, Debug)]
pub struct UrlOption {
    /// Its name.
    pub name: &'static str,
    /// The name under which redis-py knows it, which is understood too.
    pub also: Option<&'static str>,
    /// Which URLs may have it.
    pub of: OptionOf,
    /// What holds without it.
    pub default: &'static str,
    /// What it says.
    pub meaning: &'static str,
    pub(super) sets: Sets,
}

/// Which URLs may have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionOf {
    /// Those of Unix sockets.
    Unix,
    /// Those with TLS.
    Tls,
    /// Those with sentinels.
    Sentinel,
}

impl OptionOf {
    /// The URLs, as documentation names them.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unix => "`unix://`",
            Self::Tls => "`rediss…://`",
            Self::Sentinel => "`…+sentinel://`",
        }
    }
}

/// Where an option's value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sets {
    Db,
    User,
    Password,
    CaFile,
    CertFile,
    KeyFile,
    ServerName,
    Insecure,
    SentinelUser,
    SentinelPassword,
}

/// The forms there are.
pub const FORMS: &[UrlForm] = &[
    UrlForm {
        schemes: &["redis", "valkey"],
        form: "redis://[user:password@]host[:port][/db]",
        leads_to: "one server; the port is 6379, the host 127.0.0.1, the database 0 where the URL does not say",
        shape: Shape::Server,
        tls: false,
    },
    UrlForm {
        schemes: &["rediss", "valkeys"],
        form: "rediss://[user:password@]host[:port][/db]",
        leads_to: "one server, over TLS",
        shape: Shape::Server,
        tls: true,
    },
    UrlForm {
        schemes: &["unix", "redis+unix"],
        form: "unix:///path/of/socket[?db=0&user=USER&password=PASSWORD]",
        leads_to: "one server, over a Unix socket",
        shape: Shape::Unix,
        tls: false,
    },
    UrlForm {
        schemes: &["redis+sentinel", "valkey+sentinel"],
        form: "redis+sentinel://[user:password@]host[:port][,host[:port]...]/SERVICE_NAME[/db]",
        leads_to: "the primary of a service that sentinels watch, whichever server that is; a sentinel's port is 26379 where the URL does not say; user and password are the servers'",
        shape: Shape::Sentinel,
        tls: false,
    },
    UrlForm {
        schemes: &["rediss+sentinel", "valkeys+sentinel"],
        form: "rediss+sentinel://[user:password@]host[:port][,host[:port]...]/SERVICE_NAME[/db]",
        leads_to: "the same with TLS, to sentinels and servers",
        shape: Shape::Sentinel,
        tls: true,
    },
    UrlForm {
        schemes: &["redis+cluster", "valkey+cluster"],
        form: "redis+cluster://[user:password@]host[:port][,host[:port]...]",
        leads_to: "a cluster, found through any of these nodes",
        shape: Shape::Cluster,
        tls: false,
    },
    UrlForm {
        schemes: &["rediss+cluster", "valkeys+cluster"],
        form: "rediss+cluster://[user:password@]host[:port][,host[:port]...]",
        leads_to: "the same with TLS",
        shape: Shape::Cluster,
        tls: true,
    },
];

/// The options there are.
pub const OPTIONS: &[UrlOption] = &[
    UrlOption {
        name: "db",
        also: None,
        of: OptionOf::Unix,
        default: "0",
        meaning: "the database; other forms have it in their path",
        sets: Sets::Db,
    },
    UrlOption {
        name: "user",
        also: Some("username"),
        of: OptionOf::Unix,
        default: "the default user",
        meaning: "the user; other forms have it before the `@`",
        sets: Sets::User,
    },
    UrlOption {
        name: "password",
        also: Some("pass"),
        of: OptionOf::Unix,
        default: "none",
        meaning: "the password; other forms have it before the `@`",
        sets: Sets::Password,
    },
    UrlOption {
        name: "cacert",
        also: Some("ssl_ca_certs"),
        of: OptionOf::Tls,
        default: "what the system trusts",
        meaning: "a PEM file with the authorities that may sign the server's certificate, instead of the system's",
        sets: Sets::CaFile,
    },
    UrlOption {
        name: "cert",
        also: Some("ssl_certfile"),
        of: OptionOf::Tls,
        default: "none",
        meaning: "a PEM file with the certificate that this client shows, and those between it and its authority; needs `key`",
        sets: Sets::CertFile,
    },
    UrlOption {
        name: "key",
        also: Some("ssl_keyfile"),
        of: OptionOf::Tls,
        default: "none",
        meaning: "a PEM file with that certificate's private key, unencrypted",
        sets: Sets::KeyFile,
    },
    UrlOption {
        name: "sni",
        also: None,
        of: OptionOf::Tls,
        default: "the URL's host",
        meaning: "the name that the server's certificate has to be for, where that is not the host's",
        sets: Sets::ServerName,
    },
    UrlOption {
        name: "insecure",
        also: None,
        of: OptionOf::Tls,
        default: "false",
        meaning: "`true` takes any certificate, from whoever answers: encrypted, but anybody in between can read along. A URL that ends in `#insecure` says the same",
        sets: Sets::Insecure,
    },
    UrlOption {
        name: "sentinel_user",
        also: None,
        of: OptionOf::Sentinel,
        default: "the default user",
        meaning: "the user for the sentinels themselves",
        sets: Sets::SentinelUser,
    },
    UrlOption {
        name: "sentinel_password",
        also: None,
        of: OptionOf::Sentinel,
        default: "none",
        meaning: "the password for the sentinels themselves",
        sets: Sets::SentinelPassword,
    },
];
