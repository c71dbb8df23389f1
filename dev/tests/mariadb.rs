//! The private MariaDB: who gets in, and what a test can look for in it.

use std::net::TcpStream;

use keywheel_dev::mysql::{Options, Server};
use mysql_async::prelude::Queryable as _;
use mysql_async::{ClientIdentity, Conn, Error, SslOpts};

fn code<T>(result: Result<T, Error>) -> Option<u16> {
    match result.err()? {
        Error::Server(error) => Some(error.code),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn accounts_sign_in_and_the_log_has_their_statements() {
    let server = Server::start(&Options::default()).unwrap();
    for (user, host) in [("anywhere", "%"), ("network", "127.0.0.%"), ("local", "localhost")] {
        server.execute(&format!("CREATE USER {user}@'{host}' IDENTIFIED BY 'a password'; DO 1")).await.unwrap();
        server.connect(user, "a password").await.unwrap().query_drop("DO 'said by a client'").await.unwrap();
        assert_eq!(code(server.connect(user, "another").await), Some(1045));
    }
    assert_eq!(code(server.connect("nobody", "").await), Some(1045));
    assert_eq!(code(server.execute("DO 1; nonsense").await), Some(1064), "the last statement counts too");
    let log = server.log().unwrap();
    assert!(log.contains("DO 'said by a client'") && log.contains("ready for connections"), "{log}");
    assert!(!log.contains("SELECT"), "a client asks for settings: {log}");
    assert_eq!(server.root(), "");
    assert!(server.binlog().is_err(), "nothing is no log without the password");

    let users = server.rows("SELECT user, NULL FROM mysql.user WHERE NOT is_role ORDER BY 1").await;
    let users = users.unwrap_or_default();
    assert_eq!(users, server.rows("SELECT user, NULL FROM mysql.global_priv ORDER BY 1").await.unwrap());
    let users: Vec<Option<&str>> = users.iter().map(|row| row[0].as_deref()).collect();
    assert_eq!(users, ["anywhere", "local", "mariadb.sys", "network", "root"].map(Some));
}

#[tokio::test]
async fn tls_and_the_certificates_of_clients() {
    let server = Server::start(&Options { tls: true, ..Options::default() }).unwrap();
    server.execute("CREATE USER app IDENTIFIED BY 'a password' REQUIRE SUBJECT '/CN=the client'").await.unwrap();
    let tls = SslOpts::default().with_root_certs(vec![server.root().as_bytes().to_vec().into()]);
    let sign_in = |tls: SslOpts| {
        Conn::new(server.client().ip_or_hostname("localhost").user(Some("app")).pass(Some("a password")).ssl_opts(tls))
    };
    assert_eq!(code(server.connect("app", "a password").await), Some(1045));
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
    let server = Server::start(&Options { settings, ..Options::default() }).unwrap();
    server.execute("CREATE DATABASE \"of the test\"").await.unwrap();
    let binlog = server.binlog().unwrap();
    assert!(String::from_utf8_lossy(&binlog).contains("CREATE DATABASE \"of the test\""));
    let (port, folder) = (server.port(), server.folder().to_owned());
    drop(server);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it runs on");
    assert!(!folder.exists());

    let error = Server::start(&Options { settings: vec!["no-such-setting=1".to_owned()], ..Options::default() });
    assert!(error.err().unwrap().to_string().contains("no-such-setting"));
}
