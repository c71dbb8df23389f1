//! Secrets that bring their own recipe, or name a parameter of Systems Manager that has it.

use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::recipe::Recipe;
use super::{NETWORK, Provider};
use crate::error::{Class as Failure, Code, Error, Result};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::secret::{Secret, SecretText};
use crate::services::{Input, Operation, Protocol, Request, Service};
use crate::tls::SSLROOTCERT;

/// A secret that brings its own recipe.
pub(in crate::kinds) struct Own;

const RECIPE: &str = "recipe";

const SSM: Service = Service {
    name: "Systems Manager",
    prefix: "ssm",
    signs_as: None,
    id: "SSM",
    protocol: Protocol::Json("AmazonSSM"),
    global: false,
};
const GET_PARAMETER: Operation =
    Operation { name: "GetParameter", action: "ssm:GetParameter", service: &SSM, repeatable: true };

#[async_trait]
impl Kind for Own {
    fn names(&self) -> &'static [&'static str] {
        &["http"]
    }

    fn summary(&self) -> &'static str {
        "the key of any HTTP API, by a recipe that the secret brings or names"
    }

    fn example(&self) -> &'static str {
        r#"{"kind":"http","recipe":"ssm:/keywheel/recipes/gateway","token":"…","token_id":"…","adminarn":"arn:aws:secretsmanager:…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            Field {
                mounted: false,
                ..Field::required(
                    RECIPE,
                    "the recipe: an object, a text in TOML, or `ssm:` and the name of a parameter that holds either",
                )
            },
            Field::setting("token", "the credential, under the name that the recipe's `fields` give it"),
            Field::setting("token_id", "as `token`; and whatever else the recipe's `fields` name"),
            Field::setting(
                "adminarn",
                "ARN of the secret of an administrator, if the recipe has `admin`; also `masterarn`",
            ),
            NETWORK,
            SSLROOTCERT,
        ];
        FIELDS
    }

    fn mints(&self) -> bool {
        true
    }

    /// What the recipes that come with keywheel ask for too: the template has one entry for all.
    fn permissions(&self) -> &'static [&'static str] {
        &[
            "ssm:GetParameter",
            "grafana:ListWorkspaceServiceAccountTokens",
            "grafana:CreateWorkspaceServiceAccountToken",
            "grafana:DeleteWorkspaceServiceAccountToken",
        ]
    }

    async fn of_secret(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<Option<Box<dyn Kind>>> {
        let fields = secret.expose();
        let fetched;
        let read = match fields.value(RECIPE) {
            Some(Value::Object(recipe)) => Recipe::of(Value::Object(recipe.clone()), false),
            Some(Value::String(text)) if text.starts_with("ssm:") => {
                fetched = parameter(rotation, &text["ssm:".len()..]).await?;
                written(fetched.expose())
            }
            _ => written(fields.required(RECIPE)?),
        };
        let recipe = read.map_err(|why| {
            Error::config(Code::Recipe, format!("the recipe cannot be used: {why}"))
                .hint("docs/recipes.md has the format, and its schema lets an editor check it")
        })?;
        let provider =
            Provider { names: self.names(), text: "", recipe: OnceLock::from(recipe), told: OnceLock::new() };
        Ok(Some(Box::new(provider)))
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        Err(unread())
    }

    async fn create(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Secret> {
        Err(unread())
    }

    async fn set(&self, _rotation: &Rotation<'_>, _versions: Versions<'_>) -> Result<()> {
        Err(unread())
    }

    async fn test(&self, _rotation: &Rotation<'_>, _pending: &Secret) -> Result<()> {
        Err(unread())
    }
}

/// The engine asks [`Own::of_secret`] first.
fn unread() -> Error {
    Error::new(Failure::Internal, Code::Recipe, "the recipe has not been read")
}

/// A recipe as text: JSON or TOML.
fn written(text: &str) -> std::result::Result<Recipe, String> {
    if text.trim_start().starts_with('{') {
        let root = serde_json::from_str(text).map_err(|error| format!("line {} is not JSON", error.line()))?;
        return Recipe::of(root, false);
    }
    Recipe::read(text, false)
}

async fn parameter(rotation: &Rotation<'_>, name: &str) -> Result<SecretText> {
    let own = rotation.arn()?;
    let of = if name.starts_with("arn:") {
        rotation.check_account(name)?;
        name.to_owned()
    } else {
        format!("arn:{}:ssm:{}:{}:parameter/{}", own.partition, own.region, own.account, name.trim_start_matches('/'))
    };
    let input = json!({"Name": name, "WithDecryption": true});
    let request =
        Request { operation: &GET_PARAMETER, of: &of, region: own.region, input: Input::Json(&input), key: None };
    let answer = rotation.services.ask(&request).await.map_err(|refusal| {
        if refusal.code.as_deref() == Some("ParameterNotFound") {
            return Error::config(Code::Recipe, format!("there is no parameter {name:?} with the recipe"))
                .hint("put the recipe there with `aws ssm put-parameter`, or mend field \"recipe\"");
        }
        refusal.error
    })?;
    let text = answer.json().pointer("/Parameter/Value").and_then(Value::as_str);
    text.map(|it| SecretText::from(it.to_owned()))
        .ok_or_else(|| Error::transient(Code::Aws, "the answer to GetParameter cannot be read"))
}
