use tokio_postgres::config::Host;

use super::*;

#[test]
fn url_and_pairs_say_the_same() {
    let url = "postgres://us%40er:p%2Fw:d@db-1:6432,db-2/events?sslmode=require&connect_timeout=7&ssl=require";
    let pairs =
        r"user=us@er password = 'p/w:d' host=db-1,db-2 port=6432,5432 dbname=events sslmode=require connect_timeout=7";
    for text in [url, &url.replace("postgres:", "postgresql+asyncpg:"), pairs] {
        let target = parse(text).unwrap();
        let config = target.config;
        assert_eq!(config.get_user(), Some("us@er"));
        assert_eq!(config.get_password(), Some(&b"p/w:d"[..]));
        assert_eq!(config.get_dbname(), Some("events"));
        assert_eq!(config.get_hosts(), [Host::Tcp("db-1".into()), Host::Tcp("db-2".into())]);
        assert_eq!(config.get_ports(), [6432, 5432]);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(target.tls.mode, Some(SslMode::Require));
    }
}

#[test]
fn sockets_and_addresses_are_hosts() {
    for text in [
        "postgresql:///events?host=/tmp/pg&port=5433",
        "postgresql://%2Ftmp%2Fpg:5433/events",
        "host=/tmp/pg port=5433 dbname=events",
    ] {
        let config = parse(text).unwrap().config;
        assert_eq!(config.get_hosts(), [Host::Unix("/tmp/pg".into())], "{text}");
        assert_eq!(config.get_ports(), [5433]);
    }
    let config = parse("postgresql://[::1]:5433/events").unwrap().config;
    assert_eq!(config.get_hosts(), [Host::Tcp("::1".into())]);
    let config = parse("host=db hostaddr=10.0.0.1").unwrap().config;
    assert_eq!(config.get_hostaddrs(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn quotes_and_backslashes_are_libpqs() {
    let config = parse(r"host=db password='it\'s a \\' user=a\ b").unwrap().config;
    assert_eq!(config.get_password(), Some(&br"it's a \"[..]));
    assert_eq!(config.get_user(), Some("a b"));
}

#[test]
fn wrong_value_is_told_without_the_secret() {
    for text in [
        "mysql://u:secret@h/d",
        "secret",
        "postgresql://u:secret%zz@h/d",
        "postgresql://u:secret@h:99999/d",
        "postgresql://u:secret@h/d?sslmode=maybe",
        "postgresql://u:secret@h/d?what=ever",
        "postgresql://u:secret@h/d?target_session_attrs=read-only",
        "postgresql://u:secret@h,i/d?port=1,2,3",
        "postgresql://u:secret@h/d?sslmode=require&sslrootcert=system",
        "password='secret",
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("DATABASE_URL: "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
