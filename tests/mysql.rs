//! The kind `mysql` against Oracle's MySQL of its own, where one can be had: `make test` runs this then.

#![cfg(feature = "mysql")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use keywheel_dev::mysql::{Flavour, Options, Server};

#[tokio::test]
async fn the_server_is_mysql() {
    let server = Server::start(&Options { flavour: Flavour::MySql, ..Options::default() }).unwrap();
    let rows = server.rows("SELECT VERSION(), CURRENT_USER()").await.unwrap();
    let [version, user] = rows[0].as_slice() else { panic!("{rows:?}") };
    let version = version.as_deref().unwrap();
    assert!(version.starts_with(|first: char| first.is_ascii_digit()) && !version.contains("MariaDB"), "{version}");
    assert_eq!(user.as_deref(), Some("root@localhost"));
}
