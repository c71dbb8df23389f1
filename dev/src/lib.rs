//! Development tooling of keywheel, kept out of the product: a local Secrets Manager, private servers, the Lambda runtime.

pub mod authority;
pub mod client;
pub mod docs;
pub mod emulator;
pub mod moto;
pub mod mysql;
pub mod postgres;
pub mod python;
pub mod rabbitmq;
pub mod rds;
pub mod redis;
pub mod runtime;
pub mod server;
pub mod share;
pub mod smtp;
pub mod watch;
