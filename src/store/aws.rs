//! AWS Secrets Manager. The only file that knows its SDK.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use super::memory::binary_value;
use super::{CURRENT, Description, PENDING, PREVIOUS, Put, Store, Version};
use crate::error::{Code, Error, Result};
use crate::secret::{Secret, SecretText};

/// Waits for AWS: a lost packet costs one attempt and not the step.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(6))
        .operation_timeout(Duration::from_secs(20))
        .build()
}

/// Throttling and failures of AWS are tried again, with growing pauses.
#[must_use]
pub fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(200))
}

/// One secret in AWS Secrets Manager.
pub struct AwsStore<'a> {
    client: &'a Client,
    secret_id: String,
}

impl<'a> AwsStore<'a> {
    /// The secret with this ARN or name.
    #[must_use]
    pub fn new(client: &'a Client, secret_id: &str) -> Self {
        Self { client, secret_id: secret_id.to_owned() }
    }

    fn explain<E>(&self, call: Call, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        explain(call, &self.secret_id, error)
    }
}

/// One of the calls: its permission, and what it needs of a KMS key.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) action: &'static str,
    pub(crate) kms: Option<&'static str>,
}

const fn call(name: &'static str, action: &'static str, kms: Option<&'static str>) -> Call {
    Call { service: "Secrets Manager", name, action, kms }
}

const DESCRIBE: Call = call("DescribeSecret", "secretsmanager:DescribeSecret", None);
const GET: Call = call("GetSecretValue", "secretsmanager:GetSecretValue", Some("kms:Decrypt"));
const PUT: Call = call("PutSecretValue", "secretsmanager:PutSecretValue", Some("kms:GenerateDataKey and kms:Decrypt"));
const UPDATE_STAGE: Call = call("UpdateSecretVersionStage", "secretsmanager:UpdateSecretVersionStage", None);
const LIST: Call = call("ListSecretVersionIds", "secretsmanager:ListSecretVersionIds", None);

#[async_trait]
impl Store for AwsStore<'_> {
    async fn describe(&self) -> Result<Description> {
        let described = self.client.describe_secret().secret_id(&self.secret_id).send().await;
        let described = described.map_err(|error| self.explain(DESCRIBE, &error))?;
        let pair = |tag: aws_sdk_secretsmanager::types::Tag| Some((tag.key?, tag.value.unwrap_or_default()));
        Ok(Description {
            arn: described.arn.unwrap_or_else(|| self.secret_id.clone()),
            rotation_enabled: described.rotation_enabled,
            stages: described.version_ids_to_stages.unwrap_or_default().into_iter().collect(),
            tags: described.tags.unwrap_or_default().into_iter().filter_map(pair).collect(),
        })
    }

    async fn get(&self, version: Version<'_>) -> Result<Option<Secret>> {
        let call = self.client.get_secret_value().secret_id(&self.secret_id);
        let call = match version {
            Version::Current => call.version_stage(CURRENT),
            Version::Previous => call.version_stage(PREVIOUS),
            Version::Pending(id) => call.version_id(id).version_stage(PENDING),
            Version::Unlabelled(id) => call.version_id(id),
        };
        match call.send().await {
            Ok(found) => match found.secret_string {
                Some(text) => Secret::parse(text).map(Some),
                None => Err(binary_value()),
            },
            Err(error) if is(&error, "ResourceNotFoundException") => Ok(None),
            Err(error) => Err(self.explain(GET, &error)),
        }
    }

    async fn put_pending(&self, token: &str, value: &Secret, rotation_token: Option<&SecretText>) -> Result<Put> {
        let call = self.client.put_secret_value().secret_id(&self.secret_id).client_request_token(token);
        let call = call.version_stages(PENDING).secret_string(value.expose().to_text().expose());
        match call.set_rotation_token(rotation_token.map(|it| it.expose().to_owned())).send().await {
            Ok(_) => Ok(Put::Stored),
            Err(error) if is(&error, "ResourceExistsException") => Ok(Put::Exists),
            Err(error) => Err(self.explain(PUT, &error)),
        }
    }

    async fn promote(&self, to: &str, from: Option<&str>) -> Result<()> {
        let call = self.client.update_secret_version_stage().secret_id(&self.secret_id).version_stage(CURRENT);
        let call = call.move_to_version_id(to).set_remove_from_version_id(from.map(str::to_owned));
        call.send().await.map(drop).map_err(|error| self.explain(UPDATE_STAGE, &error))
    }

    async fn unstage_pending(&self, token: &str) -> Result<()> {
        let call = self.client.update_secret_version_stage().secret_id(&self.secret_id).version_stage(PENDING);
        let call = call.remove_from_version_id(token);
        call.send().await.map(drop).map_err(|error| self.explain(UPDATE_STAGE, &error))
    }

    async fn unlabelled(&self) -> Result<Vec<String>> {
        let call = self.client.list_secret_version_ids().secret_id(&self.secret_id);
        let listed = call.include_deprecated(true).max_results(100).send().await;
        let listed = listed.map_err(|error| self.explain(LIST, &error))?;
        let mut versions = listed.versions.unwrap_or_default();
        versions.retain(|version| version.version_stages().is_empty());
        versions.sort_by_key(|version| std::cmp::Reverse(version.created_date.map(|date| date.as_nanos())));
        Ok(versions.into_iter().filter_map(|version| version.version_id).collect())
    }

    async fn created(&self, id: &str) -> Result<Option<SystemTime>> {
        let listed = self.client.list_secret_version_ids().secret_id(&self.secret_id).max_results(100).send().await;
        let listed = listed.map_err(|error| self.explain(LIST, &error))?;
        let version = listed.versions().iter().find(|version| version.version_id() == Some(id));
        Ok(version.and_then(|version| SystemTime::try_from(*version.created_date()?).ok()))
    }
}

