//! A Lambda function that only answers: what `make bench` measures keywheel against.

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

fn main() -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(service_fn(hello)))
}

async fn hello(_: LambdaEvent<Value>) -> Result<Value, Error> {
    Ok(json!("hello"))
}
