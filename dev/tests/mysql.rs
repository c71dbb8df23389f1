//! The private MySQL: what differs from the private MariaDB, and that the same holds for it.

use keywheel_dev::mysql::{Flavour, Options, Server};
use mysql_async::prelude::Queryable as _;
use mysql_async::{ClientIdentity, Conn, Error, SslOpts};

fn options() -> Options {
    Options { flavour: Flavour::MySql, ..Options::default() }
}

fn code<T>(result: Result<T, Error>) -> Option<u16> {
    match result.err()? {
        Error::Server(error) => Some(error.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn accounts_sign_in_without_tls_and_the_log_has_their_statements() {
    let server = Server::start(&options()).unwrap();
    for (user, host) in [("anywhere", "%"), ("network", "127.0.0.%"), ("local", "localhost")] {
        let account =
            format!("CREATE USER {user}@'{host}' IDENTIFIED WITH caching_sha2_password BY 'a password'; DO 1");
        server.execute(&account).await.unwrap();
        // The first time the whole password, which the server's key hides; then what it remembers of it.
        for _ in 0..2 {
            server.connect(user, "a password").await.unwrap().query_drop("DO 'said by a client'").await.unwrap();
        }
        assert_eq!(code(server.connect(user, "another").await), Some(1045));
    }
    // To hide who exists, the server asks strangers for any of its plugins, some of which the driver has not.
    server.connect("nobody", "").await.unwrap_err();
    let log = server.log().unwrap();
    assert!(log.contains("DO 'said by a client'") && log.contains("ready for connections"), "{log}");
    assert!(!log.contains("SELECT"), "a client asks for settings: {log}");
    assert_eq!(server.root(), "");
    assert!(server.binlog().is_err(), "nothing is no log without the password");
    let tls = SslOpts::default().with_danger_accept_invalid_certs(true);
    let tls = Conn::new(server.client().user(Some("anywhere")).pass(Some("a password")).ssl_opts(tls)).await;
    assert!(tls.is_err(), "it speaks TLS, which nobody has asked for");
}

#[tokio::test]
async fn tls_and_the_certificates_of_clients() {
    let server = Server::start(&Options { tls: true, ..options() }).unwrap();
    server.execute("CREATE USER app IDENTIFIED BY 'a password' REQUIRE SUBJECT '/CN=the client'").await.unwrap();
    let tls = SslOpts::default().with_root_certs(vec![server.root().as_bytes().to_vec().into()]);
    let sign_in = |tls: SslOpts| {
        Conn::new(server.client().ip_or_hostname("localhost").user(Some("app")).pass(Some("a password")).ssl_opts(tls))
    };
    assert_eq!(code(sign_in(tls.clone()).await), Some(1045));
    for (name, expected) in [("the client", None), ("somebody else", Some(1045))] {
        let (certificate, key) = server.authority().unwrap().client(name).unwrap();
        let identity = ClientIdentity::new(certificate.into_bytes().into(), key.into_bytes().into());
        assert_eq!(code(sign_in(tls.clone().with_client_identity(Some(identity))).await), expected, "{name}");
    }
}

#[tokio::test]
async fn settings_are_lines_of_its_configuration() {
    let settings = vec!["log-bin".to_owned(), "sql-mode=ANSI_QUOTES".to_owned()];
    let server = Server::start(&Options { settings, ..options() }).unwrap();
    server.execute("CREATE DATABASE \"of the test\"").await.unwrap();
    let binlog = server.binlog().unwrap();
    assert!(String::from_utf8_lossy(&binlog).contains("CREATE DATABASE \"of the test\""));
    let folder = server.folder().to_owned();
    drop(server);
    assert!(!folder.exists());

    let error = Server::start(&Options { settings: vec!["no-such-setting=1".to_owned()], ..options() });
    assert!(error.err().unwrap().to_string().contains("no-such-setting"));
}
