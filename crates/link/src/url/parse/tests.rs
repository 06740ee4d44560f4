//! URLs that are understood, URLs that are refused, and that none of it shows a password.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> LinkUrl {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match text.parse::<LinkUrl>() {
        Ok(url) => panic!("{text} was understood as {url}"),
        Err(error) => error.to_string(),
    }
}

fn tcp(host: &str, port: u16) -> Target {
    Target::Server(Transport::Tcp(at(host, port)))
}

fn at(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

#[test]
fn a_bare_host_gets_the_default_port_and_database() {
    let url = parsed("redis://cache.example");
    assert_eq!(url.target, tcp("cache.example", 6379));
    assert_eq!((url.db, url.user(), url.password(), url.tls()), (0, None, None, None));
    assert_eq!(parsed("redis://").target, tcp("127.0.0.1", 6379));
    assert_eq!(parsed("valkey://:7000/2").target, tcp("127.0.0.1", 7000));
    assert_eq!(parsed(" redis://h\n").target, tcp("h", 6379));
}

#[test]
fn user_password_port_and_database_are_read() {
    let url = parsed("redis://al%40ice:p%2Fw%25@10.0.0.1:7000/5");
    assert_eq!((url.user(), url.password()), (Some("al@ice"), Some("p/w%")));
    assert_eq!(url.to_string(), "redis://10.0.0.1:7000/5");
    let url = parsed("redis://:secret@localhost:6380/");
    assert_eq!((url.user(), url.password(), url.db), (None, Some("secret"), 0));
    let url = parsed("redis://nopass:@localhost");
    assert_eq!((url.user(), url.password()), (Some("nopass"), Some("")));
    let url = parsed("redis://:a@b:c@host");
    assert_eq!((url.password(), &url.target), (Some("a@b:c"), &tcp("host", 6379)));
}

#[test]
fn an_ipv6_address_is_read() {
    assert_eq!(parsed("redis://[::1]:7001/1").target, tcp("::1", 7001));
    assert_eq!(parsed("redis://[::1]").to_string(), "redis://[::1]:6379/0");
}

#[test]
fn a_unix_socket_takes_its_options_from_the_query() {
    let url = parsed("unix:///run/r.sock?db=3&user=u&password=p@1");
    assert_eq!(url.target, Target::Server(Transport::Unix("/run/r.sock".into())));
    assert_eq!((url.db, url.user(), url.password()), (3, Some("u"), Some("p@1")));
    assert_eq!(parsed("redis+unix:///run/r.sock"), parsed("unix:///run/r.sock?db=0"));
    assert_eq!(parsed("unix:///run/a%3Fb?pass=p").to_string(), "unix:///run/a%3Fb?db=0");
}

#[test]
fn tls_takes_its_files_from_the_query() {
    let url = parsed("rediss://h/1?cacert=/etc/ca.pem&cert=c.pem&key=k%2Bey.pem&sni=cache.example");
    let tls = url.tls().unwrap();
    assert_eq!(tls.ca_file.as_deref(), Some("/etc/ca.pem".as_ref()));
    assert_eq!(tls.cert_file.as_deref(), Some("c.pem".as_ref()));
    assert_eq!(tls.key_file.as_deref(), Some("k+ey.pem".as_ref()));
    assert_eq!((tls.server_name.as_deref(), tls.verification), (Some("cache.example"), None));
    assert_eq!(url.to_string(), "rediss://h:6379/1");
    let as_redis_py = parsed("rediss://h/1?ssl_ca_certs=/etc/ca.pem&ssl_certfile=c.pem&ssl_keyfile=k.pem");
    assert_eq!(as_redis_py.tls().unwrap().ca_file, tls.ca_file);
    for text in ["rediss://h?insecure=true", "rediss://h/0#insecure", "valkeys://h?insecure=true"] {
        assert_eq!(parsed(text).tls().unwrap().verification, Some(Verification::None), "{text}");
    }
    let full = parsed("rediss://h?insecure=false");
    assert_eq!(
        full.tls().unwrap().verification,
        Some(Verification::Full),
        "it goes before what is set in code"
    );
    for text in ["rediss://h", "rediss+cluster://h", "rediss+sentinel://h/s"] {
        assert_eq!(parsed(text).tls().unwrap().verification, None, "{text}");
    }
}

#[test]
fn sentinels_have_a_service_and_a_login_of_their_own() {
    let url = parsed(
        "redis+sentinel://app:s3cret@s1:26380,s2,[::1]/my%20service/2?sentinel_user=watch&sentinel_password=w",
    );
    let Target::Sentinel(sentinels) = url.target() else { panic!("{url}") };
    assert_eq!(sentinels.endpoints, [at("s1", 26380), at("s2", 26379), at("::1", 26379)]);
    assert_eq!((sentinels.service.as_str(), url.db()), ("my service", 2));
    assert_eq!((url.user(), url.password()), (Some("app"), Some("s3cret")));
    let own = Login { user: Some("watch".into()), password: Some("w".into()) };
    assert_eq!(sentinels.login, own);
    assert_eq!(url.to_string(), "redis+sentinel://s1:26380,s2:26379,[::1]:26379/my%20service/2");
    assert!(!format!("{url:?} {own:?}").contains("s3cret"));
    assert_eq!(url.at(Transport::Tcp(at("p", 1))), parsed("redis://app:s3cret@p:1/2"));
}

#[test]
fn a_cluster_has_nodes_and_database_0() {
    let url = parsed("redis+cluster://u:p@a:1,b,a:1/0");
    assert_eq!(url.target, Target::Cluster(vec![at("a", 1), at("b", 6379)]));
    assert_eq!(
        (url.user(), url.password(), url.to_string()),
        (Some("u"), Some("p"), "redis+cluster://a:1,b:6379".into())
    );
    assert!(refused("redis+cluster://a/1").contains("database 0"));
}

#[test]
fn what_is_not_understood_is_refused_with_the_right_form() {
    for (text, says) in [
        ("", "not a URL"),
        ("localhost:6379", "redis://host:port/db"),
        ("http://x", "rediss+sentinel://"),
        ("redis://h/x", "not a number"),
        ("redis://h/65536", "up to 65535"),
        ("redis://h/1/2", "not a number"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://h:65536", "from 1 to 65535"),
        ("redis://h:x", "not a port"),
        ("redis://h:", "from 1 to 65535"),
        ("redis://h h", "%20"),
        ("redis://a,b", "sentinels or a cluster"),
        ("redis://::1", "[brackets]"),
        ("redis://[::1", "]"),
        ("redis://[x]", "IPv6"),
        ("redis://[::1]x", "not a port"),
        ("redis://hö", "ASCII"),
        ("redis://user@h", ":password@"),
        ("redis://u:p%@h", "%25"),
        ("redis://u:%ff@h", "UTF-8"),
        ("redis://h?db=1", "in their path"),
        ("redis://h?cacert=x", "`rediss…://`"),
        ("redis://h#insecure", "#insecure"),
        ("rediss://h#db", "%23"),
        ("rediss://h?insecure", "no value"),
        ("rediss://h?insecure=1", "true or false"),
        ("rediss://h?cacert=a&ssl_ca_certs=b", "named twice"),
        ("rediss://h?cacert=a+b", "%2B"),
        ("rediss://h?verify=none", "cacert, cert, key, sni, insecure"),
        ("redis://h?sentinel_user=x", "+sentinel"),
        ("unix://h/p", "third slash"),
        ("unix://", "missing"),
        ("unix:///", "missing"),
        ("unix:///s?db=x", "not a number"),
        ("unix:///s?user=u", "no password"),
        ("unix:///s?cacert=x", "`rediss…://`"),
        ("redis+sentinel://s1", "SERVICE_NAME"),
        ("redis+sentinel://s1/", "SERVICE_NAME"),
        ("redis+sentinel:///service", "host is missing"),
        ("redis+sentinel://s1,/service", "host is missing"),
        ("redis+sentinel://s1/a/b/c", "not a number"),
        ("redis+sentinel://s1/a?sentinel_user=u", "no password"),
        ("redis+cluster://", "host is missing"),
    ] {
        let message = refused(text);
        assert!(message.contains(says), "{text}: {message}");
    }
    let many: Vec<String> = (0..=MAX_HOSTS).map(|n| format!("h{n}")).collect();
    assert!(refused(&format!("redis+cluster://{}", many.join(","))).contains("more than 128"));
}

/// Every way in which an unescaped sign can tear a password apart.
#[test]
fn no_message_shows_a_password() {
    for scheme in ["redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "nosuch"] {
        for password in [
            "hunter2",
            "hun/ter2",
            "hun?ter2",
            "hun#ter2",
            "h@un/ter2",
            "h:un:ter2",
            "ter2%",
            "hun+ter2",
            "hun?a=ter2",
            "1/ter2",
            "1?ter2=x",
        ] {
            for rest in ["@h:1/0", "@[bad", "@h:x", "@h/x", "", "@h/0?nosuch=1", "@/s", "@h/s/x"] {
                if !rest.contains('@') && (password.contains('@') || scheme == "redis+sentinel") {
                    // A good URL, of another meaning.
                    continue;
                }
                let text = format!("{scheme}://u:{password}{rest}");
                let said = match text.parse::<LinkUrl>() {
                    Ok(url) => format!("{url} {url:?} {:?}", url.login()),
                    Err(error) => format!("{error} {error:?}"),
                };
                assert!(!said.contains("ter2"), "{text}: {said}");
            }
        }
    }
}

fn escaped_fully(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    bytes.concat()
}

fn endpoints_of(form: Shape) -> impl Strategy<Value = Vec<Endpoint>> {
    let host = prop_oneof![
        "[a-z0-9][a-z0-9._-]{0,20}",
        any::<[u8; 4]>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
        any::<u128>().prop_map(|a| std::net::Ipv6Addr::from(a).to_string()),
    ];
    let endpoint = (host, 1_u16..).prop_map(|(host, port)| Endpoint { host, port });
    let most = if form == Shape::Server { 1 } else { 5 };
    proptest::collection::hash_set(endpoint, 1..=most).prop_map(|set| set.into_iter().collect())
}

fn any_login() -> impl Strategy<Value = Login> {
    let password = prop::option::of("\\PC{0,20}".prop_map(|tail| format!("s3cret{tail}")));
    (prop::option::of("\\PC{1,20}"), password)
        .prop_map(|(user, password)| Login { user: user.filter(|_| password.is_some()), password })
}

fn any_form() -> impl Strategy<Value = &'static UrlForm> {
    prop::sample::select(FORMS.iter().filter(|form| form.shape != Shape::Unix).collect::<Vec<_>>())
}

proptest! {
    /// What is written from parts is read back into them, and what is shown of it leads to the same place without the login.
    #[test]
    fn a_url_is_read_back_into_its_parts(
        (form, endpoints) in any_form().prop_flat_map(|form| (Just(form), endpoints_of(form.shape))),
        login in any_login(),
        own in any_login(),
        service in "\\PC{1,20}",
        db in any::<u16>(),
    ) {
        let credentials = match (&login.user, &login.password) {
            (None, None) => String::new(),
            (user, password) => format!(
                "{}:{}@",
                escaped(user.as_deref().unwrap_or_default()),
                escaped_fully(password.as_deref().unwrap_or_default())
            ),
        };
        let hosts: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let path = match form.shape {
            Shape::Sentinel => format!("/{}/{db}", escaped(&service)),
            Shape::Cluster => String::new(),
            _ => format!("/{db}"),
        };
        let mut query: Vec<String> = Vec::new();
        if form.shape == Shape::Sentinel {
            query.extend(own.user.iter().map(|user| format!("sentinel_user={}", escaped(user))));
            query.extend(own.password.iter().map(|password| format!("sentinel_password={}", escaped(password))));
        }
        let text = format!("{}://{credentials}{}{path}?{}", form.schemes[0], hosts.join(","), query.join("&"));
        let url = parsed(&text);
        prop_assert_eq!(url.login(), &login);
        prop_assert_eq!(url.db(), if form.shape == Shape::Cluster { 0 } else { db });
        prop_assert_eq!(url.tls().is_some(), form.tls);
        let target = match form.shape {
            Shape::Sentinel => Target::Sentinel(Sentinels { endpoints, service: service.clone(), login: own }),
            Shape::Cluster => Target::Cluster(endpoints),
            _ => Target::Server(Transport::Tcp(endpoints[0].clone())),
        };
        prop_assert_eq!(url.target(), &target);
        let (shown, debugged) = (url.to_string(), format!("{url:?}"));
        prop_assert!(service.contains("s3cret") || !(shown.contains("s3cret") || debugged.contains("s3cret")));
        prop_assert_eq!(parsed(&shown).to_string(), shown);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(rediss?(\\+(sentinel|cluster))?|unix)://\\PC{0,40}") {
        let _ = text.parse::<LinkUrl>();
    }
}
