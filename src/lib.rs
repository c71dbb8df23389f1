//! Rotates the credentials that AWS Secrets Manager holds, in the four steps of its rotation protocol.
//!
//! | read | for |
//! | --- | --- |
//! | [`rotate`] | the protocol: guards, steps, labels, repetition |
//! | [`kind`], [`kinds`] | what a kind of credential is, and the registry of them |
//! | [`event`], [`handler`] | one invocation from JSON to answer |
//! | [`store`] | the calls to Secrets Manager, and its rules in memory |
//! | [`services`] | what else a rotation may ask of AWS |
//! | [`secret`], [`password`] | values, and how new ones are made |
//! | [`tls`], [`http`] | whom connections trust, and the one HTTP client |
//! | [`error`] | who has to act |
//!
//! A rotation of a shared token, without AWS:
//!
//! ```
//! use keywheel::kind::Settings;
//! use keywheel::store::memory::{Payload, Service};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let aws = Service::new();
//! let value = Payload::Text(r#"{"kind":"random","token":"old"}"#.to_owned());
//! # let refused = |refusal: keywheel::store::memory::Refusal| refusal.message;
//! aws.create("gateway", "11111111-1111-4111-8111-111111111111", Some(value)).map_err(refused)?;
//! aws.edit("gateway", |secret| secret.rotation_function = Some("keywheel".to_owned())).map_err(refused)?;
//!
//! let token = "22222222-2222-4222-8222-222222222222";
//! aws.begin_rotation("gateway", token).map_err(refused)?;
//! for step in ["createSecret", "setSecret", "testSecret", "finishSecret"] {
//!     let event = json!({"Step": step, "SecretId": "gateway", "ClientRequestToken": token});
//!     let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
//!     keywheel::handler::handle(event, "local", deadline, &Settings::default(), &keywheel::kinds::KINDS, &aws).await?;
//! }
//! let (version, _value, labels) = aws.get("gateway", None, Some("AWSCURRENT")).map_err(refused)?;
//! assert_eq!(version, token);
//! # Ok(())
//! # }
//! ```

mod admin;
mod amqp;
mod api;
pub mod error;
pub mod event;
pub mod handler;
pub mod http;
pub mod kind;
pub mod kinds;
mod net;
pub mod password;
mod resp;
pub mod rotate;
pub mod secret;
pub mod services;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sql;
pub mod store;
pub mod tls;
mod wire;

/// The example of how to add a kind, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../CONTRIBUTING.md")]
struct Contributing;
