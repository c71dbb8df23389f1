//! The Lambda function's cold start. The only file that reads the environment.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use keywheel::handler::{MARGIN, handle, silence_panics};
use keywheel::http::Http;
use keywheel::kind::{ElastiCache, Settings};
use keywheel::kinds::KINDS;
use keywheel::services::aws::Aws;
use keywheel::store::aws::{retries, timeouts};
use keywheel::{password, tls};
use lambda_runtime::{LambdaEvent, run, service_fn};
use serde_json::Value;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

fn main() -> Result<(), lambda_runtime::Error> {
    silence_panics();
    log_as_json();
    // One invocation at a time, so one thread.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(start())
}

async fn start() -> Result<(), lambda_runtime::Error> {
    let settings = Settings {
        passwords: password::Environment::read(variable),
        trust: variable("KEYWHEEL_CA_FILE").map_or_else(tls::Trust::default, |path| tls::Trust::with_file(path.into())),
        remove_pending: variable("KEYWHEEL_REMOVE_PENDING").is_some_and(|text| text == "true"),
        admin_secrets: variable("KEYWHEEL_ADMIN_SECRETS")
            .map(|arns| arns.split(',').map(|arn| arn.trim().to_owned()).collect())
            .unwrap_or_default(),
        username_limit: variable("USERNAME_CHARACTER_LIMIT"),
        elasticache: ElastiCache {
            secret: variable("SECRET_ARN"),
            user: variable("USER_NAME"),
            longest_wait: variable("MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS"),
            interval: variable("WAITING_RETRY_INTERVAL_IN_SECONDS"),
        },
        hosts: BTreeMap::new(),
    };
    // A file of authorities that cannot be read is told by the invocations that need it, where it is looked for.
    let http = Http::new(&settings.trust).or_else(|_| Http::new(&tls::Trust::default()))?;
    let aws = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.for_sdk())
        .retry_config(retries())
        .timeout_config(timeouts())
        .load()
        .await;
    let endpoint = variable("SECRETS_MANAGER_ENDPOINT").or_else(|| variable("AWS_ENDPOINT_URL_SECRETS_MANAGER"));
    let services = Aws::new(&aws, endpoint, http.clone());
    // The start runs at full speed, and the first step at the CPU share of the function's memory.
    if let Some(endpoint) = services.secrets_endpoint(&aws) {
        http.warm(&endpoint).await;
    }
    let (settings, services) = (&settings, &services);
    run(service_fn(|event: LambdaEvent<Value>| async move {
        let request = &event.context.request_id;
        let deadline = deadline(event.context.deadline());
        handle(event.payload, request, deadline, settings, &KINDS, services).await
    }))
    .await
}

/// A variable that is set and not empty; for passwords an empty one says something, so they see it.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty() || password::Environment::VARIABLES.contains(&name))
}

/// Lambda's deadline, which is a time of day, on the clock that timeouts use.
fn deadline(end: SystemTime) -> Instant {
    // Local runtimes send one that is long past: `cargo lambda watch` one in 1970.
    let left = end.duration_since(SystemTime::now()).unwrap_or(Duration::from_mins(1));
    Instant::now() + left.saturating_sub(MARGIN)
}

fn log_as_json() {
    // Lambda sets the variable from the function's logging configuration.
    let level = variable("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    // Libraries are kept from printing requests at any level, and the runtime from printing our errors a second time.
    let targets = Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_target("keywheel", level)
        .with_target("lambda_runtime", LevelFilter::INFO.min(level))
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false);
    tracing_subscriber::registry().with(lines).with(targets).init();
}
