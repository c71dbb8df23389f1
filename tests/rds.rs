//! RDS, through the AWS SDK, against moto.

#![cfg(feature = "rds")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use keywheel::error::{Class, Code};
use keywheel::http::Http;
use keywheel::services::aws::Aws;
use keywheel::services::{Managed, Services};
use keywheel::tls::Trust;
use keywheel_dev::moto::Moto;

#[tokio::test]
async fn databases_are_found_by_arn_and_replicas_by_host_name() {
    let moto = Moto::start().await.unwrap();
    let made = moto.run("tests/moto/create_databases.py", &[]).unwrap();
    let made: Vec<&str> = made.lines().collect();
    let [instance, cluster, one, copy, member, other_member, reader] = made[..] else { panic!("{made:?}") };
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(moto.url())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("local", "local", None, None, "static")))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let aws = Aws::new(&config, None, Http::new(&Trust::default()).unwrap());
    let found = aws.endpoint(Managed::Instance(instance)).await.unwrap();
    assert!(found.host.starts_with("one.") && found.port == 5433 && found.engine == "postgres", "{found:?}");
    let found = aws.endpoint(Managed::Cluster(cluster)).await.unwrap();
    assert!(found.host.starts_with("many.") && found.port == 5432 && found.engine == "aurora-postgresql", "{found:?}");

    let gone = instance.replace("one", "two");
    let error = aws.endpoint(Managed::Instance(&gone)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Request), "{error}");
    assert!(
        error.to_string().contains(&format!("DescribeDBInstances of {gone} fails with DBInstanceNotFound")),
        "{error}"
    );

    for (replica, source, expected) in [
        (copy, one, true),
        (one, copy, false),
        (member, other_member, true),
        (reader, member, true),
        (member, one, false),
        (copy, "elsewhere.invalid", false),
        ("elsewhere.invalid", one, false),
    ] {
        assert_eq!(aws.replicates(replica, source).await.unwrap(), expected, "{replica} of {source}");
    }
}
