//! Long-term API keys of Amazon Bedrock: a service-specific credential of IAM, sent as it is.

use async_trait::async_trait;

use super::{Api, Credential, IAM, Profile, Proof, USERARN, USERNAME, User, asked, asked_once};
use crate::error::Result;
use crate::kind::Field;
use crate::secret::Secret;
use crate::services::{Input, Key, Operation, Protocol, Service};

/// An IAM user's API key.
pub(in crate::kinds) struct Bedrock;

const BEDROCK: Service = Service {
    name: "Bedrock",
    prefix: "bedrock",
    signs_as: None,
    id: "Bedrock",
    protocol: Protocol::Rest,
    global: false,
};
/// It costs nothing and changes nothing, and what Bedrock's own policy for such users allows, allows it.
const MODELS: Operation = asked(&BEDROCK, "ListFoundationModels", "bedrock:ListFoundationModels");
/// Few of the models: their names are of no interest.
const MODELS_PATH: &str = "/foundation-models?byProvider=amazon";
const AGE: &str = "credentialagedays";
const OLDEST: u32 = 36_600;

const API: Api = Api {
    what: "Bedrock API key",
    list: asked(&IAM, "ListServiceSpecificCredentials", "iam:ListServiceSpecificCredentials"),
    create: asked_once("CreateServiceSpecificCredential", "iam:CreateServiceSpecificCredential"),
    update: asked(&IAM, "UpdateServiceSpecificCredential", "iam:UpdateServiceSpecificCredential"),
    delete: asked(&IAM, "DeleteServiceSpecificCredential", "iam:DeleteServiceSpecificCredential"),
    last_used: None,
    scope: &[("ServiceName", "bedrock.amazonaws.com")],
    listed: &["ListServiceSpecificCredentialsResult", "ServiceSpecificCredentials"],
    made: &["CreateServiceSpecificCredentialResult", "ServiceSpecificCredential"],
    id: "ServiceSpecificCredentialId",
    key: "ServiceCredentialSecret",
    commands: ("list-service-specific-credentials", "delete-service-specific-credential"),
    option: "--service-specific-credential-id",
};

const PROFILE: Profile = Profile {
    names: &["bedrock-api-key"],
    summary: "a long-term API key of Amazon Bedrock, for what takes a bearer key and nothing else",
    example: r#"{"kind":"bedrock-api-key","username":"pipeline","credentialid":"ACCA…","AWS_BEARER_TOKEN_BEDROCK":"ABSK…"}"#,
    fields: &[
        USERNAME,
        USERARN,
        Field::optional("AWS_BEARER_TOKEN_BEDROCK", "", "the key, under the name that the SDKs look for"),
        Field::setting(
            "credentialid",
            "the id of the key, by which it is withdrawn; ServiceSpecificCredentialId to IAM",
        ),
        Field::setting(AGE, "days until a new key expires, 1 to 36600; without it a key does not expire").number(),
        Field::setting("region", "the Region in which the key is tried; without it, that of the secret"),
    ],
    permissions: &[
        "iam:ListServiceSpecificCredentials",
        "iam:CreateServiceSpecificCredential",
        "iam:UpdateServiceSpecificCredential",
        "iam:DeleteServiceSpecificCredential",
    ],
    what: API.what,
    ids: &["credentialid"],
    keys: &["AWS_BEARER_TOKEN_BEDROCK"],
    hint: " and has not expired",
    api: &API,
};

#[async_trait]
impl Credential for Bedrock {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn check(&self, user: &User<'_>, current: &Secret) -> Result<()> {
        user.region(current).map(drop)
    }

    fn days(&self, current: &Secret) -> Result<Option<u32>> {
        current.expose().number(AGE, 1, OLDEST)
    }

    async fn sign_in(&self, user: &User<'_>, secret: &Secret, id: &str, key: &str) -> Result<Proof> {
        let input = Input::Rest(MODELS_PATH, None);
        let Err(refusal) = user.ask_as(&MODELS, input, user.region(secret)?, Some(Key::Bearer(key))).await else {
            return Ok(Proof::Valid);
        };
        // Who is not allowed to ask and who is not known get one code. But only of a key that it knows can AWS say whose it
        // is, and it says so to whom it denies something.
        let said = refusal.said.as_deref().unwrap_or_default();
        let named = said.split_whitespace().find(|word| word.starts_with("arn:") && word.contains(":user/"));
        match refusal.code.as_deref() {
            Some("AccessDeniedException") if named.is_some() => {
                user.owns(PROFILE.what, id, named.unwrap_or_default())?;
                user.rotation.note(format!("the key is known to Bedrock, and no more could be tried with it: {said}"));
                Ok(Proof::Valid)
            }
            // Without a code it is not Bedrock that answers, but what stands before it and lets no such key through.
            Some(code @ ("AccessDeniedException" | "UnrecognizedClientException" | "ExpiredTokenException" | ""))
                if !refusal.error.is_transient() =>
            {
                let code = if code.is_empty() { "an error without a code" } else { code };
                Ok(Proof::Refused { by: "Bedrock".to_owned(), code: code.to_owned(), early: true })
            }
            _ => Err(refusal.error),
        }
    }
}