fn is<E: ProvideErrorMetadata>(error: &SdkError<E>, code: &str) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some(code)
}

/// What an operator can read: the call, the secret, the code, the service's own sentence, and what to do.
pub(crate) fn explain<E>(call: Call, of: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Call { service, name, .. } = call;
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            refused(call, of, answer.err().code(), answer.err().message(), status)
        }
        SdkError::TimeoutError(_) => {
            Error::transient(Code::Timeout, format!("no answer from {service} to {name} in time"))
                .hint(Code::Aws.remedy())
        }
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map(|error| chain(error)).unwrap_or_default();
            let code = if failure.is_timeout() { Code::Timeout } else { Code::Aws };
            Error::transient(code, format!("{name} does not reach {service}: {cause}")).hint(Code::Aws.remedy())
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            Error::transient(Code::Aws, format!("the answer to {name} cannot be read (HTTP {status})"))
        }
        other => Error::config(Code::Environment, format!("{name} cannot be sent: {}", chain(other)))
            .hint("check AWS_REGION, the credentials of the function's role and SECRETS_MANAGER_ENDPOINT"),
    }
}

/// The error for an answer with an error's code, and the sentence that the service `said`.
pub(crate) fn refused(call: Call, of: &str, code: Option<&str>, said: Option<&str>, status: u16) -> Error {
    let Call { name, action, .. } = call;
    let code = code.unwrap_or("an error without a code");
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    let message = format!("{name} of {of} fails with {code}{said}");
    match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
            Error::config(Code::AccessDenied, message).hint(match call.kms {
                Some(kms) => format!(
                    "allow {action} on it for the function's role; with a KMS key of your own, also {kms} on that key"
                ),
                None => format!("allow {action} on it for the function's role"),
            })
        }
        "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch" => Error::config(Code::AccessDenied, message)
            .hint("check the function's role, its credentials and the endpoint's Region"),
        "DecryptionFailure" | "EncryptionFailure" => Error::config(Code::Kms, message).hint(format!(
            "check that the secret's KMS key is enabled, and allow {} on it for the function's role",
            call.kms.unwrap_or("its use")
        )),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded" => Error::transient(Code::Throttled, message),
        _ if status >= 500 => Error::transient(Code::Aws, message),
        _ if status == 429 => Error::transient(Code::Throttled, message),
        "ResourceNotFoundException" => {
            Error::config(Code::Request, message).hint("check the secret's name or ARN, and the Region of the endpoint")
        }
        _ => Error::config(Code::Request, message),
    }
}

/// An error and its causes; the SDK's own text is only `dispatch failure`.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Wrappers often repeat what they wrap.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
